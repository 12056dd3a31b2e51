"""Whether torch.compile works, and the way back where it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from course_utils import KVCache, StaticKVCache, generate_tokens
from course_utils.compilation import compile_or_eager, compile_problem
from course_utils.config import Qwen3Config
from course_utils.kv_cache import Cache
from course_utils.qwen3 import Qwen3Model

SMALL = Qwen3Config(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=64)


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    compile_problem.cache_clear()
    torch.compiler.reset()
    yield
    compile_problem.cache_clear()
    torch.compiler.reset()


def uncompilable(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(torch, "compile", fail)


@pytest.mark.parametrize(("error", "reason"), [
    (RuntimeError("Compiler: cl is not found.\nlong\ntrace"), "(Compiler: cl is not found)"),
    (RuntimeError("\n  No C++ compiler:\n"), "(No C++ compiler)"),
    (NotImplementedError(), "(NotImplementedError)")])
def test_a_failure_is_one_sentence_and_the_model_stays(
        monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str) -> None:
    uncompilable(monkeypatch, error)
    problem = compile_problem("cpu")
    assert problem is not None and reason in problem and "uncompiled" in problem and "\n" not in problem
    model = Qwen3Model(SMALL)
    assert compile_or_eager(model, "cpu", dynamic=True) is model


def test_wrong_results_count_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda fn: torch.zeros_like)
    assert "wrong results" in str(compile_problem("cpu"))


def test_the_answer_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    uncompilable(monkeypatch, RuntimeError("once"))
    first = compile_problem("cpu")
    uncompilable(monkeypatch, RuntimeError("twice"))
    assert compile_problem("cpu") == first


@pytest.mark.slow
@pytest.mark.parametrize(("cache", "most"), [
    (None, 2), (KVCache(SMALL), 3), (StaticKVCache(SMALL, 40), 2)], ids=["none", "growing", "fixed"])
def test_few_graphs_serve_every_step(cache: Cache | None, most: int) -> None:
    """A graph for the prompt, one for further tokens, and one more where sizes were first taken literally."""
    if (problem := compile_problem("cpu")) is not None:
        pytest.skip(problem)
    graphs = []

    def recorder(graph: torch.fx.GraphModule, example_inputs: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    model = torch.compile(Qwen3Model(SMALL).eval(), backend=recorder)
    assert len(list(generate_tokens(model, torch.tensor([[3, 1, 4, 1, 5]]), 10, cache=cache))) == 10
    assert len(graphs) <= most


@pytest.mark.slow
def test_compiled_text_is_the_same() -> None:
    if (problem := compile_problem("cpu")) is not None:
        pytest.skip(problem)
    torch.manual_seed(0)
    model = Qwen3Model(SMALL).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    compiled = compile_or_eager(model, "cpu")
    assert compiled is not model
    prompt = torch.tensor([[3, 1, 4, 1, 5]])
    expected = torch.cat(list(generate_tokens(model, prompt, 12, cache=KVCache(SMALL))), dim=1)
    for cache in (KVCache(SMALL), StaticKVCache(SMALL, 32)):
        tokens = generate_tokens(compiled, prompt, 12, cache=cache)
        assert torch.equal(torch.cat(list(tokens), dim=1), expected)
