"""What holds a batch up: the bytes of a step, throughput against latency, and empty slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_utils.config import Qwen3Config
from course_utils.costs import copied_bytes, pass_bytes
from course_utils.language import gettext
from course_utils.plots.figure import CACHED, GENERATED, HATCHES, INK, SERIES, style

_POINTS = 9


def step_bytes(config: Qwen3Config, max_length: int, batch: int = 1) -> Figure:
    """Draw the bytes of one step in bfloat16 against the tokens in each text: weights, and with either cache.

    Args:
        config: sizes of the model.
        max_length: the longest text drawn, in tokens.
        batch: number of texts side by side.
    """
    lengths = [max_length * point // (_POINTS - 1) for point in range(_POINTS)]
    costs = [pass_bytes(config, 1, length, batch) for length in lengths]
    copied = [copied_bytes(config, length, batch) for length in lengths]
    lines = (
        (gettext("with a growing cache, which is copied"), "--", "D",
         [cost.total + c for cost, c in zip(costs, copied)]),
        (gettext("with a fixed cache"), "-", "^", [cost.total for cost in costs]),
        (gettext("weights alone"), ":", "", [cost.weights for cost in costs]),
    )
    with style():
        fig, ax = pyplot.subplots()
        for name, line, marker, moved in lines:
            ax.plot(lengths, [each / 1e9 for each in moved], marker=marker, linestyle=line, label=name,
                    color=CACHED if marker else INK)
        ax.set(xlabel=gettext("tokens in each text"), ylabel=gettext("moved in one step, GB"),
               xlim=(0, None), ylim=(0, None))
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.legend()
    return fig


def throughput_latency(seconds: Mapping[int, float]) -> Figure:
    """Draw throughput against the time of a step, one point for each batch size: what all texts together gain, and how
    long each waits for its next token.

    Args:
        seconds: batch size, and the seconds of a step with so many texts.
    """
    with style():
        fig, ax = pyplot.subplots()
        milliseconds = [1e3 * each for each in seconds.values()]
        rates = [batch / each for batch, each in seconds.items()]
        alone = next(iter(seconds.items()))
        ax.plot(milliseconds, rates, color=GENERATED, marker="s", label=gettext("measured"))
        ax.axhline(alone[0] / alone[1], color=INK, linestyle=":", marker="", linewidth=1,
                   label=gettext("throughput of batch {alone}").format(alone=alone[0]))
        for batch, x, y in zip(seconds, milliseconds, rates):
            # The curve rises to the right, so below it there is room.
            ax.annotate(str(batch), (x, y), (5, -4), textcoords="offset points", va="top", fontsize=9)
        ax.set(xlabel=gettext("latency: one step, ms"), ylabel=gettext("throughput: tokens/s, all texts"),
               xlim=(0, 1.1 * max(milliseconds)), ylim=(0, 1.15 * max(rates)))
        ax.legend(loc="upper left")
    return fig


_SLOT_HATCHES = (*HATCHES, "\\\\")  # one more than colours, so that neighbours of one colour differ

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
            _draw_slots(ax, schedule)
            title = gettext("{name}: {count} steps").format(name=name, count=len(schedule))
            ax.set_title(title, fontsize=11, loc="left")
            ax.set_xlim(0, longest)
        panels[-1, 0].set_xlabel(gettext("decoding steps"))
        panels[-1, 0].locator_params(axis="x", integer=True)
    return fig


def _draw_slots(ax: Axes, schedule: Schedule) -> None:
    for slot, column in enumerate(zip(*schedule)):
        step = 0
        for request, run in groupby(column):
            length = len(list(run))
            if request is not None:
                ax.barh(slot, length, left=step, height=0.8, facecolor="white", edgecolor=SERIES[request % len(SERIES)],
                        linewidth=1.5, hatch=_SLOT_HATCHES[request % len(_SLOT_HATCHES)])
                ax.text(step + length / 2, slot, str(request), ha="center", va="center", fontsize=9,
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})
            step += length
    slots = [gettext("slot {slot}").format(slot=slot) for slot in range(len(schedule[0]))]
    ax.set_yticks(range(len(slots)), slots, fontsize=9)
    ax.invert_yaxis()
