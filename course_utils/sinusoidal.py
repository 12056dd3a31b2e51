"""The classic way to tell a transformer the order of its tokens: waves that are added to the embeddings.

Qwen3 does not do it this way: it rotates queries and keys (`course_utils.qwen3.RotaryEmbedding`, `rotate`), by the
same angles but for the base. The waves are here to be compared with the rotation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.number import whole_number


def sinusoidal_encoding(num_positions: int, size: int) -> Tensor:
    """The sinusoidal position encoding of Attention Is All You Need, https://arxiv.org/abs/1706.03762, section 3.5.

    Columns 2 i and 2 i + 1 hold sine and cosine of `position * 10000 ** (-2 i / size)`. All rows have the same length,
    and the dot product of two depends on the distance of their positions alone.

    Args:
        num_positions: how many positions, counted from 0.
        size: of the embeddings that it would be added to; an even number.

    Returns:
        (num_positions, size) in float32.

    Raises:
        InputError: if a number is not positive, or the size is odd.
    """
    positions, width = whole_number(num_positions), whole_number(size)
    if positions is None or width is None or positions < 1 or width < 2 or width % 2:
        raise InputError(gettext("An encoding of {num_positions} positions in {size} numbers each is impossible: give "
                                 "at least one position and an even size.").format(
            num_positions=num_positions, size=size))
    frequencies = 10_000.0 ** -(torch.arange(0, width, 2) / width)
    angles = torch.arange(positions)[:, None] * frequencies  # (num_positions, size / 2)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
