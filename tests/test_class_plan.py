"""The plan of a server for a class: it counts as one would by hand, and its measured figures are there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from course_utils.errors import InputError
from course_utils.family import FAMILY
from course_utils.planner import L4, cache_bytes, weight_bytes, workspace_bytes

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "notebooks" / "workshop" / "hub"))

import plan  # noqa: E402  (a script beside the hub's configuration, not a module of the package)

TAKEN = plan.Taken(kernel=0.9e9, server=0.1e9, start=4.0, slowest=5.0, chapter=30.0)
SMALLEST = FAMILY["Qwen/Qwen3-0.6B"]


def test_a_class_without_a_gpu() -> None:
    needs = plan.plan_class(20, TAKEN)
    assert needs.memory == pytest.approx(20 * 1e9 + plan.HUB + plan.SYSTEM)
    assert needs.cores == 5 and needs.slowest == plan.WAIT  # 20 learners x 5 s / 5 cores
    assert (needs.start, needs.chapter) == (16.0, 120.0)
    assert (needs.gpus, needs.per_gpu, needs.cost) == (0, None, 0)
    fewer = plan.plan_class(20, TAKEN, cores=2)
    assert fewer.cores == 2 and fewer.slowest == 50.0 and fewer.memory == needs.memory


def test_one_learner_waits_for_nobody() -> None:
    assert plan.plan_class(1, TAKEN, cores=8).slowest == TAKEN.slowest


def test_processors_share_the_weights_of_a_file_and_gpus_do_not() -> None:
    own = cache_bytes(SMALLEST, plan.CONTEXT) + workspace_bytes(SMALLEST, plan.CONTEXT)
    shared = plan.plan_class(20, TAKEN, config=SMALLEST)
    assert shared.memory == pytest.approx(plan.plan_class(20, TAKEN).memory + 20 * own + weight_bytes(SMALLEST))
    needs = plan.plan_class(20, TAKEN, config=SMALLEST, gpu=L4, price=0.8, hours=3)
    assert needs.per_gpu == int(0.9 * 24e9 // (plan.CUDA + own + weight_bytes(SMALLEST)))
    assert needs.gpus == -(-20 // needs.per_gpu) and needs.cost == pytest.approx(needs.gpus * 2.4)
    assert needs.memory == plan.plan_class(20, TAKEN).memory


@pytest.mark.parametrize(("arguments", "message"), [
    ({"learners": 0}, "learners is 0"), ({"cores": 0}, "cores is 0"), ({"price": -1}, "price is -1"),
    ({"hours": float("nan")}, "hours is nan"),
    ({"config": FAMILY["Qwen/Qwen3-32B"], "gpu": L4}, "does not fit on one L4"),
])
def test_what_cannot_be_planned(arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        plan.plan_class(**{"learners": 5, "taken": TAKEN, **arguments})


def test_the_chapters_were_measured() -> None:
    numbers = [path.name.partition("_")[0].lstrip("0") for path in (REPOSITORY / "notebooks").glob("[0-9]*.ipynb")]
    runs = [run for each in json.loads(plan.MEASURED.read_text(encoding="utf-8"))["runs"] for run in each]
    measured = {run["chapter"].partition("_")[0].lstrip("0") for run in runs}
    assert measured == set(numbers) and not [run["errors"] for run in runs if run["errors"]]
    largest = plan.read_measured(plan.MEASURED, ",".join(measured))
    assert largest.kernel == max(run["peak"] for run in runs)
    five = plan.read_measured(plan.MEASURED, "5")
    assert five.kernel <= largest.kernel and five.slowest <= largest.slowest and 0 < five.start < 60
    assert plan.read_measured(plan.MEASURED, " 05 ") == five


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"runs": [[{}]]}', '{"runs": 3}'])
def test_a_file_that_is_no_rehearsal(text: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    file.write_text(text)
    with pytest.raises(InputError, match="is no rehearsal"):
        plan.read_measured(file, "5")
    with pytest.raises(InputError, match="is no rehearsal"):
        plan.read_measured(tmp_path / "none", "5")


def test_the_command(capsys) -> None:
    assert plan.main(["--learners", "30"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()] == ["Memory", "Cores", "GPU"] and "none" in printed
    assert plan.main(["--learners", "30", "--model", "qwen3-0.6b", "--gpu", "L4", "--price", "1"]) == 0
    assert "learners on each; together" in capsys.readouterr().out
    assert plan.main(["--learners", "30", "--chapters", "99"]) == 2
    assert "Nothing was measured for chapters '99'" in capsys.readouterr().err
