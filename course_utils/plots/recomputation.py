"""What each pass of a generation computes: the whole text so far without a cache, one token with one."""

from __future__ import annotations

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from course_utils.plots.figure import CACHED, GENERATED, INK, PROMPT, style

_PROMPT = Patch(facecolor=PROMPT, edgecolor=INK, label="prompt")
_GENERATED = Patch(facecolor=GENERATED, edgecolor=INK, label="generated")


def recomputation(prompt_tokens: int, new_tokens: int) -> Figure:
    """Draw one row a forward pass without a cache, and one cell a token that the pass computes.

    Args:
        prompt_tokens: length of the prompt.
        new_tokens: number of tokens generated, which is the number of passes.
    """
    return _passes(prompt_tokens, new_tokens, cached=False)


def reuse(prompt_tokens: int, new_tokens: int) -> Figure:
    """Draw the same passes with a cache: what a pass computes, and whose keys and values it finds in the cache.

    Args:
        prompt_tokens: length of the prompt.
        new_tokens: number of tokens generated, which is the number of passes.
    """
    return _passes(prompt_tokens, new_tokens, cached=True)


def _passes(prompt_tokens: int, new_tokens: int, cached: bool) -> Figure:
    with style():
        fig, ax = pyplot.subplots(figsize=(8, 0.9 + 0.32 * new_tokens))
        for step in range(new_tokens):
            for place in range(prompt_tokens + step):
                color = PROMPT if place < prompt_tokens else GENERATED
                # A pass computes the token that the pass before has chosen for the first time.
                if step == 0 or place == prompt_tokens + step - 1:
                    _cell(ax, place, step, color)
                elif cached:
                    _cell(ax, place, step, CACHED, "white", "..")
                else:
                    _cell(ax, place, step, "white", color, "//")
        ax.set_xlim(-0.2, prompt_tokens + new_tokens)
        ax.set_ylim(new_tokens + 0.1, -0.2)
        ax.set_yticks([step + 0.4 for step in range(new_tokens)], [f"pass {step + 1}" for step in range(new_tokens)])
        ax.set_xticks([])
        ax.set_xlabel("tokens of the text so far")
        before = (Patch(facecolor=CACHED, edgecolor="white", hatch="..", label="not computed: cached") if cached
                  else Patch(facecolor="white", edgecolor=INK, hatch="//", label="computed before"))
        ax.legend(handles=[_PROMPT, _GENERATED, before], loc="upper right", fontsize=9)
    return fig


def _cell(ax: Axes, place: int, step: int, face: str, edge: str = INK, hatch: str = "") -> None:
    ax.add_patch(Rectangle((place, step), 0.9, 0.8, facecolor=face, edgecolor=edge, linewidth=0.8, hatch=hatch))
