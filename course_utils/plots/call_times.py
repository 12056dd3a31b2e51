"""The seconds of one call after another, so that warm-up and steady state can be told apart."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.plots.figure import SERIES, style


def call_times(uncompiled: Sequence[float], compiled: Sequence[float]) -> Figure:
    """Draw seconds of each call on a logarithmic scale, the same calls without and with compilation."""
    with style():
        fig, ax = pyplot.subplots()
        for seconds, name, color, marker in ((uncompiled, "regular", SERIES[0], "o"),
                                             (compiled, "compiled", SERIES[1], "s")):
            ax.plot(range(1, len(seconds) + 1), seconds, color=color, marker=marker, label=name)
        ax.set(xlabel="call", ylabel="seconds", yscale="log", xticks=range(1, len(compiled) + 1))
        ax.legend()
    return fig
