"""What each step of a generation had to choose from, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from course_utils.generation import Step
from course_utils.plots.figure import GENERATED, INK, REJECTED, SERIES, style
from course_utils.plots.token_labels import token_labels
from course_utils.tokenizer import Qwen3Tokenizer

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
        return f"{probability:.0%} → {chance:.0%}" if chance else f"{probability:.0%}, cut off"

    def __repr__(self) -> str:
        return "\n".join(f"step {number}: " + ", ".join(self._entry(*candidate) for candidate in row)
                         for number, row in enumerate(self._rows, start=self._first))

    def _entry(self, chosen: bool, text: str, probability: float, chance: float) -> str:
        return f"{'*' if chosen and self._drawn else ''}'{text}' {self._numbers(probability, chance)}"

    def _repr_html_(self) -> str:
        width = max((len(row) for row in self._rows), default=0)
        names = [f"candidate {n}" for n in range(1, width + 1)]
        caption = "Candidates of each step with at least 1 %"
        if self._drawn:
            caption += "; behind the arrow, the chance with which one was drawn; the drawn one is framed"
        elif names:
            names[0] = "chosen"
        header = "".join(f'<th scope="col" style="{_CELL}">{name}</th>' for name in ("step", *names))
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
_LEAST_WIDTH = 0.09  # a narrower piece has no room for its token


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
                if probability >= _LEAST_WIDTH:
                    ax.text(left + probability / 2, row, label, ha="center", va="center", fontsize=8, color=INK,
                            parse_math=False, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.9})
                left += probability
                if drawn:
                    ax.text(1.02, row, label, va="center", fontsize=9, parse_math=False)
        ax.set_yticks(range(len(steps)), [f"step {number}" for number in range(1, len(steps) + 1)])
        ax.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
        ax.set(xlim=(0, 1.25), ylim=(len(steps) - 0.4, -0.6), xlabel="probability by the model")
        ax.spines["left"].set_visible(False)
        fig.legend(handles=[Patch(facecolor=GENERATED, edgecolor=INK, label="drawn"),
                            Patch(facecolor="white", edgecolor=SERIES[0], label="in the draw"),
                            Patch(facecolor="white", edgecolor=REJECTED, hatch="///", label="cut off")],
                   loc="outside upper center", ncols=3, fontsize=9)
    return fig
