"""Exercises of chapter 1: a whole text, memory for a model, and what rounding does to a number."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch

from course_utils.exercises.answers import close, number, numbers, text, truth
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.language import gettext

# ---- 1.1 -------------------------------------------------------------------------------------------------

# What two stand-ins for the model write after a prompt: with a space before it, without one, with one in the prompt,
# with a line break at the end, and nothing.
_CONTINUATIONS = (
    {"The cat": " sleeps under the table.", "小猫": "在桌子下面睡觉。", "The end.": "", "Once, ": "a fox was here.\n"},
    {"The cat": " and the dog play."},
)


def whole_text(complete: Callable[[str], str], prompt: str) -> str:
    """The prompt and what complete writes after it, as one text."""
    return prompt + complete(prompt)


def _verify_whole_text(answer: Answer) -> str | None:
    for continuations in _CONTINUATIONS:
        for prompt, new in continuations.items():
            if hint := _judge_whole_text(answer, continuations, prompt, new):
                return hint
    return None


def _judge_whole_text(answer: Answer, continuations: dict[str, str], prompt: str, new: str) -> str | None:
    asked: list[str] = []

    def complete(prompt: str, max_new_tokens: int = 24) -> str:  # as in the notebook; here a character is a token
        asked.append(prompt)
        return continuations.get(prompt, "")[:max_new_tokens]

    got = text(answer(complete, prompt), "one text, a str: the prompt, and what complete writes after it")
    if got == prompt + new:
        return None
    if not asked:
        return "it never calls the complete that it is given. Call it with the prompt, and use what it returns."
    if prompt not in asked:
        return gettext("for the prompt {prompt!r} it called complete with {asked!r}. Hand "
                       "over the prompt as it is.").format(prompt=prompt, asked=asked[0])
    if got == new:
        return gettext("for {prompt!r} it returned {got!r}: the prompt is missing in front.").format(
            prompt=prompt, got=got)
    if got == prompt:
        return gettext("for {prompt!r} it returned the prompt alone: what complete returns is not used.").format(
            prompt=prompt)
    if got == new + prompt:
        return gettext("it returned {got!r}: the prompt comes first.").format(got=got)
    if "".join(got.split()) == "".join((prompt + new).split()):
        return (gettext("{got!r} has a space too many. What complete writes brings its own where it needs one.").format(
            got=got)
                if len(got) > len(prompt + new) else
                gettext("{got!r} has lost a space or a line break. Join the two texts as they are.").format(got=got))
    return gettext("for {prompt!r} and the continuation {new!r} it returned {got!r}.").format(
        prompt=prompt, new=new, got=got)


def _with_other_names(full: Callable[..., str], start: str) -> str:
    continuation = full(start)
    return f"{start}{continuation}"


_WHOLE_TEXT = Exercise("1.1", "The whole text", whole_text, _verify_whole_text, wrong=(
    (lambda complete, prompt: complete(prompt), "prompt is missing"),
    (lambda complete, prompt: prompt + " " + complete(prompt), "a space too many"),
    (lambda complete, prompt: prompt + complete(prompt).strip(), "lost a space"),
    (lambda complete, prompt: prompt if complete(prompt) else "", "prompt alone"),
    (lambda complete, prompt: complete(prompt) + prompt, "comes first"),
    (lambda complete, prompt: complete(prompt + " "), "as it is"),
    (lambda complete, prompt: prompt, "never calls"),
    (lambda complete, prompt: print(end=""), "returned None"),
    (lambda complete, prompt: (prompt, complete(prompt)), "a tuple of 2 entries"),
), also_wrong=(
    lambda complete, prompt: prompt.strip() + complete(prompt),
    lambda complete, prompt: (prompt + complete(prompt)).rstrip(),
    lambda complete, prompt: prompt + complete(prompt.strip()),
    lambda complete, prompt: prompt + complete(prompt, 1),
    lambda complete, prompt: prompt + complete(prompt) + complete(prompt),
), right=(
    lambda complete, prompt: prompt + complete(prompt=prompt),
    lambda complete, prompt: prompt + complete(prompt, 24),
    lambda complete, prompt: "".join([prompt, complete(prompt, max_new_tokens=60)]),
    _with_other_names,
))

# ---- 1.2 -------------------------------------------------------------------------------------------------


def fits(parameters: int, bits: int, free: float) -> bool:
    """Whether the weights and a fifth of their size fit into free bytes."""
    weights = parameters * bits / 8
    return weights * 1.2 <= free


_BILLION = 1_000_000_000
# Parameters, bits, free bytes, whether that fits, and what to look at if the answer differs; the likeliest slips first.
_FITTING = (
    (_BILLION, 16, 100e9, True, "a model of 2 GB fits into 100 GB. Is the comparison the right way round?"),
    (_BILLION, 16, 1e9, False, "a model of 2 GB does not fit into 1 GB. Are all bits counted?"),
    (_BILLION, 16, 3e9, True, "a billion parameters of 16 bits are 2 GB, not 16: eight bits are a byte."),
    (_BILLION, 4, 0.7e9, True, "a billion parameters of 4 bits are half a gigabyte: do not round the bytes of one up."),
    (_BILLION, 4, 0.1e9, False, "a billion parameters of 4 bits are not nothing: divide by 8 with /, not //."),
    (_BILLION, 16, 2.1e9, False, "a fifth of the weights' size has to be left to spare: 2 GB need 2.4 GB."),
    (_BILLION, 16, 2.3e9, False, "2 GB need 2.4 GB, and 2.3 are free. If you turn bytes into GB, do it alike on both "
                                 "sides: 10**9 and 2**30 do not mix."),
    (_BILLION, 16, 2.55e9, True, "2 GB need 2.4 GB, and 2.55 are free. Whether you count in 10**9 or 2**30 bytes, do "
                                 "it alike on both sides."),
    (_BILLION, 16, 2.45e9, True, "the fifth belongs to the weights and not to the memory: 2 GB need 2.4 GB, and here "
                                 "are 2.45."),
    (_BILLION, 16, 2.4e9, True, "2 GB need 2.4 GB, and just as much is free: that is enough, so compare with <=."),
    (8_200_000_000, 4, 4.95e9, True, "8.2 billion parameters of 4 bits need 4.92 GB, and 4.95 are free."),
    (8_200_000_000, 4, 4.9e9, False, "8.2 billion parameters of 4 bits need 4.92 GB, and only 4.9 are free."),
    (50_000_000, 32, 0.235e9, False, "50 million parameters of 32 bits need 0.24 GB, and only 0.235 are free."),
    (50_000_000, 32, 0.245e9, True, "50 million parameters of 32 bits need 0.24 GB, and 0.245 are free."),
)


def _verify_fits(answer: Answer) -> str | None:
    for parameters, bits, free, expected, hint in _FITTING:
        if truth(answer(parameters, bits, free), "True or False: whether it fits") is not expected:
            return hint
    return None


_FITS = Exercise("1.2", "Does it fit?", fits, _verify_fits, wrong=(
    (lambda parameters, bits, free: parameters * bits * 1.2 <= free, "eight bits are a byte"),
    (lambda parameters, bits, free: parameters * bits / 8 <= free, "left to spare"),
    (lambda parameters, bits, free: parameters * bits / 8 <= free * 0.8, "not to the memory"),
    (lambda parameters, bits, free: parameters * (bits // 8) * 1.2 <= free, "not nothing"),
    (lambda parameters, bits, free: parameters * math.ceil(bits / 8) * 1.2 <= free, "do not round"),
    (lambda parameters, bits, free: parameters * bits / 8 * 1.2 > free, "right way round"),
    (lambda parameters, bits, free: parameters * bits / 8 / 2**30 * 1.2 <= free / 1e9, "do not mix"),
    (lambda parameters, bits, free: parameters * bits / 8 / 1e9 * 1.2 <= free / 2**30, "Whether you count in"),
    (lambda parameters, bits, free: parameters * bits / 8 * 1.2 < free, "that is enough"),
    (lambda parameters, bits, free: parameters * bits / 8 * 1.2, "whether it fits"),
    (lambda parameters, bits, free: print(end=""), "returned None"),
), also_wrong=(
    lambda parameters, bits, free: parameters * 2 * 1.2 <= free,
    lambda parameters, bits, free: 1e9 * bits / 8 * 1.2 <= free,
    lambda parameters, bits, free: str(parameters * bits / 8 * 1.2 <= free),
), right=(
    lambda parameters, bits, free: parameters * bits / 8 <= free / 1.2,
    lambda parameters, bits, free: free - parameters * bits / 8 >= parameters * bits / 8 / 5,
    lambda parameters, bits, free: parameters * bits * 6 <= free * 8 * 5,
    lambda parameters, bits, free: not parameters * bits / 8 / 2**30 * 1.2 > free / 2**30,
    lambda parameters, bits, free: int(parameters * bits / 8 * 1.2 <= free),
), equivalent={
    "`weights = parameters * bits / 8` to `weights = parameters * bits // 8`":
        "It loses less than one byte, and no model is a byte away from its memory.",
    "`parameters` and `bits` are exchanged": "They are multiplied by each other, and nothing else.",
})

# ---- 1.3 -------------------------------------------------------------------------------------------------


def kept_by_tf32() -> list[float]:
    """Those of 0.5, 0.1, 1000.0, 2049.0 and 2.0**100 that TF32 keeps exactly."""
    return [0.5, 1000.0, 2.0**100]


_FIVE = (0.5, 0.1, 1000.0, 2049.0, 2.0**100)
# Number, whether it is kept, and what to look at if the prediction differs.
_KEPT = (
    (0.1, False, "0.1 is not among them: in binary it never ends, as 1/3 never ends in decimal, so every format "
                 "cuts it."),
    (2.0**100, True, "2.0**100 is kept although it is huge: which of the parts says how large a number is, and how "
                     "many bits has TF32 for it?"),
    (0.5, True, "0.5 is kept: as a power of two, 2**-1, it needs no fraction bit at all."),
    (1000.0, True, "1000 is kept: in binary it is 1111101000. Count the digits after the first one, up to the last 1."),
    (2049.0, False, "2049 is not kept: in binary it is 100000000001. Count the digits after the first one, up to the "
                    "last 1."),
)


def _verify_kept_by_tf32(answer: Answer) -> str | None:
    asked = "a list of those of the five numbers that TF32 keeps"
    got = [round(entry, 5) for entry in numbers(answer(), asked, ordered=False)]  # 0.1 may come as a float32
    if unknown := set(got) - set(_FIVE):
        return gettext("{unknown:g} is none of the five numbers. Return {asked}, as they stand there.").format(
            unknown=min(unknown), asked=gettext(asked))
    return next((hint for one, kept, hint in _KEPT if (one in got) is not kept), None)


def _choosing(chosen: tuple[float, ...]) -> Answer:
    return lambda: list(chosen)


_KEPT_BY_TF32 = Exercise("1.3", "What does TF32 keep?", kept_by_tf32, _verify_kept_by_tf32, wrong=(
    (lambda: [0.5, 0.1, 1000.0], "0.1 is not among them"),
    (lambda: [0.5, 1000.0], "huge"),
    (lambda: [0.5, 1000.0, 2049.0, 2.0**100], "2049 is not kept"),
    (lambda: [1000.0, 2.0**100], "0.5 is kept"),
    (lambda: [0.5, 2.0**100], "1000 is kept"),
    (lambda: [0.5, 1000.0, 100.0], "none of the five"),
    (lambda: [True, False, True, False, True], "an entry is no number"),
    (lambda: 3, "Return a list"),
    (lambda: print(end=""), "returned None"),
), also_wrong=tuple(_choosing(chosen) for count in range(len(_FIVE) + 1) for chosen in combinations(_FIVE, count)
                    if set(chosen) != set(kept_by_tf32())), right=(
    lambda: (2.0**100, 1000, 0.5),
    lambda: {0.5, 1000.0, 2**100},
    lambda: (one for one in _FIVE if one not in (0.1, 2049)),
    lambda: np.array([0.5, 1000, 2.0**100], dtype=np.float32),
), equivalent={
    "`return [0.5, 1000.0, 2.0 ** 100]` to `return [1000.0, 0.5, 2.0 ** 100]`": "The order is not asked for.",
    "`return [0.5, 1000.0, 2.0 ** 100]` to `return [0.5, 2.0 ** 100, 1000.0]`": "The order is not asked for.",
})

# ---- 1.4 -------------------------------------------------------------------------------------------------


def largest_error(rounded: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest relative error of a number in rounded; none in exact is 0."""
    return float(((rounded - exact).abs() / exact.abs()).max())


_EXACT, _ROUNDED = torch.tensor([4.0, -2.0, 20.0, -1.0]), torch.tensor([3.0, -2.25, 20.5, -1.0])


def _verify_largest_error(answer: Answer) -> str | None:
    for sign in (1, -1):
        if hint := _judge_error(answer, sign * _ROUNDED, sign * _EXACT):
            return hint
    matrix, its_rounded = _EXACT.view(2, 2), torch.tensor([[4.0, -2.5], [26.0, -0.875]])  # 0, 1/4; 3/10, 1/8
    got = _one_error(answer(its_rounded.clone(), matrix.clone()))
    if not close(got, largest_error(its_rounded, matrix)):
        return gettext("it is right for a row of numbers, and not for a matrix: the largest of all its errors is asked "
                       "for, {largest_error:.3g}, and it returned {got:.3g}.").format(
            largest_error=largest_error(its_rounded, matrix), got=got)
    values = torch.linspace(1, 2, 1000)
    rounded = values.bfloat16().float()
    got, expected = _one_error(answer(rounded.clone(), values.clone())), largest_error(rounded, values)
    if not math.isclose(got, expected, rel_tol=1e-4):
        return gettext("for 1000 numbers rounded to bfloat16 it returned {got:.2g}, and the largest error is "
                       "{expected:.2g}.").format(got=got, expected=expected)
    return None if _one_error(answer(values, values)) == 0 else "where nothing was rounded the error is 0."


def _one_error(got: object) -> float:
    if isinstance(got, torch.Tensor) and got.numel() > 1:
        return number(got, "the largest of the errors alone: .max() looks for it in the whole tensor if it is not told "
                           "a dimension")
    return number(got, "one number, the largest error")


def _judge_error(answer: Answer, rounded: torch.Tensor, exact: torch.Tensor) -> str | None:
    got = _one_error(answer(rounded.clone(), exact.clone()))
    if close(got, largest_error(rounded, exact)):
        return None
    off = rounded - exact
    likely = (
        (off.abs().max(), "it is the largest difference, and 1 off is much for 4 and little for 4000. Divide each "
                          "difference by the size of its exact number."),
        (off.abs().max() / exact.abs().max(), "it divides the largest difference by the largest number. Divide each "
                                              "difference by its own number first, then take the largest."),
        ((off.abs() / rounded.abs()).max(), "it divides by the rounded numbers. What is to be compared with is exact."),
        ((off.abs() / exact.abs()).mean(), "it is the average. The largest is asked for: .max(), not .mean()."),
        (off.norm() / exact.norm(), "it is one error for the whole tensor, as relative_error above. Here each number "
                                    "has its own, and the largest of them is asked for."),
        ((exact.abs() / off.abs()).max(), "it is upside down: divide the difference by the exact number."),
    )
    for value, hint in likely:
        if close(got, float(value)):
            return hint
    if any(close(got, float(value)) for value in
           ((off / exact).max(), (off / exact.abs()).max(), (off.abs() / exact).max())):
        return "it lets errors below zero pass as small. Take .abs() of the difference and of the exact number."
    return gettext("for {rounded} instead of {exact} it returned {got:.3g}.").format(
        rounded=rounded.tolist(), exact=exact.tolist(), got=got)


def _with_numpy(rounded: torch.Tensor, exact: torch.Tensor) -> np.floating:
    off = np.abs(rounded.numpy() - exact.numpy())
    return np.max(off / np.abs(exact.numpy()))


def _number_by_number(rounded: torch.Tensor, exact: torch.Tensor) -> float:
    largest = 0.0
    for one, other in zip(rounded.flatten().tolist(), exact.flatten().tolist()):
        largest = max(largest, abs(one - other) / abs(other))
    return largest


_LARGEST_ERROR = Exercise("1.4", "Measure a rounding", largest_error, _verify_largest_error, wrong=(
    (lambda rounded, exact: (rounded - exact).abs().max().item(), "much for 4 and little for 4000"),
    (lambda rounded, exact: ((rounded - exact) / exact).max().item(), "below zero"),
    (lambda rounded, exact: ((rounded - exact).abs() / rounded.abs()).max().item(), "by the rounded numbers"),
    (lambda rounded, exact: ((rounded - exact).abs() / exact.abs()).mean().item(), "average"),
    (lambda rounded, exact: ((rounded - exact).abs().max() / exact.abs().max()).item(), "its own number first"),
    (lambda rounded, exact: ((rounded - exact).norm() / exact.norm()).item(), "whole tensor, as relative_error"),
    (lambda rounded, exact: (rounded - exact).abs() / exact.abs(), "the largest of the errors alone"),
    (lambda rounded, exact: (exact / (rounded - exact)).abs().max(), "upside down"),
    (lambda rounded, exact: torch.linalg.norm((rounded - exact) / exact, ord=torch.inf), "not for a matrix"),
    (lambda rounded, exact: print(end=""), "returned None"),
), also_wrong=(
    lambda rounded, exact: ((rounded - exact) / exact).abs().max(dim=-1).values,
    lambda rounded, exact: ((rounded - exact) / exact).abs()[0].max(),
    lambda rounded, exact: ((rounded - exact) / exact).abs().sum(),
    lambda rounded, exact: round(largest_error(rounded, exact), 2),
    lambda rounded, exact: 100 * largest_error(rounded, exact),
), right=(
    lambda rounded, exact: (rounded / exact - 1).abs().max().item(),
    lambda rounded, exact: torch.max(torch.abs((exact - rounded) / exact)),
    lambda rounded, exact: ((rounded.double() - exact.double()) / exact.double()).abs().amax(),
    _with_numpy,
    _number_by_number,
), equivalent={
    "`return float(((rounded - exact).abs() / exact.abs()).max())` to "
    "`return float(((exact - rounded).abs() / exact.abs()).max())`": "The size of the difference is the same.",
})

EXERCISES = (_WHOLE_TEXT, _FITS, _KEPT_BY_TF32, _LARGEST_ERROR)
