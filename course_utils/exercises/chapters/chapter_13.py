"""Exercises of chapter 13, training."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_utils.exercises.exercise import Exercise
from course_utils.training.dataset import IGNORED
from course_utils.training.loop import TrainingPlan, next_token_loss

# ---- 13.1 ------------------------------------------------------------------------------------------------


def rate_of(step: int, peak: float, warm_up: int, steps: int) -> float:
    """The rate of a step, counted from 0: a straight line up, then half a cosine down."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    progress = (step - warm_up) / (steps - warm_up)  # 0 at the peak, 1 at the end
    return peak * (1 + math.cos(math.pi * progress)) / 2


def _verify_rate(answer: Callable[..., Any]) -> str | None:
    plan = TrainingPlan(steps=110, learning_rate=0.5, warm_up_steps=10)
    told = [answer(step, 0.5, 10, 110) for step in range(110)]
    if not all(isinstance(rate, (int, float, Tensor)) for rate in told):
        return "It does not return a number for every step. Return the rate, in the warm-up and behind it."
    rates = [float(rate) for rate in told]
    if rates[0] == 0:
        return "The first step has the rate 0 and would teach nothing. The line goes through (step + 1) / warm_up."
    if math.isclose(rates[0], 0.5):
        return "The first step begins at the peak. Below `warm_up` steps the rate still rises."
    if not math.isclose(rates[9], 0.5) or not math.isclose(rates[4], 0.25):
        return (f"With peak 0.5 and 10 steps of warm-up, step 4 has the rate {rates[4]:.3g} and step 9 {rates[9]:.3g}; "
                "0.25 and 0.5 are right, a straight line up to the peak.")
    if rates[-1] > 0.49:
        return "Behind the warm-up the rate stays at its peak. Let it fall along half a cosine."
    if math.isclose(rates[10], 0.5 * (1 + math.cos(math.pi * 10 / 110)) / 2):
        return "The cosine begins at step 0, so the rate jumps after the warm-up. Count its progress from `warm_up` on."
    if min(rates) < 0:
        return "The rate falls below 0 and would undo what was learned. A cosine goes from 1 to -1: bring it to 1 to 0."
    if math.isclose(rates[60], 0.5 * math.cos(math.pi / 4), rel_tol=1e-3):
        return "That is a quarter of a cosine. Half of one goes from 1 to -1, and shifted and scaled from 1 to 0."
    if math.isclose(rates[60], 0.25) and math.isclose(rates[35], 0.375):
        return "That falls along a straight line. A cosine falls slowly at first and at the end."
    for step, rate in enumerate(rates):
        if not math.isclose(rate, plan.rate(step), rel_tol=1e-6):
            return f"Step {step} has the rate {rate:.4g}, and {plan.rate(step):.4g} is right."
    return None


def _from_zero(step: int, peak: float, warm_up: int, steps: int) -> float:
    return peak * step / warm_up if step < warm_up else rate_of(step, peak, warm_up, steps)


def _no_warm_up(step: int, peak: float, warm_up: int, steps: int) -> float:
    return rate_of(step, peak, 0, steps)


def _stays(step: int, peak: float, warm_up: int, steps: int) -> float:
    return peak * min(1.0, (step + 1) / warm_up)


def _cosine_from_the_start(step: int, peak: float, warm_up: int, steps: int) -> float:
    return rate_of(step, peak, warm_up, steps) if step < warm_up else rate_of(step, peak, 0, steps)


def _negative(step: int, peak: float, warm_up: int, steps: int) -> float:
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * math.cos(math.pi * (step - warm_up) / (steps - warm_up))


def _quarter(step: int, peak: float, warm_up: int, steps: int) -> float:
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * math.cos(math.pi / 2 * (step - warm_up) / (steps - warm_up))


def _line(step: int, peak: float, warm_up: int, steps: int) -> float:
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * (1 - (step - warm_up) / (steps - warm_up))


# ---- 13.2 ------------------------------------------------------------------------------------------------


def where_to_stop(losses: list[float], patience: int) -> int:
    """The number of the measurement whose weights are kept, counted from 0."""
    best = 0
    for number, loss in enumerate(losses):
        if loss < losses[best]:
            best = number
        elif number - best >= patience:
            break  # so many in a row were no better
    return best


def _verify_stop(answer: Callable[..., Any]) -> str | None:
    losses = [5.0, 4.0, 3.0, 3.2, 3.1, 2.8, 3.0, 3.1, 3.2, 3.3, 2.0]
    told = answer(list(losses), 3)
    case = f"For {losses} and a patience of 3, "
    if not isinstance(told, numbers.Integral):  # NumPy's argmin gives one, too
        return f"It returns {told!r}. Return the number of a measurement, counted from 0."
    if told == 2:
        return f"{case}it stops at the first loss that is higher than the one before: it has no patience."
    if told == 10:
        return (f"{case}it returns 10, the lowest of all. But measurements 6, 7 and 8 are no better than 5, so the "
                "training ends there, and nobody sees the rest.")
    if told == 8:
        return f"{case}it returns where the training ends. The weights to keep are those of the lowest loss so far."
    if told != 5:
        return f"{case}it returns {told}, and 5 is right: the lowest loss before three in a row were no better."
    if answer([2.0, 2.1, 1.9], 2) != 2:
        return "For [2.0, 2.1, 1.9] and a patience of 2, it is 2: one loss that was no better does not end it."
    if answer([2.0, 2.1, 2.2, 1.9], 2) != 0:
        return "For [2.0, 2.1, 2.2, 1.9] and a patience of 2, it is 0: two that were no better end it."
    if answer([3.0, 2.0, 2.4, 2.2, 2.3, 1.0], 3) != 1:
        return ("For [3.0, 2.0, 2.4, 2.2, 2.3, 1.0] and a patience of 3, it is 1. Compare each loss with the best so "
                "far: 2.2 is better than the one before it, and still no better than 2.0.")
    if answer([2.0, 2.0, 2.0, 1.0], 2) != 0:
        return "For [2.0, 2.0, 2.0, 1.0] and a patience of 2, it is 0: a loss that equals the best is no better."
    if answer([1.5], 2) != 0 or answer([3.0, 2.0, 1.0], 2) != 2:
        return "Where the losses end before the patience does, it is the lowest of them."
    return None


def _lowest_of_all(losses: list[float], patience: int) -> int:
    return losses.index(min(losses))


def _no_patience(losses: list[float], patience: int) -> int:
    return where_to_stop(losses, 1)


def _where_it_ends(losses: list[float], patience: int) -> int:
    return min(where_to_stop(losses, patience) + patience, len(losses) - 1)


def _against_the_one_before(losses: list[float], patience: int) -> int:
    best = worse = 0
    for number in range(1, len(losses)):
        worse = worse + 1 if losses[number] >= losses[number - 1] else 0
        best = number if losses[number] < losses[best] else best
        if worse == patience:
            break
    return best


def _one_too_patient(losses: list[float], patience: int) -> int:
    return where_to_stop(losses, patience + 1)


def _equal_is_better(losses: list[float], patience: int) -> int:
    best = 0
    for number, loss in enumerate(losses):
        if loss <= losses[best]:
            best = number
        elif number - best >= patience:
            break
    return best


def _the_loss_itself(losses: list[float], patience: int) -> float:
    return losses[where_to_stop(losses, patience)]


# ---- 13.3 ------------------------------------------------------------------------------------------------


def answers_loss(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    """The mean loss of the tokens that count, in nats."""
    log_probabilities = logits[:-1].log_softmax(dim=-1)  # the last row predicts nothing that is known
    targets, counts = token_ids[1:], counts[1:]
    each = -log_probabilities[torch.arange(len(targets)), targets]
    return each[counts].mean()


def _case() -> tuple[Tensor, Tensor, Tensor]:
    """Logits (9, 20), ids (9,) and which of them count, (9,)."""
    generator = torch.Generator().manual_seed(13)
    logits = 2 * torch.randn(9, 20, generator=generator)
    token_ids = torch.randint(20, (9,), generator=generator)
    return logits, token_ids, torch.tensor([False, False, False, False, True, True, False, True, True])


def _verify_loss(answer: Callable[..., Any]) -> str | None:
    logits, token_ids, counts = _case()
    told = answer(logits.clone(), token_ids.clone(), counts.clone())
    if not isinstance(told, (Tensor, float)):
        return f"It returns {type(told).__name__}. Return the mean loss, a tensor with one number."
    loss = torch.as_tensor(told)
    if loss.numel() != 1:
        return f"It returns {loss.numel()} numbers, one for each token. Return the mean of those that count."

    def is_loss(rows: Tensor, targets: Tensor, of: Tensor, reduction: str = "mean") -> bool:
        labels = targets.where(of, IGNORED)
        expected = torch.nn.functional.cross_entropy(rows, labels, ignore_index=IGNORED, reduction=reduction)
        return bool(torch.isclose(loss.detach().float(), expected, atol=1e-4))

    rows, targets, of = logits[:-1], token_ids[1:], counts[1:]
    everything = torch.ones_like(of)
    if is_loss(rows, targets, of):
        return _verify_first_token(answer)
    if is_loss(-rows, targets, of) or torch.isclose(loss.float(), -_mean(rows, targets, of), atol=1e-4):
        return "The sign is wrong. The logarithm of a probability is never positive, and the loss is its negative."
    if is_loss(logits, token_ids, counts):
        return "Row i of the logits is compared with token i, which the model has just read. It predicts token i + 1."
    if is_loss(rows, targets, everything):
        return "All tokens count in it. Those where `counts` is False were only read: leave them out of the mean."
    if is_loss(rows, targets, counts[:-1]):
        return "The wrong tokens count: `counts` belongs to the tokens, so shift it together with the targets."
    if is_loss(rows, targets, of, "sum"):
        return "That is the sum. Divide it by the number of tokens that count."
    if torch.isclose(loss.float(), _mean(rows, targets, of) * of.sum() / len(of), atol=1e-4):
        return "The right tokens are summed up and divided by the number of all. Divide by the number that counts."
    if torch.isclose(loss.float(), -rows.softmax(-1)[torch.arange(8), targets][of].mean(), atol=1e-4):
        return "That is a mean of probabilities. Take the logarithm of each probability first."
    return f"It returns {loss.item():.4f}, and {_mean(rows, targets, of).item():.4f} is right."


def _mean(rows: Tensor, targets: Tensor, of: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(rows[of], targets[of])


def _verify_first_token(answer: Callable[..., Any]) -> str | None:
    """The first token has no prediction, whether it counts or not; and gradients go through."""
    logits, token_ids, counts = _case()
    again = counts.clone()
    again[0] = True
    logits.requires_grad_(True)
    loss = answer(logits, token_ids, counts)
    if not torch.isclose(torch.as_tensor(answer(logits, token_ids, again)), torch.as_tensor(loss)):
        return "Nothing predicts the first token, so it must make no difference whether it counts."
    if not (isinstance(loss, Tensor) and loss.requires_grad):
        return "The number is right, but no gradient goes through it. Compute with tensors up to the end."
    return None


def _unshifted(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    each = -logits.log_softmax(dim=-1)[torch.arange(len(token_ids)), token_ids]
    return each[counts].mean()


def _counts_all(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    return answers_loss(logits, token_ids, torch.ones_like(counts))


def _unshifted_counts(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    return answers_loss(logits, token_ids, torch.cat((counts[:1], counts[:-1])))


def _sums(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    return answers_loss(logits, token_ids, counts) * counts[1:].sum()


def _divided_by_all(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    return _sums(logits, token_ids, counts) / (len(counts) - 1)


def _of_probabilities(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    probabilities = logits[:-1].softmax(dim=-1)
    return -probabilities[torch.arange(len(token_ids) - 1), token_ids[1:]][counts[1:]].mean()


def _wrong_sign(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    return -answers_loss(logits, token_ids, counts)


def _each(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    return -logits[:-1].log_softmax(dim=-1)[torch.arange(len(token_ids) - 1), token_ids[1:]]


def _without_gradient(logits: Tensor, token_ids: Tensor, counts: Tensor) -> float:
    return answers_loss(logits, token_ids, counts).item()


# ---- 13.4 ------------------------------------------------------------------------------------------------


def add_gradients(model: torch.nn.Module, parts: list[tuple[Tensor, Tensor]], loss: Callable[..., Tensor]) -> None:
    """Leave in the parameters the gradient of the mean loss over all tokens that count."""
    counted = [int((labels[:, 1:] != IGNORED).sum()) for _, labels in parts]
    for (token_ids, labels), count in zip(parts, counted):
        (loss(model, token_ids, labels) * count / sum(counted)).backward()


class _Bigrams(torch.nn.Module):
    """The smallest model there is: a table of what follows what."""

    def __init__(self) -> None:
        super().__init__()
        table = torch.randn(11, 11, generator=torch.Generator().manual_seed(3))
        self.table = torch.nn.Parameter(table)
        self.rows_at_once = 0

    def forward(self, token_ids: Tensor) -> Tensor:
        self.rows_at_once = max(self.rows_at_once, len(token_ids))
        return self.table[token_ids]


def _parts() -> list[tuple[Tensor, Tensor]]:
    """Three parts in which 2, 11 and 7 tokens count."""
    generator = torch.Generator().manual_seed(4)
    parts = []
    for rows, first in ((1, 4), (2, 0), (1, 0)):
        token_ids = torch.randint(11, (rows, 7), generator=generator)
        labels = token_ids.clone()
        labels[:, : first + 1] = IGNORED
        if first == 0 and rows == 2:
            labels[1, -1] = IGNORED
        parts.append((token_ids, labels))
    return parts


def _gradient_of_shares(shares: list[float]) -> Tensor:
    model = _Bigrams()
    torch.stack([next_token_loss(model, *part) * share for part, share in zip(_parts(), shares)]).sum().backward()
    assert model.table.grad is not None
    return model.table.grad


def _verify_gradients(answer: Callable[..., Any]) -> str | None:
    model, parts = _Bigrams(), _parts()
    answer(model, parts, next_token_loss)
    gradient = model.table.grad
    if gradient is None:
        return "The parameters have no gradient afterwards. Call backward() on the loss of each part."
    if model.rows_at_once > max(len(token_ids) for token_ids, _ in parts):
        return "All parts went through the model at once, which takes the memory of all. Compute one after the other."
    counted = [int((labels[:, 1:] != IGNORED).sum()) for _, labels in parts]

    def near(shares: list[float]) -> bool:
        return bool(torch.allclose(gradient, _gradient_of_shares(shares), atol=1e-5))

    if near([count / sum(counted) for count in counted]):
        return None
    if near([1.0] * 3):
        return "The gradients of the parts are added up, each in full: the sum is too long. Give each part its share."
    if near([1 / 3] * 3):
        return ("Each part has a third, though 2 tokens count in the first and 11 in the second: a token of the first "
                "weighs more. A part's share is that of its tokens.")
    if near([0.0, 0.0, 1.0]) or near([0.0, 0.0, counted[2] / sum(counted)]):
        return "Only the last part is left: something deletes the gradient between the parts. Let backward() add it up."
    sizes = [len(token_ids) / 4 for token_ids, _ in parts]
    if near(sizes):
        return "The share of each part is that of its rows, and not all of their tokens count. Count the labels."
    return "The gradient is not that of the mean over all tokens that count. Multiply each part's loss by its share."


def _adds_up(model: torch.nn.Module, parts: list[tuple[Tensor, Tensor]], loss: Callable[..., Tensor]) -> None:
    for token_ids, labels in parts:
        loss(model, token_ids, labels).backward()


def _mean_of_means(model: torch.nn.Module, parts: list[tuple[Tensor, Tensor]], loss: Callable[..., Tensor]) -> None:
    for token_ids, labels in parts:
        (loss(model, token_ids, labels) / len(parts)).backward()


def _forgets(model: torch.nn.Module, parts: list[tuple[Tensor, Tensor]], loss: Callable[..., Tensor]) -> None:
    for token_ids, labels in parts:
        model.zero_grad()
        loss(model, token_ids, labels).backward()


def _by_rows(model: torch.nn.Module, parts: list[tuple[Tensor, Tensor]], loss: Callable[..., Tensor]) -> None:
    rows = sum(len(token_ids) for token_ids, _ in parts)
    for token_ids, labels in parts:
        (loss(model, token_ids, labels) * len(token_ids) / rows).backward()


def _at_once(model: torch.nn.Module, parts: list[tuple[Tensor, Tensor]], loss: Callable[..., Tensor]) -> None:
    token_ids, labels = (torch.cat(tensors) for tensors in zip(*parts))
    loss(model, token_ids, labels).backward()


def _no_backward(model: torch.nn.Module, parts: list[tuple[Tensor, Tensor]], loss: Callable[..., Tensor]) -> None:
    for token_ids, labels in parts:
        loss(model, token_ids, labels)


EXERCISES: tuple[Exercise, ...] = (
    Exercise("13.1", "Warm up, then cool down", rate_of, _verify_rate, (
        (_from_zero, "would teach nothing"),
        (_no_warm_up, "begins at the peak"),
        (_stays, "stays at its peak"),
        (_cosine_from_the_start, "The cosine begins at step 0"),
        (_negative, "falls below 0"),
        (_quarter, "a quarter of a cosine"),
        (_line, "along a straight line"),
    )),
    Exercise("13.2", "Where to stop", where_to_stop, _verify_stop, (
        (_lowest_of_all, "nobody sees the rest"),
        (_no_patience, "it has no patience"),
        (_where_it_ends, "where the training ends"),
        (_against_the_one_before, "the best so far"),
        (_one_too_patient, "two that were no better"),
        (_equal_is_better, "equals the best"),
        (_the_loss_itself, "the number of a measurement"),
    )),
    Exercise("13.3", "Only the answers count", answers_loss, _verify_loss, (
        (_unshifted, "It predicts token i + 1"),
        (_counts_all, "leave them out of the mean"),
        (_unshifted_counts, "shift it together"),
        (_sums, "That is the sum"),
        (_divided_by_all, "divided by the number of all"),
        (_of_probabilities, "mean of probabilities"),
        (_wrong_sign, "The sign is wrong"),
        (_each, "one for each token"),
        (_without_gradient, "no gradient goes through"),
    )),
    Exercise("13.4", "One gradient from several parts", add_gradients, _verify_gradients, (
        (_adds_up, "each in full"),
        (_mean_of_means, "Each part has a third"),
        (_forgets, "Only the last part"),
        (_by_rows, "that of its rows"),
        (_at_once, "one after the other"),
        (_no_backward, "no gradient afterwards"),
    )),
)
