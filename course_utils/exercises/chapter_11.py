"""Exercises of chapter 11, bottlenecks and batching."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from course_utils.config import Qwen3Config
from course_utils.exercises.exercise import Exercise


def best_tokens_per_second(config: Qwen3Config, num_weights: int, bandwidth: float, bytes_per_weight: float = 2,
                           context: int = 0) -> float:
    # Keys and values, in bfloat16 whatever the weights are.
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 2 * context
    return bandwidth / (num_weights * bytes_per_weight + cache)


def _verify_best(answer: Callable[..., Any]) -> str | None:
    config, weights = Qwen3Config(), 600_000_000
    result = answer(config, weights, 60e9)
    if not isinstance(result, (int, float)):
        return f"It returns {type(result).__name__}. Return a number: tokens per second."
    if math.isclose(result, 0.02):
        return "That is the seconds of one token. Turned round, it is tokens per second."
    if math.isclose(result, 100):
        return "That is one byte for each weight. In bfloat16 each has 2: use bytes_per_weight."
    if not math.isclose(result, 50):
        return ("600 million weights of 2 bytes are 1.2 GB; at 60 GB/s they are read 50 times a second, and it "
                f"returns {result:g}.")
    if not math.isclose(answer(config, weights, 60e9, 1), 100):
        return "With one byte for each weight (int8) it is twice as fast: use bytes_per_weight."
    # 10,000 tokens of 114,688 bytes: nearly as much as the weights.
    expected, result = 60e9 / (1.2e9 + 10_000 * 114_688), answer(config, weights, 60e9, 2, 10_000)
    if math.isclose(result, 50):
        return "A text of 10,000 tokens is as fast as an empty one. Each step also reads its cache: use context."
    if math.isclose(result, 60e9 / (1.2e9 + 10_000 * 114_688 / 2)):
        return "The cache is read by half only. Each token leaves a key and a value, of 2 bytes a number."
    if math.isclose(result, 60e9 / (1.2e9 + 10_000 * 114_688 * 2)):
        return "Too much cache. It has the key-value heads, which are fewer than those of the queries."
    if math.isclose(result, 60e9 / (1.2e9 + 10_000 * 114_688 / 28)):
        return "Too little cache. Each layer has its own."
    if not math.isclose(result, expected):
        return f"After 10,000 tokens the limit is {expected:.1f} tokens per second, and it returns {result:.1f}."
    if not math.isclose(answer(config, weights, 60e9, 0.5, 10_000), 60e9 / (0.3e9 + 10_000 * 114_688)):
        return "With other weights the cache stays in bfloat16: bytes_per_weight is not for the cache."
    return None


def _seconds(config: Qwen3Config, num_weights: int, bandwidth: float, bytes_per_weight: float = 2,
             context: int = 0) -> float:
    return num_weights * bytes_per_weight / bandwidth


def _elements(config: Qwen3Config, num_weights: int, bandwidth: float, bytes_per_weight: float = 2,
              context: int = 0) -> float:
    return bandwidth / num_weights


def _always_two(config: Qwen3Config, num_weights: int, bandwidth: float, bytes_per_weight: float = 2,
                context: int = 0) -> float:
    return bandwidth / (num_weights * 2)


def _no_cache(config: Qwen3Config, num_weights: int, bandwidth: float, bytes_per_weight: float = 2,
              context: int = 0) -> float:
    return bandwidth / (num_weights * bytes_per_weight)


def _keys_only(config: Qwen3Config, num_weights: int, bandwidth: float, bytes_per_weight: float = 2,
               context: int = 0) -> float:
    cache = config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 2 * context
    return bandwidth / (num_weights * bytes_per_weight + cache)


def _query_heads(config: Qwen3Config, num_weights: int, bandwidth: float, bytes_per_weight: float = 2,
                 context: int = 0) -> float:
    cache = 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * 2 * context
    return bandwidth / (num_weights * bytes_per_weight + cache)


def _cache_like_weights(config: Qwen3Config, num_weights: int, bandwidth: float, bytes_per_weight: float = 2,
                        context: int = 0) -> float:
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * context
    return bandwidth / (bytes_per_weight * (num_weights + cache))


def finish_steps(lengths: list[int], num_slots: int) -> list[int]:
    free_from = [0] * num_slots  # how many steps are over when each slot becomes free
    finished = []
    for length in lengths:
        slot = free_from.index(min(free_from))
        free_from[slot] += length
        finished.append(free_from[slot])
    return finished


_LENGTHS = [5, 1, 2, 4, 1, 3]
_HINTS = {  # what comes out, for two slots, of each way to get it wrong
    (5, 1, 7, 9, 10, 12): "That is the static batch, where the next two begin when both are done. Here a slot that "
                          "becomes free is taken at once.",
    (5, 1, 2, 4, 1, 3): "That is as if all began at the same time. There are only so many slots: the others wait.",
    (5, 6, 8, 12, 13, 16): "That is one after the other. There are two slots, in which two go on side by side.",
    (5, 1, 7, 5, 8, 8): "The slots are taken in turns, though another one is free earlier. Take the one that becomes "
                        "free first.",
    (5, 1, 4, 9, 7, 11): "Each slot is empty for a step before it is taken again. It is taken at once.",
    (9, 1, 3, 7, 1, 4): "The shortest are let in first. The rule is first come, first served: keep the order.",
}


def _verify_finish(answer: Callable[..., Any]) -> str | None:
    given = list(_LENGTHS)
    result = answer(given, 2)
    if given != _LENGTHS:
        return "The list of lengths that it was given is another one afterwards. Work on a list of your own."
    if not isinstance(result, (list, tuple)):
        return (f"It returns {type(result).__name__}. Return a list: for each request, after how many steps it is "
                "finished.")
    if tuple(result) in _HINTS:
        return _HINTS[tuple(result)]
    if list(result) != [5, 1, 3, 7, 6, 9]:
        return f"For lengths {_LENGTHS} and 2 slots it is 5, 1, 3, 7, 6, 9, and it returns {list(result)}."
    if list(answer([4, 4, 4], 8)) != [4, 4, 4]:
        return "With more slots than requests nobody waits: each is finished after its own length."
    if list(answer([], 3)) != []:
        return "Without requests the list is empty."
    return None


def _static(lengths: list[int], num_slots: int) -> list[int]:
    finished, over = [], 0
    for first in range(0, len(lengths), num_slots):
        group = lengths[first:first + num_slots]
        finished += [over + length for length in group]
        over += max(group)
    return finished


def _all_at_once(lengths: list[int], num_slots: int) -> list[int]:
    return list(lengths)


def _one_by_one(lengths: list[int], num_slots: int) -> list[int]:
    return finish_steps(lengths, 1)


def _in_turns(lengths: list[int], num_slots: int) -> list[int]:
    finished = [0] * len(lengths)
    for slot in range(num_slots):
        finished[slot::num_slots] = finish_steps(lengths[slot::num_slots], 1)
    return finished


def _one_idle(lengths: list[int], num_slots: int) -> list[int]:
    return [step - 1 for step in finish_steps([length + 1 for length in lengths], num_slots)]


def _shortest_first(lengths: list[int], num_slots: int) -> list[int]:
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    finished = dict(zip(order, finish_steps([lengths[number] for number in order], num_slots)))
    return [finished[number] for number in range(len(lengths))]


def _only_the_last(lengths: list[int], num_slots: int) -> int:
    return max(finish_steps(lengths, num_slots))


def _using_up(lengths: list[int], num_slots: int) -> list[int]:
    finished = finish_steps(lengths, num_slots)
    lengths.clear()
    return finished


EXERCISES: tuple[Exercise, ...] = (
    Exercise("11.1", "Tokens per second at best", best_tokens_per_second, _verify_best, (
        (_seconds, "Turned round"),
        (_elements, "In bfloat16 each has 2"),
        (_always_two, "With one byte"),
        (_no_cache, "also reads its cache"),
        (_keys_only, "a key and a value"),
        (_query_heads, "fewer than those of the queries"),
        (_cache_like_weights, "stays in bfloat16"),
    )),
    Exercise("11.2", "First come, first served", finish_steps, _verify_finish, (
        (_static, "the static batch"),
        (_all_at_once, "only so many slots"),
        (_one_by_one, "side by side"),
        (_in_turns, "taken in turns"),
        (_one_idle, "empty for a step"),
        (_shortest_first, "keep the order"),
        (_only_the_last, "Return a list"),
        (_using_up, "a list of your own"),
    )),
)
