"""Counting the calls of a function while an answer runs: what a task forbids, or allows once, is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def calls_of(owner: object, name: str) -> Iterator[list[tuple[Any, ...]]]:
    """A list to which each call of a function adds its arguments by position, as long as the body runs.

    The function does its work as ever. What was taken out of its module before, by `from module import name` in the
    learner's notebook, is not seen: name what that calls in turn, or the class whose method it is.

    Args:
        owner: the module or class that has the function.
        name: of the function.
    """
    original = getattr(owner, name)
    calls: list[tuple[Any, ...]] = []

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return original(*args, **kwargs)

    setattr(owner, name, counting)
    try:
        yield calls
    finally:
        setattr(owner, name, original)
