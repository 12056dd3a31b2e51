"""Installing from a workshop's USB stick as a learner does, with and without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Brings up the loopback, which a kernel and its notebook talk through, in a network that has nothing else.
ALONE = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 1))
os.execvp(sys.argv[1], sys.argv[1:])
"""


def install(stick: Path, *arguments: str, before: tuple[str, ...] = (), **environment: str) -> Any:
    """Run the installer as a learner does."""
    script = ["cmd", "/c", str(stick / "install.cmd")] if os.name == "nt" else ["sh", str(stick / "install.sh")]
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])  # the Python of the tests first
    return subprocess.run([*before, *script, *arguments], env=os.environ | {"PATH": path} | environment, text=True,
                          encoding="utf-8", capture_output=True, check=False, timeout=500, stdin=subprocess.DEVNULL)


def alone() -> tuple[str, ...]:
    """What a command is put behind so that it has no network."""
    if sys.platform != "linux":
        pytest.skip("needs Linux: network namespaces")
    start = ("unshare", "--map-root-user", "--net", sys.executable, "-c", ALONE)
    if shutil.which("unshare") is None or subprocess.run([*start, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace: this container does not allow it")
    return start
