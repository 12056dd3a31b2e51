"""The likeliest next tokens of one step, as bars."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.plots.figure import GENERATED, SERIES, has_cjk_font, style
from course_utils.tokenizer import Qwen3Tokenizer


def likeliest_tokens(candidates: Sequence[tuple[int, float]], tokenizer: Qwen3Tokenizer) -> Figure:
    """Draw candidates for the next token with their probabilities; the first, which greedy choice takes, stands out.

    Args:
        candidates: token id and probability of each, likeliest first.
        tokenizer: to write the tokens; one that no installed font can draw is labelled by its id.
    """
    labels = [_label(tokenizer, token_id) for token_id, _ in candidates]
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
        ax.set_xlabel("probability")
    return fig


def _label(tokenizer: Qwen3Tokenizer, token_id: int) -> str:
    text = tokenizer.token_text(token_id)
    return f"'{text}'" if text.isascii() or has_cjk_font() else f"id {token_id}"
