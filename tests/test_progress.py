"""What a learner has passed: the file it is kept in, whatever happens to that, and the tables."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from course_utils import files
from course_utils.cli import main
from course_utils.errors import InputError
from course_utils.exercises import check, lookup, progress, show_progress
from course_utils.exercises.progress import (
    export_progress,
    note_choice,
    note_solution_shown,
    own_progress,
    progress_file,
    read_progress,
    record_result,
)
from course_utils.exercises.progress_table import learners_table
from course_utils.exercises.question import find_question, question_widget
from course_utils.exercises.record import Attempts, Choices, Progress, moment
from course_utils.file_lock import FileLock

WHEN = "2026-01-02T03:04:05+00:00"


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The file of a learner who wants no details kept, which is not there yet."""
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setenv("COURSE_PROGRESS_DETAILS", "0")
    monkeypatch.delenv("COURSE_STRICT", raising=False)
    return tmp_path / "progress.json"


@pytest.fixture
def detailed(path, monkeypatch):
    """The same of a learner who changed nothing."""
    monkeypatch.delenv("COURSE_PROGRESS_DETAILS")
    return path


@pytest.fixture
def clock(monkeypatch):
    """Each look at it is a minute later: 00:01, 00:02, ..."""
    minutes = iter(range(1, 60))
    monkeypatch.setattr(progress, "now", lambda: f"2026-01-02T00:{next(minutes):02}:00+00:00")


def double(x):
    return 2 * x


def wrong(x):
    return x


def stub(x):
    raise NotImplementedError


class TestCheck:
    def test_notes_what_passed_and_the_tries_before_it(self, chapter_98, path, capsys):
        for answer in (stub, wrong, wrong, double, wrong):
            check("98.1", answer)
        kept = own_progress().exercises
        assert set(kept) == {"98.1"} and kept["98.1"].tries == 2
        assert datetime.fromisoformat(kept["98.1"].passed).tzinfo is not None

    def test_a_stub_leaves_no_file(self, chapter_98, path, capsys):
        check("98.1", stub)
        assert not path.exists()

    def test_tries_are_kept_before_it_passes(self, chapter_98, path, capsys):
        check("98.2", wrong)
        assert own_progress() == Progress({"98.2": Attempts(tries=1)})
        assert not own_progress().passed("98.2")

    def test_what_passed_stays_passed(self, path):
        record_result("98.1", passed=True)
        before = path.read_text()
        record_result("98.1", passed=False)
        record_result("98.1", passed=True)
        assert path.read_text() == before


class TestDetails:
    def test_times_remarks_and_what_was_only_seen(self, chapter_98, detailed, clock, capsys):
        for answer in (stub, stub, wrong, wrong, double, wrong):
            check("98.1", answer)
        check("98.2", stub)
        kept = own_progress().exercises
        passed = kept["98.1"]
        times = [moment(time).minute for time in (passed.seen, passed.first, passed.last, passed.passed)]
        assert times == sorted(times) and times[1] < times[2] and times[0] == 1
        assert passed.tries == 2 and passed.remark == "Try it with 3: twice 3 is 6." and passed.shown is None
        assert kept["98.2"].seen and kept["98.2"] == Attempts(seen=kept["98.2"].seen)

    def test_the_solution_counts_before_the_own_answer_and_not_after(self, chapter_98, detailed, clock, capsys):
        for exercise_id in ("98.1", "98.2"):
            check(exercise_id, wrong)
        check("98.1", double)
        for exercise_id in ("98.1", "98.2", "98.2"):
            note_solution_shown(exercise_id)
        check("98.2", double)
        kept = own_progress().exercises
        assert kept["98.1"].shown is None and moment(kept["98.2"].shown) < moment(kept["98.2"].passed)

    def test_choices_in_their_order(self, chapter_98, detailed, clock):
        _, buttons, explanation = question_widget(find_question("98.A")).children
        for place in (0, 2, 1, 0):
            buttons.children[place].click()
        kept = own_progress().questions["98.A"]
        assert kept.letters == "ACBA" and moment(kept.right).minute == 1
        for _ in range(200):
            note_choice("98.A", "A", False)
        assert own_progress().questions["98.A"].letters == ("ACBA" + "A" * 16)

    @pytest.mark.parametrize("begin", ["check", "question"])
    def test_the_learner_is_told_once_before_anything_else_is_noted(self, chapter_98, detailed, capsys, begin):
        if begin == "check":
            check("98.1", stub)
            said = capsys.readouterr().out
        else:
            _, buttons, explanation = question_widget(find_question("98.A")).children
            buttons.children[0].click()
            said = explanation.value
        assert said.count("Said once") == 1 and "COURSE_PROGRESS_DETAILS=0" in said and detailed.name in said
        buttons = question_widget(find_question("98.A")).children[1:]
        buttons[0].children[0].click()
        check("98.1", wrong)
        assert "Said once" not in capsys.readouterr().out + buttons[1].value
        assert own_progress().told

    def test_who_had_a_file_before_is_told_too_and_keeps_it(self, chapter_98, detailed, capsys):
        detailed.write_text(json.dumps({"format": "course-utils progress", "exercises": {
            "98.1": {"tries": 3, "passed": WHEN}, "98.2": {"tries": 2, "passed": None}}}))
        assert own_progress() == Progress({"98.1": Attempts(3, WHEN), "98.2": Attempts(2)})
        check("98.2", wrong)
        assert "Said once" in capsys.readouterr().out
        assert own_progress().exercises["98.1"] == Attempts(3, WHEN) and own_progress().exercises["98.2"].tries == 3

    def test_switched_off_nothing_of_it_is_kept(self, chapter_98, path, capsys):
        check("98.1", stub)
        note_solution_shown("98.1")
        note_choice("98.A", "B", True)
        assert not path.exists()
        check("98.1", wrong)
        check("98.1", double)
        content = json.loads(path.read_text())
        passed = content["exercises"]["98.1"].pop("passed")
        assert moment(passed) and content == {"format": "course-utils progress", "exercises": {"98.1": {"tries": 1}}}
        assert "Said once" not in capsys.readouterr().out

    def test_a_remark_is_cut(self, detailed):
        record_result("98.1", passed=False, remark="x" * 5000)
        assert len(own_progress().exercises["98.1"].remark) == 300

    def test_an_export_has_them_and_the_file_is_read_back(self, chapter_98, detailed, tmp_path, capsys):
        check("98.1", wrong)
        note_choice("98.A", "B", True)
        exported = export_progress(tmp_path / "ann.json", "Ann")
        assert read_progress(tmp_path / "ann.json") == exported
        assert exported.exercises == own_progress().exercises and exported.questions == own_progress().questions


class TestWhere:
    def test_by_default_in_the_home_folder(self, tmp_path, monkeypatch):
        monkeypatch.delenv("COURSE_PROGRESS")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        assert "Said once" in record_result("98.1", passed=True)
        assert read_progress(tmp_path / ".course-utils" / "progress.json").passed("98.1")

    @pytest.mark.parametrize("value", ["", " "])
    def test_empty_keeps_nothing(self, chapter_98, tmp_path, monkeypatch, capsys, value):
        monkeypatch.setenv("COURSE_PROGRESS", value)
        monkeypatch.chdir(tmp_path)
        check("98.1", double)
        assert progress_file() is None and own_progress() == Progress({}) and list(tmp_path.iterdir()) == []
        assert capsys.readouterr().out == "PASSED 98.1 Twice\n"

    def test_a_tilde_is_the_home_folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        monkeypatch.setenv("COURSE_PROGRESS", "~/mine.json")
        assert progress_file() == (tmp_path / "mine.json").resolve()

    def test_a_link_stays_a_link(self, path):
        path.symlink_to(path.with_name("elsewhere.json"))
        record_result("98.1", passed=True)
        assert path.is_symlink() and read_progress(path.with_name("elsewhere.json")).passed("98.1")

    def test_no_folder_is_made_for_a_named_file(self, chapter_98, path, monkeypatch, capsys):
        """It may be a drive that is mounted there later, which needs the place to be free."""
        monkeypatch.setenv("COURSE_PROGRESS", str(path.parent / "drive" / "progress.json"))
        check("98.1", double)
        passed, trouble = capsys.readouterr().out.splitlines()
        assert passed == "PASSED 98.1 Twice" and "not added to your progress" in trouble and "No such file" in trouble
        assert not (path.parent / "drive").exists()


@pytest.mark.parametrize(("content", "said"), [
    ("", "is empty"),
    ('{"format": "course-utils pro', "is damaged or cut short"),
    ("\x00\xff", "is damaged or cut short"),
    ("<html>", "is an HTML page"),
    ("[" * 100_000, "is damaged or cut short"),
    ("[1, 2]", "holds something else"),
    ('{"cells": []}', "holds something else"),
    ('{"format": "course-utils progress"}', "holds something else"),
    ('{"format": "course-utils progress", "exercises": {"1.1": {"tries": -1}}}', "holds something else"),
    ('{"format": "course-utils progress", "exercises": {"1.1": {"passed": "soon"}}}', "holds something else"),
    ('{"format": "course-utils progress", "exercises": {"1.1": {"passed": 3}}}', "holds something else"),
    ('{"format": "course-utils progress", "exercises": {"1.1": 3}}', "holds something else"),
    ('{"format": "course-utils progress", "name": 3, "exercises": {}}', "holds something else"),
    ('{"format": "course-utils progress", "exercises": {}, "told": 1}', "holds something else"),
    ('{"format": "course-utils progress", "exercises": {"1.1": {"last": 5}}}', "holds something else"),
    ('{"format": "course-utils progress", "exercises": {"1.1": {"tries": true}}}', "holds something else"),
    ('{"format": "course-utils progress", "exercises": {"1.1": {"remark": []}}}', "holds something else"),
    ('{"format": "course-utils progress", "exercises": {"1.1": {"later": "x"}}}', "holds something else"),
    ('{"format": "course-utils progress", "exercises": {}, "questions": {"1.A": {"letters": ""}}}',
     "holds something else"),
    ('{"format": "course-utils progress", "exercises": {}, "questions": {"1.A": {}}}', "holds something else"),
])
class TestForeignFile:
    def test_is_put_aside_and_said(self, chapter_98, path, capsys, content, said):
        for number in (1, 2):
            path.write_text(content, encoding="latin-1")
            check("98.1", double)
            passed, trouble = capsys.readouterr().out.splitlines()
            assert passed == "PASSED 98.1 Twice"
            assert said in trouble and f"now 'progress.json.aside-{number}'" in trouble
            assert path.with_name(f"progress.json.aside-{number}").read_text(encoding="latin-1") == content
        check("98.2", double)
        assert capsys.readouterr().out == "PASSED 98.2 Twice again\n"
        assert set(own_progress().exercises) == {"98.1", "98.2"}

    def test_is_only_read_by_a_look(self, chapter_98, path, capsys, content, said):
        path.write_text(content, encoding="latin-1")
        show_progress(98)
        lines = capsys.readouterr().out.splitlines()
        assert said in lines[0] and lines[1] == "Chapter 98: 0 of 2 exercises passed"
        assert [file.name for file in path.parent.iterdir()] == ["progress.json"]


class TestTrouble:
    def test_a_full_disk_costs_nothing_but_the_answer(self, chapter_98, path, monkeypatch, capsys):
        record_result("98.2", passed=True)
        before = path.read_bytes()

        def full(*args):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(files.os, "replace", full)
        check("98.1", double)
        passed, trouble = capsys.readouterr().out.splitlines()
        assert passed == "PASSED 98.1 Twice" and "No space left on device" in trouble and str(path) in trouble
        assert path.read_bytes() == before

    def test_a_folder_under_its_name(self, chapter_98, path, capsys):
        path.mkdir()
        check("98.1", double)
        passed, trouble = capsys.readouterr().out.splitlines()
        assert passed == "PASSED 98.1 Twice" and "not added to your progress" in trouble and path.is_dir()

    def test_a_folder_that_cannot_be_written(self, chapter_98, path, monkeypatch, capsys):
        """As root no folder is read-only, so what opens the lock refuses instead."""
        open_file = Path.open

        def refuse(self, mode="r", *args, **kwargs):
            if "a" in mode or "w" in mode:
                raise PermissionError(errno.EACCES, "Permission denied")
            return open_file(self, mode, *args, **kwargs)

        monkeypatch.setattr(Path, "open", refuse)
        check("98.1", double)
        passed, trouble = capsys.readouterr().out.splitlines()
        assert passed == "PASSED 98.1 Twice" and "Permission denied" in trouble

    def test_no_home_folder(self, chapter_98, monkeypatch, capsys):
        def no_home(self):
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("COURSE_PROGRESS")
        monkeypatch.setattr(Path, "expanduser", no_home)
        check("98.1", double)
        passed, trouble = capsys.readouterr().out.splitlines()
        assert passed == "PASSED 98.1 Twice" and "no home folder" in trouble


def test_two_kernels_that_write_one_record_lose_nothing(detailed):
    """Real processes, each trying its own exercises and one that both try."""
    code = ("import sys\nfrom course_utils.exercises.progress import note_choice, record_result\n"
            "for number in range(15):\n"
            "    record_result(f'{sys.argv[1]}.{number}', number % 2 == 0, 'a remark')\n"
            "    record_result('98.1', False)\n"
            "    note_choice(f'{sys.argv[1]}.A', 'C', False)\n")
    kernels = [subprocess.Popen([sys.executable, "-c", code, name]) for name in ("1", "2")]
    assert [kernel.wait(60) for kernel in kernels] == [0, 0]
    kept = own_progress()
    assert set(kept.exercises) == {"98.1", *(f"{name}.{number}" for name in "12" for number in range(15))}
    assert kept.exercises["98.1"].tries == 30
    assert kept.questions == {"1.A": Choices("C" * 15), "2.A": Choices("C" * 15)}


@pytest.mark.parametrize("chapter", lookup.chapters("exercise"))
def test_titles_are_read_without_importing_the_chapter(chapter):
    assert lookup.titles(chapter) == {found.id: found.title for found in lookup.of_chapter("exercise", chapter)}


def test_several_notebooks_at_once_lose_nothing(path):
    """Threads here, which a lock of a file that each opens for itself keeps apart like processes."""
    def work(notebook):
        start.wait()
        return [record_result(f"{notebook}.{number}", passed=number % 2 == 0) for number in range(20)]

    start = threading.Barrier(4)
    with ThreadPoolExecutor(4) as notebooks:
        troubles = list(notebooks.map(work, range(4)))
    assert troubles == [[""] * 20] * 4
    assert set(own_progress().exercises) == {f"{notebook}.{number}" for notebook in range(4) for number in range(20)}


class TestSomeoneElseWrites:
    """`record` waits, says so, and does not wait for ever."""

    @pytest.fixture
    def lock(self, path, monkeypatch):
        monkeypatch.setattr(progress, "_SAYS_THAT_IT_WAITS", 0.05)
        with FileLock(path.with_name(".progress.json.lock")) as lock:
            yield lock

    def test_it_waits_and_says_so_once(self, path, lock, capsys):
        threading.Timer(0.3, lock.release).start()
        assert record_result("1.1", passed=True) == "" and own_progress().passed("1.1")
        said = capsys.readouterr().out
        assert said.count("\n") == 1 and said.startswith("Waiting for another notebook") and str(path) in said

    def test_it_gives_up(self, path, lock, monkeypatch, capsys):
        monkeypatch.setattr(progress, "_LONGEST_WAIT", 0.2)
        trouble = record_result("1.1", passed=True)
        assert "not added to your progress" in trouble and "another process has been writing it" in trouble
        assert capsys.readouterr().out.count("Waiting") == 1 and not path.exists()


class TestTables:
    def test_all_chapters(self, chapter_98, path, capsys):
        record_result("98.2", passed=True)
        show_progress()
        lines = capsys.readouterr().out.splitlines()
        assert lines[-2] == "chapter 98   1 of 2 passed   open: 98.1"
        total = sum(len(lookup.of_chapter("exercise", chapter)) for chapter in lookup.chapters("exercise"))
        assert lines[-1] == f"in all       1 of {total} passed"
        assert len(lines) == len(lookup.chapters("exercise")) + 1

    def test_a_chapter_that_is_done_has_nothing_open(self, chapter_98, path, capsys):
        for exercise_id in ("98.1", "98.2"):
            record_result(exercise_id, passed=True)
        show_progress()
        assert "chapter 98   2 of 2 passed\n" in capsys.readouterr().out

    def test_one_chapter(self, chapter_98, path, capsys):
        for passed in (False, True):
            record_result("98.1", passed)
        show_progress(98)
        assert capsys.readouterr().out == ("Chapter 98: 1 of 2 exercises passed\n"
                                           "passed  98.1 Twice (after 1 try)\nopen    98.2 Twice again\n")

    def test_a_chapter_without_exercises(self, path):
        with pytest.raises(InputError, match="Chapter 97 has no exercises: give one of 1, 2, "):
            show_progress(97)

    def test_several_learners(self, chapter_98):
        ann = Progress({"98.1": Attempts(0, WHEN), "98.2": Attempts(3, "2026-05-06T00:00:00+00:00")},
                       name="Ann\x1b[31m\n")
        bob = Progress({"98.1": Attempts(4), "0.9": Attempts(0, WHEN)})
        header, of, first, second = learners_table({"a.json": ann, "bob.json": bob}).splitlines()
        assert header.split()[:2] == ["learner", "1"] and header.split()[-4:] == ["98", "all", "last", "passed"]
        assert of.split()[-2] == "2"
        assert first.startswith("Ann\\x1b[31m\\n ") and first.split()[-3:] == ["2", "2", "2026-05-06"]
        assert second.startswith("bob.json ") and second.split()[-3:] == ["0", "0", "2026-01-02"]


    def test_no_field_steers_the_terminal(self, chapter_98):
        kept = {"98.1": Attempts(0, "20260102\x1b030405"), "98.\x1b[2J": Attempts(1)}
        table = learners_table({"a\x9b31m\n.json": Progress(kept, name="")})
        assert all(letter.isprintable() or letter == "\n" for letter in table) and len(table.splitlines()) == 3
        assert table.endswith("2026-01-02")


class TestCommand:
    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
    def test_huge_files_and_pipes_cost_the_others_nothing(self, chapter_98, path, tmp_path, capsys):
        record_result("98.1", passed=True)
        os.mkfifo(tmp_path / "pipe.json")
        with (tmp_path / "huge.json").open("wb") as file:
            file.truncate(10**11)
        assert main(["progress", str(tmp_path / "pipe.json"), str(path), str(tmp_path / "huge.json")]) == 2
        out, err = capsys.readouterr()
        assert str(path) in out
        pipe, huge = err.splitlines()
        assert "it is no regular file" in pipe and "is larger than the progress in this course can be" in huge

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
    def test_a_pipe_in_place_of_the_own_file(self, chapter_98, path, capsys):
        os.mkfifo(path)
        check("98.1", double)
        passed, trouble = capsys.readouterr().out.splitlines()
        assert passed == "PASSED 98.1 Twice" and "no regular file" in trouble

    def test_shows_the_own_progress(self, chapter_98, path, capsys):
        record_result("98.1", passed=True)
        assert main(["progress"]) == 0
        assert "chapter 98   1 of 2 passed   open: 98.2\n" in capsys.readouterr().out

    def test_export_and_an_instructors_table(self, chapter_98, path, tmp_path, capsys):
        record_result("98.1", passed=False)
        record_result("98.1", passed=True)
        assert main(["progress", "--export", str(tmp_path / "ann.json"), "--name", "Ann 李"]) == 0
        assert f"Written to {tmp_path / 'ann.json'}." in capsys.readouterr().out
        assert read_progress(tmp_path / "ann.json") == Progress(own_progress().exercises, "Ann 李")
        content = json.loads((tmp_path / "ann.json").read_text(encoding="utf-8"))
        assert datetime.fromisoformat(content["date"]) and content["exercises"]["98.1"]["tries"] == 1

        (tmp_path / "bad.json").write_text("{")
        assert main(["progress", str(tmp_path / "ann.json"), str(tmp_path / "bad.json"), str(tmp_path / "none.json"),
                     str(path)]) == 2
        out, err = capsys.readouterr()
        assert [line.split()[0] for line in out.splitlines()] == ["learner", "of", "Ann", str(path)]
        bad, none = err.splitlines()
        assert "is damaged or cut short" in bad and "No such file" in none

    def test_exporting_again_replaces_the_file(self, path, tmp_path, capsys):
        main(["progress", "--export", str(tmp_path / "ann.json")])
        record_result("98.1", passed=True)
        assert main(["progress", "--export", str(tmp_path / "ann.json")]) == 0
        assert read_progress(tmp_path / "ann.json").passed("98.1")

    def test_export_replaces_nothing_else(self, path, tmp_path, capsys):
        (tmp_path / "thesis.txt").write_text("Chapter one")
        assert main(["progress", "--export", str(tmp_path / "thesis.txt")]) == 2
        assert "give another file" in capsys.readouterr().err
        assert (tmp_path / "thesis.txt").read_text() == "Chapter one"

    def test_export_of_a_whole_course_is_small(self, detailed, tmp_path):
        for chapter in lookup.chapters("exercise"):
            for exercise_id in lookup.titles(chapter):
                record_result(exercise_id, passed=False, remark="x" * 1000)
                record_result(exercise_id, passed=True)
        export_progress(tmp_path / "all.json", "Ann")
        assert (tmp_path / "all.json").stat().st_size < 50_000

    @pytest.mark.parametrize(("arguments", "said"), [
        (["--name", "Ann"], "--name is given without --export"),
        (["--export", "a.json", "b.json"], "give one or the other"),
        (["--export", "no/folder/a.json"], "cannot be written"),
    ])
    def test_refuses(self, path, capsys, arguments, said):
        assert main(["progress", *arguments]) == 2
        assert said in capsys.readouterr().err

    def test_nothing_to_export(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setenv("COURSE_PROGRESS", "")
        assert main(["progress", "--export", str(tmp_path / "ann.json")]) == 2
        assert "COURSE_PROGRESS is empty" in capsys.readouterr().err and not (tmp_path / "ann.json").exists()
