"""What has to be in memory for training, apart from the text: weights, gradients, and the optimizer's moments."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.plots.figure import HATCHES, SERIES, style

_LOOKS = tuple(zip(SERIES, HATCHES))  # told apart without colours as well


def training_memory(parts: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw a bar for each way of training, one part behind the other.

    Args:
        parts: name of each way -> name of each of at most four parts, the same for all -> bytes.
    """
    with style():
        fig, ax = pyplot.subplots(figsize=(7.0, 1.3 + 0.55 * len(parts)))
        left = [0.0] * len(parts)
        for name, (colour, hatch) in zip(next(iter(parts.values())), _LOOKS):
            sizes = [each[name] / 1e6 for each in parts.values()]
            ax.barh(list(parts), sizes, left=left, color=colour, hatch=hatch, edgecolor="white", label=name)
            left = [start + size for start, size in zip(left, sizes)]
        for place, total in enumerate(left):
            ax.annotate(f"{total:,.0f}", (total, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
        ax.set(xlabel="million bytes", xlim=(0, 1.15 * max(left)))
        ax.invert_yaxis()
        fig.legend(loc="outside upper center", ncols=3, fontsize=9)
    return fig
