"""Exercises of chapter 2: the bytes of tokens, learning merges, and how well a vocabulary suits a language."""

from __future__ import annotations

import math
from collections import Counter
from itertools import chain
from typing import Any

from course_utils.exercises.exercise import Answer, Exercise
from course_utils.loading import load_tokenizer
from course_utils.tokenizer import Qwen3Tokenizer

# ---- 2.1 -------------------------------------------------------------------------------------------------

_TEXTS = ("A frimmelt zorbles.", "小船", "龘 👩‍💻", "Goodbye<|im_end|>", "")


def pieces(tokenizer: Qwen3Tokenizer, text: str) -> list[bytes]:
    """The bytes of each token of text, as a list."""
    return [tokenizer.token_bytes(token_id) for token_id in tokenizer.encode(text)]


def _verify_pieces(answer: Answer) -> str | None:
    tokenizer = load_tokenizer("tiny")
    for text in _TEXTS:
        got, expected = answer(tokenizer, text), pieces(tokenizer, text)
        if got is None:
            return "it returned None. Does the function end with a return?"
        if isinstance(got, (str, bytes)):
            return "it returned one text. Return a list with an entry for each token."
        if not isinstance(got, list):
            return f"it returned a {type(got).__name__}. Return a list."
        if any(isinstance(piece, int) for piece in got):
            return "it returned the ids. Look up the bytes of each id with tokenizer.token_bytes."
        if any(isinstance(piece, str) for piece in got):
            return ("the entries are str. Half a character is not a str: use tokenizer.token_bytes, which keeps the "
                    "bytes as they are.")
        if got != expected:
            return (f"for {text!r} it returned {len(got)} entries, and there are {len(expected)} tokens: cut the text "
                    "where the tokenizer does, by its ids.")
    return None


def _words_as_bytes(tokenizer: Qwen3Tokenizer, text: str) -> list[bytes]:
    return [word.encode() for word in text.split()]


def _characters_as_bytes(tokenizer: Qwen3Tokenizer, text: str) -> list[bytes]:
    return [character.encode() for character in text]


_PIECES = Exercise("2.1", "The bytes of each token", pieces, _verify_pieces, wrong=(
    (lambda tokenizer, text: tokenizer.encode(text), "returned the ids"),
    (lambda tokenizer, text: [tokenizer.decode(i) for i in tokenizer.encode(text)], "entries are str"),
    (lambda tokenizer, text: text.encode(), "one text"),
    (lambda tokenizer, text: print(end=""), "returned None"),
    (_words_as_bytes, "where the tokenizer does"),
    (_characters_as_bytes, "where the tokenizer does"),
))

# ---- 2.2 -------------------------------------------------------------------------------------------------


def first_merges() -> list[str]:
    """The first three pieces that BPE learns from "low lower lowest"."""
    return ["lo", "low", " low"]


def _verify_first_merges(answer: Answer) -> str | None:
    got: Any = answer()
    if got is None:
        return "it returned None. Does the function end with a return?"
    if not isinstance(got, (list, tuple)) or len(got) != 3:
        return "return a list of three pieces, the one that is learned first in front."
    first, second, third = (piece.decode() if isinstance(piece, bytes) else str(piece) for piece in got)
    if len(first) != 2:
        return f"{first!r} cannot be first: in the beginning a token is one byte, and a merge joins two tokens."
    if first == "ow":
        return "'ow' occurs three times, and so does another pair, which comes earlier in the text: that one is taken."
    if first != "lo":
        return f"{first!r} is not the most frequent pair of the text. Count each pair, spaces included."
    if second == "ow":
        return "after the first merge no o is left, only the new token lo: write the text down once more with it."
    if second != "low":
        return f"{second!r} is not second. Write the text down with the token lo, and count the pairs again."
    if third in ("we", "er", "es"):
        return f"{third!r} is not third: the w has gone into the token low, so count pairs of low and its neighbours."
    if third == "lowe":
        return "low and e stand together twice, and so does another pair, which comes earlier in the text."
    if third == "low ":
        return "low and a space behind it stand together only once. Other neighbours of low come more often."
    if third != " low":
        return f"{third!r} is not third. Spaces are bytes as well: which neighbours has low, and how often?"
    return None


_FIRST_MERGES = Exercise("2.2", "What is learned first?", first_merges, _verify_first_merges, wrong=(
    (lambda: ["ow", "low", " low"], "comes earlier in the text: that one"),
    (lambda: ["lo", "ow", "we"], "no o is left"),
    (lambda: ["low", " low", " lowe"], "cannot be first"),
    (lambda: ["lo", "low", "we"], "has gone into the token low"),
    (lambda: ["lo", "low", "lowe"], "low and e stand together twice"),
    (lambda: ["lo", "low", "lower"], "is not third. Spaces"),
    (lambda: [b"we", b"lo", b"low"], "not the most frequent"),
    (lambda: ["lo", "low"], "list of three"),
))

# ---- 2.3 -------------------------------------------------------------------------------------------------


def count_pairs_in_words(words: list[list[int]]) -> Counter[tuple[int, int]]:
    """How often each pair of neighbours occurs within the words, each a list of ids."""
    counts: Counter[tuple[int, int]] = Counter()
    for ids in words:
        counts.update(zip(ids, ids[1:]))
    return counts


_WORDS = ([[1, 2, 3], [4, 1, 2], [2, 4]], [[7, 7, 7], [7]], [[5, 6], [5, 6], [6, 5]], [[3], [], [4]])


def _verify_count_pairs_in_words(answer: Answer) -> str | None:
    for words in _WORDS:
        given = [list(ids) for ids in words]
        got, expected = answer(given), count_pairs_in_words(words)
        if got is None:
            return "it returned None. Does the function end with a return?"
        if not isinstance(got, dict):
            return f"it returned a {type(got).__name__}. Return one Counter for all words."
        if given != words:
            return "it changes the words that it is given. Count, and leave them as they are."
        counts = {pair: count for pair, count in got.items() if count}
        if counts == expected:
            continue
        everything = list(chain.from_iterable(words))
        if counts == Counter(zip(everything, everything[1:])):
            return (f"in {words} it counts pairs that cross from one word into the next, such as "
                    f"{next(pair for pair in counts if pair not in expected)}. Count in one word at a time.")
        if counts == Counter(zip(words[-1], words[-1][1:])):
            return "only the last word was counted. Make the Counter before the loop, and let each word add to it."
        if counts == dict.fromkeys(expected, 1):
            return "each pair counts once, however often it occurs. Add up: Counter.update adds, a dict's replaces."
        if counts == Counter(everything):
            return "it counts single ids. Count pairs of neighbours: zip(ids, ids[1:])."
        return f"for {words} it returned {dict(got)}, and {dict(expected)} is right."
    return None


def _count_across_words(words: list[list[int]]) -> Counter[tuple[int, int]]:
    ids = list(chain.from_iterable(words))
    return Counter(zip(ids, ids[1:]))


def _count_last_word(words: list[list[int]]) -> Counter[tuple[int, int]]:
    counts: Counter[tuple[int, int]] = Counter()
    for ids in words:
        counts = Counter(zip(ids, ids[1:]))
    return counts


_COUNT_PAIRS = Exercise("2.3", "Stay within a word", count_pairs_in_words, _verify_count_pairs_in_words, wrong=(
    (_count_across_words, "cross from one word into the next"),
    (_count_last_word, "only the last word"),
    (lambda words: dict.fromkeys(count_pairs_in_words(words), 1), "each pair counts once"),
    (lambda words: Counter(chain.from_iterable(words)), "single ids"),
    (lambda words: [Counter(zip(ids, ids[1:])) for ids in words], "one Counter for all words"),
    (lambda words: print(end=""), "returned None"),
))

# ---- 2.4 -------------------------------------------------------------------------------------------------


def bytes_per_token(tokenizer: Qwen3Tokenizer, text: str) -> float:
    """Average number of UTF-8 bytes that a token of text stands for."""
    ids = tokenizer.encode(text)
    return len(text.encode()) / len(ids) if ids else 0.0


def _verify_bytes_per_token(answer: Answer) -> str | None:
    tokenizer = load_tokenizer("tiny")
    for text in ("The cat looks at the moon.", "猫看着月亮。", "Η γάτα"):
        got, expected = answer(tokenizer, text), bytes_per_token(tokenizer, text)
        if not isinstance(got, (int, float)):
            return f"it returned {type(got).__name__}. Return one number."
        characters = len(text) / len(tokenizer.encode(text))
        if math.isclose(got, expected):
            continue
        if math.isclose(got, characters):
            return "it counts characters. A Chinese character is one character and three bytes: count text.encode()."
        if math.isclose(got, 1 / expected):
            return "it is upside down, tokens per byte. Divide the bytes by the tokens."
        if got == int(expected):
            return "it is a whole number, with the part behind the point cut off. Divide with /, not //."
        return f"for {text!r} it returned {got:.3g}. Divide the number of UTF-8 bytes by the number of ids."
    try:
        empty = answer(tokenizer, "")
    except ZeroDivisionError:
        return "it is right, except for the empty text, which has no tokens to divide by. Return 0.0 there."
    return None if empty == 0 else f"for the empty text it returned {empty}. Return 0.0 there."


_BYTES_PER_TOKEN = Exercise("2.4", "Another language", bytes_per_token, _verify_bytes_per_token, wrong=(
    (lambda tokenizer, text: len(text) / max(1, len(tokenizer.encode(text))), "counts characters"),
    (lambda tokenizer, text: len(tokenizer.encode(text)) / max(1, len(text.encode())), "upside down"),
    (lambda tokenizer, text: len(text.encode()) // max(1, len(tokenizer.encode(text))), "whole number"),
    (lambda tokenizer, text: len(text.encode()) / len(tokenizer.encode(text)), "except for the empty text"),
))

EXERCISES = (_PIECES, _FIRST_MERGES, _COUNT_PAIRS, _BYTES_PER_TOKEN)
