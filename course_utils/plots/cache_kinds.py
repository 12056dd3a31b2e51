"""The growing and the fixed cache, step by step: what is copied, what is written, what lies idle."""

from __future__ import annotations

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from course_utils.plots.figure import CACHED, GENERATED, INK, REJECTED, style

_WHITE = "white"
_HATCHES = {GENERATED: "", CACHED: "", REJECTED: "//", _WHITE: ""}


def cache_kinds(prompt_tokens: int, steps: int, max_length: int) -> Figure:
    """Draw the places of a growing and of a fixed cache after the prompt and after each further token.

    Args:
        prompt_tokens: length of the prompt, which fills the cache first.
        steps: number of tokens after it.
        max_length: places of the fixed cache.
    """
    with style():
        fig, (growing, fixed) = pyplot.subplots(1, 2, figsize=(9.0, 3.4), sharey=True)
        for step in range(steps + 1):
            length = prompt_tokens + step
            written = 1 if step else prompt_tokens
            _draw_row(growing, step, [REJECTED] * (length - written) + [GENERATED] * written)
            idle = [_WHITE] * (max_length - length)
            _draw_row(fixed, step, [CACHED] * (length - written) + [GENERATED] * written + idle)
        growing.set_title("growing: everything is copied")
        fixed.set_title("fixed: one place is written")
        for ax in (growing, fixed):
            ax.set(xlim=(0.4, max_length + 0.6), ylim=(steps + 0.6, -0.6), xlabel="place in the cache",
                   yticks=range(steps + 1))
        growing.set_yticklabels(["prompt", *(f"token {step}" for step in range(1, steps + 1))])
        names = {GENERATED: "written", REJECTED: "copied to new memory", CACHED: "stays where it is",
                 _WHITE: "reserved, not used yet"}
        fig.legend(handles=[Patch(facecolor=color, edgecolor=INK, hatch=_HATCHES[color], label=name)
                            for color, name in names.items()], loc="outside lower center", ncols=4)
    return fig


def _draw_row(ax: Axes, step: int, colors: list[str]) -> None:
    for place, color in enumerate(colors):
        edge = "silver" if color == _WHITE else "white"
        ax.add_patch(Rectangle((place + 0.55, step - 0.45), 0.9, 0.9, facecolor=color, edgecolor=edge,
                               hatch=_HATCHES[color]))
