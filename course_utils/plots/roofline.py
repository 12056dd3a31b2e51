"""The roofline model: how fast a program can be at most, given how much it computes with each byte that it reads.

Left of the ridge the memory is the limit, right of it the arithmetic. https://doi.org/10.1145/1498765.1498785.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_utils.plots.figure import GENERATED, INK, PROMPT, style

_NEAR, _APART = 10.0, 1.15  # factors: how far apart two names are near, and how far apart they then stand


@dataclass(frozen=True)
class Point:
    """Where a program stands.

    Attributes:
        intensity: floating-point operations per byte that it reads.
        rate: floating-point operations per second that it reaches.
    """

    intensity: float
    rate: float


def roofline(decode: Mapping[str, Point], prefill: Mapping[str, Point], bandwidth: float, arithmetic: float) -> Figure:
    """Draw the two roofs of a machine, and what programs reach under them.

    Args:
        decode: name of each way of generating, and where its decoding stands.
        prefill: the same for the reading of the prompt.
        bandwidth: bytes per second that the memory delivers.
        arithmetic: floating-point operations per second of a large matrix product.
    """
    with style():
        fig, ax = pyplot.subplots(figsize=(7.0, 4.5))
        draw_roofline(ax, decode, prefill, bandwidth, arithmetic)
    return fig


def draw_roofline(ax: Axes, decode: Mapping[str, Point], prefill: Mapping[str, Point], bandwidth: float,
                  arithmetic: float) -> None:
    """The content of `roofline`, in a panel of a larger picture."""
    ridge = arithmetic / bandwidth
    intensities = [ridge, *(point.intensity for point in (*decode.values(), *prefill.values()))]
    left, column = min(intensities) / 3, 2 * max(intensities)
    right = 30 * column  # room for the names
    ax.plot([left, ridge, right], [left * bandwidth / 1e9, arithmetic / 1e9, arithmetic / 1e9], color=INK, marker="")
    names: list[tuple[Point, str, str]] = []
    for series, phase, color, marker in ((decode, "decode", GENERATED, "o"), (prefill, "prefill", PROMPT, "s")):
        ax.plot([point.intensity for point in series.values()], [point.rate / 1e9 for point in series.values()],
                color=color, marker=marker, linestyle="none", label=phase)
        names += [(point, name, color) for name, point in series.items()]
    # Left of the ridge a name stands beside its point, right of it in a column, and below the names that are near.
    placed: list[tuple[float, float]] = []
    for point, name, color in sorted(names, key=lambda item: -item[0].rate):
        x = 1.4 * point.intensity if point.intensity < ridge else column
        y = min([point.rate / 1e9, *(above / _APART for beside, above in placed if 1 / _NEAR < x / beside < _NEAR)])
        placed.append((x, y))
        ax.annotate(name, (point.intensity, point.rate / 1e9), (x, y), color=color, fontsize=8, va="center",
                    arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5, "relpos": (0.0, 0.5)})
    lowest, highest = min(y for _, y in placed), max(y for _, y in placed)
    ax.set(xscale="log", yscale="log", xlim=(left, right), xlabel="operations per byte read",
           ylabel="billion operations per second", ylim=(0.8 * lowest, 3 * max(arithmetic / 1e9, highest)))
    ax.legend(loc="upper left")
