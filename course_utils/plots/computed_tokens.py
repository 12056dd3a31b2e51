"""What each step of generation computes and what it reads, without and with a cache, side by side."""

from __future__ import annotations

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from course_utils.plots.figure import CACHED, GENERATED, INK, PROMPT, REJECTED, style

_HATCHES = {PROMPT: "", GENERATED: "", REJECTED: "//", CACHED: ".."}
_NAMES = {PROMPT: "prompt, computed once", GENERATED: "new token, computed once",
          REJECTED: "computed again in vain", CACHED: "read from the cache"}


def computed_tokens(prompt_tokens: int, new_tokens: int) -> Figure:
    """Draw which tokens each step computes, which of them again, and which are read from a cache instead.

    Args:
        prompt_tokens: length of the prompt.
        new_tokens: number of steps; the last token generated is never fed back, so it has no column.
    """
    with style():
        fig, axes = pyplot.subplots(1, 2, figsize=(9.0, 3.6), sharey=True)
        for ax, past, title in zip(axes, (REJECTED, CACHED), ("without a cache", "with a cache")):
            computed = _draw_steps(ax, prompt_tokens, new_tokens, past)
            ax.set_title(f"{title}: {computed} computed")
        axes[0].set_ylabel("step")
        fig.legend(handles=[Patch(facecolor=color, edgecolor=INK, hatch=_HATCHES[color], label=name)
                            for color, name in _NAMES.items()], loc="outside lower center", ncols=2)
    return fig


def _draw_steps(ax: Axes, prompt_tokens: int, new_tokens: int, past: str) -> int:
    """Draw one table whose past tokens have the colour `past`; returns how many tokens it computes."""
    computed = 0
    for step in range(new_tokens):
        length = prompt_tokens + step
        for position in range(length):
            is_new = step == 0 or position == length - 1
            color = (PROMPT if position < prompt_tokens else GENERATED) if is_new else past
            computed += color != CACHED
            ax.add_patch(Rectangle((position + 0.5, step + 0.5), 1, 1, facecolor=color, edgecolor="white",
                                   hatch=_HATCHES[color]))
    ax.set(xlim=(0.4, prompt_tokens + new_tokens - 0.4), ylim=(new_tokens + 0.6, 0.4),
           xlabel="position of the token", yticks=range(1, new_tokens + 1))
    return computed
