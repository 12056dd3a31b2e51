"""Choosing a device, describing it, and reading memory. What needs a GPU is skipped where there is none."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch

from course_utils import device as device_module
from course_utils import host_memory
from course_utils.device import (
    available_devices,
    describe_device,
    enable_tf32,
    free_memory,
    get_device,
    has_tensor_cores,
    peak_memory,
    reset_peak_memory,
    resident_memory,
    synchronize,
    total_memory,
)
from course_utils.errors import InputError

CPU = torch.device("cpu")
EVERY_DEVICE = [torch.device(name) for name in available_devices()]


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv("COURSE_DEVICE", raising=False)


def pretend(monkeypatch, *devices):
    monkeypatch.setattr(device_module, "available_devices", lambda: [*devices, "cpu"])


def test_the_processor_has_a_name() -> None:
    assert device_module.processor_name()


def test_the_fastest_kind_comes_first_and_the_cpu_is_always_there(monkeypatch):
    assert available_devices()[-1] == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 1)
    assert available_devices() == ["cuda:0", "cuda:1", "mps", "xpu", "cpu"]


@pytest.mark.parametrize("devices", [["cuda"], ["cuda:0", "cuda:1"], ["mps"], ["xpu"], []])
def test_automatic_choice_is_the_first(monkeypatch, devices):
    pretend(monkeypatch, *devices)
    first = torch.device([*devices, "cpu"][0])
    assert get_device() == get_device("auto") == first


def test_argument_beats_variable_and_variable_beats_automatic_choice(monkeypatch):
    pretend(monkeypatch, "cuda", "xpu")
    monkeypatch.setenv("COURSE_DEVICE", " XPU ")
    assert get_device() == torch.device("xpu")
    assert get_device("auto") == torch.device("xpu")
    assert get_device("cpu") == CPU
    monkeypatch.setenv("COURSE_DEVICE", "auto")
    assert get_device() == torch.device("cuda")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1", "CUDA"])
def test_an_index_may_be_left_out(monkeypatch, name):
    pretend(monkeypatch, "cuda:0", "cuda:1")
    assert get_device(name) == torch.device(name.lower())


@pytest.mark.parametrize("name", ["cuda:1", "mps", "tpu", "cuda:", "gpu", "cuda:x"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(monkeypatch, name):
    pretend(monkeypatch, "cuda")
    with pytest.raises(InputError, match="Choose one of cuda, cpu") as caught:
        get_device(name)
    assert repr(name) in str(caught.value)


def test_a_wrong_variable_is_named(monkeypatch):
    pretend(monkeypatch)
    monkeypatch.setenv("COURSE_DEVICE", "cuda")
    with pytest.raises(InputError, match="COURSE_DEVICE is 'cuda'"):
        get_device()


@pytest.mark.parametrize("device", EVERY_DEVICE, ids=str)
def test_every_device_here_computes_waits_and_has_memory(device):
    reset_peak_memory(device)
    before = peak_memory(device)
    numbers = torch.ones(30_000_000, device=device)
    synchronize(device)
    assert peak_memory(device) - before > 0.9 * numbers.nbytes
    assert 0 < free_memory(device) <= total_memory(device)
    assert "\n" not in describe_device(device)


def test_cpu_description_says_how_many_threads():
    assert f"{torch.get_num_threads()} threads" in describe_device(CPU)
    assert not has_tensor_cores(CPU)


@pytest.mark.parametrize(("capability", "name", "expected"), [
    ((6, 1), "GTX 1080", False), ((7, 0), "Tesla V100", True), ((7, 5), "Tesla T4", True),
    ((7, 5), "NVIDIA GeForce GTX 1660", False), ((9, 0), "H100", True)])
def test_tensor_cores(monkeypatch, capability, name, expected):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    gpu = torch.device("cuda")
    assert has_tensor_cores(gpu) is expected
    assert name in describe_device(gpu)
    assert f"{'with' if expected else 'without'} Tensor Cores" in describe_device(gpu)


def test_resident_memory_follows_an_allocation():
    before = resident_memory()
    numbers = torch.ones(30_000_000)
    assert resident_memory() - before > 0.9 * numbers.nbytes


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: the peak of a process is reset")
def test_peak_can_start_again():
    numbers = torch.ones(30_000_000)
    size = numbers.nbytes
    high = peak_memory(CPU)
    del numbers
    if not reset_peak_memory(CPU):
        pytest.skip("this container does not allow it")
    assert high - peak_memory(CPU) > 0.9 * size


_COUNTS_FAULTS = """\
import resource, torch
from course_utils import host_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(5_000_000)  # 20 MB
        torch.ones(1_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
host_memory.keep_what_is_freed()
faults()
print(usual, faults())"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs Linux: glibc")
@pytest.mark.parametrize(("variable", "kept"), [(None, True), ("MALLOC_TRIM_THRESHOLD_", False),
                                                ("GLIBC_TUNABLES", False)])
def test_what_was_freed_is_at_hand_unless_the_environment_says_otherwise(variable: str | None, kept: bool) -> None:
    environment = {name: value for name, value in os.environ.items()
                   if name != "GLIBC_TUNABLES" and not name.startswith("MALLOC_")}
    if variable is not None:
        environment[variable] = "100000" if variable.startswith("MALLOC_") else "glibc.malloc.trim_threshold=100000"
    done = subprocess.run([sys.executable, "-c", _COUNTS_FAULTS], env=environment, capture_output=True, text=True,
                          check=True)
    usual, later = map(int, done.stdout.split())
    assert usual > 1000  # pages of 4 kB; larger ones are fewer
    assert (later < usual / 10) == kept


CONTROL_GROUPS = {
    "new": {"memory.max": "100000000\n", "memory.current": "40000000\n",
            "memory.stat": "anon 20000000\nfile 20000000\nshmem 5000000\ninactive_file 9000000\n"
                           "active_file 6000000\n"},
    "old": {"memory/memory.limit_in_bytes": "100000000\n", "memory/memory.usage_in_bytes": "40000000\n",
            "memory/memory.stat": "inactive_file 1\nactive_file 1\ntotal_inactive_file 9000000\n"
                                  "total_active_file 6000000\n"},
}


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: control groups")
@pytest.mark.parametrize("version", CONTROL_GROUPS)
def test_a_containers_limit_counts_and_its_cache_of_files_is_free(version, monkeypatch, tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       400000 kB\nMemAvailable:       300000 kB\n")
    monkeypatch.setattr(host_memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(host_memory, "_CGROUP", tmp_path / "cgroup")
    assert host_memory.available() == 300000 * 1024  # without control groups that of the machine
    for name, text in CONTROL_GROUPS[version].items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text)
    assert host_memory.total() == 10 ** 8
    # 40 MB in use, 15 MB of them pages of files; the 5 MB of files that are in memory alone are not free.
    assert host_memory.available() == 10 ** 8 - 4 * 10 ** 7 + 15 * 10 ** 6
    meminfo.write_text("MemAvailable:       1000 kB\n")
    assert host_memory.available() == 1000 * 1024  # and never more than the machine has
    if version == "new":
        (tmp_path / "cgroup" / "memory.max").write_text("max\n")
        assert host_memory.total() > 10 ** 8


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX: nobody serves a class from Windows")
@pytest.mark.parametrize(("named", "counts"), [("50000000", True), ("0", False), ("", False), ("2G", False)])
def test_a_learners_share_of_a_server_counts(named, counts, monkeypatch):
    monkeypatch.delenv("MEM_LIMIT", raising=False)
    machine = host_memory.total()
    monkeypatch.setenv("MEM_LIMIT", named)
    assert host_memory.total() == (5 * 10 ** 7 if counts else machine)
    if sys.platform == "linux":
        monkeypatch.setattr(host_memory, "resident", lambda: 4 * 10 ** 7)
        assert (host_memory.available() <= 10 ** 7) == counts
        monkeypatch.setattr(host_memory, "resident", lambda: 6 * 10 ** 7)
        assert (host_memory.available() == 0) == counts  # and never less


def test_macos_table_of_pages():
    printed = ("Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free:           100.\n"
               "Pages active:        5000.\nPages inactive:        20.\nPages speculative:      3.\n")
    assert host_memory._macos_available(printed) == 16384 * 123
    with pytest.raises(LookupError):
        host_memory._macos_available("nothing")


def test_tf32_is_switched_on_and_off():
    matmul = torch.backends.cuda.matmul
    try:
        enable_tf32()
        if hasattr(matmul, "fp32_precision"):
            assert matmul.fp32_precision == "tf32"
        else:
            assert torch.get_float32_matmul_precision() == "high"
    finally:
        enable_tf32(False)
    assert torch.get_float32_matmul_precision() == "highest"


def test_tf32_on_an_older_pytorch(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.backends.cuda, "matmul", object())
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked.append)
    enable_tf32()
    enable_tf32(False)
    assert asked == ["high", "highest"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_tf32_rounds_factors_and_float32_does_not():
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("needs Ampere or later")
    factors = torch.randn(512, 512, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    exact = factors.double() @ factors.double()
    errors = []
    try:
        for on in (False, True):
            enable_tf32(on)
            errors.append(float((factors @ factors - exact).abs().max()))
    finally:
        enable_tf32(False)
    assert errors[0] < 1e-3 < errors[1]
