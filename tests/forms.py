"""A right result in another form: what a check of an exercise must accept, too.

Each form changes the type of what it can and leaves the rest as it is, inside lists, dictionaries and streams, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_utils.exercises.exercise import Answer

Form = Callable[[Any], Any]


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _is_list(value: object, of: Callable[[object], bool] = lambda _: True) -> bool:
    return type(value) is list and bool(value) and all(of(entry) for entry in value)


def _numpy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().numpy() if value.dtype != torch.bfloat16 else value
    if type(value) in (bool, int, float):
        return np.array(value)[()]
    return np.array(value) if _is_list(value, _is_number) else value


def _float64(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.double()
    return np.float64(value) if type(value) is float else value


def _float32(value: Any) -> Any:
    return np.float32(value) if type(value) is float else value


def _tensor_of_one(value: Any) -> Any:
    return torch.tensor(value, dtype=torch.float64 if type(value) is float else None) if (
        type(value) in (bool, int, float)) else value


def _int32(value: Any) -> Any:
    return value.int() if isinstance(value, Tensor) and value.dtype == torch.int64 else value


def _with_gradients(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        with torch.inference_mode(False):
            return value.clone().requires_grad_()
    return value


FORMS: dict[str, Form] = {
    "NumPy": _numpy,
    "float64": _float64,
    "float32 number": _float32,
    "tensor for a number": _tensor_of_one,
    "3.0 for 3": lambda value: float(value) if type(value) is int else value,
    "tuple for a list": lambda value: tuple(value) if type(value) is list else value,
    "list for a tuple": lambda value: list(value) if type(value) is tuple else value,
    "generator for a list": lambda value: iter(value) if type(value) is list else value,
    "tensor for a list": lambda value: torch.tensor(value) if _is_list(value, _is_number) else value,
    "list for a tensor": lambda value: value.tolist() if isinstance(value, Tensor) else value,
    "int32": _int32,
    "gradients recorded": _with_gradients,
}


def in_form(solution: Answer, form: Form) -> tuple[Answer, list[bool]]:
    """An answer that returns what the solution returns in another form, and a list that is filled if anything changed.

    Args:
        solution: the solution of an exercise.
        form: one of `FORMS`.
    """
    changed: list[bool] = []

    def convert(value: Any) -> Any:
        converted = form(value)
        if converted is not value:
            changed.append(True)
            return converted
        if type(value) in (list, tuple):
            return type(value)(convert(entry) for entry in value)
        if isinstance(value, dict):
            return {key: convert(entry) for key, entry in value.items()}
        return value

    def stream(values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            yield convert(value)

    def answer(*args: Any, **kwargs: Any) -> Any:
        returned = solution(*args, **kwargs)
        return stream(returned) if isinstance(returned, Iterator) else convert(returned)

    return answer, changed
