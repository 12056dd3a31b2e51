"""Text of strangers made fit for a terminal, which obeys some of the characters that it is sent.

An escape sequence moves the cursor, changes the title or the colours, and on some terminals more; a carriage return
writes over the line; a bidirectional override shows a text in another order than it has. Such characters can stand in
what a model writes, in the names of files and tensors, in what a server says and in files that others have made.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# Control characters (C0, DEL, C1), line and paragraph separators, embeddings, overrides and isolates of direction, and
# halves of surrogate pairs. Joiners and marks, which emoji and many scripts need, are none of these.
_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, keep: str = "") -> str:
    r"""The text with each character that steers a terminal written out, such as `\x1b`; all others stay.

    A text that comes in pieces may be handed over piece by piece.

    Args:
        text: from whoever.
        keep: characters that may stay, such as line feeds where the text has lines.
    """
    return _STEERING.sub(lambda match: match[0] if match[0] in keep else _written_out(match[0]), text)


def width(text: str) -> int:
    """How many letters wide a text is: a Chinese character is as wide as two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def padded(text: str, columns: int, right: bool = False) -> str:
    """A text with spaces after it, or with `right` before it, so that it is at least so many letters wide."""
    spaces = " " * (columns - width(text))
    return spaces + text if right else text + spaces


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Rows of a table as lines, with columns under one another.

    Args:
        rows: as long as one another.
        left: how many columns begin at their left, as texts do; the others end at their right, as numbers do.
    """
    widths = [max(map(width, column)) for column in zip(*rows)]
    return ["  ".join(padded(entry, columns, right=number >= left)
                      for number, (entry, columns) in enumerate(zip(row, widths))).rstrip() for row in rows]


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode()
