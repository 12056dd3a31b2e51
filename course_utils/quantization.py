"""Weights in 8 or 4 bits: less to read from memory for each token, at a small cost in quality.

A weight matrix is stored as small integers, with a scale for each output row ("int8"), or with a scale and an offset
for each group of 32 inputs within a row ("int4"). Rounding to the nearest is all there is to it: no data is needed.
Norms stay as they are.

On a CPU the products are those of `kernels`, where they can be compiled: they round each vector to 8 bits in groups of
32 and multiply integers. Elsewhere they are PyTorch's own operators for such weights, which unpack them on the way from
memory to the arithmetic. With many vectors at once, a prompt, int8 then multiplies integers with PyTorch's operator and
rounds each vector as a whole; and int4 unpacks the weights first, as both do on other devices.

With the kernels, a vector's product does not depend on how many come together. Without them it may: in int8 it differs
by about a percent between up to eight vectors and more, since only then are they rounded at all; in int4 by the
rounding of the number format, once there are more than eight in float32, or than 128 in another format. And where a
vector itself differs in its last digits, as behind an attention over another batch, rounding may tip one of its numbers
to the next step. The consequence: where `generation`, `batching`, `speculative` and `completion` say that a text comes
out the same in two ways, a quantized model may choose another of two near tokens.

Source of one scale per row of each factor: LLM.int8(), https://arxiv.org/abs/2208.07339, without its treatment of
outliers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils import kernels, torch_internals
from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.linear import Linear
from course_utils.qwen3 import Qwen3Model

Kind = Literal["int8", "int4"]
KINDS: tuple[Kind, ...] = ("int8", "int4")

_FEW = 8  # up to so many vectors, reading the weights takes longer than multiplying
_SOME = 128  # up to so many, unpacking 4-bit weights takes longer than multiplying


class _Order(NamedTuple):
    """How the integers of int4 are packed, see `_pack`."""

    rows: int  # in a block
    inputs: int  # of a row that are side by side


_FILE_ORDER = _Order(64, 1)
_KERNEL_ORDER = _Order(kernels.BLOCK_ROWS, kernels.BLOCK_INPUTS)


def quantize(model: Qwen3Model, kind: Kind) -> Qwen3Model:
    """A model with the weights of another, stored in fewer bits.

    Args:
        model: is left as it is; the new one shares its norms.
        kind: "int8", or "int4", which leaves matrices in int8 whose sizes are not multiples of 64 and 32.

    Returns:
        The new model. It computes in the number format of the given one, and cannot be trained.

    Raises:
        InputError: if there is no such kind, or the model is quantized or compiled already.
    """
    if model.quantization is not None:
        raise InputError(gettext("This model is quantized to {quantization} already: start from the original.").format(
            quantization=model.quantization))
    if model.compiled:  # for the weights that it has, and compiled code does not ask again
        raise InputError("This model is compiled, and that for weights that are not quantized: quantize the original, "
                         "and compile what comes of it.")
    # Modules are copied, parameters shared; those that are replaced go with the given model.
    quantized = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    convert(quantized, kind)
    return quantized


def convert(model: Qwen3Model, kind: str) -> None:
    """Quantize a model in place. On the meta device the integers have shapes and no content, ready for loading."""
    if kind not in KINDS:
        raise InputError(gettext("There is no quantization {kind!r}: choose one of {kinds}.").format(
            kind=kind, kinds=", ".join(KINDS)))
    with torch.no_grad():
        for part in list(model.model.layers.modules()):
            for name, linear in list(part.named_children()):
                if isinstance(linear, Linear):
                    setattr(part, name, _quantized(linear.weight, kind))
        table = model.model.embed_tokens.weight
        embedding = Int4Embedding(table) if kind == "int4" and _fits_int4(table) else Int8Embedding(table)
        head = embedding if model.config.tie_word_embeddings else model.get_parameter("lm_head.weight")
        model.lm_head = _quantized(head, kind)
        model.model.embed_tokens = embedding  # type: ignore[assignment]
    model.quantization = kind


class Int8Weight(nn.Module):
    """A matrix of 8-bit integers with one scale per row."""

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor | Int8Weight) -> None:
        """Args: weight: (rows, d), floats to be rounded; or another matrix whose memory is shared."""
        super().__init__()
        if isinstance(weight, Tensor):
            self.shape = weight.shape
            self.has_kernel = kernels.problem("int8") is None
            integers, scale = _round_rows(weight)
            integers, scale = self._in_memory(integers), self._in_memory(scale)
        else:
            self.shape, self.has_kernel, integers, scale = weight.shape, weight.has_kernel, weight.weight, weight.scale
        # Row by row; or for the kernel padded to multiples of 32 and interleaved.
        self.register_buffer("weight", integers)
        self.register_buffer("scale", scale)

    def rows(self, index: Tensor) -> Tensor:
        """Some rows as floats: (...) indices to (..., d), in the dtype of the scales."""
        if self.has_kernel:
            rows, inputs = _KERNEL_ORDER
            by_block = self.weight.view(-1, self.weight.shape[1] // inputs, rows, inputs)
            integers = by_block[index // rows, :, index % rows].flatten(-2)[..., :self.shape[1]]
        else:
            integers = self.weight[index]
        scale = self.scale[index]
        return integers.to(scale.dtype) * scale[..., None]

    def by_rows(self) -> tuple[Tensor, Tensor]:
        """The integers, (rows, d), and their scales, (rows,)."""
        rows, d = self.shape
        integers = self.weight
        if self.has_kernel:
            integers = kernels.by_rows(integers, *_KERNEL_ORDER)[:rows, :d]
        return integers, self.scale[:rows]

    def _in_memory(self, numbers: Tensor) -> Tensor:
        """Integers, (rows, d), or scales, (rows,), as they lie in memory."""
        if not self.has_kernel:
            return numbers
        # Of each dimension, the last one first, what to add before and behind.
        numbers = F.pad(numbers, [end for size in reversed(numbers.shape) for end in (0, -size % kernels.BLOCK_ROWS)])
        return kernels.interleave(numbers, *_KERNEL_ORDER) if numbers.dim() == 2 else numbers

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"], destination[prefix + "scale"] = self.by_rows()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # PyTorch itself says what is missing or of another shape.
        for name, shape in (("weight", self.shape), ("scale", self.shape[:1])):
            numbers = state_dict.get(prefix + name)
            if numbers is not None and numbers.shape == shape:
                state_dict = {**state_dict, prefix + name: self._in_memory(numbers)}
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Int8Linear(Int8Weight):
    """A linear layer without bias, its rows the outputs."""

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (..., in_features). Returns: (..., out_features), in the dtype of x."""
        if self.for_kernel(x):
            return self.products(x, [self])[0]
        vectors = x.reshape(-1, x.shape[-1]).contiguous()  # the last vectors of several texts are not
        few_product, product_of_integers = torch_internals.INT8_PRODUCT, torch_internals.INTEGER_PRODUCT
        for_cpu = _for_cpu(x)
        weight, weight_scale = self.by_rows()
        if for_cpu and few_product is not None and vectors.shape[0] <= _FEW:
            product = few_product(vectors, weight, weight_scale)
        elif for_cpu and product_of_integers is not None and vectors.shape[0] > _FEW:
            integers, scale = _round_rows(vectors)
            product = product_of_integers(integers, weight.t()) * (scale.float()[:, None] * weight_scale.float())
        else:
            product = F.linear(vectors, weight.to(x.dtype)) * weight_scale
        return product.to(x.dtype).view(*x.shape[:-1], -1)

    def for_kernel(self, x: Tensor) -> bool:
        """Whether the kernel multiplies these vectors."""
        return self.has_kernel and _for_cpu(x)

    @staticmethod
    def products(x: Tensor, layers: Sequence[Int8Linear]) -> list[Tensor]:
        """What each layer makes of x, by the kernel; `linear.side_by_side` asks for it."""
        products = kernels.int8_products(x.reshape(-1, x.shape[-1]), [layer.weight for layer in layers],
                                         [layer.scale for layer in layers])
        return [product[:, :layer.shape[0]].reshape(*x.shape[:-1], -1) for product, layer in zip(products, layers)]


class Int8Embedding(Int8Weight):
    """An embedding table, its rows the tokens."""

    def forward(self, token_ids: Tensor) -> Tensor:
        """Args: token_ids: (b, t). Returns: (b, t, d), in the dtype of the scales."""
        return self.rows(token_ids)


class Int4Weight(nn.Module):
    """A matrix of 4-bit integers with a scale and an offset for each group of 32 in a row."""

    weight: Tensor
    scale_and_offset: Tensor

    def __init__(self, weight: Tensor | Int4Weight) -> None:
        """Args: weight: (rows, d), multiples of 64 and 32, floats to be rounded; or another matrix to share."""
        super().__init__()
        if isinstance(weight, Tensor):
            self.order = _memory_order()
            integers, scale_and_offset = _round_groups(weight)
            packed, scale_and_offset = _pack(integers, self.order), _arrange(scale_and_offset, self.order)
        else:
            self.order, packed, scale_and_offset = weight.order, weight.weight, weight.scale_and_offset
        self.register_buffer("weight", packed)  # (rows, d / 2), bytes in the order of `_pack`
        # (d / 32, rows, 2), or for the kernel (rows / 32, d / 32, 2, 32)
        self.register_buffer("scale_and_offset", scale_and_offset)

    def rows(self, index: Tensor) -> Tensor:
        """Some rows as floats: (...) indices to (..., d)."""
        half = self.order.rows // 2
        d = self.weight.shape[1] * 2
        by_block = self.weight.view(-1, d // self.order.inputs, half, self.order.inputs)
        block, place = index // self.order.rows, index % self.order.rows
        both = by_block[block, :, place % half].flatten(-2)  # (..., d)
        integers = torch.where(place[..., None] < half, both & 15, both >> 4)
        if self.order == _KERNEL_ORDER:
            scales = self.scale_and_offset[block, :, :, place]  # (..., groups, 2)
        else:
            scales = self.scale_and_offset[:, index].movedim(0, -2)
        scale, offset = scales[..., None].unbind(dim=-2)  # (..., groups, 1)
        return ((integers.unflatten(-1, (-1, kernels.GROUP)).to(scale.dtype) - 8) * scale + offset).flatten(-2)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        packed, scales = destination[prefix + "weight"], destination[prefix + "scale_and_offset"]
        destination[prefix + "weight"] = _repack(packed, self.order, _FILE_ORDER)
        destination[prefix + "scale_and_offset"] = _arranged_back(scales, self.order)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        packed, scales = (state_dict.get(prefix + name) for name in ("weight", "scale_and_offset"))
        # PyTorch itself says what is missing or of another shape.
        if packed is not None and (packed.shape, packed.dtype) == (self.weight.shape, self.weight.dtype):
            state_dict = {**state_dict, prefix + "weight": _repack(packed, _FILE_ORDER, self.order)}
        if scales is not None and scales.shape == _arranged_back(self.scale_and_offset, self.order).shape:
            state_dict = {**state_dict, prefix + "scale_and_offset": _arrange(scales, self.order)}
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Int4Linear(Int4Weight):
    """A linear layer without bias, its rows the outputs."""

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (..., in_features). Returns: (..., out_features), in the dtype of x."""
        if self.for_kernel(x):
            return self.products(x, [self])[0]
        vectors = x.reshape(-1, x.shape[-1]).contiguous()  # the last vectors of several texts are not
        few = _FEW if x.dtype == torch.float32 else _SOME  # PyTorch's operator is slow in float32
        packed_product = torch_internals.INT4_PRODUCT
        if (_for_cpu(x) and packed_product is not None and self.order == _PYTORCH_ORDER
                and vectors.shape[0] <= few):
            product = packed_product(vectors, self.weight, kernels.GROUP, self.scale_and_offset)
        else:
            product = F.linear(vectors, self._unpacked())
        return product.view(*x.shape[:-1], -1)

    def for_kernel(self, x: Tensor) -> bool:
        """Whether the kernel multiplies these vectors."""
        return self.order == _KERNEL_ORDER and _for_cpu(x)

    @staticmethod
    def products(x: Tensor, layers: Sequence[Int4Linear]) -> list[Tensor]:
        """What each layer makes of x, by the kernel; `linear.side_by_side` asks for it."""
        products = kernels.int4_products(x.reshape(-1, x.shape[-1]), [layer.weight for layer in layers],
                                         [layer.scale_and_offset for layer in layers])
        return [product.reshape(*x.shape[:-1], -1) for product in products]

    def _unpacked(self) -> Tensor:
        """All weights as floats, (out_features, in_features)."""
        scales = _arranged_back(self.scale_and_offset, self.order)
        scale, offset = scales.transpose(0, 1)[..., None].unbind(dim=2)  # each (n, groups, 1)
        integers = _unpack(self.weight, self.order).unflatten(1, (-1, kernels.GROUP)).to(scale.dtype)
        return ((integers - 8) * scale + offset).flatten(1)


class Int4Embedding(Int4Weight):
    """An embedding table, its rows the tokens."""

    def forward(self, token_ids: Tensor) -> Tensor:
        """Args: token_ids: (b, t). Returns: (b, t, d), in the dtype of the scales."""
        return self.rows(token_ids)


def _for_cpu(x: Tensor) -> bool:
    """Whether the operators for a CPU may be used, which know nothing of gradients."""
    return x.device.type == "cpu" and not x.requires_grad


def _fits_int4(weight: Tensor) -> bool:
    return weight.shape[0] % _FILE_ORDER.rows == 0 and weight.shape[1] % kernels.GROUP == 0


def _quantized(weight: Tensor | Int8Weight | Int4Weight, kind: str) -> Int8Linear | Int4Linear:
    """A linear layer with these weights: floats, or an embedding's that is quantized already."""
    if isinstance(weight, Int4Weight) or isinstance(weight, Tensor) and kind == "int4" and _fits_int4(weight):
        return Int4Linear(weight)
    return Int8Linear(weight)


def _round_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as 8-bit integers, (n, d), and each row's scale, (n,), in the dtype of x."""
    scale = x.abs().amax(dim=-1) / 127
    # A row of zeros has a scale of zero.
    steps = x.float() / scale.float().clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    return steps.round().clamp(-127, 127).to(torch.int8), scale


def _round_groups(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as 4-bit integers, (n, d), and scale and offset of each group, (d / 32, n, 2), in x's dtype."""
    groups = x.float().unflatten(1, (-1, kernels.GROUP))  # (n, d / 32, 32)
    low, high = groups.aminmax(dim=-1)
    scale = ((high - low) / 15).clamp(min=1e-8)
    integers = ((groups - low[..., None]) / scale[..., None]).round().clamp(0, 15).flatten(1).to(torch.uint8)
    # PyTorch's operator has it this way: (integer - 8) * scale + offset.
    scale_and_offset = torch.stack((scale, low + 8 * scale), dim=-1).transpose(0, 1)
    return integers, scale_and_offset.to(x.dtype).contiguous()


def _pack(integers: Tensor, order: _Order) -> Tensor:
    """Two 4-bit integers to a byte: (n, d) to (n, d / 2), n a multiple of the order's rows.

    Within a block of rows the first half goes into the low bits, the second into the high bits, and the bytes are
    interleaved.
    """
    n, d = integers.shape
    low, high = integers.view(-1, 2, order.rows // 2, d).unbind(dim=1)
    return kernels.interleave((low | high << 4).flatten(0, 1), order.rows // 2, order.inputs).view(n, d // 2)


def _unpack(packed: Tensor, order: _Order) -> Tensor:
    """The inverse of `_pack`."""
    n, d = packed.shape[0], packed.shape[1] * 2
    by_row = kernels.by_rows(packed.view(n // 2, d), order.rows // 2, order.inputs).view(-1, order.rows // 2, d)
    return torch.stack((by_row & 15, by_row >> 4), dim=1).reshape(n, d)


def _repack(packed: Tensor, old: _Order, new: _Order) -> Tensor:
    return packed if old == new else _pack(_unpack(packed, old), new)


def _arrange(scale_and_offset: Tensor, order: _Order) -> Tensor:
    """Scales and offsets, (d / 32, n, 2), as they lie beside integers in an order."""
    if order != _KERNEL_ORDER:
        return scale_and_offset
    return scale_and_offset.unflatten(1, (-1, order.rows)).permute(1, 0, 3, 2).contiguous()


def _arranged_back(scale_and_offset: Tensor, order: _Order) -> Tensor:
    """The inverse of `_arrange`."""
    if order != _KERNEL_ORDER:
        return scale_and_offset
    return scale_and_offset.permute(1, 0, 3, 2).flatten(1, 2).contiguous()


def _memory_order() -> _Order:
    """The order that whatever multiplies on this machine expects: our kernel, else PyTorch's operator."""
    return _KERNEL_ORDER if kernels.problem("int4") is None else _PYTORCH_ORDER or _FILE_ORDER


def _pytorch_order() -> _Order | None:
    """The order that PyTorch's operator expects on this processor, or None if another than ours."""
    if torch_internals.PACK_INT4 is None:
        return None
    integers = torch.arange(64 * 32, dtype=torch.int32).view(64, 32) * 7 % 16
    try:
        expected = torch_internals.PACK_INT4(integers, 1)
    except RuntimeError:  # not on this processor
        return None
    orders = (_Order(64, 1), _Order(32, 1))
    return next((order for order in orders if torch.equal(_pack(integers.to(torch.uint8), order), expected)), None)


_PYTORCH_ORDER = _pytorch_order()
