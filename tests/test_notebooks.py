"""The notebooks as committed, the rules they are held to, the set-up cell, and what nbval compares.

That every notebook runs and prints what it holds is nbval's part: pytest collects the notebooks themselves.
"""

from __future__ import annotations

import copy
import importlib.machinery
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from course_utils import colab, exercises
from course_utils.errors import InputError
from course_utils.exercises.question import find_question, question_output

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
sys.path.insert(0, str(REPOSITORY / "notebooks"))

import build  # noqa: E402  (a script beside the notebooks, not a module of the package)
import rules  # noqa: E402
from workshop import parts  # noqa: E402

SOLUTION = 'def twice(x):\n    """Twice."""\n    return x + x'


def faults(notebook, name="99_example.ipynb"):
    return rules.faults(notebook, build.normalized(build.filled_in(notebook, name)))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebook_keeps_the_rules(path):
    assert faults(build.read(path), path.name) == []


def printed(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def exercise(number):
    """The cells of an exercise of a chapter 99 without a fault."""
    return [
        new_markdown_cell(f"## Exercise 99.{number}: twice\n\n*Easy, 5 minutes.* Write `twice`."),
        new_code_cell("def twice(x):\n    raise NotImplementedError"),
        new_code_cell(f'check("99.{number}", twice)', outputs=[printed(f"NOT STARTED 99.{number} Twice\n")]),
        new_markdown_cell("<details><summary>Hint 1</summary>\n\nAdd.\n\n</details>\n\n"
                          "<details>\n<summary>Hint 2</summary>\n\nTo itself.\n\n</details>\n\n"
                          f"<!-- solution 99.{number} -->"),
    ]


def question(letter):
    """A cell that asks a question of a chapter 99."""
    data = {"text/html": f"<p><strong>Question 99.{letter}:</strong> Why?</p>", "text/plain": "Question"}
    return new_code_cell(f'ask("99.{letter}")', outputs=[new_output("display_data", data)])


@pytest.fixture(autouse=True)
def solution(request, monkeypatch):
    """The solution of the example's exercises, which the package does not have."""
    if request.node.originalname != "test_committed_notebook_keeps_the_rules":
        monkeypatch.setattr(exercises, "solution_source", lambda exercise_id: SOLUTION)


def example():
    """A small notebook without a fault."""
    cells = [
        new_markdown_cell("# 99. Example\n\nText and ![a boat](boat.png).\n\n**Time:** 20 minutes, 15 of them for the "
                          "exercises."),
        new_code_cell("# setup"),
        new_code_cell("print(1)", outputs=[printed("1\n")]),
        new_code_cell("show('Time', 1.0, 's')", outputs=[printed("⏱ Time: 1 s\n")]),
        new_code_cell("draw()", outputs=[
            new_output("display_data", {"image/png": "iVBO", "text/plain": "Figure: A line."})]),
        new_code_cell("1 / 0", metadata={"tags": ["raises-exception"]}, outputs=[
            new_output("error", ename="ZeroDivisionError", evalue="division by zero", traceback=[])]),
        *exercise(1), *exercise(2), *exercise(3), question("A"), question("B"),
    ]
    for count, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    parts.propose_marks(notebook := new_notebook(cells=cells))
    return build.normalized(build.filled_in(notebook, "99_example.ipynb"))


def test_example_has_no_fault():
    assert faults(example()) == []


def test_filling_in_twice_changes_nothing():
    once = example()
    again = build.normalized(build.filled_in(once, "99_example.ipynb"))
    assert nbformat.writes(again) == nbformat.writes(once)


def replace(cell, old, new):
    assert old in cell.source
    cell.source = cell.source.replace(old, new)


FAULTS = {
    "never executed": (lambda cells: cells[2].update(execution_count=None), "execution counts"),
    "executed out of order": (lambda cells: cells[2].update(execution_count=7), "execution counts"),
    "raises": (lambda cells: cells[5].update(metadata={}), "raises an error"),
    "raises nothing": (lambda cells: cells[5].update(outputs=[]), "raises nothing"),
    "stale set-up": (lambda cells: cells[1].update(source=cells[1].source + "\n"), "stale"),
    "no set-up": (lambda cells: cells[1].update(source="import sys"), "no set-up cell"),
    "badges of another repository": (
        lambda cells: cells[0].update(source=cells[0].source.replace(build.repository()[19:], "/a/b")), "stale"),
    "metadata": (lambda cells: cells[2].metadata.update(collapsed=True), "metadata"),
    "long cell": (lambda cells: cells[2].update(source="x = 1\n" * 26), "26 lines"),
    "long cells": (lambda cells: [cell.update(source="x = 1\n" * 7) for cell in cells[2:]], "median"),
    "wide cell": (lambda cells: cells[2].update(source=f"x = '{'a' * 71}'"), "77 columns"),
    "page of imports": (lambda cells: cells[2].update(source="import os\n" * 11 + "os.getpid()"), "take 11 lines"),
    "second page of imports": (lambda cells: [cells[2].update(source="import os\n" * 6 + "os.getpid()"),
                                              cells[3].update(source="import os\n" * 6)], "take 12 lines"),
    "nothing to see": (lambda cells: [cell.update(outputs=[]) for cell in cells[2:4]], "result is shown by cell 5"),
    "names before anything to see": (
        lambda cells: cells.insert(2, new_code_cell("import os, re\n" * 5, execution_count=2)), "5 lines of imports"),
    "imported twice": (
        lambda cells: [cell.update(source="import os\nos.getpid()") for cell in cells[2:4]], "os is imported 2 times"),
    "idle import": (lambda cells: cells[2].update(source="from os import path as way\nprint(1)"), "way is imported"),
    "empty Markdown": (lambda cells: cells.append(nbformat.v4.new_markdown_cell("")), "empty Markdown"),
    "nameless column": (lambda cells: cells[0].update(source=cells[0].source + "\n\n| | b |\n|---|---|\n| 1 | 2 |"),
                        "no heading"),
    "wide Chinese": (lambda cells: cells[2].update(source=f"x = '{'船' * 36}'"), "78 columns"),
    "warning": (lambda cells: cells[2].outputs.append(printed("careful", "stderr")), "stderr"),
    "progress bar": (lambda cells: cells[2].outputs.append(printed(" 50%|###   | 1/2 [00:01<")), "progress bar"),
    "machine path": (lambda cells: cells[2].outputs.append(printed("/home" + "/ann/x")), "path of this machine"),
    "path in prose": (lambda cells: cells[0].update(source=cells[0].source + " C:" + "\\x"), "path of one machine"),
    "picture without sentence": (
        lambda cells: cells[4].outputs[0].data.update({"text/plain": "<Figure size 1x1>"}), "no alternative text"),
    "Markdown image without alt": (
        lambda cells: cells[0].update(source=cells[0].source.replace("a boat", "")), "no alternative text"),
    "HTML image without alt": (
        lambda cells: cells[4].outputs[0].data.update({"text/html": "<img src='data:x'>"}), "no alternative text"),
    "remote image": (lambda cells: cells[0].update(source=cells[0].source.replace("boat.png", "https://a/b.png")),
                     "from elsewhere"),
    "solved exercise": (
        lambda cells: cells[8].outputs[0].update(text="PASSED 99.1 Twice\n"), "must be NOT STARTED"),
    "too few exercises": (lambda cells: cells.__delitem__(slice(6, 10)), "2 exercises, fewer than 3"),
    "exercise of another chapter": (lambda cells: cells[0].update(source=cells[0].source.replace("99", "98")),
                                    "Exercise 99.1 belongs to another chapter"),
    "exercise without heading": (
        lambda cells: replace(cells[6], "## Exercise 99.1", "## Task"), "## Exercise 99.1: ..."),
    "exercise without time": (lambda cells: replace(cells[6], ", 5 minutes", ""), "difficulty and time"),
    "exercise without difficulty": (lambda cells: replace(cells[6], "Easy", "Nice"), "difficulty and time"),
    "stub that is solved": (
        lambda cells: replace(cells[7], "raise NotImplementedError", "return x + x"), "right above"),
    "stub under another name": (lambda cells: replace(cells[7], "twice", "thrice"), "right above"),
    "stub far from its check": (lambda cells: cells.insert(8, new_markdown_cell("Text.")), "right above"),
    "exercise without solution": (
        lambda cells: replace(cells[9], "<!-- solution 99.1 -->", ""), "<!-- solution 99.1 -->"),
    "solution far from its check": (
        lambda cells: cells.insert(9, new_code_cell("1", execution_count=1)), "<!-- solution 99.1 -->"),
    "exercise without hints": (
        lambda cells: cells[9].update(source=cells[9].source[cells[9].source.index("<!--"):]), "one or two folds"),
    "hints in one fold": (lambda cells: replace(cells[9], "Hint 1", "Hints"), "one or two folds"),
    "hints behind the solution": (
        lambda cells: cells[9].update(source=cells[9].source[cells[9].source.index("<!--"):]
                                      + "\n<details><summary>Hint 1</summary></details>"), "one or two folds"),
    "part without a mark": (lambda cells: cells[6].update(metadata={}), "'Exercise 99.1: twice' has no mark"),
    "unknown role": (lambda cells: cells[6].metadata.workshop.update(role="nice"), "`role` must be one of core"),
    "unknown audience": (lambda cells: cells[6].metadata.workshop.update({"for": "cats"}), "`for` one of everyone"),
    "misspelt note": (lambda cells: cells[6].metadata.workshop.update(befor="Hello."), "'befor'"),
    "minutes of an exercise": (lambda cells: cells[6].metadata.workshop.update(minutes=5), "there may be"),
    "half a minute": (lambda cells: cells[0].metadata.workshop.update(minutes=0.5), "whole number of minutes"),
    "minutes that do not add up": (lambda cells: replace(cells[0], "20 minutes", "21 minutes"),
                                   "states 21 minutes, and its parts take 20"),
    "minutes of exercises that do not add up": (lambda cells: replace(cells[0], "15 of", "14 of"),
                                                "14 minutes for the exercises, and their tasks take 15"),
    "live stub": (lambda cells: cells[7].metadata.update(workshop={"live": True}), "if it is code to type"),
    "mark inside a part": (lambda cells: cells[2].metadata.update(workshop={"minutes": 3}), "all that a cell inside"),
    "too few questions": (lambda cells: cells.pop(), "1 questions, fewer than 2"),
    "question of another chapter": (
        lambda cells: replace(cells[-1], "99.B", "98.B"), "Question 98.B belongs to another chapter"),
    "question that was not asked": (lambda cells: cells[-1].update(outputs=[]), "not the question as HTML"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found(name):
    spoil, message = FAULTS[name]
    notebook = copy.deepcopy(example())
    spoil(notebook.cells)
    assert any(message in fault for fault in faults(notebook)), faults(notebook)


@pytest.mark.parametrize("value", ["12 tokens/s", "took 0.31 s", "5ms", "1.2 GB", "310 MB"])
def test_unmasked_machine_values_are_found(value):
    notebook = example()
    notebook.cells[2].outputs = [printed(f"first\n{value}\n")]
    assert len(faults(notebook)) == 1 and "may differ between machines" in faults(notebook)[0]
    notebook.cells[2].metadata.tags = ["exact"]
    assert faults(notebook) == []
    del notebook.cells[2].metadata["tags"]
    notebook.cells[2].outputs = [printed(f"first\n⏱ Label: {value}\n")]
    assert faults(notebook) == []


def test_cells_keep_their_ids_when_others_are_inserted_and_moved():
    before = example()
    notebook = copy.deepcopy(before)
    notebook.cells.insert(3, new_code_cell("x = 1"))
    notebook.cells.append(notebook.cells.pop(2))
    after = build.normalized(notebook)
    ids = {cell.id: cell.source for cell in after.cells}
    assert len(ids) == len(before.cells) + 1
    assert [cell.source for cell in before.cells] == [ids[cell.id] for cell in before.cells]
    assert build.normalized(after) == after


def test_no_two_cells_have_one_id():
    notebook = example()
    notebook.cells.append(copy.deepcopy(notebook.cells[4]))  # as a text editor copies
    del notebook.cells[3]["id"]
    after = build.normalized(notebook)
    assert len({cell.id for cell in after.cells}) == len(after.cells)
    assert after.cells[4].id == notebook.cells[4].id


def test_solution_is_filled_in_and_renewed():
    before = "Hints.\n\n<!-- solution 99.1 -->\n\nMore."
    filled = build.with_solutions(before)
    assert f"```python\n{SOLUTION}\n```" in filled and filled.endswith("\n\nMore.")
    assert build.with_solutions(filled) == filled
    assert build.with_solutions(filled.replace("Twice.", "Old.")) == filled


def test_solution_needs_its_imports(monkeypatch):
    monkeypatch.setattr(exercises, "solution_source", lambda _: SOLUTION.replace("x + x", "torch.add(x, x)"))
    notebook = example()
    assert faults(notebook) == [f"The solution of 99.{number} uses torch, which no cell above it defines or imports."
                                for number in (1, 2, 3)]
    notebook.cells[2].source = "import torch"
    assert faults(notebook) == []
    notebook.cells[2].source, notebook.cells[-1].source = "print(1)", f"import torch\n{notebook.cells[-1].source}"
    assert len(faults(notebook)) == 3  # too late


def test_widgets_are_not_kept():
    """They live in a kernel alone; a saved notebook shows what stands beside them."""
    notebook = example()
    notebook.metadata.widgets = {"state": {}}
    notebook.cells[-1].outputs[0].data[build.WIDGET_VIEW] = {"model_id": "1"}
    metadata, widget = faults(notebook)
    assert "metadata is not normalized" in metadata and "keeps a widget" in widget
    kept = build.normalized(notebook)
    assert nbformat.writes(kept) == nbformat.writes(example())


def test_repository_is_renamed_everywhere(tmp_path, monkeypatch, capsys):
    project = tmp_path / "pyproject.toml"
    project.write_text(build.PROJECT_FILE.read_text(encoding="utf-8"), encoding="utf-8")
    readme = tmp_path / "README.md"
    readme.write_text(build.README.read_text(encoding="utf-8"), encoding="utf-8")
    path = tmp_path / "99_example.ipynb"
    build.write(example(), path)
    monkeypatch.setattr(build, "PROJECT_FILE", project)
    monkeypatch.setattr(build, "README", readme)
    monkeypatch.setattr(build, "FOLDER", tmp_path)

    build.set_repository("https://github.com/ann/course.git")
    assert 'Repository = "https://github.com/ann/course"' in project.read_text(encoding="utf-8")
    first, setup = build.read(path).cells[:2]
    assert "(https://colab.research.google.com/github/ann/course/blob/main/notebooks/99_example.ipynb)" in first.source
    assert "(https://codespaces.new/ann/course)" in first.source
    assert "(https://mybinder.org/v2/gh/ann/course/main?labpath=notebooks%2F99_example.ipynb)" in first.source
    assert "https%3A%2F%2Fgithub.com%2Fann%2Fcourse" in first.source
    assert 'REPOSITORY = "https://github.com/ann/course"' in setup.source
    assert "(https://ann.github.io/course/)" in readme.read_text(encoding="utf-8")
    assert faults(build.read(path)) == []
    with pytest.raises(SystemExit, match="https://github.com/OWNER/NAME"):
        build.set_repository("https://example.org/course")


def test_readme_links_to_the_website_of_this_repository():
    assert f"({build.website(build.repository())})" in build.README.read_text(encoding="utf-8")


class TestSetupCell:
    """The set-up cell where the package is missing; pip itself is replaced."""

    source = build.SETUP.format(repository="https://github.com/ann/course")

    @pytest.fixture
    def calls(self, monkeypatch, tmp_path):
        """The package cannot be imported; pip's calls are noted and succeed."""
        noted = []

        def run(command, **kwargs):
            noted.append(command)
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setitem(sys.modules, "course_utils", None)
        monkeypatch.setattr(subprocess, "run", run)
        monkeypatch.chdir(tmp_path)
        return noted

    def test_is_short(self):
        assert len(self.source.splitlines()) <= 25 and max(map(len, self.source.splitlines())) <= 76

    def test_nothing_to_do(self, monkeypatch, capsys):
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
        exec(self.source, {})
        exec(self.source, {})  # as after a restart
        assert capsys.readouterr() == ("", "")

    def test_installs_from_the_clone(self, calls, tmp_path, monkeypatch, capsys):
        (tmp_path / "notebooks" / "course_utils").mkdir(parents=True)  # no package: there is nothing in it
        (tmp_path / "course_utils").mkdir()
        (tmp_path / "course_utils" / "__init__.py").touch()
        monkeypatch.chdir(tmp_path / "notebooks")
        exec(self.source, {})
        assert calls == [[sys.executable, "-m", "pip", "install", "--quiet", str(tmp_path)]]
        assert capsys.readouterr() == ("", "")

    def test_installs_the_archive(self, calls, capsys):
        exec(self.source, {})
        assert calls[0][-1] == "https://github.com/ann/course/archive/main.zip"
        assert capsys.readouterr() == ("", "")

    def test_says_in_one_line_that_pip_failed(self, calls, monkeypatch, capsys):
        monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(
            command, 1, "", "WARNING: retrying\nERROR: HTTP error 404\n"))
        exec(self.source, {})
        assert capsys.readouterr().out == (
            "Setup failed: offline, or is REPOSITORY wrong? pip says: ERROR: HTTP error 404\n")

    def test_says_in_one_line_that_python_is_too_old(self, calls, monkeypatch, capsys):
        monkeypatch.setattr(sys, "version_info", (3, 10, 12))
        monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(
            command, 1, "", "ERROR: Package 'course-utils' requires a different Python"))
        exec(self.source, {})
        assert capsys.readouterr().out == "Setup failed: this Python is too old, take 3.11 or later.\n"

    def test_a_pytorch_that_was_loaded_and_then_replaced(self, calls, monkeypatch, capsys):
        monkeypatch.setattr(sys.modules["torch"], "__version__", "2.0.1")
        exec(self.source, {})
        assert capsys.readouterr().out == "PyTorch was replaced: restart the kernel, then run this.\n"

    @pytest.mark.parametrize("old", [
        "raise AttributeError(\"module 'torch' has no attribute 'float9'\")", "raise ImportError('no such name')", ""])
    def test_a_package_that_is_none_or_cannot_be_imported(self, old, calls, tmp_path, monkeypatch):
        """An empty folder of the name is a package to Python, and stays one until it is forgotten."""
        monkeypatch.delitem(sys.modules, "course_utils")
        (tmp_path / "first" / "course_utils" / "data").mkdir(parents=True)
        if old:
            (tmp_path / "first" / "course_utils" / "__init__.py").write_text(old)
        installed = tmp_path / ("first" if old else "installed") / "course_utils"  # what is old, pip replaces

        def install(command, **_):
            calls.append(command)
            installed.mkdir(parents=True, exist_ok=True)
            (installed / "__init__.py").write_text("load_model = 'here'  # and longer than what was there")
            sys.path.append(str(installed.parent))
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(subprocess, "run", install)
        # Wherever the real one is, it is not to be found.
        others = [path for path in sys.path if not Path(path, "course_utils", "__init__.py").is_file()]
        monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), *others])
        monkeypatch.setattr(sys, "meta_path", [importlib.machinery.PathFinder])
        cells = {}
        try:
            exec(self.source, cells)
            exec("from course_utils import load_model", cells)
        finally:
            sys.modules.pop("course_utils", None)  # monkeypatch puts back the real one
        assert cells["load_model"] == "here" and len(calls) == 1

    def test_progress_on_a_drive(self, monkeypatch, capsys):
        mounted = []
        drive = SimpleNamespace(mount=mounted.append)
        monkeypatch.setitem(sys.modules, "google", SimpleNamespace())
        monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace(drive=drive))
        monkeypatch.setenv("COURSE_PROGRESS", "elsewhere")
        source = self.source.replace("PROGRESS_ON_DRIVE = False", "PROGRESS_ON_DRIVE = True")
        exec(source, {})
        exec(source, {})  # as after a restart
        assert mounted == [str(colab.DRIVE)] * 2
        assert Path(os.environ["COURSE_PROGRESS"]) == colab.PROGRESS_FILE
        assert colab.PROGRESS_FILE.is_relative_to(colab.DRIVE)
        assert "course-progress.json" in capsys.readouterr().out

        def refuse(_):
            raise ValueError("mount failed")

        drive.mount = refuse
        with pytest.raises(InputError, match=r"The drive was not mounted \(mount failed\): run the cell again"):
            exec(source, {})
        monkeypatch.setitem(sys.modules, "google.colab", None)
        with pytest.raises(InputError, match="no Google Drive outside of Google Colab"):
            exec(source, {})


@pytest.mark.slow
def test_nbval_masks_values_and_nothing_else(tmp_path):
    """The same cells against three committed outputs: another value, another label, another text; and a widget."""
    kept = {"value": "⏱ Time: 99 s\nfour\n", "label": "⏱ Speed: 1 s\nfour\n", "text": "⏱ Time: 1 s\nfive\n"}
    for name, text in kept.items():
        cell = new_code_cell("print('⏱ Time: 1 s')\nprint('four')", execution_count=1, outputs=[printed(text)])
        nbformat.write(build.normalized(new_notebook(cells=[cell])), tmp_path / f"{name}.ipynb")
    for name, question_id in (("widget", "4.A"), ("other", "4.B")):
        output = new_output("display_data", question_output(find_question(question_id)))
        cell = new_code_cell("from course_utils.exercises import ask\nask('4.A')", execution_count=1, outputs=[output])
        nbformat.write(build.normalized(new_notebook(cells=[cell])), tmp_path / f"{name}.ipynb")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-c", "/dev/null", "-p", "no:cacheprovider",
         f"--nbval-sanitize-with={REPOSITORY / 'tests' / 'nbval_sanitize.cfg'}", "-rA", str(tmp_path)],
        capture_output=True, text=True, timeout=600)
    found = re.findall(r"^(PASSED|FAILED) .*?(\w+)\.ipynb", run.stdout, re.MULTILINE)
    verdicts = {name: verdict for verdict, name in found}
    assert verdicts == {"value": "PASSED", "label": "FAILED", "text": "FAILED", "widget": "PASSED",
                        "other": "FAILED"}, run.stdout


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX: a PATH that names one folder")
def test_chapters_about_compilers_pass_without_any(tmp_path: Path) -> None:
    """The README's test command has to pass on a machine that has none, so their outputs are compared there, too."""
    environment = os.environ | {"PATH": str(Path(sys.executable).parent), "COURSE_SMALL": "1",
                                "XDG_CACHE_HOME": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    environment = {name: value for name, value in environment.items() if name not in ("CC", "CXX", "COURSE_KERNELS")}
    if any(shutil.which(name, path=environment["PATH"]) for name in ("cc", "gcc", "clang", "c++", "g++", "clang++")):
        pytest.skip("needs POSIX: a PATH without a compiler, and one stands beside this Python")
    chapters = [str(path) for path in NOTEBOOKS if path.name.startswith(("07_", "16_"))]
    run = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *chapters],
                         cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr
