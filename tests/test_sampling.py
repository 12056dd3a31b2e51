"""Sampling: what is kept and with which probability as in transformers, draws as probable as they claim, refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_model import SMALL, make, make_transformers, prompt
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from course_utils.batching import pad_left
from course_utils.errors import CheckpointError, InputError
from course_utils.generation import generate_text_basic_cache, generate_tokens, greedy
from course_utils.kv_cache import KVCache
from course_utils.loading import load_model, load_sampling, load_tokenizer
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import (
    GREEDY,
    Sampler,
    Sampling,
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    occurring,
    penalize_repetition,
    scale_by_temperature,
)

SIZES, SCALES = (1, 2, 7, 211, 5000), (0.01, 1.0, 30.0)
QWEN3 = {"bos_token_id": 151643, "do_sample": True, "eos_token_id": [151645, 151643], "pad_token_id": 151643,
         "temperature": 0.6, "top_k": 20, "top_p": 0.95, "transformers_version": "4.51.0"}
CHI_SQUARED = 45.0  # with 9 degrees of freedom it is larger once in a million times


def random_logits(v: int, scale: float = 1.0, b: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(b, v, generator=torch.Generator().manual_seed(seed)) * scale


def several_logits() -> list[Tensor]:
    """Random rows of many sizes and scales, rounded ones with ties, and some with tokens that are out already."""
    plain = [random_logits(v, scale) for v in SIZES for scale in SCALES]
    holes = [logits.masked_fill(random_logits(logits.shape[-1], seed=1) > 0.5, -math.inf) for logits in plain]
    for logits in holes:
        logits[:, 0] = 0.0
    return plain + [logits.round() for logits in plain] + holes


def random_ids(v: int, b: int = 4) -> Tensor:
    return torch.randint(0, v, (b, 9), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("temperature", [1e-6, 0.1, 0.6, 1.0, 1.7, 1e6])
def test_temperature_equals_that_of_transformers(temperature: float) -> None:
    for logits in several_logits():
        expected = TemperatureLogitsWarper(temperature)(None, logits)
        assert torch.equal(scale_by_temperature(logits, temperature), expected)


@pytest.mark.parametrize("k", [1, 2, 5, 50, 10_000])
def test_top_k_equals_that_of_transformers(k: int) -> None:
    for logits in several_logits():
        assert torch.equal(keep_top_k(logits, k), TopKLogitsWarper(k)(None, logits))


@pytest.mark.parametrize("p", [0.0, 1e-9, 0.1, 0.5, 0.9, 0.95, 0.999])
def test_top_p_equals_that_of_transformers(p: float) -> None:
    for logits in several_logits():
        assert torch.equal(keep_top_p(logits, p), TopPLogitsWarper(p)(None, logits))


@pytest.mark.parametrize("min_p", [0.0, 1e-9, 0.02, 0.1, 0.5, 1.0])
def test_min_p_equals_that_of_transformers(min_p: float) -> None:
    for logits in several_logits():
        assert torch.equal(keep_min_p(logits, min_p), MinPLogitsWarper(min_p)(None, logits))


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.1, 5.0])
def test_the_repetition_penalty_equals_that_of_transformers(penalty: float) -> None:
    for logits in several_logits():
        ids = random_ids(logits.shape[-1])
        expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits)
        assert torch.equal(penalize_repetition(logits, occurring(ids, logits.shape[-1]), penalty), expected)


ALL_TOGETHER = [
    Sampling(), Sampling(0.6, 20, 0.95), Sampling(0.8, top_p=0.95), Sampling(1.5, min_p=0.1),
    Sampling(0.7, 5, 0.8, 0.05, 1.3), Sampling(3.0, 40, 0.5, 0.2, 0.9), Sampling(top_k=1), Sampling(top_p=1.0)]


@pytest.mark.parametrize("sampling", ALL_TOGETHER, ids=str)
def test_all_together_equal_those_of_transformers(sampling: Sampling) -> None:
    """In the order of `generate` in transformers, which leaves out a top-p of 1 as well."""
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty),
                                      TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k is not None:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p is not None and sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p is not None:
        processors.append(MinPLogitsWarper(sampling.min_p))
    for logits in several_logits():
        ids = random_ids(logits.shape[-1])
        expected = processors(ids, logits.clone())
        seen = occurring(ids, logits.shape[-1])
        assert torch.equal(sampling.apply(logits, seen), expected)
        assert torch.equal(sampling.probabilities(logits, seen), expected.softmax(-1))


@pytest.mark.parametrize("sampling", [Sampling(0.7, 20, 0.9, 0.01, 1.2), Sampling(2.0, repetition_penalty=0.8)])
def test_a_text_of_tiny_equals_one_made_with_the_processors_of_transformers(sampling: Sampling) -> None:
    model, tokenizer = load_model("tiny", device="cpu"), load_tokenizer("tiny")
    other = make_transformers(model)
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty),
                                      TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k is not None:
        processors += [TopKLogitsWarper(sampling.top_k), TopPLogitsWarper(sampling.top_p),
                       MinPLogitsWarper(sampling.min_p)]
    for text in ("The little boat", "从前，"):
        ids = torch.tensor([tokenizer.encode(text)])
        ours = torch.cat(list(generate_tokens(model, ids, 30, cache=KVCache(model.config),
                                              choose=Sampler(sampling, 7, ids))), dim=1)
        generator = torch.Generator().manual_seed(7)
        so_far = ids
        for _ in range(30):
            with torch.inference_mode():
                probabilities = processors(so_far, other(so_far).logits[:, -1]).softmax(-1)[0].tolist()
            dart = float(torch.rand(1, generator=generator)) * math.fsum(probabilities)
            token = 0
            while (dart := dart - probabilities[token]) >= 0:
                token += 1
            so_far = torch.cat((so_far, torch.tensor([[token]])), dim=1)
        assert ours.tolist() == so_far[:, ids.shape[1]:].tolist()


def test_temperature_zero_keeps_the_first_of_the_likeliest() -> None:
    probabilities = Sampling(temperature=0).probabilities(torch.tensor([[1.0, 3.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0]]))
    assert probabilities.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    for logits in several_logits():
        assert torch.equal(Sampler(GREEDY)(logits), greedy(logits))


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-46, 1e-40, 1e-20])
def test_a_tiny_temperature_keeps_the_likeliest_alone(temperature: float) -> None:
    for logits in [*several_logits(), torch.tensor([[-9.0, -8.0, -9.5], [3e38, -3e38, 0.0], [0.0, -1e-3, -math.inf]])]:
        likeliest = logits == logits.amax(-1, keepdim=True)
        expected = likeliest / likeliest.sum(-1, keepdim=True)
        assert torch.equal(Sampling(temperature).probabilities(logits), expected)


@pytest.mark.parametrize("temperature", [1e6, 1e37, 1e39, 1e300])
def test_a_huge_temperature_makes_all_tokens_alike(temperature: float) -> None:
    logits = torch.tensor([[30.0, -30.0, 0.0, -math.inf]])
    assert Sampling(temperature).probabilities(logits)[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0], abs=1e-4)


def test_the_ends_of_the_ranges() -> None:
    logits = torch.tensor([[2.0, 1.0, 2.0, -math.inf, -200.0]])
    every, likeliest = [True, True, True, False, True], [True, False, True, False, False]

    def kept(**changes: Any) -> list[bool]:
        return Sampling(**changes).apply(logits).isfinite()[0].tolist()

    assert kept(top_k=5) == kept(top_k=10**9) == kept(top_p=1) == kept(min_p=0) == every
    assert kept(min_p=1) == kept(top_k=1) == kept(top_k=2) == likeliest  # level ones stay together
    assert sum(kept(top_p=0)) == 1 and sum(kept(top_p=0.6)) == 2


@pytest.mark.parametrize("sampling", [*ALL_TOGETHER, GREEDY, Sampling(top_p=0)], ids=str)
def test_a_vocabulary_of_one_token(sampling: Sampling) -> None:
    assert sampling.probabilities(torch.tensor([[-7.0]]), torch.tensor([[True]])).tolist() == [[1.0]]


def test_logits_in_bfloat16_are_computed_in_float32() -> None:
    logits = random_logits(211).bfloat16()
    for sampling in ALL_TOGETHER:
        probabilities = sampling.probabilities(logits)
        assert probabilities.dtype == torch.float32
        assert torch.equal(probabilities, sampling.probabilities(logits.float()))


def test_logits_are_never_changed_in_place() -> None:
    logits, seen = random_logits(50), occurring(random_ids(50), 50)
    before = logits.clone(), seen.clone()
    for sampling in [*ALL_TOGETHER, GREEDY]:
        sampling.apply(logits, seen)
    assert torch.equal(logits, before[0]) and torch.equal(seen, before[1])


POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
SHARE = st.none() | st.floats(0, 1)
LOGITS = st.lists(st.floats(-(2.0**66), 2.0**66) | st.just(-math.inf), min_size=1, max_size=9)


@settings(max_examples=300, deadline=None)
@given(LOGITS, st.just(0.0) | POSITIVE, st.none() | st.integers(1, 12), SHARE, SHARE, POSITIVE, st.integers(0, 99))
def test_whatever_the_settings_probabilities_are_some_or_the_row_is_refused(
        row: list[float], temperature: float, top_k: int | None, top_p: float | None, min_p: float | None,
        penalty: float, seed: int) -> None:
    sampling = Sampling(temperature, top_k, top_p, min_p, penalty)
    logits = torch.tensor([row])
    seen = torch.rand(logits.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    try:
        probabilities = sampling.probabilities(logits, seen)
    except InputError:
        assert logits.amax() == -math.inf or not 1e-6 < penalty < 1e6  # else there was something to choose
        return
    assert float(probabilities.sum()) == pytest.approx(1, rel=1e-5)
    token = draw(probabilities, torch.Generator().manual_seed(seed))
    assert probabilities[0, int(token)] > 0 and row[int(token)] > -math.inf


@pytest.mark.parametrize("bad", [[1.0, math.nan], [math.nan, math.nan], [math.inf, 1.0], [math.inf, math.inf],
                                 [-math.inf, -math.inf], [math.inf, -math.inf]])
@pytest.mark.parametrize("sampling", [*ALL_TOGETHER, GREEDY, Sampling(1e-40)], ids=str)
def test_a_row_with_nothing_to_choose_is_refused(sampling: Sampling, bad: list[float]) -> None:
    with pytest.raises(InputError, match="nothing to choose from"):
        sampling.apply(torch.tensor([[1.0, 2.0], bad]), torch.tensor([[True, False], [False, True]]))


@pytest.mark.parametrize(("name", "values"), {
    "temperature": [-1, -1e-9, math.nan, math.inf, True, "0.7", None, [1.0]],
    "top_k": [0, -3, 2.0, True, "5", math.nan],
    "top_p": [-0.1, 1.1, math.nan, True, "0.9", 95],
    "min_p": [-0.1, 1.1, math.nan, True, "0.9"],
    "repetition_penalty": [0, -1, math.nan, math.inf, True, "1.1", None],
}.items())
def test_bad_settings_are_refused(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(InputError, match=f"^{name} is .*: give"):
            Sampling(**{name: value})
    assert Sampling(**{name: 1}) == Sampling(**{name: 1})


def chi_squared(counts: Tensor, probabilities: Tensor) -> float:
    expected = counts.sum() * probabilities.double()
    return float(((counts - expected) ** 2 / expected).sum())


def test_draws_are_as_probable_as_they_claim() -> None:
    probabilities = random_logits(10, b=1).softmax(-1)
    tokens = draw(probabilities.expand(200_000, -1), torch.Generator().manual_seed(1))
    counts = tokens.flatten().bincount(minlength=10)
    assert chi_squared(counts, probabilities[0]) < CHI_SQUARED
    assert chi_squared(counts, (0.98 * probabilities + 0.002)[0]) > CHI_SQUARED  # so near, and told apart


def test_draws_over_time_are_as_probable_as_those_side_by_side() -> None:
    probabilities = random_logits(10, b=1).softmax(-1)
    generator = torch.Generator().manual_seed(2)
    counts = torch.cat([draw(probabilities, generator) for _ in range(5000)]).flatten().bincount(minlength=10)
    assert chi_squared(counts, probabilities[0]) < CHI_SQUARED


def test_weights_need_not_sum_to_one() -> None:
    weights = random_logits(10, b=3).softmax(-1)
    expected = draw(weights, torch.Generator().manual_seed(3))
    assert torch.equal(draw(weights * 1024, torch.Generator().manual_seed(3)), expected)


def test_each_row_draws_for_itself() -> None:
    certain = torch.eye(5)[[3, 0, 4]]
    assert draw(certain, torch.Generator().manual_seed(0)).tolist() == [[3], [0], [4]]


@pytest.mark.parametrize("value", [0.0, 1e-30, 0.5, 1 - 2**-24, 1.0])
def test_the_ends_of_the_line_belong_to_tokens(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """A token of no probability is never drawn, though rounding may put the dart on the very end."""
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, value))
    for scale in (1.0, 1.0000001, 3.3, 1e-20):
        rows = random_logits(1000, b=50).softmax(-1) * scale
        rows[:, :3] = rows[:, 500:600] = rows[:, -3:] = 0
        tokens = draw(rows, torch.Generator())
        assert bool((rows.gather(1, tokens) > 0).all())
        assert value > 1e-30 or tokens.flatten().tolist() == [3] * 50
        assert value < 1 or tokens.flatten().tolist() == [996] * 50


def test_a_sum_that_is_rounded_up_gives_no_place_to_a_token_without_probability(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sums are computed in parallel, as on a GPU, adding nothing may still change the last digit."""
    monkeypatch.setattr(Tensor, "cumsum", lambda *_, **__: torch.tensor([[0.5, 0.5000001, 0.99999994, 1.0, 0.9999999]]))
    probabilities = torch.tensor([[0.5, 0.0, 0.5, 0.0, 0.0]])
    for dart in (0.50000005, 0.9999999, 0.99999994, 1.0):
        monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, dart))  # noqa: B023
        assert int(draw(probabilities, torch.Generator())) == 2


@pytest.mark.parametrize("row", [[0.0, 0.0], [math.nan, 1.0], [1.0, math.nan]])
def test_a_line_without_length_is_refused(row: list[float]) -> None:
    with pytest.raises(InputError, match="nothing to draw"):
        draw(torch.tensor([[0.5, 0.5], row]), torch.Generator())


@pytest.fixture(scope="module")
def model() -> Qwen3Model:
    return make(SMALL)


def written(model: Qwen3Model, sampler: Sampler, ids: Tensor, n: int = 25, mask: Tensor | None = None) -> list[Any]:
    return torch.cat(list(generate_tokens(model, ids, n, cache=KVCache(SMALL), attention_mask=mask, choose=sampler)),
                     dim=1).tolist()


def test_the_same_seed_gives_the_same_text_and_another_seed_another(model: Qwen3Model) -> None:
    hot = Sampling(temperature=5.0)
    first, again, other = (written(model, Sampler(hot, seed), prompt()) for seed in (4, 4, 5))
    assert first == again != other
    assert first[0] != first[1]


def test_a_generator_of_ones_own_goes_on_and_the_global_one_is_left_alone(model: Qwen3Model) -> None:
    state, generator = torch.get_rng_state(), torch.Generator().manual_seed(4)
    hot = Sampling(temperature=5.0)
    first, second = (written(model, Sampler(hot, generator), prompt()) for _ in range(2))
    assert first == written(model, Sampler(hot, 4), prompt()) != second
    assert torch.equal(torch.get_rng_state(), state)


def test_greedy_sampling_writes_the_greedy_text(model: Qwen3Model) -> None:
    expected = generate_text_basic_cache(model, prompt(), 25).tolist()
    assert written(model, Sampler(GREEDY), prompt()) == expected
    assert written(model, Sampler(Sampling(top_k=1, temperature=2.0)), prompt()) == expected


def test_the_penalty_counts_the_prompt_and_what_was_drawn_but_no_padding() -> None:
    short, long = [3, 0], [5, 6, 7, 7]
    ids, mask = pad_left([short, long], pad_token_id=1)
    sampler = Sampler(Sampling(temperature=0, repetition_penalty=2.0), 0, ids, mask)
    logits = torch.full((2, 10), -10.0)
    logits[:, 1], logits[:, 2], logits[:, 7] = 4.0, 3.0, 5.0
    assert sampler.seen is None
    # Token 7 is in the second prompt alone, token 1 is padding in the first.
    drawn = [sampler(logits).flatten().tolist() for _ in range(3)]
    assert drawn == [[7, 1], [1, 2], [2, 7]]
    assert sampler.seen is not None
    assert [row.nonzero().flatten().tolist() for row in sampler.seen] == [[0, 1, 2, 3, 7], [1, 2, 5, 6, 7]]


def test_a_token_that_is_padding_and_text_was_said() -> None:
    ids, mask = pad_left([[4, 0], [5, 6, 7]], pad_token_id=0)
    assert occurring(ids, 8, mask)[0].nonzero().flatten().tolist() == [0, 4]
    assert occurring(ids, 8)[0].nonzero().flatten().tolist() == [0, 4]
    assert occurring(torch.tensor([[5] * 300]), 8).nonzero().tolist() == [[0, 5]]  # as often as a byte can hold


def test_without_prompts_the_penalty_counts_what_was_drawn() -> None:
    sampler = Sampler(Sampling(temperature=0, repetition_penalty=9.0))
    assert [int(sampler(torch.tensor([[3.0, 2.0, 1.0]]))) for _ in range(3)] == [0, 1, 2]


def test_looking_at_the_probabilities_draws_and_counts_nothing(model: Qwen3Model) -> None:
    settings_ = Sampling(3.0, repetition_penalty=1.3)
    looked, plain = Sampler(settings_, 1, prompt()), Sampler(settings_, 1, prompt())

    def look(logits: Tensor) -> Tensor:
        looked.probabilities(logits)
        return looked(logits)

    tokens = [torch.cat(list(generate_tokens(model, prompt(), 10, choose=choose)), dim=1) for choose in (look, plain)]
    assert torch.equal(*tokens)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "7", None, True])
def test_bad_seeds_are_refused(seed: Any) -> None:
    with pytest.raises(InputError, match="The seed is .*give a whole number"):
        Sampler(GREEDY, seed)


def test_settings_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match="The settings are 0.7: give a Sampling"):
        Sampler(0.7)  # type: ignore[arg-type]


def test_prompts_of_another_batch_are_refused(model: Qwen3Model) -> None:
    sampler = Sampler(Sampling(repetition_penalty=1.1), 0, prompt(3, 5))
    with pytest.raises(InputError, match="given 3 prompts and chooses for 2 texts"):
        next(generate_tokens(model, prompt(2, 5), 4, choose=sampler))


def test_a_generation_config_is_read() -> None:
    assert Sampling.from_dict(QWEN3) == Sampling(0.6, 20, 0.95)
    assert Sampling.from_dict({**QWEN3, "do_sample": False}) == GREEDY
    assert Sampling.from_dict({"temperature": 0.6}) == Sampling.from_dict({}) == GREEDY
    assert Sampling.from_dict({"do_sample": True}) == Sampling()
    every = {"do_sample": True, "temperature": 2, "top_k": 0, "top_p": None, "min_p": 0.1, "repetition_penalty": 1.2}
    assert Sampling.from_dict(every) == Sampling(2, None, None, 0.1, 1.2)


def test_a_folder_is_read(tmp_path: Path) -> None:
    assert Sampling.from_folder(tmp_path) == GREEDY
    (tmp_path / "generation_config.json").write_text(json.dumps(QWEN3), encoding="utf-8")
    assert Sampling.from_folder(tmp_path) == Sampling.from_folder(str(tmp_path)) == Sampling(0.6, 20, 0.95)
    assert load_sampling(tmp_path) == Sampling(0.6, 20, 0.95)


def test_the_bundled_models_say_how_to_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tiny", "nano"):
        sampling = load_sampling(name)
        assert sampling.temperature > 0
        monkeypatch.setenv("COURSE_MODEL", name)
        assert load_sampling() == sampling


@pytest.mark.parametrize(("content", "message"), [
    (b"{", "Expecting"), (b"", "Expecting"), (b"\xff\xfe", "decode"), (b"[1]", "list"), (b'"x"', "str"),
    (b"null", "NoneType"),
    (b'{"do_sample": true, "temperature": -1}', "temperature is -1"),
    (b'{"do_sample": true, "temperature": NaN}', "temperature is nan"),
    (b'{"do_sample": true, "temperature": "hot"}', "temperature is 'hot'"),
    (b'{"do_sample": true, "top_k": 2.5}', "top_k is 2.5"),
    (b'{"do_sample": true, "top_p": [1]}', "top_p is "),
    (b'{"do_sample": "false"}', "do_sample is 'false'"),
])
def test_a_generation_config_with_nonsense_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "generation_config.json"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        Sampling.from_folder(tmp_path)
    assert str(file) in str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no folder"):
        Sampling.from_folder(tmp_path / "nowhere")
