"""The two phases of generation: one long pass over the prompt, then one short pass a token."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.plots.figure import GENERATED, PROMPT, style


def prefill_and_decode(seconds: Sequence[float], prompt_tokens: int) -> Figure:
    """Draw the passes of one generation one after another on a time line.

    Args:
        seconds: how long each pass took; the first one is the prefill.
        prompt_tokens: how many tokens the first pass computed; every other computes one.
    """
    with style():
        fig, ax = pyplot.subplots(figsize=(8, 2.3))
        start = 0.0
        for number, length in enumerate(seconds):
            ax.barh(0, 1000 * length, left=1000 * start, height=0.6, edgecolor="white",
                    facecolor=GENERATED if number else PROMPT, hatch="//" if number else "",
                    label=f"prefill: {prompt_tokens} tokens in one pass" if number == 0
                    else "decode: one token a pass" if number == 1 else None)
            start += length
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set_ylim(-0.45, 1)
        ax.set_xlabel("milliseconds since the prompt was given")
        ax.legend(loc="upper left", ncols=2, fontsize=9)
    return fig
