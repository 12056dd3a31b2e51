"""Exercise of chapter 1: whether a model fits into memory."""

from __future__ import annotations

from collections.abc import Callable

from course_utils.exercises.exercise import Exercise


def fits(parameters: int, bits: int, free: float) -> bool:
    """Whether the weights and a fifth of their size fit into free bytes."""
    weights = parameters * bits / 8
    return weights * 1.2 <= free


def _verify_fits(answer: Callable[..., object]) -> str | None:
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


EXERCISES = (
    Exercise("1.1", "Does it fit?", fits, _verify_fits, wrong=(
        (lambda parameters, bits, free: parameters * bits * 1.2 <= free, "eight bits are a byte"),
        (lambda parameters, bits, free: parameters * bits / 8 <= free, "left to spare"),
        (lambda parameters, bits, free: parameters * bits / 8 <= free * 0.8, "not to the memory"),
        (lambda parameters, bits, free: parameters * (bits // 8) * 1.2 <= free, "not nothing"),
        (lambda parameters, bits, free: parameters * bits / 8 * 1.2 > free, "right way round"),
        (lambda parameters, bits, free: print(end=""), "returned None"),
    )),
)
