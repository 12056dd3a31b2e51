"""Products of a few vectors with a matrix, attention and whole steps in C, where PyTorch is slow.

A kernel is a C file here, compiled when it is first needed (`build`) and tried on small matrices before it is used. It
is an operator of PyTorch's then, `torch.ops.course_utils`, so that compiled code calls it too. Where something is
missing, `problem` says what, and PyTorch's own operators do the work, slower, with vectors rounded otherwise or not.
"layers" is no operator: `course_utils.native` calls it.

The result for a vector does not depend on which others come with it, nor on the processor or the number of threads:
every way to compute it gives the same bits.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import struct
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from course_utils.errors import InputError
from course_utils.kernels import build
from course_utils.language import gettext

Kernel = Literal["int4", "int8", "bfloat16", "attention", "tiles", "layers"]
PRODUCTS: tuple[Kernel, ...] = ("int4", "int8", "bfloat16")
ATTENTION: tuple[Kernel, ...] = ("attention", "tiles")  # of few tokens, whose keys memory delivers, and of many
KERNELS: tuple[Kernel, ...] = (*PRODUCTS, *ATTENTION)
VARIABLE = "COURSE_KERNELS"
GROUP = 32  # inputs that share a scale in int4, and numbers of a vector that are rounded together
BLOCK_ROWS = 32  # of a block of int4 and int8
BLOCK_INPUTS = 4  # of a row that are side by side in it
HEAD_STEP, HEAD_MOST = 16, 256  # sizes of heads that attention knows are multiples of the one up to the other
FEW = 8  # tokens of a text that attention.c computes side by side; for more of them, tiles.c
C_FORMATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # as formats.h counts them

_LIBRARY = torch.library.Library("course_utils", "DEF")
# Several matrices that meet the same vectors come together, since each call and each start of threads takes its time.
_LIBRARY.define("int4_products(Tensor x, Tensor[] weights, Tensor[] scales_and_offsets) -> Tensor")
_LIBRARY.define("int8_products(Tensor x, Tensor[] weights, Tensor[] scales) -> Tensor")
_LIBRARY.define("bfloat16_products(Tensor x, Tensor[] weights) -> Tensor")
_LIBRARY.define("attention(Tensor queries, Tensor keys, Tensor values, Tensor? mask) -> Tensor")


@functools.cache
def problem(kernel: Kernel) -> str | None:
    """Compile a kernel, or find it in the cache, and try it. The first call takes a second, later ones remember it.

    Returns:
        None if it is in use, else one sentence that says why not, and that everything runs without it.
    """
    if os.environ.get(VARIABLE) == "0":
        return gettext("The environment variable {variable} is 0, so PyTorch's own operators do the kernels' "
                       "work.").format(variable=VARIABLE)
    try:
        if instruction_set() == "PLAIN":
            raise build.BuildError("this processor has no dot product of bytes that they know")
        if kernel in ATTENTION:
            _try_attention(kernel)
        else:
            _try(kernel)
    except build.BuildError as error:
        return not_in_use(error)
    return None


def not_in_use(error: build.BuildError) -> str:
    """One sentence that says why, and that everything runs without them."""
    return gettext("The course's own kernels are not in use ({error}), so PyTorch's operators do their "
                   "work.").format(error=error)


@torch.compiler.assume_constant_result
def in_use(kernel: Kernel) -> bool:
    """Whether a kernel has no `problem`; compiled code asks while it is compiled."""
    return problem(kernel) is None


@functools.cache
def instruction_set() -> str:
    """How this processor multiplies bytes: the first of `build.INSTRUCTION_SETS` that it has.

    Raises:
        BuildError: if there is no compiler to ask.
    """
    return _compiler().instruction_sets[0]


def int4_products(x: Tensor, weights: Sequence[Tensor], scales_and_offsets: Sequence[Tensor]) -> list[Tensor]:
    """Vectors, rounded to 8 bits in groups of 32, times each of some matrices of 4-bit integers.

    Args:
        x: (n, d), d a multiple of 32.
        weights: each (rows, d / 2) bytes in the order that int4.c describes, rows a multiple of 32.
        scales_and_offsets: each (rows / 32, d / 32, 2, 32), in float32, bfloat16 or float16.

    Returns:
        For each matrix (n, rows), in the dtype of x. A weight stands for (integer - 8) * scale + offset.
    """
    return _apart(torch.ops.course_utils.int4_products(x, weights, scales_and_offsets), x, weights)


def int8_products(x: Tensor, weights: Sequence[Tensor], scales: Sequence[Tensor]) -> list[Tensor]:
    """Vectors, rounded to 8 bits in groups of 32, times each of some matrices of 8-bit integers.

    Args:
        x: (n, d).
        weights: each (rows, d), int8, both padded with zeros to multiples of 32, in the order that int8.c describes.
        scales: each (rows,), in float32, bfloat16 or float16, padded alike.

    Returns:
        For each matrix (n, rows), in the dtype of x.
    """
    return _apart(torch.ops.course_utils.int8_products(x, weights, scales), x, weights)


def bfloat16_products(x: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Vectors times each of some matrices in bfloat16, added up in float32.

    Args:
        x: (n, d).
        weights: each (rows, d), bfloat16.

    Returns:
        For each matrix (n, rows), in the dtype of x.
    """
    return _apart(torch.ops.course_utils.bfloat16_products(x, weights), x, weights)


def attends(queries: Tensor, keys: Tensor, values: Tensor) -> bool:
    """Whether `attention` is to be asked about these, instead of PyTorch. It knows nothing of gradients."""
    return (queries.device.type == keys.device.type == "cpu" and not torch.is_grad_enabled()
            and _fits(queries, keys, values) and all(map(in_use, ATTENTION))
            and (queries.shape[2] == 1 or not _has_more_for_matrices(queries.dtype)))


@torch.compiler.assume_constant_result
def _has_more_for_matrices(dtype: torch.dtype) -> bool:
    """Whether this processor has instructions for products of matrices, which PyTorch can use and tiles.c does not."""
    return instruction_set() == "ARM_DOT" or dtype != torch.float32 and "__AMX_TILE__" in _compiler().definitions


def attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of the newest tokens of each text, computed in float32.

    Args:
        queries: (b, h, t, k); `attends` says which fit.
        keys, values: (b, g, s, k), each head for h / g heads of queries.
        mask: (b or 1, 1, t, s), True for what a token looks at, at least one each. None: the tokens are the whole text,
            and each looks at those before it and itself, or t is 1, and the token looks at all.

    Returns:
        (b, h, t, k), in the dtype of the queries.

    Raises:
        InputError: if the tensors do not go together.
    """
    attended: Tensor = torch.ops.course_utils.attention(queries, keys, values, mask)
    return attended.to(queries.dtype).transpose(1, 2)


def _apart(products: Tensor, x: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    return list(products.to(x.dtype).split([weight.shape[0] for weight in weights], dim=1))


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
def team() -> int | None:
    """The address of what starts OpenMP's threads, in the library that PyTorch has loaded; None: one thread it is."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except (AttributeError, OSError, TypeError):  # another library for threads
        return None


@functools.cache
def current_function(kernel: Kernel) -> Any:
    """The C function of a kernel that multiplies as this processor does fastest.

    Raises:
        BuildError: if it cannot be had.
    """
    return function(kernel, instruction_set())


def function(kernel: Kernel, instructions: str) -> Any:
    """The C function of a kernel that multiplies with certain instructions, one of `build.INSTRUCTION_SETS`.

    Raises:
        BuildError: if it cannot be had.
    """
    library = build.load(kernel, _compiler(), instructions)
    address, number, count = ctypes.c_void_p, ctypes.c_int, ctypes.c_long
    if kernel in ATTENTION:
        library.attention.argtypes, library.attention.restype = [address, number, ctypes.c_char_p], None
        return library.attention
    if kernel == "layers":
        library.run_layers.argtypes, library.run_layers.restype = [ctypes.c_char_p], number
        return library.run_layers
    found = library.multiply
    found.argtypes = [address, number, address, number, count, count, ctypes.c_char_p, count, address]
    found.restype = number
    return found


def described(weight: Tensor, scales: Tensor | None = None) -> bytes:
    """A matrix as `struct matrix` in matrices.h tells C about it: addresses of weights and scales, format, rows."""
    if scales is None:
        return struct.pack("=4q", weight.data_ptr(), 0, 0, weight.shape[0])
    return struct.pack("=4q", weight.data_ptr(), scales.data_ptr(), C_FORMATS[scales.dtype], weight.shape[0])


def _call(kernel: Kernel, x: Tensor, weights: Sequence[Tensor], scales: Sequence[Tensor] = ()) -> Tensor:
    """Call a kernel's C function: (n, d) in any of `C_FORMATS` to (n, rows of all matrices) in float32.

    Raises:
        InputError: if the rows of a matrix have another length than the vectors: C would read beside them.
    """
    x = _readable(x)
    weights, scales = [weight.contiguous() for weight in weights], list(map(_readable, scales))
    size = x.shape[1] + (-x.shape[1] % GROUP if kernel == "int8" else 0)
    for weight in weights:
        inputs = weight.shape[1] * (2 if kernel == "int4" else 1)
        if inputs != size:
            raise InputError(gettext("The vectors have {size} numbers and the rows of the matrix {inputs}: give "
                                     "vectors as long as its rows.").format(size=x.shape[1], inputs=inputs))
    out = torch.empty(x.shape[0], sum(weight.shape[0] for weight in weights))
    matrices = b"".join(map(described, weights, scales) if scales else map(described, weights))
    failed = current_function(kernel)(team(), torch.get_num_threads(), x.data_ptr(), C_FORMATS[x.dtype], *x.shape,
                               matrices, len(weights), out.data_ptr())
    if failed:
        raise MemoryError("There is not enough memory to round the vectors of a product: multiply fewer at once.")
    return out


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Call the C function of attention: the tensors of `attention` to (b, t, h, k) in float32.

    Raises:
        InputError: if they do not go together: C would read beside them.
    """
    t = queries.shape[2]
    return _attend_with("tiles" if t > FEW or t > 1 and mask is None else "attention", queries, keys, values, mask)


def _attend_with(kernel: Kernel, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    b, h, t, k = queries.shape
    g, s = keys.shape[1:3]
    if (not keys.shape == values.shape == (b, g, s, k) or h % g or not _fits(queries, keys, values)
            or (t not in (1, s) if mask is None else mask.dtype != torch.bool)):
        raise InputError(gettext("Attention is not made for queries {queries}, keys {keys} and values {values}: give "
                                 "tensors of the shapes and formats that `kernels.attention` names.").format(
            queries=tuple(queries.shape), keys=tuple(keys.shape), values=tuple(values.shape)))
    queries, keys, values = queries.transpose(1, 2).contiguous(), _rows_together(keys), _rows_together(values)
    seen = None if mask is None else mask.expand(b, 1, t, s).contiguous()
    scores = torch.empty(b * t * h * (s + -s % HEAD_STEP) if kernel == "attention" else 0)
    out = torch.empty(b, t, h, k)
    given = struct.pack(
        "=18q", queries.data_ptr(), keys.data_ptr(), values.data_ptr(), 0 if seen is None else seen.data_ptr(),
        scores.data_ptr(), out.data_ptr(), C_FORMATS[queries.dtype], C_FORMATS[keys.dtype], b, t, g, h // g, s, k,
        *keys.stride()[:2], *values.stride()[:2])
    current_function(kernel)(team(), torch.get_num_threads(), given)
    return out


def _fits(queries: Tensor, keys: Tensor, values: Tensor) -> bool:
    """Whether C knows their format and the size of their heads."""
    size = keys.shape[-1]
    return (queries.dtype == keys.dtype == values.dtype and keys.dtype in C_FORMATS
            and size % HEAD_STEP == 0 and size <= HEAD_MOST)


def _rows_together(x: Tensor) -> Tensor:
    """(b, g, s, k) with the tokens of each head one behind the other, as a part of a longer cache has them, too."""
    return x if x.stride()[2:] == (x.shape[3], 1) else x.contiguous()


def _readable(numbers: Tensor) -> Tensor:
    return (numbers if numbers.dtype in C_FORMATS else numbers.float()).contiguous()


def _shape(x: Tensor, weights: Sequence[Tensor], *_: Sequence[Tensor]) -> Tensor:
    return x.new_empty(x.shape[0], sum(weight.shape[0] for weight in weights), dtype=torch.float32)


_LIBRARY.impl("attention", _attend, "CPU")
torch.library.register_fake("course_utils::attention", lambda queries, *_: queries.new_empty(
    queries.transpose(1, 2).shape, dtype=torch.float32), lib=_LIBRARY)
for _kernel in PRODUCTS:
    _LIBRARY.impl(f"{_kernel}_products", functools.partial(_call, _kernel), "CPU")
    torch.library.register_fake(f"course_utils::{_kernel}_products", _shape, lib=_LIBRARY)


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
            product, exact = _call(kernel, x, [weight]), x.double() @ weight.double().T
        elif kernel == "int8":
            scale = torch.rand(rows, generator=generator)
            packed = interleave(integers, BLOCK_ROWS, BLOCK_INPUTS)
            product = _call(kernel, x, [packed], [scale])
            exact = x.double() @ integers.view(torch.int8).double().T * scale.double()
        else:
            integers = integers % 16
            low, high = integers.view(-1, 2, BLOCK_ROWS // 2, d).unbind(dim=1)
            packed = interleave((low | high << 4).flatten(0, 1), BLOCK_ROWS // 2, BLOCK_INPUTS).view(rows, d // 2)
            scales = torch.rand(rows // BLOCK_ROWS, d // GROUP, 2, BLOCK_ROWS, generator=generator)
            scale, offset = scales.double().permute(2, 0, 3, 1).reshape(2, rows, -1).repeat_interleave(GROUP, dim=2)
            product = _call(kernel, x, [packed], [scales])
            exact = x.double() @ ((integers.double() - 8) * scale + offset).T
        if not torch.allclose(product.double(), exact, rtol=1e-5, atol=1e-6 * float(exact.abs().max())):
            raise build.BuildError("a trial gave a wrong result")


def _try_attention(kernel: Kernel) -> None:
    """Raises: BuildError: if what attention gives is not near what the formula gives in double precision."""
    generator = torch.Generator().manual_seed(0)
    new, past = (5, 16) if kernel == "attention" else (40, 0)
    tokens = torch.arange(past + new)
    own = tokens[past:, None]
    causal = (tokens <= own)[None, None]
    padded = causal & (tokens >= torch.tensor([0, 3]).view(2, 1, 1, 1)) | (tokens == own)
    for dtype in C_FORMATS:
        queries, keys, values = (torch.randn(2, heads, count, 48, generator=generator).to(dtype)
                                 for heads, count in ((6, new), (3, past + new), (3, past + new)))
        by_head = queries.double().view(2, 3, 2 * new, 48)  # those that share keys, one behind the other
        scores = by_head @ keys.double().mT / math.sqrt(48)
        for seen, mask in ((padded, padded), (causal, causal if past else None)):
            weights = scores.masked_fill(~seen.repeat(1, 1, 2, 1), -math.inf).softmax(-1)
            exact = (weights @ values.double()).view(2, 6, new, 48).transpose(1, 2)
            result = _attend_with(kernel, queries, keys, values, mask).double()
            if not torch.allclose(result, exact, rtol=1e-5, atol=1e-5):
                raise build.BuildError("a trial gave a wrong result")
