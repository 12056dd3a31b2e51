"""Which processor computes, how to wait for it, and how much memory it has.

A GPU works through a queue: a call returns before its result is there, so a clock is read only after
`synchronize`. The names are those of PyTorch: "cuda" (NVIDIA, and AMD under ROCm), "mps" (Apple), "xpu" (Intel),
"cpu".
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import torch

from course_utils import host_memory
from course_utils.errors import InputError
from course_utils.language import gettext

DEVICE_VARIABLE = "COURSE_DEVICE"


def available_devices() -> list[str]:
    """The devices of this machine, fastest kind first; "cpu" is always the last of them.

    Several devices of a kind are listed as "cuda:0", "cuda:1", a single one as "cuda".
    """
    found: list[str] = []
    for kind, count in (("cuda", torch.cuda.device_count() if torch.cuda.is_available() else 0),
                        ("mps", int(torch.backends.mps.is_available())),
                        ("xpu", torch.xpu.device_count() if torch.xpu.is_available() else 0)):
        found += [kind] if count == 1 else [f"{kind}:{index}" for index in range(count)]
    return [*found, "cpu"]


def get_device(preference: torch.device | str | None = None) -> torch.device:
    """Choose the device to compute on: the fastest one there is, unless the reader asks for another.

    Args:
        preference: "cpu", "cuda", "cuda:1", "mps", "xpu", or a device; None or "auto" takes the environment variable
            COURSE_DEVICE where it is set, and otherwise the first of CUDA, Apple MPS, Intel XPU, CPU. PyTorch's "meta"
            is always there: on it tensors have shapes and no content.

    Raises:
        InputError: if this machine has no such device.
    """
    if not isinstance(preference, (str, torch.device, type(None))):
        raise InputError(gettext("The device is a {kind}: give its name, such as \"cpu\".").format(
            kind=type(preference).__name__))
    wanted, source = None if preference is None else str(preference), gettext("The device")
    if wanted is None or wanted.strip().lower() in ("", "auto"):
        wanted, source = os.environ.get(DEVICE_VARIABLE), gettext("The environment variable {device_variable}").format(
            device_variable=DEVICE_VARIABLE)
    devices = available_devices()
    wanted = (wanted or "auto").strip().lower() or "auto"
    if wanted == "auto":
        return torch.device(devices[0])
    kind, _, index = wanted.partition(":")
    # "cuda" means the first of several, and "cuda:0" the only one.
    known = wanted in (*devices, "meta") or any(name == kind and index == "0" or name.partition(":")[0] == wanted
                                     for name in devices)
    if not known:
        raise InputError(gettext("{source} is {wanted!r}, which this machine does not have. Choose one "
                                 "of {devices}, or \"auto\".").format(
            source=source, wanted=wanted, devices=", ".join(devices)))
    return torch.device(wanted)


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


def describe_device(device: torch.device) -> str:
    """One line for a reader: name, compute capability and Tensor Cores of a GPU, threads of a CPU."""
    device = torch.device(device)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if torch.version.hip:
            return f"{name} (ROCm)"
        major, minor = torch.cuda.get_device_capability(device)
        text = (gettext("{name} (CUDA, compute capability {major}.{minor}, with Tensor Cores)")
                if has_tensor_cores(device) else
                gettext("{name} (CUDA, compute capability {major}.{minor}, without Tensor Cores)"))
        return text.format(name=name, major=major, minor=minor)
    if device.type == "xpu":
        return f"{torch.xpu.get_device_name(device)} (Intel XPU)"
    if device.type == "mps":
        return gettext("Apple GPU (MPS) of a Mac with {machine} processor").format(machine=platform.machine())
    return gettext("CPU ({machine}), {cores} logical cores, PyTorch uses {threads} threads").format(
        machine=platform.machine(), cores=os.cpu_count(), threads=torch.get_num_threads())


def has_tensor_cores(device: torch.device) -> bool:
    """Whether an NVIDIA GPU has Tensor Cores, the units that multiply small matrices in one go.

    They came with compute capability 7.0 (Volta); the GTX 16 cards, 7.5 as well, were made without. TF32 and bfloat16
    on them need 8.0 (Ampere).
    """
    if device.type != "cuda" or torch.version.hip:
        return False
    return torch.cuda.get_device_capability(device) >= (7, 0) and "GTX 16" not in torch.cuda.get_device_name(device)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished everything it was asked for. On a CPU there is nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "xpu":
        torch.xpu.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device) -> int:
    """The most memory in use since `reset_peak_memory`, in bytes.

    What is counted differs: on CUDA and XPU the tensors on that device; on Apple GPUs, which keep no peak, what
    their driver holds now (it rarely gives back, so this is close); on a CPU the whole process, Python and
    libraries included (its peak resident set).
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if device.type == "xpu":
        return int(torch.xpu.max_memory_allocated(device))
    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    return host_memory.peak()


def reset_peak_memory(device: torch.device) -> bool:
    """Let `peak_memory` start again from what is in use now.

    Returns:
        Whether it did: Apple GPUs cannot, and for a CPU only Linux can. The peak then counts from the start.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    if device.type == "xpu":
        torch.xpu.reset_peak_memory_stats(device)
        return True
    return device.type == "cpu" and host_memory.reset_peak()


def resident_memory() -> int:
    """The main memory this process occupies now, in bytes: Python, libraries, tensors on the CPU."""
    return host_memory.resident()


def total_memory(device: torch.device) -> int:
    """The memory of a device in bytes; on a CPU main memory, or a container's limit if that is less."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "xpu":
        return int(torch.xpu.get_device_properties(device).total_memory)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    return host_memory.total()


def free_memory(device: torch.device) -> int:
    """The memory of a device that can be had now, in bytes; other programs' share is already taken off."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "xpu":
        return int(torch.xpu.mem_get_info(device)[0])
    if device.type == "mps":  # the GPU's share is part of main memory, which may be shorter still
        share = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return max(0, min(int(share), host_memory.available()))
    return host_memory.available()


def enable_tf32(on: bool = True) -> None:
    """Let NVIDIA GPUs from Ampere on multiply float32 matrices in TF32, or (on=False) in full float32 again.

    TF32 keeps the range of float32 (8 bits of exponent) but only 10 of its 23 bits of fraction while it multiplies;
    sums stay float32. That makes matrix products several times faster on Tensor Cores and leaves about three decimal
    digits instead of seven in each factor: fine for a network's weights, wrong for the angles of rotary positions
    (this package computes those element by element, so they are untouched). Tensors in bfloat16, other
    operations and other devices are not affected.

    PyTorch has a setting for this since 2.9, https://docs.pytorch.org/docs/stable/notes/cuda.html; older versions
    use the one before. The two must not be mixed in a program; torch.compile with mode="max-autotune" still reads the
    old one (seen in 2.13), so turn TF32 off again before that.
    """
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):
        matmul.fp32_precision = "tf32" if on else "ieee"
    else:
        torch.set_float32_matmul_precision("high" if on else "highest")
