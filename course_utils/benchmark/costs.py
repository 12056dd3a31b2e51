"""How much arithmetic and how much reading a pass through the model takes: the two coordinates of a roofline.

Source: the roofline model, https://doi.org/10.1145/1498765.1498785.
"""

from __future__ import annotations

import torch

from course_utils.config import Qwen3Config
from course_utils.timing import median_seconds

_MATRIX = 2048


def cache_elements(config: Qwen3Config) -> int:
    """How many numbers the keys and values of one token are, over all layers."""
    return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim


def pass_flops(config: Qwen3Config, new: int, past: int = 0) -> int:
    """Floating-point operations of a pass with `new` tokens after `past` ones, the last one's logits included.

    A weight that meets a vector counts two, a multiplication and an addition; norms, rotations and the softmax, less
    than a hundredth of the whole, do not count.
    """
    heads = (2 * config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    layer = config.hidden_size * (heads + 3 * config.intermediate_size)
    looked_at = new * past + new * (new + 1) // 2  # each token sees those before it, and itself
    attention = 4 * config.num_attention_heads * config.head_dim * looked_at
    return config.num_hidden_layers * (2 * layer * new + attention) + 2 * config.hidden_size * config.vocab_size


def arithmetic_rate(device: torch.device | str, dtype: torch.dtype, size: int = _MATRIX) -> float:
    """Measure how many floating-point operations per second a device reaches in a large matrix product."""
    device = torch.device(device)
    matrix = torch.full((size, size), 0.5, device=device, dtype=dtype)
    return 2 * size**3 / median_seconds(lambda: matrix @ matrix, device, repeats=3).low
