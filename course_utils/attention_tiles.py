"""Attention in tiles: the numbers of `scaled_dot_product_attention`, without the matrix of all scores.

The softmax of a row seems to need the whole row first, for its largest number and its sum. Both can be kept while the
row goes by: when a larger number comes, what was added up so far is made smaller by one factor. So a tile of queries
meets the keys tile by tile, and no more scores exist at a time than those of two tiles.

Written to be read. The library's own function does the same in one program, on a CPU as on a GPU, and far faster. Left
out are key-value heads that several query heads share, dropout, and the backward pass.

Sources: softmax in one pass, https://arxiv.org/abs/1805.02867; FlashAttention, https://arxiv.org/abs/2205.14135.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.number import require_whole_number


def online_softmax(scores: Iterable[float]) -> tuple[float, float]:
    """What a softmax needs of a row of finite numbers that are seen once, one after the other.

    Returns:
        The largest of them, and the sum of exp(score - largest). The share of a score is exp(score - largest) / sum.
    """
    largest, total = -math.inf, 0.0
    for score in scores:
        new_largest = max(largest, score)
        total = total * math.exp(largest - new_largest) + math.exp(score - new_largest)
        largest = new_largest
    return largest, total


@dataclass(frozen=True)
class SoftmaxStep:
    """What is known of a row after one more tile.

    Attributes:
        first: the place of the tile's first number.
        seen: how many numbers of the row have gone by, those of the tile included.
        largest: of these.
        shrink: what the sum so far was multiplied by, before the tile was added.
        total: the sum of exp(score - largest) of all numbers seen.
    """

    first: int
    seen: int
    largest: float
    shrink: float
    total: float


def softmax_steps(scores: Sequence[float], tile: int) -> list[SoftmaxStep]:
    """Go through a row of finite numbers in tiles of at most `tile`; a step for each."""
    tile = require_whole_number("tile", tile, 1)
    steps: list[SoftmaxStep] = []
    largest, total = -math.inf, 0.0
    for first in range(0, len(scores), tile):
        of_tile, sum_of_tile = online_softmax(scores[first:first + tile])
        new_largest = max(largest, of_tile)
        shrink = math.exp(largest - new_largest)
        total = total * shrink + sum_of_tile * math.exp(of_tile - new_largest)
        largest = new_largest
        steps.append(SoftmaxStep(first, min(first + tile, len(scores)), largest, shrink, total))
    return steps


def tiled_attention(q: Tensor, k: Tensor, v: Tensor, tile: int = 64, causal: bool = True) -> Tensor:
    """Attention whose scores exist for one tile of queries and one of keys at a time.

    Args:
        q: (..., n, d), queries of the last n of t positions.
        k: (..., t, d), keys.
        v: (..., t, d), values.
        tile: how many queries, and how many keys, are taken at a time.
        causal: whether each position sees itself and what came before it, and nothing else.

    Returns:
        (..., n, d), in the dtype of q.

    Raises:
        InputError: if there are no queries, or more than keys, or tile is no whole number from 1 on.
    """
    tile = require_whole_number("tile", tile, 1)
    n, t = q.shape[-2], k.shape[-2]
    if not 0 < n <= t:
        raise InputError(gettext("There are {n} queries and {t} keys: give the queries of the last positions that have "
                                 "keys.").format(n=n, t=t))
    positions = torch.arange(t, device=q.device)
    result = torch.empty_like(q)
    for first in range(0, n, tile):
        queries = q[..., first:first + tile, :] / math.sqrt(q.shape[-1])
        own = positions[t - n:][first:first + tile, None]
        largest = torch.full_like(queries[..., :1], -math.inf)
        total, weighted = torch.zeros_like(largest), torch.zeros_like(queries)
        for start in range(0, int(own[-1]) + 1 if causal else t, tile):
            scores = queries @ k[..., start:start + tile, :].transpose(-2, -1)  # (..., tile, tile)
            if causal:
                scores = scores.masked_fill(positions[start:start + tile] > own, -math.inf)
            new_largest = torch.maximum(largest, scores.amax(-1, keepdim=True))
            shrink, weights = (largest - new_largest).exp(), (scores - new_largest).exp()
            total = total * shrink + weights.sum(-1, keepdim=True)
            weighted = weighted * shrink + weights @ v[..., start:start + tile, :]
            largest = new_largest
        result[..., first:first + tile, :] = weighted / total
    return result
