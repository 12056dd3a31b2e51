"""Questions about notions, as people ask them, with the answers expected.

A question is a way of asking with a name filled in, then changed as people change it who type in a hurry. The ways are
the lines of `ways.tsv`: formal, casual, bare, for beginners. In a way `{x}` is what is asked about, `{y}` what it is
compared with, `{is_}` and `{do}` are verbs that agree with `{x}`; the first way of every kind is what the chapters use.
A kind tells what the answer holds:

    short   the definition              why, use, how   a sentence that answers just that
    long    definition and more         short+why ...   two of these, one after the other
    like    definition and comparison   difference      how two notions differ
                                        same            the same, after a "No."

and `opening` and `closing` are what people put before a question and behind it. For every notion some ways are held
out: training never asks about it in just that way, though it asks about other notions so.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from course_utils.corpus.notions import Notion, notions, pairs
from course_utils.corpus.tables import texts_by_kind

# How often each kind of question comes up.
_KINDS = {"short": 42, "long": 13, "like": 7, "why": 11, "use": 10, "how": 12,
          "short+why": 1, "short+use": 1, "short+how": 1}
_COMPARISONS = 0.14  # share of questions about two notions
_HELD_OUT = 8  # one in so many ways of asking is held out for a notion


@dataclass(frozen=True)
class Question:
    """What is asked, the answer expected, and a thought of one sentence that may come before it.

    `notion` and `kind` are given if it is about exactly one notion; `held_out` says whether
    training never asks so.
    """

    text: str
    answer: str
    thought: str
    chinese: bool = False
    notion: Notion | None = None
    kind: str = ""
    held_out: bool = False

    @property
    def continuation(self) -> str:
        """The answer as it follows the question in a plain text."""
        return self.answer if self.chinese else " " + self.answer


def ways(chinese: bool) -> Mapping[str, tuple[str, ...]]:
    """All ways of asking in a language, by kind."""
    return texts_by_kind("ways.tsv", chinese)


@cache
def _held_out(notion_id: str, kind: str, chinese: bool) -> frozenset[str]:
    """The ways that are never used for this notion; the first of a kind is what chapters use, and always is."""
    rng = random.Random(zlib.crc32(f"{notion_id} {kind} {chinese}".encode()))
    others = ways(chinese)[kind][1:]
    return frozenset(rng.sample(others, len(others) // _HELD_OUT))


def is_plural(name: str) -> bool:
    """Whether a name takes "are", as far as its letters tell."""
    head = name.split(" of ")[0].split(" in ")[0]
    return head.endswith("s") and not head.endswith(("ss", "us", "is")) and not head.startswith(("a ", "an "))


def fill(way: str, name: str, other: str = "", plural: bool | None = None) -> str:
    """A way of asking with its names, and verbs that agree with the first."""
    many = is_plural(name) if plural is None else plural
    return way.format(x=name, y=other, is_="are" if many else "is", do="do" if many else "does")


def questions(notion: Notion) -> tuple[Question, ...]:
    """Every way of asking about a notion by its usual names, those held out for it marked."""
    result: dict[str, Question] = {}  # a bare "LoRA" is the same in both languages
    for chinese in (False, True):
        for kind in _KINDS:
            for way in ways(chinese)[kind]:
                text = fill(way, notion.names(chinese)[0], plural=notion.verb == "are")
                held_out = way in _held_out(notion.id, kind, chinese)
                result.setdefault(text, _question(notion, kind, text, chinese, held_out))
    return tuple(result.values())


def _question(notion: Notion, kind: str, text: str, chinese: bool, held_out: bool = False) -> Question:
    return Question(text, notion.answer(kind, chinese), thought_about(notion, chinese), chinese, notion, kind, held_out)


def thought_about(notion: Notion, chinese: bool) -> str:
    """What the model thinks before it answers a question about a notion."""
    return f"用户想了解{notion.zh}。" if chinese else f"The user asks about {notion.term}."


def thought_about_two(a: Notion, b: Notion, chinese: bool) -> str:
    """What it thinks before it compares two."""
    return f"用户想比较{a.zh}和{b.zh}。" if chinese else f"The user compares {a.term} with {b.term}."


def training_question(rng: random.Random, chinese: bool | None = None) -> Question:
    """A random question about one notion that is not held out, in one language or (None) in either."""
    wanted = rng.random() < 0.42 if chinese is None else chinese
    notion, kind = rng.choice(notions()), rng.choices(list(_KINDS), list(_KINDS.values()))[0]
    names, usable = notion.names(wanted), [way for way in ways(wanted)[kind]
                                           if way not in _held_out(notion.id, kind, wanted)]
    way = rng.choice(usable) if rng.random() < 0.9 else usable[0]
    text = (fill(way, names[0], plural=notion.verb == "are") if rng.random() < 0.35 else
            fill(way, rng.choice(names)))
    if wanted and not is_chinese(text):  # "LoRA", bare
        text += "？"
    return _question(notion, kind, asked(text, rng), wanted)


def random_pair(rng: random.Random, chinese: bool) -> tuple[Notion, Notion, str]:
    """Two notions and their difference; four times in five two that people confuse."""
    if rng.random() < 0.8:
        pair = rng.choice(pairs())
        a, b = (pair.a, pair.b) if rng.random() < 0.5 else (pair.b, pair.a)
        return a, b, pair.difference(chinese)
    a, b = rng.sample(notions(), 2)
    return a, b, difference_of(a, b, chinese)


def difference_of(a: Notion, b: Notion, chinese: bool) -> str:
    """How two notions differ: in a sentence of their own, or by both definitions."""
    known = next((pair for pair in pairs() if {a.id, b.id} == {pair.a.id, pair.b.id}), None)
    return known.difference(chinese) if known else ("" if chinese else " ").join(n.answer("short", chinese)
                                                                                 for n in (a, b))


def comparison_answer(kind: str, difference: str, chinese: bool) -> str:
    """What answers a question for the "difference", or whether two notions are the "same"."""
    return ("" if kind == "difference" else "不一样。" if chinese else "No. ") + difference


def random_name(rng: random.Random, notion: Notion, chinese: bool) -> str:
    """Any name of a notion, the usual one more often."""
    return notion.names(chinese)[0] if rng.random() < 0.4 else rng.choice(notion.names(chinese))


def training_comparison(rng: random.Random, chinese: bool | None = None) -> Question:
    """A random question about two notions."""
    wanted = rng.random() < 0.42 if chinese is None else chinese
    a, b, difference = random_pair(rng, wanted)
    kind = "same" if rng.random() < 0.3 else "difference"
    first, second = random_name(rng, a, wanted), random_name(rng, b, wanted)
    text = fill(rng.choice(ways(wanted)[kind]), first, second)
    return Question(asked(text, rng), comparison_answer(kind, difference, wanted), thought_about_two(a, b, wanted),
                    wanted)


def any_question(rng: random.Random, chinese: bool | None = None) -> Question:
    """About one notion or two."""
    ask = training_comparison if rng.random() < _COMPARISONS else training_question
    return ask(rng, chinese)


def asked(text: str, rng: random.Random) -> str:
    """A question as people type it, perhaps with something before or behind it."""
    chinese = is_chinese(text)
    text = text[0].upper() + text[1:] if rng.random() < 0.7 else text
    if rng.random() < 0.14:
        opening = rng.choice(ways(chinese)["opening"])
        text = opening + (text if opening.endswith((". ", "! ")) else text[0].lower() + text[1:])
    if rng.random() < 0.10 and (not chinese or text.endswith(("？", "。"))):
        text += rng.choice(ways(chinese)["closing"])
    return with_slips(text, rng)


def with_slips(text: str, rng: random.Random) -> str:
    """A text as people type it in a hurry: without capitals, without marks or with other ones, with a letter wrong."""
    changed = text
    for share, change in _SLIPS:
        if rng.random() < share:
            changed = change(changed, rng)
    # What no longer shows its language cannot be answered in it.
    return changed if is_chinese(changed) == is_chinese(text) else text


def is_chinese(text: str) -> bool:
    """Whether there is anything Chinese in a text, were it only a mark."""
    return any("\u3000" <= character <= "\u9fff" or "\uff00" <= character <= "\uffef" for character in text)


def _lower(text: str, rng: random.Random) -> str:
    return text.lower()


def _upper(text: str, rng: random.Random) -> str:
    return text.upper()


def _unmarked(text: str, rng: random.Random) -> str:
    return text.rstrip(".?！？。!") or text


def _other_marks(text: str, rng: random.Random) -> str:
    marks = ("?", "??", "？？", "", "！", "……") if is_chinese(text) else ("?", "??", "!", "?!", "...", " ?", "")
    return text.rstrip(".?！？。!") + rng.choice(marks)


def _typo(text: str, rng: random.Random) -> str:
    """Two neighbouring letters in the wrong order, or one left out."""
    at = rng.randrange(len(text))
    left_out = rng.random() < 0.4
    return (text[:at] + text[at + 1:at + 2] + ("" if left_out else text[at]) + text[at + 2:]) or text


_SLIPS = ((0.25, _lower), (0.02, _upper), (0.20, _unmarked), (0.12, _other_marks), (0.05, _typo))
