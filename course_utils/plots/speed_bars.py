"""Ways of generating side by side, beside the speed that the machine's memory allows at most."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_utils.plots.figure import INK, SERIES, style


def speed_bars(speeds: Mapping[str, float], limit: float | Mapping[str, float]) -> Figure:
    """Draw a bar for each way of generating, and a line at the limit, or a mark at the limit of each.

    Args:
        speeds: name and tokens per second of each way.
        limit: tokens per second at which the weights are read as fast as the memory can deliver them; a mapping from
            names if the ways differ in what they read.
    """
    with style():
        fig, ax = pyplot.subplots(figsize=(7.0, 0.8 + 0.55 * len(speeds)))
        draw_speed_bars(ax, speeds, limit)
        fig.legend(loc="outside upper right")
    return fig


def draw_speed_bars(ax: Axes, speeds: Mapping[str, float], limit: float | Mapping[str, float]) -> None:
    """The content of `speed_bars`, in a panel of a larger picture."""
    bars = ax.barh(list(speeds), list(speeds.values()), color=SERIES[0])
    if isinstance(limit, Mapping):
        limits = [limit[name] for name in speeds]
        ax.plot(limits, list(speeds), color=INK, linestyle="none", marker="|", markersize=18, markeredgewidth=2,
                label="limit of the memory")
    else:
        limits = [limit]
        ax.axvline(limit, color=INK, linestyle="--", label=f"limit of the memory: {limit:.1f}")
    ax.bar_label(bars, fmt="%.1f", padding=3)
    ax.set(xlabel="tokens per second", xlim=(0, 1.15 * max(*limits, *speeds.values())))
    ax.invert_yaxis()
