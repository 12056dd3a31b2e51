"""Speculative decoding, round by round: what was drafted, what of it was accepted, what the target said itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from course_utils.plots.figure import GENERATED, INK, REJECTED, style
from course_utils.plots.token_labels import with_visible_spaces
from course_utils.speculative import Round

_LONGEST = 11  # characters that fit into a cell


def speculation_rounds(rounds: Sequence[Round], write: Callable[[int], str]) -> Figure:
    """Draw a row for each round and a cell for each token, drafted or the target's own.

    Args:
        rounds: of a `Speculation`.
        write: a token's id to its text, or to anything short that stands for it.
    """
    columns = 1 + max(len(each.drafted) for each in rounds)
    with style():
        fig, ax = pyplot.subplots(figsize=(min(10, 1.6 + 1.45 * columns), 1.3 + 0.36 * len(rounds)))
        for row, each in enumerate(rounds):
            ended = len(each.new_tokens) == each.accepted  # then nothing was rejected, and nothing put behind
            for column, token in enumerate(each.drafted):
                accepted, rejected = column < each.accepted, column == each.accepted and not ended
                _cell(ax, row, column, ("✓ " if accepted else "✗ " if rejected else "") + _short(write(token)),
                      GENERATED if accepted else REJECTED, None if accepted else "xx" if rejected else "..")
            if not ended:
                _cell(ax, row, columns - 1, _short(write(each.new_tokens[-1])), GENERATED, "//")
        ax.set_xlim(-0.1, columns)
        ax.set_ylim(len(rounds), -0.1)
        ax.set_xticks([column + 0.45 for column in range(columns)],
                      [*(f"drafted {number}" for number in range(1, columns)), "target's own"])
        ax.set_yticks([row + 0.4 for row in range(len(rounds))], [f"round {row + 1}" for row in range(len(rounds))])
        ax.tick_params(length=0, top=False, labelsize=9)
        ax.xaxis.tick_top()
        for spine in ax.spines.values():
            spine.set_visible(False)
        fig.legend(handles=[_patch(GENERATED, None, "accepted"), _patch(REJECTED, "xx", "rejected"),
                            _patch(REJECTED, "..", "does not count"), _patch(GENERATED, "//", "the target's own")],
                   loc="outside lower center", ncols=4, fontsize=9)
    return fig


def _cell(ax: pyplot.Axes, row: int, column: int, text: str, colour: str, hatch: str | None) -> None:
    # The hatch stays at the edges: text on it would be hard to read.
    ax.add_patch(Rectangle((column, row), 0.92, 0.8, facecolor="white", edgecolor=colour, linewidth=1.6))
    ax.add_patch(Rectangle((column, row), 0.1, 0.8, facecolor=colour if hatch is None else "white", edgecolor=colour,
                           linewidth=1, hatch=hatch and 2 * hatch))
    ax.text(column + 0.51, row + 0.4, text, ha="center", va="center", fontsize=9, color=INK, clip_on=True)


def _patch(colour: str, hatch: str | None, label: str) -> Patch:
    return Patch(facecolor=colour if hatch is None else "white", edgecolor=colour, hatch=hatch and 2 * hatch,
                 label=label)


def _short(text: str) -> str:
    # A dollar sign would begin a formula.
    text = with_visible_spaces(text.replace("$", r"\$").replace("\n", "↵"))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
