"""Whether torch.compile works, and the way back where it does not."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from course_utils import KVCache, StaticKVCache, generate_tokens
from course_utils.compilation import compile_model, compile_or_eager, compile_problem
from course_utils.config import Qwen3Config
from course_utils.errors import InputError
from course_utils.kv_cache import Cache
from course_utils.quantization import KINDS, quantize
from course_utils.qwen3 import DecoderLayer, Qwen3Model

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


# Models of which one layer is compiled for all

LENGTHS = (5, 12, 30)
MOST_GRAPHS = 5


def make(config: Qwen3Config = SMALL, seed: int = 0) -> Qwen3Model:
    torch.manual_seed(seed)
    model = Qwen3Model(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
    return model


def generate(model: Qwen3Model, length: int = 5, fixed: bool = False, new_tokens: int = 12) -> list[int]:
    prompt = torch.arange(length)[None] * 7 % model.config.vocab_size
    cache = StaticKVCache(model.config, 64) if fixed else KVCache(model.config)
    return [int(token) for token in generate_tokens(model, prompt, new_tokens, cache=cache)]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """What is compiled from now on, each collected here and then run as it stands, which takes no C++ compiler."""
    collected: list[torch.fx.GraphModule] = []

    def recorder(graph: torch.fx.GraphModule, example_inputs: object) -> Callable[..., object]:
        collected.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=recorder))
    assert compile_problem("cpu") is None
    collected.clear()
    return collected


def test_a_compiled_model_shares_the_weights_and_leaves_the_given_one_alone(graphs: list[object]) -> None:
    model = make()
    compiled = compile_model(model)
    generate(compiled)
    assert graphs and compiled is not model and not compiled.training
    for (name, theirs), (_, ours) in zip(compiled.named_parameters(), model.named_parameters()):
        assert theirs is ours, name
    assert compiled.lm_head.weight is compiled.model.embed_tokens.weight
    number = len(graphs)
    for layer in model.model.layers:
        assert "forward" not in vars(layer) and layer.forward.__func__ is DecoderLayer.forward
    assert model.lm_head._compiled_call_impl is None and "compute" not in vars(model)
    generate(model, 11)
    assert len(graphs) == number


@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_quantized_model_shares_the_weights_too(graphs: list[object], kind: str) -> None:
    config = replace(SMALL, vocab_size=128, hidden_size=128, intermediate_size=64, head_dim=32)
    model = quantize(make(config), kind)
    compiled = compile_model(model)
    assert compiled.quantization == kind
    for (name, theirs), (_, ours) in zip(compiled.named_buffers(), model.named_buffers()):
        assert theirs is ours, name
    assert generate(compiled) == generate(model) and graphs


@pytest.mark.parametrize("fixed", [False, True], ids=["growing", "fixed"])
def test_few_graphs_serve_prompts_and_tokens_of_every_length(graphs: list[object], fixed: bool) -> None:
    model = make()
    compiled = compile_model(model)
    for length in LENGTHS:
        assert generate(compiled, length, fixed, 34) == generate(model, length, fixed, 34)
    # A layer reads a prompt, takes a token after it, and both once more where a size was first taken literally; and
    # the output layer.
    number = len(graphs)
    assert 2 < number <= MOST_GRAPHS
    for length in (*LENGTHS, 7):
        assert generate(compiled, length, fixed, 34) == generate(model, length, fixed, 34)
    assert len(graphs) == number


def test_models_of_other_shapes_and_weights_do_not_disturb_each_other(graphs: list[object]) -> None:
    """Compiled code does not look at the modules again, so that of one model must never reach another."""
    models = [make(), make(seed=1), make(replace(SMALL, hidden_size=48, num_key_value_heads=4, rope_theta=10.0)),
              make(replace(SMALL, num_hidden_layers=3, rms_norm_eps=0.5, tie_word_embeddings=False))]
    expected = [generate(model) for model in models]
    assert len(set(map(tuple, expected))) == len(models)
    compiled = [compile_model(model) for model in models]
    for _ in range(2):
        for fixed in (False, True):
            assert [generate(each, fixed=fixed) for each in compiled] == expected
    # One after the other within one text, too.
    streams = [generate_tokens(each, torch.arange(5)[None] * 7, 12, cache=KVCache(each.config)) for each in compiled]
    assert [[int(token) for token in tokens] for tokens in zip(*zip(*streams))] == expected


def test_every_further_model_is_compiled_as_the_first(graphs: list[object]) -> None:
    """PyTorch gives up, without a word, on a function that was compiled too often: here, once for each model."""
    numbers = []
    for seed in range(6):
        model = make(replace(SMALL, hidden_size=32 + 8 * seed, vocab_size=97 + seed), seed)
        graphs.clear()
        assert generate(compile_model(model)) == generate(model)
        numbers.append(len(graphs))
    assert numbers == [numbers[0]] * 6


def test_weights_changed_after_compiling_are_used(graphs: list[object]) -> None:
    model = make()
    compiled = compile_model(model)
    before = generate(compiled)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1.5)
    number = len(graphs)
    assert generate(compiled) == generate(model) != before
    assert len(graphs) == number


def test_without_a_compiler_it_is_the_very_model(monkeypatch: pytest.MonkeyPatch) -> None:
    uncompilable(monkeypatch, RuntimeError("no compiler"))
    model = make()
    assert compile_model(model) is model
    assert generate(model)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many more graphs can be compiled; the probe has passed."""
    left = [0]

    def backend(graph: torch.fx.GraphModule, example_inputs: object) -> Callable[..., object]:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    left[0] = 1
    assert compile_problem("cpu") is None and left == [0]
    return left


@pytest.mark.parametrize("fixed", [False, True], ids=["growing", "fixed"])
@pytest.mark.parametrize("good", [0, 1, 2])
def test_a_compiler_that_fails_later_leaves_the_model_uncompiled(failing: list[int], good: int, fixed: bool) -> None:
    """At the first graph, or at a later one, when earlier layers have written to the cache already."""
    model = make()
    expected = generate(model, fixed=fixed)
    compiled = compile_model(model)
    failing[0] = good
    with pytest.warns(UserWarning, match="No space left on device.*goes on uncompiled") as said:
        assert generate(compiled, fixed=fixed) == expected
    assert len(said) == 1
    tried = failing[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert generate(compiled, 11, fixed) == generate(model, 11, fixed)
    assert failing[0] == tried  # it is not tried again


def test_a_compiler_that_fails_later_leaves_a_function_uncompiled(failing: list[int]) -> None:
    double, model = compile_or_eager(lambda x: x * 2, "cpu"), make()
    x = torch.arange(3.0)
    with pytest.warns(UserWarning, match="No space left on device"):
        assert torch.equal(double(x), x * 2)
    compiled = compile_or_eager(model, "cpu")
    with pytest.warns(UserWarning, match="No space left on device"):
        assert compiled is not model and generate(compiled) == generate(model)


def test_who_asked_for_an_error_when_compiling_again_gets_one() -> None:
    if (problem := compile_problem("cpu")) is not None:
        pytest.skip(problem)
    double = compile_or_eager(lambda x: x * 2, "cpu", backend="eager", dynamic=False)
    double(torch.arange(3.0))
    with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError, match="fail_on_recompile"):
        double(torch.arange(4.0))


def test_what_fails_uncompiled_as_well_is_no_fault_of_the_compiler(graphs: list[object]) -> None:
    """The error is the one that an uncompiled model gives, and the next call is compiled."""
    compiled, small = compile_model(make()), StaticKVCache(SMALL, 20, batch_size=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="batch_size of 1") as error:
            compiled(torch.arange(5)[None], cache=small)
        assert error.value.__context__ is None
        graphs.clear()
        assert generate(compiled) == generate(make()) and graphs


@pytest.mark.parametrize(("message", "reason"), [
    ("backend='inductor' raised:\nCppCompileError: C++ compile error\n\nCommand:\ng++ main.cpp\n\nOutput:\nIn file\n"
     "main.cpp:1:10: fatal error: Python.h: No such file or directory\n  1 | #include", "fatal error: Python.h: No"),
    ("InvalidCxxCompiler: No working C++ compiler found: ('no-such-compiler',)\nmore", "no-such-compiler"),
    ("main.cpp(1): fatal error C1083: Cannot open include file", "error C1083: Cannot open")])
def test_the_reason_is_the_compilers_own(monkeypatch: pytest.MonkeyPatch, message: str, reason: str) -> None:
    uncompilable(monkeypatch, RuntimeError(message))
    problem = compile_problem("cpu")
    assert problem is not None and reason in problem and "\n" not in problem and "backend" not in problem


@pytest.mark.slow
def test_a_compiler_that_is_named_and_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the real compiler: the probe is found in PyTorch's cache, and what is new must be compiled."""
    if (problem := compile_problem("cpu")) is not None:
        pytest.skip(problem)
    model = make(replace(SMALL, hidden_size=40, intermediate_size=56))
    compiled = compile_model(model)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    absent = {"cpp.cxx": (None, str(tmp_path / "no-such-compiler"))}
    with torch._inductor.config.patch(absent), pytest.warns(UserWarning, match="no-such-compiler.*goes on uncompiled"):
        assert generate(compiled) == generate(model)


@pytest.mark.slow
def test_compiled_models_write_the_same_text() -> None:
    """By the real compiler, two models in turn."""
    if (problem := compile_problem("cpu")) is not None:
        pytest.skip(problem)
    models = [make(), make(replace(SMALL, hidden_size=48, intermediate_size=40), seed=1)]
    compiled = [compile_model(model) for model in models]
    for length in LENGTHS:
        for fixed in (False, True):
            for fast, model in zip(compiled, models):
                assert fast is not model
                assert generate(fast, length, fixed, 34) == generate(model, length, fixed, 34)
    step = torch.tensor([[3, 1, 4]])
    with torch.inference_mode():
        torch.testing.assert_close(compiled[0](step), models[0](step), rtol=1e-4, atol=1e-3)
