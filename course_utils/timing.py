"""Measuring time honestly, and printing what differs from machine to machine.

A GPU works through a queue, so the clock is read only after the device has finished; the first run, which also pays
for set-up, is not counted; and of several runs the median is given, which one slow run does not spoil.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from course_utils.device import synchronize
from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.number import require_whole_number

MARKER = "⏱"


@dataclass
class Stopwatch:
    """What `timed` hands out: the seconds its block took, 0.0 until the block has ended."""

    seconds: float = 0.0


@contextmanager
def timed(device: torch.device) -> Iterator[Stopwatch]:
    """Measure a `with` block, the device's work included: `with timed(device) as watch: ...`, then `watch.seconds`."""
    watch = Stopwatch()
    synchronize(device)  # what was asked for before must not count
    start = time.perf_counter()
    yield watch
    synchronize(device)
    watch.seconds = time.perf_counter() - start


@dataclass(frozen=True)
class Timing:
    """How long several runs of the same thing took, in seconds."""

    median: float
    low: float
    high: float
    runs: int

    def __str__(self) -> str:
        return gettext("{median} (median of {runs}, {low} to {high})").format(
            median=format_seconds(self.median), runs=self.runs, low=format_seconds(self.low),
            high=format_seconds(self.high))


def median_seconds(fn: Callable[[], object], device: torch.device, repeats: int = 5, warmup: int = 1) -> Timing:
    """Call a function several times and time each call.

    Args:
        fn: what to measure; its result is dropped.
        device: where it computes.
        repeats: number of calls that count, at least 1.
        warmup: number of calls before these that do not.

    Raises:
        InputError: if there is nothing to measure.
    """
    repeats, warmup = require_whole_number("repeats", repeats, 1), require_whole_number("warmup", warmup)
    for _ in range(warmup):
        fn()
    seconds = []
    for _ in range(repeats):
        with timed(device) as watch:
            fn()
        seconds.append(watch.seconds)
    return Timing(statistics.median(seconds), min(seconds), max(seconds), repeats)


def format_seconds(seconds: float) -> str:
    """Seconds in the unit that suits them: "1.25 s", "12.5 ms", "830 µs"."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"


def format_bytes(count: float) -> str:
    """Bytes in the unit that suits them, in steps of 1000 as on a disk's label: "1.2 GB", "310 MB", "42 kB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


def show(label: str, value: object, unit: str = "") -> None:
    """Print one thing that differs from machine to machine, such as a time, a speed, a device or a version.

    The line is `⏱ label: value unit`. When the notebooks are compared with their committed outputs, all that follows
    the first colon of such a line is left out of the comparison (tests/nbval_sanitize.cfg), the label is not.

    Args:
        label: what it is, without a colon; it must be the same on every machine.
        value: a float is printed with four significant digits, anything else as `str` gives it, on one line.
        unit: such as "tokens/s".

    Raises:
        InputError: if the label holds a colon or a line break, or is empty.
    """
    if not label.strip() or ":" in label or "\n" in label:
        raise InputError(gettext("The label is {label!r}: give one line of text without a colon, which separates it "
                                 "from the value.").format(label=label))
    text = _four_digits(value) if isinstance(value, float) else " ".join(str(value).split())
    print(f"{MARKER} {label}: {text} {unit}".rstrip())


def expect(claim: str, met: bool | None) -> None:
    """Remark whether a claim about speed holds in what was just measured, in a line that `show` prints.

    No error if it does not: another processor, or a machine that is busy with something else, measures otherwise.

    Args:
        claim: in words, without a colon: "a step takes longer in a longer text".
        met: whether the measured times say so; None where it cannot be measured, such as without a compiler.

    Raises:
        InputError: as `show`.
    """
    if met is None:
        answer = gettext("cannot be measured here, for something is missing")
    elif met:
        answer = gettext("yes, measured here")
    else:
        answer = gettext("not this time, as happens on a busy machine: run the measuring cell again when it is quiet")
    show(gettext("Expected, {claim}").format(claim=claim), answer)


def _four_digits(value: float) -> str:
    """1234567.8 as "1234568", 12.3456 as "12.35": never in powers of ten unless very small."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
