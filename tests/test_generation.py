"""The generation loop: the same tokens whichever way, no pass too many, and clear refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_model import SMALL, make, make_transformers, prompt

from course_utils.errors import ContextLengthError, InputError
from course_utils.generation import (
    generate_stats,
    generate_text_basic,
    generate_text_basic_cache,
    generate_text_basic_stream,
    generate_tokens,
    generate_trace,
)
from course_utils.kv_cache import KVCache, StaticKVCache
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import Sampler, Sampling, occurring


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
    with pytest.raises(InputError, match=f"top is {top}: give how many candidates to keep, from 1 to 211"):
        generate_trace(model, prompt(1, 5), 3, top=top)
    assert len(generate_trace(model, prompt(1, 5), 1, top=211)[0].candidates) == 211


def test_stats_count_and_time(model: Qwen3Model) -> None:
    for cache in (None, KVCache(SMALL)):
        stats = generate_stats(model, prompt(2, 6), 10, cache=cache)
        assert torch.equal(stats.token_ids, generate_text_basic(model, prompt(2, 6), 10))
        assert (stats.prompt_tokens, stats.new_tokens) == (12, 20)
        assert 0 < stats.time_to_first_token < stats.seconds
        assert stats.tokens_per_second == pytest.approx(20 / stats.seconds)
        assert stats.decode_tokens_per_second == pytest.approx(18 / (stats.seconds - stats.time_to_first_token))
        assert stats.peak_memory > 10_000_000
    nothing = generate_stats(model, prompt(1, 6), 0)
    assert (nothing.new_tokens, nothing.tokens_per_second, nothing.decode_tokens_per_second) == (0, 0.0, 0.0)


@pytest.mark.parametrize(("ids", "message"), [
    (torch.zeros(1, 0, dtype=torch.long), "at least one token"),
    (torch.tensor([3, 4]), "at least one token"),
    (torch.tensor([[1.0, 2.0]]), "integers"),
    (torch.tensor([[1, 211]]), "Token id 211 is not in the vocabulary of 211"),
    (torch.tensor([[-1, 5]]), "Token id -1 is not in the vocabulary"),
])
def test_bad_prompts_are_refused_at_the_call(model: Qwen3Model, ids: torch.Tensor, message: str) -> None:
    for generate in (generate_text_basic, generate_text_basic_cache, generate_text_basic_stream, generate_stats):
        with pytest.raises(InputError, match=message):
            generate(model, ids, 3)


def test_too_long_is_refused_before_any_work(model: Qwen3Model, passes: list[int]) -> None:
    with pytest.raises(ContextLengthError, match="120 prompt tokens and 10 new ones do not fit into 128.*to 9"):
        generate_text_basic_stream(model, prompt(1, 120), 10)
    with pytest.raises(ContextLengthError, match="do not fit into 16"):
        generate_tokens(model, prompt(1, 10), 8, cache=StaticKVCache(SMALL, 16))
    with pytest.raises(InputError, match="cannot be negative"):
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
