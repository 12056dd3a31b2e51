"""Small JSON files that people hand to one another: read with a limit, and with one sentence on what is wrong.

Whoever reads one did not write it: it may be a picture, half a file, or a pipe that never ends.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from course_utils.errors import InputError
from course_utils.files import describe_damage
from course_utils.json_text import parse_json
from course_utils.language import gettext

Content = TypeVar("Content")
LONGEST = 1_000_000  # bytes; none comes near


def read_handed_over(path: Path, parse: Callable[[Any], Content], what: str) -> Content:
    """What is in a file.

    Args:
        path: of the file.
        parse: makes the content of what the JSON says. A `ValueError`, `KeyError`, `TypeError` or `AttributeError`
            says that it is none.
        what: what the file holds, such as "a computer's check".

    Raises:
        InputError: if it cannot be read, or holds something else.
    """
    advice = gettext("ask for it once more, or give another file")
    try:
        data = _bytes(path)
    except OSError as error:
        raise InputError(gettext("{path!r} cannot be read ({strerror}): give a file that can.").format(
            path=str(path), strerror=error.strerror)) from error
    if len(data) > LONGEST:
        raise InputError(gettext("{path!r} is larger than {what} can be: {advice}.").format(
            path=str(path), what=what, advice=advice))
    try:
        content = parse_json(data)
    except ValueError as error:
        raise InputError(f"{str(path)!r} {describe_damage(path)}: {advice}.") from error
    try:
        return parse(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(gettext("{path!r} holds something else than {what}: {advice}.").format(
            path=str(path), what=what, advice=advice)) from error


def _bytes(path: Path) -> bytes:
    """The beginning of a file, one byte more than it may have.

    Raises:
        OSError: if it cannot be read, or is no file: a pipe would have to be waited for.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a folder" if path.is_dir() else "it is no regular file")
    with path.open("rb") as file:
        return file.read(LONGEST + 1)
