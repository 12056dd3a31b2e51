"""A matrix times a vector: what generating a token consists of, and what decides how fast it is.

Reading a prompt multiplies each weight matrix with many vectors, generating a token with one. PyTorch's usual way,
`F.linear`, is made for many. With one, each weight is read from memory and used a single time, so the best one can
do is to keep the memory busy, and on a CPU two other ways come closer to that: when `torch.compile` is at work, the
product written out as multiplication and sum, which it turns into one loop over the weights; otherwise PyTorch's
own vector routine, which is used while oneDNN, the library for matrices, is switched off.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """A linear layer without bias, as all of Qwen3's are: `x @ weight.T`."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: (..., in_features). Returns: (..., out_features), in the dtype of x."""
        if torch.compiler.is_compiling() and is_one_vector(x):
            # Uncompiled, this line would write all the products to memory before it adds them up.
            return (self.weight.float() * x.float()).sum(-1).to(x.dtype).view(*x.shape[:-1], -1)
        return F.linear(x, self.weight)


def is_one_vector(x: Tensor) -> bool:
    """Whether x, (..., d), holds a single vector."""
    return x.shape[:-1].numel() == 1


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
