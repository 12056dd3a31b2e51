"""Tokens as labels in a picture."""

from __future__ import annotations

from collections.abc import Iterable

from course_utils.plots.figure import has_cjk_font
from course_utils.printable import width
from course_utils.tokenizer import Qwen3Tokenizer

_LONGEST = 12


def token_labels(tokenizer: Qwen3Tokenizer, token_ids: Iterable[int]) -> list[str]:
    """A short label for each token: its text with spaces made visible; its id where no installed font can draw it.

    Args:
        tokenizer: to write the tokens.
        token_ids: a list, or a tensor of one dimension.
    """
    return [_label(tokenizer, int(token_id)) for token_id in token_ids]


def _label(tokenizer: Qwen3Tokenizer, token_id: int) -> str:
    text = tokenizer.token_text(token_id)
    if not (text.isascii() or has_cjk_font()):
        return f"id {token_id}"
    return shortened(with_visible_spaces(text), _LONGEST)


def with_visible_spaces(text: str) -> str:
    """A token's text, of which spaces are a part that would not be seen."""
    return text.replace(" ", "␣")


def shortened(text: str, longest: int) -> str:
    """A text, cut if it is wider than so many letters."""
    if width(text) <= longest:
        return text
    while width(text) >= longest:
        text = text[:-1]
    return text + "…"
