"""The pictures of plans: bars and lines are what the plans say, and machines differ in more than colour."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import pytest
from matplotlib import pyplot

from course_utils.errors import InputError
from course_utils.family import FAMILY
from course_utils.planner import H100, L4, plan
from course_utils.plots.planning import memory_plan, split_matrices

matplotlib.use("agg")
SIZES = ("0.6B", "8B", "32B")


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    pyplot.close("all")


def test_bars_are_the_parts_of_the_plans() -> None:
    plans = {size: plan(FAMILY[f"Qwen/Qwen3-{size}"], H100, users=16) for size in SIZES}
    ax = memory_plan(plans).axes[0]
    bars = [container for container in ax.containers]
    for row, each in enumerate(plans.values()):
        widths = [container.patches[row].get_width() for container in bars]
        assert widths == pytest.approx([each.weights / 1e9, each.caches / 1e9, each.workspace / 1e9])
        assert bars[2].patches[row].get_x() == pytest.approx((each.weights + each.caches) / 1e9)
    assert len({container.patches[0].get_hatch() for container in bars}) == 3
    assert [label.get_text() for label in ax.get_yticklabels()] == list(SIZES)


@pytest.mark.parametrize(("gpu", "counts"), [(H100, [1]), (L4, [1, 2, 4])])
def test_lines_are_what_so_many_gpus_hold(gpu, counts: list[int]) -> None:
    ax = memory_plan({"32B": plan(FAMILY["Qwen/Qwen3-32B"], gpu)}).axes[0]
    lines = [line.get_xdata()[0] for line in ax.lines]
    assert lines == pytest.approx([0.9 * count * gpu.memory / 1e9 for count in counts])
    assert [text.get_text() for text in ax.texts] == [f"{count} {gpu.name}" for count in counts]
    assert max(lines) < ax.get_xlim()[1]


def test_plans_must_be_for_one_kind_of_gpu() -> None:
    small = FAMILY["Qwen/Qwen3-0.6B"]
    with pytest.raises(InputError, match="2 kinds of GPU"):
        memory_plan({"a": plan(small, H100), "b": plan(small, L4)})
    with pytest.raises(InputError, match="0 kinds"):
        memory_plan({})


def test_halves_make_up_the_whole() -> None:
    by_outputs, by_inputs = split_matrices().axes
    looks = {(patch.get_edgecolor(), patch.get_hatch()) for ax in (by_outputs, by_inputs) for patch in ax.patches}
    assert len({color for color, _ in looks}) == len({hatch for _, hatch in looks}) == 3  # both machines, and neither
    shared, left, right = by_outputs.patches[:3]
    assert left.get_width() + right.get_width() == shared.get_width() and left.get_height() == right.get_height()
    upper, lower = by_inputs.patches[2:4]
    assert upper.get_y() == lower.get_y() + lower.get_height() and upper.get_width() == lower.get_width()
    assert [text.get_text() for text in by_inputs.texts][-1] == "+"
