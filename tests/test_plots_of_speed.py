"""The pictures of speed: each bar, mark and point stands where the figures say."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import pytest
from matplotlib import pyplot

from course_utils.benchmark.report import Report, RowResult, Run, Settings
from course_utils.config import Qwen3Config
from course_utils.costs import pass_flops
from course_utils.errors import InputError
from course_utils.plots.speed import Point, benchmark_picture, benchmark_sentence, roofline, speed_bars

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    pyplot.close("all")


def report(runs: list[Run]) -> Report:
    rows = [RowResult("regular", "regular", weight_bytes=1000, runs=runs),
            RowResult("kv", "KV cache", weight_bytes=1000, cache_bytes=10, runs=runs),
            RowResult("int8", "int8", problem="there are no wheels")]
    return Report("2026-11-21T00:00:00+00:00", "small", "random weights", Qwen3Config(), Settings(prompt_tokens=9), {},
                  {}, 1, rows, arithmetic=1e12)


RUNS = [Run(first=3.0, steps=[0.5, 0.5], bandwidth=1e9), Run(first=3.0, steps=[0.25, 0.25], bandwidth=2e9)]


def test_the_limit_is_inside_the_picture() -> None:
    fig = speed_bars({"regular": 2.0, "compiled": 3.0}, limit=10.0)
    ax = fig.axes[0]
    assert [patch.get_width() for patch in ax.patches] == [2.0, 3.0]
    assert ax.get_xlim()[1] > 10 and fig.legends[0].get_texts()[0].get_text() == "limit of the memory: 10.0"


def test_the_axis_says_of_what_the_speeds_are() -> None:
    speeds = {"regular": 2.0, "compiled": 3.0}
    labels = [speed_bars(speeds, 4.0, what).axes[0].get_xlabel() for what in ("", "4 of 28 layers")]
    assert labels == ["tokens per second", "tokens per second, 4 of 28 layers"]


def test_each_bar_has_its_own_limit() -> None:
    fig = speed_bars({"bf16": 2.0, "int8": 3.0}, {"int8": 8.0, "bf16": 4.0})
    ax = fig.axes[0]
    assert [patch.get_width() for patch in ax.patches] == [2.0, 3.0]
    assert list(ax.lines[0].get_xdata()) == [4.0, 8.0]
    assert ax.get_xlim()[1] > 8
    assert fig.legends[0].get_texts()[0].get_text() == "limit of the memory"


def test_roofs_meet_at_the_ridge() -> None:
    fig = roofline({"kv": Point(1.0, 5e9)}, {"kv": Point(300.0, 80e9), "int8": Point(600.0, 90e9)}, bandwidth=10e9,
                   arithmetic=100e9)
    ax = fig.axes[0]
    roof, decode, prefill = ax.lines
    assert (roof.get_xdata()[1], roof.get_ydata()[1]) == (10.0, 100.0)
    assert roof.get_ydata()[0] / roof.get_xdata()[0] == pytest.approx(10.0)
    assert (list(decode.get_xdata()), list(decode.get_ydata())) == ([1.0], [5.0])
    assert (list(prefill.get_xdata()), list(prefill.get_ydata())) == ([300.0, 600.0], [80.0, 90.0])
    assert decode.get_marker() != prefill.get_marker()
    low, high = ax.get_ylim()
    assert low < 5 and high > 100


def test_names_do_not_stand_on_each_other() -> None:
    names = [f"row {number}" for number in range(8)]
    ax = roofline({name: Point(1.0, 5e9) for name in names}, {name: Point(99.0, 50e9) for name in names}, 10e9,
                  100e9).axes[0]
    for x in (1.0, 99.0):
        heights = [text.xyann[1] for text in ax.texts if text.xy[0] == x]
        assert len(heights) == 8 and all(above / below > 1.1 for above, below in zip(heights, heights[1:]))
    assert min(text.xyann[1] for text in ax.texts) > ax.get_ylim()[0]


def test_the_picture_of_a_benchmark() -> None:
    above, below = benchmark_picture(report(RUNS)).axes
    assert [patch.get_width() for patch in above.patches] == [3.0, 3.0]  # medians of 2 and 4; int8 has none
    assert list(above.lines[0].get_xdata()) == [2e9 / 1000, 2e9 / 1100]  # the cache holds 10 tokens on average
    _, decode, prefill = below.lines
    alone, whole = pass_flops(Qwen3Config(), 1, 10), pass_flops(Qwen3Config(), 11)
    assert list(decode.get_xdata()) == [whole / 1000, alone / 1100]
    assert list(decode.get_ydata()) == pytest.approx([3 * whole / 1e9, 3 * alone / 1e9])
    assert list(prefill.get_ydata()) == pytest.approx([pass_flops(Qwen3Config(), 9) / 3 / 1e9] * 2)


def test_the_sentence_has_the_speeds() -> None:
    assert "(regular 3.0, KV cache 3.0)" in benchmark_sentence(report(RUNS))


def test_nothing_measured_is_nothing_to_draw() -> None:
    with pytest.raises(InputError, match="at least one row"):
        benchmark_picture(report([]))
