"""The growing and the fixed cache, step by step: what is copied, what is written, what lies idle."""

from __future__ import annotations

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from course_utils.plots.figure import CACHED, GENERATED, PROMPT, SERIES, style

# Face, edge and hatch of a place. What is copied was cached before, so it has the same colour as what stays.
_PROMPT, _TOKEN, _STAYS = (PROMPT, "white", ""), (GENERATED, "white", "//"), (CACHED, "white", "..")
_COPIED, _IDLE = ("white", CACHED, ".."), ("white", SERIES[2], "")
_NAMES = {_PROMPT: "written: prompt", _TOKEN: "written: new token", _COPIED: "copied to new memory",
          _STAYS: "stays where it is", _IDLE: "reserved, not used yet"}


def cache_kinds(prompt_tokens: int, steps: int, max_length: int) -> Figure:
    """Draw the places of a growing and of a fixed cache after the prompt and after each further token.

    Args:
        prompt_tokens: length of the prompt, which fills the cache first.
        steps: number of tokens after it.
        max_length: places of the fixed cache.
    """
    with style():
        fig, (growing, fixed) = pyplot.subplots(1, 2, figsize=(9.0, 3.4), sharey=True)
        _draw_row(growing, 0, [_PROMPT] * prompt_tokens)
        _draw_row(fixed, 0, [_PROMPT] * prompt_tokens + [_IDLE] * (max_length - prompt_tokens))
        for step in range(1, steps + 1):
            held = prompt_tokens + step - 1
            _draw_row(growing, step, [_COPIED] * held + [_TOKEN])
            _draw_row(fixed, step, [_STAYS] * held + [_TOKEN] + [_IDLE] * (max_length - held - 1))
        growing.set_title("growing: everything is copied")
        fixed.set_title("fixed: one place is written")
        for ax in (growing, fixed):
            ax.set(xlim=(0.4, max_length + 0.6), ylim=(steps + 0.6, -0.6), xlabel="place in the cache",
                   yticks=range(steps + 1))
        growing.set_yticklabels(["prompt", *(f"token {step}" for step in range(1, steps + 1))])
        fig.legend(handles=[Patch(facecolor=face, edgecolor=edge, hatch=hatch, label=name)
                            for (face, edge, hatch), name in _NAMES.items()], loc="outside lower center", ncols=3)
    return fig


def _draw_row(ax: Axes, step: int, looks: list[tuple[str, str, str]]) -> None:
    for place, (face, edge, hatch) in enumerate(looks):
        ax.add_patch(Rectangle((place + 0.55, step - 0.45), 0.9, 0.9, facecolor=face, edgecolor=edge, hatch=hatch))
