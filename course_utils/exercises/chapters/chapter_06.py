"""Exercises of chapter 6: the loop with a cache, what it gains, what it costs, and how a text goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor

from course_utils.config import Qwen3Config
from course_utils.errors import CourseError
from course_utils.exercises.exercise import Exercise
from course_utils.generation import generate_text_basic_cache, generate_tokens
from course_utils.kv_cache import Cache, KVCache, StaticKVCache
from course_utils.loading import random_model
from course_utils.qwen3 import Qwen3Model

_SMALL = Qwen3Config(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                     num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=128)


# ---- 6.1 -------------------------------------------------------------------------------------------------


def generate_with_cache(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int) -> Tensor:
    cache = KVCache(model.config)
    inputs, new_tokens = token_ids, []
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            logits = model(inputs, cache=cache)
        inputs = logits[:, -1].argmax(dim=-1, keepdim=True)
        new_tokens.append(inputs)
    return torch.cat(new_tokens, dim=1)


def _watch(model: Qwen3Model) -> list[tuple[int, Cache | None]]:
    """A list that every pass of the model from now on adds to: its tokens per row, and its cache."""
    passes: list[tuple[int, Cache | None]] = []

    def watch(module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        token_ids = args[0] if args else kwargs["token_ids"]
        passes.append((token_ids.shape[1], args[1] if len(args) > 1 else kwargs.get("cache")))

    model.register_forward_pre_hook(watch, with_kwargs=True)
    return passes


def _verify_generate(answer: Callable[..., Any]) -> str | None:
    model = random_model(_SMALL, dtype=torch.float32, device="cpu")
    prompt = torch.tensor([[3, 14, 15, 92, 65], [35, 89, 79, 32, 38]])
    expected = generate_text_basic_cache(model, prompt, 6)
    passes = _watch(model)
    result = answer(model, prompt, 6)
    if not isinstance(result, Tensor):
        return (f"It returns {type(result).__name__}. Join the new tokens with torch.cat(..., dim=1) and "
                "return that tensor.")
    widths, caches = [width for width, _ in passes], [cache for _, cache in passes]
    if any(cache is None for cache in caches):
        return ("The model is called without a cache, so it computes everything again. "
                "Call model(inputs, cache=cache).")
    if any(cache is not caches[0] for cache in caches):
        return "There is a new cache at each step, and a new cache knows nothing. Make one before the loop."
    if any(width != 1 for width in widths[1:]):
        return ("After the first step the model is given more than one token per row. The cache holds the "
                "others: give it the newest token alone.")
    if widths and widths[0] != 5:
        return "The first step is not given the whole prompt. That is the prefill: it fills the cache."
    if len(widths) != 6:
        return (f"6 new tokens took {len(widths)} forward passes. The last token needs no pass of its own: "
                "6 are enough.")
    if result.shape == (2, 11) and torch.equal(result[:, :5], prompt):
        return "The prompt is returned too. Return the new tokens alone."
    if result.shape != (2, 6):
        return f"For 2 prompts and 6 new tokens the result has shape {tuple(result.shape)}, not (2, 6)."
    if not torch.equal(result, expected):
        return ("The passes are right, but the tokens are not the likeliest ones. "
                "Take argmax over the last position's logits.")
    return None


def _whole_text_again(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int) -> Tensor:
    cache = KVCache(model.config)
    text = token_ids
    for _ in range(max_new_tokens):
        text = torch.cat((text, model(text, cache=cache)[:, -1].argmax(-1, keepdim=True)), dim=1)
    return text[:, token_ids.shape[1]:]


def _forgetful(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int) -> Tensor:
    new_tokens = [token_ids]
    for _ in range(max_new_tokens):
        new_tokens.append(model(new_tokens[-1], cache=KVCache(model.config))[:, -1].argmax(-1, keepdim=True))
    return torch.cat(new_tokens[1:], dim=1)


def _uncached(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int) -> Tensor:
    text = token_ids
    for _ in range(max_new_tokens):
        text = torch.cat((text, model(text)[:, -1].argmax(-1, keepdim=True)), dim=1)
    return text[:, token_ids.shape[1]:]


def _prompt_too(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int) -> Tensor:
    return torch.cat((token_ids, generate_with_cache(model, token_ids, max_new_tokens)), dim=1)


def _one_pass_more(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int) -> Tensor:
    return generate_with_cache(model, token_ids, max_new_tokens + 1)[:, :max_new_tokens]


# ---- 6.2 -------------------------------------------------------------------------------------------------


def speed_up(slow: Callable[[], object], fast: Callable[[], object], clock: Callable[[], float]) -> float:
    """How many times as fast as `slow` `fast` is: one warm-up each, then the medians of five runs."""
    def seconds(run: Callable[[], object]) -> float:
        run()
        times = []
        for _ in range(5):
            start = clock()
            run()
            times.append(clock() - start)
        return median(times)

    return seconds(slow) / seconds(fast)


# Seconds of one run after the other: a slow first one, and a fourth one that something else disturbed.
_SLOW, _FAST = [96.0, 12.0, 20.0, 16.0, 80.0, 14.0], [40.0, 2.0, 1.0, 4.0, 50.0, 3.0]


class _Clock:
    """A clock that shows what it was set to, and counts how often it was read."""

    def __init__(self) -> None:
        self.now, self.readings = 0.0, 0

    def __call__(self) -> float:
        self.readings += 1
        return self.now

    def work(self, durations: list[float]) -> Callable[[], None]:
        """Something that takes so long, each time it is called; the last duration holds for all further calls."""
        left = list(durations)

        def run() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]
        return run


def _verify_speed_up(answer: Callable[..., Any]) -> str | None:
    clock = _Clock()
    result = answer(clock.work(_SLOW), clock.work(_FAST), clock)
    if clock.now == 0:
        return "Neither function was called. Call them, slow() and fast(), and see what the clock says."
    if clock.readings == 0:
        return "The clock that you were given was never read: call clock() before and after each run."
    if not isinstance(result, (int, float)):
        return f"It returns {type(result).__name__}. Return one number, how many times as fast."
    slow, fast = _SLOW[1:], _FAST[1:]
    likely = (
        (median(fast) / median(slow), "It is upside down: above 1 should mean that `fast` is faster."),
        (_SLOW[0] / _FAST[0], "One run says little, and the first one least: warm up, then take the median of five."),
        (slow[0] / fast[0], "One run after the warm-up can be disturbed by anything: take the median of five."),
        (mean(slow) / mean(fast), "One disturbed run spoils a mean. Take the median of the five."),
        (mean(_SLOW) / mean(_FAST), "This is a mean, and the warm-up is in it. Leave the first run of each out, and "
                                    "take the median."),
        (median(_SLOW) / median(_FAST), "The warm-up is among the runs that count. Call each function once before."),
        (median(_SLOW[:5]) / median(_FAST[:5]), "The first of your five runs is the warm-up. Call each function once "
                                                "before the five."),
    )
    for value, hint in likely:
        if result == value:
            return hint
    if result != median(slow) / median(fast):
        return (f"With medians of {median(slow):g} and {median(fast):g} seconds it returns {result:g}. Time each run "
                "by itself, five of each function after one warm-up, and divide the medians.")
    return None


def _times(run: Callable[[], object], clock: Callable[[], float], runs: int) -> list[float]:
    times = []
    for _ in range(runs):
        start = clock()
        run()
        times.append(clock() - start)
    return times


def _compared(statistic: Callable[[list[float]], float], runs: int, skipped: int) -> Callable[..., float]:
    """An answer that times so many runs, leaves the first ones out and compares what this statistic says."""
    def answer(slow: Callable[[], object], fast: Callable[[], object], clock: Callable[[], float]) -> float:
        return statistic(_times(slow, clock, runs)[skipped:]) / statistic(_times(fast, clock, runs)[skipped:])
    return answer


# ---- 6.3 -------------------------------------------------------------------------------------------------


def longest_text(config: Qwen3Config, free_bytes: int, bytes_per_number: int = 2, batch_size: int = 1) -> int:
    # 2: the keys, and as many values.
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * bytes_per_number
    return min(free_bytes // (per_token * batch_size), config.max_position_embeddings)


def _verify_longest(answer: Callable[..., Any]) -> str | None:
    config = Qwen3Config()
    size = StaticKVCache(config, 1, device="meta", dtype=torch.bfloat16).num_bytes
    result = answer(config, 1000 * size)
    if result == 2000:
        return "That is twice too many tokens. Each token leaves two vectors per head: a key and a value."
    if result == 500:
        return "That is half of what fits. Keys and values are kept per key-value head, and these are fewer."
    if result == 1000 * config.num_hidden_layers:
        return "That is too many tokens. Each layer keeps keys and values of its own."
    if result != 1000:
        return f"In {1000 * size} bytes fit 1000 tokens of Qwen3-0.6B in bfloat16, and it returns {result}."
    if answer(config, 1000 * size, 4) != 500:
        return "With 4 bytes per number (float32) only half as many tokens fit: use bytes_per_number."
    if answer(config, 1000 * size, 2, 4) != 250:
        return "With 4 sequences side by side each one has a quarter of the memory: use batch_size."
    if answer(config, 1000 * size - 1) != 999:
        return "One byte less than 1000 tokens need is room for 999: round down."
    if answer(config, 10**15) != config.max_position_embeddings:
        return ("However much memory there is, the text is no longer than the model's context, "
                "max_position_embeddings.")
    return None


def _keys_only(config: Qwen3Config, free_bytes: int, bytes_per_number: int = 2, batch_size: int = 1) -> int:
    per_token = config.num_hidden_layers * config.num_key_value_heads * config.head_dim * bytes_per_number
    return min(free_bytes // (per_token * batch_size), config.max_position_embeddings)


def _query_heads(config: Qwen3Config, free_bytes: int, bytes_per_number: int = 2, batch_size: int = 1) -> int:
    per_token = 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * bytes_per_number
    return min(free_bytes // (per_token * batch_size), config.max_position_embeddings)


def _one_layer(config: Qwen3Config, free_bytes: int, bytes_per_number: int = 2, batch_size: int = 1) -> int:
    per_token = 2 * config.num_key_value_heads * config.head_dim * bytes_per_number
    return min(free_bytes // (per_token * batch_size), config.max_position_embeddings)


def _one_text(config: Qwen3Config, free_bytes: int, bytes_per_number: int = 2, batch_size: int = 1) -> int:
    return longest_text(config, free_bytes, bytes_per_number)


def _without_end(config: Qwen3Config, free_bytes: int, bytes_per_number: int = 2, batch_size: int = 1) -> int:
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * bytes_per_number
    return free_bytes // (per_token * batch_size)


# ---- 6.4 -------------------------------------------------------------------------------------------------


def go_on(model: Qwen3Model, text_ids: Tensor, cache: KVCache, max_new_tokens: int) -> Tensor:
    """Go on with a text whose beginning the cache holds; return the new tokens, (1, max_new_tokens)."""
    # To know what follows the last token it must be computed, even if the cache holds it.
    held = min(cache.length, text_ids.shape[1] - 1)
    cache.truncate(held)
    tokens = generate_tokens(model, text_ids[:, held:], max_new_tokens, cache=cache)
    return torch.cat(list(tokens), dim=1)


def _verify_go_on(answer: Callable[..., Any]) -> str | None:
    model = random_model(_SMALL, dtype=torch.float32, device="cpu")
    prompt, question = torch.tensor([[3, 14, 15, 92, 65]]), torch.tensor([[35, 89, 79]])
    reply = generate_text_basic_cache(model, prompt, 4)
    text = torch.cat((prompt, reply, question), dim=1)
    expected = generate_text_basic_cache(model, text, 5)
    cache = KVCache(_SMALL)
    for _ in generate_tokens(model, prompt, 4, cache=cache):
        pass
    missing = text.shape[1] - cache.length
    passes = _watch(model)
    result = answer(model, text, cache, 5)
    if not isinstance(result, Tensor):
        return f"It returns {type(result).__name__}. Join the new tokens with torch.cat(..., dim=1) and return that."
    if not passes or any(used is not cache for _, used in passes):
        return "A pass was made without the cache that you were given: hand that one to the model, in every pass."
    first = passes[0][0]
    if first == text.shape[1]:
        return ("The model is given the whole text, although the cache holds its beginning: it computes that again, or "
                "takes it for a repetition. Hand over only what the cache lacks.")
    if first == missing - 1:
        return ("One token is lost, the last of the earlier answer: it was chosen but never fed to the model, so the "
                "cache lacks it. Ask the cache how many it holds.")
    if first != missing:
        return f"The cache lacks {missing} tokens of the text, and the first pass is given {first}: see cache.length."
    if len(passes) != 5:
        return f"5 new tokens took {len(passes)} forward passes. The last one needs no pass of its own: 5 are enough."
    if result.shape == (1, text.shape[1] + 5):
        return "The text is returned too. Return the new tokens alone."
    if not torch.equal(result, expected):
        return "The first pass is right. What comes is not the greedy continuation: 5 tokens, each the likeliest."
    cache = KVCache(_SMALL)
    model(text, cache=cache)
    try:
        result = answer(model, text, cache, 5)
    except CourseError:
        return ("It is right, except where the cache holds the whole text: then no token is left to hand over, but the "
                "scores behind the last one are needed. Have cache.truncate forget that one, and compute it again.")
    if cache.length > text.shape[1] + 4 or not torch.equal(result, expected):
        return ("It is right, except where the cache holds the whole text: the last token has to be computed again, in "
                "its own place, and not behind itself. See cache.truncate.")
    return None


def _continue(model: Qwen3Model, text: Tensor, cache: KVCache, n: int) -> Tensor:
    return torch.cat(list(generate_tokens(model, text, n, cache=cache)), dim=1)


def _last_token_again(model: Qwen3Model, text: Tensor, cache: KVCache, n: int) -> Tensor:
    return _continue(model, text[:, min(cache.length, text.shape[1] - 1):], cache, n)


EXERCISES: tuple[Exercise, ...] = (
    Exercise("6.1", "The loop with a cache", generate_with_cache, _verify_generate, (
        (_whole_text_again, "newest token alone"),
        (_forgetful, "a new cache at each step"),
        (_uncached, "without a cache"),
        (_prompt_too, "new tokens alone"),
        (_one_pass_more, "no pass of its own"),
    )),
    Exercise("6.2", "Measure a speed-up", speed_up, _verify_speed_up, (
        (lambda slow, fast, clock: 1 / speed_up(slow, fast, clock), "upside down"),
        (_compared(mean, 1, 0), "the first one least"),
        (_compared(mean, 2, 1), "disturbed by anything"),
        (_compared(mean, 6, 1), "spoils a mean"),
        (_compared(mean, 6, 0), "the warm-up is in it"),
        (_compared(median, 6, 0), "among the runs that count"),
        (_compared(median, 5, 0), "The first of your five"),
        (lambda slow, fast, clock: speed_up(slow, fast, time.perf_counter), "never read"),
        (lambda slow, fast, clock: clock() + 2, "Neither function"),
    )),
    Exercise("6.3", "How long a text fits", longest_text, _verify_longest, (
        (_keys_only, "a key and a value"),
        (_query_heads, "per key-value head"),
        (_one_layer, "Each layer"),
        (_one_text, "use batch_size"),
        (_without_end, "max_position_embeddings"),
    )),
    Exercise("6.4", "Go on with a text", go_on, _verify_go_on, (
        (_continue, "the whole text"),
        (lambda model, text, cache, n: generate_text_basic_cache(model, text, n), "without the cache"),
        (lambda model, text, cache, n: _continue(model, text[:, cache.length + 1:], cache, n), "One token is lost"),
        (lambda model, text, cache, n: _continue(model, text[:, -1:], cache, n), "The cache lacks"),
        (lambda model, text, cache, n: torch.cat((text, go_on(model, text, cache, n)), dim=1), "returned too"),
        (lambda model, text, cache, n: _continue(model, text[:, cache.length:], cache, n), "no token is left"),
        (_last_token_again, "behind itself"),
        (lambda model, text, cache, n: go_on(model, text, cache, n + 1)[:, :n], "no pass of its own"),
    )),
)
