"""Where a chapter's exercises and questions stand: in `chapter_NN.py` and `questions_NN.py` below `chapters`.

A chapter's module is imported only when it is asked for, since some bring half of the package with them.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
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
    known = ", ".join(candidate.id for candidate in candidates) or gettext("none")
    what = gettext("exercise") if kind == "exercise" else gettext("question")
    raise InputError(gettext("There is no {what} {wanted!r}: chapter {number} has {known}. Use the id that stands "
                             "above it.").format(what=what, wanted=wanted, number=number, known=known))
