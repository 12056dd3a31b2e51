"""Speeds that others have published, to be shown beside measured ones and never among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """Somebody's figures for one machine.

    Attributes:
        source: whose program and which model.
        machine: as they name it.
        speeds: name of each way of generating, and its tokens per second.
    """

    source: str
    machine: str
    speeds: tuple[tuple[str, float], ...]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Published:
        """The inverse of `dataclasses.asdict`, also after a detour through JSON."""
        return cls(content["source"], content["machine"], tuple((name, speed) for name, speed in content["speeds"]))


def _textbook(machine: str, regular: float, compiled: float, cached: float, both: float) -> Published:
    speeds = (("regular", regular), ("compiled", compiled), ("KV cache", cached), ("KV cache compiled", both))
    return Published("published by others for the plain textbook implementation of Qwen3-0.6B, batch 1", machine,
                     speeds)


TEXTBOOK = (
    _textbook("Mac Mini M4, CPU", 5, 6, 28, 68),
    _textbook("Mac Mini M4, GPU", 27, 43, 41, 71),
    _textbook("NVIDIA H100", 51, 164, 48, 141),
)
"""In the order of these columns, the H100 used 1.55, 1.81, 1.52 and 1.81 GB."""
