"""Where a chapter's exercises and questions stand: in `chapter_NN.py` and `questions_NN.py` below `chapters`.

A chapter's module is imported only when it is asked for, since some bring half of the package with them. Whoever needs
no more than titles reads them from its source.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from functools import cache
from pathlib import Path
from typing import Any

import course_utils.exercises.chapters
from course_utils.errors import InputError
from course_utils.language import gettext

_MODULES = {"exercise": ("chapter", "EXERCISES"), "question": ("questions", "QUESTIONS")}


def chapters(kind: str) -> list[int]:
    """The numbers of the chapters that have any, in order.

    Args:
        kind: "exercise" or "question".
    """
    prefix, _ = _MODULES[kind]
    found = (re.fullmatch(rf"{prefix}_(\d\d)", module.name)
             for module in pkgutil.iter_modules(course_utils.exercises.chapters.__path__))
    return sorted(int(match.group(1)) for match in found if match)


def of_chapter(kind: str, chapter: int) -> tuple[Any, ...]:
    """The exercises or the questions of a chapter, in order; none for a chapter that has none."""
    if chapter not in chapters(kind):
        return ()
    prefix, name = _MODULES[kind]
    return tuple(getattr(importlib.import_module(f"course_utils.exercises.chapters.{prefix}_{chapter:02}"), name))


def titles(chapter: int) -> dict[str, str]:
    """The titles of a chapter's exercises by id, in order. Imports no chapter.

    Raises:
        InputError: if the chapter has no exercises.
    """
    for folder in course_utils.exercises.chapters.__path__:
        if (path := Path(folder, f"chapter_{chapter:02}.py")).is_file():
            return dict(_titles(path))
    raise InputError(gettext("Chapter {chapter!r} has no exercises: give one of {chapters}.").format(
        chapter=chapter, chapters=", ".join(map(str, chapters("exercise")))))


@cache
def _titles(path: Path) -> dict[str, str]:
    found = [(node.args[0].value, node.args[1].value) for node in ast.walk(ast.parse(path.read_bytes()))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Exercise"
             and isinstance(node.args[0], ast.Constant) and isinstance(node.args[1], ast.Constant)]
    return {str(exercise_id): str(title) for exercise_id, title
            in sorted(found, key=lambda pair: int(str(pair[0]).partition(".")[2]))}


def find(kind: str, wanted: str) -> Any:
    """The exercise or question with this id.

    Raises:
        InputError: if there is none.
    """
    number = wanted.partition(".")[0]
    candidates = of_chapter(kind, int(number)) if number.isdecimal() else ()
    for candidate in candidates:
        if candidate.id == wanted:
            return candidate
    what, none = ((gettext("exercise"), gettext("no exercises")) if kind == "exercise"
                  else (gettext("question"), gettext("no questions")))
    known = ", ".join(candidate.id for candidate in candidates) or none
    raise InputError(gettext("There is no {what} {wanted!r}: chapter {number} has {known}. Use "
                             "the id that stands above it.").format(
        what=what, wanted=wanted, number=number, known=known))
