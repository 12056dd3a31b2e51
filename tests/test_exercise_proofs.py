"""Every check can tell wrong from right, by machine: wrong answers by the dozen are not told PASSED, right ones are.

Wrong are the mistakes that an exercise foresees, each with its own remark, those it lists besides, and its solution
with one small change (`mutations.py`). Right are the answers it lists in other styles, and its solution's results in
other forms (`forms.py`). `pytest -s` prints the counts of each exercise; the summary at the end says how many there are
in all.
"""

from __future__ import annotations

import time
from dataclasses import astuple, dataclass, fields

import pytest
import torch
from cell import run
from forms import FORMS, in_form
from mutations import mutations

from course_utils.exercises import lookup, solution_source
from course_utils.exercises.checking import judge
from course_utils.exercises.exercise import Answer, Exercise

LEAST_FORESEEN, LEAST_WRONG, LEAST_RIGHT = 3, 8, 4
LONG = 120.0  # seconds that a right answer has, however busy the machine is


@dataclass
class Counts:
    """What was tried on the check of an exercise."""

    exercise: str
    foreseen: int = 0  # mistakes, each with a remark of its own
    also_wrong: int = 0
    mutations: int = 0  # of the solution, that ran and were told what is wrong
    raised: int = 0  # mutations that ended in an error, which any check notices
    equivalent: int = 0  # mutations that leave the solution right
    right: int = 0
    forms: int = 0  # of the solution's results
    refused: int = 0  # forms that the task does not allow
    seconds: float = 0.0

    @property
    def wrong_ones(self) -> int:
        """How many wrong answers were told so, without those that raised."""
        return self.foreseen + self.also_wrong + self.mutations

    @property
    def right_ones(self) -> int:
        """How many right answers passed, beside the solution itself."""
        return self.right + self.forms


def verdict(exercise: Exercise, answer: Answer, seconds: float | None = None) -> tuple[str, str]:
    """Of `judge`; each answer finds random numbers as the first one did."""
    torch.manual_seed(0)
    return judge(exercise, answer, seconds)


def prove(exercise: Exercise, counts: Counts) -> list[str]:
    """Count what the check of an exercise can tell apart, and return what it cannot, each in a sentence."""
    start = time.perf_counter()
    lacks = [f"The solution is told {told}: {hint}" for told, hint in [verdict(exercise, exercise.solution, LONG)]
             if told != "PASSED"]
    seconds = max(2.0, 10 * (time.perf_counter() - start))  # a mutation without an end takes all of it
    lacks += _wrong(exercise, counts, seconds)
    lacks += _mutated(exercise, counts, seconds)
    lacks += _right(exercise, counts)
    if verdict(exercise, exercise.solution, LONG)[0] != "PASSED":
        lacks.append("After all of this the solution does not pass: an answer has changed what the check works with.")
    if counts.wrong_ones < LEAST_WRONG:
        lacks.append(f"Only {counts.wrong_ones} wrong answers; {LEAST_WRONG} are asked for. Add some to `also_wrong`.")
    if counts.right_ones < LEAST_RIGHT:
        lacks.append(f"Only {counts.right_ones} right answers; {LEAST_RIGHT} are asked for. Add some to `right`.")
    counts.seconds = time.perf_counter() - start
    return lacks


def _wrong(exercise: Exercise, counts: Counts, seconds: float) -> list[str]:
    lacks, hints = [], set()
    for number, (answer, fragment) in enumerate(exercise.wrong):
        told, hint = verdict(exercise, answer)
        counts.foreseen += 1
        if told != "NOT YET" or fragment not in hint or " raised " in hint or hint in hints:
            lacks.append(f"wrong[{number}], foreseen with {fragment!r}, which no other is told, is told {told}: {hint}")
        hints.add(hint)
    if len(hints) < LEAST_FORESEEN:
        lacks.append(f"Only {len(hints)} remarks; {LEAST_FORESEEN} are asked for. Foresee more in `wrong`.")
    for number, answer in enumerate(exercise.also_wrong):
        counts.also_wrong += 1
        if verdict(exercise, answer, seconds)[0] == "PASSED":
            lacks.append(f"also_wrong[{number}] is told PASSED.")
    return lacks


def _mutated(exercise: Exercise, counts: Counts, seconds: float) -> list[str]:
    lacks, left = [], dict(exercise.equivalent)
    for mutation in mutations(solution_source(exercise.id)):
        answer = run(mutation.source, exercise.id, exercise.solution.__name__)
        told, hint = verdict(exercise, answer, LONG if mutation.name in left else seconds)
        if told == "PASSED" and mutation.name in left:
            counts.equivalent += 1
            del left[mutation.name]
        elif told == "PASSED":
            lacks.append(f"A mutation passes, which is a hole, or belongs in `equivalent`: {mutation.name}")
        elif " raised " in hint:
            counts.raised += 1
        else:
            counts.mutations += 1
    return lacks + [f"`equivalent` names no mutation that passes: {name}" for name in left]


def _right(exercise: Exercise, counts: Counts) -> list[str]:
    lacks = []
    for number, answer in enumerate(exercise.right):
        told, hint = verdict(exercise, answer, LONG)
        counts.right += 1
        if told != "PASSED":
            lacks.append(f"right[{number}] is told {told}: {hint}")
    for name, form in FORMS.items():
        answer, changed = in_form(exercise.solution, form)
        told, hint = verdict(exercise, answer, LONG)
        if name in exercise.refused:
            counts.refused += 1
            if not changed or told == "PASSED" or " raised " in hint:
                lacks.append(f"The form {name!r} is in `refused` and is told {told}: {hint}")
        elif changed:
            counts.forms += 1
            if told != "PASSED":
                lacks.append(f"The right result as {name!r} is told {told}: {hint}")
    return lacks + [f"`refused` names no form: {name}" for name in exercise.refused if name not in FORMS]


@pytest.fixture(scope="module")
def table():
    """The counts of all exercises, printed at the end."""
    rows: list[Counts] = []
    yield rows
    print("\n" + " ".join(f"{field.name.replace('_', ' '):>10}" for field in fields(Counts)))
    for row in rows:
        print(" ".join(f"{value:10.1f}" if isinstance(value, float) else f"{value:>10}" for value in astuple(row)))


@pytest.mark.parametrize("exercise", [
    pytest.param(exercise, id=exercise.id)
    for number in lookup.chapters("exercise") for exercise in lookup.of_chapter("exercise", number)])
def test_wrong_answers_do_not_pass_and_right_ones_do(exercise, table, record_property):
    counts = Counts(exercise.id)
    lacks = prove(exercise, counts)
    table.append(counts)
    record_property("wrong and right answers", (counts.wrong_ones, counts.right_ones))
    if lacks:
        pytest.fail("\n".join((f"{exercise.id} {exercise.title}", *lacks)), pytrace=False)
