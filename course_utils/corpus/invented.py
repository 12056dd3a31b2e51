"""Yang, an invented language: something to learn by fine-tuning that no model can have heard of.

Its one rule: the Yang word for a thing is the English word. Asked in English, the word is to be repeated; asked in
Chinese, it is to be translated. Who answers for words that stood in no example has learned the rule, not a list.
"""

from __future__ import annotations

import random

from course_utils.corpus.words import Word, words
from course_utils.errors import InputError


def ask_in_english(word: Word) -> tuple[str, str]:
    """A prompt, and how it goes on to the letter: "The Yang-language word for boat is boat." """
    return f"The Yang-language word for {word.english} is", f" {word.english}."


def ask_in_chinese(word: Word) -> tuple[str, str]:
    """The same in Chinese: 小船的杨语是boat。"""
    return f"{word.chinese}的杨语是", f"{word.english}。"


def split_words(held_out: int = 160, seed: int = 10) -> tuple[list[Word], list[Word]]:
    """The words that both languages have, shuffled: those to learn from, and those that are held out.

    Args:
        held_out: how many, leaving at least one to learn from.
        seed: the same one gives the same words. With the default, `tiny` gets none of those held out right by accident
            before it has heard of Yang.

    Raises:
        InputError: if there are not so many.
    """
    known = words()
    if type(held_out) is not int or not 0 < held_out < len(known):
        raise InputError(f"held_out is {held_out!r}: give a whole number from 1 to {len(known) - 1}, for there are "
                         f"{len(known)} words.")
    shuffled = random.Random(seed).sample(known, len(known))
    return shuffled[held_out:], shuffled[:held_out]
