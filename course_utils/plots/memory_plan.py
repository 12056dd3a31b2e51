"""What fills the memory for each size of a model, beside what so many GPUs have."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.errors import InputError
from course_utils.planner import USABLE, Plan
from course_utils.plots.figure import CACHED, INK, SERIES, style


def memory_plan(plans: Mapping[str, Plan]) -> Figure:
    """Draw a bar for each plan, of weights, caches and workspace, and a line for what 1, 2, 4 ... GPUs can hold.

    Args:
        plans: name of each bar and what it shows, all of them for the same kind of GPU.

    Raises:
        InputError: if there is no plan, or they are for different GPUs.
    """
    gpus = {each.gpu for each in plans.values()}
    if len(gpus) != 1:
        raise InputError(f"The plans are for {len(gpus)} kinds of GPU: give at least one plan, all for the same kind.")
    gpu = gpus.pop()
    highest = max(each.memory for each in plans.values()) / 1e9
    parts = (("weights", SERIES[0], ""), ("caches", CACHED, ".."), ("workspace", SERIES[2], "xx"))
    with style():
        fig, ax = pyplot.subplots(figsize=(7.0, 1.4 + 0.4 * len(plans)))
        left = [0.0] * len(plans)
        for name, color, hatch in parts:
            sizes = [getattr(each, name) / 1e9 for each in plans.values()]
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
        ax.set_xlabel("memory, GB")
        fig.legend(loc="outside lower center", ncols=len(parts))
    return fig
