"""Small JSON files that people hand to one another or keep: read with a limit, and one sentence on what is wrong.

Whoever reads one did not write it: it may be a picture, half a file, or a pipe that never ends.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from course_utils.errors import InputError
from course_utils.files import describe_damage, json_writer, write_atomically
from course_utils.json_text import parse_json
from course_utils.language import gettext

Content = TypeVar("Content")
LONGEST = 1_000_000  # bytes; none comes near


def read_handed_over(path: Path, parse: Callable[[Any], Content], what: str) -> Content:
    """What is in a file, as `read_small` reads it.

    Raises:
        InputError: if it cannot be read, or holds something else.
    """
    try:
        return read_small(path, parse, what)
    except OSError as error:
        raise InputError(gettext("{path!r} cannot be read ({strerror}): give a file that can.").format(
            path=str(path), strerror=error.strerror)) from error
    except ValueError as error:
        raise InputError(gettext("{path!r} {damage}: have it written again, or give another file.").format(
            path=str(path), damage=error)) from error


def write_handed_over(path: Path, content: Mapping[str, Any], parse: Callable[[Any], object], what: str) -> None:
    """Write a file for somebody else; an earlier one of its kind is replaced, whole or not at all.

    Args:
        path: of the file.
        content: what goes into it as JSON.
        parse, what: as `read_small` takes them.

    Raises:
        InputError: if it cannot be written, or something else is there under that name.
    """
    if path.exists():
        read_handed_over(path, parse, what)
    try:
        write_atomically(path.resolve().parent, {path.name: json_writer(content)})
    except OSError as error:
        raise InputError(gettext("{path!r} cannot be written ({strerror}): give a file in another folder.").format(
            path=str(path), strerror=error.strerror)) from error


def read_small(path: Path, parse: Callable[[Any], Content], what: str) -> Content:
    """What is in a file.

    Args:
        path: of the file.
        parse: makes the content of what the JSON says. A `ValueError`, `KeyError`, `TypeError` or `AttributeError`
            says that it is none.
        what: what the file holds, in English, such as "a computer's check".

    Raises:
        OSError: if it cannot be read, or is no file: a pipe would have to be waited for.
        ValueError: if it holds something else; its text is the end of a sentence about the file.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, gettext("it is a folder") if path.is_dir() else gettext("it is no regular file"))
    with path.open("rb") as file:
        data = file.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise ValueError(gettext("is larger than {what} can be").format(what=gettext(what)))
    try:
        content = parse_json(data)
    except ValueError as error:
        raise ValueError(describe_damage(path)) from error
    try:
        return parse(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(gettext("holds something else than {what}").format(what=gettext(what))) from error
