"""Exercises of chapter 5: a loop that streams, a stop inside the text, a stream's speed, and what passes compute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from course_utils.exercises.chapters.scripted_model import ScriptedModel
from course_utils.exercises.exercise import Answer, Exercise
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

# ---- 5.3 -------------------------------------------------------------------------------------------------


def measure_stream(tokens: Iterator[Tensor], clock: Callable[[], float]) -> tuple[float, float]:
    """Read a stream to its end; return the seconds to its first token, and its tokens per second in all."""
    count, first, start = 0, 0.0, clock()
    for _ in tokens:
        count += 1
        if count == 1:
            first = clock() - start
    return first, count / (clock() - start)


class _Clock:
    """A clock that shows what it was set to, and counts how often it was read."""

    def __init__(self) -> None:
        self.now, self.readings = 100.0, 0

    def __call__(self) -> float:
        self.readings += 1
        return self.now

    def stream(self, waits: list[float]) -> Iterator[Tensor]:
        """Tokens, each of which takes so many seconds."""
        for wait in waits:
            self.now += wait
            yield torch.tensor([[7]])


def _verify_measure_stream(answer: Answer) -> str | None:
    for waits in ([0.5, 0.125, 0.125, 0.25], [2.0, 1.0]):
        clock = _Clock()
        given: Any = answer(clock.stream(waits), clock)
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            return "Return two numbers: the seconds to the first token, and the tokens per second."
        if clock.readings == 0:
            return "The clock that you were given was never read: call clock() where you would look at your watch."
        first, speed = (float(number) for number in given)
        total, count = sum(waits), len(waits)
        told = f"A first token after {waits[0]:g} s, and {count} tokens after {total:g} s"
        if clock.now < 100 + total:
            return "You left before the last token. Read the stream to its end, as a user would."
        if first == total:
            return ("The first token came as late as the last one. Look at the clock inside the loop: a list of the "
                    "stream is only there when all is over.")
        if first == 0:
            return "The first token took no time at all. Look at the clock before you ask the stream for it."
        if first != waits[0]:
            return f"{told}: you return {first:g} s to the first token, and {waits[0]:g} s is right."
        if speed == total / count:
            return f"{told}: {speed:g} are the seconds per token. Divide the tokens by the seconds."
        if speed == (count - 1) / (total - waits[0]):
            return "That is the speed behind the first token. Here the wait for it counts too, and so does the token."
        if speed == count / (total - waits[0]):
            return "The tokens are all counted, but not all seconds: begin at the start, not at the first token."
        if speed == (count - 1) / total:
            return "The first token is not counted. It is one of the tokens as well."
        if speed != count / total:
            return f"{told}: that is {count / total:g} tokens per second, and you return {speed:g}."
    return None


def _listed_first(tokens: Iterator[Tensor], clock: Callable[[], float]) -> tuple[float, float]:
    start = clock()
    everything = list(tokens)
    return clock() - start, len(everything) / (clock() - start)


def _starts_too_late(tokens: Iterator[Tensor], clock: Callable[[], float]) -> tuple[float, float]:
    next(tokens)
    start = clock()
    first = clock() - start
    return first, (1 + len(list(tokens))) / (clock() - start)


def _decode_alone(tokens: Iterator[Tensor], clock: Callable[[], float]) -> tuple[float, float]:
    start = clock()
    next(tokens)
    first = clock()
    return first - start, len(list(tokens)) / (clock() - first)


def _upside_down(tokens: Iterator[Tensor], clock: Callable[[], float]) -> tuple[float, float]:
    first, speed = measure_stream(tokens, clock)
    return first, 1 / speed


def _without_the_first(tokens: Iterator[Tensor], clock: Callable[[], float]) -> tuple[float, float]:
    start = clock()
    next(tokens)
    first = clock() - start
    return first, len(list(tokens)) / (clock() - start)


def _own_clock(tokens: Iterator[Tensor], clock: Callable[[], float]) -> tuple[float, float]:
    return measure_stream(tokens, time.perf_counter)


def _first_token_only(tokens: Iterator[Tensor], clock: Callable[[], float]) -> tuple[float, float]:
    start = clock()
    next(tokens)
    return clock() - start, 1 / (clock() - start)


_MEASURE_STREAM = Exercise("5.3", "Time a stream", measure_stream, _verify_measure_stream, (
    (_listed_first, "inside the loop"),
    (_starts_too_late, "before you ask the stream"),
    (_decode_alone, "behind the first token"),
    (_upside_down, "seconds per token"),
    (_without_the_first, "is not counted"),
    (_own_clock, "never read"),
    (_first_token_only, "left before the last token"),
    (lambda tokens, clock: measure_stream(tokens, clock)[1], "two numbers"),
))

# ---- 5.4 -------------------------------------------------------------------------------------------------


def pass_lengths(prompt_tokens: int, new_tokens: int, ended: bool, cached: bool) -> list[int]:
    """How many tokens each forward pass is given.

    Args:
        prompt_tokens: tokens of the prompt.
        new_tokens: tokens of the answer, the end token not counted.
        ended: whether the model chose the end token, rather than being stopped by `max_new_tokens`.
        cached: whether there is a key-value cache.
    """
    passes = new_tokens + 1 if ended else new_tokens
    if cached:
        return [prompt_tokens] + [1] * (passes - 1)
    return [prompt_tokens + done for done in range(passes)]


def _verify_pass_lengths(answer: Answer) -> str | None:
    for cached in (False, True):
        for ended in (False, True):
            given: Any = answer(5, 3, ended, cached)
            if not isinstance(given, list):
                return f"You return a {type(given).__name__}. Return a list, with one number for each pass."
            right = pass_lengths(5, 3, ended, cached)
            case = f"5 prompt tokens and 3 new ones, {'with' if cached else 'without'} a cache"
            if given == right:
                continue
            if cached and given == pass_lengths(5, 3, ended, False):
                return "With a cache the later passes are not given the whole text again, only what is new."
            if not cached and given == pass_lengths(5, 3, ended, True):
                return "Without a cache every pass is given the whole text so far, not the new token alone."
            if cached and given == [1] * len(right):
                return "The first pass reads the whole prompt, with a cache as well: that is the prefill."
            if ended and len(given) == len(right) - 1:
                return f"{case}, ended by itself: one more pass was needed, the one that chose the end token."
            if not ended and len(given) == len(right) + 1:
                return f"{case}, stopped by the limit: the first pass gives a new token, so 3 passes are enough."
            if not cached and given == [length + 1 for length in right]:
                return "The first pass is given the prompt alone: there is no new token yet."
            return f"{case}: the passes are {right}, and you return {given}."
    if answer(8, 0, True, True) != [8]:
        return "A model may choose the end token at once: no new token, and still one pass over the prompt."
    if answer(7, 2, False, False) != [7, 8]:
        return "For another prompt the numbers do not fit: compute them from the arguments."
    return None


_PASS_LENGTHS = Exercise("5.4", "Predict the passes", pass_lengths, _verify_pass_lengths, (
    (lambda p, n, ended, cached: pass_lengths(p, n, True, cached), "3 passes are enough"),
    (lambda p, n, ended, cached: pass_lengths(p, n, False, cached), "one more pass"),
    (lambda p, n, ended, cached: pass_lengths(p, n, ended, False), "only what is new"),
    (lambda p, n, ended, cached: pass_lengths(p, n, ended, True), "not the new token alone"),
    (lambda p, n, ended, cached: [1] * (n + ended) if cached else pass_lengths(p, n, ended, cached), "the prefill"),
    (lambda p, n, ended, cached: [1 + length for length in pass_lengths(p, n, ended, cached)], "no new token yet"),
    (lambda p, n, ended, cached: sum(pass_lengths(p, n, ended, cached)), "one number for each pass"),
    (lambda p, n, ended, cached: pass_lengths(p, n, ended, cached) if n else [], "at once"),
))

EXERCISES: tuple[Exercise, ...] = (_GENERATE_STREAM, _READ_UNTIL, _MEASURE_STREAM, _PASS_LENGTHS)
