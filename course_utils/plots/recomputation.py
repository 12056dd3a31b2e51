"""What a generation without a cache computes: at each step the whole text so far."""

from __future__ import annotations

from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from course_utils.plots.figure import GENERATED, INK, PROMPT, style


def recomputation(prompt_tokens: int, new_tokens: int) -> Figure:
    """Draw one row a forward pass and one cell a token that the pass computes.

    Args:
        prompt_tokens: length of the prompt.
        new_tokens: number of tokens generated, which is the number of passes.
    """
    with style():
        fig, ax = pyplot.subplots(figsize=(8, 0.9 + 0.32 * new_tokens))
        for step in range(new_tokens):
            for place in range(prompt_tokens + step):
                # A pass computes the token that the pass before has chosen for the first time, all others again.
                new = step == 0 or place == prompt_tokens + step - 1
                ax.add_patch(Rectangle((place, step), 0.9, 0.8, edgecolor=INK, linewidth=0.6,
                                       facecolor=PROMPT if place < prompt_tokens else GENERATED,
                                       alpha=1 if new else 0.3, hatch=None if new else "//"))
        ax.set_xlim(-0.2, prompt_tokens + new_tokens)
        ax.set_ylim(new_tokens + 0.1, -0.2)
        ax.set_yticks([step + 0.4 for step in range(new_tokens)], [f"pass {step + 1}" for step in range(new_tokens)])
        ax.set_xticks([])
        ax.set_xlabel("tokens of the text so far")
        ax.legend(handles=[Patch(facecolor=PROMPT, edgecolor=INK, label="prompt"),
                           Patch(facecolor=GENERATED, edgecolor=INK, label="generated"),
                           Patch(facecolor="white", edgecolor=INK, hatch="//", label="computed before")],
                  loc="upper right", framealpha=1, frameon=True, fontsize=9)
    return fig
