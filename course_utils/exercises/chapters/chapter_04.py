"""Exercises of chapter 4: the next token from logits, how likely a text is, how sure a model, and the shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_utils.exercises.exercise import Answer, Exercise

# ---- 4.1 -------------------------------------------------------------------------------------------------


def choose_next(logits: Tensor) -> Tensor:
    """The likeliest next token of each text: (b, t, vocab_size) to (b, 1)."""
    return logits[:, -1].argmax(dim=-1, keepdim=True)


def _verify_choose_next(answer: Answer) -> str | None:
    logits = torch.full((3, 4, 9), -1.0)
    logits[:, :-1, 7] = 5.0  # what all rows but the last would choose, with a higher score than theirs
    expected = torch.tensor([[2], [8], [0]])
    logits[:, -1].scatter_(1, expected, 3.0)
    chosen: Any = answer(logits)
    if isinstance(chosen, tuple):
        return "You return a pair, as `max` with a dimension does: values and positions. argmax gives positions alone."
    if not isinstance(chosen, Tensor):
        return f"You return a {type(chosen).__name__}, and a tensor of shape (b, 1) is asked for: leave out .item()."
    if chosen.is_floating_point():
        return "These are scores, and a token is the position of the highest score: use argmax instead of max."
    if chosen.dim() == 0:
        return "This is one number for the whole batch: tell argmax along which dimension to look, dim=-1."
    if chosen.shape == (3, 4) or chosen.shape == (3, 4, 1):
        return "You choose a token for every row; only the last row, logits[:, -1], knows the whole text."
    if chosen.shape == (3,):
        return "The tokens are right in number but have shape (3,): keepdim=True keeps the dimension that cat needs."
    if chosen.shape != (3, 1):
        return f"The shape is {tuple(chosen.shape)} for a batch of 3, and (3, 1) is asked for."
    if bool((chosen == 7).all()):
        return "This is what an earlier row would choose: the row that knows the whole text is the last, logits[:, -1]."
    if not torch.equal(chosen, expected):
        return "The shape is right, but not the tokens: take the position of the highest score in each text's last row."
    return None


_CHOOSE_NEXT = Exercise("4.1", "Choose the next token", choose_next, _verify_choose_next, wrong=(
    (lambda logits: logits[:, -1].max(dim=-1, keepdim=True).values, "argmax instead of max"),
    (lambda logits: logits[:, -1].max(dim=-1, keepdim=True), "You return a pair"),
    (lambda logits: logits[:, -1].argmax(dim=-1), "keepdim=True"),
    (lambda logits: logits[:, -1].argmax(), "one number for the whole batch"),
    (lambda logits: logits.argmax(dim=-1), "for every row"),
    (lambda logits: logits[:, 0].argmax(dim=-1, keepdim=True), "an earlier row"),
    (lambda logits: logits[0, -1].argmax().item(), "leave out .item()"),
))

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


def _verify_text_probabilities(answer: Answer) -> str | None:
    logits = torch.randn(1, 6, 11, generator=torch.Generator().manual_seed(4)) * 2
    token_ids = torch.tensor([[3, 9, 0, 10, 3, 5]])
    expected = text_probabilities(logits, token_ids)
    given: Any = answer(logits, token_ids)
    if not isinstance(given, Tensor):
        return f"You return a {type(given).__name__}, and a tensor of shape (1, t - 1) is asked for."
    if given.shape in ((1, 6), (6,)):
        return ("That is one number too many: no row comes before the first token, so nothing predicts it, "
                "and what the last row predicts is not in the text.")
    if given.shape == (5,):
        return "The batch dimension is gone: (1, t - 1) is asked for, so that several texts would fit."
    if given.shape != (1, 5):
        return f"The shape is {tuple(given.shape)} for a text of 6 tokens, and (1, 5) is asked for."
    if torch.allclose(given, expected, atol=1e-5):
        return None
    shares = logits.softmax(dim=-1)
    own = shares.gather(-1, token_ids[:, :, None])
    if _is_one_of(given, (own[:, 1:], own[:, :-1])):
        return "Each token meets its own row, and that row already knows it: row i predicts token i + 1."
    if _is_one_of(given, (logits[:, :-1].gather(-1, token_ids[:, 1:, None]),)):
        return "These are logits: scores. Take the softmax over the vocabulary, dim=-1, before you pick."
    if _is_one_of(given, (logits[:, :-1].log_softmax(dim=-1).gather(-1, token_ids[:, 1:, None]),)):
        return "These are the logarithms of the probabilities, which training uses; here take softmax."
    if _is_one_of(given, (logits.softmax(dim=1)[:, :-1].gather(-1, token_ids[:, 1:, None]),
                          logits[:, :-1].softmax(dim=1).gather(-1, token_ids[:, 1:, None]))):
        return "This softmax shares out over the rows: every row is a choice of its own, so take dim=-1."
    if _is_one_of(given, (shares[:, :-1].max(dim=-1).values,)):
        return "These are the likeliest tokens' probabilities; what is asked for are those of the text's own tokens."
    return "The shape is right, but not the numbers: softmax each row, then pick the entry of the token after it."


def _is_one_of(given: Tensor, candidates: tuple[Tensor, ...]) -> bool:
    return any(torch.allclose(given, candidate.reshape(given.shape), atol=1e-5) for candidate in candidates)


_TEXT_PROBABILITIES = Exercise("4.2", "How likely is this text?", text_probabilities, _verify_text_probabilities, (
    (lambda logits, ids: logits[:, 1:].softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1), "row i predicts"),
    (lambda logits, ids: logits.softmax(-1).gather(-1, ids[:, :, None]).squeeze(-1), "one number too many"),
    (lambda logits, ids: logits[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1), "These are logits"),
    (lambda logits, ids: logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1), "logarithms"),
    (lambda logits, ids: logits[:, :-1].softmax(1).gather(-1, ids[:, 1:, None]).squeeze(-1), "over the rows"),
    (lambda logits, ids: logits[:, :-1].softmax(-1).max(-1).values, "likeliest tokens' probabilities"),
    (lambda logits, ids: text_probabilities(logits, ids)[0], "batch dimension"),
))

# ---- 4.3 -------------------------------------------------------------------------------------------------


def spread(scores: Tensor, share: float = 0.9) -> int:
    """How many of the likeliest tokens have at least this share of the probability together.

    Args:
        scores: (vocab_size,), the logits of one row.
        share: above 0 and below 1.
    """
    likeliest_first = scores.float().softmax(dim=-1).sort(descending=True).values
    return int((likeliest_first.cumsum(dim=-1) < share).sum()) + 1


def _verify_spread(answer: Answer) -> str | None:
    scores = torch.randn(40, generator=torch.Generator().manual_seed(5)) * 1.5 + 1
    given: Any = answer(scores, 0.6)
    if given is None:
        return "It returned None. Does the function end with a return?"
    if isinstance(given, Tensor) and given.numel() != 1:
        return f"You return {given.numel()} numbers. One is asked for: how many tokens it takes."
    given = given.item() if isinstance(given, Tensor) else given
    shares = scores.softmax(dim=-1)
    ordered = shares.sort(descending=True).values
    right = spread(scores, 0.6)
    if given != right:
        likely = {
            right - 1: "One token is missing: you count those that stay below the share, and the next one reaches it.",
            _first_reaching(scores.sort(descending=True).values): "You add up scores. Make them probabilities first: "
                                                                  "softmax over the vocabulary.",
            _first_reaching(shares): "You add in the order of the ids. Sort first, the likeliest token in front.",
            _first_reaching(ordered.flip(0)): "You begin with the unlikeliest: sort(descending=True) puts the "
                                              "likeliest in front.",
            int((shares >= 0.6).sum()): "You count tokens that have the share alone. Here several have it together: "
                                        "add them up, with cumsum.",
        }
        told = f"Of 40 tokens it takes {right} to have 0.6 together, and you return {float(given):g}."
        return likely.get(given, f"{told} Sort the probabilities, add them up, count.")
    if answer(scores, 0.9) != spread(scores, 0.9):
        return "With share 0.6 it is right, with 0.9 it is not: use the argument `share`."
    return None


def _first_reaching(numbers: Tensor, share: float = 0.6) -> int:
    return int((numbers.cumsum(dim=-1) < share).sum()) + 1


_SPREAD = Exercise("4.3", "How sure is the model?", spread, _verify_spread, (
    (lambda scores, share=0.9: int((scores.softmax(-1).sort(descending=True)[0].cumsum(-1) < share).sum()),
     "One token is missing"),
    (lambda scores, share=0.9: _first_reaching(scores.sort(descending=True).values, share), "You add up scores"),
    (lambda scores, share=0.9: _first_reaching(scores.softmax(-1), share), "order of the ids"),
    (lambda scores, share=0.9: _first_reaching(scores.softmax(-1).sort()[0], share), "the unlikeliest"),
    (lambda scores, share=0.9: int((scores.softmax(-1) >= share).sum()), "have the share alone"),
    (lambda scores, share=0.9: scores.softmax(-1).sort(descending=True)[0].cumsum(-1), "One is asked for"),
    (lambda scores, share=0.9: spread(scores, 0.6), "use the argument"),
))

# ---- 4.4 -------------------------------------------------------------------------------------------------


def shapes(b: int, t: int, vocab_size: int) -> list[tuple[int, ...]]:
    """The shapes of the five lines, for b prompts of t tokens each."""
    return [(b, t, vocab_size), (b, 1, vocab_size), (b, vocab_size), (b,), (b, 1)]


def _verify_shapes(answer: Answer) -> str | None:
    b, t, vocab_size = 3, 5, 11
    given: Any = answer(b, t, vocab_size)
    if not isinstance(given, (list, tuple)) or len(given) != 5:
        return "Return a list of five shapes, one for each line, in their order."
    for number, shape in enumerate(given, start=1):
        if not isinstance(shape, (list, tuple)):
            return f"Shape {number} is {shape!r}, no tuple. With one entry it needs a comma: (b,), since (b) is just b."
    told = [tuple(shape) for shape in given]
    if told == [(1, *shape[1:]) for shape in shapes(b, t, vocab_size)]:
        return "That is right for one prompt. Here there are b of them, and the batch dimension is b."
    logits = torch.zeros(b, t, vocab_size)
    lines = (
        (logits, "Line 1 scores the whole vocabulary, behind every token of every prompt: three dimensions."),
        (logits[:, -1:], "Line 2 computes one row for each prompt, and `last_only` keeps the dimension of the rows."),
        (logits[:, -1], "Line 3 picks one row by its number. A number takes its dimension away; a slice, as in "
                        "`[:, -1:]`, would keep it."),
        (logits[:, -1].argmax(dim=-1), "Line 4 looks for one position in each row of the vocabulary, and the "
                                       "dimension in which it looks is gone."),
        (logits[:, -1].argmax(dim=-1, keepdim=True), "Line 5 has the same positions as line 4, and keeps the "
                                                     "dimension in which it looked, with size 1."),
    )
    for shape, (result, hint) in zip(told, lines):
        if shape != tuple(result.shape):
            return hint
    return None


def _with_shape(position: int, shape: Callable[[int, int, int], Any]) -> Answer:
    """The right shapes, but for one of them."""
    def answer(b: int, t: int, vocab_size: int) -> list[Any]:
        told: list[Any] = list(shapes(b, t, vocab_size))
        told[position] = shape(b, t, vocab_size)
        return told
    return answer


_SHAPES = Exercise("4.4", "Say the shapes", shapes, _verify_shapes, (
    (lambda b, t, v: (b, t, v), "five shapes"),
    (lambda b, t, v: shapes(1, t, v), "one prompt"),
    (_with_shape(0, lambda b, t, v: (t, v)), "Line 1"),
    (_with_shape(1, lambda b, t, v: (b, v)), "Line 2"),
    (_with_shape(2, lambda b, t, v: (b, 1, v)), "Line 3"),
    (_with_shape(3, lambda b, t, v: (b, v)), "Line 4"),
    (_with_shape(4, lambda b, t, v: (b, 1, 1)), "Line 5"),
    (_with_shape(3, lambda b, t, v: b), "needs a comma"),
))

EXERCISES: tuple[Exercise, ...] = (_CHOOSE_NEXT, _TEXT_PROBABILITIES, _SPREAD, _SHAPES)
