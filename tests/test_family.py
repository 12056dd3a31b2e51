"""The shape that the course measures on: the real one where it fits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from course_utils import loading
from course_utils.family import FAMILY
from course_utils.loading import timing_config

REAL = FAMILY["Qwen/Qwen3-0.6B"]


@pytest.mark.parametrize(("small", "free", "layers"), [
    (None, 1e10, 28), ("0", 1e10, 28), ("", 1e10, 28), ("1", 1e10, 4), (None, 1e9, 4), ("1", 1e9, 4)])
def test_timing_config_is_real_unless_asked_or_short_of_memory(
        monkeypatch: pytest.MonkeyPatch, small: str | None, free: float, layers: int) -> None:
    monkeypatch.delenv("COURSE_SMALL", raising=False)
    if small is not None:
        monkeypatch.setenv("COURSE_SMALL", small)
    monkeypatch.setattr(loading, "free_memory", lambda device: int(free))
    assert timing_config() == replace(REAL, num_hidden_layers=layers)
