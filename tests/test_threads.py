"""Threads: small models compute with one, and the process finds its number again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from course_utils import KVCache, Qwen3Model, compile_model, environment
from course_utils.config import Qwen3Config
from course_utils.errors import InputError
from course_utils.threads import FEW_TOKENS, SMALL_LAYER, THREADS_VARIABLE, computing_with, thread_count

SMALL = Qwen3Config(vocab_size=96, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, head_dim=16, max_position_embeddings=4096)
LARGE = Qwen3Config(**{**SMALL.__dict__, "intermediate_size": 8192})
IDS = torch.zeros(1, 1, dtype=torch.long)


@pytest.fixture(autouse=True)
def three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(THREADS_VARIABLE, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def threads_within(model: Qwen3Model, token_ids: torch.Tensor = IDS) -> int:
    """With how many threads a model computes its norm."""
    seen: list[int] = []
    handle = model.model.norm.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    model(token_ids)
    handle.remove()
    assert torch.get_num_threads() == 3
    return seen[0]


def test_small_models_compute_with_one_thread_and_large_ones_with_all() -> None:
    with torch.inference_mode():
        assert threads_within(Qwen3Model(SMALL)) == 1
        assert threads_within(Qwen3Model(LARGE)) == 3
        assert threads_within(Qwen3Model(LARGE).bfloat16()) == 1  # half as large


def test_the_limits() -> None:
    assert [thread_count(size) for size in (1, SMALL_LAYER, SMALL_LAYER + 1)] == [1, 1, 3]
    assert [thread_count(1, tokens) for tokens in (1, FEW_TOKENS, FEW_TOKENS + 1)] == [1, 1, 3]


def test_long_batches_are_shared() -> None:
    with torch.inference_mode():
        assert threads_within(Qwen3Model(SMALL), torch.zeros(2, FEW_TOKENS // 2 + 1, dtype=torch.long)) == 3


def test_what_is_compiled_always_has_the_same_number() -> None:
    model = Qwen3Model(SMALL).eval()
    model.compiled = True
    with torch.inference_mode():
        assert threads_within(model, torch.zeros(2, FEW_TOKENS // 2 + 1, dtype=torch.long)) == 1


def test_training_has_all() -> None:
    assert threads_within(Qwen3Model(SMALL)) == 3


def test_a_variable_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, "2")
    with torch.inference_mode():
        assert threads_within(Qwen3Model(SMALL)) == threads_within(Qwen3Model(LARGE)) == 2
    row = environment._threads()
    assert row.status == "OK" and row.value.startswith("2 ")


@pytest.mark.parametrize("value", ["two", "0", "-1", "1.5", "99999"])
def test_a_variable_that_is_no_number_of_threads(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, value)
    with pytest.raises(InputError, match=f"{THREADS_VARIABLE} is .*{value}.*: give"):
        thread_count(1)
    assert environment._threads().status == "problem"


def test_the_report_explains_it() -> None:
    row = environment._threads()
    assert row.status == "OK" and row.value.startswith("3 for large models, 1 for small ones")
    assert THREADS_VARIABLE in row.value


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_number_is_as_before_after_an_error(error: type[BaseException]) -> None:
    with pytest.raises(error), computing_with(1):
        assert torch.get_num_threads() == 1
        raise error
    assert torch.get_num_threads() == 3


@pytest.mark.slow
def test_compiled_code_is_not_compiled_again_for_a_long_prompt() -> None:
    model = compile_model(Qwen3Model(SMALL).eval())
    if not model.compiled:
        pytest.skip("torch.compile does not work here")
    with torch.inference_mode():
        for length in (5, 7, FEW_TOKENS + 9):
            model(torch.zeros(1, length, dtype=torch.long), cache=KVCache(SMALL))
        with torch.compiler.set_stance("fail_on_recompile"):
            model(torch.zeros(1, 11, dtype=torch.long), cache=KVCache(SMALL))
