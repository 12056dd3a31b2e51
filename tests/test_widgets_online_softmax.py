"""The softmax to go through: each step says and draws what the definition says of the numbers seen so far."""

from __future__ import annotations

import math
from collections.abc import Iterator

import matplotlib
import pytest
from matplotlib import pyplot

from course_utils.attention_tiles import softmax_steps
from course_utils.errors import InputError
from course_utils.plots.below import softmax_in_tiles
from course_utils.widgets.online_softmax import explore_online_softmax, online_softmax_step

matplotlib.use("agg")
SCORES = [0.5, 1.5, -1.0, 0.0, 1.0, 3.0, -0.5]


@pytest.fixture(autouse=True)
def no_figure_stays_open() -> Iterator[None]:
    yield
    assert pyplot.get_fignums() == []


def test_a_step_says_what_the_sum_was_multiplied_by() -> None:
    first, second, third = (online_softmax_step(SCORES, step, 3).sentence for step in (1, 2, 3))
    assert first.startswith("Tile 1 of 3, numbers 1 to 3 of 7. The largest is 1.5")
    assert "multiplied by 0.223" in second and math.exp(1.5 - 3) == pytest.approx(0.223, abs=1e-3)
    total = sum(math.exp(score - 3) for score in SCORES)
    assert third == (f"Tile 3 of 3, number 7 of 7. No larger number has come: the sum so far stays, and the tile is "
                     f"added. The largest is 3, the sum {total:.4g}. All have gone by: these are the shares of the "
                     "softmax.")


def test_shares_are_those_of_what_was_seen() -> None:
    figure = softmax_in_tiles(SCORES, softmax_steps(SCORES, 3)[1])
    above, below = figure.axes
    pyplot.close(figure)
    assert [bar.get_height() for bar in above.patches] == SCORES
    total = sum(map(math.exp, SCORES[:6]))
    assert [bar.get_height() for bar in below.patches] == pytest.approx([math.exp(s) / total for s in SCORES[:6]])
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in above.patches}) == 3


def test_buttons_stay_within_the_tiles() -> None:
    explorer = explore_online_softmax()
    step, tile, row = (explorer.controls[name] for name in ("step", "tile", "row"))
    assert explorer.view.sentence.startswith("Tile 2 of 3, numbers 5 to 8 of 12. A larger number has come")
    explorer.buttons["Last"].click()
    assert step.value == 3 and "All have gone by" in explorer.view.sentence
    tile.value = 1
    explorer.buttons["Last"].click()
    assert step.value == 12 and explorer.view.sentence.startswith("Tile 12 of 12, number 12 of 12.")
    explorer.buttons["Previous"].click()
    assert explorer.view.sentence.startswith("Tile 11 of 12")
    tile.value = 12
    assert step.value == 1 and explorer.view.sentence.startswith("Tile 1 of 1")
    row.value = "1 2 three"
    assert explorer.view.sentence == "The scores are '1 2 three': give numbers with spaces between them."
    row.value = "1 2 3"
    assert explorer.view.sentence.startswith("Tile 1 of 1, numbers 1 to 3 of 3.")


@pytest.mark.parametrize(("scores", "step", "message"), [
    ([], 1, "0 scores"), ([0.0] * 25, 1, "25 scores"), ([math.nan], 1, "each from -100 to 100"),
    ([1.0, -1e9], 1, "each from"), (SCORES, 4, "step is 4: give a whole number from 1 to 3"), (SCORES, 0, "step is 0"),
])
def test_what_cannot_be_drawn_is_refused(scores: list[float], step: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        online_softmax_step(scores, step, 3)
