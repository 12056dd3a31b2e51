"""What is recorded inside a forward pass, against transformers and against the same values computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_model import CONFIGS, SMALL, close, make, make_transformers, prompt
from torch._dynamo.testing import CompileCounter
from transformers import Qwen3ForCausalLM

from course_utils import load_model, load_tokenizer
from course_utils.config import Qwen3Config
from course_utils.errors import ContextLengthError, InputError
from course_utils.kv_cache import KVCache
from course_utils.quantization import quantize
from course_utils.qwen3 import Qwen3Model, attend
from course_utils.recording import Recording, attention_weights, logits_by_layer, record

TINY = Path(__file__).resolve().parent.parent / "data" / "tiny"
PADDED = torch.tensor([[0] * 7 + [1] * 13, [1] * 20])  # for prompt()


def same(a: Recording, b: Recording) -> bool:
    return all(torch.equal(value, vars(b)[name]) for name, value in vars(a).items())


def has_hooks(model: Qwen3Model) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.fixture(scope="module")
def model() -> Qwen3Model:
    return make(SMALL)


def assert_equal_to_transformers(recording: Recording, model: Qwen3Model, other: Qwen3ForCausalLM) -> None:
    other.set_attn_implementation("eager")  # the others do not compute attention weights
    with torch.inference_mode():
        expected = other(recording.token_ids, attention_mask=recording.attention_mask.long(),
                         output_attentions=True, output_hidden_states=True)
        real = recording.attention_mask  # what padding looks at is anyone's choice
        for ours, theirs in zip(recording.attention, expected.attentions, strict=True):
            rows = real[:, None].expand(ours.shape[:3])
            assert close(ours[rows], theirs[rows])
        *states, normalized = expected.hidden_states
        for ours, theirs in zip([*recording.residual[:-1], model.model.norm(recording.residual[-1])],
                                [*states, normalized], strict=True):
            assert close(ours[real], theirs[real])
        assert close(recording.logits[real], expected.logits[real])


@pytest.mark.parametrize("mask", [None, PADDED], ids=["whole", "padded"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_attention_and_residual_stream_equal_those_of_transformers(config: Qwen3Config,
                                                                   mask: torch.Tensor | None) -> None:
    model = make(config)
    assert_equal_to_transformers(record(model, prompt(), mask), model, make_transformers(model))


def test_the_bundled_model_equals_transformers() -> None:
    model, tokenizer = load_model(TINY, device="cpu", dtype=torch.float32), load_tokenizer(TINY)
    ids = torch.tensor([tokenizer.encode("The Chinese word for cat is")])
    other = Qwen3ForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    assert_equal_to_transformers(record(model, ids), model, other)


@pytest.mark.parametrize("mask", [None, PADDED], ids=["whole", "padded"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_parts_follow_from_each_other(config: Qwen3Config, mask: torch.Tensor | None) -> None:
    model = make(config)
    recording = record(model, prompt(), mask)
    repeats = config.num_attention_heads // config.num_key_value_heads
    for index, layer in enumerate(model.model.layers):
        queries, keys, values = recording.queries[index], recording.keys[index], recording.values[index]
        for row in range(2):
            for head in range(config.num_attention_heads):
                group = head // repeats
                weights = torch.zeros(20, 20)
                for token in range(20):
                    looks_at = [other for other in range(token + 1)
                                if other == token or mask is None or mask[row, other]]
                    if mask is not None and not mask[row, token]:
                        looks_at = [token]
                    scores = torch.stack([queries[row, head, token] @ keys[row, group, other]
                                          for other in looks_at]) / config.head_dim**0.5
                    weights[token, looks_at] = scores.exp() / scores.exp().sum()
                assert close(recording.attention[index, row, head], weights)
                assert close(recording.head_outputs[index, row, :, head], weights @ values[row, group])
        with torch.no_grad():
            assert close(layer.self_attn.o_proj(recording.head_outputs[index].flatten(2)),
                         recording.attention_outputs[index])
            between = recording.residual[index] + recording.attention_outputs[index]
            assert close(layer.mlp(layer.post_attention_layernorm(between)), recording.mlp_outputs[index])
        assert close(recording.residual[index + 1], between + recording.mlp_outputs[index])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_ends_are_the_embeddings_and_the_logits(config: Qwen3Config) -> None:
    model = make(config)
    recording = record(model, prompt())
    assert torch.equal(recording.embeddings, model.model.embed_tokens.weight[prompt()])
    assert torch.equal(recording.residual[0], recording.embeddings)
    with torch.no_grad():
        assert torch.equal(recording.logits, model(prompt()))


def test_keys_and_values_are_those_that_a_cache_holds(model: Qwen3Model) -> None:
    cache = KVCache(SMALL)
    with torch.no_grad():
        model(prompt(), cache=cache, attention_mask=PADDED)
    recording = record(model, prompt(), PADDED)
    for keys, values, held in zip(recording.keys, recording.values, cache.held, strict=True):
        assert torch.equal(keys, held[0]) and torch.equal(values, held[1])


def test_a_later_token_changes_nothing_earlier(model: Qwen3Model) -> None:
    longer, shorter = record(model, prompt()), record(model, prompt()[:, :13])
    assert close(longer.attention[..., :13, :13], shorter.attention)
    assert close(longer.residual[:, :, :13], shorter.residual)


def test_a_padded_row_is_what_it_is_alone(model: Qwen3Model) -> None:
    padded, alone = record(model, prompt(), PADDED), record(model, prompt()[:1, 7:])
    assert close(padded.attention[:, 0, :, 7:, 7:], alone.attention[:, 0])
    assert close(padded.residual[:, 0, 7:], alone.residual[:, 0])


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_attention_weights_are_those_that_the_model_mixes_values_with(groups: int) -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(2, 4, 9, 8), torch.randn(2, groups, 9, 8)
    # Mixed with weights, the rows of the unit matrix are the weights themselves.
    values = torch.eye(9).expand(2, groups, 9, 9)
    assert torch.allclose(attention_weights(queries, keys), attend(queries, keys, values, None), atol=1e-6)
    mask = (torch.rand(2, 1, 9, 9) < 0.5) | torch.eye(9, dtype=torch.bool)
    assert torch.allclose(attention_weights(queries, keys, mask), attend(queries, keys, values, mask), atol=1e-6)


def test_logits_by_layer_begin_with_the_embeddings_and_end_with_the_logits(model: Qwen3Model) -> None:
    recording = record(model, prompt())
    by_layer = logits_by_layer(model, recording)
    assert by_layer.shape == (4, 2, 20, SMALL.vocab_size)
    assert torch.equal(by_layer[-1], recording.logits)
    embedded = recording.embeddings
    normalized = embedded / (embedded.square().mean(-1, keepdim=True) + SMALL.rms_norm_eps).sqrt()
    with torch.no_grad():
        assert close(by_layer[0], normalized * model.model.norm.weight @ model.lm_head.weight.T)


@pytest.mark.parametrize("kind", ["bfloat16", "int8", "int4"])
@pytest.mark.parametrize("tokens", [1, 20])
def test_every_number_format_is_recorded_in_float32(kind: str, tokens: int) -> None:
    config = Qwen3Config(**{**vars(SMALL), "vocab_size": 256, "hidden_size": 64, "intermediate_size": 128})
    model = make(config, torch.bfloat16 if kind == "bfloat16" else torch.float32)
    if kind != "bfloat16":
        model = quantize(model, kind)
    ids = prompt(1, tokens)
    recording = record(model, ids)
    assert {value.dtype for name, value in vars(recording).items()} == {torch.int64, torch.bool, torch.float32}
    with torch.no_grad():
        assert torch.equal(recording.logits, model(ids).float())
    assert torch.equal(logits_by_layer(model, recording)[-1], recording.logits)
    assert torch.allclose(recording.attention.sum(-1), torch.ones(3, 1, 4, tokens))


@pytest.mark.parametrize("before", [False, True], ids=["recorded first", "run first"])
def test_a_compiled_model_is_recorded_uncompiled_and_stays_compiled(model: Qwen3Model, before: bool) -> None:
    counter = CompileCounter()
    torch._dynamo.reset()
    compiled: Qwen3Model = torch.compile(make(SMALL), backend=counter)
    with torch.no_grad():
        if before:
            compiled(prompt())
        frames = counter.frame_count
        assert bool(frames) == before
        recording = record(compiled, prompt())
        assert counter.frame_count == frames
        assert same(recording, record(model, prompt()))
        assert close(logits_by_layer(compiled, recording)[-1], compiled(prompt()))
        assert counter.frame_count > 0
    assert not has_hooks(compiled)


def test_nothing_is_left_behind(model: Qwen3Model) -> None:
    with torch.no_grad():
        expected = model(prompt())
    recording = record(model, prompt())
    assert not any(value.requires_grad for value in vars(recording).values())
    with torch.no_grad():
        assert torch.equal(model(prompt()), expected)
    assert not has_hooks(model)
    assert same(record(model, prompt()), recording)


def test_nothing_is_left_behind_by_an_error_on_the_way() -> None:
    model = make(SMALL)

    def fail(*_: object) -> None:
        raise RuntimeError("on the way")

    handle = model.model.layers[1].mlp.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="on the way"):
        record(model, prompt())
    handle.remove()
    assert not has_hooks(model)
    record(model, prompt())


@pytest.mark.parametrize(("ids", "mask", "error"), [
    (prompt()[0], None, InputError), (prompt()[:, :0], None, InputError), (prompt().float(), None, InputError),
    (prompt() + SMALL.vocab_size, None, InputError), (prompt() - SMALL.vocab_size, None, InputError),
    (prompt(), PADDED[:1], InputError), (prompt(), PADDED[:, 1:], InputError),
    (prompt(1, 129), None, ContextLengthError)])
def test_nonsense_is_refused_and_leaves_nothing_behind(model: Qwen3Model, ids: torch.Tensor,
                                                       mask: torch.Tensor | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        record(model, ids, mask)
    assert not has_hooks(model)
