"""The memory of this computer and of this process, in bytes, without a library beside Python's own.

Linux answers from `/proc`, macOS through two small commands, Windows through its own functions. A container may
use less than the machine has, so its limit (control groups, https://docs.kernel.org/admin-guide/cgroup-v2.html and
cgroup-v1/memory.html beside it) counts where there is one. So does the share of a learner on a common server, which
JupyterHub and Binder write into the environment as MEM_LIMIT.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

from course_utils.language import gettext

KIB = 1024
LARGEST_KEPT, MOST_KEPT = 64 << 20, 256 << 20
"""Bytes of a piece of memory, and of all together, up to which `keep_what_is_freed` has them kept."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def total() -> int:
    """The memory this process could use at most: that of the machine, or the least of the limits that it is under."""
    if sys.platform == "win32":
        return _windows_memory().total
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = (_container_bytes("memory.max", "memory/memory.limit_in_bytes"), _share())
    return min([machine, *(limit for limit in limits if limit is not None)])


def available() -> int:
    """The memory that can be had now without swapping; what the system merely keeps as a cache counts as free."""
    if sys.platform == "win32":
        return _windows_memory().available
    if sys.platform == "darwin":
        return _macos_available(subprocess.run(["vm_stat"], capture_output=True, text=True, check=True).stdout)
    free, share = _proc_kib(_MEMINFO, "MemAvailable"), _share()
    if share is not None:  # what is free beyond it is for the others, who look at it, too
        free = max(0, min(free, share - resident()))
    limit = _container_bytes("memory.max", "memory/memory.limit_in_bytes")
    used = _container_bytes("memory.current", "memory/memory.usage_in_bytes")
    return free if limit is None or used is None else max(0, min(free, limit - used + _container_cache()))


def resident() -> int:
    """The memory this process occupies now (its resident set); pages of mapped files that it has read count too."""
    if sys.platform == "win32":
        return int(_windows_process().WorkingSetSize)
    if sys.platform == "darwin":
        command = ["ps", "-o", "rss=", "-p", str(os.getpid())]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) * KIB
    return _proc_kib("/proc/self/status", "VmRSS")


def peak() -> int:
    """The most that `resident()` has been: since the last `reset_peak()` that succeeded, else since the start."""
    if sys.platform == "win32":
        return int(_windows_process().PeakWorkingSetSize)
    try:
        return _proc_kib("/proc/self/status", "VmHWM")
    except (OSError, LookupError):
        import resource  # there is none on Windows

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * KIB


def reset_peak() -> bool:
    """Let `peak()` start again from what is resident now. Only Linux can: False says that nothing was reset."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # 5 is "reset the high-water mark", see proc(5)
    except OSError:
        return False
    return True


@functools.cache
def keep_what_is_freed() -> None:
    """Have the C library of Linux (glibc) keep freed memory for what asks next, instead of giving it back at once.

    Every pass asks for the same pieces again, and what was given back returns page by page: of a prompt of 512 tokens
    in the 0.6B shape that took a quarter of the time. Who has told glibc something else in the environment is obeyed;
    other libraries are not asked.
    """
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT)
    mallopt(_M_TRIM_THRESHOLD, MOST_KEPT)


def _proc_kib(file: str | Path, key: str) -> int:
    """The value of the line `key:   123 kB` of a file, in bytes."""
    found = re.search(rf"^{key}:\s+(\d+) kB", Path(file).read_text(), re.MULTILINE)
    if found is None:
        raise LookupError(gettext("{file} has no line {key}.").format(file=file, key=key))
    return int(found[1]) * KIB


def _container_bytes(*names: str) -> int | None:
    """A number from the first of these control group files that there is; None for no file or no limit."""
    for name in names:
        try:
            text = (_CGROUP / name).read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None  # "max" is the word for no limit
    return None


def _share() -> int | None:
    """What a common server grants a learner, in bytes; None where it says nothing."""
    text = os.environ.get("MEM_LIMIT", "")
    return int(text) if text.isdecimal() and int(text) else None


def _container_cache() -> int:
    """What a container's use contains of files that are kept in memory until it is needed for something else, in bytes.

    Those in memory alone (tmpfs) are not counted among these by the kernel.
    """
    # In the older version only the lines with "total_" count groups within the group.
    for name, prefix in (("memory.stat", ""), ("memory/memory.stat", "total_")):
        try:
            text = (_CGROUP / name).read_text()
        except OSError:
            continue
        return sum(map(int, re.findall(rf"^{prefix}(?:in)?active_file (\d+)$", text, re.MULTILINE)))
    return 0


def _macos_available(vm_stat: str) -> int:
    """Free, inactive and speculative pages in what `vm_stat` prints, in bytes."""
    page = re.search(r"page size of (\d+) bytes", vm_stat)
    pages = re.findall(r"^Pages (?:free|inactive|speculative):\s+(\d+)", vm_stat, re.MULTILINE)
    if page is None or not pages:
        raise LookupError("vm_stat printed something else than a table of pages.")
    return int(page[1]) * sum(map(int, pages))


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32), ("total", ctypes.c_uint64),
                ("available", ctypes.c_uint64), ("rest", ctypes.c_uint64 * 5)]


class _ProcessMemory(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS of the Windows API."""

    _fields_ = [("cb", ctypes.c_uint32), ("PageFaultCount", ctypes.c_uint32),
                ("PeakWorkingSetSize", ctypes.c_size_t), ("WorkingSetSize", ctypes.c_size_t),
                ("rest", ctypes.c_size_t * 6)]


if sys.platform == "win32":
    def _windows_memory() -> _MemoryStatus:
        status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
        if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
            raise ctypes.WinError()
        return status

    def _windows_process() -> _ProcessMemory:
        kernel32 = ctypes.windll.kernel32
        kernel32.GetCurrentProcess.restype = ctypes.c_void_p
        kernel32.K32GetProcessMemoryInfo.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32]
        counters = _ProcessMemory(cb=ctypes.sizeof(_ProcessMemory))
        if not kernel32.K32GetProcessMemoryInfo(kernel32.GetCurrentProcess(), ctypes.byref(counters), counters.cb):
            raise ctypes.WinError()
        return counters
