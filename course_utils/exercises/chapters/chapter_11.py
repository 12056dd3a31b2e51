"""Exercises of chapter 11: tokens per second at best, the largest batch that is quick enough, a queue for slots."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from course_utils.config import Qwen3Config
from course_utils.exercises.exercise import Exercise

# ---- 11.1 ------------------------------------------------------------------------------------------------


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


# ---- 11.2 ------------------------------------------------------------------------------------------------


def largest_batch(time_step: Callable[[int], float], limit: float, most: int) -> int:
    best, batch = 0, 1
    while batch <= most:
        time_step(batch)  # the warm-up of this size
        # Other programs only make a step slower, so the least of several counts.
        if min(time_step(batch) for _ in range(3)) > limit:
            break
        best, batch = batch, 2 * batch
    return best


class _Steps:
    """Says how long a step takes, without taking the time: slow the first time, and now and then disturbed.

    Args:
        disturbed: which run of each size is the first to be disturbed, counted from 0; each fifth after it is, too.
    """

    SECONDS = {1: 0.004, 2: 0.005, 4: 0.007, 8: 0.036, 16: 0.070, 32: 0.140, 64: 0.280}

    def __init__(self, disturbed: int) -> None:
        self.disturbed = disturbed
        self.runs = dict.fromkeys(self.SECONDS, 0)
        self.other: object = None  # a size that is none of these

    def __call__(self, batch: int) -> float:
        if batch not in self.SECONDS:
            self.other = batch
            return 1.0
        run = self.runs[batch]
        self.runs[batch] += 1
        if run == 0:
            return 30 * self.SECONDS[batch]
        return (5 if (run - self.disturbed) % 5 == 0 else 1) * self.SECONDS[batch]


def _verify_largest(answer: Callable[..., Any]) -> str | None:
    for disturbed in (1, 2, 3, 4):
        steps = _Steps(disturbed)
        result = answer(steps, 0.040, 32)
        if steps.other is not None:
            return f"It runs a step for {steps.other!r} texts. Try 1, 2, 4, 8 and so on, each twice the one before."
        if isinstance(result, bool) or not isinstance(result, int):
            return f"It returns {result!r}. Return how many texts, a whole number."
        if not any(steps.runs.values()):
            return "It never calls time_step, so it measures nothing."
        if steps.runs[64]:
            return "It tries 64 texts although most is 32."
        if result != 8 and (hint := _why_not_eight(result, steps)):
            return hint
    for limit, most, expected, hint in (
        (0.040, 4, 4, "With most = 4, and all sizes within the limit, it is 4"),
        (0.040, 6, 4, "With most = 6 the largest power of two is 4"),
        (0.001, 32, 0, "Where even a single text takes longer than the limit, it is 0"),
        (0.020, 32, 4, "With a limit of 20 ms it is 4"),
    ):
        result = answer(_Steps(2), limit, most)
        if result != expected:
            return f"{hint}, and it returns {result}."
    return None


def _why_not_eight(result: int, steps: _Steps) -> str:
    if result == 16:
        return "It returns 16, the first size that is too slow. Return the last one that is not."
    if result == 32:
        return ("It returns the largest size of all. Compare the time of the whole step with the limit: each reader "
                "waits for all of it, not for a share.")
    if result == 0 or steps.runs[1] == 1:
        return "The first run of a size counts, and it is slow each time. Run once before you measure."
    if steps.runs.get(result, 9) <= 2:
        return (f"It returns {result} instead of 8: a single run was disturbed by another program. Run several times "
                "after the warm-up.")
    return (f"It returns {result} instead of 8. One disturbed run among several pulls an average up, but neither the "
            "median nor the least.")


def _doubling(quick: Callable[[int], bool], most: int) -> int:
    best, batch = 0, 1
    while batch <= most and quick(batch):
        best, batch = batch, 2 * batch
    return best


def _no_warm_up(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return _doubling(lambda batch: time_step(batch) <= limit, most)


def _once(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return _doubling(lambda batch: [time_step(batch) for _ in range(2)][1] <= limit, most)


def _average(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return _doubling(lambda batch: sum([time_step(batch) for _ in range(6)][1:]) / 5 <= limit, most)


def _too_slow_already(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return min(most, 2 * largest_batch(time_step, limit, most))


def _share_of_a_text(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return _doubling(lambda batch: min(time_step(batch) for _ in range(5)) / batch <= limit, most)


def _one_by_one_up(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return max(batch for batch in range(1, most + 1) if min(time_step(batch) for _ in range(5)) <= limit)


def _at_least_one(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return max(1, largest_batch(time_step, limit, most))


def _seconds_instead(time_step: Callable[[int], float], limit: float, most: int) -> float:
    return _Steps.SECONDS[largest_batch(time_step, limit, most)]


# ---- 11.3 ------------------------------------------------------------------------------------------------


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
    Exercise("11.2", "As many as one can bear", largest_batch, _verify_largest, (
        (_no_warm_up, "Run once before you measure"),
        (_once, "a single run was disturbed"),
        (_average, "pulls an average up"),
        (_too_slow_already, "the last one that is not"),
        (_share_of_a_text, "each reader"),
        (_one_by_one_up, "each twice the one before"),
        (_at_least_one, "it is 0"),
        (_seconds_instead, "how many texts"),
    )),
    Exercise("11.3", "First come, first served", finish_steps, _verify_finish, (
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
