"""Ways of generating side by side, beside the speed that the machine's memory allows at most."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.plots.figure import INK, PROMPT, style


def speed_bars(speeds: Mapping[str, float], limit: float) -> Figure:
    """Draw a bar for each way of generating, and a line at the limit.

    Args:
        speeds: name and tokens per second of each way.
        limit: tokens per second at which the weights are read as fast as the memory can deliver them.
    """
    with style():
        fig, ax = pyplot.subplots(figsize=(7.0, 0.8 + 0.55 * len(speeds)))
        bars = ax.barh(list(speeds), list(speeds.values()), color=PROMPT)
        ax.bar_label(bars, fmt="%.1f", padding=3)
        ax.axvline(limit, color=INK, linestyle="--", label=f"limit of the memory: {limit:.1f}")
        ax.set(xlabel="tokens per second", xlim=(0, 1.15 * max(limit, *speeds.values())))
        ax.invert_yaxis()
        fig.legend(loc="outside upper right")
    return fig
