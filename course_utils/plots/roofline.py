"""The roofline model: how fast a program can be at most, given how much it computes with each byte that it reads.

Left of the ridge the memory is the limit, right of it the arithmetic. https://doi.org/10.1145/1498765.1498785.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_utils.planner import USABLE, Gpu, Plan, Work
from course_utils.plots.figure import CACHED, GENERATED, INK, PROMPT, SERIES, style

_NEAR = 10.0  # a factor: names that are less far apart sideways must not be level
_LINE = 0.037  # the height of a name, as a share of the panel's
_INTENSITIES = 0.3, 2e5  # between them lies all that a plan for this family asks of a machine
_MIDDLE = 1000.0  # of a point right of it the label stands at the left


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
    rates = [arithmetic, *(point.rate for point, _, _ in names)]
    apart = (4 * max(rates) / min(rates)) ** _LINE
    for point, name, color in sorted(names, key=lambda item: -item[0].rate):
        x = 1.4 * point.intensity if point.intensity < ridge else column
        y = min([point.rate / 1e9, *(above / apart for beside, above in placed if 1 / _NEAR < x / beside < _NEAR)])
        placed.append((x, y))
        ax.annotate(name, (point.intensity, point.rate / 1e9), (x, y), fontsize=8, va="center",
                    arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5, "relpos": (0.0, 0.5)})
    lowest, highest = min(y for _, y in placed), max(y for _, y in placed)
    ax.set(xscale="log", yscale="log", xlim=(left, right), xlabel="operations per byte read",
           ylabel="billion operations per second", ylim=(0.8 * lowest, 3 * max(arithmetic / 1e9, highest)))
    ax.legend(loc="upper left")


def planned_roofline(plan: Plan, decode: Work, prefill: Work, yours: Gpu | None = None) -> Figure:
    """Draw the limits of a plan: where a step of decoding and the reading of a prompt meet the roof, and the memory.

    It is drawn while a reader turns knobs: the axis of intensities does not move, and what takes long to draw is left
    out: margins that fit themselves, small ticks, and powers as labels.

    Args:
        plan: for which machines; the roof is that of as many as it needs.
        decode: what a step asks of them.
        prefill: what the reading of a prompt asks of them.
        yours: another machine, whose roof is marked.
    """
    count = plan.gpus or 1
    name = f"{count} × {plan.gpu.name}" if count > 1 else plan.gpu.name
    with style():
        fig, (roofs, memory) = pyplot.subplots(2, height_ratios=(7, 1), figsize=(7.0, 4.6), layout="none")
        fig.subplots_adjust(left=0.19, right=0.95, top=0.98, bottom=0.2, hspace=0.6)
        heights = _draw_roof(roofs, count * plan.gpu.bandwidth, count * plan.gpu.arithmetic, name, "-")
        if yours is not None:
            heights += _draw_roof(roofs, yours.bandwidth, yours.arithmetic, yours.name, "--")
        # One label hangs below its point and the other stands above, so that they never meet.
        for what, work, color, marker, up in (("decode", decode, GENERATED, "o", -1),
                                              ("prefill", prefill, PROMPT, "s", 1)):
            rate = count * min(plan.gpu.arithmetic, work.intensity * plan.gpu.bandwidth) / 1e12
            bound = "memory" if work.intensity < plan.gpu.arithmetic / plan.gpu.bandwidth else "arithmetic"
            roofs.plot([work.intensity], [rate], color=color, marker=marker, markersize=9)
            right = work.intensity > _MIDDLE
            roofs.annotate(f"{what}:\nbound by {bound}", (work.intensity, rate), (-4 if right else 8, 8 * up),
                           textcoords="offset points", fontsize=9, ha="right" if right else "left",
                           va="bottom" if up > 0 else "top",
                           bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8})
        room = 3 * (max(heights) / min(heights))**0.25  # for the labels, whatever the scale
        limits = min(heights) / room, max(heights) * room
        roofs.set(xscale="log", yscale="log", xlim=_INTENSITIES, ylim=limits, xlabel="operations per byte read",
                  ylabel="trillion operations/s")
        roofs.minorticks_off()
        for axis, (lowest, highest) in ((roofs.xaxis, _INTENSITIES), (roofs.yaxis, limits)):
            powers = [10.0**n for n in range(math.ceil(math.log10(lowest)), math.floor(math.log10(highest)) + 1)]
            axis.set_ticks(powers, [f"{power:,.0f}" if power >= 1 else f"{power:g}" for power in powers])
        roofs.legend(loc="lower right", fontsize=9)
        _draw_memory(memory, plan)
    return fig


def _draw_roof(ax: Axes, bandwidth: float, arithmetic: float, name: str, line: str) -> list[float]:
    """Draw the roof of a machine; return its heights in trillions of operations per second."""
    left, right = _INTENSITIES
    ridge = min(max(arithmetic / bandwidth, left), right)
    heights = [min(arithmetic, intensity * bandwidth) / 1e12 for intensity in (left, ridge, right)]
    ax.plot([left, ridge, right], heights, color=INK, linestyle=line, linewidth=1.5, marker="", label=name)
    return heights


def _draw_memory(ax: Axes, plan: Plan) -> None:
    """What fills the memory, and how much the machines have to plan with."""
    count = plan.gpus or 1
    room, left = count * USABLE * plan.gpu.memory / 1e9, 0.0
    # The workspace is needed on each machine, the rest is shared out.
    parts = (("weights", plan.weights, SERIES[0], ""), ("caches", plan.caches, CACHED, ".."),
             ("workspace", count * plan.workspace, SERIES[2], "xx"))
    for name, size, color, hatch in parts:
        ax.barh(0, size / 1e9, left=left, color=color, edgecolor="white", linewidth=0.4, hatch=hatch, label=name)
        left += size / 1e9
    ax.axvline(room, color=INK, linestyle="--", marker="", linewidth=1.5, label="usable")
    ax.set(xlim=(0, 1.1 * max(room, left)), yticks=(), xlabel="memory, GB")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -1.15), ncols=4, fontsize=9)
