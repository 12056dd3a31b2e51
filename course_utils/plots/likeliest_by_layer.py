"""What the model would say after each layer: the likeliest next token at each place of a text."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import pyplot
from matplotlib.figure import Figure
from torch import Tensor

from course_utils.errors import InputError
from course_utils.plots.candidates import LEAST
from course_utils.plots.figure import style
from course_utils.plots.shades import SHARE, ink_on
from course_utils.plots.token_labels import shortened, token_labels, width
from course_utils.tokenizer import Qwen3Tokenizer

_MOST_TOKENS = 12  # with more, the words in the cells would run into each other
_WIDTH = 8.6  # inches for the cells
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
    if logits.dim() != 3 or logits.shape[1] != len(labels) or not 0 < len(labels) <= _MOST_TOKENS:
        raise InputError(f"logits has shape {tuple(logits.shape)}, with {len(labels)} labels: give (layers + 1, "
                         f"tokens, vocabulary) of one text, and labels for 1 to {_MOST_TOKENS} tokens.")
    values, ids = logits.float().softmax(dim=-1).max(dim=-1)
    room = int(_WIDTH / len(labels) / _LETTER)  # letters in a cell
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
        ax.set_yticks(range(rows), ["embeddings", *[f"after layer {layer}" for layer in range(rows - 1)]], fontsize=9)
        ax.set_xlabel("token of the text; in the cells, what would come next", fontsize=9)
    return fig
