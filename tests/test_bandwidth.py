"""The bandwidth probe."""

from __future__ import annotations

import pytest
import torch

from course_utils import bandwidth
from course_utils.bandwidth import read_bandwidth
from course_utils.errors import InputError
from course_utils.timing import Timing


def test_a_plausible_number() -> None:
    assert 1e8 < read_bandwidth("cpu", num_bytes=64 << 20, repeats=3) < 1e14


def test_bytes_of_the_row_over_the_fastest_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def timing(fn, device, repeats):
        seen.append((float(fn()), device, repeats))
        return Timing(median=1.0, low=0.5, high=9.0, runs=repeats)

    monkeypatch.setattr(bandwidth, "median_seconds", timing)
    assert read_bandwidth("cpu", num_bytes=4003, repeats=2) == 8000.0
    assert seen == [(1000.0, torch.device("cpu"), 2)]


@pytest.mark.parametrize("wrong", [{"num_bytes": 0}, {"num_bytes": -8}, {"repeats": 0}])
def test_nothing_to_read(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError):
        read_bandwidth("cpu", **wrong)
