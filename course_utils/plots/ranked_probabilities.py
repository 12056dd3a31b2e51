"""All next tokens of a step by rank, the few likely ones and the long tail, and where each way of cutting cuts."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib import pyplot
from matplotlib.figure import Figure
from torch import Tensor

from course_utils.plots.figure import INK, SERIES, style

_LINES = tuple(zip(SERIES, ("-", "--", ":"), ("s", "^", "D")))


def ranked_probabilities(steps: Mapping[str, Tensor], kept: Mapping[str, Mapping[str, int]] | None = None) -> Figure:
    """Draw the probability of each token against its rank, both in powers of ten, one panel a step.

    Args:
        steps: name of each step and its probabilities, (v,).
        kept: for each way of cutting, at most three, how many tokens it keeps at each of these steps: a line there.
    """
    with style():
        fig, axes = pyplot.subplots(1, len(steps), figsize=(8.5, 3.2), sharey=True, squeeze=False)
        for ax, (name, probabilities) in zip(axes[0], steps.items()):
            ranked = probabilities.sort(descending=True).values.tolist()
            ax.plot(range(1, len(ranked) + 1), ranked, color=INK, marker="")
            for (way, counts), (color, line, marker) in zip((kept or {}).items(), _LINES):
                count = counts[name]
                # Behind the last token that stays; its marker stands where the line meets the curve.
                ax.axvline(count + 0.5, color=color, linestyle=line, marker="")
                ax.plot([count + 0.5], [ranked[count - 1]], color=color, linestyle=line, marker=marker,
                        label=f"{way}: {count}")
            ax.set(xscale="log", yscale="log", xlabel="rank", ylim=(1e-7, 3))
            ax.set_title(name, fontsize=11, parse_math=False)
            if kept:
                ax.legend(title="tokens kept", fontsize=9, title_fontsize=9, loc="upper right")
        axes[0, 0].set_ylabel("probability")
    return fig
