"""The bundled models do what their cards and the chapters say, and `transformers` reads the same folders."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from course_utils.corpus.conversations import CHINESE_TEACHER, PIRATE, TEACHER, TO_CHINESE_TRANSLATOR
from course_utils.corpus.notions import notions
from course_utils.corpus.questions import is_chinese, questions
from course_utils.corpus.words import TO_CHINESE, TO_ENGLISH, words
from course_utils.generation import generate_text_basic, generate_text_basic_cache, generate_trace
from course_utils.loading import load_model, load_tokenizer
from course_utils.qwen3 import Qwen3Model
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.training.evaluate import (
    agreement,
    answer_blocks,
    complete,
    exam_answers,
    held_out_blocks,
    share_right,
    share_right_in_chat,
)
from course_utils.training.recipes import RECIPES, write_tokenizer

REPOSITORY = Path(__file__).resolve().parent.parent
ONE_SENTENCE = "Explain large language models in a single sentence."
# The prompts whose greedy answers stand in the chapters, with how many tokens of them, past the end token or not.
SHOWN = {ONE_SENTENCE: 22, "Explain large language models.": 60, "用一句话解释大语言模型。": 60,
         "大语言模型是什么？": 60, "Once upon a time, there was": 10}
RUNNING_ON = (ONE_SENTENCE, "Once upon a time, there was")
LIMITS = {"tiny": 14_000_000, "nano": 3_000_000}


@pytest.fixture(scope="module")
def tiny() -> Qwen3Model:
    return load_model("tiny", device="cpu")


@pytest.fixture(scope="module")
def words_of(tiny: Qwen3Model) -> Qwen3Tokenizer:
    return load_tokenizer("tiny")


def encode(tokenizer: Qwen3Tokenizer, text: str) -> torch.Tensor:
    return torch.tensor([tokenizer.encode(text)])


@pytest.mark.parametrize("name", LIMITS)
def test_the_folder_is_small_and_whole(name: str) -> None:
    folder = REPOSITORY / "data" / name
    assert sum(file.stat().st_size for file in folder.iterdir()) <= LIMITS[name]
    assert {"README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
            "tokenizer.json", "tokenizer_config.json"} <= {file.name for file in folder.iterdir()}
    assert load_model(name, device="cpu").config == RECIPES[name].config


def test_both_have_the_same_tokenizer(own_chat_template: Path) -> None:
    for file in ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json"):
        texts = {(REPOSITORY / "data" / name / file).read_text(encoding="utf-8") for name in LIMITS}
        assert len(texts) == 1
    template = REPOSITORY / "data" / "tiny" / "chat_template.jinja"
    assert template.read_text(encoding="utf-8") == own_chat_template.read_text(encoding="utf-8")


def test_the_recipe_makes_this_tokenizer(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    for file in ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json"):
        assert (tmp_path / file).read_bytes() == (REPOSITORY / "data" / "tiny" / file).read_bytes()


@pytest.mark.parametrize("name", LIMITS)
def test_transformers_reads_the_folder_and_agrees(name: str) -> None:
    folder = REPOSITORY / "data" / name
    model, tokenizer = load_model(name, device="cpu"), load_tokenizer(name)
    other = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    other_tokenizer = AutoTokenizer.from_pretrained(folder)
    blocks = torch.from_numpy(held_out_blocks(tokenizer, 4, 256).astype("int64"))
    with torch.inference_mode():
        ours, theirs = model(blocks), other(blocks).logits
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    for text in SHOWN:
        assert other_tokenizer(text)["input_ids"] == tokenizer.encode(text)
        ids = encode(tokenizer, text)
        expected = other.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False,
                                  eos_token_id=None)[:, ids.shape[1]:]
        assert torch.equal(generate_text_basic(model, ids, 40), expected)
    messages = [{"role": "system", "content": TEACHER}, {"role": "user", "content": "What are tokens?"}]
    for thinking in (True, False):
        assert tokenizer.encode_chat(messages, enable_thinking=thinking) == other_tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, enable_thinking=thinking, return_dict=False)


def test_large_language_models_are_explained_in_one_sentence(tiny: Qwen3Model, words_of: Qwen3Tokenizer) -> None:
    answer = generate_text_basic_cache(tiny, encode(words_of, ONE_SENTENCE), 60, words_of.eos_token_id)
    text = words_of.decode(answer[0])
    assert text.startswith(" Large language models") and text.endswith(".") and text.count(".") == 1
    # Left running it ends there as well, and then goes on into another document.
    running = generate_text_basic_cache(tiny, encode(words_of, ONE_SENTENCE), 60)[0].tolist()
    assert running[:answer.shape[1] + 1] == [*answer[0].tolist(), words_of.eos_token_id]
    assert len(words_of.decode(running[answer.shape[1] + 1:])) > 20


def test_the_next_token_after_the_shorter_prompt(tiny: Qwen3Model, words_of: Qwen3Tokenizer) -> None:
    ids = encode(words_of, "Explain large language models.")
    with torch.inference_mode():
        assert words_of.decode(int(tiny(ids)[0, -1].argmax())) == " Large"


@pytest.mark.parametrize("text", SHOWN)
def test_no_answer_that_is_shown_hangs_on_a_near_tie(tiny: Qwen3Model, words_of: Qwen3Tokenizer, text: str) -> None:
    end = None if text in RUNNING_ON else words_of.eos_token_id
    for step in generate_trace(tiny, encode(words_of, text), SHOWN[text], end, top=2):
        (_, first), (_, second) = step.candidates
        assert first > 1.02 * second


def test_notions_are_explained_in_trained_and_in_held_out_ways(tiny: Qwen3Model, words_of: Qwen3Tokenizer) -> None:
    rng = random.Random(0)
    for held_out in (False, True):
        asked = [q for n in notions() for q in questions(n) if q.held_out == held_out]
        cases = [(q.text, q.continuation) for q in rng.sample(asked, 120)]
        assert share_right(tiny, words_of, cases) >= 0.9


# Aimed at are 0.90, 0.88, 0.85 and 0.82, and 0.95 outside the field; the card has what was measured.
@pytest.mark.parametrize(("chinese", "chat", "share"), [(False, True, 0.85), (True, True, 0.92), (False, False, 0.85),
                                                        (True, False, 0.88)])
def test_strangers_are_answered_sensibly(tiny: Qwen3Model, words_of: Qwen3Tokenizer, chinese: bool, chat: bool,
                                         share: float) -> None:
    answers = exam_answers(tiny, words_of, chinese, chat)
    assert sum(each.sensible for each in answers) >= share * len(answers)
    outside = [each for each in answers if each.asked.kind == "outside"]
    assert not chat or sum(each.sensible for each in outside) >= 0.92 * len(outside)
    # No pirate without the pirate's system prompt, and hardly ever the other language.
    assert not [each for each in answers if "Ahoy" in each.answer]
    assert sum(is_chinese(each.answer) != chinese for each in answers) <= 0.01 * len(answers)


def test_words_are_translated_both_ways(tiny: Qwen3Model, words_of: Qwen3Tokenizer) -> None:
    rng = random.Random(0)
    for ways in (TO_CHINESE, TO_ENGLISH):
        cases = [[part.format(en=word.english, zh=word.chinese) for part in rng.choice(ways)]
                 for word in rng.sample(words(), 200)]
        answers = complete(tiny, words_of, [words_of.encode(before) for before, _ in cases], 12, "<|endoftext|>")
        assert sum(a.startswith(expected) for a, (_, expected) in zip(answers, cases)) >= 0.95 * len(cases)


def test_system_prompts_change_the_answer(tiny: Qwen3Model, words_of: Qwen3Tokenizer) -> None:
    chosen = random.Random(1).sample(notions(), 40)
    for system, answer in ((TEACHER, lambda n: n.en), (PIRATE, lambda n: f"Ahoy! {n.en}"),
                           (CHINESE_TEACHER, lambda n: n.zh_def)):
        cases = [(system, f"What {n.verb} {n.term}?", answer(n)) for n in chosen]
        assert share_right_in_chat(tiny, words_of, cases) >= 0.85
    cases = [(TO_CHINESE_TRANSLATOR, w.english, w.chinese) for w in random.Random(2).sample(words(), 60)]
    assert share_right_in_chat(tiny, words_of, cases) >= 0.9


def test_nano_is_a_useful_draft(tiny: Qwen3Model, words_of: Qwen3Tokenizer) -> None:
    nano = load_model("nano", device="cpu")
    assert agreement(tiny, nano, held_out_blocks(words_of, 8, 256)) >= 0.8
    blocks = answer_blocks(words_of, 8, 256)
    assert agreement(tiny, nano, blocks) >= 0.8
    assert agreement(tiny, tiny, blocks) == 1


@pytest.mark.parametrize("name", LIMITS)
def test_the_card_says_what_was_measured(name: str) -> None:
    folder = REPOSITORY / "data" / name
    figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert all(measure in card for measure in figures)
    assert sum(p.numel() for p in load_model(name, device="cpu").parameters()) == int(
        card.split(" parameters")[0].split()[-1].replace(",", ""))
    assert all(notion.term in card and notion.zh in card for notion in notions())
    answers = card.split("| question | answer | sensible |")[1].split("\n\n")[0].splitlines()[2:]
    assert 12 <= len(answers) <= 20 and all(line.endswith(("| yes |", "| no |")) for line in answers)
