"""Exercises of chapter 7, compilation: how often, when it pays, and another device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_utils.config import Qwen3Config
from course_utils.exercises.answers import mapping, number, whole
from course_utils.exercises.calls import calls_of
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.generation import (
    GenerationStats,
    generate_text_basic_cache,
    generate_tokens,
    generate_with_stats,
)
from course_utils.kv_cache import Cache, KVCache
from course_utils.language import gettext
from course_utils.qwen3 import Qwen3Model
from course_utils.timing import median_seconds, timed

# ---- 7.1 -------------------------------------------------------------------------------------------------


def graphs_needed(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    different = len(set(lengths))
    if dynamic is None:  # one for the first length alone, one for any other
        return min(different, 2)
    # One for each length, until the compiler gives up; or one for all.
    return min(different, 1 if dynamic else 8)


_LENGTHS: tuple[list[int], ...] = (
    [4, 4, 4], [4, 5, 6, 7], [4, 5, 4, 5, 4], [9], [7, 3], [6, 6, 3], [3, 8, 8, 3, 5, 9], list(range(3, 11)),
    list(range(3, 12)), list(range(40, 3, -1)), [5] * 20, [],
)


def _one_each_call(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    return len(lengths)


def _always_automatic(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    return graphs_needed(lengths)


def _different_ones(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    return len(set(lengths))


def _automatic_like_fixed(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    return graphs_needed(lengths, dynamic=bool(dynamic))


def _fixed_like_automatic(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    return graphs_needed(lengths, dynamic or None)


def _one_each_change(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    changes = sum(before != after for before, after in zip(lengths, lengths[1:]))
    return min(changes + 1, 8) if dynamic is False and lengths else graphs_needed(lengths, dynamic)


def _first_one_fixed(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    return graphs_needed(lengths, None if dynamic else dynamic)


def _never_gives_up(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    return len(set(lengths)) if dynamic is False else graphs_needed(lengths, dynamic)


def _nine_of_them(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    return min(len(set(lengths)), 9) if dynamic is False else graphs_needed(lengths, dynamic)


def _one_for_nothing(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    return max(1, graphs_needed(lengths, dynamic))


def _one_length_too(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    return min(len(lengths), 2) if dynamic is None else graphs_needed(lengths, dynamic)


# What one may have counted instead, the likeliest slip first.
_GRAPH_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_one_each_call, "You count calls. The guards of a program hold for every call of its length, so one program "
                     "serves them all."),
    (_different_ones, "You count different lengths, whatever dynamic is. Without it, and with True, the compiler makes "
                      "a program for any length sooner or later: use the argument."),
    (_always_automatic, "With dynamic=False and True it is as without it. Use the argument."),
    (_fixed_like_automatic, "With dynamic=False it is as without it. Then no program is ever made for any length."),
    (_automatic_like_fixed, "Without dynamic it is as with False. At the second length the compiler notices that the "
                            "length varies, and makes a program for any."),
    (_first_one_fixed, "With dynamic=True the very first program is for any length: at the next one nothing is left to "
                       "compile."),
    (_never_gives_up, "Many lengths with dynamic=False do not make as many graphs. Read again what torch.compile does "
                      "with a function that is compiled again and again."),
    (_nine_of_them, "With dynamic=False nine lengths make eight graphs. How many are made at most?"),
    (_one_each_change, "With dynamic=False the lengths 4 5 4 5 4 need two graphs. A program is kept: when 4 comes "
                       "back, its own still serves. Count different lengths, not changes."),
    (_one_length_too, "Several calls of one length need one graph, without dynamic, too: count different lengths."),
    (_one_for_nothing, "Without any call nothing is compiled: 0 graphs."),
)


def _graphs(answer: Answer) -> list[Any]:
    """For each list of lengths the answers without `dynamic`, and with None, False and True."""
    return [told for lengths in _LENGTHS for told in (
        answer(list(lengths)), *(answer(list(lengths), dynamic=dynamic) for dynamic in (None, False, True)))]


def _verify_graphs(answer: Answer) -> str | None:
    with calls_of(torch, "compile") as compiled:
        told = [whole(graphs, "one whole number: how many graphs") for graphs in _graphs(answer)]
    if compiled:
        return "It has called torch.compile. Your function compiles nothing; it only knows the rules."
    right = _graphs(graphs_needed)
    if told == right:
        return None
    for slip, hint in _GRAPH_SLIPS:
        if told == _graphs(slip):
            return hint
    at = next(at for at, graphs in enumerate(told) if graphs != right[at])
    how = ("without dynamic", "with dynamic=None", "with dynamic=False", "with dynamic=True")[at % 4]
    return gettext("For the lengths {lengths} {how} it is {right}, and it returns {told}.").format(
        lengths=_LENGTHS[at // 4], how=gettext(how), right=right[at], told=told[at])


def _by_going_through(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    most = {None: 2, False: 8, True: 1}[dynamic]
    programs: list[int] = []
    for length in lengths:
        if length not in programs and len(programs) < most:
            programs.append(length)
    return len(programs)


def _by_cases(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    if not lengths:
        return 0
    if dynamic:
        return 1
    if dynamic is False:
        return sorted((1, len(set(lengths)), 8))[1]
    return 1 + any(length != lengths[0] for length in lengths)


def _compiling(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    torch.compile(graphs_needed, backend="eager")
    return graphs_needed(lengths, dynamic)


_GRAPHS = Exercise("7.1", "How often is it compiled", graphs_needed, _verify_graphs, (
    *((slip, hint[:40]) for slip, hint in _GRAPH_SLIPS),
    (_compiling, "called torch.compile"),
    (lambda lengths, dynamic=None: graphs_needed(lengths, dynamic) + 1, "For the lengths"),
    (lambda lengths, dynamic=None: set(lengths), "how many graphs"),
    (lambda lengths, dynamic=None: print(end=""), "returned None"),
), also_wrong=(
    lambda lengths, dynamic=None: min(len(set(lengths)), 2),
    lambda lengths, dynamic=None: min(len(set(lengths)), 1 if dynamic else 8),
    lambda lengths, dynamic=True: graphs_needed(lengths, dynamic),
    lambda lengths, dynamic=False: graphs_needed(lengths, dynamic),
    lambda lengths, dynamic=None: {None: 2, False: 5, True: 1}[dynamic],
    lambda lengths, dynamic=None: graphs_needed(lengths, None if dynamic is None else not dynamic),
), right=(
    _by_going_through,
    _by_cases,
    lambda lengths, dynamic=None: min(np.unique(lengths).size, 2 if dynamic is None else 1 if dynamic else 8),
    lambda lengths, dynamic=None: len(sorted(set(lengths))[:[8, 1][dynamic] if dynamic is not None else 2]),
))

# ---- 7.2 -------------------------------------------------------------------------------------------------


def tokens_to_pay(warm_up: float, regular: float, compiled: float) -> int | None:
    saved = regular - compiled  # by each token
    if saved <= 0:
        return None
    return math.ceil(warm_up / saved)


# Warm-up, regular, compiled; all numbers are exact in binary, so that no rounding decides.
_SAVINGS = (
    (3.0, 0.75, 0.5), (1.0, 0.5, 0.125), (10.0, 3.5, 0.5), (6.5, 2.0, 1.0), (0.25, 1.0, 0.5), (0.0, 0.5, 0.25),
    (40.0, 0.75, 0.5), (3.0, 0.5, 0.75), (3.0, 0.5, 0.5),
)


def _when_it_pays(count: Callable[[float, float, float], int | float]) -> Answer:
    """An answer that counts so where a token saves anything, and knows that it never pays otherwise."""
    return lambda warm_up, regular, compiled: count(warm_up, regular, compiled) if regular > compiled else None


# What one may have computed instead, the likeliest slip first.
_PAY_SLIPS: tuple[tuple[Answer, str], ...] = (
    (lambda warm_up, regular, compiled: None, "It always returns None, and where a token saves something, enough of "
                                              "them do pay."),
    (_when_it_pays(lambda warm_up, regular, compiled: math.ceil(warm_up / regular)),
     "The warm-up was divided by the regular time of a token. What pays for it is what a token saves: the difference "
     "of the two times."),
    (_when_it_pays(lambda warm_up, regular, compiled: math.ceil(warm_up / compiled)),
     "The warm-up was divided by the compiled time of a token. What pays for it is what a token saves: the difference "
     "of the two times."),
    (_when_it_pays(lambda warm_up, regular, compiled: int(warm_up / (regular - compiled))),
     "After 2 tokens 0.75 seconds are saved, and the warm-up took 1. Round up, not down."),
    (_when_it_pays(lambda warm_up, regular, compiled: round(warm_up / (regular - compiled))),
     "10 seconds, and each token saves 3: three tokens save only 9. Round up, not to the nearest number."),
    (_when_it_pays(lambda warm_up, regular, compiled: int(warm_up / (regular - compiled)) + 1),
     "It returns 13 where exactly 12 tokens save what the warm-up took. math.ceil rounds up, and leaves a whole number "
     "as it is."),
    (_when_it_pays(lambda warm_up, regular, compiled: max(1, math.ceil(warm_up / (regular - compiled)))),
     "Without a warm-up it has paid from the start: 0 tokens."),
    (lambda warm_up, regular, compiled: math.ceil(warm_up / (regular - compiled)) if regular != compiled else None,
     "Where compiled is slower than regular it returns a number below 0. It never pays, however many tokens: None."),
    (lambda warm_up, regular, compiled: math.ceil(warm_up / abs(regular - compiled)) if regular != compiled else None,
     "Where compiled is slower than regular it returns a number. It never pays, however many tokens: None."),
    (_when_it_pays(lambda warm_up, regular, compiled: math.ceil((warm_up + compiled) / (regular - compiled))),
     "The warm-up is counted as longer than it is. It is what has to be saved, and no more."),
)


def _verify_pay(answer: Answer) -> str | None:
    told = []
    for saving in _SAVINGS:
        try:
            tokens = answer(*saving)
        except ZeroDivisionError:
            return "Where compiled is as slow as regular nothing is saved, and it divides by 0. Return None there."
        told.append(None if tokens is None else whole(tokens, "one whole number of tokens, rounded up, or None if it "
                                                              "never pays"))
    right = [tokens_to_pay(*saving) for saving in _SAVINGS]
    if told == right:
        return None
    for slip, hint in _PAY_SLIPS:
        if told == [slip(*saving) for saving in _SAVINGS]:
            return hint
    at = next(at for at, tokens in enumerate(told) if tokens != right[at])
    warm_up, regular, compiled = _SAVINGS[at]
    if right[at] is None:
        return gettext("With {regular} seconds a token regularly and {compiled} compiled it returns {told}. Nothing is "
                       "saved, so it never pays: None.").format(regular=regular, compiled=compiled, told=told[at])
    return gettext("{warm_up} seconds of warm-up, and each token takes {compiled} seconds instead of {regular}: that "
                   "is {right} tokens, and it returns {told}.").format(
        warm_up=warm_up, compiled=compiled, regular=regular, right=right[at], told=told[at])


def _counted(warm_up: float, regular: float, compiled: float) -> int | None:
    if regular - compiled <= 0:
        return None
    tokens = 0
    while tokens * (regular - compiled) < warm_up:
        tokens += 1
    return tokens


_PAY = Exercise("7.2", "When does compiling pay", tokens_to_pay, _verify_pay, (
    *((slip, hint[:60]) for slip, hint in _PAY_SLIPS),
    (lambda warm_up, regular, compiled: math.ceil(warm_up / (regular - compiled)), "divides by 0"),
    (_when_it_pays(lambda warm_up, regular, compiled: warm_up / (regular - compiled)), "rounded up, or None"),
    (lambda warm_up, regular, compiled: 0 if regular <= compiled else tokens_to_pay(warm_up, regular, compiled),
     "so it never pays"),
    (_when_it_pays(lambda warm_up, regular, compiled: math.ceil(warm_up / (regular + compiled))), "that is 12 tokens"),
), also_wrong=(
    lambda warm_up, regular, compiled: math.inf if regular <= compiled else math.ceil(warm_up / (regular - compiled)),
    lambda warm_up, regular, compiled: tokens_to_pay(3.0, regular, compiled),
    lambda warm_up, regular, compiled: tokens_to_pay(warm_up, regular, 0.5),
    lambda warm_up, regular, compiled: tokens_to_pay(warm_up, regular, compiled) or None,
    lambda warm_up, regular, compiled: tokens_to_pay(warm_up, compiled, regular),
    lambda warm_up, regular, compiled: str(tokens_to_pay(warm_up, regular, compiled)),
), right=(
    _counted,
    lambda warm_up, regular, compiled: None if compiled >= regular else -int(-warm_up // (regular - compiled)),
    lambda warm_up, regular, compiled: np.ceil(warm_up / (regular - compiled)) if regular > compiled else None,
    lambda warm_up, regular, compiled: tokens_to_pay(warm_up=warm_up, regular=regular, compiled=compiled),
))

# ---- 7.3 -------------------------------------------------------------------------------------------------


_SMALL = Qwen3Config(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
                     num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=256)


def device_speeds(build: Callable[[str], Qwen3Model], token_ids: Tensor, new_tokens: int,
                  devices: Iterable[str]) -> dict[str, float]:
    speeds = {}
    for device in devices:
        model = build(device)
        prompt = token_ids.to(device)
        for _ in range(2):  # the first run is the warm-up, the second one overwrites it
            stats = generate_with_stats(model, prompt, new_tokens, cache=KVCache(model.config))
        speeds[device] = stats.decode_tokens_per_second
    return speeds


class _Prompt(Tensor):
    """Token ids that can be told from what `to` makes of them."""

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.as_subclass(Tensor)  # all devices of the check are the CPU, by other names


class _Clock:
    """A clock that goes on only when a model computes.

    Attributes:
        reads: how often it was read.
    """

    def __init__(self) -> None:
        self.now, self.reads = time.time(), 0

    def read(self) -> float:
        """Seconds, as of `time.perf_counter` and `time.time`."""
        self.reads += 1
        return self.now


@contextmanager
def _own_clock() -> Iterator[_Clock]:
    """The clock that `time` has as long as the body runs."""
    clock, kept = _Clock(), {name: getattr(time, name) for name in ("perf_counter", "time")}
    for name in kept:
        setattr(time, name, clock.read)
    try:
        yield clock
    finally:
        for name, original in kept.items():
            setattr(time, name, original)


_COMPILING, _PREFILL = 0.5, 4  # seconds for each new shape; steps that a prompt takes
_STEPS = {"cpu": 0.01, "cpu:0": 0.025}  # seconds of a step, for each name


class _JustInTime(Qwen3Model):
    """A model that takes long for each shape it has not seen, as a compiled one does, by a clock that it moves on."""

    def __init__(self, clock: _Clock, step: float) -> None:
        super().__init__(_SMALL)
        self.clock, self.step = clock, step
        self.shapes: set[tuple[int, ...]] = set()
        self.unmoved = self.cacheless = self.continued = False
        self.runs: list[int] = []  # the passes of each run, which begins with an empty cache
        self.prompt: list[int] = []  # of the last run

    def forward(self, token_ids: Tensor, cache: Cache | None = None, attention_mask: Tensor | None = None,
                last_only: bool = False) -> Tensor:
        self.unmoved |= isinstance(token_ids, _Prompt)
        self.cacheless |= cache is None
        token_ids = token_ids.as_subclass(Tensor)
        if cache is None or not cache.length:
            self.runs.append(0)
            self.prompt = token_ids[0].tolist()
        elif token_ids.shape[1] > 1:
            self.continued = True
        if self.runs:
            self.runs[-1] += 1
        known = tuple(token_ids.shape) in self.shapes
        self.clock.now += (self.step if known else _COMPILING) * (_PREFILL if token_ids.shape[1] > 1 else 1)
        self.shapes.add(tuple(token_ids.shape))
        return super().forward(token_ids, cache, attention_mask, last_only)


class _Builder:
    """Makes a model for each name of a device, and remembers the last one for each."""

    def __init__(self, clock: _Clock) -> None:
        self.clock = clock
        self.models: dict[str, _JustInTime] = {}

    def __call__(self, device: str) -> _JustInTime:
        name = str(device)
        self.models[name] = _JustInTime(self.clock, _STEPS[name]).eval()
        return self.models[name]


# Devices, length of the prompt, new tokens.
_MEASUREMENTS: tuple[tuple[tuple[str, ...], int, int], ...] = ((("cpu", "cpu:0"), 96, 8), (("cpu:0",), 12, 5))


def _verify_speeds(answer: Answer) -> str | None:
    for devices, length, new_tokens in _MEASUREMENTS:
        prompt = torch.arange(length).view(1, -1).as_subclass(_Prompt)
        with _own_clock() as clock:
            builder = _Builder(clock)
            returned = answer(builder, prompt, new_tokens, list(devices))
        models = builder.models
        asked = "a dictionary: for each device its tokens per second"
        speeds = {str(device): number(speed, asked) for device, speed in mapping(returned, asked).items()}
        if set(speeds) != set(devices):
            return gettext("For the devices {devices} it returns the speeds of {speeds}. Return {asked}.").format(
                devices=list(devices), speeds=sorted(speeds), asked=gettext(asked))
        if missing := [device for device in devices if device not in models]:
            return gettext("No model was made by build({missing!r}). It puts the weights where "
                           "they belong, on each device.").format(missing=missing[0])
        for device in devices:
            if hint := (_how_it_ran(models[device], device, length, new_tokens)
                        or (_judge_speed(speeds[device], device, length, new_tokens) if clock.reads else None)):
                return hint
    return None


def _how_it_ran(model: _JustInTime, device: str, length: int, new_tokens: int) -> str | None:
    """A hint if the passes of a model are not those of a measurement after a warm-up, with a cache."""
    if not model.runs:
        return gettext("The model that build({device!r}) made has not computed anything. Generate with it.").format(
            device=device)
    if model.unmoved:
        return ("The prompt was not moved to the model's device. On a GPU that is an error: "
                "use token_ids.to(device).")
    if model.cacheless:
        return ("It generates without a KV cache, so each step computes the whole text again: "
                "cache=KVCache(model.config).")
    if model.continued:
        return "A second run goes on in the cache of the first, as if its text went on. Make a new cache for each run."
    if len(model.runs) == 1:
        return "It has run once alone, and the first run is slow. Run once before you measure."
    if model.prompt != list(range(length)):
        return "It generates from another prompt than the one that it was given: use token_ids."
    if model.runs[-1] != new_tokens:
        return gettext("{new_tokens} new tokens are asked for, which take {new_tokens} passes with a cache, and the "
                       "last run had {runs}.").format(new_tokens=new_tokens, runs=model.runs[-1])
    return None


def _judge_speed(speed: float, device: str, length: int, new_tokens: int) -> str | None:
    step = _STEPS[device]
    run = (new_tokens - 1 + _PREFILL) * step
    first = _COMPILING * (1 + _PREFILL) + (new_tokens - 2) * step
    # With the time of the prompt, which is no warm-up, or without it.
    if any(math.isclose(speed, right, rel_tol=1e-3) for right in (1 / step, new_tokens / run)):
        return None
    # What one may have computed instead, the likeliest slip first.
    slips = (
        ((new_tokens / first, (new_tokens - 1) / (_COMPILING + (new_tokens - 2) * step),
          2 * new_tokens / (first + run)),
         "counts the first, slow run. Run once before you measure, and leave that run out."),
        ((step, run, run / new_tokens, first), "is in seconds. Divide the number of new tokens by them."),
        (((length + new_tokens) / run, length / run), "counts the prompt. Count the new tokens only."),
        ((1 / run,), "counts runs. Multiply by the number of new tokens."),
    )
    for values, hint in slips:
        if any(math.isclose(speed, value, rel_tol=1e-3) for value in values):
            return gettext("{speed:.4g} tokens per second {hint}").format(speed=speed, hint=hint)
    return gettext("{speed:.4g} tokens per second for {device!r}: by the clock of the check, which time.perf_counter "
                   "and generate_with_stats read, it is {new_tokens:.4g}, or {step:.4g} without the prompt. Divide the "
                   "number of new tokens by the seconds of the last run.").format(
        speed=speed, device=device, new_tokens=new_tokens / run, step=1 / step)


def _each_device(measure: Callable[[Qwen3Model, Tensor, int], float]) -> Answer:
    """An answer that measures each device so."""
    def answer(build: Callable[[str], Qwen3Model], token_ids: Tensor, new_tokens: int,
               devices: Iterable[str]) -> dict[str, float]:
        return {device: measure(build(device), token_ids.to(device), new_tokens) for device in devices}
    return answer


def _run(model: Qwen3Model, prompt: Tensor, new_tokens: int) -> GenerationStats:
    return generate_with_stats(model, prompt, new_tokens, cache=KVCache(model.config))


def _warmed_up(model: Qwen3Model, prompt: Tensor, new_tokens: int) -> GenerationStats:
    _run(model, prompt, new_tokens)
    return _run(model, prompt, new_tokens)


def _left_behind(build: Callable[[str], Qwen3Model], token_ids: Tensor, new_tokens: int,
                 devices: Iterable[str]) -> dict[str, float]:
    return {device: _warmed_up(build(device), token_ids, new_tokens).tokens_per_second for device in devices}


def _one_model_for_all(build: Callable[[str], Qwen3Model], token_ids: Tensor, new_tokens: int,
                       devices: Iterable[str]) -> dict[str, float]:
    devices = list(devices)
    model = build(devices[0])
    return {device: _warmed_up(model, token_ids.to(device), new_tokens).tokens_per_second for device in devices}


def _one_cache(model: Qwen3Model, prompt: Tensor, new_tokens: int) -> float:
    cache = KVCache(model.config)
    generate_with_stats(model, prompt, new_tokens, cache=cache)
    return generate_with_stats(model, prompt, new_tokens, cache=cache).tokens_per_second


def _without_a_cache(model: Qwen3Model, prompt: Tensor, new_tokens: int) -> float:
    for _ in range(2):
        stats = generate_with_stats(model, prompt, new_tokens)
    return stats.tokens_per_second


def _both_runs(model: Qwen3Model, prompt: Tensor, new_tokens: int) -> float:
    return 2 * new_tokens / sum(_run(model, prompt, new_tokens).seconds for _ in range(2))


def _the_first_of_two(model: Qwen3Model, prompt: Tensor, new_tokens: int) -> float:
    first = _run(model, prompt, new_tokens)
    _run(model, prompt, new_tokens)
    return first.tokens_per_second


def _prompt_counted(model: Qwen3Model, prompt: Tensor, new_tokens: int) -> float:
    return (prompt.shape[1] + new_tokens) / _warmed_up(model, prompt, new_tokens).seconds


def _with_timed(model: Qwen3Model, prompt: Tensor, new_tokens: int) -> float:
    generate_text_basic_cache(model, prompt, new_tokens)
    with timed(model.device) as watch:
        generate_text_basic_cache(model, prompt, new_tokens)
    return new_tokens / watch.seconds


def _by_the_median(model: Qwen3Model, prompt: Tensor, new_tokens: int) -> float:
    return new_tokens / median_seconds(lambda: generate_text_basic_cache(model, prompt, new_tokens), model.device,
                                       repeats=3).median


def _step_by_step(model: Qwen3Model, prompt: Tensor, new_tokens: int) -> float:
    for _ in range(2):
        began = time.time()
        for token in generate_tokens(model, prompt, new_tokens, cache=KVCache(model.config)):
            token.item()
    return new_tokens / (time.time() - began)


_perf_counter = time.perf_counter  # as a notebook has it that says `from time import perf_counter`


def _by_another_clock(model: Qwen3Model, prompt: Tensor, new_tokens: int) -> float:
    for _ in range(2):
        began = _perf_counter()
        generate_text_basic_cache(model, prompt, new_tokens)
    return new_tokens / (_perf_counter() - began)


_SPEEDS = Exercise("7.3", "Another device", device_speeds, _verify_speeds, (
    (_each_device(lambda model, prompt, new_tokens: _run(model, prompt, new_tokens).tokens_per_second), "once alone"),
    (_each_device(_the_first_of_two), "counts the first, slow run"),
    (_left_behind, "token_ids.to(device)"),
    (_one_model_for_all, "No model was made"),
    (_each_device(_without_a_cache), "without a KV cache"),
    (_each_device(_one_cache), "a new cache for each run"),
    (_each_device(lambda model, prompt, new_tokens: _warmed_up(model, prompt, new_tokens).seconds), "is in seconds"),
    (_each_device(_prompt_counted), "new tokens only"),
    (_each_device(lambda model, prompt, new_tokens: 1 / _warmed_up(model, prompt, new_tokens).seconds), "counts runs"),
    (_each_device(lambda model, prompt, new_tokens: _warmed_up(model, prompt, 4).tokens_per_second),
     "the last run had 4"),
    (_each_device(lambda model, prompt, new_tokens: 2 * _warmed_up(model, prompt, new_tokens).tokens_per_second),
     "by the clock"),
    (_each_device(lambda model, prompt, new_tokens: 100.0), "has not computed anything"),
    (_each_device(lambda model, prompt, new_tokens: _warmed_up(model, prompt + 1, new_tokens).tokens_per_second),
     "from another prompt"),
    (lambda build, token_ids, new_tokens, devices: list(device_speeds(build, token_ids, new_tokens, devices).values()),
     "a list of 2 entries"),
    (lambda build, token_ids, new_tokens, devices: device_speeds(build, token_ids, new_tokens, devices[:1]),
     "the speeds of"),
    (lambda build, token_ids, new_tokens, devices: print(end=""), "returned None"),
), also_wrong=(
    _each_device(_both_runs),
    _each_device(lambda model, prompt, new_tokens: _warmed_up(model, prompt, new_tokens).time_to_first_token),
    _each_device(lambda model, prompt, new_tokens: round(_warmed_up(model, prompt, new_tokens).tokens_per_second, -2)),
    lambda build, token_ids, new_tokens, devices: device_speeds(build, token_ids, 8, devices),
    lambda build, token_ids, new_tokens, devices: device_speeds(build, token_ids, new_tokens, ["cpu", "cpu:0"]),
    lambda build, token_ids, new_tokens, devices: device_speeds(lambda _: build("cpu"), token_ids, new_tokens, devices),
), right=(
    _each_device(_with_timed),
    _each_device(_by_the_median),
    _each_device(_step_by_step),
    _each_device(_by_another_clock),
    _each_device(lambda model, prompt, new_tokens: _warmed_up(model, prompt, new_tokens).tokens_per_second),
), equivalent={
    "`for _ in range(2):` to `for _ in range(3):`": "One more warm-up does no harm.",
})

EXERCISES: tuple[Exercise, ...] = (_GRAPHS, _PAY, _SPEEDS)
