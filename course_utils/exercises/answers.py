"""What learners return, read in any reasonable form: the one place that converts it, for all checks.

A task asks for a number, a list, a tensor; an answer may give a Python number, a NumPy one or a tensor with a single
entry, a tuple or a generator for a list, an array or nested lists for a tensor, in any precision. Each function here
takes what was returned and what the task asks for, in its own words, and gives back one plain form, or raises `NotYet`
with a remark that names both. So a check compares plain values, and says nothing about forms itself.
"""

from __future__ import annotations

import collections.abc
import numbers as kinds
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_utils.exercises.exercise import NotYet
from course_utils.language import gettext, noted

_MOST_ENTRIES = 100_000  # far more than any task asks for, and soon there where a generator has no end
_MOST_LETTERS = 40  # of a text or number that a remark quotes
_WITHOUT_ORDER = (set, frozenset)


def number(value: object, asked: str = noted("one number")) -> float:
    """A number, whichever type it has.

    Args:
        value: a Python or NumPy number, a `Fraction`, or a tensor or array with a single entry.
        asked: what the task asks for, as in "Return ...".

    Raises:
        NotYet: for anything else, truth values and texts included.
    """
    plain = _single(value)
    if isinstance(plain, kinds.Real) and not isinstance(plain, (bool, np.bool_)):
        return float(plain)
    raise _refusal(value, asked)


def whole(value: object, asked: str = noted("one whole number")) -> int:
    """A number without a fraction; 3.0 counts as 3. Arguments as of `number`.

    Raises:
        NotYet: for anything else, 2.5 included.
    """
    plain = _single(value)
    if isinstance(plain, kinds.Integral) and not isinstance(plain, bool):
        return int(plain)
    found = number(plain if plain is not None else value, asked)
    if not found.is_integer():
        raise _refusal(value, asked)
    return int(found)


def truth(value: object, asked: str = noted("True or False")) -> bool:
    """A truth value: Python's, NumPy's, that of a tensor with a single entry, or 0 or 1.

    Raises:
        NotYet: for anything else; the text "False", which Python takes for true, included.
    """
    plain = _single(value)
    if isinstance(plain, (bool, np.bool_)) or (isinstance(plain, kinds.Real) and plain in (0, 1)):
        return bool(plain)
    raise _refusal(value, asked)


def text(value: object, asked: str = noted("one text, a str")) -> str:
    """A text.

    Raises:
        NotYet: for anything else, bytes included.
    """
    if isinstance(value, str):
        return str(value)
    raise _refusal(value, asked)


def items(value: object, asked: str = noted("a list"), length: int | None = None, ordered: bool = True) -> list[Any]:
    """The entries of a list, a tuple, a range, a one-dimensional array or tensor, or of what a generator hands out.

    Args:
        value: what was returned.
        asked: what the task asks for, as in "Return ...".
        length: how many entries it must have, if that is known.
        ordered: whether the order counts, so that a set will not do.

    Raises:
        NotYet: for anything else, texts and dictionaries included, and for a generator without an end.
    """
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim > 0 and not _is_empty_shell(value):
        found = list(value.tolist())
    elif isinstance(value, collections.abc.Iterator):
        found = take(value, _MOST_ENTRIES)
    elif (isinstance(value, (collections.abc.Sequence, collections.abc.Set, collections.abc.ValuesView))
          and not isinstance(value, (str, bytes)) and not (ordered and isinstance(value, _WITHOUT_ORDER))):
        found = list(value)
    else:
        raise _refusal(value, asked)
    if length is not None and len(found) != length:
        raise NotYet(gettext("what it returned has {count}. Return {asked}.").format(
            count=_entries(len(found)), asked=gettext(asked)))
    return found


def numbers(value: object, asked: str = noted("a list of numbers"), length: int | None = None,
            ordered: bool = True) -> list[float]:
    """The entries of `items`, each as of `number`."""
    one = gettext("{asked}; an entry is no number").format(asked=gettext(asked))
    return [number(entry, one) for entry in items(value, asked, length, ordered)]


def wholes(value: object, asked: str = noted("a list of whole numbers"), length: int | None = None,
           ordered: bool = True) -> list[int]:
    """The entries of `items`, each as of `whole`."""
    one = gettext("{asked}; an entry is no whole number").format(asked=gettext(asked))
    return [whole(entry, one) for entry in items(value, asked, length, ordered)]


def mapping(value: object, asked: str = noted("a dictionary")) -> dict[Any, Any]:
    """A dictionary, a Counter or another mapping, as a dict.

    Raises:
        NotYet: for anything else.
    """
    if isinstance(value, Mapping):
        return dict(value)
    raise _refusal(value, asked)


def tensor(value: object, asked: str = noted("a tensor"), shape: tuple[int, ...] | None = None) -> Tensor:
    """A tensor, an array, a number or nested lists of these, as a tensor on the CPU without gradients.

    The kind of number stays as it is: compare with `close`, which does not mind.

    Args:
        value: what was returned.
        asked: what the task asks for, as in "Return ...".
        shape: the shape that it must have, if there is nothing more helpful to say about another one.

    Raises:
        NotYet: for anything else, and for another shape.
    """
    found = _tensor(value)
    if found is None or _is_empty_shell(found):
        raise _refusal(value, asked)
    if shape is not None and tuple(found.shape) != shape:
        raise NotYet(gettext("what it returned has the shape {given}. Return {asked}, of shape {shape}.").format(
            given=tuple(found.shape), asked=gettext(asked), shape=shape))
    return found.detach().cpu()


def take(stream: Iterable[Any], most: int, remark: str = "") -> list[Any]:
    """What a stream hands out, if that is not more than `most`; no more than one beyond it is taken.

    Args:
        stream: a generator or another iterator, which need not end.
        most: how many entries may come.
        remark: what to tell where more come.

    Raises:
        NotYet: if it hands out more.
    """
    taken = list(islice(stream, most + 1))
    if len(taken) > most:
        raise NotYet(gettext(remark) or gettext("it hands out more than {count} and was stopped. What ends its "
                                       "loop?").format(count=_entries(most)))
    return taken


def close(given: Tensor | float, expected: Tensor | float, rtol: float = 1e-5, atol: float = 1e-6) -> bool:
    """Whether two numbers or tensors agree up to rounding, in shape too; the kind of number does not matter.

    Args:
        given: what `number` or `tensor` made of an answer.
        expected: what is right.
        rtol: the relative difference that is allowed; float32 rounds to about 1e-7.
        atol: the absolute difference that is allowed; for numbers that may be small, less.
    """
    first, second = torch.as_tensor(given).double(), torch.as_tensor(expected).double()
    return first.shape == second.shape and torch.allclose(first, second, rtol=rtol, atol=atol)


def describe(value: object) -> str:
    """What an answer returned, in a few words: "a tensor of shape (3, 4)", "the text 'no'", "a tuple of 2 entries"."""
    if isinstance(value, Tensor):
        if _is_empty_shell(value):
            return gettext("a tensor of shape {shape} on the device {device!r}, without numbers").format(
                shape=tuple(value.shape), device=value.device.type)
        return gettext("a tensor of shape {shape}").format(shape=tuple(value.shape))
    if isinstance(value, np.ndarray):
        return gettext("an array of shape {shape}").format(shape=value.shape)
    if isinstance(value, (bool, kinds.Number, np.generic)):
        return f"{value}"[:_MOST_LETTERS]
    if isinstance(value, str):
        return gettext("the text {value!r}").format(value=value[:_MOST_LETTERS])
    for kind in (list, tuple, set, frozenset, dict):  # what `max` with a dimension returns is a tuple with a name
        if isinstance(value, kind):
            return gettext("a {kind} of {count}").format(kind=kind.__name__, count=_entries(len(value)))
    name = type(value).__name__
    return (gettext("an {name}") if name[0] in "aeiouAEIOU" else gettext("a {name}")).format(name=name)


def _single(value: object) -> Any:
    """The one entry of a tensor or an array; anything else as it is."""
    if isinstance(value, (Tensor, np.ndarray)):
        count = value.numel() if isinstance(value, Tensor) else value.size
        return value.item() if count == 1 and not _is_empty_shell(value) else None
    return value


def _tensor(value: object) -> Tensor | None:
    """Tensors, arrays, numbers and nested lists of these as a tensor; None for what is none of them, or is ragged."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (list, tuple)) and any(isinstance(entry, (list, tuple, Tensor, np.ndarray))
                                                for entry in value):
        parts = [_tensor(entry) for entry in value]
        found = [part for part in parts if part is not None]
        return torch.stack(found) if len(found) == len(parts) and len({part.shape for part in found}) == 1 else None
    if isinstance(value, (list, tuple, np.ndarray, np.generic, kinds.Number)):
        try:
            return torch.tensor(value)
        except (TypeError, ValueError, RuntimeError, OverflowError):  # texts and other objects among the entries
            return None
    return None


def _is_empty_shell(value: Tensor | np.ndarray) -> bool:
    """Whether a tensor is on the meta device, where it has a shape and no numbers."""
    return isinstance(value, Tensor) and value.is_meta


def _refusal(value: object, asked: str) -> NotYet:
    if value is None:
        return NotYet(gettext("it returned None. Does the function end with a return? Return {asked}.").format(
            asked=gettext(asked)))
    return NotYet(gettext("it returned {given}. Return {asked}.").format(given=describe(value), asked=gettext(asked)))


def _entries(count: int) -> str:
    return gettext("1 entry") if count == 1 else gettext("{count} entries").format(count=count)
