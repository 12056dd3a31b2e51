"""Drawing by chance as a picture: probabilities as lengths on a line, and where darts land."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.plots.figure import GENERATED, INK, SERIES, style

_LEAST_WIDTH = 0.04  # a narrower piece has no room for its label


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
            if length >= _LEAST_WIDTH:
                ax.text(end - length / 2, 0, label, ha="center", va="center", fontsize=9, color=INK, parse_math=False,
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
        ax.plot(darts, [0.5] * len(darts), linestyle="none", marker="v", markersize=9, color=GENERATED, clip_on=False)
        shown = [0.0, *(end for end, length in zip(ends, probabilities) if length >= _LEAST_WIDTH)]
        ax.set_xticks(shown, [f"{end:.2f}" for end in shown], fontsize=9)
        ax.set(xlim=(-0.005, 1.005), ylim=(-0.4, 0.7), yticks=[])
        ax.spines["left"].set_visible(False)
    return fig
