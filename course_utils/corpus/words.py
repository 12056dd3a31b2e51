"""Everyday words in English and Chinese, and documents that translate them, alone and in small sentences.

`words.tsv` maps one to one in both directions, so that a translation is either right or wrong.
"""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path


@dataclass(frozen=True)
class Word:
    """One row of words.tsv; `article` and `measure` are "-" where the word takes none."""

    category: str
    kind: str
    english: str
    article: str
    chinese: str
    measure: str

    @property
    def a(self) -> str:
        """The word with its article: "a cat", or "rice"."""
        return self.english if self.article == "-" else f"{self.article} {self.english}"

    @property
    def one(self) -> str:
        """The word with its measure word: 一只猫, or 米饭."""
        return self.chinese if self.measure == "-" else f"一{self.measure}{self.chinese}"


# Ways to translate one word: what comes before the answer, and the answer.
TO_CHINESE = (("The Chinese word for {en} is", " {zh}."), ("How do you say {en} in Chinese?", " {zh}"),
              ("Translate to Chinese: {en}.", " {zh}"), ("{en} in Chinese:", " {zh}"),
              ("{en}的中文是", "{zh}。"), ("{en}用中文怎么说？", "{zh}。"), ("{en} ->", " {zh}"))
TO_ENGLISH = (("What does {zh} mean?", " It means {en}."), ("The English word for {zh} is", " {en}."),
              ("Translate to English: {zh}。", " {en}"), ("{zh} in English:", " {en}"),
              ("{zh}的英文是", "{en}。"), ("{zh}用英语怎么说？", "{en}。"), ("{zh} ->", " {en}"))

# What a word of a category is, in both languages.
CLASSES = {"animal": ("an animal", "一种动物"), "fruit": ("a fruit", "一种水果"), "drink": ("a drink", "一种饮料"),
           "vegetable": ("a vegetable", "一种蔬菜"), "body": ("a part of the body", "身体的一部分"),
           "colour": ("a colour", "一种颜色"), "vehicle": ("a vehicle", "一种交通工具"),
           "tool": ("a tool", "一种工具"), "number": ("a number", "一个数字"), "place": ("a place", "一个地方"),
           "food": ("something to eat", "一种食物"), "clothes": ("something to wear", "一种衣物"),
           "home": ("something in a house", "家里的东西"), "nature": ("a part of nature", "大自然的一部分")}

_THINGS = frozenset({"animal", "clothes", "vehicle", "home", "tool"})
_PEOPLE = frozenset({"person", "family", "animal"})
_INTRANSITIVE = frozenset("run walk jump swim sleep sing dance laugh cry rest work travel".split())
_SIZES = frozenset("big small new clean dirty beautiful".split())


@lru_cache(maxsize=1)
def words() -> tuple[Word, ...]:
    """All words, in the order of the file."""
    with (Path(__file__).parent / "words.tsv").open(encoding="utf-8", newline="") as file:
        return tuple(Word(**row) for row in csv.DictReader(file, delimiter="\t"))


@cache
def _nouns(categories: frozenset[str] | None = None, countable: bool = True) -> tuple[Word, ...]:
    return tuple(word for word in words() if word.kind == "noun"
                 and (word.measure != "-" and word.article != "-") == countable
                 and (categories is None or word.category in categories))


@cache
def _others(kind: str) -> tuple[Word, ...]:
    return tuple(word for word in words() if word.kind == kind)


def sentence_pair(rng: random.Random) -> tuple[str, str]:
    """A small sentence in English and in Chinese, that say the same."""
    noun, thing = rng.choice(_nouns()), rng.choice(_nouns(_THINGS))
    pattern = rng.randrange(13)
    if pattern == 0:
        return f"This is {noun.a}.", f"这是{noun.one}。"
    if pattern == 1:
        return f"I have {thing.a}.", f"我有{thing.one}。"
    if pattern == 2:
        return f"I see {noun.a}.", f"我看见{noun.one}。"
    if pattern == 3:
        return f"Where is the {thing.english}?", f"{thing.chinese}在哪里？"
    if pattern == 4:
        colour = rng.choice([word for word in words() if word.category == "colour"])
        return f"The {thing.english} is {colour.english}.", f"{thing.chinese}是{colour.chinese}的。"
    if pattern == 5:
        size = rng.choice([word for word in _others("adjective") if word.english in _SIZES])
        return f"The {thing.english} is {size.english}.", f"{thing.chinese}很{size.chinese}。"
    if pattern == 6:
        who = rng.choice(_nouns(_PEOPLE))
        feeling = rng.choice([word for word in words() if word.category == "feeling"])
        return f"The {who.english} is {feeling.english}.", f"{who.chinese}很{feeling.chinese}。"
    if pattern in (7, 8, 9):
        verb = rng.choice([word for word in _others("verb") if word.english in _INTRANSITIVE])
        if pattern == 7:
            return f"I want to {verb.english}.", f"我想{verb.chinese}。"
        if pattern == 8:
            return f"They like to {verb.english}.", f"他们喜欢{verb.chinese}。"
        return f"Tomorrow we will {verb.english}.", f"明天我们要{verb.chinese}。"
    if pattern == 10:
        food = rng.choice(_nouns(frozenset({"food", "drink"}), countable=False))
        return f"Do you like {food.english}?", f"你喜欢{food.chinese}吗？"
    if pattern == 11:
        other = rng.choice(_nouns(_THINGS))
        return f"The {thing.english} and the {other.english} are here.", f"{thing.chinese}和{other.chinese}在这里。"
    known = rng.choice([word for word in words() if word.category in CLASSES and word.kind != "adjective"])
    english, chinese = CLASSES[known.category]
    return f"{known.a.capitalize()} is {english}.", f"{known.chinese}是{chinese}。"


def translation_document(rng: random.Random) -> str:
    """One word in one way, a list of several, or a small sentence with its translation."""
    choice = rng.random()
    if choice < 0.30:
        word = rng.choice(words())
        before, answer = rng.choice(TO_CHINESE + TO_ENGLISH)
        return (before + answer).format(en=word.english, zh=word.chinese)
    if choice < 0.72:
        before, answer = rng.choice(TO_CHINESE + TO_ENGLISH)
        separator = "\n" if before.endswith("->") or rng.random() < 0.5 else " "
        chosen = rng.sample(words(), rng.randint(3, 7))
        return separator.join((before + answer).format(en=word.english, zh=word.chinese) for word in chosen)
    pairs = [sentence_pair(rng) for _ in range(rng.randint(1, 3))]
    way = rng.randrange(4)
    if way == 0:
        return "\n".join(f"English: {english}\nChinese: {chinese}" for english, chinese in pairs)
    if way == 1:
        return f"Translate to Chinese: {pairs[0][0]} {pairs[0][1]}"
    if way == 2:
        return f"Translate to English: {pairs[0][1]} {pairs[0][0]}"
    return " ".join(f"{english} {chinese}" for english, chinese in pairs)
