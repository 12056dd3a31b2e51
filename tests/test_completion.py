"""Text in, text out: what the loop gives and no more, stop strings wherever tokens are cut, batches as single texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_model import make, make_transformers, variant

from course_utils import completion
from course_utils.batching import pad_left
from course_utils.completion import Completion, StopStrings, TextStream, generate, stream
from course_utils.errors import ContextLengthError, InputError
from course_utils.generation import generate_text_basic_cache, generate_tokens
from course_utils.kv_cache import KVCache
from course_utils.loading import load_model, load_tokenizer
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import Sampler, Sampling
from course_utils.tokenizer import Qwen3Tokenizer


@pytest.fixture(scope="module")
def model(small_tokenizer: Qwen3Tokenizer) -> Qwen3Model:
    """Random weights: it writes nonsense, with many characters that are not complete."""
    return make(variant(vocab_size=small_tokenizer.vocab_size))


@pytest.fixture(scope="module")
def tiny() -> tuple[Qwen3Model, Qwen3Tokenizer]:
    return load_model("tiny", device="cpu"), load_tokenizer("tiny")


Script = Callable[..., list[int]]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, small_tokenizer: Qwen3Tokenizer) -> Script:
    """Make the loop write given texts, one for each row; returns the list of steps that were asked for."""

    def script(*texts: str, then: BaseException | None = None) -> list[int]:
        rows = [small_tokenizer.encode(text) for text in texts]
        asked: list[int] = []

        def loop(model: Qwen3Model, token_ids: torch.Tensor, max_new_tokens: int, *_: Any) -> Iterator[torch.Tensor]:
            for step in range(min(max_new_tokens, max(len(row) for row in rows))):
                asked.append(step)
                yield torch.tensor([row[step:step + 1] or [row[-1]] for row in rows])
            if then is not None:
                raise then

        monkeypatch.setattr(completion, "generate_tokens", loop)
        return asked

    return script


# One text

def test_the_text_is_that_of_transformers(tiny: tuple[Qwen3Model, Qwen3Tokenizer]) -> None:
    model, tokenizer = tiny
    other = make_transformers(model)
    for prompt in ("One day,", "从前，"):
        ids = torch.tensor([tokenizer.encode(prompt)])
        expected = other.generate(ids, max_new_tokens=25, do_sample=False, attention_mask=torch.ones_like(ids),
                                  eos_token_id=sorted(tokenizer.end_token_ids))[0, ids.shape[1]:].tolist()
        completion = generate(model, tokenizer, prompt, 25)
        assert completion == Completion(tokenizer.decode(expected), expected, "length")


def test_ids_that_stand_for_no_text_are_never_drawn(tiny: tuple[Qwen3Model, Qwen3Tokenizer]) -> None:
    """A model has more rows than its tokenizer has tokens; hot enough, it would draw one of them."""
    model, tokenizer = tiny
    assert model.config.vocab_size > tokenizer.vocab_size
    drawn = generate(model, tokenizer, ["The little boat"] * 20, 60, Sampling(temperature=100), eos_token_id=())
    assert isinstance(drawn, list) and max(max(row.token_ids) for row in drawn) < tokenizer.vocab_size
    ids = torch.tensor([tokenizer.encode("The little boat")] * 20)
    unbound = generate_tokens(model, ids, 60, cache=KVCache(model.config), choose=Sampler(Sampling(temperature=100)))
    assert max(int(tokens.max()) for tokens in unbound) >= tokenizer.vocab_size


def test_a_prompt_is_text_or_token_ids(model: Qwen3Model, small_tokenizer: Qwen3Tokenizer) -> None:
    ids = small_tokenizer.encode("The river 小河")
    expected = generate_text_basic_cache(model, torch.tensor([ids]), 20)[0].tolist()
    for prompt in ("The river 小河", ids, tuple(ids)):
        completion = generate(model, small_tokenizer, prompt, 20, eos_token_id=())
        assert completion == Completion(small_tokenizer.decode(expected), expected, "length")


def test_pieces_of_a_stream_are_one_for_each_token_and_the_rest(model: Qwen3Model,
                                                               small_tokenizer: Qwen3Tokenizer) -> None:
    for seed in range(5):
        arguments = (model, small_tokenizer, "moon 月", 30, Sampling(2.0), seed)
        completion, pieces = generate(*arguments), stream(*arguments)
        assert pieces.token_ids == [] and pieces.finish_reason is None
        joined = list(pieces)
        assert len(joined) == len(completion.token_ids) + 1
        assert Completion("".join(joined), pieces.token_ids, pieces.finish_reason or "end") == completion
        assert completion.text == small_tokenizer.decode(completion.token_ids)


def test_a_stream_hands_out_a_piece_before_it_works_on_the_next(scripted: Script, model: Qwen3Model,
                                                               small_tokenizer: Qwen3Tokenizer) -> None:
    asked = scripted("The little boat")
    pieces = stream(model, small_tokenizer, "x")
    assert asked == []
    next(pieces)
    assert asked == [0]


def test_a_character_comes_when_it_is_complete(scripted: Script, model: Qwen3Model,
                                               small_tokenizer: Qwen3Tokenizer) -> None:
    scripted("鱼月")
    assert len(small_tokenizer.encode("鱼")) == 3
    assert list(stream(model, small_tokenizer, "x")) == ["", "", "鱼", "", "月", ""]
    assert list(stream(model, small_tokenizer, "x", max_new_tokens=2)) == ["", "", "\ufffd"]


def test_an_end_token_ends_the_text_and_is_not_in_it(model: Qwen3Model, small_tokenizer: Qwen3Tokenizer) -> None:
    free = generate(model, small_tokenizer, "The", 20, eos_token_id=()).token_ids
    first = free.index(free[6])
    for ends in (free[6], [free[6]], {free[6], free[-1]}):
        cut = first if ends != {free[6], free[-1]} else min(first, free.index(free[-1]))
        completion = generate(model, small_tokenizer, "The", 20, eos_token_id=ends)
        assert completion == Completion(small_tokenizer.decode(free[:cut]), free[:cut], "end")


def test_the_end_tokens_are_those_of_the_tokenizer(scripted: Script, model: Qwen3Model,
                                                   small_tokenizer: Qwen3Tokenizer) -> None:
    for end in ("<|im_end|>", "<|endoftext|>"):
        scripted(f"The cat{end} sat")
        assert generate(model, small_tokenizer, "x").text == "The cat"
        assert generate(model, small_tokenizer, "x", eos_token_id=()).text == f"The cat{end} sat"
        pieces = stream(model, small_tokenizer, "x")
        assert ("".join(pieces), pieces.finish_reason) == ("The cat", "end")


def test_an_answer_of_a_chat_ends_by_itself(tiny: tuple[Qwen3Model, Qwen3Tokenizer]) -> None:
    model, tokenizer = tiny
    ids = tokenizer.encode_chat([{"role": "user", "content": "Say the word river."}])
    completion = generate(model, tokenizer, ids, 60)
    assert completion.finish_reason == "end"
    assert completion.text and "<|im_end|>" not in completion.text
    assert not tokenizer.end_token_ids & set(completion.token_ids)


def test_no_new_tokens_is_a_valid_wish(model: Qwen3Model, small_tokenizer: Qwen3Tokenizer) -> None:
    assert generate(model, small_tokenizer, "The", 0) == Completion("", [], "length")
    assert list(stream(model, small_tokenizer, "The", 0)) == [""]


def test_an_interrupted_stream_gives_what_it_held_back(scripted: Script, model: Qwen3Model,
                                                       small_tokenizer: Qwen3Tokenizer) -> None:
    scripted("The moon", then=KeyboardInterrupt())
    pieces = stream(model, small_tokenizer, "x", stop="moon!")
    shown = []
    with pytest.raises(KeyboardInterrupt):
        for piece in pieces:
            shown.append(piece)
    assert "".join(shown) == "The "
    assert pieces.interrupt() == "moon"
    assert (pieces.interrupt(), pieces.finish_reason, list(pieces)) == ("", None, [])


def test_an_interrupted_stream_generates_no_more(scripted: Script, model: Qwen3Model,
                                                 small_tokenizer: Qwen3Tokenizer) -> None:
    asked = scripted("The little boat")
    pieces = stream(model, small_tokenizer, "x")
    next(pieces)
    pieces.interrupt()
    assert list(pieces) == [] and asked == [0]


# Stop strings

def expected_end(text: str, stop: Sequence[str]) -> str:
    """By the definition, letter by letter: the first stop string that is complete, of several the longest."""
    for end in range(len(text) + 1):
        complete = [string for string in stop if text[:end].endswith(string)]
        if complete:
            return text[:end - max(map(len, complete))]
    return text


@settings(max_examples=500, deadline=None)
@given(st.lists(st.text("ab月\n", max_size=4), max_size=12),
       st.lists(st.text("ab月\n", min_size=1, max_size=5), max_size=4))
def test_stop_strings_end_a_text_however_it_is_cut(pieces: list[str], stop: list[str]) -> None:
    text = "".join(pieces)
    strings = StopStrings(stop)
    shown = ""
    for piece in pieces:
        shown += strings.push(piece)
        assert expected_end(text, stop).startswith(shown)
    assert shown + strings.finish() == expected_end(text, stop)
    assert strings.found == any(string in text for string in stop)


def test_no_more_is_held_back_than_could_begin_a_stop_string() -> None:
    strings = StopStrings(["\n\nQ:", "END"])
    assert [strings.push(piece) for piece in ("a\n", "b", "E", "N", "x", "\n\nQ", "\n\nQ")] == [
        "a", "\nb", "", "", "ENx", "", "\n\nQ"]
    assert strings.finish() == "\n\nQ" and not strings.found
    assert StopStrings(()).push("anything") == "anything"


def test_a_stop_string_may_lie_in_a_token_across_tokens_and_across_characters(
        scripted: Script, model: Qwen3Model, small_tokenizer: Qwen3Tokenizer) -> None:
    text = "The river went on. 小鱼沿着小河走。"
    scripted(text)
    whole = small_tokenizer.encode(text)
    strings = [text[i:j] for i in range(len(text)) for j in range(i + 1, min(i + 6, len(text) + 1))]
    for stop in strings:
        completion = generate(model, small_tokenizer, "x", stop=[stop])
        assert completion.text == text[:text.index(stop)]
        assert completion.finish_reason == "stop"
        # No token more than it took to complete the string.
        ids = completion.token_ids
        assert ids == whole[:len(ids)]
        assert stop in small_tokenizer.decode(ids) and stop not in small_tokenizer.decode(ids[:-1])
        pieces = stream(model, small_tokenizer, "x", stop=[stop])
        assert "".join(pieces) == completion.text
        assert (pieces.token_ids, pieces.finish_reason) == (ids, "stop")


def test_what_was_held_back_is_shown_if_the_text_ends_otherwise(scripted: Script, model: Qwen3Model,
                                                                small_tokenizer: Qwen3Tokenizer) -> None:
    for text, ends in (("The moon<|im_end|>", "end"), ("The moon", "length")):
        scripted(text)
        length = len(small_tokenizer.encode("The moon")) + (ends == "end")
        pieces = stream(model, small_tokenizer, "x", length, stop=["moon was"])
        shown = list(pieces)
        assert "".join(shown) == "The moon" and pieces.finish_reason == ends
        assert "m" not in "".join(shown[:-1]) and shown[-1].endswith("moon")
        assert generate(model, small_tokenizer, "x", length, stop="moon was").text == "The moon"


def test_an_end_token_before_the_stop_string_counts(scripted: Script, model: Qwen3Model,
                                                    small_tokenizer: Qwen3Tokenizer) -> None:
    scripted("The<|im_end|>END")
    assert generate(model, small_tokenizer, "x", stop="END") == Completion(
        "The", small_tokenizer.encode("The"), "end")


def test_a_stop_string_may_be_completed_by_the_end_of_the_text(scripted: Script, model: Qwen3Model,
                                                               small_tokenizer: Qwen3Tokenizer) -> None:
    """An unfinished character becomes U+FFFD only when nothing more comes."""
    scripted("a鱼")
    completion = generate(model, small_tokenizer, "x", 3, stop="\ufffd")
    assert completion == Completion("a", small_tokenizer.encode("a鱼")[:3], "stop")


def test_one_string_is_one_stop_string(scripted: Script, model: Qwen3Model, small_tokenizer: Qwen3Tokenizer) -> None:
    scripted("a cat sat")
    assert generate(model, small_tokenizer, "x", stop="at s").text == "a c"


def test_stop_strings_end_the_work(scripted: Script, model: Qwen3Model, small_tokenizer: Qwen3Tokenizer) -> None:
    asked = scripted("a b c d e f g", "f e d c b a")
    first, second = generate(model, small_tokenizer, ["x", "y"], stop=["c d", "d c"])
    assert (first.text, second.text) == ("a b ", "f e ")
    assert len(asked) == max(len(first.token_ids), len(second.token_ids)) < len(small_tokenizer.encode("a b c d e f g"))


# Several texts

def test_each_of_several_texts_is_what_it_would_be_alone(tiny: tuple[Qwen3Model, Qwen3Tokenizer]) -> None:
    model, tokenizer = tiny
    chat = tokenizer.encode_chat([{"role": "user", "content": "Say the word river."}])
    prompts = ["The little boat went down the river and", "从前，", chat, "A"]
    together = generate(model, tokenizer, prompts, 40, stop=["。", "\n"])
    assert together == [generate(model, tokenizer, prompt, 40, stop=["。", "\n"]) for prompt in prompts]
    assert {completion.finish_reason for completion in together} == {"end", "stop", "length"}


def test_several_nonsense_texts_are_what_each_would_be_alone(model: Qwen3Model,
                                                             small_tokenizer: Qwen3Tokenizer) -> None:
    prompts = ["The", "moon was round", "小猫坐在窗前", "a", "The"]
    for stop in ((), "e", ["th", "\ufffd"]):
        together = generate(model, small_tokenizer, prompts, 30, stop=stop)
        assert together == [generate(model, small_tokenizer, prompt, 30, stop=stop) for prompt in prompts]
    assert together[0] == together[-1]


def test_one_seed_gives_one_result_for_the_same_batch(model: Qwen3Model, small_tokenizer: Qwen3Tokenizer) -> None:
    prompts, sampling = ["The", "moon was round", "小猫"], Sampling(3.0, top_k=50, repetition_penalty=1.2)
    first, again, other = (generate(model, small_tokenizer, prompts, 25, sampling, seed, eos_token_id=())
                           for seed in (3, 3, 4))
    assert first == again != other
    ids, mask = pad_left([small_tokenizer.encode(prompt) for prompt in prompts])
    by_hand = torch.cat(list(generate_tokens(model, ids, 25, cache=KVCache(model.config), attention_mask=mask,
                                             choose=Sampler(sampling, 3, ids, mask))), dim=1)
    assert [completion.token_ids for completion in first] == by_hand.tolist()


def test_a_list_with_one_prompt_gives_a_list(model: Qwen3Model, small_tokenizer: Qwen3Tokenizer) -> None:
    for prompt in ("The", [3, 4]):
        assert generate(model, small_tokenizer, [prompt], 5) == [generate(model, small_tokenizer, prompt, 5)]


# Refusals

@pytest.mark.parametrize(("prompts", "message"), [
    ("", "The prompt is empty"), ([""], "The prompt is empty"), ([[]], "The prompt is empty"),
    (["a", ""], "Prompt 2 of 2 is empty"), ([[1, 2], "a", []], "Prompt 3 of 3 is empty"), ([], "The prompt is empty"),
    ((), "The prompt is empty"),
    (None, "is a NoneType"), (7, "is a int"), (torch.tensor([1, 2]), "is a Tensor"), ({"a": 1}, "is a dict"),
    ([1, "a"], "A prompt is .* give text, or a list of token ids"), ([True, False], "A prompt is"),
    (["a", 2.5], "A prompt is 2.5"), ([1.5, 2.5], "A prompt is 1.5"), ([[1.5]], "A prompt is"),
    (["a", None], "A prompt is None"),
    ([["a"]], "A prompt is"), ("half \ud800", "surrogate"),
    ([5, -1], "The prompt: Token id -1 is not in the vocabulary"),
    (["a", [999_999]], "Prompt 2 of 2: Token id 999999 is not in the vocabulary"),
    ([5, 2**63], f"The prompt: Token id {2**63} is not in the vocabulary"), ([-2**70], "The prompt: Token id -"),
])
def test_bad_prompts_are_refused(model: Qwen3Model, small_tokenizer: Qwen3Tokenizer, prompts: Any,
                                 message: str) -> None:
    with pytest.raises(InputError, match=message):
        generate(model, small_tokenizer, prompts, 3)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"stop": ""}, "A stop string is ''"), ({"stop": ["a", ""]}, "A stop string is ''"),
    ({"stop": [3]}, "A stop string is 3"), ({"stop": 3}, "stop is 3"), ({"stop": None}, "stop is None"),
    ({"max_new_tokens": -1}, "whole number from 0 on"), ({"max_new_tokens": 2.5}, "whole number"),
    ({"max_new_tokens": "9"}, "whole number"), ({"max_new_tokens": True}, "whole number"),
    ({"seed": "x"}, "The seed is 'x'"), ({"sampling": 0.7}, "The settings are 0.7"),
    ({"sampling": None}, "The settings are None"),
])
def test_bad_arguments_are_refused_at_the_call(model: Qwen3Model, small_tokenizer: Qwen3Tokenizer,
                                               arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        generate(model, small_tokenizer, "The", **arguments)
    with pytest.raises(InputError, match=message):
        stream(model, small_tokenizer, "The", **arguments)


def test_a_prompt_that_is_too_long_is_named(model: Qwen3Model, small_tokenizer: Qwen3Tokenizer) -> None:
    with pytest.raises(ContextLengthError, match="^Prompt 2 of 3: 120 prompt tokens and 10 new ones do not fit"):
        generate(model, small_tokenizer, ["The", [5] * 120, "moon"], 10)
    with pytest.raises(ContextLengthError, match="^The prompt: 120 prompt tokens"):
        stream(model, small_tokenizer, [5] * 120, 10)
    assert len(generate(model, small_tokenizer, [5] * 120, 9, eos_token_id=()).token_ids) == 9


def test_a_stream_of_several_prompts_is_refused(model: Qwen3Model, small_tokenizer: Qwen3Tokenizer) -> None:
    with pytest.raises(InputError, match="a list of 2: use generate"):
        stream(model, small_tokenizer, ["a", "b"])  # type: ignore[arg-type]
    assert isinstance(stream(model, small_tokenizer, "a"), TextStream)
