"""Speculative decoding: what is drafted, accepted and rejected, how often, and when it pays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.plots.diagram import arrow, box, canvas, note
from course_utils.plots.figure import GENERATED, HATCHES, INK, REJECTED, SERIES, style
from course_utils.plots.labels import shortened, with_visible_spaces
from course_utils.speculative import Round

_LEFT, _STEP, _WIDTH, _HEIGHT = 1.45, 1.45, 1.2, 0.46  # inches
_DRAFT, _VERIFY, _JUDGE, _KEEP = 3.35, 2.5, 1.65, 0.7  # heights of the rows
_GAP = 0.05  # between a box and an arrow
# With fewer columns there is no room for the words about the pass; with more, a notebook would shrink the picture.
_LEAST_COLUMNS, _MOST_COLUMNS = 3, 5
_LONGEST_IN_BOX, _LONGEST_IN_CELL = 12, 11  # letters that fit


def speculation_step(one: Round, write: Callable[[int], str]) -> Figure:
    """Draw one round in four rows: drafted tokens, the pass over all of them, what it says of each, the new text.

    Args:
        one: a round of a `Speculation`, with one to four drafted tokens, or five not all of which were accepted.
        write: a token's id to its text, or to anything short that stands for it.

    Raises:
        InputError: if nothing was drafted in this round, or too much to be drawn.
    """
    columns = max(len(one.drafted), len(one.new_tokens))
    if not one.drafted or columns > _MOST_COLUMNS:
        raise InputError(gettext("In this round {count} tokens were drafted: choose another one, with at least one "
                                 "draft and at most {most_columns} tokens in all.").format(
            count=len(one.drafted), most_columns=_MOST_COLUMNS))
    columns = max(columns, _LEAST_COLUMNS)
    drafted, new = ([_label(write(token), _LONGEST_IN_BOX) for token in tokens]
                    for tokens in (one.drafted, one.new_tokens))
    rejects = len(new) > one.accepted  # where the text has ended, nothing was rejected
    with style():
        fig, ax = canvas(_LEFT + _STEP * columns, 3.75)
        for height, title in ((_DRAFT, gettext("draft")), (_VERIFY, gettext("verify")),
                              (_JUDGE, gettext("accept, reject")), (_KEEP, gettext("new text"))):
            note(ax, (0.65, height), title)
        box(ax, (_place((columns - 1) / 2), _VERIFY), (_STEP * (columns - 1) + _WIDTH, _HEIGHT),
            gettext("one pass of the target over all of them"))
        for column, text in enumerate(drafted):
            x, accepted = _place(column), column < one.accepted
            box(ax, (x, _DRAFT), (_WIDTH, _HEIGHT), text)
            if column:  # a draft is written token by token
                arrow(ax, (_place(column - 1) + _WIDTH / 2, _DRAFT), (x - _WIDTH / 2, _DRAFT))
            _down(ax, column, _DRAFT, _VERIFY, INK)
            color = GENERATED if accepted else REJECTED
            judged = accepted or (rejects and column == one.accepted)
            _down(ax, column, _VERIFY, _JUDGE, color)
            verdict = ("✓ " if accepted else "✗ ") + text if judged else gettext("not judged")
            box(ax, (x, _JUDGE), (_WIDTH, _HEIGHT), verdict,
                color=color, line="-" if judged else ":")
        for column, text in enumerate(new):
            if column < one.accepted:
                _down(ax, column, _JUDGE, _KEEP, GENERATED)
            elif column >= len(drafted):
                _down(ax, column, _VERIFY, _KEEP, GENERATED)
            box(ax, (_place(column), _KEEP), (_WIDTH, _HEIGHT), text, color=GENERATED)
            note(ax, (_place(column), _KEEP - 0.42),
                 gettext("accepted") if column < one.accepted else gettext("the target's own"))
    return fig


def _place(column: float) -> float:
    """The middle of a column, in inches from the left."""
    return _LEFT + _STEP * column + _WIDTH / 2


def _down(ax: Axes, column: int, upper: float, lower: float, color: str) -> None:
    arrow(ax, (_place(column), upper - _HEIGHT / 2 - _GAP), (_place(column), lower + _HEIGHT / 2 + _GAP), color)


def _label(text: str, longest: int) -> str:
    return shortened(with_visible_spaces(text.replace("\n", "↵")), longest)


def speculation_rounds(rounds: Sequence[Round], write: Callable[[int], str]) -> Figure:
    """Draw all rounds: a row for each and a cell for each token, drafted or the target's own.

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
                _cell(ax, row, column, ("✓ " if accepted else "✗ " if rejected else "")
                      + _label(write(token), _LONGEST_IN_CELL),
                      GENERATED if accepted else REJECTED, None if accepted else "xx" if rejected else "..")
            if not ended:
                _cell(ax, row, columns - 1, _label(write(each.new_tokens[-1]), _LONGEST_IN_CELL), GENERATED, "//")
        ax.set_xlim(-0.1, columns)
        ax.set_ylim(len(rounds), -0.1)
        ax.set_xticks([column + 0.45 for column in range(columns)],
                      [*(gettext("drafted {number}").format(number=number) for number in range(1, columns)),
                       gettext("target's own")])
        ax.set_yticks([row + 0.4 for row in range(len(rounds))],
                      [gettext("round {row}").format(row=row + 1) for row in range(len(rounds))])
        ax.tick_params(length=0, top=False, labelsize=9)
        ax.xaxis.tick_top()
        for spine in ax.spines.values():
            spine.set_visible(False)
        fig.legend(handles=[_patch(GENERATED, None, gettext("accepted")), _patch(REJECTED, "xx", gettext("rejected")),
                            _patch(REJECTED, "..", gettext("does not count")),
                            _patch(GENERATED, "//", gettext("the target's own"))],
                   loc="outside lower center", ncols=4, fontsize=9)
    return fig


def _cell(ax: Axes, row: int, column: int, text: str, colour: str, hatch: str | None) -> None:
    # The hatch stays at the edges: text on it would be hard to read.
    ax.add_patch(Rectangle((column, row), 0.92, 0.8, facecolor="white", edgecolor=colour, linewidth=1.6))
    ax.add_patch(Rectangle((column, row), 0.1, 0.8, facecolor=colour if hatch is None else "white", edgecolor=colour,
                           linewidth=1, hatch=hatch and 2 * hatch))
    ax.text(column + 0.51, row + 0.4, text, ha="center", va="center", fontsize=9, color=INK, clip_on=True,
            parse_math=False)


def _patch(colour: str, hatch: str | None, label: str) -> Patch:
    return Patch(facecolor=colour if hatch is None else "white", edgecolor=colour, hatch=hatch and 2 * hatch,
                 label=label)


def tokens_per_pass(measured: Mapping[int, float], predicted: Mapping[float, Mapping[int, float]]) -> Figure:
    """Draw how many tokens a pass brings by how many are drafted: measured points beside curves of the formula.

    Args:
        measured: number of drafted tokens to tokens per pass.
        predicted: for each probability a that a drafted token is right, the same.
    """
    with style():
        fig, ax = pyplot.subplots(figsize=(7, 3.6))
        for (rate, curve), colour, line in zip(predicted.items(), SERIES, ("--", "-", ":")):
            ax.plot(list(curve), list(curve.values()), color=colour, linestyle=line, marker="",
                    label=gettext("formula, a = {rate:.2g}").format(rate=rate))
        ax.plot(list(measured), list(measured.values()), color=INK, linestyle="none", marker="D",
                label=gettext("measured"))
        ax.set(xlabel=gettext("drafted tokens per pass"), ylabel=gettext("new tokens per pass"), xticks=list(measured))
        ax.set_ylim(bottom=0)
        ax.legend(fontsize=9)
    return fig


def token_shares(labels: Sequence[str], shares: Mapping[str, Sequence[float]]) -> Figure:
    """Draw how often each token comes out: a group of bars for each token, and a bar for each way of choosing.

    Args:
        labels: one for each token.
        shares: name of each way, four at most, and its share of each token, 0 to 1.
    """
    width = 0.84 / len(shares)
    with style():
        fig, ax = pyplot.subplots(figsize=(8, 3.6))
        for number, ((name, values), (colour, hatch)) in enumerate(zip(shares.items(), zip(SERIES, HATCHES))):
            left = [place - 0.42 + width * (number + 0.5) for place in range(len(labels))]
            ax.bar(left, [100 * value for value in values], width, label=name, facecolor="white" if hatch else colour,
                   edgecolor=colour, hatch=hatch)
        ax.set_xticks(range(len(labels)), labels, parse_math=False)
        ax.tick_params(axis="x", length=0, colors=INK)
        ax.set_ylabel(gettext("share of the draws, %"))
        ax.legend(fontsize=9)
    return fig


def speculation_gain(gains: Mapping[str, Mapping[float, Mapping[int, float]]]) -> Figure:
    """Draw when speculation pays: a panel a situation, a curve for each probability, its best place marked.

    Args:
        gains: title of each situation, then probability a that a drafted token is right, then number of drafted
            tokens: speed with speculation as a multiple of the speed without.
    """
    with style():
        fig, axes = pyplot.subplots(1, len(gains), figsize=(8, 3.4), sharey=True, squeeze=False)
        for ax, (title, curves) in zip(axes[0], gains.items()):
            for (rate, curve), colour, line in zip(curves.items(), SERIES, ("-", "--", "-.", ":")):
                best = max(curve, key=lambda count: curve[count])
                ax.plot(list(curve), list(curve.values()), color=colour, linestyle=line, marker="",
                        label=f"a = {rate:.2g}")
                ax.plot([best], [curve[best]], color=colour, linestyle="none", marker="o")
            ax.axhline(1, color=INK, linewidth=1)
            ax.set_title(title, fontsize=11)
            ax.set_xlabel(gettext("drafted tokens per pass"))
        axes[0][0].set_ylabel(gettext("times as fast"))
        axes[0][0].set_ylim(bottom=0)
        fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=9)
    return fig
