"""Exercises of chapter 13, training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from course_utils.exercises.answers import close, tensor, whole
from course_utils.exercises.answers import number as one_number
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.language import gettext
from course_utils.training.dataset import IGNORED
from course_utils.training.loop import next_token_loss

# ---- 13.1 ------------------------------------------------------------------------------------------------


def rate_of(step: int, peak: float, warm_up: int, steps: int) -> float:
    """The rate of a step, counted from 0: a straight line up, then half a cosine down."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    progress = (step - warm_up) / (steps - warm_up)  # 0 at the peak, 1 at the end
    return peak * (1 + math.cos(math.pi * progress)) / 2


# Peak, steps of warm-up, steps of the training. The last has no warm-up.
_PLANS = ((0.5, 10, 110), (0.006, 3, 8), (2.0, 1, 5), (0.5, 0, 6))


def _rates(answer: Answer) -> list[float]:
    """What an answer gives for every step of every training."""
    return [one_number(answer(step, *plan), "the rate, a number, in the warm-up and after it")
            for plan in _PLANS for step in range(plan[2])]


def _same_numbers(told: list[float], right: list[float]) -> bool:
    return all(math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-7) for one, other in zip(told, right, strict=True))


def _verify_rate(answer: Answer) -> str | None:
    with_warm_up = [one_number(answer(step, *plan), "the rate, a number, in the warm-up and after it")
                    for plan in _PLANS[:-1] for step in range(plan[2])]
    try:
        told = with_warm_up + [one_number(answer(step, *_PLANS[-1]), "the rate, a number")
                               for step in range(_PLANS[-1][2])]
    except ZeroDivisionError:
        return ("With warm_up 0 it divides by zero. A training may go without a warm-up: then no step is below "
                "`warm_up`, and nothing is to be divided by it.")
    right = _rates(rate_of)
    if _same_numbers(told, right):
        return None
    for slip, hint in _RATE_SLIPS:
        if _same_numbers(told, _rates(slip)):
            return hint
    if min(told) < 0:
        return "A rate is below 0 and would undo what was learned. Half a cosine goes from 1 to -1: bring it to 1 to 0."
    steps = [(step, plan) for plan in _PLANS for step in range(plan[2])]
    (step, (peak, warm_up, of)), given, known = next(
        case for case in zip(steps, told, right) if not _same_numbers([case[1]], [case[2]]))
    part = (gettext("in the warm-up, a straight line") if step < warm_up
            else gettext("after the warm-up, on half a cosine"))
    return gettext("With peak {peak}, {warm_up} steps of warm-up and {of} in all, step {step} has the rate {given:.7g}"
                   ", and {known:.7g} is right: it is {part}.").format(
        peak=peak, warm_up=warm_up, of=of, step=step, given=given, known=known, part=part)


def _from_zero(step: int, peak: float, warm_up: int, steps: int) -> float:
    return peak * step / warm_up if step < warm_up else rate_of(step, peak, warm_up, steps)


def _one_line_more(step: int, peak: float, warm_up: int, steps: int) -> float:
    return peak * (step + 1) / (warm_up + 1) if step < warm_up else rate_of(step, peak, warm_up, steps)


def _line_too_far(step: int, peak: float, warm_up: int, steps: int) -> float:
    return peak * (step + 1) / warm_up if warm_up and step <= warm_up else rate_of(step, peak, warm_up, steps)


def _no_warm_up(step: int, peak: float, warm_up: int, steps: int) -> float:
    return peak if step < warm_up else rate_of(step, peak, warm_up, steps)


def _all_cosine(step: int, peak: float, warm_up: int, steps: int) -> float:
    return rate_of(step, peak, 0, steps)


def _stays(step: int, peak: float, warm_up: int, steps: int) -> float:
    return rate_of(step, peak, warm_up, steps) if step < warm_up else peak


def _cosine_from_the_start(step: int, peak: float, warm_up: int, steps: int) -> float:
    return rate_of(step, peak, warm_up, steps) if step < warm_up else rate_of(step, peak, 0, steps)


def _share_of_the_peak(step: int, peak: float, warm_up: int, steps: int) -> float:
    return rate_of(step, 1.0, warm_up, steps)


def _falling(fall: Callable[[float], float], early: int = 0, late: int = 0) -> Answer:
    """The right warm-up, and another fall after it."""
    def rate(step: int, peak: float, warm_up: int, steps: int) -> float:
        if step < warm_up:
            return peak * (step + 1) / warm_up
        return peak * fall((step - warm_up + early) / (steps - warm_up - late))
    return rate


def _half_cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def _progress_of_all(step: int, peak: float, warm_up: int, steps: int) -> float:
    return (rate_of(step, peak, warm_up, steps) if step < warm_up
            else peak * _half_cosine((step - warm_up) / steps))


# What one may have computed instead, the likeliest slip first.
_RATE_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_from_zero, "The first step has the rate 0 and would teach nothing. The line goes through (step + 1) / warm_up."),
    (_no_warm_up, "The first step begins at the peak. Below `warm_up` steps the rate still rises."),
    (_all_cosine, "There is no warm-up: the cosine falls from the first step on. Below `warm_up` steps the rate "
                  "rises."),
    (_stays, "After the warm-up the rate stays at its peak. Let it fall along half a cosine."),
    (_cosine_from_the_start, "The cosine begins at step 0, so the rate jumps after the warm-up. Count its progress "
                             "from `warm_up` on."),
    (_progress_of_all, "The cosine does not come to its end, since its progress is divided by all steps. Divide by "
                       "those after the warm-up, steps - warm_up."),
    (_falling(_half_cosine, early=1), "The cosine is one step early: at step `warm_up` its progress is 0."),
    (_falling(_half_cosine, late=1), "The cosine is at 0 in the last step. It gets there at step `steps`, which is no "
                                     "longer made: divide by steps - warm_up."),
    (_line_too_far, "At step `warm_up` the line goes on, above the peak. Its last step is warm_up - 1: is it < or "
                    "<=?"),
    (_one_line_more, "The line comes to the peak one step late: step warm_up - 1 has it already, so divide by "
                     "warm_up."),
    (_falling(lambda progress: math.cos(math.pi * progress)), "The rate falls below 0 and would undo what was learned. "
                                                              "A cosine goes from 1 to -1: bring it to 1 to 0."),
    (_falling(lambda progress: math.cos(math.pi / 2 * progress)), "That is a quarter of a cosine. Half of one goes "
                                                                  "from 1 to -1, and shifted and scaled from 1 to 0."),
    (_falling(lambda progress: 1 - progress), "That falls along a straight line. A cosine falls slowly at first and at "
                                              "the end."),
    (_share_of_the_peak, "The rate rises to 1, whatever the peak: multiply by `peak`."),
)


def _by_a_table(step: int, peak: float, warm_up: int, steps: int) -> float:
    line = [peak * (number + 1) / warm_up for number in range(warm_up)]
    fall = peak * (0.5 + 0.5 * np.cos(np.linspace(0, np.pi, steps - warm_up + 1)))
    return float([*line, *fall][step])


def _squared(step: int, peak: float, warm_up: int, steps: int) -> float:
    return (peak / warm_up * (step + 1) if step < warm_up
            else peak * math.cos(math.pi / 2 * (step - warm_up) / (steps - warm_up)) ** 2)


_PROGRESS = "`progress = (step - warm_up) / (steps - warm_up)`"
_RATE = Exercise("13.1", "Warm up, then cool down", rate_of, _verify_rate, (
    *((slip, hint[:45]) for slip, hint in _RATE_SLIPS),
    (lambda step, peak, warm_up, steps: min((step + 1) / warm_up, 1) * rate_of(
        max(step, warm_up), peak, warm_up, steps), "divides by zero"),
    (lambda step, peak, warm_up, steps: rate_of(step, peak, 10, 110), "it is in the warm-up"),
    (lambda step, peak, warm_up, steps: rate_of(step, peak, warm_up, steps) - 0.1, "A rate is below 0"),
    (lambda step, peak, warm_up, steps: print(end=""), "returned None"),
), also_wrong=(
    lambda step, peak, warm_up, steps: rate_of(step + 1, peak, warm_up, steps),
    lambda step, peak, warm_up, steps: rate_of(step, 0.5, warm_up, steps),
    lambda step, peak, warm_up, steps: rate_of(step, peak, warm_up, steps) + 1e-4,
    _falling(lambda progress: (1 - progress) ** 2),
    _falling(lambda progress: (1 + math.cos(progress)) / 2),
), right=(
    lambda step, peak, warm_up, steps: torch.tensor(rate_of(step, peak, warm_up, steps)),
    lambda step, peak, warm_up, steps: (step + 1) / warm_up * peak if step + 1 <= warm_up else peak * (
        0.5 * np.cos(np.pi * (step - warm_up) / (steps - warm_up)) + 0.5),
    _by_a_table,
    _squared,
), equivalent={
    f"{_PROGRESS} to `progress = (warm_up - step) / (steps - warm_up)`": "The cosine is the same on both sides of 0.",
    f"{_PROGRESS} to `progress = (step - warm_up) / (warm_up - steps)`": "The cosine is the same on both sides of 0.",
})

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


# Losses and patience: ties, one loss alone, an end before the patience has run out, and a new best after some waiting.
_LOSSES: tuple[tuple[list[float], int], ...] = (
    ([5.0, 4.0, 3.0, 3.2, 3.1, 2.8, 3.0, 3.1, 3.2, 3.3, 2.0], 3),
    ([2.0, 2.1, 1.9], 2), ([2.0, 2.1, 2.2, 1.9], 2), ([3.0, 2.0, 2.4, 2.2, 2.3, 1.0], 3), ([2.0, 2.0, 2.0, 1.0], 2),
    ([1.5], 2), ([2.0, 1.0], 3), ([3.0, 2.0, 1.0], 2), ([3.0, 3.1, 2.9, 3.0, 2.0], 2), ([3.0, 2.0, 2.5], 2),
    ([4.0, 3.0, 3.5, 1.0], 1),
    ([6.0, 5.0, 5.5, 5.5, 4.0, 4.0, 4.5, 3.0, 3.5, 3.25, 3.125, 3.0, 2.0], 4),
)


def _verify_stop(answer: Answer) -> str | None:
    told = [whole(answer(list(losses), patience), "the number of a measurement, counted from 0")
            for losses, patience in _LOSSES]
    right = [where_to_stop(losses, patience) for losses, patience in _LOSSES]
    if told == right:
        return None
    for slip, hint in _STOP_SLIPS:
        if told == [slip(losses, patience) for losses, patience in _LOSSES]:
            return hint
    (losses, patience), given, known = next(case for case in zip(_LOSSES, told, right) if case[1] != case[2])
    ended = any(number >= known + patience for number in range(len(losses)))
    why = (gettext("the lowest loss before {patience} in a row were no better").format(patience=patience) if ended
           else gettext("the losses end before the patience does, so it is the lowest of them"))
    return gettext("For {losses} and a patience of {patience} it returns {given}, and {known} is right: {why}.").format(
        losses=losses, patience=patience, given=given, known=known, why=why)


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


def _never_reset(losses: list[float], patience: int) -> int:
    best = worse = 0
    for number in range(1, len(losses)):
        if losses[number] < losses[best]:
            best = number
        else:
            worse += 1
        if worse == patience:
            break
    return best


def _last_without_a_stop(losses: list[float], patience: int) -> int:
    best = where_to_stop(losses, patience)
    return best if best + patience < len(losses) else len(losses) - 1


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


# What one may have computed instead, the likeliest slip first.
_STOP_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_lowest_of_all, "That is the lowest of all. But the training ends once the patience has run out, and nobody sees "
                     "the rest."),
    (_no_patience, "It stops at the first loss that is no better than the best: it has no patience."),
    (_where_it_ends, "That is where the training ends. The weights to keep are those of the lowest loss so far."),
    (_never_reset, "All losses that were no better are counted together. Only so many in a row end it: after a new "
                   "best, count from 0 again."),
    (_against_the_one_before, "You compare a loss with the one before it. Compare each with the best so far: in [3.0, "
                              "2.0, 2.4, 2.2], 2.2 is still no better than 2.0."),
    (_last_without_a_stop, "Where the losses end before the patience does, you return the last one. The one to keep is "
                           "the lowest of them."),
    (_one_too_patient, "You wait for one loss more than the patience: for [2.0, 2.1, 2.2, 1.9] and a patience of 2, "
                       "two that were no better end it."),
    (_equal_is_better, "A loss that equals the best counts as better, and it is not: is it < or <=?"),
)


def _counting(losses: list[float], patience: int) -> int:
    best_loss, best, bad = float("inf"), 0, 0
    for number, loss in enumerate(losses):
        if loss < best_loss:
            best_loss, best, bad = loss, number, 0
        else:
            bad += 1
            if bad == patience:
                return best
    return best


def _looking_ahead(losses: list[float], patience: int) -> int:
    return next(number for number, loss in enumerate(losses)
                if all(other >= loss for other in losses[number + 1:number + 1 + patience])
                and all(other > loss for other in losses[:number]))


def _with_tensors(losses: list[float], patience: int) -> Tensor:
    seen = torch.tensor(losses[:1])
    for loss in losses[1:]:
        if len(seen) - 1 - int(seen.argmin()) >= patience:
            break
        seen = torch.cat((seen, torch.tensor([loss])))
    return seen.argmin()


def _with_numpy(losses: list[float], patience: int) -> Any:
    stop = next((end for end in range(len(losses)) if end - int(np.argmin(losses[:end + 1])) >= patience), len(losses))
    return np.argmin(losses[:stop + 1])


_STOP = Exercise("13.2", "Where to stop", where_to_stop, _verify_stop, (
    *((slip, hint[:40]) for slip, hint in _STOP_SLIPS),
    (_the_loss_itself, "the number of a measurement"),
    (lambda losses, patience: where_to_stop(losses, 3), "and 0 is right: the lowest"),
    (lambda losses, patience: print(end=""), "returned None"),
), also_wrong=(
    lambda losses, patience: where_to_stop(losses, patience) + 1,
    lambda losses, patience: where_to_stop(losses, max(patience - 1, 1)),
    lambda losses, patience: where_to_stop([round(loss) for loss in losses], patience),
    lambda losses, patience: where_to_stop(losses[:-1] or losses, patience),
    lambda losses, patience: where_to_stop(losses, patience) if len(losses) > patience else 0,
), right=(_counting, _looking_ahead, _with_tensors, _with_numpy))

# ---- 13.3 ------------------------------------------------------------------------------------------------


def answers_loss(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    """The mean loss of the tokens that count, in nats."""
    log_probabilities = logits[:-1].log_softmax(dim=-1)  # the last row predicts nothing that is known
    targets, counts = token_ids[1:], counts[1:]
    each = -log_probabilities[torch.arange(len(targets)), targets]
    return each[counts].mean()


def _loss_cases() -> list[tuple[Tensor, Tensor, Tensor]]:
    """Logits (t, v), ids (t,) and which of them count, (t,); the first token counts in the second and third."""
    generator = torch.Generator().manual_seed(13)
    made = []
    for vocab_size, counts in ((20, "000011011"), (7, "10010"), (12, "111"), (5, "000001")):
        logits = 2 * torch.randn(len(counts), vocab_size, generator=generator)
        token_ids = torch.randint(vocab_size, (len(counts),), generator=generator)
        token_ids[-1] = 0
        made.append((logits, token_ids, torch.tensor([count == "1" for count in counts])))
    return made


class _Noting(TorchFunctionMode):
    """Notes the names of PyTorch's functions that are called, however they were imported."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


def _verify_loss(answer: Answer) -> str | None:
    cases = _loss_cases()
    told = []
    for logits, token_ids, counts in cases:
        with _Noting() as noting:
            returned = answer(logits.clone(), token_ids.clone(), counts.clone())
        loss = tensor(returned, "the mean loss, a tensor with one number")
        if loss.numel() != 1:
            return gettext("It returns {loss} numbers for a text of {count} tokens. Return one, the "
                           "mean over those that count.").format(loss=loss.numel(), count=len(counts))
        if any("cross_entropy" in name for name in noting.names):
            return "It calls `cross_entropy`, and the task is to write that for yourself, with `log_softmax`."
        told.append(float(loss))
    right = [float(answers_loss(*case)) for case in cases]
    if _same_losses(told, right):
        return _judge_gradient(answer)
    for slip, hint in _LOSS_SLIPS:
        if _same_losses(told, [float(slip(*case)) for case in cases]):
            return hint
    (_, token_ids, counts), given, known = next(
        case for case in zip(cases, told, right) if not _same_losses([case[1]], [case[2]]))
    return gettext("For a text of {count} tokens of which those at {nonzero} count it returns "
                   "{given:.4f}, and {known:.4f} is right. Row i of the logits predicts token i + 1, and "
                   "nothing predicts the first.").format(
        count=len(counts), nonzero=counts.nonzero()[:, 0].tolist(), given=given, known=known)


def _same_losses(told: list[float], right: list[float]) -> bool:
    """Whether losses agree; where no token is left, both may be NaN."""
    return all(math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-5) or (math.isnan(one) and math.isnan(other))
               for one, other in zip(told, right, strict=True))


def _judge_gradient(answer: Answer) -> str | None:
    logits, token_ids, counts = _loss_cases()[0]
    gradients = []
    for one in (answers_loss, answer):
        leaf = logits.clone().requires_grad_()
        loss = one(leaf, token_ids.clone(), counts.clone())
        if not (isinstance(loss, Tensor) and loss.requires_grad):
            return "The number is right, but no gradient goes through it. Compute with tensors up to the end."
        gradients.append(torch.autograd.grad(loss.sum(), leaf, allow_unused=True)[0])
    if gradients[1] is None or not close(gradients[1], gradients[0], rtol=1e-4):
        return "The number is right, but its gradient is not. Compute with tensors up to the end, without detach()."
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


def _divided_with_the_first(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    return _sums(logits, token_ids, counts) / counts.sum()


def _in_bits(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    return answers_loss(logits, token_ids, counts) / math.log(2)


def _of_probabilities(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    probabilities = logits[:-1].softmax(dim=-1)
    return probabilities[torch.arange(len(token_ids) - 1), token_ids[1:]][counts[1:]].mean()


def _wrong_sign(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    return -answers_loss(logits, token_ids, counts)


def _each(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    return -logits[:-1].log_softmax(dim=-1)[torch.arange(len(token_ids) - 1), token_ids[1:]]


# What one may have computed instead, the likeliest slip first.
_LOSS_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_unshifted, "Row i of the logits is compared with token i, which the model has just read. It predicts token "
                 "i + 1."),
    (_wrong_sign, "The sign is wrong. The logarithm of a probability is never positive, and the loss is its negative."),
    (_counts_all, "All tokens count in it. Those where `counts` is False were only read: leave them out of the mean."),
    (_unshifted_counts, "The wrong tokens count: `counts` belongs to the tokens, so shift it together with the "
                        "targets."),
    (_sums, "That is the sum. Divide it by the number of tokens that count."),
    (_divided_by_all, "The right tokens are summed up and divided by the number of all. Divide by the number that "
                      "counts."),
    (_divided_with_the_first, "You divide by the number of all tokens that count, the first among them. Nothing "
                              "predicts the first, so it must make no difference whether it counts."),
    (_of_probabilities, "That is a mean of probabilities. Take the logarithm of each probability first."),
    (_in_bits, "That is in bits. The loss is in nats: take the natural logarithm, as log_softmax does."),
)


def _gathered(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    log_p = torch.log_softmax(logits, dim=1)
    picked = log_p[:-1].gather(1, token_ids[1:, None]).squeeze(1)
    weights = counts[1:].float()
    return -(picked * weights).sum() / weights.sum()


def _in_a_loop(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    losses = [torch.logsumexp(logits[place - 1], dim=0) - logits[place - 1, token_ids[place]]
              for place in range(1, len(token_ids)) if counts[place]]
    return sum(losses[1:], losses[0]) / len(losses)


def _with_nll(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    rows = logits.double().log_softmax(dim=-1)[:-1]
    return torch.nn.functional.nll_loss(rows[counts[1:]], token_ids[1:][counts[1:]])


def _by_one_hot(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    hot = torch.nn.functional.one_hot(token_ids[1:], logits.shape[1])[counts[1:]]
    return -(hot * logits[:-1][counts[1:]].softmax(-1).log()).sum(-1).mean().reshape(1)


def _by_cross_entropy(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits[:-1][counts[1:]], token_ids[1:][counts[1:]])


def _by_its_class(logits: Tensor, token_ids: Tensor, counts: Tensor) -> Tensor:
    return torch.nn.CrossEntropyLoss()(logits[:-1][counts[1:]], token_ids[1:][counts[1:]])


def _without_gradient(logits: Tensor, token_ids: Tensor, counts: Tensor) -> float:
    return answers_loss(logits, token_ids, counts).item()


_ROWS = "`log_probabilities = logits[:-1].log_softmax(dim=-1)`"
_LOSS = Exercise("13.3", "Only the answers count", answers_loss, _verify_loss, (
    *((slip, hint[:45]) for slip, hint in _LOSS_SLIPS),
    (_each, "the mean over those that count"),
    (_without_gradient, "no gradient goes through"),
    (lambda logits, token_ids, counts: answers_loss(logits, token_ids, counts) * 0 + answers_loss(
        logits, token_ids, counts).detach(), "its gradient is not"),
    (_by_cross_entropy, "It calls `cross_entropy`"),
    (lambda logits, token_ids, counts: answers_loss(logits, token_ids, counts) + 1,
     "predicts token i + 1, and nothing"),
    (lambda logits, token_ids, counts: print(end=""), "returned None"),
), also_wrong=(
    _by_its_class,
    lambda logits, token_ids, counts: answers_loss(logits, token_ids, ~counts),
    lambda logits, token_ids, counts: answers_loss(logits, token_ids.flip(0), counts),
    lambda logits, token_ids, counts: answers_loss(logits / 2, token_ids, counts),
    lambda logits, token_ids, counts: answers_loss(logits, token_ids, counts).exp(),
), right=(_gathered, _in_a_loop, _with_nll, _by_one_hot), equivalent={
    f"{_ROWS} to `log_probabilities = logits[:].log_softmax(dim=-1)`": "The last row is never picked.",
    f"{_ROWS} to `log_probabilities = logits[:-1].log_softmax(dim=1)`":
        "There are two dimensions, and the last one is number 1.",
}, refused={
    "NumPy": "A training needs a tensor through which a gradient goes.",
    "list for a tensor": "A training needs a tensor through which a gradient goes.",
})

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


def _parts(*rows: tuple[int, str]) -> list[tuple[Tensor, Tensor]]:
    """Parts of a batch; for each the number of texts, and which of their labels count."""
    generator = torch.Generator().manual_seed(4)
    parts = []
    for texts, counts in rows:
        token_ids = torch.randint(11, (texts, len(counts)), generator=generator)
        counted = torch.tensor([count == "1" for count in counts])
        parts.append((token_ids, token_ids.where(counted, IGNORED)))
    return parts


def _doubled_loss(model: torch.nn.Module, token_ids: Tensor, labels: Tensor) -> Tensor:
    return 2 * next_token_loss(model, token_ids, labels)


_Work = tuple[list[tuple[Tensor, Tensor]], Callable[..., Tensor]]


def _work() -> list[_Work]:
    """Parts and a loss: 2, 8 and 6 labels count; then 4 and 1. In some the first column has a label, too."""
    return [(_parts((1, "0000011"), (2, "1011101"), (1, "1111111")), next_token_loss),
            (_parts((2, "1110"), (1, "001000")), _doubled_loss)]


def _events_of(model: _Bigrams) -> list[str]:
    """A list to which "forward" is added as often as the model is called, and "backward" as a gradient is computed."""
    events: list[str] = []
    model.register_forward_pre_hook(lambda *_: events.append("forward"))
    model.table.register_hook(lambda _: events.append("backward"))
    return events


def _counted(labels: Tensor) -> int:
    return int((labels[:, 1:] != IGNORED).sum())


def _gradient_of(work: _Work, shares: list[float]) -> Tensor:
    model, (parts, loss) = _Bigrams(), work
    torch.stack([loss(model, *part) * share for part, share in zip(parts, shares)]).sum().backward()
    assert model.table.grad is not None
    return model.table.grad


def _shares(parts: list[tuple[Tensor, Tensor]]) -> list[float]:
    counted = [_counted(labels) for _, labels in parts]
    return [count / sum(counted) for count in counted]


def _verify_gradients(answer: Answer) -> str | None:
    works = _work()
    gradients: list[Tensor] = []
    for parts, loss in works:
        model = _Bigrams()
        before, events = model.table.detach().clone(), _events_of(model)
        answer(model, [(token_ids.clone(), labels.clone()) for token_ids, labels in parts], loss)
        if model.table.grad is None:
            return "The parameters have no gradient afterwards. Call backward() on the loss of each part."
        if model.rows_at_once > max(len(token_ids) for token_ids, _ in parts):
            return ("All parts went through the model at once, which takes the memory of all. Compute one after the "
                    "other.")
        if ("forward", "forward") in itertools.pairwise(events):
            return ("Several losses are computed before the first backward(), so that all of them wait in memory. Call "
                    "backward() for one part before the next goes through the model.")
        if not torch.equal(before, model.table.detach()):
            return "The weights have been changed. Leave the gradient in the parameters, and make no update."
        gradients.append(model.table.grad.clone())

    def like(shares: Callable[[list[tuple[Tensor, Tensor]]], list[float]]) -> bool:
        return all(close(gradient, _gradient_of(work, shares(work[0])), atol=1e-5)
                   for gradient, work in zip(gradients, works))

    if like(_shares):
        return None
    for shares, hint in _GRADIENT_SLIPS:
        if like(shares):
            return hint
    return "The gradient is not that of the mean over all tokens that count. Multiply each part's loss by its share."


def _as_shares(sizes: list[int]) -> list[float]:
    return [size / sum(sizes) for size in sizes]


# By which shares one may have added the parts up instead, the likeliest slip first.
_GRADIENT_SLIPS: tuple[tuple[Callable[[list[tuple[Tensor, Tensor]]], list[float]], str], ...] = (
    (lambda parts: [1.0] * len(parts),
     "The gradients of the parts are added up, each in full: the sum is too long. Give each part its share."),
    (lambda parts: [1 / len(parts)] * len(parts),
     "Each part has the same share, though 2 tokens count in the first and more in the second: a token of the first "
     "weighs more. A part's share is that of its tokens."),
    (lambda parts: [0.0] * (len(parts) - 1) + [1.0], "Only the last part is left: something deletes the gradient "
                                                     "between the parts. Let backward() add it up."),
    (lambda parts: [0.0] * (len(parts) - 1) + _shares(parts)[-1:],
     "Only the last part is left, with its share: something deletes the gradient between the parts. Let backward() "
     "add it up."),
    (lambda parts: _as_shares([int((labels != IGNORED).sum()) for _, labels in parts]),
     "You count the first column of the labels, too, and it is never predicted: count in labels[:, 1:]."),
    (lambda parts: _as_shares([len(token_ids) for token_ids, _ in parts]),
     "The share of each part is that of its rows, and not all of their tokens count. Count the labels."),
    (lambda parts: _as_shares([token_ids.numel() for token_ids, _ in parts]),
     "The share of each part is that of all its tokens. Leave out those whose label is -100."),
    (lambda parts: _as_shares([token_ids[:, 1:].numel() for token_ids, _ in parts]),
     "The share of each part is that of all tokens that are predicted. Leave out those whose label is -100."),
    (lambda parts: [float(_counted(labels)) for _, labels in parts],
     "Each part's loss is multiplied by its number of tokens: divide by that of all parts together."),
)


def _forgets(model: torch.nn.Module, parts: list[tuple[Tensor, Tensor]], loss: Callable[..., Tensor]) -> None:
    for token_ids, labels in parts:
        model.zero_grad()
        loss(model, token_ids, labels).backward()


def _at_once(model: torch.nn.Module, parts: list[tuple[Tensor, Tensor]], loss: Callable[..., Tensor]) -> None:
    token_ids, labels = (torch.cat(tensors) for tensors in zip(*parts))
    loss(model, token_ids, labels).backward()


def _no_backward(model: torch.nn.Module, parts: list[tuple[Tensor, Tensor]], loss: Callable[..., Tensor]) -> None:
    for token_ids, labels in parts:
        loss(model, token_ids, labels)


def _adding(shares: Callable[[list[tuple[Tensor, Tensor]]], list[float]]) -> Answer:
    """One part after the other, with these shares."""
    def add(model: torch.nn.Module, parts: list[tuple[Tensor, Tensor]], loss: Callable[..., Tensor]) -> None:
        for (token_ids, labels), share in zip(parts, shares(parts)):
            (loss(model, token_ids, labels) * share).backward()
    return add


def _one_backward(model: torch.nn.Module, parts: list[tuple[Tensor, Tensor]], loss: Callable[..., Tensor]) -> None:
    shares = _shares(parts)
    torch.stack([loss(model, *part) * share for part, share in zip(parts, shares)]).sum().backward()


def _updates(model: torch.nn.Module, parts: list[tuple[Tensor, Tensor]], loss: Callable[..., Tensor]) -> None:
    add_gradients(model, parts, loss)
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def _updates_on_the_way(model: torch.nn.Module, parts: list[tuple[Tensor, Tensor]],
                        loss: Callable[..., Tensor]) -> None:
    for (token_ids, labels), share in zip(parts, _shares(parts)):
        (loss(model, token_ids, labels) * share).backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()


def _divided_at_the_end(model: torch.nn.Module, parts: list[tuple[Tensor, Tensor]],
                        loss: Callable[..., Tensor]) -> None:
    total = 0
    for token_ids, labels in parts:
        count = _counted(labels)
        (loss(model, token_ids, labels) * count).backward()
        total += count
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad /= total


def _collected(model: torch.nn.Module, parts: list[tuple[Tensor, Tensor]], loss: Callable[..., Tensor]) -> None:
    parameters = list(model.parameters())
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for (token_ids, labels), share in zip(parts, _shares(parts)):
        for so_far, gradient in zip(sums, torch.autograd.grad(loss(model, token_ids, labels), parameters)):
            so_far += gradient * share
    for parameter, gradient in zip(parameters, sums):
        parameter.grad = gradient


def _by_weights(model: torch.nn.Module, parts: list[tuple[Tensor, Tensor]], loss: Callable[..., Tensor]) -> None:
    counts = np.array([(labels.numpy()[:, 1:] != -100).sum() for _, labels in parts])
    for (token_ids, labels), weight in zip(parts, counts / counts.sum()):
        loss(model, token_ids=token_ids, labels=labels).backward(gradient=torch.tensor(weight, dtype=torch.float32))


_GRADIENTS = Exercise("13.4", "One gradient from several parts", add_gradients, _verify_gradients, (
    *((_adding(shares), hint[:50]) for shares, hint in _GRADIENT_SLIPS),
    (_at_once, "one after the other"),
    (_one_backward, "before the first backward()"),
    (_updates, "have been changed"),
    (_no_backward, "no gradient afterwards"),
    (lambda model, parts, loss: add_gradients(model, parts[1:], loss), "Multiply each part's loss"),
), also_wrong=(
    _forgets,
    _updates_on_the_way,
    lambda model, parts, loss: add_gradients(model, parts, next_token_loss),
    lambda model, parts, loss: add_gradients(model, parts[:-1], loss),
    lambda model, parts, loss: add_gradients(model, [*parts, *parts], lambda *args: 2 * loss(*args)),
), right=(_divided_at_the_end, _collected, _by_weights, _adding(_shares)))

EXERCISES: tuple[Exercise, ...] = (_RATE, _STOP, _LOSS, _GRADIENTS)
