"""The generation loop: the same tokens whichever way, no pass too many, and clear refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from test_model import SMALL, make, make_transformers, prompt, variant

from course_utils.batching import ContinuousBatch, pad_left
from course_utils.errors import ContextLengthError, InputError
from course_utils.generation import (
    generate_text_basic,
    generate_text_basic_cache,
    generate_text_basic_stream,
    generate_tokens,
    generate_trace,
    generate_with_stats,
    last_logits,
)
from course_utils.kv_cache import KVCache, StaticKVCache
from course_utils.lora import TARGETS, Adapters, LoRA
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import Sampler, Sampling, occurring
from course_utils.speculative import ModelDraft, generate_speculative


@pytest.fixture(scope="module")
def model() -> Qwen3Model:
    return make(SMALL)


def streamed(model: Qwen3Model, ids: torch.Tensor, n: int, eos: int | None = None) -> torch.Tensor:
    return torch.cat([ids[:, :0], *generate_text_basic_stream(model, ids, n, eos)], dim=1)


def static(model: Qwen3Model, ids: torch.Tensor, n: int, eos: int | None = None) -> torch.Tensor:
    cache = StaticKVCache(SMALL, ids.shape[1] + n, batch_size=ids.shape[0])
    return torch.cat([ids[:, :0], *generate_tokens(model, ids, n, eos, cache=cache)], dim=1)


def shown_whole(model: Qwen3Model, ids: torch.Tensor, n: int, eos: int | None = None) -> torch.Tensor:
    cache = StaticKVCache(SMALL, ids.shape[1] + n, batch_size=ids.shape[0])
    cache._whole = True  # as on an NVIDIA GPU
    return torch.cat([ids[:, :0], *generate_tokens(model, ids, n, eos, cache=cache)], dim=1)


WAYS: dict[str, Callable[..., torch.Tensor]] = {
    "plain": generate_text_basic, "cache": generate_text_basic_cache, "stream": streamed, "static cache": static,
    "static cache, shown whole": shown_whole}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_greedy_tokens_equal_those_of_transformers(model: Qwen3Model, way: Callable[..., torch.Tensor]) -> None:
    expected = make_transformers(model).generate(prompt(), max_new_tokens=30, do_sample=False,
                                                 attention_mask=torch.ones_like(prompt()), eos_token_id=None)
    assert torch.equal(way(model, prompt(), 30), expected[:, 20:])


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_generation_stops_before_the_end_token(model: Qwen3Model, way: Callable[..., torch.Tensor]) -> None:
    ids = prompt(1, 6)
    free = generate_text_basic(model, ids, 20)[0].tolist()
    end = free[7]
    assert way(model, ids, 20, end)[0].tolist() == free[:free.index(end)]


def test_several_end_tokens(model: Qwen3Model) -> None:
    ids = prompt(1, 6)
    free = generate_text_basic(model, ids, 20)[0].tolist()
    stop = min(free.index(free[4]), free.index(free[9]))
    assert generate_text_basic_cache(model, ids, 20, {free[4], free[9]})[0].tolist() == free[:stop]


def test_a_row_that_ends_first_is_filled_up_with_the_end_token(model: Qwen3Model) -> None:
    ids = prompt(2, 6)
    free = generate_text_basic(model, ids, 20)
    end = int(free[0, 3])
    first, second = (row.tolist() for row in generate_text_basic_cache(model, ids, 20, end))
    assert first == free[0, :3].tolist() + [end] * (len(first) - 3)
    assert second == [token for token in free[1].tolist()[:len(second)]]


@pytest.mark.parametrize(("way", "expected"), [(generate_text_basic, [6, 7, 8, 9]),
                                               (generate_text_basic_cache, [6, 1, 1, 1])], ids=["plain", "cache"])
def test_four_tokens_cost_four_passes(model: Qwen3Model, passes: list[int], way: Callable[..., torch.Tensor],
                                      expected: list[int]) -> None:
    way(model, prompt(1, 6), 4)
    assert passes == expected


def test_an_abandoned_stream_does_no_work_ahead(model: Qwen3Model, passes: list[int]) -> None:
    next(generate_text_basic_stream(model, prompt(1, 6), 50))
    assert passes == [6]


def test_no_new_tokens_is_a_valid_wish(model: Qwen3Model, passes: list[int]) -> None:
    assert generate_text_basic_cache(model, prompt(2, 6), 0).shape == (2, 0)
    assert passes == []


def test_generation_leaves_gradients_and_mode_of_the_caller_alone(model: Qwen3Model) -> None:
    for _ in generate_text_basic_stream(model, prompt(1, 6), 2):
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_onednn_is_on_between_two_tokens_and_after_the_last(model: Qwen3Model) -> None:
    """A step switches it off for itself alone: between tokens the caller's own products run."""
    for number, _ in enumerate(generate_text_basic_stream(model, prompt(1, 6), 5)):
        assert torch.backends.mkldnn.enabled
        if number == 2:
            break
    assert torch.backends.mkldnn.enabled


def test_a_cache_can_be_continued_with_more_text(model: Qwen3Model) -> None:
    cache = KVCache(SMALL)
    said = torch.cat(list(generate_tokens(model, prompt(1, 6), 5, cache=cache)), dim=1)
    assert cache.length == 6 + 4
    # The last token generated was never fed; it comes first in the next turn.
    more = torch.cat((said[:, -1:], prompt(1, 3, seed=9)), dim=1)
    again = torch.cat(list(generate_tokens(model, more, 5, cache=cache)), dim=1)
    whole = torch.cat((prompt(1, 6), said, prompt(1, 3, seed=9)), dim=1)
    assert torch.equal(again, generate_text_basic(model, whole, 5))


def test_padded_prompts_generate_what_each_would_alone(model: Qwen3Model) -> None:
    short, long = prompt(1, 4, seed=1), prompt(1, 9, seed=2)
    ids = torch.cat((torch.cat((torch.zeros(1, 5, dtype=torch.long), short), dim=1), long))
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, :5] = False
    both = torch.cat(list(generate_tokens(model, ids, 12, cache=KVCache(SMALL), attention_mask=mask)), dim=1)
    assert torch.equal(both[:1], generate_text_basic(model, short, 12))
    assert torch.equal(both[1:], generate_text_basic(model, long, 12))


def test_a_trace_holds_choice_and_candidates(model: Qwen3Model) -> None:
    steps = generate_trace(model, prompt(1, 6), 8, top=3)
    assert [step.token_id for step in steps] == generate_text_basic(model, prompt(1, 6), 8)[0].tolist()
    for step in steps:
        ids, probabilities = zip(*step.candidates)
        assert ids[0] == step.token_id and len(ids) == 3
        assert list(probabilities) == sorted(probabilities, reverse=True) and 0 < sum(probabilities) <= 1
    with torch.inference_mode():
        expected = model(prompt(1, 6))[0, -1].softmax(-1)[steps[0].token_id]
    assert steps[0].candidates[0][1] == pytest.approx(float(expected), rel=1e-5)


def test_a_trace_ends_with_the_end_token(model: Qwen3Model) -> None:
    free = generate_text_basic(model, prompt(1, 6), 8)[0].tolist()
    steps = generate_trace(model, prompt(1, 6), 8, eos_token_id=free[5])
    assert [step.token_id for step in steps] == free[:free.index(free[5]) + 1]


def test_a_greedy_trace_has_one_chance(model: Qwen3Model) -> None:
    for step in generate_trace(model, prompt(1, 6), 8, top=3):
        assert step.chances == [1.0, 0.0, 0.0]


SAMPLINGS = [Sampling(3.0), Sampling(5.0, top_k=2), Sampling(4.0, top_p=0.5), Sampling(2.0, repetition_penalty=1.5)]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_a_sampled_trace_is_what_the_sampler_draws(model: Qwen3Model, sampling: Sampling) -> None:
    ids = prompt(1, 6)
    steps = generate_trace(model, ids, 20, sampler=Sampler(sampling, 3, ids))
    drawn = torch.cat(list(generate_tokens(model, ids, 20, cache=KVCache(SMALL), choose=Sampler(sampling, 3, ids))), 1)
    assert [step.token_id for step in steps] == drawn[0].tolist()


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_a_trace_keeps_the_models_probabilities_and_the_chances(model: Qwen3Model, sampling: Sampling) -> None:
    """Both against a pass over the whole text, and the drawn token is always a candidate."""
    ids = prompt(1, 6)
    steps = generate_trace(model, ids, 20, top=4, sampler=Sampler(sampling, 3, ids))
    whole = torch.cat((ids, torch.tensor([[step.token_id for step in steps]])), dim=1)
    with torch.inference_mode():
        logits = model(whole)[0]
    unlikely = 0
    for place, step in enumerate(steps, start=5):
        tokens, probabilities = zip(*step.candidates)
        seen = occurring(whole[:, :place + 1], SMALL.vocab_size)
        model_says = logits[place].softmax(-1)
        assert list(tokens[:4]) == model_says.topk(4).indices.tolist()
        assert list(probabilities) == pytest.approx(model_says[list(tokens)].tolist(), rel=1e-3)
        chances = sampling.probabilities(logits[place:place + 1], seen)[0, list(tokens)].tolist()
        assert step.chances == pytest.approx(chances, rel=1e-3)
        assert step.chances[tokens.index(step.token_id)] > 0
        assert tokens[4:] in ((), (step.token_id,))
        unlikely += len(tokens) == 5
        if sampling.top_k is not None:
            assert step.chances[2:4] == [0.0, 0.0]
    assert unlikely > 0 or sampling.top_k is not None or sampling.top_p is not None


@pytest.mark.parametrize("top", [0, -1, 212])
def test_a_trace_with_no_such_number_of_candidates_is_refused(model: Qwen3Model, top: int) -> None:
    with pytest.raises(InputError, match=f"top is {top}: give a whole number from 1 to 211"):
        generate_trace(model, prompt(1, 5), 3, top=top)
    assert len(generate_trace(model, prompt(1, 5), 1, top=211)[0].candidates) == 211


def test_stats_do_not_count_what_fills_up_a_row_that_has_ended(model: Qwen3Model) -> None:
    ids = prompt(3, 6)
    free = generate_text_basic(model, ids, 12).tolist()
    end = free[0][3]
    real = [row.index(end) if end in row else 12 for row in free]
    stats = generate_with_stats(model, ids, 12, end, cache=KVCache(SMALL))
    assert stats.lengths == real and stats.new_tokens == sum(real) < stats.token_ids.numel()
    rest = stats.seconds - stats.time_to_first_token
    assert stats.decode_tokens_per_second == pytest.approx(sum(max(0, n - 1) for n in real) / rest)
    at_once = generate_with_stats(model, ids, 12, {row[0] for row in free[:2]} - {free[2][0]})
    assert at_once.lengths[:2] == [0, 0] and at_once.new_tokens == at_once.lengths[2] > 0


def with_dropout(model: Qwen3Model) -> Qwen3Model:
    """Two models that share nothing would do as well: an adapter that matters, and half of whose inputs are dropped."""
    model = copy.deepcopy(model)
    adapters = Adapters(model)
    adapters.add("dropping", LoRA(dropout=0.5, targets=TARGETS))
    for _, lora_B in adapters.matrices("dropping").values():
        torch.nn.init.normal_(lora_B, std=0.5)
    return model


GENERATORS: dict[str, Callable[[Qwen3Model, torch.Tensor], Iterator[int]]] = {
    "plain": lambda model, ids: (int(token) for token in generate_tokens(model, ids, 12)),
    "cache": lambda model, ids: (int(token) for token in generate_text_basic_stream(model, ids, 12)),
    "speculative": lambda model, ids: (int(t) for t in generate_speculative(model, ids, 12, ModelDraft(model))),
    "batch": lambda model, ids: in_a_batch(model, ids),
}


def in_a_batch(model: Qwen3Model, ids: torch.Tensor) -> Iterator[int]:
    batch = ContinuousBatch(model, 2)
    batch.submit(ids, 12)
    batch.submit(prompt(1, 9, seed=7), 12)
    while batch.running or batch.waiting:
        yield batch.step()[0][1]


@pytest.mark.parametrize("generate", GENERATORS.values(), ids=GENERATORS)
def test_a_model_in_training_mode_generates_without_dropout_and_stays_in_it(
        model: Qwen3Model, generate: Callable[[Qwen3Model, torch.Tensor], Iterator[int]]) -> None:
    dropping, ids = with_dropout(model), prompt(1, 6)
    expected = generate_text_basic_cache(dropping, ids, 12)[0].tolist()
    assert expected != generate_text_basic_cache(model, ids, 12)[0].tolist()
    dropping.train()
    dropping.model.norm.eval()
    modes = [part.training for part in dropping.modules()]
    for _ in range(2):
        written = []
        for token in generate(dropping, ids):
            assert [part.training for part in dropping.modules()] == modes  # the caller may train between two tokens
            written.append(token)
        assert written == expected
    assert [part.training for part in dropping.modules()] == modes


def test_a_pass_that_fails_leaves_the_mode_as_it_was(model: Qwen3Model) -> None:
    dropping = with_dropout(model).train()
    handle = dropping.model.layers[1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate_text_basic(dropping, prompt(1, 6), 3)
    handle.remove()
    assert all(part.training for part in dropping.modules())


def test_in_bfloat16_a_text_beside_others_leaves_its_own_at_a_near_tie_alone() -> None:
    """What the documentation says of its limits."""
    model = make(SMALL, torch.bfloat16)
    rows = [prompt(1, 3 + seed % 9, seed)[0].tolist() for seed in range(24)]
    token_ids, mask = pad_left(rows)
    together = torch.cat(list(generate_tokens(model, token_ids, 20, cache=KVCache(SMALL), attention_mask=mask)), dim=1)
    for row, text in zip(rows, together.tolist()):
        alone = generate_text_basic_cache(model, torch.tensor([row]), 20)[0].tolist()
        place = next((n for n, (mine, other) in enumerate(zip(alone, text)) if mine != other), None)
        if place is not None:
            logits = last_logits(model, torch.tensor([row + alone[:place]]))[0].float()
            assert logits.max() - logits[[alone[place], text[place]]].min() < 0.03 * logits.abs().max()


def test_stats_count_and_time(model: Qwen3Model) -> None:
    for cache in (None, KVCache(SMALL)):
        stats = generate_with_stats(model, prompt(2, 6), 10, cache=cache)
        assert torch.equal(stats.token_ids, generate_text_basic(model, prompt(2, 6), 10))
        assert (stats.prompt_tokens, stats.new_tokens) == (12, 20)
        assert 0 < stats.time_to_first_token < stats.seconds
        assert stats.tokens_per_second == pytest.approx(20 / stats.seconds)
        assert stats.decode_tokens_per_second == pytest.approx(18 / (stats.seconds - stats.time_to_first_token))
        assert stats.peak_memory > 10_000_000
    nothing = generate_with_stats(model, prompt(1, 6), 0)
    assert (nothing.new_tokens, nothing.tokens_per_second, nothing.decode_tokens_per_second) == (0, 0.0, 0.0)


@pytest.mark.parametrize(("ids", "message"), [
    (torch.zeros(1, 0, dtype=torch.long), "at least one token"),
    (torch.tensor([3, 4]), "at least one token"),
    (torch.tensor([[1.0, 2.0]]), "integers"),
    (torch.tensor([[1, 211]]), "Token id 211 is not in the vocabulary of 211"),
    (torch.tensor([[-1, 5]]), "Token id -1 is not in the vocabulary"),
    ([[1, 2]], "is a list: give a tensor"),
    ("text", "is a str: give a tensor"),
    (np.array([[1, 2]]), "is a ndarray: give a tensor"),
])
def test_bad_prompts_are_refused_at_the_call(model: Qwen3Model, ids: Any, message: str) -> None:
    for generate in (generate_text_basic, generate_text_basic_cache, generate_text_basic_stream, generate_with_stats,
                     generate_trace):
        with pytest.raises(InputError, match=message):
            generate(model, ids, 3)


@pytest.mark.parametrize("eos", ["7", [3, "7"], 2.0, -1, 2**63, [2**70], True], ids=str)
def test_what_is_no_end_token_is_refused_at_the_call(model: Qwen3Model, eos: Any) -> None:
    with pytest.raises(InputError, match="eos_token_id is .*: give a token id"):
        generate_text_basic_stream(model, prompt(1, 5), 3, eos)


def test_end_tokens_may_be_numbers_of_numpy(model: Qwen3Model) -> None:
    free = generate_text_basic(model, prompt(1, 6), 8)[0].tolist()
    for eos in (np.int64(free[4]), np.array([free[4]]), (np.int32(free[4]), 210)):
        assert generate_text_basic(model, prompt(1, 6), 8, eos)[0].tolist() == free[:free.index(free[4])]


@pytest.mark.parametrize(("mask", "message"), [
    (torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]), "put the padding on the left"),
    (torch.tensor([[True, True, True, True], [True, True, True, False]]), "put the padding on the left"),
    (torch.zeros(2, 4), "put the padding on the left"),
    (torch.tensor([[0, 0, 1, 2], [1, 1, 1, 1]]), "other numbers than 0 and 1"),
    (torch.tensor([[-1e9, 0, 0, 0], [0, 0, 0, 0]]), "other numbers than 0 and 1"),
    (torch.ones(2, 3), r"must be \(2, 4\)"),
    ([[1, 1, 1, 1], [0, 0, 1, 1]], "is a list: give a tensor"),
])
def test_a_mask_that_does_not_end_in_real_tokens_is_refused_at_the_call(model: Qwen3Model, passes: list[int],
                                                                        mask: Any, message: str) -> None:
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0]])
    with pytest.raises(InputError, match=message):
        generate_tokens(model, ids, 3, cache=KVCache(SMALL), attention_mask=mask)
    with pytest.raises(InputError, match=message):
        model(ids, attention_mask=mask)
    assert not passes


@pytest.mark.parametrize("mask", [torch.tensor([[0, 1, 1], [1, 1, 1]], dtype=dtype)
                                  for dtype in (torch.bool, torch.long, torch.int32, torch.uint8, torch.float32)],
                         ids=lambda mask: str(mask.dtype))
def test_a_mask_may_have_any_dtype(model: Qwen3Model, mask: torch.Tensor) -> None:
    ids = prompt(2, 3)
    tokens = generate_tokens(model, ids, 6, cache=KVCache(SMALL), attention_mask=mask)
    assert torch.equal(torch.cat(list(tokens), dim=1)[:1], generate_text_basic(model, ids[:1, 1:], 6))


def test_caches_that_are_none_or_have_other_layers_are_refused_at_the_call(model: Qwen3Model) -> None:
    for cache, message in (({}, "cache is a dict"), (True, "cache is a bool"), (KVCache, "cache is a type"),
                           (KVCache(variant(num_hidden_layers=2)), "2 layers and the model 3"),
                           (StaticKVCache(variant(num_hidden_layers=4), 40), "4 layers and the model 3")):
        for use in (lambda cache: generate_tokens(model, prompt(1, 5), 3, cache=cache),
                    lambda cache: model(prompt(1, 5), cache=cache)):
            with pytest.raises(InputError, match=message):
                use(cache)


def test_too_long_is_refused_before_any_work(model: Qwen3Model, passes: list[int]) -> None:
    with pytest.raises(ContextLengthError, match="120 prompt tokens and 10 new ones do not fit into 128.*to 9"):
        generate_text_basic_stream(model, prompt(1, 120), 10)
    with pytest.raises(ContextLengthError, match="do not fit into 16"):
        generate_tokens(model, prompt(1, 10), 8, cache=StaticKVCache(SMALL, 16))
    with pytest.raises(InputError, match="whole number from 0 on"):
        generate_text_basic(model, prompt(1, 5), -1)
    for length in (2.5, "9", None, True):
        with pytest.raises(InputError, match="give a whole number"):
            generate_text_basic_stream(model, prompt(1, 5), length)  # type: ignore[arg-type]
    assert passes == []
    # 120 and 9 new ones: the last token is written but never read.
    assert generate_text_basic_cache(model, prompt(1, 120), 9).shape == (1, 9)


def test_a_trace_of_a_batch_is_refused(model: Qwen3Model) -> None:
    with pytest.raises(InputError, match="a batch of 2"):
        generate_trace(model, prompt(2, 5), 3)
