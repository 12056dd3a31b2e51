"""Copies of the chapters that a learner works in, and how a new version of the course gets into them.

Learners who work in the course's own notebooks cannot fetch a new version of them: running a chapter changes its file.
A copy can be renewed. What a learner wrote for an exercise is put into the new chapter by the exercise's id, wherever
it stands there, and the file as it was is kept in a folder beside it.

Nothing is lost, whatever happens on the way: a file is kept before it is replaced, replaced in one step, and not at all
if somebody has written it meanwhile. A copy says in its metadata which version of the chapter it is of, and the file
`.course-utils.json` beside the copies holds what tells the course's cells from a learner's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from course_utils.errors import InputError
from course_utils.file_lock import FileLock
from course_utils.files import json_writer, remove_scratch, write_atomically
from course_utils.json_text import parse_json
from course_utils.language import gettext
from course_utils.workshop.notebook_answers import Notebook, checks, digest, parse_notebook
from course_utils.workshop.renewal import Renewal, Update, copied_version, copy_of, plan_renewal, version

_MANIFEST, _FORMAT = ".course-utils.json", "course-utils copies"
_ATTEMPTS = 3  # if somebody writes in between


def copy_chapters(source: Path, folder: Path) -> list[str]:
    """Copy the chapters that are not in a folder yet; those that are there stay as they are.

    Args:
        source: the folder with the course's notebooks.
        folder: for the copies; it is made if need be.

    Returns:
        The names of the files that were copied.

    Raises:
        InputError: if the folder is the course's own, cannot be written, or is being updated just now.
    """
    with _Copies(source, folder) as copies:
        missing = [name for name in copies.course if not (folder / name).exists()]
        copies.write_manifest([*copies.copied, *missing])  # first, so that a copy's cells are known from its beginning
        for name in missing:
            write_atomically(folder, {name: _bytes_writer(copy_of(copies.course[name], {}, {}))})
        return missing


def outdated(source: Path, folder: Path) -> list[str]:
    """The chapters that the course has in another version than the one that was copied.

    Raises:
        InputError: as `copy_chapters` does.
    """
    with _Copies(source, folder) as copies:
        parsed, _ = _parsed(copies.files())
        return copies.outdated(parsed)


def update_copies(source: Path, folder: Path) -> Update:
    """Bring the course's version of each chapter into a folder of copies, with the learner's answers.

    A chapter that is as new as the course stays as it is. Notebooks under names of the learner's own are never changed;
    if a chapter itself is not there, such as after it was renamed, the answers in them are put into the new one.

    Args:
        source: the folder with the course's notebooks.
        folder: with the copies.

    Raises:
        InputError: if there is no such folder, it is the course's own, cannot be written, is being updated just now, or
            a notebook in it is written all the time.
    """
    if not folder.is_dir():
        raise InputError(gettext("There is no folder {folder!r}: course-utils lab --copy FOLDER makes one with copies "
                                 "of the chapters.").format(folder=str(folder)))
    with _Copies(source, folder) as copies:
        for _ in range(_ATTEMPTS):
            try:
                return copies.update()
            except _WrittenMeanwhile as meanwhile:
                name = str(meanwhile)
    raise InputError(gettext("{name!r} is being written again and again: save and close the "
                             "notebooks, and update once more.").format(name=name))


class _WrittenMeanwhile(Exception):
    """A file is no longer as it was read; the text is its name."""


class _Copies:
    """A folder of copies and the course that they are of; within a `with` block nobody else updates it."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self.folder = source, folder
        self.course: dict[str, Notebook] = {}
        self.copied: list[str] = []  # the names under which chapters were copied
        self.known: set[str] = set()  # the digests of all cells that the course has, or had when it was copied
        self.versions: set[str] = set()  # of chapters, all cells of which are known
        self.kept: Path | None = None
        self.done: dict[str, Renewal] = {}

    def __enter__(self) -> _Copies:
        try:
            if self.folder.resolve() == self.source.resolve():
                raise InputError(gettext("{folder!r} holds the course's own notebooks: name another folder for your "
                                         "copies.").format(folder=str(self.folder)))
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.folder / f"{_MANIFEST}.lock")
        except BlockingIOError as error:
            raise InputError(gettext("{folder!r} is being written by another process of this kind: wait until it has "
                                     "ended.").format(folder=str(self.folder))) from error
        except OSError as error:
            raise self._unusable(error) from error
        try:
            remove_scratch(self.folder)
            self.course, damaged = _parsed({path.name: path.read_bytes()
                                            for path in sorted(self.source.glob("*.ipynb"))})
            if damaged:
                raise InputError(gettext("{damaged!r} of the course in {source!r} is no notebook: fetch the course's "
                                         "repository anew.").format(damaged=min(damaged), source=str(self.source)))
            self._read_manifest()
            self.known |= {digest(cell) for notebook in self.course.values() for cell in notebook["cells"]}
            self.versions |= set(map(version, self.course.values()))
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        self._lock.release()
        if isinstance(error, OSError):
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> InputError:
        return InputError(gettext("The copies in {folder!r} cannot be written ({strerror}): make room, or name a "
                                  "folder that is yours. Nothing was lost.").format(
            folder=str(self.folder), strerror=error.strerror))

    def _read_manifest(self) -> None:
        try:
            content = parse_json((self.folder / _MANIFEST).read_bytes())
            if content["format"] != _FORMAT:
                return
            copied, versions, known = (list(map(str, content[key])) for key in ("chapters", "versions", "cells"))
        except (OSError, ValueError, KeyError, TypeError):
            return  # there is none, or it is someone else's: only today's cells are known then
        self.copied, self.versions, self.known = copied, set(versions), set(known)

    def write_manifest(self, copied: Iterable[str]) -> None:
        """Note which chapters there are copies of, and all cells that the course has or had."""
        write_atomically(self.folder, {_MANIFEST: json_writer(
            {"format": _FORMAT, "chapters": sorted(set(copied)), "versions": sorted(self.versions),
             "cells": sorted(self.known)})})

    def outdated(self, parsed: Mapping[str, Notebook]) -> list[str]:
        """The chapters of which there is no copy of today's version among some notebooks."""
        return [name for name, notebook in self.course.items()
                if copied_version(parsed.get(name)) != version(notebook)]

    def files(self) -> dict[str, bytes]:
        """The content of all notebooks in the folder, by name.

        Raises:
            InputError: if there is something else under such a name.
        """
        paths = sorted(self.folder.glob("*.ipynb"))
        if strange := [path.name for path in paths if not path.is_file()]:
            raise InputError(gettext("{strange!r} in {folder!r} is no regular file: rename it, and try again.").format(
                strange=strange[0], folder=str(self.folder)))
        return {path.name: path.read_bytes() for path in paths}

    def update(self) -> Update:
        """See `update_copies`.

        Raises:
            _WrittenMeanwhile: if a file is no longer as it was read. What was written by then is whole.
        """
        before = self.files()
        parsed, damaged = _parsed(before)
        renewed = self.outdated(parsed)
        gone = [name for name in self.copied if name in before and name not in self.course]
        plan = plan_renewal(self.course, parsed, renewed, gone, self.known, self.versions)
        self.write_manifest([*self.copied, *self.course])  # first, as in copy_chapters
        for name in renewed:
            put_back = plan.answers.get(name, {})
            new = copy_of(self.course[name], put_back, parsed.get(name, {}))
            if name in parsed and version(parse_notebook(new)) == version(parsed[name]):
                continue  # a copy that was made by hand, or renewed before an interruption
            if name in before:
                self._keep(name, before[name])
            write_atomically(self.folder, {name: _bytes_writer(
                new, partial(self._require_unchanged, name, before.get(name)))})
            in_order = tuple(exercise_id for exercise_id in checks(self.course[name]) if exercise_id in put_back)
            self.done[name] = Renewal(name, "damaged" if name in damaged else "renewed" if name in before else "new",
                                      in_order, plan.left.get(name, 0))
        for name in gone:
            self._keep(name, before[name])
            self._require_unchanged(name, before[name])
            (self.folder / name).unlink()
            self.done[name] = Renewal(name, "gone", left=plan.left.get(name, 0))
        self.write_manifest(self.course)
        return Update(self.folder, tuple(self.done.values()), self.kept, tuple(plan.unplaced))

    def _keep(self, name: str, data: bytes) -> None:
        if self.kept is None:
            wanted, number = f"before-{time.strftime('%Y-%m-%d-%H%M%S')}", 1
            while (kept := self.folder / (wanted if number == 1 else f"{wanted}-{number}")).exists():
                number += 1
            kept.mkdir()
            self.kept = kept
        write_atomically(self.kept, {name: _bytes_writer(data)})

    def _require_unchanged(self, name: str, data: bytes | None) -> None:
        path = self.folder / name
        if (path.read_bytes() if path.exists() else None) != data:
            raise _WrittenMeanwhile(name)


def _parsed(files: Mapping[str, bytes]) -> tuple[dict[str, Notebook], set[str]]:
    """The notebooks in files, and the names of those that are damaged."""
    notebooks, damaged = {}, set()
    for name, data in files.items():
        try:
            notebooks[name] = parse_notebook(data)
        except ValueError:
            damaged.add(name)
    return notebooks, damaged


def _bytes_writer(data: bytes, check: Callable[[], object] = lambda: None) -> Callable[[Path], object]:
    """What writes a file, for `write_atomically`, and checks something at the last moment."""
    def write(path: Path) -> None:
        path.write_bytes(data)
        check()

    return write
