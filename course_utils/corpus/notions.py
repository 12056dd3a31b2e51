"""Notions of this course's field, and the ways of asking about them.

Each notion is one line of a hand-written `notions_*.jsonl`: its name and a definition in English and in Chinese,
a second sentence, and a comparison. A question is a way of asking with the name filled in. For every notion some
ways are held out: training never asks about it in just that way, though it asks about other notions so. Whether
the model answers those too shows that it learned the way of asking, not only the lines.
"""

from __future__ import annotations

import json
import random
import zlib
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

# What the answer holds: "short" is the definition, "long" adds a second sentence, "like" a comparison.
WAYS_EN = {
    "short": ("Explain {term} in a single sentence.", "What {verb} {term}?", "Define {term}.",
              "In one sentence, what {verb} {term}?", "Describe {term} in one sentence.",
              "Give a short definition of {term}.", "Please explain {term} briefly.",
              "Summarize {term} in one sentence.", "What do people mean by {term}?",
              "I do not know what {term} {verb}. Please tell me."),
    "long": ("Explain {term}.", "Tell me about {term}.", "What should I know about {term}?",
             "Please explain {term} to me."),
    "like": ("Explain {term} with a comparison.", "Explain {term} to a child.",
             "What {verb} {term} like in everyday life?"),
}
WAYS_ZH = {
    "short": ("用一句话解释{zh}。", "什么是{zh}？", "{zh}是什么？", "请简单解释{zh}。", "{zh}是什么意思？",
              "请给{zh}下一个定义。"),
    "long": ("请介绍一下{zh}。", "解释{zh}。", "我想了解{zh}。"),
}
_HELD_OUT = {"short": 3, "long": 1, "like": 1, "short_zh": 2, "long_zh": 1}


@dataclass(frozen=True)
class Notion:
    """One notion: names, definitions, a further sentence and a comparison (see the module's docstring)."""

    id: str
    term: str
    verb: str
    en: str
    en_more: str
    zh: str
    zh_def: str
    zh_more: str
    like: str

    def answer(self, kind: str, chinese: bool = False) -> str:
        """The text that answers a question of this kind ("short", "long" or "like")."""
        if chinese:
            return self.zh_def + (self.zh_more if kind == "long" else "")
        return self.en + {"short": "", "long": " " + self.en_more, "like": " " + self.like}[kind]


@dataclass(frozen=True)
class Question:
    """One way of asking about one notion, with the answer expected."""

    notion: Notion
    text: str
    answer: str
    chinese: bool
    held_out: bool


@lru_cache(maxsize=1)
def notions() -> tuple[Notion, ...]:
    """All notions, in the order of the files."""
    folder = Path(__file__).parent
    lines = [line for name in ("notions_inference", "notions_model")
             for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines() if line.strip()]
    return tuple(Notion(**json.loads(line)) for line in lines)


@cache
def questions(notion: Notion) -> tuple[Question, ...]:
    """Every way of asking about a notion, those held out for it marked."""
    rng = random.Random(zlib.crc32(notion.id.encode()))
    result = []
    for chinese, ways_of_language in ((False, WAYS_EN), (True, WAYS_ZH)):
        for kind, ways in ways_of_language.items():
            # The first way of each kind is the one the chapters use; it is always trained.
            held_out = set(rng.sample(ways[1:], _HELD_OUT[kind + "_zh" * chinese]))
            for way in ways:
                text = way.format(term=notion.term, verb=notion.verb, zh=notion.zh)
                result.append(Question(notion, text, notion.answer(kind, chinese), chinese, way in held_out))
    return tuple(result)


def training_question(rng: random.Random, chinese: bool | None = None) -> Question:
    """A random question that is not held out, in one language or (None) in either, English twice as often."""
    notion = rng.choice(notions())
    wanted = rng.random() < 1 / 3 if chinese is None else chinese
    return rng.choice([q for q in questions(notion) if q.chinese == wanted and not q.held_out])


def notion_document(rng: random.Random) -> str:
    """A question and its answer as plain text, or the two names of a notion."""
    if rng.random() < 0.08:
        notion = rng.choice(notions())
        return rng.choice((f"The Chinese name for {notion.term} is {notion.zh}.",
                           f"What is the Chinese name for {notion.term}? {notion.zh}",
                           f"{notion.zh}的英文是{notion.term}。"))
    question = training_question(rng)
    return question.text + ("" if question.chinese else " ") + question.answer
