"""Numbers as people and files give them: Python's, NumPy's, or a tensor's; never a truth value, never a text.

And the formats that a model's numbers may have.
"""

from __future__ import annotations

import math
import operator
import reprlib
from typing import Any

import torch

from course_utils.errors import InputError
from course_utils.language import gettext

NUMBER_FORMATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
"""Those that a model can compute in."""


def whole_number(value: Any) -> int | None:
    """The int that a value is; None if it is something else.

    Args:
        value: an int, a NumPy integer, or an array or tensor of integers without dimensions. A bool is no number
            here, nor is a float, not even 2.0: what was computed as a float may have been rounded.
    """
    if type(value) is int:  # nearly always, and texts of many tokens come by here
        return value
    if _no_number(value):
        return None
    try:
        return operator.index(value)
    except (TypeError, RuntimeError):  # RuntimeError: a tensor without memory has no value
        return None


def require_whole_number(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """The int that an argument is; whoever asks goes on with it, since the argument may be a tensor.

    Args:
        name: what the argument is called, to begin the sentence of the error.
        value: see `whole_number`.
        least, most: its bounds, both included; None is no upper bound.

    Raises:
        InputError: if it is no whole number, or out of its bounds.
    """
    number = whole_number(value)
    if number is None or number < least or most is not None and number > most:
        remedy = (gettext("{name} is {value!r}: give a whole number from {least} on.") if most is None else
                  gettext("{name} is {value!r}: give a whole number from {least} to {most}."))
        raise InputError(remedy.format(name=name, value=value, least=least, most=most))
    return number


def finite_number(value: Any) -> float | None:
    """The float that a value is; None if it is something else, infinite, NaN, or too large for a float.

    Args:
        value: an int, a float, a number of NumPy's, or an array or tensor of numbers without dimensions.
    """
    if _no_number(value):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
    return number if math.isfinite(number) else None


def check_dtype(dtype: object) -> None:
    """Make sure that a model can compute in a number format; None leaves it to others to choose one.

    Raises:
        InputError: if it cannot, or this is none.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype in NUMBER_FORMATS):
        raise InputError(gettext("dtype is {dtype}: give one of {number_formats}.").format(
            dtype=reprlib.repr(dtype), number_formats=", ".join(map(str, NUMBER_FORMATS))))


def _no_number(value: Any) -> bool:
    """Whether a value only passes for a number: a bool, text, or a list that happens to have one entry."""
    truth = isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
    return truth or isinstance(value, (str, bytes, bytearray)) or getattr(value, "ndim", 0) != 0
