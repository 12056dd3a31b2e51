"""Texts side by side: each is what it would be alone, whatever else is in the batch and whenever it came."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_model import SMALL, close, make, make_transformers, prompt, variant
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from course_utils.batching import ContinuousBatch, Request, pad_left
from course_utils.errors import ContextLengthError, InputError
from course_utils.generation import generate_text_basic_cache, generate_tokens
from course_utils.kv_cache import Cache, KVCache, StaticKVCache
from course_utils.loading import load_model, load_tokenizer
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import Sampler, Sampling

CPU = torch.device("cpu")
QUESTIONS = [f"{question} {topic}?" for question in ("What is a", "Explain briefly:", "Please tell me, what is a")
             for topic in ("token", "language model", "key-value cache", "tokenizer", "temperature", "prompt")]
QUESTIONS += [f"{topic}是什么？" for topic in ("注意力", "大语言模型", "词元", "采样", "温度", "提示词", "缓存")]
QUESTIONS += ["从前，", "有一天，小猫", "河的英文是", "请重复：小船月亮小船月亮", "Once upon a time,", "Tom has a cat.",
              "boat river moon star boat river moon star boat river", "Repeat: cat boat.", "红的苹果红的", "猫", "A",
              "One evening, when it was already late and the moon stood over the sea, the old man took his little boat "
              "and went down the river to look for his cat, and he said:"]


def texts(count: int, seed: int, longest: int = 20) -> list[list[int]]:
    """Prompts of random lengths."""
    chance = random.Random(seed)
    return [[chance.randrange(SMALL.vocab_size) for _ in range(chance.randint(1, longest))] for _ in range(count)]


def alone(model: Qwen3Model, ids: list[int], n: int, eos: Any = None, sampler: Sampler | None = None) -> list[int]:
    chosen = {"choose": sampler} if sampler is not None else {}
    tokens = generate_tokens(model, torch.tensor([ids]), n, eos, cache=KVCache(model.config), **chosen)
    return [int(token) for token in tokens]


@pytest.fixture(scope="module")
def model() -> Qwen3Model:
    return make(SMALL)


@pytest.fixture
def passes(model: Qwen3Model) -> Iterator[list[tuple[int, ...]]]:
    """The shape of what each forward pass was given."""
    shapes: list[tuple[int, ...]] = []
    handle = model.model.embed_tokens.register_forward_pre_hook(lambda _, ids: shapes.append(tuple(ids[0].shape)))
    yield shapes
    handle.remove()


# ---- padding on the left ------------------------------------------------------------------------------------


def test_padding_is_on_the_left() -> None:
    token_ids, mask = pad_left([[5, 6], [7], [1, 2, 3]], pad_token_id=9)
    assert token_ids.tolist() == [[9, 5, 6], [9, 9, 7], [1, 2, 3]]
    assert mask.tolist() == [[False, True, True], [False, False, True], [True, True, True]]


@given(st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=9), min_size=1, max_size=6))
def test_what_the_mask_leaves_is_what_was_given(rows: list[list[int]]) -> None:
    token_ids, mask = pad_left(rows, pad_token_id=4)
    assert [ids[real].tolist() for ids, real in zip(token_ids, mask)] == rows
    assert bool((token_ids[~mask] == 4).all()) and bool(mask[:, -1].all()) and bool(mask.any(0).all())


@pytest.mark.parametrize("rows", [[], [[]], [[1], []], ["text"], [[1.5]], [[1], ["2"]], [[-1]], [[1], [2**63]]])
def test_what_is_no_batch_of_texts_is_refused(rows: Any) -> None:
    with pytest.raises(InputError, match="give a list of lists"):
        pad_left(rows)


def test_a_batch_may_be_made_of_numbers_of_numpy() -> None:
    token_ids, mask = pad_left([np.array([5, 6]), [np.int32(7)]], pad_token_id=np.int64(9))
    assert token_ids.tolist() == [[5, 6], [9, 7]] and mask.tolist() == [[True, True], [False, True]]
    with pytest.raises(InputError, match="whole number from 0 on"):
        pad_left([[1], [2, 3]], pad_token_id=-1)


def cache_of(kind: str, model: Qwen3Model, batch: int) -> Cache:
    return (KVCache(model.config) if kind == "growing" else
            StaticKVCache(model.config, model.config.max_position_embeddings, batch, dtype=model.dtype))


@pytest.mark.parametrize("kind", ["growing", "fixed"])
def test_logits_of_each_row_are_those_of_the_text_alone(model: Qwen3Model, kind: str) -> None:
    rows = texts(12, seed=1)
    token_ids, mask = pad_left(rows)
    together = cache_of(kind, model, len(rows))
    apart = [KVCache(SMALL) for _ in rows]
    following = prompt(len(rows), 8, seed=2)
    with torch.inference_mode():
        logits = model(token_ids, cache=together, attention_mask=mask)
        for row, ids, cache in zip(logits, rows, apart):
            assert close(row[-len(ids):], model(torch.tensor([ids]), cache=cache)[0])
        for step in range(following.shape[1]):
            new = following[:, step:step + 1]
            mask = torch.cat((mask, mask.new_ones(len(rows), 1)), dim=1)
            logits = model(new, cache=together, attention_mask=mask)
            for row, token, cache in zip(logits, new, apart):
                assert close(row, model(token[None], cache=cache)[0])


@pytest.fixture(scope="module")
def answers() -> dict[str, list[int]]:
    """What the bundled model says to each question alone, cut at the limit of 24 tokens."""
    model, tokenizer = load_model("tiny", CPU), load_tokenizer("tiny")
    return {text: alone(model, tokenizer.encode(text), 24, tokenizer.eos_token_id) for text in QUESTIONS}


@pytest.mark.parametrize("kind", ["growing", "fixed"])
def test_greedy_text_of_dozens_of_prompts_side_by_side(kind: str, answers: dict[str, list[int]]) -> None:
    model, tokenizer = load_model("tiny", CPU), load_tokenizer("tiny")
    rows = [tokenizer.encode(text) for text in QUESTIONS]
    eos = tokenizer.eos_token_id
    token_ids, mask = pad_left(rows, eos)
    assert len(rows) > 36 and len({len(row) for row in rows}) > 8
    cache = StaticKVCache(model.config, 128, len(rows)) if kind == "fixed" else KVCache(model.config)
    steps = list(generate_tokens(model, token_ids, 24, eos, cache=cache, attention_mask=mask))
    for text, written in zip(QUESTIONS, torch.cat(steps, dim=1).tolist()):
        assert written == answers[text] + [eos] * (len(written) - len(answers[text])), text


def test_padded_text_is_that_of_transformers(model: Qwen3Model) -> None:
    token_ids, mask = pad_left(texts(9, seed=3))
    steps = generate_tokens(model, token_ids, 25, cache=KVCache(SMALL), attention_mask=mask)
    expected = make_transformers(model).generate(token_ids, attention_mask=mask.long(), max_new_tokens=25,
                                                 do_sample=False, eos_token_id=None, pad_token_id=0)
    assert torch.equal(torch.cat(list(steps), dim=1), expected[:, token_ids.shape[1]:])


def test_padding_and_other_rows_are_never_looked_at(model: Qwen3Model) -> None:
    ours, others, longer = texts(1, seed=4)[0], texts(5, seed=5), texts(5, seed=6, longest=60)
    expected = alone(model, ours, 12)
    for rows, pad in itertools.product(([ours, *others], [ours, *longer], [ours]), (0, 210)):
        token_ids, mask = pad_left(rows, pad)
        steps = generate_tokens(model, token_ids, 12, cache=KVCache(SMALL), attention_mask=mask)
        assert torch.cat(list(steps), dim=1)[0].tolist() == expected


# ---- continuous batching: the tokens that each would get alone ------------------------------------------------


class Traffic:
    """Requests with random prompts, limits, end tokens and times of arrival, and what each should get."""

    def __init__(self, model: Qwen3Model, seed: int, count: int, sampled: bool = False) -> None:
        chance = random.Random(seed)
        self.arrivals = sorted(chance.randrange(2 * count) for _ in range(count))
        self.prompts = texts(count, seed)
        self.limits = [chance.choice((0, 1, 2, 5, 9, 17, 30)) for _ in range(count)]
        self.sampling = Sampling(temperature=2.0, top_k=20, repetition_penalty=1.3) if sampled else None
        self.ends: list[Any] = []
        for number, (ids, limit) in enumerate(zip(self.prompts, self.limits)):
            text = alone(model, ids, limit, sampler=self.sampler(number))
            # Most texts meet their end token, at any place; some have two, some none.
            met = chance.choice(text) if text else 7
            self.ends.append(chance.choice((None, met, met, [met, 3], (200, met))))
        self.expected = [alone(model, ids, limit, eos, self.sampler(number)) for number, (ids, limit, eos)
                         in enumerate(zip(self.prompts, self.limits, self.ends))]

    def sampler(self, number: int) -> Sampler | None:
        return (Sampler(self.sampling, seed=number, token_ids=torch.tensor([self.prompts[number]]))
                if self.sampling is not None else None)

    def submit(self, batch: ContinuousBatch, number: int) -> Request:
        sampler = self.sampler(number)
        chosen = {"choose": sampler} if sampler is not None else {}
        return batch.submit(torch.tensor([self.prompts[number]]), self.limits[number], self.ends[number], **chosen)


def consistent(batch: ContinuousBatch) -> None:
    """What holds between any two steps."""
    assert len(batch.running) <= batch.max_batch_size
    assert not any(request.finished for request in (*batch.running, *batch.waiting))
    assert batch._cache.length == max((request.length - 1 for request in batch.running), default=0)
    for tensor in (tensor for pair in batch._cache.held for tensor in pair):
        assert tensor.shape[0] == len(batch.running) and tensor.shape[2] == batch._cache.length


@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
@pytest.mark.parametrize(("seed", "max_batch_size"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 8), (6, 40)])
def test_each_request_gets_what_it_would_get_alone(model: Qwen3Model, seed: int, max_batch_size: int,
                                                   sampled: bool) -> None:
    traffic = Traffic(model, seed, count=30, sampled=sampled)
    batch = ContinuousBatch(model, max_batch_size)
    requests: list[Request] = []
    streamed: dict[Request, list[int]] = {}
    begun: list[Request] = []
    most = 0
    for time in itertools.count():
        while len(requests) < 30 and traffic.arrivals[len(requests)] <= time:
            requests.append(traffic.submit(batch, len(requests)))
        for request, token in batch.step():
            streamed.setdefault(request, []).append(token)
        begun += [request for request in requests if request in batch.running and request not in begun]
        most = max(most, len(batch.running))
        consistent(batch)
        if len(requests) == 30 and not batch.running and not batch.waiting:
            break
    assert [request.new_tokens for request in requests] == traffic.expected
    assert [streamed.get(request, []) for request in requests] == traffic.expected
    assert all(request.finished for request in requests)
    assert begun == [request for request in requests if request in begun]  # first come, first served
    assert most == min(max_batch_size, most) and (most == max_batch_size or max_batch_size > 4)


def test_each_question_to_the_bundled_model_gets_its_own_answer(answers: dict[str, list[int]]) -> None:
    model, tokenizer = load_model("tiny", CPU), load_tokenizer("tiny")
    batch, eos = ContinuousBatch(model, 6), tokenizer.eos_token_id
    limits = [random.Random(number).randint(3, 24) for number in range(len(QUESTIONS))]
    requests = [batch.submit(torch.tensor([tokenizer.encode(text)]), limit, eos)
                for text, limit in zip(QUESTIONS, limits)]
    batch.run()
    for text, request, limit in zip(QUESTIONS, requests, limits):
        assert request.new_tokens == answers[text][:limit], text
    ended_early = sum(len(request.new_tokens) < limit for request, limit in zip(requests, limits))
    assert 3 < ended_early < len(requests) - 3


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 25), st.integers(0, 12)), min_size=1, max_size=10),
       st.integers(1, 5))
def test_any_traffic(traffic: list[tuple[int, int, int]], max_batch_size: int) -> None:
    model = make(variant(num_hidden_layers=1))
    batch = ContinuousBatch(model, max_batch_size)
    waits = [(wait, prompt(1, length, seed=length), limit) for wait, length, limit in traffic]
    requests = []
    for wait, ids, limit in waits:
        for _ in range(wait):
            batch.step()
            consistent(batch)
        requests.append(batch.submit(ids, limit))
    batch.run()
    for request, (_, ids, limit) in zip(requests, waits):
        assert request.new_tokens == generate_text_basic_cache(model, ids, limit)[0].tolist()


# ---- who runs when, and what it costs -------------------------------------------------------------------------


def test_a_step_is_one_pass_for_all_that_run_and_one_for_each_that_joins(
        model: Qwen3Model, passes: list[tuple[int, ...]]) -> None:
    batch = ContinuousBatch(model, 2)
    first, second, third = (batch.submit(prompt(1, t), n) for t, n in ((4, 2), (6, 5), (3, 3)))
    assert [request for request, _ in batch.step()] == [first, second] and passes == [(1, 4), (1, 6)]
    passes.clear()
    # The first one is done, and the third has its place in the same step.
    assert [request for request, _ in batch.step()] == [first, second, third] and passes == [(2, 1), (1, 3)]
    passes.clear()
    batch.run()
    assert passes == [(2, 1), (2, 1), (1, 1)] and [len(each.new_tokens) for each in (first, second, third)] == [2, 5, 3]


def test_requests_that_take_no_place_let_the_next_one_in(model: Qwen3Model, passes: list[tuple[int, ...]]) -> None:
    (first_token,) = alone(model, [3, 1, 4], 1)
    passes.clear()
    batch = ContinuousBatch(model, 1)
    none = batch.submit(prompt(1, 5), 0)
    assert none.finished and none.new_tokens == [] and not batch.waiting
    ends_at_once = batch.submit(torch.tensor([[3, 1, 4]]), 9, first_token)
    one = batch.submit(torch.tensor([[3, 1, 4]]), 1)
    long = batch.submit(prompt(1, 5), 4)
    assert batch.step() == [(one, first_token), (long, long.new_tokens[0])]
    assert ends_at_once.finished and ends_at_once.new_tokens == [] and one.finished
    assert batch.running == [long] and passes == [(1, 3), (1, 3), (1, 5)]


def test_without_requests_there_is_nothing_to_do(model: Qwen3Model, passes: list[tuple[int, ...]]) -> None:
    batch = ContinuousBatch(model)
    batch.run()
    assert batch.step() == [] and passes == []
    batch.submit(prompt(1, 5), 3)
    batch.run()
    assert batch.step() == [] and len(passes) == 3
    assert batch._cache.num_bytes == 0


def test_columns_that_are_padding_for_all_are_dropped(model: Qwen3Model) -> None:
    batch = ContinuousBatch(model, 3)
    long, short = batch.submit(prompt(1, 50), 3), batch.submit(prompt(1, 4), 9)
    per_token = 2 * SMALL.num_hidden_layers * SMALL.num_key_value_heads * SMALL.head_dim * 4
    batch.step()
    assert batch._cache.num_bytes == 2 * 50 * per_token
    batch.step()
    batch.step()
    assert long.finished and batch._cache.num_bytes == (4 + 2) * per_token
    batch.run()
    assert short.new_tokens == alone(model, prompt(1, 4)[0].tolist(), 9)


def test_a_text_may_fill_the_whole_context_beside_others(model: Qwen3Model) -> None:
    whole = SMALL.max_position_embeddings
    batch = ContinuousBatch(model, 4)
    requests = [(ids, n, batch.submit(ids, n)) for ids, n in (
        (prompt(1, 100), whole - 99), (prompt(1, 3), whole - 2), (prompt(1, whole), 1), (prompt(1, 20), 60))]
    batch.run()
    for ids, n, request in requests:
        assert request.new_tokens == generate_text_basic_cache(model, ids, n)[0].tolist()


# ---- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ids", "n", "error", "says"), [
    (prompt(1, 100), 30, ContextLengthError, "do not fit into 128"),
    (prompt(2, 5), 3, InputError, "one by one"),
    (prompt(1, 5)[0], 3, InputError, "shape"),
    (torch.empty(1, 0, dtype=torch.long), 3, InputError, "at least one token"),
    (torch.tensor([[211]]), 3, InputError, "211"),
    (torch.tensor([[-1]]), 3, InputError, "-1"),
    (torch.rand(1, 4), 3, InputError, "integers"),
    (prompt(1, 5), -1, InputError, "whole number from 0 on"),
    (prompt(1, 5), 2.5, InputError, "whole number"),
])
def test_a_request_that_cannot_be_met_is_refused_and_disturbs_nobody(
        model: Qwen3Model, ids: Tensor, n: Any, error: type[Exception], says: str) -> None:
    batch = ContinuousBatch(model, 2)
    others = [batch.submit(prompt(1, t), 8) for t in (4, 9, 2)]
    batch.step()
    with pytest.raises(error, match=says):
        batch.submit(ids, n)
    assert len(batch.waiting) == 1
    batch.run()
    for other in others:
        assert other.new_tokens == generate_text_basic_cache(model, other.token_ids, 8)[0].tolist()


@pytest.mark.parametrize("size", [0, -1, 2.5, "4", True, None])
def test_a_batch_without_a_place_is_refused(model: Qwen3Model, size: Any) -> None:
    with pytest.raises(InputError, match="max_batch_size"):
        ContinuousBatch(model, size)


# ---- interruptions --------------------------------------------------------------------------------------------


class FailAt(TorchDispatchMode):
    """Raises in the place of the n-th tensor operation, counted from 0; those within a choice are not counted."""

    choosing = False

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = n

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not FailAt.choosing:
            self.left -= 1
            if self.left == -1:
                raise MemoryError
        return op(*args, **(kwargs or {}))


class Uncounted(Sampler):
    """What it has half drawn cannot be drawn again, so it is not made to fail."""

    def __call__(self, logits: Tensor) -> Tensor:
        FailAt.choosing = True
        try:
            return super().__call__(logits)
        finally:
            FailAt.choosing = False


@pytest.mark.parametrize(("temperature", "every"), [(0, 1), (2.0, 7)], ids=["greedy", "sampled"])
def test_a_step_may_fail_at_any_operation(temperature: float, every: int) -> None:
    """Decoding, a request that leaves, one that joins: wherever it fails, the next step makes up for it."""
    model, sampling = make(variant(num_hidden_layers=1)), Sampling(temperature=temperature, repetition_penalty=1.5)
    wanted = ((4, 3), (9, 4), (2, 3))
    expected = [alone(model, prompt(1, t)[0].tolist(), n, sampler=Sampler(sampling, t)) for t, n in wanted]
    for n in itertools.count(step=every):
        batch = ContinuousBatch(model, 2)
        requests = [batch.submit(prompt(1, t), new, choose=Uncounted(sampling, t)) for t, new in wanted]
        streamed = batch.step() + batch.step()
        try:
            with FailAt(n):  # the step in which the first request leaves and the third one joins
                streamed += batch.step()
            break  # it has no n-th operation
        except MemoryError:
            pass
        while batch.running or batch.waiting:
            streamed += batch.step()
            consistent(batch)
        assert [request.new_tokens for request in requests] == expected
        assert [[token for each, token in streamed if each is request] for request in requests] == expected
    assert n > 150


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_choice_that_fails_holds_up_nobody_once_it_is_cancelled(model: Qwen3Model,
                                                                  error: type[BaseException]) -> None:
    calls = [0]

    def fails_later(logits: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] > 2:
            raise error
        return logits.argmax(-1, keepdim=True)

    def fails(logits: Tensor) -> Tensor:
        raise error

    batch = ContinuousBatch(model, 3)
    good, bad, worse, last = (batch.submit(prompt(1, t), 8, choose=choose) for t, choose in (
        (4, greedy_alone), (7, fails_later), (5, fails), (9, greedy_alone)))
    with pytest.raises(error):
        batch.step()
    batch.cancel(worse)
    assert worse.finished and worse.new_tokens == []
    batch.step()
    with pytest.raises(error):
        batch.step()
    batch.cancel(bad)
    batch.run()
    assert bad.new_tokens == alone(model, prompt(1, 7)[0].tolist(), 2)
    for request, t in ((good, 4), (last, 9)):
        assert request.new_tokens == alone(model, prompt(1, t)[0].tolist(), 8)


def greedy_alone(logits: Tensor) -> Tensor:
    assert logits.shape == (1, SMALL.vocab_size)  # nobody sees the logits of others
    return logits.argmax(-1, keepdim=True)


@pytest.mark.parametrize("which", range(4))
def test_cancelling(model: Qwen3Model, which: int) -> None:
    """A finished one, two that run, one that waits."""
    batch = ContinuousBatch(model, 2)
    requests = [batch.submit(prompt(1, t), n) for t, n in ((8, 2), (30, 9), (4, 9), (6, 5))]
    batch.step()
    batch.step()
    assert [request.finished for request in requests] == [True, False, False, False]
    before = list(requests[which].new_tokens)
    batch.cancel(requests[which])
    batch.cancel(requests[which])
    consistent(batch)
    batch.run()
    for number, request in enumerate(requests):
        whole = generate_text_basic_cache(model, request.token_ids, request.max_new_tokens)[0].tolist()
        assert request.new_tokens == (before if number == which else whole) and request.finished


def test_a_prompt_that_is_reused_by_its_owner(model: Qwen3Model) -> None:
    """Requests with the same tensor of token ids do not disturb each other, nor is it changed."""
    ids = prompt(1, 6)
    before = ids.clone()
    batch = ContinuousBatch(model, 3)
    requests = [batch.submit(ids, n) for n in (3, 9, 9)]
    batch.run()
    expected = generate_text_basic_cache(model, before, 9)[0].tolist()
    assert [request.new_tokens for request in requests] == [expected[:3], expected, expected]
    assert torch.equal(ids, before)


