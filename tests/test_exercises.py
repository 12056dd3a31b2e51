"""Every exercise: its stub, its solution as the page shows it, its foreseen wrong answers; and `check` itself."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from types import ModuleType

import pytest

from course_utils import exercises
from course_utils.errors import InputError
from course_utils.exercises import Exercise, check, solution_source
from course_utils.exercises.exercise import find_exercise

CHAPTERS = [
    importlib.import_module(f"course_utils.exercises.{module.name}")
    for module in pkgutil.iter_modules(exercises.__path__) if module.name.startswith("chapter_")
]
ALL = [(chapter, exercise) for chapter in CHAPTERS for exercise in chapter.EXERCISES]


def stub(*args, **kwargs):
    raise NotImplementedError


@pytest.fixture(autouse=True)
def as_a_learner(monkeypatch):
    monkeypatch.delenv("COURSE_STRICT", raising=False)


@pytest.mark.parametrize(("chapter", "exercise"), ALL, ids=lambda value: getattr(value, "id", ""))
class TestEveryExercise:
    def test_is_found_by_its_id(self, chapter, exercise):
        number = chapter.__name__.rpartition("_")[2]
        assert exercise.id.split(".")[0] == str(int(number)) and find_exercise(exercise.id) is exercise

    def test_stub_is_not_started(self, chapter, exercise, capsys):
        check(exercise.id, stub)
        assert capsys.readouterr().out == f"NOT STARTED {exercise.id} {exercise.title}\n"

    def test_solution_passes_as_shown(self, chapter, exercise, capsys):
        """The text of the page, run as a learner would paste it, not the function it was taken from."""
        namespace = dict(vars(chapter))
        exec(solution_source(exercise.id), namespace)
        check(exercise.id, namespace[exercise.solution.__name__])
        assert capsys.readouterr().out == f"PASSED {exercise.id} {exercise.title}\n"

    def test_each_wrong_answer_has_its_own_hint(self, chapter, exercise, capsys):
        hints = []
        for answer, fragment in exercise.wrong:
            check(exercise.id, answer)
            line = capsys.readouterr().out
            assert line.startswith(f"NOT YET {exercise.id} {exercise.title}: ") and fragment in line
            assert " raised " not in line, f"a foreseen answer deserves more than its error: {line}"
            hints.append(line)
        assert len(set(hints)) == len(hints) >= 3


def test_ids_are_unique():
    ids = [exercise.id for _, exercise in ALL]
    assert len(set(ids)) == len(ids)


def double(x: int) -> int:
    """Twice a number."""
    return 2 * x


@pytest.fixture
def chapter_98(monkeypatch):
    """A chapter with one exercise, 98.1, that only this file has."""
    def verify(answer):
        return None if answer(3) == 6 else "Try it with 3: twice 3 is 6."

    name = "course_utils.exercises.chapter_98"
    module = ModuleType(name)
    module.EXERCISES = (Exercise("98.1", "Twice", double, verify, ()),)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    monkeypatch.setitem(sys.modules, name, module)


def returns_nothing(x):
    x * 2


def raises(x):
    raise ValueError(f"no {x}\nat all")


@pytest.mark.parametrize(("answer", "line"), [
    (double, "PASSED 98.1 Twice"),
    (stub, "NOT STARTED 98.1 Twice"),
    (returns_nothing, "NOT YET 98.1 Twice: Try it with 3: twice 3 is 6."),
    (raises, "NOT YET 98.1 Twice: calling it, or using what it returned, raised ValueError: no 3 at all"),
    (6, "NOT YET 98.1 Twice: got int, not a function. Pass the function itself, without parentheses."),
])
def test_check_says_where_a_learner_stands(chapter_98, capsys, monkeypatch, answer, line):
    check("98.1", answer)
    assert capsys.readouterr().out == line + "\n"
    monkeypatch.setenv("COURSE_STRICT", "1")
    if answer is double:
        check("98.1", answer)
    else:
        with pytest.raises(AssertionError) as error:
            check("98.1", answer)
        assert str(error.value) == line


def test_solution_source_is_the_function(chapter_98):
    assert solution_source("98.1") == 'def double(x: int) -> int:\n    """Twice a number."""\n    return 2 * x'


@pytest.mark.parametrize(("exercise_id", "known"), [
    ("98.2", "chapter 98 has 98.1"), ("97.1", "chapter 97 has no exercises"), ("x", "chapter x has no exercises"),
    ("../98.1", "has no exercises"),
])
def test_unknown_id(chapter_98, exercise_id, known):
    with pytest.raises(InputError, match=known):
        check(exercise_id, double)
