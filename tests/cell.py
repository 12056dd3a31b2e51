"""A cell of a learner's notebook, run for what it defines."""

from __future__ import annotations

import importlib
from typing import Any


def run(source: str, exercise_id: str, name: str) -> Any:
    """What a cell defines under a name. It has at hand what the chapter's module has; annotations are not read.

    Args:
        source: of the cell.
        exercise_id: names the chapter.
        name: of what is wanted.
    """
    chapter = int(exercise_id.partition(".")[0])
    namespace = dict(vars(importlib.import_module(f"course_utils.exercises.chapters.chapter_{chapter:02}")))
    defined: dict[str, Any] = {}
    exec(compile(source, "cell", "exec", flags=annotations.compiler_flag), namespace, defined)
    namespace.update(defined)  # a function looks its names up there
    assert name in defined, f"{exercise_id}: the check is of {name}, and the cell or solution defines {list(defined)}"
    return defined[name]
