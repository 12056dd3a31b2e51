"""The pictures of what lies below PyTorch: what they draw is what was given."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import pytest
from matplotlib import pyplot

from course_utils.plots.below import attention_memory, group_trade, product_rates

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    pyplot.close("all")


def test_memory_is_drawn_in_megabytes() -> None:
    ax = attention_memory([512, 2048], {"all scores": [4e6, 64e6], "in tiles": [1e6, 4e6]}).axes[0]
    scores, tiles = ax.lines
    assert (list(scores.get_ydata()), list(tiles.get_ydata())) == ([4.0, 64.0], [1.0, 4.0])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["512", "2,048"]
    assert scores.get_marker() != tiles.get_marker() and ax.get_xscale() == ax.get_yscale() == "log"


def test_a_point_is_named_by_its_size_of_group() -> None:
    ax = group_trade({16: (6.0, 0.01), 256: (4.125, 0.03)}).axes[0]
    assert (list(ax.lines[0].get_xdata()), list(ax.lines[0].get_ydata())) == ([6.0, 4.125], [0.01, 0.03])
    assert [text.get_text() for text in ax.texts] == ["groups of 16", "groups of 256"] and ax.get_ylim()[0] == 0


def test_the_slowest_bar_can_be_seen_and_the_memory_is_in_the_picture() -> None:
    ax = product_rates({"Python": 2e6, "C": 70e9}, 42e9).axes[0]
    assert [bar.get_width() for bar in ax.patches] == [0.002, 70.0]
    low, high = ax.get_xlim()
    assert low <= 0.001 and high > 70 and ax.lines[0].get_xdata()[0] == 42.0
    assert [text.get_text() for text in ax.texts] == ["0.002", "70"]
