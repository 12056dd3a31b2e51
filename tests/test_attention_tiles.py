"""Attention in tiles is attention: the library's function, and softmax by its definition, say the same."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from course_utils.attention_tiles import online_softmax, softmax_steps, tiled_attention
from course_utils.errors import InputError

rows = st.lists(st.floats(-1000, 1000), min_size=1, max_size=40)


def of(batch: tuple[int, ...], n: int, t: int, d: int = 16, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n * t)
    q, k, v = (torch.randn(*batch, size, d, generator=generator) for size in (n, t, t))
    return scale * q, k, v


@given(rows)
def test_one_pass_is_the_definition(scores: list[float]) -> None:
    largest, total = online_softmax(iter(scores))
    assert largest == max(scores)
    assert total == pytest.approx(sum(math.exp(score - largest) for score in scores))


@given(rows, st.integers(1, 50))
def test_tiles_of_any_size_end_at_the_same_sum(scores: list[float], tile: int) -> None:
    steps = softmax_steps(scores, tile)
    assert [step.first for step in steps] == list(range(0, len(scores), tile))
    for step in steps:
        assert (step.largest, step.total) == pytest.approx(online_softmax(scores[:step.seen]))
    assert steps[-1].seen == len(scores) and steps[0].shrink == 0


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("n", "t", "tile"), [(1, 1, 64), (100, 100, 64), (64, 64, 64), (37, 90, 16), (1, 200, 64),
                                              (5, 9, 1), (33, 70, 1000)])
def test_it_agrees_with_the_library(n: int, t: int, tile: int, causal: bool) -> None:
    q, k, v = of((2, 3), n, t)
    mask = torch.ones(n, t, dtype=torch.bool).tril(t - n) if causal else None
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(tiled_attention(q, k, v, tile, causal), expected, rtol=1e-5, atol=1e-5)


def test_large_scores_do_not_overflow() -> None:
    q, k, v = of((), 50, 50, scale=300.0)
    expected = F.scaled_dot_product_attention(*(x.double()[None] for x in (q, k, v)), is_causal=True)[0]
    torch.testing.assert_close(tiled_attention(q, k, v, 8).double(), expected, rtol=1e-4, atol=1e-4)


def test_no_matrix_of_all_scores_is_made() -> None:
    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, op, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = op(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                self.numbers = max(self.numbers, result.numel())
            return result

    q, k, v = of((1,), 512, 512)
    with Largest() as largest:
        tiled_attention(q, k, v, 32)
    assert largest.numbers <= q.numel() < 512 * 512


@pytest.mark.parametrize(("n", "t", "message"), [(3, 2, "3 queries and 2 keys"), (0, 2, "0 queries"), (0, 0, "0 keys")])
def test_queries_need_keys(n: int, t: int, message: str) -> None:
    q, k, v = of((), n, t)
    with pytest.raises(InputError, match=message):
        tiled_attention(q, k, v)


def test_a_tile_holds_something() -> None:
    with pytest.raises(InputError, match="tile"):
        softmax_steps([1.0], 0)
    with pytest.raises(InputError, match="tile"):
        tiled_attention(*of((), 2, 2), tile=0)
