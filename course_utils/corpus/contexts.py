"""Questions that do not name what they ask about, since the sentence before or after has named it.

"My notes only say "RoPE". What is that?": a sentence of `contexts.tsv` with a name, and a question with a pronoun. Who
answers these has learned to look for the name, wherever it stands. A kind is that of `corpus.questions`, with `it-` or
`they-` before it; `context` are the sentences with one name, `two` those with two.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from course_utils.corpus.notions import notions
from course_utils.corpus.outside import I_DO_NOT_KNOW, I_DO_NOT_KNOW_ZH, any_outside_term
from course_utils.corpus.questions import (
    Question,
    comparison_answer,
    is_chinese,
    random_name,
    random_pair,
    with_slips,
)
from course_utils.corpus.tables import texts_by_kind

_KINDS = {"short": 40, "why": 16, "use": 14, "how": 18, "long": 6, "like": 6}


def contexts(chinese: bool) -> Mapping[str, tuple[str, ...]]:
    """The sentences and the questions in a language, by kind."""
    return texts_by_kind("contexts.tsv", chinese)


def _together(sentence: str, question: str, rng: random.Random) -> str:
    """Sentence and question, one before the other or in one, as people type it."""
    gap = "" if is_chinese(sentence) else " "
    sentence = sentence[0].upper() + sentence[1:] if rng.random() < 0.7 else sentence
    if rng.random() < 0.2:
        return with_slips(f"{question}{gap}{sentence}", rng)
    if rng.random() < 0.3:  # "there is a chapter about RoPE, what is it?"
        comma = "，" if gap == "" else ","
        sentence, question = sentence.rstrip(".。") + comma, question[0].lower() + question[1:]
    return with_slips(f"{sentence}{gap}{question}", rng)


def context_question(rng: random.Random, chinese: bool | None = None) -> Question:
    """About one notion or, one time in ten, about a term outside the field."""
    wanted = rng.random() < 0.42 if chinese is None else chinese
    kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
    texts = contexts(wanted)
    sentence, question = rng.choice(texts["context"]), rng.choice(texts[f"it-{kind}"])
    if rng.random() < 0.1:
        text = _together(sentence.format(x=any_outside_term(rng, wanted)), question, rng)
        return Question(text, I_DO_NOT_KNOW_ZH if wanted else I_DO_NOT_KNOW, "", wanted)
    notion = rng.choice(notions())
    text = _together(sentence.format(x=random_name(rng, notion, wanted)), question, rng)
    return Question(text, notion.answer(kind, wanted), "", wanted, notion, kind)


def context_comparison(rng: random.Random, chinese: bool | None = None) -> Question:
    """About two notions."""
    wanted = rng.random() < 0.42 if chinese is None else chinese
    a, b, difference = random_pair(rng, wanted)
    first, second = random_name(rng, a, wanted), random_name(rng, b, wanted)
    kind, texts = "same" if rng.random() < 0.35 else "difference", contexts(wanted)
    text = _together(rng.choice(texts["two"]).format(x=first, y=second), rng.choice(texts[f"they-{kind}"]), rng)
    return Question(text, comparison_answer(kind, difference, wanted), "", wanted)
