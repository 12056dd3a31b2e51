"""Exercises of chapter 5: a loop that streams, a stop inside the text, a stream's speed, and what passes compute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_utils.exercises.answers import NotYet, close, describe, numbers, take, text, wholes
from course_utils.exercises.chapters.scripted_model import ScriptedModel
from course_utils.exercises.chapters.tokenizers_for_checks import bundled_tokenizer, bytewise_tokenizer
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.language import gettext
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


_PROMPT, _SCRIPT = [3, 4, 5], [6, 7, 6, 8, 9, 2]
# Prompt, what the model wants to write, how many tokens may come, the end token, what is right, and what to look at if
# something else comes.
_ENDS: tuple[tuple[list[int], list[int], int, int | None, list[int], str], ...] = (
    (_PROMPT, [6, 7, 10, 8], 8, 10, [6, 7], "It goes on after the end token: return as soon as the chosen token is "
                                            "eos_token_id."),
    ([1, 0], [9, 3, 8, 7], 3, None, [9, 3, 8], "With max_new_tokens=3 other tokens should come: let "
                                               "range(max_new_tokens) do the counting."),
    (_PROMPT, [6], 0, None, [], ""),  # whatever comes is one too many
    ([2], [5, 0, 4], 8, 0, [5], "The end token 0 does not stop it. Python takes 0 for false: compare the token with "
                                "eos_token_id, and do not ask `if eos_token_id`."),
    ([8, 7], [5, 0, 4], 3, None, [5, 0, 4], "Without an end token it stops all the same, at the token 0: None is no "
                                            "token."),
    (_PROMPT, [11, 6], 4, 11, [], "Where the first token that is chosen is the end token, nothing should come."),
    ([10, 4], [6, 7], 2, 10, [6, 7], "It stops although the model did not choose the end token, which stands in the "
                                     "prompt: look at the new token alone."),
)


def _verify_generate_stream(answer: Answer) -> str | None:
    model = ScriptedModel(_PROMPT, _SCRIPT)
    stream = _a_stream(answer(model, model.prompt_ids, len(_SCRIPT)))
    try:
        hint = _watch(stream, model)
    finally:
        stream.close() if hasattr(stream, "close") else None
    if hint:
        return hint
    for prompt, script, most, end, right, hint in _ENDS:
        model = ScriptedModel(prompt, script)
        stream = _a_stream(answer(model, model.prompt_ids, most, *([] if end is None else [end])))
        told = [int(token) for token in take(stream, most, gettext("With max_new_tokens={most} more tokens than that "
                                                                   "come: count them, also where no end token is "
                                                                   "given.").format(most=most))]
        if told == [*right, end]:
            return "It ends at the end token but yields it too: return before the yield."
        if told != right:
            return hint
        if model.passes != len(right) + (end in script):
            return gettext("The right tokens came, after {passes} forward passes, and {count} are enough: one for each "
                           "token that is chosen, the end token included.").format(
                passes=model.passes, count=len(right) + (end in script))
    return None


def _a_stream(returned: Any) -> Iterator[Any]:
    if not isinstance(returned, Iterator):
        given = "None" if returned is None else describe(returned)
        raise NotYet(gettext("You return {given} when everything is done. With `yield token` inside the loop the "
                             "function becomes a generator, which hands out each token at once.").format(given=given))
    return returned


def _watch(stream: Iterator[Any], model: ScriptedModel) -> str | None:
    """Take the tokens of a stream that should be the whole script, and see how they came about."""
    first = next(stream, None)
    if torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
        return ("After the first token the caller's own code runs in inference mode too: a `with` around a `yield` "
                "stays open between two tokens. Put it around the model's call alone.")
    if first is None:
        return "Not one token comes out. Does the loop begin, and does it reach the `yield`?"
    if not isinstance(first, Tensor) or first.dim() != 2 or first.shape[0] != 1:
        return gettext("You yield {describe}. Yield a tensor of shape (1, 1), as argmax(dim=-1, keepdim=True) gives "
                       "it: torch.cat can put it after the text.").format(describe=describe(first))
    if first.shape[1] > 1:
        return _THE_TEXT_SO_FAR
    if model.passes > 1:
        return gettext("The first token came after {passes} passes of the model, and one is enough: yield inside the "
                       "loop, not after it.").format(passes=model.passes)
    if model.kept_gradients:
        return "The model ran with gradients recorded, which costs memory: call it in `with torch.inference_mode():`."
    most = len(model.script)
    tokens = [first, *take(stream, most - 1, gettext("More than {most} tokens come with max_new_tokens={most}. What "
                                                     "ends the loop where there is no end token?").format(most=most))]
    if any(not isinstance(token, Tensor) or token.shape != (1, 1) for token in tokens):
        return _THE_TEXT_SO_FAR
    if model.astray or set(model.lengths) == {len(model.prompt)}:
        return "The model was not given prompt and new tokens in order: torch.cat each new token to the text, dim=1."
    if model.passes != most:
        return gettext("{most} tokens need {most} forward passes, and there were {passes}.").format(
            most=most, passes=model.passes)
    if [int(token) for token in tokens] != model.script:
        return "The model was called rightly, but its choices did not all come out: yield each one, unchanged."
    return None


_THE_TEXT_SO_FAR = "You yield the text so far; yield the new token alone, and whoever wants the text joins them."


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


def _asks_whether_there_is_an_end(model: nn.Module, token_ids: Tensor, n: int, eos: int | None = None
                                  ) -> Iterator[Tensor]:
    for token in generate_stream(model, token_ids, n):
        if eos and token.item() == eos:
            return
        yield token


def _without_a_limit(model: nn.Module, token_ids: Tensor, n: int, eos: int | None = None) -> Iterator[Tensor]:
    while True:
        new = list(generate_stream(model, token_ids, 1, eos))
        if not new:
            return
        yield new[0]
        token_ids = torch.cat((token_ids, new[0]), dim=1)


def _stops_at_the_prompts_end(model: nn.Module, token_ids: Tensor, n: int, eos: int | None = None) -> Iterator[Tensor]:
    for token in generate_stream(model, token_ids, n, eos):
        if eos is not None and eos in token_ids:
            return
        yield token


def _takes_none_for_zero(model: nn.Module, token_ids: Tensor, n: int, eos: int | None = None) -> Iterator[Tensor]:
    return generate_stream(model, token_ids, n, eos or 0)


def _one_at_least(model: nn.Module, token_ids: Tensor, n: int, eos: int | None = None) -> Iterator[Tensor]:
    return generate_stream(model, token_ids, max(1, n), eos)


def _chosen_without_gradients(model: nn.Module, token_ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model(token_ids)[0, -1].topk(1).indices[None]


def _by_a_function(model: nn.Module, token_ids: Tensor, n: int, eos: int | None = None) -> Iterator[Tensor]:
    while n > 0:
        token = _chosen_without_gradients(model, token_ids)
        if eos is not None and int(token) == eos:
            break
        yield token
        token_ids, n = torch.hstack([token_ids, token]), n - 1


def _of_a_list(model: nn.Module, token_ids: Tensor, n: int, eos: int | None = None) -> Iterator[Tensor]:
    ids = token_ids[0].tolist()
    for _ in range(n):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids]), last_only=True).argmax()))
        if ids[-1] == eos:
            return
        yield torch.tensor([ids[-1:]])


class _Stepping:
    """An iterator without `yield`."""

    def __init__(self, model: nn.Module, token_ids: Tensor, n: int, eos: int | None = None) -> None:
        self.model, self.token_ids, self.left, self.eos = model, token_ids, n, eos

    def __iter__(self) -> _Stepping:
        return self

    def __next__(self) -> Tensor:
        token = _chosen_without_gradients(self.model, self.token_ids) if self.left > 0 else None
        if token is None or int(token) == self.eos:
            raise StopIteration
        self.token_ids, self.left = torch.cat((self.token_ids, token), dim=1), self.left - 1
        return token


_PASS, _CHOSEN = "`logits = model(token_ids, last_only=True)`", "`token = logits[:, -1].argmax(dim=-1, keepdim=True)`"
_EITHER_WAY = "The last row is the same; without it more is computed, which the task does not forbid."
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
    (_asks_whether_there_is_an_end, "do not ask `if eos_token_id`"),
    (_without_a_limit, "What ends the loop"),
    (_takes_none_for_zero, "None is no token"),
    (_stops_at_the_prompts_end, "stands in the prompt"),
    (_one_at_least, "With max_new_tokens=0"),
    (lambda model, ids, n, eos=None: generate_stream(model, ids, 6, eos), "With max_new_tokens=3 more"),
    (lambda model, ids, n, eos=None: iter([]), "Not one token"),
    (lambda model, ids, n, eos=None: print(end=""), "You return None"),
), also_wrong=(
    lambda model, ids, n, eos=None: generate_stream(model, ids, n - 1, eos),
    lambda model, ids, n, eos=None: generate_stream(model, ids[:, 1:], n, eos),
    lambda model, ids, n, eos=None: generate_stream(model, ids, n, 10),
    lambda model, ids, n, eos=None: (token[0] for token in generate_stream(model, ids, n, eos)),
    lambda model, ids, n, eos=None: (token for token in [*generate_stream(model, ids, n, eos)]),
    lambda model, ids, n, eos=None: [*generate_stream(model, ids, n, eos)],
    lambda model, ids, n, eos=None: (token for token in generate_stream(model, ids, n) if token.item() != eos),
), right=(
    _by_a_function,
    _of_a_list,
    _Stepping,
    lambda model, ids, n, eos=None: (token for token in generate_stream(model, ids, n, eos)),
), equivalent={
    f"{_PASS} to `logits = model(token_ids)`": _EITHER_WAY,
    f"{_PASS} to `logits = model(token_ids, last_only=False)`": _EITHER_WAY,
    f"{_CHOSEN} to `token = logits[:, -0].argmax(dim=-1, keepdim=True)`": "With last_only there is one row.",
    f"{_CHOSEN} to `token = logits[-1, :].argmax(dim=-1, keepdim=True)`":
        "There is one text, and with last_only one row.",
    f"{_CHOSEN} to `token = logits[:, -1].argmax(keepdim=True)`": "There is one text.",
    f"{_CHOSEN} to `token = logits[:, -1].argmax(dim=1, keepdim=True)`":
        "What is left has two dimensions, and the last one is number 1.",
}, refused={
    "NumPy": "torch.cat, which puts a token after the text, takes tensors alone.",
    "list for a tensor": "torch.cat, which puts a token after the text, takes tensors alone.",
})

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


# Text, and where to stop: at a token of its own, inside a token, across two, inside a character of several tokens; then
# twice in one token, a text that begins with a space, at the very beginning, twice in the text, and of several words.
_STOPS = (("The cat sleeps. The dog runs.", "."), ("The cat and the dog are here.", "og"),
          ("The cat and the dog are here.", "t an"), ("一只小猫龘在睡觉。", "龘"), ("A little boat.", "t"),
          (" The cat sleeps. The dog runs.", "."), ("The cat", "T"), ("Another dog, the cat, the end", " the"),
          ("The cat sleeps. The dog runs.", "sleeps. The"))
# Texts in which the stop never comes: with spaces and line breaks at both ends, and none at all.
_STOPLESS = (" The cat and the dog.\n\n", "小猫", "")


def _verify_read_until(answer: Answer) -> str | None:
    for tokenizer in (bundled_tokenizer(), bytewise_tokenizer()):
        for text_, stop in _STOPS:
            if hint := _judge_stop(answer, tokenizer, text_, stop):
                return hint
        for text_ in _STOPLESS:
            if hint := _judge_rest(answer, tokenizer, tokenizer.encode(text_)):
                return hint
        half = tokenizer.encode("小猫龘")[:-1]  # a text that breaks off in the middle of a character
        if hint := _judge_rest(answer, tokenizer, half):
            return hint
    return None


def _judge_stop(answer: Answer, tokenizer: Qwen3Tokenizer, whole: str, stop: str) -> str | None:
    expected, ids = whole[:whole.index(stop) + len(stop)], tokenizer.encode(whole)
    taken: list[int] = []
    told = text(answer(_count_taken(ids, taken), tokenizer, stop), gettext("the text of {whole!r} up to the end of "
                                                                           "{stop!r}").format(whole=whole, stop=stop))
    needed = next(n for n in range(1, len(ids) + 1) if stop in tokenizer.decode(ids[:n]))
    if told == tokenizer.decode(ids[:needed]) != expected:
        return gettext("For {whole!r} and {stop!r} you return {told!r}: cut what stands "
                       "after the stop in its token.").format(whole=whole, stop=stop, told=told)
    if "\ufffd" in told:
        return gettext("{whole!r} came out with replacement characters: a token can be a part of a character. Let one "
                       "tokenizer.stream() put the pieces together.").format(whole=whole)
    if len(taken) > needed:
        if told == expected:
            return gettext("You took {count} tokens where {needed} were enough: every one is a forward pass. Look for "
                           "the stop after each token.").format(count=len(taken), needed=needed)
        return gettext("The stop {stop!r} in {whole!r} was passed over: it can lie inside a token or across two, so "
                       "look for it in the whole text so far.").format(stop=stop, whole=whole)
    if told == expected:
        return None
    if told == expected.removesuffix(stop):
        return gettext("The text lacks the stop {stop!r} itself: it belongs to the sentence, so cut after it.").format(
            stop=stop)
    if told == expected.strip():
        return gettext("For {whole!r} and {stop!r} you return {told!r}: a space at its beginning "
                       "or end belongs to the text.").format(whole=whole, stop=stop, told=told)
    if expected.startswith(told) and len(taken) < needed:
        return gettext("For {whole!r} and {stop!r} you return {told!r}: you stopped too soon, "
                       "the stop had not come yet.").format(whole=whole, stop=stop, told=told)
    if told.startswith(expected):
        return gettext("For {whole!r} and {stop!r} you return {told!r}: the stop comes twice in that token. Cut at the "
                       "first, which text.index finds.").format(whole=whole, stop=stop, told=told)
    return gettext("For {whole!r} and {stop!r} you return {told!r}, and {expected!r} is right.").format(
        whole=whole, stop=stop, told=told, expected=expected)


def _judge_rest(answer: Answer, tokenizer: Qwen3Tokenizer, ids: list[int]) -> str | None:
    expected = tokenizer.decode(ids)
    told = text(answer(_count_taken(ids, []), tokenizer, "。"), "all the text there is, where the stop never comes")
    if told == expected:
        return None
    if told == expected.strip():
        return gettext("Without the stop you return {told!r}: spaces and line breaks at "
                       "both ends belong to the text.").format(told=told)
    if told == expected.removesuffix("\ufffd"):
        return gettext("Without the stop this stream should give {expected!r}: ask the decoder to finish().").format(
            expected=expected)
    return gettext("Without the stop this stream should give {expected!r}, all of its "
                   "text, and you return {told!r}.").format(expected=expected, told=told)


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


def _strips(tokens: Iterator[Tensor], tokenizer: Qwen3Tokenizer, stop: str) -> str:
    return read_until(tokens, tokenizer, stop).lstrip()


def _cuts_at_the_last(tokens: Iterator[Tensor], tokenizer: Qwen3Tokenizer, stop: str) -> str:
    decoder, so_far = tokenizer.stream(), ""
    for token in tokens:
        so_far += decoder.push(int(token))
        if stop in so_far:
            return so_far[:so_far.rindex(stop) + len(stop)]
    return so_far + decoder.finish()


def _of_the_notebooks(tokens: Iterator[Tensor], tokenizer: Qwen3Tokenizer, stop: str) -> str:
    return read_until(tokens, bundled_tokenizer(), stop)


def _stops_at_a_full_stop(tokens: Iterator[Tensor], tokenizer: Qwen3Tokenizer, stop: str) -> str:
    return read_until(tokens, tokenizer, ".")


def _nothing_without_a_stop(tokens: Iterator[Tensor], tokenizer: Qwen3Tokenizer, stop: str) -> str:
    so_far = read_until(tokens, tokenizer, stop)
    return so_far if stop in so_far else ""


def _looks_at_the_last_letter(tokens: Iterator[Tensor], tokenizer: Qwen3Tokenizer, stop: str) -> str:
    return read_until(tokens, tokenizer, stop[-1])


def _decodes_all_so_far(tokens: Iterator[Tensor], tokenizer: Qwen3Tokenizer, stop: str) -> str:
    ids: list[int] = []
    for token in tokens:
        ids.append(int(token.item()))
        before, found, _ = tokenizer.decode(ids).partition(stop)
        if found:
            return before + found
    return tokenizer.decode(ids)


def _joins_bytes(tokens: Iterator[Tensor], tokenizer: Qwen3Tokenizer, stop: str) -> str:
    data = b""
    for token in tokens:
        data += tokenizer.token_bytes(int(token))
        if stop.encode() in data:
            return data[:data.index(stop.encode()) + len(stop.encode())].decode()
    return data.decode("utf-8", "replace")


def _letter_by_letter(tokens: Iterator[Tensor], tokenizer: Qwen3Tokenizer, stop: str) -> str:
    decoder, so_far = tokenizer.stream(), ""
    for token in tokens:
        for letter in decoder.push(int(token[0, 0])):
            so_far += letter
            if so_far.endswith(stop):
                return so_far
    return so_far + decoder.finish()


def _splits(tokens: Iterator[Tensor], tokenizer: Qwen3Tokenizer, stop: str) -> str:
    decoder, so_far = tokenizer.stream(), ""
    while (token := next(tokens, None)) is not None:
        so_far += decoder.push(int(token))
        if len(parts := so_far.split(stop, 1)) == 2:
            return parts[0] + stop
    return "".join([so_far, decoder.finish()])


_READ_UNTIL = Exercise("5.2", "Stop at a full stop", read_until, _verify_read_until, wrong=(
    (_looks_at_one_token, "inside a token or across two"),
    (_reads_to_the_end, "were enough"),
    (_decodes_one_by_one, "replacement characters"),
    (_keeps_the_rest, "cut what stands after the stop"),
    (_drops_the_stop, "lacks the stop"),
    (_forgets_to_finish, "finish()"),
    (_returns_nothing, "where the stop never comes"),
    (_strips, "a space at its beginning"),
    (_cuts_at_the_last, "comes twice in that token"),
    (_looks_at_the_last_letter, "stopped too soon"),
    (lambda tokens, tokenizer, stop: _returns_nothing(tokens, tokenizer, stop) or "", "all of its text"),
    (lambda tokens, tokenizer, stop: read_until(tokens, tokenizer, stop).encode(), "up to the end of"),
    (lambda tokens, tokenizer, stop: print(end=""), "returned None"),
), also_wrong=(
    _of_the_notebooks,
    _stops_at_a_full_stop,
    _nothing_without_a_stop,
    lambda tokens, tokenizer, stop: read_until(tokens, tokenizer, stop).rstrip(),
    lambda tokens, tokenizer, stop: read_until(tokens, tokenizer, stop.strip()),
    lambda tokens, tokenizer, stop: read_until(tokens, tokenizer, stop).lower(),
    lambda tokens, tokenizer, stop: read_until(tokens, tokenizer, stop)[1:],
), right=(
    _decodes_all_so_far,
    _joins_bytes,
    _letter_by_letter,
    _splits,
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

    def __init__(self, now: float) -> None:
        self.now, self.readings = now, 0

    def __call__(self) -> float:
        self.readings += 1
        return self.now

    def stream(self, waits: list[float]) -> Iterator[Tensor]:
        """Tokens, each of which takes so many seconds."""
        for wait in waits:
            self.now += wait
            yield torch.tensor([[7]])


# What the clock shows at first, and the seconds that each token takes.
_STREAMS = ((100.0, [0.5, 0.125, 0.125, 0.25]), (7.0, [2.0, 1.0]), (0.0, [1.0, 1.0, 4.0]))


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


def _without_a_start(tokens: Iterator[Tensor], clock: Callable[[], float]) -> tuple[float, float]:
    times = [clock() for _ in tokens]
    return times[0], len(times) / times[-1]


def _last_wait(tokens: Iterator[Tensor], clock: Callable[[], float]) -> tuple[float, float]:
    count, first, start, before = 0, 0.0, clock(), clock()
    for _ in tokens:
        count, first, before = count + 1, clock() - before, clock()
    return first, count / (clock() - start)


def _whole_time(tokens: Iterator[Tensor], clock: Callable[[], float]) -> tuple[float, float]:
    start, times = clock(), [clock() for _ in tokens]
    return times[0] - start, times[-1] - start


def _exchanged(tokens: Iterator[Tensor], clock: Callable[[], float]) -> tuple[float, float]:
    first, speed = measure_stream(tokens, clock)
    return speed, first


def _all_tokens_later_seconds(tokens: Iterator[Tensor], clock: Callable[[], float]) -> tuple[float, float]:
    start = clock()
    next(tokens)
    first = clock()
    return first - start, (1 + len(list(tokens))) / (clock() - first)


# What one may have measured instead, the likeliest slip first.
_STREAM_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_listed_first, "The first token came as late as the last one. Look at the clock inside the loop: a list of the "
                    "stream is only there when all is over."),
    (_starts_too_late, "The first token took no time at all. Look at the clock before you ask the stream for it."),
    (_decode_alone, "That is the speed after the first token. Here the wait for it counts too, and so does the token."),
    (_upside_down, "The second number is the seconds per token. Divide the tokens by the seconds."),
    (_without_the_first, "The first token is not counted. It is one of the tokens as well."),
    (_all_tokens_later_seconds, "The tokens are all counted, but not all seconds: begin at the start, not at the first "
                                "token."),
    (_without_a_start, "You return what the clock shows, and it need not begin at 0. Read it before the loop, and take "
                       "the difference."),
    (_last_wait, "The first number is the wait for the last token. Note the time at the first one alone, where the "
                 "count is 1."),
    (_whole_time, "The second number is the seconds in all. Divide the tokens by them."),
    (_exchanged, "The two numbers are right, the other way round: first the seconds, then the tokens per second."),
)


def _verify_measure_stream(answer: Answer) -> str | None:
    given, right, clocks = [], [], []
    for now, waits in _STREAMS:
        clocks.append(clock := _Clock(now))
        given.append(numbers(answer(clock.stream(waits), clock), "two numbers: the seconds to the first token, and the "
                                                                 "tokens per second", 2))
        right.append([waits[0], len(waits) / sum(waits)])
        if clock.now < now + sum(waits):
            return "You left before the last token. Read the stream to its end, as a user would."
    if all(clock.readings == 0 for clock in clocks):
        return "The clock that you were given was never read: call clock() where you would look at your watch."

    def same(one: list[list[float]], other: list[list[float]]) -> bool:
        return close(torch.tensor(one, dtype=torch.float64), torch.tensor(other, dtype=torch.float64))

    if not same(given, right):
        for slip, hint in _STREAM_SLIPS:
            if same(given, [list(slip((clock := _Clock(now)).stream(waits), clock)) for now, waits in _STREAMS]):
                return hint
        at = next(at for at in range(len(given)) if not same(given[at:at + 1], right[at:at + 1]))
        waits = _STREAMS[at][1]
        return gettext("{count} tokens took {waits} seconds, one after the other: that is {right:g} s to the first and "
                       "{right_speed:g} tokens per second, and you return {given:g} and {given_speed:g}.").format(
            count=len(waits), waits=waits, right=right[at][0], right_speed=right[at][1], given=given[at][0],
            given_speed=given[at][1])
    clock = _Clock(3.0)
    first, speed = numbers(answer(clock.stream([4.0]), clock), "two numbers, also for a stream of one token", 2)
    if not close(first, 4.0) or not close(speed, 0.25):
        return gettext("A stream of one token, after 4 seconds: that is 4 s to the first and 0.25 tokens per second, "
                       "and you return {first:g} and {speed:g}.").format(first=first, speed=speed)
    return None


def _all_times(tokens: Iterator[Tensor], clock: Callable[[], float]) -> list[float]:
    times = [clock(), *(clock() for _ in tokens)]
    return [times[1] - times[0], (len(times) - 1) / (times[-1] - times[0])]


def _with_next(tokens: Iterator[Tensor], clock: Callable[[], float]) -> tuple[float, float]:
    start = clock()
    next(tokens)
    first = clock() - start
    return first, (1 + sum(1 for _ in tokens)) / (clock() - start)


def _with_enumerate(tokens: Iterator[Tensor], clock: Callable[[], float]) -> np.ndarray:
    start, first, count = clock(), 0.0, 0
    for at, _ in enumerate(tokens):
        first, count = first if at else clock(), at + 1
    return np.array([first - start, count / (clock() - start)])


def _by_waits(tokens: Iterator[Tensor], clock: Callable[[], float]) -> tuple[float, Tensor]:
    waits, before = [], clock()
    for _ in tokens:
        waits.append((now := clock()) - before)
        before = now
    return waits[0], 1 / torch.tensor(waits).mean()


_AT_FIRST = "`count, first, start = (0, 0.0, clock())`"
_MEASURE_STREAM = Exercise("5.3", "Time a stream", measure_stream, _verify_measure_stream, wrong=(
    *((slip, hint[:32]) for slip, hint in _STREAM_SLIPS),
    (_own_clock, "never read"),
    (_first_token_only, "left before the last token"),
    (lambda tokens, clock: measure_stream(tokens, clock)[1], "two numbers: the seconds"),
    (lambda tokens, clock: (measure_stream(tokens, clock)[0], 4.0), "one after the other"),
    (lambda tokens, clock: print(end=""), "returned None"),
), also_wrong=(
    lambda tokens, clock: (0.5, 4.0) if list(tokens) and clock() else None,
    lambda tokens, clock: tuple(round(number) for number in measure_stream(tokens, clock)),
    lambda tokens, clock: tuple(1000 * number for number in measure_stream(tokens, clock)),
    lambda tokens, clock: (*measure_stream(tokens, clock), clock()),
    lambda tokens, clock: measure_stream(tokens, clock)[:1],
), right=(
    _all_times,
    _with_next,
    _with_enumerate,
    _by_waits,
), equivalent={
    f"{_AT_FIRST} to `count, first, start = (0.0, 0, clock())`": "0 and 0.0 are one number.",
    f"{_AT_FIRST} to `count, first, start = (0, 0.25, clock())`":
        "It shows in a stream without a token alone, which has no speed.",
})

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
        return [prompt_tokens if done == 0 else 1 for done in range(passes)]
    return [prompt_tokens + done for done in range(passes)]


# Prompt tokens, new tokens, whether the model ended by itself, whether there is a cache.
_GENERATIONS = tuple((prompt, new, ended, cached) for prompt, new in ((5, 3), (7, 2), (4, 1), (1, 4))
                     for ended in (False, True) for cached in (False, True)) + (
    (8, 0, True, True), (8, 0, True, False), (6, 0, False, True), (6, 0, False, False))


def _end_not_counted(prompt: int, new: int, ended: bool, cached: bool) -> list[int]:
    return pass_lengths(prompt, new, False, cached)


def _always_one_more(prompt: int, new: int, ended: bool, cached: bool) -> list[int]:
    return pass_lengths(prompt, new, True, cached)


def _never_cached(prompt: int, new: int, ended: bool, cached: bool) -> list[int]:
    return pass_lengths(prompt, new, ended, False)


def _always_cached(prompt: int, new: int, ended: bool, cached: bool) -> list[int]:
    return pass_lengths(prompt, new, ended, True)


def _no_prefill(prompt: int, new: int, ended: bool, cached: bool) -> list[int]:
    return [1] * (new + ended) if cached else pass_lengths(prompt, new, ended, cached)


def _one_token_early(prompt: int, new: int, ended: bool, cached: bool) -> list[int]:
    return [prompt + done + 1 for done in range(new + ended)] if not cached else (
        pass_lengths(prompt, new, ended, cached))


def _prefill_apart(prompt: int, new: int, ended: bool, cached: bool) -> list[int]:
    return [prompt] + [1] * (new + ended) if cached else [prompt + done for done in range(new + ended + 1)]


def _nothing_for_no_token(prompt: int, new: int, ended: bool, cached: bool) -> list[int]:
    return pass_lengths(prompt, new, ended, cached) if new else []


def _prompt_for_nothing(prompt: int, new: int, ended: bool, cached: bool) -> list[int]:
    return pass_lengths(prompt, new, ended, cached) or [prompt]


def _exchanged_cache(prompt: int, new: int, ended: bool, cached: bool) -> list[int]:
    return pass_lengths(prompt, new, ended, not cached)


# What one may have said instead, the likeliest slip first.
_LENGTH_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_prefill_apart, "The first pass, over the prompt, chooses a new token already: 3 new ones, stopped by the limit, "
                     "need 3 passes and not 4."),
    (_always_one_more, "Stopped by the limit, 3 new tokens need 3 passes: there is no end token to choose."),
    (_end_not_counted, "Where the model ends by itself one more pass was needed, the one that chose the end token."),
    (_never_cached, "With a cache the later passes are not given the whole text again, only what is new."),
    (_always_cached, "Without a cache every pass is given the whole text so far, not the new token alone."),
    (_exchanged_cache, "With a cache and without are the wrong way round: the cache spares the tokens before."),
    (_no_prefill, "The first pass reads the whole prompt, with a cache as well: that is the prefill."),
    (_one_token_early, "The first pass is given the prompt alone: there is no new token yet."),
    (_nothing_for_no_token, "A model may choose the end token at once: no new token, and still one pass over the "
                            "prompt."),
    (_prompt_for_nothing, "With max_new_tokens=0 the model is never called: no new token, no end token, no pass. The "
                          "list is empty."),
)


def _verify_pass_lengths(answer: Answer) -> str | None:
    asked = "a list, with one number for each pass: how many tokens it is given"
    given = [wholes(answer(*case), asked) for case in _GENERATIONS]
    right = [pass_lengths(*case) for case in _GENERATIONS]
    if given == right:
        return None
    for slip, hint in _LENGTH_SLIPS:
        if given == [slip(*case) for case in _GENERATIONS]:
            return hint
    at = next(at for at, one in enumerate(given) if one != right[at])
    prompt, new, ended, cached = _GENERATIONS[at]
    return gettext("Prompt tokens: {prompt}, new tokens: {new}, {end}, {cache}: the passes are {right}"
                   ", and you return {given}.").format(
        prompt=prompt, new=new, end=gettext("ended by itself") if ended else gettext("stopped by the limit"),
        cache=gettext("with a cache") if cached else gettext("without a cache"), right=right[at], given=given[at])


def _by_playing(prompt: int, new: int, ended: bool, cached: bool) -> Iterator[int]:
    held, length = 0, prompt
    for _ in range(new + ended):
        yield length - held
        held = length if cached else 0
        length += 1


def _by_differences(prompt: int, new: int, ended: bool, cached: bool) -> np.ndarray:
    lengths = np.arange(prompt, prompt + new + ended)
    return np.diff(lengths, prepend=0) if cached else lengths


_PASS_LENGTHS = Exercise("5.4", "Predict the passes", pass_lengths, _verify_pass_lengths, wrong=(
    *((slip, hint[:40]) for slip, hint in _LENGTH_SLIPS),
    (lambda p, n, ended, cached: sum(pass_lengths(p, n, ended, cached)), "one number for each pass"),
    (lambda p, n, ended, cached: [length / 2 for length in pass_lengths(p, n, ended, cached)], "is no whole number"),
    (lambda p, n, ended, cached: pass_lengths(p, n, ended, cached)[::-1], "the passes are"),
    (lambda p, n, ended, cached: print(end=""), "returned None"),
), also_wrong=(
    lambda p, n, ended, cached: pass_lengths(5, n, ended, cached),
    lambda p, n, ended, cached: pass_lengths(p, 3, ended, cached),
    lambda p, n, ended, cached: [p] + [1] * n if cached else [p + done for done in range(n + ended)],
    lambda p, n, ended, cached: [p + n] * (n + ended),
    lambda p, n, ended, cached: [1 + length for length in pass_lengths(p, n, ended, cached)],
    lambda p, n, ended, cached: set(pass_lengths(p, n, ended, cached)),
), right=(
    _by_playing,
    _by_differences,
    lambda p, n, ended, cached: [p if at == 0 else 1 if cached else p + at for at in range(n + ended)],
    lambda p, n, ended, cached: ([p] + n * [1] if cached else [p + i for i in range(n + 1)])[:n + ended],
))

EXERCISES: tuple[Exercise, ...] = (_GENERATE_STREAM, _READ_UNTIL, _MEASURE_STREAM, _PASS_LENGTHS)
