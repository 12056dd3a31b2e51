"""Position: the formula of the waves, what waves and rotation share, and cache sizes by the kind of attention."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.config import Qwen3Config
from course_utils.costs import cache_elements
from course_utils.errors import InputError
from course_utils.kv_cache import StaticKVCache
from course_utils.qwen3 import RotaryEmbedding, rotate
from course_utils.sinusoidal import sinusoidal_encoding

ROTARY = RotaryEmbedding(Qwen3Config())


def test_each_number_is_that_of_the_formula() -> None:
    encoding = sinusoidal_encoding(50, 12)
    expected = [[(math.sin, math.cos)[column % 2](position / 10_000 ** ((column - column % 2) / 12))
                 for column in range(12)] for position in range(50)]
    assert encoding.dtype == torch.float32
    assert torch.allclose(encoding, torch.tensor(expected), atol=1e-5)


def test_dot_products_of_waves_depend_on_the_distance_alone() -> None:
    encoding = sinusoidal_encoding(200, 64)
    products = encoding @ encoding.T
    for distance in (0, 1, 2, 17, 150):
        same_distance = products.diagonal(distance)
        assert torch.allclose(same_distance, same_distance[0].expand_as(same_distance), atol=1e-3)
    assert torch.allclose(products.diagonal(), torch.tensor(32.0))  # each pair adds sine^2 + cosine^2
    assert bool((products[0, :5].diff() < 0).all())  # beyond these it rises and falls


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500), st.integers(0, 100))
def test_scores_of_rotated_vectors_depend_on_the_distance_alone(query: int, key: int, shift: int, seed: int) -> None:
    torch.manual_seed(seed)
    vectors = torch.randn(1, 2, 1, 128)
    query_vector, key_vector = vectors[:, :1], vectors[:, 1:]

    def score(query_position: int, key_position: int) -> float:
        rotated = [rotate(vector, *ROTARY(torch.tensor([[position]])))
                   for vector, position in ((query_vector, query_position), (key_vector, key_position))]
        return float((rotated[0] * rotated[1]).sum())

    assert score(query, key) == pytest.approx(score(query + shift, key + shift), abs=0.02)
    assert score(query, query) == pytest.approx(float((query_vector * key_vector).sum()), abs=0.02)


def test_rotation_changes_no_length_but_the_direction() -> None:
    vectors = torch.randn(1, 3, 40, 128, generator=torch.Generator().manual_seed(0))
    rotated = rotate(vectors, *ROTARY(torch.arange(40)[None]))
    assert torch.allclose(rotated.norm(dim=-1), vectors.norm(dim=-1), rtol=1e-5)
    assert torch.equal(rotated[:, :, 0], vectors[:, :, 0])
    assert not torch.allclose(rotated[:, :, 1:], vectors[:, :, 1:], atol=0.1)


@pytest.mark.parametrize(("num_positions", "size"), [(0, 4), (-1, 4), (4, 0), (4, 5), (4, -2)])
def test_nonsense_is_refused(num_positions: int, size: int) -> None:
    with pytest.raises(InputError, match=f"{num_positions} positions in {size} numbers"):
        sinusoidal_encoding(num_positions, size)


@pytest.mark.parametrize(("kind", "heads", "bytes_per_token"), [
    ("multi-head", 16, 229_376), ("grouped-query", 8, 114_688), ("multi-query", 1, 14_336)])
def test_a_cache_takes_what_the_formula_says(kind: str, heads: int, bytes_per_token: int) -> None:
    config = replace(Qwen3Config(), num_key_value_heads=heads)
    cache = StaticKVCache(config, max_length=100, device="meta", dtype=torch.bfloat16)
    assert cache.num_bytes == 100 * bytes_per_token
    assert 2 * cache_elements(config) == bytes_per_token
