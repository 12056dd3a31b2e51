"""Files as they should be handled: read with a clear error, written whole or not at all, never unpickled."""

from __future__ import annotations

import json
import os
import re
import reprlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils.errors import CheckpointError, InputError
from course_utils.json_text import parse_json
from course_utils.language import gettext

if TYPE_CHECKING:
    from torch import Tensor


def check_path(path: object, name: str, kind: str) -> None:
    """Make sure that an argument can be the path of a file or folder, which need not be there.

    Args:
        path: the argument.
        name: what it is called.
        kind: what it shall be the path of, such as "a folder".

    Raises:
        InputError: if it is neither text nor a path.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(gettext("{name} is {path}: give the name of {kind}.").format(
            name=name, path=reprlib.repr(path), kind=kind))


def describe_damage(path: Path) -> str:
    """Say what a file that cannot be read as what its name promises seems to be, as the end of a sentence."""
    with path.open("rb") as file:
        start = file.read(200).lstrip()
    if not start:
        return gettext("is empty")
    if start.startswith(b"version https://git-lfs"):
        return gettext("is a git-LFS pointer, a note in place of the file (`git lfs pull` fetches the file itself)")
    if start.startswith(b"<"):
        return gettext("is an HTML page, such as the login or error page of a proxy, saved under that name")
    return gettext("is damaged or cut short")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        CheckpointError: if there is no such file, or it holds something else; says what it seems to be.
    """
    if not path.is_file():
        raise CheckpointError(gettext("There is no {name} in {parent!r}: give the folder of a model in Hugging Face "
                                      "layout.").format(name=path.name, parent=str(path.parent)))
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(gettext("{path!r} {describe_damage}, not JSON ({error}): fetch the file again.").format(
            path=str(path), describe_damage=describe_damage(path), error=error)) from error
    if not isinstance(content, dict):
        raise CheckpointError(gettext("{path!r} holds a JSON {kind} instead of an object: fetch the file "
                                      "again.").format(path=str(path), kind=type(content).__name__))
    return content


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file, memory-mapped.

    Raises:
        CheckpointError: if it holds something else; says what it seems to be.
    """
    # These bring PyTorch, which takes seconds, and the other functions need none of it.
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(gettext("{path!r} {describe_damage}, not a safetensors file ({error}): delete it and "
                                      "fetch it again.").format(
            path=str(path), describe_damage=describe_damage(path), error=error)) from error


def json_writer(content: Mapping[str, Any]) -> Callable[[Path], object]:
    """What writes an object as JSON, for `write_atomically`."""
    text = json.dumps(dict(content), indent=2, ensure_ascii=False) + "\n"
    return lambda path: path.write_text(text, encoding="utf-8")


def write_atomically(folder: Path, writers: Mapping[str, Callable[[Path], object]]) -> None:
    """Write each file under a temporary name beside its own, then rename all; on failure, none."""
    temporary = {name: folder / f".{name}.{os.getpid()}.tmp" for name in writers}
    try:
        for name, write in writers.items():
            write(temporary[name])
            with temporary[name].open("r+b") as file:
                os.fsync(file.fileno())  # else a crash could leave the new name with no content
            temporary[name].chmod(0o644)  # safetensors lets nobody but the owner read it
        for name, path in temporary.items():
            os.replace(path, folder / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def remove_scratch(folder: Path) -> None:
    """Remove what `write_atomically` could not, in processes that were killed. Nobody else may be writing there now."""
    for path in folder.glob(".*.tmp"):
        if re.fullmatch(r"\..+\.\d+\.tmp", path.name):
            with suppress(OSError):  # it stays, which does no harm
                path.unlink()
