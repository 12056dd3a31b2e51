"""C files -> functions: compiled with the C compiler that is there, kept in the user's cache, loaded.

A library is kept under a hash of everything it depends on: the sources, the flags, and what the compiler defines for
them, which names its version and what this processor can do. So another compiler or processor gets a library of its
own, also where computers share a home folder. Beside it lies its checksum, since loading half a library could end the
process. Left out: Windows, whose compilers take other flags.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from course_utils.files import write_atomically
from course_utils.language import gettext

SOURCES = Path(__file__).resolve().parent
TIME_LIMIT = 60.0  # seconds; it takes about one
_FLAGS = ("-O2", "-std=gnu11", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-Wno-psabi")
# Ways to multiply bytes, the fastest first, each with what the compiler defines on processors that can.
INSTRUCTION_SETS = {
    "AVX512_VNNI": ("__AVX512VNNI__", "__AVX512BW__"),
    "AVX_VNNI": ("__AVXVNNI__", "__AVX2__", "__FMA__"),
    "AVX2": ("__AVX2__", "__FMA__"),
    "ARM_DOT": ("__ARM_FEATURE_DOTPROD",),
    "PLAIN": (),
}


class BuildError(Exception):
    """A kernel cannot be had; the message is the reason, without a full stop."""


@dataclass(frozen=True)
class Compiler:
    """A C compiler, and what it knows of this processor.

    Attributes:
        command: how it is called, with the flags that all kernels share.
        definitions: what it defines with them, which names its version and the processor's abilities.
    """

    command: tuple[str, ...]
    definitions: str

    @property
    def instruction_sets(self) -> list[str]:
        """The ways to multiply bytes that this processor has, the fastest first; "PLAIN", the last, all have."""
        defined = {line.split()[1] for line in self.definitions.splitlines() if line.startswith("#define ")}
        return [name for name, needed in INSTRUCTION_SETS.items() if defined.issuperset(needed)]


def find_compiler() -> Compiler:
    """The first C compiler there is.

    Raises:
        BuildError: if there is none, or it does not work.
    """
    if sys.platform == "win32":
        raise BuildError("they are made for Linux and macOS")
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if found is None:
        raise BuildError("there is no C compiler (cc, gcc or clang)")
    processor = "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native"
    command = (found, *_FLAGS, processor)
    return Compiler(command, _run((*command, "-dM", "-E", "-x", "c", os.devnull)))


def kernel_folder() -> Path:
    """Where libraries are kept: `course-utils/kernels` in what XDG_CACHE_HOME names, else in `~/.cache`.

    Raises:
        BuildError: if there is no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "course-utils" / "kernels"
    except RuntimeError as error:
        raise BuildError("there is no home folder to keep them in, and XDG_CACHE_HOME names no other") from error


def load(name: str, compiler: Compiler, instruction_set: str) -> ctypes.CDLL:
    """The library of a kernel, compiled where the cache has none or a broken one.

    Args:
        name: of its file in `SOURCES`, without the suffix.
        compiler: of `find_compiler`.
        instruction_set: one of `compiler.instruction_sets`.

    Raises:
        BuildError: if compiling or loading fails.
    """
    command = (*compiler.command, "-shared", f"-D{instruction_set}")
    content = hashlib.sha256("\0".join((*command, compiler.definitions)).encode())
    for source in (SOURCES / f"{name}.c", *sorted(SOURCES.glob("*.h"))):
        content.update(source.read_bytes() + b"\0")
    file = kernel_folder() / f"{name}-{content.hexdigest()[:32]}.so"
    checksum = file.with_suffix(".sha256")
    try:
        if checksum.read_text(encoding="ascii") == hashlib.sha256(file.read_bytes()).hexdigest():
            return ctypes.CDLL(str(file))
    except (OSError, ValueError):  # not there yet, or broken
        pass
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, file.name)
        _run((*command, str(SOURCES / f"{name}.c"), "-o", str(built), "-lm"))
        library = built.read_bytes()
        digest = hashlib.sha256(library).hexdigest()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file.parent, {file.name: lambda to: to.write_bytes(library),
                                           checksum.name: lambda to: to.write_text(digest, encoding="ascii")})
            return ctypes.CDLL(str(file))
        except OSError:  # a cache that cannot be written, or of which no program may be run
            pass
        try:
            return ctypes.CDLL(str(built))  # once loaded, it needs its file no more
        except OSError as error:
            raise BuildError(gettext("what {command} made cannot be loaded ({error})").format(
                command=compiler.command[0], error=error)) from error


def _run(command: tuple[str, ...]) -> str:
    """What a compiler prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIME_LIMIT,
                              stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise BuildError(gettext("{command} was not ready within {time_limit:.0f} seconds").format(
            command=command[0], time_limit=TIME_LIMIT)) from error
    except OSError as error:
        raise BuildError(gettext("{command} cannot be run ({strerror})").format(
            command=command[0], strerror=error.strerror)) from error
    if done.returncode != 0:
        lines = done.stderr.splitlines() or [gettext("it gives no reason")]
        said = next((line for line in lines if "error" in line), lines[0])
        raise BuildError(f"{command[0]} failed ({said.strip()[:200]})")
    return done.stdout
