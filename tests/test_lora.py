"""LoRA against peft: outputs, gradients, steps, merged weights, files; and the model's own weights never change."""

from __future__ import annotations

import copy
import errno
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_model import SMALL, close, make, make_transformers, prompt
from torch import Tensor, nn

from course_utils import KVCache, adapter_checkpoint, compilation, files
from course_utils.adapter_checkpoint import load_adapter, save_adapter
from course_utils.checkpoint import load_checkpoint, save_checkpoint
from course_utils.compilation import compile_model, compile_or_eager
from course_utils.config import Qwen3Config
from course_utils.errors import CheckpointError, CourseError, InputError
from course_utils.generation import generate_text_basic, generate_text_basic_cache
from course_utils.linear import Linear
from course_utils.lora import TARGETS, Adapters, LoRA, LoRALinear, count_trainable
from course_utils.quantization import KINDS, Int4Linear, Int8Linear, Kind, quantize
from course_utils.qwen3 import Qwen3Model
from course_utils.recording import record

PLAIN = LoRA(rank=4, alpha=6)
EVERYWHERE = LoRA(rank=3, alpha=12.5, targets=TARGETS)
SETTINGS = {"queries and values": PLAIN, "everywhere": EVERYWHERE,
            "one of the MLP": LoRA(rank=1, alpha=1, targets=("down_proj",))}
WIDE = Qwen3Config(vocab_size=256, hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                   num_key_value_heads=2, head_dim=32, max_position_embeddings=128)  # fits 4 bits
every_setting = pytest.mark.parametrize("lora", SETTINGS.values(), ids=SETTINGS)
every_format = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft and transformers talk about each other
        yield


def trained(adapters: Adapters, name: str, lora: LoRA = PLAIN, seed: int = 0) -> None:
    """Add an adapter whose B is not zero."""
    adapters.add(name, lora, seed)
    generator = torch.Generator().manual_seed(seed + 100)
    with torch.no_grad():
        for _, lora_B in adapters.matrices(name).values():
            lora_B.copy_(torch.randn(lora_B.shape, generator=generator) * 0.3)


def adapted(lora: LoRA = PLAIN, config: Qwen3Config = SMALL, dtype: torch.dtype = torch.float32) -> Adapters:
    adapters = Adapters(make(config, dtype))
    trained(adapters, "one", lora)
    return adapters


def make_peft(adapters: Adapters, lora: LoRA, dtype: torch.dtype = torch.float32) -> Any:
    """The same model and adapter in transformers and peft."""
    adapters.activate(None)
    theirs = peft.get_peft_model(make_transformers(adapters.model), peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets),  # type: ignore
        task_type="CAUSAL_LM"))
    adapters.activate("one")
    theirs.load_state_dict({f"base_model.model.{path}.{part}.default.weight": matrix
                            for path, pair in adapters.matrices("one").items()
                            for part, matrix in zip(("lora_A", "lora_B"), pair)}, strict=False)
    return theirs.eval()


def their_matrices(theirs: Any, path: str) -> tuple[Tensor, Tensor]:
    layer = theirs.get_submodule(f"base_model.model.{path}")
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight


def logits(model: nn.Module, ids: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        out = model(prompt() if ids is None else ids)
    return out if isinstance(out, Tensor) else out.logits


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.contiguous().view(torch.uint8).numpy().tobytes()
            for name, tensor in model.state_dict().items()}


# peft


@every_setting
def test_outputs_equal_those_of_peft(lora: LoRA) -> None:
    adapters = adapted(lora)
    ours = logits(adapters.model)
    assert close(ours, logits(make_peft(adapters, lora)))
    assert not close(ours, logits(make(SMALL)), 1e-2)


@every_setting
def test_gradients_and_steps_equal_those_of_peft(lora: LoRA) -> None:
    adapters = adapted(lora)
    model, theirs = adapters.model.train(), make_peft(adapters, lora).train()
    optimizers = [torch.optim.AdamW(both.parameters(), lr=1e-2) for both in (model, theirs)]
    for step in range(4):
        ids = prompt(seed=step)
        for optimizer, out in zip(optimizers, (model(ids), theirs(ids).logits)):
            optimizer.zero_grad()
            F.cross_entropy(out[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        for path, pair in adapters.matrices("one").items():
            for mine, other in zip(pair, their_matrices(theirs, path)):
                assert mine.grad is not None and other.grad is not None and mine.grad.abs().max() > 1e-6
                torch.testing.assert_close(mine.grad, other.grad, atol=1e-5, rtol=1e-4)
        for optimizer in optimizers:
            optimizer.step()
    for path, pair in adapters.matrices("one").items():
        for mine, other in zip(pair, their_matrices(theirs, path)):
            torch.testing.assert_close(mine, other, atol=2e-5, rtol=1e-4)
    assert close(logits(model.eval()), logits(theirs.eval()))


@every_format
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_a_layer_in_training_equals_that_of_peft_to_the_last_bit(dropout: float, dtype: torch.dtype) -> None:
    lora = replace(PLAIN, dropout=dropout)
    adapters = adapted(lora, dtype=dtype)
    path = next(iter(adapters.matrices("one")))
    other = make_peft(adapters, lora).get_submodule(f"base_model.model.{path}").train()
    mine = adapters.model.get_submodule(path).train()
    x = torch.randn(2, 5, SMALL.hidden_size, generator=torch.Generator().manual_seed(0)).to(dtype)
    outputs = []
    for layer in (mine, other):
        torch.manual_seed(0)
        outputs.append(layer(x))
    assert outputs[0].dtype == dtype and adapters.matrices("one")[path][0].dtype == torch.float32
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(mine(x), mine(x)) == (dropout == 0) and torch.equal(mine.eval()(x), mine(x))


@every_format
@every_setting
def test_merged_weights_equal_those_of_peft(lora: LoRA, dtype: torch.dtype) -> None:
    adapters = adapted(lora, dtype=dtype)
    theirs = make_peft(adapters, lora).merge_and_unload().state_dict()
    adapters.merge()
    ours = adapters.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(tensor.dtype == dtype and torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@every_format
@every_setting
def test_peft_reads_what_is_saved(lora: LoRA, dtype: torch.dtype, tmp_path: Path) -> None:
    adapters = adapted(lora, dtype=dtype)
    adapters.activate(None)
    theirs = make_transformers(adapters.model)
    adapters.activate("one")
    save_adapter(adapters, "one", tmp_path)
    wrapped = peft.PeftModel.from_pretrained(theirs, tmp_path).eval()
    config = wrapped.peft_config["default"]
    assert (config.r, config.lora_alpha, config.target_modules) == (lora.rank, lora.alpha, set(lora.targets))
    for path, pair in adapters.matrices("one").items():
        assert all(map(torch.equal, pair, their_matrices(wrapped, path)))
    if dtype == torch.float32:
        assert close(logits(adapters.model), logits(wrapped))


@every_setting
def test_what_peft_saves_is_read(lora: LoRA, tmp_path: Path) -> None:
    lora = replace(lora, dropout=0.25)
    source = adapted(lora)
    theirs = make_peft(source, lora)
    theirs.save_pretrained(tmp_path)
    adapters = Adapters(make(SMALL))
    load_adapter(adapters, "read", tmp_path)
    read = adapters.settings["read"]
    assert replace(read, targets=lora.targets) == lora and sorted(read.targets) == sorted(lora.targets)
    for path, pair in adapters.matrices("read").items():
        assert all(map(torch.equal, pair, their_matrices(theirs, path)))
    assert close(logits(adapters.model), logits(theirs))


@pytest.mark.parametrize("changes", [{"init_lora_weights": "gaussian"}, {"init_lora_weights": "orthogonal"},
                                     {"init_lora_weights": False}, {"task_type": None}], ids=str)
def test_plain_adapters_of_peft_that_began_otherwise_are_read(changes: dict[str, Any], tmp_path: Path) -> None:
    model = make(SMALL)
    theirs = peft.get_peft_model(make_transformers(model), peft.LoraConfig(**{
        "r": 4, "target_modules": ["q_proj", "o_proj"], "task_type": "CAUSAL_LM", **changes})).eval()
    theirs.save_pretrained(tmp_path)
    load_adapter(Adapters(model), "read", tmp_path)
    assert close(logits(model), logits(theirs))


@pytest.mark.parametrize(("changes", "message"), [
    ({"use_rslora": True}, "sets use_rslora"),
    ({"use_dora": True}, "sets use_dora"),
    ({"bias": "lora_only"}, "sets bias"),
    ({"lora_bias": True}, "sets lora_bias"),
    ({"modules_to_save": ["embed_tokens"]}, "sets modules_to_save"),
    ({"rank_pattern": {"q_proj": 2}}, "sets rank_pattern"),
    ({"alpha_pattern": {"q_proj": 2}}, "sets alpha_pattern"),
    ({"layers_to_transform": [1, 2]}, "sets layers_to_transform"),
    ({"init_lora_weights": "pissa"}, "began as 'pissa'"),
    ({"task_type": "FEATURE_EXTRACTION"}, "for the task 'FEATURE_EXTRACTION'"),
    ({"target_modules": r".*\.q_proj"}, "targets is '.*q_proj'"),
    ({"target_modules": ["q_proj", "embed_tokens"]}, "embed_tokens"),
], ids=lambda value: next(iter(value)) if isinstance(value, dict) else "")
def test_what_peft_saves_and_is_not_plain_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = make(SMALL)
    peft.get_peft_model(make_transformers(model), peft.LoraConfig(**{
        "r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **changes})).save_pretrained(tmp_path)
    refuse(model, tmp_path, message)


def test_another_kind_of_adapter_is_refused(tmp_path: Path) -> None:
    model = make(SMALL)
    peft.get_peft_model(make_transformers(model), peft.LoKrConfig(
        r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(tmp_path)
    refuse(model, tmp_path, "of the kind 'LOKR'")


def refuse(model: Qwen3Model, folder: Path, message: str) -> None:
    """Loading fails with this message, the model is as it was, and a good adapter can still be added."""
    before = bits(model)
    adapters = Adapters(model)
    with pytest.raises(CheckpointError, match=message) as error:
        load_adapter(adapters, "read", folder)
    assert "\n" not in str(error.value)
    assert bits(model) == before and adapters.settings == {} and adapters.active is None
    assert all(parameter.requires_grad for parameter in model.parameters())
    adapters.add("read", PLAIN)


# What an adapter is


@every_format
@every_setting
def test_a_fresh_adapter_changes_nothing(lora: LoRA, dtype: torch.dtype) -> None:
    model = make(SMALL, dtype)
    before, state = logits(model), torch.get_rng_state()
    adapters = Adapters(model)
    adapters.add("one", lora, seed=3)
    assert torch.equal(logits(model), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(not lora_B.any() for _, lora_B in adapters.matrices("one").values())


def test_the_seed_decides_the_beginning() -> None:
    adapters = Adapters(make(SMALL))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        adapters.add(name, EVERYWHERE, seed)
    for path, (first, _) in adapters.matrices("a").items():
        assert torch.equal(first, adapters.matrices("b")[path][0])
        assert not torch.equal(first, adapters.matrices("c")[path][0])
    assert len({lora_A.sum().item() for lora_A, _ in adapters.matrices("a").values()}) == len(adapters.matrices("a"))


def test_the_beginning_is_distributed_as_in_peft() -> None:
    """Uniform between -1 and 1 over the square root of the number of inputs."""
    adapters = Adapters(make(WIDE))
    adapters.add("one", LoRA(rank=32))
    theirs = peft.get_peft_model(make_transformers(make(WIDE)), peft.LoraConfig(r=32, target_modules=["q_proj"]))
    (mine, _), (other, _) = (adapters.matrices("one")["model.layers.0.self_attn.q_proj"],
                             their_matrices(theirs, "model.layers.0.self_attn.q_proj"))
    limit = 1 / math.sqrt(WIDE.hidden_size)
    for matrix in (mine, other):
        assert matrix.abs().max() <= limit and matrix.abs().max() > 0.99 * limit
        assert abs(float(matrix.std()) - limit / math.sqrt(3)) < 0.02 * limit


@every_setting
def test_only_the_adapter_is_trained(lora: LoRA) -> None:
    adapters = adapted(lora)
    model = adapters.model
    own = {name: tensor.clone() for name, tensor in model.state_dict().items() if ".lora_" not in name}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    F.cross_entropy(model(prompt())[:, :-1].flatten(0, 1), prompt()[:, 1:].flatten()).backward()
    optimizer.step()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {f"{path}.{part}" for path in adapters.shapes(lora) for part in ("lora_A", "lora_B")}
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in own.items())


def test_two_adapters_do_not_disturb_each_other() -> None:
    adapters = adapted(PLAIN)
    model = adapters.model
    first = logits(model)
    trained(adapters, "two", EVERYWHERE, seed=5)
    second = logits(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(prompt()).logsumexp(-1).mean().backward()
    optimizer.step()
    changed = logits(model)
    assert not close(changed, second, 1e-4) and not close(second, first, 1e-2)
    adapters.activate("one")
    assert torch.equal(logits(model), first)
    adapters.activate("two")
    assert torch.equal(logits(model), changed)
    adapters.activate(None)
    assert torch.equal(logits(model), logits(make(SMALL)))
    adapters.remove("one")
    adapters.activate("two")
    assert torch.equal(logits(model), changed)


@every_format
def test_removing_the_last_adapter_leaves_the_model_as_it_was(dtype: torch.dtype) -> None:
    model = make(SMALL, dtype)
    model.model.embed_tokens.requires_grad_(False)
    before, modules = bits(model), dict(model.named_modules())
    parameters = {name: (id(parameter), parameter.requires_grad) for name, parameter in model.named_parameters()}
    adapters = Adapters(model)
    trained(adapters, "one", EVERYWHERE)
    trained(adapters, "two", PLAIN)
    adapters.merge()
    adapters.remove("one")
    assert adapters.merged and not any(parameter.requires_grad for parameter in model.parameters())
    adapters.remove("two")
    assert bits(model) == before and dict(model.named_modules()) == modules
    assert parameters == {name: (id(parameter), parameter.requires_grad)
                          for name, parameter in model.named_parameters()}
    assert adapters.active is None and adapters.settings == {}


@every_format
@every_setting
def test_merging_computes_the_same_and_unmerging_is_exact(lora: LoRA, dtype: torch.dtype) -> None:
    adapters = adapted(lora, dtype=dtype)
    model = adapters.model
    with_adapter, before = logits(model), bits(model)
    adapters.merge()
    assert adapters.merged and bits(model).keys() == bits(make(SMALL)).keys()
    assert not any(isinstance(module, LoRALinear) for module in model.modules())
    assert close(logits(model).float(), with_adapter.float(), 1e-5 if dtype == torch.float32 else 0.1)
    assert not torch.equal(logits(model), logits(make(SMALL, dtype)))
    adapters.unmerge()
    assert not adapters.merged and bits(model) == before and torch.equal(logits(model), with_adapter)
    adapters.activate(None)
    assert bits(model) == bits(make(SMALL, dtype))


def test_merging_into_weights_of_a_file_touches_neither_the_file_nor_another_model(tmp_path: Path) -> None:
    save_checkpoint(make(SMALL), tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    model, other = load_checkpoint(tmp_path), load_checkpoint(tmp_path)
    shared = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    adapters = Adapters(model)
    trained(adapters, "one", EVERYWHERE)
    adapters.merge()
    assert (tmp_path / "model.safetensors").read_bytes() == content
    assert bits(shared) == bits(other) != bits(model)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_merged_model_is_saved_as_a_plain_one(tmp_path: Path) -> None:
    adapters = adapted(EVERYWHERE)
    adapters.merge()
    save_checkpoint(adapters.model, tmp_path)
    assert torch.equal(logits(load_checkpoint(tmp_path)), logits(adapters.model))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["add", "remove", "activate", "none", "merge", "unmerge"]), max_size=12),
       st.randoms(use_true_random=False))
def test_after_any_sequence_of_changes_the_model_computes_what_it_should(steps: list[str], random: Any) -> None:
    """Against a plain model whose weights are the sum of the original ones and the product of the active adapter."""
    config = replace(SMALL, num_hidden_layers=1)
    ids = prompt(1, 4)
    adapters = Adapters(make(config))
    for number, step in enumerate(steps):
        names = list(adapters.settings)
        try:
            if step == "add":
                trained(adapters, f"{number}", random.choice(list(SETTINGS.values())), seed=number)
            elif step == "none":
                adapters.activate(None)
            elif step in ("merge", "unmerge"):
                getattr(adapters, step)()
            elif names:
                getattr(adapters, step)(random.choice(names))
        except InputError as error:
            assert "There is nothing to" in str(error)
        expected = make(config)
        if adapters.active is not None:
            for path, (lora_A, lora_B) in adapters.matrices(adapters.active).items():
                expected.get_parameter(f"{path}.weight").data += (
                    adapters.settings[adapters.active].scaling * lora_B.detach() @ lora_A.detach())
        assert close(logits(adapters.model, ids), logits(expected, ids))
        frozen = not any(parameter.requires_grad for name, parameter in adapters.model.named_parameters()
                         if ".lora_" not in name)
        assert frozen == bool(adapters.settings)
    adapters.activate(None)
    assert bits(adapters.model) == bits(make(config))


# With everything else


def test_generating_with_a_cache_and_recording_see_the_adapter() -> None:
    adapters = adapted()
    model = adapters.model
    tokens = generate_text_basic_cache(model, prompt(), 12)
    assert torch.equal(tokens, generate_text_basic(model, prompt(), 12))
    assert not torch.equal(tokens, generate_text_basic_cache(make(SMALL), prompt(), 12))
    assert close(record(model, prompt()).logits, logits(model))
    cache = KVCache(SMALL)
    with torch.inference_mode():
        parts = [model(part, cache=cache) for part in prompt().split([7, 1, 12], dim=1)]
    assert close(torch.cat(parts, dim=1), logits(model))


def test_the_model_can_be_moved_and_put_into_training_in_any_state() -> None:
    adapters = adapted(LoRA(rank=4, dropout=0.5))
    model = adapters.model
    trained(adapters, "two")
    adapters.merge()
    model.to(torch.bfloat16).train()
    adapters.unmerge()
    assert {module.training for module in model.modules()} == {True}
    adapters.activate("one")
    assert not torch.equal(logits(model), logits(model))  # dropout
    model.eval()
    assert logits(model).dtype == torch.bfloat16 and torch.equal(logits(model), logits(model))
    adapters.remove("one")
    adapters.remove("two")
    assert bits(model) == bits(make(SMALL, torch.bfloat16))


@pytest.fixture
def cheap_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All of torch.compile but the last step, the translation to C++, which takes a minute."""
    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda fn, **options: compile_with(fn, **{**options, "backend": "eager"}))
    monkeypatch.setattr(compilation, "compile_problem", lambda device: None)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("cheap_compiler")
def test_a_compiled_model_keeps_the_adapter_and_takes_no_new_one() -> None:
    adapters = adapted(config=replace(SMALL, num_hidden_layers=2))
    ids = prompt(1, 6)
    expected, tokens = logits(adapters.model, ids), generate_text_basic_cache(adapters.model, ids, 5)
    compiled = compile_model(adapters.model)
    adapters.activate(None)
    assert close(logits(compiled, ids), expected) and not close(logits(adapters.model, ids), expected, 1e-2)
    assert torch.equal(generate_text_basic_cache(compiled, ids, 5), tokens)
    for refused in (compiled, compile_or_eager(adapters.model, "cpu"), nn.Linear(2, 2), None):
        with pytest.raises(InputError, match="not compiled"):
            Adapters(refused)  # type: ignore[arg-type]
    assert compiled.compiled and compiled.adapted and not adapters.model.compiled
    assert compile_model(compiled) is compiled
    with pytest.raises(InputError, match="compiled, and that for weights that are not quantized"):
        quantize(compiled, "int8")


@pytest.mark.usefixtures("cheap_compiler")
@pytest.mark.parametrize("compiler", [compile_model, lambda model: torch.compile(model)], ids=["by layers", "whole"])
def test_compiled_in_training_mode_it_generates_without_dropout(compiler: Callable[..., Qwen3Model]) -> None:
    adapters = adapted(LoRA(dropout=0.5), config=replace(SMALL, num_hidden_layers=1))
    ids = prompt(1, 6)
    expected = generate_text_basic_cache(adapters.model, ids, 8)
    compiled = compiler(adapters.model.train())
    for _ in range(2):
        assert torch.equal(generate_text_basic_cache(compiled, ids, 8), expected)
    assert adapters.model.training and all(layer.training for layer in adapters.model.model.layers)


@pytest.mark.usefixtures("cheap_compiler")
def test_a_model_compiled_as_a_whole_follows_the_active_adapter() -> None:
    adapters = adapted(config=replace(SMALL, num_hidden_layers=1))
    compiled = torch.compile(adapters.model)
    for change in (lambda: None, adapters.merge, adapters.unmerge, lambda: adapters.activate(None)):
        change()
        assert close(logits(compiled), logits(adapters.model))


@pytest.mark.parametrize("kind", KINDS)
@every_format
def test_a_quantized_model_takes_a_trained_adapter(kind: Kind, dtype: torch.dtype, tmp_path: Path) -> None:
    adapters = adapted(EVERYWHERE, WIDE, dtype)
    save_adapter(adapters, "one", tmp_path)
    quantized_with_it = quantize(adapters.model, kind)
    adapters.activate(None)
    on_quantized = Adapters(quantize(adapters.model, kind))
    without = logits(on_quantized.model)
    load_adapter(on_quantized, "read", tmp_path)
    model = on_quantized.model
    assert torch.equal(logits(model), logits(quantized_with_it)) and not torch.equal(logits(model), without)
    layer, x = model.get_submodule("model.layers.1.mlp.up_proj"), torch.linspace(-2, 2, 384).view(1, 3, 128).to(dtype)
    assert isinstance(layer, LoRALinear)
    expected = layer.base_layer(x).float() + x.float() @ layer.lora_A.T @ layer.lora_B.T * EVERYWHERE.scaling
    torch.testing.assert_close(layer(x).float(), expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)
    with pytest.raises(InputError, match=f"quantized to {kind}.*merge it into the original"):
        on_quantized.merge()
    on_quantized.remove("read")
    assert torch.equal(logits(model), without)


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_quantized_model_gradients_are_those_of_its_unpacked_weights(kind: Kind) -> None:
    ids = prompt(1, 7)
    gradients = []
    for unpack in (False, True):
        model = quantize(make(WIDE), kind)
        for path, module in list(model.model.layers.named_modules()):
            if unpack and isinstance(module, (Int8Linear, Int4Linear)):
                plain = Linear(WIDE.hidden_size, module.weight.shape[0])
                plain.weight = nn.Parameter(module.rows(torch.arange(module.weight.shape[0])), requires_grad=False)
                model.model.layers.set_submodule(path, plain)
        # What needs no gradient may be rounded to 8 bits on its way into a product: let all need one.
        model.model.layers[0].register_forward_pre_hook(lambda _, given: (given[0].requires_grad_(), *given[1:]))
        adapters = Adapters(model)
        trained(adapters, "one", EVERYWHERE)
        F.cross_entropy(model(ids)[0, :-1], ids[0, 1:]).backward()
        gradients.append([matrix.grad for pair in adapters.matrices("one").values() for matrix in pair])
    for ours, expected in zip(*gradients):
        assert close(ours, expected, 1e-4)


def test_the_counts_of_the_real_model() -> None:
    with torch.device("meta"):
        model = Qwen3Model(Qwen3Config())
    assert (count_trainable(model).trainable, count_trainable(model).share) == (596_049_920, 1.0)
    Adapters(model).add("one", LoRA(rank=8, targets=("q_proj", "v_proj")))
    count = count_trainable(model)
    assert (count.trainable, count.total, f"{count.share:.4%}") == (1_146_880, 597_196_800, "0.1920%")


def test_counts_follow_the_adapter_at_work() -> None:
    adapters = adapted(LoRA(rank=2, targets=("v_proj",)))
    plain = count_trainable(make(SMALL)).total
    assert count_trainable(adapters.model).trainable == 3 * 2 * (48 + 32)
    assert count_trainable(adapters.model).total == plain + 480
    adapters.merge()
    assert (count_trainable(adapters.model).trainable, count_trainable(adapters.model).total) == (0, plain)


# Refusals


@pytest.mark.parametrize(("wrong", "message"), [
    ({"rank": 0}, "rank is 0"), ({"rank": True}, "rank is True"), ({"rank": 2.0}, "rank is 2.0"),
    ({"rank": "8"}, "rank is '8'"), ({"alpha": 0}, "alpha is 0"), ({"alpha": math.nan}, "alpha is nan"),
    ({"alpha": math.inf}, "alpha is inf"), ({"alpha": "16"}, "alpha is '16'"), ({"alpha": True}, "alpha is True"),
    ({"dropout": 1.0}, "dropout is 1.0"), ({"dropout": -0.1}, "dropout is -0.1"),
    ({"dropout": None}, "dropout is None"), ({"targets": ()}, "targets is "),
    ({"targets": "q_proj"}, "targets is 'q_proj'"),
    ({"targets": ("q_proj", "lm_head")}, "lm_head"), ({"targets": ("q_proj", "q_proj")}, "once"),
    ({"targets": ([],)}, "targets is "), ({"targets": None}, "targets is None"),
], ids=str)
def test_impossible_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LoRA(**wrong)


def test_wrong_requests_are_refused_and_change_nothing() -> None:
    adapters = Adapters(make(SMALL))
    with pytest.raises(InputError, match="nothing to merge: activate"):
        adapters.merge()
    with pytest.raises(InputError, match="nothing to unmerge"):
        adapters.unmerge()
    with pytest.raises(InputError, match="no adapter 'one' on this model: those it has are none"):
        adapters.activate("one")
    trained(adapters, "one")
    before, expected = bits(adapters.model), logits(adapters.model)
    requests: dict[str, Callable[[], object]] = {
        "'one' on this model already": lambda: adapters.add("one", PLAIN),
        "name of the adapter is ''": lambda: adapters.add("", PLAIN),
        r"name of the adapter is \['two'\]": lambda: adapters.add(["two"], PLAIN),  # type: ignore
        "give a LoRA": lambda: adapters.add("two", 8),  # type: ignore
        "seed is -1": lambda: adapters.add("two", PLAIN, seed=-1),
        "no adapter 'two' on this model: those it has are 'one'": lambda: adapters.activate("two"),
        "no adapter 'three'": lambda: adapters.remove("three"),
        r"no adapter \[\]": lambda: adapters.matrices([]),  # type: ignore
        "no adapter 'four'": lambda: save_adapter(adapters, "four", "nowhere"),
        "has an adapter at work already": lambda: Adapters(adapters.model),
    }
    for message, request in requests.items():
        with pytest.raises(InputError, match=message):
            request()
    assert bits(adapters.model) == before and torch.equal(logits(adapters.model), expected)
    adapters.merge()
    with pytest.raises(InputError, match="'one' is merged already"):
        adapters.merge()
    assert adapters.merged


def test_the_model_says_whether_an_adapter_stands_in_it(tmp_path: Path) -> None:
    adapters = Adapters(make(SMALL))
    seen = [adapters.model.adapted]
    for change in (lambda: adapters.add("one", PLAIN), adapters.merge, adapters.unmerge,
                   lambda: adapters.activate(None), lambda: adapters.activate("one"), lambda: adapters.remove("one")):
        change()
        seen.append(adapters.model.adapted)
        assert seen[-1] == any(isinstance(part, LoRALinear) for part in adapters.model.modules())
        if seen[-1]:
            with pytest.raises(CheckpointError, match="adapter beside its weights"):
                save_checkpoint(adapters.model, tmp_path)
        else:
            save_checkpoint(adapters.model, tmp_path)
    assert seen == [False, True, False, True, False, True, False]


def test_two_managers_of_one_model_do_not_overwrite_each_other() -> None:
    first = adapted()
    first.activate(None)
    second = Adapters(first.model)
    trained(second, "two", seed=4)
    expected = logits(first.model)
    with pytest.raises(InputError, match="exchanged by something else"):
        first.activate("one")
    assert torch.equal(logits(first.model), expected)


# Files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good adapter, to be damaged."""
    save_adapter(adapted(), "one", tmp_path)
    return tmp_path


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_matrices(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "adapter_model.safetensors").items()}
    edit(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def test_a_file_holds_the_adapter_and_nothing_else(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    assert len(tensors) == 3 * 2 * 2 and tensors[KEY].shape == (4, 48)
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_a_loaded_adapter_can_be_trained_and_saved_over_its_own_file(folder: Path) -> None:
    content = (folder / "adapter_model.safetensors").read_bytes()
    adapters = Adapters(make(SMALL))
    load_adapter(adapters, "read", folder)
    assert torch.equal(logits(adapters.model), logits(adapted().model))
    adapters.model(prompt()).logsumexp(-1).mean().backward()
    torch.optim.SGD(adapters.model.parameters(), lr=0.1).step()
    assert (folder / "adapter_model.safetensors").read_bytes() == content
    adapters.activate(None)
    save_adapter(adapters, "read", folder)
    again = Adapters(make(SMALL))
    load_adapter(again, "again", folder)
    adapters.activate("read")
    assert torch.equal(logits(again.model), logits(adapters.model))


def test_what_becomes_of_a_file_does_not_concern_the_adapter(folder: Path) -> None:
    adapters = Adapters(make(SMALL))
    load_adapter(adapters, "read", folder)
    before = logits(adapters.model)
    path = folder / "adapter_model.safetensors"
    with path.open("r+b") as file:  # the same file, not another of its name
        file.write(bytes(path.stat().st_size))
    assert torch.equal(logits(adapters.model), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_matrices_in_half_precision_become_float32(folder: Path, dtype: torch.dtype) -> None:
    edit_matrices(folder, lambda tensors: tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()}))
    adapters = Adapters(make(SMALL))
    load_adapter(adapters, "read", folder)
    assert all(matrix.dtype == torch.float32 for pair in adapters.matrices("read").values() for matrix in pair)


class Trap:
    """What unpickling would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


def only_pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    torch.save({KEY: Trap()}, folder / "adapter_model.bin")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "There is no adapter_config.json": lambda folder: (folder / "adapter_config.json").unlink(),
    "There is no adapter_model.safetensors": lambda folder: (folder / "adapter_model.safetensors").unlink(),
    "only as pickle .adapter_model.bin.": only_pickle,
    "damaged or cut short, not JSON": lambda folder: (folder / "adapter_config.json").write_text('{"r": '),
    "JSON list instead of an object": lambda folder: (folder / "adapter_config.json").write_text("[]"),
    "damaged or cut short, not a safetensors": lambda folder: os.truncate(folder / "adapter_model.safetensors", 900),
    "is empty, not a safetensors": lambda folder: os.truncate(folder / "adapter_model.safetensors", 0),
    "lacks lora_alpha, target_modules in its": lambda folder: (folder / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 4}'),
    "of the kind None": lambda folder: edit_config(folder, peft_type=None),
    "sets something_new": lambda folder: edit_config(folder, something_new={"a": 1}),
    "rank is '4'": lambda folder: edit_config(folder, r="4"),
    "targets is 'all-linear'": lambda folder: edit_config(folder, target_modules="all-linear"),
    "targets is .*layers.0.self_attn": lambda folder: edit_config(
        folder, target_modules=["model.layers.0.self_attn.q_proj"]),
    f"lacks {KEY}": lambda folder: edit_matrices(folder, lambda tensors: tensors.pop(KEY)),
    "lacks .*k_proj.lora_A": lambda folder: edit_config(folder, target_modules=["q_proj", "k_proj", "v_proj"]),
    "holds .*v_proj.lora_A.*do not ask for": lambda folder: edit_config(folder, target_modules=["q_proj"]),
    "holds base_model.model.lm_head": lambda folder: edit_matrices(
        folder, lambda tensors: tensors.update({"base_model.model.lm_head.weight": torch.zeros(2)})),
    r"has shape \(4, 48\).*needs \(5, 48\)": lambda folder: edit_config(folder, r=5),
    r"has shape \(48, 4\).*needs \(4, 48\)": lambda folder: edit_matrices(
        folder, lambda tensors: tensors.update({KEY: torch.zeros(48, 4)})),
    "not consist of finite numbers: fetch": lambda folder: edit_matrices(
        folder, lambda tensors: tensors[KEY][0, 0].fill_(math.nan)),
    "not consist of finite numbers": lambda folder: edit_matrices(
        folder, lambda tensors: tensors.update({KEY: torch.zeros(4, 48, dtype=torch.int32)})),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_damaged_and_foreign_files_are_refused(folder: Path, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    DAMAGES[message](folder)
    refuse(make(SMALL), folder, message)
    assert not Path("unpickled").exists()


def test_an_adapter_of_another_model_is_refused(folder: Path) -> None:
    refuse(make(replace(SMALL, num_hidden_layers=4)), folder, "lacks .*layers.3.*trained on another model")
    refuse(make(replace(SMALL, num_hidden_layers=2)), folder, "holds .*layers.2.*trained on another model")
    refuse(make(replace(SMALL, hidden_size=64)), folder, "needs .*model that it was trained on")


@pytest.mark.parametrize("failing", ["matrices", "settings", "renaming"])
def test_a_failure_while_saving_leaves_the_old_adapter(folder: Path, failing: str,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if failing == "matrices":
        monkeypatch.setattr(adapter_checkpoint, "save_file", full)
    elif failing == "settings":
        monkeypatch.setattr(adapter_checkpoint, "json_writer", lambda _: full)
    else:
        monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(CheckpointError, match="No space left.*unchanged"):
        save_adapter(adapted(EVERYWHERE), "one", folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_adapter_that_is_no_longer_numbers_is_not_saved(folder: Path) -> None:
    before = (folder / "adapter_model.safetensors").read_bytes()
    adapters = adapted()
    with torch.no_grad():
        adapters.matrices("one")["model.layers.1.self_attn.v_proj"][1][0, 0] = math.nan
    with pytest.raises(CourseError, match="'one' holds NaN or infinity"):
        save_adapter(adapters, "one", folder)
    assert (folder / "adapter_model.safetensors").read_bytes() == before
