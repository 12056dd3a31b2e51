"""Wrong arguments of what loads, caches and generates: each gets a sentence, and never a raw error.

Every parameter of each function is walked, with values of every kind that people pass by mistake. One that happens to
be right, such as None for an end token, may work.
"""

from __future__ import annotations

import inspect
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_model import SMALL, make, make_transformers, prompt

import course_utils
from course_utils import Adapters, LoRA, textbook
from course_utils.errors import CourseError, InputError
from course_utils.generation import greedy
from course_utils.hub import resolve
from course_utils.kv_cache import KVCache, StaticKVCache
from course_utils.prefix_cache import PrefixCache
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import GREEDY
from course_utils.speculative import PromptLookup

WRONG: dict[str, Any] = {
    "None": None, "text": "text", "no text": "", "bytes": b"x", "NUL": "a\0b", "list": [], "list of ids": [1, 2],
    "list of lists": [[1, 2]], "tuple": (), "dict": {"a": 1}, "set": {1}, "float": 2.5, "NaN": float("nan"),
    "infinity": float("inf"), "negative": -1, "2**100": 2**100, "bool": True, "complex": 1j, "object": object(),
    "type": int, "range": range(3), "nowhere": Path("nowhere"), "np.int64": np.int64(3), "np.float32": np.float32(2),
    "1-d array": np.array([1, 2]), "2-d array": np.array([[1, 2]]), "array of text": np.array("x"),
    "0-d": torch.tensor(3), "0-d float": torch.tensor(3.0), "empty": torch.tensor([]), "1-d": torch.tensor([1, 2]),
    "no tokens": torch.zeros(1, 0, dtype=torch.long), "no rows": torch.zeros(0, 3, dtype=torch.long),
    "3-d": torch.zeros(1, 2, 3, dtype=torch.long), "float tensor": torch.tensor([[1.5, 2.0]]),
    "bool tensor": torch.tensor([[True, False]]), "uint8 tensor": torch.tensor([[1, 2]], dtype=torch.uint8),
    "complex tensor": torch.tensor([[1j]]), "negative id": torch.tensor([[-1]]),
    "without content": torch.zeros(1, 2, dtype=torch.long, device="meta"), "dtype": torch.float32, "config": SMALL,
    "device": torch.device("cpu"), "function": len, "cache": KVCache(SMALL), "class": Qwen3Model,
}

MODEL = make(SMALL)
BOOK_SIZES = {"vocab_size": 211, "context_length": 64, "emb_dim": 48, "n_heads": 4, "n_layers": 3, "hidden_dim": 80,
              "head_dim": 16, "qk_norm": True, "n_kv_groups": 2, "rope_base": 1_000_000.0, "dtype": torch.float32}
BOOK_MODEL = textbook.Qwen3Model(BOOK_SIZES)
TOKENIZER = course_utils.load_tokenizer("nano")
NANO = course_utils.load_model("nano")
HELD = [(torch.zeros(1, 2, 4, 16), torch.zeros(1, 2, 4, 16))] * 3
ADAPTERS = Adapters(make(SMALL))
FOLDER = tempfile.TemporaryDirectory()  # of an adapter
ADAPTERS.add("saved", LoRA(rank=2))
course_utils.save_adapter(ADAPTERS, "saved", FOLDER.name)

PROMPTS: dict[str, Any] = {"token_ids": prompt(1, 5), "max_new_tokens": 3, "eos_token_id": None}
GENERATION = {"model": MODEL, **PROMPTS}
OF_THE_BOOK = {"model": BOOK_MODEL, **PROMPTS}
LOADING: dict[str, Any] = {"name": "nano", "device": "cpu", "dtype": None}
TEXTS = {"model": NANO, "tokenizer": TOKENIZER, "max_new_tokens": 3, "sampling": GREEDY, "seed": 0, "stop": (),
         "eos_token_id": None}


def load_adapter(adapters: Any, name: Any, folder: Any) -> None:
    """The package's; afterwards the name is free again."""
    course_utils.load_adapter(adapters, name, folder)
    adapters.remove(name)


def add_adapter(name: Any, lora: Any, seed: Any) -> None:
    """`Adapters.add`; afterwards the name is free again."""
    ADAPTERS.add(name, lora, seed)
    ADAPTERS.remove(name)


# Each function, and what it is rightly called with.
FUNCTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "generate_text_basic": (course_utils.generate_text_basic, GENERATION),
    "generate_text_basic_cache": (course_utils.generate_text_basic_cache, GENERATION),
    "generate_text_basic_stream": (course_utils.generate_text_basic_stream, GENERATION),
    "generate_tokens": (course_utils.generate_tokens,
                        {**GENERATION, "cache": None, "attention_mask": None, "choose": greedy}),
    "generate_trace": (course_utils.generate_trace, {**GENERATION, "top": 3, "sampler": None}),
    "generate_with_stats": (course_utils.generate_with_stats, {**GENERATION, "cache": None}),
    "generate_speculative": (course_utils.generate_speculative, {
        **GENERATION, "draft": PromptLookup(), "num_drafted": 2, "sampling": GREEDY, "seed": 0, "cache": None,
        "speculation": None, "vocab_size": None}),
    "generate_with_prefix": (course_utils.generate_with_prefix, {
        **GENERATION, "prefixes": PrefixCache(SMALL), "choose": greedy}),
    "generate": (course_utils.generate, {**TEXTS, "prompts": "The"}),
    "stream": (course_utils.stream, {**TEXTS, "prompt": "The"}),
    "load_model": (course_utils.load_model, LOADING),
    "load_tokenizer": (course_utils.load_tokenizer, {"name": "nano"}),
    "load_sampling": (course_utils.load_sampling, {"name": "nano"}),
    "load_checkpoint": (course_utils.load_checkpoint, {
        "folder": resolve("nano"), "device": None, "dtype": None}),
    "random_model": (course_utils.random_model, {
        "name_or_config": SMALL, "dtype": torch.float32, "device": None, "seed": 0}),
    "get_device": (course_utils.get_device, {"preference": None}),
    "KVCache": (KVCache, {"config": SMALL}),
    "KVCache.holding": (KVCache.holding, {"config": SMALL, "held": HELD}),
    "KVCache.truncate": (lambda length: KVCache(SMALL).truncate(length), {"length": 0}),
    "StaticKVCache": (StaticKVCache, {
        "config": SMALL, "max_length": 8, "batch_size": 1, "device": None, "dtype": None}),
    "PrefixCache": (PrefixCache, {"config": SMALL, "max_tokens": None, "max_bytes": None}),
    "PrefixCache.match": (lambda token_ids, at_most: PrefixCache(SMALL).match(token_ids, at_most),
                          {"token_ids": [1, 2], "at_most": None}),
    "PrefixCache.insert": (lambda token_ids, cache: PrefixCache(SMALL).insert(token_ids, cache),
                           {"token_ids": [1, 2, 3, 4], "cache": KVCache.holding(SMALL, HELD)}),
    "Qwen3Model": (Qwen3Model, {"config": SMALL}),
    "LoRA": (LoRA, {"rank": 2, "alpha": 4, "dropout": 0.0, "targets": ("q_proj",)}),
    "Adapters": (Adapters, {"model": make(SMALL)}),
    "Adapters.add": (add_adapter, {"name": "new", "lora": LoRA(rank=2), "seed": 0}),
    "Adapters.activate": (ADAPTERS.activate, {"name": "saved"}),
    "Adapters.matrices": (ADAPTERS.matrices, {"name": "saved"}),
    "load_adapter": (load_adapter, {"adapters": ADAPTERS, "name": "new", "folder": FOLDER.name}),
    "save_adapter": (course_utils.save_adapter, {"adapters": ADAPTERS, "name": "saved", "folder": "adapter"}),
    "save_checkpoint": (course_utils.save_checkpoint, {
        "model": make(SMALL), "folder": "model", "generation_config": {"eos_token_id": 0}}),
    "ContinuousBatch": (course_utils.ContinuousBatch, {"model": MODEL, "max_batch_size": 2}),
    "ContinuousBatch.submit": (course_utils.ContinuousBatch(MODEL).submit, {**PROMPTS, "choose": greedy}),
    "ModelDraft": (course_utils.ModelDraft, {"model": MODEL}),
    "textbook.generate_text_basic": (textbook.generate_text_basic, OF_THE_BOOK),
    "textbook.generate_text_basic_cache": (textbook.generate_text_basic_cache, OF_THE_BOOK),
    "textbook.generate_text_basic_stream": (textbook.generate_text_basic_stream, OF_THE_BOOK),
    "textbook.generate_text_basic_stream_cache": (textbook.generate_text_basic_stream_cache, OF_THE_BOOK),
    "textbook.generate_stats": (textbook.generate_stats, {
        "output_token_ids": prompt(1, 5), "tokenizer": None, "start_time": 1.0, "end_time": 2.0}),
    "textbook.get_device": (textbook.get_device, {"enable_tensor_cores": False}),
    "textbook.KVCache": (textbook.KVCache, {"n_layers": 3}),
    "textbook.KVCache.get": (lambda layer_idx: textbook.KVCache(3).get(layer_idx), {"layer_idx": 0}),
    "textbook.KVCache.update": (lambda layer_idx, value: textbook.KVCache(3).update(layer_idx, value),
                                {"layer_idx": 0, "value": HELD[0]}),
    "textbook.Qwen3Model": (textbook.Qwen3Model, {"cfg": BOOK_SIZES}),
    **{f"textbook.Qwen3Model with {name}": (lambda **size: textbook.Qwen3Model({**BOOK_SIZES, **size}), {name: value})
       for name, value in BOOK_SIZES.items()},
}
# What is right in kind, and fails for want of memory, or because a function of the caller's own fails.
ELSEWHERE = {("batch_size", "2**100"), ("choose", "type")}


def call(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call it, and take some of what it gives if it gives it one by one."""
    returned = function(**arguments)
    return list(itertools.islice(returned, 4)) if isinstance(returned, Iterator) else returned


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_of_the_wrong_kind_gets_a_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some of it names a folder, which is then written
    function, right = FUNCTIONS[name]
    call(function, right)
    for parameter, (what, value) in itertools.product(right, WRONG.items()):
        if (parameter, what) in ELSEWHERE:
            continue
        try:
            call(function, {**right, parameter: value})
        except CourseError as error:
            assert str(error).endswith("."), (parameter, what)
        except Exception as error:
            raise AssertionError(f"{parameter}={value!r} ({what}) ends in a raw {type(error).__name__}") from error


def test_every_such_function_and_parameter_is_walked() -> None:
    ours = {name for name in course_utils.__all__ if name.startswith(("generate", "load_", "save_")) or "Cache" in name}
    assert ours <= set(FUNCTIONS)
    book = {f"textbook.{name}" for name in textbook.__all__ if name.startswith("generate")}
    assert book <= set(FUNCTIONS)
    for name, (function, right) in FUNCTIONS.items():
        if " with " not in name:
            assert set(inspect.signature(function).parameters) == set(right), name


def test_a_model_of_another_package_is_refused_by_name() -> None:
    theirs = make_transformers(MODEL)
    with pytest.raises(InputError, match="model is a Qwen3ForCausalLM: give a Qwen3Model, such as load_model"):
        course_utils.generate_tokens(theirs, **PROMPTS)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="The model returned a .*CausalLMOutputWithPast: let it return logits"):
        textbook.generate_text_basic(theirs, **PROMPTS)


def test_what_is_on_another_device_is_refused_with_what_moves_it() -> None:
    ids, mask = prompt(1, 5), torch.ones(1, 5)
    for arguments, name in (((ids.to("meta"),), "token_ids"), ((ids, None, mask.to("meta")), "attention_mask")):
        with pytest.raises(InputError, match=f"{name} is on meta and the model on cpu: .*{name}.to.model.device"):
            MODEL(*arguments)


@pytest.mark.parametrize("device", ["cuda:99", "tpu", torch.device("cuda:99")])
def test_a_device_that_is_not_here_is_refused_before_anything_is_loaded(device: Any) -> None:
    for load in (lambda: course_utils.load_model("no such model", device=device),
                 lambda: course_utils.random_model(SMALL, device=device),
                 lambda: StaticKVCache(SMALL, 8, device=device)):
        with pytest.raises(InputError, match=f"The device is '{device}', which this machine does not have. Choose"):
            load()


@pytest.mark.parametrize("returned", [None, 3, torch.tensor([3]), torch.zeros(2, 1, dtype=torch.long)], ids=str)
def test_what_chooses_and_drafts_is_told_what_to_return(returned: Any) -> None:
    with pytest.raises(InputError, match="choose gave .* for 1 texts: let it return token ids of shape"):
        list(course_utils.generate_tokens(MODEL, prompt(1, 5), 3, choose=lambda _: returned))

    class Draft:
        def propose(self, *_: object) -> Any:
            return returned

    with pytest.raises(InputError, match="The draft proposed .*: let `propose` return token ids of shape"):
        list(course_utils.generate_speculative(MODEL, prompt(1, 5), 3, Draft()))


def test_a_number_of_numpy_is_a_time_and_a_number_of_layers(capsys: pytest.CaptureFixture[str]) -> None:
    textbook.generate_stats(prompt(1, 5), None, np.float32(1), np.float32(2))
    assert "Time: 1.00 sec" in capsys.readouterr().out
    assert len(textbook.KVCache(n_layers=np.int64(3)).layers) == 3
