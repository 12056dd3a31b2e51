"""Heads that copy: scores against plain counting, a head left out against weights set to zero, and those of tiny."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from test_model import SMALL, close, make, prompt
from test_recording import PADDED, TINY, has_hooks

from course_utils import load_model, load_tokenizer
from course_utils.errors import InputError
from course_utils.generation import generate_text_basic, generate_text_basic_cache
from course_utils.induction import copying_scores, without_head
from course_utils.qwen3 import Qwen3Model
from course_utils.recording import Recording, record


@pytest.fixture(scope="module")
def model() -> Qwen3Model:
    return make(SMALL)


@pytest.fixture(scope="module")
def tiny() -> Qwen3Model:
    return load_model(TINY, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def twice() -> torch.Tensor:
    """Five texts, each of eight unrelated words and the same again: each word is one token."""
    texts = (" apple shoe hill candle ring lake clock bag", " wood horse ship bell door stone lamp cup",
             " key milk sand box coat river bird table", " farm shoe stone lake egg drum kite hat",
             " tree clock moon street chair bread rope fish")
    ids = torch.tensor([load_tokenizer(TINY).encode(text * 2) for text in texts])
    assert ids.shape == (5, 16)
    return ids


def counted(recording: Recording, layer: int, head: int) -> float:
    """What `copying_scores` says of a head, by plain counting."""
    paid = []
    for row, ids in enumerate(recording.token_ids.tolist()):
        real = recording.attention_mask[row].tolist()
        for token in range(len(ids)):
            before = [other for other in range(token) if real[other] and ids[other] == ids[token]]
            if real[token] and before:
                paid.append(sum(float(recording.attention[layer, row, head, token, other + 1]) for other in before))
    return sum(paid) / len(paid)


@pytest.mark.parametrize("mask", [None, PADDED], ids=["whole", "padded"])
def test_scores_are_what_plain_counting_gives(model: Qwen3Model, mask: torch.Tensor | None) -> None:
    recording = record(model, prompt() % 7, mask)  # so few different tokens that most occur again
    scores = copying_scores(recording)
    assert scores.shape == (3, 4)
    expected = [[counted(recording, layer, head) for head in range(4)] for layer in range(3)]
    assert torch.allclose(scores, torch.tensor(expected), atol=1e-5)


def test_scores_reach_from_zero_to_one(model: Qwen3Model) -> None:
    recording = record(model, torch.arange(8).repeat(1, 2))
    attention = torch.zeros_like(recording.attention)
    attention[..., 0] = 1
    copying = torch.zeros(16, 16)
    copying[torch.arange(8, 16), torch.arange(1, 9)] = 1
    attention[1, :, 2] = copying
    scores = copying_scores(replace(recording, attention=attention))
    assert scores[1, 2] == 1 and scores.sum() == 1


def test_without_any_repetition_there_is_no_score(model: Qwen3Model) -> None:
    ids = torch.arange(20)[None]
    with pytest.raises(InputError, match="None of the 20 tokens occurs twice"):
        copying_scores(record(model, ids))
    ids[0, :5] = 0  # padding is no repetition
    mask = torch.tensor([[0] * 5 + [1] * 15])
    with pytest.raises(InputError, match="occurs twice"):
        copying_scores(record(model, ids, mask))


@pytest.mark.parametrize(("layer", "head"), [(0, 0), (1, 2), (2, 3)])
def test_a_head_left_out_is_one_whose_output_weights_are_zero(model: Qwen3Model, layer: int, head: int) -> None:
    zeroed = make(SMALL)
    with torch.no_grad():
        zeroed.model.layers[layer].self_attn.o_proj.weight[:, head * 16:(head + 1) * 16] = 0
        with without_head(model, layer, head):
            assert close(model(prompt()), zeroed(prompt()))
            assert torch.equal(generate_text_basic_cache(model, prompt(), 5), generate_text_basic(zeroed, prompt(), 5))
            outputs = record(model, prompt()).head_outputs[layer]
        assert not outputs[:, :, head].any() and outputs.any(dim=-1).sum() == 2 * 20 * 3
        assert not close(model(prompt()), zeroed(prompt()))
    assert not has_hooks(model)


def test_a_head_is_left_out_of_a_compiled_model_too(model: Qwen3Model) -> None:
    torch._dynamo.reset()
    compiled: Qwen3Model = torch.compile(make(SMALL), backend="eager")
    with torch.no_grad():
        whole = compiled(prompt())
        with without_head(compiled, 1, 2), without_head(model, 1, 2):
            without = compiled(prompt())
            assert close(without, model(prompt())) and not close(without, whole)
        assert torch.equal(compiled(prompt()), whole)


def test_a_head_comes_back_after_an_error(model: Qwen3Model) -> None:
    with pytest.raises(ZeroDivisionError), without_head(model, 0, 0):
        raise ZeroDivisionError
    assert not has_hooks(model)


@pytest.mark.parametrize(("layer", "head"), [(3, 0), (-1, 0), (0, 4), (0, -1)])
def test_a_head_that_is_not_there_is_refused(model: Qwen3Model, layer: int, head: int) -> None:
    with pytest.raises(InputError, match=f"no head {head} in layer {layer}: the model has 3 layers of 4 heads"):
        with without_head(model, layer, head):
            pass


def chance_of_right_words(model: Qwen3Model, ids: torch.Tensor, *heads: tuple[int, int]) -> float:
    """Mean probability of the right next word in the second half, with these heads left out."""
    with ExitStack() as left_out, torch.inference_mode():
        for layer, head in heads:
            left_out.enter_context(without_head(model, layer, head))
        probabilities = model(ids)[:, 8:15].softmax(dim=-1)
    return float(probabilities.gather(2, ids[:, 9:16, None]).mean())


def test_four_heads_of_tiny_copy(tiny: Qwen3Model, twice: torch.Tensor) -> None:
    best = copying_scores(record(tiny, twice)).flatten().topk(4)
    assert {divmod(int(index), 8) for index in best.indices} == {(5, 0), (5, 1), (5, 6), (5, 7)}
    assert best.values[3] > 0.8


def test_without_these_heads_tiny_no_longer_copies(tiny: Qwen3Model, twice: torch.Tensor) -> None:
    whole = chance_of_right_words(tiny, twice)
    lost = {(layer, head): whole - chance_of_right_words(tiny, twice, (layer, head))
            for layer in range(6) for head in range(8)}
    last_layer = {key: value for key, value in lost.items() if key[0] == 5}
    assert whole > 0.7 and set(sorted(last_layer, key=last_layer.__getitem__)[-2:]) == {(5, 6), (5, 7)}
    assert chance_of_right_words(tiny, twice, (5, 6), (5, 7)) < 0.05
    for pair in ((0, 1), (2, 3), (4, 5)):
        assert chance_of_right_words(tiny, twice, *[(5, head) for head in pair]) > 0.5


def test_they_depend_on_heads_that_look_at_the_token_before(tiny: Qwen3Model, twice: torch.Tensor) -> None:
    to_the_one_before = record(tiny, twice).attention.diagonal(-1, -2, -1).mean(dim=(1, 3))
    found = [divmod(int(index), 8) for index in to_the_one_before.flatten().topk(2).indices]
    assert set(found) == {(1, 4), (4, 6)}
    assert chance_of_right_words(tiny, twice, *found) < 0.3 < 0.65 < chance_of_right_words(tiny, twice, (1, 2), (4, 3))
