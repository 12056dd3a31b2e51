"""An exercise: a task whose answer is a function, its solution, and what tells a right answer from a wrong one.

An exercise stands in `chapter_NN.py` of this folder, in the tuple `EXERCISES`: its solution, which the notebook
shows, a function that tests any answer by what it does, and the wrong answers that were foreseen.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from course_utils.exercises import lookup

Answer = Callable[..., Any]


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Args:
        id: chapter and number, such as "4.1".
        title: a few words.
        solution: the function that the notebook shows as the solution.
        verify: tests an answer; returns None if it is right, otherwise a kind hint of one or two sentences.
        wrong: foreseen wrong answers, each with a piece of the hint that `verify` gives for it.
    """

    id: str
    title: str
    solution: Answer
    verify: Callable[[Answer], str | None]
    wrong: tuple[tuple[Answer, str], ...]


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
