"""The pictures of chapters 6 and 7: what they count and what they draw is what they were given."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from course_utils.family import FAMILY
from course_utils.plots.cache_kinds import cache_kinds
from course_utils.plots.cache_memory import cache_memory
from course_utils.plots.call_times import call_times
from course_utils.plots.figure import CACHED, GENERATED, PROMPT, SERIES
from course_utils.plots.speed_bars import speed_bars
from course_utils.plots.step_time import step_time

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    pyplot.close("all")


def cells(fig: Figure, panel: int) -> list[int]:
    """How many cells have the look of the prompt, a new token, what stays, what is copied, and what lies idle."""
    looks = [(patch.get_facecolor(), patch.get_edgecolor()) for patch in fig.axes[panel].patches]
    return [looks.count((to_rgba(face), to_rgba(edge))) for face, edge in (
        (PROMPT, "white"), (GENERATED, "white"), (CACHED, "white"), ("white", CACHED), ("white", SERIES[2]))]


def test_a_growing_cache_copies_and_a_fixed_one_reserves() -> None:
    fig = cache_kinds(4, 3, 10)
    assert cells(fig, 0) == [4, 3, 0, 4 + 5 + 6, 0]
    assert cells(fig, 1) == [4, 3, 4 + 5 + 6, 0, 6 + 5 + 4 + 3]


def test_memory_lines_end_where_the_formula_does() -> None:
    config = FAMILY["Qwen/Qwen3-0.6B"]
    lines = {line.get_label(): line.get_ydata() for line in
             cache_memory({"model": config}, 1000, {"weights": 1_200_000_000}).axes[0].lines}
    assert list(lines["model"]) == [0, pytest.approx(1000 * 2 * 28 * 8 * 128 * 2 / 1e9)]
    assert set(lines["weights"]) == {1.2}


@pytest.mark.parametrize("fig", [
    lambda: step_time([8, 16], [0.2, 0.4], [0.1, 0.1]), lambda: call_times([0.2, 0.1], [5.0, 0.05])])
def test_lines_are_told_apart_by_more_than_colour(fig) -> None:
    lines = fig().axes[0].lines
    assert len({line.get_marker() for line in lines}) == len({line.get_label() for line in lines}) == len(lines) == 2


def test_the_limit_is_inside_the_picture() -> None:
    fig = speed_bars({"regular": 2.0, "compiled": 3.0}, limit=10.0)
    ax = fig.axes[0]
    assert [patch.get_width() for patch in ax.patches] == [2.0, 3.0]
    assert ax.get_xlim()[1] > 10 and fig.legends[0].get_texts()[0].get_text() == "limit of the memory: 10.0"
