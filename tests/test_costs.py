"""The formulas of cost against a count of the operations that a real pass consists of, and of the bytes it reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_model import CONFIGS, SMALL, make, prompt, variant
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from course_utils.config import Qwen3Config
from course_utils.costs import (
    cache_elements,
    copied_bytes,
    least_seconds,
    pass_bytes,
    pass_flops,
    weight_elements,
)
from course_utils.kv_cache import Cache, KVCache, StaticKVCache
from course_utils.qwen3 import Qwen3Model

PASSES = [(9, 0, 1), (9, 0, 3), (1, 12, 1), (1, 12, 3), (4, 5, 2)]  # new tokens, past tokens, batch


def filled(model: Qwen3Model, cache: Cache, past: int, batch: int) -> Cache:
    if past:
        with torch.no_grad():
            model(prompt(batch, past), cache=cache)
    return cache


def growing(model: Qwen3Model, past: int, batch: int) -> KVCache:
    cache = filled(model, KVCache(model.config), past, batch)
    assert isinstance(cache, KVCache)
    return cache


def fixed(model: Qwen3Model, past: int, batch: int) -> StaticKVCache:
    cache = filled(model, StaticKVCache(model.config, 40, batch, dtype=model.dtype), past, batch)
    assert isinstance(cache, StaticKVCache)
    return cache


# ---- arithmetic ---------------------------------------------------------------------------------------------


def counted_flops(model: Qwen3Model, token_ids: Tensor, cache: Cache) -> int:
    """What PyTorch counts; the plain way to compute attention, which gradients need, because it knows no other."""
    with torch.enable_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(token_ids, cache=cache, last_only=True)
    return counter.get_total_flops()


def unseen_flops(config: Qwen3Config, new: int, past: int, batch: int) -> int:
    """PyTorch counts the whole rectangle of attention, and the formula the part of it that is looked at."""
    unseen = new * (past + new) - (new * past + new * (new + 1) // 2)
    return batch * 4 * config.num_attention_heads * config.head_dim * config.num_hidden_layers * unseen


@pytest.mark.parametrize(("new", "past", "batch"), PASSES)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_operations_are_those_that_pytorch_counts(config: Qwen3Config, new: int, past: int, batch: int) -> None:
    model = make(config)
    counted = counted_flops(model, prompt(batch, new), growing(model, past, batch))
    assert pass_flops(config, new, past, batch) + unseen_flops(config, new, past, batch) == counted


@pytest.fixture(scope="module")
def real_shape() -> Qwen3Model:
    """On the device "meta" nothing is computed, but every operation is there to be counted."""
    with torch.device("meta"):
        return Qwen3Model(Qwen3Config()).to("meta")


def no_ids(t: int) -> Tensor:
    return torch.zeros(1, t, dtype=torch.long, device="meta")


def test_operations_of_the_real_shape(real_shape: Qwen3Model) -> None:
    config, cache = real_shape.config, KVCache(real_shape.config)
    assert counted_flops(real_shape, no_ids(100), cache) == pass_flops(config, 100) + unseen_flops(config, 100, 0, 1)
    assert counted_flops(real_shape, no_ids(1), cache) == pass_flops(config, 1, 100)


class ElementwiseFlops(TorchDispatchMode):
    """Counts an operation for each number that goes in or comes out; matrix products and attention's are left out."""

    total = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **(kwargs or {}))
        # "mul.Scalar" is how the plain way to compute attention scales whole keys; the fused ones scale the scores.
        if not any(word in str(op) for word in ("mm", "embedding", "cat", "mul.Scalar")) and not op.is_view:
            sizes = [each.numel() for each in tree_leaves((args, result)) if isinstance(each, Tensor)]
            per_number = 5 if "softmax" in str(op) else 1  # largest, difference, exponential, sum, quotient
            self.total += per_number * max(sizes, default=0)
        return result


@pytest.mark.parametrize(("new", "past"), [(100, 0), (1, 0), (1, 4000)])
def test_what_is_left_out_is_less_than_a_hundredth(real_shape: Qwen3Model, new: int, past: int) -> None:
    cache = KVCache(real_shape.config)
    if past:
        with torch.no_grad():
            real_shape(no_ids(past), cache=cache)
    with torch.no_grad(), ElementwiseFlops() as counter, sdpa_kernel(SDPBackend.MATH):
        real_shape(no_ids(new), cache=cache, last_only=True)
    share = counter.total / pass_flops(real_shape.config, new, past)
    assert 0.001 < share < 0.01


# ---- bytes --------------------------------------------------------------------------------------------------


class MovedBytes(TorchDispatchMode):
    """Counts the bytes of weights and of keys and values that the operations of a pass are handed."""

    def __init__(self, model: Qwen3Model, cache: Cache) -> None:
        super().__init__()
        self.weights = self.cache_read = self.cache_written = self.looked_up = 0
        self.parameters = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        tensors = ([layer.keys for layer in cache.layers] + [layer.values for layer in cache.layers]
                   if isinstance(cache, StaticKVCache) else [tensor for pair in cache.held for tensor in pair])
        self.cached = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        self.keep: list[Tensor] = []  # memory that was freed and given out again would be taken for a cache

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **(kwargs or {}))
        if op.is_view:
            return result
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        self.keep += [each for each in (*tensors, *tree_leaves(result)) if isinstance(each, Tensor)]
        if "embedding" in str(op):
            self.looked_up += result.nbytes
        elif "index_put" in str(op):
            self.cache_written += tensors[-1].nbytes
        else:
            for tensor in tensors:
                place = tensor.untyped_storage().data_ptr()
                self.weights += tensor.nbytes * (place in self.parameters)
                self.cache_read += tensor.nbytes * (place in self.cached)
            if "cat" in str(op) and any(each.untyped_storage().data_ptr() in self.cached for each in tensors):
                self.cache_written += result.nbytes
                self.cached.add(result.untyped_storage().data_ptr())
        return result


def moved(model: Qwen3Model, token_ids: Tensor, cache: Cache) -> MovedBytes:
    with torch.no_grad(), MovedBytes(model, cache) as counter:
        model(token_ids, cache=cache, last_only=True)
    return counter


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("new", "past", "batch"), PASSES)
@pytest.mark.parametrize("config", [SMALL, variant(tie_word_embeddings=False)], ids=["tied", "untied"])
def test_bytes_are_those_that_the_operations_are_handed(config: Qwen3Config, new: int, past: int, batch: int,
                                                        dtype: torch.dtype) -> None:
    model = make(config, dtype)
    counted = moved(model, prompt(batch, new), fixed(model, past, batch))
    cost = pass_bytes(config, new, past, batch, dtype.itemsize)
    assert (counted.weights, counted.cache_read, counted.cache_written) == (
        cost.weights, cost.cache_read, cost.cache_written)
    assert cost.total == cost.weights + cost.cache_read + cost.cache_written
    assert counted.looked_up == batch * new * config.hidden_size * dtype.itemsize  # which the formula leaves out


@pytest.mark.parametrize(("past", "batch"), [(12, 1), (12, 3), (30, 2)])
def test_a_growing_cache_moves_all_that_it_holds_once_more(past: int, batch: int) -> None:
    model = make(SMALL)
    counted = moved(model, prompt(batch, 1), growing(model, past, batch))
    cost = pass_bytes(SMALL, 1, past, batch, 4)
    assert counted.weights == cost.weights
    assert (counted.cache_read + counted.cache_written
            == cost.cache_read + cost.cache_written + copied_bytes(SMALL, past, batch, 4))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_elements_are_those_of_model_and_cache(config: Qwen3Config) -> None:
    model = make(config)
    weights = sum(weight.numel() for weight in model.parameters())
    read_by_rows = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    assert weight_elements(config) == weights - read_by_rows
    assert growing(model, 7, 2).num_bytes == 4 * 2 * 7 * cache_elements(config)


def test_figures_of_the_real_model() -> None:
    config = Qwen3Config()
    assert weight_elements(config) == 596_049_920
    assert pass_bytes(config, 1).weights == 1_192_099_840
    # Two operations a weight, in one token's pass.
    assert pass_flops(config, 1) / (2 * weight_elements(config)) == pytest.approx(1, rel=1e-3)


# ---- what follows from them ---------------------------------------------------------------------------------


def test_a_batch_multiplies_all_but_the_weights() -> None:
    one, eight = pass_bytes(SMALL, 1, 20), pass_bytes(SMALL, 1, 20, batch=8)
    assert one.weights == eight.weights
    assert (8 * one.cache_read, 8 * one.cache_written) == (eight.cache_read, eight.cache_written)
    assert pass_flops(SMALL, 1, 20, batch=8) == 8 * pass_flops(SMALL, 1, 20)


def test_a_pass_in_two_parts_is_as_much_arithmetic_but_for_the_logits() -> None:
    logits = 2 * SMALL.hidden_size * SMALL.vocab_size
    assert pass_flops(SMALL, 30) == pass_flops(SMALL, 12) + pass_flops(SMALL, 18, 12) - logits


def test_the_longer_of_arithmetic_and_reading_is_the_limit() -> None:
    assert least_seconds(flops=100, num_bytes=10, arithmetic=50, bandwidth=10) == 2.0
    assert least_seconds(flops=100, num_bytes=30, arithmetic=50, bandwidth=10) == 3.0
