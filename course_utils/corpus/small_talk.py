"""What people say to a chat model before they ask it anything: greetings, thanks, who are you, what can you do."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

from course_utils.corpus.questions import Question, with_slips
from course_utils.corpus.tables import json_lines


@dataclass(frozen=True)
class SmallTalk:
    """Ways to say one thing, and the answer; the first way is the one that chapters use."""

    language: str
    asks: tuple[str, ...]
    answer: str
    thought: str


@lru_cache(maxsize=1)
def small_talk() -> tuple[SmallTalk, ...]:
    """All of it, in the order of the file."""
    return tuple(SmallTalk(**{**line, "asks": tuple(line["asks"])}) for line in json_lines("small_talk.jsonl"))


def training_small_talk(rng: random.Random, chinese: bool | None = None) -> Question:
    """Something said, with the answer expected."""
    language = None if chinese is None else "zh" if chinese else "en"
    about = rng.choice([talk for talk in small_talk() if language in (None, talk.language)])
    said = about.asks[0] if rng.random() < 0.3 else rng.choice(about.asks)
    return Question(with_slips(said, rng), about.answer, about.thought, about.language == "zh")
