"""Measuring, and the one format for what differs between machines, together with the patterns that mask it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import torch

from course_utils import timing
from course_utils.errors import InputError
from course_utils.timing import Timing, expect, format_bytes, format_seconds, median_seconds, show, timed

CPU = torch.device("cpu")
SANITIZE_FILE = Path(__file__).with_name("nbval_sanitize.cfg")


def sanitize(text):
    """What nbval does with an output before it compares: the pairs of the file, in order."""
    pairs = re.findall("^regex: (.*)$\n^replace: (.*)$", SANITIZE_FILE.read_text(encoding="ascii"), re.MULTILINE)
    assert len(pairs) == SANITIZE_FILE.read_text(encoding="ascii").count("\nregex:")
    for pattern, replacement in pairs:
        text = re.sub(pattern, replacement, text)
    return text


def test_timed_measures_its_block():
    with timed(CPU) as watch:
        assert watch.seconds == 0.0
        time.sleep(0.05)
    assert 0.04 < watch.seconds < 5


def test_clock_is_read_after_the_device(monkeypatch):
    events = []
    monkeypatch.setattr(timing, "synchronize", lambda _: events.append("wait"))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: events.append("clock") or 0.0)
    with timed(CPU):
        events.append("work")
    assert events == ["wait", "clock", "work", "wait", "clock"]


def test_median_leaves_the_warm_up_out(monkeypatch):
    clock, costs = [0.0], iter([100.0, 3.0, 1.0, 2.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def work():
        clock[0] += next(costs)

    assert median_seconds(work, CPU, repeats=3, warmup=1) == Timing(median=2.0, low=1.0, high=3.0, runs=3)


@pytest.mark.parametrize("counts", [{"repeats": 0}, {"warmup": -1}])
def test_nothing_to_measure(counts):
    with pytest.raises(InputError, match="repeats is 0|warmup is -1"):
        median_seconds(lambda: None, CPU, **counts)


def test_units():
    assert [format_seconds(value) for value in (12.345, 0.0123, 4.5e-5)] == ["12.35 s", "12.3 ms", "45 µs"]
    assert [format_bytes(value) for value in (1.55e9, 2e6, 1500, 12)] == ["1.6 GB", "2.0 MB", "1.5 kB", "12 bytes"]
    assert str(Timing(0.0123, 0.012, 0.5, 5)) == "12.3 ms (median of 5, 12.0 ms to 500.0 ms)"


@pytest.mark.parametrize(("value", "unit", "line"), [
    (123.4321, "tokens/s", "⏱ with cache: 123.4 tokens/s"),
    (1234567.8, "tokens/s", "⏱ with cache: 1234568 tokens/s"),
    (0.00012346, "s", "⏱ with cache: 0.0001235 s"),
    (7, "", "⏱ with cache: 7"),
    ("NVIDIA: H100\nPCIe", "", "⏱ with cache: NVIDIA: H100 PCIe"),
    (CPU, "", "⏱ with cache: cpu")])
def test_shown_lines(capsys, value, unit, line):
    show("with cache", value, unit)
    assert capsys.readouterr().out == line + "\n"


@pytest.mark.parametrize("label", ["", " ", "a: b", "a\nb"])
def test_labels_that_could_not_be_masked(label):
    with pytest.raises(InputError, match="label"):
        show(label, 1)


def test_two_machines_agree_on_the_label_and_nothing_else(capsys):
    show("with cache", 123.4, "tokens/s")
    show("device", "cpu: x86")
    print("with cache: 1")
    ours = capsys.readouterr().out
    show("with cache", 9.9, "tokens/s")
    show("device", "cuda")
    print("with cache: 1")
    theirs = capsys.readouterr().out
    assert ours != theirs
    assert sanitize(ours) == sanitize(theirs)
    assert sanitize(ours) == "⏱ with cache: MACHINE-VALUE\n⏱ device: MACHINE-VALUE\nwith cache: 1\n"
    assert sanitize("⏱ no cache: 1") != sanitize("⏱ with cache: 1")


def test_a_claim_about_speed_is_remarked_and_fails_nothing(capsys):
    expect("a cache saves time", True)
    expect("a cache saves time", False)
    expect("a cache saves time", None)
    met, missed, unmeasured = capsys.readouterr().out.splitlines()
    assert "yes, measured here" in met and "quiet" in missed and "missing" in unmeasured
    assert sanitize(met) == sanitize(missed) == sanitize(unmeasured)


@pytest.mark.parametrize(("first", "second"), [
    ("<object at 0x7f01deadbeef>", "<object at 0x7f0200000000>"),
    (" 10%|#   | 1/10 [00:00<00:01, 9.1it/s]\n100%|####| 10/10 [00:01<00:00, 9.1it/s]\nend",
     "train: 100%|████| 10/10 [00:05<00:00, 2.0it/s]\nend"),
    ("12it [00:01, 11.9it/s]\n", "15it [00:02, 7.0it/s]\n"),
    ("/a/b.py:12: UserWarning: slow\n", "C:\\c\\b.py:7: UserWarning: slow\n"),
    ("(pid=12)", "(pid=345)")], ids=["address", "progress bars", "counts of progress", "warnings", "processes"])
def test_other_things_that_differ(first, second):
    assert sanitize(first) == sanitize(second) != first


@pytest.mark.parametrize("text", ["accuracy: 93%\n", "0x1F", "loss 1.25 at step 10\n", "a | b\n100% | x\n"])
def test_results_are_not_masked(text):
    assert sanitize(text) == text


def test_a_picture_is_searched_quickly():
    start = time.process_time()
    sanitize("iVBORw0KGgo5it9" * 50_000)
    assert time.process_time() - start < 2
