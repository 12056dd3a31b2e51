"""Workshops: paths add up and run, and what is made of the marks says what the chapters and the checks say."""

from __future__ import annotations

import ast
import builtins
import copy
import importlib
import json
import re
import shlex
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from course_utils import cli
from course_utils.exercises import lookup, solution_source
from course_utils.exercises.checking import judge

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
sys.path.insert(0, str(REPOSITORY / "notebooks"))

import build  # noqa: E402  (a script beside the notebooks, not a module of the package)
from workshop import kit, paths  # noqa: E402
from workshop.agenda import MOST_REMARKS, agenda, clock  # noqa: E402
from workshop.excerpt import TYPED_TOGETHER, excerpt, for_learners, names_of, needed_cells  # noqa: E402
from workshop.guide import as_markdown, chapter_guide, foreseen  # noqa: E402
from workshop.parts import MARK, NOTES, beginnings, is_live, parts, propose_marks  # noqa: E402
from workshop.slides import slides_of_chapter, slides_of_path  # noqa: E402

ELSEWHERE = "https://github.com/ann/course/blob/main/notebooks"
WORKSHOPS = [paths.read_path(name) for name in paths.names()]
EXCERPT_OF = {path.name: kit.excerpts(path, ELSEWHERE) for path in WORKSHOPS}
BUILT_IN = {*dir(builtins), "get_ipython"}
EXCERPTS = [pytest.param(path, chapter, id=f"{path.name}-{chapter}") for path in WORKSHOPS for chapter in path.parts()]


def test_the_three_paths_take_as_long_as_they_say() -> None:
    assert {path.name: path.minutes for path in WORKSHOPS} == {"ninety_minutes": 90, "half_a_day": 225, "two_days": 840}
    for path in WORKSHOPS:
        for day in path.days:
            assert [entry.start for entry in day] == [sum(one.minutes for one in day[:at]) for at in range(len(day))]
            assert all(entry.minutes > 0 for entry in day)


@pytest.mark.parametrize("path", WORKSHOPS, ids=lambda path: path.name)
def test_each_part_of_a_path_has_something_to_say(path: paths.Workshop) -> None:
    for chosen in path.parts().values():
        silent = [part.title for part in chosen if not part.note("before") and not part.title.endswith("continued")]
        assert silent == []


@pytest.mark.parametrize(("path", "chapter"), EXCERPTS)
def test_an_excerpt_has_every_name_that_it_uses(path: paths.Workshop, chapter: int) -> None:
    """That its cells run in order is tested for the shortest path here, and for all by `.ci/run workshop`."""
    code = [names_of(cell.source) for cell in EXCERPT_OF[path.name][chapter].cells if cell.cell_type == "code"]
    assert set().union(*(names.used for names in code)) - set().union(*(names.bound for names in code)) <= BUILT_IN


@pytest.mark.slow
@pytest.mark.parametrize("chapter", WORKSHOPS[0].parts())
def test_the_shortest_path_runs_in_order(chapter: int) -> None:
    """With real kernels, from the first cell to the last; a cell that raises ends it."""
    notebook = EXCERPT_OF[WORKSHOPS[0].name][chapter]
    assert build.executed(notebook, timeout=300).cells[-1].source == notebook.cells[-1].source


def test_a_day_that_is_too_long_and_a_part_that_nobody_knows_are_told(tmp_path: Path, monkeypatch) -> None:
    text = (paths.FOLDER / "ninety_minutes.toml").read_text(encoding="utf-8")
    monkeypatch.setattr(paths, "FOLDER", tmp_path)
    for old, new, message in (
        ("minutes = 90", "minutes = 80", "of 80 minutes -4 are left"),
        ("rest = true", "minutes = 6", "Exactly one block must have rest"),
        ('"The same text"', '"The same words"', "chapter 6 has no part 'The same words'"),
        ("chapter = 6", "chapter = 66", "There is no chapter 66"),
        ('"The same text",\n    "Not the same time"', '"Not the same time",\n    "The same text"', "not in its order"),
        ('    "Not the same time",', '    "The same text",', "comes twice"),
    ):
        assert old in text
        (tmp_path / "spoilt.toml").write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(ValueError, match=re.escape(message)):
            paths.read_path("spoilt")


def test_typing_and_voting_take_longer_in_a_class() -> None:
    live = new_code_cell("a = 1\nb = 2\nc = 3\nd = 4\ne = 5", metadata={MARK: {"live": True}})
    notebook = new_notebook(cells=[new_markdown_cell("# 99. Example\n\n**Time:** 10 minutes."), live,
                                   new_code_cell('ask("4.A")'), new_code_cell("f = 6")])
    propose_marks(notebook)
    [part] = parts(notebook)
    assert part.minutes == 10 and paths.minutes_in_class(part) == 10 + 2 + 2


def chapter() -> nbformat.NotebookNode:
    """A chapter of 20 minutes in four parts: its opening, one that ends in the next cell, an exercise, what follows."""
    notebook = new_notebook(cells=[
        new_markdown_cell("# 99. Example\n\n**Time:** 20 minutes, 5 of them for the exercises. **Builds on:** nothing.",
                          id="top"),
        new_code_cell("import math\n\nbase = 1", id="names"),
        new_markdown_cell("## One\n\nSee [chapter 5](05_generation_loop.ipynb).", id="one"),
        new_code_cell("counts = {}\n\ndef more(x):\n    return helper(x) + base", id="more"),
        new_code_cell("def helper(x):\n    return math.sqrt(x)", id="helper"),
        new_code_cell("counts['a'] = more(4)", id="put", metadata={MARK: {"live": True}}),
        new_markdown_cell("It was three.\n\n## Exercise 99.1: twice\n\n*Easy, 5 minutes.* `## no heading`", id="task"),
        new_code_cell("def twice(x):\n    raise NotImplementedError", id="stub"),
        new_code_cell('check("99.1", twice)', id="check"),
        new_markdown_cell("<!-- solution 99.1 -->\n<details><summary>Solution</summary>\n\n```python\n# More\n"
                          "```\n\n</details>\n<!-- end of solution -->", id="solution"),
        new_code_cell("print(counts['a'])", id="later"),
        new_markdown_cell("## Last", id="last"),
        new_code_cell("for base in (1, 2):\n    print(base)", id="end"),
    ])
    propose_marks(notebook)
    return notebook


def test_parts_begin_at_headings_and_behind_exercises() -> None:
    notebook = chapter()
    assert [notebook.cells[number].id for number in beginnings(notebook)] == ["top", "one", "task", "later", "last"]
    found = parts(notebook)
    assert [part.title for part in found] == ["99. Example", "One", "Exercise 99.1: twice", "One, continued", "Last"]
    assert sum(part.minutes for part in found) == 20 and found[2].minutes == 5 and found[2].exercise == "99.1"
    assert MARK in notebook.cells[10].metadata  # a code cell may begin a part


def test_minutes_estimated_anew_add_up_and_keep_roles() -> None:
    notebook = chapter()
    notebook.cells[2].metadata[MARK].update(role="optional", before="Hello.", minutes=1)
    notebook.cells[0].source = notebook.cells[0].source.replace("20 minutes", "50 minutes")
    propose_marks(notebook)
    assert sum(part.minutes for part in parts(notebook)) < 50  # nothing is overwritten
    propose_marks(notebook, anew=True)
    assert sum(part.minutes for part in parts(notebook)) == 50
    assert notebook.cells[2].metadata[MARK]["role"] == "optional" and parts(notebook)[1].note("before") == "Hello."
    notebook.cells[0].source = notebook.cells[0].source.replace("50 minutes", "8 minutes")
    with pytest.raises(ValueError, match="has 3 minutes left for 4 parts"):
        propose_marks(notebook, anew=True)


def test_what_a_cell_needs_is_found_through_functions_and_changes() -> None:
    notebook = chapter()
    ids = [cell.id for cell in notebook.cells]
    def needs(name: str) -> list[str]:
        return [ids[number] for number in needed_cells(notebook, [ids.index(name)])]

    assert needs("later") == ["names", "more", "helper", "put", "later"]
    assert needs("end") == ["end"]  # what it binds itself is not looked for
    assert needs("one") == []


@pytest.mark.parametrize(("code", "used"), [
    ("x = x + 1", {"x"}), ("x = 1\nprint(x)", {"print"}), ("total += 1", {"total"}),
    ("for x in xs:\n    total = total + x", {"xs", "total"}), ("[y for y in ys if y > least]", {"ys", "least"}),
    ("def f(a):\n    b = a\n    return b + c", {"c"}), ("with open(p) as file:\n    file.read()", {"open", "p"}),
    ("try:\n    f()\nexcept ValueError as error:\n    print(error)", {"f", "ValueError", "print"}),
    ("if a:\n    b = 1\nprint(b)", {"a", "print"}), ("import os.path as p\np.join(q)", {"q"}),
    ("g = lambda u: u + v", {"v"}), ("%time slow\nz[0] = 1", {"z"}),
])
def test_names_that_are_looked_up(code: str, used: set[str]) -> None:
    assert names_of(code).used == used


def test_an_excerpt_keeps_its_parts_and_folds_the_code_they_need() -> None:
    notebook = chapter()
    before = copy.deepcopy(notebook)
    cut = excerpt(notebook, {"One, continued"}, 7, ELSEWHERE)
    assert notebook == before
    assert [cell.id for cell in cut.cells] == ["top", "names", "before-6", "more", "helper", "put", "later"]
    note = cut.cells[2].source
    assert note.startswith("*Left out here:* One; Exercise 99.1: twice.") and "folded" in note
    assert all(cell.metadata.jupyter.source_hidden for cell in cut.cells[3:6])
    assert "**Time in this workshop:** 7 minutes. **Builds on:** nothing." in cut.cells[0].source


def test_text_that_ends_a_part_stays_with_it() -> None:
    """A part may end, and the next begin, in one cell."""
    one = excerpt(chapter(), {"One"}, 7, ELSEWHERE)
    assert [cell.source for cell in one.cells if "It was three." in cell.source] == ["It was three."]
    assert f"[chapter 5]({ELSEWHERE}/05_generation_loop.ipynb)" in one.cells[2].source
    task = excerpt(chapter(), {"Exercise 99.1: twice"}, 7, ELSEWHERE)
    assert "It was three." not in "".join(cell.source for cell in task.cells)
    both = excerpt(chapter(), {"One", "Exercise 99.1: twice"}, 7, ELSEWHERE)
    assert [cell.id for cell in both.cells][:9] == [cell.id for cell in chapter().cells][:9]


def test_learners_type_what_is_live_and_see_no_notes() -> None:
    for path in NOTEBOOKS:
        notebook = build.read(path)
        learners = for_learners(notebook)
        assert [cell.id for cell in learners.cells] == [cell.id for cell in notebook.cells]
        for cell, shown in zip(notebook.cells, learners.cells):
            assert shown.source == (TYPED_TOGETHER if is_live(cell) else cell.source)
            assert MARK not in shown.metadata and not shown.get("outputs")
    assert sum(is_live(cell) for path in NOTEBOOKS for cell in build.read(path).cells) > 30


@pytest.mark.parametrize("path", WORKSHOPS, ids=lambda path: path.name)
def test_an_agenda_has_each_part_with_its_votes_and_mistakes(path: paths.Workshop) -> None:
    text = agenda(path)
    for entry in (entry for day in path.days for entry in day):
        assert f"| {clock(entry.start)} | {entry.minutes} |" in text
        heading = f"### {clock(entry.start)} {entry.title} ({entry.minutes} min)\n"
        section = text.partition(heading)[2].partition("\n### ")[0]
        assert section
        if entry.part is None:
            continue
        assert entry.part.note("before") in section and entry.part.note("after") in section
        for question in entry.part.questions:
            assert f"**Vote, {question}.**" in section and section.count("**(right)**") == len(entry.part.questions)
        if entry.part.exercise:
            exercise = lookup.find("exercise", entry.part.exercise)
            for answer, _ in exercise.wrong[:MOST_REMARKS]:
                assert as_markdown(judge(exercise, answer)[1]) in section
    for heading in ("No network", "Slow laptops", "A late joiner"):
        assert f"**{heading}.**" in text


def test_a_guide_has_the_solutions_and_remarks_of_its_chapter_and_explains_its_questions() -> None:
    for path in NOTEBOOKS:
        notebook = build.read(path)
        text = chapter_guide(notebook)
        for exercise in lookup.of_chapter("exercise", parts(notebook)[0].chapter):
            assert solution_source(exercise.id) in text
            assert all(as_markdown(remark) in text for remark in foreseen(exercise))
        for question in lookup.of_chapter("question", parts(notebook)[0].chapter):
            assert all(as_markdown(option.explanation) in text for option in question.options)
        assert text.count("**(right)**") == len(lookup.of_chapter("question", parts(notebook)[0].chapter))


def test_plain_text_is_no_markup() -> None:
    assert as_markdown("a * b_c <|end|> and `x * y`,\n   then [0]") == \
        "a \\* b\\_c \\<\\|end\\|\\> and `x * y`, then \\[0\\]"


class Page(HTMLParser):
    """What a page of slides loads, and the alternative texts of its pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.pictures: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.loaded += [values[name] or "" for name in ("src", "srcset", "data") if name in values]
        self.loaded += [values["href"] or ""] if tag == "link" else []
        if tag == "img":
            self.pictures.append(values["alt"] or "")


def test_slides_have_the_chapters_pictures_and_load_nothing() -> None:
    notebook = build.read(NOTEBOOKS[5])
    found = parts(notebook)
    pictures = [output["data"]["text/plain"].removeprefix("Figure: ") for cell in notebook.cells
                for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    text = slides_of_chapter(found[0].title, found)
    page = Page(text)
    assert page.pictures == pictures and pictures
    assert all(address.startswith("data:image/png;base64,") for address in page.loaded)
    assert "@import" not in text and "url(" not in text
    assert text.count("<div class=\"note\">") == sum(
        any(map(part.note, NOTES)) + len(part.questions) + sum(map(is_live, part.cells)) for part in found[1:])
    two_days = slides_of_path(WORKSHOPS[-1])
    assert two_days.count("<section>") > sum(map(len, WORKSHOPS[-1].days))


def test_a_kit_is_complete(tmp_path: Path) -> None:
    path = WORKSHOPS[-1]
    kit.write_path(path, tmp_path, ELSEWHERE)
    names = {paths.chapter_file(number).name for number in path.parts()}
    assert {file.name for file in tmp_path.iterdir()} == {"agenda.md", "slides.html", "capstone.md", "learners",
                                                          "complete"}
    for folder in ("learners", "complete"):
        assert {file.name for file in (tmp_path / folder).iterdir()} == names
        for file in (tmp_path / folder).iterdir():
            nbformat.validate(nbformat.read(file, as_version=4))


def test_the_capstones_commands_and_code_are_those_of_the_package() -> None:
    """Each command is one that `course-utils` takes, and each name that is imported is there."""
    text = kit.CAPSTONE.read_text(encoding="utf-8")
    commands = re.findall(r"^course-utils (.*)$", text, re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        cli._parser().parse_args(shlex.split(command))
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    assert names_of(code).used <= BUILT_IN
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_projectors_settings_are_those_of_jupyterlab() -> None:
    """Each setting is one that the installed JupyterLab knows."""
    jupyterlab = pytest.importorskip("jupyterlab.commands")
    schemas = Path(jupyterlab.get_app_dir()) / "schemas"
    settings = json.loads((kit.CAPSTONE.parent / "projector" / "overrides.json").read_text(encoding="utf-8"))
    for plugin, chosen in settings.items():
        package, name = plugin.split(":")
        schema = json.loads((schemas / package / f"{name}.json").read_text(encoding="utf-8"))
        assert set(chosen) <= set(schema["properties"]), plugin


def test_every_chapter_and_every_workshop_has_its_page_on_the_website() -> None:
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (NOTEBOOKS[0].parent / "site" / "guide").iterdir()}
    for name in [path.stem for path in NOTEBOOKS] + paths.names():
        assert pages.get(name) == f"```{{guide}} {name}\n```\n", f"site/guide/{name}.md"
