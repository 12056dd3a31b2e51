"""What goes on inside a model: positions, attention, words beside words, and what it would say after each layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.plots.figure import FAINT, INK, SERIES, SHARE, SIGNED, ink_on, style
from course_utils.plots.labels import shortened, token_labels, width
from course_utils.plots.sampling import LEAST
from course_utils.tokenizer import Qwen3Tokenizer


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
        raise InputError(gettext("The matrix has shape {shape} and there are {n} words: give a row "
                                 "and a column for each word.").format(shape=tuple(matrix.shape), n=n))
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


_WAVES = 4


def position_waves(encoding: Tensor) -> Figure:
    """Draw some columns of an encoding as waves over the positions, and all of it as a table of shades.

    Args:
        encoding: (positions, size), as `sinusoidal_encoding` gives it.

    Raises:
        InputError: if it is not a matrix of at least two positions.
    """
    if encoding.dim() != 2 or encoding.shape[0] < 2:
        raise InputError(gettext("The encoding has shape {shape}: give (positions, size) with at least two "
                                 "positions.").format(shape=tuple(encoding.shape)))
    values = encoding.detach().float().cpu().numpy()
    positions, size = values.shape
    with style():
        fig, (left, right) = pyplot.subplots(1, 2, figsize=(9.5, 3.6))
        for line, column in enumerate(range(0, size, max(2, size // _WAVES // 2 * 2))):
            left.plot(values[:, column], label=gettext("column {column}").format(column=column),
                      markevery=(2 * line, max(1, positions // 6)))
        left.set_xlabel(gettext("position"))
        left.set_ylabel(gettext("value"))
        left.set_ylim(-1.1, 1.6)
        left.set_yticks([-1, 0, 1])
        left.legend(loc="upper right", ncols=2, fontsize=9)
        table = right.imshow(values, cmap=SIGNED, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        right.set_xlabel(gettext("column"))
        right.locator_params(axis="x", integer=True)
        right.set_ylabel(gettext("position"))
        fig.colorbar(table, ax=right, ticks=[-1, 0, 1], label=gettext("value"))
    return fig


def rotary_angles(frequencies: Tensor, pairs: Sequence[int], positions: int = 12) -> Figure:
    """Draw how far some pairs have turned at each position, one panel a pair.

    A dot stands for a position, the further out the later, so that a pair which hardly turns is a straight line and
    one which turns fast a spiral.

    Args:
        frequencies: (head_dim / 2,), by how many radians each pair turns per position: `rotary_emb.frequencies`.
        pairs: which of them, counted from 0.
        positions: how many, counted from 0.

    Raises:
        InputError: if there is no such pair, or nothing to draw.
    """
    if not pairs or positions < 2 or not all(0 <= pair < len(frequencies) for pair in pairs):
        raise InputError(gettext("Pairs {pairs} at {positions} positions cannot be drawn: give pairs from 0 to {count}"
                                 ", and at least two positions.").format(
            pairs=list(pairs), positions=positions, count=len(frequencies) - 1))
    places = torch.arange(positions)
    with style():
        fig, axes = pyplot.subplots(1, len(pairs), squeeze=False, figsize=(2.5 * len(pairs), 2.9))
        for ax, pair in zip(axes.flat, pairs):
            angles = places * float(frequencies[pair])
            x, y = (places + 1) * angles.cos(), (places + 1) * angles.sin()
            ax.plot(x, y, color=SERIES[0], marker="o", markersize=5, linewidth=1)
            ax.plot(x[:1], y[:1], color=SERIES[1], marker="s", markersize=8)
            for position, away in ((0, (0.0, -13.0)), (positions - 1, (12 * float(angles[-1].cos()),
                                                                      12 * float(angles[-1].sin())))):
                ax.annotate(str(position), (x[position], y[position]), away, textcoords="offset points", ha="center",
                            va="center", fontsize=9, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
            ax.axhline(0, color=FAINT, linewidth=1, marker="", zorder=0)
            ax.axvline(0, color=FAINT, linewidth=1, marker="", zorder=0)
            reach = 1.35 * positions
            ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            ax.set_title(gettext("pair {pair}").format(pair=pair), fontsize=11, color=INK)
    return fig


_FEW = 8  # up to so many tokens, a weight as text fits into its cell
_MAPS_WIDTH = 10  # inches; a wider picture would be shrunk in a notebook, and its text with it
_MOST_TOKENS = 40  # with more, the labels of a map would run into each other


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
        raise InputError(gettext("attention has shape {shape}, with {heads} titles and {t} labels: give "
                                 "(heads, tokens, tokens), a title for each head, and labels for 1 to "
                                 "{most_tokens} tokens.").format(
            shape=tuple(attention.shape), heads=heads, t=t, most_tokens=_MOST_TOKENS))
    # Beside the cells there must be room for the labels, which are as long at the left as they are below.
    side = max(1.2, (0.42 if t <= _FEW else 0.2) * t)
    room = 0.6 + 0.085 * max(map(width, labels))
    columns = min(heads, max(1, int(_MAPS_WIDTH / (side + room))))
    rows = -(-heads // columns)
    with style():
        fig, axes = pyplot.subplots(rows, columns, squeeze=False,
                                    figsize=(columns * (side + room), rows * (side + room + 0.2)))
        for ax in axes.flat[heads:]:
            ax.axis("off")
        for ax, weights, title in zip(axes.flat, attention.detach().float().cpu().numpy(), titles):
            _draw_map(ax, weights, labels, title)
    return fig


def _draw_map(ax: Axes, weights: np.ndarray, labels: Sequence[str], title: str) -> None:
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
    ax.set_xlabel(gettext("looks at"), fontsize=9)
    ax.set_ylabel(gettext("token"), fontsize=9)


_MOST_COLUMNS = 12  # tokens; with more, the words in the cells would run into each other
_CELLS_WIDTH = 8.6  # inches for the cells
_LETTER = 0.095


def likeliest_by_layer(logits: Tensor, tokenizer: Qwen3Tokenizer, labels: Sequence[str]) -> Figure:
    """Draw one column a token and one row a layer, the last one on top; each cell names the token that would come
    next and how probable it is, darker for more. A question mark stands where none reaches one per cent; long tokens
    are cut to fit.

    Args:
        logits: (layers + 1, t, v), of one text, as `logits_by_layer` gives them; slice it to draw a part of the text.
        tokenizer: to write the tokens.
        labels: the t tokens, as `token_labels` writes them.

    Raises:
        InputError: if there is not one label for each token, or there are too many tokens to be read.
    """
    if logits.dim() != 3 or logits.shape[1] != len(labels) or not 0 < len(labels) <= _MOST_COLUMNS:
        raise InputError(gettext("logits has shape {shape}, with {count} labels: give (layers + 1, tokens, vocabulary) "
                                 "of one text, and labels for 1 to {most_columns} tokens.").format(
            shape=tuple(logits.shape), count=len(labels), most_columns=_MOST_COLUMNS))
    values, ids = logits.float().softmax(dim=-1).max(dim=-1)
    room = int(_CELLS_WIDTH / len(labels) / _LETTER)  # letters in a cell
    shares = values.tolist()
    texts = [[shortened(text, room) for text in token_labels(tokenizer, row)] for row in ids]
    labels = [shortened(label, room) for label in labels]
    rows, longest = len(shares), max(width(text) for row in [*texts, labels] for text in row)
    with style():
        fig, ax = pyplot.subplots(figsize=(1.2 + len(labels) * max(0.62, _LETTER * longest), 0.8 + 0.42 * rows))
        ax.imshow(shares, cmap=SHARE, vmin=0, vmax=1, aspect="auto", origin="lower")
        for layer, (row, names) in enumerate(zip(shares, texts)):
            for place, (share, name) in enumerate(zip(row, names)):
                text = f"{name}\n{share:.0%}" if share >= LEAST else "?"
                ax.text(place, layer, text, ha="center", va="center", fontsize=9, parse_math=False, linespacing=1.1,
                        color=ink_on(share))
        ax.set_xticks(range(len(labels)), labels, fontsize=9, parse_math=False)
        layers = [gettext("after layer {layer}").format(layer=layer) for layer in range(rows - 1)]
        ax.set_yticks(range(rows), [gettext("embeddings"), *layers], fontsize=9)
        ax.set_xlabel(gettext("token of the text; in the cells, what would come next"), fontsize=9)
    return fig
