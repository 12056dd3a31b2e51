"""A solution put into a learner's notebook: which cell it gets, what is noted, and what is left alone."""

from __future__ import annotations

import os
import sys

import IPython
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from course_utils.errors import InputError
from course_utils.exercises import show_solution, solution_source
from course_utils.exercises.progress import own_progress


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The learner's progress is kept, in a file of this test."""
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv("COURSE_PROGRESS_DETAILS", raising=False)


@pytest.mark.slow
def test_a_kernel_is_asked_for_a_cell_below_with_the_solution():
    """A notebook's page makes the cell; the kernel asks for it in its reply, which is looked at here."""
    source = "from course_utils.exercises import show_solution\n\nshow_solution('4.1')"
    notebook = new_notebook(cells=[new_code_cell(source)])
    replies = []
    client = NotebookClient(notebook, timeout=120, on_cell_executed=lambda execute_reply, **_: replies.append(
        execute_reply["content"]), kernel_name="python3")
    client.execute(env={"COURSE_PROGRESS": "", "COURSE_LANGUAGE": "en", "PYTHONPATH": os.pathsep.join(sys.path)})
    assert replies[0]["payload"] == [{"source": "set_next_input", "text": solution_source("4.1"), "replace": False}]
    assert "solution of 4.1 stands in the cell below" in notebook.cells[0].outputs[0].text


def test_what_is_shown_is_noted_once_and_passes_nothing(kept, monkeypatch, capsys):
    shell = type("Shell", (), {"set_next_input": lambda self, text: given.append(text)})()
    given = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    show_solution("4.1")
    first = own_progress().exercises["4.1"]
    assert given == [solution_source("4.1")] and first.shown is not None and first.passed is None
    assert "progress is kept in the file" in capsys.readouterr().out  # said the first time
    show_solution("4.1")
    assert own_progress().exercises["4.1"] == first
    assert "is kept" not in capsys.readouterr().out


def test_outside_a_notebook_it_is_printed(capsys):
    show_solution("4.1")
    assert capsys.readouterr().out == solution_source("4.1") + "\n"


def test_an_exercise_that_is_none_is_noted_nowhere(kept):
    with pytest.raises(InputError, match="There is no exercise '4.9'"):
        show_solution("4.9")
    assert own_progress().exercises == {}
