"""How the time of one step grows with the text, without and with a cache."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.plots.figure import CACHED, SERIES, style


def step_time(lengths: Sequence[int], without_cache: Sequence[float], with_cache: Sequence[float]) -> Figure:
    """Draw seconds per step against the length of the text.

    Args:
        lengths: tokens before the new one.
        without_cache, with_cache: seconds of one step at each length.
    """
    with style():
        fig, ax = pyplot.subplots()
        for seconds, name, color, marker in ((without_cache, "without a cache", SERIES[0], "o"),
                                             (with_cache, "with a cache", CACHED, "^")):
            ax.plot(lengths, [1e3 * each for each in seconds], color=color, marker=marker, label=name)
        ax.set(xlabel="tokens in the text", ylabel="one step, ms", xticks=list(lengths))
        ax.set_ylim(bottom=0)
        ax.legend()
    return fig
