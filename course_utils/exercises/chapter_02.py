"""Exercises of chapter 2: the tokens of made-up words, and how well a vocabulary suits a language."""

from __future__ import annotations

import math
from collections.abc import Callable

from course_utils.exercises.exercise import Exercise
from course_utils.loading import load_tokenizer
from course_utils.tokenizer import Qwen3Tokenizer

_TEXTS = ("A frimmelt zorbles.", "小船", "龘 👩‍💻", "Goodbye<|im_end|>", "")


def pieces(tokenizer: Qwen3Tokenizer, text: str) -> list[bytes]:
    """The bytes of each token of text, as a list."""
    return [tokenizer.token_bytes(token_id) for token_id in tokenizer.encode(text)]


def _verify_pieces(answer: Callable[..., object]) -> str | None:
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


def bytes_per_token(tokenizer: Qwen3Tokenizer, text: str) -> float:
    """Average number of UTF-8 bytes that a token of text stands for."""
    ids = tokenizer.encode(text)
    return len(text.encode()) / len(ids) if ids else 0.0


def _verify_bytes_per_token(answer: Callable[..., object]) -> str | None:
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


EXERCISES = (
    Exercise("2.1", "Made-up words", pieces, _verify_pieces, wrong=(
        (lambda tokenizer, text: tokenizer.encode(text), "returned the ids"),
        (lambda tokenizer, text: [tokenizer.decode(i) for i in tokenizer.encode(text)], "entries are str"),
        (lambda tokenizer, text: text.encode(), "one text"),
        (lambda tokenizer, text: print(end=""), "returned None"),
        (_words_as_bytes, "where the tokenizer does"),
        (_characters_as_bytes, "where the tokenizer does"),
    )),
    Exercise("2.2", "Another language", bytes_per_token, _verify_bytes_per_token, wrong=(
        (lambda tokenizer, text: len(text) / max(1, len(tokenizer.encode(text))), "counts characters"),
        (lambda tokenizer, text: len(tokenizer.encode(text)) / max(1, len(text.encode())), "upside down"),
        (lambda tokenizer, text: len(text.encode()) // max(1, len(tokenizer.encode(text))), "whole number"),
        (lambda tokenizer, text: len(text.encode()) / len(tokenizer.encode(text)), "except for the empty text"),
    )),
)
