"""Text in, text out: what a model writes after a prompt, all at once (`generate`) or as it comes (`stream`).

Around the one loop, `generate_tokens`, this puts what text needs: the tokenizer on both sides, several prompts as one
batch, and stop strings, which end a text wherever its tokens are cut.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from course_utils.batching import pad_left
from course_utils.errors import InputError
from course_utils.generation import EndTokens, check_model, check_prompt, end_tokens, generate_tokens
from course_utils.kv_cache import KVCache
from course_utils.language import gettext
from course_utils.number import whole_number
from course_utils.qwen3 import Qwen3Model, check_vocabulary
from course_utils.sampling import GREEDY, Sampler, Sampling
from course_utils.tokenizer import Qwen3Tokenizer

Prompt = str | Sequence[int]
Stop = str | Sequence[str]
FinishReason = Literal["end", "stop", "length"]


@dataclass(frozen=True)
class Completion:
    """What a model wrote after one prompt.

    Attributes:
        text: the new text, up to the stop string if it came to one.
        token_ids: the new tokens without an end token; those of a stop string are among them.
        finish_reason: "end" at an end token, "stop" at a stop string, "length" after `max_new_tokens`.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason


def generate(model: Qwen3Model, tokenizer: Qwen3Tokenizer, prompts: Prompt | Sequence[Prompt],
             max_new_tokens: int = 100, sampling: Sampling = GREEDY, seed: int | torch.Generator = 0, stop: Stop = (),
             eos_token_id: EndTokens = None) -> Completion | list[Completion]:
    """Continue one prompt, or several side by side.

    Greedily each of several prompts gets the text that it would get alone, in float32. In bfloat16 either of two tokens
    that are level to three digits may be chosen, and from there on the text differs; so it may with a quantized model,
    which rounds vectors, and in int8 differently where more than eight come together, those of prompts included
    (`generation` says more about both). With sampling all of them draw from one random generator: the same batch with
    the same seed gives the same texts, another batch may give others.

    Args:
        model: the model, compiled or not.
        tokenizer: the one of this model.
        prompts: a prompt, or a list of prompts. Each is a text, whose special tokens count as such, or a list of
            token ids, such as `tokenizer.encode_chat(messages)`.
        max_new_tokens: how many tokens at most, for each prompt.
        sampling: how to choose among the next tokens.
        seed: as for `Sampler`.
        stop: a string, or several, before which a text ends. What counts is which of them is complete first, and
            of several that are complete at once the longest. It may begin and end within a token.
        eos_token_id: the token, or tokens, at which a text ends. None is those of the tokenizer; () is none at all.

    Returns:
        A `Completion`, or for a list of prompts a list of them.

    Raises:
        InputError: if model or tokenizer are none, there is no prompt, one is empty or is neither text nor token ids,
            or a stop string is empty.
        ContextLengthError: if a prompt and the new tokens do not fit into the context.
    """
    several = _are_several(prompts)
    texts, pieces = _begin(model, tokenizer, prompts if several else [prompts], max_new_tokens, sampling, seed, stop,
                           eos_token_id)
    written = ["".join(row) for row in zip(*pieces)]
    completions = [Completion(text, row.token_ids, row.finish_reason)  # type: ignore[arg-type]  # all have ended
                   for text, row in zip(written, texts)]
    return completions if several else completions[0]


def stream(model: Qwen3Model, tokenizer: Qwen3Tokenizer, prompt: Prompt, max_new_tokens: int = 100,
           sampling: Sampling = GREEDY, seed: int | torch.Generator = 0, stop: Stop = (),
           eos_token_id: EndTokens = None) -> TextStream:
    """Continue one prompt and hand out the text as it comes. Arguments and errors as for `generate`.

    The arguments are checked when the function is called, before the first piece of text is asked for.
    """
    if _are_several(prompt):
        raise InputError(gettext("A stream continues one prompt, and this is a list of {count}: use generate for "
                                 "it.").format(count=len(prompt)))
    (text,), pieces = _begin(model, tokenizer, [prompt], max_new_tokens, sampling, seed, stop, eos_token_id)
    return TextStream(text, pieces)


class TextStream(Iterator[str]):
    """The text of one generation in pieces: one for each new token, and at the end what was held back.

    Joined they are the text of the `Completion` that `generate` returns. A piece is empty while a character is
    incomplete, or while what has come could be the beginning of a stop string.
    """

    def __init__(self, text: _Text, pieces: Generator[list[str], None, None]) -> None:
        self._text, self._pieces = text, pieces

    def __next__(self) -> str:
        return next(self._pieces)[0]

    @property
    def token_ids(self) -> list[int]:
        """The new tokens so far, as in a `Completion`."""
        return self._text.token_ids

    @property
    def finish_reason(self) -> FinishReason | None:
        """As in a `Completion`; None if the text has not come to its end."""
        return self._text.finish_reason

    def interrupt(self) -> str:
        """End the text where it is, and return what was held back."""
        self._pieces.close()
        return self._text.finish(None)


class StopStrings:
    """Lets a text through that arrives in pieces, up to a stop string, of which nothing is ever shown.

    Args:
        stop: as for `generate`.

    Attributes:
        found: whether the text has come to a stop string; nothing is let through any more.

    Raises:
        InputError: if one of them is empty or no string.
    """

    def __init__(self, stop: Stop) -> None:
        if not isinstance(stop, (str, list, tuple)):
            raise InputError(gettext("stop is {stop!r}: give a stop string, or a list of them.").format(stop=stop))
        self._stop = [stop] if isinstance(stop, str) else list(stop)
        for string in self._stop:
            if not isinstance(string, str) or not string:
                raise InputError(gettext("A stop string is {string!r}: give text of at least one "
                                         "character, or none of them.").format(string=string))
        self._held = ""  # the longest end of the text so far that a stop string could begin with
        self.found = False

    def push(self, text: str) -> str:
        """Take more text; return what is certain to stay."""
        if self.found:
            return ""
        text = self._held + text
        # Complete first, and then longest: so it does not matter how the text was cut into pieces.
        ends = [(start + len(string), start) for string in self._stop if (start := text.find(string)) >= 0]
        if ends:
            self.found, self._held = True, ""
            return text[:min(ends)[1]]
        held = max((n for string in self._stop for n in range(min(len(string) - 1, len(text)) + 1)
                    if text.endswith(string[:n])), default=0)
        self._held = text[len(text) - held:]
        return text[:len(text) - held]

    def finish(self) -> str:
        """The text ends here: return what was held back."""
        held, self._held = self._held, ""
        return held


class _Text:
    """One text as it grows."""

    def __init__(self, tokenizer: Qwen3Tokenizer, stop: Stop, ends: list[int]) -> None:
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self._decoder, self._stop, self._ends = tokenizer.stream(), StopStrings(stop), ends

    def push(self, token_id: int) -> str:
        """Take a new token; return the text that is certain to stay. After the end nothing counts any more."""
        if self.finish_reason is not None:
            return ""
        if token_id in self._ends:
            return self.finish("end")
        self.token_ids.append(token_id)
        return self._show(self._decoder.push(token_id))

    def finish(self, reason: FinishReason | None) -> str:
        """Say why the text ends here, unless it has ended; return what was held back."""
        if self.finish_reason is not None:
            return ""
        text = self._show(self._decoder.finish()) + self._stop.finish()
        self.finish_reason = self.finish_reason or reason
        return text

    def _show(self, text: str) -> str:
        shown = self._stop.push(text)
        if self._stop.found:
            self.finish_reason = "stop"
        return shown


def _are_several(prompts: Prompt | Sequence[Prompt]) -> bool:
    """Whether this is a list of prompts and not one: a list of numbers is one."""
    if isinstance(prompts, str):
        return False
    if not isinstance(prompts, (list, tuple)):
        raise InputError(gettext("The prompt is a {kind}: give text, a list of token ids, or a list of such "
                                 "prompts.").format(kind=type(prompts).__name__))
    if not prompts:
        raise InputError("The prompt is empty: give text, or a list with at least one token id or one prompt.")
    return all(whole_number(entry) is None for entry in prompts)


def _begin(model: Qwen3Model, tokenizer: Qwen3Tokenizer, prompts: Sequence[Any], max_new_tokens: int,
           sampling: Sampling, seed: int | torch.Generator, stop: Stop,
           eos_token_id: EndTokens) -> tuple[list[_Text], Generator[list[str], None, None]]:
    """Check everything; return the texts, and the pieces of each step that make them grow."""
    check_model(model)
    if not isinstance(tokenizer, Qwen3Tokenizer):
        raise InputError(gettext("tokenizer is a {kind}: give a Qwen3Tokenizer, such as load_tokenizer() "
                                 "gives.").format(kind=type(tokenizer).__name__))
    ends = end_tokens(tokenizer.end_token_ids if eos_token_id is None else eos_token_id)
    texts = [_Text(tokenizer, stop, ends) for _ in prompts]
    rows = [_encode(tokenizer, prompt) for prompt in prompts]
    for number, row in enumerate(rows, start=1):
        name = gettext("The prompt") if len(rows) == 1 else gettext("Prompt {number} of {count}").format(
            number=number, count=len(rows))
        if not row:
            raise InputError(gettext("{name} is empty: give text or token ids, at least one token.").format(name=name))
        try:
            check_vocabulary(row, model.config.vocab_size)  # before it is a tensor, which holds no larger numbers
            max_new_tokens = check_prompt(model, torch.tensor([row]), max_new_tokens)
        except InputError as error:
            raise type(error)(f"{name}: {error}") from None
    token_ids, attention_mask = pad_left(rows, device=model.device)
    sampler = Sampler(sampling, seed, token_ids, attention_mask, tokenizer.vocab_size)
    mask = None if bool(attention_mask.all()) else attention_mask  # attention is faster without one
    tokens = generate_tokens(model, token_ids, max_new_tokens, ends, KVCache(model.config), mask, sampler)
    return texts, _grow(texts, tokens, max_new_tokens)


def _encode(tokenizer: Qwen3Tokenizer, prompt: Any) -> list[int]:
    if isinstance(prompt, str):
        return tokenizer.encode(prompt)
    entries = prompt if isinstance(prompt, (list, tuple)) else [None]
    ids = [number for entry in entries if (number := whole_number(entry)) is not None]
    if len(ids) < len(entries):
        raise InputError(gettext("A prompt is {prompt!r}: give text, or a list of token ids.").format(prompt=prompt))
    return ids


def _grow(texts: list[_Text], tokens: Iterator[Tensor], max_new_tokens: int) -> Generator[list[str], None, None]:
    """Yield what each text may show after each step, and at last what was held back."""
    for column in tokens:
        yield [text.push(token_id) for text, token_id in zip(texts, column[:, 0].tolist())]
        if all(text.finish_reason for text in texts):
            return
    # The end token of the text that ended last is not given by the loop.
    yield [text.finish("length" if len(text.token_ids) == max_new_tokens else "end") for text in texts]
