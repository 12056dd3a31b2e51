"""Exercises of chapter 1: a whole text, memory for a model, and what rounding does to a number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from course_utils.exercises.exercise import Answer, Exercise

# ---- 1.1 -------------------------------------------------------------------------------------------------

# What a stand-in for the model writes after each prompt: with a space before it, without one, and nothing.
_CONTINUATIONS = {"The cat": " sleeps under the table.", "小猫": "在桌子下面睡觉。", "The end.": ""}


def whole_text(complete: Callable[[str], str], prompt: str) -> str:
    """The prompt and what complete writes after it, as one text."""
    return prompt + complete(prompt)


def _verify_whole_text(answer: Answer) -> str | None:
    asked: list[str] = []

    def complete(text: str) -> str:
        asked.append(text)
        return _CONTINUATIONS.get(text, "")

    for prompt, new in _CONTINUATIONS.items():
        asked.clear()
        got: Any = answer(complete, prompt)
        if got == prompt + new:
            continue
        if got is None:
            return "it returned None. Does the function end with a return?"
        if not isinstance(got, str):
            return f"it returned a {type(got).__name__}. Return one text, a str."
        if not asked:
            return "it never calls complete. Call it with the prompt, and use what it returns."
        if prompt not in asked:
            return f"for the prompt {prompt!r} it called complete with {asked[0]!r}. Hand over the prompt as it is."
        if got == new:
            return f"for {prompt!r} it returned {got!r}: the prompt is missing in front."
        if got == prompt:
            return f"for {prompt!r} it returned the prompt alone: what complete returns is not used."
        if got == new + prompt:
            return f"it returned {got!r}: the prompt comes first."
        if got.replace(" ", "") == (prompt + new).replace(" ", ""):
            return (f"{got!r} has a space too many. What complete writes brings its own where it needs one."
                    if len(got) > len(prompt + new) else f"{got!r} has lost a space. Join the two texts as they are.")
        return f"for {prompt!r} and the continuation {new!r} it returned {got!r}."
    return None


_WHOLE_TEXT = Exercise("1.1", "The whole text", whole_text, _verify_whole_text, wrong=(
    (lambda complete, prompt: complete(prompt), "prompt is missing"),
    (lambda complete, prompt: prompt + " " + complete(prompt), "a space too many"),
    (lambda complete, prompt: prompt + complete(prompt).strip(), "lost a space"),
    (lambda complete, prompt: prompt if complete(prompt) else "", "prompt alone"),
    (lambda complete, prompt: complete(prompt) + prompt, "comes first"),
    (lambda complete, prompt: complete(prompt + " "), "as it is"),
    (lambda complete, prompt: prompt, "never calls complete"),
    (lambda complete, prompt: print(end=""), "returned None"),
))

# ---- 1.2 -------------------------------------------------------------------------------------------------


def fits(parameters: int, bits: int, free: float) -> bool:
    """Whether the weights and a fifth of their size fit into free bytes."""
    weights = parameters * bits / 8
    return weights * 1.2 <= free


def _verify_fits(answer: Answer) -> str | None:
    billion = 1_000_000_000
    if answer(billion, 16, 100e9) is None:
        return "it returned None. Does the function end with a return?"
    # Parameters, bits, free bytes, whether that fits, and what is wrong if the answer differs.
    cases = (
        (billion, 16, 100e9, True, "a model of 2 GB fits into 100 GB. Is the comparison the right way round?"),
        (billion, 16, 1e9, False, "a model of 2 GB does not fit into 1 GB. Are all bits counted?"),
        (billion, 16, 3e9, True, "a billion parameters of 16 bits are 2 GB, not 16: eight bits are a byte."),
        (billion, 4, 0.7e9, True, "a billion parameters of 4 bits are half a gigabyte: do not round the bytes up."),
        (billion, 4, 0.1e9, False, "a billion parameters of 4 bits are not nothing: divide by 8 with /, not //."),
        (billion, 16, 2.1e9, False, "a fifth of the weights' size has to be left to spare: 2 GB need 2.4 GB."),
        (billion, 16, 2.45e9, True, "the fifth belongs to the weights and not to the memory: 2 GB need 2.4 GB, and "
                                    "here are 2.45."),
    )
    for parameters, bits, free, expected, hint in cases:
        if bool(answer(parameters, bits, free)) is not expected:
            return hint
    return None


_FITS = Exercise("1.2", "Does it fit?", fits, _verify_fits, wrong=(
    (lambda parameters, bits, free: parameters * bits * 1.2 <= free, "eight bits are a byte"),
    (lambda parameters, bits, free: parameters * bits / 8 <= free, "left to spare"),
    (lambda parameters, bits, free: parameters * bits / 8 <= free * 0.8, "not to the memory"),
    (lambda parameters, bits, free: parameters * (bits // 8) * 1.2 <= free, "not nothing"),
    (lambda parameters, bits, free: parameters * bits / 8 * 1.2 > free, "right way round"),
    (lambda parameters, bits, free: print(end=""), "returned None"),
))

# ---- 1.3 -------------------------------------------------------------------------------------------------


def kept_by_tf32() -> list[float]:
    """Those of 0.5, 0.1, 1000.0, 2049.0 and 2.0**100 that TF32 keeps exactly."""
    return [0.5, 1000.0, 2.0**100]


def _verify_kept_by_tf32(answer: Answer) -> str | None:
    got = answer()
    if got is None:
        return "it returned None. Does the function end with a return?"
    if not isinstance(got, (list, tuple, set, frozenset)):
        return f"it returned a {type(got).__name__}. Return a list with the numbers that you choose."
    chosen, unknown = set(got), set(got) - {0.5, 0.1, 1000.0, 2049.0, 2.0**100}
    if unknown:
        return f"{sorted(unknown)[0]} is none of the five numbers. Return those that you choose, as they stand there."
    # Number, whether it is kept, and what is wrong if the prediction differs.
    reasons = (
        (0.1, False, "0.1 is not among them: in binary it never ends, as 1/3 never ends in decimal, so every format "
                     "cuts it."),
        (2.0**100, True, "2.0**100 is kept although it is huge: which of the parts says how large a number is, and how "
                         "many bits has TF32 for it?"),
        (0.5, True, "0.5 is kept: as a power of two, 2**-1, it needs no fraction bit at all."),
        (1000.0, True, "1000 is kept: in binary it is 1111101000. Count the digits behind the first one."),
        (2049.0, False, "2049 is not kept: in binary it is 100000000001. Count the digits behind the first one."),
    )
    return next((hint for number, kept, hint in reasons if (number in chosen) is not kept), None)


_KEPT_BY_TF32 = Exercise("1.3", "What does TF32 keep?", kept_by_tf32, _verify_kept_by_tf32, wrong=(
    (lambda: [0.5, 0.1, 1000.0], "0.1 is not among them"),
    (lambda: [0.5, 1000.0], "huge"),
    (lambda: [0.5, 1000.0, 2049.0, 2.0**100], "2049 is not kept"),
    (lambda: [1000.0, 2.0**100], "0.5 is kept"),
    (lambda: [0.5, 2.0**100], "1000 is kept"),
    (lambda: [True, False, True, False, True], "none of the five"),
    (lambda: 3, "Return a list"),
))

# ---- 1.4 -------------------------------------------------------------------------------------------------


def largest_error(rounded: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest relative error of a number in rounded; none in exact is 0."""
    return float(((rounded - exact).abs() / exact.abs()).max())


def _verify_largest_error(answer: Answer) -> str | None:
    exact = torch.tensor([4.0, -2.0, 20.0, -1.0])
    rounded = torch.tensor([3.0, -2.25, 20.5, -1.0])
    for sign in (1, -1):
        hint = _judge_error(answer(sign * rounded, sign * exact), sign * rounded, sign * exact)
        if hint:
            return hint
    numbers = torch.linspace(1, 2, 1000)
    got, expected = float(answer(numbers.bfloat16(), numbers)), largest_error(numbers.bfloat16(), numbers)
    if not math.isclose(got, expected, rel_tol=0.01):
        return f"for 1000 numbers rounded to bfloat16 it returned {got:.2g}, and the largest error is {expected:.2g}."
    return None if float(answer(numbers, numbers)) == 0 else "where nothing was rounded the error is 0."


def _judge_error(got: Any, rounded: torch.Tensor, exact: torch.Tensor) -> str | None:
    if got is None:
        return "it returned None. Does the function end with a return?"
    if isinstance(got, torch.Tensor) and got.numel() > 1:
        return f"it returned {got.numel()} errors. Return the largest of them: .max()."
    if math.isclose(got, largest_error(rounded, exact), rel_tol=1e-4):
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
    )
    for value, hint in likely:
        if math.isclose(got, value, rel_tol=1e-4):
            return hint
    if any(math.isclose(got, value, rel_tol=1e-4) for value in
           ((off / exact).max(), (off / exact.abs()).max(), (off.abs() / exact).max())):
        return "it lets errors below zero pass as small. Take .abs() of the difference and of the exact number."
    return f"for {rounded.tolist()} instead of {exact.tolist()} it returned {float(got):.3g}."


_LARGEST_ERROR = Exercise("1.4", "Measure a rounding", largest_error, _verify_largest_error, wrong=(
    (lambda rounded, exact: (rounded - exact).abs().max().item(), "much for 4 and little for 4000"),
    (lambda rounded, exact: ((rounded - exact) / exact).max().item(), "below zero"),
    (lambda rounded, exact: ((rounded - exact).abs() / rounded.abs()).max().item(), "by the rounded numbers"),
    (lambda rounded, exact: ((rounded - exact).abs() / exact.abs()).mean().item(), "average"),
    (lambda rounded, exact: ((rounded - exact).abs().max() / exact.abs().max()).item(), "its own number first"),
    (lambda rounded, exact: ((rounded - exact).norm() / exact.norm()).item(), "whole tensor"),
    (lambda rounded, exact: (rounded - exact).abs() / exact.abs(), "returned 4 errors"),
))

EXERCISES = (_WHOLE_TEXT, _FITS, _KEPT_BY_TF32, _LARGEST_ERROR)
