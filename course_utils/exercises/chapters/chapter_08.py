"""Exercises of chapter 8, sampling: how open a choice is, what each cut leaves, top-p by hand, no run twice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_utils.exercises.answers import NotYet, close, number, tensor, wholes
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.language import gettext
from course_utils.sampling import Sampling, keep_min_p, keep_top_k, keep_top_p

# ---- 8.1 -------------------------------------------------------------------------------------------------


def perplexity(logits: Tensor, temperature: float) -> float:
    """Among how many tokens, were they all equally likely, the choice would be as open: e to the entropy in nats."""
    probabilities = (logits / temperature).softmax(dim=-1)
    return float(torch.special.entr(probabilities).sum().exp())


# Logits and temperatures; four equal tokens, and those of the logarithms of 1/2, 1/4, 1/8 and 1/8 among them.
_HALVES = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
_CHOICES = (
    (torch.zeros(4), 1.0), (_HALVES, 1.0), (_HALVES, 0.5), (_HALVES, 2.0), (torch.tensor([3.0, -1.0, 0.5]), 0.75),
    (torch.full((1,), 5.0), 1.0), (torch.linspace(-4, 6, 11), 1.5), (torch.zeros(6), 0.25),
)
_CUT = torch.tensor([1.0, 1.0, -math.inf, -math.inf])


def _entropy_alone(logits: Tensor, temperature: float) -> float:
    return math.log(perplexity(logits, temperature))


def _bits_alone(logits: Tensor, temperature: float) -> float:
    return math.log2(perplexity(logits, temperature))


def _without_minus(logits: Tensor, temperature: float) -> float:
    return 1 / perplexity(logits, temperature)


def _bits_and_e(logits: Tensor, temperature: float) -> float:
    return math.exp(math.log2(perplexity(logits, temperature)))


def _no_temperature(logits: Tensor, temperature: float) -> float:
    return perplexity(logits, 1.0)


def _times_temperature(logits: Tensor, temperature: float) -> float:
    return perplexity(logits, 1 / temperature)


def _divided_afterwards(logits: Tensor, temperature: float) -> float:
    return float(torch.special.entr(logits.softmax(dim=-1) / temperature).sum().exp())


def _entropy_divided(logits: Tensor, temperature: float) -> float:
    return math.exp(math.log(perplexity(logits, 1.0)) / temperature)


def _not_weighed(logits: Tensor, temperature: float) -> float:
    return float((-(logits / temperature).log_softmax(dim=-1)).mean().exp())


def _of_the_likeliest(logits: Tensor, temperature: float) -> float:
    return float(1 / (logits / temperature).softmax(dim=-1).max())


def _zero_times_log_zero(logits: Tensor, temperature: float) -> float:
    probabilities = (logits / temperature).softmax(dim=-1)
    return float((-(probabilities * probabilities.log()).sum()).exp())


# What one may have computed instead, the likeliest slip first.
_PERPLEXITY_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_entropy_alone, "These are entropies. The perplexity is e to the entropy, so four equal tokens have 4."),
    (_bits_alone, "These are entropies in bits. The perplexity is e to the entropy, with the natural logarithm."),
    (_without_minus, "Four equal tokens have a quarter here, and 4 is right: the entropy has a minus sign in front."),
    (_bits_and_e, "The entropy is in bits, the exponential is of nats. Use the natural logarithm with exp."),
    (_no_temperature, "The result does not depend on the temperature. Divide the logits by it before the softmax."),
    (_times_temperature, "A high temperature leaves fewer choices than a low one here. Logits are divided by it, not "
                         "multiplied."),
    (_divided_afterwards, "You divide the probabilities by the temperature. Divide the logits, before the softmax."),
    (_entropy_divided, "You divide the entropy by the temperature. Divide the logits, before the softmax."),
    (_not_weighed, "The logarithms count alike here. Weigh each by its probability before you add them up."),
    (_of_the_likeliest, "That says how likely the likeliest token is, and all the others count, too."),
)


def _verify_perplexity(answer: Answer) -> str | None:
    def told(logits: Tensor, temperature: float) -> float:
        return number(answer(logits.clone(), temperature), "one number: among how many tokens the choice is")

    given = [told(logits, temperature) for logits, temperature in _CHOICES]
    right = [perplexity(logits, temperature) for logits, temperature in _CHOICES]
    if not _near(given, right):
        for slip, hint in _PERPLEXITY_SLIPS:
            if _near(given, [slip(logits, temperature) for logits, temperature in _CHOICES]):
                return hint
        at = next(at for at, one in enumerate(given) if not _near([one], [right[at]]))
        logits, temperature = _CHOICES[at]
        return gettext("For the logits {logits} and the temperature {temperature} it returns {given:.4g}, and "
                       "{right:.4g} is right. Softmax first, then the sum of -p ln p, then exp.").format(
            logits=[round(logit, 2) for logit in logits.tolist()], temperature=temperature, given=given[at],
            right=right[at])
    for temperature in (1.0, 0.5):
        cut = told(_CUT, temperature)
        if math.isnan(cut):
            return ("With a token of probability 0 it returns NaN, for 0 times the logarithm of 0. Such a token counts "
                    "nothing: torch.special.entr knows that.")
        if not _near([cut], [2.0]):
            return gettext("Two equal tokens and two that were cut off are 2 choices, and it returns {cut:.4g}"
                           ".").format(cut=cut)
    return None


def _near(given: list[float], expected: list[float]) -> bool:
    return all(math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-4) for one, other in zip(given, expected))


def _added_up_in_python(logits: Tensor, temperature: float) -> float:
    weights = [math.exp(logit / temperature) for logit in logits.tolist()]
    shares = [weight / sum(weights) for weight in weights]
    return math.exp(-sum(share * math.log(share) for share in shares if share > 0))


def _as_powers(logits: Tensor, temperature: float) -> Tensor:
    shares = torch.softmax(logits.double() / temperature, 0)
    return (shares ** -shares).prod()


def _of_the_library(logits: Tensor, temperature: float) -> Tensor:
    return torch.distributions.Categorical(logits=logits / temperature).entropy().exp()


def _in_bits(logits: Tensor, temperature: float) -> float:
    shares = (logits / temperature).softmax(dim=-1)
    shares = shares[shares > 0]
    return 2 ** float(-(shares * shares.log2()).sum())


_PERPLEXITY = Exercise("8.1", "How many choices are left", perplexity, _verify_perplexity, wrong=(
    *((slip, hint[:35]) for slip, hint in _PERPLEXITY_SLIPS),
    (_zero_times_log_zero, "torch.special.entr"),
    (lambda logits, temperature: (logits / temperature).softmax(dim=-1), "among how many tokens"),
    (lambda logits, temperature: 1 + perplexity(logits, temperature), "Softmax first"),
    (lambda logits, temperature: print(end=""), "returned None"),
), also_wrong=(
    lambda logits, temperature: float(len(logits)),
    lambda logits, temperature: perplexity(logits, temperature ** 0.5),
    lambda logits, temperature: round(perplexity(logits, temperature)),
    lambda logits, temperature: perplexity(logits.nan_to_num(neginf=0.0), temperature),
    lambda logits, temperature: float((logits / temperature).softmax(-1).pow(2).sum().reciprocal()),
), right=(
    _added_up_in_python,
    _as_powers,
    _of_the_library,
    _in_bits,
), equivalent={
    "`probabilities = (logits / temperature).softmax(dim=-1)` to "
    "`probabilities = (logits / temperature).softmax(dim=-0)`": "There is one dimension, number 0 and -1.",
})

# ---- 8.2 -------------------------------------------------------------------------------------------------


def how_many_stay() -> tuple[int, int, int, int]:
    """How many words each of the four settings leaves in the draw."""
    return (
        2,  # of the 0.77 that top-k leaves, 0.30 and 0.20 are 0.65
        3,  # 0.30, 0.20 and 0.15 reach 0.6; that is fewer than 4 already
        5,  # from 0.3 × 0.30 = 0.09 on: owl has 0.10, bee has 0.08
        2,  # the ratios to the likeliest are squared: dog 0.44, fox 0.25
    )


_SEVEN = torch.tensor([[0.30, 0.20, 0.15, 0.12, 0.10, 0.08, 0.05]]).log()
_LEFT = tuple(int(row.isfinite().sum()) for row in (
    keep_top_p(keep_top_k(_SEVEN, 4), 0.6),
    keep_top_k(keep_top_p(_SEVEN, 0.6), 4),
    keep_min_p(_SEVEN, 0.3),
    Sampling(temperature=0.5, min_p=0.3).apply(_SEVEN),
))
# For each setting, numbers that one gets to, and what to look at.
_STAY_HINTS: tuple[dict[int, str], ...] = (
    {4: "top-p works on what top-k has left, and takes away some of the four.",
     3: "top-p sees what is left renormalized: 0.30 of 0.77 is more than 0.30. What is the sum of two of them?",
     1: "0.30 of 0.77 is about 0.39. Is that 0.6 already?"},
    {2: "here top-p comes first, and sees 0.30, 0.20, 0.15 and so on as they are. Do two of them reach 0.6?",
     4: "top-k keeps four at most. Were there still as many, after top-p?"},
    {1: "min-p asks for 0.3 times the probability of the likeliest word, not for a probability of 0.3.",
     2: "min-p adds nothing up, it compares each word with the likeliest: 0.15 is half of 0.30, which is enough.",
     4: "min-p asks for at least 0.3 times 0.30. Is 0.10 less than that?",
     6: "min-p asks for at least 0.3 times 0.30, which is 0.09. Is 0.08 that much?"},
    {5: "the temperature comes first and moves the probabilities apart. What becomes of the ratio of two words?",
     7: "a temperature below 1 sharpens: at 0.5 a ratio is squared, and what is below 1 gets smaller.",
     3: "the third word's ratio is 0.5, and squared it is 0.25. Is that 0.3?",
     1: "the second word's ratio is 2/3, and (2/3) × (2/3) is still above 0.3."},
)


def _verify_how_many_stay(answer: Answer) -> str | None:
    told = wholes(answer(), "four whole numbers, how many words stay in each setting: (a, b, c, d)", 4)
    for letter, stay, expected, hints in zip("abcd", told, _LEFT, _STAY_HINTS):
        if stay != expected:
            other = gettext("it is not {stay}. Write down what is left after each step.").format(stay=stay)
            return f"{letter}: {gettext(hints.get(stay, other))}"
    return None


_HOW_MANY_STAY = Exercise("8.2", "How many stay", how_many_stay, _verify_how_many_stay, wrong=(
    (lambda: (3, 3, 5, 2), "sees what is left renormalized"),
    (lambda: (4, 3, 5, 2), "takes away some of the four"),
    (lambda: (1, 3, 5, 2), "0.6 already"),
    (lambda: (2, 2, 5, 2), "here top-p comes first"),
    (lambda: (2, 4, 5, 2), "four at most"),
    (lambda: (2, 3, 1, 2), "not for a probability of 0.3"),
    (lambda: (2, 3, 2, 2), "adds nothing up"),
    (lambda: (2, 3, 4, 2), "less than that"),
    (lambda: (2, 3, 6, 2), "that much"),
    (lambda: (2, 3, 5, 5), "the temperature comes first"),
    (lambda: (2, 3, 5, 7), "below 1 sharpens"),
    (lambda: (2, 3, 5, 3), "squared it is 0.25"),
    (lambda: (2, 3, 5, 1), "still above 0.3"),
    (lambda: (2, 3, 7, 2), "c: it is not 7"),
    (lambda: 12, "returned 12"),
    (lambda: (2, 3, 5), "3 entries"),
    (lambda: (["a", "b"], 3, 5, 2), "an entry is no whole number"),
    (lambda: print(end=""), "returned None"),
), also_wrong=(
    lambda: (2, 3, 5, 2.5),
    lambda: (7, 7, 7, 7),
    lambda: "2, 3, 5, 2",
    lambda: {2, 3, 5},
), right=(
    lambda: [2, 3, 5, 2],
    lambda: torch.tensor((2, 3, 5, 2)),
    lambda: (len("ab"), 3.0, 5, torch.tensor(2)),
    lambda: _LEFT,
))

# ---- 8.3 -------------------------------------------------------------------------------------------------


def top_p(probabilities: Tensor, p: float) -> Tensor:
    """Keep the smallest set of likeliest tokens that are at least p together; the rest gets 0. Both are (b, v)."""
    ranked, order = probabilities.sort(dim=-1, descending=True)
    likelier = ranked.cumsum(dim=-1) - ranked  # how much lies before each token: below p, it is still needed
    ranked = torch.where(likelier < p, ranked, 0.0)
    ranked[:, 0] = probabilities.amax(dim=-1)  # even where p is 0
    kept = torch.zeros_like(probabilities).scatter(-1, order, ranked)
    return kept / kept.sum(dim=-1, keepdim=True)


# The first row is that of the chapter, in another order; then logits of more tokens, at random.
_ROWS = torch.tensor([[0.05, 0.30, 0.10, 0.20, 0.15, 0.12, 0.08], [0.01, 0.02, 0.03, 0.90, 0.02, 0.01, 0.01]])
_MANY = torch.randn(5, 40, generator=torch.Generator().manual_seed(8)).softmax(dim=-1)
_USUAL = ((_ROWS, 0.6), (_MANY, 0.8), (_MANY[:1], 0.25), (_ROWS[:1], 0.4))
# Numbers that are exact in binary, so that the sum is p exactly.
_EXACT = torch.tensor([[0.25, 0.0625, 0.5, 0.1875], [0.125, 0.5, 0.0625, 0.3125], [0.75, 0.125, 0.0625, 0.0625]])
# Equal tokens, of which not all belong to the smallest set. Which of them stays does not matter.
_LEVEL = ((torch.tensor([[0.125, 0.5, 0.125, 0.25]]), 0.875), (torch.tensor([[0.375, 0.25, 0.375]]), 0.0),
          (torch.full((2, 4), 0.25), 0.5))


def _cut(answer: Answer, probabilities: Tensor, p: float) -> Tensor:
    given = probabilities.clone()
    result = tensor(answer(given, p), "a tensor as large as the probabilities, (b, v)", tuple(probabilities.shape))
    if not torch.equal(given, probabilities):
        raise NotYet("The probabilities that were handed in have changed. Work on a copy, or on what sort returns.")
    return result


def _alike(given: Tensor, expected: Tensor) -> bool:
    """As `close`, where NaN is like NaN."""
    return close(given.nan_to_num(-1), expected.nan_to_num(-1), rtol=1e-4)


def _verify_top_p(answer: Answer) -> str | None:
    given = [_cut(answer, probabilities, p) for probabilities, p in _USUAL]
    if not all(_alike(one, top_p(*case)) for one, case in zip(given, _USUAL)):
        return _what_was_cut(given)
    nothing, everything = _cut(answer, _ROWS, 0.0), _cut(answer, _ROWS, 1.0)
    if not _alike(nothing, top_p(_ROWS, 0.0)):
        return ("For p = 0 nothing is kept, and 0 is divided by 0. Something must be drawn, so the likeliest token "
                "always stays." if bool(nothing.isnan().any()) or not bool(nothing.any()) else
                "For p = 0 the likeliest token of each row stays, alone, and becomes 1.")
    if not _alike(everything, _ROWS):
        return "For p = 1 all tokens stay as they are."
    for p in (0.5, 0.75):
        if not _alike(_cut(answer, _EXACT, p), top_p(_EXACT, p)):
            return gettext("Of the row {exact} with p = {p}, {count} of the tokens have exactly p together. That is "
                           "enough: the smallest set is asked for.").format(
                exact=_EXACT[0].tolist(), p=p, count=1 if p == 0.5 else 2)
    for probabilities, p in _LEVEL:
        if not _alike(_cut(answer, probabilities, p).sort().values, top_p(probabilities, p).sort().values):
            return gettext("In the row {probabilities} with p = {p} some tokens are equally likely, and one "
                           "of them is not needed. The smallest set is asked for, so do not choose by a "
                           "bound that all of them reach.").format(probabilities=probabilities[0].tolist(), p=p)
    return None


def _what_was_cut(given: list[Tensor]) -> str:
    for slip, hint in _TOP_P_SLIPS:
        if all(_alike(one, slip(probabilities.clone(), p)) for one, (probabilities, p) in zip(given, _USUAL)):
            return hint
    (row, *_), p = _USUAL[0]
    return gettext("For the row {row} and p = {p} it returns {given}. Which tokens are the likeliest, up to the first "
                   "sum that reaches p, and what is each of them divided by?").format(
        row=[round(one, 2) for one in row.tolist()], p=p, given=[round(one, 3) for one in given[0][0].tolist()])


def _in_the_given_order(probabilities: Tensor, p: float) -> Tensor:
    kept = torch.where(probabilities.cumsum(dim=-1) - probabilities < p, probabilities, 0.0)
    return kept / kept.sum(dim=-1, keepdim=True)


def _up_to_p(probabilities: Tensor, p: float) -> Tensor:
    ranked, order = probabilities.sort(dim=-1, descending=True)
    ranked = torch.where(ranked.cumsum(dim=-1) <= p, ranked, 0.0)
    kept = torch.zeros_like(probabilities).scatter(-1, order, ranked)
    return kept / kept.sum(dim=-1, keepdim=True)


def _up_to_p_or_one(probabilities: Tensor, p: float) -> Tensor:
    ranked, order = probabilities.sort(dim=-1, descending=True)
    least = ranked[:, :1]
    ranked = torch.where((ranked.cumsum(dim=-1) <= p) | (ranked == least), ranked, 0.0)
    kept = torch.zeros_like(probabilities).scatter(-1, order, ranked)
    return kept / kept.sum(dim=-1, keepdim=True)


def _one_too_many(probabilities: Tensor, p: float) -> Tensor:
    ranked, order = probabilities.sort(dim=-1, descending=True)
    before = ranked.cumsum(dim=-1) - ranked
    before = before - torch.cat((ranked.new_zeros(len(ranked), 1), ranked[:, :-1]), dim=1)
    kept = torch.zeros_like(probabilities).scatter(-1, order, torch.where(before < p, ranked, 0.0))
    return kept / kept.sum(dim=-1, keepdim=True)


def _each_at_least(probabilities: Tensor, p: float) -> Tensor:
    kept = torch.where(probabilities >= p, probabilities, 0.0)
    return kept / kept.sum(dim=-1, keepdim=True)


def _each_at_least_or_one(probabilities: Tensor, p: float) -> Tensor:
    kept = torch.where((probabilities >= p) | (probabilities == probabilities.amax(-1, keepdim=True)),
                       probabilities, 0.0)
    return kept / kept.sum(dim=-1, keepdim=True)


def _share_of_the_likeliest(probabilities: Tensor, p: float) -> Tensor:
    kept = torch.where(probabilities >= p * probabilities.amax(-1, keepdim=True), probabilities, 0.0)
    return kept / kept.sum(dim=-1, keepdim=True)


def _left_sorted(probabilities: Tensor, p: float) -> Tensor:
    return top_p(probabilities.sort(dim=-1, descending=True).values, p)


def _by_order_itself(probabilities: Tensor, p: float) -> Tensor:
    ranked = top_p(probabilities.sort(dim=-1, descending=True).values, p)
    return ranked.gather(-1, probabilities.sort(dim=-1, descending=True).indices)


def _not_renormalized(probabilities: Tensor, p: float) -> Tensor:
    return torch.where(top_p(probabilities, p) > 0, probabilities, 0.0)


def _softmax_again(probabilities: Tensor, p: float) -> Tensor:
    return probabilities.masked_fill(top_p(probabilities, p) == 0, -math.inf).softmax(dim=-1)


def _unlikeliest_first(probabilities: Tensor, p: float) -> Tensor:
    ranked, order = probabilities.sort(dim=-1)
    ranked = torch.where(ranked.cumsum(dim=-1) - ranked < p, ranked, 0.0)
    kept = torch.zeros_like(probabilities).scatter(-1, order, ranked)
    return kept / kept.sum(dim=-1, keepdim=True)


# What one may have computed instead, the likeliest slip first.
_TOP_P_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_not_renormalized, "The right tokens are kept, but a row adds up to less than 1. Divide by what is left of it."),
    (_left_sorted, "The result is sorted, so the tokens have changed places. Bring them back: sort returns the order "
                   "too, and scatter undoes it."),
    (_by_order_itself, "The tokens have changed places: order says where each came from, and gather does not take them "
                       "back there. scatter does."),
    (_up_to_p, "For p = 0.6 the row with a token of 0.90 becomes NaN: nothing was kept, and 0 was divided by 0. The "
               "token with which the sum crosses p belongs to the set."),
    (_up_to_p_or_one, "0.30 + 0.20 are only 0.50. The token with which the sum crosses p = 0.6 belongs to the set, so "
                      "look at the sum before each token."),
    (_in_the_given_order, "You add up in the order of the ids, so a likely token can be cut off. Sort before you add "
                          "up."),
    (_unlikeliest_first, "You begin with the unlikeliest tokens. descending=True puts the likeliest in front."),
    (_each_at_least, "You compare each token with p, and in the first row none is left. p is a floor for their sum: "
                     "0.30 + 0.20 + 0.15 are the first to reach 0.6."),
    (_each_at_least_or_one, "p is not a floor for each token, but for their sum: 0.30 + 0.20 + 0.15 are the first to "
                            "reach 0.6."),
    (_share_of_the_likeliest, "That is min-p, which compares each token with the likeliest. Top-p adds up, from the "
                              "likeliest on."),
    (_one_too_many, "One token too many: 0.30 + 0.20 + 0.15 are 0.65, which is enough for p = 0.6."),
    (_softmax_again, "Softmax is for logits. Probabilities that were cut are divided by their sum."),
    (lambda probabilities, p: probabilities, "Nothing was cut off. For p = 0.6 the first row keeps 3 of its 7 tokens, "
                                             "the second 1."),
)


def _no_line_for_zero(probabilities: Tensor, p: float) -> Tensor:
    return top_p(probabilities, p) if p else torch.zeros_like(probabilities)


def _before_or_at_p(probabilities: Tensor, p: float) -> Tensor:
    ranked, order = probabilities.sort(dim=-1, descending=True)
    ranked = torch.where(ranked.cumsum(dim=-1) - ranked <= p, ranked, 0.0)
    kept = torch.zeros_like(probabilities).scatter(-1, order, ranked)
    return kept / kept.sum(dim=-1, keepdim=True)


def _all_that_are_level(probabilities: Tensor, p: float) -> Tensor:
    kept = top_p(probabilities, p) > 0
    least = probabilities.masked_fill(~kept, math.inf).amin(dim=-1, keepdim=True)
    kept_ones = torch.where(probabilities >= least, probabilities, 0.0)
    return kept_ones / kept_ones.sum(dim=-1, keepdim=True)


def _token_by_token(probabilities: Tensor, p: float) -> list[list[float]]:
    rows = []
    for row in probabilities.tolist():
        kept, total = [0.0] * len(row), 0.0
        for place in sorted(range(len(row)), key=lambda place: -row[place]):
            if total >= p and total > 0:
                break
            kept[place] = row[place]
            total += row[place]
        rows.append([one / total for one in kept])
    return rows


def _by_ranks(probabilities: Tensor, p: float) -> Tensor:
    order = probabilities.argsort(dim=-1, descending=True)
    ranked = probabilities.gather(-1, order)
    needed = (ranked.cumsum(dim=-1) < p).sum(dim=-1, keepdim=True) + 1  # as many below p, and the one that reaches it
    ranks = order.argsort(dim=-1)
    kept = probabilities * (ranks < needed)
    return kept / kept.sum(dim=-1, keepdim=True)


def _in_float64(probabilities: Tensor, p: float) -> Tensor:
    return top_p(probabilities.double(), p)


def _with_numpy(probabilities: Tensor, p: float) -> Any:
    given = probabilities.numpy()
    order = np.argsort(-given, axis=-1)
    ranked = np.take_along_axis(given, order, -1)
    stays = np.cumsum(ranked, -1) - ranked < p
    stays[:, 0] = True
    kept = np.zeros_like(given)
    np.put_along_axis(kept, order, ranked * stays, -1)
    return kept / kept.sum(-1, keepdims=True)


_SECOND = "What is there has two dimensions, and the last one is number 1."
_SORTED = "`ranked, order = probabilities.sort(dim=-1, descending=True)`"
_TOP_P = Exercise("8.3", "Top-p by hand", top_p, _verify_top_p, wrong=(
    *((slip, hint[:40]) for slip, hint in _TOP_P_SLIPS),
    (_no_line_for_zero, "the likeliest token always stays"),
    (lambda probabilities, p: probabilities if p == 0 else top_p(probabilities, p), "alone, and becomes 1"),
    (lambda probabilities, p: top_p(probabilities, min(p, 0.9)), "For p = 1"),
    (_before_or_at_p, "exactly p together"),
    (_all_that_are_level, "equally likely"),
    (lambda probabilities, p: probabilities.copy_(top_p(probabilities, p)), "Work on a copy"),
    (lambda probabilities, p: top_p(probabilities, p)[0], "(b, v)"),
    (lambda probabilities, p: top_p(probabilities, 0.7), "up to the first sum"),
    (lambda probabilities, p: print(end=""), "returned None"),
), also_wrong=(
    lambda probabilities, p: top_p(probabilities, 0.6),
    lambda probabilities, p: top_p(probabilities, p) * probabilities.sum(),
    lambda probabilities, p: top_p(probabilities[:1], p).expand(len(probabilities), -1),
    lambda probabilities, p: top_p(probabilities, p).log(),
    lambda probabilities, p: (top_p(probabilities, p) > 0).float(),
    lambda probabilities, p: top_p(probabilities, 1 - p),
), right=(
    lambda probabilities, p: top_p(probabilities=probabilities, p=p).clone(),
    _token_by_token,
    _by_ranks,
    _in_float64,
    _with_numpy,
), equivalent={
    f"{_SORTED} to `ranked, order = probabilities.sort(descending=True)`": "The last dimension is the default.",
    f"{_SORTED} to `ranked, order = probabilities.sort(dim=1, descending=True)`": _SECOND,
    "`likelier = ranked.cumsum(dim=-1) - ranked` to `likelier = ranked.cumsum(dim=1) - ranked`": _SECOND,
    "`ranked[:, 0] = probabilities.amax(dim=-1)` to `ranked[:, 0] = probabilities.amax(dim=1)`": _SECOND,
    "`kept = torch.zeros_like(probabilities).scatter(-1, order, ranked)` to "
    "`kept = torch.zeros_like(probabilities).scatter(1, order, ranked)`": _SECOND,
    "`return kept / kept.sum(dim=-1, keepdim=True)` to `return kept / kept.sum(dim=1, keepdim=True)`": _SECOND,
})

# ---- 8.4 -------------------------------------------------------------------------------------------------


def forbid_repeats(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    """Take out of the draw, (v,), each token with which the text would end in n tokens that it already holds."""
    text = list(token_ids)
    begun = text[len(text) - (n - 1):]  # not text[-(n - 1):], which for n = 1 is the whole text
    forbidden = [text[place + n - 1] for place in range(len(text) - n + 1) if text[place:place + n - 1] == begun]
    logits = logits.clone()
    logits[forbidden] = -math.inf
    return logits


# The text so far, and n: a run once and twice, id 0 in it and after it, runs that overlap or do not repeat, of a single
# token, and texts shorter than n.
_TEXTS: tuple[tuple[list[int], int], ...] = (
    ([1, 2, 3, 4, 1, 2], 3), ([1, 2, 3, 1, 2, 4, 1, 2], 3), ([5, 6, 5], 2), ([5, 6, 7], 2), ([4, 4], 2),
    ([0, 7, 0], 2), ([2, 0, 2], 2), ([3, 3, 3], 3), ([1, 2, 3, 4, 1], 3), ([6, 1, 2, 3, 5, 1, 2, 3], 4),
    ([1, 6, 2, 1, 2], 3), ([3, 5, 3], 1), ([3], 3), ([3, 3], 4), ([], 2), ([0, 1, 2, 0], 2), ([0, 1, 3, 2, 0, 1], 3),
)
_LOGITS = (torch.linspace(-2, 2, 8), torch.tensor([0.5, 3.0, -1.0, 3.0, 0.0, 9.0, -4.0, 2.0, 1.0]))


def _compares_n_tokens(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    return forbid_repeats(logits, token_ids, n + 1)


def _compares_too_few(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    return forbid_repeats(logits, token_ids, max(n - 1, 1))


def _first_place_only(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    text, logits = list(token_ids), logits.clone()
    begun = text[len(text) - (n - 1):]
    for place in range(len(text) - n + 1):
        if text[place:place + n - 1] == begun:
            logits[text[place + n - 1]] = -math.inf
            break
    return logits


def _last_place_only(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    text, logits = list(token_ids), logits.clone()
    begun = text[len(text) - (n - 1):]
    for place in reversed(range(len(text) - n + 1)):
        if text[place:place + n - 1] == begun:
            logits[text[place + n - 1]] = -math.inf
            break
    return logits


def _all_that_occurred(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    return forbid_repeats(logits, token_ids, 1)


def _minus_zero(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    text, logits = list(token_ids), logits.clone()
    begun = text[-(n - 1):]
    forbidden = [text[place + n - 1] for place in range(len(text) - n + 1) if text[place:place + n - 1] == begun]
    logits[forbidden] = -math.inf
    return logits


def _ends_too_soon(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    text, logits = list(token_ids), logits.clone()
    begun = text[len(text) - (n - 1):]
    forbidden = [text[place + n - 1] for place in range(len(text) - n) if text[place:place + n - 1] == begun]
    logits[forbidden] = -math.inf
    return logits


def _last_token_alone(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    return forbid_repeats(logits, token_ids, 2)


def _always_three(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    return forbid_repeats(logits, token_ids, 3)


def _forbids_the_run(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    cut = forbid_repeats(logits, token_ids, n)
    if bool(cut.isneginf().any()):
        cut[list(token_ids)[len(token_ids) - (n - 1):]] = -math.inf
    return cut


# What one may have forbidden instead, the likeliest slip first.
_REPEAT_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_compares_n_tokens, "You look for the last n tokens. The run of n ends with the next token, so n - 1 of it are "
                         "there: look for those."),
    (_compares_too_few, "You look for fewer than n - 1 tokens, and forbid what repeats a shorter run."),
    (_all_that_occurred, "You forbid every token of the text. A token may come again; a run of n may not."),
    (_last_token_alone, "You look for the last token alone, whatever n is. The last n - 1 tokens begin the run."),
    (_always_three, "You look for runs of three, whatever n is: use the argument n."),
    (_minus_zero, "It is right but for n = 1. Beware of text[-(n - 1):]: with n = 1 that is text[0:], the whole text, "
                  "and not its last 0 tokens."),
    (_first_place_only, "You forbid what followed at the first place alone. The last n - 1 tokens may occur several "
                        "times, each with another token after them."),
    (_last_place_only, "You forbid what followed at the last place alone. The last n - 1 tokens may occur several "
                       "times, each with another token after them."),
    (_ends_too_soon, "You stop one place too soon. After 4 4 with n = 2 the token 4 is forbidden, since 4 4 ends with "
                     "the text's last token."),
    (_forbids_the_run, "You forbid the tokens of the run that is begun, too. Only the one that would end it must not "
                       "come."),
)


def _verify_forbid_repeats(answer: Answer) -> str | None:
    told, changed = [], False
    for at, (text, n) in enumerate(_TEXTS):
        logits = _LOGITS[at % 2]
        given, ids = logits.clone(), list(text)
        try:
            result = answer(given, ids, n)
        except IndexError:
            return gettext("For the text {text} and n = {n} it reaches beyond the end of the text. The last place at "
                           "which a run of n can begin is n tokens before it.").format(text=text, n=n)
        changed |= not torch.equal(given, logits) or ids != text
        told.append(tensor(result, "the logits, (v,), with minus infinity for each forbidden token",
                           tuple(logits.shape)))
    if changed:
        return "The logits or the text that were handed in have changed. Work on logits.clone()."
    right = _all_repeats(forbid_repeats)
    if all(map(close, told, right)):
        return None
    for slip, hint in _REPEAT_SLIPS:
        if all(map(close, told, _all_repeats(slip))):
            return hint
    at = next(at for at, (one, other) in enumerate(zip(told, right)) if not close(one, other))
    return _what_went_wrong(*_TEXTS[at], told[at], right[at], _LOGITS[at % 2])


def _all_repeats(answer: Answer) -> list[Tensor]:
    return [answer(_LOGITS[at % 2].clone(), list(text), n) for at, (text, n) in enumerate(_TEXTS)]


def _what_went_wrong(text: list[int], n: int, given: Tensor, right: Tensor, logits: Tensor) -> str:
    cut, forbidden = (set(one.isneginf().nonzero().flatten().tolist()) for one in (given, right))
    if any(not close(given[token], logits[token]) for token in forbidden - cut):
        return "A forbidden token can still be drawn: its logit must be minus infinity, not just another one."
    if cut == forbidden:
        return "The right tokens are forbidden, but the logits of those that are allowed have changed."
    case = gettext("After {text} with n = {n}").format(text=text, n=n)
    if len(text) < n:
        return gettext("{case} nothing can repeat yet, for the text is too short, and you forbid {cut}.").format(
            case=case, cut=sorted(cut))
    return gettext("{case}, the forbidden tokens are {right}, and you forbid {cut}. Look where the last n - 1 = {n} "
                   "tokens occurred before: what came after them there is forbidden.").format(
        case=case, right=sorted(forbidden) or gettext("none"), cut=sorted(cut) or gettext("none"), n=n - 1)


def _beyond_the_end(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    text, logits = list(token_ids), logits.clone()
    begun = text[len(text) - (n - 1):]
    for place in range(len(text)):
        if text[place:place + n - 1] == begun:
            logits[text[place + n - 1]] = -math.inf
    return logits


def _if_a_token(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    cut = forbid_repeats(logits, token_ids, n)
    cut[0] = logits[0]
    return cut


def _short_texts_too(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    return forbid_repeats(logits, token_ids, min(n, len(token_ids)) or n)


def _by_trying(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    text, logits = list(token_ids), logits.clone()
    runs = {tuple(text[place:place + n]) for place in range(len(text) - n + 1)}
    for token in range(len(logits)):
        if tuple([*text, token][-n:]) in runs:
            logits[token] = -math.inf
    return logits


def _as_a_list(logits: Tensor, token_ids: Sequence[int], n: int) -> list[float]:
    ends: dict[tuple[int, ...], set[int]] = {}
    for place in range(len(token_ids) - n + 1):
        *begun, last = token_ids[place:place + n]
        ends.setdefault(tuple(begun), set()).add(last)
    forbidden = ends.get(tuple(token_ids[len(token_ids) - n + 1:]), set()) if len(token_ids) >= n else set()
    return [-math.inf if token in forbidden else logit for token, logit in enumerate(logits.tolist())]


def _with_windows(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    if len(token_ids) < n:
        return logits
    windows = torch.tensor(token_ids).unfold(0, n, 1)
    same = (windows[:, :-1] == torch.tensor(token_ids[len(token_ids) - n + 1:])).all(dim=-1)
    return logits.index_fill(0, windows[same, -1], -math.inf)


_FORBID_REPEATS = Exercise("8.4", "No run of words twice", forbid_repeats, _verify_forbid_repeats, wrong=(
    *((slip, hint[:45]) for slip, hint in _REPEAT_SLIPS),
    (lambda logits, ids, n: torch.where(forbid_repeats(logits, ids, n).isneginf(), logits - 5, logits),
     "minus infinity, not just"),
    (lambda logits, ids, n: forbid_repeats(logits, ids, n).softmax(dim=-1).log(), "those that are allowed"),
    (lambda logits, ids, n: logits.copy_(forbid_repeats(logits, ids, n)), "logits.clone()"),
    (_beyond_the_end, "beyond the end of the text"),
    (_if_a_token, "After [2, 0, 2]"),
    (_short_texts_too, "too short"),
    (lambda logits, ids, n: [1, 2], "with minus infinity for each"),
    (lambda logits, ids, n: print(end=""), "returned None"),
), also_wrong=(
    lambda logits, ids, n: logits,
    lambda logits, ids, n: forbid_repeats(logits, ids, n) if n > 1 else logits,
    lambda logits, ids, n: forbid_repeats(logits, ids[-5:], n),
    lambda logits, ids, n: forbid_repeats(logits, sorted(ids), n),
    lambda logits, ids, n: forbid_repeats(logits, ids, n).nan_to_num(neginf=-1e4),
    lambda logits, ids, n: -forbid_repeats(logits, ids, n),
), right=(
    _by_trying,
    _as_a_list,
    _with_windows,
    lambda logits, ids, n: forbid_repeats(logits.double(), tuple(ids), n),
))

EXERCISES: tuple[Exercise, ...] = (_PERPLEXITY, _HOW_MANY_STAY, _TOP_P, _FORBID_REPEATS)
