"""The picture of the README: one turn of the generation loop, from a prompt to the next token and round again."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from course_utils.plots.figure import CACHED, GENERATED, INK, PROMPT

_ARROWS = ("tokenizer", "embedding", "output layer", "choose")


def generation_loop(prompt: str, token_ids: list[int], next_token: str) -> Figure:
    """Draw it for a short prompt: five boxes in a row, an arrow back for the loop, the cache under the model."""
    boxes = (("text", f'"{prompt}"', PROMPT), ("token ids", str(token_ids), PROMPT),
             ("Qwen3", "attention and MLP,\nlayer by layer", INK), ("logits", "one score for\nevery token", INK),
             ("next token", f'"{next_token}"', GENERATED))
    figure = Figure(figsize=(11, 3.4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 11), ylim=(0, 3.4))
    axes.axis("off")
    for i, (title, text, colour) in enumerate(boxes):
        left = 0.2 + 2.2 * i
        axes.add_patch(FancyBboxPatch((left, 1.5), 1.5, 1.1, boxstyle="round,pad=0.05", fill=False, lw=2, ec=colour))
        axes.text(left + 0.75, 2.38, title, ha="center", va="center", weight="bold", color=colour, size=12)
        axes.text(left + 0.75, 1.85, text, ha="center", va="center", size=9.5, color=INK)
        if i < len(_ARROWS):
            axes.annotate("", (left + 2.13, 2.05), (left + 1.58, 2.05), arrowprops={"arrowstyle": "->", "lw": 1.6})
            axes.text(left + 1.85, 2.9, _ARROWS[i], ha="center", size=9, color=INK)
    axes.add_patch(FancyArrowPatch((9.75, 1.42), (3.1, 1.42), connectionstyle="arc3,rad=-0.16", arrowstyle="->",
                                   mutation_scale=14, lw=1.6, color=GENERATED))
    axes.text(7.9, 0.52, "append it and go round again", ha="center", size=10, color=GENERATED)
    axes.add_patch(FancyBboxPatch((4.35, 0.12), 2.0, 0.52, boxstyle="round,pad=0.05", fill=True, lw=2, ec=CACHED,
                                  fc="white", zorder=3))
    axes.text(5.35, 0.38, "keys and values, cached", ha="center", va="center", size=9, color=CACHED, zorder=4)
    axes.annotate("", (5.35, 1.42), (5.35, 0.72), arrowprops={"arrowstyle": "<->", "lw": 1.6, "color": CACHED})
    return figure
