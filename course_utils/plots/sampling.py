"""Choosing a token: what a step has to choose from, and what temperature, cuts and chance make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import accumulate

from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from course_utils.generation import Step
from course_utils.language import gettext
from course_utils.plots.figure import GENERATED, INK, REJECTED, SERIES, has_cjk_font, style
from course_utils.plots.labels import token_labels
from course_utils.sampling import Sampling
from course_utils.tokenizer import Qwen3Tokenizer


def likeliest_tokens(candidates: Sequence[tuple[int, float]], tokenizer: Qwen3Tokenizer) -> Figure:
    """Draw candidates for the next token with their probabilities; the first, which greedy choice takes, stands out.

    Args:
        candidates: token id and probability of each, likeliest first.
        tokenizer: to write the tokens; one that no installed font can draw is labelled by its id.
    """
    labels = [_quoted(tokenizer, token_id) for token_id, _ in candidates]
    values = [probability for _, probability in candidates]
    with style():
        fig, ax = pyplot.subplots(figsize=(7, 0.6 + 0.45 * len(values)))
        places = range(len(values))
        bars = ax.barh(places, values, color=[GENERATED] + [SERIES[0]] * (len(values) - 1))
        if values:
            bars[0].set(hatch="//", edgecolor="white")
        ax.bar_label(bars, [f"{value:.1%}" for value in values], padding=4)
        ax.set_yticks(places, labels, parse_math=False)
        ax.invert_yaxis()
        ax.set_xlim(0, 1.1)
        ax.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
        ax.set_xlabel(gettext("probability"))
    return fig


def _quoted(tokenizer: Qwen3Tokenizer, token_id: int) -> str:
    text = tokenizer.token_text(token_id)
    return f"'{text}'" if text.isascii() or has_cjk_font() else f"id {token_id}"


# Below it a candidate is left out: it says little, and which of several unlikely ones comes first is chance.
LEAST = 0.01


class CandidateTable:
    """The candidates of each step, likeliest first, each with its probability; the chosen one stands out.

    A notebook shows it as a table, where the bar under a token is as long as it is probable; elsewhere it is the
    same as text. Candidates below one per cent are left out, unless they were chosen.

    Where tokens were drawn, each candidate also says with which probability it was drawn, or that it was cut off,
    and text marks the drawn one by a star. A greedy choice has no such chances to show.

    Args:
        steps: as `generate_trace` returns them.
        tokenizer: to write the tokens.
        first: the number of the first of these steps.
    """

    def __init__(self, steps: Sequence[Step], tokenizer: Qwen3Tokenizer, first: int = 1) -> None:
        self._first = first
        self._drawn = any(0 < chance < 1 for step in steps for chance in step.chances)
        self._rows = [[(token_id == step.token_id, tokenizer.token_text(token_id), probability, chance)
                       for (token_id, probability), chance in zip(step.candidates, step.chances)
                       if probability >= LEAST or token_id == step.token_id] for step in steps]

    def _numbers(self, probability: float, chance: float) -> str:
        if not self._drawn:
            return f"{probability:.0%}"
        if not chance:
            return gettext("{probability:.0%}, cut off").format(probability=probability)
        return f"{probability:.0%} → {chance:.0%}"

    def __repr__(self) -> str:
        return "\n".join(gettext("step {number}: ").format(number=number)
                         + ", ".join(self._entry(*candidate) for candidate in row)
                         for number, row in enumerate(self._rows, start=self._first))

    def _entry(self, chosen: bool, text: str, probability: float, chance: float) -> str:
        return f"{'*' if chosen and self._drawn else ''}'{text}' {self._numbers(probability, chance)}"

    def _repr_html_(self) -> str:
        width = max((len(row) for row in self._rows), default=0)
        names = [gettext("candidate {n}").format(n=n) for n in range(1, width + 1)]
        caption = gettext("Candidates of each step with at least 1 %")
        if self._drawn:
            caption += gettext("; behind the arrow, the chance with which one was drawn; the drawn one is framed")
        elif names:
            names[0] = gettext("chosen")
        header = "".join(f'<th scope="col" style="{_CELL}">{name}</th>' for name in (gettext("step"), *names))
        rows = "".join(f'<tr style="background:white"><th scope="row" style="{_CELL}">{number}</th>'
                       + "".join(self._cell(*candidate) for candidate in row)
                       + f'<td style="{_CELL}"></td>' * (width - len(row)) + "</tr>"
                       for number, row in enumerate(self._rows, start=self._first))
        return (f'<table style="background:white;color:{INK};border-collapse:collapse"><caption style="color:{INK};'
                f'background:white">{caption}</caption><thead><tr style='
                f'"background:white">{header}</tr></thead><tbody>{rows}</tbody></table>')

    def _cell(self, chosen: bool, text: str, probability: float, chance: float) -> str:
        # The bar is a whole number of pixels wide, so that the last digits of a probability do not matter.
        bar = (f'<div aria-hidden="true" style="height:4px;width:{round(100 * probability)}px;'
               f'background:{GENERATED if chosen else SERIES[0]}"></div>')
        weight = "bold" if chosen else "normal"
        frame = f";outline:2px solid {GENERATED};outline-offset:-2px" if chosen and self._drawn else ""
        return (f'<td style="{_CELL};font-weight:{weight}{frame}"><code style="color:{INK};background:white;'
                f'white-space:pre">{escape(text)}</code> {self._numbers(probability, chance)}{bar}</td>')


_CELL = f"color:{INK};background:white;text-align:left;padding:2px 8px;border:1px solid {SERIES[2]}"
_LEAST_SHARE = 0.09  # a narrower piece of a line has no room for its token


def candidate_lines(steps: Sequence[Step], tokenizer: Qwen3Tokenizer) -> Figure:
    """Draw a line for each step, on which every candidate is as long as the model finds it probable.

    What was cut off is hatched, what was drawn stands out and is also written behind the line. What is missing to the
    end of the line are the tokens that are not among the candidates.

    Args:
        steps: as `generate_trace` returns them.
        tokenizer: to write the tokens; one that no installed font can draw is labelled by its id.
    """
    with style():
        fig, ax = pyplot.subplots(figsize=(8.5, 1.3 + 0.42 * len(steps)))
        for row, step in enumerate(steps):
            left = 0.0
            labels = token_labels(tokenizer, [token_id for token_id, _ in step.candidates])
            for (token_id, probability), chance, label in zip(step.candidates, step.chances, labels):
                drawn = token_id == step.token_id
                color, hatch = (GENERATED, "") if drawn else (SERIES[0], "") if chance else (REJECTED, "///")
                ax.barh(row, probability, left=left, height=0.75, facecolor=color if drawn else "white",
                        edgecolor=INK if drawn else color, hatch=hatch, linewidth=1.2)
                if probability >= _LEAST_SHARE:
                    ax.text(left + probability / 2, row, label, ha="center", va="center", fontsize=8, color=INK,
                            parse_math=False, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.9})
                left += probability
                if drawn:
                    ax.text(1.02, row, label, va="center", fontsize=9, parse_math=False)
        ax.set_yticks(range(len(steps)), [gettext("step {number}").format(number=number)
                                          for number in range(1, len(steps) + 1)])
        ax.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
        ax.set(xlim=(0, 1.25), ylim=(len(steps) - 0.4, -0.6), xlabel=gettext("probability by the model"))
        ax.spines["left"].set_visible(False)
        fig.legend(handles=[Patch(facecolor=GENERATED, edgecolor=INK, label=gettext("drawn")),
                            Patch(facecolor="white", edgecolor=SERIES[0], label=gettext("in the draw")),
                            Patch(facecolor="white", edgecolor=REJECTED, hatch="///", label=gettext("cut off"))],
                   loc="outside upper center", ncols=3, fontsize=9)
    return fig


_LEAST_LENGTH = 0.04  # a narrower piece has no room for its label


def number_line(probabilities: Sequence[float], labels: Sequence[str], darts: Sequence[float] = ()) -> Figure:
    """Draw tokens side by side on a line, each as long as it is probable, and darts above it.

    Args:
        probabilities: one a token, 1 together.
        labels: one a token; that of a very short piece is left out.
        darts: places on the line, 0 to 1.
    """
    ends = list(accumulate(probabilities))
    with style():
        fig, ax = pyplot.subplots(figsize=(8.0, 1.7))
        for place, (length, label, end) in enumerate(zip(probabilities, labels, ends)):
            ax.barh(0, length, left=end - length, height=0.7, facecolor="white", edgecolor=SERIES[0],
                    hatch="//" if place % 2 else "", linewidth=2)
            if length >= _LEAST_LENGTH:
                ax.text(end - length / 2, 0, label, ha="center", va="center", fontsize=9, color=INK, parse_math=False,
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
        ax.plot(darts, [0.5] * len(darts), linestyle="none", marker="v", markersize=9, color=GENERATED, clip_on=False)
        shown = [0.0, *(end for end, length in zip(ends, probabilities) if length >= _LEAST_LENGTH)]
        ax.set_xticks(shown, [f"{end:.2f}" for end in shown], fontsize=9)
        ax.set(xlim=(-0.005, 1.005), ylim=(-0.4, 0.7), yticks=[])
        ax.spines["left"].set_visible(False)
    return fig


_CUTS = tuple(zip(SERIES, ("-", "--", ":"), ("s", "^", "D")))


def ranked_probabilities(steps: Mapping[str, Tensor], kept: Mapping[str, Mapping[str, int]] | None = None) -> Figure:
    """Draw the probability of each token against its rank, both in powers of ten, one panel a step: the few likely ones
    and the long tail, and where each way of cutting cuts.

    Args:
        steps: name of each step and its probabilities, (v,).
        kept: for each way of cutting, at most three, how many tokens it keeps at each of these steps: a line there.
    """
    with style():
        fig, axes = pyplot.subplots(1, len(steps), figsize=(8.5, 3.2), sharey=True, squeeze=False)
        for ax, (name, probabilities) in zip(axes[0], steps.items()):
            ranked = probabilities.sort(descending=True).values.tolist()
            ax.plot(range(1, len(ranked) + 1), ranked, color=INK, marker="")
            for (way, counts), (color, line, marker) in zip((kept or {}).items(), _CUTS):
                count = counts[name]
                # Behind the last token that stays; its marker stands where the line meets the curve.
                ax.axvline(count + 0.5, color=color, linestyle=line, marker="")
                ax.plot([count + 0.5], [ranked[count - 1]], color=color, linestyle=line, marker=marker,
                        label=f"{way}: {count}")
            ax.set(xscale="log", yscale="log", xlabel=gettext("rank"), ylim=(1e-7, 3))
            ax.set_title(name, fontsize=11, parse_math=False)
            if kept:
                ax.legend(title=gettext("tokens kept"), fontsize=9, title_fontsize=9, loc="upper right")
        axes[0, 0].set_ylabel(gettext("probability"))
    return fig


def at_temperatures(logits: Tensor, labels: Sequence[str], temperatures: Sequence[float]) -> Figure:
    """Draw the probabilities at each temperature, one panel each; the likeliest token stands out.

    Args:
        logits: (v,).
        labels: one a token.
        temperatures: from 0 on.
    """
    with style():
        fig, axes = pyplot.subplots(1, len(temperatures), figsize=(9.0, 2.6), sharey=True, squeeze=False)
        for ax, temperature in zip(axes[0], temperatures):
            probabilities = Sampling(temperature=temperature).probabilities(logits[None])[0]
            bars = ax.bar(range(len(labels)), probabilities.tolist(), color=SERIES[0], edgecolor="white")
            bars[int(logits.argmax())].set(facecolor=GENERATED, hatch="//")
            ax.bar_label(bars, [f"{value:.0%}" for value in probabilities.tolist()], fontsize=8, padding=2)
            ax.set_title(f"T = {temperature:g}", fontsize=11)
            ax.set_xticks(range(len(labels)), labels, rotation=90, fontsize=9, parse_math=False)
        axes[0, 0].margins(y=0.12)
        axes[0, 0].yaxis.set_major_formatter(PercentFormatter(1))
        axes[0, 0].set_ylabel(gettext("probability"))
    return fig
