"""What lies below PyTorch: a softmax tile by tile, memory of attention, sizes of groups, and products in C."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.attention_tiles import SoftmaxStep
from course_utils.language import gettext
from course_utils.plots.figure import CACHED, FAINT, GENERATED, INK, SERIES, style


def attention_memory(lengths: Sequence[int], largest: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the bytes of the largest tensor that attention makes against the length of the text, logarithmically.

    Args:
        lengths: of the text, in tokens.
        largest: name of each way, and its bytes at each length.
    """
    with style():
        fig, ax = pyplot.subplots()
        for (name, numbers), line in zip(largest.items(), cycle(("-", "--", ":"))):
            ax.plot(lengths, [each / 1e6 for each in numbers], linestyle=line, label=name)
        ax.set(xlabel=gettext("tokens of the text"), ylabel=gettext("largest tensor, MB"), xscale="log", yscale="log")
        ax.set_xticks(lengths, [f"{length:,}" for length in lengths])
        ax.minorticks_off()
        ax.legend()
    return fig


def softmax_in_tiles(scores: Sequence[float], step: SoftmaxStep) -> Figure:
    """Draw a row of scores of which a part has gone by, and the shares that its numbers have so far.

    Args:
        scores: the row.
        step: what is known after a tile of it.
    """
    with style():
        fig, (above, below) = pyplot.subplots(2, figsize=(7.0, 4.2), sharex=True)
        looks: tuple[dict[str, str], ...] = (
            {"color": CACHED}, {"color": GENERATED, "hatch": "//", "edgecolor": "white"},
            {"facecolor": "white", "edgecolor": FAINT})
        names = gettext("seen before, not kept"), gettext("this tile"), gettext("not seen yet")
        parts = range(step.first), range(step.first, step.seen), range(step.seen, len(scores))
        for places, name, look in zip(parts, names, looks):
            if places:
                above.bar(places, [scores[place] for place in places], label=name, **look)
            if places and places.start < step.seen:
                below.bar(places, [math.exp(scores[place] - step.largest) / step.total for place in places], **look)
        above.axhline(step.largest, color=INK, linestyle="--", linewidth=1, marker="")
        above.axhline(0, color=INK, linewidth=0.8, marker="")
        above.set(ylabel=gettext("score"), title=gettext("largest so far {largest:.2f}, sum so far {total:.2f}").format(
            largest=step.largest, total=step.total))
        below.set(xlabel=gettext("place in the row"), ylabel=gettext("share so far"), ylim=(0, 1),
                  xticks=range(len(scores)))
        fig.legend(loc="outside upper center", ncols=3)
    return fig


def group_trade(losses: Mapping[int, tuple[float, float]]) -> Figure:
    """Draw the loss that 4 bits add to a model against its bits a weight, one point for each size of a group.

    Args:
        losses: size of the groups, and the bits a weight, scales included, and the added loss with it.
    """
    with style():
        fig, ax = pyplot.subplots()
        bits, added = zip(*losses.values())
        ax.plot(bits, added)
        for size, (x, y) in losses.items():
            ax.annotate(gettext("groups of {size}").format(size=size), (x, y), (7, 7), textcoords="offset points",
                        fontsize=9)
        ax.margins(x=0.15)
        ax.set(xlabel=gettext("bits a weight"), ylabel=gettext("added loss"), ylim=(0, 1.15 * max(added)))
    return fig


def product_rates(rates: Mapping[str, float], bandwidth: float) -> Figure:
    """Draw how many bytes of weights each way to multiply reads in a second, beside what the memory can deliver.

    Args:
        rates: name of each way, and its bytes per second.
        bandwidth: of the memory, in bytes per second.
    """
    with style():
        fig, ax = pyplot.subplots(figsize=(7.0, 0.9 + 0.5 * len(rates)))
        speeds, limit = [rate / 1e9 for rate in rates.values()], bandwidth / 1e9
        bars = ax.barh(list(rates), speeds, color=SERIES[0])
        ax.axvline(limit, color=INK, linestyle="--",
                   label=gettext("memory: {bandwidth:.1f} GB/s").format(bandwidth=limit))
        # A number may come to stand on the line of the memory.
        ax.bar_label(bars, [f"{speed:.2g}" for speed in speeds], padding=3,
                     bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
        # From a power of ten below the slowest, so that its bar can be seen; on a logarithmic scale there is no zero.
        ax.set(xscale="log", xlabel=gettext("weights read, GB/s"),
               xlim=(10 ** math.floor(math.log10(min(speeds)) - 0.3), 4 * max(limit, *speeds)))
        ax.invert_yaxis()
        fig.legend(loc="outside upper right")
    return fig
