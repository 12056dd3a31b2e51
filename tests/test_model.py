"""The model against Hugging Face's implementation, and every way of computing against the plain one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter
from transformers import Qwen3Config as TransformersConfig
from transformers import Qwen3ForCausalLM

from course_utils.config import Qwen3Config
from course_utils.errors import CheckpointError, ContextLengthError, InputError
from course_utils.generation import generate_text_basic
from course_utils.kv_cache import Cache, KVCache, StaticKVCache
from course_utils.quantization import quantize
from course_utils.qwen3 import Qwen3Model, attend, weight_shapes

SMALL = Qwen3Config(vocab_size=211, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
                    num_key_value_heads=2, head_dim=16, max_position_embeddings=128)


def variant(**changes: object) -> Qwen3Config:
    return Qwen3Config(**{**vars(SMALL), **changes})


CONFIGS = {
    "grouped, tied": SMALL,
    "untied": variant(tie_word_embeddings=False),
    "every head its own keys": variant(num_key_value_heads=4),
    "one head of keys": variant(num_key_value_heads=1),
    "heads wider than the model": variant(head_dim=64),
    "narrow heads, other base": variant(head_dim=2, rope_theta=10_000.0),
    "one layer, large epsilon": variant(num_hidden_layers=1, rms_norm_eps=1e-3),
}


def make(config: Qwen3Config, dtype: torch.dtype = torch.float32) -> Qwen3Model:
    torch.manual_seed(1)
    model = Qwen3Model(config)
    for parameter in model.parameters():
        # Norms of exactly one and tiny weights would hide mistakes.
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.2)
    return model.to(dtype).eval()


def make_transformers(model: Qwen3Model) -> Qwen3ForCausalLM:
    other = Qwen3ForCausalLM(TransformersConfig(**model.config.to_dict())).to(model.dtype)
    other.load_state_dict(model.state_dict())
    return other.eval()


def prompt(b: int = 2, t: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, SMALL.vocab_size, (b, t), generator=torch.Generator().manual_seed(seed))


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> bool:
    """Largest difference, as a share of the largest logit: random logits here reach far beyond one."""
    return bool((a - b).abs().max() <= tolerance * max(1.0, float(b.abs().max())))


@pytest.fixture(scope="module")
def model() -> Qwen3Model:
    return make(SMALL)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_logits_equal_those_of_transformers(config: Qwen3Config) -> None:
    model = make(config)
    with torch.inference_mode():
        assert close(model(prompt()), make_transformers(model)(prompt()).logits)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_transformers_checkpoint_loads_and_agrees(config: Qwen3Config, tmp_path: Path) -> None:
    from course_utils.checkpoint import load_checkpoint

    other = make_transformers(make(config))
    other.save_pretrained(tmp_path, max_shard_size="40KB")
    with torch.inference_mode():
        assert close(load_checkpoint(tmp_path)(prompt()), other(prompt()).logits)
    assert Qwen3Config.from_dict(json.loads((tmp_path / "config.json").read_text())) == config


def test_bfloat16_is_as_close_to_float32_as_transformers_is() -> None:
    exact = make(SMALL)
    rounded = make(SMALL, torch.bfloat16)
    with torch.inference_mode():
        reference = exact(prompt())
        ours = (rounded(prompt()).float() - reference).abs().mean()
        theirs = (make_transformers(rounded)(prompt()).logits.float() - reference).abs().mean()
    assert ours <= 1.2 * theirs
    assert ours <= 0.05 * reference.abs().mean()


def attend_by_hand(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor,
                   mask: torch.Tensor | None) -> torch.Tensor:
    """In double precision, with each head of keys and values repeated for the queries that share it."""
    sharing = queries.shape[1] // keys.shape[1]
    keys, values = (x.double().repeat_interleave(sharing, dim=1) for x in (keys, values))
    scores = queries.double() @ keys.transpose(2, 3) / queries.shape[-1] ** 0.5
    weights = scores.exp() if mask is None else scores.exp() * mask
    return (weights / weights.sum(dim=-1, keepdim=True)) @ values


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("sharing", [1, 2, 4])
@pytest.mark.parametrize("b", [1, 2])
def test_attention_of_one_query_equals_its_formula(b: int, sharing: int, masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(b, heads, t, 6, generator=generator)
                             for heads, t in ((2 * sharing, 1), (2, 11), (2, 11)))
    mask = torch.rand(b, 1, 1, 11, generator=generator) < 0.5 if masked else None
    attended = attend(queries, keys, values, mask)
    torch.testing.assert_close(attended.double(), attend_by_hand(queries, keys, values, mask), rtol=1e-5, atol=1e-6)


def test_attention_of_many_queries_equals_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(2, heads, 5, 6, generator=generator) for heads in (8, 2, 2))
    causal = torch.ones(5, 5, dtype=torch.bool).tril()[None, None]
    for mask in (None, causal):
        torch.testing.assert_close(attend(queries, keys, values, mask).double(),
                                   attend_by_hand(queries, keys, values, causal), rtol=1e-5, atol=1e-6)


def caches(config: Qwen3Config, b: int = 2) -> list[Cache]:
    shown_whole = StaticKVCache(config, max_length=40, batch_size=b)
    shown_whole._whole = True  # as on an NVIDIA GPU
    return [KVCache(config), StaticKVCache(config, max_length=40, batch_size=b), shown_whole]


every_cache = pytest.mark.parametrize("kind", [0, 1, 2], ids=["growing", "static", "shown whole"])


@every_cache
@pytest.mark.parametrize("chunks", [[20], [1] * 20, [7, 5, 1, 7], [19, 1]], ids=str)
def test_in_chunks_with_a_cache_equals_at_once(model: Qwen3Model, chunks: list[int], kind: int) -> None:
    cache = caches(SMALL)[kind]
    with torch.inference_mode():
        parts = [model(part, cache=cache) for part in prompt().split(chunks, dim=1)]
        assert close(torch.cat(parts, dim=1), model(prompt()))
    assert cache.length == 20


def test_last_only_gives_the_last_row(model: Qwen3Model) -> None:
    with torch.inference_mode():
        assert close(model(prompt(), last_only=True), model(prompt())[:, -1:])


@every_cache
def test_left_padding_changes_nothing(model: Qwen3Model, kind: int) -> None:
    """Prompts of 5 and 9 tokens side by side, then two more tokens each, against each alone."""
    first, second, new = prompt(1, 5, seed=1), prompt(1, 9, seed=2), prompt(2, 2, seed=3)
    padded = torch.cat((torch.cat((torch.zeros(1, 4, dtype=torch.long), first), dim=1), second))
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, :4] = False
    cache = caches(SMALL)[kind]
    with torch.inference_mode():
        before = model(padded, cache=cache, attention_mask=mask)
        after = model(new, cache=cache, attention_mask=torch.cat((mask, torch.ones(2, 2, dtype=torch.bool)), dim=1))
        for row, alone in enumerate((first, second)):
            expected = model(torch.cat((alone, new[row:row + 1]), dim=1))
            got = torch.cat((before[row:row + 1, 9 - alone.shape[1]:], after[row:row + 1]), dim=1)
            assert close(got, expected)
    assert torch.isfinite(before).all()


def test_padding_equals_that_of_transformers(model: Qwen3Model) -> None:
    mask = torch.ones(2, 20, dtype=torch.long)
    mask[1, :6] = 0
    with torch.inference_mode():
        theirs = make_transformers(model)(prompt(), attention_mask=mask,
                                          position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
        ours = model(prompt(), attention_mask=mask)
    assert close(ours[mask.bool()], theirs[mask.bool()])


def test_two_streams_on_one_model_do_not_disturb_each_other(model: Qwen3Model) -> None:
    first, second = prompt(1, 12, seed=1), prompt(1, 12, seed=2)
    a, b = KVCache(SMALL), KVCache(SMALL)
    with torch.inference_mode():
        for i in range(12):
            logits_a = model(first[:, i:i + 1], cache=a)
            logits_b = model(second[:, i:i + 1], cache=b)
        assert close(logits_a, model(first, last_only=True))
        assert close(logits_b, model(second, last_only=True))


@every_cache
def test_a_copied_cache_can_be_continued_on_its_own(model: Qwen3Model, kind: int) -> None:
    start, one, two = prompt(2, 8), prompt(2, 3, seed=1), prompt(2, 3, seed=2)
    cache = caches(SMALL)[kind]
    with torch.inference_mode():
        model(start, cache=cache)
        copy = cache.copy()
        for tokens, used in ((one, cache), (two, copy)):
            assert close(model(tokens, cache=used)[:, -1], model(torch.cat((start, tokens), dim=1))[:, -1])


@every_cache
def test_a_cache_can_be_cut_back(model: Qwen3Model, kind: int) -> None:
    cache = caches(SMALL)[kind]
    with torch.inference_mode():
        model(prompt(), cache=cache)
        cache.truncate(6)
        assert close(model(prompt()[:, 6:], cache=cache), model(prompt())[:, 6:])
    with pytest.raises(InputError, match="from 0 to 20"):
        cache.truncate(21)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@every_cache
def test_an_interrupted_pass_leaves_the_cache_as_it_was(model: Qwen3Model, kind: int) -> None:
    cache = caches(SMALL)[kind]
    with torch.inference_mode():
        model(prompt()[:, :10], cache=cache)
        handle = model.model.layers[1].register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            model(prompt(seed=5)[:, 10:], cache=cache)
        handle.remove()
        assert cache.length == 10
        assert close(model(prompt()[:, 10:], cache=cache), model(prompt())[:, 10:])


@every_cache
def test_single_tokens_see_nothing_of_an_interrupted_pass(model: Qwen3Model, kind: int) -> None:
    cache = caches(SMALL)[kind]
    with torch.inference_mode():
        model(prompt()[:, :10], cache=cache)
        handle = model.model.norm.register_forward_pre_hook(interrupt)  # when every layer has written
        for length in (6, 1):
            with pytest.raises(KeyboardInterrupt):
                model(prompt(t=length, seed=5), cache=cache)
        handle.remove()
        assert cache.length == 10
        parts = [model(token, cache=cache) for token in prompt()[:, 10:].split(1, dim=1)]
        assert close(torch.cat(parts, dim=1), model(prompt())[:, 10:])


@every_cache
def test_a_cache_can_be_used_for_another_text(model: Qwen3Model, kind: int) -> None:
    cache = caches(SMALL)[kind]
    with torch.inference_mode():
        model(prompt(t=30, seed=5), cache=cache)
        cache.truncate(0)
        parts = [model(part, cache=cache) for part in prompt().split([12] + [1] * 8, dim=1)]
        assert close(torch.cat(parts, dim=1), model(prompt()))


@pytest.mark.parametrize("kind", [1, 2], ids=["static", "shown whole"])
def test_a_static_cache_stays_where_it_is_and_its_copy_does_not(model: Qwen3Model, kind: int) -> None:
    cache = caches(SMALL)[kind]
    assert isinstance(cache, StaticKVCache)
    addresses = [(layer.keys.data_ptr(), layer.values.data_ptr()) for layer in cache.layers]
    with torch.inference_mode():
        for part in prompt().split([12] + [1] * 8, dim=1):
            model(part, cache=cache)
    copy = cache.copy()
    assert [(layer.keys.data_ptr(), layer.values.data_ptr()) for layer in cache.layers] == addresses
    for mine, other in zip(cache.layers, copy.layers):
        assert torch.equal(mine.keys, other.keys) and torch.equal(mine.values, other.values)
        assert mine.keys.data_ptr() != other.keys.data_ptr() and mine.values.data_ptr() != other.values.data_ptr()


def test_a_static_cache_for_another_batch_or_model_is_refused(model: Qwen3Model) -> None:
    for cache in (StaticKVCache(SMALL, 40, batch_size=1), StaticKVCache(SMALL, 40, batch_size=3),
                  StaticKVCache(variant(num_key_value_heads=1), 40, batch_size=2)):
        with torch.inference_mode(), pytest.raises(InputError, match="do not fit into a cache.*a batch_size of 2"):
            model(prompt(), cache=cache)
        assert cache.length == 0


@pytest.mark.parametrize("length, graphs", [(12, 1), (20, 2)], ids=["with room left", "to the last slot"])
def test_steps_shown_the_whole_cache_are_one_graph(model: Qwen3Model, length: int, graphs: int) -> None:
    """What a CUDA graph needs: the same code, hence the same shapes, for every token. One in the last slot has nothing
    to mask, and a graph of its own."""
    torch.compiler.reset()
    counter = CompileCounter()
    _, _, cache = caches(SMALL)
    ids = prompt(t=length)
    compiled = make(SMALL)
    compute = compiled.compute
    step = torch.compile(compute, backend=counter, dynamic=False, fullgraph=True)
    with torch.inference_mode():
        token = compiled(ids, cache=cache, last_only=True)[:, -1].argmax(-1, keepdim=True)
        compiled.compute = step  # type: ignore[method-assign]
        tokens = [token]
        for _ in range(20):
            tokens.append(compiled(tokens[-1], cache=cache, last_only=True)[:, -1].argmax(-1, keepdim=True))
    torch.compiler.reset()
    assert counter.frame_count == graphs and counter.op_count > 0
    assert torch.equal(torch.cat(tokens, dim=1), generate_text_basic(model, ids, 21))


def test_a_single_token_is_multiplied_without_onednn_and_a_prompt_with_it(model: Qwen3Model) -> None:
    seen: list[bool] = []
    handle = model.model.layers[0].register_forward_pre_hook(
        lambda *_: seen.append(bool(torch.backends.mkldnn.enabled)))
    cache = KVCache(SMALL)
    with torch.inference_mode():
        for part in prompt(1, 6).split([4, 1, 1], dim=1):
            model(part, cache=cache)
            assert torch.backends.mkldnn.enabled
        model(prompt(2, 1))
    handle.remove()
    assert seen == [True, False, False, True]


def test_an_error_in_a_step_leaves_onednn_on(model: Qwen3Model) -> None:
    handle = model.model.layers[1].register_forward_pre_hook(lambda *_: 1 / 0)
    with torch.inference_mode(), pytest.raises(ZeroDivisionError):
        model(prompt(1, 1))
    handle.remove()
    assert torch.backends.mkldnn.enabled


def test_cache_memory_by_formula(model: Qwen3Model) -> None:
    growing, static, _ = caches(SMALL)
    with torch.inference_mode():
        model(prompt(), cache=growing)
    per_token = 2 * SMALL.num_hidden_layers * SMALL.num_key_value_heads * SMALL.head_dim * 4
    assert growing.num_bytes == 2 * 20 * per_token
    assert static.num_bytes == 2 * 40 * per_token


@every_cache
def test_past_the_context_is_refused_before_any_work(model: Qwen3Model, kind: int) -> None:
    cache = caches(SMALL)[kind]
    limit = cache.max_length
    with torch.inference_mode():
        model(prompt(2, limit - 1), cache=cache)
        with pytest.raises(ContextLengthError, match=f"{limit + 1} tokens do not fit.*{limit}"):
            model(prompt(2, 2), cache=cache)
        assert cache.length == limit - 1
        model(prompt(2, 1), cache=cache)
    with pytest.raises(ContextLengthError, match="129 tokens do not fit.*128"):
        model(prompt(1, 129))
    with pytest.raises(ContextLengthError, match="choose max_length from 1 to 128"):
        StaticKVCache(SMALL, max_length=129)


@pytest.mark.parametrize("ids", [torch.tensor([1, 2]), torch.zeros(1, 0, dtype=torch.long)], ids=["flat", "empty"])
def test_wrong_shapes_are_refused(model: Qwen3Model, ids: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"expects \(batch, tokens\)"):
        model(ids)


@pytest.mark.parametrize(("ids", "message"), [
    ([[1, 2]], "is a list: give a tensor"),
    (torch.tensor([[1.0, 2.0]]), "integers"),
    (torch.tensor([[1, 211]]), "Token id 211 is not in the vocabulary of 211"),
    (torch.tensor([[-1, 5]]), "Token id -1 is not"),
    (torch.tensor([[211]]), "Token id 211 is not"),
    (torch.tensor([[-1]]), "Token id -1 is not"),
    (torch.zeros(0, 3, dtype=torch.long), "at least one token"),
])
def test_what_are_no_ids_of_the_vocabulary_is_refused(model: Qwen3Model, ids: torch.Tensor, message: str) -> None:
    cache = KVCache(SMALL)
    for each in (model, quantize(model, "int8")):  # whose embedding would take -1 for the last token
        with torch.inference_mode(), pytest.raises(InputError, match=message):
            each(ids, cache=cache)
    assert cache.length == 0


@pytest.mark.parametrize("new", [1, 4])
def test_a_cache_of_another_batch_model_or_dtype_is_refused_and_left_alone(model: Qwen3Model, new: int) -> None:
    def filled(cache: Cache, by: Qwen3Model = model, b: int = 2) -> Cache:
        by(prompt(b, 5), cache=cache)
        return cache

    heads, wide = variant(num_key_value_heads=1), variant(head_dim=32)
    with torch.inference_mode():
        caches = [filled(KVCache(SMALL), b=1), filled(KVCache(SMALL), b=3), filled(KVCache(heads), make(heads)),
                  filled(KVCache(wide), make(wide)), filled(KVCache(SMALL), make(SMALL, torch.bfloat16)),
                  StaticKVCache(SMALL, 40, batch_size=2, dtype=torch.bfloat16), StaticKVCache(wide, 40, batch_size=2)]
        for cache in caches:
            before, held = cache.length, cache.num_bytes
            with pytest.raises(InputError, match="do not fit into a cache.*make one with this model's config"):
                model(prompt(2, new), cache=cache)
            assert (cache.length, cache.num_bytes) == (before, held)


@pytest.mark.parametrize(("make_cache", "message"), [
    (lambda: KVCache(make(SMALL)), "this is a Qwen3Model: give model.config"),
    (lambda: StaticKVCache({}, 8), "this is a dict: give model.config"),
    (lambda: StaticKVCache(SMALL, 8, batch_size=0), "batch_size is 0"),
    (lambda: StaticKVCache(SMALL, 8, batch_size=1.0), "batch_size is 1.0"),
    (lambda: StaticKVCache(SMALL, "8"), "A cache for '8' tokens"),
    (lambda: StaticKVCache(SMALL, 8).truncate("0"), "to '0': give a length from 0 to 0"),
    (lambda: KVCache(SMALL).truncate(None), "to None: give a length"),
])
def test_what_is_no_size_of_a_cache_is_refused(make_cache: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_cache()
    cache = StaticKVCache(SMALL, np.int64(8), np.int32(2))
    cache.truncate(np.int64(0))
    assert cache.layers[0].keys.shape[::2] == (2, 8)


def test_a_static_cache_is_used_without_gradients_in_any_mode(model: Qwen3Model) -> None:
    with torch.inference_mode():
        made_within, expected = StaticKVCache(SMALL, 40, batch_size=2), model(prompt())
        model(prompt(), cache=made_within)
        copied_within = made_within.copy()
    for cache in (made_within, copied_within, StaticKVCache(SMALL, 40, batch_size=2)):
        for mode in (torch.no_grad(), torch.inference_mode()):
            cache.truncate(0)
            with mode:
                assert close(torch.cat([model(part, cache=cache) for part in prompt().split([12, 1, 7], dim=1)], dim=1),
                             expected)
        cache.truncate(0)
        with pytest.raises(InputError, match=r"no gradient can pass.*torch.no_grad\(\)"):
            model(prompt(), cache=cache)
        assert cache.length == 0
    frozen = make(SMALL).requires_grad_(False)
    assert close(frozen(prompt(), cache=StaticKVCache(SMALL, 40, batch_size=2)), expected)
    assert model(prompt(), cache=KVCache(SMALL)).requires_grad


def test_a_mask_must_cover_the_cache_too(model: Qwen3Model) -> None:
    cache = KVCache(SMALL)
    with torch.inference_mode():
        model(prompt(), cache=cache)
        with pytest.raises(InputError, match=r"must be \(2, 21\)"):
            model(prompt(2, 1), cache=cache, attention_mask=torch.ones(2, 1))


def test_rotary_angles_stay_exact_far_out_and_in_bfloat16() -> None:
    model = make(variant(max_position_embeddings=40_960), torch.bfloat16)
    positions = torch.tensor([[1, 2_049, 40_959]])
    cos, sin = model.model.rotary_emb(positions)
    frequencies = SMALL.rope_theta ** -(torch.arange(0, SMALL.head_dim, 2, dtype=torch.float64) / SMALL.head_dim)
    exact = positions[0, :, None].double() * frequencies
    # float32 holds seven digits, and a far angle spends five of them before the point.
    assert (cos[0, 0, :, :8].double() - exact.cos()).abs().max() < 5e-3
    assert (sin[0, 0, :, :8].double() - exact.sin()).abs().max() < 5e-3


@pytest.mark.parametrize("tied", [True, False])
def test_the_real_model_has_the_published_number_of_parameters(tied: bool) -> None:
    with torch.device("meta"):
        model = Qwen3Model(Qwen3Config(tie_word_embeddings=tied))
    assert sum(p.numel() for p in model.parameters()) == (596_049_920 if tied else 751_632_384)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_shapes_without_a_model_are_those_of_transformers(config: Qwen3Config) -> None:
    other = Qwen3ForCausalLM(TransformersConfig(**config.to_dict()))
    assert dict(weight_shapes(config)) == {name: tuple(each.shape) for name, each in other.named_parameters()}


@pytest.mark.parametrize(("change", "message"), [
    ({"model_type": "llama"}, "'llama' model.*only 'qwen3'"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "without rope scaling"),
    ({"attention_bias": True}, "attention_bias"),
    ({"hidden_act": "gelu"}, "hidden_act"),
    ({"num_key_value_heads": 3}, "cannot share"),
    ({"head_dim": 15}, "must be even"),
    ({"hidden_size": -1}, "positive whole number"),
    ({"hidden_size": "large"}, "positive whole number"),
])
def test_foreign_configurations_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Qwen3Config.from_dict({**SMALL.to_dict(), **change})


def test_an_incomplete_configuration_is_refused() -> None:
    config = SMALL.to_dict()
    del config["head_dim"]
    with pytest.raises(CheckpointError, match="lacks head_dim"):
        Qwen3Config.from_dict(config)


def test_both_spellings_of_the_rotary_base_are_read() -> None:
    config = variant(rope_theta=5_000.0).to_dict()
    newer = {**config, "rope_parameters": {"rope_type": "default", "rope_theta": 5_000.0}}
    del newer["rope_theta"]
    assert Qwen3Config.from_dict(config) == Qwen3Config.from_dict(newer)
