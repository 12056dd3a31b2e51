"""Exercises of chapter 4: the next token from logits, how likely a text is, how sure a model, and the shapes."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Number
from typing import Any

import torch
from torch import Tensor

from course_utils.exercises.answers import NotYet, close, items, tensor, whole, wholes
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.language import gettext

# ---- 4.1 -------------------------------------------------------------------------------------------------


def choose_next(logits: Tensor) -> Tensor:
    """The likeliest next token of each text: (b, t, vocab_size) to (b, 1)."""
    return logits[:, -1].argmax(dim=-1, keepdim=True)


# For each batch: how many tokens a text has, and the token that the last row of each text chooses, of 9.
_BATCHES = ((4, [2, 8, 0]), (1, [5]), (3, [0, 6, 6, 1, 3]))
_EARLIER = 7  # what all rows but the last would choose, with a higher score than theirs


def _verify_choose_next(answer: Answer) -> str | None:
    for t, tokens in _BATCHES:
        b = len(tokens)
        expected = torch.tensor(tokens)[:, None]
        logits = torch.full((b, t, 9), -1.0)
        logits[:, :-1, _EARLIER] = 5.0
        logits[:, -1].scatter_(1, expected, 3.0)
        if hint := _judge_choice(answer(logits), expected, t):
            return hint
    return None


def _judge_choice(chosen: Any, expected: Tensor, t: int) -> str | None:
    b = len(expected)
    if isinstance(chosen, (torch.return_types.max, torch.return_types.topk)):
        return "You return a pair, as `max` and `topk` do: values and positions. argmax gives positions alone."
    if chosen is not None and not isinstance(chosen, Tensor):  # an array or a list would not fit after the text
        return gettext("You return a {kind}, and a tensor of shape (b, 1) is asked for, which torch.cat can put after "
                       "the text: leave out .item(), .tolist() and .numpy().").format(kind=type(chosen).__name__)
    chosen = tensor(chosen, "a tensor of shape (b, 1)")
    if chosen.is_floating_point():
        return "These are scores, and a token is the position of the highest score: use argmax instead of max."
    if chosen.dim() == 0:
        return "This is one number for the whole batch: tell argmax along which dimension to look, dim=-1."
    if t > 1 and chosen.shape in ((b, t), (b, t, 1)):
        return "You choose a token for every row; only the last row, logits[:, -1], knows the whole text."
    if t > 1 and chosen.shape == (t, 1):
        return "You choose a token for each row of the last text: logits[-1] is a text, logits[:, -1] a row of each."
    if chosen.shape == (b,):
        return gettext("The tokens have shape ({b},), and ({b}, 1) is asked for: "
                       "keepdim=True keeps the dimension.").format(b=b)
    if chosen.shape != (b, 1):
        return gettext("The shape is {shape} for {b} texts, and ({b}, 1) is asked for.").format(
            shape=tuple(chosen.shape), b=b)
    if t > 1 and bool((chosen == _EARLIER).all()):
        return "This is what an earlier row would choose: the row that knows the whole text is the last, logits[:, -1]."
    if not torch.equal(chosen.long(), expected):
        return "The shape is right, but not the tokens: take the position of the highest score in each text's last row."
    return None


def _text_by_text(logits: Tensor) -> Tensor:
    return torch.tensor([[int(text[-1].argmax())] for text in logits])


_CHOOSE_NEXT = Exercise("4.1", "Choose the next token", choose_next, _verify_choose_next, wrong=(
    (lambda logits: logits[:, -1].argmax(dim=-1), "keepdim=True"),
    (lambda logits: logits.argmax(dim=-1), "for every row"),
    (lambda logits: logits[:, -1].argmax(), "one number for the whole batch"),
    (lambda logits: logits[:, -1].max(dim=-1, keepdim=True).values, "argmax instead of max"),
    (lambda logits: logits[:, -1].max(dim=-1, keepdim=True), "You return a pair"),
    (lambda logits: logits[:, 0].argmax(dim=-1, keepdim=True), "an earlier row"),
    (lambda logits: logits[-1].argmax(dim=-1, keepdim=True), "logits[-1] is a text"),
    (lambda logits: logits[:, -1].argmin(dim=-1, keepdim=True), "highest score in each"),
    (lambda logits: logits[:, -1].argmax(dim=0, keepdim=True), "(1, 9) for 3 texts"),
    (lambda logits: logits[0, -1].argmax().item(), "leave out .item()"),
    (lambda logits: print(end=""), "returned None"),
), also_wrong=(
    lambda logits: logits[:1, -1].argmax(dim=-1, keepdim=True),
    lambda logits: logits[:, -1].argmax(dim=-1, keepdim=True).expand(3, 1),
    lambda logits: logits[:, 3].argmax(dim=-1, keepdim=True),
    lambda logits: logits.mean(dim=1).argmax(dim=-1, keepdim=True),
    lambda logits: logits[:, -1].argmax(dim=-1).view(3, 1),
), right=(
    lambda logits: logits[:, -1, :].argmax(-1).unsqueeze(-1),
    lambda logits: logits[:, -1].topk(1).indices,
    lambda logits: logits.argmax(dim=-1)[:, -1:],
    lambda logits: torch.max(logits[:, -1].softmax(dim=-1), dim=1, keepdim=True)[1],
    _text_by_text,
), equivalent={
    "`return logits[:, -1].argmax(dim=-1, keepdim=True)` to `return logits[:, -1].argmax(dim=1, keepdim=True)`":
        "What is left has two dimensions, and the last one is number 1.",
}, refused={
    "NumPy": "torch.cat, for which the result is made, takes tensors alone.",
    "list for a tensor": "torch.cat, for which the result is made, takes tensors alone.",
})

# ---- 4.2 -------------------------------------------------------------------------------------------------


def text_probabilities(logits: Tensor, token_ids: Tensor) -> Tensor:
    """The probability that the model gave to each token of a text but the first.

    Args:
        logits: (1, t, vocab_size), what the model says about the text.
        token_ids: (1, t), the text.

    Returns:
        Probabilities, (1, t - 1).
    """
    probabilities = logits[:, :-1].float().softmax(dim=-1)
    told = token_ids[:, 1:].unsqueeze(-1)
    return probabilities.gather(-1, told).squeeze(-1)


# Texts in a vocabulary of 11: with id 0 and the last id, one token twice, of two tokens, and as long as the vocabulary.
_TEXTS = ([3, 9, 0, 10, 3, 5], [7, 7], [1, 0, 2, 10, 9, 9, 4, 5, 6, 8, 3])


def _verify_text_probabilities(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(4)
    for text in _TEXTS:
        logits = torch.randn(1, len(text), 11, generator=generator) * 2
        token_ids = torch.tensor([text])
        if hint := _judge_probabilities(answer(logits.clone(), token_ids.clone()), logits, token_ids):
            return hint
    return None


def _judge_probabilities(returned: object, logits: Tensor, token_ids: Tensor) -> str | None:
    t = token_ids.shape[1]
    given = tensor(returned, "a tensor of shape (1, t - 1)")
    if given.shape in ((1, t), (t,)):
        return ("That is one number too many: no row comes before the first token, so nothing predicts it, "
                "and what the last row predicts is not in the text.")
    if given.shape in ((t - 1,), ()):
        return "The batch dimension is gone: (1, t - 1) is asked for, so that several texts would fit."
    if given.shape != (1, t - 1):
        return gettext("The shape is {shape} for a text of {t} tokens, and (1, {predictions}) is asked for.").format(
            shape=tuple(given.shape), t=t, predictions=t - 1)
    if close(given, text_probabilities(logits, token_ids), atol=1e-5):
        return None
    shares, told = logits.softmax(dim=-1), token_ids[:, 1:, None]
    own = shares.gather(-1, token_ids[:, :, None])
    # What one may have computed instead, the likeliest slip first.
    slips = (
        (own[:, 1:], "Each token meets its own row, and that row already knows it: row i predicts token i + 1."),
        (own[:, :-1], "These are the tokens that each row has just read. What it predicts is the next: row i, "
                      "token i + 1."),
        (logits[:, :-1].gather(-1, told), "These are logits: scores. Take the softmax over the vocabulary, dim=-1, "
                                          "before you pick."),
        (logits[:, :-1].log_softmax(dim=-1).gather(-1, told), "These are the logarithms of the probabilities, which "
                                                              "training uses; here take softmax."),
        (logits[:, :-1].softmax(dim=1).gather(-1, told), _OVER_THE_ROWS),
        (logits.softmax(dim=1)[:, :-1].gather(-1, told), _OVER_THE_ROWS),
        (shares[:, :-1].max(dim=-1).values, "These are the likeliest tokens' probabilities; what is asked for are "
                                            "those of the text's own tokens."),
        (shares[:, :-1].gather(-1, told).cumprod(dim=1), "These are the probabilities of longer and longer beginnings, "
                                                         "multiplied up. Each token's own is asked for."),
    )
    for slip, hint in slips:
        if close(given, slip.reshape(given.shape), atol=1e-5):
            return hint
    return "The shape is right, but not the numbers: softmax each row, then pick the entry of the token after it."


_OVER_THE_ROWS = "This softmax shares out over the rows: every row is a choice of its own, so take dim=-1."


def _token_by_token(logits: Tensor, token_ids: Tensor) -> list[list[float]]:
    rows = logits[0].double().softmax(dim=-1).tolist()
    return [[row[token] for row, token in zip(rows, token_ids[0].tolist()[1:])]]


def _by_index(logits: Tensor, token_ids: Tensor) -> Tensor:
    t = token_ids.shape[1]
    return logits.softmax(dim=-1)[:, torch.arange(t - 1), token_ids[0, 1:]]


_TEXT_PROBABILITIES = Exercise("4.2", "How likely is this text?", text_probabilities, _verify_text_probabilities, (
    (lambda logits, ids: logits[:, 1:].softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1), "meets its own row"),
    (lambda logits, ids: logits[:, :-1].softmax(-1).gather(-1, ids[:, :-1, None]).squeeze(-1), "has just read"),
    (lambda logits, ids: logits.softmax(-1).gather(-1, ids[:, :, None]).squeeze(-1), "one number too many"),
    (lambda logits, ids: logits[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1), "These are logits"),
    (lambda logits, ids: logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1), "logarithms"),
    (lambda logits, ids: logits[:, :-1].softmax(1).gather(-1, ids[:, 1:, None]).squeeze(-1), "over the rows"),
    (lambda logits, ids: logits[:, :-1].softmax(-1).max(-1).values, "likeliest tokens' probabilities"),
    (lambda logits, ids: text_probabilities(logits, ids).cumprod(-1), "multiplied up"),
    (lambda logits, ids: text_probabilities(logits, ids)[0], "batch dimension"),
    (lambda logits, ids: text_probabilities(logits, ids)[..., None], "The shape is (1, 5, 1)"),
    (lambda logits, ids: print(end=""), "returned None"),
), also_wrong=(
    lambda logits, ids: logits.softmax(1)[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1),
    lambda logits, ids: logits[:, :-1].sigmoid().gather(-1, ids[:, 1:, None]).squeeze(-1),
    lambda logits, ids: text_probabilities(logits, ids).squeeze(),
    lambda logits, ids: text_probabilities(logits, ids).flip(1),
    lambda logits, ids: text_probabilities(logits, ids).prod(),
    lambda logits, ids: text_probabilities(logits, ids).round(decimals=2),
), right=(
    lambda logits, ids: torch.gather(logits.softmax(2), 2, ids[:, 1:].unsqueeze(2)).squeeze(2),
    lambda logits, ids: logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1).exp(),
    _by_index,
    _token_by_token,
), equivalent={
    "`probabilities = logits[:, :-1].float().softmax(dim=-1)` to "
    "`probabilities = logits[:, :].float().softmax(dim=-1)`": "gather takes only as many rows as its index has.",
    "`probabilities = logits[:, :-1].float().softmax(dim=-1)` to `probabilities = logits[:, :-1].softmax(dim=-1)`":
        "It matters for bfloat16 alone, of which the chapter says nothing yet.",
})

# ---- 4.3 -------------------------------------------------------------------------------------------------


def spread(scores: Tensor, share: float = 0.9) -> int:
    """How many of the likeliest tokens have at least this share of the probability together.

    Args:
        scores: (vocab_size,), the logits of one row.
        share: above 0 and below 1.
    """
    likeliest_first = scores.float().softmax(dim=-1).sort(descending=True).values
    return int((likeliest_first.cumsum(dim=-1) < share).sum()) + 1


def _spreads() -> list[tuple[Tensor, float | None]]:
    """Scores, and a share, or None for a call without one; the last four hit the share exactly."""
    generator = torch.Generator().manual_seed(5)
    many, few = (torch.randn(size, generator=generator) * 1.5 + 1 for size in (50, 20))
    sure, undecided = torch.tensor([0.0, 12.0] + 14 * [1.0]), torch.zeros(16)
    return [(many, 0.6), (many, None), (many, 0.3), (few, 0.75), (few, None), (sure, 0.5),
            (undecided, 0.5), (undecided, 0.75), (undecided, 0.25), (undecided, 0.0625)]


_EXACT = 4  # how many of the last cases hit the share exactly


def _one_missing(scores: Tensor, share: float = 0.9) -> int:
    return int((scores.softmax(-1).sort(descending=True).values.cumsum(-1) < share).sum())


def _adds_scores(scores: Tensor, share: float = 0.9) -> int:
    return int((scores.sort(descending=True).values.cumsum(-1) < share).sum()) + 1


def _in_order_of_ids(scores: Tensor, share: float = 0.9) -> int:
    return int((scores.softmax(-1).cumsum(-1) < share).sum()) + 1


def _unlikeliest_first(scores: Tensor, share: float = 0.9) -> int:
    return int((scores.softmax(-1).sort().values.cumsum(-1) < share).sum()) + 1


def _each_alone(scores: Tensor, share: float = 0.9) -> int:
    return int((scores.softmax(-1) >= share).sum())


def _always_nine_tenths(scores: Tensor, share: float = 0.9) -> int:
    return spread(scores, 0.9)


def _among_five(scores: Tensor, share: float = 0.9) -> int:
    return min(spread(scores, share), 5)


def _among_five_and_one(scores: Tensor, share: float = 0.9) -> int:
    return int((scores.softmax(-1).topk(5).values.cumsum(-1) < share).sum()) + 1


def _more_than_share(scores: Tensor, share: float = 0.9) -> int:
    return int((scores.softmax(-1).sort(descending=True).values.cumsum(-1) <= share).sum()) + 1


def _the_rest(scores: Tensor, share: float = 0.9) -> int:
    return len(scores) - spread(scores, share)


_NO_MORE_THAN_FIVE = "You never go beyond five tokens. A share may need many more: sort all of the vocabulary."
# What one may have computed instead, the likeliest slip first.
_SPREAD_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_one_missing, "One token is missing: you count those that stay below the share, and the next one reaches it."),
    (_always_nine_tenths, "You always count up to 0.9: use the argument `share`."),
    (_among_five, _NO_MORE_THAN_FIVE),
    (_adds_scores, "You add up scores. Make them probabilities first: softmax over the vocabulary."),
    (_in_order_of_ids, "You add in the order of the ids. Sort first, the likeliest token in front."),
    (_unlikeliest_first, "You begin with the unlikeliest: sort(descending=True) puts the likeliest in front."),
    (_each_alone, "You count tokens that have the share alone. Here several have it together: add them up, with "
                  "cumsum."),
    (_the_rest, "You count the tokens that are left over. Those that have the share are asked for."),
    (_more_than_share, "Where the sum is the share exactly, you take one token more: two equal tokens have 0.5 each, "
                       "so for the share 0.5 one is enough."),
)


def _verify_spread(answer: Answer) -> str | None:
    cases = _spreads()

    def all_of(one: Answer) -> list[Any]:
        return [one(scores.clone()) if share is None else one(scores.clone(), share) for scores, share in cases]

    told = [_how_many(returned) for returned in all_of(answer)]
    right = all_of(spread)
    if told == right:
        return None
    for slip, hint in (*_SPREAD_SLIPS, (_among_five_and_one, _NO_MORE_THAN_FIVE)):
        if told == all_of(slip):
            return hint
    at, given = next((at, given) for at, given in enumerate(told) if given != right[at])
    scores, share = cases[at]
    if at >= len(cases) - _EXACT:
        return gettext("Of {count} equal tokens it takes {right} to have {share} together, and you return {given}. "
                       "Where the sum is the share exactly, that is enough.").format(
            count=len(scores), right=right[at], share=share, given=given)
    return gettext("Of {count} tokens it takes {right} to have {share} together, and you return {given}. Sort the "
                   "probabilities, add them up, count.").format(
        count=len(scores), right=right[at], share=0.9 if share is None else share, given=given)


def _how_many(returned: Any) -> int:
    if isinstance(returned, Tensor) and returned.numel() > 1:
        raise NotYet(gettext("You return {returned} numbers. One is asked for: how many tokens it takes.").format(
            returned=returned.numel()))
    return whole(returned, "one whole number: how many tokens it takes")


def _taking_one_by_one(scores: Tensor, share: float = 0.9) -> int:
    total, count = 0.0, 0
    for probability in sorted(scores.softmax(dim=-1).tolist(), reverse=True):
        total, count = total + probability, count + 1
        if total >= share:
            break
    return count


def _while_below(scores: Tensor, share: float = 0.9) -> int:
    probabilities = scores.softmax(dim=-1)
    count = 1
    while probabilities.topk(count).values.sum() < share:
        count += 1
    return count


def _while_not_above(scores: Tensor, share: float = 0.9) -> int:
    probabilities, total, count = scores.softmax(dim=-1).sort(descending=True).values, 0.0, 0
    while total <= share:
        total += float(probabilities[count])
        count += 1
    return count


_LINE = "`return int((likeliest_first.cumsum(dim=-1) < share).sum()) + 1`"
_FIRST = "`likeliest_first = scores.float().softmax(dim=-1).sort(descending=True).values`"
_SPREAD = Exercise("4.3", "How sure is the model?", spread, _verify_spread, (
    *((slip, hint[:30]) for slip, hint in _SPREAD_SLIPS),
    (lambda scores, share=0.9: scores.softmax(-1).sort(descending=True)[0].cumsum(-1), "One is asked for"),
    (lambda scores, share=0.9: float(scores.softmax(-1).max()), "how many tokens it takes"),
    (lambda scores, share=0.9: spread(scores, share) + 1, "Sort the probabilities"),
    (lambda scores, share=0.9: print(end=""), "returned None"),
), also_wrong=(
    _while_not_above,
    _among_five_and_one,
    lambda scores, share=0.9: spread(scores, 0.6),
    lambda scores, share=0.5: spread(scores, share),
    lambda scores, share=0.9: spread(scores[:10], share),
    lambda scores, share=0.9: spread(2 * scores, share),
    lambda scores, share=0.9: spread(scores, share) if share != 0.5 else 1,
), right=(
    lambda scores, share=0.9: int((scores.softmax(0).sort(descending=True)[0].cumsum(0) >= share).nonzero()[0]) + 1,
    lambda scores, share=0.9: 1 + sum(scores.softmax(-1).sort(descending=True)[0].cumsum(-1) < share),
    lambda scores, share=0.9: torch.searchsorted(scores.softmax(-1).sort(descending=True)[0].cumsum(-1), share) + 1,
    _taking_one_by_one,
    _while_below,
), equivalent={
    f"{_FIRST} to `likeliest_first = scores.softmax(dim=-1).sort(descending=True).values`":
        "It matters for bfloat16 alone, of which the chapter says nothing yet.",
    f"{_FIRST} to `likeliest_first = scores.float().softmax(dim=-0).sort(descending=True).values`":
        "There is one dimension, number 0 and -1.",
    f"{_LINE} to `return int((likeliest_first.cumsum(dim=-0) < share).sum()) + 1`":
        "There is one dimension, number 0 and -1.",
})

# ---- 4.4 -------------------------------------------------------------------------------------------------


def shapes(b: int, t: int, vocab_size: int) -> list[tuple[int, ...]]:
    """The shapes of the five lines, for b prompts of t tokens each."""
    return [(b, t, vocab_size), (b, 1, vocab_size), (b, vocab_size), (b,), (b, 1)]


_SIZES = ((3, 5, 11), (2, 7, 13), (4, 1, 6), (1, 4, 9))
# For each line, what to say where the number of dimensions is wrong, and where it is right but the sizes are not.
_SHAPE_HINTS = (
    ("Line 1 scores the whole vocabulary after every token of every prompt: three dimensions.",
     "Line 1 has the right number of dimensions, in other sizes: prompts first, then their tokens, then the "
     "vocabulary."),
    ("Line 2 computes one row for each prompt, and `last_only` keeps the dimension of the rows: three dimensions.",
     "Line 2 has the right number of dimensions. How many rows does `last_only` compute for each prompt?"),
    ("Line 3 picks one row by its number. A number takes its dimension away; a slice, as in `[:, -1:]`, would keep it.",
     "Line 3 has the right number of dimensions. Which one did the number -1 take away?"),
    ("Line 4 looks for one position in each row of the vocabulary, and the dimension in which it looks is gone.",
     "Line 4 has one dimension. How many positions does it find, one for each of what?"),
    ("Line 5 has the same positions as line 4, and keeps the dimension in which it looked, with size 1.",
     "Line 5 has two dimensions. The one in which argmax looked has size 1 now, and it was the last."),
)


def _verify_shapes(answer: Answer) -> str | None:
    for b, t, vocab_size in _SIZES:
        given = items(answer(b, t, vocab_size), "a list of five shapes, one for each line, in their order", 5)
        for number, shape in enumerate(given, start=1):
            if isinstance(shape, Number):
                return gettext("Shape {number} is {shape!r}, no tuple. With one entry it needs a "
                               "comma: (b,), since (b) is b.").format(number=number, shape=shape)
        told = [tuple(wholes(shape, "a list of tuples of whole numbers")) for shape in given]
        if b > 1 and told == [(1, *shape[1:]) for shape in shapes(b, t, vocab_size)]:
            return "That is right for one prompt. Here there are b of them, and the batch dimension is b."
        logits = torch.zeros(b, t, vocab_size)
        lines = (logits, logits[:, -1:], logits[:, -1], logits[:, -1].argmax(dim=-1),
                 logits[:, -1].argmax(dim=-1, keepdim=True))
        for shape, line, (dimensions, sizes) in zip(told, lines, _SHAPE_HINTS):
            if shape != tuple(line.shape):
                return dimensions if len(shape) != line.dim() else sizes
    return None


def _with_shape(position: int, shape: Callable[[int, int, int], Any]) -> Answer:
    """The right shapes, but for one of them."""
    def answer(b: int, t: int, vocab_size: int) -> list[Any]:
        told: list[Any] = list(shapes(b, t, vocab_size))
        told[position] = shape(b, t, vocab_size)
        return told
    return answer


def _tried_out(b: int, t: int, vocab_size: int) -> list[torch.Size]:
    logits = torch.rand(b, t, vocab_size)
    last = logits[:, -1]
    return [part.shape for part in (logits, logits[:, -1:], last, last.argmax(-1), last.argmax(-1, keepdim=True))]


_SHAPES = Exercise("4.4", "Say the shapes", shapes, _verify_shapes, (
    (lambda b, t, v: (b, t, v), "one for each line"),
    (lambda b, t, v: shapes(1, t, v), "one prompt"),
    (_with_shape(0, lambda b, t, v: (t, v)), "Line 1 scores"),
    (_with_shape(0, lambda b, t, v: (t, b, v)), "Line 1 has"),
    (_with_shape(1, lambda b, t, v: (b, v)), "Line 2 computes"),
    (_with_shape(1, lambda b, t, v: (b, t, v)), "Line 2 has"),
    (_with_shape(2, lambda b, t, v: (b, 1, v)), "Line 3 picks"),
    (_with_shape(2, lambda b, t, v: (t, v)), "Line 3 has"),
    (_with_shape(3, lambda b, t, v: (b, v)), "Line 4 looks"),
    (_with_shape(3, lambda b, t, v: (v,)), "Line 4 has"),
    (_with_shape(4, lambda b, t, v: (b, 1, 1)), "Line 5 has the same"),
    (_with_shape(4, lambda b, t, v: (1, b)), "Line 5 has two"),
    (_with_shape(3, lambda b, t, v: b), "needs a comma"),
    (lambda b, t, v: print(end=""), "returned None"),
), also_wrong=(
    lambda b, t, v: shapes(3, 5, 11),
    lambda b, t, v: shapes(b, t, 6656),
    lambda b, t, v: shapes(t, b, v),
    lambda b, t, v: shapes(b, t, v)[::-1],
    lambda b, t, v: str(shapes(b, t, v)),
), right=(
    lambda b, t, v: ((b, t, v), (b, 1, v), (b, v), (b,), (b, 1)),
    lambda b, t, v: [[b, t, v], [b, 1, v], [b, v], [b], [b, 1]],
    lambda b, t, v: [torch.Size(shape) for shape in shapes(b, t, v)],
    _tried_out,
))

EXERCISES: tuple[Exercise, ...] = (_CHOOSE_NEXT, _TEXT_PROBABILITIES, _SPREAD, _SHAPES)
