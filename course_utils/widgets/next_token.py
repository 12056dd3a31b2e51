"""Explorer: the next token, and what temperature, top-k, top-p and min-p make of its probabilities."""

from __future__ import annotations

from functools import lru_cache
from html import escape

import torch
from torch import Tensor

from course_utils.generation import last_logits
from course_utils.language import gettext
from course_utils.plots.figure import GENERATED, INK, REJECTED, SERIES
from course_utils.plots.labels import with_visible_spaces
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import Sampler, Sampling
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.widgets.panel import Explorer, View, number
from course_utils.widgets.panel import text as text_field
from course_utils.widgets.prompt import encode_prompt

SHOWN = 12  # so many of the likeliest tokens are shown one by one
_FULL = 160  # pixels of a bar that stands for 100 %
_CELL = f"color:{INK};background:white;text-align:left;padding:1px 8px;border:1px solid {SERIES[2]};white-space:nowrap"


def next_token_table(tokenizer: Qwen3Tokenizer, logits: Tensor, sampling: Sampling) -> View:
    """The likeliest next tokens: how probable the model finds each, and with which chance it is drawn.

    Args:
        tokenizer: to write the tokens.
        logits: (1, v), of the last position.
        sampling: how a token is drawn.
    """
    chances, probabilities = (Sampler(way, vocab_size=tokenizer.vocab_size).probabilities(logits)[0]
                              for way in (sampling, Sampling()))
    likeliest = probabilities.sort(descending=True, stable=True).indices[:SHOWN].tolist()
    rows = [(f'<code style="color:{INK};background:white;white-space:pre">{escape(_label(tokenizer, token_id))}</code>',
             str(token_id), float(probabilities[token_id]), float(chances[token_id])) for token_id in likeliest]
    others = torch.ones_like(chances, dtype=torch.bool)
    others[likeliest] = False
    rows.append((gettext("{count} others").format(count=tokenizer.vocab_size - SHOWN), "",
                 float(probabilities[others].sum()), float(chances[others].sum())))
    header = "".join(f'<th scope="col" style="{_CELL}">{name}</th>'
                     for name in (gettext("next token"), gettext("id"), gettext("probability by the model"),
                                  gettext("chance to be drawn")))
    html = (f'<table style="border-collapse:collapse;background:white;color:{INK}"><thead><tr>{header}</tr></thead>'
            f"<tbody>{''.join(_row(*row) for row in rows)}</tbody></table>")
    kept = int((chances > 0).sum())
    first = likeliest[0]
    return View(html, gettext("{kept} of {vocab_size} tokens can be drawn. The likeliest, '{label}', has {percent} by "
                              "the model and is drawn with {chance}.").format(
        kept=kept, vocab_size=tokenizer.vocab_size, label=_label(tokenizer, first),
        percent=_percent(float(probabilities[first])), chance=_percent(float(chances[first]))))


def explore_next_token(model: Qwen3Model, tokenizer: Qwen3Tokenizer, prompt: str) -> Explorer:
    """Change prompt, temperature, top-k, top-p and min-p, and see what could come next.

    The model runs once for each prompt; a change of the other controls computes only the probabilities anew. The same
    without controls: `next_token_table`.

    Args:
        model: any model of the course.
        tokenizer: the one of this model.
        prompt: the text to begin with.
    """
    @lru_cache(maxsize=1)
    def logits(prompt: str) -> Tensor:
        return last_logits(model, encode_prompt(model, tokenizer, prompt))

    def draw(prompt: str, temperature: float, top_k: int, top_p: float, min_p: float) -> View:
        # As in the settings files of models, top-k 0 keeps all tokens.
        return next_token_table(tokenizer, logits(prompt), Sampling(temperature, top_k or None, top_p, min_p))

    return Explorer(draw, {
        "prompt": text_field(gettext("Prompt"), prompt, rows=2),
        "temperature": number(gettext("Temperature (1 changes nothing)"), 1.0, step=0.1),
        "top_k": number(gettext("Top-k (0 keeps all)"), 0, step=1),
        "top_p": number(gettext("Top-p (1 keeps all)"), 1.0, step=0.05),
        "min_p": number(gettext("Min-p (0 keeps all)"), 0.0, step=0.01),
    })


def _label(tokenizer: Qwen3Tokenizer, token_id: int) -> str:
    return with_visible_spaces(tokenizer.token_text(token_id))


def _row(token: str, token_id: str, probability: float, chance: float) -> str:
    before = _bar(_percent(probability), probability, f"background:white;border:2px solid {SERIES[0]}")
    after = _bar(_percent(chance), chance, f"background:{GENERATED};border:2px solid {GENERATED}")
    if not chance:
        # Hatched, and as long as what it loses.
        stripes = f"repeating-linear-gradient(45deg,{REJECTED} 0 2px,white 2px 6px)"
        after = _bar(gettext("cut off"), probability, f"background:{stripes};border:2px solid {REJECTED}")
    cells = "".join(f'<td style="{_CELL}">{cell}</td>' for cell in (token_id, before, after))
    return (f'<tr style="background:white"><th scope="row" style="{_CELL};font-weight:normal">{token}</th>'
            f"{cells}</tr>")


def _bar(words: str, share: float, style: str) -> str:
    # A whole number of pixels, so that the last digits of a probability do not matter.
    return (f'<span style="display:inline-block;width:6.5em">{words}</span><span aria-hidden="true" style="display:'
            f'inline-block;box-sizing:border-box;height:11px;width:{max(4, round(_FULL * share))}px;{style}"></span>')


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 or not share else gettext("under 0.1%")
