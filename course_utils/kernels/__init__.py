"""Products of a few vectors with a matrix of few bits, in C: the one thing that PyTorch has no fast operator for.

A kernel is a C file here, compiled when it is first needed (`build`) and tried on small matrices before it is used. It
is an operator of PyTorch's then, `torch.ops.course_utils`, so that compiled code calls it too. Where something is
missing, `problem` says what, and PyTorch's own operators do the work, slower, with vectors rounded otherwise or not.

The result for a vector does not depend on which others come with it, nor on the processor or the number of threads:
every way to compute it gives the same bits.
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any, Literal

import torch
from torch import Tensor

from course_utils.errors import InputError
from course_utils.kernels import build
from course_utils.language import gettext

Kernel = Literal["int4", "int8", "bfloat16"]
KERNELS: tuple[Kernel, ...] = ("int4", "int8", "bfloat16")
VARIABLE = "COURSE_KERNELS"
GROUP = 32  # inputs that share a scale in int4, and numbers of a vector that are rounded together
BLOCK_ROWS = 32  # of a block of int4 and int8
BLOCK_INPUTS = 4  # of a row that are side by side in it
_FORMATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # as formats.h counts them

_LIBRARY = torch.library.Library("course_utils", "DEF")
_LIBRARY.define("int4_product(Tensor x, Tensor weight, Tensor scale_and_offset) -> Tensor")
_LIBRARY.define("int8_product(Tensor x, Tensor weight, Tensor scale) -> Tensor")
_LIBRARY.define("bfloat16_product(Tensor x, Tensor weight) -> Tensor")


@functools.cache
def problem(kernel: Kernel) -> str | None:
    """Compile a kernel, or find it in the cache, and try it. The first call takes a second, later ones remember it.

    Returns:
        None if it is in use, else one sentence that says why not, and that everything runs without it.
    """
    if os.environ.get(VARIABLE) == "0":
        return gettext("The environment variable {variable} is 0, so PyTorch's own operators "
                       "multiply quantized weights.").format(variable=VARIABLE)
    try:
        if instruction_set() == "PLAIN":
            raise build.BuildError("this processor has no dot product of bytes that they know")
        _try(kernel)
    except build.BuildError as error:
        return gettext("The course's own kernels are not in use ({error}), so PyTorch's operators "
                       "multiply quantized weights.").format(error=error)
    return None


@functools.cache
def instruction_set() -> str:
    """How this processor multiplies bytes: the first of `build.INSTRUCTION_SETS` that it has.

    Raises:
        BuildError: if there is no compiler to ask.
    """
    return _compiler().instruction_sets[0]


def int4_product(x: Tensor, weight: Tensor, scale_and_offset: Tensor) -> Tensor:
    """Vectors, rounded to 8 bits in groups of 32, times a matrix of 4-bit integers.

    Args:
        x: (n, d), d a multiple of 32.
        weight: (rows, d / 2) bytes in the order that int4.c describes, rows a multiple of 32.
        scale_and_offset: (rows / 32, d / 32, 2, 32), in float32, bfloat16 or float16.

    Returns:
        (n, rows), in the dtype of x. A weight stands for (integer - 8) * scale + offset.
    """
    product: Tensor = torch.ops.course_utils.int4_product(x, weight, scale_and_offset)
    return product.to(x.dtype)


def int8_product(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Vectors, rounded to 8 bits in groups of 32, times a matrix of 8-bit integers.

    Args:
        x: (n, d).
        weight: (rows, d), int8, both padded with zeros to multiples of 32, in the order that int8.c describes.
        scale: (rows,), in float32, bfloat16 or float16, padded alike.

    Returns:
        (n, rows), in the dtype of x.
    """
    product: Tensor = torch.ops.course_utils.int8_product(x, weight, scale)
    return product.to(x.dtype)


def bfloat16_product(x: Tensor, weight: Tensor) -> Tensor:
    """Vectors times a matrix in bfloat16, added up in float32.

    Args:
        x: (n, d).
        weight: (rows, d), bfloat16.

    Returns:
        (n, rows), in the dtype of x.
    """
    product: Tensor = torch.ops.course_utils.bfloat16_product(x, weight)
    return product.to(x.dtype)


def interleave(matrix: Tensor, rows: int, inputs: int) -> Tensor:
    """A matrix in blocks of so many rows, (n, d), within which some inputs of each row are side by side.

    So a processor turns one stretch of memory into the weights of many rows for the same inputs.
    """
    n, d = matrix.shape
    return matrix.reshape(n // rows, rows, d // inputs, inputs).transpose(1, 2).contiguous().view(n, d)


def by_rows(matrix: Tensor, rows: int, inputs: int) -> Tensor:
    """The inverse of `interleave`."""
    n, d = matrix.shape
    return matrix.reshape(n // rows, d // inputs, rows, inputs).transpose(1, 2).contiguous().view(n, d)


@functools.cache
def _compiler() -> build.Compiler:
    return build.find_compiler()


@functools.cache
def _team() -> int | None:
    """The address of what starts OpenMP's threads, in the library that PyTorch has loaded; None: one thread it is."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except (AttributeError, OSError, TypeError):  # another library for threads
        return None


@functools.cache
def _function(kernel: Kernel) -> Any:
    """The C function of a kernel.

    Raises:
        BuildError: if it cannot be had.
    """
    return function(kernel, instruction_set())


def function(kernel: Kernel, instructions: str) -> Any:
    """The C function of a kernel that multiplies bytes with certain instructions, one of `build.INSTRUCTION_SETS`.

    Raises:
        BuildError: if it cannot be had.
    """
    found = build.load(kernel, _compiler(), instructions).multiply
    address, number, count = ctypes.c_void_p, ctypes.c_int, ctypes.c_long
    scales: list[Any] = [] if kernel == "bfloat16" else [address, number]
    found.argtypes = [address, number, address, number, count, count, address, *scales, count, address]
    found.restype = number
    return found


def _call(kernel: Kernel, x: Tensor, weight: Tensor, scales: Tensor | None = None) -> Tensor:
    """Call a kernel's C function: (n, d) in any of `_FORMATS` to (n, rows) in float32.

    Raises:
        InputError: if the rows of the matrix have another length than the vectors: C would read beside them.
    """
    x, weight = _readable(x), weight.contiguous()
    inputs = weight.shape[1] * (2 if kernel == "int4" else 1)
    if inputs != x.shape[1] + (-x.shape[1] % GROUP if kernel == "int8" else 0):
        raise InputError(gettext("The vectors have {size} numbers and the rows of the matrix {inputs}: give vectors as "
                                 "long as its rows.").format(size=x.shape[1], inputs=inputs))
    out = torch.empty(x.shape[0], weight.shape[0])
    described: tuple[int, ...] = ()
    if scales is not None:
        scales = _readable(scales)
        described = (scales.data_ptr(), _FORMATS[scales.dtype])
    failed = _function(kernel)(_team(), torch.get_num_threads(), x.data_ptr(), _FORMATS[x.dtype], *x.shape,
                               weight.data_ptr(), *described, weight.shape[0], out.data_ptr())
    if failed:
        raise MemoryError("There is not enough memory to round the vectors of a product: multiply fewer at once.")
    return out


def _readable(numbers: Tensor) -> Tensor:
    return (numbers if numbers.dtype in _FORMATS else numbers.float()).contiguous()


def _shape(x: Tensor, weight: Tensor, *_: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], dtype=torch.float32)


for _kernel in KERNELS:
    _LIBRARY.impl(f"{_kernel}_product", functools.partial(_call, _kernel), "CPU")
    torch.library.register_fake(f"course_utils::{_kernel}_product", _shape, lib=_LIBRARY)


def _try(kernel: Kernel) -> None:
    """Raises: BuildError: if a kernel's products are not those of its numbers, added up in double precision."""
    generator = torch.Generator().manual_seed(0)
    for vectors, rows, d in ((1, 64, 96), (8, 32, 64), (11, 96, 160)):
        x = torch.randn(vectors, d, generator=generator)
        # Whole numbers up to 127, one of them in each group, are rounded to themselves.
        x = (x * 40).round().clamp(-127, 127)
        x[:, ::GROUP] = 127
        integers = torch.randint(256, (rows, d), dtype=torch.uint8, generator=generator)
        if kernel == "bfloat16":
            weight = integers.bfloat16()
            product, exact = _call(kernel, x, weight), x.double() @ weight.double().T
        elif kernel == "int8":
            scale = torch.rand(rows, generator=generator)
            packed = interleave(integers, BLOCK_ROWS, BLOCK_INPUTS)
            product = _call(kernel, x, packed, scale)
            exact = x.double() @ integers.view(torch.int8).double().T * scale.double()
        else:
            integers = integers % 16
            low, high = integers.view(-1, 2, BLOCK_ROWS // 2, d).unbind(dim=1)
            packed = interleave((low | high << 4).flatten(0, 1), BLOCK_ROWS // 2, BLOCK_INPUTS).view(rows, d // 2)
            scales = torch.rand(rows // BLOCK_ROWS, d // GROUP, 2, BLOCK_ROWS, generator=generator)
            scale, offset = scales.double().permute(2, 0, 3, 1).reshape(2, rows, -1).repeat_interleave(GROUP, dim=2)
            product = _call(kernel, x, packed, scales)
            exact = x.double() @ ((integers.double() - 8) * scale + offset).T
        if not torch.allclose(product.double(), exact, rtol=1e-5, atol=1e-6 * float(exact.abs().max())):
            raise build.BuildError("a trial gave a wrong result")
