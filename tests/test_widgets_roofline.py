"""The roofline to play with: its limits are those of the planner, and its picture is where they come from."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import pytest
from matplotlib import pyplot

from course_utils.costs import pass_bytes, pass_flops
from course_utils.errors import ContextLengthError, InputError
from course_utils.family import FAMILY
from course_utils.planner import A100, GPUS, H100, L4, PRECISIONS, Gpu, Precision, pass_work, plan, weight_bytes
from course_utils.plots.planning import planned_roofline
from course_utils.widgets.roofline import explore_roofline, planned_limits

matplotlib.use("agg")
SMALL, BIG = "Qwen/Qwen3-0.6B", "Qwen/Qwen3-32B"
YOURS = Gpu("this machine, measured", 16e9, 31.37e9, 0.2718e12)


@pytest.fixture(autouse=True)
def no_figure_stays_open() -> Iterator[None]:
    yield
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("users", [1, 1000])
def test_limits_are_work_by_rate(gpu: Gpu, precision: Precision, users: int) -> None:
    """The limit of the planner and the roof of the picture are one thing said twice."""
    config = FAMILY[SMALL]
    planned = plan(config, gpu, precision, 2048, users)
    work = pass_work(config, precision, 1, 2047, users)
    if planned.gpus is not None:
        rate = planned.gpus * min(gpu.arithmetic, work.intensity * gpu.bandwidth)
        assert planned.tokens_per_second == pytest.approx(rate / work.flops)


def test_work_is_that_of_the_formulas_in_chapter_11() -> None:
    config = FAMILY[SMALL]  # tied: a pass reads all weights
    for new, past, batch in ((1, 0, 1), (1, 999, 16), (500, 0, 1)):
        work, moved = pass_work(config, "bfloat16", new, past, batch), pass_bytes(config, new, past, batch)
        assert (work.flops, work.num_bytes) == (pass_flops(config, new, past, batch), moved.total)
        quarter = pass_work(config, "int4", new, past, batch)
        assert moved.total - quarter.num_bytes == moved.weights - weight_bytes(config, "int4")


def test_points_stand_on_the_roof_and_the_memory_is_filled() -> None:
    config = FAMILY[BIG]
    planned = plan(config, L4, "int4", 8192, 16)
    works = pass_work(config, "int4", 1, 8191, 16), pass_work(config, "int4", 8192)
    figure = planned_roofline(planned, *works, YOURS)
    roofs, memory = figure.axes
    pyplot.close(figure)
    assert planned.gpus == 4
    roof, yours, decode, prefill = roofs.lines
    assert (roof.get_label(), yours.get_label()) == ("4 × L4", YOURS.name)
    assert roof.get_linestyle() != yours.get_linestyle() and decode.get_marker() != prefill.get_marker()
    assert max(roof.get_ydata()) == pytest.approx(4 * L4.arithmetic / 1e12)
    assert max(yours.get_ydata()) == pytest.approx(YOURS.arithmetic / 1e12)
    assert decode.get_ydata()[0] == pytest.approx(4 * works[0].intensity * L4.bandwidth / 1e12)
    assert prefill.get_ydata()[0] == pytest.approx(4 * L4.arithmetic / 1e12)
    assert [text.get_text() for text in roofs.texts] == ["decode:\nbound by memory", "prefill:\nbound by arithmetic"]
    widths = [bar.get_width() for bar in memory.patches]
    assert widths == pytest.approx([planned.weights / 1e9, planned.caches / 1e9, 4 * planned.workspace / 1e9])
    assert memory.lines[0].get_xdata()[0] == pytest.approx(0.9 * 4 * 24)


@pytest.mark.parametrize(("model", "gpu", "precision", "context", "users"), [
    (SMALL, H100, "bfloat16", 1, 1), (SMALL, L4, "int4", 40_960, 4000), (BIG, YOURS, "int4", 1, 100_000),
    (BIG, YOURS, "bfloat16", 40_960, 1), (BIG, Gpu("slow", 1e9, 1e9, 1e9), "int8", 4096, 1),
    (SMALL, Gpu("fast", 1e14, 1e14, 1e17), "int8", 40_960, 1),
])
def test_everything_stays_in_the_picture(model: str, gpu: Gpu, precision: Precision, context: int, users: int) -> None:
    config = FAMILY[model]
    works = pass_work(config, precision, 1, context - 1, users), pass_work(config, precision, context)
    figure = planned_roofline(plan(config, gpu, precision, context, users), *works, YOURS)
    figure.canvas.draw()
    pyplot.close(figure)
    roofs = figure.axes[0]
    (left, right), (bottom, top) = roofs.get_xlim(), roofs.get_ylim()
    for line in roofs.lines:
        assert all(left <= x <= right for x in line.get_xdata()) and all(bottom <= y <= top for y in line.get_ydata())
    whole, boxes = figure.bbox, [text.get_window_extent() for text in roofs.texts]
    labels = [label.get_window_extent() for axis in (roofs.xaxis, roofs.yaxis) for label in axis.get_ticklabels()]
    for box in (*boxes, *labels, roofs.yaxis.label.get_window_extent()):
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
    assert not boxes[0].overlaps(boxes[1])


def test_words_say_bound_limit_and_memory() -> None:
    each = plan(FAMILY[SMALL], A100, "int8", 1000, 3)
    sentence = planned_limits(SMALL, A100, "int8", 1000, 3).sentence
    assert sentence.startswith("Qwen3-0.6B in int8 on A100, texts of 1000 tokens, 3 at once.")
    assert f"at most {each.tokens_per_second:.1f} tokens/s for each user, {each.throughput:.1f} for all" in sentence
    assert "it fits." in sentence
    assert sentence.count("bound by memory") == sentence.count("bound by arithmetic") == 1
    assert "4 of them are needed." in planned_limits(BIG, L4, "bfloat16").sentence
    nowhere = planned_limits(BIG, Gpu("small", 8e9, 1e11, 1e12), "bfloat16").sentence
    assert "does not fit" in nowhere and "at most" not in nowhere


def test_controls_turn_the_plan() -> None:
    explorer = explore_roofline()
    assert explorer.view == planned_limits("Qwen/Qwen3-8B", H100)
    changes: dict[str, object] = {"model": SMALL, "precision": "int4", "context": 2000, "users": 7, "machine": "L4"}
    for name, value in changes.items():
        before = explorer.view
        explorer.controls[name].value = value
        assert explorer.view != before
    assert explorer.view == planned_limits(SMALL, L4, "int4", 2000, 7)
    for name, value in {"memory": 32, "bandwidth": 50, "arithmetic": 2}.items():
        explorer.controls[name].value = value
    assert explorer.view == planned_limits(SMALL, L4, "int4", 2000, 7)  # own numbers are not chosen
    explorer.controls["machine"].value = "own numbers"
    assert explorer.view == planned_limits(SMALL, Gpu("own numbers", 32e9, 50e9, 2e12), "int4", 2000, 7)


def test_a_measured_machine_is_drawn_and_its_numbers_are_not_said() -> None:
    explorer, without = explore_roofline(YOURS), explore_roofline()
    assert repr(explorer) == repr(without)  # what is compared is the same on every machine
    assert explorer.view.png != without.view.png
    explorer.controls["machine"].value = YOURS.name
    assert explorer.view == planned_limits("Qwen/Qwen3-8B", YOURS, measured=YOURS)


@pytest.mark.parametrize(("name", "value", "message"), [
    ("context", 0, "context is 0"), ("context", 50_000, "longer than the model's"), ("users", -1, "users is -1")])
def test_bad_numbers_are_refused_in_the_panel(name: str, value: int, message: str) -> None:
    explorer = explore_roofline()
    explorer.controls[name].value = value
    assert message in explorer.view.sentence and not explorer.view.png
    explorer.controls[name].value = 1
    assert explorer.view.png


def test_what_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="no model 'GPT'"):
        planned_limits("GPT", H100)
    with pytest.raises(InputError, match="no precision 'int2'"):
        planned_limits(SMALL, H100, "int2")  # type: ignore[arg-type]
    with pytest.raises(ContextLengthError, match="at most 40960"):
        planned_limits(SMALL, H100, context=40_961)
