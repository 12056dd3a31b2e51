"""What a learner has passed and tried, kept in a plain JSON file of the learner's own.

The file is `.course-utils/progress.json` in the home folder. The environment variable COURSE_PROGRESS names another
one, such as one on a drive that outlives the machine; if it is empty, nothing is kept. With COURSE_PROGRESS_DETAILS=0
it is only kept what was passed, and after how many tries: no times, no remarks, no answers to questions. What can be
noted stands in `record.py`; the learner is told of it once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from course_utils.errors import InputError
from course_utils.exercises.record import Attempts, Choices, Progress, now, parse_record, plain_record
from course_utils.file_lock import FileLock
from course_utils.files import json_writer, write_atomically
from course_utils.handed_over import read_handed_over, read_small, write_handed_over
from course_utils.language import gettext, noted

_KIND = noted("the progress in this course")
_SAYS_THAT_IT_WAITS, _LONGEST_WAIT, _BETWEEN_TRIES = 1.0, 20.0, 0.02  # seconds
_MOST_LETTERS = 300  # of a remark
_MOST_CHOICES = 20  # of one question: who goes on choosing after that is playing


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
    return read_handed_over(path, parse_record, _KIND)


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
    progress = replace(own_progress(), name=name, told=False)
    write_handed_over(path, plain_record(progress) | {"date": now()}, parse_record, _KIND)
    return progress


def record_result(exercise_id: str, passed: bool, remark: str = "") -> str:
    """Note that an answer was tried. What was passed stays so, and what is tried after that is not noted.

    Args:
        exercise_id: such as "4.1".
        passed: whether the answer did.
        remark: what the learner was told about it.

    Returns:
        What to tell the learner: of trouble, or the first time what is noted; otherwise an empty string. An exercise
        is no place for an error.
    """
    def renewed(before: Attempts, details: bool) -> Attempts:
        at = now()
        after = replace(before, passed=at) if passed else replace(before, tries=before.tries + 1)
        if details:
            after = replace(after, first=before.first or at, last=at,
                            remark=before.remark if passed else remark[:_MOST_LETTERS])
        return after

    return _note_exercise(exercise_id, renewed)


def note_not_started(exercise_id: str) -> str:
    """Note that a learner came by an exercise, and its check said NOT STARTED.

    Returns:
        As `record_result` does.
    """
    return _note_exercise(exercise_id, lambda before, details: replace(before, seen=before.seen or now())
                          if details and before == Attempts() else before)


def note_solution_shown(exercise_id: str) -> str:
    """Note that a learner had the solution shown before the own answer passed.

    Returns:
        As `record_result` does.
    """
    return _note_exercise(exercise_id, lambda before, details: replace(before, shown=before.shown or now())
                          if details else before)


def note_choice(question_id: str, letter: str, right: bool) -> str:
    """Note which option of a quick question a learner chose.

    Args:
        question_id: such as "4.A".
        letter: of the option, A to D.
        right: whether it is the right one.

    Returns:
        As `record_result` does.
    """
    def renewed(progress: Progress, details: bool) -> None:
        before = progress.questions.get(question_id)
        if details and (before is None or len(before.letters) < _MOST_CHOICES):
            letters, when = (before.letters, before.right) if before else ("", None)
            progress.questions[question_id] = Choices(letters + letter, when or (now() if right else None))

    return _note(renewed)


def _note_exercise(exercise_id: str, renewed: Callable[[Attempts, bool], Attempts]) -> str:
    """Args: renewed: the new record, from the one before it and whether details are wanted; not asked after a pass."""
    def change(progress: Progress, details: bool) -> None:
        before = progress.exercises.get(exercise_id, Attempts())
        if before.passed is None and (after := renewed(before, details)) != before:
            progress.exercises[exercise_id] = after

    return _note(change)


def _note(change: Callable[[Progress, bool], None]) -> str:
    """Change the progress of whoever runs this, and tell the learner the first time; see `record_result`."""
    try:
        path, details = progress_file(), os.environ.get("COURSE_PROGRESS_DETAILS", "").strip() != "0"
        if path is None:
            return ""
        if "COURSE_PROGRESS" not in os.environ:  # a folder that someone named may be a drive yet to be mounted
            path.parent.mkdir(exist_ok=True)
        with _alone(path):
            progress, trouble = _read_or_put_aside(path)
            before = plain_record(progress)
            change(progress, details)
            if plain_record(progress) == before:
                return trouble
            if details and not progress.told:
                progress, trouble = replace(progress, told=True), " ".join(filter(None, [trouble, _notice(path)]))
            write_atomically(path.parent, {path.name: json_writer(plain_record(progress))})
            return trouble
    except InputError as error:
        return str(error)
    except OSError as error:
        return gettext("This was not added to your progress in {path!r} ({strerror}). The environment variable "
                       "COURSE_PROGRESS names another file; if it is empty, none is kept.").format(
            path=str(path), strerror=error.strerror)


def _notice(path: Path) -> str:
    return gettext("(Said once: your progress is kept in the file {path!r}: when you try an exercise and what its "
                   "check says last, which answers to questions you choose, and whether you have a solution shown. It "
                   "is sent nowhere; whoever can read the file, such as the instructor on a class's computers, can see "
                   "it. `%env COURSE_PROGRESS_DETAILS=0` in a cell leaves only what you pass and after how many "
                   "tries.)").format(path=str(path))


def _read_or_put_aside(path: Path) -> tuple[Progress, str]:
    try:
        return read_small(path, parse_record, _KIND), ""
    except FileNotFoundError:
        return Progress({}), ""
    except ValueError as error:
        damage, number = str(error), 1
        while (aside := path.with_name(f"{path.name}.aside-{number}")).exists():
            number += 1
        path.rename(aside)
        return Progress({}), gettext("{path!r} {damage}. It is now {name!r}, and a new one was begun.").format(
            path=str(path), damage=damage, name=aside.name)


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
                print(gettext("Waiting for another notebook or process to let go of {path!r}, where your progress is "
                              "kept, for {longest_wait:.0f} seconds at most ...").format(
                    path=str(path), longest_wait=_LONGEST_WAIT), flush=True)
        time.sleep(_BETWEEN_TRIES)
