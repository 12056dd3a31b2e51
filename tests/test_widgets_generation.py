"""The player of a generation shows what the loop did, and computes nothing when a reader goes through it."""

from __future__ import annotations

import re
from html import unescape

import pytest
import torch
from test_model import SMALL, make, variant

from course_utils.errors import ContextLengthError, InputError
from course_utils.generation import generate_text_basic_cache, generate_tokens
from course_utils.kv_cache import KVCache
from course_utils.qwen3 import Qwen3Model
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.widgets.generation import explore_generation, generation_step, record_generation

PROMPT = "A cat sat by the <window>"


@pytest.fixture(scope="module")
def model(small_tokenizer: Qwen3Tokenizer) -> Qwen3Model:
    return make(variant(vocab_size=small_tokenizer.vocab_size))


def marks(html: str) -> str:
    """The mark of each token, in order."""
    return "".join(re.findall(r">([■▨□])<", html))


def shown(html: str) -> str:
    """The text in the boxes."""
    return unescape("".join(re.findall(r'white-space: pre">(.*?)</div>', html))).replace("␣", " ")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_shows_what_the_loop_did(small_tokenizer: Qwen3Tokenizer, dtype: torch.dtype) -> None:
    model = make(variant(vocab_size=small_tokenizer.vocab_size), dtype)
    recorded = record_generation(model, small_tokenizer, PROMPT, 6)
    prompt_ids = small_tokenizer.encode(PROMPT)
    t, cache = len(prompt_ids), KVCache(model.config)
    tokens = generate_tokens(model, torch.tensor([prompt_ids]), 6, small_tokenizer.end_token_ids, cache)
    before = 0
    for step, token in enumerate(tokens, start=1):
        view = generation_step(recorded, step)
        assert recorded.steps[step - 1].token_id == int(token)
        assert recorded.held(step) == cache.length
        assert recorded.held(step) * recorded.bytes_per_position == cache.num_bytes
        assert f"held {before} tokens and now holds {cache.length}," in view.sentence
        assert marks(view.html.partition("solid line")[0]) == "■" * before + "▨" * (cache.length - before) + "□"
        texts = [small_tokenizer.token_text(done.token_id) for done in recorded.steps[:step]]
        assert shown(view.html.partition("solid line")[0]) == PROMPT + "".join(texts)
        assert view.html.count("2px solid #0072b2") == t and view.html.count("2px dashed #d55e00") == step
        assert f">{step}</th>" in view.html
        before = cache.length
    assert len(recorded.steps) == step


def test_the_first_step_reads_the_prompt_and_the_others_one_token(model: Qwen3Model,
                                                                  small_tokenizer: Qwen3Tokenizer) -> None:
    recorded = record_generation(model, small_tokenizer, PROMPT, 3)
    t = len(small_tokenizer.encode(PROMPT))
    first, second = (generation_step(recorded, step).sentence for step in (1, 2))
    assert f"reads the {t} tokens of the prompt" in first and "reads 1 token, at position" in second


def test_the_end_is_said(model: Qwen3Model, small_tokenizer: Qwen3Tokenizer,
                         monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this model writes second is made the end of a text."""
    token_ids = torch.tensor([small_tokenizer.encode(PROMPT)])
    new_ids = generate_text_basic_cache(model, token_ids, 3)[0].tolist()
    assert new_ids[0] != new_ids[1]
    monkeypatch.setattr(small_tokenizer, "end_token_ids", frozenset(new_ids[1:2]))
    recorded = record_generation(model, small_tokenizer, PROMPT, 10)
    sentences = [generation_step(recorded, step).sentence for step in range(1, len(recorded.steps) + 1)]
    assert ["The text ends here." in sentence for sentence in sentences] == [False, True]


def test_buttons_and_field_go_through_it_without_the_model(model: Qwen3Model, small_tokenizer: Qwen3Tokenizer,
                                                           passes: list[int]) -> None:
    explorer = explore_generation(model, small_tokenizer, PROMPT, 5)
    assert len(passes) == 5
    recorded = record_generation(model, small_tokenizer, PROMPT, 5)
    passes.clear()
    step, seen = explorer.controls["step"], []
    for button in ("Previous", "Next", "Next", "Last", "Next", "Previous", "First"):
        explorer.buttons[button].click()
        seen.append(step.value)
        assert explorer.view == generation_step(recorded, step.value)
    assert seen == [1, 2, 3, 5, 5, 4, 1]
    step.value = 4
    assert repr(explorer) == generation_step(recorded, 4).sentence
    assert not passes


def test_of_a_long_text_the_beginning_is_left_out(model: Qwen3Model, small_tokenizer: Qwen3Tokenizer) -> None:
    longer = make(variant(vocab_size=small_tokenizer.vocab_size, max_position_embeddings=400))
    prompt = "A cat sat by the window. " * 20
    recorded = record_generation(longer, small_tokenizer, prompt, 2)
    html = generation_step(recorded, 2).html
    count = len(recorded.prompt_ids) + 2
    assert count > 120 and len(marks(html.partition("solid line")[0])) == 120
    assert f"… {count - 120} tokens before" in html


@pytest.mark.parametrize(("prompt", "max_new_tokens", "error", "message"), [
    ("", 5, InputError, "prompt is empty"),
    (PROMPT, 0, InputError, "max_new_tokens is 0"),
    (PROMPT, 2.5, InputError, "max_new_tokens is 2.5"),
    (PROMPT, True, InputError, "max_new_tokens is True"),
    ("moon " * 200, 5, ContextLengthError, "do not fit into 128"),
])
def test_refusals(model: Qwen3Model, small_tokenizer: Qwen3Tokenizer, prompt: str, max_new_tokens: int,
                  error: type[Exception], message: str) -> None:
    assert SMALL.max_position_embeddings == 128
    with pytest.raises(error, match=message):
        explore_generation(model, small_tokenizer, prompt, max_new_tokens)


@pytest.mark.parametrize("step", [0, 4, 1.0, True])
def test_there_is_no_such_step(model: Qwen3Model, small_tokenizer: Qwen3Tokenizer, step: int) -> None:
    recorded = record_generation(model, small_tokenizer, PROMPT, 3)
    with pytest.raises(InputError, match="from 1 to 3"):
        generation_step(recorded, step)
