"""An exercise: a task whose answer is a function, its solution, and what tells a right answer from a wrong one.

An exercise stands in `chapters/chapter_NN.py`, in the tuple `EXERCISES`: its solution, which the notebook shows, a
function that tests any answer by what it does, the wrong answers that were foreseen, and right ones in other styles.
That the check can tell them apart is proven by a test, which also changes the solution in many small ways.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from course_utils.exercises import lookup

Answer = Callable[..., Any]


class NotYet(Exception):
    """An answer is not right yet; its text is the remark that the learner reads after NOT YET."""


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Args:
        id: chapter and number, such as "4.1".
        title: a few words.
        solution: the function that the notebook shows as the solution.
        verify: tests an answer; returns None if it is right, otherwise a kind hint of one or two sentences,
            which it may also raise as `NotYet`.
        wrong: foreseen wrong answers, each with a piece of the hint that `verify` gives for it, and for it alone.
        also_wrong: further answers that must not pass, whatever they are told.
        right: answers in other styles than the solution's that must pass.
        equivalent: changes of the solution that leave it right, by their names in `tests/mutations.py`, and why each
            one does.
        refused: forms of a right result, by their names in `tests/forms.py`, that must not pass, and why.
        seconds: how long the check of an answer may take before it is stopped.
    """

    id: str
    title: str
    solution: Answer
    verify: Callable[[Answer], str | None]
    wrong: tuple[tuple[Answer, str], ...]
    also_wrong: tuple[Answer, ...] = ()
    right: tuple[Answer, ...] = ()
    equivalent: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 10.0


def find_exercise(exercise_id: str) -> Exercise:
    """The exercise with this id; its chapter's module is imported only now.

    Raises:
        InputError: if there is none.
    """
    exercise: Exercise = lookup.find("exercise", exercise_id)
    return exercise


def solution_source(exercise_id: str) -> str:
    """The source of an exercise's solution, as the notebook shows it.

    Raises:
        InputError: if there is no such exercise.
    """
    return textwrap.dedent(inspect.getsource(find_exercise(exercise_id).solution)).rstrip()
