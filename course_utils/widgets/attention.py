"""Explorer: where each attention head looks."""

from __future__ import annotations

from functools import lru_cache
from html import escape

from matplotlib.colors import to_hex
from torch import Tensor

from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.number import require_whole_number
from course_utils.plots.figure import FAINT, INK, SHARE, ink_on
from course_utils.plots.labels import shortened, with_visible_spaces
from course_utils.qwen3 import Qwen3Model
from course_utils.recording import Recording, record
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.widgets.panel import Explorer, View, number
from course_utils.widgets.panel import text as text_field
from course_utils.widgets.prompt import encode_prompt

MOST_TOKENS = 40  # a wider table cannot be read
_NAMED = 3  # of so many tokens the sentence says how much is looked at them
_HEAD = f"color:{INK};background:white;font-weight:normal;font-size:85%"
_CELL = f"padding:2px;text-align:center;font-size:80%;border:1px solid {FAINT};min-width:1.7em"
_HATCHED = f"background:repeating-linear-gradient(45deg,{FAINT} 0 1px,white 1px 5px)"


def attention_table(recording: Recording, tokenizer: Qwen3Tokenizer, layer: int, head: int, position: int) -> View:
    """One head's attention weights in per cent, a row a token, and in words what one of the tokens looks at.

    The table is HTML, so that Chinese is drawn by the page's own fonts. What the causal mask forbids is hatched.

    Args:
        recording: of one text.
        tokenizer: to write its tokens.
        layer: from 0.
        head: from 0.
        position: the token that is described, from 0; its row is framed.

    Raises:
        InputError: if there is no such layer, head or position, or the text is too long to be read.
    """
    layers, _, heads, tokens, _ = recording.attention.shape
    _check_length(tokens)
    layer = require_whole_number("layer", layer, 0, layers - 1)
    head = require_whole_number("head", head, 0, heads - 1)
    position = require_whole_number("position", position, 0, tokens - 1)
    labels = [with_visible_spaces(tokenizer.token_text(token_id)) for token_id in recording.token_ids[0].tolist()]
    weights = recording.attention[layer, 0, head]
    rows = "".join(_row(place, labels[place], weights[place], place == position) for place in range(tokens))
    header = "".join(f'<th scope="col" style="{_HEAD};writing-mode:vertical-rl;text-align:right;padding:2px 2px 6px">'
                     f"{escape(shortened(label, 12))}</th>" for label in labels)
    caption = gettext("Layer {layer}, head {head}: how much each token, a row, looks at each, in per cent").format(
        layer=layer, head=head)
    html = (f'<div style="overflow-x:auto"><table style="border-collapse:collapse;background:white;color:{INK}">'
            f'<caption style="color:{INK};background:white;text-align:left;white-space:nowrap">'
            f"{caption}</caption>"
            f'<thead><tr style="background:white"><td style="{_HEAD}"></td>{header}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>")
    return View(html, gettext("In layer {layer}, head {head}, the token at position {position}, '"
                              "{labels}', looks at {in_words}.").format(
        layer=layer, head=head, position=position, labels=labels[position],
        in_words=_in_words(weights[position], labels, position)))


def explore_attention(model: Qwen3Model, tokenizer: Qwen3Tokenizer, text: str) -> Explorer:
    """Choose a layer, a head and a token, and see where it looks; the model runs once for each text.

    The same without controls: `attention_table`.

    Args:
        model: any model of the course.
        tokenizer: the one of this model.
        text: the text to begin with, of at most 40 tokens.
    """
    @lru_cache(maxsize=1)
    def recorded(text: str) -> Recording:
        ids = encode_prompt(model, tokenizer, text, max_new_tokens=0)
        _check_length(ids.shape[1])  # before it is recorded, which takes memory with the square of it
        return record(model, ids)

    def draw(text: str, layer: int, head: int, position: int) -> View:
        recording = recorded(text)
        # While one types, the text may become shorter than the position.
        position = min(position, recording.token_ids.shape[1] - 1)
        return attention_table(recording, tokenizer, layer, head, position)

    config = model.config
    last = min(len(tokenizer.encode(text)), MOST_TOKENS) - 1
    return Explorer(draw, {
        "text": text_field(gettext("Text"), text, rows=2),
        "layer": number(gettext("Layer"), 0, 0, config.num_hidden_layers - 1, step=1),
        "head": number(gettext("Head"), 0, 0, config.num_attention_heads - 1, step=1),
        "position": number(gettext("Position of the token"), max(last, 0), 0, MOST_TOKENS - 1, step=1),
    })


def _check_length(tokens: int) -> None:
    if tokens > MOST_TOKENS:
        raise InputError(gettext("The text has {tokens} tokens, and a table of more than {most_tokens} "
                                 "cannot be read: shorten it.").format(tokens=tokens, most_tokens=MOST_TOKENS))


def _row(place: int, label: str, weights: Tensor, chosen: bool) -> str:
    frame = f";outline:2px solid {INK};outline-offset:-2px" if chosen else ""
    cells = "".join(_cell(share) for share in weights[:place + 1].tolist())
    after = len(weights) - place - 1
    hidden = f'<td aria-hidden="true" colspan="{after}" style="{_HATCHED}"></td>' if after else ""
    return (f'<tr style="background:white{frame}"><th scope="row" style="{_HEAD};text-align:right;white-space:nowrap;'
            f'font-weight:{"bold" if chosen else "normal"}">{escape(shortened(label, 12))} '
            f"<small>{place}</small></th>{cells}{hidden}</tr>")


def _cell(share: float) -> str:
    percent = round(100 * share)
    return f'<td style="{_CELL};background:{_SHADES[percent]};color:{ink_on(percent / 100)}">{percent or ""}</td>'


# One for each number that a cell can hold: the last digits of a weight do not matter.
_SHADES = [to_hex(SHARE(percent / 100)) for percent in range(101)]


def _in_words(weights: Tensor, labels: list[str], position: int) -> str:
    order = weights[:position + 1].sort(descending=True, stable=True)
    named = [(gettext("itself with {share:.0%}") if place == position
              else gettext("'{label}' at {place} with {share:.0%}")).format(
                  label=labels[place], place=place, share=share)
             for share, place in zip(order.values[:_NAMED].tolist(), order.indices.tolist())]
    return named[0] if len(named) == 1 else ", ".join(named[:-1]) + gettext(" and ") + named[-1]
