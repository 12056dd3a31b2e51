"""Questions as strangers type them, for the last stages of training: hand-written one by one, and in looser wordings.

`strangers_questions.tsv` holds questions of which each was thought of for its notion, or for two that people confuse.
`strangers_ways.tsv` are further ways of asking, as in `ways.tsv`, `strangers_names.tsv` further names,
`strangers_small_talk.tsv` what else is said to be kind, `strangers_outside.tsv` what else a small model cannot know.
Words come and go in all of them: who answers these has learned to look for what is asked about, and not for a pattern.

They were written in two rounds. The second, in the files that end in `_2`, has what the first lacked: other notions
named beside the one that is meant, little words that decide what is asked, and words of the field in everyday talk.
The stages of training before it know the first round alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

from course_utils.corpus.conversations import NEUTRAL, NEUTRAL_ZH, Message
from course_utils.corpus.notions import Notion, notions
from course_utils.corpus.outside import any_outside_term, not_known
from course_utils.corpus.questions import (
    Question,
    comparison_answer,
    difference_of,
    fill,
    is_chinese,
    random_pair,
    thought_about,
    thought_about_two,
    ways,
    with_slips,
)
from course_utils.corpus.small_talk import small_talk
from course_utils.corpus.stories import description
from course_utils.corpus.stories_zh import description_zh
from course_utils.corpus.tables import rows, texts_by_kind

# How often each kind of question comes up in the further ways.
_KINDS = {"short": 38, "why": 14, "use": 12, "how": 14, "long": 9, "like": 5, "short+use": 4, "short+why": 2,
          "short+how": 2}
# How often a question is a hand-written one, one in a further way, one outside the field, or small talk; and how many
# of all are Chinese. By round.
_SORTS = {1: (50, 27, 16, 7), 2: (58, 18, 17, 7)}
_CHINESE = {1: 0.42, 2: 0.36}
_FILLERS = ("like", "um", "actually", "really", "exactly", "please", "just", "basically", "honestly", "then", "so",
            "well", "even", "now", "here", "anyway", "again", "maybe", "simply", "you know", "I mean", "at all")
_FILLERS_ZH = ("呢", "啊", "那个", "就是", "其实", "到底", "嗯", "吧", "呀", "一下", "这个", "嘛", "究竟", "的话")


class Written(NamedTuple):
    """A hand-written question: which notions it is about (one or two), what it asks, and its text."""

    about: tuple[Notion, ...]
    kind: str
    text: str


def _written_rows(name: str, chinese: bool, rounds: int) -> Iterator[dict[str, str]]:
    """The rows of a table in a language that were written in so many rounds."""
    for suffix in ("", "_2")[:rounds]:
        yield from rows(f"strangers_{name}{suffix}.tsv", chinese)


@cache
def written_questions(chinese: bool, rounds: int = 2) -> tuple[Written, ...]:
    """The hand-written questions in a language."""
    by_id = {notion.id: notion for notion in notions()}
    return tuple(Written(tuple(by_id[name] for name in row["about"].split()), row["kind"], row["text"])
                 for row in _written_rows("questions", chinese, rounds))


@cache
def further_outside(kind: str, chinese: bool, rounds: int = 2) -> tuple[str, ...]:
    """What a small model cannot know: of the kind "line" what is said as it stands, of "term" names to ask about."""
    return tuple(row["text"] for row in _written_rows("outside", chinese, rounds) if row["kind"] == kind)


@cache
def all_names(chinese: bool) -> Mapping[str, tuple[str, ...]]:
    """Every name of every notion, by its id."""
    further = rows("strangers_names.tsv", chinese)
    return {notion.id: (*notion.names(chinese), *(row["name"] for row in further if row["id"] == notion.id))
            for notion in notions()}


@cache
def further_small_talk(chinese: bool, rounds: int = 2) -> tuple[tuple[str, Question], ...]:
    """What else is said to be kind, with what answers it."""
    answers = {talk.asks[0]: Question("", talk.answer, talk.thought, chinese) for talk in small_talk()}
    return tuple((row["text"], answers[row["like"]]) for row in _written_rows("small_talk", chinese, rounds))


def _name(rng: random.Random, notion: Notion, chinese: bool) -> str:
    names = all_names(chinese)[notion.id]
    return names[0] if rng.random() < 0.25 else rng.choice(names)


def _known_name(text: str, about: tuple[Notion, ...], chinese: bool) -> str | None:
    """The longest name in a text, of one of these notions."""
    lower = text.lower()
    names = [name for notion in about for language in (chinese, False) for name in all_names(language)[notion.id]]
    found = [name for name in names if name.lower() in lower]
    return max(found, key=len, default=None)


def loosened(text: str, name: str, rng: random.Random) -> str:
    """A question in which words have come and gone, all but the name."""
    at = text.lower().find(name.lower())
    before, name, after = text[:at], text[at:at + len(name)], text[at + len(name):]
    return _changed(before, rng) + name + _changed(after, rng)


def _changed(text: str, rng: random.Random) -> str:
    chinese = is_chinese(text)
    parts = list(text) if chinese else re.split(r"(?<= )", text)
    for _ in range(rng.choice((0, 1, 1, 2))):
        inner = [i for i, part in enumerate(parts) if part.strip()]
        if len(inner) < 3:
            break
        at = rng.choice(inner)
        choice = rng.random()
        if choice < 0.4:
            parts.insert(at, rng.choice(_FILLERS_ZH) if chinese else f" {rng.choice(_FILLERS)} ")
        elif choice < 0.7:
            parts[at] = "" if chinese else " "
        elif at + 1 < len(parts) and (chinese or parts[at].endswith(" ") and parts[at + 1].endswith(" ")):
            parts[at], parts[at + 1] = parts[at + 1], parts[at]
    return "".join(parts)


def _as_typed(text: str, name: str | None, rng: random.Random, chinese: bool) -> str:
    """With something before or behind it, words that come and go, and slips."""
    if name and rng.random() < 0.3:
        text = loosened(text, name, rng)
    gap, choice = "" if chinese else " ", rng.random()
    if choice < 0.12:
        text = rng.choice(_around("opening", chinese)) + text
    elif choice < 0.17:  # a sentence that has nothing to do with it
        text = re.split(r"(?<=[.!?。！？])", (description_zh if chinese else description)(rng))[0] + gap + text
    if rng.random() < 0.08 and text.endswith((".", "?", "!", "。", "？", "！")):
        text += rng.choice(_around("closing", chinese))
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    text = " ".join(text.split())  # one space where a word came or went
    typed = with_slips(text, rng)
    # What no longer shows its language cannot be answered in it.
    return typed if is_chinese(typed) == chinese else text + "？" if chinese and not is_chinese(text) else text


@cache
def _around(kind: str, chinese: bool) -> tuple[str, ...]:
    return (*ways(chinese)[kind], *texts_by_kind("strangers_ways.tsv", chinese)[kind])


def _written_question(rng: random.Random, chinese: bool, rounds: int) -> Question:
    asked = rng.choice(written_questions(chinese, rounds))
    text = _as_typed(asked.text, _known_name(asked.text, asked.about, chinese), rng, chinese)
    if len(asked.about) == 1:
        notion, = asked.about
        return Question(text, notion.answer(asked.kind, chinese), thought_about(notion, chinese), chinese, notion,
                        asked.kind)
    a, b = asked.about
    return Question(text, comparison_answer(asked.kind, difference_of(a, b, chinese), chinese),
                    thought_about_two(a, b, chinese), chinese)


def _question_in_a_way(rng: random.Random, chinese: bool, _: int) -> Question:
    further = texts_by_kind("strangers_ways.tsv", chinese)
    if rng.random() < 0.2:
        a, b, difference = random_pair(rng, chinese)
        kind = "same" if rng.random() < 0.25 else "difference"
        first, second = _name(rng, a, chinese), _name(rng, b, chinese)
        text = _as_typed(fill(rng.choice(further[kind]), first, second), None, rng, chinese)
        return Question(text, comparison_answer(kind, difference, chinese), thought_about_two(a, b, chinese), chinese)
    kind, notion = rng.choices(list(_KINDS), list(_KINDS.values()))[0], rng.choice(notions())
    name = _name(rng, notion, chinese)
    text = _as_typed(fill(rng.choice(further[kind]), name), name, rng, chinese)
    return Question(text, notion.answer(kind, chinese), thought_about(notion, chinese), chinese, notion, kind)


def _outside_question(rng: random.Random, chinese: bool, rounds: int) -> Question:
    further = texts_by_kind("strangers_ways.tsv", chinese)
    if rng.random() < 0.45:
        text = _as_typed(rng.choice(further_outside("line", chinese, rounds)), None, rng, chinese)
    else:
        terms = further_outside("term", chinese, rounds)
        term = rng.choice(terms) if rng.random() < 0.6 else any_outside_term(rng, chinese)
        way = rng.choice((further if rng.random() < 0.7 else ways(chinese))[rng.choice(list(_KINDS))])
        text = _as_typed(fill(way, term), term, rng, chinese)
    return not_known(text, chinese)


def _small_talk(rng: random.Random, chinese: bool, rounds: int) -> Question:
    text, answer = rng.choice(further_small_talk(chinese, rounds))
    return Question(with_slips(text, rng), answer.answer, answer.thought, chinese)


def stranger_question(rng: random.Random, chinese: bool | None = None, rounds: int = 2) -> Question:
    """A question, or something only said to be kind, in one language or (None) in either, of so many rounds."""
    wanted = rng.random() < _CHINESE[rounds] if chinese is None else chinese
    ask = rng.choices((_written_question, _question_in_a_way, _outside_question, _small_talk), _SORTS[rounds])[0]
    return ask(rng, wanted, rounds)


def stranger_chat(rng: random.Random, rounds: int = 2) -> list[Message]:
    """A stranger's question in a chat without a system prompt or with one that wants nothing special."""
    question = stranger_question(rng, rounds=rounds)
    system = rng.choice(NEUTRAL_ZH if question.chinese else NEUTRAL) if rng.random() < 0.25 else None
    messages = [{"role": "system", "content": system}] if system else []
    thought = question.thought if rng.random() < 0.4 else ""
    return [*messages, {"role": "user", "content": question.text},
            {"role": "assistant", "content": question.answer, "reasoning_content": thought}]
