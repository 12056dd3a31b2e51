"""Texts as the pieces that their tokens are, and what a vocabulary's size means."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.plots.figure import INK, SERIES, TINTS, style
from course_utils.plots.labels import with_visible_spaces
from course_utils.tokenizer import Qwen3Tokenizer


@dataclass(frozen=True)
class TokenPieces:
    """What `token_pieces` returns. A notebook shows it in colour, with the id and the bytes of each token.

    It is HTML, since matplotlib brings no Chinese characters; a reader without colours or pictures gets the same as a
    list.

    Attributes:
        pieces: (id, bytes, readable text) of each token.
        special: the ids among them that are one token by decree, such as that of `<|im_end|>`.
    """

    pieces: tuple[tuple[int, bytes, str], ...]
    special: frozenset[int] = frozenset()

    def __repr__(self) -> str:
        width = max((len(str(token_id)) for token_id, _, _ in self.pieces), default=0)
        special = gettext(", special")
        lines = [f"{token_id:>{width}}  {text}  ({data.hex(' ')})" + (special if token_id in self.special else "")
                 for token_id, data, text in self.pieces]
        return "\n".join([gettext("{count} tokens:").format(count=len(lines)), *lines])

    def _repr_html_(self) -> str:
        boxes = "".join(_box(position, *piece, piece[0] in self.special) for position, piece in enumerate(self.pieces))
        label = gettext("{count} tokens").format(count=len(self.pieces))
        return (f'<div role="list" aria-label="{label}" style="background: white; color: {INK}; '
                f'padding: 8px; line-height: 1.3">{boxes}</div>')


def token_pieces(tokenizer: Qwen3Tokenizer, text: str) -> TokenPieces:
    """Cut a text into its tokens, to look at.

    Args:
        tokenizer: whose tokens.
        text: any text.

    Returns:
        An object that a notebook shows as coloured boxes and a terminal as a list. A space is shown as ␣, and bytes
        that are no whole character as they are escaped in Python. Special tokens have a double border and say so.
    """
    return pieces_of(tokenizer, tokenizer.encode(text))


def pieces_of(tokenizer: Qwen3Tokenizer, token_ids: Iterable[int]) -> TokenPieces:
    """The same for a text that is tokens already."""
    pieces = tuple(
        (token_id, tokenizer.token_bytes(token_id), with_visible_spaces(tokenizer.token_text(token_id)))
        for token_id in token_ids)
    return TokenPieces(pieces, frozenset(tokenizer.special_tokens.values()) & {piece[0] for piece in pieces})


def _box(position: int, token_id: int, data: bytes, text: str, special: bool) -> str:
    small = "font-size: 75%"
    return (f'<div role="listitem" style="display: inline-block; vertical-align: top; text-align: center; '
            f'background: {TINTS[position % len(TINTS)]}; color: {INK}; margin: 2px; padding: 3px 6px; '
            f'border: {f"3px double {INK}" if special else f"1px solid {SERIES[2]}"}; border-radius: 4px">'
            f'<div style="font-family: monospace; font-weight: bold; white-space: pre">{html.escape(text)}</div>'
            f'<div style="{small}">{token_id}</div>'
            f'<div style="{small}; font-family: monospace">{_hex(data)}</div>'
            + (f'<div style="{small}">{gettext("special")}</div>' if special else "") + "</div>")


def _hex(data: bytes) -> str:
    """The bytes in two digits each, the middle of a long token left out."""
    return data.hex(" ") if len(data) <= 4 else f"{data[:2].hex(' ')} … {data[-1:].hex()}"


def vocabulary_sizes(sizes: Mapping[str, int], highlighted: str) -> Figure:
    """One bar a vocabulary, as long as it has tokens.

    Args:
        sizes: name and number of tokens of each.
        highlighted: the one that the reader is using; its bar is hatched.

    Raises:
        InputError: if `highlighted` is not among them.
    """
    if highlighted not in sizes:
        raise InputError(gettext("There is no vocabulary {highlighted!r}: choose one of {sizes}.").format(
            highlighted=highlighted, sizes=", ".join(sizes)))
    with style():
        fig, ax = pyplot.subplots(figsize=(7.0, 0.8 + 0.42 * len(sizes)))
        for row, (name, size) in enumerate(sizes.items()):
            mine = name == highlighted
            ax.barh(row, size, color="white" if mine else SERIES[0], edgecolor=SERIES[0],
                    hatch="//" if mine else "")
            ax.text(size, row, f" {size:,}", va="center")
        ax.set_yticks(range(len(sizes)), list(sizes))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.set_xlim(0, max(sizes.values()) * 1.18)
        ax.set_xlabel(gettext("tokens in the vocabulary"))
        ax.invert_yaxis()
    return fig


def vocabulary_trade(sizes: Sequence[int], tokens: Mapping[str, Sequence[int]]) -> Figure:
    """One curve a text: number of tokens over the size of the vocabulary, on a logarithmic axis.

    It shows what a larger vocabulary buys: shorter token sequences for the same text.

    Args:
        sizes: vocabulary sizes, ascending.
        tokens: for each text, by a name, the number of tokens that it has with each of these sizes.

    Raises:
        InputError: if a text has not one number for each size.
    """
    if any(len(counts) != len(sizes) for counts in tokens.values()):
        raise InputError(gettext("There are {count} vocabulary sizes: give as many numbers of tokens for every "
                                 "text.").format(count=len(sizes)))
    with style():
        fig, ax = pyplot.subplots()
        for name, counts in tokens.items():
            ax.plot(sizes, counts, label=name)
        ax.set_xscale("log", base=2)
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45)
        ax.minorticks_off()
        ax.set_ylim(bottom=0)
        ax.set_xlabel(gettext("tokens in the vocabulary"))
        ax.set_ylabel(gettext("tokens of the text"))
        ax.legend()
    return fig
