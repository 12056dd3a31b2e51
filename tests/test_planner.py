"""The planner: bytes against those of real models and caches, speeds against the roofline, counts of GPUs by hand."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from course_utils import kernels
from course_utils.config import Qwen3Config
from course_utils.costs import pass_bytes, pass_flops
from course_utils.errors import ContextLengthError, InputError
from course_utils.family import FAMILY
from course_utils.kv_cache import KVCache, StaticKVCache
from course_utils.loading import load_model, random_model
from course_utils.planner import (
    GPUS,
    H100,
    L4,
    PRECISIONS,
    Gpu,
    Precision,
    cache_bytes,
    plan,
    plan_table,
    weight_bytes,
    workspace_bytes,
)
from course_utils.quantization import convert, quantize
from course_utils.qwen3 import Qwen3Model

SMALLEST = FAMILY["Qwen/Qwen3-0.6B"]
UNTIED = FAMILY["Qwen/Qwen3-8B"]


def stored_bytes(model: Qwen3Model) -> int:
    """What a model's weights take, each tensor once."""
    stored = model.state_dict().keys()
    held = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return sum(tensor.nbytes for tensor in {id(tensor): tensor for name, tensor in held if name in stored}.values())


@pytest.fixture(scope="module")
def tiny() -> Qwen3Model:
    return load_model("tiny", device="cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_are_those_of_the_bundled_model(tiny: Qwen3Model, precision: Precision) -> None:
    model = tiny if precision == "bfloat16" else quantize(tiny, precision)
    assert weight_bytes(model.config, precision) == stored_bytes(model)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", [name for name in FAMILY if not name.endswith("-Base")])
def test_weights_are_those_of_the_family_built_without_memory(name: str, precision: Precision) -> None:
    config = FAMILY[name]
    if precision != "bfloat16":  # whose layers take a while to convert, and are all the same
        config = replace(config, num_hidden_layers=2)
    with torch.device("meta"):
        model = Qwen3Model(config).to(torch.bfloat16)
    if precision != "bfloat16":
        convert(model, precision)
    assert weight_bytes(config, precision) == stored_bytes(model)


def test_weights_of_the_smallest_are_the_known_count() -> None:
    assert weight_bytes(SMALLEST) == 2 * 596_049_920


def test_matrices_that_int4_does_not_fit_are_counted_as_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    # In the kernels' order, matrices as small as these are mostly padding.
    monkeypatch.setattr(kernels, "problem", lambda name: "switched off")
    config = Qwen3Config(vocab_size=100, hidden_size=48, intermediate_size=96, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=64)
    model = quantize(random_model(config, device="cpu"), "int4")
    assert weight_bytes(config, "int4") == stored_bytes(model)


def test_caches_are_those_of_the_bundled_model(tiny: Qwen3Model) -> None:
    fixed = StaticKVCache(tiny.config, 200, batch_size=3, dtype=torch.bfloat16)
    assert cache_bytes(tiny.config, 200, users=3) == fixed.num_bytes
    growing = KVCache(tiny.config)
    with torch.inference_mode():
        tiny(torch.ones(3, 20, dtype=torch.long), cache=growing)
    assert cache_bytes(tiny.config, 20, users=3) == growing.num_bytes


class PeakBytes(TorchDispatchMode):
    """The most bytes that tensors made within the block have held at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {tensor.untyped_storage().data_ptr() for tensor in tree_leaves((args, kwargs))
                  if isinstance(tensor, torch.Tensor)}
        result = op(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in before | self.known:
                    self._count(storage)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        self.known.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)

        def gone() -> None:
            self.known.discard(place)
            self.now -= size

        weakref.finalize(storage, gone)


@pytest.mark.parametrize(("tokens", "rows"), [(256, 1), (1, 64)])
def test_workspace_is_near_what_a_pass_takes(tiny: Qwen3Model, tokens: int, rows: int) -> None:
    cache = StaticKVCache(tiny.config, 300, rows, dtype=torch.bfloat16)
    ids = torch.ones(rows, tokens, dtype=torch.long)
    with torch.inference_mode(), PeakBytes() as seen:
        tiny(ids, cache=cache, last_only=True)[:, -1].float()
    assert 0.7 < workspace_bytes(tiny.config, tokens, rows) / seen.peak < 1.4


def test_step_and_prompt_take_the_least_time_of_the_roofline() -> None:
    """One GPU, bfloat16: then all is as `course_utils.costs` has it."""
    for users in (1, 1000):  # bound by memory, and the caches of a thousand users even more
        each = plan(SMALLEST, Gpu("large", 1e15, 3e12, 1e15), context=100, users=users)
        moved, work = pass_bytes(SMALLEST, 1, 99, users).total, pass_flops(SMALLEST, 1, 99, users)
        rate = 1 / max(moved / 3e12, work / 1e15)
        assert each.gpus == 1 and each.tokens_per_second == pytest.approx(rate)
        assert each.throughput == pytest.approx(users * rate)
    slow = plan(SMALLEST, Gpu("slow", 1e15, 3e12, 1e13), context=4000)
    assert slow.prefill_seconds == pytest.approx(pass_flops(SMALLEST, 4000) / 1e13)


def test_untied_embedding_is_stored_and_not_read() -> None:
    """A step reads one row of it, which counts as nothing."""
    each = plan(UNTIED, Gpu("large", 1e15, 1e12, 1e20), context=1)
    read = pass_bytes(UNTIED, 1)
    assert 1 / each.tokens_per_second == pytest.approx(read.total / 1e12)  # type: ignore[operator]
    assert each.weights - read.weights == 2 * UNTIED.vocab_size * UNTIED.hidden_size


def test_fewest_gpus_that_hold_it() -> None:
    """By hand: 32.8 billion parameters in bfloat16 are 65.5 GB, and of 80 GB 72 can be used."""
    large = FAMILY["Qwen/Qwen3-32B"]
    assert plan(large, H100, users=1).gpus == 1
    assert plan(large, H100, users=16).gpus == 2  # caches of 17 GB
    assert plan(large, L4, users=1).gpus == 4  # 16.4 GB of 21.6 each
    assert plan(large, L4, "int4", users=1).gpus == 2
    assert plan(large, L4, context=40_960, users=64).gpus is None


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(FAMILY)), precision=st.sampled_from(PRECISIONS), gpu=st.sampled_from(GPUS),
       context=st.integers(1, 32_000), users=st.integers(1, 200))
def test_a_plan_holds_what_it_promises(name: str, precision: Precision, gpu: Gpu, context: int, users: int) -> None:
    each = plan(FAMILY[name], gpu, precision, context, users)
    assert each.memory == each.weights + each.caches + each.workspace
    if each.gpus is None:
        assert each.tokens_per_second is each.throughput is each.prefill_seconds is None
        assert (each.weights + each.caches) / 8 + each.workspace > 0.9 * gpu.memory
        return
    assert each.gpus in (1, 2, 4, 8)
    assert (each.weights + each.caches) / each.gpus + each.workspace <= 0.9 * gpu.memory
    more = plan(FAMILY[name], gpu, precision, context, users + 1)
    if more.gpus == each.gpus:  # another user slows the others down and adds to the sum
        assert more.tokens_per_second <= each.tokens_per_second  # type: ignore[operator]
        assert more.throughput >= each.throughput * (1 - 1e-9)  # type: ignore[operator]


def test_fewer_bits_are_less_memory_and_more_speed() -> None:
    plans = [plan(UNTIED, H100, precision) for precision in PRECISIONS]
    assert sorted(plans, key=lambda each: -each.weights) == plans
    speeds = [each.tokens_per_second or 0.0 for each in plans]
    assert sorted(speeds) == speeds


def test_table_has_a_line_for_each_plan_and_dashes_where_there_is_none() -> None:
    fits, does_not = plan(SMALLEST, L4), plan(FAMILY["Qwen/Qwen3-32B"], L4, context=40_960, users=64)
    lines = plan_table([("0.6B", fits), ("32B", does_not)]).splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert lines[2].split()[:4] == ["0.6B", "1.2", "0.5", "1"] and lines[3].split()[3:] == ["-"] * 4


@pytest.mark.parametrize(("arguments", "message"), [
    ({"users": 0}, "users is 0"), ({"users": 1.5}, "users is 1.5"), ({"users": True}, "users is True"),
    ({"context": 0}, "context is 0"), ({"context": "long"}, "context is 'long'"),
    ({"precision": "fp4"}, "no precision 'fp4'"),
])
def test_refusals(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(SMALLEST, H100, **arguments)


def test_context_beyond_the_model_is_refused() -> None:
    with pytest.raises(ContextLengthError, match="at most 40960"):
        plan(SMALLEST, H100, context=40_961)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "80 GB", True])
def test_gpu_that_cannot_be_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="bandwidth of the GPU 'odd'"):
        Gpu("odd", 80e9, value, 1e12)
