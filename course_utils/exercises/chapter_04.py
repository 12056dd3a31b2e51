"""Exercises of chapter 4: from logits to the next token, and to how likely a given text is."""

from __future__ import annotations

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

EXERCISES: tuple[Exercise, ...] = (_CHOOSE_NEXT, _TEXT_PROBABILITIES)
