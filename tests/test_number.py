"""What counts as a number, whoever gives it."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import course_utils
from course_utils.batching import ContinuousBatch, pad_left
from course_utils.config import Qwen3Config
from course_utils.conversation import Conversation
from course_utils.distributed.launch import torchrun
from course_utils.distributed.tensor_parallel import local_config
from course_utils.errors import InputError
from course_utils.generation import end_tokens, generate_tokens, generate_trace
from course_utils.kv_cache import KVCache, StaticKVCache
from course_utils.lora import LoRA
from course_utils.number import finite_number, require_whole_number, whole_number
from course_utils.planner import L4, Gpu, plan
from course_utils.prefix_cache import PrefixCache
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import Sampling, random_generator
from course_utils.sinusoidal import sinusoidal_encoding
from course_utils.speculative import PromptLookup, generate_speculative
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.training.dataset import pack
from course_utils.training.loop import TrainingPlan

SMALL = Qwen3Config(vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                    num_key_value_heads=2, head_dim=4, max_position_embeddings=32)
IDS = torch.tensor([[1, 2, 3]])

NO_NUMBERS = [True, np.True_, torch.tensor(True), "3", b"3", np.str_("3"), None, [3], {}, 3j, np.array([3]),
              torch.tensor([3]), torch.tensor(3, device="meta"), object()]


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3),
                                   torch.tensor(3, dtype=torch.uint8)], ids=repr)
def test_whole_numbers_of_every_kind(value: Any) -> None:
    assert type(whole_number(value)) is int and whole_number(value) == 3
    assert type(finite_number(value)) is float and finite_number(value) == 3.0


@pytest.mark.parametrize("value", [0.5, np.float64(0.5), np.float32(0.5), np.array(0.5), torch.tensor(0.5)], ids=repr)
def test_floats_of_every_kind(value: Any) -> None:
    assert type(finite_number(value)) is float and finite_number(value) == 0.5
    assert whole_number(value) is None


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: repr(value).partition(" at 0x")[0])
def test_what_is_no_number(value: Any) -> None:
    assert whole_number(value) is None and finite_number(value) is None


@pytest.mark.parametrize("value", [float("inf"), float("nan"), np.float32("inf"), torch.tensor(float("nan"))], ids=repr)
def test_what_is_not_finite(value: Any) -> None:
    assert finite_number(value) is None and whole_number(value) is None


def test_large_numbers() -> None:
    assert whole_number(10**400) == 10**400 and finite_number(10**400) is None  # too large for a float
    assert whole_number(2.0) is None


def test_an_argument_is_within_its_bounds_or_named() -> None:
    assert type(require_whole_number("n", np.int64(3), 1, 3)) is int
    for value in (0, 4, 2.0, True, "2", None, [2]):
        with pytest.raises(InputError, match="n is .*: give a whole number from 1 to 3"):
            require_whole_number("n", value, 1, 3)
    with pytest.raises(InputError, match="from 0 on"):
        require_whole_number("n", -1)


@pytest.fixture(scope="module")
def model() -> Qwen3Model:
    torch.manual_seed(0)
    return Qwen3Model(SMALL).eval()


def _cut(length: Any) -> int:
    cache = KVCache(SMALL)
    cache.length = 3
    cache.truncate(length)
    return cache.length


Use = Callable[[Any, Qwen3Model, Qwen3Tokenizer], object]
# Where the package takes a number from a caller, and something that shows the effect of a 2.
USES: dict[str, Use] = {
    "max_new_tokens": lambda n, model, _: torch.cat(list(generate_tokens(model, IDS, n)), dim=1).tolist(),
    "top": lambda n, model, _: generate_trace(model, IDS, 2, top=n),
    "num_drafted": lambda n, model, _: torch.cat(
        list(generate_speculative(model, IDS, 4, PromptLookup(), num_drafted=n)), dim=1).tolist(),
    "longest": lambda n, *_: PromptLookup(n).longest,
    "an end token": lambda n, *_: end_tokens(n),
    "end tokens": lambda n, *_: end_tokens([n]),
    "a token": lambda n, *_: pad_left([[n, n], [n]])[0].tolist(),
    "a token to write": lambda n, _, tokenizer: tokenizer.decode([n]),
    "a token of a prompt": lambda n, model, tokenizer: course_utils.generate(model, tokenizer, [n, n], 2),
    "max_batch_size": lambda n, model, _: ContinuousBatch(model, n).max_batch_size,
    "a cut": lambda n, *_: _cut(n),
    "max_length": lambda n, *_: StaticKVCache(SMALL, n).num_bytes,
    "batch_size": lambda n, *_: StaticKVCache(SMALL, 3, n).num_bytes,
    "max_tokens": lambda n, *_: PrefixCache(SMALL, max_tokens=n).max_tokens,
    "max_bytes": lambda n, *_: PrefixCache(SMALL, max_bytes=n).max_bytes,
    "at_most": lambda n, *_: PrefixCache(SMALL).match([1, 2, 3], n).cache.length,
    "a cached token": lambda n, *_: PrefixCache(SMALL).match([n, n]).cache.length,
    "max_new_tokens of a turn": lambda n, model, tokenizer: Conversation(model, tokenizer,
                                                                         max_new_tokens=n).max_new_tokens,
    "top_k": lambda n, *_: Sampling(top_k=n),
    "temperature": lambda n, *_: Sampling(temperature=n),
    "repetition_penalty": lambda n, *_: Sampling(repetition_penalty=n),
    "a seed": lambda n, *_: random_generator(n).initial_seed(),
    "rank": lambda n, *_: LoRA(rank=n),
    "alpha": lambda n, *_: LoRA(alpha=n),
    "users": lambda n, *_: plan(SMALL, L4, context=9, users=n),
    "context": lambda n, *_: plan(SMALL, L4, context=n),
    "a GPU": lambda n, *_: Gpu("some", n, n, n),
    "processes": lambda n, *_: local_config(SMALL, n),
    "steps": lambda n, *_: TrainingPlan(n, 4, (2,), decay_steps=n, warm_up_steps=n, micro_batches=n, seed=n),
    "a block length": lambda n, *_: TrainingPlan(1, 4, (n,)),
    "a learning rate": lambda n, *_: TrainingPlan(1, 4, (2,), learning_rate=n, weight_decay=n, gradient_clip=n),
    "block_length": lambda n, *_: [block.tolist() for block in pack([[1, 2, 3]], n, 0)],
    "positions": lambda n, *_: sinusoidal_encoding(n, n).tolist(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_numbers_of_every_kind_are_numbers_everywhere(use: Use, model: Qwen3Model,
                                                      small_tokenizer: Qwen3Tokenizer) -> None:
    expected = use(2, model, small_tokenizer)
    for number in (np.int64(2), np.array(2), torch.tensor(2)):
        found = use(number, model, small_tokenizer)
        assert found == expected and repr(found) == repr(expected)  # Python's own number is what is kept


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("value", [True, torch.tensor(True), "2", torch.tensor([[2, 2]])], ids=repr)
def test_what_is_no_number_is_none_anywhere(value: Any, use: Use, model: Qwen3Model,
                                            small_tokenizer: Qwen3Tokenizer) -> None:
    with pytest.raises(InputError):
        use(value, model, small_tokenizer)


def test_processes_are_counted_before_any_is_started() -> None:
    with pytest.raises(InputError, match="number of processes is True"):
        torchrun(["nothing"], processes=True)


# What JSON may hold, what a control shows, what a learner answers: nothing is computed with these numbers.
ELSEWHERE = ("number.py", "chat.py", "widgets/panel.py", "corpus/", "exercises/chapters/", "exercises/record.py")


def test_no_other_module_decides_what_a_whole_number_is() -> None:
    package = Path(course_utils.__file__).parent
    found = []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if not name.startswith(ELSEWHERE):
            found += [f"{name}:{node.lineno}" for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                      if _asks_for_int(node)]
    assert found == []


def _asks_for_int(node: ast.AST) -> bool:
    """Whether this is `isinstance(x, int)` or `type(x) is int`, or the same of `Integral` or in a tuple."""
    def is_int(kind: ast.AST) -> bool:
        return any(isinstance(part, ast.Name) and part.id in ("int", "Integral") for part in ast.walk(kind))

    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
        return is_int(node.args[1])
    return (isinstance(node, ast.Compare) and isinstance(node.left, ast.Call) and isinstance(node.left.func, ast.Name)
            and node.left.func.id == "type" and is_int(node.comparators[0]))
