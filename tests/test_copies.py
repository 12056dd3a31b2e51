"""Copies of the chapters: a new version of the course comes in, and nothing that a learner wrote is lost."""

from __future__ import annotations

import copy
import errno
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils import cli, files
from course_utils.cli import main
from course_utils.errors import InputError
from course_utils.file_lock import FileLock
from course_utils.workshop import copies
from course_utils.workshop.copies import copy_chapters, outdated, update_copies
from course_utils.workshop.notebook_answers import checks, parse_notebook, source

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
Cells = list[dict]


def markdown(text: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def code(text: str) -> dict:
    return {"cell_type": "code", "metadata": {}, "source": text, "outputs": [], "execution_count": None}


def exercise(exercise_id: str, name: str) -> Cells:
    return [markdown(f"## Exercise {exercise_id}: a task\n\nWrite `{name}`."),
            code(f'def {name}(x):\n    """What is asked for."""\n    raise NotImplementedError'),
            code(f'check("{exercise_id}", {name})'),
            markdown(f"<details><summary>Hint 1</summary>\n\nThink of {name}.\n</details>")]


def chapter(*parts: Cells) -> Cells:
    return [cell for part in parts for cell in part]


def demo(text: str) -> Cells:
    return [markdown(f"## About {text}"), code(f"print({text!r})")]


ONE = chapter(demo("one"), exercise("1.1", "double"), demo("two"), exercise("1.2", "half"), demo("three"))
# A new version: another exercise before, one moved to the front, texts and a stub changed, a demonstration gone.
ONE_LATER = chapter(demo("zero"), exercise("1.3", "third"), exercise("1.2", "half"), demo("one, better"),
                    [markdown("## Exercise 1.1: a task\n\nWrite `double`, clearer."),
                     code("def double(x: int) -> int:\n    raise NotImplementedError"),
                     code('check("1.1", double)'), markdown("No hint any more.")], demo("three"))
TWO = chapter(demo("four"), exercise("2.1", "treble"))


def write(folder: Path, name: str, cells: Cells) -> Path:
    """A notebook with cells; their ids count up, as those of the course did before they became stable."""
    folder.mkdir(exist_ok=True)
    cells = [{"id": f"cell-{number:02}", **cell} for number, cell in enumerate(copy.deepcopy(cells), start=1)]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / name).write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder / name


def read(path: Path) -> dict:
    """A notebook, which must be a valid one with ids that differ."""
    nbformat.validate(nbformat.read(path, as_version=4))
    notebook = parse_notebook(path.read_bytes())
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    return notebook


def sources(path: Path) -> list[str]:
    return [source(cell) for cell in read(path)["cells"]]


def change(path: Path, edit: Callable[[Cells], object]) -> bytes:
    """A learner's edit of a notebook; returns the file as it is then."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    edit(notebook["cells"])
    path.write_text(json.dumps(notebook, indent=1), encoding="utf-8")
    return path.read_bytes()


def place(cells: Cells, text: str) -> int:
    return next(number for number, cell in enumerate(cells) if text in source(cell))


def kept(folder: Path, name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob(f"before-*/{name}"))]


class Class:
    """A course of two chapters, and a learner's copies of them."""

    def __init__(self, folder: Path) -> None:
        self.course, self.mine = folder / "course", folder / "mine"
        write(self.course, "01_first.ipynb", ONE)
        write(self.course, "02_second.ipynb", TWO)
        self.first, self.second = self.mine / "01_first.ipynb", self.mine / "02_second.ipynb"
        copy_chapters(self.course, self.mine)

    def later(self, name: str = "01_first.ipynb", cells: Cells = ONE_LATER):
        """The next version of the course, brought to the learner."""
        write(self.course, name, cells)
        return update_copies(self.course, self.mine)


@pytest.fixture
def room(tmp_path):
    return Class(tmp_path)


DOUBLE = "def double(x):\n    return x + x  # mine, 我的"


def answer(cells: Cells) -> None:
    cells[place(cells, "def double")]["source"] = DOUBLE


class TestCopies:
    def test_they_have_the_chapters_cells_and_run_nothing(self, room):
        assert sources(room.first) == [cell["source"] for cell in ONE]
        assert copy_chapters(room.course, room.mine) == [] and outdated(room.course, room.mine) == []

    def test_what_is_there_stays(self, room):
        mine = change(room.first, answer)
        room.second.unlink()
        assert copy_chapters(room.course, room.mine) == ["02_second.ipynb"]
        assert room.first.read_bytes() == mine and room.second.exists()

    def test_nothing_to_do(self, room):
        mine = change(room.first, answer)
        assert "are as new as the course" in str(update_copies(room.course, room.mine))
        assert room.first.read_bytes() == mine and not kept(room.mine, "*")

    def test_outputs_alone_are_no_new_version(self, room):
        mine = change(room.first, answer)
        cells = copy.deepcopy(ONE)
        cells[1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "one"}]
        assert not room.later(cells=cells).renewals and room.first.read_bytes() == mine

    def test_the_real_chapters_with_every_exercise_answered(self, tmp_path):
        """Every stub of the course is found, and its answer comes back after a cell was inserted at the top."""
        mine = tmp_path / "mine"
        copy_chapters(NOTEBOOKS, mine)
        answered = {}
        for path in sorted(mine.glob("*.ipynb")):
            for exercise_id, (at, name) in checks(read(path)).items():
                answered[exercise_id] = f"def {name}(*given):\n    return {exercise_id!r}"
                change(path, lambda cells, at=at, text=answered[exercise_id]: cells[at - 1].update(source=text))
            notebook = read(NOTEBOOKS / path.name)
            write(tmp_path / "course", path.name, [{**markdown("Something new."), "id": "new"}, *notebook["cells"]])
        update = update_copies(tmp_path / "course", mine)
        assert [name for renewal in update.renewals for name in renewal.answers] == list(answered)
        assert all(renewal.left == 0 for renewal in update.renewals)
        assert len(answered) > 50 and len(set(answered.values())) == len(answered)
        for path in mine.glob("*.ipynb"):
            cells = read(path)["cells"]
            assert "Something new." == source(cells[0])
            for exercise_id, (at, _) in checks({"cells": cells}).items():
                assert source(cells[at - 1]) == answered[exercise_id]


# Edits by a learner, each with the cells that must stand right above the check of 1.1 in the new chapter.
def split(cells: Cells) -> None:
    at = place(cells, "def double")
    cells[at:at + 1] = [code("def double(x):"), code("    return x + x")]


def helpers(cells: Cells) -> None:
    answer(cells)
    at = place(cells, "def double")
    cells[at:at] = [markdown("My plan is addition."), code("import operator"), code("def add(a, b):\n    return a + b")]
    cells.insert(at + 4, code("assert double(2) == 4"))


def tried_below(cells: Cells) -> None:
    at = place(cells, 'check("1.1"')
    cells[at + 1:at + 1] = [code(DOUBLE), code("print(double(7))"), code('check("1.1", double)')]


def moved(cells: Cells) -> None:
    answer(cells)
    cells.append(cells.pop(place(cells, "def double")))


def merged(cells: Cells) -> None:
    at = place(cells, 'check("1.1"')
    cells[at - 1:at + 1] = [code(DOUBLE + '\n\ncheck("1.1", double)')]


def check_deleted(cells: Cells) -> None:
    answer(cells)
    del cells[place(cells, 'check("1.1"')]


def broken(cells: Cells) -> None:
    cells[place(cells, "def double")]["source"] = "def double(x:\n  retrun x +"


def heading_deleted(cells: Cells) -> None:
    answer(cells)
    del cells[place(cells, "Exercise 1.1")]


def stub_kept(cells: Cells) -> None:
    cells.insert(place(cells, "def double"), code(DOUBLE))


def both(cells: Cells) -> None:
    answer(cells)
    cells[place(cells, "def half")]["source"] = "half = lambda x: x / 2"


def another_name(cells: Cells) -> None:
    cells[place(cells, "def double")]["source"] = "def my_double(x):\n    return 2 * x"
    cells[place(cells, 'check("1.1"')]["source"] = 'check("1.1", my_double)'


def all_else_deleted(cells: Cells) -> None:
    answer(cells)
    cells[:] = [cell for cell in cells if cell["cell_type"] == "code" and "print" not in source(cell)]


@pytest.mark.parametrize(("edit", "expected"), [
    (answer, [DOUBLE]),
    (split, ["def double(x):", "    return x + x"]),
    (helpers, ["My plan is addition.", "import operator", "def add(a, b):\n    return a + b", DOUBLE,
               "assert double(2) == 4"]),
    (tried_below, [DOUBLE]),
    (moved, [DOUBLE]),
    (merged, [DOUBLE + '\n\ncheck("1.1", double)']),
    (check_deleted, [DOUBLE]),
    (broken, ["def double(x:\n  retrun x +"]),
    (heading_deleted, [DOUBLE]),
    (stub_kept, [DOUBLE]),
    (both, [DOUBLE]),
    (another_name, ["def double(x: int) -> int:\n    raise NotImplementedError", "def my_double(x):\n    return 2 * x",
                    'check("1.1", my_double)']),
    (all_else_deleted, [DOUBLE]),
], ids=lambda value: value.__name__ if callable(value) else "")
@pytest.mark.parametrize("by_hand", [False, True], ids=["copied", "copied by hand"])
def test_an_answer_is_put_back_and_the_file_kept(room, edit, expected, by_hand):
    if by_hand:  # no metadata and no list of the course's cells say which cells are the learner's
        (room.mine / ".course-utils.json").unlink()
        write(room.mine, "01_first.ipynb", ONE)
    before = change(room.first, edit)
    update = room.later()
    assert kept(room.mine, "01_first.ipynb") == [before]
    found = sources(room.first)
    at = max(number for number, text in enumerate(found) if text == 'check("1.1", double)')
    if by_hand and edit is helpers:
        expected = expected[1:]  # which texts are the learner's is not known then
    assert found[at - len(expected):at] == expected
    assert update.renewals[0].answers == (("1.2", "1.1") if edit is both else ("1.1",))  # as the chapter has them
    assert ("print(double(7))" in found[at:]) == (edit is tried_below)
    assert [text for text in found if text in [cell["source"] for cell in ONE_LATER]
            and "NotImplementedError" not in text] == [cell["source"] for cell in ONE_LATER
                                                       if "NotImplementedError" not in cell["source"]]
    assert ("half = lambda x: x / 2" in found) == (edit is both)
    again = room.first.read_bytes()
    assert not update_copies(room.course, room.mine).renewals and room.first.read_bytes() == again


class TestRenamed:
    def test_a_chapter_by_the_course(self, room):
        before = change(room.second, lambda cells: cells[place(cells, "def treble")].update(source="def treble(x): 3"))
        (room.course / "02_second.ipynb").unlink()
        update = room.later("02_multiples.ipynb", TWO)
        assert not room.second.exists() and kept(room.mine, "02_second.ipynb") == [before]
        assert "def treble(x): 3" in sources(room.mine / "02_multiples.ipynb")
        assert "02_multiples.ipynb: new, your answers put back: 2.1" in str(update)

    def test_a_chapter_by_the_learner(self, room):
        mine = change(room.first, answer)
        own = room.first.rename(room.mine / "my chapter.ipynb")
        room.later()
        assert own.read_bytes() == mine and DOUBLE in sources(room.first) and not kept(room.mine, "*.ipynb")

    def test_a_learners_copy_beside_it_changes_nothing(self, room):
        other = write(room.mine, "01_first-Copy1.ipynb", chapter(exercise("1.2", "half")))
        before = change(other, lambda cells: cells[1].update(source="def half(x): 'tried'"))
        change(room.first, answer)
        room.later()
        assert other.read_bytes() == before and "def half(x): 'tried'" not in sources(room.first)

    def test_an_exercise_with_another_number(self, room):
        change(room.first, answer)
        update = room.later(cells=chapter(exercise("1.1", "first_of_all"), exercise("1.2", "double")))
        found = sources(room.first)
        assert found[found.index('check("1.2", double)') - 1] == DOUBLE and update.renewals[0].answers == ("1.2",)

    def test_exercises_whose_numbers_changed_places(self, room):
        """As happened in chapter 3: what was 3.1 became 3.3, and 3.2 became 3.1."""
        change(room.first, both)
        update = room.later(cells=chapter(exercise("1.1", "half"), exercise("1.2", "third"), exercise("1.3", "double")))
        found = sources(room.first)
        assert found[found.index('check("1.1", half)') - 1] == "half = lambda x: x / 2"
        assert found[found.index('check("1.3", double)') - 1] == DOUBLE
        assert "NotImplementedError" in found[found.index('check("1.2", third)') - 1]
        assert update.renewals[0].answers == ("1.1", "1.3") and update.unplaced == ()

    def test_an_exercise_that_was_inserted_takes_no_answer_from_one_that_it_moved(self, room):
        """The old 1.1 is gone, and its number belongs to what was 1.2."""
        change(room.first, both)
        update = room.later(cells=chapter(exercise("1.1", "half")))
        assert sources(room.first)[1] == "half = lambda x: x / 2"
        assert update.renewals[0].answers == ("1.1",) and update.unplaced == ("1.1",)

    def test_an_exercise_that_moved_to_another_chapter(self, room):
        change(room.first, answer)
        write(room.course, "01_first.ipynb", chapter(demo("one"), exercise("1.2", "half")))
        room.later("02_second.ipynb", chapter(TWO, exercise("1.1", "double")))
        assert DOUBLE in sources(room.second) and DOUBLE not in sources(room.first)

    def test_an_exercise_that_is_gone_is_kept_and_said(self, room):
        before = change(room.first, answer)
        update = room.later(cells=demo("one"))
        assert update.unplaced == ("1.1",) and "in the kept files: 1.1" in str(update)
        assert kept(room.mine, "01_first.ipynb") == [before]


class TestTrouble:
    @pytest.mark.parametrize("content", [
        b"", b"{", b"\xff\xfe\x00", b"[]", b'{"cells": 3, "metadata": {}}', b'{"cells": [3], "metadata": {}}',
        b"[" * 99999,
        b'<<<<<<< HEAD\n{"cells": []}\n=======\n', b'{"cells": [{"cell_type": "code", "source": [1]}], "metadata": {}}',
        b'{"cells": [], "metadata": 3}'])
    def test_a_damaged_notebook_is_kept_and_begun_anew(self, room, content):
        room.first.write_bytes(content)
        update = update_copies(room.course, room.mine)
        assert kept(room.mine, "01_first.ipynb") == [content] and "could not be read as a notebook" in str(update)
        assert sources(room.first) == [cell["source"] for cell in ONE]

    def test_a_damaged_notebook_of_the_course_changes_nothing(self, room):
        mine = change(room.first, answer)
        (room.course / "01_first.ipynb").write_text("{")
        with pytest.raises(InputError, match="'01_first.ipynb' of the course in .* is no notebook: fetch the course's"):
            update_copies(room.course, room.mine)
        assert room.first.read_bytes() == mine

    def test_a_damaged_list_of_cells_is_done_without(self, room):
        change(room.first, answer)
        for content in ("{", "[]", '{"format": "course-utils copies", "chapters": 3}', '{"format": "another"}'):
            (room.mine / ".course-utils.json").write_text(content)
            copy_chapters(room.course, room.mine)
            assert json.loads((room.mine / ".course-utils.json").read_text())["format"] == "course-utils copies"
        (room.mine / ".course-utils.json").write_text("{")
        room.later()
        assert DOUBLE in sources(room.first)

    def test_the_kernel_that_a_learner_chose_stays(self, room):
        notebook = json.loads(room.first.read_text())
        notebook["metadata"]["kernelspec"] = {"name": "course", "display_name": "Course"}
        room.first.write_text(json.dumps(notebook))
        room.later()
        assert read(room.first)["metadata"]["kernelspec"]["name"] == "course"

    def test_half_a_surrogate_pair(self, room):
        """It can stand in a file, as an escape; written out it would be no UTF-8."""
        change(room.first, lambda cells: cells[place(cells, "def double")].update(source="def double(x): '\ud800'"))
        room.later()
        assert "def double(x): '\ud800'" in sources(room.first)

    def test_not_the_courses_own_folder(self, room, tmp_path):
        for way in (copy_chapters, update_copies):
            with pytest.raises(InputError, match="the course's own notebooks: name another folder"):
                way(room.course, room.course)
        with pytest.raises(InputError, match="There is no folder .*lab --copy FOLDER makes one"):
            update_copies(room.course, tmp_path / "none")
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="cannot be written"):
            copy_chapters(room.course, tmp_path / "file")

    def test_a_folder_under_a_chapters_name(self, room):
        room.first.unlink()
        room.first.mkdir()
        with pytest.raises(InputError, match="'01_first.ipynb' in .* is no regular file: rename it"):
            room.later()

    def test_two_at_once(self, room):
        with FileLock(room.mine / ".course-utils.json.lock"):
            with pytest.raises(InputError, match="being written by another process"):
                update_copies(room.course, room.mine)

    def test_what_is_saved_meanwhile_is_taken_too(self, room, monkeypatch):
        """JupyterLab saves the notebook after it was read and before it is replaced."""
        change(room.first, answer)
        later, saves = "def double(x):\n    return 2 * x", iter([True])
        check = copies._Copies._require_unchanged

        def saved(self, name, data):
            if name == "01_first.ipynb" and next(saves, False):
                change(room.first, lambda cells: cells[place(cells, "def double")].update(source=later))
            check(self, name, data)

        monkeypatch.setattr(copies._Copies, "_require_unchanged", saved)
        update = room.later()
        assert later in sources(room.first) and DOUBLE not in sources(room.first) and len(update.renewals) == 1

    def test_what_is_saved_all_the_time_is_not_replaced(self, room, monkeypatch):
        contents, check = [], copies._Copies._require_unchanged

        def saved(self, name, data):
            contents.append(change(room.first, lambda cells: cells.append(code(f"n = {len(contents)}"))))
            check(self, name, data)

        monkeypatch.setattr(copies._Copies, "_require_unchanged", saved)
        with pytest.raises(InputError, match="'01_first.ipynb' is being written again and again"):
            room.later()
        assert room.first.read_bytes() == contents[-1]


class TestInterrupted:
    """Whatever step is the last one, every text of the learner is in some file, and the next update ends the work."""

    @pytest.fixture
    def steps(self, monkeypatch):
        """Count the renames and stop at one of them: by Ctrl-C, or a disk that is full."""
        replace = os.replace

        def stop_at(last, error):
            counted = []

            def step(*args):
                counted.append(args)
                if len(counted) > last:
                    raise error
                replace(*args)

            monkeypatch.setattr(files.os, "replace", step)
            return counted

        yield stop_at
        monkeypatch.setattr(files.os, "replace", replace)

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")],
                             ids=["Ctrl-C", "full disk"])
    @pytest.mark.parametrize("last", range(7))
    def test_at_any_step(self, room, steps, last, error):
        answers = {"01_first.ipynb": DOUBLE, "02_second.ipynb": "def treble(x):\n    return 3 * x"}
        change(room.first, answer)
        change(room.second, lambda cells: cells[place(cells, "def treble")].update(source=answers["02_second.ipynb"]))
        write(room.course, "01_first.ipynb", ONE_LATER)
        write(room.course, "02_second.ipynb", chapter(demo("new"), TWO))
        counted = steps(last, error)
        try:
            update_copies(room.course, room.mine)
        except (KeyboardInterrupt, InputError) as stopped:
            assert isinstance(stopped, KeyboardInterrupt) or "No space left on device" in str(stopped)
        assert len(counted) > last or last > 5
        assert all(text in sources(room.mine / name) for name, text in answers.items())
        steps(99, error)
        update_copies(room.course, room.mine)
        for name, text in answers.items():
            assert text in sources(room.mine / name)
            assert outdated(room.course, room.mine) == [] and not list(room.mine.rglob(".*.tmp"))


# A learner's sessions: edits in any order. Every text has a mark, by which it is found again.
EDITS = st.lists(st.tuples(
    st.sampled_from(["write", "insert", "note", "split", "merge", "move", "delete", "repeat"]),
    st.integers(0, 30), st.integers(0, 30)), max_size=12)


def edited(cells: Cells, edits: list[tuple[str, int, int]]) -> list[str]:
    """Edit cells, and return what was written into answers and is still there: pieces of lines with their marks."""
    for number, (what, first, second) in enumerate(edits):
        at = first % max(len(cells), 1)
        to = second % (len(cells) + 1)
        mark = f"mark{number:02}"
        if what == "insert":
            cells.insert(to, code(f"x = 1  # {mark}"))
        elif what == "note":
            cells.insert(to, markdown(f"A note, {mark}."))
        elif not cells:
            continue
        elif what == "write":
            stubs = [cell for cell in cells if cell["cell_type"] == "code" and "def " in source(cell)] or cells
            stubs[first % len(stubs)]["source"] = f"def {('double', 'half')[second % 2]}(x):\n    return x  # {mark}"
        elif what == "split":
            text = source(cells[at])
            cut = second % (len(text) + 1)
            cells[at:at + 1] = [{**cells[at], "source": text[:cut]},
                                {**copy.deepcopy(cells[at]), "source": text[cut:], "id": f"half-{number}"}]
        elif what == "merge" and at + 1 < len(cells):
            cells[at]["source"] = source(cells[at]) + "\n" + source(cells.pop(at + 1))
        elif what == "move":
            cells.insert(to, cells.pop(at))
        elif what == "delete":
            del cells[at]
        elif what == "repeat":
            cells.insert(to, {**copy.deepcopy(cells[at]), "id": f"again-{number}"})
    return [mark for cell in cells for mark in re.findall(r"mark\d\d", source(cell))]


@settings(max_examples=150, deadline=None)
@given(edits=EDITS, by_hand=st.booleans(), renamed=st.booleans())
def test_whatever_a_learner_does_nothing_is_lost(edits, by_hand, renamed):
    with tempfile.TemporaryDirectory() as folder:
        room = Class(Path(folder))
        if by_hand:
            (room.mine / ".course-utils.json").unlink()
            write(room.mine, "01_first.ipynb", ONE)
        marks: list[str] = []
        before = change(room.first, lambda cells: marks.extend(edited(cells, edits)))
        functions = [mark for cell in json.loads(before)["cells"] if cell["cell_type"] == "code"
                     for mark in re.findall(r"^def (?:double|half)\(x\):\n    return x  # (mark\d\d)$", source(cell),
                                            re.MULTILINE)]
        own = room.first.rename(room.mine / "mine.ipynb") if renamed else None
        update = room.later()
        # Every byte is in the file that was kept, or in the one that the learner named.
        assert before in [*kept(room.mine, "01_first.ipynb"), room.first.read_bytes(),
                          *([own.read_bytes()] if own else [])]
        # The new chapter has all cells of the course in their order, with their outputs' places, and what was put back.
        found = sources(room.first)
        course = [cell["source"] for cell in ONE_LATER if "NotImplementedError" not in cell["source"]]
        texts = iter(found)
        assert before == room.first.read_bytes() or all(text in texts for text in course)
        # What the learner wrote is in the new chapter, or counted as left in the kept one.
        [renewal] = [renewal for renewal in update.renewals if renewal.name == "01_first.ipynb"] or [None]
        missing = [mark for mark in marks if not any(mark in text for text in found)]
        assert not missing or own or by_hand or renewal.left > 0 or update.unplaced
        # A function that an exercise asks for is put back, wherever it was written.
        assert not [mark for mark in functions if not any(mark in text for text in found)]
        again = room.first.read_bytes()
        assert not update_copies(room.course, room.mine).renewals and room.first.read_bytes() == again


class TestCommands:
    @pytest.fixture
    def checkout(self, room, tmp_path, monkeypatch):
        (tmp_path / "checkout").mkdir()
        room.course = room.course.rename(tmp_path / "checkout" / "notebooks")
        monkeypatch.setattr(cli, "__file__", str(tmp_path / "checkout" / "course_utils" / "cli.py"))
        monkeypatch.setattr(cli.importlib.util, "find_spec", lambda _: object())
        self.calls = []
        monkeypatch.setattr(cli.subprocess, "call", lambda command: self.calls.append(command) or 0)
        return room

    def test_lab_opens_copies_and_says_what_is_newer(self, checkout, tmp_path, capsys):
        folder = tmp_path / "new" / "folder"
        assert main(["lab", "--copy", str(folder), "--no-browser"]) == 0
        assert self.calls == [[sys.executable, "-m", "jupyterlab", str(folder / "01_first.ipynb"), "--no-browser"]]
        assert capsys.readouterr().out == f"2 chapters were copied to {folder}.\n"
        write(checkout.course, "01_first.ipynb", ONE_LATER)
        assert main(["lab", "--copy", str(folder)]) == 0
        out = capsys.readouterr().out.splitlines()
        assert out[0] == f"Your copies are in {folder}." and f"1 of them: course-utils update {folder} brings" in out[1]

    def test_update_says_what_it_did(self, checkout, capsys):
        change(checkout.first, answer)
        change(checkout.first, lambda cells: cells.append(code("notes = 'at the end'")))
        write(checkout.course, "01_first.ipynb", ONE_LATER)
        assert main(["update", str(checkout.mine)]) == 0
        out = capsys.readouterr().out.splitlines()
        assert out[0] == ("01_first.ipynb: renewed, your answers put back: 1.1; other cells of yours that are in the "
                          "kept file: 1")
        assert "before-" in out[1] and "Reload Notebook from Disk" in out[2]

    def test_update_of_no_folder(self, checkout, tmp_path, capsys):
        assert main(["update", str(tmp_path / "none")]) == 2
        assert "There is no folder" in capsys.readouterr().err
