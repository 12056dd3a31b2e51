"""The way of a text through a language model: to ids, to logits, to a token, and to text again; once, or in a loop."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_utils.plots.diagram import arrow, box, canvas, note
from course_utils.plots.figure import CACHED, GENERATED, INK, PROMPT, style

_WIDTH, _HEIGHT, _STEP = 1.36, 1.1, 1.64  # inches: of a box, and from one to the next
_LETTERS = 18  # that fit into a line of a box
_Part = tuple[str, str, str]  # title, text and colour of a box


def pipeline(prompt: str, token_ids: Sequence[int], next_id: int, next_token: str) -> Figure:
    """Draw one step for a short prompt: text, ids, model, logits, the id of the next token, its text.

    Args:
        prompt: the text.
        token_ids: its tokens.
        next_id: the token that was chosen.
        next_token: its text.
    """
    with style():
        fig, ax = canvas(0.1 + 6 * _STEP, 2.0)
        _row(ax, 0.85, [*_to_logits(prompt, token_ids), ("next token", str(next_id), GENERATED),
                        ("text", f'"{next_token}"', GENERATED)],
             ["encode", "embed", "output layer", "choose", "decode"])
    return fig


def generation_loop(prompt: str, token_ids: Sequence[int], next_token: str) -> Figure:
    """Draw the loop for a short prompt: five boxes in a row, an arrow back, and the cache under the model.

    Args:
        prompt: the text.
        token_ids: its tokens.
        next_token: the text of the token that comes next.
    """
    with style():
        fig, ax = canvas(0.1 + 5 * _STEP, 3.2)
        middle, low = 2.05, 2.05 - _HEIGHT / 2 - 0.08
        _row(ax, middle, [*_to_logits(prompt, token_ids), ("next token", f'"{next_token}"', GENERATED)],
             ["encode", "embed", "output layer", "choose"])
        arrow(ax, (_place(4), low), (_place(1), low), GENERATED, bend=-0.17)
        note(ax, (_place(3.6), 0.5), "append it and go round again")
        box(ax, (_place(2), 0.4), (2.4, 0.55), "keys and values, cached", color=CACHED)
        arrow(ax, (_place(2), 0.72), (_place(2), low), CACHED, heads="<|-|>")
    return fig


def _to_logits(prompt: str, token_ids: Sequence[int]) -> list[_Part]:
    return [("text", f'"{prompt}"', PROMPT), ("token ids", str(list(token_ids)), PROMPT),
            ("Qwen3", "attention and MLP, layer by layer", INK), ("logits", "one score for every token", INK)]


def _place(number: float) -> float:
    """The middle of a box, counted from 0, in inches from the left."""
    return 0.05 + _STEP * (number + 0.5)


def _row(ax: Axes, middle: float, parts: Sequence[_Part], between: Sequence[str]) -> None:
    for number, (title, text, color) in enumerate(parts):
        # A Chinese character is as wide as two letters.
        lines = textwrap.wrap(text, _LETTERS if text.isascii() else _LETTERS // 2, max_lines=3, placeholder=" …")
        box(ax, (_place(number), middle), (_WIDTH, _HEIGHT), title, "\n".join(lines), color)
    for number, words in enumerate(between):
        left = _place(number) + _WIDTH / 2
        arrow(ax, (left + 0.03, middle), (left + _STEP - _WIDTH - 0.03, middle))
        note(ax, (left + (_STEP - _WIDTH) / 2, middle + _HEIGHT / 2 + 0.25), words)
