"""How alike words are to the model: a table of cosine similarities."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import pyplot
from matplotlib.figure import Figure
from torch import Tensor

from course_utils.errors import InputError
from course_utils.plots.figure import style
from course_utils.plots.shades import SIGNED, ink_on
from course_utils.plots.token_labels import width


def word_similarity(matrix: Tensor, words: Sequence[str]) -> Figure:
    """Draw the similarity of each word with each, as a number on a shade: indigo for alike, brown for opposite.

    Args:
        matrix: (n, n), cosine similarities, -1 to 1.
        words: the n words, as `token_labels` writes them where they may not be ASCII.

    Raises:
        InputError: if the matrix is not as large as the list of words.
    """
    n = len(words)
    if matrix.shape != (n, n) or not n:
        raise InputError(f"The matrix has shape {tuple(matrix.shape)} and there are {n} words: give a row and a column "
                         "for each word.")
    values = matrix.detach().float().cpu().numpy()
    side = 0.6 * n + 0.085 * max(map(width, words)) + 0.3
    with style():
        fig, ax = pyplot.subplots(figsize=(side, side))
        ax.imshow(values, cmap=SIGNED, vmin=-1, vmax=1)
        for row in range(n):
            for column in range(n):
                value = round(float(values[row, column]), 2) + 0.0  # without the sign of a zero
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=10, color=ink_on(value))
        ax.set_xticks(range(n), words, rotation=90, fontsize=10, parse_math=False)
        ax.set_yticks(range(n), words, fontsize=10, parse_math=False)
    return fig
