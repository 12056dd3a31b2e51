"""One round of speculative decoding: a draft, the pass that checks it, what is accepted and rejected, what is kept."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_utils.errors import InputError
from course_utils.plots.diagram import arrow, box, canvas, note
from course_utils.plots.figure import GENERATED, INK, REJECTED, style
from course_utils.plots.token_labels import shortened, with_visible_spaces
from course_utils.speculative import Round

_LEFT, _STEP, _WIDTH, _HEIGHT = 1.45, 1.45, 1.2, 0.46  # inches
_DRAFT, _VERIFY, _JUDGE, _KEEP = 3.35, 2.5, 1.65, 0.7  # heights of the rows
_GAP = 0.05  # between a box and an arrow
# With fewer columns there is no room for the words about the pass; with more, a notebook would shrink the picture.
_LEAST_COLUMNS, _MOST_COLUMNS = 3, 5
_LONGEST = 12  # letters that fit into a box


def speculation_step(one: Round, write: Callable[[int], str]) -> Figure:
    """Draw a round in four rows: drafted tokens, the pass over all of them, what it says of each, the new text.

    Args:
        one: a round of a `Speculation`, with one to four drafted tokens, or five not all of which were accepted.
        write: a token's id to its text, or to anything short that stands for it.

    Raises:
        InputError: if nothing was drafted in this round, or too much to be drawn.
    """
    columns = max(len(one.drafted), len(one.new_tokens))
    if not one.drafted or columns > _MOST_COLUMNS:
        raise InputError(f"In this round {len(one.drafted)} tokens were drafted: choose another one, with at least one "
                         f"draft and at most {_MOST_COLUMNS} tokens in all.")
    columns = max(columns, _LEAST_COLUMNS)
    drafted, new = ([_label(write(token)) for token in tokens] for tokens in (one.drafted, one.new_tokens))
    rejects = len(new) > one.accepted  # where the text has ended, nothing was rejected
    with style():
        fig, ax = canvas(_LEFT + _STEP * columns, 3.75)
        for height, title in ((_DRAFT, "draft"), (_VERIFY, "verify"), (_JUDGE, "accept, reject"), (_KEEP, "new text")):
            note(ax, (0.65, height), title)
        box(ax, (_place((columns - 1) / 2), _VERIFY), (_STEP * (columns - 1) + _WIDTH, _HEIGHT),
            "one pass of the target over all of them")
        for column, text in enumerate(drafted):
            x, accepted = _place(column), column < one.accepted
            box(ax, (x, _DRAFT), (_WIDTH, _HEIGHT), text)
            if column:  # a draft is written token by token
                arrow(ax, (_place(column - 1) + _WIDTH / 2, _DRAFT), (x - _WIDTH / 2, _DRAFT))
            _down(ax, column, _DRAFT, _VERIFY, INK)
            color = GENERATED if accepted else REJECTED
            judged = accepted or (rejects and column == one.accepted)
            _down(ax, column, _VERIFY, _JUDGE, color)
            box(ax, (x, _JUDGE), (_WIDTH, _HEIGHT), ("✓ " if accepted else "✗ ") + text if judged else "not judged",
                color=color, line="-" if judged else ":")
        for column, text in enumerate(new):
            if column < one.accepted:
                _down(ax, column, _JUDGE, _KEEP, GENERATED)
            elif column >= len(drafted):
                _down(ax, column, _VERIFY, _KEEP, GENERATED)
            box(ax, (_place(column), _KEEP), (_WIDTH, _HEIGHT), text, color=GENERATED)
            note(ax, (_place(column), _KEEP - 0.42), "accepted" if column < one.accepted else "the target's own")
    return fig


def _place(column: float) -> float:
    """The middle of a column, in inches from the left."""
    return _LEFT + _STEP * column + _WIDTH / 2


def _down(ax: Axes, column: int, upper: float, lower: float, color: str) -> None:
    arrow(ax, (_place(column), upper - _HEIGHT / 2 - _GAP), (_place(column), lower + _HEIGHT / 2 + _GAP), color)


def _label(text: str) -> str:
    return shortened(with_visible_spaces(text.replace("\n", "↵")), _LONGEST)
