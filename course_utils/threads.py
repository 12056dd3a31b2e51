"""How many threads compute a pass of a model on a CPU: this is the one place that decides.

With several threads each operation ends with waiting for the slowest of them. For a large model that is nothing beside
what they share. A layer that fits into a core's caches takes microseconds, and once another program wants one of the
cores, every operation waits until the operating system gives it back: a token of the model `tiny` took 2.2 ms with two
threads on a quiet machine, 13 to 41 on a busy one, and with one thread 2.6 to 5.5. So small models compute with one,
except what is trained and long batches, in which an operation has more to do.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from course_utils.errors import InputError
from course_utils.number import require_whole_number

THREADS_VARIABLE = "COURSE_THREADS"
SMALL_LAYER = 4 << 20
"""Bytes of weights up to which a layer counts as small."""
FEW_TOKENS = 2048
"""Tokens of a pass, all texts together, up to which a small model computes it with one thread."""


def thread_count(layer_bytes: int, tokens: int = 1) -> int:
    """How many threads compute a pass without gradients.

    Args:
        layer_bytes: of the weights of one of the model's layers.
        tokens: in the pass.

    Returns:
        What the environment variable COURSE_THREADS says; else 1 for a small model, and PyTorch's number for others.

    Raises:
        InputError: if the variable holds no number of threads.
    """
    asked = os.environ.get(THREADS_VARIABLE)
    if asked:
        return _number(asked)
    return 1 if layer_bytes <= SMALL_LAYER and tokens <= FEW_TOKENS else torch.get_num_threads()


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Within this block PyTorch computes with so many threads."""
    before = torch.get_num_threads()
    if before == threads:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.lru_cache
def _number(text: str) -> int:
    try:
        return require_whole_number(THREADS_VARIABLE, int(text), 1, 4096)
    except ValueError as error:
        raise InputError(f"The environment variable {THREADS_VARIABLE} is {text!r}: give a number of threads, such as "
                         "2, or unset it.") from error
