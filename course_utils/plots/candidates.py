"""What each step of a generation had to choose from, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from course_utils.generation import Step
from course_utils.plots.figure import GENERATED, INK, PROMPT
from course_utils.tokenizer import Qwen3Tokenizer

# Below it a candidate is left out: it says little, and which of several unlikely ones comes first is chance.
LEAST = 0.01


class CandidateTable:
    """The candidates of each step, likeliest first, each with its probability; the chosen one stands out.

    A notebook shows it as a table, where the bar under a token is as long as it is probable; elsewhere it is the
    same as text. Candidates below one per cent are left out.

    Args:
        steps: as `generate_trace` returns them.
        tokenizer: to write the tokens.
    """

    def __init__(self, steps: Sequence[Step], tokenizer: Qwen3Tokenizer) -> None:
        self._rows = [[(token_id == step.token_id, tokenizer.token_text(token_id), probability)
                       for token_id, probability in step.candidates
                       if probability >= LEAST or token_id == step.token_id] for step in steps]

    def __repr__(self) -> str:
        return "\n".join(f"step {number}: " + ", ".join(f"'{text}' {value:.0%}" for _, text, value in row)
                         for number, row in enumerate(self._rows, start=1))

    def _repr_html_(self) -> str:
        width = max((len(row) for row in self._rows), default=0)
        header = "".join(f'<th scope="col" style="{_CELL}">{name}</th>'
                         for name in ("step", "chosen", *[f"candidate {n}" for n in range(2, width + 1)]))
        rows = "".join(f'<tr style="background:white"><th scope="row" style="{_CELL}">{number}</th>'
                       + "".join(_cell(*candidate) for candidate in row)
                       + f'<td style="{_CELL}"></td>' * (width - len(row)) + "</tr>"
                       for number, row in enumerate(self._rows, start=1))
        return (f'<table style="background:white;color:{INK};border-collapse:collapse"><caption style="color:{INK};'
                f'background:white">Candidates of each step with at least 1 %</caption><thead><tr style='
                f'"background:white">{header}</tr></thead><tbody>{rows}</tbody></table>')


_CELL = f"color:{INK};background:white;text-align:left;padding:2px 8px;border:1px solid #767676"


def _cell(chosen: bool, text: str, probability: float) -> str:
    # The bar is a whole number of pixels wide, so that the last digits of a probability do not matter.
    bar = (f'<div aria-hidden="true" style="height:4px;width:{round(100 * probability)}px;'
           f'background:{GENERATED if chosen else PROMPT}"></div>')
    weight = "bold" if chosen else "normal"
    return (f'<td style="{_CELL};font-weight:{weight}"><code style="color:{INK};background:white;white-space:pre">'
            f"{escape(text)}</code> {probability:.0%}{bar}</td>")
