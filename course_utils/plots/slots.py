"""Who has which place in a batch, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_utils.plots.figure import SERIES, style

_HATCHES = ("", "//", "..", "xx", "\\\\")

# For each step, the number of the request in each slot; None is an empty one.
Schedule = Sequence[Sequence[int | None]]


def slots(schedules: Mapping[str, Schedule]) -> Figure:
    """Draw schedules one below the other over the same steps: a bar is a request, a gap an empty slot.

    Args:
        schedules: name and schedule of each way of batching.
    """
    longest = max(len(schedule) for schedule in schedules.values())
    heights = [len(schedule[0]) for schedule in schedules.values()]
    with style():
        fig, panels = pyplot.subplots(len(schedules), figsize=(7.5, 0.8 * len(schedules) + 0.32 * sum(heights)),
                                      sharex=True, squeeze=False, height_ratios=heights)
        for ax, (name, schedule) in zip(panels[:, 0], schedules.items()):
            _draw(ax, schedule)
            ax.set_title(f"{name}: {len(schedule)} steps", fontsize=11, loc="left")
            ax.set_xlim(0, longest)
        panels[-1, 0].set_xlabel("decoding steps")
        panels[-1, 0].locator_params(axis="x", integer=True)
    return fig


def _draw(ax: Axes, schedule: Schedule) -> None:
    for slot, column in enumerate(zip(*schedule)):
        step = 0
        for request, run in groupby(column):
            length = len(list(run))
            if request is not None:
                ax.barh(slot, length, left=step, height=0.8, facecolor="white", edgecolor=SERIES[request % len(SERIES)],
                        linewidth=1.5, hatch=_HATCHES[request % len(_HATCHES)])
                ax.text(step + length / 2, slot, str(request), ha="center", va="center", fontsize=9,
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})
            step += length
    ax.set_yticks(range(len(schedule[0])), [f"slot {slot}" for slot in range(len(schedule[0]))], fontsize=9)
    ax.invert_yaxis()
