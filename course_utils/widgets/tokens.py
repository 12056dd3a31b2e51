"""Explorer: the tokens of a text while one types."""

from __future__ import annotations

from course_utils.language import gettext
from course_utils.plots.tokens import pieces_of
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.widgets.panel import Explorer, View
from course_utils.widgets.panel import text as text_field

_MOST_SHOWN = 300  # more would make a page slow, and nobody would read them


def token_table(tokenizer: Qwen3Tokenizer, text: str) -> View:
    """The tokens of a text in colour, each with its id and its bytes, and how many there are.

    Args:
        tokenizer: whose tokens.
        text: any text; of a very long one only the first tokens are shown, all are counted.
    """
    token_ids = tokenizer.encode(text)
    if not token_ids:
        return View("", gettext("No text, no tokens: type something."))
    special = sum(token_id in tokenizer.special_tokens.values() for token_id in token_ids)
    count = len(text.encode())
    tokens = gettext("1 token") if len(token_ids) == 1 else gettext("{count} tokens").format(count=len(token_ids))
    if special:
        tokens = gettext("{tokens} ({special} special)").format(tokens=tokens, special=special)
    characters = gettext("1 character") if len(text) == 1 else gettext("{count} characters").format(count=len(text))
    size = gettext("1 byte") if count == 1 else gettext("{count} bytes").format(count=count)
    sentence = gettext("{tokens} for {characters}, which are {size}: {rate:.1f} bytes a token.").format(
        tokens=tokens, characters=characters, size=size, rate=count / len(token_ids))
    if len(token_ids) > _MOST_SHOWN:
        sentence += gettext(" Shown are the first {most_shown} tokens.").format(most_shown=_MOST_SHOWN)
    return View(pieces_of(tokenizer, token_ids[:_MOST_SHOWN])._repr_html_(), sentence)


def explore_tokens(tokenizer: Qwen3Tokenizer, text: str) -> Explorer:
    """Type a text and see its tokens. The same without controls: `token_table`.

    Args:
        tokenizer: whose tokens.
        text: the text to begin with.
    """
    return Explorer(lambda text: token_table(tokenizer, text), {"text": text_field(gettext("Text"), text, rows=3)})
