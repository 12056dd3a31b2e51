"""Steps in C: what they compute, when they are taken, and what happens where there are none."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from course_utils import KVCache, Qwen3Model, StaticKVCache, compile_model, generate_tokens, kernels, native
from course_utils.config import Qwen3Config
from course_utils.errors import ContextLengthError, InputError
from course_utils.family import FAMILY
from course_utils.lora import Adapters, LoRA
from course_utils.native import native_model, native_problem
from course_utils.quantization import quantize
from course_utils.speculative import PromptLookup, generate_speculative

CONFIG = Qwen3Config(vocab_size=96, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=6,
                     num_key_value_heads=2, head_dim=32, max_position_embeddings=64, tie_word_embeddings=False)
# Matrices whose sizes are no multiples of a kernel's blocks, and heads as small as they may be.
ODD = replace(CONFIG, hidden_size=48, intermediate_size=112, num_attention_heads=5, num_key_value_heads=1, head_dim=16)
FORMS = ("int8", "int4", "bfloat16")


@pytest.fixture
def here() -> None:
    if (problem := native_problem(model_in("int8"))) is not None:
        pytest.skip(problem)


def model_in(form: str, config: Qwen3Config = CONFIG, seed: int = 0) -> Qwen3Model:
    torch.manual_seed(seed)
    model = Qwen3Model(config).eval().requires_grad_(False)
    for norm in (each for name, each in model.named_parameters() if "norm" in name):
        norm.uniform_(0.5, 1.5)
    return model.bfloat16() if form == "bfloat16" else quantize(model, form)  # type: ignore[arg-type]


def some_ids(b: int, t: int, config: Qwen3Config = CONFIG) -> Tensor:
    return torch.randint(config.vocab_size, (b, t), generator=torch.Generator().manual_seed(b + t))


def passes(model: Qwen3Model, token_ids: Tensor, lengths: list[int], mask: Tensor | None = None,
           cache: KVCache | StaticKVCache | None = None) -> list[Tensor]:
    """Logits of one pass after the other, over so many tokens each."""
    cache = cache or StaticKVCache(model.config, token_ids.shape[1] + 3, token_ids.shape[0], dtype=model.dtype)
    logits = []
    with torch.inference_mode():
        for tokens in token_ids.split(lengths, dim=1):
            end = cache.length + tokens.shape[1]
            logits.append(model(tokens, cache, None if mask is None else mask[:, :end]))
    return logits


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the token ids of all steps that C makes."""
    made: list[tuple[int, ...]] = []
    compute = native._Steps.compute

    def counting(self: native._Steps, token_ids: Tensor, *rest: object, **named: object) -> Tensor:
        made.append(tuple(token_ids.shape))
        return compute(self, token_ids, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(native._Steps, "compute", counting)
    return made


# What it computes


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("prompt", [17, 7])  # a longer one is PyTorch's
@pytest.mark.parametrize("growing", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("b", [1, 2])
@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, tie_word_embeddings=True), ODD], ids=["own", "tied", "odd"])
@pytest.mark.parametrize("form", FORMS)
def test_a_step_gives_the_logits_and_keys_of_pytorch(form: str, config: Qwen3Config, b: int, padded: bool,
                                                     growing: bool, prompt: int,
                                                     steps: list[tuple[int, ...]]) -> None:
    model, lengths = model_in(form, config), [prompt, 1, 1, 4, 2]
    ids = some_ids(b, sum(lengths), config)
    mask = torch.arange(sum(lengths)) >= torch.tensor([0, 5])[:b, None] if padded else None
    caches = [KVCache(config) if growing else StaticKVCache(config, 30, b, dtype=model.dtype) for _ in range(2)]
    expected = passes(model, ids, lengths, mask, caches[0])
    logits = passes(native_model(model), ids, lengths, mask, caches[1])
    assert steps == [(b, length) for length in lengths if length <= 16]
    assert prompt == 7 or torch.equal(logits[0], expected[0])
    kept = [native._tensors(cache) for cache in caches]
    assert [x.shape for x in kept[0]] == [x.shape for x in kept[1]]
    for own, theirs in zip((*logits, *kept[1]), (*expected, *kept[0])):
        torch.testing.assert_close(own, theirs, rtol=0.05, atol=0.05)
        # Rounding tips here and there.
        assert (own.float() - theirs.float()).abs().mean() < (8e-3 if form == "bfloat16" else 2e-3)
    assert not any(x[:, :, sum(lengths):].any() for x in kept[1])


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("form", FORMS)
def test_a_step_gives_the_same_bits_on_every_processor_with_any_threads(form: str,
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = model_in(form), some_ids(2, 12)
    results = []
    for way in kernels._compiler().instruction_sets:
        with monkeypatch.context() as patch:
            patch.setattr(kernels, "current_function", lambda kernel, way=way: kernels.function(kernel, way))
            for threads in ("1", "2", "5"):
                patch.setenv("COURSE_THREADS", threads)
                results.append(torch.cat(passes(native_model(model), ids, [8, 1, 3]), dim=1))
    assert len(results) >= 6 and all(torch.equal(result, results[0]) for result in results)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("form", FORMS)
def test_some_tokens_at_once_are_as_good_as_one_after_the_other(form: str) -> None:
    model, ids = native_model(model_in(form)), some_ids(1, 14)
    one_by_one = torch.cat(passes(model, ids, [1] * 14), dim=1)
    for lengths in ([14], [6, 8], [1, 9, 4]):
        assert torch.equal(torch.cat(passes(model, ids, lengths), dim=1), one_by_one)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("form", FORMS)
def test_a_text_depends_on_no_other_beside_it(form: str) -> None:
    model, ids = native_model(model_in(form)), some_ids(4, 10)
    together = torch.cat(passes(model, ids, [8, 1, 1])[1:], dim=1)
    with torch.inference_mode():
        caches = [StaticKVCache(CONFIG, 13, 4, dtype=model.dtype)]
        model(ids[:, :8], caches[0])
        for row in range(4):  # the same keys and values of the prompt, which PyTorch computes otherwise for one text
            alone = StaticKVCache(CONFIG, 13, dtype=model.dtype)
            model(ids[row:row + 1, :8], alone)
            for own, of_all in zip(alone.layers, caches[0].layers):
                own.keys.copy_(of_all.keys[row:row + 1])
                own.values.copy_(of_all.values[row:row + 1])
            logits = [model(ids[row:row + 1, i:i + 1], alone) for i in (8, 9)]
            assert torch.equal(torch.cat(logits, dim=1)[0], together[row])


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("form", FORMS)
def test_the_last_logits_alone(form: str) -> None:
    model, ids = native_model(model_in(form)), some_ids(2, 9)
    cache = StaticKVCache(CONFIG, 9, 2, dtype=model.dtype)
    everything = passes(model, ids, [6, 3])[1]
    with torch.inference_mode():
        model(ids[:, :6], cache)
        assert torch.equal(model(ids[:, 6:], cache, last_only=True), everything[:, -1:])


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["tiny", "nano"])
@pytest.mark.parametrize("form", FORMS)
def test_the_bundled_models_write_the_same_text(name: str, form: str, request: pytest.FixtureRequest,
                                                steps: list[tuple[int, ...]]) -> None:
    from course_utils import load_model, load_tokenizer
    model = load_model(name).requires_grad_(False)
    model = model.bfloat16() if form == "bfloat16" else quantize(model, form)  # type: ignore[arg-type]
    ids = torch.tensor([load_tokenizer(name).encode("What is a KV cache? A KV cache")])
    texts = []
    for each in (model, native_model(model)):
        cache = StaticKVCache(model.config, 64, dtype=model.dtype)
        texts.append([int(token) for token in generate_tokens(each, ids, 16, cache=cache)])
    assert texts[0] == texts[1] and len(set(texts[0])) > 8 and len(steps) == 16


@pytest.mark.usefixtures("here")
def test_speculation_writes_the_same_text(steps: list[tuple[int, ...]]) -> None:
    model = native_model(model_in("int8"))
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 3, 1, 4]])
    cache = StaticKVCache(CONFIG, 64, dtype=model.dtype)
    plain = [int(token) for token in generate_tokens(model, ids, 30, cache=cache)]
    assert steps == [(1, 9)] + [(1, 1)] * 29
    del steps[:]
    cache.truncate(0)
    assert [int(token) for token in generate_speculative(model, ids, 30, PromptLookup(), cache=cache)] == plain
    assert len(steps) < 29 and max(steps) > (1, 1)


# When it is made, and by whom


@pytest.mark.usefixtures("here")
def test_what_is_no_step_is_the_given_models(steps: list[tuple[int, ...]]) -> None:
    model = model_in("int8")
    fast, ids = native_model(model), some_ids(1, 18)

    def pass_over(model: Qwen3Model, cache: KVCache | StaticKVCache | None, t: int) -> Tensor:
        return model(ids[:, 18 - t:], cache)

    for cached, t in ((lambda: None, 1), (lambda: None, 4), (lambda: KVCache(CONFIG), 17),
                      (lambda: StaticKVCache(CONFIG, 20), 17)):
        with torch.inference_mode():
            assert torch.equal(pass_over(fast, cached(), t), pass_over(model, cached(), t))
    floats = model_in("bfloat16")
    with torch.enable_grad():  # gradients are wanted, of the embeddings say
        pass_over(native_model(floats), KVCache(CONFIG), 1)
    assert not steps
    with torch.no_grad():
        pass_over(fast, StaticKVCache(CONFIG, 12), 1)
    assert steps == [(1, 1)]


@pytest.mark.usefixtures("here")
def test_a_growing_cache_writes_into_nothing_that_it_shares(steps: list[tuple[int, ...]]) -> None:
    model, ids = native_model(model_in("int8")), some_ids(1, 12)
    with torch.inference_mode():
        cache = KVCache(CONFIG)
        model(ids[:, :8], cache)
        other = cache.copy()
        before = [x.clone() for x in native._tensors(cache)]
        first = model(ids[:, 8:10], cache)
        assert other.length == 8 and all(map(torch.equal, native._tensors(other), before))
        cache.truncate(8)  # views of what is longer
        assert torch.equal(model(ids[:, 8:10], cache), first) and torch.equal(model(ids[:, 8:10], other), first)
    assert steps == [(1, 8)] + [(1, 2)] * 3


@pytest.mark.usefixtures("here")
def test_sixteen_new_tokens_are_a_step_and_seventeen_are_not(steps: list[tuple[int, ...]]) -> None:
    model = native_model(model_in("int4"))
    passes(model, some_ids(1, 50), [16, 17, 1, 16])
    passes(model, some_ids(4, 14), [5, 4, 5])
    assert steps == [(1, 16), (1, 1), (1, 16), (4, 4)]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_in_large_layers_pytorch_multiplies_more_than_eight_in_bfloat16(form: str, large: bool,
                                                                       monkeypatch: pytest.MonkeyPatch,
                                                                       steps: list[tuple[int, ...]]) -> None:
    model = model_in(form)
    if large:
        monkeypatch.setattr(native, "LARGE_LAYER", 0)
    passes(native_model(model), some_ids(1, 17), [8, 9])
    assert steps == ([(1, 8)] if large and form == "bfloat16" else [(1, 8), (1, 9)])


@pytest.mark.parametrize(("name", "most"), [("Qwen/Qwen3-0.6B", 16), ("Qwen/Qwen3-1.7B", 8)])
def test_which_layers_are_large(name: str, most: int) -> None:
    with torch.device("meta"):
        model = Qwen3Model(replace(FAMILY[name], num_hidden_layers=1)).bfloat16()
    assert native._most_new_tokens(model) == most


@pytest.mark.usefixtures("here")
def test_mistakes_are_reported_as_by_the_model(steps: list[tuple[int, ...]]) -> None:
    model = native_model(model_in("int8"))
    with torch.inference_mode():
        with pytest.raises(InputError, match="do not fit into a cache"):
            model(some_ids(2, 1), StaticKVCache(CONFIG, 8))
        with pytest.raises(InputError, match="do not fit into a cache"):
            model(some_ids(1, 1), StaticKVCache(replace(CONFIG, head_dim=16), 8))
        with pytest.raises(InputError, match="do not fit into a cache"):
            model(some_ids(1, 1), StaticKVCache(CONFIG, 8, dtype=torch.bfloat16))
        two = KVCache(CONFIG)
        model(some_ids(2, 3), two)
        with pytest.raises(InputError, match="do not fit into a cache"):
            model(some_ids(1, 1), two)
        with pytest.raises(InputError, match="not in the vocabulary"):
            model(torch.tensor([[96]]), StaticKVCache(CONFIG, 8))
        cache = StaticKVCache(CONFIG, 2)
        model(some_ids(1, 1), cache), model(some_ids(1, 1), cache)
        with pytest.raises(ContextLengthError):
            model(some_ids(1, 1), cache)
    assert steps == [(2, 3), (1, 1), (1, 1)]


@pytest.mark.usefixtures("here")
def test_the_given_model_stays_as_it_is_and_its_weights_are_shared() -> None:
    model, ids = model_in("bfloat16"), some_ids(1, 6)
    before = passes(model, ids, [5, 1])
    fast = native_model(model)
    assert fast is not model and fast.compiled and not model.compiled
    assert [tensor.data_ptr() for tensor in fast.parameters()] == [tensor.data_ptr() for tensor in model.parameters()]
    first = passes(fast, ids, [5, 1])[1]
    assert torch.equal(passes(model, ids, [5, 1])[1], before[1])
    model.model.layers[0].mlp.up_proj.weight.mul_(-3)
    changed = passes(fast, ids, [5, 1])[1]
    assert not torch.equal(changed, first)
    torch.testing.assert_close(changed, passes(model, ids, [5, 1])[1], rtol=0.05, atol=0.05)


@pytest.mark.usefixtures("here")
def test_an_adapter_that_comes_later_is_not_in_it() -> None:
    model, ids = model_in("bfloat16"), some_ids(1, 6)
    fast = native_model(model)
    before = passes(fast, ids, [5, 1])
    adapters = Adapters(model)
    adapters.add("one", LoRA(rank=2))
    for weight in (each for name, each in model.named_parameters() if "lora_B" in name):
        weight.data.fill_(0.3)
    for own, earlier, others in zip(passes(fast, ids, [5, 1]), before, passes(model, ids, [5, 1])):
        assert torch.equal(own, earlier) and not torch.equal(own, others)
    with pytest.raises(InputError, match="not compiled"):
        Adapters(fast)


@pytest.mark.usefixtures("here")
def test_compiled_first_and_in_c_then(steps: list[tuple[int, ...]]) -> None:
    model, ids = model_in("int8"), some_ids(1, 18)
    compiled = compile_model(model)
    both = native_model(compiled)
    torch.testing.assert_close(passes(both, ids, [17, 1])[1], passes(model, ids, [17, 1])[1], rtol=2e-3, atol=2e-3)
    assert steps == [(1, 1)]
    assert compile_model(both) is both
    with pytest.raises(InputError, match="is quantized"):
        quantize(both, "int4")
    with pytest.raises(InputError, match="is compiled"):
        quantize(native_model(model_in("bfloat16")), "int4")


# Where there are none


def adapted(model: Qwen3Model) -> Qwen3Model:
    Adapters(model).add("one", LoRA(rank=2))
    return model


@pytest.mark.usefixtures("here", "forgetful")
@pytest.mark.parametrize("form", FORMS)
def test_without_kernels_pytorch_does_it(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.VARIABLE, "0")
    model = model_in(form)
    assert "COURSE_KERNELS is 0" in str(native_problem(model)) and native_model(model) is model


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("make", "reason"), [
    (lambda: Qwen3Model(CONFIG), "neither bfloat16 nor integers of one kind"),
    (lambda: model_in("bfloat16").half(), "it computes in torch.float16 on cpu"),
    (lambda: model_in("bfloat16").to("meta"), "on meta"),
    (lambda: model_in("bfloat16", replace(CONFIG, head_dim=24)), "its sizes are not multiples of 16"),
    (lambda: model_in("bfloat16", replace(CONFIG, head_dim=272)), "its heads have more than 256 numbers"),
    (lambda: model_in("int8", replace(CONFIG, intermediate_size=40)), "its sizes are not multiples of 16"),
    (lambda: adapted(model_in("bfloat16")), "neither bfloat16 nor integers")])
def test_models_that_c_does_not_know(make: Callable[[], Qwen3Model], reason: str) -> None:
    model = make()
    assert reason in str(native_problem(model)) and native_model(model) is model


@pytest.mark.usefixtures("here", "forgetful")
@pytest.mark.parametrize(("file", "right", "wrong"), [
    ("between.h", "(power + 1)", "(power + 2)"), ("between.h", "second * LOAD(eight, cosines + i) +", "second * 1 +"),
    ("layers.c", "p->past + t % p->newest;", "p->past;"), ("layers.c", "layer->mlp_norm", "layer->input_norm"),
    ("layers.c", "normalize_all(p, p->last_norm, p->x)", "(void)0"), ("layers.c", "int run_layers(", "int run_layers"),
    ("layers.c", "return add_product(p, &layer->down, s.inner, s.products);", "return 0;")])
def test_wrong_layers_are_found(file: str, right: str, wrong: str,
                                change_source: Callable[[str, str, str], None]) -> None:
    change_source(file, right, wrong)
    model = model_in("int8")
    assert "The course's own kernels are not in use" in str(native_problem(model)) and native_model(model) is model
