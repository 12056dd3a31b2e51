"""Exercises of chapter 2: the bytes of tokens, learning merges, and how well a vocabulary suits a language."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import chain, pairwise
from typing import Any

from course_utils.exercises.answers import NotYet, close, describe, items, mapping, number, whole
from course_utils.exercises.chapters.tokenizers_for_checks import bundled_tokenizer, bytewise_tokenizer
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.language import gettext
from course_utils.tokenizer import Qwen3Tokenizer

# ---- 2.1 -------------------------------------------------------------------------------------------------


def pieces(tokenizer: Qwen3Tokenizer, text: str) -> list[bytes]:
    """The bytes of each token of text, as a list."""
    return [tokenizer.token_bytes(token_id) for token_id in tokenizer.encode(text)]


# The bundled tokenizer has a special token in one of them; characters of several tokens are in two.
_TEXTS = ("A frimmelt zorbles.", "小船", "龘 👩‍💻", "Goodbye<|im_end|>", " two  spaces ", "")


def _through_text(tokenizer: Qwen3Tokenizer, text: str) -> list[bytes]:
    return [tokenizer.decode(token_id).encode() for token_id in tokenizer.encode(text)]


def _words_as_bytes(tokenizer: Qwen3Tokenizer, text: str) -> list[bytes]:
    return [word.encode() for word in text.split()]


def _characters_as_bytes(tokenizer: Qwen3Tokenizer, text: str) -> list[bytes]:
    return [character.encode() for character in text]


def _bytes_of_the_text(tokenizer: Qwen3Tokenizer, text: str) -> list[bytes]:
    return [bytes([byte]) for byte in text.encode()]


def _without_special_tokens(tokenizer: Qwen3Tokenizer, text: str) -> list[bytes]:
    return [tokenizer.token_bytes(token_id) for token_id in tokenizer.encode(text, special_tokens=False)]


def _with_the_notebooks(tokenizer: Qwen3Tokenizer, text: str) -> list[bytes]:
    return pieces(bundled_tokenizer(), text)


# What one may have computed instead, the likeliest slip first.
_PIECES_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_through_text, "decode makes a text of each token before you take its bytes, and half a character is no text: its "
                    "bytes are lost. tokenizer.token_bytes(token_id) gives them as they are."),
    (_with_the_notebooks, "with another tokenizer it still cuts as the notebook's does: use the argument tokenizer."),
    (_characters_as_bytes, "it has an entry for each character. A token may be several characters, or a part of one: "
                           "cut where the tokenizer does, by its ids."),
    (_words_as_bytes, "it has an entry for each word, and the spaces are lost. A token need not be a word: cut where "
                      "the tokenizer does, by its ids."),
    (_bytes_of_the_text, "it has an entry for each byte. A token may have several: take the bytes of each id."),
    (_without_special_tokens, "<|im_end|> is one token, and it came in pieces: encode the text as it is, without other "
                              "arguments."),
)


def _verify_pieces(answer: Answer) -> str | None:
    cases = [(tokenizer, text) for tokenizer in (bundled_tokenizer(), bytewise_tokenizer()) for text in _TEXTS]
    given = [_list_of_bytes(answer(tokenizer, text)) for tokenizer, text in cases]
    right = [pieces(tokenizer, text) for tokenizer, text in cases]
    if given == right:
        return None
    for slip, hint in _PIECES_SLIPS:
        if given == [slip(tokenizer, text) for tokenizer, text in cases]:
            return hint
    at = next(at for at, one in enumerate(given) if one != right[at])
    return gettext("for {cases!r} and a tokenizer of {vocab_size} tokens it returned {given}, and {right} is right: "
                   "one entry for each id, in their order.").format(
        cases=cases[at][1], vocab_size=cases[at][0].vocab_size, given=given[at], right=right[at])


def _list_of_bytes(returned: Any) -> list[bytes]:
    asked = "a list with the bytes of each token"
    if isinstance(returned, (str, bytes)):
        raise NotYet("it returned one text for all tokens. Return a list with an entry for each token.")
    entries = items(returned, asked)
    if any(isinstance(piece, int) for piece in entries):
        raise NotYet("it returned the ids. Look up the bytes of each id with tokenizer.token_bytes.")
    if any(isinstance(piece, str) for piece in entries):
        raise NotYet("the entries are str. Half a character is not a str: use tokenizer.token_bytes, which keeps the "
                     "bytes as they are.")
    for piece in entries:
        if not isinstance(piece, (bytes, bytearray)):
            raise NotYet(gettext("an entry is {describe}. Return {asked}, as tokenizer.token_bytes gives them.").format(
                describe=describe(piece), asked=gettext(asked)))
    return [bytes(piece) for piece in entries]


def _one_by_one(tokenizer: Qwen3Tokenizer, text: str) -> list[bytes]:
    found = []
    for token_id in tokenizer.encode(text):
        found.append(tokenizer.token_bytes(token_id))
    return found


_PIECES = Exercise("2.1", "The bytes of each token", pieces, _verify_pieces, wrong=(
    *((slip, hint[:30]) for slip, hint in _PIECES_SLIPS),
    (lambda tokenizer, text: tokenizer.encode(text), "returned the ids"),
    (lambda tokenizer, text: [tokenizer.decode(i) for i in tokenizer.encode(text)], "entries are str"),
    (lambda tokenizer, text: text.encode(), "one text for all"),
    (lambda tokenizer, text: [[*piece] for piece in pieces(tokenizer, text)], "an entry is a list"),
    (lambda tokenizer, text: pieces(tokenizer, text)[::-1], "in their order"),
    (lambda tokenizer, text: print(end=""), "returned None"),
), also_wrong=(
    lambda tokenizer, text: [piece.strip() for piece in pieces(tokenizer, text)],
    lambda tokenizer, text: [piece for piece in pieces(tokenizer, text) if piece.isascii()],
    lambda tokenizer, text: list(dict.fromkeys(pieces(tokenizer, text))),
    lambda tokenizer, text: pieces(tokenizer, text) if len(text) > 3 else _characters_as_bytes(tokenizer, text),
    lambda tokenizer, text: [tokenizer.token_text(i).encode() for i in tokenizer.encode(text)],
    lambda tokenizer, text: pieces(tokenizer, text) or [b""],
), right=(
    lambda tokenizer, text: list(map(tokenizer.token_bytes, tokenizer.encode(text))),
    lambda tokenizer, text: [bytearray(piece) for piece in pieces(tokenizer, text)],
    lambda tokenizer, text: (tokenizer.token_bytes(token_id=i) for i in tokenizer.encode(text=text)),
    _one_by_one,
))

# ---- 2.2 -------------------------------------------------------------------------------------------------


def first_merges() -> list[str]:
    """The first three pieces that BPE learns from "low lower lowest"."""
    return ["lo", "low", " low"]


_SPACE_SIGNS = str.maketrans("␣Ġ", "  ")  # how the page shows a space, and how tokenizer.json does


def _verify_first_merges(answer: Answer) -> str | None:
    first, second, third = (_piece(entry) for entry in items(
        answer(), "a list of three pieces, the one that is learned first in front", 3))
    if len(first) != 2:
        return gettext("{first!r} cannot be first: in the beginning a token is one byte, and "
                       "a merge joins two tokens.").format(first=first)
    if first == "ow":
        return "'ow' occurs three times, and so does another pair, which comes earlier in the text: that one is taken."
    if first != "lo":
        return gettext("{first!r} is not the most frequent pair of the text. Count each pair, spaces included.").format(
            first=first)
    if second == "ow":
        return "after the first merge no o is left, only the new token lo: write the text down once more with it."
    if second != "low":
        return gettext("{second!r} is not second. Write the text down with the token lo, "
                       "and count the pairs again.").format(second=second)
    if third in ("we", "er", "es"):
        return gettext("{third!r} is not third: the w has gone into the token low, so count pairs "
                       "of low and its neighbours.").format(third=third)
    if third == "lowe":
        return "low and e stand together twice, and so does another pair, which comes earlier in the text."
    if third == "low ":
        return "low and a space after it stand together only once. Other neighbours of low come more often."
    if third in (" l", " lo"):
        return gettext("{third!r} is not third: after two merges each low is one token. With "
                       "what is the space joined?").format(third=third)
    if third != " low":
        return gettext("{third!r} is not third. Spaces are bytes as well: which "
                       "neighbours has low, and how often?").format(third=third)
    return None


def _piece(entry: Any) -> str:
    """A piece as text, also from bytes, and from its two halves."""
    if isinstance(entry, (tuple, list)):
        return "".join(_piece(half) for half in entry)
    if isinstance(entry, (bytes, bytearray)):
        entry = bytes(entry).decode("utf-8", "replace")
    if not isinstance(entry, str):
        raise NotYet(gettext("an entry is {describe}. Return the three pieces as texts, such as \"th\".").format(
            describe=describe(entry)))
    return entry.translate(_SPACE_SIGNS)


def _by_learning() -> list[bytes]:
    """The method of the page."""
    ids, known = list(b"low lower lowest"), {byte: bytes([byte]) for byte in range(256)}
    for new in range(256, 259):
        pair = Counter(pairwise(ids)).most_common(1)[0][0]
        merged: list[int] = []
        for token in ids:
            if merged and (merged[-1], token) == pair:
                merged[-1] = new
            else:
                merged.append(token)
        ids, known[new] = merged, known[pair[0]] + known[pair[1]]
    return [known[new] for new in range(256, 259)]


_FIRST_MERGES = Exercise("2.2", "What is learned first?", first_merges, _verify_first_merges, wrong=(
    (lambda: ["ow", "low", " low"], "comes earlier in the text: that one"),
    (lambda: ["lo", "ow", "we"], "no o is left"),
    (lambda: ["low", " low", " lowe"], "cannot be first"),
    (lambda: ["lo", "low", "we"], "has gone into the token low"),
    (lambda: ["lo", "low", "lowe"], "low and e stand together twice"),
    (lambda: ["lo", "low", "low "], "stand together only once"),
    (lambda: ["lo", "low", " l"], "With what is the space joined"),
    (lambda: ["lo", "low", "lower"], "is not third. Spaces"),
    (lambda: ["lo", "we", "low"], "is not second"),
    (lambda: [b"we", b"lo", b"low"], "not the most frequent"),
    (lambda: ["lo", "low"], "has 2 entries"),
    (lambda: [256, 257, 258], "as texts"),
    (lambda: "lo, low, low", "a list of three pieces"),
    (lambda: print(end=""), "returned None"),
), also_wrong=(
    lambda: ["lo", "low", "low"],
    lambda: ["lo", "low", "owe"],
    lambda: ["lo", " lo", " low"],
    lambda: ["LO", "LOW", " LOW"],
    lambda: [" low", "low", "lo"],
    lambda: {"lo", "low", " low"},
    lambda: ["lo", "low", " low", "e"],
), right=(
    lambda: ["lo", "low", "␣low"],
    lambda: [b"lo", b"low", b" low"],
    lambda: ("lo", "low", "Ġlow"),
    lambda: [("l", "o"), ("lo", "w"), (" ", "low")],
    _by_learning,
))

# ---- 2.3 -------------------------------------------------------------------------------------------------


def count_pairs_in_words(words: list[list[int]]) -> Counter[tuple[int, int]]:
    """How often each pair of neighbours occurs within the words, each a list of ids."""
    counts: Counter[tuple[int, int]] = Counter()
    for ids in words:
        counts.update(zip(ids, ids[1:]))
    return counts


# With a pair in several words, twice in one, in both orders, with id 0, with empty words, and without any.
_WORDS: tuple[list[list[int]], ...] = (
    [[1, 2, 3], [4, 1, 2], [2, 4]], [[7, 7, 7], [7]], [[5, 6], [5, 6], [6, 5]], [[3, 1, 3, 1, 3], [0, 1], [0, 1, 0]],
    [[3], [], [4]], [])


def _across_words(words: list[list[int]]) -> Counter[Any]:
    return Counter(pairwise(chain.from_iterable(words)))


def _last_word(words: list[list[int]]) -> Counter[Any]:
    return count_pairs_in_words(words[-1:])


def _first_word(words: list[list[int]]) -> Counter[Any]:
    return count_pairs_in_words(words[:1])


def _each_once(words: list[list[int]]) -> Counter[Any]:
    return Counter(dict.fromkeys(count_pairs_in_words(words), 1))


def _once_a_word(words: list[list[int]]) -> Counter[Any]:
    return Counter(chain.from_iterable(set(pairwise(ids)) for ids in words))


def _last_words_count(words: list[list[int]]) -> Counter[Any]:
    counts: dict[tuple[int, int], int] = {}
    for ids in words:
        counts.update(Counter(pairwise(ids)))
    return Counter(counts)


def _single_ids(words: list[list[int]]) -> Counter[Any]:
    return Counter(chain.from_iterable(words))


def _either_order(words: list[list[int]]) -> Counter[Any]:
    return Counter((min(pair), max(pair)) for ids in words for pair in pairwise(ids))


def _side_by_side(words: list[list[int]]) -> Counter[Any]:
    return Counter(pair for ids in words for pair in zip(ids[::2], ids[1::2]))


# What one may have counted instead, the likeliest slip first.
_PAIRS_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_across_words, "it counts pairs that cross from one word into the next, such as (3, 4) in [[1, 2, 3], [4, 1, 2]]. "
                    "Count in one word at a time."),
    (_last_word, "only the last word was counted. Make the Counter before the loop, and let each word add to it."),
    (_first_word, "only the first word was counted. Does the return stand inside the loop?"),
    (_each_once, "each pair counts once, however often it occurs. Add up: Counter.update adds, a dict's replaces."),
    (_last_words_count, "what a later word has of a pair replaces what was counted before. Add up: Counter.update "
                        "adds, a dict's replaces."),
    (_once_a_word, "a pair that occurs twice in one word counts once: in [3, 1, 3, 1, 3] there is (3, 1) twice."),
    (_single_ids, "it counts single ids. Count pairs of neighbours: zip(ids, ids[1:])."),
    (_either_order, "it takes (6, 5) for (5, 6). The order counts: two pieces joined the other way are another piece."),
    (_side_by_side, "it goes on by two ids at a time. Each id but the first of a word has a neighbour before it: "
                    "zip(ids, ids[1:])."),
)


def _verify_count_pairs_in_words(answer: Answer) -> str | None:
    given = []
    for words in _WORDS:
        handed = [list(ids) for ids in words]
        given.append(_counts(answer(handed)))
        if handed != words:
            return "it changes the words that it is given. Count, and leave them as they are."
    right = [count_pairs_in_words(words) for words in _WORDS]
    if given == right:
        return None
    for slip, hint in _PAIRS_SLIPS:
        if given == [slip(words) for words in _WORDS]:
            return hint
    at = next(at for at, one in enumerate(given) if one != right[at])
    if given[at] == sum(right[:at + 1], Counter()):
        return ("what it counted in an earlier call is still there in the next. Make the Counter inside the function, "
                "not outside and not as a default argument.")
    return gettext("for {words} it returned {given}, and {right} is right.").format(
        words=_WORDS[at], given=dict(given[at]), right=dict(right[at]))


def _counts(returned: Any) -> Counter[Any]:
    """What was counted; a pair that was met 0 times may be there or not."""
    counts = mapping(returned, "one Counter for all words")
    return +Counter({pair: whole(count, "a Counter; a count is no whole number") for pair, count in counts.items()})


_KEPT: Counter[tuple[int, int]] = Counter()


def _never_emptied(words: list[list[int]]) -> Counter[Any]:
    if len(words) == 3 and words[0] == [1, 2, 3]:  # the first case: the test may be run twice
        _KEPT.clear()
    for ids in words:
        _KEPT.update(pairwise(ids))
    return _KEPT.copy()


def _with_a_dictionary(words: list[list[int]]) -> dict[tuple[int, int], int]:
    counts: dict[tuple[int, int], int] = {}
    for ids in words:
        for at in range(len(ids) - 1):
            pair = (ids[at], ids[at + 1])
            counts[pair] = counts.get(pair, 0) + 1
    return counts


def _emptying(words: list[list[int]]) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    while words:
        counts.update(pairwise(words.pop()))
    return counts


_COUNT_PAIRS = Exercise("2.3", "Stay within a word", count_pairs_in_words, _verify_count_pairs_in_words, wrong=(
    *((slip, hint[:30]) for slip, hint in _PAIRS_SLIPS),
    (_emptying, "changes the words"),
    (_never_emptied, "in an earlier call"),
    (lambda words: count_pairs_in_words([ids[1:] for ids in words]), "is right"),
    (lambda words: [Counter(pairwise(ids)) for ids in words], "one Counter for all words"),
    (lambda words: print(end=""), "returned None"),
), also_wrong=(
    lambda words: Counter(triple for ids in words for triple in zip(ids, ids[1:], ids[2:])),
    lambda words: Counter(pairwise(chain.from_iterable([*ids, -1] for ids in words))),
    lambda words: Counter(pair for ids in words for pair in pairwise(ids) if all(pair)),
    lambda words: Counter(pair for ids in words for pair in pairwise(ids) if len(ids) > 2),
    lambda words: Counter(pair for ids in words for pair in pairwise(ids) if pair[0] != pair[1]),
    lambda words: Counter(ids[:2] and tuple(ids[:2]) for ids in words),
), right=(
    lambda words: Counter(pair for ids in words for pair in pairwise(ids)),
    lambda words: sum((Counter(zip(ids, ids[1:])) for ids in words), Counter()),
    lambda words: Counter(pair for pair in pairwise(chain.from_iterable([*ids, None] for ids in words))
                          if None not in pair),
    _with_a_dictionary,
))

# ---- 2.4 -------------------------------------------------------------------------------------------------


def bytes_per_token(tokenizer: Qwen3Tokenizer, text: str) -> float:
    """Average number of UTF-8 bytes that a token of text stands for."""
    ids = tokenizer.encode(text)
    return len(text.encode()) / len(ids) if ids else 0.0


# The last two are one token, and one character of several.
_MEASURED = ("The cat looks at the moon.", "猫看着月亮。", "Η γάτα", "a", "龘")


def _counts_characters(tokenizer: Qwen3Tokenizer, text: str) -> float:
    return len(text) / len(tokenizer.encode(text))


def _tokens_per_byte(tokenizer: Qwen3Tokenizer, text: str) -> float:
    return len(tokenizer.encode(text)) / len(text.encode())


def _cut_off(tokenizer: Qwen3Tokenizer, text: str) -> float:
    return len(text.encode()) // len(tokenizer.encode(text))


def _whole_number(tokenizer: Qwen3Tokenizer, text: str) -> float:
    return round(bytes_per_token(tokenizer, text))


def _of_the_notebooks(tokenizer: Qwen3Tokenizer, text: str) -> float:
    return bytes_per_token(bundled_tokenizer(), text)


def _of_decoded_tokens(tokenizer: Qwen3Tokenizer, text: str) -> float:
    ids = tokenizer.encode(text)
    return sum(len(tokenizer.decode(token_id).encode()) for token_id in ids) / len(ids)


def _bytes_per_word(tokenizer: Qwen3Tokenizer, text: str) -> float:
    return len(text.encode()) / len(text.split())


def _of_utf_16(tokenizer: Qwen3Tokenizer, text: str) -> float:
    return len(text.encode("utf-16-le")) / len(tokenizer.encode(text))


# What one may have computed instead, the likeliest slip first.
_BYTES_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_counts_characters, "it counts characters. A Chinese character is one character and three bytes: count "
                         "text.encode()."),
    (_tokens_per_byte, "it is upside down, tokens per byte. Divide the bytes by the tokens."),
    (_cut_off, "it is a whole number, and what comes after the point is cut off. Divide with /, not //."),
    (_whole_number, "it is rounded to a whole number. Leave it as the division gives it."),
    (_of_the_notebooks, "with another tokenizer it still counts the tokens of the notebook's: use the argument "
                        "tokenizer."),
    (_of_decoded_tokens, "it counts the bytes of decoded tokens, and half a character decodes to a sign of three bytes "
                         "in its place. Count the bytes of the text."),
    (_bytes_per_word, "it divides by the words. Divide by the number of ids."),
    (_of_utf_16, "these are not the bytes of UTF-8: encode() takes UTF-8 if it is told nothing else."),
)


def _verify_bytes_per_token(answer: Answer) -> str | None:
    cases = [(tokenizer, text) for tokenizer in (bundled_tokenizer(), bytewise_tokenizer()) for text in _MEASURED]
    given = [number(answer(tokenizer, text), "one number, bytes per token") for tokenizer, text in cases]
    right = [bytes_per_token(tokenizer, text) for tokenizer, text in cases]
    differing = [at for at, one in enumerate(given) if not close(one, right[at])]
    if differing:
        for slip, hint in _BYTES_SLIPS:
            if all(close(one, slip(*case)) for one, case in zip(given, cases)):
                return hint
        tokenizer, text = cases[differing[0]]
        return gettext("{text!r} has {count} bytes of UTF-8 and {num_tokens} tokens, and it returned {given:.4g}. "
                       "Divide the number of bytes by the number of ids.").format(
            text=text, count=len(text.encode()), num_tokens=len(tokenizer.encode(text)), given=given[differing[0]])
    try:
        empty = number(answer(cases[0][0], ""), "0.0 for the empty text")
    except ZeroDivisionError:
        return "it is right, except for the empty text, which has no tokens to divide by. Return 0.0 there."
    return None if empty == 0 else gettext("for the empty text it returned {empty:g}. Return 0.0 there.").format(
        empty=empty)


def _mean_of_pieces(tokenizer: Qwen3Tokenizer, text: str) -> float:
    lengths = [len(tokenizer.token_bytes(token_id)) for token_id in tokenizer.encode(text)]
    return sum(lengths) / max(1, len(lengths))


def _with_try(tokenizer: Qwen3Tokenizer, text: str) -> float:
    try:
        return len(bytes(text, "utf-8")) / len(tokenizer.encode(text))
    except ZeroDivisionError:
        return 0.0


def _nothing_for_nothing(tokenizer: Qwen3Tokenizer, text: str) -> float | None:
    return bytes_per_token(tokenizer, text) if text else None


_BYTES_PER_TOKEN = Exercise("2.4", "Another language", bytes_per_token, _verify_bytes_per_token, wrong=(
    *((slip, hint[:30]) for slip, hint in _BYTES_SLIPS),
    (lambda tokenizer, text: len(text.encode()) / len(tokenizer.encode(text)), "except for the empty text"),
    (lambda tokenizer, text: bytes_per_token(tokenizer, text) if text else 1.0, "for the empty text it returned 1"),
    (_nothing_for_nothing, "0.0 for the empty text"),
    (lambda tokenizer, text: len(text.encode()) / (1 + len(tokenizer.encode(text))), "bytes of UTF-8 and"),
    (lambda tokenizer, text: (len(text.encode()), len(tokenizer.encode(text))), "a tuple of 2 entries"),
    (lambda tokenizer, text: print(end=""), "one number, bytes per token"),
), also_wrong=(
    lambda tokenizer, text: round(bytes_per_token(tokenizer, text), 1),
    lambda tokenizer, text: len(text.encode()),
    lambda tokenizer, text: bytes_per_token(tokenizer, text.strip(".。")),
    lambda tokenizer, text: 3 * _counts_characters(tokenizer, text) if text else 0.0,
    lambda tokenizer, text: float("nan") if not text else bytes_per_token(tokenizer, text),
    lambda tokenizer, text: f"{bytes_per_token(tokenizer, text)}",
), right=(
    lambda tokenizer, text: Fraction(len(text.encode()), len(tokenizer.encode(text))) if text else 0,
    lambda tokenizer, text: len(text.encode("utf8")) / max(1, len(tokenizer.encode(text))),
    _mean_of_pieces,
    _with_try,
))

EXERCISES: tuple[Exercise, ...] = (_PIECES, _FIRST_MERGES, _COUNT_PAIRS, _BYTES_PER_TOKEN)
