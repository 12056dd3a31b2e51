"""A matrix times a vector: what generating a token consists of, and what decides how fast it is.

Reading a prompt multiplies each weight matrix with many vectors, generating a token with one. PyTorch's usual way,
`F.linear`, is made for many. With one, each weight is read from memory and used a single time, so the best one can
do is to keep the memory busy, and on a CPU other ways come closer to that. When `torch.compile` is at work, it is the
product written out as multiplication and sum, which it turns into one loop over the weights. Otherwise it is one of
three routines: that of oneDNN, the library for matrices; PyTorch's own, which is used while oneDNN is switched off; and
in bfloat16 that of `kernels`. Which one is fastest depends on the processor, so all are tried, once on each machine.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils import kernels
from course_utils.device import processor_name
from course_utils.files import json_writer, write_atomically
from course_utils.kernels.build import BuildError, kernel_folder
from course_utils.timing import median_seconds

Routine = Literal["oneDNN", "PyTorch", "kernel"]
_TRIED_ON = (4, 4096, 2048)  # matrices, together larger than the caches


class Linear(nn.Linear):
    """A linear layer without bias, as all of Qwen3's are: `x @ weight.T`."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (..., in_features). Returns: (..., out_features), in the dtype of x."""
        if torch.compiler.is_compiling() and is_one_vector(x):
            # Uncompiled, this line would write all the products to memory before it adds them up.
            return (self.weight.float() * x.float()).sum(-1).to(x.dtype).view(*x.shape[:-1], -1)
        if _is_for_kernel(x, self.weight):
            return kernels.bfloat16_products(x.reshape(1, -1), [self.weight])[0].view(*x.shape[:-1], -1)
        return F.linear(x, self.weight)


def side_by_side(x: Tensor, *layers: nn.Module) -> list[Tensor]:
    """What each of some layers makes of the same vectors.

    In compiled code, layers of one kind whose method `for_kernel` says so are left to its static method `products`, all
    together: that takes less time than one after the other.
    """
    kind: Any = type(layers[0])
    if (torch.compiler.is_compiling() and hasattr(kind, "products")
            and all(type(layer) is kind for layer in layers) and all(kind.for_kernel(layer, x) for layer in layers)):
        return list(kind.products(x, layers))
    return [layer(x) for layer in layers]


def is_one_vector(x: Tensor) -> bool:
    """Whether x, (..., d), holds a single vector."""
    return x.shape[:-1].numel() == 1


def _is_for_kernel(x: Tensor, weight: Tensor) -> bool:
    """Whether this is what the kernel was made for, and faster with. It knows nothing of gradients."""
    return (x.dtype == weight.dtype == torch.bfloat16 and x.device.type == weight.device.type == "cpu"
            and is_one_vector(x) and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
            and fastest_routine(torch.bfloat16) == "kernel")


@contextmanager
def vector_products(device: torch.device) -> Iterator[None]:
    """Within this block `F.linear` multiplies single vectors on a CPU with PyTorch's own routine.

    The switch is one for the whole process. It changes speed and the last digits, nothing else.
    """
    mkldnn = torch.backends.mkldnn  # oneDNN's former name
    if device.type != "cpu" or not mkldnn.enabled:
        yield
        return
    mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        mkldnn.enabled = True  # type: ignore[assignment]


def fastest_routine(dtype: torch.dtype) -> Routine:
    """What multiplies a matrix with a single vector fastest on this machine's CPU, with as many threads as now."""
    speeds = routine_speeds(dtype, torch.get_num_threads())
    return max(speeds, key=lambda routine: speeds[routine])


@functools.cache
def routine_speeds(dtype: torch.dtype, threads: int) -> Mapping[Routine, float]:
    """How fast each routine reads a matrix that it multiplies with a vector, in bytes per second.

    They are tried, which takes some hundredths of a second, unless the user's cache knows it of this processor.

    Args:
        dtype: of matrix and vector.
        threads: as many as PyTorch computes with now.

    Returns:
        The routines that there are: "kernel" is one for bfloat16, where it can be compiled.
    """
    routines: list[Routine] = ["oneDNN", "PyTorch"]
    if dtype == torch.bfloat16 and kernels.problem("bfloat16") is None:
        routines.append("kernel")
    facts = (processor_name(), torch.__version__, str(dtype), threads, _TRIED_ON, routines)
    name = f"routines-{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, BuildError):
        known = json.loads((kernel_folder() / name).read_text(encoding="utf-8"))
        if isinstance(known, dict) and set(known) == set(routines) and all(map(_is_speed, known.values())):
            return known
    speeds = _try_routines(dtype, routines)
    with suppress(OSError, BuildError):  # a cache that cannot be written: tried again by the next process
        folder = kernel_folder()
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder, {name: json_writer({str(each): speed for each, speed in speeds.items()})})
    return speeds


def _is_speed(value: object) -> bool:
    return isinstance(value, float) and 0 < value < math.inf


@torch.no_grad()
def _try_routines(dtype: torch.dtype, routines: list[Routine]) -> dict[Routine, float]:
    matrices = torch.ones(_TRIED_ON, dtype=dtype, device="cpu")
    x = torch.ones(1, _TRIED_ON[-1], dtype=dtype, device="cpu")
    seconds = dict.fromkeys(routines, math.inf)

    def kernel_product(x: Tensor, matrix: Tensor) -> Tensor:
        return kernels.bfloat16_products(x, [matrix])[0]

    def multiply_all(product: Callable[[Tensor, Tensor], Tensor]) -> None:
        for matrix in matrices:
            product(x, matrix)

    for _ in range(3):  # in turn, and the best counts: other programs only make it look slower
        for routine in routines:
            run = functools.partial(multiply_all, kernel_product if routine == "kernel" else F.linear)
            with vector_products(x.device) if routine == "PyTorch" else nullcontext():
                seconds[routine] = min(seconds[routine], median_seconds(run, x.device, 1).low)
    return {routine: matrices.nbytes / best for routine, best in seconds.items()}
