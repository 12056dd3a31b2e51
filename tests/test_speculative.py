"""Speculative decoding: the text the model would have written, or one with the same distribution, in fewer passes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_model import SMALL, make, make_transformers, prompt, variant
from torch import Tensor

from course_utils.config import Qwen3Config
from course_utils.errors import ContextLengthError, InputError
from course_utils.generation import generate_text_basic_cache, generate_tokens
from course_utils.kv_cache import Cache, KVCache, StaticKVCache
from course_utils.loading import load_model, load_tokenizer
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import Sampler, Sampling, draw
from course_utils.speculative import Draft, ModelDraft, PromptLookup, Speculation, accept, generate_speculative

CPU = torch.device("cpu")


def noisy(model: Qwen3Model, share: float) -> Qwen3Model:
    """A model that often agrees with another: its weights with some noise."""
    other = Qwen3Model(model.config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for mine, theirs in zip(other.parameters(), model.parameters()):
            mine.copy_(theirs + share * torch.randn(theirs.shape, generator=generator))
    return other


class Told:
    """A draft that knows the text by heart, and says something else at every so many places (0: nowhere)."""

    def __init__(self, text: list[int], wrong_every: int = 0) -> None:
        self.text, self.wrong_every = text, wrong_every

    def propose(self, text: Tensor, count: int, choose: Callable[[Tensor], Tensor]) -> Tensor:
        places = range(text.shape[1], min(text.shape[1] + count, len(self.text)))
        return torch.tensor([[(self.text[place] + (self.wrong_every > 0 and place % self.wrong_every == 0))
                              % SMALL.vocab_size for place in places]], dtype=torch.long)


class Silent:
    """A draft that never has a guess."""

    def propose(self, text: Tensor, count: int, choose: Callable[[Tensor], Tensor]) -> Tensor:
        return text[:, :0]


@pytest.fixture(scope="module")
def model() -> Qwen3Model:
    return make(SMALL)


@pytest.fixture(scope="module")
def close_draft(model: Qwen3Model) -> Qwen3Model:
    return noisy(model, 0.01)


def speculate(model: Qwen3Model, ids: Tensor, n: int, draft: Draft, **options: object) -> list[int]:
    return [int(token) for token in generate_speculative(model, ids, n, draft, **options)]  # type: ignore[arg-type]


def plain(model: Qwen3Model, ids: Tensor, n: int, eos: int | None = None) -> list[int]:
    tokens: list[int] = generate_text_basic_cache(model, ids, n, eos)[0].tolist()
    return tokens


# ---- greedy: the same text ----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 9, 30])
def test_greedy_text_of_many_prompts_is_the_targets_own(model: Qwen3Model, close_draft: Qwen3Model,
                                                        length: int) -> None:
    ids = prompt(40, length, seed=length)
    expected = generate_text_basic_cache(model, ids, 8)
    draft, speculation = ModelDraft(close_draft), Speculation()
    for row, wanted in zip(ids, expected):
        assert speculate(model, row[None], 8, draft, speculation=speculation) == wanted.tolist()
    assert 0.2 < speculation.acceptance_rate < 0.9  # both happened, again and again


def test_greedy_text_of_the_bundled_models_is_the_targets_own() -> None:
    tiny, nano, tokenizer = load_model("tiny", CPU), load_model("nano", CPU), load_tokenizer("tiny")
    topics = ("token", "key-value cache", "language model", "temperature", "tokenizer")
    texts = [f"{question} {topic}?" for topic in topics for question in ("What is a", "Explain the notion of")]
    texts += ["从前，", "什么是注意力？", "用一句话解释大语言模型。", "请重复：小船月亮小船月亮", "河的英文是",
              "Repeat: cat boat.", "Once upon a time,", "boat river moon star boat river moon star",
              "红的苹果红的苹果红的", "Tom has a cat. Tom",
              'Tom said: "cat boat moon river" What did Tom say? Tom said: "',
              "cat boat moon river star cat boat moon river star cat boat", "猫狗鸟鱼马猫狗鸟鱼马猫狗鸟鱼马猫"]
    by_model, by_lookup = Speculation(), Speculation()
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text)])
        expected = plain(tiny, ids, 12, tokenizer.eos_token_id)
        for draft, speculation in ((ModelDraft(nano), by_model), (PromptLookup(), by_lookup)):
            told = speculate(tiny, ids, 12, draft, eos_token_id=tokenizer.eos_token_id, speculation=speculation)
            assert told == expected, text
    assert by_model.tokens_per_pass > 2 and by_lookup.tokens_per_pass > 1.1


@pytest.mark.parametrize("num_drafted", range(1, 9))
@pytest.mark.parametrize("kind", ["noisy", "itself", "unrelated", "lookup", "every third wrong", "silent"])
def test_any_draft_and_any_number_of_drafted_tokens(model: Qwen3Model, close_draft: Qwen3Model, kind: str,
                                                    num_drafted: int) -> None:
    ids = prompt(1, 7, seed=num_drafted)
    expected = plain(model, ids, 14)
    draft: Draft = {"noisy": ModelDraft(close_draft), "itself": ModelDraft(model),
                    "unrelated": ModelDraft(make(variant(num_hidden_layers=1))), "lookup": PromptLookup(),
                    "every third wrong": Told(ids[0].tolist() + expected, 3), "silent": Silent()}[kind]
    assert speculate(model, ids, 14, draft, num_drafted=num_drafted) == expected


@pytest.mark.parametrize("num_drafted", [1, 3, 4])
def test_a_draft_that_is_the_target_is_always_right(model: Qwen3Model, passes: list[int], num_drafted: int) -> None:
    ids, twin = prompt(1, 6), noisy(model, 0)  # another object, so that its own passes are not counted
    for n in range(1, 14):
        passes.clear()
        speculation = Speculation()
        speculate(model, ids, n, ModelDraft(twin), num_drafted=num_drafted, speculation=speculation)
        rounds = -(-(n - 1) // (num_drafted + 1))
        assert len(passes) == 1 + rounds == 1 + len(speculation.rounds)
        assert speculation.accepted == speculation.drafted == n - 1 - rounds


def test_a_draft_that_is_always_wrong_costs_no_pass_more(model: Qwen3Model, passes: list[int]) -> None:
    ids = prompt(1, 6)
    expected = plain(model, ids, 15)
    passes.clear()
    speculation = Speculation()
    told = speculate(model, ids, 15, Told(ids[0].tolist() + expected, 1), speculation=speculation)
    assert told == expected
    assert len(passes) == 15 and speculation.accepted == 0 and speculation.tokens_per_pass == 1
    assert max(passes[1:]) == 5 and passes[-2:] == [2, 1]  # nothing is drafted that could not be used


def test_greedy_text_equals_that_of_transformers_assisted_generation(model: Qwen3Model,
                                                                     close_draft: Qwen3Model) -> None:
    target, assistant = make_transformers(model), make_transformers(close_draft)
    for seed in range(3):
        ids = prompt(1, 10, seed)
        options = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": None, "pad_token_id": 0,
                   "attention_mask": torch.ones_like(ids)}
        theirs = target.generate(ids, assistant_model=assistant, **options)[0, 10:].tolist()
        assert speculate(model, ids, 24, ModelDraft(close_draft)) == theirs
        theirs = target.generate(ids, prompt_lookup_num_tokens=4, **options)[0, 10:].tolist()
        assert speculate(model, ids, 24, PromptLookup()) == theirs


# ---- where it ends, and what it leaves behind -----------------------------------------------------------------


def growing(length: int) -> Cache:
    return KVCache(SMALL)


def fixed(length: int) -> Cache:
    return StaticKVCache(SMALL, length)


def same_content(a: Cache, b: Cache) -> bool:
    def content(cache: Cache) -> list[Tensor]:
        if isinstance(cache, KVCache):
            return [tensor for pair in cache.held for tensor in pair]
        return [tensor[:, :, : cache.length] for layer in cache.layers for tensor in (layer.keys, layer.values)]

    return a.length == b.length and all(
        torch.allclose(mine, theirs, rtol=1e-4, atol=1e-4) for mine, theirs in zip(content(a), content(b)))


@pytest.mark.parametrize("make_cache", [growing, fixed], ids=["growing", "fixed"])
@pytest.mark.parametrize("wrong_every", [0, 1, 3], ids=["right", "wrong", "mixed"])
def test_every_end_leaves_text_and_cache_as_the_plain_loop_does(model: Qwen3Model, wrong_every: int,
                                                                make_cache: Callable[[int], Cache]) -> None:
    ids = prompt(1, 6)
    free = plain(model, ids, 14)
    draft = Told(ids[0].tolist() + free, wrong_every)
    cases = [(n, None) for n in range(15)] + [(14, end) for end in free]
    for n, end in cases:
        theirs, ours = make_cache(20), make_cache(20)
        expected = [int(token) for token in generate_tokens(model, ids, n, end, cache=theirs)]
        assert speculate(model, ids, n, draft, eos_token_id=end, cache=ours) == expected, (n, end)
        assert same_content(ours, theirs), (n, end)


@pytest.mark.parametrize("make_cache", [growing, fixed], ids=["growing", "fixed"])
def test_a_caller_that_stops_early_finds_the_cache_as_the_plain_loop_leaves_it(
        model: Qwen3Model, make_cache: Callable[[int], Cache]) -> None:
    ids = prompt(1, 6)
    free = plain(model, ids, 14)
    for taken, end in itertools.product(range(1, 14), (None, free[9])):
        theirs, ours = make_cache(20), make_cache(20)
        streams = (generate_tokens(model, ids, 14, end, cache=theirs),
                   generate_speculative(model, ids, 14, Told(ids[0].tolist() + free, 5), end, cache=ours))
        for stream in streams:
            for _ in itertools.islice(stream, taken):
                pass
            stream.close()  # type: ignore[attr-defined]
        assert same_content(ours, theirs), (taken, end)


def test_a_stream_that_is_closed_late_leaves_a_cache_alone_that_was_gone_on_with(model: Qwen3Model) -> None:
    ids, cache = prompt(1, 6), KVCache(SMALL)
    free = plain(model, ids, 14)
    stream = generate_speculative(model, ids, 14, Told(ids[0].tolist() + free), cache=cache)
    assert [int(next(stream)) for _ in range(3)] == free[:3]
    cache.truncate(6 + 2)
    rest = generate_tokens(model, torch.tensor([free[2:3]]), 4, cache=cache)
    assert [int(token) for token in rest] == free[3:7]
    stream.close()  # type: ignore[attr-defined]
    assert cache.length == 6 + 6


def test_a_round_that_fails_leaves_nothing_of_what_nobody_has_seen(model: Qwen3Model) -> None:
    ids, cache = prompt(1, 6), KVCache(SMALL)

    class Failing(Told):
        def propose(self, text: Tensor, count: int, choose: Callable[[Tensor], Tensor]) -> Tensor:
            if text.shape[1] > 10:
                raise KeyboardInterrupt
            return super().propose(text, count, choose)

    free, seen = plain(model, ids, 14), []
    with pytest.raises(KeyboardInterrupt):
        for token in generate_speculative(model, ids, 14, Failing(ids[0].tolist() + free), cache=cache):
            seen.append(int(token))
    assert seen == free[:len(seen)] and cache.length == 6 + len(seen) - 1
    rest = generate_tokens(model, torch.tensor([seen[-1:]]), 14 - len(seen), cache=cache)
    assert seen + [int(token) for token in rest] == free


def test_several_end_tokens(model: Qwen3Model) -> None:
    ids = prompt(1, 6)
    free = plain(model, ids, 20)
    stop = min(free.index(free[4]), free.index(free[9]))
    draft = Told(ids[0].tolist() + free)
    assert speculate(model, ids, 20, draft, eos_token_id={free[4], free[9]}) == free[:stop]


def test_a_text_may_fill_the_context_to_the_end(model: Qwen3Model, close_draft: Qwen3Model) -> None:
    ids = prompt(1, 110)
    expected = plain(model, ids, 19)
    for draft in (ModelDraft(close_draft), ModelDraft(model), PromptLookup()):
        assert speculate(model, ids, 19, draft) == expected
        assert speculate(model, ids, 19, draft, cache=StaticKVCache(SMALL, 128)) == expected
    with pytest.raises(ContextLengthError, match="19"):
        generate_speculative(model, ids, 20, PromptLookup())


def test_a_draft_with_a_shorter_context_falls_silent(model: Qwen3Model) -> None:
    short = noisy(make(variant(max_position_embeddings=16)), 0)  # the target's weights
    speculation = Speculation()
    ids = prompt(1, 8)
    assert speculate(model, ids, 30, ModelDraft(short), speculation=speculation) == plain(model, ids, 30)
    drafted = [len(each.drafted) for each in speculation.rounds]
    assert drafted[0] == 4 and drafted[-1] == 0 and speculation.accepted == speculation.drafted


def test_rounds_tell_the_whole_story(model: Qwen3Model, close_draft: Qwen3Model) -> None:
    ids, speculation = prompt(1, 9), Speculation()
    text = speculate(model, ids, 25, ModelDraft(close_draft), speculation=speculation)
    assert text[1:] == [token for each in speculation.rounds for token in each.new_tokens]
    for each in speculation.rounds:
        assert each.new_tokens[:-1] == each.drafted[: each.accepted] and len(each.new_tokens) == each.accepted + 1
        assert each.accepted == len(each.drafted) or each.new_tokens[-1] != each.drafted[each.accepted]
    assert speculation.acceptance_rate == speculation.accepted / speculation.drafted
    assert speculation.tokens_per_pass == pytest.approx(24 / len(speculation.rounds))
    assert Speculation().acceptance_rate == Speculation().tokens_per_pass == 0


def test_what_stands_behind_the_end_does_not_count(model: Qwen3Model) -> None:
    ids = prompt(1, 6)
    free = plain(model, ids, 20)
    for end in free[1:]:
        speculation = Speculation()
        text = speculate(model, ids, 20, Told(ids[0].tolist() + free), eos_token_id=end, speculation=speculation)
        assert text[1:] == [token for each in speculation.rounds for token in each.new_tokens]
        assert speculation.rounds == [] or 0 <= speculation.accepted - (len(text) - 1) + len(speculation.rounds) <= 1


def test_tokens_come_out_round_by_round_and_outside_inference_mode(model: Qwen3Model, passes: list[int]) -> None:
    ids = prompt(1, 6)
    told = Told(ids[0].tolist() + plain(model, ids, 9))
    passes.clear()
    seen = []
    for token in generate_speculative(model, ids, 9, told, num_drafted=3):
        assert token.shape == (1, 1) and not torch.is_inference_mode_enabled()
        seen.append(len(passes))
    assert seen == [1, 2, 2, 2, 2, 3, 3, 3, 3] and passes == [6, 4, 4]


# ---- drafts ---------------------------------------------------------------------------------------------------


def likeliest(logits: Tensor) -> Tensor:
    return logits.argmax(dim=-1, keepdim=True)


def test_a_draft_model_computes_only_what_it_does_not_know(model: Qwen3Model, passes: list[int]) -> None:
    draft, ids = ModelDraft(model), prompt(1, 10)
    first = draft.propose(ids, 4, likeliest)
    assert passes == [10, 1, 1, 1]
    passes.clear()
    longer = torch.cat((ids, first[:, :2], (first[:, 2:3] + 1) % SMALL.vocab_size), dim=1)  # two accepted, one not
    second = draft.propose(longer, 2, likeliest)
    assert passes == [1, 1]
    assert second[0].tolist() == plain(model, longer, 2)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.integers(1, 4)), min_size=2,
                max_size=5))
def test_a_draft_model_that_was_used_before_guesses_like_a_fresh_one(calls: list[tuple[list[int], int]]) -> None:
    """Texts that share beginnings of every length, longer and shorter, in any order."""
    used = ModelDraft(_TINY_TARGET)
    for text, count in calls:
        ids = torch.tensor([text])
        assert used.propose(ids, count, likeliest)[0].tolist() == plain(_TINY_TARGET, ids, count)


def test_a_draft_model_survives_an_interrupted_round(model: Qwen3Model) -> None:
    ids = prompt(1, 10)
    for after in (ids, prompt(1, 15), torch.cat((ids, prompt(1, 6, seed=5)), dim=1)):
        draft, calls = ModelDraft(model), itertools.count()

        def interrupted(logits: Tensor, calls: Iterator[int] = calls) -> Tensor:
            if next(calls) == 2:
                raise KeyboardInterrupt
            return likeliest(logits)

        with pytest.raises(KeyboardInterrupt):
            draft.propose(ids, 4, interrupted)
        assert draft.propose(after, 3, likeliest)[0].tolist() == plain(model, after, 3)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=14), st.integers(1, 5), st.integers(1, 4))
def test_prompt_lookup_equals_a_search_by_hand(text: list[int], count: int, longest: int) -> None:
    def by_hand() -> list[int]:
        for n in range(longest, 0, -1):
            places = [end for end in range(n, len(text)) if text[end - n:end] == text[len(text) - n:] and len(text) > n]
            if places:
                return text[places[-1]:places[-1] + count]
        return []

    assert PromptLookup(longest).propose(torch.tensor([text]), count, likeliest).tolist() == [by_hand()]


# ---- sampling: the same distribution --------------------------------------------------------------------------

Rule = Callable[[Tensor, Tensor, Tensor, torch.Generator], tuple[int, Tensor]]


def replaced(drafted: Tensor, q: Tensor, p: Tensor, generator: torch.Generator, keep: Callable[[Tensor], Tensor],
             left: Callable[[Tensor, Tensor], Tensor]) -> tuple[int, Tensor]:
    """A rule of the exact one's form: `keep` says whether each token stays, `left` from what a replacement comes."""
    n = len(drafted)
    kept = int(keep(torch.rand(n, generator=generator)).long().cumprod(dim=0).sum())
    rest = left(p[kept], q[kept]) if kept < n else p[kept]
    return kept, draw(rest[None], generator)[0]


def _chosen(drafted: Tensor, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    places = torch.arange(len(drafted))
    return q[places, drafted], p[places, drafted]


def redraw_from_p(drafted: Tensor, q: Tensor, p: Tensor, generator: torch.Generator) -> tuple[int, Tensor]:
    a, b = _chosen(drafted, q, p)
    return replaced(drafted, q, p, generator, lambda darts: darts * a < b, lambda p, q: p)


def accept_if_likelier(drafted: Tensor, q: Tensor, p: Tensor, generator: torch.Generator) -> tuple[int, Tensor]:
    a, b = _chosen(drafted, q, p)
    return replaced(drafted, q, p, generator, lambda darts: b >= a, lambda p, q: (p - q).clamp(min=0) + 1e-9 * p)


def accept_upside_down(drafted: Tensor, q: Tensor, p: Tensor, generator: torch.Generator) -> tuple[int, Tensor]:
    a, b = _chosen(drafted, q, p)
    return replaced(drafted, q, p, generator, lambda darts: darts * b < a,
                    lambda p, q: (p - q).clamp(min=0) + 1e-9 * p)


def take_the_size_of_the_difference(drafted: Tensor, q: Tensor, p: Tensor,
                                    generator: torch.Generator) -> tuple[int, Tensor]:
    a, b = _chosen(drafted, q, p)
    return replaced(drafted, q, p, generator, lambda darts: darts * a < b, lambda p, q: (p - q).abs())


def chance_of_chi_squared(counts: Tensor, probabilities: Tensor) -> float:
    """How likely counts at least so far from these probabilities are, by Pearson's test; 0 if the impossible came."""
    if bool((counts[probabilities == 0] > 0).any()):
        return 0.0
    expected = probabilities.double() / probabilities.double().sum() * counts.sum()
    order = expected.argsort()
    expected, counts = expected[order], counts[order].double()
    # Cells with few expected counts are taken together, as the test demands.
    rare = expected.cumsum(0) < 5
    cells = [(expected[rare].sum(), counts[rare].sum())] if bool((expected[rare] > 0).any()) else []
    cells += list(zip(expected[~rare], counts[~rare]))
    statistic = sum((seen - wanted) ** 2 / wanted for wanted, seen in cells)
    freedom = torch.tensor((len(cells) - 1) / 2).double()
    return float(torch.special.gammaincc(freedom, torch.as_tensor(statistic) / 2)) if len(cells) > 1 else 1.0


def some_distributions(kind: str, places: int, v: int, seed: int) -> tuple[Tensor, Tensor]:
    """q, (places, v), and p, (places + 1, v)."""
    generator = torch.Generator().manual_seed(seed)
    p = (1.5 * torch.randn(places + 1, v, generator=generator)).softmax(dim=-1)
    q = (1.5 * torch.randn(places, v, generator=generator)).softmax(dim=-1)
    if kind == "with zeros":  # as top-k and top-p make them, not at the same tokens
        p[:, :2], q[:, 1:3] = 0, 0
    elif kind == "equal":
        q = p[:-1].clone()
    elif kind == "nearly equal":
        q = (p[:-1] + 0.02 * torch.rand(places, v, generator=generator))
    elif kind == "nothing in common":
        p[:, : v // 2], q[:, v // 2:] = 0, 0
    elif kind == "certain":  # prompt look-up
        q = torch.nn.functional.one_hot(p[:-1].argmax(dim=-1), v).float()
    return q / q.sum(-1, keepdim=True), p / p.sum(-1, keepdim=True)


def chances(rule: Rule, kind: str, seed: int, runs: int) -> list[float]:
    """Let a rule judge drafted tokens many times; for each place, how likely what came out there is under p."""
    places, v = 3, 6
    q, p = some_distributions(kind, places, v, seed)
    generator = torch.Generator().manual_seed(seed)
    drafted = torch.cat([draw(row.expand(runs, -1), generator) for row in q], dim=1)
    counts = torch.zeros(places + 1, v, dtype=torch.long)
    for proposal in drafted:
        kept, behind = rule(proposal, q, p, generator)
        for place in range(kept):
            counts[place, proposal[place]] += 1
        counts[kept, behind] += 1
    return [chance_of_chi_squared(counts[place], p[place]) for place in range(places + 1) if counts[place].sum() > 500]


KINDS = ["unlike", "with zeros", "equal", "nearly equal", "nothing in common", "certain"]


@pytest.mark.parametrize("kind", KINDS)
def test_accepted_and_replaced_tokens_have_the_targets_distribution(kind: str) -> None:
    found = [chance for seed in (1, 2) for chance in chances(accept, kind, seed, 2000)]
    assert len(found) >= 2 and min(found) > 1e-3


@pytest.mark.parametrize("rule", [redraw_from_p, accept_if_likelier, accept_upside_down,
                                  take_the_size_of_the_difference])
def test_a_broken_rule_fails_the_same_test(rule: Rule) -> None:
    assert min(chances(rule, "unlike", 1, 2000)) < 1e-9


def test_everything_equal_is_accepted_and_nothing_in_common_never() -> None:
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        q, p = some_distributions("equal", 4, 9, seed)
        assert accept(draw(q, generator)[:, 0], q, p, generator)[0] == 4
        q, p = some_distributions("nothing in common", 4, 9, seed)
        assert accept(draw(q, generator)[:, 0], q, p, generator)[0] == 0


def test_with_nothing_drafted_the_token_comes_from_the_target() -> None:
    p = torch.tensor([[0.0, 1.0, 0.0]])
    kept, behind = accept(torch.zeros(0, dtype=torch.long), torch.zeros(0, 3), p, torch.Generator())
    assert kept == 0 and behind.tolist() == [1]


_TINY = Qwen3Config(vocab_size=4, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                    num_key_value_heads=1, head_dim=8, max_position_embeddings=32)


def _tiny(std: float) -> Qwen3Model:
    model = Qwen3Model(_TINY).eval()
    generator = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=std, generator=generator)
    return model


_TINY_TARGET, _TINY_DRAFT = _tiny(0.35), noisy(_tiny(0.35), 0.15)
_TINY_PROMPT = torch.tensor([[2, 0, 2]])
WAYS_TO_SAMPLE = {
    "as it is": Sampling(),
    "temperature and top-k": Sampling(temperature=0.7, top_k=3),
    "top-p and penalty": Sampling(top_p=0.9, repetition_penalty=1.3),
}


def exact_probabilities(sampling: Sampling) -> Tensor:
    """Of every text of three new tokens, (4, 4, 4), from the target alone, without a cache."""
    whole = torch.zeros(4, 4, 4)
    for text in itertools.product(range(4), repeat=3):
        chance = 1.0
        for place, token in enumerate(text):
            ids = torch.cat((_TINY_PROMPT, torch.tensor([text[:place]], dtype=torch.long)), dim=1)
            with torch.inference_mode():
                logits = _TINY_TARGET(ids)[:, -1]
            seen = torch.zeros_like(logits, dtype=torch.bool).index_fill(1, ids[0], True)
            chance *= float(sampling.probabilities(logits, seen)[0, token])
        whole[text] = chance
    return whole


@pytest.mark.parametrize("draft", [ModelDraft(_TINY_DRAFT), PromptLookup()], ids=["model", "lookup"])
@pytest.mark.parametrize("sampling", WAYS_TO_SAMPLE.values(), ids=WAYS_TO_SAMPLE)
def test_sampled_texts_have_the_targets_distribution(sampling: Sampling, draft: Draft) -> None:
    generator, counts, speculation = torch.Generator().manual_seed(5), torch.zeros(4, 4, 4), Speculation()
    for _ in range(300):
        tokens = speculate(_TINY_TARGET, _TINY_PROMPT, 4, draft, num_drafted=2, sampling=sampling, seed=generator,
                           speculation=speculation)
        counts[tuple(tokens[:3])] += 1
    assert 0.1 < speculation.acceptance_rate < 0.95
    assert chance_of_chi_squared(counts.flatten(), exact_probabilities(sampling).flatten()) > 1e-3


def test_the_same_seed_gives_the_same_text(model: Qwen3Model, close_draft: Qwen3Model) -> None:
    def text(seed: int | torch.Generator) -> list[int]:
        return speculate(model, prompt(1, 6), 16, ModelDraft(close_draft), sampling=Sampling(temperature=3), seed=seed)

    generator = torch.Generator().manual_seed(7)
    assert text(7) == text(7) == text(generator) != text(8)
    assert text(generator) != text(7)  # a generator goes on where it was


def test_sampling_that_leaves_one_token_is_greedy(model: Qwen3Model, close_draft: Qwen3Model) -> None:
    ids = prompt(1, 6)
    for sampling in (Sampling(top_k=1), Sampling(temperature=0), Sampling(top_p=0.0)):
        assert speculate(model, ids, 16, ModelDraft(close_draft), sampling=sampling) == plain(model, ids, 16)


def test_a_repetition_penalty_counts_drafted_tokens_too(model: Qwen3Model, close_draft: Qwen3Model) -> None:
    ids, sampling = prompt(1, 6), Sampling(temperature=0, repetition_penalty=3.0)
    expected = [int(token) for token in generate_tokens(model, ids, 24, cache=KVCache(SMALL),
                                                        choose=Sampler(sampling, 0, ids))]
    assert expected != plain(model, ids, 24)
    for draft in (ModelDraft(close_draft), ModelDraft(model), Told(ids[0].tolist() + expected, 5)):
        assert speculate(model, ids, 24, draft, sampling=sampling) == expected
    drawn, speculation = Sampling(temperature=2, repetition_penalty=3.0), Speculation()
    speculate(model, ids, 24, ModelDraft(noisy(model, 0)), sampling=drawn, speculation=speculation)
    assert speculation.acceptance_rate == 1  # the draft takes what it has drafted into account as well


@pytest.mark.parametrize("kind", ["model", "lookup", "told"])
@pytest.mark.parametrize("sampling", [Sampling(temperature=1e6), Sampling(temperature=1e6, repetition_penalty=2.0),
                                      Sampling(temperature=0)], ids=str)
def test_ids_without_text_are_never_drawn(model: Qwen3Model, close_draft: Qwen3Model, kind: str,
                                          sampling: Sampling) -> None:
    """Models have some rows more than their tokenizer has tokens; here most."""
    ids = prompt(1, 9)  # of the whole vocabulary, so that a look-up proposes others, too
    draft: Draft = {"model": ModelDraft(close_draft), "lookup": PromptLookup(1),
                    "told": Told([*ids[0].tolist(), *range(205, 211), *range(205, 211)])}[kind]
    for seed in range(4):
        told = speculate(model, ids, 24, draft, sampling=sampling, seed=seed, vocab_size=20)
        assert len(told) == 24 and max(told) < 20
    if sampling.temperature == 0:
        greedy = Sampler(sampling, vocab_size=20)
        assert told == [int(t) for t in generate_tokens(model, ids, 24, cache=KVCache(SMALL), choose=greedy)]


# ---- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "message"), [
    ({"num_drafted": 0}, "num_drafted is 0"),
    ({"num_drafted": -1}, "num_drafted is -1"),
    ({"num_drafted": 2.5}, "num_drafted is 2.5"),
    ({"draft": make(SMALL)}, "is a Qwen3Model: give a ModelDraft"),
    ({"draft": None}, "is a NoneType"),
    ({"sampling": 0.8}, "settings are 0.8"),
    ({"seed": "seven"}, "seed is 'seven'"),
    ({"token_ids": prompt(2, 5)}, "batch of 2"),
    ({"token_ids": torch.zeros(1, 0, dtype=torch.long)}, "at least one token"),
    ({"token_ids": torch.tensor([[SMALL.vocab_size]])}, "not in the vocabulary"),
    ({"max_new_tokens": -1}, "whole number from 0 on"),
    ({"draft": ModelDraft(make(variant(vocab_size=210)))}, "vocabulary of 210 .* 211"),
])
def test_what_cannot_be_is_refused_at_the_call(model: Qwen3Model, passes: list[int], change: dict[str, object],
                                               message: str) -> None:
    arguments = {"token_ids": prompt(1, 5), "max_new_tokens": 4, "draft": PromptLookup()} | change
    with pytest.raises(InputError, match=message):
        generate_speculative(model, **arguments)  # type: ignore[arg-type]
    assert not passes


def test_a_cache_in_use_is_refused_and_left_alone(model: Qwen3Model) -> None:
    cache = KVCache(SMALL)
    with torch.inference_mode():
        model(prompt(1, 3), cache=cache)
    with pytest.raises(InputError, match="holds 3 tokens"):
        generate_speculative(model, prompt(1, 5), 4, PromptLookup(), cache=cache)
    assert cache.length == 3
    with pytest.raises(ContextLengthError, match="do not fit into 8"):
        generate_speculative(model, prompt(1, 6), 4, PromptLookup(), cache=StaticKVCache(SMALL, 8))


def test_prompt_lookup_needs_a_token_to_look_for() -> None:
    for longest in (0, -1, 1.5):
        with pytest.raises(InputError, match=f"longest is {longest}"):
            PromptLookup(longest)  # type: ignore[arg-type]


def test_a_draft_that_proposes_too_much_is_refused(model: Qwen3Model) -> None:
    class Talkative:
        def propose(self, text: Tensor, count: int, choose: Callable[[Tensor], Tensor]) -> Tensor:
            return text[:, :1].expand(-1, count + 1)

    with pytest.raises(InputError, match="proposed 5 tokens where 4"):
        speculate(model, prompt(1, 5), 9, Talkative())
