"""How much arithmetic and how much reading a pass through the model takes: the two coordinates of a roofline.

The formulas count what grows with the model and the text: matrix products and attention, weights and cache. Left out is
what is done number by number (norms, rotation, softmax, the gate, residual additions; for Qwen3-0.6B less than a
hundredth of the arithmetic), the row of the embedding that each token looks up, and what one operation hands to the
next, which a fused program keeps in the processor. What remains is what the best program cannot avoid.

Source: the roofline model, https://doi.org/10.1145/1498765.1498785.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from course_utils.config import Qwen3Config
from course_utils.qwen3 import EMBEDDING, weight_shapes
from course_utils.timing import median_seconds

_MATRIX = 2048


def shapes_read(config: Qwen3Config) -> list[tuple[int, ...]]:
    """Shapes of the weights that a pass reads: all, but an embedding that is not tied to the output layer."""
    return [shape for name, shape in weight_shapes(config).items() if config.tie_word_embeddings or name != EMBEDDING]


def weight_elements(config: Qwen3Config) -> int:
    """How many weights a pass reads, see `shapes_read`."""
    return sum(map(math.prod, shapes_read(config)))


def cache_elements(config: Qwen3Config) -> int:
    """How many numbers the keys and values of one token are, over all layers."""
    return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim


def pass_flops(config: Qwen3Config, new: int, past: int = 0, batch: int = 1) -> int:
    """Floating-point operations of a pass, the last token's logits included.

    A weight that meets a vector counts two, a multiplication and an addition.

    Args:
        config: sizes of the model.
        new: tokens of each text that the pass computes, padding included.
        past: tokens of each text that the cache holds.
        batch: number of texts.
    """
    output_layer = math.prod(weight_shapes(config)[EMBEDDING])  # of the same shape, tied or not
    layers = sum(math.prod(shape) for shape in shapes_read(config) if len(shape) == 2) - output_layer
    looked_at = new * past + new * (new + 1) // 2  # each token sees those before it, and itself
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * looked_at
    return batch * (2 * layers * new + attention + 2 * output_layer)


@dataclass(frozen=True)
class PassBytes:
    """What a pass moves between memory and processor, in bytes.

    Attributes:
        weights: read once, however many tokens they meet.
        cache_read: keys and values of all tokens that attention looks at, the new ones included.
        cache_written: keys and values of the new tokens.
    """

    weights: int
    cache_read: int
    cache_written: int

    @property
    def total(self) -> int:
        """All that is moved."""
        return self.weights + self.cache_read + self.cache_written


def pass_bytes(config: Qwen3Config, new: int, past: int = 0, batch: int = 1, bytes_per_number: int = 2) -> PassBytes:
    """Bytes that a pass moves with a `StaticKVCache`. Arguments as for `pass_flops`.

    A `KVCache` moves more: see `copied_bytes`.

    Args:
        bytes_per_number: of weights and cache; 2 for bfloat16, 4 for float32.
    """
    token = batch * cache_elements(config) * bytes_per_number
    return PassBytes(weight_elements(config) * bytes_per_number, token * (past + new), token * new)


def copied_bytes(config: Qwen3Config, past: int, batch: int = 1, bytes_per_number: int = 2) -> int:
    """What a growing cache moves in addition at each pass: all that it holds, read and written somewhere else."""
    return 2 * batch * cache_elements(config) * bytes_per_number * past


def least_seconds(flops: float, num_bytes: float, arithmetic: float, bandwidth: float) -> float:
    """The least time a pass can take: that of its arithmetic or that of its reading, whichever is longer.

    Both can go on at the same time, so they are not added.

    Args:
        flops, num_bytes: of the pass.
        arithmetic: floating-point operations per second of the device.
        bandwidth: bytes per second of its memory.
    """
    return max(flops / arithmetic, num_bytes / bandwidth)


def arithmetic_rate(device: torch.device | str, dtype: torch.dtype, size: int = _MATRIX) -> float:
    """Measure how many floating-point operations per second a device reaches in a large matrix product."""
    device = torch.device(device)
    matrix = torch.full((size, size), 0.5, device=device, dtype=dtype)
    return 2 * size**3 / median_seconds(lambda: matrix @ matrix, device, repeats=3).low
