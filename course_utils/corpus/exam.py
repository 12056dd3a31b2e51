"""Questions that no template produced: hand-written in natural wording, to ask what the model makes of a stranger.

Each line of `exam_en.jsonl` and `exam_zh.jsonl` is a question, the notions that it is about, and what a sensible answer
must contain. None of them is asked in a way of `ways.tsv` or stands among the lines that training uses.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

from course_utils.corpus.notions import Notion, notions, pairs
from course_utils.corpus.outside import I_DO_NOT_KNOW, I_DO_NOT_KNOW_ZH
from course_utils.corpus.questions import comparison_answer, difference_of
from course_utils.corpus.small_talk import small_talk
from course_utils.corpus.tables import json_lines


@dataclass(frozen=True)
class ExamQuestion:
    """A question of the exam.

    Attributes:
        question: as a stranger would type it.
        about: ids of the notions asked about; none outside the field and for small talk.
        kind: "outside", "greeting", or what is asked of the notions.
        contains: of each of these groups an answer must contain one, whatever its capitals.
        chinese: whether it is asked in Chinese, and so to be answered.
    """

    question: str
    about: tuple[str, ...]
    kind: str
    contains: tuple[tuple[str, ...], ...]
    chinese: bool

    def sensible(self, answer: str) -> bool:
        """Whether an answer is one that a reader would accept.

        It must be in the language asked, contain what it must or be what the corpus answers to just that kind of
        question, and consist of whole sentences that belong to what was asked, so that no babble passes because the
        right word is in it.
        """
        answer = answer.strip()
        if self.kind == "outside":
            return answer == (I_DO_NOT_KNOW_ZH if self.chinese else I_DO_NOT_KNOW)
        contained = all(any(each.lower() in answer.lower() for each in group) for group in self.contains)
        return (contained or answer in self._written()) and _consists_of(answer, self._sentences())

    def _written(self) -> frozenset[str]:
        """What the corpus answers to a question of just this kind: sensible, whatever words the exam expects."""
        kind = {"what": "short", "comparison": "like", "more": "long"}.get(self.kind, self.kind)
        if kind == "difference":
            a, b = (_by_id()[name] for name in self.about)
            difference = difference_of(a, b, self.chinese)
            return frozenset(comparison_answer(each, difference, self.chinese) for each in ("difference", "same"))
        if len(self.about) != 1 or kind not in ("short", "like", "long", "why", "use", "how"):
            return frozenset()
        return frozenset({_by_id()[self.about[0]].answer(kind, self.chinese)})

    def _sentences(self) -> frozenset[str]:
        if self.kind == "greeting":
            return frozenset(s for talk in small_talk() if (talk.language == "zh") == self.chinese
                             for s in _split(talk.answer))
        sentences = {"不一样。" if self.chinese else "No."}
        asked = [_by_id()[name] for name in self.about]
        for notion in asked:
            sentences |= {s for part in ("short", "more", "like", "why", "use", "how")
                          for s in _split(notion.sentence(part, self.chinese))}
        for pair in pairs():
            if {pair.a.id, pair.b.id} == set(self.about):
                sentences |= set(_split(pair.difference(self.chinese)))
        return frozenset(sentences)


def _split(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?]) |(?<=[。！？])", text) if part]


def _consists_of(answer: str, sentences: frozenset[str]) -> bool:
    parts = _split(answer)
    return bool(parts) and all(part in sentences for part in parts)


@cache
def _by_id() -> dict[str, Notion]:
    return {notion.id: notion for notion in notions()}


@cache
def exam(chinese: bool) -> tuple[ExamQuestion, ...]:
    """All questions in a language."""
    return tuple(ExamQuestion(line["question"], tuple(line["about"]), line["kind"],
                              tuple(tuple(group) for group in line["contains"]), chinese)
                 for line in json_lines(f"exam_{'zh' if chinese else 'en'}.jsonl"))


def normalized(text: str, names: tuple[str, ...] = ()) -> str:
    """A question without what does not make it another one: names, case, punctuation, articles and spaces."""
    text = unicodedata.normalize("NFKC", text).lower()
    if names:
        text = _any_of(names).sub("*", text)
    text = re.sub(r"[^\w*]+", " ", text)
    return re.sub(r"\b(the|an?) ", "", text).strip()


@cache
def _any_of(names: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted((unicodedata.normalize("NFKC", name).lower() for name in names), key=len, reverse=True)
    return re.compile(rf"(?<![a-z])(?:{'|'.join(map(re.escape, longest_first))})(?![a-z])")
