"""Exercises of chapter 6: the loop with a cache, what it gains, what it costs, and how a text goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import mean, median
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from course_utils.config import Qwen3Config
from course_utils.errors import CourseError
from course_utils.exercises.answers import close, number, tensor, whole
from course_utils.exercises.chapters.varied_model import CONFIG, Pass, varied_model, watched
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.generation import generate_text_basic_cache, generate_text_basic_stream, generate_tokens
from course_utils.kv_cache import KVCache, StaticKVCache
from course_utils.language import gettext
from course_utils.qwen3 import Qwen3Model

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


# Prompts, and how many new tokens; the second one shows what a first call left behind, and begins with id 0.
_PROMPTS = (([[3, 14, 15, 92, 65]], 6), ([[0, 8]], 3), ([[35, 89, 79, 32], [38, 46, 26, 43]], 5), ([[7]], 1))


def _verify_generate(answer: Answer) -> str | None:
    models = varied_model(6), varied_model(7)
    for at, (rows, n) in enumerate(_PROMPTS):
        model, prompt = models[at // 2], torch.tensor(rows)  # two calls with each
        expected = generate_text_basic_cache(model, prompt, n)
        with watched(model) as passes:
            try:
                returned = answer(model, prompt.clone(), n)
            except Exception as error:
                if len(rows) == 1:
                    raise
                return gettext("It is right for one text, and with two side by side it stops with {kind}: "
                               "each text has its own next token, logits[:, -1].argmax(dim=-1, "
                               "keepdim=True), (batch, 1).").format(kind=type(error).__name__)
        if hint := _judge_passes(passes, prompt, expected) or _judge_new_tokens(returned, prompt, expected):
            return hint
    return None


def _judge_passes(passes: list[Pass], prompt: Tensor, expected: Tensor) -> str | None:
    """What each forward pass was given: the prompt, then each new token but the last, with one and the same cache."""
    n, t = expected.shape[1], prompt.shape[1]
    if not passes:
        return "The model was never called. Call model(inputs, cache=cache), first with the prompt."
    if any(one.cache is None for one in passes):
        return ("The model is called without a cache, so it computes everything again. "
                "Call model(inputs, cache=cache).")
    if passes[0].held:
        return ("The first pass finds a cache that still holds another text. Make a new one in each call: not outside "
                "the function, and not as a default argument, which Python makes once.")
    if any(one.cache is not passes[0].cache for one in passes):
        return "There is a new cache at each step, and a new cache knows nothing. Make one before the loop."
    if any(one.token_ids.shape[1] != 1 for one in passes[1:]):
        return ("After the first step the model is given more than one token per row. The cache holds the "
                "others: give it the newest token alone.")
    if not torch.equal(passes[0].token_ids, prompt):
        return gettext("The first pass is given {shape} tokens, and the prompt has {whole}. It should be given just "
                       "the prompt: that is the prefill, which fills the cache.").format(
            shape=tuple(passes[0].token_ids.shape), whole=tuple(prompt.shape))
    fed = [one.token_ids for one in passes[1:]]
    if len(fed) > 1 and all(torch.equal(one, prompt[:, -1:]) for one in fed):
        return "Each later pass is given the last token of the prompt again. Give it the token that was chosen last."
    if len(fed) > 1 and all(torch.equal(one, expected[:, :1]) for one in fed):
        return ("Each later pass is given the first new token, again and again. Give it the token that was chosen "
                "last: set `inputs` anew in each step.")
    if len(passes) != n:
        return gettext("{n} new tokens took {count} forward passes. The first pass, over {t} tokens, chooses one, and "
                       "the last token needs no pass of its own: {n} are enough.").format(n=n, count=len(passes), t=t)
    for at, (given, right) in enumerate(zip(fed, expected.T), start=2):
        if not torch.equal(given[:, 0], right):
            return gettext("Pass {at} is given {given}, and the likeliest after what came before is {right}. Take "
                           "argmax over the last position's logits, and feed what it chose.").format(
                at=at, given=given[:, 0].tolist(), right=right.tolist())
    return None


def _judge_new_tokens(returned: Any, prompt: Tensor, expected: Tensor) -> str | None:
    """What came back, where the passes were right."""
    (b, t), n = prompt.shape, expected.shape[1]
    given = tensor(returned, "the new tokens, a tensor of shape (batch, new tokens)")
    if given.shape == (b, t + n) and torch.equal(given[:, :t].long(), prompt):
        return "The prompt is returned too. Return the new tokens alone."
    if given.shape != (b, n):
        return gettext("For {b} prompts and {n} new tokens the result has shape {shape}, not ({b}, {n}): join the new "
                       "tokens with torch.cat(..., dim=1).").format(b=b, n=n, shape=tuple(given.shape))
    if not torch.equal(given.long(), expected):
        return "The passes are right, and what is returned are other tokens: keep each one that was chosen, in order."
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


def _feeding(choose: Callable[[Tensor, list[Tensor]], Tensor]) -> Answer:
    """An answer that feeds what `choose` makes of the prompt and of the new tokens so far."""
    def answer(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int) -> Tensor:
        cache, inputs, new_tokens = KVCache(model.config), token_ids, []
        for _ in range(max_new_tokens):
            new_tokens.append(model(inputs, cache=cache)[:, -1].argmax(-1, keepdim=True))
            inputs = choose(token_ids, new_tokens)
        return torch.cat(new_tokens, dim=1)
    return answer


_KEPT_CACHES: WeakKeyDictionary[Qwen3Model, KVCache] = WeakKeyDictionary()


def _one_cache_for_all_calls(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int) -> Tensor:
    """A cache as a default argument, that is made once; here once for each model, as a check may be run twice."""
    cache = _KEPT_CACHES.setdefault(model, KVCache(model.config))
    inputs, new_tokens = token_ids, []
    for _ in range(max_new_tokens):
        inputs = model(inputs, cache=cache)[:, -1].argmax(-1, keepdim=True)
        new_tokens.append(inputs)
    return torch.cat(new_tokens, dim=1)


def _first_row_alone(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int) -> Tensor:
    cache, inputs, new_tokens = KVCache(model.config), token_ids, []
    for _ in range(max_new_tokens):
        inputs = model(inputs, cache=cache)[0, -1].argmax().view(1, 1)
        new_tokens.append(inputs)
    return torch.cat(new_tokens, dim=1)


def _prompt_token_by_token(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int) -> Tensor:
    cache = KVCache(model.config)
    for token in token_ids.split(1, dim=1)[:-1]:
        model(token, cache=cache)
    return torch.cat(list(generate_tokens(model, token_ids[:, -1:], max_new_tokens, cache=cache)), dim=1)


def _into_a_table(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int) -> np.ndarray:
    (b, t), inputs = token_ids.shape, token_ids
    cache = StaticKVCache(model.config, t + max_new_tokens, b, "cpu", torch.float32)
    table = np.zeros((b, max_new_tokens), dtype=int)
    with torch.no_grad():
        for at in range(max_new_tokens):
            inputs = model(inputs, cache=cache, last_only=True).argmax(-1)
            table[:, at] = inputs[:, 0].numpy()
    return table


def _prefill_first(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int) -> Tensor:
    cache = KVCache(model.config)
    text = torch.cat((token_ids, model(token_ids, cache)[:, -1].argmax(-1, keepdim=True)), dim=1)
    while text.shape[1] < token_ids.shape[1] + max_new_tokens:
        text = torch.cat((text, model(text[:, -1:], cache)[:, -1].argmax(-1, keepdim=True)), dim=1)
    return text[:, token_ids.shape[1]:]


_CHOSEN = "`inputs = logits[:, -1].argmax(dim=-1, keepdim=True)`"
_WITH_A_CACHE = Exercise("6.1", "The loop with a cache", generate_with_cache, _verify_generate, wrong=(
    (_whole_text_again, "newest token alone"),
    (_forgetful, "a new cache at each step"),
    (_uncached, "without a cache"),
    (_prompt_too, "new tokens alone"),
    (_one_pass_more, "no pass of its own"),
    (_feeding(lambda prompt, new: prompt[:, -1:]), "last token of the prompt again"),
    (_feeding(lambda prompt, new: new[0]), "first new token, again and again"),
    (_one_cache_for_all_calls, "still holds another text"),
    (_first_row_alone, "with two side by side"),
    (_prompt_token_by_token, "just the prompt"),
    (lambda model, ids, n: generate_with_cache(model, ids, n).T, "join the new tokens"),
    (lambda model, ids, n: generate_with_cache(model, ids, n).flip(1), "in order"),
    (_feeding(lambda prompt, new: (new[-1] + 1) % 97), "feed what it chose"),
    (lambda model, ids, n: torch.zeros(len(ids), n), "never called"),
    (lambda model, ids, n: generate_with_cache(model, ids, n) is None or None, "returned None"),
), also_wrong=(
    lambda model, ids, n: generate_with_cache(model, ids, n)[:, -1:],
    lambda model, ids, n: generate_with_cache(model, ids, n)[0],
    lambda model, ids, n: generate_with_cache(model, ids[:, 1:], n),
    lambda model, ids, n: generate_with_cache(model, ids, 6),
    lambda model, ids, n: generate_with_cache(model, ids[:1], n).expand(len(ids), n),
    lambda model, ids, n: generate_text_basic_cache(model, ids, n, eos_token_id=0)[:, :2],
), right=(
    generate_text_basic_cache,
    lambda model, ids, n: torch.cat(list(generate_text_basic_stream(model, ids, n)), dim=1),
    _feeding(lambda prompt, new: new[-1]),
    _prefill_first,
    _into_a_table,
), equivalent={
    f"{_CHOSEN} to `inputs = logits[:, -1].argmax(dim=1, keepdim=True)`":
        "What is left has two dimensions, and the last one is number 1.",
    "`with torch.inference_mode():` to `logits = model(inputs, cache=cache)`":
        "The task does not ask for it: the tokens are the same, and only memory for gradients is spared.",
})

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


# Seconds of one run after the other, of `slow` and of `fast`: a slow first one, and one that something else disturbed.
# In the second case `fast` is none, and the first runs are no slower than others.
_DURATIONS = (([96.0, 12.0, 20.0, 16.0, 80.0, 14.0], [40.0, 2.0, 1.0, 4.0, 50.0, 3.0]),
              ([3.0, 8.0, 5.0, 6.0, 7.0, 30.0], [50.0, 11.0, 9.0, 60.0, 10.0, 16.0]))


class _Clock:
    """A clock that shows what it was set to, and counts how often it was read."""

    def __init__(self) -> None:
        self.now, self.readings = 1000.0, 0
        self.runs = [0, 0]

    def __call__(self) -> float:
        self.readings += 1
        return self.now

    def work(self, which: int, durations: list[float]) -> Callable[[], None]:
        """Something that takes so long, each time it is called; the last duration holds for all further calls."""
        def run() -> None:
            self.now += durations[min(self.runs[which], len(durations) - 1)]
            self.runs[which] += 1
        return run


def _times(run: Callable[[], object], clock: Callable[[], float], runs: int) -> list[float]:
    times = []
    for _ in range(runs):
        start = clock()
        run()
        times.append(clock() - start)
    return times


def _compared(statistic: Callable[[list[float]], float], runs: int, skipped: int) -> Answer:
    """An answer that times so many runs, leaves the first ones out and compares what this statistic says."""
    def answer(slow: Callable[[], object], fast: Callable[[], object], clock: Callable[[], float]) -> float:
        return statistic(_times(slow, clock, runs)[skipped:]) / statistic(_times(fast, clock, runs)[skipped:])
    return answer


def _upside_down(slow: Callable[[], object], fast: Callable[[], object], clock: Callable[[], float]) -> float:
    return 1 / speed_up(slow, fast, clock)


def _difference(slow: Callable[[], object], fast: Callable[[], object], clock: Callable[[], float]) -> float:
    return median(_times(slow, clock, 6)[1:]) - median(_times(fast, clock, 6)[1:])


# What one may have computed instead, the likeliest slip first.
_SPEED_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_upside_down, "It is upside down: above 1 should mean that `fast` is faster."),
    (_compared(mean, 1, 0), "One run says little, and the first one least: warm up, then take the median of five."),
    (_compared(mean, 2, 1), "One run after the warm-up can be disturbed by anything: take the median of five."),
    (_compared(mean, 6, 1), "One disturbed run spoils a mean. Take the median of the five."),
    (_compared(min, 6, 1), "These are the fastest runs. Here the medians of the five are to be compared."),
    (_compared(mean, 6, 0), "This is a mean, and the warm-up is in it. Leave the first run of each out, and take the "
                            "median."),
    (_compared(mean, 5, 0), "This is the mean of the first five runs, the warm-up among them. Call each function once "
                            "before the five, and take the median."),
    (_compared(median, 6, 0), "The warm-up is among the runs that count. Call each function once before."),
    (_compared(median, 5, 0), "The first of your five runs is the warm-up. Call each function once before the five."),
    (_difference, "This is the difference of the medians. How many times as fast is a quotient: divide."),
)


def _verify_speed_up(answer: Answer) -> str | None:
    def all_of(one: Answer) -> list[tuple[Any, _Clock]]:
        found = []
        for slow, fast in _DURATIONS:
            clock = _Clock()
            found.append((one(clock.work(0, slow), clock.work(1, fast), clock), clock))
        return found

    told = all_of(answer)
    if any(0 in clock.runs for _, clock in told):
        return "Not both functions were called. Call them, slow() and fast(), and see what the clock says."
    if any(clock.readings == 0 for _, clock in told):
        return "The clock that you were given was never read: call clock() before and after each run."
    given = [number(returned, "one number, how many times as fast") for returned, _ in told]
    right = [speed for speed, _ in all_of(speed_up)]
    if all(map(close, given, right)):
        runs = next((clock.runs for _, clock in told if clock.runs != [6, 6]), None)
        return (gettext("The number is right, and it took {slow} and {fast} runs. One to warm up and five that are "
                        "timed make six of each.").format(slow=runs[0], fast=runs[1]) if runs else None)
    for slip, hint in _SPEED_SLIPS:
        if all(map(close, given, [speed for speed, _ in all_of(slip)])):
            return hint
    at = next(at for at, one in enumerate(given) if not close(one, right[at]))
    slow, fast = (median(runs[1:]) for runs in _DURATIONS[at])
    return gettext("With medians of {slow:g} and {fast:g} seconds it returns {given:g}, and {right:g} is right. Time "
                   "each run by itself, five of each function after one warm-up, and divide the medians.").format(
        slow=slow, fast=fast, given=given[at], right=right[at])


def _alternating(slow: Callable[[], object], fast: Callable[[], object], clock: Callable[[], float]) -> float:
    slow()
    fast()
    pairs = [(_times(slow, clock, 1)[0], _times(fast, clock, 1)[0]) for _ in range(5)]
    return sorted(one for one, _ in pairs)[2] / sorted(other for _, other in pairs)[2]


def _with_numpy(slow: Callable[[], object], fast: Callable[[], object], clock: Callable[[], float]) -> Any:
    return np.median(_times(slow, clock, 6)[1:]) / np.median(_times(fast, clock, 6)[1:])


def _by_readings(slow: Callable[[], object], fast: Callable[[], object], clock: Callable[[], float]) -> float:
    found = []
    for run in (slow, fast):
        run()
        readings = [clock()]
        for _ in range(5):
            run()
            readings.append(clock())
        found.append(float(torch.tensor(readings).diff().median()))
    return found[0] / found[1]


_SPEED_UP = Exercise("6.2", "Measure a speed-up", speed_up, _verify_speed_up, wrong=(
    *((slip, hint[:30]) for slip, hint in _SPEED_SLIPS),
    (lambda slow, fast, clock: speed_up(slow, fast, time.perf_counter), "never read"),
    (lambda slow, fast, clock: clock() + 2, "Not both functions"),
    (_compared(lambda times: times[-1], 6, 1), "divide the medians"),
    (lambda slow, fast, clock: speed_up(slow, fast, clock) + 0 * len(_times(slow, clock, 1)), "six of each"),
    (lambda slow, fast, clock: (speed_up(slow, fast, clock),) * 2, "how many times as fast"),
    (lambda slow, fast, clock: print(end="") if speed_up(slow, fast, clock) else None, "returned None"),
), also_wrong=(
    _compared(max, 6, 1),
    _compared(median, 7, 2),
    _compared(median, 4, 1),
    _compared(lambda times: sorted(times)[1], 6, 1),
    lambda slow, fast, clock: round(speed_up(slow, fast, clock)),
    lambda slow, fast, clock: speed_up(slow, slow, clock) if fast() else 1.0,
    lambda slow, fast, clock: median(_times(slow, clock, 6)[1:]) / median(_times(fast, clock, 5)),
), right=(
    _compared(median, 6, 1),
    _alternating,
    _with_numpy,
    _by_readings,
), equivalent={
    "`times.append(clock() - start)` to `times.append(start - clock())`":
        "Both medians are below zero then, and their quotient is the same.",
})

# ---- 6.3 -------------------------------------------------------------------------------------------------


def longest_text(config: Qwen3Config, free_bytes: int, bytes_per_number: int = 2, batch_size: int = 1) -> int:
    # 2: the keys, and as many values.
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * bytes_per_number
    return min(free_bytes // (per_token * batch_size), config.max_position_embeddings)


_BASE = Qwen3Config()
_WIDE = replace(_BASE, hidden_size=2560, num_hidden_layers=36, num_attention_heads=32, head_dim=96,
                num_key_value_heads=4, max_position_embeddings=3000)
_TOKEN = {config: 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
          for config in (_BASE, _WIDE, CONFIG)}  # numbers that a token leaves in the cache
# Configuration, free bytes, and the other arguments, which have defaults. First what is right for the plain formula;
# then a byte too few, room for less than a token, the context and one more, and more than it for several texts.
_ROOMS: tuple[tuple[Any, ...], ...] = (
    (_BASE, 2000 * _TOKEN[_BASE]), (_WIDE, 999 * _TOKEN[_WIDE]), (_BASE, 2000 * _TOKEN[_BASE], 4),
    (_BASE, 2000 * _TOKEN[_BASE], 2, 4), (_WIDE, 7000 * _TOKEN[_WIDE], 1, 5), (CONFIG, 10_000, 4, 3),
    (_BASE, 2000 * _TOKEN[_BASE] - 1), (CONFIG, 2 * _TOKEN[CONFIG] - 1), (CONFIG, 2 * 128 * _TOKEN[CONFIG]),
    (CONFIG, 2 * 129 * _TOKEN[CONFIG]), (CONFIG, 2 * 200 * _TOKEN[CONFIG], 2, 2), (_BASE, 10**15),
    (CONFIG, 2 * 300 * _TOKEN[CONFIG], 2, 2),
)


def _counting(keep: int = 2, layers: bool = True, heads: str = "num_key_value_heads",
              head_dim: Callable[[Qwen3Config], int] = lambda config: config.head_dim,
              share: Callable[[int, int], float] = lambda free, cost: free // cost, cap: str = "last",
              ignore_bytes: bool = False, ignore_batch: bool = False) -> Answer:
    """An answer that takes some part of the formula otherwise."""
    def answer(config: Qwen3Config, free_bytes: int, bytes_per_number: int = 2, batch_size: int = 1) -> float:
        per_token = keep * (config.num_hidden_layers if layers else 1) * getattr(config, heads) * head_dim(config)
        per_token *= 2 if ignore_bytes else bytes_per_number
        texts, context = 1 if ignore_batch else batch_size, config.max_position_embeddings
        if cap == "first":
            return min(free_bytes // per_token, context) // texts
        fits = share(free_bytes, per_token * texts)
        return min(fits, context) if cap == "last" else fits
    return answer


# What one may have computed instead, the likeliest slip first.
_ROOM_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_counting(head_dim=lambda config: config.hidden_size // config.num_attention_heads),
     "The size of a head is config.head_dim. hidden_size // num_attention_heads is another number: for Qwen3-0.6B 64, "
     "and its heads have 128."),
    (_counting(heads="num_attention_heads"), "Keys and values are kept per key-value head, and these are fewer than "
                                             "the heads that ask: use num_key_value_heads."),
    (_counting(keep=1), "That is too many tokens, up to twice as many. Each token leaves two vectors per head: a key "
                        "and a value."),
    (_counting(layers=False), "That is too many tokens. Each layer keeps keys and values of its own."),
    (_counting(ignore_bytes=True), "With 4 bytes per number (float32) only half as many tokens fit: use "
                                   "bytes_per_number."),
    (_counting(ignore_batch=True), "With 4 sequences side by side each one has a quarter of the memory: use "
                                   "batch_size."),
    (_counting(cap="none"), "However much memory there is, the text is no longer than the model's context, "
                            "max_position_embeddings."),
    (_counting(cap="first"), "The context limits each text by itself, and you limit all of them together: divide by "
                             "the batch first, then take the smaller of the two."),
    (_counting(share=lambda free, cost: round(free / cost)), "One byte less than 2000 tokens need is room for 1999: "
                                                             "round down."),
    (_counting(share=lambda free, cost: math.ceil(free / cost)), "You round up, to a token that has not all of its "
                                                                 "memory: round down."),
)


def _verify_longest(answer: Answer) -> str | None:
    given = [whole(answer(*room), "one whole number of tokens, rounded down") for room in _ROOMS]
    right = [longest_text(*room) for room in _ROOMS]
    if given == right:
        return None
    for slip, hint in _ROOM_SLIPS:
        if given == [slip(*room) for room in _ROOMS]:
            return hint
    at = next(at for at, one in enumerate(given) if one != right[at])
    config, *others = _ROOMS[at]
    return gettext("For a model of {num_hidden_layers} layers, {num_key_value_heads} key-value heads of {head_dim} "
                   "numbers and a context of {max_position_embeddings}, and with the arguments {others} after it, "
                   "{right} tokens fit, and it returns {given}.").format(
        num_hidden_layers=config.num_hidden_layers, num_key_value_heads=config.num_key_value_heads,
        head_dim=config.head_dim, max_position_embeddings=config.max_position_embeddings,
        others=", ".join(map(str, others)), right=right[at], given=given[at])


def _by_a_cache(config: Qwen3Config, free_bytes: int, bytes_per_number: int = 2, batch_size: int = 1) -> int:
    in_bfloat16 = StaticKVCache(config, 1, batch_size, "meta", torch.bfloat16).num_bytes
    return min(free_bytes // (in_bfloat16 // 2 * bytes_per_number), config.max_position_embeddings)


def _longer_and_longer(config: Qwen3Config, free_bytes: int, bytes_per_number: int = 2, batch_size: int = 1) -> int:
    each, length = _TOKEN[config] * bytes_per_number * batch_size, 0
    while length < config.max_position_embeddings and (length + 1) * each <= free_bytes:
        length += 1
    return length


_LONGEST_TEXT = Exercise("6.3", "How long a text fits", longest_text, _verify_longest, wrong=(
    *((slip, hint[:30]) for slip, hint in _ROOM_SLIPS),
    (_counting(heads="hidden_size"), "tokens fit, and it returns"),
    (_counting(share=lambda free, cost: free / cost), "rounded down"),
    (lambda *room: print(end=""), "returned None"),
), also_wrong=(
    lambda *room: longest_text(_BASE, *room[1:]),
    lambda *room: longest_text(*room) * (room[3] if len(room) > 3 else 1),
    lambda *room: max(1, longest_text(*room)),
    lambda *room: longest_text(*room) - (longest_text(*room) == room[0].max_position_embeddings),
    lambda *room: longest_text(room[0], *(1024 * part if at == 0 else part for at, part in enumerate(room[1:]))),
    _counting(keep=4),
    _counting(head_dim=lambda config: 128),
), right=(
    lambda config, free_bytes, bytes_per_number=2, batch_size=1: min(
        free_bytes // bytes_per_number // batch_size // _TOKEN[config], config.max_position_embeddings),
    lambda config, free_bytes, bytes_per_number=2, batch_size=1: np.minimum(
        np.floor(free_bytes / (_TOKEN[config] * bytes_per_number * batch_size)), config.max_position_embeddings),
    _by_a_cache,
    _longer_and_longer,
), equivalent={
    "`bytes_per_number` and `batch_size` are exchanged": "They are multiplied by each other, and nothing else.",
})

# ---- 6.4 -------------------------------------------------------------------------------------------------


def go_on(model: Qwen3Model, text_ids: Tensor, cache: KVCache, max_new_tokens: int) -> Tensor:
    """Go on with a text whose beginning the cache holds; return the new tokens, (1, max_new_tokens)."""
    # To know what follows the last token it must be computed, even if the cache holds it.
    held = min(cache.length, text_ids.shape[1] - 1)
    cache.truncate(held)
    tokens = generate_tokens(model, text_ids[:, held:], max_new_tokens, cache=cache)
    return torch.cat(list(tokens), dim=1)


_TALK = [3, 14, 15, 92, 65, 35, 89, 79, 0, 32, 38, 46]
# How many tokens of it the text has, how many of these the cache holds, and how many new ones are wanted.
_TURNS = ((12, 8, 5), (12, 12, 5), (7, 6, 1), (4, 0, 3), (9, 2, 2), (1, 1, 2))


def _verify_go_on(answer: Answer) -> str | None:
    for at, (t, held, n) in enumerate(_TURNS):
        model = varied_model(6 + at % 2)
        text, cache = torch.tensor([_TALK[:t]]), KVCache(model.config)
        expected = generate_text_basic_cache(model, text, n)
        if held:
            with torch.no_grad():  # not in inference mode: an answer may record gradients
                model(text[:, :held], cache=cache)
        with watched(model) as passes:
            try:
                returned = answer(model, text.clone(), cache, n)
            except CourseError:
                if held < t:
                    raise
                return ("It is right, except where the cache holds the whole text: then no token is left to hand over, "
                        "but the scores after the last one are needed. Have cache.truncate forget that one, and "
                        "compute it again.")
        if hint := _judge_turn(passes, text, held, expected) or _judge_new_tokens(returned, text, expected):
            return hint.replace("The prompt is", "The text is")
    return None


def _judge_turn(passes: list[Pass], text: Tensor, held: int, expected: Tensor) -> str | None:
    """What each pass was given: what the cache lacks, at least the last token, then each new token but the last.

    Whether it is the given cache or a copy of it is left to the answer.
    """
    t, n = text.shape[1], expected.shape[1]
    start = min(held, t - 1)
    if not passes:
        return "The model was never called, and no token chosen: generate_tokens does both."
    if any(one.cache is None for one in passes) or (held > 0 and passes[0].held == 0 and start > 0):
        return ("A pass was made without what the cache that you were given holds: hand that one to the model, and "
                "forget no more of it than you must.")
    if any(one.cache is not passes[0].cache for one in passes):
        return "The passes were made with several caches. Each one needs what those before it have left: use one."
    first = passes[0].token_ids.shape[1]
    if held == t and passes[0].held == t and first == 1:
        return ("It is right, except where the cache holds the whole text: the last token has to be computed again, in "
                "its own place, and not after itself. See cache.truncate.")
    if first == t > 1 and held > 0:
        return ("The model is given the whole text, although the cache holds its beginning: it computes that again, or "
                "takes it for a repetition. Hand over only what the cache lacks.")
    if first == t - held - 1 and passes[0].held == held:
        return ("One token is lost, the first that the cache lacks: it is never fed to the model. cache.length is the "
                "position of that token, since positions count from 0.")
    if passes[0].held != start or not torch.equal(passes[0].token_ids, text[:, start:]):
        return gettext("The cache holds {held} of {t} tokens. The first pass is given {first} and finds {first_held} "
                       "in the cache, and it should be given {new} and find {start}: see cache.length.").format(
            held=held, t=t, first=first, first_held=passes[0].held, new=t - start, start=start)
    if len(passes) != n:
        return gettext("{n} new tokens took {count} forward passes. The last one needs no pass "
                       "of its own: {n} are enough.").format(n=n, count=len(passes))
    for one, right in zip(passes[1:], expected.T):
        if one.token_ids.flatten().tolist() != right.tolist():
            return gettext("The first pass is right. A later one is given {flatten}, and the token that was chosen "
                           "last, the likeliest, is {right}.").format(
                flatten=one.token_ids.flatten().tolist(), right=right.tolist())
    return None


def _continue(model: Qwen3Model, text: Tensor, cache: KVCache, n: int) -> Tensor:
    return torch.cat(list(generate_tokens(model, text, n, cache=cache)), dim=1)


def _last_token_again(model: Qwen3Model, text: Tensor, cache: KVCache, n: int) -> Tensor:
    return _continue(model, text[:, min(cache.length, text.shape[1] - 1):], cache, n)


def _emptied_if_full(model: Qwen3Model, text: Tensor, cache: KVCache, n: int) -> Tensor:
    if cache.length == text.shape[1]:
        cache.truncate(0)
    return _continue(model, text[:, cache.length:], cache, n)


def _always_one_less(model: Qwen3Model, text: Tensor, cache: KVCache, n: int) -> Tensor:
    cache.truncate(max(0, cache.length - 1))
    return _continue(model, text[:, cache.length:], cache, n)


def _feeds_what_came_first(model: Qwen3Model, text: Tensor, cache: KVCache, n: int) -> Tensor:
    cache.truncate(min(cache.length, text.shape[1] - 1))
    inputs = model(text[:, cache.length:], cache=cache)[:, -1].argmax(-1, keepdim=True)
    rest = [model(inputs, cache=cache)[:, -1].argmax(-1, keepdim=True) for _ in range(n - 1)]
    return torch.cat([inputs, *rest], dim=1)


def _on_a_copy(model: Qwen3Model, text: Tensor, cache: KVCache, n: int) -> Tensor:
    return go_on(model, text, cache.copy(), n)


def _if_full(model: Qwen3Model, text: Tensor, cache: KVCache, n: int) -> Tensor:
    if cache.length == text.shape[1]:
        cache.truncate(text.shape[1] - 1)
    return _continue(model, text[:, cache.length:], cache, n)


def _step_by_step(model: Qwen3Model, text: Tensor, cache: KVCache, n: int) -> list[list[int]]:
    cache.truncate(min(cache.length, text.shape[1] - 1))
    inputs, found = text[:, cache.length:], []
    for _ in range(n):
        inputs = model(inputs, cache, last_only=True).argmax(dim=-1)
        found.append(int(inputs))
    return [found]


def _cutting_from_the_end(model: Qwen3Model, text: Tensor, cache: KVCache, n: int) -> Tensor:
    missing = max(1, text.shape[1] - cache.length)
    cache.truncate(text.shape[1] - missing)
    return torch.hstack(list(generate_tokens(model, text[:, -missing:], n, cache=cache)))


_GO_ON = Exercise("6.4", "Go on with a text", go_on, _verify_go_on, wrong=(
    (_continue, "the whole text, although"),
    (lambda model, text, cache, n: generate_text_basic_cache(model, text, n), "without what the cache"),
    (lambda model, text, cache, n: _continue(model, text[:, cache.length + 1:], cache, n), "One token is lost"),
    (lambda model, text, cache, n: _continue(model, text[:, -1:], cache, n), "see cache.length"),
    (lambda model, text, cache, n: torch.cat((text, go_on(model, text, cache, n)), dim=1), "returned too"),
    (lambda model, text, cache, n: _continue(model, text[:, cache.length:], cache, n), "no token is left"),
    (_last_token_again, "not after itself"),
    (lambda model, text, cache, n: go_on(model, text, cache, n + 1)[:, :n], "no pass of its own"),
    (_feeds_what_came_first, "A later one is given"),
    (lambda model, text, cache, n: torch.zeros(1, n), "never called"),
    (lambda model, text, cache, n: go_on(model, text, cache, n).T, "join the new tokens"),
    (lambda model, text, cache, n: go_on(model, text, cache, n) is None or None, "returned None"),
), also_wrong=(
    _emptied_if_full,
    _always_one_less,
    lambda model, text, cache, n: _continue(model, text, KVCache(model.config), n),
    lambda model, text, cache, n: _continue(model, text[:, 8:], cache, n),
    lambda model, text, cache, n: go_on(model, text, cache, 5),
    lambda model, text, cache, n: go_on(model, text, cache, n)[0],
    lambda model, text, cache, n: go_on(model, text, cache, n).flip(1),
), right=(
    _on_a_copy,
    _if_full,
    _step_by_step,
    _cutting_from_the_end,
))

EXERCISES: tuple[Exercise, ...] = (_WITH_A_CACHE, _SPEED_UP, _LONGEST_TEXT, _GO_ON)
