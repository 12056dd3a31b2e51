"""The private parts of PyTorch that the package uses, each with what happens once a version has it no more.

They may go without notice. Most of them make something faster, and without them the same is computed, up to rounding:
so what is gone is left out, and nobody is told. The rest shows what a compiler does, and nothing once it is gone.

Beside them some modules override `_apply`, `_save_to_state_dict` and `_load_from_state_dict`, which is where
`torch.nn.Module` lets itself be changed; tests of moving, tying and saving would say if these were called no more.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Product = Callable[..., Tensor]

INT8_PRODUCT: Product | None = getattr(torch, "_weight_int8pack_mm", None)
"""A few vectors times 8-bit weights, which it unpacks on the way. Without it: unpacked first, and slower."""

INTEGER_PRODUCT: Product | None = getattr(torch, "_int_mm", None)
"""Two matrices of 8-bit integers. Without it: many vectors are not rounded, and the weights are unpacked first."""

INT4_PRODUCT: Product | None = getattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu", None)
"""Vectors times 4-bit weights, which it unpacks on the way. Without it: unpacked first, and slower."""

PACK_INT4: Product | None = getattr(torch, "_convert_weight_to_int4pack_for_cpu", None)
"""Tells in which order `INT4_PRODUCT` expects the weights on this processor. Without it: as without that one."""


def specialize_floats() -> None:
    """Let compiled code take Python's floats for constants.

    Without it: the epsilons of the norms are handed to each layer anew, as tensors, to allow for their changing, and a
    compiled step takes a little longer.
    """
    config: Any = _part("_dynamo.config")
    if hasattr(config, "specialize_float"):
        config.specialize_float = True


def mark_static_address(tensor: Tensor) -> None:
    """Tell a compiler that a tensor stays where it is in memory.

    Without it: a CUDA graph copies the tensor before each replay.
    """
    mark = _part("_dynamo.mark_static_address")
    if mark is not None:
        mark(tensor)


def can_trace() -> bool:
    """Whether `torch.compile` can read this Python's programs. Without it: yes, and a version too new fails later."""
    supported = _part("_dynamo.is_dynamo_supported")
    return True if supported is None else bool(supported())


def graphs_made() -> int:
    """How many graphs `torch.compile` has made so far in this process. Without it: 0."""
    counters = _part("_dynamo.utils.counters")
    return 0 if counters is None else int(counters["stats"]["unique_graphs"])


def generated_code(fn: Callable[..., Any], *args: Any) -> tuple[Any, list[str]]:
    """Call a compiled function; what it returns, and the programs that were generated for it. Without it: none."""
    run_and_get_code = _part("_inductor.utils.run_and_get_code")
    return (fn(*args), []) if run_and_get_code is None else run_and_get_code(fn, *args)


def _part(path: str) -> Any:
    """A private part by its path below `torch`; None if it is gone."""
    module, _, name = f"torch.{path}".rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
