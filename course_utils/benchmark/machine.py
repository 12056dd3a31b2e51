"""What was measured on: names and versions that a figure is worth nothing without."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable

import torch

import course_utils
from course_utils.device import describe_device, processor_name, total_memory


def hardware(device: torch.device) -> dict[str, str | int]:
    """Device, processor, logical cores, and the memory of the device in bytes."""
    return {"device": describe_device(device), "processor": processor_name(), "cores": os.cpu_count() or 1,
            "memory": total_memory(device)}


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Versions of Python, PyTorch, this package, and those of the named distributions that are installed."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "course_utils": course_utils.__version__}
    for name in distributions:
        if (version := installed_version(name)) is not None:
            found[name] = version
    return found


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution; None if it is not installed. Nothing is imported."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
