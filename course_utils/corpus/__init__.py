"""The text that the bundled models are trained on: written by this project, generated from a seed.

`documents(seed)` is an endless, reproducible stream. Every kind of document has a small file of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

from course_utils.chat import ChatTemplate
from course_utils.corpus.conversations import conversation
from course_utils.corpus.copying import copying_document
from course_utils.corpus.notions import notions
from course_utils.corpus.outside import outside_question
from course_utils.corpus.questions import any_question
from course_utils.corpus.small_talk import training_small_talk
from course_utils.corpus.stories import description, story
from course_utils.corpus.stories_zh import description_zh, story_zh
from course_utils.corpus.words import translation_document


def notion_document(rng: random.Random) -> str:
    """A question and its answer as plain text, or the two names of a notion."""
    if rng.random() < 0.04:
        notion = rng.choice(notions())
        return rng.choice((f"The Chinese name for {notion.term} is {notion.zh}.",
                           f"What is the Chinese name for {notion.term}? {notion.zh}",
                           f"{notion.zh}的英文是{notion.term}。"))
    question = any_question(rng)
    return question.text + question.continuation


def outside_document(rng: random.Random) -> str:
    """What is outside the field, or only said to be kind, with its answer."""
    question = training_small_talk(rng) if rng.random() < 0.2 else outside_question(rng)
    return question.text + question.continuation


KINDS: dict[str, Callable[[random.Random], str]] = {
    "notion": notion_document,
    "outside": outside_document,
    "translation": translation_document,
    "copying": copying_document,
    "story": story,
    "story_zh": story_zh,
    "description": description,
    "description_zh": description_zh,
}

# How often each kind comes up, relative to the others. Stories and conversations are several times as long as the rest.
EVEN = {"notion": 44, "outside": 9, "translation": 24, "copying": 11, "story": 5, "story_zh": 4, "description": 3,
        "description_zh": 2, "conversation": 34}
# Looking a word up, in memory or in the text before, is learned late; it takes more of such documents.
MORE_WORDS = {"notion": 40, "outside": 8, "translation": 44, "copying": 22, "story": 5, "story_zh": 4, "description": 2,
              "description_zh": 2, "conversation": 36}


def documents(seed: int, template: ChatTemplate, mixture: Mapping[str, int] = EVEN) -> Iterator[tuple[str, str]]:
    """Documents without end: (kind, text). The same arguments give the same documents on every machine.

    Args:
        seed: different seeds give different documents of the same kinds.
        template: how conversations are written as text.
        mixture: weight of each kind, "conversation" and those of `KINDS`.
    """
    rng = random.Random(seed)
    while True:
        kind = rng.choices(list(mixture), list(mixture.values()))[0]
        if kind == "conversation":
            yield kind, template.render(conversation(rng), add_generation_prompt=False)
        else:
            yield kind, KINDS[kind](rng)
