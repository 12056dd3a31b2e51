"""What was measured on: names and versions that a figure is worth nothing without."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

import course_utils
from course_utils.device import describe_device, total_memory


def hardware(device: torch.device) -> dict[str, str | int]:
    """Device, processor, logical cores, and the memory of the device in bytes."""
    return {"device": describe_device(device), "processor": processor_name(), "cores": os.cpu_count() or 1,
            "memory": total_memory(device)}


def processor_name() -> str:
    """The name that the processor's maker gave it, or its architecture where the system does not tell."""
    try:
        if sys.platform == "darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except (OSError, subprocess.CalledProcessError):
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


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
