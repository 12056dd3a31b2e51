"""Exercises of chapter 11: tokens per second at best, the largest batch that is quick enough, a queue for slots."""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from course_utils.config import Qwen3Config
from course_utils.exercises.answers import number, whole, wholes
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.language import gettext

# ---- 11.1 ------------------------------------------------------------------------------------------------


def best_tokens_per_second(config: Qwen3Config, num_weights: int, bandwidth: float, bytes_per_weight: float = 2,
                           context: int = 0) -> float:
    # Keys and values, in bfloat16 whatever the weights are.
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 2 * context
    return bandwidth / (num_weights * bytes_per_weight + cache)


_LARGE = Qwen3Config()
_SMALL = Qwen3Config(hidden_size=96, num_hidden_layers=5, num_attention_heads=12, num_key_value_heads=3, head_dim=48)
# Config, weights, bandwidth, and then bytes for each weight and tokens of context, as far as they are named.
_MACHINES: tuple[tuple[Any, ...], ...] = (
    (_LARGE, 600_000_000, 60e9), (_LARGE, 600_000_000, 60e9, 1), (_LARGE, 600_000_000, 60e9, 2, 10_000),
    (_LARGE, 600_000_000, 90e9, 0.5, 10_000), (_SMALL, 40_000_000, 7e9), (_SMALL, 40_000_000, 7e9, 4, 30_000),
    (_SMALL, 15_000_000, 7e9, 1, 5000), (_LARGE, 4_000_000_000, 1e12, 2, 1000),
)


def _of(number_of_bytes: Callable[[Qwen3Config, int, float, int], float]) -> Answer:
    """The bandwidth divided by the bytes of a token, however they are counted."""
    def answer(config: Qwen3Config, num_weights: int, bandwidth: float, bytes_per_weight: float = 2,
               context: int = 0) -> float:
        return bandwidth / number_of_bytes(config, num_weights, bytes_per_weight, context)
    return answer


def _cache(config: Qwen3Config, context: int) -> int:
    return 4 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * context


def _seconds(config: Qwen3Config, num_weights: int, bandwidth: float, bytes_per_weight: float = 2,
             context: int = 0) -> float:
    return 1 / best_tokens_per_second(config, num_weights, bandwidth, bytes_per_weight, context)


# What one may have computed instead, the likeliest slip first.
_BEST_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_seconds, "These are the seconds of one token. Turned round, it is tokens per second."),
    (_of(lambda config, weights, each, context: weights * each),
     "A text of 10,000 tokens is as fast as an empty one. Each step also reads its cache: use context."),
    (_of(lambda config, weights, each, context: weights),
     "That is one byte for each weight, and no cache. A weight has bytes_per_weight, 2 in bfloat16."),
    (_of(lambda config, weights, each, context: 2 * weights + _cache(config, context)),
     "With one byte for each weight (int8) there is less to read: use bytes_per_weight."),
    (_of(lambda config, weights, each, context: 2 * weights),
     "With one byte for each weight (int8) there is less to read, and with a context more: use both arguments."),
    (_of(lambda config, weights, each, context: weights * each + _cache(config, context) * each / 2),
     "With other weights the cache stays in bfloat16: bytes_per_weight is not for the cache."),
    (_of(lambda config, weights, each, context: weights * each + _cache(config, context) / 2),
     "The cache is read by half only. Each token leaves a key and a value, of 2 bytes a number."),
    (_of(lambda config, weights, each, context: weights * each + _cache(config, context)
         * config.num_attention_heads / config.num_key_value_heads),
     "Too much cache. It has the key-value heads, which are fewer than those of the queries."),
    (_of(lambda config, weights, each, context: weights * each + _cache(config, context)
         * (config.hidden_size // config.num_attention_heads) / config.head_dim),
     "Another size of a head. In Qwen3 it is not hidden_size divided by the heads: the config has head_dim."),
    (_of(lambda config, weights, each, context: weights * each + _cache(config, context) / config.num_hidden_layers),
     "Too little cache. Each layer has its own."),
    (_of(lambda config, weights, each, context: weights * each + 2 * _cache(config, context)),
     "Twice the cache. It is read once in each step; what is written is not counted."),
    (_of(lambda config, weights, each, context: (weights * each + _cache(config, context)) / 8),
     "It is eight times as fast as it can be: bandwidth and bytes_per_weight are both in bytes, not bits."),
)


def _verify_best(answer: Answer) -> str | None:
    told = [number(answer(*machine), "one number: tokens per second") for machine in _MACHINES]
    right = [best_tokens_per_second(*machine) for machine in _MACHINES]
    if _near(told, right):
        return None
    for slip, hint in _BEST_SLIPS:
        if _near(told, [slip(*machine) for machine in _MACHINES]):
            return hint
    at = next(at for at, speed in enumerate(told) if not _near([speed], [right[at]]))
    _, weights, bandwidth, *named = _MACHINES[at]
    each, context = named + [2, 0][len(named):]
    return gettext("For {weights:g} million weights of {each} bytes, a context of {context} and {bandwidth:g} GB/s it "
                   "returns {told:.4g}, and {right:.4g} is right: bytes per second, divided by the bytes of the "
                   "weights and of the cache.").format(
        weights=weights / 1e6, each=each, context=context, bandwidth=bandwidth / 1e9, told=told[at], right=right[at])


def _near(given: list[float], expected: list[float]) -> bool:
    """Agreement to a thousandth: whoever counts the new token's own key as well is not told that it is wrong."""
    return all(math.isclose(one, other, rel_tol=1e-3) for one, other in zip(given, expected))


def _by_seconds(config: Qwen3Config, num_weights: int, bandwidth: float, bytes_per_weight: float = 2,
                context: int = 0) -> float:
    numbers_of_a_token = sum(2 * config.num_key_value_heads * config.head_dim for _ in range(config.num_hidden_layers))
    return 1 / (num_weights * bytes_per_weight / bandwidth + numbers_of_a_token * 2 * context / bandwidth)


_SIGNATURE = "best_tokens_per_second(config, num_weights, bandwidth, bytes_per_weight=2, context"
_ONE_TOKEN = "A single token is less than a thousandth, which whoever counts the new token's own key is allowed."
_BEST = Exercise("11.1", "Tokens per second at best", best_tokens_per_second, _verify_best, (
    *((slip, hint[:50]) for slip, hint in _BEST_SLIPS),
    (lambda config, num_weights, bandwidth, bytes_per_weight=2, context=0: best_tokens_per_second(
        config, num_weights, bandwidth, bytes_per_weight, context + 1000), "a context of 0"),
    (lambda config, num_weights, bandwidth, bytes_per_weight=2, context=0: "50", "tokens per second"),
    (lambda config, num_weights, bandwidth, bytes_per_weight=2, context=0: print(end=""), "returned None"),
), also_wrong=(
    lambda config, num_weights, bandwidth, bytes_per_weight=2, context=0: best_tokens_per_second(
        _LARGE, num_weights, bandwidth, bytes_per_weight, context),
    lambda config, num_weights, bandwidth, bytes_per_weight=2, context=0: best_tokens_per_second(
        config, 600_000_000, bandwidth, bytes_per_weight, context),
    lambda config, num_weights, bandwidth, bytes_per_weight=2, context=0: best_tokens_per_second(
        config, num_weights, 60e9, bytes_per_weight, context),
    lambda config, num_weights, bandwidth, bytes_per_weight=1, context=0: best_tokens_per_second(
        config, num_weights, bandwidth, bytes_per_weight, context),
    lambda config, num_weights, bandwidth, bytes_per_weight=2, context=100: best_tokens_per_second(
        config, num_weights, bandwidth, bytes_per_weight, context),
    lambda config, num_weights, bandwidth, bytes_per_weight=2, context=0: round(best_tokens_per_second(
        config, num_weights, bandwidth, bytes_per_weight, context)),
), right=(
    _by_seconds,
    _of(lambda config, weights, each, context: weights * each + _cache(config, context + 2)),  # as moved_bytes counts
    _of(lambda config, weights, each, context: math.prod((weights, each)) + float(_cache(config, context))),
    lambda config, num_weights, bandwidth, bytes_per_weight=2, context=0: best_tokens_per_second(
        config=config, num_weights=num_weights, bandwidth=bandwidth, bytes_per_weight=bytes_per_weight,
        context=context),
), equivalent={
    f"`def {_SIGNATURE}=0):` to `def {_SIGNATURE}=1):`": _ONE_TOKEN,
    f"`def {_SIGNATURE}=0):` to `def {_SIGNATURE}=-1):`": _ONE_TOKEN,
})

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


# Seconds of a step for each size: numbers as they are measured, and numbers that are exact in binary.
_MEASURED = {1: 0.004, 2: 0.005, 4: 0.007, 8: 0.036, 16: 0.070, 32: 0.140, 64: 0.280}
_EXACT = {1: 1 / 64, 2: 1 / 32, 4: 1 / 16, 8: 1 / 8, 16: 1 / 4, 32: 1 / 2, 64: 1.0}


class _Steps:
    """Says how long a step takes, without taking the time: slow the first time, and now and then disturbed.

    Args:
        seconds: of a step, for each size.
        disturbed: which run of each size is the first to be disturbed, counted from 0; each fifth after it is, too.
    """

    def __init__(self, seconds: dict[int, float], disturbed: int) -> None:
        self.seconds, self.disturbed = seconds, disturbed
        self.runs = dict.fromkeys(seconds, 0)
        self.other: object = None  # a size that is none of these

    def __call__(self, batch: int) -> float:
        if batch not in self.seconds:
            self.other = self.other or batch
            return 1000.0
        run = self.runs[batch]
        self.runs[batch] += 1
        if run == 0:
            return 30 * self.seconds[batch]
        return (5 if (run - self.disturbed) % 5 == 0 else 1) * self.seconds[batch]


# Seconds, the first run that is disturbed, limit, most, and the right answer.
_LIMITS = (
    (_MEASURED, 1, 0.040, 32, 8), (_MEASURED, 2, 0.040, 32, 8), (_MEASURED, 3, 0.040, 32, 8),
    (_MEASURED, 4, 0.040, 32, 8), (_MEASURED, 2, 0.020, 32, 4), (_MEASURED, 2, 0.001, 32, 0),
    (_MEASURED, 3, 0.0075, 32, 4),
    (_MEASURED, 3, 0.040, 4, 4), (_MEASURED, 1, 0.040, 6, 4), (_EXACT, 2, 1 / 4, 64, 16), (_EXACT, 3, 1 / 64, 64, 1),
    (_EXACT, 2, 5.0, 64, 64), (_EXACT, 1, 0.2, 1, 1),
)


def _verify_largest(answer: Answer) -> str | None:
    told, measured = [], False
    for seconds, disturbed, limit, most, _ in _LIMITS:
        steps = _Steps(seconds, disturbed)
        result = whole(answer(steps, limit, most), "one whole number: how many texts")
        if beyond := [batch for batch, runs in steps.runs.items() if runs and batch > most]:
            return gettext("It tries {beyond} texts although most is {most}.").format(beyond=beyond[0], most=most)
        if steps.other is not None:
            return gettext("It runs a step for {other!r} texts. Try 1, 2, 4, 8 and so on, up to most.").format(
                other=steps.other)
        measured |= any(steps.runs.values())
        told.append(result)
    if not measured:
        return "It never calls time_step, so it measures nothing."
    right = [expected for *_, expected in _LIMITS]
    if told == right:
        return None
    for slip, hint in _BATCH_SLIPS:
        if told == _largest_batches(slip):
            return hint
    at = next(at for at, result in enumerate(told) if result != right[at])
    seconds, _, limit, most, expected = _LIMITS[at]
    steps_of = ", ".join(f"{batch}: {1000 * time:g}" for batch, time in seconds.items())
    return gettext("The undisturbed steps take, in ms, {steps_of}. With a limit of {limit:g} ms and most = {most} it "
                   "is {expected}, and it returns {told}.").format(
        steps_of=steps_of, limit=1000 * limit, most=most, expected=expected, told=told[at])


def _largest_batches(answer: Answer) -> list[int]:
    return [answer(_Steps(seconds, disturbed), limit, most) for seconds, disturbed, limit, most, _ in _LIMITS]


def _doubling(quick: Callable[[int], bool], most: int) -> int:
    best, batch = 0, 1
    while batch <= most and quick(batch):
        best, batch = batch, 2 * batch
    return best


def _quickest(time_step: Callable[[int], float], batch: int) -> float:
    return min(time_step(batch) for _ in range(5))


def _no_warm_up(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return _doubling(lambda batch: time_step(batch) <= limit, most)


def _once(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return _doubling(lambda batch: [time_step(batch) for _ in range(2)][1] <= limit, most)


def _average(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return _doubling(lambda batch: sum([time_step(batch) for _ in range(6)][1:]) / 5 <= limit, most)


def _average_with_the_first(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return _doubling(lambda batch: sum(time_step(batch) for _ in range(5)) / 5 <= limit, most)


def _slowest(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return _doubling(lambda batch: max([time_step(batch) for _ in range(6)][1:]) <= limit, most)


def _too_slow_already(time_step: Callable[[int], float], limit: float, most: int) -> int:
    best = largest_batch(time_step, limit, most)
    return 2 * best if 0 < 2 * best <= most else best or 1


def _share_of_a_text(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return _doubling(lambda batch: _quickest(time_step, batch) / batch <= limit, most)


def _by_another_clock(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return _doubling(lambda batch: time_step(batch) > 0, most)


def _quicker_than_the_limit(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return _doubling(lambda batch: _quickest(time_step, batch) < limit, most)


def _most_left_out(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return _doubling(lambda batch: _quickest(time_step, batch) <= limit, most - 1)


def _at_least_one(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return max(1, largest_batch(time_step, limit, most))


def _doublings(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return largest_batch(time_step, limit, most).bit_length()


def _one_by_one_up(time_step: Callable[[int], float], limit: float, most: int) -> int:
    return max((batch for batch in range(1, most + 1) if _quickest(time_step, batch) <= limit), default=0)


# What one may have found instead, the likeliest slip first.
_BATCH_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_no_warm_up, "The first run of a size counts, and it is slow each time. Run once before you measure."),
    (_by_another_clock, "It returns the largest size whatever the limit is. Compare the seconds that time_step returns "
                        "with the limit: here they are made up, and a clock of your own would not see them."),
    (_share_of_a_text, "It returns a size whose step is too slow. Compare the time of the whole step with the limit: "
                       "each reader waits for all of it, not for a share."),
    (_too_slow_already, "It returns the first size that is too slow. Return the last one that is not."),
    (_once, "A single run can be disturbed by another program. Run several times after the warm-up."),
    (_average, "One disturbed run among several pulls an average up, but neither the median nor the least."),
    (_average_with_the_first, "The first run, which is slow each time, counts in the average. Run once before you "
                              "measure, and take the least, which a disturbed run does not change."),
    (_slowest, "The slowest run counts, and that is a disturbed one. Other programs make a step slower, never faster."),
    (_quicker_than_the_limit, "A step that takes just as long as the limit keeps to it: nobody waits longer."),
    (_most_left_out, "The size most itself may run, too, if it is 1, 2, 4, 8 and so on."),
    (_at_least_one, "Where even a single text takes longer than the limit, it is 0."),
    (_doublings, "That is how many sizes keep to the limit. Return the largest of them."),
)


def _by_median(time_step: Callable[[int], float], limit: float, most: int) -> int:
    quick = 0
    for power in range(most.bit_length()):
        time_step(2 ** power)
        if statistics.median(time_step(2 ** power) for _ in range(5)) > limit:
            return quick
        quick = 2 ** power
    return quick


def _by_recursion(time_step: Callable[[int], float], limit: float, most: int, batch: int = 1) -> int:
    if batch > most or sorted([time_step(batch) for _ in range(4)])[0] > limit:
        return batch // 2
    return _by_recursion(time_step, limit, most, 2 * batch)


def _all_sizes(time_step: Callable[[int], float], limit: float, most: int) -> Any:
    sizes = 2 ** np.arange(most.bit_length())
    quick = [np.sort([time_step(int(size)) for _ in range(7)])[1] <= limit for size in sizes]
    return sizes[: quick.index(False) if False in quick else None].max(initial=0)


_LARGEST = Exercise("11.2", "As many as one can bear", largest_batch, _verify_largest, (
    *((slip, hint[:40]) for slip, hint in _BATCH_SLIPS),
    (_one_by_one_up, "It runs a step for 3 texts"),
    (lambda time_step, limit, most: _by_another_clock(time_step, limit, 2 * most), "although most is"),
    (lambda time_step, limit, most: 8, "never calls time_step"),
    (lambda time_step, limit, most: largest_batch(time_step, 3 * limit, most), "The undisturbed steps take"),
    (lambda time_step, limit, most: min(time_step(1) for _ in range(5)), "how many texts"),
    (lambda time_step, limit, most: print(end=""), "returned None"),
), also_wrong=(
    lambda time_step, limit, most: largest_batch(time_step, limit, most) * 2,
    lambda time_step, limit, most: largest_batch(time_step, 0.04, most),
    lambda time_step, limit, most: largest_batch(time_step, limit / 2, most),
    lambda time_step, limit, most: largest_batch(time_step, limit, min(most, 32)),
    lambda time_step, limit, most: largest_batch(time_step, limit, min(most, 8)),
    lambda time_step, limit, most: largest_batch(time_step, 1000 * limit, most),
    lambda time_step, limit, most: min(most, largest_batch(time_step, limit, most) + 1),
), right=(
    _by_median,
    _by_recursion,
    _all_sizes,
    lambda time_step, limit, most: largest_batch(time_step=time_step, limit=limit, most=most),
), equivalent={
    "`time_step(batch)` to nothing": "The least of three runs is never that of the first run, which is slow.",
    "`if min((time_step(batch) for _ in range(3))) > limit:` to "
    "`if min((time_step(batch) for _ in range(4))) > limit:`": "One more run changes nothing.",
    "`if min((time_step(batch) for _ in range(3))) > limit:` to "
    "`if min((time_step(batch) for _ in range(2))) > limit:`":
        "Of two runs after the warm-up one at most is disturbed here.",
})

# ---- 11.3 ------------------------------------------------------------------------------------------------


def finish_steps(lengths: list[int], num_slots: int) -> list[int]:
    free_from = [0] * num_slots  # how many steps are over when each slot becomes free
    finished = []
    for length in lengths:
        slot = free_from.index(min(free_from))
        free_from[slot] += length
        finished.append(free_from[slot])
    return finished


_QUEUES: tuple[tuple[list[int], int], ...] = (
    ([5, 1, 2, 4, 1, 3], 2), ([3, 1, 2], 2), ([4, 4, 4], 8), ([], 3), ([7], 1), ([2, 2, 2, 2, 2], 3),
    ([6, 2, 9, 1, 1, 1, 4, 3], 3), ([2, 5, 1], 1), ([10, 1, 1, 1, 1, 1], 2),
)


def _static(lengths: list[int], num_slots: int) -> list[int]:
    finished, over = [], 0
    for first in range(0, len(lengths), num_slots):
        group = lengths[first:first + num_slots]
        finished += [over + length for length in group]
        over += max(group)
    return finished


def _one_by_one(lengths: list[int], num_slots: int) -> list[int]:
    return finish_steps(lengths, 1)


def _in_turns(lengths: list[int], num_slots: int) -> list[int]:
    finished = [0] * len(lengths)
    for slot in range(num_slots):
        finished[slot::num_slots] = finish_steps(lengths[slot::num_slots], 1)
    return finished


def _one_idle(lengths: list[int], num_slots: int) -> list[int]:
    return [step - 1 for step in finish_steps([length + 1 for length in lengths], num_slots)]


def _in_order(lengths: list[int], num_slots: int, longest: bool = False) -> list[int]:
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=longest)
    finished = dict(zip(order, finish_steps([lengths[number] for number in order], num_slots)))
    return [finished[number] for number in range(len(lengths))]


def _longest_first(lengths: list[int], num_slots: int) -> list[int]:
    return _in_order(lengths, num_slots, longest=True)


def _begins(lengths: list[int], num_slots: int) -> list[int]:
    return [end - length for end, length in zip(finish_steps(lengths, num_slots), lengths)]


def _slot_that_is_free_last(lengths: list[int], num_slots: int) -> list[int]:
    free_from, finished = [0] * num_slots, []
    for length in lengths:
        slot = free_from.index(0) if 0 in free_from else free_from.index(max(free_from))
        free_from[slot] += length
        finished.append(free_from[slot])
    return finished


def _two_slots(lengths: list[int], num_slots: int) -> list[int]:
    return finish_steps(lengths, 2)


def _in_order_of_their_ends(lengths: list[int], num_slots: int) -> list[int]:
    return sorted(finish_steps(lengths, num_slots))


def _of_the_slots(lengths: list[int], num_slots: int) -> list[int]:
    free_from = [0] * num_slots
    for length in lengths:
        free_from[free_from.index(min(free_from))] += length
    return free_from


# What one may have computed instead, the likeliest slip first.
_QUEUE_SLIPS: tuple[tuple[Answer, str], ...] = (
    (lambda lengths, num_slots: lengths, "That is as if all began at the same time. There are only so many slots: the "
                                         "others wait."),
    (_static, "That is the static batch, where the next ones begin when all of a group are done. Here a slot that "
              "becomes free is taken at once."),
    (_begins, "These are the steps at which the requests begin. After how many steps is each finished?"),
    (_one_by_one, "That is one after the other. There are several slots, in which requests go on side by side."),
    (_two_slots, "You always count with two slots: use the argument num_slots."),
    (_in_turns, "The slots are taken in turns, though another one is free earlier. Take the one that becomes free "
                "first."),
    (_slot_that_is_free_last, "A request waits for the slot that becomes free last. Take the smallest number: min, not "
                              "max."),
    (_one_idle, "Each slot is empty for a step before it is taken again. It is taken at once."),
    (_in_order, "The shortest are let in first. The rule is first come, first served: keep the order."),
    (_longest_first, "The longest are let in first. The rule is first come, first served: keep the order."),
    (_in_order_of_their_ends, "The numbers are right, but not their order: the first one belongs to the first request "
                              "of the list."),
    (_of_the_slots, "That is when each slot becomes free at the end. Note the number for each request, as it is given "
                    "its slot."),
)


def _verify_finish(answer: Answer) -> str | None:
    told = []
    for lengths, num_slots in _QUEUES:
        given = list(lengths)
        told.append(wholes(answer(given, num_slots), "a list: for each request, after how many steps it is finished"))
        if given != lengths:
            return "The list of lengths that it was given is another one afterwards. Work on a list of your own."
    right = [finish_steps(*queue) for queue in _QUEUES]
    if told == right:
        return None
    for slip, hint in _QUEUE_SLIPS:
        if told == [slip(*queue) for queue in _QUEUES]:
            return hint
    at = next(at for at, finished in enumerate(told) if finished != right[at])
    lengths, num_slots = _QUEUES[at]
    return gettext("For lengths {lengths} and {slots} it is {right}, and it returns {told}. Write down when each slot "
                   "becomes free, and who takes it then.").format(
        lengths=lengths, right=right[at], told=told[at],
        slots=gettext("1 slot") if num_slots == 1 else gettext("{count} slots").format(count=num_slots))


def _step_by_step(lengths: list[int], num_slots: int) -> list[int]:
    finished, waiting, step = [0] * len(lengths), list(range(len(lengths))), 0
    running: dict[int, int] = {}
    while running or waiting:
        while waiting and len(running) < num_slots:
            number = waiting.pop(0)
            running[number] = lengths[number]
        step += 1
        for number in list(running):
            running[number] -= 1
            if not running[number]:
                finished[number] = step
                del running[number]
    return finished


def _with_a_heap(lengths: list[int], num_slots: int) -> tuple[int, ...]:
    free_from, finished = [0] * num_slots, []
    for length in lengths:
        finished.append(heapq.heappop(free_from) + length)
        heapq.heappush(free_from, finished[-1])
    return tuple(finished)


def _with_numpy(lengths: list[int], num_slots: int) -> Any:
    free_from, finished = np.zeros(num_slots), np.zeros(len(lengths))
    for place, length in enumerate(lengths):
        slot = free_from.argmin()
        finished[place] = free_from[slot] = free_from[slot] + length
    return finished


def _using_up(lengths: list[int], num_slots: int) -> list[int]:
    finished = finish_steps(lengths, num_slots)
    lengths.clear()
    return finished


_QUEUE = Exercise("11.3", "First come, first served", finish_steps, _verify_finish, (
    *((slip, hint[:45]) for slip, hint in _QUEUE_SLIPS),
    (_using_up, "a list of your own"),
    (lambda lengths, num_slots: max(finish_steps(lengths, num_slots), default=0), "Return a list"),
    (lambda lengths, num_slots: finish_steps(lengths, num_slots + 1), "For lengths"),
    (lambda lengths, num_slots: print(end=""), "returned None"),
), also_wrong=(
    lambda lengths, num_slots: finish_steps([3, 1, 2], num_slots),
    lambda lengths, num_slots: finish_steps(lengths, num_slots)[::-1],
    lambda lengths, num_slots: [step + 1 for step in finish_steps(lengths, num_slots)],
    lambda lengths, num_slots: finish_steps(lengths, max(num_slots, 2)),
    lambda lengths, num_slots: finish_steps(lengths[:6], num_slots),
    lambda lengths, num_slots: set(finish_steps(lengths, num_slots)),
), right=(
    _step_by_step,
    _with_a_heap,
    _with_numpy,
    lambda lengths, num_slots: finish_steps(lengths=lengths, num_slots=num_slots),
))

EXERCISES: tuple[Exercise, ...] = (_BEST, _LARGEST, _QUEUE)
