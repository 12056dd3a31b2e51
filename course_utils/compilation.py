"""Whether `torch.compile` works on this machine, and a way back where it does not.

Needed are a C++ compiler and Python's headers on a CPU, Triton on a GPU, and versions of Python and PyTorch
that go together. Instead of asking for each, `compile_problem` compiles something small and looks whether the
result is right.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Compilable = TypeVar("Compilable", bound=Callable[..., Any])


@functools.cache
def compile_problem(device: torch.device | str) -> str | None:
    """Try `torch.compile` on a small function. The first call takes some seconds, later ones remember it.

    Args:
        device: where the compiled code is to run.

    Returns:
        None if it works, else one sentence that says what is missing and that everything runs without it.
    """

    def gate(x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)

    x = torch.linspace(-1, 1, 64, device=device)
    try:
        result = torch.compile(gate)(x)
    except Exception as error:  # whatever a compiler may say
        reason = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
        return (f"torch.compile does not work here ({reason.rstrip('.:')}), so this chapter runs everything "
                "uncompiled; chapter 1 says what to install.")
    if not torch.allclose(result, gate(x), atol=1e-5):
        return ("torch.compile gives wrong results here, so this chapter runs everything uncompiled; "
                "install another version of PyTorch.")
    return None


def compile_or_eager(fn: Compilable, device: torch.device | str, **options: Any) -> Compilable:
    """`torch.compile(fn, **options)` where that works, and `fn` as it is where it does not.

    Args:
        fn: a model or a function of tensors; a compiled model shares the weights of the given one.
        device: where it is to run.
        options: as of `torch.compile`: `dynamic`, `mode`, `backend` and others.

    Returns:
        What is called like `fn`. It is compiled when it is first called, not now.
    """
    if compile_problem(device) is not None:
        return fn
    compiled: Any = torch.compile(fn, **options)
    return compiled
