"""A folder means the same model to `transformers` and to this package, or this package refuses it in a sentence."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from course_utils.checkpoint import load_checkpoint
from course_utils.config import Qwen3Config
from course_utils.errors import CheckpointError
from course_utils.qwen3 import Qwen3Model

EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    yield
    logging.set_verbosity(level)
    logging.enable_progress_bar()


@dataclass
class Checkpoint:
    """The content of a folder, to be changed before it is written."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    shards: int = 1

    def write(self, folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(self.config))
        if self.shards == 1:
            save_file(self.weights, folder / "model.safetensors", metadata={"format": "pt"})
            return
        place = {name: f"model-{number % self.shards}.safetensors" for number, name in enumerate(self.weights)}
        for file in set(place.values()):
            save_file({name: tensor for name, tensor in self.weights.items() if place[name] == file}, folder / file,
                      metadata={"format": "pt"})
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))


def make_checkpoint(sizes: dict[str, int], dtype: torch.dtype, seed: int) -> Checkpoint:
    """A tied model with weights so large that a wrong angle, head or norm cannot go unnoticed."""
    config = Qwen3Config(**{**sizes, "max_position_embeddings": 64, "rope_theta": 50.0})  # type: ignore[arg-type]
    torch.manual_seed(seed)
    weights = {name: (1 + 0.5 * torch.randn(tensor.shape) if tensor.dim() == 1 else 0.4 * torch.randn(tensor.shape))
               for name, tensor in Qwen3Model(config).state_dict().items() if name != HEAD}
    return Checkpoint({**config.to_dict(), "dtype": str(dtype).removeprefix("torch.")},
                      {name: tensor.to(dtype) for name, tensor in weights.items()})


Change = Callable[[Checkpoint], object]


def says(**settings: Any) -> Change:
    return lambda checkpoint: checkpoint.config.update(settings)


def rotates(keep: bool = False, **settings: Any) -> Change:
    """Say how angles are made, in these words, with or without the top-level `rope_theta`."""
    def change(checkpoint: Checkpoint) -> None:
        if not keep:
            checkpoint.config.pop("rope_theta", None)
        checkpoint.config.update(settings)
    return change


def stores_head(same: bool, **settings: Any) -> Change:
    def change(checkpoint: Checkpoint) -> None:
        checkpoint.weights[HEAD] = checkpoint.weights[EMBEDDING].clone() if same else checkpoint.weights[EMBEDDING] / 3
        checkpoint.config.update(settings)
        checkpoint.config = {key: value for key, value in checkpoint.config.items() if value is not None}
    return change


def stores_norms(dtype: torch.dtype, only: str = "norm") -> Change:
    def change(checkpoint: Checkpoint) -> None:
        for name, tensor in checkpoint.weights.items():
            if only in name:
                checkpoint.weights[name] = tensor.to(dtype)
    return change


def names_dtype(key: str | None, value: Any = None, also: Change | None = None) -> Change:
    """Name the number format under another key or not at all."""
    def change(checkpoint: Checkpoint) -> None:
        dtype = checkpoint.config.pop("dtype", None)
        if key is not None:
            checkpoint.config[key] = value or dtype
        if also is not None:
            also(checkpoint)
    return change


def nothing(checkpoint: Checkpoint) -> None:
    pass


DEFAULT, YARN = {"rope_type": "default"}, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}

# What must be read, by what it is about: one of each is combined with the others.
READ: dict[str, dict[str, Change]] = {
    "head": {
        "tied": nothing,
        "tied, stored twice": stores_head(True),
        "tied, another stored": stores_head(False),
        "tied, another stored in another format": lambda checkpoint: checkpoint.weights.update(
            {HEAD: checkpoint.weights[EMBEDDING].float() * 1.01}),
        "untied": stores_head(False, tie_word_embeddings=False),
        "nothing said, stored": stores_head(False, tie_word_embeddings=None),
    },
    "rotation": {
        "plain": nothing,
        "newer": rotates(rope_parameters={**DEFAULT, "rope_theta": 20.0}),
        "newer goes before the top": rotates(keep=True, rope_parameters={**DEFAULT, "rope_theta": 20.0}),
        "newer without a base": rotates(keep=True, rope_parameters=DEFAULT),
        "newer, a whole number": rotates(rope_parameters={"rope_theta": 20}),
        "older": rotates(rope_scaling={"type": "default", "rope_theta": 20.0}, rope_parameters=None),
        "older goes before newer": rotates(rope_scaling={**DEFAULT, "rope_theta": 20.0},
                                           rope_parameters={**DEFAULT, "rope_theta": 9.0}),
        "older hides the base of newer": rotates(keep=True, rope_scaling=DEFAULT,
                                                 rope_parameters={**DEFAULT, "rope_theta": 9.0}),
        "both empty": rotates(keep=True, rope_scaling={}, rope_parameters={}),
        "both null": rotates(keep=True, rope_scaling=None, rope_parameters=None),
    },
    "format": {
        "named": nothing,
        "older name": names_dtype("torch_dtype"),
        "not named": names_dtype(None),
        "older name too": says(torch_dtype="float16"),
        "another": says(dtype="float16"),
        "norms in float32": stores_norms(torch.float32),
        "norms in float16": stores_norms(torch.float16),
        "one norm in float16": stores_norms(torch.float16, NORM),
        "matrices in bfloat16": stores_norms(torch.bfloat16, "proj"),
    },
    "layers": {
        "plain": nothing,
        "all full": lambda checkpoint: checkpoint.config.update(
            layer_types=["full_attention"] * checkpoint.config["num_hidden_layers"]),
        "null": says(layer_types=None),
        "a window that is not used": says(sliding_window=2, max_window_layers=0, use_sliding_window=False),
    },
    "files": {"one": nothing, "three": lambda checkpoint: setattr(checkpoint, "shards", 3)},
}

# What may be refused, and how. If it is not, it must be read as transformers reads it.
REFUSED: dict[str, tuple[Change, str]] = {
    "nothing said, no head": (lambda checkpoint: checkpoint.config.pop("tie_word_embeddings", None),
                              "lack lm_head.weight.*add \"tie_word_embeddings\": true"),
    "tied null": (says(tie_word_embeddings=None), "tie_word_embeddings is None"),
    "tied 1": (says(tie_word_embeddings=1), "tie_word_embeddings is 1"),
    "tied, head of another shape": (lambda checkpoint: checkpoint.weights.update({HEAD: torch.ones(1, 1)}),
                                    "lm_head.weight has shape"),
    "head without embedding": (lambda checkpoint: checkpoint.weights.update({HEAD: checkpoint.weights.pop(EMBEDDING)}),
                               "lack model.embed_tokens.weight"),
    "yarn": (says(rope_scaling=YARN), "rope_scaling.*without rope scaling"),
    "yarn, newer": (says(rope_parameters=YARN), "rope_parameters.*without rope scaling"),
    "yarn, older word": (says(rope_scaling={"type": "yarn", "factor": 4.0}), "without rope scaling"),
    "yarn beside default": (says(rope_parameters={**DEFAULT, "rope_theta": 50.0}, rope_scaling=YARN), "rope_scaling"),
    "default beside yarn": (says(rope_scaling=DEFAULT, rope_parameters=YARN), "rope_parameters"),
    "linear": (says(rope_scaling={"rope_type": "linear", "factor": 2.0}), "without rope scaling"),
    "dynamic": (says(rope_scaling={"rope_type": "dynamic", "factor": 2.0}), "without rope scaling"),
    "no type of rotation": (says(rope_scaling={"rope_type": None}), "without rope scaling"),
    "per layer": (says(rope_parameters={"full_attention": YARN}), "without rope scaling"),
    "per layer, default": (says(rope_parameters={"full_attention": {**DEFAULT, "rope_theta": 20.0}}), "rope scaling"),
    "per layer, none": (says(rope_parameters={"full_attention": None}), "without rope scaling"),
    "rotation a list": (says(rope_parameters=[YARN]), "rope_parameters is .*: it must be an object"),
    "rotation a text": (says(rope_scaling="yarn"), "rope_scaling is 'yarn'.*: it must be an object"),
    "rotation false": (says(rope_parameters=False), "rope_parameters is False.*: it must be an object"),
    "no base": (rotates(), "lacks rope_theta"),
    "base of both null": (rotates(rope_parameters={"rope_theta": None}), "rope_theta is None"),
    "base a text": (says(rope_theta="50"), "rope_theta is '50'"),
    "sliding layers": (says(layer_types=["sliding_attention"], num_hidden_layers=1), "layer_types"),
    "types for fewer layers": (says(layer_types=[]), "layer_types"),
    "types a text": (says(layer_types="full_attention"), "layer_types"),
    "window": (says(use_sliding_window=True, sliding_window=2, max_window_layers=0), "use_sliding_window"),
    "bias": (says(attention_bias=True), "attention_bias"),
    "bias null": (says(attention_bias=None), "attention_bias"),
    "experts": (says(num_experts=4, num_experts_per_tok=2), "num_experts, num_experts_per_tok, which no dense Qwen3"),
    "layers of their own": (says(per_layer_config={"0": {"head_dim": 2}}), "per_layer_config"),
    "another activation": (says(hidden_act="gelu"), "hidden_act"),
    "formats mixed, none named": (names_dtype(None, also=stores_norms(torch.float32)), "2 number formats"),
    "computed in float64": (says(dtype="float64"), "dtype is 'float64' in config.json"),
    "computed in a number": (names_dtype("torch_dtype", 7), "torch_dtype is 7"),
    "stored in float64": (stores_norms(torch.float64, NORM), "model.norm.weight is stored as torch.float64"),
    "odd heads": (says(head_dim=5), "head_dim is 5"),
    "one tensor less": (lambda checkpoint: checkpoint.weights.pop(NORM), "lack model.norm.weight"),
    "one tensor more": (lambda checkpoint: checkpoint.weights.update(extra=torch.ones(1)), "hold extra"),
}

SIZES = {"vocab_size": 24, "hidden_size": 12, "intermediate_size": 10, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
JUNK = [1009.0, 2.5, True, False, "8", None, [], {}, float("inf"), float("nan"), -1, 0, 10**18, [8], 3]


def compare(checkpoint: Checkpoint, refused: str | None = None) -> None:
    """Load in both. Both compute the same, or ours says `refused`; "" is whatever it says, None that it must not."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.write(Path(folder))
        try:
            ours = load_checkpoint(folder)
        except CheckpointError as error:
            assert refused is not None, f"refused: {error}"
            assert "\n" not in str(error)
            return
        theirs = AutoModelForCausalLM.from_pretrained(folder)  # if it refuses, so should we have done
        ids = torch.arange(14)[None] % ours.config.vocab_size
        assert ours.dtype == theirs.dtype == ours.lm_head.weight.dtype
        with torch.no_grad():
            ours(ids)  # in its own format: no two that do not go together
            # Both round in another order, so what they hold is compared where rounding is small.
            torch.testing.assert_close(ours.float()(ids), theirs.float()(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("about", "how"), [(about, how) for about, ways in READ.items() for how in ways])
def test_each_is_read_alike(about: str, how: str) -> None:
    checkpoint = make_checkpoint(SIZES, torch.bfloat16, seed=1)
    READ[about][how](checkpoint)
    compare(checkpoint)


@pytest.mark.parametrize("how", REFUSED)
def test_each_is_refused_in_a_sentence(how: str, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(SIZES, torch.bfloat16, seed=1)
    change, message = REFUSED[how]
    change(checkpoint)
    checkpoint.write(tmp_path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


@st.composite
def checkpoints(draw: st.DrawFn) -> tuple[Checkpoint, bool]:
    """A random checkpoint, and whether it must be read."""
    heads = draw(st.integers(1, 2))
    sizes = {"vocab_size": draw(st.integers(1, 30)), "hidden_size": draw(st.integers(1, 20)),
             "intermediate_size": draw(st.integers(1, 20)), "num_hidden_layers": draw(st.integers(1, 3)),
             "num_key_value_heads": heads, "num_attention_heads": heads * draw(st.integers(1, 3)),
             "head_dim": 2 * draw(st.integers(1, 4))}
    checkpoint = make_checkpoint(sizes, draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16])),
                                 draw(st.integers(0, 99)))
    for ways in READ.values():
        draw(st.sampled_from(list(ways.values())))(checkpoint)
    if draw(st.booleans()):
        named = checkpoint.config.keys() & {"dtype", "torch_dtype"}
        return checkpoint, bool(named) or len({tensor.dtype for tensor in checkpoint.weights.values()}) == 1
    if draw(st.booleans()):
        draw(st.sampled_from([change for change, _ in REFUSED.values()]))(checkpoint)
    else:
        name = draw(st.sampled_from([*sizes, "rms_norm_eps", "rope_theta", "tie_word_embeddings"]))
        checkpoint.config[name] = draw(st.sampled_from(JUNK))
    return checkpoint, False


@settings(max_examples=300, deadline=None)
@given(checkpoints())
def test_random_checkpoints_are_read_alike_or_refused(drawn: tuple[Checkpoint, bool]) -> None:
    checkpoint, readable = drawn
    compare(checkpoint, refused=None if readable else "")
