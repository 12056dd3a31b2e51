"""Every exercise: its stub and its solution as the page shows them, its foreseen wrong answers; and `check` itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import torch
from cell import run
from torch import Tensor, nn

from course_utils.errors import InputError
from course_utils.exercises import check, lookup, solution_source
from course_utils.exercises.exercise import find_exercise

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
CHAPTERS = lookup.chapters("exercise")
ALL = [exercise for number in CHAPTERS for exercise in lookup.of_chapter("exercise", number)]


def cells(chapter: int) -> list[nbformat.NotebookNode]:
    """The cells of a chapter's notebook as committed."""
    [path] = NOTEBOOKS.glob(f"{chapter:02}_*.ipynb")
    return nbformat.read(path, as_version=4).cells


def checks(chapter: int) -> Iterator[tuple[str, str, str]]:
    """Each check of a notebook: the id, the name that is checked, and the source of the cell above it, the stub."""
    for before, cell in zip(cells(chapter), cells(chapter)[1:]):
        for exercise_id, name in re.findall(r"^check\(\"([\w.]+)\", (\w+)\)", cell.source, re.MULTILINE):
            yield exercise_id, name, before.source


def stub(*args, **kwargs):
    raise NotImplementedError


@pytest.fixture(autouse=True)
def as_a_learner(monkeypatch):
    monkeypatch.delenv("COURSE_STRICT", raising=False)


@pytest.mark.parametrize("exercise", ALL, ids=lambda exercise: exercise.id)
class TestEveryExercise:
    def test_is_found_by_its_id(self, exercise):
        assert find_exercise(exercise.id) is exercise

    def test_stub_is_not_started(self, exercise, capsys):
        check(exercise.id, stub)
        assert capsys.readouterr().out == f"NOT STARTED {exercise.id} {exercise.title}\n"

    def test_solution_passes(self, exercise, capsys):
        """The text of the solution, run as a learner would paste it, not the function it was taken from."""
        check(exercise.id, run(solution_source(exercise.id), exercise.id, exercise.solution.__name__))
        assert capsys.readouterr().out == f"PASSED {exercise.id} {exercise.title}\n"

    def test_an_answer_that_returns_nothing_has_a_hint(self, exercise, capsys):
        """What is left of a stub whose only line is deleted, and of a function that prints its result."""
        check(exercise.id, lambda *args, **kwargs: None)
        line = capsys.readouterr().out
        assert line.startswith(f"NOT YET {exercise.id} ") and " raised " not in line

    def test_an_answer_that_spoils_its_arguments_harms_no_later_one(self, exercise, capsys):
        def vandal(*args, **kwargs):
            returned = exercise.solution(*args, **kwargs)
            for value in (*args, *kwargs.values()):
                spoil(value)
            return returned

        check(exercise.id, vandal)
        capsys.readouterr()
        check(exercise.id, exercise.solution)
        assert capsys.readouterr().out.startswith("PASSED")

    def test_tensors_on_another_device(self, exercise, capsys):
        """PyTorch then raises NotImplementedError, as a stub does."""
        moved = []

        def elsewhere(*args, **kwargs):
            returned = exercise.solution(*args, **kwargs)
            moved.append(isinstance(returned, Tensor))
            return returned.to("meta") if moved[-1] else returned

        check(exercise.id, elsewhere)
        assert capsys.readouterr().out.startswith("NOT YET" if any(moved) else "PASSED")


def spoil(value: object) -> None:
    """Change an argument in place, as far as that goes."""
    if isinstance(value, nn.Module):
        for parameter in value.parameters():
            spoil(parameter)
    elif isinstance(value, Tensor):
        with torch.no_grad():
            value.zero_()
    elif isinstance(value, (list, dict, set)):
        value.clear()


@pytest.mark.parametrize("chapter", CHAPTERS)
class TestEveryNotebook:
    def test_has_the_exercises_of_its_chapter(self, chapter):
        assert [exercise_id for exercise_id, _, _ in checks(chapter)] == [
            exercise.id for exercise in lookup.of_chapter("exercise", chapter)]

    def test_stubs_are_not_started(self, chapter, capsys):
        for exercise_id, name, source in checks(chapter):
            check(exercise_id, run(source, exercise_id, name))
            assert capsys.readouterr().out.startswith(f"NOT STARTED {exercise_id} ")

    def test_solutions_are_those_that_pass(self, chapter):
        prose = "\n".join(cell.source for cell in cells(chapter) if cell.cell_type == "markdown")
        shown = dict(re.findall(r"^<!-- solution ([\w.]+) -->$.*?```python\n(.*?)```", prose, re.MULTILINE | re.DOTALL))
        for exercise_id, name, _ in checks(chapter):
            assert shown[exercise_id].rstrip() == solution_source(exercise_id)
            assert name == find_exercise(exercise_id).solution.__name__


def test_ids_are_unique():
    ids = [exercise.id for exercise in ALL]
    assert len(set(ids)) == len(ids)


def double(x):
    return 2 * x


def returns_nothing(x):
    x * 2


def raises(x):
    raise ValueError(f"no {x}\nat all")


def leaves(x):
    raise SystemExit(1)


def half_done(x):
    """PyTorch has no softmax of whole numbers, and says so by a NotImplementedError."""
    return torch.tensor([x]).softmax(-1)


def takes_nothing():
    return 6


def says_much(x):
    raise RuntimeError("word " * 1000)


@pytest.mark.parametrize(("answer", "line"), [
    (double, "PASSED 98.1 Twice"),
    (stub, "NOT STARTED 98.1 Twice"),
    (returns_nothing, "NOT YET 98.1 Twice: Try it with 3: twice 3 is 6."),
    (raises, 'NOT YET 98.1 Twice: its line `raise ValueError(f"no {x}\\nat all")` raised ValueError: no 3 at all'),
    (leaves, "NOT YET 98.1 Twice: its line `raise SystemExit(1)` raised SystemExit: 1"),
    (takes_nothing, "NOT YET 98.1 Twice: calling it, or using what it returned, raised TypeError: takes_nothing() "
                    "takes 0 positional arguments but 1 was given"),
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


def test_what_pytorch_did_not_implement_was_started(chapter_98, capsys):
    check("98.1", half_done)
    line = capsys.readouterr().out
    assert line.startswith("NOT YET 98.1 Twice: its line `return torch.tensor([x]).softmax(-1)` raised NotImplemented")


def test_a_long_error_is_cut(chapter_98, capsys):
    check("98.1", says_much)
    line = capsys.readouterr().out
    assert len(line) < 500 and line.endswith(" ...\n")


def test_what_an_answer_prints_stands_before_the_verdict(chapter_98, capsys):
    def talks(x):
        print("x is", x)
        return 2 * x

    check("98.1", talks)
    assert capsys.readouterr().out == "x is 3\nPASSED 98.1 Twice\n"


def test_an_interrupted_answer_stops_the_cell(chapter_98, capsys):
    """Else "Run All" would go on after the learner stopped a loop without an end."""
    def endless(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("98.1", endless)
    assert capsys.readouterr().out == (
        "NOT YET 98.1 Twice: you interrupted it. If it took long, look whether every loop in it comes to an end.\n")


def test_solution_source_is_the_function(chapter_98):
    assert solution_source("98.1") == 'def double(x: int) -> int:\n    """Twice a number."""\n    return 2 * x'


@pytest.mark.parametrize(("exercise_id", "known"), [
    ("98.3", "chapter 98 has 98.1, 98.2"), ("97.1", "chapter 97 has no exercises"), ("x", "chapter x has no exercises"),
    ("../98.1", "has no exercises"),
])
def test_unknown_id(chapter_98, exercise_id, known):
    with pytest.raises(InputError, match=known):
        check(exercise_id, double)
