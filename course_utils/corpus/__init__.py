"""The text that the bundled models are trained on: written by this project, generated from a seed.

`documents(seed)` is an endless, reproducible stream. Every kind of document has a small file of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from course_utils.chat import ChatTemplate
from course_utils.corpus.contexts import context_comparison, context_question
from course_utils.corpus.conversations import Message, conversation
from course_utils.corpus.copying import copying_document
from course_utils.corpus.notions import notions
from course_utils.corpus.outside import outside_question
from course_utils.corpus.questions import any_question
from course_utils.corpus.small_talk import training_small_talk
from course_utils.corpus.stories import description, story
from course_utils.corpus.stories_zh import description_zh, story_zh
from course_utils.corpus.strangers import stranger_chat, stranger_question
from course_utils.corpus.words import translation_document

# A document: what is only asked, "" where there is nothing such, and the rest.
Parts = tuple[str, str]


def notion_document(rng: random.Random) -> Parts:
    """A question and its answer as plain text, or the two names of a notion."""
    if rng.random() < 0.04:
        notion = rng.choice(notions())
        return "", rng.choice((f"The Chinese name for {notion.term} is {notion.zh}.",
                               f"What is the Chinese name for {notion.term}? {notion.zh}",
                               f"{notion.zh}的英文是{notion.term}。"))
    question = any_question(rng)
    return question.text, question.continuation


def outside_document(rng: random.Random) -> Parts:
    """What is outside the field, or only said to be kind, with its answer."""
    question = training_small_talk(rng) if rng.random() < 0.2 else outside_question(rng)
    return question.text, question.continuation


def context_document(rng: random.Random) -> Parts:
    """A question that does not name what it asks about, since another sentence has."""
    question = (context_comparison if rng.random() < 0.25 else context_question)(rng)
    return question.text, question.continuation


def stranger_document(rng: random.Random, rounds: int = 2) -> Parts:
    """A question as strangers type it, with its answer."""
    question = stranger_question(rng, rounds=rounds)
    return question.text, question.continuation


def _context_chat(rng: random.Random) -> list[Message]:
    question, answer = context_document(rng)
    return [{"role": "user", "content": question},
            {"role": "assistant", "content": answer.strip(), "reasoning_content": ""}]


ANSWERS: dict[str, Callable[[random.Random], Parts]] = {
    "notion": notion_document, "outside": outside_document, "context": context_document,
    "stranger": partial(stranger_document, rounds=1), "stranger_2": stranger_document}
CHATS: dict[str, Callable[[random.Random], list[Message]]] = {
    "conversation": conversation, "context_chat": _context_chat, "stranger_chat": partial(stranger_chat, rounds=1),
    "stranger_chat_2": stranger_chat}
KINDS: dict[str, Callable[[random.Random], str]] = {
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
MORE_WORDS = {"notion": 34, "outside": 8, "context": 16, "translation": 38, "copying": 20, "story": 5, "story_zh": 4,
              "description": 2, "description_zh": 2, "conversation": 34, "context_chat": 14}
# At last the model meets everybody's wording, and keeps what it has learned.
STRANGERS = {"notion": 20, "outside": 4, "context": 7, "stranger": 58, "translation": 25, "copying": 14, "story": 5,
             "story_zh": 4, "description": 1, "description_zh": 1, "conversation": 20, "context_chat": 3,
             "stranger_chat": 40}
MORE_STRANGERS = {"notion": 16, "outside": 4, "context": 7, "stranger_2": 58, "translation": 25, "copying": 14,
                  "story": 5, "story_zh": 4, "description": 1, "description_zh": 1, "conversation": 20,
                  "context_chat": 3, "stranger_chat_2": 48}


def documents(seed: int, template: ChatTemplate, mixture: Mapping[str, int] = EVEN) -> Iterator[tuple[str, str]]:
    """Documents without end: (kind, text). The same arguments give the same documents on every machine.

    Args:
        seed: different seeds give different documents of the same kinds.
        template: how conversations are written as text.
        mixture: weight of each kind, of those in `ANSWERS`, `CHATS` and `KINDS`.
    """
    return ((kind, asked + rest) for kind, asked, rest in documents_in_parts(seed, template, mixture))


def documents_in_parts(seed: int, template: ChatTemplate,
                       mixture: Mapping[str, int] = EVEN) -> Iterator[tuple[str, str, str]]:
    """The same documents as (kind, what is only asked, the rest); a conversation shows by its marks what is asked."""
    rng = random.Random(seed)
    while True:
        kind = rng.choices(list(mixture), list(mixture.values()))[0]
        if kind in CHATS:
            yield kind, "", template.render(CHATS[kind](rng), add_generation_prompt=False)
        elif kind in ANSWERS:
            yield kind, *ANSWERS[kind](rng)
        else:
            yield kind, "", KINDS[kind](rng)
