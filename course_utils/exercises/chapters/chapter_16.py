"""Exercises of chapter 16, below PyTorch: a streamed softmax, groups, nibbles, a kernel's limit, several vectors."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_utils.exercises.answers import close, items, number, tensor
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.language import gettext

# ---- 16.1 ------------------------------------------------------------------------------------------------


def streamed_attention(pairs: Iterable[tuple[float, Tensor]]) -> Tensor:
    largest, total, weighted = -math.inf, 0.0, torch.zeros(1)
    for score, value in pairs:
        new_largest = max(largest, score)
        shrink, weight = math.exp(largest - new_largest), math.exp(score - new_largest)
        total = total * shrink + weight
        weighted = weighted * shrink + value * weight
        largest = new_largest
    return weighted / total


_MOST_KEPT = 4  # values that are alive at a time: one in the stream, one in the loop, and some to spare


def _rows_of_scores() -> list[tuple[list[float], Tensor]]:
    """Scores and values: mixed, rising, falling, one alone, and so large, small or far apart that exp fails."""
    generator = torch.Generator().manual_seed(16)
    rows = ([0.5, 2.0, -1.0, 2.0, 0.25, 3.5], [-3 + 0.5 * n for n in range(12)], [4 - 0.75 * n for n in range(12)],
            [2.5], [1000.0, 1001.0, 999.5, 1001.5], [-1000.0, -1001.0, -1000.5], [0.0, 0.0, 60.0, 59.0],
            [900.0, 10.0, 20.0])
    return [(row, torch.randn(len(row), 2 + place, generator=generator)) for place, row in enumerate(rows)]


def _pairs(scores: list[float], values: Tensor, alive: list[int]) -> Iterator[tuple[float, Tensor]]:
    """A stream of pairs that notes how many of the values it has handed out are still held."""
    handed_out: list[weakref.ref[Tensor]] = []
    for score, value in zip(scores, values):
        own = value.clone()
        handed_out.append(weakref.ref(own))
        yield score, own
        alive.append(sum(kept() is not None for kept in handed_out))


def _averages(answer: Answer, alive: list[int] | None = None) -> list[Any]:
    return [answer(_pairs(scores, values, [] if alive is None else alive)) for scores, values in _rows_of_scores()]


def _verify_stream(answer: Answer) -> str | None:
    alive: list[int] = []
    try:
        returned = _averages(answer, alive)
    except OverflowError:
        return ("The scores of a row go up to 1001, and exp of that is too large for a float. Subtract the largest "
                "score so far first, so that exp never gets anything above 0.")
    except ZeroDivisionError:
        return ("It divides by 0. If it has looked for the largest score first, nothing was left for a second loop: "
                "the stream can be gone through only once.")
    told = [tensor(each, "one vector, the average of the values") for each in returned]
    right = [scores.softmax(0) @ values for scores, values in
             ((torch.tensor(scores), values) for scores, values in _rows_of_scores())]
    if all(map(_equal, told, right)):
        if max(alive) > _MOST_KEPT:
            return gettext("The average is right, but at one moment {most} values are held. Add each to a weighted sum "
                           "and let it go: there may be more of them than fit into memory.").format(most=max(alive))
        return None
    for slip, hint in _STREAM_SLIPS:
        if all(map(_equal, told, _averages(slip))):
            return hint
    at = next(at for at, average in enumerate(told) if not _equal(average, right[at]))
    return gettext("For the scores {scores} it returns {told}, and {right} is right. Look at what happens to the sum "
                   "and to the weighted sum when a larger score comes.").format(
        scores=_rows_of_scores()[at][0], told=_short(told[at]), right=_short(right[at]))


def _equal(given: Tensor, expected: Tensor) -> bool:
    """Agreement up to rounding; where both are no numbers, too."""
    if given.shape != expected.shape:
        return False
    return torch.allclose(given.double(), expected.double(), rtol=1e-4, atol=1e-5, equal_nan=True)


def _short(vector: Tensor) -> list[float]:
    return [round(each, 3) for each in vector.flatten()[:3].tolist()]


def _recurrence(first: Callable[[float, float], float] = lambda old, new: math.exp(old - new),
                second: Callable[[float, float], float] = lambda old, new: math.exp(old - new),
                divide: bool = True) -> Answer:
    """The recurrence, whose sum and weighted sum shrink as given when the largest score goes from old to new."""
    def answer(pairs: Iterable[tuple[float, Tensor]]) -> Tensor:
        largest, total, weighted = -math.inf, 0.0, torch.zeros(1)
        for score, value in pairs:
            new = max(largest, score)
            if total:
                total, weighted = total * first(largest, new), weighted * second(largest, new)
            total, weighted, largest = total + math.exp(score - new), weighted + math.exp(score - new) * value, new
        return weighted / total if divide else weighted
    return answer


def _of_all(average: Callable[[Tensor, Tensor], Tensor]) -> Answer:
    """An answer that looks at all pairs together."""
    def answer(pairs: Iterable[tuple[float, Tensor]]) -> Tensor:
        scores, values = zip(*pairs)
        return average(torch.tensor(scores), torch.stack(values))
    return answer


def _without_the_largest(pairs: Iterable[tuple[float, Tensor]]) -> Tensor:
    total, weighted = torch.zeros(1), torch.zeros(1)
    for score, value in pairs:
        weight = torch.tensor(score).exp()
        total, weighted = total + weight, weighted + weight * value
    return weighted / total


def _never(_old: float, _new: float) -> float:
    return 1.0


# What one may have computed instead, the likeliest slip first.
_STREAM_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_recurrence(_never, _never), "When a larger score comes, what was added up so far belongs to the old largest one. "
                                  "Multiply both sums by exp(old largest - new largest) first."),
    (_recurrence(second=_never), "The sum shrinks when a larger score comes, and the weighted sum does not. It was "
                                 "built with the same weights: multiply it by the same factor."),
    (_recurrence(first=_never), "The weighted sum shrinks when a larger score comes, and the sum of the weights does "
                                "not: multiply it by the same factor."),
    (_recurrence(divide=False), "That is the weighted sum. The shares add up to 1 only after it is divided by the sum "
                                "of the weights."),
    (_without_the_largest, "With scores of 1000 exp is infinite, with -1000 it is 0. Subtract the largest score so "
                           "far before exp."),
    (_recurrence(lambda old, new: math.exp(min(new - old, 700)), lambda old, new: math.exp(min(new - old, 700))),
     "The factor is turned round: when a larger score comes, old weights get smaller, exp(old largest - new largest)."),
    (_of_all(lambda scores, values: values.mean(0)), "All values count the same. Each counts by the share that "
                                                     "softmax gives its score."),
    (_of_all(lambda scores, values: values[scores.argmax()]), "That is the value of the largest score. The others "
                                                              "count, too, by their shares."),
    (_of_all(lambda scores, values: scores @ values), "The values are weighted by the scores themselves. Take their "
                                                      "exponentials, and divide by the sum of these."),
    (_of_all(lambda scores, values: values[0]), "That is the first value. The loop has to go on to the end of the "
                                                "stream before it returns."),
    (_of_all(lambda scores, values: values[-1]), "That is the last value. Add to what is there, weighted, instead of "
                                                 "putting each in its place."),
)


def _running_average(pairs: Iterable[tuple[float, Tensor]]) -> Any:
    total, largest, average = 0.0, -math.inf, None
    for score, value in pairs:
        if score > largest:
            total, largest = total * math.exp(largest - score), score
        total += math.exp(score - largest)
        average = value.clone() if average is None else average + (value - average) * math.exp(score - largest) / total
    return average


def _with_logarithms(pairs: Iterable[tuple[float, Tensor]]) -> Any:
    log_total: Any = -np.inf
    average: Any = 0.0
    for score, value in pairs:
        new = np.logaddexp(log_total, score)
        average = average * np.exp(log_total - new) + np.exp(score - new) * value.double().numpy()
        log_total = new
    return average


def _as_lists(pairs: Iterable[tuple[float, Tensor]]) -> list[float]:
    largest, total = -math.inf, 0.0
    sums: list[float] = []
    for score, value in pairs:
        numbers = value.tolist()
        sums = sums or [0.0] * len(numbers)
        if score > largest:
            shrink, largest = math.exp(largest - score), score
            total, sums = total * shrink, [each * shrink for each in sums]
        weight = math.exp(score - largest)
        total, sums = total + weight, [each + weight * one for each, one in zip(sums, numbers)]
    return [each / total for each in sums]


def _in_two_passes(pairs: Iterable[tuple[float, Tensor]]) -> Any:
    largest = max(score for score, _ in pairs)
    weights = [math.exp(score - largest) for score, _ in pairs]
    return sum(weights) / sum(weights)


def _too_large(pairs: Iterable[tuple[float, Tensor]]) -> Any:
    sums = [(math.exp(score), math.exp(score) * value) for score, value in pairs]
    return sum(value for _, value in sums) / sum(weight for weight, _ in sums)


_START = "largest, total, weighted = (-math.inf, {}, {})"
_NOTHING_LEFT = "Whatever the sums are at first is multiplied by exp(-inf), which is 0."
_STREAM = Exercise("16.1", "Attention over a stream", streamed_attention, _verify_stream, (
    *((slip, hint[:50]) for slip, hint in _STREAM_SLIPS),
    (_of_all(lambda scores, values: scores.softmax(0) @ values), "values are held"),
    (_in_two_passes, "only once"),
    (_too_large, "too large for a float"),
    (_of_all(lambda scores, values: scores.softmax(0)[:, None] * values), "For the scores"),
    (lambda pairs: print(end=""), "returned None"),
), also_wrong=(
    _of_all(lambda scores, values: scores.sigmoid() @ values / scores.sigmoid().sum()),
    _of_all(lambda scores, values: (scores / 2).softmax(0) @ values),
    _of_all(lambda scores, values: scores.softmax(0) @ values.flip(0)),
    _of_all(lambda scores, values: (scores.softmax(0) @ values).sum()),
), right=(_running_average, _with_logarithms, _as_lists, lambda pairs: streamed_attention(pairs).double().numpy()),
    equivalent={f"`{_START.format('0.0', 'torch.zeros(1)')}` to `{_START.format(total, weighted)}`": _NOTHING_LEFT
                for total, weighted in (("torch.zeros(1)", "0.0"), ("0.25", "torch.zeros(1)"))})

# ---- 16.2 -------------------------------------------------------------------------------------------------


def quantize_groups(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    groups = weight.view(weight.shape[0], -1, group_size)
    offsets, largest = groups.aminmax(dim=-1)
    # A group whose weights are all equal has no distance to divide by.
    scales = ((largest - offsets) / 15).clamp(min=1e-8)
    integers = ((groups - offsets[..., None]) / scales[..., None]).round().to(torch.uint8)
    return integers.view_as(weight), scales, offsets


Parts = tuple[Tensor, Tensor, Tensor]


def _matrices() -> tuple[tuple[Tensor, int], ...]:
    """Matrices and sizes of their groups; some groups have equal weights, some only positive ones, some are tiny."""
    generator = torch.Generator().manual_seed(7)
    large = torch.randn(64, 96, generator=generator)
    large[2, 40] = 30.0
    large[4, 32:64] = 0.0
    small = torch.randn(3, 8, generator=generator)
    small[1, 4:] = -0.75
    return ((large, 32), (small, 4), (1e-3 * torch.randn(2, 15, generator=generator) + 0.01, 5),
            (torch.randn(5, 6, generator=generator).abs() + 1, 6))


def _verify_groups(answer: Answer) -> str | None:
    told = []
    for weight, group_size in _matrices():
        returned = answer(weight.clone(), group_size)
        asked = "three tensors: the small integers, the scales and the offsets"
        integers, scales, offsets = (tensor(part, asked) for part in items(returned, asked, 3))
        if integers.dtype != torch.uint8:
            return gettext("The integers are stored as {dtype}. Round them, then use "
                           ".to(torch.uint8).").format(dtype=integers.dtype)
        told.append((integers, scales, offsets))
    for slip, hint in _GROUP_SLIPS:
        if all(all(map(close, parts, slip(*matrix))) for parts, matrix in zip(told, _matrices())):
            return hint
    for parts, (weight, group_size) in zip(told, _matrices()):
        if remark := _judge_groups(parts, weight, group_size):
            return remark
    return None


def _judge_groups(parts: Parts, weight: Tensor, group_size: int) -> str | None:
    integers, scales, offsets = parts
    rows, columns = weight.shape
    size = (rows, columns // group_size)
    if integers.shape != weight.shape:
        return gettext("The integers have shape {shape}; they need that of the weight, {right}.").format(
            shape=tuple(integers.shape), right=tuple(weight.shape))
    if scales.shape != size or offsets.shape != size:
        return gettext("Scales and offsets have the shapes {shape} and {right}. A row of {columns} has {size} groups "
                       "of {group_size}, each with a scale and an offset of its own: {groups}.").format(
            shape=tuple(scales.shape), right=tuple(offsets.shape), columns=columns, size=size[1],
            group_size=group_size, groups=size)
    groups = weight.view(*size, group_size)
    smallest, largest = groups.aminmax(dim=-1)
    if not close(offsets, smallest):
        return "The offset of a group is its smallest weight: that one becomes the integer 0."
    varied, integers = largest > smallest, integers.view(*size, group_size)
    if not close(scales[varied], ((largest - smallest) / 15)[varied], rtol=1e-3, atol=0):
        return ("The scale of a group is the distance from its smallest to its largest weight, divided by 15, however "
                "small that is: the largest becomes 15, the most that four bits hold.")
    exact = ((groups - smallest[..., None]) / ((largest - smallest) / 15)[..., None])[varied]
    if (integers[varied].amin(dim=-1) != 0).any() or (integers[varied].amax(dim=-1) != 15).any():
        return ("In some group the smallest weight does not become 0, or the largest not 15. Subtract the offset "
                "first, then divide by the scale.")
    if ((integers[varied] - exact).abs() > 0.501).any():
        return ("Some integers are off by more than half a step. "
                "Round to the nearest integer before .to(torch.uint8) cuts.")
    if not torch.isfinite(scales).all() or (integers[~varied] != 0).any():
        return ("In a group whose weights are all equal the integers are 0 and the offset says the rest: "
                "keep its scale above 0, for example with .clamp(min=1e-8).")
    return None


def _parts(groups: Tensor, scales: Tensor, offsets: Tensor, weight: Tensor) -> Parts:
    integers = ((groups - offsets[..., None]) / scales[..., None]).round().clamp(0, 15).to(torch.uint8)
    return integers.view_as(weight), scales, offsets


def _cut_off(weight: Tensor, group_size: int) -> Parts:
    _, scales, offsets = quantize_groups(weight, group_size)
    groups = weight.view(weight.shape[0], -1, group_size)
    integers = ((groups - offsets[..., None]) / scales[..., None]).to(torch.uint8)
    return integers.view_as(weight), scales, offsets


def _around_zero(weight: Tensor, group_size: int) -> Parts:
    groups = weight.view(weight.shape[0], -1, group_size)
    scales = (groups.abs().amax(dim=-1) / 7).clamp(min=1e-8)
    return _parts(groups, scales, -7 * scales, weight)


def _divided_by_sixteen(weight: Tensor, group_size: int) -> Parts:
    _, scales, offsets = quantize_groups(weight, group_size)
    return _parts(weight.view(weight.shape[0], -1, group_size), (scales * 15 / 16).clamp(min=1e-8), offsets, weight)


def _every_other_weight(weight: Tensor, group_size: int) -> Parts:
    """Groups of weights that do not stand side by side."""
    groups = weight.view(weight.shape[0], group_size, -1).transpose(1, 2)
    offsets, largest = groups.aminmax(dim=-1)
    scales = ((largest - offsets) / 15).clamp(min=1e-8)
    integers, *_ = _parts(groups, scales, offsets, groups.contiguous())
    return integers.transpose(1, 2).reshape(weight.shape), scales, offsets


def _without_offset(weight: Tensor, group_size: int) -> Parts:
    _, scales, offsets = quantize_groups(weight, group_size)
    integers, *_ = _parts(weight.view(weight.shape[0], -1, group_size), scales, torch.zeros_like(offsets), weight)
    return integers, scales, offsets


def _down_the_columns(weight: Tensor, group_size: int) -> Parts:
    columns = weight.repeat(group_size, 1).T.contiguous()  # so that every matrix has whole groups
    integers, scales, offsets = quantize_groups(columns, group_size)
    return integers.T[:len(weight)], scales.T, offsets.T


def _scale_per_row(weight: Tensor, group_size: int) -> Parts:
    return quantize_groups(weight, weight.shape[1])


def _large_least_scale(weight: Tensor, group_size: int) -> Parts:
    _, scales, offsets = quantize_groups(weight, group_size)
    return _parts(weight.view(weight.shape[0], -1, group_size), scales.clamp(min=1e-3), offsets, weight)


def _no_number_for_equal_ones(weight: Tensor, group_size: int) -> Parts:
    integers, scales, offsets = quantize_groups(weight, group_size)
    return integers, scales.where(scales > 1e-8, math.nan), offsets


# What one may have returned instead, the likeliest slip first.
_GROUP_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_scale_per_row, "There is one scale for each row. Each run of group_size weights in a row has a scale and an "
                     "offset of its own."),
    (_every_other_weight, "Your groups are made of weights that do not stand side by side. The groups of a row come "
                          "one after another: weight.view(rows, -1, group_size)."),
    (_cut_off, "The integers are cut, and not rounded: .to(torch.uint8) cuts, so .round() comes before it."),
    (_without_offset, "The weights are divided by the scale as they are. Subtract the offset first, so that the "
                      "smallest becomes 0."),
    (_divided_by_sixteen, "The scale divides the distance by 16. From 0 to 15 there are 15 steps."),
    (_around_zero, "The integers lie around zero, as in int8. Here the offset is the smallest weight, which "
                   "becomes 0."),
    (_large_least_scale, "The least scale that you allow is too large: it is larger than some groups need. Take one "
                         "far below all real ones, such as 1e-8."),
)


def _in_rows(weight: Tensor, group_size: int) -> list[Any]:
    integers = torch.zeros_like(weight, dtype=torch.uint8)
    scales = torch.zeros(len(weight), weight.shape[1] // group_size)
    offsets = torch.zeros_like(scales)
    for row, weights in enumerate(weight.double()):
        for place, group in enumerate(weights.split(group_size)):
            scale = (group.max() - group.min()) / 15
            if scale > 0:
                first = place * group_size
                integers[row, first:first + group_size] = ((group - group.min()) / scale).round().to(torch.uint8)
            scales[row, place], offsets[row, place] = scale, group.min()
    return [integers, scales, offsets]


def _unfolded(weight: Tensor, group_size: int) -> Any:
    groups = weight.unfold(1, group_size, group_size)
    low, high = groups.amin(-1), groups.amax(-1)
    scale = torch.where(high > low, (high - low) / 15, torch.ones_like(low))
    return torch.floor((groups - low.unsqueeze(-1)) / scale.unsqueeze(-1) + 0.5).byte().flatten(1), scale, low


def _groups_with_numpy(weight: Tensor, group_size: int) -> Any:
    groups = weight.numpy().reshape(len(weight), -1, group_size)
    low = groups.min(axis=-1)
    scale = np.maximum(np.ptp(groups, axis=-1) / 15, 1e-12)
    return np.rint((groups - low[..., None]) / scale[..., None]).astype(np.uint8).reshape(weight.shape), scale, low


_GROUPS = Exercise("16.2", "Four bits in groups", quantize_groups, _verify_groups, (
    *((slip, hint[:40]) for slip, hint in _GROUP_SLIPS),
    (_down_the_columns, "A row of 96 has 3 groups"),
    (lambda weight, group_size: (quantize_groups(weight, group_size)[0].float(),
                                 *quantize_groups(weight, group_size)[1:]), "The integers are stored as"),
    (lambda weight, group_size: (quantize_groups(weight, group_size)[0].view(-1, group_size),
                                 *quantize_groups(weight, group_size)[1:]), "The integers have shape"),
    (lambda weight, group_size: (quantize_groups(weight, group_size)[0], quantize_groups(weight, group_size)[1],
                                 -quantize_groups(weight, group_size)[2]), "The offset of a group"),
    (lambda weight, group_size: (quantize_groups(weight, group_size)[0], 1 / quantize_groups(weight, group_size)[1],
                                 quantize_groups(weight, group_size)[2]), "however small that is"),
    (lambda weight, group_size: (15 - quantize_groups(weight, group_size)[0],
                                 *quantize_groups(weight, group_size)[1:]), "more than half a step"),
    (lambda weight, group_size: (quantize_groups(weight, group_size)[0].clamp(max=14),
                                 *quantize_groups(weight, group_size)[1:]), "Subtract the offset first, then"),
    (_no_number_for_equal_ones, "all equal"),
    (lambda weight, group_size: quantize_groups(weight, group_size)[:2], "2 entries"),
    (lambda weight, group_size: print(end=""), "returned None"),
), also_wrong=(
    lambda weight, group_size: quantize_groups(weight, 32 if weight.shape[1] == 96 else weight.shape[1]),
    lambda weight, group_size: quantize_groups(weight.abs(), group_size),
    lambda weight, group_size: quantize_groups(weight, group_size)[::-1],
    lambda weight, group_size: quantize_groups(weight.round(decimals=1), group_size),
), right=(
    _in_rows,
    _unfolded,
    _groups_with_numpy,
    lambda weight, group_size: list(quantize_groups(weight=weight, group_size=group_size)),
), equivalent={
    "`scales = ((largest - offsets) / 15).clamp(min=1e-08)` to `scales = (largest - offsets) / 15`":
        "A scale of 0 will do where the integers are 0, too, and 0 / 0 becomes 0 as a byte.",
}, refused={
    "list for a tensor": "The task wants the integers in torch.uint8, which a list does not say.",
})

# ---- 16.3 ------------------------------------------------------------------------------------------------


def pack_nibbles(integers: Tensor) -> Tensor:
    return integers[:, ::2] | integers[:, 1::2] << 4


def _nibbles() -> list[Tensor]:
    """Matrices of numbers from 0 to 15, of different sizes; the last holds every pair of neighbours."""
    generator = torch.Generator().manual_seed(16)
    every_pair = torch.cartesian_prod(torch.arange(16), torch.arange(16)).to(torch.uint8)
    return [torch.tensor([[5, 11]], dtype=torch.uint8),
            torch.randint(16, (3, 8), dtype=torch.uint8, generator=generator),
            torch.randint(16, (6, 4), dtype=torch.uint8, generator=generator), every_pair.view(8, 64)]


def _verify_nibbles(answer: Answer) -> str | None:
    told = []
    for integers in _nibbles():
        given = integers.clone()
        packed = tensor(answer(given), "one tensor of bytes, torch.uint8")
        if not torch.equal(given, integers):
            return "It changes the integers that it was given, which others still need: work on new tensors."
        told.append(packed)
    if any(packed.dtype != torch.uint8 for packed in told):
        return gettext("It returns numbers of the type {dtype}, which take more room than before. Return bytes, "
                       "torch.uint8.").format(dtype=told[0].dtype)
    right = list(map(pack_nibbles, _nibbles()))
    if all(map(torch.equal, told, right)):
        return None
    for slip, hint in _NIBBLE_SLIPS:
        if all(map(torch.equal, told, map(slip, _nibbles()))):
            return hint
    at = next(at for at, packed in enumerate(told) if not torch.equal(packed, right[at]))
    if told[at].shape != right[at].shape:
        return gettext("A matrix of shape {given} becomes one of {told}; two neighbours in a row share a byte, so it "
                       "is {right}.").format(given=tuple(_nibbles()[at].shape), told=tuple(told[at].shape),
                                             right=tuple(right[at].shape))
    place = int((told[at] != right[at]).flatten().nonzero()[0])
    first, second = _nibbles()[at].flatten()[2 * place:2 * place + 2].tolist()
    return gettext("The neighbours {first} and {second} become {told}, and {right} is right: the first in the lower "
                   "half, the second 16 times as much.").format(
        first=first, second=second, told=int(told[at].flatten()[place]), right=int(right[at].flatten()[place]))


# What one may have computed instead, the likeliest slip first.
_NIBBLE_SLIPS: tuple[tuple[Answer, str], ...] = (
    (lambda integers: integers[:, 1::2] | integers[:, 0::2] << 4,
     "The halves are exchanged: the first of two neighbours is the lower half, as it is, and the second is shifted."),
    (lambda integers: integers[:, 0::2] | integers[:, 1::2],
     "Both numbers are in the lower half, one over the other. Shift the second by 4 bits first."),
    (lambda integers: integers[:, 0::2] + integers[:, 1::2],
     "The two numbers are added up, and nobody can take a sum apart. Shift the second by 4 bits first."),
    (lambda integers: integers[:, :integers.shape[1] // 2] | integers[:, integers.shape[1] // 2:] << 4,
     "The first half of a row shares its bytes with the second half. Here neighbours share one: columns 0 and 1, 2 "
     "and 3."),
    (lambda integers: integers[:, 0::2] | integers[:, 1::2] << 3,
     "The second number is shifted by 3 bits, so that it meets the first. Four bits hold 0 to 15."),
    (lambda integers: integers[0::2] | integers[1::2] << 4 if len(integers) % 2 == 0 else integers,
     "Rows are packed together. The neighbours are those within a row: integers[:, 0::2] and integers[:, 1::2]."),
    (lambda integers: integers[:, 0::2] & integers[:, 1::2] << 4,
     "& keeps what both have, and these two have no bit in common. | keeps what either has."),
    (lambda integers: integers[:, 1::2] << 4, "The first of two neighbours is lost: put both into the byte with |."),
    (lambda integers: integers[:, 0::2].clone(), "The second of two neighbours is lost: shift it by 4 bits, and put "
                                                 "both into the byte with |."),
    (lambda integers: integers.clone(), "Nothing is packed: there is still a byte for each number."),
)


def _with_numpy_bytes(integers: Tensor) -> Any:
    numbers = integers.numpy()
    return (numbers[:, ::2] + np.uint8(16) * numbers[:, 1::2]).astype(np.uint8)


def _byte_by_byte(integers: Tensor) -> Tensor:
    rows = [[low + 16 * high for low, high in zip(row[::2], row[1::2])] for row in integers.tolist()]
    return torch.tensor(rows, dtype=torch.uint8)


_PACK = Exercise("16.3", "Two numbers in a byte", pack_nibbles, _verify_nibbles, (
    *((slip, hint[:50]) for slip, hint in _NIBBLE_SLIPS),
    (lambda integers: pack_nibbles(integers.long()), "numbers of the type"),
    (lambda integers: integers[:, 0::2].bitwise_or_(integers[:, 1::2] << 4), "changes the integers"),
    (lambda integers: pack_nibbles(integers).flatten(), "becomes one of"),
    (lambda integers: pack_nibbles(integers) ^ 1, "The neighbours"),
    (lambda integers: print(end=""), "returned None"),
), also_wrong=(
    lambda integers: pack_nibbles(integers).T.contiguous(),
    lambda integers: pack_nibbles(integers.flip(1)),
    lambda integers: pack_nibbles(integers) & 127,
    lambda integers: pack_nibbles(integers).view(torch.int8),
    lambda integers: pack_nibbles(integers[:2]),
), right=(
    _with_numpy_bytes,
    _byte_by_byte,
    lambda integers: integers.view(len(integers), -1, 2)[..., 0] + 16 * integers.view(len(integers), -1, 2)[..., 1],
    lambda integers: integers[:, ::2].bitwise_or(integers[:, 1::2].bitwise_left_shift(4)),
), refused={"list for a tensor": "Numbers of Python's in a list are no bytes."})

# ---- 16.4 ------------------------------------------------------------------------------------------------


def least_seconds_of_product(rows: int, columns: int, vectors: int, bandwidth: float, arithmetic: float,
                             group_size: int = 32) -> float:
    weights = rows * columns
    num_bytes = weights / 2 + weights / group_size * 4  # two numbers of 2 bytes for each group
    return max(num_bytes / bandwidth, 2 * weights * vectors / arithmetic)


# Rows, columns, vectors, bytes and operations per second, and the size of a group where it is named.
_PRODUCTS: tuple[tuple[Any, ...], ...] = (
    (1000, 3200, 1, 40e9, 640e9), (1000, 3200, 8, 40e9, 640e9), (3072, 1024, 1, 25e9, 300e9),
    (3072, 1024, 1, 25e9, 300e9, 64), (500, 256, 2, 1e12, 50e9, 128), (151_936, 1024, 4, 8e9, 2e12, 16),
    (64, 64, 3, 10e9, 7e9),
)


def _bound(num_bytes: Callable[[int, int], float] = lambda weights, size: weights / 2 + 4 * weights / size,
           flops: Callable[[int, int], float] = lambda weights, vectors: 2 * weights * vectors,
           of: Callable[[float, float], float] = max) -> Answer:
    """The limit, with bytes and operations that are counted so."""
    def answer(rows: int, columns: int, vectors: int, bandwidth: float, arithmetic: float,
               group_size: int = 32) -> float:
        weights = rows * columns
        return of(num_bytes(weights, group_size) / bandwidth, flops(weights, vectors) / arithmetic)
    return answer


def _bytes_for_each_vector(rows: int, columns: int, vectors: int, bandwidth: float, arithmetic: float,
                           group_size: int = 32) -> float:
    return least_seconds_of_product(rows, columns, vectors, bandwidth / vectors, arithmetic, group_size)


def _products_per_second(rows: int, columns: int, vectors: int, bandwidth: float, arithmetic: float,
                         group_size: int = 32) -> float:
    return 1 / least_seconds_of_product(rows, columns, vectors, bandwidth, arithmetic, group_size)


def _groups_of_32(rows: int, columns: int, vectors: int, bandwidth: float, arithmetic: float,
                  group_size: int = 32) -> float:
    return least_seconds_of_product(rows, columns, vectors, bandwidth, arithmetic)


# What one may have computed instead, the likeliest slip first.
_PRODUCT_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_bound(lambda weights, size: weights / 2), "The scales and offsets are forgotten. Each group has one of each, 2 "
                                                "bytes a number, and they have to be read as well."),
    (_bound(lambda weights, size: weights / 2 + 2 * weights / size),
     "Each group has one number of 2 bytes here. It has two: a scale and an offset."),
    (_bound(lambda weights, size: weights / 2 + 2 * (weights / size) / 2),
     "Scales and offsets take 4 bits here, as the weights do. They are stored in 16 bits each."),
    (_bound(lambda weights, size: weights + 4 * weights / size),
     "A weight takes a byte here. In 4 bits two share one."),
    (_bound(lambda weights, size: 4 * weights + 32 * weights / size),
     "These are bits. The bandwidth is in bytes per second, and a byte has 8 bits."),
    (_bound(lambda weights, size: 2 * weights), "A weight takes two bytes here, as in bfloat16. In 4 bits two share "
                                                "one byte, and each group has a scale and an offset."),
    (_bound(of=lambda memory, computing: memory + computing),
     "The two times are added up. Reading and computing go on at the same time, so the longer one counts."),
    (_bound(of=min), "That is the shorter of the two times. Nothing is ready before the longer one is over."),
    (_bound(of=lambda memory, computing: memory), "Only the reading counts here. With several vectors the arithmetic "
                                                  "may take longer: the longer of the two times counts."),
    (_bound(of=lambda memory, computing: computing), "Only the arithmetic counts here. With one vector the reading "
                                                     "takes longer: the longer of the two times counts."),
    (_bound(flops=lambda weights, vectors: weights * vectors),
     "Each weight counts for one operation here. It is multiplied, and added: two."),
    (_bound(flops=lambda weights, vectors: 2 * weights),
     "It takes as long with 8 vectors as with one. Each weight is multiplied with each of them: use vectors."),
    (_bytes_for_each_vector, "The weights are read again for each vector here. What was read serves all of them."),
    (_groups_of_32, "With groups of 64 it takes as long as with 32. Larger groups have fewer scales to read: use "
                    "group_size."),
    (_products_per_second, "These are products per second. Asked for are the seconds of one."),
)


def _verify_product(answer: Answer) -> str | None:
    told = [number(answer(*product), "one number: the seconds") for product in _PRODUCTS]
    right = [least_seconds_of_product(*product) for product in _PRODUCTS]
    if _near(told, right):
        return None
    for slip, hint in _PRODUCT_SLIPS:
        if _near(told, [slip(*product) for product in _PRODUCTS]):
            return hint
    at = next(at for at, seconds in enumerate(told) if not _near([seconds], [right[at]]))
    rows, columns, vectors, bandwidth, arithmetic, *size = _PRODUCTS[at]
    return gettext("For {rows} rows, {columns} columns and {vectors} vectors, in groups of {size}, with {bandwidth:g} "
                   "GB/s and {arithmetic:g} billion operations per second it returns {told:.4g}, and {right:.4g} "
                   "seconds is right.").format(
        rows=rows, columns=columns, vectors=vectors, size=(*size, 32)[0], bandwidth=bandwidth / 1e9,
        arithmetic=arithmetic / 1e9, told=told[at], right=right[at])


def _near(given: list[float], expected: list[float]) -> bool:
    return all(math.isclose(one, other, rel_tol=1e-5) for one, other in zip(given, expected))


def _by_comparison(rows: int, columns: int, vectors: int, bandwidth: float, arithmetic: float,
                   group_size: int = 32) -> float:
    groups = rows * columns / group_size
    reading = groups * (group_size // 2 + 4) / bandwidth
    computing = groups * group_size * vectors * 2 / arithmetic
    return reading if reading > computing else computing


_BYTES = "num_bytes = weights / 2 + weights / group_size * 4"
_LIMIT = Exercise("16.4", "The limit of a kernel", least_seconds_of_product, _verify_product, (
    *((slip, hint[:50]) for slip, hint in _PRODUCT_SLIPS),
    (_bound(lambda weights, size: weights), "For 1000 rows"),
    (lambda *product, **named: 1e3 * least_seconds_of_product(*product, **named), "seconds is right"),
    (lambda *product, **named: "50 µs", "one number"),
    (lambda *product, **named: print(end=""), "returned None"),
), also_wrong=(
    lambda rows, columns, vectors, bandwidth, arithmetic, group_size=32: least_seconds_of_product(
        columns, columns, vectors, bandwidth, arithmetic, group_size),
    lambda rows, columns, vectors, bandwidth, arithmetic, group_size=32: least_seconds_of_product(
        rows, columns, vectors, 40e9, arithmetic, group_size),
    lambda rows, columns, vectors, bandwidth, arithmetic, group_size=32: least_seconds_of_product(
        rows, columns, vectors, bandwidth, 640e9, group_size),
    lambda rows, columns, vectors, bandwidth, arithmetic, group_size=64: least_seconds_of_product(
        rows, columns, vectors, bandwidth, arithmetic, group_size),
    lambda rows, columns, vectors, bandwidth, arithmetic, group_size=32: round(least_seconds_of_product(
        rows, columns, vectors, bandwidth, arithmetic, group_size), 5),
), right=(
    _by_comparison,
    lambda *product, **named: np.float64(_by_comparison(*product, **named)),
    _bound(lambda weights, size: (4 * weights + 32 * weights / size) / 8),
    lambda rows, columns, vectors, bandwidth, arithmetic, group_size=32: max(
        rows * columns * (0.5 + 4 / group_size) / bandwidth, rows * (columns + columns) * vectors / arithmetic),
), equivalent={
    "`rows` and `columns` are exchanged": "Only their product counts.",
    **{f"`{_BYTES}` to `{_BYTES.replace(*change)}`": "Rows are some whole groups long, and groups are even."
       for change in (("/ 2", "// 2"), ("/ group_size", "// group_size"))},
})

# ---- 16.5 ------------------------------------------------------------------------------------------------


def several_products(read_row: Callable[[int], Tensor], rows: int, vectors: Tensor) -> Tensor:
    products = torch.empty(len(vectors), rows)
    for row in range(rows):
        products[:, row] = vectors @ read_row(row)
    return products


class _Memory:
    """A matrix whose rows are fetched one by one, and which notes that."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.reads: list[int] = []
        self.most_held = 0
        self._fetched: list[weakref.ref[Tensor]] = []

    def read_row(self, row: int) -> Tensor:
        """Fetch a row."""
        if not 0 <= row < len(self.weight):
            raise IndexError(gettext("There is no row {row}: the matrix has {rows}.").format(
                row=row, rows=len(self.weight)))
        self.reads.append(int(row))
        fetched = self.weight[row].clone()
        self._fetched.append(weakref.ref(fetched))
        self.most_held = max(self.most_held, sum(held() is not None for held in self._fetched))
        return fetched


def _matrices_and_vectors() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(16)
    return [(torch.randn(rows, d, generator=generator), torch.randn(n, d, generator=generator))
            for n, rows, d in ((3, 12, 5), (1, 9, 4), (8, 7, 6), (2, 1, 3))]


def _verify_several(answer: Answer) -> str | None:
    told, memories = [], []
    for weight, vectors in _matrices_and_vectors():
        memory = _Memory(weight)
        told.append(tensor(answer(memory.read_row, len(weight), vectors.clone()),
                           "one tensor, a row for each vector"))
        memories.append(memory)
    for memory, products, (weight, vectors) in zip(memories, told, _matrices_and_vectors()):
        if hint := (_judge_products(products, weight, vectors) or _judge_reading(memory, vectors)):
            return hint
    return None


def _judge_products(products: Tensor, weight: Tensor, vectors: Tensor) -> str | None:
    right = vectors @ weight.T
    if products.shape == right.T.shape != right.shape and _equal(products.T, right):
        return "The products are right, rows and columns are exchanged: a row for each vector, (vectors, rows)."
    if products.shape != right.shape:
        return gettext("With {vectors} vectors and {rows} rows it returns the shape {shape}: {right} is asked "
                       "for.").format(vectors=len(vectors), rows=len(weight), shape=tuple(products.shape),
                                      right=tuple(right.shape))
    if len(vectors) > 1 and _equal(products, right[:1].expand_as(right)):
        return "All vectors get the products of the first one. Multiply each row with each of them."
    if not _equal(products, right):
        return gettext("With {vectors} vectors and {rows} rows some products are wrong. Entry (v, r) is the sum of "
                       "vector v times row r, number by number.").format(vectors=len(vectors), rows=len(weight))
    return None


def _judge_reading(memory: _Memory, vectors: Tensor) -> str | None:
    rows = len(memory.weight)
    if len(memory.reads) == rows * len(vectors) > rows:
        return gettext("The products are right, but each row is read once for each of the {vectors} vectors. Let the "
                       "loop over the rows be the outer one: what was read serves all vectors.").format(
            vectors=len(vectors))
    if len(memory.reads) != rows:
        return gettext("The products are right, but the {rows} rows are read {reads} times in all. Read each "
                       "once.").format(rows=rows, reads=len(memory.reads))
    if memory.most_held > _MOST_KEPT:
        return gettext("The products are right and each row is read once, but {held} rows are held at a time: that is "
                       "the matrix unpacked, which may not fit. Use a row for all vectors, and let it go.").format(
            held=memory.most_held)
    return None


def _for_each_vector(read_row: Callable[[int], Tensor], rows: int, vectors: Tensor) -> Tensor:
    return torch.stack([torch.stack([vector @ read_row(row) for row in range(rows)]) for vector in vectors])


def _all_rows_first(read_row: Callable[[int], Tensor], rows: int, vectors: Tensor) -> Tensor:
    return vectors @ torch.stack([read_row(row) for row in range(rows)]).T


def _one_read_too_many(read_row: Callable[[int], Tensor], rows: int, vectors: Tensor) -> Tensor:
    products = torch.zeros(len(vectors), rows, dtype=read_row(0).dtype)
    for row in range(rows):
        products[:, row] = vectors @ read_row(row)
    return products


def _by_loops(read_row: Callable[[int], Tensor], rows: int, vectors: Tensor) -> list[list[float]]:
    products: list[list[float]] = [[] for _ in vectors]
    for row in range(rows):
        weights = read_row(row).tolist()
        for products_of_one, vector in zip(products, vectors.tolist()):
            products_of_one.append(sum(weight * each for weight, each in zip(weights, vector)))
    return products


def _last_row_first(read_row: Callable[[int], Tensor], rows: int, vectors: Tensor) -> Tensor:
    columns = [(vectors * read_row(row)).sum(-1) for row in reversed(range(rows))]
    return torch.stack(columns[::-1], dim=1)


_SEVERAL = Exercise("16.5", "Several vectors at once", several_products, _verify_several, (
    (_for_each_vector, "once for each of the 3 vectors"),
    (_all_rows_first, "held at a time"),
    (_one_read_too_many, "read 13 times in all"),
    (lambda read_row, rows, vectors: several_products(read_row, rows, vectors).T, "are exchanged"),
    (lambda read_row, rows, vectors: several_products(read_row, rows, vectors[:1]).expand(len(vectors), -1),
     "products of the first one"),
    (lambda read_row, rows, vectors: several_products(read_row, rows, vectors[0][None])[0], "the shape (12,)"),
    (lambda read_row, rows, vectors: several_products(read_row, rows, vectors.flip(0)), "some products are wrong"),
    (lambda read_row, rows, vectors: print(end=""), "returned None"),
), also_wrong=(
    lambda read_row, rows, vectors: several_products(read_row, rows - 1, vectors),
    lambda read_row, rows, vectors: several_products(read_row, rows, vectors.abs()),
    lambda read_row, rows, vectors: several_products(read_row, rows, vectors).sum(0),
    lambda read_row, rows, vectors: several_products(lambda row: read_row(rows - 1 - row), rows, vectors),
    lambda read_row, rows, vectors: several_products(lambda row: read_row(row) + 0 * read_row(0), rows, vectors),
    lambda read_row, rows, vectors: several_products(read_row, rows, vectors).round(),
), right=(
    _by_loops,
    _last_row_first,
    lambda read_row, rows, vectors: np.stack([vectors.numpy() @ read_row(row).numpy() for row in range(rows)], axis=1),
    lambda read_row, rows, vectors: torch.cat([vectors @ read_row(row)[:, None] for row in range(rows)], dim=1),
))

EXERCISES: tuple[Exercise, ...] = (_STREAM, _GROUPS, _PACK, _LIMIT, _SEVERAL)
