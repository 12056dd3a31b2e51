"""What a model asks of machines: memory, the limits of a plan, and a product of matrices on two of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.planner import USABLE, Gpu, Plan, Work
from course_utils.plots.figure import CACHED, GENERATED, INK, PROMPT, SERIES, style


def memory_plan(plans: Mapping[str, Plan]) -> Figure:
    """Draw a bar for each plan, of weights, caches and workspace, and a line for what 1, 2, 4 ... GPUs can hold.

    Args:
        plans: name of each bar and what it shows, all of them for the same kind of GPU.

    Raises:
        InputError: if there is no plan, or they are for different GPUs.
    """
    gpus = {each.gpu for each in plans.values()}
    if len(gpus) != 1:
        raise InputError(gettext("The plans are for {count} kinds of GPU: give at least one "
                                 "plan, all for the same kind.").format(count=len(gpus)))
    gpu = gpus.pop()
    highest = max(each.memory for each in plans.values()) / 1e9
    every = plans.values()
    parts = ((gettext("weights"), [each.weights for each in every], SERIES[0], ""),
             (gettext("caches"), [each.caches for each in every], CACHED, ".."),
             (gettext("workspace"), [each.workspace for each in every], SERIES[2], "xx"))
    with style():
        fig, ax = pyplot.subplots(figsize=(7.0, 1.4 + 0.4 * len(plans)))
        left = [0.0] * len(plans)
        for name, taken, color, hatch in parts:
            sizes = [count / 1e9 for count in taken]
            ax.barh(range(len(plans)), sizes, left=left, color=color, edgecolor="white", linewidth=0.4, hatch=hatch,
                    label=name)
            left = [start + size for start, size in zip(left, sizes)]
        count, room = 1, USABLE * gpu.memory / 1e9
        while count == 1 or count / 2 * room < highest:  # up to the first that holds them all
            ax.axvline(count * room, color=INK, linestyle="--", marker="", linewidth=1)
            ax.annotate(f"{count} {gpu.name}", (count * room, 1), xycoords=("data", "axes fraction"), fontsize=9,
                        ha="center", va="bottom")
            count *= 2
        ax.set_xlim(0, 1.05 * max(highest, count / 2 * room))
        ax.set_yticks(range(len(plans)), list(plans))
        ax.invert_yaxis()
        ax.set_xlabel(gettext("memory, GB"))
        fig.legend(loc="outside lower center", ncols=len(parts))
    return fig


_INTENSITIES = 0.3, 2e5  # between them lies all that a plan for this family asks of a machine
_MIDDLE = 1000.0  # of a point right of it the label stands at the left


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
        for what, work, color, marker, up in ((gettext("decode"), decode, GENERATED, "o", -1),
                                              (gettext("prefill"), prefill, PROMPT, "s", 1)):
            rate = count * min(plan.gpu.arithmetic, work.intensity * plan.gpu.bandwidth) / 1e12
            ridge = plan.gpu.arithmetic / plan.gpu.bandwidth
            bound = gettext("memory") if work.intensity < ridge else gettext("arithmetic")
            roofs.plot([work.intensity], [rate], color=color, marker=marker, markersize=9)
            right = work.intensity > _MIDDLE
            words = gettext("{what}:\nbound by {bound}").format(what=what, bound=bound)
            roofs.annotate(words, (work.intensity, rate), (-4 if right else 8, 8 * up),
                           textcoords="offset points", fontsize=9, ha="right" if right else "left",
                           va="bottom" if up > 0 else "top",
                           bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8})
        room = 3 * (max(heights) / min(heights))**0.25  # for the labels, whatever the scale
        limits = min(heights) / room, max(heights) * room
        roofs.set(xscale="log", yscale="log", xlim=_INTENSITIES, ylim=limits,
                  xlabel=gettext("operations per byte read"), ylabel=gettext("trillion operations/s"))
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
    parts = ((gettext("weights"), plan.weights, SERIES[0], ""), (gettext("caches"), plan.caches, CACHED, ".."),
             (gettext("workspace"), count * plan.workspace, SERIES[2], "xx"))
    for name, size, color, hatch in parts:
        ax.barh(0, size / 1e9, left=left, color=color, edgecolor="white", linewidth=0.4, hatch=hatch, label=name)
        left += size / 1e9
    ax.axvline(room, color=INK, linestyle="--", marker="", linewidth=1.5, label=gettext("usable"))
    ax.set(xlim=(0, 1.1 * max(room, left)), yticks=(), xlabel=gettext("memory, GB"))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -1.15), ncols=4, fontsize=9)


_FIRST, _SECOND, _BOTH = (SERIES[0], "//"), (SERIES[1], ".."), (INK, "")


def split_matrices() -> Figure:
    """Draw both ways, input times matrix is output; what a machine holds has its colour and its hatching."""
    with style():
        fig, (outputs, inputs) = pyplot.subplots(1, 2, figsize=(9.0, 2.4))
        _draw_product(outputs, gettext("by outputs: the halves stand side by side"),
              [(0, 2, 2, 0.5, _BOTH)], [(3.2, 1.25, 1, 2, _FIRST), (4.2, 1.25, 1, 2, _SECOND)],
              [(6.4, 2, 1, 0.5, _FIRST), (7.4, 2, 1, 0.5, _SECOND)])
        _draw_product(inputs, gettext("by inputs: the two results are added"),
              [(0, 2, 1, 0.5, _FIRST), (1, 2, 1, 0.5, _SECOND)],
              [(3.2, 2.25, 2, 1, _FIRST), (3.2, 1.25, 2, 1, _SECOND)],
              [(6.4, 2.6, 2, 0.5, _FIRST), (6.4, 1.4, 2, 0.5, _SECOND)])
        inputs.text(7.4, 2.25, "+", ha="center", va="center", fontsize=14)
    return fig


def _draw_product(ax: Axes, title: str, *parts: list[tuple[float, float, float, float, tuple[str, str]]]) -> None:
    for name, x, boxes in zip((gettext("input"), gettext("matrix"), gettext("output")), (1.0, 4.2, 7.4), parts):
        for left, bottom, width, height, (color, hatch) in boxes:
            ax.add_patch(Rectangle((left, bottom), width, height, facecolor="white", hatch=hatch, edgecolor=color,
                                   linewidth=1.5))
        ax.text(x, 0.75, name, ha="center", fontsize=10)
    ax.text(2.6, 2.25, "×", ha="center", va="center", fontsize=14)
    ax.text(5.8, 2.25, "=", ha="center", va="center", fontsize=14)
    ax.set(xlim=(-0.2, 8.6), ylim=(0.5, 3.5))
    ax.set_aspect("equal")
    ax.set_title(title, fontsize=10)
    ax.axis("off")
