"""The generation loop: logits to tokens, one at a time. Every way of generating here is this one loop.

`generate_tokens` is the loop itself. The `generate_text_*` functions are the three usual ways to call it,
`generate_trace` keeps what each step had to choose from, and `generate_stats` measures it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Optional, Union

import torch
from torch import Tensor

from course_utils.device import peak_memory, reset_peak_memory, synchronize
from course_utils.errors import ContextLengthError, InputError
from course_utils.kv_cache import Cache, KVCache
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import GREEDY, Sampler

EndTokens = Union[int, Collection[int], None]


def greedy(logits: Tensor) -> Tensor:
    """The likeliest token of each row: (b, vocab_size) to (b, 1)."""
    return logits.argmax(dim=-1, keepdim=True)


def generate_tokens(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int, eos_token_id: EndTokens = None,
                    cache: Optional[Cache] = None, attention_mask: Optional[Tensor] = None,
                    choose: Callable[[Tensor], Tensor] = greedy) -> Iterator[Tensor]:
    """Generate one token after another, for one prompt or several side by side.

    The arguments are checked when the function is called, before the first token is asked for. N tokens cost N forward
    passes; without a cache each pass computes the whole text again.

    Args:
        model: the model, compiled or not.
        token_ids: (b, t), the prompts.
        max_new_tokens: how many tokens at most.
        eos_token_id: the token, or tokens, at which a text ends. It ends when every row has ended; the end token
            itself is not returned, and a row that ends before the others is filled up with it.
        cache: an empty cache, or one that already holds tokens which come before `token_ids`. It is left holding all
            tokens but the last one generated.
        attention_mask: (b, s) as for the model, for prompts padded on the left.
        choose: picks the next token, (b, 1), from the logits, (b, vocab_size).

    Yields:
        The new token of each row, (b, 1).

    Raises:
        InputError: if the prompt is empty, has the wrong shape or holds ids beyond the vocabulary, or if
            max_new_tokens is no whole number from 0 on.
        ContextLengthError: if prompt and new tokens do not fit into the context or the cache.
    """
    check_prompt(model, token_ids, max_new_tokens, cache)
    return _loop(model, token_ids, max_new_tokens, end_tokens(eos_token_id), cache, attention_mask, choose)


def end_tokens(eos_token_id: EndTokens) -> list[int]:
    """The tokens at which a text ends, however they were given: None, one id, or several."""
    return [] if eos_token_id is None else [eos_token_id] if isinstance(eos_token_id, int) else list(eos_token_id)


def check_prompt(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int, cache: Optional[Cache] = None) -> None:
    """Make sure that prompts can be generated from. Arguments and errors as for `generate_tokens`."""
    if token_ids.dim() != 2 or token_ids.numel() == 0:
        raise InputError(f"The prompt has shape {tuple(token_ids.shape)}: give (batch, tokens) with at least one "
                         "token, such as torch.tensor([tokenizer.encode(text)]).")
    if token_ids.dtype not in (torch.int64, torch.int32):
        raise InputError(f"Token ids are integers, and these are {token_ids.dtype}: use dtype=torch.long.")
    if type(max_new_tokens) is not int:
        raise InputError(f"max_new_tokens is {max_new_tokens!r}: give a whole number.")
    if max_new_tokens < 0:
        raise InputError(f"max_new_tokens is {max_new_tokens}: it cannot be negative.")
    low, high = int(token_ids.min()), int(token_ids.max())
    if low < 0 or high >= model.config.vocab_size:
        raise InputError(f"Token id {low if low < 0 else high} is not in the vocabulary of {model.config.vocab_size}: "
                         "encode the prompt with this model's own tokenizer.")
    past, context = (cache.length, cache.max_length) if cache is not None else (0, model.config.max_position_embeddings)
    # The last token generated is never fed back, so it needs no place.
    needed = past + token_ids.shape[1] + max(0, max_new_tokens - 1)
    if needed > context:
        prompt = past + token_ids.shape[1]
        raise ContextLengthError(f"{prompt} prompt tokens and {max_new_tokens} new ones do not fit into {context}: "
                                 f"shorten the prompt or lower max_new_tokens to {max(0, context - prompt + 1)}.")


def last_logits(model: Qwen3Model, token_ids: Tensor, cache: Optional[Cache] = None,
                attention_mask: Optional[Tensor] = None) -> Tensor:
    """One forward pass for the logits of the next token, (b, vocab_size). Arguments as for the model."""
    with torch.inference_mode():
        return model(token_ids, cache=cache, attention_mask=attention_mask, last_only=True)[:, -1]


def _loop(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int, ends: list[int], cache: Optional[Cache],
          mask: Optional[Tensor], choose: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    ended = torch.zeros(token_ids.shape[0], 1, dtype=torch.bool, device=token_ids.device)
    end_ids = torch.tensor(ends, device=token_ids.device)
    inputs = token_ids
    for _ in range(max_new_tokens):
        # Not around the whole loop: between two tokens the caller's own code runs, and must not be affected.
        with torch.inference_mode():
            token = choose(last_logits(model, inputs, cache, mask))
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
    """Generate greedily with a key-value cache: the same tokens as `generate_text_basic`, in less time."""
    return _collect(token_ids, generate_text_basic_stream(model, token_ids, max_new_tokens, eos_token_id))


def generate_text_basic_stream(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int,
                               eos_token_id: EndTokens = None) -> Iterator[Tensor]:
    """Yield each new token, (b, 1), as soon as it is there; greedy, with a key-value cache."""
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
                   top: int = 5, sampler: Optional[Sampler] = None) -> list[Step]:
    """Generate for one prompt, keeping the `top` candidates of each step.

    The step that chose the end token is kept too, as the last one.

    Args:
        model, token_ids, max_new_tokens, eos_token_id: as for `generate_tokens`; token_ids is (1, t).
        top: how many candidates, 1 to the size of the vocabulary.
        sampler: chooses the tokens; None is greedy.

    Raises:
        InputError, ContextLengthError: as `generate_tokens`, or if there is not exactly one prompt, or no such `top`.
    """
    if token_ids.shape[0] != 1:
        raise InputError(f"A trace follows one prompt, and this is a batch of {token_ids.shape[0]}.")
    if not 1 <= top <= model.config.vocab_size:
        raise InputError(f"top is {top}: give how many candidates to keep, from 1 to {model.config.vocab_size}.")
    chooser = Sampler(GREEDY) if sampler is None else sampler
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
        prompt_tokens, new_tokens: counts, over all rows.
        seconds: from the call to the last token.
        time_to_first_token: seconds of the first step, which reads the whole prompt (prefill).
        peak_memory: highest use while generating; on a CPU that of the whole process so far.
    """

    token_ids: Tensor
    prompt_tokens: int
    new_tokens: int
    seconds: float
    time_to_first_token: float
    peak_memory: int

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second, prompt included in the time: what a user experiences."""
        return self.new_tokens / self.seconds if self.seconds else 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        """New tokens per second after the first one, the speed of decoding alone."""
        rows = self.token_ids.shape[0]
        rest = self.seconds - self.time_to_first_token
        return (self.new_tokens - rows) / rest if rest > 0 and self.new_tokens > rows else 0.0


def generate_stats(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int, eos_token_id: EndTokens = None,
                   cache: Optional[Cache] = None) -> GenerationStats:
    """Generate greedily and measure it. With `cache=None` every step computes the whole text again.

    Run it once before you believe it: the first run of anything pays for what later runs find ready.
    Arguments and errors as for `generate_tokens`.
    """
    device = token_ids.device
    reset_peak_memory(device)
    synchronize(device)
    started = time.perf_counter()
    first = 0.0
    tokens: list[Tensor] = []
    for token in generate_tokens(model, token_ids, max_new_tokens, eos_token_id, cache=cache):
        if not tokens:
            synchronize(device)
            first = time.perf_counter() - started
        tokens.append(token)
    synchronize(device)
    seconds = time.perf_counter() - started
    new_ids = _collect(token_ids, iter(tokens))
    return GenerationStats(new_ids, token_ids.numel(), new_ids.numel(), seconds, first, peak_memory(device))
