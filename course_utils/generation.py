"""The generation loop: logits to tokens, one at a time. Every way of generating here is this one loop.

`generate_tokens` is the loop itself. The `generate_text_*` functions are the three usual ways to call it,
`generate_trace` keeps what each step had to choose from, and `generate_with_stats` measures it.

Here and elsewhere ways are said to give the same tokens: with a cache and without, side by side and alone, drafted and
not. They add up the same products in another order, or in other company, which has its limits:

- In float32 it changes a logit in its seventh digit, so the tokens are the same.
- In bfloat16 and float16 it changes the third or fourth. Where the two likeliest tokens are as near as that, either may
  be chosen, and from there on the texts differ.
- With quantized weights vectors are rounded, too (`quantization`), each by itself. But a change in the seventh digit
  can tip a number to the next step, and a logit changes by a tenth of a percent. In int8 vectors are rounded in another
  way when more than eight come together, and a logit may change by a percent. Either of two near tokens may be chosen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from course_utils.config import Qwen3Config
from course_utils.device import peak_memory, reset_peak_memory, synchronize
from course_utils.errors import ContextLengthError, InputError
from course_utils.kv_cache import Cache, KVCache, check_cache
from course_utils.language import gettext
from course_utils.number import require_whole_number, whole_number
from course_utils.qwen3 import Qwen3Model, check_mask, check_token_ids, check_vocabulary
from course_utils.sampling import GREEDY, Sampler

EndTokens = int | Collection[int] | None


def greedy(logits: Tensor) -> Tensor:
    """The likeliest token of each row: (b, vocab_size) to (b, 1)."""
    return logits.argmax(dim=-1, keepdim=True)


def generate_tokens(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int, eos_token_id: EndTokens = None,
                    cache: Cache | None = None, attention_mask: Tensor | None = None,
                    choose: Callable[[Tensor], Tensor] = greedy) -> Iterator[Tensor]:
    """Generate one token after another, for one prompt or several side by side.

    The arguments are checked when the function is called, before the first token is asked for. N tokens cost N forward
    passes; without a cache each pass computes the whole text again, for the same tokens (within the limits above). A
    model in training mode works in evaluation mode during each pass, without dropout, and is in training mode between.

    Args:
        model: the model, compiled or not.
        token_ids: (b, t), the prompts.
        max_new_tokens: how many tokens at most.
        eos_token_id: the token, or tokens, at which a text ends. It ends when every row has ended; the end token
            itself is not returned, and a row that ends before the others is filled up with it.
        cache: an empty cache, or one that already holds tokens which come before `token_ids`. It is left holding all
            tokens but the last one generated.
        attention_mask: (b, s) as for the model, for prompts padded on the left; s counts what the cache holds, too.
        choose: picks the next token, (b, 1), from the logits, (b, vocab_size).

    Yields:
        The new token of each row, (b, 1).

    Raises:
        InputError: if the prompt is empty, has the wrong shape or holds ids beyond the vocabulary, if max_new_tokens
            is no whole number from 0 on, if the mask is none or does not end in real tokens, or if the model, the end
            tokens, the cache or `choose` are none; with the first token, if the cache is of another model, batch,
            number format or device, the prompt is on another device than the model, or `choose` returns something else.
        ContextLengthError: if prompt and new tokens do not fit into the context or the cache.
    """
    max_new_tokens = check_prompt(model, token_ids, max_new_tokens, cache)
    if attention_mask is not None:
        past = cache.length if cache is not None else 0
        check_mask(attention_mask, (token_ids.shape[0], past + token_ids.shape[1]))
    check_choice(choose)
    return _loop(model, token_ids, max_new_tokens, end_tokens(eos_token_id), cache, attention_mask, choose)


def end_tokens(eos_token_id: EndTokens) -> list[int]:
    """The tokens at which a text ends, however they were given: None, one id, or several.

    Raises:
        InputError: if it is none of these, or an id is no whole number from 0 to 2**63 - 1.
    """
    try:
        given: list[Any] = [] if eos_token_id is None else list(eos_token_id)  # type: ignore[arg-type]
    except TypeError:  # not several
        given = [eos_token_id]
    if not all(map(is_token_id, given)):
        raise InputError(gettext("eos_token_id is {eos_token_id!r}: give a token id, several of them, or None.").format(
            eos_token_id=eos_token_id))
    return [int(token) for token in given]


def is_token_id(value: object) -> bool:
    """Whether a value is a whole number that a tensor of token ids can hold, whatever the vocabulary."""
    number = whole_number(value)
    return number is not None and 0 <= number < 2**63


def check_model(model: object) -> None:
    """Make sure that this is a model: one of ours, or whatever is called like it and has its `config`.

    Raises:
        InputError: if it is not.
    """
    if not callable(model) or not isinstance(getattr(model, "config", None), Qwen3Config):
        raise InputError(gettext("model is a {kind}: give a Qwen3Model, such as load_model() gives.").format(
            kind=type(model).__name__))


def check_choice(choose: object) -> None:
    """Make sure that this can choose tokens.

    Raises:
        InputError: if it is no function.
    """
    if not callable(choose):
        raise InputError(gettext("choose is a {kind}: give a function from logits, (b, vocab_size), to token ids, (b, "
                                 "1), such as a Sampler.").format(kind=type(choose).__name__))


def check_prompt(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int, cache: Cache | None = None) -> int:
    """Make sure that prompts can be generated from. Arguments and errors as for `generate_tokens`.

    Returns:
        max_new_tokens as an int, whichever kind of number it was.
    """
    check_model(model)
    check_token_ids(token_ids)
    max_new_tokens = require_whole_number("max_new_tokens", max_new_tokens)
    check_vocabulary(token_ids, model.config.vocab_size)
    if cache is not None:
        check_cache(cache, model.config)
    past, context = (cache.length, cache.max_length) if cache is not None else (0, model.config.max_position_embeddings)
    # The last token generated is never fed back, so it needs no place.
    needed = past + token_ids.shape[1] + max(0, max_new_tokens - 1)
    if needed > context:
        prompt = past + token_ids.shape[1]
        raise ContextLengthError(gettext("{prompt} prompt tokens and {max_new_tokens} new ones do not fit into "
                                         "{context}: shorten the prompt or lower max_new_tokens to {room}.").format(
            prompt=prompt, max_new_tokens=max_new_tokens, context=context, room=max(0, context - prompt + 1)))
    return max_new_tokens


@contextmanager
def inference(model: Qwen3Model) -> Iterator[None]:
    """Within this block a model has no dropout and records no gradients; behind it each of its parts is as before."""
    # Whatever is called like a model will do here, such as one that counts its passes.
    training = [part for part in model.modules() if part.training] if getattr(model, "training", False) else []
    for part in training:
        part.training = False
    try:
        with torch.inference_mode():
            yield
    finally:
        for part in training:
            part.training = True


def last_logits(model: Qwen3Model, token_ids: Tensor, cache: Cache | None = None,
                attention_mask: Tensor | None = None) -> Tensor:
    """One forward pass for the logits of the next token, (b, vocab_size). Arguments as for the model."""
    with inference(model):
        return model(token_ids, cache=cache, attention_mask=attention_mask, last_only=True)[:, -1]


def _loop(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int, ends: list[int], cache: Cache | None,
          mask: Tensor | None, choose: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    ended = torch.zeros(token_ids.shape[0], 1, dtype=torch.bool, device=token_ids.device)
    end_ids = torch.tensor(ends, device=token_ids.device)
    inputs = token_ids
    for _ in range(max_new_tokens):
        # Not around the whole loop: between two tokens the caller's own code runs, and must not be affected.
        with torch.inference_mode():
            token = choose(last_logits(model, inputs, cache, mask))
        if not isinstance(token, Tensor) or token.shape != ended.shape:
            what = tuple(token.shape) if isinstance(token, Tensor) else type(token).__name__
            raise InputError(gettext("choose gave {what} for {count} texts: let it return token ids of shape {shape}"
                                     ".").format(what=what, count=len(ended), shape=tuple(ended.shape)))
        if ends:
            token = torch.where(ended, end_ids[0], token)
            ended = ended | torch.isin(token, end_ids)
            if bool(ended.all()):
                return
        yield token
        inputs = token if cache is not None else torch.cat((inputs, token), dim=1)
        if mask is not None:
            mask = torch.cat((mask, mask.new_ones(mask.shape[0], 1)), dim=1)


def _collect(token_ids: Tensor, tokens: Iterator[Tensor]) -> Tensor:
    return torch.cat([token_ids[:, :0], *tokens], dim=1)


def generate_text_basic(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int,
                        eos_token_id: EndTokens = None) -> Tensor:
    """Generate greedily without a cache: every step computes the whole text again.

    Arguments and errors as for `generate_tokens`. Returns the new tokens alone, (b, at most max_new_tokens).
    """
    return _collect(token_ids, generate_tokens(model, token_ids, max_new_tokens, eos_token_id))


def generate_text_basic_cache(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int,
                              eos_token_id: EndTokens = None) -> Tensor:
    """Generate greedily with a key-value cache: the same tokens as `generate_text_basic`, in less time.

    Within the limits that stand at the top of this module.
    """
    return _collect(token_ids, generate_text_basic_stream(model, token_ids, max_new_tokens, eos_token_id))


def generate_text_basic_stream(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int,
                               eos_token_id: EndTokens = None) -> Iterator[Tensor]:
    """Yield each new token, (b, 1), as soon as it is there; greedy, with a key-value cache."""
    check_model(model)
    return generate_tokens(model, token_ids, max_new_tokens, eos_token_id, cache=KVCache(model.config))


@dataclass(frozen=True)
class Step:
    """One step of the loop: the token chosen, and what there was to choose from.

    Attributes:
        token_id: the token chosen.
        candidates: the likeliest tokens, likeliest first, each with the model's own probability. The chosen one is
            always among them, as the last one if it was less likely than those asked for.
        chances: for each candidate, with which probability it would be drawn: 0.0 if the sampling had cut it off.
    """

    token_id: int
    candidates: list[tuple[int, float]]
    chances: list[float]


def generate_trace(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int, eos_token_id: EndTokens = None,
                   top: int = 5, sampler: Sampler | None = None) -> list[Step]:
    """Generate for one prompt, keeping the `top` candidates of each step.

    The step that chose the end token is kept too, as the last one.

    Args:
        model, token_ids, max_new_tokens, eos_token_id: as for `generate_tokens`; token_ids is (1, t).
        top: how many candidates, 1 to the size of the vocabulary.
        sampler: chooses the tokens; None is greedy.

    Raises:
        InputError, ContextLengthError: as `generate_tokens`, or if there is not exactly one prompt, no such `top`, or
            the sampler is none.
    """
    max_new_tokens = check_prompt(model, token_ids, max_new_tokens)
    if token_ids.shape[0] != 1:
        raise InputError(gettext("A trace follows one prompt, and this is a batch of {shape}.").format(
            shape=token_ids.shape[0]))
    top = require_whole_number("top", top, 1, model.config.vocab_size)
    chooser = Sampler(GREEDY) if sampler is None else sampler
    if not isinstance(chooser, Sampler):
        raise InputError(gettext("sampler is a {kind}: give a Sampler, or None for greedy.").format(
            kind=type(chooser).__name__))
    steps: list[Step] = []

    def remember(logits: Tensor) -> Tensor:
        chances = chooser.probabilities(logits)[0]  # before the choice, which a repetition penalty would count
        token = chooser(logits)
        probabilities = logits[0].float().softmax(dim=-1)
        kept = probabilities.topk(top).indices.tolist()
        if int(token) not in kept:
            kept.append(int(token))
        candidates = list(zip(kept, probabilities[kept].tolist()))
        steps.append(Step(int(token), candidates, chances[kept].tolist()))
        return token

    _collect(token_ids, generate_tokens(model, token_ids, max_new_tokens, eos_token_id,
                                        cache=KVCache(model.config), choose=remember))
    return steps


@dataclass(frozen=True)
class GenerationStats:
    """What a generation cost. Seconds are of a synchronized clock, memory is in bytes.

    Attributes:
        token_ids: (b, n), the new tokens.
        prompt_tokens: their number, over all rows.
        lengths: number of new tokens of each row, without the end tokens that fill it up behind its end.
        seconds: from the call to the last token.
        time_to_first_token: seconds of the first step, which reads the whole prompt (prefill).
        peak_memory: highest use while generating; on a CPU that of the whole process so far.
    """

    token_ids: Tensor
    prompt_tokens: int
    lengths: list[int]
    seconds: float
    time_to_first_token: float
    peak_memory: int

    @property
    def new_tokens(self) -> int:
        """Number of new tokens, over all rows."""
        return sum(self.lengths)

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second, prompt included in the time: what a user experiences."""
        return self.new_tokens / self.seconds if self.seconds else 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        """New tokens per second after the first one, the speed of decoding alone."""
        rest = self.seconds - self.time_to_first_token
        return sum(length - 1 for length in self.lengths if length) / rest if rest > 0 else 0.0


def generate_with_stats(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int, eos_token_id: EndTokens = None,
                        cache: Cache | None = None) -> GenerationStats:
    """Generate greedily and measure it. With `cache=None` every step computes the whole text again.

    Run it once before you believe it: the first run of anything pays for what later runs find ready.
    Arguments and errors as for `generate_tokens`.
    """
    steps = generate_tokens(model, token_ids, max_new_tokens, eos_token_id, cache=cache)
    device = token_ids.device
    reset_peak_memory(device)
    synchronize(device)
    started = time.perf_counter()
    first = 0.0
    tokens: list[Tensor] = []
    for token in steps:
        if not tokens:
            synchronize(device)
            first = time.perf_counter() - started
        tokens.append(token)
    synchronize(device)
    seconds = time.perf_counter() - started
    new_ids, ends = _collect(token_ids, iter(tokens)), end_tokens(eos_token_id)
    lengths = [next((place for place, token in enumerate(row) if token in ends), len(row)) for row in new_ids.tolist()]
    return GenerationStats(new_ids, token_ids.numel(), lengths, seconds, first, peak_memory(device))
