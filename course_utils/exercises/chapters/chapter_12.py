"""Exercises of chapter 12, speculative decoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_utils.exercises.exercise import Exercise
from course_utils.sampling import draw
from course_utils.speculative import Round

# ---- 12.1 ------------------------------------------------------------------------------------------------


def verify_greedily(drafted: list[int], logits: Tensor) -> list[int]:
    """The new tokens of one round: those accepted, and one of the target's own."""
    own = logits.argmax(dim=-1).tolist()  # what the target would say at each place
    accepted = 0
    while accepted < len(drafted) and drafted[accepted] == own[accepted]:
        accepted += 1
    return drafted[:accepted] + [own[accepted]]


# Drafted tokens, what the target would say at each place, what comes out.
_ROUNDS: tuple[tuple[list[int], list[int], list[int]], ...] = (
    ([7, 3, 5], [7, 3, 8, 2], [7, 3, 8]),  # the last one is wrong
    ([4, 1, 6], [4, 9, 6, 2], [4, 9]),  # a match behind a mismatch
    ([5, 2], [5, 2, 3], [5, 2, 3]),  # all right: one for free
    ([8, 1], [6, 1, 4], [6]),  # wrong from the start
    ([3], [2, 3], [2]),
    ([], [9], [9]),  # nothing drafted: an ordinary step
)


def _scores(own: list[int]) -> Tensor:
    """Logits, (len(own), 10), whose largest entry is at these tokens."""
    return torch.nn.functional.one_hot(torch.tensor(own), 10).float() * 5 - 2


def _verify_verify(answer: Callable[..., Any]) -> str | None:
    for drafted, own, expected in _ROUNDS:
        told = answer(list(drafted), _scores(own))
        case = f"With drafted tokens {drafted}, where the target would say {own[:-1]} and then {own[-1]}"
        if isinstance(told, Tensor):
            told = told.tolist()
        if isinstance(told, int):
            return "It returns a number. Return the new tokens themselves, a list: they go behind the text."
        if not isinstance(told, list):
            return f"It returns {type(told).__name__}, and a list of token ids is asked for."
        accepted = len(expected) - 1
        if told == expected:
            continue
        if told == drafted[:accepted]:
            return (f"{case}, the accepted tokens are right, but a token is lost: the target's own choice at the next "
                    "place is known too, after a mismatch and after a run without one.")
        if told == [*drafted[:accepted], own[-1]]:
            return f"{case}, the token behind the accepted ones is taken from the last row: take the row of its place."
        if told == drafted[: accepted + 1]:
            return f"{case}, the rejected token itself is put out: put out the target's own choice at its place."
        shifted = [token for token, next_own in zip(drafted, own[1:]) if token == next_own]
        if drafted == [7, 3, 5] and len(told) == 1 and not shifted:
            return (f"{case}, nothing is accepted. Row i of the logits comes before drafted token i: compare "
                    "drafted[i] with row i.")
        if len(told) > len(expected):
            return (f"{case}, it returns {told}: behind the first mismatch nothing counts, since the target looked at "
                    "a text that will not be written. Stop there.")
        return f"{case}, it returns {told}, and {expected} is right."
    return None


def _shifted(drafted: list[int], logits: Tensor) -> list[int]:
    own = logits.argmax(dim=-1).tolist()
    accepted = 0
    while accepted < len(drafted) and drafted[accepted] == own[accepted + 1]:
        accepted += 1
    return drafted[:accepted] + [own[accepted]]


def _all_matches(drafted: list[int], logits: Tensor) -> list[int]:
    own = logits.argmax(dim=-1).tolist()
    accepted = sum(a == b for a, b in zip(drafted, own))
    return drafted[:accepted] + [own[accepted]]


def _without_the_bonus(drafted: list[int], logits: Tensor) -> list[int]:
    return verify_greedily(drafted, logits)[:-1]


def _bonus_from_the_last_row(drafted: list[int], logits: Tensor) -> list[int]:
    return verify_greedily(drafted, logits)[:-1] + [int(logits[-1].argmax())]


def _keeps_the_rejected(drafted: list[int], logits: Tensor) -> list[int]:
    new = verify_greedily(drafted, logits)
    return drafted[: len(new)] if len(new) <= len(drafted) else new


def _counts(drafted: list[int], logits: Tensor) -> int:
    return len(verify_greedily(drafted, logits)) - 1


# ---- 12.2 ------------------------------------------------------------------------------------------------


def acceptance_by_place(rounds: list[Round]) -> list[float]:
    """How often the first, second, ... drafted token was accepted, as a share of the rounds in which it was judged."""
    rates: list[float] = []
    while True:
        place = len(rates)  # it is judged only if all before it were accepted
        judged = [each for each in rounds if len(each.drafted) > place and each.accepted >= place]
        if not judged:
            return rates
        rates.append(sum(each.accepted > place for each in judged) / len(judged))


def _made_up_rounds(*counts: tuple[int, int]) -> list[Round]:
    """Rounds with so many tokens drafted, and so many of them accepted."""
    return [Round([5] * drafted, accepted, [5] * accepted + [6]) for drafted, accepted in counts]


_MEASURED = (
    _made_up_rounds((3, 3), (3, 0), (3, 1), (3, 3), (3, 2)),
    _made_up_rounds((4, 4), (4, 1), (2, 2), (4, 0), (1, 1), (4, 2), (4, 2), (3, 3)),
    _made_up_rounds((4, 1), (4, 0)),  # nobody came to the third place
)


def _same_rates(told: list[Any], expected: list[float]) -> bool:
    return len(told) == len(expected) and all(abs(a - b) < 1e-6 for a, b in zip(told, expected))


def _verify_places(answer: Callable[..., Any]) -> str | None:
    try:
        told = [answer(list(rounds)) for rounds in _MEASURED]
    except ZeroDivisionError:
        return "It divides by zero: a place that nobody judged has no rate. End the list before it."
    for rates in told:
        if isinstance(rates, (int, float)):
            return "It returns one rate for all places. Return a list, with the rate of the first place in front."
        if not isinstance(rates, (list, tuple)):
            return f"It returns {type(rates).__name__}, and a list of shares is asked for."
    right = [acceptance_by_place(rounds) for rounds in _MEASURED]
    if all(map(_same_rates, told, right)):
        return None
    for mistake, hint in _PLACE_MISTAKES:
        if all(_same_rates(rates, mistake(rounds)) for rates, rounds in zip(told, _MEASURED)):
            return hint
    rates, known, rounds = next(case for case in zip(told, right, _MEASURED) if not _same_rates(case[0], case[1]))
    counts = [(len(each.drafted), each.accepted) for each in rounds]
    return (f"For rounds with (drafted, accepted) = {counts} it returns {[round(rate, 2) for rate in rates]}. The "
            f"first place was judged in each of the {len(rounds)} and accepted in {known[0]:.0%} of them: go on from "
            f"there.")


def _of_all_rounds(rounds: list[Round]) -> list[float]:
    places = range(len(acceptance_by_place(rounds)))
    return [sum(each.accepted > place for each in rounds) / len(rounds) for place in places]


def _of_all_that_drafted(rounds: list[Round]) -> list[float]:
    rates = []
    for place in range(len(acceptance_by_place(rounds))):
        there = [each for each in rounds if len(each.drafted) > place]
        rates.append(sum(each.accepted > place for each in there) / len(there))
    return rates


def _padded(rounds: list[Round]) -> list[float]:
    longest = max(len(each.drafted) for each in rounds)
    return (acceptance_by_place(rounds) + longest * [0.0])[:longest]


def _divides_by_none(rounds: list[Round]) -> list[float]:
    rates = []
    for place in range(max(len(each.drafted) for each in rounds)):
        judged = sum(len(each.drafted) > place and each.accepted >= place for each in rounds)
        rates.append(sum(each.accepted > place for each in rounds) / judged)
    return rates


def _one_place_late(rounds: list[Round]) -> list[float]:
    return [1.0, *acceptance_by_place(rounds)][: len(acceptance_by_place(rounds))]


def _rejected_there(rounds: list[Round]) -> list[float]:
    return [1 - rate for rate in acceptance_by_place(rounds)]


def _counted_there(rounds: list[Round]) -> list[float]:
    places = range(len(acceptance_by_place(rounds)))
    return [sum(each.accepted > place for each in rounds) for place in places]


def _one_rate(rounds: list[Round]) -> float:
    return sum(each.accepted for each in rounds) / sum(len(each.drafted) for each in rounds)


_PLACE_MISTAKES: tuple[tuple[Callable[[list[Round]], list[float]], str], ...] = (
    (_of_all_rounds, "You divide by the number of all rounds. A place behind a mismatch was not judged: count only the "
                     "rounds in which everything before it was accepted."),
    (_of_all_that_drafted, "You divide by the rounds that drafted so far. Where a token before was rejected, this one "
                           "was drafted but never judged: leave such rounds out."),
    (_padded, "You give 0 for a place that nobody judged. Nothing is known of it: end the list before it."),
    (_one_place_late, "All is one place late: the first place is accepted where `accepted` is 1 or more."),
    (_rejected_there, "Those are the shares that were rejected: take the others."),
    (_counted_there, "Those are counts. Divide each by the number of rounds in which the place was judged."),
)


# ---- 12.3 ------------------------------------------------------------------------------------------------


def accept_or_redraw(token: int, q: Tensor, p: Tensor, generator: torch.Generator) -> int:
    """The token that is put out where the draft proposed `token`, drawn from q."""
    chance = torch.rand((), generator=generator)
    if chance * q[token] < p[token]:  # accepted with probability min(1, p / q)
        return token
    left = (p - q).clamp(min=0)
    left = left / left.sum()
    return int(draw(left[None], generator))


_P = torch.tensor([0.40, 0.30, 0.20, 0.10, 0.00])
_Q = torch.tensor([0.20, 0.50, 0.02, 0.10, 0.18])
_RUNS = 5000


def _put_out(answer: Callable[..., Any]) -> tuple[Tensor, bool, str | None]:
    """How often an answer put out each token, as shares; whether it ever replaced one; what was wrong with a result."""
    generator = torch.Generator().manual_seed(12)
    proposals = draw(_Q.expand(_RUNS, -1), generator)[:, 0].tolist()
    counts, replaced = torch.zeros(len(_P)), False
    for token in proposals:
        told = answer(token, _Q.clone(), _P.clone(), generator)
        if isinstance(told, bool) or (isinstance(told, Tensor) and told.dtype == torch.bool):
            return counts, replaced, "It returns whether the token is accepted: return the token that is put out."
        if told is None:
            return counts, replaced, "Where the token is rejected it returns nothing: another token takes its place."
        counts[int(told)] += 1
        replaced |= int(told) != token
    return counts / _RUNS, replaced, None


def _verify_accept(answer: Callable[..., Any]) -> str | None:
    shares, replaced, hint = _put_out(answer)
    if hint:
        return hint
    if _near(shares, _P):
        return _verify_certain(answer)
    told = "Put out were " + ", ".join(f"{share:.0%}" for share in shares.tolist()) + " of the five tokens, and p says "
    told += ", ".join(f"{share:.0%}" for share in _P.tolist()) + ". "
    both = torch.minimum(_P, _Q)
    rejected = 1 - float(both.sum())
    left = (_P - _Q).clamp(min=0)
    if _near(shares, _Q) and not replaced:
        return told + "That is the draft's q: nothing is ever rejected. Accept with probability p / q."
    if _near(shares, _Q):
        return told + "After a rejection you draw from what q has more than p, and it is the other way round."
    if _near(shares, both + rejected * _P):
        return told + ("After a rejection you draw from p, which gives likely tokens a second chance: draw from what "
                       "p has more than q, max(0, p - q).")
    if _near(shares, both + rejected * (_P - _Q).abs() / (_P - _Q).abs().sum()):
        return told + "A difference below zero counts for nothing, and you take its size: clamp p - q at 0."
    unscaled = rejected * left
    for last in (0, len(_P) - 1):  # where the rest of the line falls
        rest = torch.zeros(len(_P))
        rest[last] = rejected * (1 - float(left.sum()))
        if _near(shares, both + unscaled + rest):
            return told + "What is left of p adds up to less than 1: divide it by its sum before drawing."
    swapped = _Q * (_Q / _P.clamp(min=1e-9)).clamp(max=1)
    if _near(shares, swapped + (1 - float(swapped.sum())) * left / left.sum()):
        return told + "You accept with probability q / p: a token that the draft likes too much must be the one to go."
    strict = torch.where(_P >= _Q, _Q, torch.zeros(()))
    if _near(shares, strict + (1 - float(strict.sum())) * left / left.sum()):
        return told + "Where p is below q you always reject: there chance decides, with probability p / q."
    return told + "Accept with probability min(1, p / q), and after a rejection draw from max(0, p - q), normalized."


def _near(shares: Tensor, expected: Tensor) -> bool:
    """Whether shares of many draws are those of a distribution: within five standard errors of each."""
    error = (expected * (1 - expected) / _RUNS).sqrt()
    return bool(((shares - expected).abs() <= 5 * error + 1e-6).all())


def _verify_certain(answer: Callable[..., Any]) -> str | None:
    """What does not depend on chance: draft and target agree; the draft is certain, as in prompt look-up."""
    if not all(answer(token, _P.clone(), _P.clone(), torch.Generator().manual_seed(token)) == token
               for token in range(4)):
        return "Where q equals p every drafted token is accepted, and one was not."
    again = [int(answer(1, _Q.clone(), _P.clone(), torch.Generator().manual_seed(seed))) for seed in range(40)]
    torch.manual_seed(99)
    if again != [int(answer(1, _Q.clone(), _P.clone(), torch.Generator().manual_seed(seed))) for seed in range(40)]:
        return "The same generator gives another token the second time: take every chance from `generator`."
    return None


def _draws_from_p(token: int, q: Tensor, p: Tensor, generator: torch.Generator) -> int:
    if torch.rand((), generator=generator) * q[token] < p[token]:
        return token
    return int(draw(p[None], generator))


def _upside_down(token: int, q: Tensor, p: Tensor, generator: torch.Generator) -> int:
    if torch.rand((), generator=generator) * p[token] < q[token]:
        return token
    return int(draw((p - q).clamp(min=0)[None], generator))


def _without_chance(token: int, q: Tensor, p: Tensor, generator: torch.Generator) -> int:
    return token if p[token] >= q[token] else int(draw((p - q).clamp(min=0)[None], generator))


def _absolute(token: int, q: Tensor, p: Tensor, generator: torch.Generator) -> int:
    if torch.rand((), generator=generator) * q[token] < p[token]:
        return token
    return int(draw((p - q).abs()[None], generator))


def _not_normalized(token: int, q: Tensor, p: Tensor, generator: torch.Generator) -> int:
    if torch.rand((), generator=generator) * q[token] < p[token]:
        return token
    ends = (p - q).clamp(min=0).cumsum(dim=0)
    return min(int((ends <= torch.rand((), generator=generator)).sum()), len(p) - 1)


def _left_of_q(token: int, q: Tensor, p: Tensor, generator: torch.Generator) -> int:
    if torch.rand((), generator=generator) * q[token] < p[token]:
        return token
    return int(draw((q - p).clamp(min=0)[None], generator))


def _always_accepts(token: int, q: Tensor, p: Tensor, generator: torch.Generator) -> int:
    return token


def _says_whether(token: int, q: Tensor, p: Tensor, generator: torch.Generator) -> bool:
    return bool(torch.rand((), generator=generator) * q[token] < p[token])


def _own_chance(token: int, q: Tensor, p: Tensor, generator: torch.Generator) -> int:
    if torch.rand(()) * q[token] < p[token]:
        return token
    return int(torch.multinomial((p - q).clamp(min=0), 1))


# ---- 12.4 ------------------------------------------------------------------------------------------------


def look_up(text: list[int], n: int, num_drafted: int) -> list[int]:
    """What followed the latest earlier occurrence of the last n tokens, at most num_drafted tokens."""
    for start in range(len(text) - n - 1, -1, -1):  # from the end: the latest first
        if text[start : start + n] == text[-n:]:
            return text[start + n : start + n + num_drafted]
    return []


# Text, n, num_drafted, what is proposed.
_TEXTS: tuple[tuple[list[int], int, int, list[int]], ...] = (
    ([1, 2, 3, 4, 5, 1, 2], 2, 3, [3, 4, 5]),
    ([1, 2, 3, 9, 1, 2, 4, 9, 1, 2], 2, 2, [4, 9]),  # the latest of two
    ([1, 2, 3, 4], 2, 3, []),  # nothing but itself
    ([6, 1, 6], 1, 5, [1, 6]),  # fewer than asked for
    ([5, 5, 5], 2, 2, [5]),  # it may overlap itself
    ([7, 8], 3, 2, []),  # shorter than n
)


def _verify_look_up(answer: Callable[..., Any]) -> str | None:
    for text, n, num_drafted, expected in _TEXTS:
        told = answer(list(text), n, num_drafted)
        case = f"look_up({text}, {n}, {num_drafted})"
        if told is None:
            return f"{case} returns None: where the last tokens stood nowhere before, return an empty list."
        if not isinstance(told, list):
            return f"{case} returns {type(told).__name__}, and a list of token ids is asked for."
        if told == expected:
            continue
        if len(told) > num_drafted:
            return f"{case} returns {len(told)} tokens, and at most {num_drafted} are asked for."
        if expected and told[: len(expected)] == (text[-n:] + expected)[:num_drafted][: len(expected)]:
            return f"{case} returns {told}, which begins with the tokens that were looked for: return what follows."
        if expected == [4, 9] and told == [3, 9]:
            return f"{case} returns {told}, from the first occurrence. Search from the end: the latest fits best."
        if expected and not told:
            return (f"{case} finds nothing, and should find {expected}. The last {n} tokens always match "
                    "themselves, with nothing behind them: search before them only.")
        return f"{case} returns {told}, and {expected} is right."
    return None


def _finds_itself(text: list[int], n: int, num_drafted: int) -> list[int]:
    for start in range(len(text) - n, -1, -1):
        if text[start : start + n] == text[-n:]:
            return text[start + n : start + n + num_drafted]
    return []


def _takes_the_first(text: list[int], n: int, num_drafted: int) -> list[int]:
    for start in range(len(text) - n):
        if text[start : start + n] == text[-n:]:
            return text[start + n : start + n + num_drafted]
    return []


def _repeats_what_was_looked_for(text: list[int], n: int, num_drafted: int) -> list[int]:
    for start in range(len(text) - n - 1, -1, -1):
        if text[start : start + n] == text[-n:]:
            return text[start : start + num_drafted]
    return []


def _takes_everything(text: list[int], n: int, num_drafted: int) -> list[int]:
    return look_up(text, n, len(text))


def _returns_none(text: list[int], n: int, num_drafted: int) -> list[int] | None:
    return look_up(text, n, num_drafted) or None


# ---- 12.5 ------------------------------------------------------------------------------------------------


def best_number(a: float, c: float, extra: float, most: int) -> int:
    """How many tokens to draft, 0 to most, for the largest gain; 0 is to leave it."""
    def gain(k: int) -> float:
        tokens = sum(a ** i for i in range(k + 1))
        return tokens / (k * c + 1 + k * extra)

    return max(range(most + 1), key=gain)  # of equals the first


def _best_of(gain: Callable[[int], float], numbers: range) -> int:
    return max(numbers, key=gain)


def _always_some(a: float, c: float, extra: float, most: int) -> int:
    return _best_of(lambda k: sum(a ** i for i in range(k + 1)) / (1 + k * (c + extra)), range(1, most + 1))


def _most_tokens(a: float, c: float, extra: float, most: int) -> int:
    return most


def _free_draft(a: float, c: float, extra: float, most: int) -> int:
    return best_number(a, 0, extra, most)


def _free_check(a: float, c: float, extra: float, most: int) -> int:
    return best_number(a, c, 0, most)


def _without_its_own(a: float, c: float, extra: float, most: int) -> int:
    return _best_of(lambda k: sum(a ** i for i in range(1, k + 1)) / (1 + k * (c + extra)), range(most + 1))


def _each_by_itself(a: float, c: float, extra: float, most: int) -> int:
    return _best_of(lambda k: (1 + k * a) / (1 + k * (c + extra)), range(most + 1))


def _not_the_last(a: float, c: float, extra: float, most: int) -> int:
    return best_number(a, c, extra, most - 1)


def _the_gain_itself(a: float, c: float, extra: float, most: int) -> float:
    k = best_number(a, c, extra, most)
    return sum(a ** i for i in range(k + 1)) / (1 + k * (c + extra))


_NUMBER_MISTAKES: tuple[tuple[Callable[[float, float, float, int], int], str], ...] = (
    (_always_some, "Where even the best draft makes it slower, the answer is 0: the gain of not drafting is 1."),
    (_most_tokens, "You draft as much as you can. Each drafted token costs time, too, and a late one seldom counts."),
    (_free_draft, "The draft is not free: k drafted tokens take the time k c."),
    (_free_check, "The check is not free: a pass that checks k tokens takes 1 + k extra."),
    (_without_its_own, "The pass brings a token of the target's own, too, even if nothing is accepted: the sum begins "
                       "with 1."),
    (_each_by_itself, "A drafted token counts only if all before it were right: the i-th with probability a to the "
                      "power of i, not a."),
    (_not_the_last, "The largest number that is allowed is never tried: range ends before its end."),
)
# a, c, extra, most.
_SITUATIONS = ((0.9, 0.05, 0.0, 8), (0.7, 0.05, 0.0, 8), (0.5, 0.05, 0.0, 8), (0.9, 0.05, 0.3, 8), (0.2, 0.05, 0.3, 8),
               (0.7, 0.3, 0.05, 8), (0.95, 0.02, 0.0, 4), (0.3, 0.5, 0.0, 8), (0.6, 0.0, 0.2, 6), (0.6, 0.02, 0.0, 6))


def _verify_number(answer: Callable[..., Any]) -> str | None:
    told = [answer(*situation) for situation in _SITUATIONS]
    for number in told:
        if isinstance(number, bool) or not isinstance(number, int):
            return f"It returns {type(number).__name__}, and the number of tokens to draft, a whole one, is asked for."
    right = [best_number(*situation) for situation in _SITUATIONS]
    if told == right:
        return None
    for mistake, hint in _NUMBER_MISTAKES:
        if told == [mistake(*situation) for situation in _SITUATIONS]:
            return hint
    situation, number = next((situation, number) for situation, number, known in zip(_SITUATIONS, told, right)
                             if number != known)
    return (f"For (a, c, extra, most) = {situation} you draft {number}. Another number from 0 to {situation[-1]} gains "
            "more: print the gain of each.")


EXERCISES: tuple[Exercise, ...] = (
    Exercise("12.1", "One round, greedily", verify_greedily, _verify_verify, (
        (_shifted, "compare drafted[i] with row i"),
        (_all_matches, "behind the first mismatch"),
        (_without_the_bonus, "a token is lost"),
        (_bonus_from_the_last_row, "from the last row"),
        (_keeps_the_rejected, "the rejected token itself"),
        (_counts, "the new tokens themselves"),
    )),
    Exercise("12.2", "Place by place", acceptance_by_place, _verify_places, (
        *((mistake, hint[:25]) for mistake, hint in _PLACE_MISTAKES),
        (_one_rate, "one rate for all places"),
        (_divides_by_none, "divides by zero"),
    )),
    Exercise("12.3", "Accept or draw again", accept_or_redraw, _verify_accept, (
        (_draws_from_p, "a second chance"),
        (_upside_down, "probability q / p"),
        (_without_chance, "there chance decides"),
        (_absolute, "clamp p - q at 0"),
        (_not_normalized, "divide it by its sum"),
        (_left_of_q, "the other way round"),
        (_always_accepts, "nothing is ever rejected"),
        (_says_whether, "return the token that is put out"),
        (_own_chance, "from `generator`"),
    )),
    Exercise("12.4", "Look it up in the prompt", look_up, _verify_look_up, (
        (_finds_itself, "search before them only"),
        (_takes_the_first, "Search from the end"),
        (_repeats_what_was_looked_for, "return what follows"),
        (_takes_everything, "at most 3 are asked for"),
        (_returns_none, "return an empty list"),
    )),
    Exercise("12.5", "How many to draft", best_number, _verify_number, (
        *((mistake, hint[:25]) for mistake, hint in _NUMBER_MISTAKES),
        (_the_gain_itself, "a whole one"),
    )),
)
