"""The wheels that a system and a Python need for the course, resolved and fetched from any other system.

pip, asked for another system's wheels, still decides by this one's which packages are needed; so uv resolves and pip
fetches. On Linux PyTorch comes from its makers' index of builds without CUDA: a tenth of the size.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version
from tqdm import tqdm

from course_utils.environment import OLDEST_MACOS
from course_utils.errors import CourseError

CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
_GLIBC = 28  # 2.28, of Debian 10, Ubuntu 18.10 and RHEL 8: what PyTorch's wheels need


def _linux(machine: str) -> tuple[str, ...]:
    """The names of what glibc 2.28 and older can run, newest first, and the older names of three of them."""
    oldest = 5 if machine == "x86_64" else 17
    names = [f"manylinux_2_{minor}_{machine}" for minor in range(_GLIBC, oldest - 1, -1)]
    older = ("manylinux2014", "manylinux2010", "manylinux1") if machine == "x86_64" else ("manylinux2014",)
    return (*names, *(f"{name}_{machine}" for name in older), f"linux_{machine}")


@dataclass(frozen=True)
class System:
    """A kind of computer.

    Attributes:
        uv: what uv calls it.
        platforms: what the names of its wheels end with, best first.
        torch: an index or folder with PyTorch's wheels for it; empty if the package index has the right ones.
    """

    uv: str
    platforms: tuple[str, ...]
    torch: str = ""


SYSTEMS = {
    "windows": System("x86_64-pc-windows-msvc", ("win_amd64",)),
    "macos": System("aarch64-apple-darwin", tuple(mac_platforms((OLDEST_MACOS, 0), "arm64"))),
    "linux": System(f"x86_64-manylinux_2_{_GLIBC}", _linux("x86_64"), CPU_BUILDS),
    "linux-arm": System(f"aarch64-manylinux_2_{_GLIBC}", _linux("aarch64"), CPU_BUILDS),
}
"""By the name that `stick.py --system` takes; `on_stick/install.py` knows its own computer by the same names."""


@dataclass(frozen=True)
class Target:
    """What wheels are for: the name of a system, and a Python such as "3.12"."""

    system: str
    python: str

    def __str__(self) -> str:
        return f"{self.system}-{self.python}"

    @property
    def tags(self) -> set[Tag]:
        """Those of the wheels that it can use."""
        version, platforms = tuple(map(int, self.python.split("."))), SYSTEMS[self.system].platforms
        return {*cpython_tags(version, platforms=platforms),
                *compatible_tags(version, f"cp{version[0]}{version[1]}", platforms)}


@dataclass(frozen=True)
class Pin:
    """A package at one version, with the SHA-256 of each of its wheels, for whatever system."""

    name: str
    version: str
    hashes: frozenset[str]


def resolve(target: Target, repository: Path, torch: str) -> list[Pin]:
    """What a target needs to run the course from a checkout, in the versions that CI tested.

    Args:
        target: what for.
        repository: the folder of the checkout.
        torch: an index or folder with PyTorch's wheels; empty takes those of the package index.

    Raises:
        CourseError: if there is no set of wheels, or the package index does not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pyproject.toml").write_text(_project(repository, torch), encoding="utf-8")
        command = [_uv(), "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--generate-hashes",
                   "--only-binary", ":all:", "--python-platform", SYSTEMS[target.system].uv, "--python-version",
                   target.python, "--constraints", str(repository / ".ci" / "constraints.txt"), "pyproject.toml"]
        run = subprocess.run(command, cwd=folder, text=True, encoding="utf-8", capture_output=True, check=False,
                             env=os.environ | {"MACOSX_DEPLOYMENT_TARGET": f"{OLDEST_MACOS}.0"})
    if run.returncode:
        raise CourseError(f"uv finds no wheels for {target}: {_last(run.stderr)}. Run the same command again if the "
                         "network was gone; else take another Python.")
    pins = [Pin(canonicalize_name(match[1]), match[2], frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", match[0])))
            for match in re.finditer(r"^([\w.-]+)==([^\s;]+).*(?:\n    --hash=.*)*", run.stdout, re.MULTILINE)]
    return pins


def _project(repository: Path, torch: str) -> str:
    """A project that needs what the course needs for its notebooks, and takes PyTorch, and that alone, from a place."""
    course = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    # An editable installation builds the package, and hatchling asks for editables then. pip is for Pythons without it.
    needs = [*course["project"]["dependencies"], *course["project"]["optional-dependencies"]["lab"],
             *course["build-system"]["requires"], "editables", "pip"]
    lines = ["[project]", 'name = "stick"', 'version = "0"', f"dependencies = {json.dumps(needs)}"]
    if torch:
        lines += ["[tool.uv.sources]", 'torch = {index = "torch"}', "[[tool.uv.index]]", 'name = "torch"',
                  f"url = {json.dumps(_address(torch))}", "explicit = true",
                  f"format = {json.dumps('flat' if Path(torch).is_dir() else 'simple')}"]
    return "\n".join(lines)


def _address(place: str) -> str:
    return str(Path(place).resolve()) if Path(place).is_dir() else place


def _uv() -> str:
    try:
        from uv import find_uv_bin
    except ImportError:
        raise CourseError('uv is not installed: run python -m pip install -c .ci/constraints.txt -e ".[workshop]"'
                         ) from None
    return str(find_uv_bin())


def fetch(pins: list[Pin], target: Target, folder: Path, torch: str) -> list[Path]:
    """Put a wheel for each pin into a folder, where it is not there yet.

    Args:
        pins: as `resolve` returns them.
        target: what for.
        folder: it holds wheels of other targets, too.
        torch: as for `resolve`.

    Returns:
        The wheels, in the order of the pins.

    Raises:
        CourseError: if one cannot be had, or is not what the package index says it is.
    """
    there = {path: sha256(path) for path in folder.glob("*.whl")}
    tags, wheels = target.tags, []
    for pin in tqdm(pins, desc=str(target), unit="wheel"):
        wheel = next((path for path, checksum in there.items() if _is_wheel_of(path, pin, tags)
                      and checksum in pin.hashes), None)
        wheels.append(wheel or _download(pin, target, folder, torch))
    return wheels


def _is_wheel_of(path: Path, pin: Pin, tags: set[Tag]) -> bool:
    name, version, _, its_tags = parse_wheel_filename(path.name)
    return name == pin.name and version == Version(pin.version) and not tags.isdisjoint(its_tags)


def _download(pin: Pin, target: Target, folder: Path, torch: str) -> Path:
    with tempfile.TemporaryDirectory(dir=folder) as own:  # so that what is there under its name is whole
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
                   "--implementation", "cp", "--python-version", target.python, "--dest", own,
                   *(f"--platform={platform}" for platform in SYSTEMS[target.system].platforms),
                   f"{pin.name}=={pin.version}"]
        if torch and pin.name == "torch":
            command += ["--find-links" if Path(torch).is_dir() else "--extra-index-url", _address(torch)]
        run = subprocess.run(command, text=True, encoding="utf-8", capture_output=True, check=False)
        wheel = next(Path(own).glob("*.whl"), None)
        if run.returncode or wheel is None:
            raise CourseError(f"There is no wheel of {pin.name} {pin.version} for {target}: {_last(run.stderr)}. Run "
                             "the same command again if the network was gone, it goes on; else take another Python.")
        if sha256(wheel) not in pin.hashes:
            raise CourseError(f"{wheel.name} came damaged, or is another than the package index says: run the same "
                             "command again, it goes on.")
        return wheel.replace(folder / wheel.name)


def sha256(path: Path) -> str:
    """The checksum of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("WARNING")]
    return lines[-1] if lines else "it says nothing"
