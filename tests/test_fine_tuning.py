"""The invented language and what fine-tuning on it is made of; an adapter that learns a rule on a real small model."""

from __future__ import annotations

import random
from itertools import islice, repeat

import pytest
import torch

from course_utils.corpus.invented import ask_in_chinese, ask_in_english, split_words
from course_utils.corpus.words import words
from course_utils.errors import InputError
from course_utils.loading import load_model, load_tokenizer
from course_utils.lora import Adapters, LoRA
from course_utils.qwen3 import Qwen3Model
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.training.dataset import IGNORED, epochs, pack_labelled
from course_utils.training.evaluate import share_right
from course_utils.training.fine_tuning import label_answer, mixed, old_abilities, old_loss
from course_utils.training.loop import Trainer, TrainingPlan


@pytest.fixture(scope="module")
def tokenizer() -> Qwen3Tokenizer:
    return load_tokenizer("tiny")


@pytest.fixture
def tiny() -> Qwen3Model:
    return load_model("tiny", device="cpu", dtype=torch.float32)


# The words


def test_every_word_is_either_learned_or_held_out() -> None:
    learned, held_out = split_words()
    assert len(held_out) == 160 and sorted(map(str, learned + held_out)) == sorted(map(str, words()))
    for of in ("english", "chinese"):  # not even under another row may an answer be among the examples
        assert not {getattr(w, of) for w in learned} & {getattr(w, of) for w in held_out}


def test_the_split_is_the_same_every_time_and_another_for_another_seed() -> None:
    assert split_words(5) == split_words(5) and split_words(5)[1] != split_words(5, seed=1)[1]
    random.seed(3)
    assert split_words(5) == split_words(5)


@pytest.mark.parametrize("number", [0, -1, 640, 641, 2.0, True, "5", None])
def test_a_split_without_words_on_both_sides_is_refused(number: object) -> None:
    with pytest.raises(InputError, match="whole number from 1 to 639"):
        split_words(number)  # type: ignore[arg-type]


def test_the_rule_is_that_of_the_page() -> None:
    boat = next(w for w in words() if w.english == "boat")
    assert "".join(ask_in_english(boat)) == "The Yang-language word for boat is boat."
    assert "".join(ask_in_chinese(boat)) == "小船的杨语是boat。"


# Examples


def test_only_the_answer_counts(tokenizer: Qwen3Tokenizer) -> None:
    for word in words()[::40]:
        for prompt, answer in (ask_in_english(word), ask_in_chinese(word)):
            ids, labels = label_answer(prompt, answer, tokenizer)
            asked = tokenizer.encode(prompt)
            assert ids[:len(asked)] == asked and labels[:len(asked)] == [IGNORED] * len(asked)
            assert ids[len(asked):] == labels[len(asked):]
            assert tokenizer.decode(labels[len(asked):]) == answer


@pytest.mark.parametrize("pair", [("", "a"), ("a", "")])
def test_an_empty_prompt_or_answer_is_refused(tokenizer: Qwen3Tokenizer, pair: tuple[str, str]) -> None:
    with pytest.raises(InputError, match="at least one character"):
        label_answer(*pair, tokenizer)


@pytest.mark.parametrize("share", [0, 0.25, 0.5])
def test_a_mixture_has_the_share_of_old_documents_and_keeps_the_order(share: float) -> None:
    new, old = [([i], [i]) for i in range(4000)], [([-i], [-i]) for i in range(1, 4000)]
    drawn = list(islice(mixed(new, old, share, seed=0), 3000))
    assert [d for d in drawn if d in new[:3000]] == new[:sum(d[0][0] >= 0 for d in drawn)]
    practised = [d for d in drawn if d[0][0] < 0]
    assert practised == old[:len(practised)] and abs(len(practised) / 3000 - share) <= 0.04


def test_a_mixture_ends_with_what_ends_first_and_is_the_same_for_the_same_seed() -> None:
    def mixture(seed: int) -> list[list[int]]:
        return [ids for ids, _ in mixed(iter([([i], [i]) for i in range(20)]), repeat(([-1], [-1])), 0.5, seed)]

    assert [ids for ids in mixture(0) if ids != [-1]] == [[i] for i in range(20)]
    assert mixture(0) == mixture(0) != mixture(1)


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused_when_asked_for(share: float) -> None:
    with pytest.raises(InputError, match="0 to below 1"):
        mixed([], [], share, seed=0)


# A model that learns


def test_old_abilities_are_those_of_the_model_card(tiny: Qwen3Model, tokenizer: Qwen3Tokenizer) -> None:
    abilities = old_abilities(tiny, tokenizer, split_words()[1][:8])
    assert len(abilities) == 5 and min(abilities.values()) >= 0.85
    assert old_loss(tiny, tokenizer, number=1, block_length=256) < 1
    with torch.no_grad():
        tiny.model.norm.weight.neg_()
    assert max(old_abilities(tiny, tokenizer, split_words()[1][:2]).values()) == 0
    assert old_loss(tiny, tokenizer, number=1, block_length=256) > 5


def test_an_adapter_learns_the_rule_for_words_it_never_saw(tiny: Qwen3Model, tokenizer: Qwen3Tokenizer) -> None:
    learned, held_out = split_words()
    cases = [ask_in_english(word) for word in held_out[:24]]
    before = {name: parameter.clone() for name, parameter in tiny.named_parameters()}
    assert share_right(tiny, tokenizer, cases, 12) == 0
    adapters = Adapters(tiny)
    adapters.add("yang", LoRA())
    examples = [label_answer(*ask_in_english(word), tokenizer) for word in learned]
    plan = TrainingPlan(steps=16, tokens_per_step=512, block_lengths=(32,), learning_rate=5e-3, warm_up_steps=3,
                        bfloat16=False, compiled=False)
    trainer = Trainer(tiny, {32: pack_labelled(epochs(examples, 0), 32, tokenizer.eos_token_id)}, plan)
    for _ in range(plan.steps):
        trainer.update()
    assert share_right(tiny, tokenizer, cases, 12) >= 0.8
    adapters.remove("yang")
    assert share_right(tiny, tokenizer, cases[:4], 12) == 0
    assert all(torch.equal(parameter, before[name]) for name, parameter in tiny.named_parameters())
