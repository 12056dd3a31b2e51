"""Exercises of chapter 8, sampling: how open a choice is, what each cut leaves, top-p by hand, no run twice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from course_utils.exercises.exercise import Answer, Exercise
from course_utils.sampling import Sampling, keep_min_p, keep_top_k, keep_top_p

# ---- 8.1 -------------------------------------------------------------------------------------------------


def perplexity(logits: Tensor, temperature: float) -> float:
    """Among how many tokens, were they all equally likely, the choice would be as open: e to the entropy in nats."""
    probabilities = (logits / temperature).softmax(dim=-1)
    return float(torch.special.entr(probabilities).sum().exp())


_EVEN = torch.zeros(4)
_UNEVEN = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
_CUT = torch.tensor([1.0, 1.0, -math.inf, -math.inf])


def _verify_perplexity(answer: Answer) -> str | None:
    def given(logits: Tensor, temperature: float) -> float:
        told: float = answer(logits.clone(), temperature)  # since one may divide in place
        return told

    result = given(_EVEN, 1.0)
    if not isinstance(result, (int, float)):
        return f"It returns a {type(result).__name__}. Return a plain number: float(...)."
    if _near(result, math.log(4)) or _near(result, 2):
        return f"For four equally likely tokens it returns {result:.2f}, the entropy. Perplexity is e to the entropy."
    if _near(result, 1 / 4):
        return "For four equally likely tokens it returns a quarter: the entropy has a minus sign in front."
    if _near(result, math.e ** 2):
        return "The entropy is in bits, the exponential is of nats. Use the natural logarithm with exp."
    if not _near(result, 4):
        return f"Four equally likely tokens are 4 choices, and it returns {result:.3g}."
    if math.isnan(given(_CUT, 1.0)):
        return ("With a token of probability 0 it returns NaN, for 0 times the logarithm of 0. Such a token counts "
                "nothing: torch.special.entr knows that.")
    if not _near(given(_CUT, 1.0), 2):
        return f"Two equal tokens and two that were cut off are 2 choices, and it returns {given(_CUT, 1.0):.3g}."
    cold, plain, hot = (given(_UNEVEN, temperature) for temperature in (0.5, 1.0, 2.0))
    if cold == plain == hot:
        return "The result does not depend on the temperature. Divide the logits by it before the softmax."
    if cold > plain > hot:
        return "A high temperature leaves fewer choices than a low one here. Logits are divided by it, not multiplied."
    if not all(_near(told, perplexity(_UNEVEN, temperature))
               for told, temperature in ((cold, 0.5), (plain, 1.0), (hot, 2.0))):
        return ("For probabilities of 1/2, 1/4, 1/8 and 1/8 it is off. Divide the logits by the temperature, not the "
                "probabilities, and weigh each logarithm by its probability.")
    return None


def _near(value: float, expected: float) -> bool:
    return math.isclose(value, expected, rel_tol=1e-3)


def _only_entropy(logits: Tensor, temperature: float) -> float:
    return math.log(perplexity(logits, temperature))


def _without_minus(logits: Tensor, temperature: float) -> float:
    return 1 / perplexity(logits, temperature)


def _bits_and_e(logits: Tensor, temperature: float) -> float:
    return math.exp(math.log2(perplexity(logits, temperature)))


def _zero_times_log_zero(logits: Tensor, temperature: float) -> float:
    probabilities = (logits / temperature).softmax(dim=-1)
    return float((-(probabilities * probabilities.log()).sum()).exp())


def _no_temperature(logits: Tensor, temperature: float) -> float:
    return perplexity(logits, 1.0)


def _times_temperature(logits: Tensor, temperature: float) -> float:
    return perplexity(logits, 1 / temperature)


def _divided_afterwards(logits: Tensor, temperature: float) -> float:
    probabilities = logits.softmax(dim=-1) / temperature
    return float(torch.special.entr(probabilities).sum().exp())


_PERPLEXITY = Exercise("8.1", "How many choices are left", perplexity, _verify_perplexity, wrong=(
    (_only_entropy, "e to the entropy"),
    (_without_minus, "minus sign"),
    (_bits_and_e, "in bits"),
    (_zero_times_log_zero, "torch.special.entr"),
    (_no_temperature, "does not depend on the temperature"),
    (_times_temperature, "not multiplied"),
    (_divided_afterwards, "not the probabilities"),
))

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
# For each setting, numbers that one gets to, and how.
_STAY_HINTS: tuple[dict[int, str], ...] = (
    {4: "top-p works on what top-k has left, and takes away some of the four.",
     3: "top-p sees what is left renormalized: 0.30 of 0.77 is more than 0.30. What is the sum of two of them?"},
    {2: "here top-p comes first, and sees 0.30, 0.20, 0.15 and so on as they are.",
     4: "top-k keeps four at most. Were there still as many, after top-p?"},
    {1: "min-p asks for 0.3 times the probability of the likeliest word, not for a probability of 0.3.",
     4: "min-p asks for at least 0.3 times the 0.30 of the likeliest. Look at the owl again.",
     2: "that is top-p 0.3. Min-p adds nothing up, it compares each word with the likeliest."},
    {5: "the temperature comes first and moves the probabilities apart. What becomes of the ratio of two words?",
     7: "a temperature below 1 sharpens: at 0.5 a ratio is squared, and what is below 1 gets smaller.",
     1: "a ratio is squared, and (2/3) × (2/3) is still above 0.3."},
)


def _verify_how_many_stay(answer: Answer) -> str | None:
    result = answer()
    if isinstance(result, int):
        return "It returns one number. Return four, one for each setting."
    if not isinstance(result, (tuple, list)) or len(result) != 4:
        return "Return four numbers, one for each setting: (a, b, c, d)."
    if not all(isinstance(number, int) for number in result):
        return "Return numbers of words, without the words."
    for letter, number, expected, hints in zip("abcd", result, _LEFT, _STAY_HINTS):
        if number != expected:
            return f"{letter}: " + hints.get(number, f"it is not {number}. Write down what is left after each step.")
    return None


_HOW_MANY_STAY = Exercise("8.2", "How many stay", how_many_stay, _verify_how_many_stay, wrong=(
    (lambda: (3, 3, 5, 2), "sees what is left renormalized"),
    (lambda: (4, 3, 5, 2), "takes away some of the four"),
    (lambda: (2, 2, 5, 2), "here top-p comes first"),
    (lambda: (2, 3, 1, 2), "not for a probability of 0.3"),
    (lambda: (2, 3, 5, 5), "the temperature comes first"),
    (lambda: (2, 3, 5, 7), "below 1 sharpens"),
    (lambda: 12, "Return four"),
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


# The first row is that of the chapter, in another order.
_ROWS = torch.tensor([[0.05, 0.30, 0.10, 0.20, 0.15, 0.12, 0.08], [0.01, 0.02, 0.03, 0.90, 0.02, 0.01, 0.01]])


def _verify_top_p(answer: Answer) -> str | None:
    given = _ROWS.clone()
    result = answer(given, 0.6)
    if not isinstance(result, Tensor) or result.shape != _ROWS.shape:
        return "Return a tensor of the same shape as the probabilities, (b, v)."
    if not torch.equal(given, _ROWS):
        return "The probabilities that were handed in have changed. Work on a copy, or on what sort returns."
    if result.isnan().any():
        return ("For p = 0.6 the row with a token of 0.90 becomes NaN: nothing was kept, and 0 was divided by 0. The "
                "token with which the sum crosses p belongs to the set.")
    if torch.equal(result, result.sort(dim=-1, descending=True).values):
        return ("The result is sorted, so the tokens have changed places. Bring them back: sort returns the order "
                "too, and scatter undoes it.")
    hint = _kept(result > 0)
    if hint:
        return hint
    if not torch.allclose(result.sum(dim=-1), torch.ones(2)):
        return "The right tokens are kept, but a row adds up to less than 1. Divide by what is left of it."
    if not torch.equal(answer(_ROWS, 0.0) > 0, _ROWS == _ROWS.amax(dim=-1, keepdim=True)):
        return "For p = 0 nothing is kept, or too much: something must be drawn, so the likeliest token always stays."
    if not torch.allclose(answer(_ROWS, 1.0), _ROWS):
        return "For p = 1 all tokens stay as they are."
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(8))
    for p in (0.25, 0.8):
        if not torch.allclose(answer(logits.softmax(dim=-1), p), keep_top_p(logits, p).softmax(dim=-1), atol=1e-6):
            return f"On random rows and p = {p} it differs from the package's keep_top_p: compare the two."
    return None


def _kept(kept: Tensor) -> str | None:
    """A hint if for p = 0.6 not the three likeliest of the first row and the likeliest of the second were kept."""
    if kept.all():
        return "Nothing was cut off. For p = 0.6 the first row keeps 3 of its 7 tokens, the second 1."
    if any(row[~keep].max() > row[keep].min() for row, keep in zip(_ROWS, kept) if keep.any()):
        return "A token was cut off that is likelier than one that stayed. Sort before you add up."
    count = int(kept[0].sum())
    if count < 2:
        return "p is not a floor for each token, but for their sum: 0.30 + 0.20 + 0.15 are the first to reach 0.6."
    if count == 2:
        return ("0.30 + 0.20 are only 0.50. The token with which the sum crosses p = 0.6 belongs to the set, so look "
                "at the sum before each token.")
    if count > 3:
        return "One token too many: 0.30 + 0.20 + 0.15 are 0.65, which is enough for p = 0.6."
    return None


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
    kept = torch.where((probabilities >= p) | (probabilities == probabilities.amax(-1, keepdim=True)),
                       probabilities, 0.0)
    return kept / kept.sum(dim=-1, keepdim=True)


def _left_sorted(probabilities: Tensor, p: float) -> Tensor:
    return top_p(probabilities.sort(dim=-1, descending=True).values, p)


def _not_renormalized(probabilities: Tensor, p: float) -> Tensor:
    return torch.where(top_p(probabilities, p) > 0, probabilities, 0.0)


def _nothing_at_zero(probabilities: Tensor, p: float) -> Tensor:
    return top_p(probabilities, p) if p else torch.zeros_like(probabilities)


def _in_place(probabilities: Tensor, p: float) -> Tensor:
    return probabilities.copy_(top_p(probabilities, p))


_TOP_P = Exercise("8.3", "Top-p by hand", top_p, _verify_top_p, wrong=(
    (_in_the_given_order, "Sort before you add up"),
    (_up_to_p, "becomes NaN"),
    (_up_to_p_or_one, "only 0.50"),
    (_one_too_many, "One token too many"),
    (_each_at_least, "not a floor"),
    (_left_sorted, "scatter undoes it"),
    (_not_renormalized, "adds up to less than 1"),
    (_nothing_at_zero, "the likeliest token always stays"),
    (_in_place, "Work on a copy"),
))

# ---- 8.4 -------------------------------------------------------------------------------------------------


def forbid_repeats(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    """Take out of the draw, (v,), each token with which the text would end in n tokens that it already holds."""
    text = list(token_ids)
    begun = text[len(text) - (n - 1):]  # not text[-(n - 1):], which for n = 1 is the whole text
    forbidden = [text[place + n - 1] for place in range(len(text) - n + 1) if text[place:place + n - 1] == begun]
    logits = logits.clone()
    logits[forbidden] = -math.inf
    return logits


# The text so far, n, and the tokens that must not come next.
_TEXTS: tuple[tuple[list[int], int, set[int]], ...] = (
    ([1, 2, 3, 4, 1, 2], 3, {3}),
    ([1, 2, 3, 1, 2, 4, 1, 2], 3, {3, 4}),
    ([5, 6, 5], 2, {6}),
    ([5, 6, 7], 2, set()),
    ([4, 4], 2, {4}),
    ([1, 2, 3, 4, 1], 3, set()),
    ([3, 5, 3], 1, {3, 5}),
    ([3], 3, set()),
    ([3, 3], 4, set()),
)


def _verify_forbid_repeats(answer: Answer) -> str | None:
    logits = torch.linspace(-2, 2, 8)
    for text, n, forbidden in _TEXTS:
        given, ids = logits.clone(), list(text)
        try:
            result = answer(given, ids, n)
        except IndexError:
            return f"For the text {text} and n = {n} it reaches beyond the end of the text: stop n - 1 tokens before."
        if not isinstance(result, Tensor) or result.shape != logits.shape:
            return "Return the logits, (v,), with minus infinity for each forbidden token."
        if not torch.equal(given, logits) or ids != text:
            return "The logits or the text that were handed in have changed. Work on logits.clone()."
        cut = set(result.isneginf().nonzero().flatten().tolist())
        if not cut and not torch.equal(result, logits):
            return "A forbidden token can still be drawn: its logit must be minus infinity, not just small."
        if cut != forbidden:
            return _what_went_wrong(text, n, forbidden, cut)
        if not torch.equal(result[~result.isneginf()], logits[~result.isneginf()]):
            return "The logits of tokens that are allowed have changed."
    return None


def _what_went_wrong(text: list[int], n: int, forbidden: set[int], cut: set[int]) -> str:
    case = f"After {text} with n = {n}"
    if n == 1:
        return (f"{case}, {sorted(forbidden)} are forbidden, and you forbid {sorted(cut)}. Beware of text[-(n - 1):]: "
                "with n = 1 that is text[0:], the whole text, and not its last 0 tokens.")
    if len(text) < n:
        return f"{case} nothing can repeat yet, for the text is too short, and you forbid {sorted(cut)}."
    if cut == set(text):
        return f"{case} only {sorted(forbidden)} is forbidden. A token may come again, a run of {n} may not."
    if cut < forbidden and cut:
        return (f"{case}, {sorted(forbidden)} are forbidden, and you forbid only {sorted(cut)}. The last {n - 1} "
                "tokens may occur several times, each with another token behind them.")
    return (f"{case}, the forbidden tokens are {sorted(forbidden) or 'none'}, and you forbid {sorted(cut) or 'none'}. "
            f"Look where the last n - 1 = {n - 1} tokens occurred before: what stood behind them there is forbidden.")


def _compares_n_tokens(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    return forbid_repeats(logits, token_ids, n + 1)


def _first_place_only(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    text, logits = list(token_ids), logits.clone()
    begun = text[len(text) - (n - 1):]
    for place in range(len(text) - n + 1):
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


def _only_less_likely(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    return torch.where(forbid_repeats(logits, token_ids, n).isneginf(), logits - 5, logits)


def _changes_the_logits(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    return logits.copy_(forbid_repeats(logits, token_ids, n))


def _beyond_the_end(logits: Tensor, token_ids: Sequence[int], n: int) -> Tensor:
    text, logits = list(token_ids), logits.clone()
    begun = text[len(text) - (n - 1):]
    for place in range(len(text)):
        if text[place:place + n - 1] == begun:
            logits[text[place + n - 1]] = -math.inf
    return logits


_FORBID_REPEATS = Exercise("8.4", "No run of words twice", forbid_repeats, _verify_forbid_repeats, wrong=(
    (_compares_n_tokens, "what stood behind them"),
    (_first_place_only, "each with another token behind them"),
    (_all_that_occurred, "A token may come again"),
    (_minus_zero, "text[0:], the whole text"),
    (_only_less_likely, "minus infinity, not just small"),
    (_changes_the_logits, "logits.clone()"),
    (_beyond_the_end, "beyond the end of the text"),
))

EXERCISES: tuple[Exercise, ...] = (_PERPLEXITY, _HOW_MANY_STAY, _TOP_P, _FORBID_REPEATS)
