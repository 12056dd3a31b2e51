"""What people say to a chat model before they ask it anything: greetings, thanks, who are you, what can you do."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from course_utils.corpus.questions import Question, with_slips


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
    lines = (Path(__file__).parent / "small_talk.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(SmallTalk(**{**json.loads(line), "asks": tuple(json.loads(line)["asks"])}) for line in lines)


def training_small_talk(rng: random.Random, chinese: bool | None = None) -> Question:
    """Something said, with the answer expected."""
    language = None if chinese is None else "zh" if chinese else "en"
    about = rng.choice([talk for talk in small_talk() if language in (None, talk.language)])
    said = about.asks[0] if rng.random() < 0.3 else rng.choice(about.asks)
    return Question(with_slips(said, rng), about.answer, about.thought, about.language == "zh")
