"""What a learner has passed, kept in a plain JSON file of the learner's own.

The file is `.course-utils/progress.json` in the home folder. The environment variable COURSE_PROGRESS names another
one, such as one on a drive that outlives the machine; if it is empty, nothing is kept.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from course_utils.errors import InputError
from course_utils.file_lock import FileLock
from course_utils.files import describe_damage, json_writer, write_atomically
from course_utils.json_text import parse_json
from course_utils.language import gettext
from course_utils.number import whole_number

FORMAT = "course-utils progress"
_SAYS_THAT_IT_WAITS, _LONGEST_WAIT, _BETWEEN_TRIES = 1.0, 20.0, 0.02  # seconds
_LONGEST = 1_000_000  # bytes of a file; a whole course takes a hundredth


@dataclass(frozen=True)
class Attempts:
    """How far a learner is with one exercise.

    Attributes:
        tries: answers that were not right yet, before the first that passed.
        passed: when it passed, ISO 8601 in UTC; None if it did not so far.
    """

    tries: int = 0
    passed: str | None = None

    def __post_init__(self) -> None:
        if whole_number(self.tries) is None or self.tries < 0:
            raise ValueError(gettext("tries is {tries!r}").format(tries=self.tries))
        if self.passed is not None:
            datetime.fromisoformat(self.passed)


@dataclass(frozen=True)
class Progress:
    """How far a learner is.

    Attributes:
        exercises: a record for each exercise that was tried, by id.
        name: of the learner, where the file was exported under one.
    """

    exercises: dict[str, Attempts]
    name: str = ""

    def passed(self, exercise_id: str) -> bool:
        """Whether an exercise was passed."""
        return self.exercises.get(exercise_id, Attempts()).passed is not None


def progress_file() -> Path | None:
    """Where the progress of whoever runs this is kept; None if it is not.

    Raises:
        InputError: if that is in a home folder and there is none.
    """
    name = os.environ.get("COURSE_PROGRESS", "~/.course-utils/progress.json").strip()
    try:
        return Path(name).expanduser().resolve() if name else None  # what a link points to, so that it stays a link
    except RuntimeError as error:
        raise InputError(gettext("There is no home folder for {name!r}: set the environment variable COURSE_PROGRESS "
                                 "to another file.").format(name=name)) from error


def own_progress() -> Progress:
    """The progress of whoever runs this; empty before the first exercise, and where nothing is kept.

    Raises:
        InputError: if the file cannot be read, or is no progress.
    """
    path = progress_file()
    try:
        return Progress({}) if path is None else read_progress(path)
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return Progress({})
        raise


def read_progress(path: Path) -> Progress:
    """The progress in a file: a learner's own, or one that was exported.

    Raises:
        InputError: if it cannot be read, or is no progress.
    """
    try:
        return _parse(_content(path))
    except OSError as error:
        raise InputError(gettext("{path!r} cannot be read: "
                                 "{strerror}.").format(path=str(path), strerror=error.strerror)) from error
    except ValueError as error:
        raise InputError(gettext("{path!r} {damage}: export it again, or give another "
                                 "file.").format(path=str(path), damage=_damage(path))) from error


def export_progress(path: Path, name: str) -> Progress:
    """Write the progress of whoever runs this to a file for an instructor, and hand it back.

    Args:
        path: where to; an earlier export is replaced.
        name: what the instructor is to call the learner; may be empty.

    Raises:
        InputError: if nothing is kept, the progress cannot be read, or the file cannot be written.
    """
    if progress_file() is None:
        raise InputError("No progress is kept here, since the environment variable COURSE_PROGRESS is empty: unset it.")
    progress = replace(own_progress(), name=name)
    if path.exists():
        read_progress(path)  # anything but a progress is not to be replaced
    try:
        write_atomically(path.resolve().parent, {path.name: json_writer(
            {"format": FORMAT, "name": name, "date": _now(), "exercises": _plain(progress)})})
    except OSError as error:
        raise InputError(gettext("{path!r} cannot be written: {strerror}"
                                 ".").format(path=str(path), strerror=error.strerror)) from error
    return progress


def record_result(exercise_id: str, passed: bool) -> str:
    """Add an answer to the progress of whoever runs this. What was passed stays so.

    Returns:
        A sentence if there was trouble, otherwise an empty string: an exercise is no place for an error.
    """
    try:
        path = progress_file()
        if path is None:
            return ""
        if "COURSE_PROGRESS" not in os.environ:  # a folder that someone named may be a drive yet to be mounted
            path.parent.mkdir(exist_ok=True)
        with _alone(path):
            progress, trouble = _read_or_put_aside(path)
            before = progress.exercises.get(exercise_id, Attempts())
            if before.passed is None:
                after = replace(before, passed=_now()) if passed else replace(before, tries=before.tries + 1)
                progress.exercises[exercise_id] = after
                write_atomically(path.parent, {path.name: json_writer(
                    {"format": FORMAT, "exercises": _plain(progress)})})
            return trouble
    except InputError as error:
        return str(error)
    except OSError as error:
        return gettext("This was not added to your progress in {path!r} ({strerror}). The "
                       "environment variable COURSE_PROGRESS names another file; if it is empty, "
                       "none is kept.").format(path=str(path), strerror=error.strerror)


def _read_or_put_aside(path: Path) -> tuple[Progress, str]:
    try:
        return _parse(_content(path)), ""
    except FileNotFoundError:
        return Progress({}), ""
    except ValueError:
        damage, number = _damage(path), 1
        while (aside := path.with_name(f"{path.name}.aside-{number}")).exists():
            number += 1
        path.rename(aside)
        return Progress({}), gettext("{path!r} {damage}. It is now {name!r}, and a new one was "
                                     "begun.").format(path=str(path), damage=damage, name=aside.name)


def _content(path: Path) -> bytes:
    """What is in a file, but no more than a progress can have.

    Raises:
        OSError: if it cannot be read, or is no file: a pipe would have to be waited for.
        ValueError: if it is too large.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "It is a folder" if path.is_dir() else "It is no regular file")
    with path.open("rb") as file:
        data = file.read(_LONGEST + 1)
    if len(data) > _LONGEST:
        raise ValueError("too large")
    return data


def _parse(data: bytes) -> Progress:
    """Raises: ValueError: if it is no progress."""
    try:
        content = parse_json(data)
        if content["format"] != FORMAT or not isinstance(content.get("name", ""), str):
            raise ValueError("another format")
        exercises = {exercise_id: Attempts(**fields) for exercise_id, fields in content["exercises"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not the fields of a progress") from error
    return Progress(exercises, content.get("name", ""))


def _damage(path: Path) -> str:
    """What is wrong with a file that is no progress, as the end of a sentence."""
    if path.stat().st_size > _LONGEST:
        return gettext("is larger than any progress in this course")
    try:
        parse_json(_content(path))
    except ValueError:
        return describe_damage(path)
    return gettext("holds something else than the progress in this course")


def _plain(progress: Progress) -> dict[str, dict[str, object]]:
    return {exercise_id: asdict(kept) for exercise_id, kept in progress.exercises.items()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _alone(path: Path) -> FileLock:
    """Hold back other notebooks that would write the file now: between reading and writing their part would be lost.

    Raises:
        TimeoutError: if another one holds on to it for too long.
    """
    begun, said = time.monotonic(), False
    while True:
        try:
            return FileLock(path.with_name(f".{path.name}.lock"))  # of its own, since the file itself is replaced
        except BlockingIOError as error:
            waited = time.monotonic() - begun
            if waited > _LONGEST_WAIT:
                raise TimeoutError(error.errno, gettext("another process has been writing it for {longest_wait:.0f} "
                                                        "seconds").format(longest_wait=_LONGEST_WAIT)
                                   ) from error
            if waited > _SAYS_THAT_IT_WAITS and not said:
                said = True
                print(gettext("Waiting for another notebook or process to let go of {path!r}, "
                              "where your progress is kept, for {longest_wait:.0f} seconds at most "
                              "...").format(path=str(path), longest_wait=_LONGEST_WAIT), flush=True)
        time.sleep(_BETWEEN_TRIES)
