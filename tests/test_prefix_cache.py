"""The prefix cache against the model without one, and its tree against a dictionary that follows the same rules."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from test_model import SMALL, close, interrupt, make, make_transformers, prompt, variant

from course_utils import prefix_cache
from course_utils.config import Qwen3Config
from course_utils.errors import ContextLengthError, InputError
from course_utils.generation import generate_text_basic, generate_text_basic_cache, generate_tokens
from course_utils.kv_cache import KVCache, StaticKVCache
from course_utils.loading import load_model, load_tokenizer
from course_utils.prefix_cache import Match, Node, PrefixCache, generate_with_prefix
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import Sampler, Sampling

FAKE = Qwen3Config(vocab_size=1000, hidden_size=4, intermediate_size=4, num_hidden_layers=2, num_attention_heads=1,
                   num_key_value_heads=1, head_dim=2, max_position_embeddings=4096)
FAKE_BYTES = 2 * 2 * 2 * 4  # of one token: keys and values, layers, head_dim, float32


def fake_held(token_ids: Sequence[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """As a model's, in that the keys and values of a token tell all tokens up to it."""
    codes, code = [], 1
    for token in token_ids:
        code = (code * 1009 + token + 1) % 999_983  # float32 holds it exactly
        codes.append(float(code))
    keys = torch.tensor(codes)[None, None, :, None].expand(1, 1, -1, FAKE.head_dim)
    return [(keys + layer, -keys - layer) for layer in range(FAKE.num_hidden_layers)]


def fake_cache(token_ids: Sequence[int], left_behind: int = 0) -> KVCache:
    """A cache for these tokens; an interrupted pass may have left something behind them."""
    cache = KVCache.holding(FAKE, fake_held([*token_ids, *[7] * left_behind]))
    cache.length = len(token_ids)
    return cache


def same(held: list[tuple[torch.Tensor, torch.Tensor]], other: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    return len(held) == len(other) and all(
        torch.equal(mine, theirs) for pair, pair2 in zip(held, other) for mine, theirs in zip(pair, pair2))


def path(node: Node) -> tuple[int, ...]:
    return path(node.parent) + node.token_ids if node.parent else ()


def shape(node: Node) -> list[object]:
    """The tree as nested lists: number of tokens, then the children."""
    return [len(node.token_ids), *(shape(child) for child in node.children.values())]


def check(prefixes: PrefixCache, holding: bool = True) -> None:
    """What is true of every tree at any time."""
    storages: dict[int, int] = {}
    assert prefixes.root.token_ids == () and prefixes.root.parent is None
    nodes = list(prefixes.nodes())
    for node in nodes:
        assert node.token_ids and node.parent is not None
        assert node.parent.children[node.token_ids[0]] is node
        assert node.last_used <= node.parent.last_used or node.parent is prefixes.root
        assert node.pins >= 0
        assert {tensor.shape[2] for pair in node.held for tensor in pair} == {len(node.token_ids)}
        if holding:
            start = len(path(node.parent))
            assert same(node.held, [(k[:, :, start:], v[:, :, start:]) for k, v in fake_held(path(node))])
        for pair in node.held:
            for tensor in pair:
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
                assert not tensor.requires_grad
    assert len({id(node) for node in nodes}) == len(nodes)
    assert prefixes.num_tokens == sum(len(node.token_ids) for node in nodes)
    assert prefixes.num_bytes == sum(storages.values())
    assert prefixes.max_tokens is None or prefixes.num_tokens <= prefixes.max_tokens
    assert prefixes.max_bytes is None or prefixes.num_bytes <= prefixes.max_bytes


# The same texts with and without.

@pytest.fixture(scope="module")
def model() -> Qwen3Model:
    return make(SMALL)


@pytest.fixture(scope="module")
def tiny() -> Qwen3Model:
    return load_model("tiny", device="cpu")


def cache_of(model: Qwen3Model, token_ids: torch.Tensor) -> KVCache:
    cache = KVCache(model.config)
    with torch.inference_mode():
        model(token_ids, cache=cache)
    return cache


def generated(model: Qwen3Model, token_ids: torch.Tensor, n: int, prefixes: PrefixCache, **options: object
              ) -> torch.Tensor:
    eos = options.pop("eos_token_id", None)
    return torch.cat([token_ids[:, :0], *generate_with_prefix(model, token_ids, n, eos, prefixes, **options)],
                     dim=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", range(1, 20))
def test_logits_behind_a_reused_prefix_equal_those_of_transformers(model: Qwen3Model, length: int) -> None:
    ids = prompt(b=1)
    prefixes = PrefixCache(SMALL)
    prefixes.insert(ids[0].tolist(), cache_of(model, ids[:, :length]))
    with torch.inference_mode(), prefixes.match(ids[0].tolist()) as match:
        assert match.length == length
        expected = make_transformers(model)(ids).logits[:, length:]
        assert close(model(ids[:, length:], cache=match.cache), expected)


def test_so_do_those_behind_a_prefix_of_many_nodes(model: Qwen3Model) -> None:
    ids = prompt(b=1)
    row = ids[0].tolist()
    prefixes = PrefixCache(SMALL)
    prefixes.insert(row, cache_of(model, ids))
    for length in (3, 4, 9, 15):  # other texts that begin in the same way split the node again and again
        other = torch.cat((ids[:, :length], (ids[:, length:length + 1] + 1) % SMALL.vocab_size), dim=1)
        prefixes.insert(other[0].tolist(), cache_of(model, other))
    assert shape(prefixes.root) == [0, [3, [1, [5, [6, [5], [1]], [1]], [1]], [1]]]
    with torch.inference_mode():
        expected = model(ids)
        for length in range(1, 20):
            with prefixes.match(row, at_most=length) as match:
                assert match.length == length
                assert close(model(ids[:, length:], cache=match.cache), expected[:, length:])
    check(prefixes, holding=False)


def test_logits_of_the_tiny_model_are_the_same_at_every_length(tiny: Qwen3Model) -> None:
    row = load_tokenizer("tiny").encode("The little boat went down the river, and 小船沿着小河走。")
    ids = torch.tensor([row])
    prefixes = PrefixCache(tiny.config)
    prefixes.insert(row, cache_of(tiny, ids))
    with torch.inference_mode():
        expected = tiny(ids)
        for length in range(1, len(row)):
            with prefixes.match(row, at_most=length) as match:
                assert close(tiny(ids[:, length:], cache=match.cache), expected[:, length:])


def test_greedy_text_of_the_tiny_model_is_the_same(tiny: Qwen3Model) -> None:
    tokenizer = load_tokenizer("tiny")
    prefixes = PrefixCache(tiny.config, max_tokens=90)
    beginnings = ("The little boat went", "The little boat was", "A cat", "小船沿着")
    endings = (" down the river", " home", " and the moon", "小河", "大海，", "，小猫")
    for text in (beginning + ending for beginning in beginnings for ending in endings):
        ids = torch.tensor([tokenizer.encode(text)])
        expected = generate_text_basic_cache(tiny, ids, 6, tokenizer.eos_token_id)
        for _ in range(2):
            answer = generated(tiny, ids, 6, prefixes, eos_token_id=tokenizer.eos_token_id)
            assert torch.equal(answer, expected)
    check(prefixes, holding=False)
    assert prefixes.stats.tokens_evicted > 0 and prefixes.stats.tokens_reused > 0


@pytest.mark.parametrize("budget", [{}, {"max_tokens": 50}, {"max_bytes": 20_000}], ids=str)
def test_random_prompts_with_common_beginnings_are_answered_the_same(model: Qwen3Model, budget: dict[str, int]) -> None:
    chance = random.Random(0)
    prefixes = PrefixCache(SMALL, **budget)
    texts = [[5, 6, 7]]
    for _ in range(40):
        begun = chance.choice(texts)[:chance.randint(1, 30)]
        texts.append(begun + [chance.randrange(SMALL.vocab_size) for _ in range(chance.randint(0, 4))])
        ids = torch.tensor([texts[-1]])
        expected = generate_text_basic(model, ids, 6, eos_token_id=3)
        assert torch.equal(generated(model, ids, 6, prefixes, eos_token_id=3), expected)
        texts.append(texts[-1] + expected[0].tolist())
        check(prefixes, holding=False)
    assert prefixes.stats.reuse_rate > 0.3
    assert bool(prefixes.stats.tokens_evicted) == bool(budget)
    assert not any(node.pins for node in prefixes.nodes())


def test_only_what_is_not_held_is_computed(model: Qwen3Model, passes: list[int]) -> None:
    ids = prompt(b=1, t=12)
    prefixes = PrefixCache(SMALL)
    answer = generated(model, ids, 4, prefixes)
    assert passes == [12, 1, 1, 1]
    passes.clear()
    generated(model, ids, 4, prefixes)
    assert passes == [1, 1, 1, 1]  # the last prompt token, for its logits
    passes.clear()
    longer = torch.cat((ids, answer, prompt(b=1, t=5, seed=9)), dim=1)
    generated(model, longer, 1, prefixes)
    assert passes == [6]  # the last answered token has no keys yet
    stats = prefixes.stats
    assert (stats.lookups, stats.hits, stats.tokens_asked, stats.tokens_reused) == (3, 2, 12 + 12 + 21, 0 + 11 + 15)
    assert stats.hit_rate == 2 / 3 and stats.reuse_rate == 26 / 45


def test_sampling_with_a_seed_draws_the_same(model: Qwen3Model) -> None:
    prefixes = PrefixCache(SMALL)
    sampling = Sampling(temperature=0.8, top_k=20, repetition_penalty=1.2)
    ids = prompt(b=1)
    for seed in range(5):
        plain = list(generate_tokens(model, ids, 10, choose=Sampler(sampling, seed, ids)))
        assert torch.equal(generated(model, ids, 10, prefixes, choose=Sampler(sampling, seed, ids)),
                           torch.cat(plain, dim=1))
    assert len(prefixes.root.children) == 1
    check(prefixes, holding=False)


def test_a_prompt_of_one_token_and_no_new_tokens(model: Qwen3Model) -> None:
    prefixes = PrefixCache(SMALL)
    assert generated(model, torch.tensor([[4]]), 0, prefixes).shape == (1, 0)
    assert prefixes.num_tokens == 0
    for _ in range(2):
        assert torch.equal(generated(model, torch.tensor([[4]]), 3, prefixes),
                           generate_text_basic(model, torch.tensor([[4]]), 3))
    assert prefixes.stats.tokens_reused == 0  # one token must be computed


def test_an_end_token_is_neither_yielded_nor_kept(model: Qwen3Model) -> None:
    ids = prompt(b=1)
    answer = generate_text_basic(model, ids, 10)[0].tolist()
    first = next(i for i, token in enumerate(answer) if token not in answer[:i] and i > 2)
    prefixes = PrefixCache(SMALL)
    assert generated(model, ids, 10, prefixes, eos_token_id=answer[first])[0].tolist() == answer[:first]
    assert [path(node) for node in prefixes.nodes()] == [(*ids[0].tolist(), *answer[:first])]


# Nothing is spoilt by use.

def test_an_entry_is_bit_for_bit_the_same_after_ten_uses(model: Qwen3Model) -> None:
    ids = prompt(b=1)
    prefixes = PrefixCache(SMALL)
    prefixes.insert(ids[0].tolist(), cache_of(model, ids))
    node = next(prefixes.nodes())
    before = [(keys.clone(), values.clone()) for keys, values in node.held]
    for seed in range(10):
        longer = torch.cat((ids, prompt(b=1, t=3, seed=seed)), dim=1)
        generated(model, longer, 5, prefixes)
    assert node is next(prefixes.nodes()) and same(node.held, before)


def test_two_continuations_of_one_match_do_not_disturb_each_other(model: Qwen3Model) -> None:
    ids = prompt(b=1)
    one, two = prompt(b=1, t=8, seed=1), prompt(b=1, t=8, seed=2)
    prefixes = PrefixCache(SMALL)
    prefixes.insert(ids[0].tolist(), cache_of(model, ids))
    with torch.inference_mode(), prefixes.match(ids[0].tolist()) as match:
        first, second = match.cache, match.cache.copy()
        parts = [(model(a, cache=first), model(b, cache=second)) for a, b in zip(one.split(1, 1), two.split(1, 1))]
        for number, other in enumerate((one, two)):
            expected = model(torch.cat((ids, other), dim=1))[:, 20:]
            assert close(torch.cat([part[number] for part in parts], dim=1), expected)
    assert prefixes.num_tokens == 20


def test_two_generations_in_turns(model: Qwen3Model) -> None:
    ids = prompt(b=1)
    prompts = [torch.cat((ids, prompt(b=1, t=3, seed=seed)), dim=1) for seed in (1, 2)]
    prefixes = PrefixCache(SMALL, max_tokens=30)
    prefixes.insert(ids[0].tolist(), cache_of(model, ids))
    turns = list(zip(*(generate_with_prefix(model, each, 10, None, prefixes) for each in prompts)))
    for each, answer in zip(prompts, zip(*turns)):
        assert torch.equal(torch.cat(answer, dim=1), generate_text_basic(model, each, 10))
    check(prefixes, holding=False)


def test_a_match_outlives_what_happens_to_the_tree() -> None:
    prefixes = PrefixCache(FAKE, max_tokens=10)
    ids = list(range(8))
    prefixes.insert(ids, fake_cache(ids))
    match = prefixes.match(ids)
    prefixes.insert([0, 1, 2, 50, 51, 52], fake_cache([0, 1, 2, 50, 51, 52]))
    assert prefixes.num_tokens == 10 and prefixes.stats.tokens_not_kept == 1
    prefixes.clear()
    prefixes.insert([9] * 10, fake_cache([9] * 10))
    assert same(match.cache.held, fake_held(ids))
    match.close()
    check(prefixes)
    assert [node.pins for node in prefixes.nodes()] == [0]


def test_a_match_counts_once_however_often_it_is_closed() -> None:
    prefixes = PrefixCache(FAKE)
    prefixes.insert([1, 2], fake_cache([1, 2]))
    node = next(prefixes.nodes())
    with prefixes.match([1, 2]) as match, prefixes.match([1]):
        assert node.pins == 2
        match.close()
        match.close()
        assert node.pins == 1
    assert node.pins == 0


def test_a_text_that_only_began_in_the_same_way_makes_room_at_once(model: Qwen3Model) -> None:
    ids, other = prompt(b=1), prompt(b=1, seed=1)
    other[:, :5] = ids[:, :5]
    prefixes = PrefixCache(SMALL, max_tokens=20)
    for each in (ids, other):
        generated(model, each, 1, prefixes)
        assert prefixes.num_tokens == 20 and prefixes.stats.tokens_not_kept == 0
    assert [path(node) for node in prefixes.nodes()][-1] == tuple(other[0].tolist())
    assert shape(prefixes.root) == [0, [5, [15]]]
    check(prefixes, holding=False)


# Ended early.

def test_what_was_computed_is_kept_when_the_consumer_stops(model: Qwen3Model) -> None:
    ids = prompt(b=1)
    prefixes = PrefixCache(SMALL)
    for count, _ in enumerate(tokens := generate_with_prefix(model, ids, 10, None, prefixes), start=1):
        if count == 4:
            break
    assert [node.pins for node in prefixes.nodes()] == [] and prefixes.root.pins == 1
    tokens.close()  # type: ignore[attr-defined]
    answer = generate_text_basic(model, ids, 3)[0].tolist()
    assert [path(node) for node in prefixes.nodes()] == [(*ids[0].tolist(), *answer)]
    assert prefixes.root.pins == 0


def test_a_generation_that_never_starts_leaves_no_trace(model: Qwen3Model) -> None:
    prefixes = PrefixCache(SMALL)
    generate_with_prefix(model, prompt(b=1), 10, None, prefixes).close()  # type: ignore[attr-defined]
    assert prefixes.stats.lookups == 0 and prefixes.root.pins == 0


@pytest.mark.parametrize("where", ["embed_tokens", "layers.1", "norm"])
@pytest.mark.parametrize("good_passes", [0, 1, 4])
def test_what_was_computed_is_kept_when_a_pass_is_interrupted(model: Qwen3Model, where: str, good_passes: int) -> None:
    ids = prompt(b=1)
    prefixes = PrefixCache(SMALL)
    prefixes.insert(ids[0, :6].tolist(), cache_of(model, ids[:, :6]))
    passes = 0

    def fail_in_time(*_: object) -> None:
        nonlocal passes
        passes += 1
        if passes > good_passes:
            interrupt()

    handle = model.model.get_submodule(where).register_forward_pre_hook(fail_in_time)
    tokens = []
    with pytest.raises(KeyboardInterrupt):
        for token in generate_with_prefix(model, ids, 10, None, prefixes):
            tokens.append(int(token))
    handle.remove()
    assert len(tokens) == good_passes
    assert prefixes.num_tokens == (20 + good_passes - 1 if good_passes else 6)
    assert not any(node.pins for node in prefixes.nodes())
    check(prefixes, holding=False)
    with torch.inference_mode(), prefixes.match(ids[0].tolist() + tokens, at_most=19) as match:
        assert close(model(ids[:, match.length:], cache=match.cache), model(ids)[:, match.length:])
    assert torch.equal(generated(model, ids, 10, prefixes), generate_text_basic(model, ids, 10))


def test_an_error_of_the_callers_own_choice_goes_through(model: Qwen3Model) -> None:
    prefixes = PrefixCache(SMALL)
    with pytest.raises(ZeroDivisionError):
        generated(model, prompt(b=1), 10, prefixes, choose=lambda _: 1 / 0)
    assert prefixes.num_tokens == 20 and prefixes.root.pins == 0


# The tree.

def test_what_is_shared_and_what_is_copied(model: Qwen3Model) -> None:
    def addresses(held: list[tuple[torch.Tensor, torch.Tensor]]) -> set[int]:
        return {tensor.untyped_storage().data_ptr() for pair in held for tensor in pair}

    ids = list(range(10))
    cache = fake_cache(ids)
    prefixes = PrefixCache(FAKE)
    prefixes.insert(ids, cache)
    node = next(prefixes.nodes())
    assert addresses(node.held) == addresses(cache.held)
    with prefixes.match(ids[:6]) as match:
        assert addresses(match.cache.held) == addresses(cache.held)

    prefixes.insert([0, 1, 2, 3, 77], fake_cache([0, 1, 2, 3, 77]))
    upper, lower, other = prefixes.nodes()
    assert (upper.token_ids, lower.token_ids, other.token_ids) == ((0, 1, 2, 3), (4, 5, 6, 7, 8, 9), (77,))
    assert addresses(upper.held) == addresses(lower.held) == addresses(cache.held)
    check(prefixes)

    with prefixes.match(ids) as match:
        assert not addresses(match.cache.held) & addresses(cache.held)
    prefixes.max_tokens = 6
    prefixes.insert([0, 1, 2, 3, 77, 78], fake_cache([0, 1, 2, 3, 77, 78]))
    assert list(prefixes.nodes())[0] is upper and shape(prefixes.root) == [0, [4, [1, [1]]]]
    assert not addresses(upper.held) & addresses(cache.held)  # else the evicted tokens' memory would stay
    check(prefixes)


def test_a_part_of_a_cache_does_not_keep_all_of_it_alive_nor_what_computed_it(model: Qwen3Model) -> None:
    cache = KVCache(SMALL)
    model(prompt(b=1), cache=cache)  # with gradients
    ids = prompt(b=1)[0].tolist()
    prefixes = PrefixCache(SMALL)
    prefixes.insert(ids[:7], cache_of(model, prompt(b=1)[:, :7]))
    cache.truncate(15)
    prefixes.insert(ids, cache)
    assert shape(prefixes.root) == [0, [7, [8]]]
    check(prefixes, holding=False)
    with prefixes.match(ids) as match:
        assert all(tensor.grad_fn is None for pair in match.cache.held for tensor in pair)


def test_the_least_recently_used_leaf_goes_first_and_what_is_in_use_stays() -> None:
    prefixes = PrefixCache(FAKE, max_tokens=9)
    texts = [[1, 1, 1], [2, 2, 2], [3, 3, 3]]
    for ids in texts:
        prefixes.insert(ids, fake_cache(ids))
    prefixes.match([1, 1]).close()
    with prefixes.match([2]):
        prefixes.insert([4, 4, 4, 4], fake_cache([4, 4, 4, 4]))
        assert [path(node) for node in prefixes.nodes()] == [(2, 2, 2), (4, 4, 4, 4)]
        prefixes.insert([5] * 9, fake_cache([5] * 9))
        assert [path(node) for node in prefixes.nodes()] == [(2, 2, 2), (5,) * 6]
        assert prefixes.stats.tokens_not_kept == 3
        with prefixes.match([5] * 6):
            prefixes.insert([6, 6], fake_cache([6, 6]))
            assert len(prefixes.root.children) == 2 and prefixes.stats.tokens_not_kept == 5
    prefixes.insert([6, 6], fake_cache([6, 6]))
    assert [path(node) for node in prefixes.nodes()] == [(5,) * 6, (6, 6)]
    assert prefixes.stats.tokens_evicted == 3 + 3 + 4 + 3
    check(prefixes)


def test_a_budget_smaller_than_one_text_keeps_its_beginning() -> None:
    ids = list(range(50))
    for prefixes in (PrefixCache(FAKE, max_tokens=20), PrefixCache(FAKE, max_bytes=20 * FAKE_BYTES + 5),
                     PrefixCache(FAKE, max_tokens=30, max_bytes=20 * FAKE_BYTES)):
        prefixes.insert(ids, fake_cache(ids))
        assert [path(node) for node in prefixes.nodes()] == [tuple(range(20))]
        assert prefixes.num_bytes == 20 * FAKE_BYTES and prefixes.stats.tokens_not_kept == 30
        check(prefixes)
    nothing = PrefixCache(FAKE, max_bytes=FAKE_BYTES - 1)
    nothing.insert(ids, fake_cache(ids))
    assert (nothing.num_tokens, nothing.num_bytes, nothing.stats.tokens_not_kept) == (0, 0, 50)


def test_a_lookup_passes_no_more_nodes_than_lie_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    prefixes = PrefixCache(FAKE)
    for first in range(20):
        for second in range(50):
            prefixes.insert([first, first, second], fake_cache([first, first, second]))
    assert prefixes.num_tokens == 20 * 2 + 1000
    compared = []
    monkeypatch.setattr(prefix_cache, "_agreement", lambda a, b: compared.append(a) or len(a))
    prefixes.match([7, 7, 30, 9]).close()
    assert compared == [(7, 7), (30,)]


def test_the_nine_steps_of_the_course() -> None:
    """System prompt, turns and answers as runs of tokens, and what the tree looks like after each step."""
    system, examples = [1] * 10, [2] * 12
    greeting, greeting_again, once_more = [10] * 4, [11] * 20, [12] * 3
    other, other_again = [20] * 12, [21] * 10
    prefixes = PrefixCache(FAKE, max_tokens=55)

    def step(*parts: list[int]) -> tuple[int, list[object], int]:
        """One generation: how much of it was found, the tree after it, how much was evicted."""
        ids = [token for part in parts for token in part]
        before = prefixes.stats.tokens_evicted
        with prefixes.match(ids) as match:
            found = match.length
        prefixes.insert(ids, fake_cache(ids))
        check(prefixes)
        return found, shape(prefixes.root), prefixes.stats.tokens_evicted - before

    assert shape(prefixes.root) == [0]  # 1
    assert step(system, greeting) == (0, [0, [14]], 0)  # 2
    assert step(system, greeting, greeting_again) == (14, [0, [14, [20]]], 0)  # 3
    assert step(system, other) == (10, [0, [10, [4, [20]], [12]]], 0)  # 4, a split
    assert step(system, other, other_again) == (22, [0, [10, [4], [12, [10]]]], 20)  # 5, the oldest leaf goes
    assert step(examples, [31] * 3) == (0, [0, [10, [4], [12, [10]]], [15]], 0)  # 6
    assert step(examples, [32] * 2)[0] == 12
    assert step(examples, [33] * 2) == (12, [0, [10, [4], [12, [10]]], [12, [3], [2], [2]]], 0)  # 7
    assert step(system, greeting, greeting_again, once_more) == (
        14, [0, [10, [4, [23]]], [12, [2], [2]]], 10 + 12 + 3)  # 8, the second chat goes, and the oldest question
    for answer in ([41], [42], [43], [44]):
        found, tree, _ = step(examples, [33] * 2, answer)
        assert found == 14
    assert tree == [0, [10, [4, [23]]], [12, [2, [1], [1], [1], [1]]]]  # 9
    assert prefixes.num_tokens == 55


# Against a dictionary.

@dataclass
class Span:
    """What the dictionary knows of a stretch; its key is the whole text up to the end of the stretch."""

    start: int
    last_used: int
    pins: int = 0


class Dictionary:
    """The same rules without a tree: every question is answered by looking at everything."""

    def __init__(self, budget: int) -> None:
        self.spans: dict[tuple[int, ...], Span] = {}
        self.budget, self.clock, self.evicted, self.not_kept = budget, 0, 0, 0

    def found(self, ids: tuple[int, ...]) -> int:
        held = {end[:n] for end, span in self.spans.items() for n in range(span.start + 1, len(end) + 1)}
        return max((n for n in range(1, len(ids) + 1) if ids[:n] in held), default=0)

    def holder(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """The span in which a text that is held ends; that of the empty text is none."""
        return next((end for end, span in self.spans.items()
                     if span.start < len(ids) <= len(end) and end[:len(ids)] == ids), ())

    def use(self, ids: tuple[int, ...]) -> None:
        self.clock += 1
        for end, span in self.spans.items():
            if span.start < len(ids) and end[:span.start + 1] == ids[:span.start + 1]:
                span.last_used = self.clock

    def tokens(self) -> int:
        return sum(len(end) - span.start for end, span in self.spans.items())

    def insert(self, ids: tuple[int, ...]) -> None:
        n = self.found(ids)
        holder = self.holder(ids[:n])
        if n < len(ids):
            if n < len(holder):
                whole = self.spans[holder]
                self.spans[ids[:n]] = Span(whole.start, whole.last_used)
                whole.start = n
            while self.tokens() + len(ids) - n > self.budget:
                leaves = [end for end, span in self.spans.items() if not span.pins and end != ids[:n]
                          and not any(len(other) > len(end) and other[:len(end)] == end for other in self.spans)]
                if not leaves:
                    break
                oldest = min(leaves, key=lambda end: self.spans[end].last_used)
                self.evicted += len(oldest) - self.spans.pop(oldest).start
            room = min(len(ids) - n, self.budget - self.tokens())
            self.not_kept += len(ids) - n - room
            if room:
                self.spans[ids[:n + room]] = Span(n, 0)
            ids = ids[:n + room]
        self.use(ids)


texts = st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple)


class TreeAgainstDictionary(RuleBasedStateMachine):
    @initialize(budget=st.sampled_from([1, 4, 8, 14, 25, 1000]), in_bytes=st.booleans())
    def start(self, budget: int, in_bytes: bool) -> None:
        self.prefixes = PrefixCache(FAKE, **{"max_bytes": budget * FAKE_BYTES} if in_bytes else {"max_tokens": budget})
        self.dictionary = Dictionary(budget)
        self.open: list[tuple[Match, tuple[int, ...], tuple[int, ...]]] = []

    @rule(ids=texts, without_keys=st.integers(0, 2), left_behind=st.integers(0, 2))
    def insert(self, ids: tuple[int, ...], without_keys: int, left_behind: int) -> None:
        computed = ids[:max(0, len(ids) - without_keys)]
        if not computed:
            return
        self.prefixes.insert(ids, fake_cache(computed, left_behind))
        self.dictionary.insert(computed)

    @rule(ids=texts, at_most=st.none() | st.integers(0, 9), keep_open=st.booleans())
    def match(self, ids: tuple[int, ...], at_most: int | None, keep_open: bool) -> None:
        match = self.prefixes.match(ids, at_most)
        n = self.dictionary.found(ids[:at_most])
        assert match.length == match.cache.length == n
        self.dictionary.use(ids[:n])
        holder = self.dictionary.holder(ids[:n])
        if keep_open:
            self.open.append((match, ids[:n], holder))
            if holder:
                self.dictionary.spans[holder].pins += 1
        else:
            match.close()

    @rule(ids=texts)
    def generate(self, ids: tuple[int, ...]) -> None:
        """Match, continue, insert, as a generation does."""
        with self.prefixes.match(ids) as match:
            self.dictionary.use(ids[:match.length])
            for layer, (keys, values) in zip(match.cache.layers, fake_held(ids)):
                if match.length < len(ids):
                    layer.update(keys[:, :, match.length:], values[:, :, match.length:])
            match.cache.advance(len(ids) - match.length)
        self.prefixes.insert(ids, match.cache)
        self.dictionary.insert(ids)

    @rule(which=st.integers(0, 100))
    def close_one(self, which: int) -> None:
        if self.open:
            match, _, holder = self.open.pop(which % len(self.open))
            match.close()
            if holder:
                self.dictionary.spans[holder].pins -= 1

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "prefixes"):
            return
        check(self.prefixes)
        in_tree = {path(node): Span(len(path(node)) - len(node.token_ids), node.last_used, node.pins)
                   for node in self.prefixes.nodes()}
        assert in_tree == self.dictionary.spans
        assert self.prefixes.stats.tokens_evicted == self.dictionary.evicted
        assert self.prefixes.stats.tokens_not_kept == self.dictionary.not_kept
        for match, ids, _ in self.open:
            assert same(match.cache.held, fake_held(ids) if ids else [])
            assert self.dictionary.found(ids) == len(ids)

    def teardown(self) -> None:
        while getattr(self, "open", []):
            self.close_one(0)
        if hasattr(self, "prefixes"):
            assert not any(node.pins for node in self.prefixes.nodes()) and self.prefixes.root.pins == 0


TestTreeAgainstDictionary = TreeAgainstDictionary.TestCase
TestTreeAgainstDictionary.settings = settings(max_examples=80, stateful_step_count=25, deadline=None, derandomize=True)


# What is refused, and that nothing changes then.

@pytest.mark.parametrize(("ids", "message"), [
    ([], "no token ids"),
    ([1, -1], "-1 is not a token id.*0 to 999"),
    ([1, 1000], "1000 is not a token id"),
    ([1, 2.0], "2.0 is not a token id"),
    ([True], "True is not a token id"),
    (["a"], "'a' is not a token id"),
    ([[1, 2]], r"\[1, 2\] is not a token id"),
    ("text", "str, not a list"),
    (5, "int, not a list"),
    (torch.tensor([1, 2]), "Tensor, not a list.*tolist"),
], ids=str)
def test_what_are_no_token_ids_is_refused(ids: object, message: str) -> None:
    prefixes = PrefixCache(FAKE)
    for call in (lambda: prefixes.match(ids), lambda: prefixes.insert(ids, fake_cache([1, 2]))):  # type: ignore[arg-type]
        with pytest.raises(InputError, match=message):
            call()
    assert prefixes.stats.lookups == prefixes.num_tokens == prefixes.root.pins == 0


@pytest.mark.parametrize("budget", [0, -3, 1.5, True, "10"])
@pytest.mark.parametrize("name", ["max_tokens", "max_bytes"])
def test_a_budget_of_nothing_is_refused(name: str, budget: object) -> None:
    with pytest.raises(InputError, match=f"{name} is {budget!r}"):
        PrefixCache(FAKE, **{name: budget})  # type: ignore[arg-type]


def test_caches_that_do_not_belong_here_are_refused(model: Qwen3Model) -> None:
    prefixes = PrefixCache(FAKE)
    prefixes.insert([1, 2, 3], fake_cache([1, 2, 3]))
    before = shape(prefixes.root)
    two_rows = KVCache.holding(FAKE, [(k.expand(2, -1, -1, -1), v.expand(2, -1, -1, -1))
                                      for k, v in fake_held([1, 2])])
    doubled = KVCache.holding(FAKE, [(k.double(), v.double()) for k, v in fake_held([1, 2])])
    for cache, message in ((fake_cache([1, 2, 3, 4, 5]), "holds 5 tokens and the text has 4"),
                           (cache_of(model, prompt(b=1, t=3)), "not those of this model"),
                           (two_rows, "2 texts side by side"),
                           (doubled, "holds torch.float32.*torch.float64"),
                           (StaticKVCache(FAKE, 10), "StaticKVCache cannot be inserted")):
        with pytest.raises(InputError, match=message):
            prefixes.insert([1, 2, 3, 4], cache)  # type: ignore[arg-type]
        assert shape(prefixes.root) == before
    for at_most in (-1, 1.5):
        with pytest.raises(InputError, match=f"at_most is {at_most}"):
            prefixes.match([1], at_most=at_most)  # type: ignore[arg-type]
    prefixes.insert([1, 2, 3, 4], KVCache(FAKE))  # nothing computed, nothing kept
    assert shape(prefixes.root) == before


def test_generation_is_refused_before_it_starts(model: Qwen3Model) -> None:
    prefixes = PrefixCache(SMALL)
    for ids, cache, error, message in (
            (prompt(b=2), prefixes, InputError, "a batch of 2"),
            (prompt(b=1), PrefixCache(FAKE), InputError, "another shape"),
            (prompt(b=1)[:, :0], prefixes, InputError, "at least one token"),
            (torch.tensor([[SMALL.vocab_size]]), prefixes, InputError, "not in the vocabulary"),
            (prompt(b=1, t=125), prefixes, ContextLengthError, "lower max_new_tokens to 4")):
        with pytest.raises(error, match=message):
            generate_with_prefix(model, ids, 10, None, cache)
    generated(model, prompt(b=1), 2, prefixes)
    halved = make(SMALL, torch.bfloat16)
    with pytest.raises(InputError, match="torch.float32.*torch.bfloat16"):
        generate_with_prefix(halved, prompt(b=1), 2, None, prefixes)
    prefixes.clear()
    generated(halved, prompt(b=1), 2, prefixes)
    assert prefixes.num_bytes == 21 * 2 * 3 * 2 * 16 * 2
    with pytest.raises(InputError, match="another shape"):
        generate_with_prefix(model, prompt(b=1), 2, None, PrefixCache(variant(head_dim=8)))
