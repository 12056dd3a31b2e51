"""Notions of this course's field, and pairs of them that people confuse.

Each notion is one line of a hand-written `notions_*.jsonl`: all its names and, in English and in Chinese, a definition,
a second sentence, a comparison, and the answers to "why", "what for" and "how". Each line of `pairs.jsonl` says how
two notions differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from course_utils.corpus.tables import json_lines


@dataclass(frozen=True)
class Notion:
    """One notion: its names, of which `term` and `zh` come first, and what is said of it in both languages."""

    id: str
    term: str
    verb: str
    en: str
    en_more: str
    like: str
    why: str
    use: str
    how: str
    names_en: tuple[str, ...]
    zh: str
    zh_def: str
    zh_more: str
    zh_why: str
    zh_use: str
    zh_how: str
    zh_like: str
    names_zh: tuple[str, ...]

    def names(self, chinese: bool) -> tuple[str, ...]:
        """All names in a language, the usual one first."""
        return self.names_zh if chinese else self.names_en

    def answer(self, kind: str, chinese: bool = False) -> str:
        """The text that answers a question of one of the kinds in `corpus.questions`."""
        return ("" if chinese else " ").join(self.sentence(part, chinese) for part in _PARTS.get(kind, kind).split("+"))

    def sentence(self, part: str, chinese: bool = False) -> str:
        """One of its sentences: "short", "more", "why", "use", "how" or "like"."""
        if chinese:
            return {"short": self.zh_def, "more": self.zh_more, "why": self.zh_why, "use": self.zh_use,
                    "how": self.zh_how, "like": self.zh_like}[part]
        return {"short": self.en, "more": self.en_more, "why": self.why, "use": self.use, "how": self.how,
                "like": self.like}[part]


SENTENCES = ("short", "more", "like", "why", "use", "how")
# What the longer answers are put together from.
_PARTS = {"long": "short+more", "like": "short+like"}


@dataclass(frozen=True)
class Pair:
    """Two notions and their difference in both languages."""

    a: Notion
    b: Notion
    en: str
    zh: str

    def difference(self, chinese: bool) -> str:
        """In one sentence or two."""
        return self.zh if chinese else self.en


@lru_cache(maxsize=1)
def notions() -> tuple[Notion, ...]:
    """All notions, in the order of the files."""
    return tuple(Notion(**{**line, "names_en": tuple(line["names_en"]), "names_zh": tuple(line["names_zh"])})
                 for name in ("notions_inference.jsonl", "notions_model.jsonl") for line in json_lines(name))


@lru_cache(maxsize=1)
def pairs() -> tuple[Pair, ...]:
    """All pairs that have a difference of their own."""
    by_id = {notion.id: notion for notion in notions()}
    return tuple(Pair(by_id[line["a"]], by_id[line["b"]], line["en"], line["zh"]) for line in json_lines("pairs.jsonl"))
