"""The board of a class: who is stuck on what and for how long, what stops the class, who has no file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

from course_utils.cli import main
from course_utils.errors import InputError
from course_utils.exercises import lookup, progress
from course_utils.exercises.record import Attempts, Choices, Progress
from course_utils.workshop import learners
from course_utils.workshop.board import STATES, board_of
from course_utils.workshop.board_view import board_html, board_text
from course_utils.workshop.learners import class_board, read_learners, read_roster, watch_class

NOW = datetime(2026, 11, 26, 14, 30, tzinfo=UTC)


def ago(minutes: float) -> str:
    return (NOW - timedelta(minutes=minutes)).isoformat()


def standing(exercises: dict[str, Attempts]):
    [found] = board_of(4, {"ann": Progress(exercises)}, at=NOW).standings
    return found


class TestOneLearner:
    """What the table without times took for one another: nine wrong tries, nothing tried, solutions copied."""

    def test_many_tries(self):
        found = standing({"4.1": Attempts(0, ago(30), ago(50), ago(30), ago(30)),
                          "4.2": Attempts(9, None, ago(29), ago(4), ago(1), "Divide by the sum.")})
        assert (found.state, found.exercise, found.tries, found.passed) == ("stuck", "4.2", 9, 1)
        assert NOW - found.since == timedelta(minutes=4) and found.remark == "Divide by the sum."

    def test_a_long_time(self):
        assert standing({"4.1": Attempts(1, None, None, ago(11), ago(11))}).state == "stuck"
        assert standing({"4.1": Attempts(1, None, None, ago(9), ago(9))}).state == "at work"

    def test_nothing_tried(self):
        """"Run All" sees every exercise at once; that is where a learner begins, not where one is stuck."""
        seen = {f"4.{number}": Attempts(seen=ago(25)) for number in range(1, 5)}
        found = standing(seen)
        assert (found.state, found.exercise, found.tries) == ("quiet", "4.1", 0)
        assert NOW - found.since == NOW - found.last == timedelta(minutes=25)
        assert standing({key: Attempts(seen=ago(2)) for key in seen}).state == "at work"
        assert standing({}).state == standing({"5.1": Attempts(3)}).state == "not begun"

    def test_after_what_passed_comes_the_next(self):
        kept = {"4.1": Attempts(2, None, ago(60), ago(50), ago(40)), "4.2": Attempts(0, ago(3), None, ago(3), ago(3))}
        found = standing(kept)
        assert (found.exercise, found.state) == ("4.3", "at work") and NOW - found.since == timedelta(minutes=3)
        done = {f"4.{number}": Attempts(0, ago(20 - number)) for number in (2, 3, 4)}
        assert standing(kept | done).exercise == "4.1"  # round to what was left out

    def test_solutions_shown(self):
        found = standing({f"4.{number}": Attempts(0, ago(5), shown=ago(6) if number > 1 else None)
                          for number in range(1, 5)})
        assert (found.state, found.passed, found.shown, found.exercise) == ("done", 4, 3, "")

    def test_files_without_times(self):
        found = standing({"4.1": Attempts(0, ago(30)), "4.2": Attempts(5)})
        assert (found.state, found.exercise, found.tries) == ("stuck", "4.2", 5)
        found = standing({"4.1": Attempts(5), "4.3": Attempts(2)})
        assert (found.state, found.exercise, found.since, found.last) == ("at work", "4.3", None, None)

    def test_a_clock_that_is_ahead(self):
        found = standing({"4.1": Attempts(1, None, None, ago(-30), ago(-30))})
        assert found.state == "at work"
        assert "just now" in board_text(board_of(4, {"ann": Progress({"4.1": Attempts(1, last=ago(-30))})}, at=NOW))


@pytest.fixture
def room():
    stuck = Attempts(4, None, ago(40), ago(18), ago(1), "Each row must add up to 1.")
    return {
        "bob": Progress({"4.1": Attempts(0, ago(30), last=ago(30)), "4.2": stuck},
                   questions={"4.A": Choices("BA", ago(3)), "4.B": Choices("A")}),
        "Cy 李": Progress({"4.1": Attempts(1, ago(30), last=ago(30)), "4.2": stuck}, questions={"4.A": Choices("B")}),
        "dee": Progress({f"4.{number}": Attempts(0, ago(5), shown=ago(6)) for number in range(1, 5)}),
        "eve": Progress({"4.1": Attempts(seen=ago(40))}),
        "fay": Progress({"4.1": Attempts(1, None, ago(3), ago(2), ago(2), "Another remark.")}),
    }


class TestClass:
    def test_who_needs_a_look_comes_first(self, room):
        board = board_of(4, room, ["BOB", "cy  李", "dee", "Gus"], NOW)
        assert [(one.name, one.state) for one in board.standings] == [
            ("bob", "stuck"), ("Cy 李", "stuck"), ("eve", "quiet"), ("fay", "at work"), ("Gus", "no file"),
            ("dee", "done")]
        assert {one.name for one in board.standings if not one.expected} == {"eve", "fay"}
        assert {one.state for one in board.standings} < set(STATES)

    def test_what_stops_the_class(self, room):
        first, second, *others = board_of(4, room, at=NOW).hurdles
        assert (second.stuck, second.open, second.passed, second.stops) == (2, 2, 1, True)
        assert second.remark == ("Each row must add up to 1.", 2) and second.shown == 1 and second.tries == 4
        assert (first.passed, first.open, first.stuck, first.stops) == (3, 1, 0, False)
        assert not any(hurdle.stops for hurdle in others)

    def test_votes_count_the_first_choice(self, room):
        votes = {vote.id: vote for vote in board_of(4, room, at=NOW).votes}
        assert votes["4.A"].first["B"] == 2 and sum(votes["4.A"].first.values()) == 2
        assert votes["4.B"].first["A"] == 1
        for vote in votes.values():
            [question] = [one for one in lookup.of_chapter("question", 4) if one.id == vote.id]
            assert dict(question.lettered)[vote.right].right

    def test_nobody_is_there(self):
        board = board_of(4, {}, ["ann"], NOW)
        assert board.standings[0].state == "no file" and "1 no file" in str(board)
        assert "0 learners" in str(board_of(4, {}, at=NOW))

    def test_no_such_chapter(self):
        with pytest.raises(InputError, match="Chapter 97 has no exercises: give one of 1, 2,"):
            board_of(97, {})


class TestViews:
    def test_text(self, room):
        lines = board_text(board_of(4, room, ["bob", "gus"], NOW)).splitlines()
        assert "6 learners: 2 stuck, 1 quiet, 1 at work, 1 no file, 1 done" in lines[0]
        [bob] = [line for line in lines if line.startswith("bob")]
        assert bob.split() == "bob stuck 4.2 18 min 4 1 of 4 1 min ago".split()
        [hurdle] = [line for line in lines if line.startswith("4.2 ")]
        assert "2 <- most" in hurdle and hurdle.endswith(" 4")
        assert "4.2, told 2 last: Each row must add up to 1." in lines
        assert any(line.startswith("question 4.A, chosen first: A") and "(right)" in line for line in lines)

    def test_chinese_names_stand_in_columns(self, room):
        lines = board_text(board_of(4, room, at=NOW)).splitlines()
        bob, cy = ([line for line in lines if line.startswith(name)][0] for name in ("bob", "Cy"))
        assert bob.index("stuck") == cy.index("stuck") + 1  # one letter that is two columns wide

    def test_what_does_not_fit_is_said(self, room):
        text = board_text(board_of(4, room, at=NOW), width=30, height=8)
        lines = text.splitlines()
        assert len(lines) == 8 and max(map(len, lines)) <= 30 and lines[-1].startswith("... and ")

    def test_strangers_names_steer_neither_terminal_nor_page(self):
        bad = Progress({"4.1": Attempts(3, None, None, ago(20), ago(1), "<script>\x1b[2J\n")})
        board = board_of(4, {"<b>\x1b[31m\n": bad}, ["<i>"], NOW, ["\x1b[2J broken <b>"])
        assert all(letter.isprintable() or letter == "\n" for letter in str(board))
        page = board._repr_html_()
        assert "\x1b" not in page and "<b>" not in page and "<i>" not in page and "<script>" not in page

    def test_html_has_the_same_cells(self, room):
        class Cells(HTMLParser):
            cells: list[str] = []

            def handle_data(self, data):
                self.cells.append(data)

        parser = Cells()
        parser.feed(board_html(board_of(4, room, at=NOW)))
        assert {"bob", "stuck", "4.2", "18 min", "1 of 4", "2 <- most"} <= set(parser.cells)


@pytest.fixture
def folder(tmp_path, monkeypatch, room):
    """A folder as a class has it, with what else lies around."""
    folder = tmp_path / "class"
    folder.mkdir()
    for name in ("ann", "bob"):
        monkeypatch.setenv("COURSE_PROGRESS", str(folder / f"{name}.json"))
        progress.record_result("4.1", passed=name == "ann", remark="No.")
    monkeypatch.setenv("COURSE_PROGRESS", str(folder / "bob.json"))
    progress.export_progress(folder / "export.json", "Eve 李")
    (folder / ".ann.json.lock").touch()
    (folder / "ann.json.aside-1").write_text("{")
    (folder / "notes.json").write_text("{}")
    (tmp_path / "names.txt").write_text("\ufeff# group A\nAnn\n\n  bob \nGus\n", encoding="utf-8")
    return folder


class TestFiles:
    def test_names_come_from_exports_and_files(self, folder):
        found, troubles = read_learners([folder])
        assert list(found) == ["ann", "bob", "Eve 李"] and len(troubles) == 1 and "notes.json" in troubles[0]

    def test_two_of_one_name_are_two(self, folder):
        found, _ = read_learners([folder / "ann.json", folder / "ann.json"])
        assert len(found) == 2

    def test_roster(self, folder, tmp_path):
        assert read_roster(tmp_path / "names.txt") == ["Ann", "bob", "Gus"]
        (tmp_path / "bad.txt").write_bytes("Zoé".encode("latin-1"))
        with pytest.raises(InputError, match="no text in UTF-8"):
            read_roster(tmp_path / "bad.txt")
        with pytest.raises(InputError, match="cannot be read"):
            read_roster(tmp_path / "none.txt")

    def test_board_of_a_folder(self, folder, tmp_path):
        board = class_board(str(folder), 4, str(tmp_path / "names.txt"))
        assert {one.name: one.state for one in board.standings} == {
            "ann": "at work", "bob": "at work", "Eve 李": "at work", "Gus": "no file"}
        assert "notes.json" in str(board) and "notes.json" in board._repr_html_()

    def test_a_folder_that_is_not_there(self, tmp_path):
        assert "cannot be read" in str(class_board(tmp_path / "none", 4))

    def test_watching_renews_the_board_until_interrupted(self, folder, monkeypatch, capsys):
        looks = iter(["ann", "bob"])

        def look():
            if (name := next(looks, None)) is None:
                raise KeyboardInterrupt
            return board_of(4, {name: Progress({})})

        monkeypatch.setattr(learners.time, "sleep", lambda seconds: None)
        watch_class(look)
        out = capsys.readouterr().out
        assert out.index("ann") < out.index("bob") and "\x1b" not in out  # this is no terminal


class TestCommand:
    def test_board(self, folder, tmp_path, capsys):
        assert main(["progress", str(folder), "--chapter", "4", "--roster", str(tmp_path / "names.txt")]) == 2
        out = capsys.readouterr().out
        assert "1 no file" in out and "Gus" in out and "(not on the roster)" in out and "notes.json" in out
        (folder / "notes.json").unlink()
        assert main(["progress", str(folder), "--chapter", "4"]) == 0

    def test_all_chapters_of_a_folder(self, folder, capsys):
        assert main(["progress", str(folder)]) == 2
        out, err = capsys.readouterr()
        assert [line.split()[0] for line in out.splitlines()] == ["learner", "of", "ann", "bob", "Eve"]
        assert "notes.json" in err

    def test_own_chapter(self, folder, capsys):
        assert main(["progress", "--chapter", "4"]) == 0
        assert capsys.readouterr().out.startswith("Chapter 4: 0 of 4 exercises passed")

    @pytest.mark.parametrize("arguments", [["--watch"], ["--watch", "--chapter", "4"], ["--roster", "names.txt"],
                                           ["FOLDER", "--watch"]])
    def test_refuses(self, folder, capsys, arguments):
        assert main(["progress", *[str(folder) if word == "FOLDER" else word for word in arguments]]) == 2
        assert "give the folder with the learners' files, and --chapter N" in capsys.readouterr().err

    def test_watching(self, folder, monkeypatch, capsys):
        def interrupted(seconds):
            raise KeyboardInterrupt

        monkeypatch.setattr(learners.time, "sleep", interrupted)
        assert main(["progress", str(folder), "--chapter", "4", "--watch"]) == 0
        assert "3 at work" in capsys.readouterr().out


def test_a_class_of_forty_is_shown_without_pytorch(tmp_path):
    """The command itself, in a process of its own: what it imports decides whether it takes one second or six."""
    for number in range(40):
        kept = {f"4.{exercise}": {"tries": number % 5, "last": ago(number)} for exercise in range(1, 5)}
        (tmp_path / f"learner{number:02}.json").write_text(json.dumps({"format": "course-utils progress",
                                                                       "exercises": kept}))
    code = ("import sys; from course_utils.cli import main; status = main(sys.argv[1:]); "
            "print([name for name in ('torch', 'numpy', 'matplotlib', 'transformers') if name in sys.modules], status)")
    for arguments in (["--chapter", "4"], []):
        result = subprocess.run([sys.executable, "-c", code, "progress", str(tmp_path), *arguments], check=True,
                                capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
        assert result.stdout.splitlines()[-1] == "[] 0" and "learner39" in result.stdout
