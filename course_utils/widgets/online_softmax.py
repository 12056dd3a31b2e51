"""A softmax tile by tile: how the largest number and the sum change as more of a row is seen."""

from __future__ import annotations

import contextlib
import math

from course_utils.attention_tiles import softmax_steps
from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.number import require_whole_number
from course_utils.plots.below import softmax_in_tiles
from course_utils.widgets.panel import Explorer, View, choice, number, text
from course_utils.widgets.player import step_buttons

ROW = "0.5 1.5 -1 0 1 3 -0.5 2 0 -1 4 1"
_MOST = 24  # numbers; more bars cannot be told apart
_LARGEST = 100.0
_TILE = 4


def explore_online_softmax() -> Explorer:
    """Go through a row tile by tile, forward and back, with tiles of another size, and with numbers of one's own.

    The same without controls: `online_softmax_step`.
    """
    def steps(tile: int, row: str) -> int:
        return math.ceil(len(_scores(row)) / tile)

    def draw(step: int, tile: int, row: str) -> View:
        # Fewer tiles make fewer steps, and the field may still hold a later one.
        return online_softmax_step(_scores(row), min(step, max(1, steps(tile, row))), tile)

    explorer = Explorer(draw, {"step": number(gettext("step"), 2, least=1, most=steps(_TILE, ROW), step=1),
                               "tile": choice(gettext("numbers in a tile"), (1, 2, 3, 4, 6, 12), _TILE),
                               "row": text(gettext("Scores"), ROW)}, step_buttons())

    def fit(_: object) -> None:
        with contextlib.suppress(InputError):  # the panel says what is wrong with a row
            settings = explorer.controls["tile"].value, explorer.controls["row"].value
            explorer.controls["step"].max = max(1, steps(*settings))

    for name in explorer.controls.keys() & {"tile", "row"}:
        explorer.controls[name].observe(fit, names="value")
    return explorer


def online_softmax_step(scores: list[float], step: int, tile: int) -> View:
    """What is known of a row after some of its tiles, as a picture and in words.

    Args:
        scores: the row, of at most 24 numbers.
        step: how many tiles have gone by, from 1.
        tile: numbers in a tile.

    Raises:
        InputError: if there is no such step, or the row cannot be drawn.
    """
    if not 0 < len(scores) <= _MOST or not all(abs(score) <= _LARGEST for score in scores):
        raise InputError(gettext("The row has {count} scores: give 1 to {most}, each from {least:.0f} to "
                                 "{largest:.0f}.").format(count=len(scores), most=_MOST, least=-_LARGEST,
                                                          largest=_LARGEST))
    steps = softmax_steps(scores, tile)
    step = require_whole_number("step", step, 1, len(steps))
    now = steps[step - 1]
    said = [gettext("Tile {step} of {steps}, {numbers} of {count}.").format(
        step=step, steps=len(steps), numbers=_numbers(now.first, now.seen), count=len(scores))]
    if step > 1 and now.shrink < 1:
        said.append(gettext("A larger number has come: the sum so far is multiplied by {shrink:.3g} before the tile is "
                            "added.").format(shrink=now.shrink))
    elif step > 1:
        said.append(gettext("No larger number has come: the sum so far stays, and the tile is added."))
    said.append(gettext("The largest is {largest:g}, the sum {total:.4g}.").format(
        largest=now.largest, total=now.total))
    if step == len(steps):
        said.append(gettext("All have gone by: these are the shares of the softmax."))
    return View.of_figure(softmax_in_tiles(scores, now), " ".join(said))


def _numbers(first: int, end: int) -> str:
    """Some places of a row in words, counted from 1."""
    if end - first == 1:
        return gettext("number {end}").format(end=end)
    return gettext("numbers {first} to {end}").format(first=first + 1, end=end)


def _scores(row: str) -> list[float]:
    try:
        return [float(number) for number in row.split()]
    except ValueError as error:
        raise InputError(gettext("The scores are {row!r}: give numbers with spaces between them.").format(
            row=row)) from error
