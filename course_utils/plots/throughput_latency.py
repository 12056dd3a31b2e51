"""The bargain of batching: tokens per second for all against the time that each text waits for its next token."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.plots.figure import GENERATED, INK, style


def throughput_latency(seconds: Mapping[int, float]) -> Figure:
    """Draw throughput against the time of a step, one point for each batch size.

    Args:
        seconds: batch size, and the seconds of a step with so many texts.
    """
    with style():
        fig, ax = pyplot.subplots()
        milliseconds = [1e3 * each for each in seconds.values()]
        rates = [batch / each for batch, each in seconds.items()]
        alone = next(iter(seconds.items()))
        ax.plot(milliseconds, rates, color=GENERATED, marker="s", label="measured")
        ax.axhline(alone[0] / alone[1], color=INK, linestyle=":", marker="", linewidth=1,
                   label=f"throughput of batch {alone[0]}")
        for batch, x, y in zip(seconds, milliseconds, rates):
            # The curve rises to the right, so below it there is room.
            ax.annotate(str(batch), (x, y), (5, -4), textcoords="offset points", va="top", fontsize=9)
        ax.set(xlabel="latency: one step, ms", ylabel="throughput: tokens/s, all texts",
               xlim=(0, 1.1 * max(milliseconds)), ylim=(0, 1.15 * max(rates)))
        ax.legend(loc="upper left")
    return fig
