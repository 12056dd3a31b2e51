"""What notebooks show as HTML can be read in light and in dark themes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from readable import assert_readable_on_any_page
from test_model import SMALL, make, prompt

from course_utils.exercises.question import find_question, question_html
from course_utils.generation import generate_trace, last_logits
from course_utils.plots.sampling import CandidateTable
from course_utils.plots.tokens import token_pieces
from course_utils.qwen3 import Qwen3Model
from course_utils.recording import record
from course_utils.sampling import Sampler, Sampling
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.widgets.attention import attention_table
from course_utils.widgets.chat import transcript
from course_utils.widgets.generation import generation_step, record_generation
from course_utils.widgets.next_token import next_token_table
from course_utils.widgets.panel import View, live_line
from course_utils.widgets.tokens import token_table

SAMPLING = Sampling(temperature=2, top_k=3)


def model_of(tokenizer: Qwen3Tokenizer) -> Qwen3Model:
    return make(replace(SMALL, vocab_size=tokenizer.vocab_size))


def candidates(tokenizer: Qwen3Tokenizer, sampler: Sampler | None = None) -> str:
    steps = generate_trace(model_of(tokenizer), prompt(1, 6), 4, top=5, **({"sampler": sampler} if sampler else {}))
    return CandidateTable(steps, tokenizer)._repr_html_()


def static(view: View) -> str:
    return view.static()["text/html"]


@pytest.mark.parametrize("html", [
    pytest.param(lambda t: token_pieces(t, "The cat <b> 小猫 龘 <|im_end|>")._repr_html_(), id="token_pieces"),
    pytest.param(candidates, id="greedy"),
    pytest.param(lambda t: candidates(t, Sampler(SAMPLING, seed=1)), id="drawn"),
    pytest.param(lambda t: static(token_table(t, "The cat")), id="token_table"),
    pytest.param(lambda t: static(next_token_table(t, last_logits(model_of(t), prompt(1, 6)), SAMPLING)), id="next"),
    pytest.param(lambda t: static(attention_table(record(model_of(t), prompt(1, 9)), t, 1, 0, 6)), id="attention"),
    pytest.param(lambda t: static(generation_step(record_generation(model_of(t), t, "A cat", 4), 2)), id="generation"),
    pytest.param(lambda t: static(transcript([{"role": role, "content": "Hi"} for role in (
        "system", "user", "assistant")])), id="chat"),
    pytest.param(lambda t: question_html(find_question("4.A")), id="question"),
    pytest.param(lambda t: live_line("A sentence."), id="line"),
])
def test_html_can_be_read_in_any_theme(html: Callable[[Qwen3Tokenizer], str], small_tokenizer: Qwen3Tokenizer) -> None:
    assert_readable_on_any_page(html(small_tokenizer))


@pytest.mark.parametrize("html", [
    '<p style="color: black">black on a dark page</p>',
    '<div style="background: white">white on white in a dark theme</div>',
    '<table style="color: black; background: white"><tr><td>a dark row</td></tr></table>',
    '<p style="color: #d55e00; background: white">too little contrast</p>',
])
def test_what_cannot_be_read_is_found(html: str) -> None:
    with pytest.raises(AssertionError):
        assert_readable_on_any_page(html)
