"""The pictures of the key-value cache: what they count and what they draw is what they were given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import matplotlib
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from course_utils.family import FAMILY
from course_utils.plots.caching import cache_kinds, cache_memory, recomputation, reuse, step_time
from course_utils.plots.figure import CACHED, GENERATED, PROMPT, SERIES
from course_utils.plots.speed import call_times

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    pyplot.close("all")


def faces(cells: list[Patch]) -> dict[str, int]:
    """How many cells have which colour."""
    return dict(Counter(next(color for color in (PROMPT, GENERATED, CACHED, "white")
                             if to_rgb(color) == to_rgb(cell.get_facecolor())) for cell in cells))


def test_recomputation_draws_each_computed_token() -> None:
    cells = recomputation(3, 5).axes[0].patches
    assert len(cells) == 5 * 3 + 5 * 4 // 2
    assert faces(cells) == {PROMPT: 3, GENERATED: 4, "white": 4 * 3 + 4 * 3 // 2}
    assert all(bool(cell.get_hatch()) == (to_rgb(cell.get_facecolor()) == to_rgb("white")) for cell in cells)


def test_with_a_cache_each_token_is_computed_once() -> None:
    cells = reuse(3, 5).axes[0].patches
    assert faces(cells) == {PROMPT: 3, GENERATED: 4, CACHED: 4 * 3 + 4 * 3 // 2}


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
