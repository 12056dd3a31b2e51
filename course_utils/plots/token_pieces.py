"""A text as the pieces that its tokens are: in colour, with the id and the bytes of each.

Drawn as HTML, since matplotlib brings no Chinese characters; a reader without colours or pictures gets the same as a
list.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

from course_utils.tokenizer import Qwen3Tokenizer

# Light tints under black text: neighbours differ, and each is readable in a light and in a dark theme.
_TINTS = ("#cfe6f5", "#fbdcc8", "#c9eee0", "#f3dcea")
_VISIBLE_SPACE = "␣"


@dataclass(frozen=True)
class TokenPieces:
    """What `token_pieces` returns: (id, bytes, readable text) of each token. A notebook shows it in colour."""

    pieces: tuple[tuple[int, bytes, str], ...]

    def __repr__(self) -> str:
        width = max((len(str(token_id)) for token_id, _, _ in self.pieces), default=0)
        lines = [f"{token_id:>{width}}  {text}  ({data.hex(' ')})" for token_id, data, text in self.pieces]
        return "\n".join([f"{len(lines)} tokens:", *lines])

    def _repr_html_(self) -> str:
        boxes = "".join(_box(position, *piece) for position, piece in enumerate(self.pieces))
        return (f'<div role="list" aria-label="{len(self.pieces)} tokens" style="background: #ffffff; color: #000000; '
                f'padding: 8px; line-height: 1.3">{boxes}</div>')


def token_pieces(tokenizer: Qwen3Tokenizer, text: str) -> TokenPieces:
    """Cut a text into its tokens, to look at.

    Args:
        tokenizer: whose tokens.
        text: any text.

    Returns:
        An object that a notebook shows as coloured boxes and a terminal as a list. A space is shown as ␣, and bytes
        that are no whole character as they are escaped in Python.
    """
    return TokenPieces(tuple(
        (token_id, tokenizer.token_bytes(token_id), tokenizer.token_text(token_id).replace(" ", _VISIBLE_SPACE))
        for token_id in tokenizer.encode(text)))


def _box(position: int, token_id: int, data: bytes, text: str) -> str:
    small = "font-size: 75%; color: #333333"
    return (f'<div role="listitem" style="display: inline-block; vertical-align: top; text-align: center; '
            f'background: {_TINTS[position % len(_TINTS)]}; color: #000000; margin: 2px; padding: 3px 6px; '
            f'border: 1px solid #767676; border-radius: 4px">'
            f'<div style="font-family: monospace; font-weight: bold; white-space: pre">{html.escape(text)}</div>'
            f'<div style="{small}">{token_id}</div>'
            f'<div style="{small}; font-family: monospace">{_hex(data)}</div></div>')


def _hex(data: bytes) -> str:
    """The bytes in two digits each, the middle of a long token left out."""
    return data.hex(" ") if len(data) <= 4 else f"{data[:2].hex(' ')} … {data[-1:].hex()}"
