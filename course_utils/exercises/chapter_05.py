"""Exercises of chapter 5: a generation loop that streams, and one that stops at a given text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from course_utils.exercises.exercise import Answer, Exercise
from course_utils.exercises.scripted_model import ScriptedModel
from course_utils.loading import load_tokenizer
from course_utils.tokenizer import Qwen3Tokenizer

# ---- 5.1 -------------------------------------------------------------------------------------------------


def generate_stream(model: nn.Module, token_ids: Tensor, max_new_tokens: int,
                    eos_token_id: int | None = None) -> Iterator[Tensor]:
    """Yield each new token, (1, 1), as soon as it is chosen; the end token is not yielded."""
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            logits = model(token_ids, last_only=True)
        token = logits[:, -1].argmax(dim=-1, keepdim=True)
        if token.item() == eos_token_id:
            return
        yield token
        token_ids = torch.cat((token_ids, token), dim=1)


def _verify_generate_stream(answer: Answer) -> str | None:
    prompt, script, end = [3, 4, 5], [6, 7, 6, 8, 9, 2], 10
    model = ScriptedModel(prompt, script)
    stream: Any = answer(model, model.prompt_ids, len(script))
    if not hasattr(stream, "__next__"):
        return (f"You return a {type(stream).__name__} when everything is done. With `yield token` inside the loop "
                "the function becomes a generator, which hands out each token at once.")
    try:
        hint = _watch(stream, model)
    finally:
        stream.close() if hasattr(stream, "close") else None
    if hint:
        return hint
    model = ScriptedModel(prompt, [6, 7, end, 8])
    told = [int(token) for token in answer(model, model.prompt_ids, 8, end)]
    if told == [6, 7, end]:
        return "It ends at the end token but yields it too: return before the yield."
    if told != [6, 7]:
        return "It goes on after the end token: return as soon as the chosen token is eos_token_id."
    model = ScriptedModel(prompt, [6])
    if list(answer(model, model.prompt_ids, 0)):
        return "With max_new_tokens=0 nothing should come, and a token did: let range(max_new_tokens) do the counting."
    return None


def _watch(stream: Iterator[Any], model: ScriptedModel) -> str | None:
    """Take the tokens of a stream that should be the whole script, and see how they came about."""
    first = next(stream)
    if torch.is_inference_mode_enabled():
        return ("After the first token the caller's own code runs in inference mode too: a `with` around a `yield` "
                "stays open between two tokens. Put it around the model's call alone.")
    if not isinstance(first, Tensor) or first.dim() != 2 or first.shape[0] != 1:
        return "Yield a tensor of shape (1, 1), as argmax(dim=-1, keepdim=True) gives it: it fits behind the text."
    if first.shape[1] > 1:
        return "You yield the text so far; yield the new token alone, and whoever wants the text joins them."
    if model.passes > 1:
        return (f"The first token came after {model.passes} passes of the model, and one is enough: "
                "yield inside the loop, not after it.")
    if model.kept_gradients:
        return "The model ran with gradients recorded, which costs memory: call it in `with torch.inference_mode():`."
    tokens = [first, *stream]
    if any(token.shape[1] > 1 for token in tokens):
        return "You yield the text so far; yield the new token alone, and whoever wants the text joins them."
    if model.astray or set(model.lengths) == {len(model.prompt)}:
        return "The model was not given prompt and new tokens in order: torch.cat each new token to the text, dim=1."
    if model.passes != len(model.script):
        return f"{len(model.script)} tokens need {len(model.script)} forward passes, and there were {model.passes}."
    if [int(token) for token in tokens] != model.script:
        return "The model was called rightly, but its choices did not all come out: yield each one, unchanged."
    return None


def _returns_everything(model: nn.Module, token_ids: Tensor, n: int, eos: int | None = None) -> Tensor:
    return torch.cat(list(generate_stream(model, token_ids, n, eos)), dim=1)


def _yields_afterwards(model: nn.Module, token_ids: Tensor, n: int, eos: int | None = None) -> Iterator[Tensor]:
    yield from list(generate_stream(model, token_ids, n, eos))


def _never_appends(model: nn.Module, token_ids: Tensor, n: int, eos: int | None = None) -> Iterator[Tensor]:
    for _ in range(n):
        with torch.inference_mode():
            token = model(token_ids)[:, -1].argmax(dim=-1, keepdim=True)
        yield token


def _yields_the_text(model: nn.Module, token_ids: Tensor, n: int, eos: int | None = None) -> Iterator[Tensor]:
    for token in generate_stream(model, token_ids, n, eos):
        token_ids = torch.cat((token_ids, token), dim=1)
        yield token_ids


def _yields_the_end(model: nn.Module, token_ids: Tensor, n: int, eos: int | None = None) -> Iterator[Tensor]:
    for token in generate_stream(model, token_ids, n):
        yield token
        if token.item() == eos:
            return


def _ignores_the_end(model: nn.Module, token_ids: Tensor, n: int, eos: int | None = None) -> Iterator[Tensor]:
    yield from generate_stream(model, token_ids, n)


def _records_gradients(model: nn.Module, token_ids: Tensor, n: int, eos: int | None = None) -> Iterator[Tensor]:
    for _ in range(n):
        token = model(token_ids)[:, -1].argmax(dim=-1, keepdim=True)
        yield token
        token_ids = torch.cat((token_ids, token), dim=1)


def _stays_in_inference_mode(model: nn.Module, token_ids: Tensor, n: int, eos: int | None = None) -> Iterator[Tensor]:
    with torch.inference_mode():
        yield from _records_gradients(model, token_ids, n, eos)


def _yields_numbers(model: nn.Module, token_ids: Tensor, n: int, eos: int | None = None) -> Iterator[int]:
    for token in generate_stream(model, token_ids, n, eos):
        yield int(token)


_GENERATE_STREAM = Exercise("5.1", "Stream tokens with yield", generate_stream, _verify_generate_stream, wrong=(
    (_returns_everything, "With `yield token` inside the loop"),
    (_yields_afterwards, "yield inside the loop, not after it"),
    (_never_appends, "torch.cat each new token"),
    (_yields_the_text, "yield the new token alone"),
    (_yields_the_end, "yields it too"),
    (_ignores_the_end, "goes on after the end token"),
    (_records_gradients, "in `with torch.inference_mode():`"),
    (_stays_in_inference_mode, "around the model's call alone"),
    (_yields_numbers, "a tensor of shape (1, 1)"),
))

# ---- 5.2 -------------------------------------------------------------------------------------------------


def read_until(tokens: Iterator[Tensor], tokenizer: Qwen3Tokenizer, stop: str) -> str:
    """Take tokens, (1, 1) each, until their text contains `stop`; return the text up to its end."""
    decoder = tokenizer.stream()
    text = ""
    for token in tokens:
        text += decoder.push(int(token))
        if stop in text:
            return text[:text.index(stop) + len(stop)]
    return text + decoder.finish()


# Text, and where to stop: at a token of its own, inside a token, across two, inside a character of several tokens.
_STOPS = (("The cat sleeps. The dog runs.", "."), ("The cat and the dog are here.", "og"),
          ("The cat and the dog are here.", "t an"), ("一只小猫龘在睡觉。", "龘"))


def _verify_read_until(answer: Answer) -> str | None:
    tokenizer = load_tokenizer("tiny")
    for text, stop in _STOPS:
        expected = text[:text.index(stop) + len(stop)]
        taken: list[int] = []
        told: Any = answer(_count_taken(tokenizer.encode(text), taken), tokenizer, stop)
        if not isinstance(told, str):
            return f"You return a {type(told).__name__} for {text!r}, and the text up to {stop!r} is asked for."
        if "\ufffd" in told and "\ufffd" not in expected:
            return (f"{text!r} came out with replacement characters: a token can be a part of a character. "
                    "Let one tokenizer.stream() put the pieces together.")
        needed = next(n for n in range(1, len(taken) + 2) if stop in tokenizer.decode(tokenizer.encode(text)[:n]))
        if len(taken) > needed:
            if told == expected:
                return (f"You took {len(taken)} tokens where {needed} were enough: every one is a forward pass. "
                        "Look for the stop after each token.")
            return (f"The stop {stop!r} in {text!r} was passed over: it can lie inside a token or across two, "
                    "so look for it in the whole text so far.")
        if told == expected.removesuffix(stop):
            return f"The text lacks the stop {stop!r} itself: it belongs to the sentence, so cut behind it."
        if told != expected:
            return f"For {text!r} and {stop!r} you return {told!r}: cut what stands after the stop in its token."
    half = tokenizer.encode("小猫龘")[:-1]  # a text that breaks off in the middle of a character
    told = answer(_count_taken(half, []), tokenizer, "。")
    if told is None:
        return "When the stop never comes, you return nothing: return the text there is."
    if told != tokenizer.decode(half):
        return f"Without the stop this stream should give {tokenizer.decode(half)!r}: ask the decoder to finish()."
    return None


def _count_taken(token_ids: list[int], taken: list[int]) -> Iterator[Tensor]:
    for token_id in token_ids:
        taken.append(token_id)
        yield torch.tensor([[token_id]])


def _looks_at_one_token(tokens: Iterator[Tensor], tokenizer: Qwen3Tokenizer, stop: str) -> str:
    ids = []
    for token in tokens:
        ids.append(int(token))
        if tokenizer.decode(int(token)) == stop:
            break
    return tokenizer.decode(ids)


def _reads_to_the_end(tokens: Iterator[Tensor], tokenizer: Qwen3Tokenizer, stop: str) -> str:
    text = tokenizer.decode([int(token) for token in tokens])
    return text[:text.index(stop) + len(stop)] if stop in text else text


def _decodes_one_by_one(tokens: Iterator[Tensor], tokenizer: Qwen3Tokenizer, stop: str) -> str:
    text = ""
    for token in tokens:
        text += tokenizer.decode(int(token))
        if stop in text:
            return text[:text.index(stop) + len(stop)]
    return text


def _keeps_the_rest(tokens: Iterator[Tensor], tokenizer: Qwen3Tokenizer, stop: str) -> str:
    ids = []
    for token in tokens:
        ids.append(int(token))
        if stop in tokenizer.decode(ids):
            break
    return tokenizer.decode(ids)


def _drops_the_stop(tokens: Iterator[Tensor], tokenizer: Qwen3Tokenizer, stop: str) -> str:
    return read_until(tokens, tokenizer, stop).removesuffix(stop)


def _forgets_to_finish(tokens: Iterator[Tensor], tokenizer: Qwen3Tokenizer, stop: str) -> str:
    return read_until(tokens, tokenizer, stop).rstrip("\ufffd")


def _returns_nothing(tokens: Iterator[Tensor], tokenizer: Qwen3Tokenizer, stop: str) -> str | None:
    text = read_until(tokens, tokenizer, stop)
    return text if stop in text else None


_READ_UNTIL = Exercise("5.2", "Stop at a full stop", read_until, _verify_read_until, wrong=(
    (_looks_at_one_token, "inside a token or across two"),
    (_reads_to_the_end, "were enough"),
    (_decodes_one_by_one, "replacement characters"),
    (_keeps_the_rest, "cut what stands after the stop"),
    (_drops_the_stop, "lacks the stop"),
    (_forgets_to_finish, "finish()"),
    (_returns_nothing, "you return nothing"),
))

EXERCISES: tuple[Exercise, ...] = (_GENERATE_STREAM, _READ_UNTIL)
