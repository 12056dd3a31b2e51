"""Where attention heads look: one map a head, one row a token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from course_utils.errors import InputError
from course_utils.plots.figure import FAINT, style
from course_utils.plots.shades import SHARE, ink_on
from course_utils.plots.token_labels import width

_FEW = 8  # up to so many tokens, a weight as text fits into its cell
_WIDTH = 10  # inches; a wider picture would be shrunk in a notebook, and its text with it
_MOST_TOKENS = 40  # with more, labels would run into each other


def attention_maps(attention: Tensor, labels: Sequence[str], titles: Sequence[str]) -> Figure:
    """Draw attention weights: a row shows how much its token looks at each token, darker for more.

    What the causal mask forbids is hatched. With few tokens the weights also stand in the cells.

    Args:
        attention: (heads, t, t), weights of one or several heads for one text, rows sum to 1.
        labels: the t tokens, as `token_labels` writes them.
        titles: one for each head, such as "layer 5, head 7".

    Raises:
        InputError: if the numbers of heads, tokens, titles and labels do not go together, or there are too many
            tokens to be read.
    """
    heads, t = len(titles), len(labels)
    if attention.shape != (heads, t, t) or not 0 < t <= _MOST_TOKENS or not heads:
        raise InputError(f"attention has shape {tuple(attention.shape)}, with {heads} titles and {t} labels: give "
                         f"(heads, tokens, tokens), a title for each head, and labels for 1 to {_MOST_TOKENS} tokens.")
    # Beside the cells there must be room for the labels, which are as long at the left as they are below.
    side = max(1.2, (0.42 if t <= _FEW else 0.2) * t)
    room = 0.6 + 0.085 * max(map(width, labels))
    columns = min(heads, max(1, int(_WIDTH / (side + room))))
    rows = -(-heads // columns)
    with style():
        fig, axes = pyplot.subplots(rows, columns, squeeze=False,
                                    figsize=(columns * (side + room), rows * (side + room + 0.2)))
        for ax in axes.flat[heads:]:
            ax.axis("off")
        for ax, weights, title in zip(axes.flat, attention.detach().float().cpu().numpy(), titles):
            _draw(ax, weights, labels, title)
    return fig


def _draw(ax: Axes, weights: np.ndarray, labels: Sequence[str], title: str) -> None:
    t = len(labels)
    ax.imshow(weights, cmap=SHARE, vmin=0, vmax=1)
    edges = np.arange(t + 1) - 0.5
    ax.fill_between(edges, -0.5, edges, step="post", facecolor="none", edgecolor=FAINT, hatch="///", linewidth=0)
    if t <= _FEW:
        for row in range(t):
            for column in range(row + 1):
                value = float(weights[row, column])
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9, color=ink_on(value))
    ax.set_xticks(range(t), labels, rotation=90, fontsize=9, parse_math=False)
    ax.set_yticks(range(t), labels, fontsize=9, parse_math=False)
    ax.set_title(title, fontsize=11)
    ax.set_xlabel("looks at", fontsize=9)
    ax.set_ylabel("token", fontsize=9)
