"""How long one step takes as the text grows."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.plots.figure import SERIES, style

_MARKERS = ("o", "s")


def time_by_length(seconds: Mapping[str, Mapping[int, float]]) -> Figure:
    """Draw the time of a step against the number of tokens it computes, one panel a model, each with its own scale.

    Args:
        seconds: name of each model, and for each length in tokens the seconds of a step.
    """
    with style():
        fig, axes = pyplot.subplots(1, len(seconds), figsize=(4.2 * len(seconds), 3.2), squeeze=False)
        for number, (ax, (name, times)) in enumerate(zip(axes[0], seconds.items())):
            ax.plot(list(times), [1000 * value for value in times.values()],
                    color=SERIES[number % 2], marker=_MARKERS[number % 2])
            ax.set_title(name)
            ax.set_xlabel("tokens in the text")
            ax.set_ylabel("milliseconds per step")
            ax.set_xlim(left=0)
            ax.set_ylim(bottom=0)
    return fig
