"""An exercise and its check.

An exercise stands in `chapter_NN.py` of this folder, in the tuple `EXERCISES`: its solution, which the notebook
shows, a function that tests any answer by what it does, and the wrong answers that were foreseen. `check` prints

    PASSED 4.1 Title
    NOT STARTED 4.1 Title
    NOT YET 4.1 Title: a hint

and raises nothing, so that "Run All" goes on; with the environment variable COURSE_STRICT=1 it raises unless passed.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from course_utils.errors import InputError

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
    chapter = exercise_id.partition(".")[0]
    name = f"course_utils.exercises.chapter_{chapter:0>2}"
    if chapter.isdecimal() and importlib.util.find_spec(name) is not None:
        exercises: tuple[Exercise, ...] = importlib.import_module(name).EXERCISES
        for exercise in exercises:
            if exercise.id == exercise_id:
                return exercise
        known = "has " + ", ".join(exercise.id for exercise in exercises)
    else:
        known = "has no exercises"
    raise InputError(f"There is no exercise {exercise_id!r}: chapter {chapter} {known}. Use the id above the exercise.")


def solution_source(exercise_id: str) -> str:
    """The source of an exercise's solution, as the notebook shows it.

    Raises:
        InputError: if there is no such exercise.
    """
    return textwrap.dedent(inspect.getsource(find_exercise(exercise_id).solution)).rstrip()


def check(exercise_id: str, answer: Answer) -> None:
    """Print whether an answer to an exercise passes, and a hint if it does not.

    Args:
        exercise_id: such as "4.1".
        answer: the learner's function itself, without parentheses.

    Raises:
        InputError: if there is no such exercise.
        AssertionError: only with COURSE_STRICT=1 in the environment, unless it passed.
    """
    exercise = find_exercise(exercise_id)
    verdict, hint = _judge(exercise, answer)
    line = f"{verdict} {exercise.id} {exercise.title}" + (f": {hint}" if hint else "")
    print(line)
    if verdict != "PASSED" and os.environ.get("COURSE_STRICT") == "1":
        raise AssertionError(line)


def _judge(exercise: Exercise, answer: Answer) -> tuple[str, str]:
    """The verdict and the hint, which is empty unless the verdict is NOT YET."""
    if not callable(answer):
        return "NOT YET", f"got {type(answer).__name__}, not a function. Pass the function itself, without parentheses."
    try:
        hint = exercise.verify(answer)
    except NotImplementedError:
        return "NOT STARTED", ""
    except Exception as error:  # whatever a learner's function does, the notebook goes on
        text = " ".join(str(error).split())
        return "NOT YET", f"calling it, or using what it returned, raised {type(error).__name__}: {text}"
    return ("PASSED", "") if hint is None else ("NOT YET", hint)
