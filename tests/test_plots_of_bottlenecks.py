"""The pictures of bottlenecks: what they draw is what was given, or what the formulas say."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import pytest
from matplotlib import pyplot

from course_utils.config import Qwen3Config
from course_utils.costs import cache_elements, weight_elements
from course_utils.plots.bottlenecks import slots, step_bytes, throughput_latency

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    pyplot.close("all")


@pytest.mark.parametrize("batch", [1, 8])
def test_bytes_of_a_step_are_those_of_the_formulas(batch: int) -> None:
    config = Qwen3Config()
    growing, fixed, weights = step_bytes(config, 4000, batch).axes[0].lines
    token = batch * cache_elements(config) * 2 / 1e9
    assert list(weights.get_ydata()) == [pytest.approx(2 * weight_elements(config) / 1e9)] * 9
    read = [line.get_ydata()[-1] - weights.get_ydata()[-1] for line in (growing, fixed)]
    assert read == pytest.approx([(3 * 4000 + 2) * token, (4000 + 2) * token])
    assert fixed.get_xdata()[-1] == 4000 and fixed.get_ydata()[0] == pytest.approx(growing.get_ydata()[0])
    assert len({(line.get_marker(), line.get_linestyle()) for line in (growing, fixed, weights)}) == 3


def test_throughput_is_batch_by_seconds() -> None:
    ax = throughput_latency({1: 0.1, 8: 0.2, 32: 0.4}).axes[0]
    measured, alone = ax.lines
    assert list(measured.get_xdata()) == pytest.approx([100, 200, 400])
    assert list(measured.get_ydata()) == pytest.approx([10, 40, 80])
    assert set(alone.get_ydata()) == {10} and ax.get_ylim()[1] > 80
    assert [text.get_text() for text in ax.texts] == ["1", "8", "32"]


def test_a_bar_is_a_request_and_a_gap_an_empty_slot() -> None:
    fig = slots({"static": [(0, 1), (0, None), (0, None), (2, 3)], "continuous": [(0, 1), (0, 2), (0, 3)]})
    static, continuous = fig.axes
    bars = [(bar.get_x(), bar.get_y() + bar.get_height() / 2, bar.get_width()) for bar in static.patches]
    assert bars == [(0, 0, 3), (3, 0, 1), (0, 1, 1), (3, 1, 1)]
    assert sum(bar.get_width() for bar in continuous.patches) == 6
    assert [text.get_text() for text in continuous.texts] == ["0", "1", "2", "3"]
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["static: 4 steps", "continuous: 3 steps"]
    assert static.get_xlim() == continuous.get_xlim() == (0, 4)


def test_neighbours_differ_in_more_than_colour() -> None:
    bars = slots({"one": [(0, 4, 8), (0, 4, 8)]}).axes[0].patches  # the same colour
    assert len({bar.get_facecolor() for bar in bars}) == 1 and len({bar.get_hatch() for bar in bars}) == 3
