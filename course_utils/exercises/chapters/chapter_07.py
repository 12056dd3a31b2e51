"""Exercises of chapter 7, compilation: how often, when it pays, four bits in groups, and another device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from course_utils.config import Qwen3Config
from course_utils.exercises.exercise import Exercise
from course_utils.generation import generate_text_basic_cache, generate_with_stats
from course_utils.kv_cache import Cache, KVCache
from course_utils.quantization import Int4Linear
from course_utils.qwen3 import Qwen3Model
from course_utils.timing import timed

# ---- 7.1 -------------------------------------------------------------------------------------------------


def graphs_needed(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    different = len(set(lengths))
    if dynamic is None:  # one for the first length alone, one for any other
        return min(different, 2)
    # One for each length, until the compiler gives up; or one for all.
    return min(different, 1 if dynamic else 8)


def _verify_graphs(answer: Callable[..., Any]) -> str | None:
    result = answer([4, 4, 4])
    if not isinstance(result, int):
        return f"It returns {type(result).__name__}. Return a whole number: how many graphs."
    if result == 3:
        return "For three calls of one length it returns 3. The guards hold, so the first program serves all three."
    if result != 1:
        return f"Three calls of the same length need one graph, and it returns {result}."
    if answer([4, 5, 6, 7], dynamic=False) == 2:
        return "With dynamic=False it is as without it. Then no program is ever made for any length: use the argument."
    if answer([4, 5, 4, 5, 4], dynamic=False) > 2:
        return ("With dynamic=False the lengths 4 5 4 5 4 need two graphs. A program is kept: when 4 comes back, its "
                "own still serves. Count different lengths, not changes.")
    if answer([4, 5, 6, 7]) == 4:
        return ("For four different lengths it returns 4. At the second one the compiler notices that the length "
                "varies, and makes a program for any.")
    if answer([4, 5, 6, 7], dynamic=True) == 2:
        return "With dynamic=True the very first program is for any length: at the next one nothing is left to compile."
    if answer(list(range(10, 30)), dynamic=False) == 20:
        return ("Twenty lengths with dynamic=False do not make twenty graphs. Read again what torch.compile does with "
                "a function that is compiled again and again.")
    for lengths in ([], [9], [4, 4], [7, 3], [3, 8, 8, 3, 5, 9], [6, 6, 3], list(range(3, 11)), list(range(3, 40))):
        for dynamic in (None, False, True):
            result, expected = answer(lengths, dynamic=dynamic), graphs_needed(lengths, dynamic)
            if result != expected and not lengths:
                return f"Without any call nothing is compiled: 0 graphs, and it returns {result}."
            if result != expected:
                return f"For the lengths {lengths} and dynamic={dynamic} it is {expected}, and it returns {result}."
    return None


def _one_each_call(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    return len(lengths)


def _always_automatic(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    return graphs_needed(lengths)


def _one_each_length(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    return graphs_needed(lengths, dynamic=bool(dynamic))


def _one_each_change(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    changes = sum(before != after for before, after in zip(lengths, lengths[1:]))
    return min(changes + 1, 8) if dynamic is False else graphs_needed(lengths, dynamic)


def _first_one_fixed(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    return graphs_needed(lengths, dynamic and None)


def _never_gives_up(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    return len(set(lengths)) if dynamic is False else graphs_needed(lengths, dynamic)


def _one_for_nothing(lengths: Sequence[int], dynamic: bool | None = None) -> int:
    return max(1, graphs_needed(lengths, dynamic))


# ---- 7.2 -------------------------------------------------------------------------------------------------


def tokens_to_pay(warm_up: float, regular: float, compiled: float) -> int | None:
    saved = regular - compiled  # by each token
    if saved <= 0:
        return None
    return math.ceil(warm_up / saved)


def _verify_pay(answer: Callable[..., Any]) -> str | None:
    try:
        even, slower = answer(3.0, 0.5, 0.5), answer(3.0, 0.5, 0.75)
    except ZeroDivisionError:
        return "Where compiled is as slow as regular nothing is saved, and it divides by 0. Return None there."
    # Numbers that are exact in binary, so that no rounding decides.
    result = answer(3.0, 0.75, 0.5)
    if result is None:
        return "Each token saves a quarter of a second here, so 3 seconds do pay some time, and it returns None."
    if result in (4, 6):
        return ("The warm-up was divided by the time of a token. What pays for it is what a token saves: the "
                "difference of the two times.")
    if result == 13:
        return ("It returns 13 where exactly 12 tokens save what the warm-up took. math.ceil rounds up, and leaves a "
                "whole number as it is.")
    if result != 12:
        return f"3 seconds of warm-up, and each token saves 0.25: that is 12 tokens, and it returns {result!r}."
    result = answer(1.0, 0.5, 0.125)
    if result == 2:
        return "After 2 tokens 0.75 seconds are saved, and the warm-up took 1. Round up, not down."
    if not isinstance(result, int):
        return f"It returns {result!r}. There are no parts of tokens: return a whole number, rounded up."
    if result != 3:
        return f"1 second of warm-up, and each token saves 0.375: that is 3 tokens, and it returns {result}."
    if slower is not None:
        return (f"Where compiled is slower than regular it returns {slower}. It never pays, however many tokens: "
                "return None.")
    if even is not None:
        return f"Where compiled is as slow as regular it returns {even}. Nothing is saved, so it never pays: None."
    return None if answer(0.0, 0.5, 0.25) == 0 else "Without a warm-up it has paid from the start: 0 tokens."


def _by_regular(warm_up: float, regular: float, compiled: float) -> int | None:
    return math.ceil(warm_up / regular) if regular > compiled else None


def _rounded_down(warm_up: float, regular: float, compiled: float) -> int | None:
    return int(warm_up / (regular - compiled)) if regular > compiled else None


def _not_rounded(warm_up: float, regular: float, compiled: float) -> float | None:
    return warm_up / (regular - compiled) if regular > compiled else None


def _never_asked(warm_up: float, regular: float, compiled: float) -> int:
    return math.ceil(warm_up / (regular - compiled))


def _negative(warm_up: float, regular: float, compiled: float) -> int | None:
    return math.ceil(warm_up / (regular - compiled)) if regular != compiled else None


def _one_more(warm_up: float, regular: float, compiled: float) -> int | None:
    return int(warm_up / (regular - compiled)) + 1 if regular > compiled else None


# ---- 7.3 -------------------------------------------------------------------------------------------------


def quantize_groups(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    groups = weight.view(weight.shape[0], -1, group_size)
    offsets, largest = groups.aminmax(dim=-1)
    # A group whose weights are all equal has no distance to divide by.
    scales = ((largest - offsets) / 15).clamp(min=1e-8)
    integers = ((groups - offsets[..., None]) / scales[..., None]).round().to(torch.uint8)
    return integers.view_as(weight), scales, offsets


def _verify_groups(answer: Callable[..., Any]) -> str | None:
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(64, 96, generator=generator)
    weight[2, 40] = 30.0
    weight[4, 32:64] = 0.0
    result = answer(weight.clone(), 32)
    if not isinstance(result, tuple) or [isinstance(part, Tensor) for part in result] != [True, True, True]:
        return "Return three tensors: the small integers, the scales and the offsets."
    integers, scales, offsets = result
    if integers.dtype != torch.uint8:
        return f"The integers are stored as {integers.dtype}. Round them, then use .to(torch.uint8)."
    if integers.shape != weight.shape:
        return (f"The integers have shape {tuple(integers.shape)}; they need that of the weight, "
                f"{tuple(weight.shape)}.")
    if scales.shape != (64, 3) or offsets.shape != (64, 3):
        return (f"Scales and offsets have the shapes {tuple(scales.shape)} and {tuple(offsets.shape)}. A row of 96 has "
                "3 groups of 32, each with a scale and an offset of its own: (64, 3).")
    groups = weight.view(64, 3, 32)
    smallest, largest = groups.aminmax(dim=-1)
    if not torch.allclose(offsets, smallest):
        return "The offset of a group is its smallest weight: that one becomes the integer 0."
    varied = largest > smallest
    if not (torch.isfinite(scales).all() and (scales > 0).all() and (integers.view(64, 3, 32)[~varied] == 0).all()):
        return ("In a group whose weights are all equal the integers are 0 and the offset says the rest: "
                "keep its scale above 0, for example with .clamp(min=1e-8).")
    if not torch.allclose(scales[varied], (largest - smallest)[varied] / 15, rtol=1e-3):
        return ("The scale of a group is the distance from its smallest to its largest weight, divided by 15: "
                "that one becomes 15, the most that four bits hold.")
    restored = integers.view(64, 3, 32) * scales[..., None] + offsets[..., None]
    if ((restored - groups).abs() > 0.501 * scales[..., None]).any():
        return ("Some numbers are off by more than half a step. "
                "Round to the nearest integer before .to(torch.uint8) cuts.")
    theirs = Int4Linear(weight).rows(torch.arange(64))
    if not torch.allclose(restored.view_as(theirs), theirs, atol=1e-5):
        return "The result differs from that of the package's Int4Linear: compare with its source."
    return None


def _scale_per_row(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    return quantize_groups(weight, weight.shape[1])


def _cut_off(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    _, scales, offsets = quantize_groups(weight, group_size)
    groups = weight.view(weight.shape[0], -1, group_size)
    integers = ((groups - offsets[..., None]) / scales[..., None]).to(torch.uint8)
    return integers.view_as(weight), scales, offsets


def _around_zero(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    groups = weight.view(weight.shape[0], -1, group_size)
    scales = (groups.abs().amax(dim=-1) / 7).clamp(min=1e-8)
    integers = ((groups / scales[..., None]).round() + 7).to(torch.uint8)
    return integers.view_as(weight), scales, -7 * scales


def _sixteen_steps(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    _, scales, offsets = quantize_groups(weight, group_size)
    scales = (scales * 15 / 16).clamp(min=1e-8)
    groups = weight.view(weight.shape[0], -1, group_size)
    integers = ((groups - offsets[..., None]) / scales[..., None]).round().clamp(max=15).to(torch.uint8)
    return integers.view_as(weight), scales, offsets


def _zero_scale(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    groups = weight.view(weight.shape[0], -1, group_size)
    offsets, largest = groups.aminmax(dim=-1)
    scales = (largest - offsets) / 15
    integers = ((groups - offsets[..., None]) / scales[..., None]).round().to(torch.uint8)
    return integers.view_as(weight), scales, offsets


def _still_floating(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    integers, scales, offsets = quantize_groups(weight, group_size)
    return integers.float(), scales, offsets


# ---- 7.4 -------------------------------------------------------------------------------------------------


_SMALL = Qwen3Config(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
                     num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=128)


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
        return self.as_subclass(Tensor).to(*args, **kwargs)


class _JustInTime(Qwen3Model):
    """A model that takes long for each shape it has not seen, as a compiled one does."""

    COMPILING, STEP = 0.5, 0.01  # seconds

    def __init__(self) -> None:
        super().__init__(_SMALL)
        self.shapes: set[tuple[int, ...]] = set()
        self.unmoved = False

    def forward(self, token_ids: Tensor, cache: Cache | None = None, attention_mask: Tensor | None = None,
                last_only: bool = False) -> Tensor:
        self.unmoved |= isinstance(token_ids, _Prompt)
        token_ids = token_ids.as_subclass(Tensor)
        time.sleep(self.STEP if tuple(token_ids.shape) in self.shapes else self.COMPILING)
        self.shapes.add(tuple(token_ids.shape))
        return super().forward(token_ids, cache, attention_mask, last_only)


def _verify_speeds(answer: Callable[..., Any]) -> str | None:
    models: dict[str, _JustInTime] = {}

    def build(device: str) -> _JustInTime:
        return models.setdefault(str(device), _JustInTime().eval())

    prompt, new_tokens = torch.arange(96).view(1, 96).as_subclass(_Prompt), 8
    result = answer(build, prompt, new_tokens, ["cpu"])
    if not isinstance(result, dict) or set(map(str, result)) != {"cpu"}:
        return f"For the devices ['cpu'] it returns {result!r}. Return a dictionary: one speed per device."
    if "cpu" not in models:
        return "The model was not made by build(device). It puts the weights where they belong."
    if models["cpu"].unmoved:
        return ("The prompt was not moved to the model's device. On a GPU that is an error: "
                "use token_ids.to(device).")
    speed, fastest = float(result["cpu"]), 1 / _JustInTime.STEP
    if speed > 1.1 * fastest:
        return (f"{speed:.0f} tokens per second is more than this model can do, {fastest:.0f}. "
                "Count the new tokens only, and read the clock when all of them are there.")
    if speed < 1:
        return f"{speed:.3g} looks like seconds. Divide the number of new tokens by them."
    if speed < new_tokens / _JustInTime.COMPILING:
        return f"{speed:.1f} tokens per second counts the first, slow run. Run once before you measure."
    return None


def _without_warm_up(build: Callable[[str], Qwen3Model], token_ids: Tensor, new_tokens: int,
                     devices: Iterable[str]) -> dict[str, float]:
    speeds = {}
    for device in devices:
        model = build(device)
        stats = generate_with_stats(model, token_ids.to(device), new_tokens, cache=KVCache(model.config))
        speeds[device] = stats.tokens_per_second
    return speeds


def _left_behind(build: Callable[[str], Qwen3Model], token_ids: Tensor, new_tokens: int,
                 devices: Iterable[str]) -> dict[str, float]:
    speeds = {}
    for device in devices:
        model = build(device)
        for _ in range(2):
            stats = generate_with_stats(model, token_ids, new_tokens, cache=KVCache(model.config))
        speeds[device] = stats.tokens_per_second
    return speeds


def _seconds_each(build: Callable[[str], Qwen3Model], token_ids: Tensor, new_tokens: int,
                  devices: Iterable[str]) -> dict[str, float]:
    speeds = device_speeds(build, token_ids, new_tokens, devices)
    return {device: 1 / speed for device, speed in speeds.items()}


def _prompt_counted(build: Callable[[str], Qwen3Model], token_ids: Tensor, new_tokens: int,
                    devices: Iterable[str]) -> dict[str, float]:
    speeds = {}
    for device in devices:
        model, prompt = build(device), token_ids.to(device)
        generate_text_basic_cache(model, prompt, new_tokens)
        with timed(torch.device(device)) as watch:
            generate_text_basic_cache(model, prompt, new_tokens)
        speeds[device] = (prompt.shape[1] + new_tokens) / watch.seconds
    return speeds


EXERCISES: tuple[Exercise, ...] = (
    Exercise("7.1", "How often is it compiled", graphs_needed, _verify_graphs, (
        (_one_each_call, "The guards hold"),
        (_always_automatic, "use the argument"),
        (_one_each_length, "notices that the length varies"),
        (_one_each_change, "not changes"),
        (_first_one_fixed, "the very first program"),
        (_never_gives_up, "compiled again and again"),
        (_one_for_nothing, "Without any call"),
    )),
    Exercise("7.2", "When does compiling pay", tokens_to_pay, _verify_pay, (
        (_by_regular, "the difference of the two times"),
        (_one_more, "exactly 12"),
        (_rounded_down, "Round up, not down"),
        (_not_rounded, "no parts of tokens"),
        (_never_asked, "divides by 0"),
        (_negative, "slower than regular"),
    )),
    Exercise("7.3", "Four bits in groups", quantize_groups, _verify_groups, (
        (_scale_per_row, "a scale and an offset of its own"),
        (_cut_off, "half a step"),
        (_around_zero, "smallest weight"),
        (_sixteen_steps, "divided by 15"),
        (_zero_scale, "all equal"),
        (_still_floating, "torch.uint8"),
    )),
    Exercise("7.4", "Another device", device_speeds, _verify_speeds, (
        (_without_warm_up, "first, slow run"),
        (_left_behind, "token_ids.to(device)"),
        (_seconds_each, "looks like seconds"),
        (_prompt_counted, "new tokens only"),
    )),
)
