"""Exercises of chapter 12, speculative decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_utils.exercises.answers import NotYet, numbers, whole, wholes
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.language import gettext
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


# Drafted tokens, and what the target would say at each place.
_ROUNDS: tuple[tuple[list[int], list[int]], ...] = (
    ([7, 3, 5], [7, 3, 8, 2]),  # the last one is wrong
    ([4, 1, 6], [4, 9, 6, 2]),  # a match after a mismatch
    ([5, 2], [5, 2, 3]),  # all right: one for free
    ([8, 1], [6, 1, 4]),  # wrong from the start
    ([3], [2, 3]),
    ([], [9]),  # nothing drafted: an ordinary step
    ([0, 5, 0, 1], [0, 5, 0, 0, 7]),  # id 0
    ([2, 2, 2, 2, 2], [2, 2, 2, 2, 2, 0]),
)


def _scores(own: list[int]) -> Tensor:
    """Logits, (len(own), 10), whose largest entry is at these tokens."""
    return torch.nn.functional.one_hot(torch.tensor(own), 10).float() * 5 - 2


def _verify_verify(answer: Answer) -> str | None:
    asked = "the new tokens themselves, a list of ids: they go after the text"
    told = [wholes(answer(list(drafted), _scores(own)), asked) for drafted, own in _ROUNDS]
    right = [verify_greedily(drafted, _scores(own)) for drafted, own in _ROUNDS]
    if told == right:
        return None
    for slip, hint in _ROUND_SLIPS:
        if told == [slip(drafted, _scores(own)) for drafted, own in _ROUNDS]:
            return hint
    (drafted, own), given, known = next(case for case in zip(_ROUNDS, told, right) if case[1] != case[2])
    return gettext("With drafted tokens {drafted}, where the target would say {own} and then {last}, it "
                   "returns {given}, and {known} is right: what is accepted from the left, and the target's "
                   "own choice at the next place.").format(
        drafted=drafted, own=own[:-1], last=own[-1], given=given, known=known)


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


def _all_of_its_own(drafted: list[int], logits: Tensor) -> list[int]:
    return list(logits.argmax(dim=-1).tolist())


def _goes_on(drafted: list[int], logits: Tensor) -> list[int]:
    own = logits.argmax(dim=-1).tolist()
    return [token for token, other in zip(drafted, own) if token == other] + own[-1:]


# What one may have computed instead, the likeliest slip first.
_ROUND_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_without_the_bonus, "The accepted tokens are right, but a token is lost: the target's own choice at the next "
                         "place is known too, after a mismatch and after a run without one."),
    (_shifted, "Row i of the logits comes before drafted token i: compare drafted[i] with row i, not with row i + 1."),
    (_all_matches, "All matches are counted. After the first mismatch nothing counts, since the target looked at a "
                   "text that will not be written. Stop there."),
    (_goes_on, "You go on after a mismatch. What comes later was judged after a text that will not be written: stop "
               "there."),
    (_bonus_from_the_last_row, "The token after the accepted ones is taken from the last row: take the row of its "
                               "place."),
    (_keeps_the_rejected, "The rejected token itself is put out: put out the target's own choice at its place."),
    (_all_of_its_own, "That is what the target would say at every place. After the first token that differs from the "
                      "draft, its rows judge a text that will not be written."),
)


def _one_by_one(drafted: list[int], logits: Tensor) -> list[int]:
    new: list[int] = []
    for row, token in zip(logits, [*drafted, None]):
        new.append(int(row.argmax()))
        if new[-1] != token:
            break
    return new


def _by_cumprod(drafted: list[int], logits: Tensor) -> Tensor:
    own = logits.argmax(dim=-1)
    accepted = int((own[:-1] == torch.tensor(drafted, dtype=torch.long)).long().cumprod(dim=0).sum())
    return own[:accepted + 1]


def _in_numpy(drafted: list[int], logits: Tensor) -> Any:
    own = logits.numpy().argmax(axis=1)
    wrong = np.flatnonzero(own[:-1] != np.array(drafted, dtype=int))
    return own[:(wrong[0] if len(wrong) else len(drafted)) + 1]


def _recursive(drafted: list[int], logits: Tensor) -> tuple[int, ...]:
    own = int(torch.argmax(logits[0]))
    return (own, *_recursive(drafted[1:], logits[1:])) if drafted and drafted[0] == own else (own,)


_GREEDILY = Exercise("12.1", "One round, greedily", verify_greedily, _verify_verify, (
    *((slip, hint[:40]) for slip, hint in _ROUND_SLIPS),
    (_counts, "the new tokens themselves"),
    (lambda drafted, logits: verify_greedily(drafted[:2], logits), "it returns"),
    (lambda drafted, logits: print(end=""), "returned None"),
), also_wrong=(
    lambda drafted, logits: verify_greedily(drafted, logits.roll(1, 0)),
    lambda drafted, logits: verify_greedily(drafted, -logits),
    lambda drafted, logits: verify_greedily(drafted, logits)[::-1],
    lambda drafted, logits: drafted or verify_greedily(drafted, logits),
    lambda drafted, logits: [token for token in verify_greedily(drafted, logits) if token],
), right=(_one_by_one, _by_cumprod, _in_numpy, _recursive), equivalent={
    "`own = logits.argmax(dim=-1).tolist()` to `own = logits.argmax(dim=1).tolist()`":
        "There are two dimensions, and the last one is number 1.",
    "`own = logits.argmax(dim=-1).tolist()` to `own = logits.argmax(dim=-1)`":
        "Tensors with one entry are compared as numbers are, and read as numbers.",
})

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
    _made_up_rounds((4, 4), (4, 1), (2, 2), (4, 0), (1, 1), (4, 2), (4, 2), (3, 3)),  # drafts of unequal length
    _made_up_rounds((4, 1), (4, 0)),  # nobody came to the third place
    _made_up_rounds((0, 0), (2, 1), (1, 0), (2, 2)),  # nothing drafted in the first
)


def _same_rates(told: list[float], expected: list[float]) -> bool:
    return len(told) == len(expected) and all(abs(a - b) < 1e-6 for a, b in zip(told, expected))


def _verify_places(answer: Answer) -> str | None:
    try:
        told = [numbers(answer(list(rounds)), "a list of shares, that of the first place in front: one for each place")
                for rounds in _MEASURED]
    except ZeroDivisionError:
        return "It divides by zero: a place that nobody judged has no rate. End the list before it."
    right = [acceptance_by_place(rounds) for rounds in _MEASURED]
    if all(map(_same_rates, told, right)):
        return None
    for mistake, hint in _PLACE_MISTAKES:
        if all(_same_rates(rates, mistake(rounds)) for rates, rounds in zip(told, _MEASURED)):
            return hint
    rates, known, rounds = next(case for case in zip(told, right, _MEASURED) if not _same_rates(case[0], case[1]))
    counts = [(len(each.drafted), each.accepted) for each in rounds]
    return gettext("For rounds with (drafted, accepted) = {counts} it returns {rates}, and {known} is right. A place "
                   "was judged in the rounds that drafted so far and accepted all before it.").format(
        counts=counts, rates=[round(rate, 2) for rate in rates], known=[round(rate, 2) for rate in known])


def _of_all_rounds(rounds: list[Round]) -> list[float]:
    places = range(len(acceptance_by_place(rounds)))
    return [sum(each.accepted > place for each in rounds) / len(rounds) for place in places]


def _of_all_that_drafted(rounds: list[Round]) -> list[float]:
    rates = []
    for place in range(len(acceptance_by_place(rounds))):
        there = [each for each in rounds if len(each.drafted) > place]
        rates.append(sum(each.accepted > place for each in there) / len(there))
    return rates


def _of_all_that_came_there(rounds: list[Round]) -> list[float]:
    rates: list[float] = []
    while there := [each for each in rounds if each.accepted >= len(rates)]:
        rates.append(sum(each.accepted > len(rates) for each in there) / len(there))
    return rates


def _without_its_end(rounds: list[Round]) -> list[float]:
    places = max(len(each.drafted) for each in rounds)
    return _of_all_that_came_there(rounds)[:places]


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


_FOR_UNEQUAL_LENGTHS = ("Drafts may have unequal lengths. A round that accepted all of a short draft did not judge the "
                        "place after its end: ask for len(each.drafted), too.")
# What one may have computed instead, the likeliest slip first.
_PLACE_MISTAKES: tuple[tuple[Answer, str], ...] = (
    (_of_all_rounds, "You divide by the number of all rounds. A place after a mismatch was not judged: count only the "
                     "rounds in which everything before it was accepted."),
    (_of_all_that_drafted, "You divide by the rounds that drafted so far. Where a token before was rejected, this one "
                           "was drafted but never judged: leave such rounds out."),
    (_without_its_end, _FOR_UNEQUAL_LENGTHS),
    (_of_all_that_came_there, "Drafts may have unequal lengths. A round that accepted all of a short draft did not "
                              "judge the place after its end: ask for len(each.drafted), too. That also ends "
                              "the list."),
    (_padded, "You give 0 for a place that nobody judged. Nothing is known of it: end the list before it."),
    (_one_place_late, "All is one place late: the first place is accepted where `accepted` is 1 or more."),
    (_rejected_there, "Those are the shares that were rejected: take the others."),
    (_counted_there, "Those are counts. Divide each by the number of rounds in which the place was judged."),
)


def _counting_both(rounds: list[Round]) -> list[float]:
    longest = max(len(each.drafted) for each in rounds)
    judged, accepted = [0] * longest, [0] * longest
    for each in rounds:
        for place in range(len(each.drafted)):
            judged[place] += 1
            if place == each.accepted:
                break
            accepted[place] += 1
    return [a / b for a, b in zip(accepted, judged) if b]


def _rates_in_numpy(rounds: list[Round]) -> Any:
    drafted, accepted = (np.array(part) for part in zip(*((len(each.drafted), each.accepted) for each in rounds)))
    judged = np.minimum(drafted, accepted + 1)
    return np.array([np.mean(accepted[judged > place] > place) for place in range(judged.max())])


def _handing_out(rounds: list[Round]) -> Iterator[float]:
    place = 0
    while any(min(len(each.drafted), each.accepted + 1) > place for each in rounds):
        there = [each.accepted > place for each in rounds if min(len(each.drafted), each.accepted + 1) > place]
        yield sum(there) / len(there)
        place += 1


_PLACES = Exercise("12.2", "Place by place", acceptance_by_place, _verify_places, (
    *((mistake, hint[:25]) for mistake, hint in _PLACE_MISTAKES if mistake is not _of_all_that_came_there),
    (_of_all_that_came_there, "That also ends the list"),
    (_one_rate, "one for each place"),
    (_divides_by_none, "divides by zero"),
    (lambda rounds: acceptance_by_place(rounds[1:]), "and accepted all before it"),
    (lambda rounds: print(end=""), "returned None"),
), also_wrong=(
    lambda rounds: acceptance_by_place(rounds)[:3],
    lambda rounds: acceptance_by_place(rounds)[::-1],
    lambda rounds: sorted(acceptance_by_place(rounds), reverse=True),
    lambda rounds: [rate for rate in acceptance_by_place(rounds) if rate],
    lambda rounds: [round(rate, 1) for rate in acceptance_by_place(rounds)],
), right=(
    _counting_both,
    _rates_in_numpy,
    _handing_out,
    lambda rounds: tuple(torch.tensor(rate) for rate in acceptance_by_place(rounds)),
))

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
_RUNS = 3000


_OTHERS = (torch.tensor([0.125, 0.5, 0.375]), torch.tensor([0.5, 0.0, 0.5]))  # p and q of another pair of models


def _put_out(answer: Answer, q: Tensor, p: Tensor) -> tuple[Tensor, bool]:
    """How often an answer put out each token, as shares; whether it ever replaced one."""
    generator = torch.Generator().manual_seed(12)
    proposals = draw(q.expand(_RUNS, -1), generator)[:, 0].tolist()
    counts, replaced = torch.zeros(len(p)), False
    for token in proposals:
        told = _put_out_token(answer(token, q.clone(), p.clone(), generator), len(p))
        counts[told] += 1
        replaced |= told != token
    return counts / _RUNS, replaced


def _put_out_token(returned: object, vocab_size: int) -> int:
    if returned is None:
        raise NotYet("it returned None in some case. Return the id of the token that is put out: where the drafted one "
                     "is rejected, another takes its place.")
    token = whole(returned, "the id of the token that is put out, whether it is the drafted one or another")
    if not 0 <= token < vocab_size:
        raise NotYet(gettext("it returned {token}, and the ids go from 0 to {vocab_size}.").format(
            token=token, vocab_size=vocab_size - 1))
    return token


def _verify_accept(answer: Answer) -> str | None:
    shares, replaced = _put_out(answer, _Q, _P)
    if _near(shares, _P):
        return _verify_certain(answer)
    told = gettext("Put out were {shares} of the five tokens, and p says {p}. ").format(
        shares=", ".join(f"{share:.0%}" for share in shares.tolist()),
        p=", ".join(f"{share:.0%}" for share in _P.tolist()))
    both = torch.minimum(_P, _Q)
    rejected = 1 - float(both.sum())
    left = (_P - _Q).clamp(min=0)
    if _near(shares, _Q) and not replaced:
        return told + gettext("That is the draft's q: nothing is ever rejected. Accept with probability p / q.")
    if _near(shares, _Q):
        return told + gettext("After a rejection you draw from what q has more than p, and it is the other way round.")
    if _near(shares, both + rejected * _P):
        return told + gettext("After a rejection you draw from p, which gives likely tokens a second chance: draw "
                              "from what p has more than q, max(0, p - q).")
    if _near(shares, both + rejected * (_P - _Q).abs() / (_P - _Q).abs().sum()):
        return told + gettext("A difference below zero counts for nothing, and you take its size: clamp p - q at 0.")
    unscaled = rejected * left
    for last in (0, len(_P) - 1):  # where the rest of the line falls
        rest = torch.zeros(len(_P))
        rest[last] = rejected * (1 - float(left.sum()))
        if _near(shares, both + unscaled + rest):
            return told + gettext("What is left of p adds up to less than 1: divide it by its sum before drawing.")
    swapped = _Q * (_Q / _P.clamp(min=1e-9)).clamp(max=1)
    if _near(shares, swapped + (1 - float(swapped.sum())) * left / left.sum()):
        return told + gettext("You accept with probability q / p: a token that the draft likes too much must "
                              "be the one to go.")
    strict = torch.where(_P >= _Q, _Q, torch.zeros(()))
    if _near(shares, strict + (1 - float(strict.sum())) * left / left.sum()):
        return told + gettext("Where p is below q you always reject: there chance decides, with probability p / q.")
    return told + gettext("Accept with probability min(1, p / q), and after a rejection draw from max(0, p - q), "
                          "normalized.")


def _near(shares: Tensor, expected: Tensor) -> bool:
    """Whether shares of many draws are those of a distribution: within five standard errors of each."""
    error = (expected * (1 - expected) / _RUNS).sqrt()
    return bool(((shares - expected).abs() <= 5 * error + 1e-6).all())


def _verify_certain(answer: Answer) -> str | None:
    """What does not depend on chance, where draft and target agree; other sizes; and where chance comes from."""
    for token in range(4):
        told = answer(token, _P.clone(), _P.clone(), torch.Generator().manual_seed(token))
        if _put_out_token(told, len(_P)) != token:
            return "Where q equals p every drafted token is accepted, and one was not."
    p, q = _OTHERS
    if not _near(_put_out(answer, q, p)[0], p):
        return gettext("It is right for five tokens, and not for three: with q = {q} it does not put out p.").format(
            q=q.tolist())

    def seeded() -> list[int]:
        return [_put_out_token(answer(1, _Q.clone(), _P.clone(), torch.Generator().manual_seed(seed)), len(_P))
                for seed in range(40)]

    again = seeded()
    torch.manual_seed(99)
    if again != seeded():
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


def _both_at_once(token: int, q: Tensor, p: Tensor, generator: torch.Generator) -> Any:
    other = draw((p - q).clamp(min=0)[None] + (p == q).all() * p, generator)
    stays = torch.rand((), generator=generator) <= torch.clamp(p[token] / q[token], max=1)
    return torch.where(stays, torch.tensor(token), other[0, 0])


def _with_multinomial(token: int, q: Tensor, p: Tensor, generator: torch.Generator) -> int:
    ratio = min(1.0, float(p[token]) / float(q[token]))
    if float(torch.rand(1, generator=generator)) < ratio:
        return token
    return int(torch.multinomial(torch.maximum(p - q, torch.zeros(len(p))), 1, generator=generator))


def _with_one_dart(token: int, q: Tensor, p: Tensor, generator: torch.Generator) -> int:
    """Throws one dart more for the second draw, on a line of plain numbers."""
    first, second = torch.rand(2, generator=generator).tolist()
    if first * float(q[token]) < float(p[token]):
        return token
    more = [max(0.0, a - b) for a, b in zip(p.tolist(), q.tolist())]
    dart, last = second * sum(more), 0
    for place, length in enumerate(more):
        if length > 0:
            last = place
            if dart < length:
                break
            dart -= length
    return last


def _rejects_by_its_own_chance(token: int, q: Tensor, p: Tensor, generator: torch.Generator) -> Tensor:
    if torch.bernoulli((p[token] / q[token]).clamp(max=1), generator=generator) == 1:
        return torch.tensor(token)
    return draw(torch.relu(p - q)[None], generator)[0, 0]


_LEFT = "`left = left / left.sum()`"
_ACCEPT = Exercise("12.3", "Accept or draw again", accept_or_redraw, _verify_accept, (
    (_draws_from_p, "a second chance"),
    (_upside_down, "probability q / p"),
    (_without_chance, "there chance decides"),
    (_absolute, "clamp p - q at 0"),
    (_not_normalized, "divide it by its sum"),
    (_left_of_q, "the other way round"),
    (_always_accepts, "nothing is ever rejected"),
    (_says_whether, "the id of the token that is put out, whether"),
    (_own_chance, "from `generator`"),
    (lambda token, q, p, generator: accept_or_redraw(token, q, p, generator) if len(p) == 5 else token,
     "and not for three"),
    (lambda token, q, p, generator: print(end=""), "returned None in some case"),
), also_wrong=(
    lambda token, q, p, generator: int(p.argmax()),
    lambda token, q, p, generator: int(draw(p[None], generator)),  # exact, but it keeps too few
    lambda token, q, p, generator: accept_or_redraw(token, q.softmax(-1), p, generator),
    lambda token, q, p, generator: accept_or_redraw(token, q, p, torch.Generator().manual_seed(0)),
), right=(_both_at_once, _with_multinomial, _with_one_dart, _rejects_by_its_own_chance), equivalent={
    "`if chance * q[token] < p[token]:` to `if chance * q[token] <= p[token]:`":
        "They are equal where p is 0 and the chance is exactly 0, once in millions.",
    f"{_LEFT} to nothing": "`draw` takes rows that do not add up to one.",
    f"{_LEFT} to `left = left * left.sum()`": "`draw` takes rows that do not add up to one.",
    f"{_LEFT} to `left = left / left.mean()`": "`draw` takes rows that do not add up to one.",
})

# ---- 12.4 ------------------------------------------------------------------------------------------------


def look_up(text: list[int], n: int, num_drafted: int) -> list[int]:
    """What followed the latest earlier occurrence of the last n tokens, at most num_drafted tokens."""
    for start in range(len(text) - n - 1, -1, -1):  # from the end: the latest first
        if text[start : start + n] == text[-n:]:
            return text[start + n : start + n + num_drafted]
    return []


# Text, n, num_drafted.
_TEXTS: tuple[tuple[list[int], int, int], ...] = (
    ([1, 2, 3, 4, 5, 1, 2], 2, 3),  # at the very beginning
    ([1, 2, 3, 9, 1, 2, 4, 9, 1, 2], 2, 2),  # the latest of two
    ([1, 2, 3, 4], 2, 3),  # nothing but itself
    ([6, 1, 6], 1, 5),  # fewer than asked for
    ([5, 5, 5], 2, 2),  # it may overlap itself
    ([9, 1, 2, 1, 2, 1], 3, 4),
    ([7, 8], 3, 2),  # shorter than n
    ([7, 8], 2, 2),  # as long as n
    ([10, 1, 5, 0, 1], 2, 3),  # found only in joined figures, where 10 1 holds 0 1
    ([0, 3, 8, 0, 3, 0, 3, 4, 0, 3], 2, 1),
    ([2, 0, 6, 0, 4, 0], 1, 4),
    ([3, 4, 8, 4, 4, 3, 4, 7, 4], 2, 2),  # the last token alone is not enough
)


def _verify_look_up(answer: Answer) -> str | None:
    asked = "a list of token ids, an empty one where the last tokens stood nowhere before"
    told = [wholes(answer(list(text), n, num_drafted), asked) for text, n, num_drafted in _TEXTS]
    right = [look_up(*case) for case in _TEXTS]
    if told == right:
        return None
    for slip, hint in _LOOK_UP_SLIPS:
        if told == [slip(*case) for case in _TEXTS]:
            return hint
    (text, n, num_drafted), given, known = next(case for case in zip(_TEXTS, told, right) if case[1] != case[2])
    return gettext("look_up({text}, {n}, {num_drafted}) returns {given}, and {known} is right: what followed where "
                   "{end} stood last before the end.").format(
        text=text, n=n, num_drafted=num_drafted, given=given, known=known, end=text[-n:])


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


def _without_overlaps(text: list[int], n: int, num_drafted: int) -> list[int]:
    for start in range(len(text) - 2 * n, -1, -1):
        if text[start : start + n] == text[-n:]:
            return text[start + n : start + n + num_drafted]
    return []


def _not_at_the_beginning(text: list[int], n: int, num_drafted: int) -> list[int]:
    for start in range(len(text) - n - 1, 0, -1):
        if text[start : start + n] == text[-n:]:
            return text[start + n : start + n + num_drafted]
    return []


def _in_joined_text(text: list[int], n: int, num_drafted: int) -> list[int]:
    joined, wanted = " ".join(map(str, text)), " ".join(map(str, text[-n:]))
    at = joined.rfind(wanted, 0, len(joined) - 1)
    return [int(token) for token in joined[at + len(wanted):].split()][:num_drafted] if at >= 0 else []


def _last_token_alone(text: list[int], n: int, num_drafted: int) -> list[int]:
    return look_up(text, 1, num_drafted)


def _all_or_nothing(text: list[int], n: int, num_drafted: int) -> list[int]:
    found = look_up(text, n, num_drafted)
    return found if len(found) == num_drafted else []


# What one may have computed instead, the likeliest slip first.
_LOOK_UP_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_finds_itself, "It finds nothing. The last n tokens always match themselves, with nothing after them: search "
                    "before them only."),
    (_takes_the_first, "You take the first occurrence. Search from the end: the latest fits best."),
    (_repeats_what_was_looked_for, "What you return begins with the tokens that were looked for: return what follows."),
    (_takes_everything, "You return all that follows, and at most `num_drafted` are asked for."),
    (_without_overlaps, "An earlier place may overlap the end: in 5 5 5, the last two stood one place before. You "
                        "search only where it does not."),
    (_not_at_the_beginning, "The beginning of the text is never tried: range stops before its end, so give it -1."),
    (_in_joined_text, "You search in one joined text, where 10 1 holds 0 1: compare lists of ids."),
    (_last_token_alone, "You compare the last token alone. All of the last `n` must stand there."),
    (_all_or_nothing, "Where fewer than `num_drafted` tokens follow, you return none: return those that there are."),
)


def _by_next(text: list[int], n: int, num_drafted: int) -> list[int]:
    ends = [end for end in range(n, len(text)) if text[end - n:end] == text[len(text) - n:]]
    return text[ends[-1]:][:num_drafted] if ends else []


def _with_unfold(text: list[int], n: int, num_drafted: int) -> Tensor:
    ids = torch.tensor(text)
    if len(ids) <= n:
        return ids[:0]
    found = (ids.unfold(0, n, 1)[:-1] == ids[-n:]).all(dim=1).nonzero()[:, 0]
    return ids[found[-1] + n:][:num_drafted] if len(found) else ids[:0]


def _with_a_table(text: list[int], n: int, num_drafted: int) -> Any:
    last = {tuple(text[start:start + n]): start + n for start in range(len(text) - n)}
    at = last.get(tuple(text[-n:]), len(text))
    return np.array(text[at:at + num_drafted], dtype=int)


def _backwards(text: list[int], n: int, num_drafted: int) -> tuple[int, ...]:
    turned = text[::-1]
    for shift in range(1, len(text) - n + 1):
        if turned[shift:shift + n] == turned[:n]:
            return tuple(turned[:shift][::-1][:num_drafted])
    return ()


_SEARCH = "`for start in range(len(text) - n - 1, -1, -1):`"
_LOOK_UP = Exercise("12.4", "Look it up in the prompt", look_up, _verify_look_up, (
    *((slip, hint[:30]) for slip, hint in _LOOK_UP_SLIPS),
    (lambda text, n, num_drafted: look_up(text, n, 3), "stood last before the end"),
    (lambda text, n, num_drafted: len(look_up(text, n, num_drafted)), "an empty one where"),
    (lambda text, n, num_drafted: look_up(text, n, num_drafted) or None, "returned None"),
), also_wrong=(
    lambda text, n, num_drafted: look_up(text, 2, num_drafted),
    lambda text, n, num_drafted: look_up(text[:-1], n, num_drafted),
    lambda text, n, num_drafted: look_up(text, n, num_drafted)[1:],
    lambda text, n, num_drafted: [token for token in look_up(text, n, num_drafted) if token],
    lambda text, n, num_drafted: look_up(text, n, num_drafted)[::-1],
), right=(_by_next, _with_unfold, _with_a_table, _backwards), equivalent={
    f"{_SEARCH} to `for start in range(len(text) - n - 1, -2, -1):`":
        "From -1 on, a slice has one token at most, and nothing follows it.",
})

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
# a, c, extra, most. Where a is 1, the fraction of the formula divides by zero.
_SITUATIONS = ((0.9, 0.05, 0.0, 8), (0.7, 0.05, 0.0, 8), (0.5, 0.05, 0.0, 8), (0.9, 0.05, 0.3, 8), (0.2, 0.05, 0.3, 8),
               (0.7, 0.3, 0.05, 8), (0.95, 0.02, 0.0, 4), (0.3, 0.5, 0.0, 8), (0.6, 0.0, 0.2, 6), (0.6, 0.02, 0.0, 6),
               (0.0, 0.05, 0.0, 8), (0.8, 0.125, 0.03, 3), (0.9, 0.02, 0.0, 1))
_CERTAIN = ((1.0, 0.05, 0.0, 8), (1.0, 0.25, 0.125, 5))


def _verify_number(answer: Answer) -> str | None:
    asked = "one whole number: how many tokens to draft"
    told = [whole(answer(*situation), asked) for situation in _SITUATIONS]
    try:
        told += [whole(answer(*situation), asked) for situation in _CERTAIN]
    except ZeroDivisionError:
        return ("It divides by zero where a is 1: the fraction (1 - a^(k + 1)) / (1 - a) needs an a below 1. Add up "
                "the powers instead, as `expected_tokens` does.")
    situations = (*_SITUATIONS, *_CERTAIN)
    right = [best_number(*situation) for situation in situations]
    if told == right:
        return None
    for mistake, hint in _NUMBER_MISTAKES:
        if told == [mistake(*situation) for situation in situations]:
            return hint
    situation, given, known = next(case for case in zip(situations, told, right) if case[1] != case[2])
    return gettext("For (a, c, extra, most) = {situation} you draft {given}, and {known} gains most: print the gain of "
                   "each number from 0 to {most}.").format(
        situation=situation, given=given, known=known, most=situation[-1])


def _by_the_fraction(a: float, c: float, extra: float, most: int) -> int:
    return _best_of(lambda k: (1 - a ** (k + 1)) / (1 - a) / (1 + k * (c + extra)), range(most + 1))


def _trying_each(a: float, c: float, extra: float, most: int) -> int:
    best, best_gain, tokens = 0, 1.0, 1.0
    for k in range(1, most + 1):
        tokens += a ** k
        gain = tokens / (1 + k * c + k * extra)
        if gain > best_gain:
            best, best_gain = k, gain
    return best


def _numbers_in_numpy(a: float, c: float, extra: float, most: int) -> Any:
    ks = np.arange(most + 1)
    return np.argmax(np.cumsum(np.power(float(a), ks)) / (1 + ks * (c + extra)))


def _numbers_in_torch(a: float, c: float, extra: float, most: int) -> Tensor:
    ks = torch.arange(most + 1, dtype=torch.float64)
    return ((a ** ks).cumsum(dim=0) / (1 + ks * (c + extra))).argmax()


def _fraction_with_care(a: float, c: float, extra: float, most: int) -> float:
    def gain(k: int) -> float:
        return (k + 1 if a == 1 else (1 - a ** (k + 1)) / (1 - a)) / (k * c + 1 + k * extra)
    return float(sorted(range(most + 1), key=gain)[-1])


_NUMBER = Exercise("12.5", "How many to draft", best_number, _verify_number, (
    *((mistake, hint[:25]) for mistake, hint in _NUMBER_MISTAKES),
    (_the_gain_itself, "how many tokens to draft"),
    (_by_the_fraction, "divides by zero where a is 1"),
    (lambda a, c, extra, most: best_number(a, c, extra, 8), "gains most"),
    (lambda a, c, extra, most: print(end=""), "returned None"),
), also_wrong=(
    lambda a, c, extra, most: best_number(a, c, extra, most) + 1,
    lambda a, c, extra, most: best_number(0.9, c, extra, most),
    lambda a, c, extra, most: best_number(a, max(c, extra), 0, most),
    lambda a, c, extra, most: best_number(a, c, extra, most) if a < 1 else 0,
    lambda a, c, extra, most: round(most * a),
), right=(_trying_each, _numbers_in_numpy, _numbers_in_torch, _fraction_with_care), equivalent={
    "`c` and `extra` are exchanged": "Each drafted token takes both, so that their sum counts.",
})

EXERCISES: tuple[Exercise, ...] = (_GREEDILY, _PLACES, _ACCEPT, _LOOK_UP, _NUMBER)
