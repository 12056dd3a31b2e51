"""What a notebook must be like to be committed, each rule a function that yields the faults it finds.

nbval compares outputs, but a notebook that was never executed passes it, as does a cell that was to raise and did not;
these rules look at the rest: that everything was executed, is up to date, readable and the same on every machine.
"""

from __future__ import annotations

import ast
import builtins
import itertools
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterator

from code_texts import without_magics
from nbformat import NotebookNode
from workshop.parts import TASK_TIME, called, chapter_number, faults_of_marks

MEDIAN_LINES, MOST_LINES, MOST_COLUMNS, MOST_IMPORT_LINES = 6, 25, 76, 10
# Title, set-up, question, first result; with what that result alone needs.
OPENING_CELLS, OPENING_IMPORT_LINES = 4, 4
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
LEAST_EXERCISES, LEAST_QUESTIONS = 3, 2
# A number that another machine would print differently. A cell whose sizes follow from a formula has the tag `exact`.
MACHINE_VALUE = re.compile(r"\d+(?:\.\d+)? ?(?:tokens/s|ms|s|GB|MB)\b")
MACHINE_PATH = re.compile(
    r"(?<![\w.])/(?:work|root|home|Users|farm|opt|content|tmp|usr/lib)/[\w.-]{2}|\b[A-Z]:\\\w|site-packages|ipykernel_\d")
PROGRESS_BAR = re.compile(r"\d%\||\d\w*it \[\d\d:\d\d")
IMAGE = re.compile(r"!\[(?P<md_alt>[^\]]*)\]\((?P<md_src>[^)]*)\)|<img\b(?P<html>[^>]*)>")
CAPTION = re.compile(r"\w+(?:: |：)\S")  # "Figure: A line.", in any language


def faults(notebook: NotebookNode, fresh: NotebookNode) -> list[str]:
    """All faults of a notebook, one sentence each.

    Args:
        notebook: as it is.
        fresh: the same with set-up cell, badges, solutions and metadata as build.py would write them now.
    """
    rules = (_stale(notebook, fresh), _executed(notebook), _sizes(notebook), _opening(notebook), _imports(notebook),
             _outputs(notebook), _images(notebook), _markdown(notebook), _exercises(notebook), _solutions(notebook),
             _questions(notebook), faults_of_marks(notebook))
    return [fault for rule in rules for fault in rule]


def translated_faults(notebook: NotebookNode, fresh: NotebookNode) -> list[str]:
    """All faults of a notebook in another language. What follows from the English one is looked at there.

    Args:
        notebook: as it is.
        fresh: what the English notebook and the catalogs make now.
    """
    rules = (_stale(notebook, fresh), _executed(notebook), _sizes(notebook), _outputs(notebook), _images(notebook),
             _markdown(notebook))
    return [fault for rule in rules for fault in rule]


def _code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def _name(cell: NotebookNode) -> str:
    first = cell.source.strip().partition("\n")[0]
    return f"{cell.get('id', 'cell')} ({first[:40]})"


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _stale(notebook: NotebookNode, fresh: NotebookNode) -> Iterator[str]:
    if len(notebook.cells) != len(fresh.cells):
        yield f"It has {len(notebook.cells)} cells, and its source {len(fresh.cells)}: run build.py execute."
    for cell, wanted in zip(notebook.cells, fresh.cells):
        if cell.source != wanted.source:
            yield f"{_name(cell)}: set-up, badges, solution or translation are stale: run build.py execute."
    if notebook.metadata != fresh.metadata or any(
        (cell.get("id"), cell.metadata) != (wanted.id, wanted.metadata)
        for cell, wanted in zip(notebook.cells, fresh.cells)
    ):
        yield "The metadata is not normalized: run build.py execute."
    if not any(cell.source.startswith("# @title ") for cell in _code_cells(notebook)):
        yield "There is no set-up cell: add a code cell `# setup`."


def _executed(notebook: NotebookNode) -> Iterator[str]:
    cells = _code_cells(notebook)
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        yield f"The execution counts are not 1 to {len(cells)}: run build.py execute."
    for cell in cells:
        raised = any(output.output_type == "error" for output in cell.outputs)
        expected = "raises-exception" in _tags(cell)
        if raised and not expected:
            yield f"{_name(cell)}: raises an error."
        if expected and not raised:
            yield f"{_name(cell)}: is tagged raises-exception and raises nothing."


def columns_of(line: str) -> int:
    """Width in a monospaced font, where a Chinese character takes two columns."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)


def _sizes(notebook: NotebookNode) -> Iterator[str]:
    cells = _code_cells(notebook)
    lines = [len(cell.source.splitlines()) for cell in cells]
    if lines and statistics.median(lines) > MEDIAN_LINES:
        yield f"The median code cell has {statistics.median(lines):g} lines, above {MEDIAN_LINES}."
    for cell, count in zip(cells, lines):
        if count > MOST_LINES and "hide-input" not in _tags(cell):  # a folded one has the language's lines beside it
            yield f"{_name(cell)}: has {count} lines, above {MOST_LINES}."
        width = max(columns_of(line) for line in cell.source.splitlines())
        if width > MOST_COLUMNS:
            yield f"{_name(cell)}: has a line of {width} columns, above {MOST_COLUMNS}."


def _opening(notebook: NotebookNode) -> Iterator[str]:
    """A chapter opens with a question and something to see, not with a page of names."""
    def shows(cell: NotebookNode) -> bool:  # what was never executed may show something
        return (cell.cell_type == "code" and not cell.source.startswith("# @title Setup")
                and bool(cell.outputs or cell.execution_count is None))

    number = next((number for number, cell in enumerate(notebook.cells, start=1) if shows(cell)), len(notebook.cells))
    imported = sum(_import_lines(cell) for cell in notebook.cells[:number] if cell.cell_type == "code")
    if number > OPENING_CELLS:
        yield (f"The first result is shown by cell {number}, above {OPENING_CELLS}: let something be seen right behind "
               "the chapter's question.")
    if imported > OPENING_IMPORT_LINES:
        yield (f"{imported} lines of imports come before the first result, above {OPENING_IMPORT_LINES}: import what "
               "it needs itself, and the rest in the next code cell.")


def _imports(notebook: NotebookNode) -> Iterator[str]:
    """One short cell imports what the whole chapter needs; what one section needs stands where it is used first."""
    cells = _code_cells(notebook)
    counts = [_import_lines(cell) for cell in cells]
    longest = max(range(len(cells)), key=counts.__getitem__, default=0)
    lines = sum(count for position, (cell, count) in enumerate(zip(cells, counts))
                if position == longest or len(_imported(cell)) == len(_tree(cell.source).body))
    if lines > MOST_IMPORT_LINES:
        yield (f"The imports at the top take {lines} lines, above {MOST_IMPORT_LINES}: import what one section needs "
               "where it is used first.")
    solutions = [_tree(source) for cell in notebook.cells for _, source in _solution_sources(cell)]
    used = set().union(*map(_used, [*(_tree(cell.source) for cell in cells), *solutions]))
    names = [(alias.asname or alias.name).partition(".")[0] for cell in cells for node in _imported(cell)
             for alias in node.names]
    for name in sorted(set(names) - used):
        yield f"{name} is imported, and nothing uses it."
    for name, times in Counter(names).items():
        if times > 1:
            yield f"{name} is imported {times} times: once is enough, where it is used first."


def _imported(cell: NotebookNode) -> list[ast.Import | ast.ImportFrom]:
    """The imports of a cell that stand at its left edge, as those in the set-up cell's `try` do not."""
    return [node for node in _tree(cell.source).body if isinstance(node, (ast.Import, ast.ImportFrom))]


def _import_lines(cell: NotebookNode) -> int:
    return sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in _imported(cell))


def _markdown(notebook: NotebookNode) -> Iterator[str]:
    """What a screen reader would stumble over."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and not cell.source.strip():
            yield f"{_name(cell)}: is an empty Markdown cell."
        if cell.cell_type == "markdown" and re.search(r"^\|(?:.*\|)?\s+\|.*\n\|\s*:?-", cell.source, re.MULTILINE):
            yield f"{_name(cell)}: a column of a table has no heading."


def _texts(output: NotebookNode) -> list[str]:
    """The texts a reader sees in an output, without the tags and styles of HTML."""
    if output.output_type == "stream":
        return [output.text]
    if output.output_type == "error":
        return [output.evalue]  # a traceback names files, and nbval leaves it out
    texts = [text for kind, text in output.data.items() if kind.startswith("text/")]
    return [re.sub(r"<style.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL) for text in texts]


def _outputs(notebook: NotebookNode) -> Iterator[str]:
    from course_utils.timing import MARKER  # PyTorch comes with it, and to translate one needs none

    for cell in _code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                yield f"{_name(cell)}: prints to stderr: {output.text.strip()[:60]}"
            if WIDGET_VIEW in output.get("data", {}):
                yield f"{_name(cell)}: keeps a widget, which no other kernel knows: run build.py execute."
            for text in _texts(output):
                same_everywhere = [line for line in text.splitlines() if not line.startswith(MARKER)]
                for line in same_everywhere:
                    if (found := MACHINE_VALUE.search(line)) and "exact" not in _tags(cell):
                        yield (f"{_name(cell)}: {found.group()!r} may differ between machines: print it by "
                               "course_utils.timing.show, or tag the cell `exact` if it follows from a formula.")
                    if PROGRESS_BAR.search(line):
                        yield f"{_name(cell)}: prints a progress bar."
                if found := MACHINE_PATH.search(text):
                    yield f"{_name(cell)}: prints a path of this machine: {found.group()}"
    for cell in notebook.cells:
        if found := MACHINE_PATH.search(cell.source):
            yield f"{_name(cell)}: names a path of one machine: {found.group()}"


def _images(notebook: NotebookNode) -> Iterator[str]:
    for cell in notebook.cells:
        html = [output.data["text/html"] for output in cell.get("outputs", [])
                if "text/html" in output.get("data", {})]
        for text in [cell.source, *html] if cell.cell_type == "markdown" else html:
            for image in IMAGE.finditer(text):
                alt = image["md_alt"] if image["html"] is None else _attribute(image["html"], "alt")
                source = image["md_src"] if image["html"] is None else _attribute(image["html"], "src")
                if not alt.strip():
                    yield f"{_name(cell)}: an image has no alternative text."
                if re.match(r"(?:https?:)?//", source):
                    yield f"{_name(cell)}: an image comes from elsewhere: {source}"
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            picture = any(kind.startswith("image/") for kind in data)
            if picture and not CAPTION.match(data.get("text/plain", "")):
                yield f"{_name(cell)}: a picture has no alternative text: end with show_figure."


def _attribute(tag: str, name: str) -> str:
    found = re.search(rf"\b{name}\s*=\s*(\"[^\"]*\"|'[^']*')", tag)
    return found.group(1)[1:-1] if found else ""


def _exercises(notebook: NotebookNode) -> Iterator[str]:
    places = {exercise_id: position for position, cell in enumerate(notebook.cells) if cell.cell_type == "code"
              for exercise_id in called("check", cell)}
    chapter = chapter_number(notebook)
    if len(places) < LEAST_EXERCISES:
        yield f"The chapter has {len(places)} exercises, fewer than {LEAST_EXERCISES}."
    for exercise_id, position in places.items():
        if not exercise_id.startswith(f"{chapter}."):
            yield f"Exercise {exercise_id} belongs to another chapter."
        for fault in _exercise(notebook.cells[:position], notebook.cells[position], notebook.cells[position + 1:],
                               exercise_id):
            yield f"Exercise {exercise_id}: {fault}"


def _exercise(before: list[NotebookNode], check: NotebookNode, after: list[NotebookNode],
              exercise_id: str) -> Iterator[str]:
    """The faults of one exercise: a task, its stub, its check, hints one by one, and the solution."""
    task = next((cell.source for cell in reversed(before)
                 if re.search(rf"^##+ Exercise {re.escape(exercise_id)}:", cell.source, re.MULTILINE)), None)
    if task is None:
        yield f"no Markdown cell above the check has the heading `## Exercise {exercise_id}: ...`."
    elif not TASK_TIME.search(task):
        yield "its task does not state its difficulty and time, such as *Easy, 10 minutes.*"
    name = re.search(r"^check\(\"[\w.]+\", (\w+)\)", check.source, re.MULTILINE)
    stub = before[-1].source if before and before[-1].cell_type == "code" else ""
    if name is None or name.group(1) not in _bound(stub) or "raise NotImplementedError" not in stub:
        yield "the cell right above its check does not define what is checked, with `raise NotImplementedError`."
    if f"NOT STARTED {exercise_id}" not in "".join(text for output in check.outputs for text in _texts(output)):
        yield "as it is committed, it must be NOT STARTED."
    below = "\n".join(cell.source for cell in
                      itertools.takewhile(lambda cell: cell.cell_type == "markdown", after))
    hints, found, _ = below.partition(f"<!-- solution {exercise_id} -->")
    if not found:
        yield f"the Markdown right below its check has no line <!-- solution {exercise_id} -->."
    if re.findall(r"<details>\s*<summary>(.*?)</summary>", hints) not in (["Hint 1"], ["Hint 1", "Hint 2"]):
        yield "between check and solution there must be one or two folds, with <summary>Hint 1</summary> and Hint 2."


def _solutions(notebook: NotebookNode) -> Iterator[str]:
    """Whoever runs a chapter down to an exercise can run its solution."""
    known = set(dir(builtins))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            known |= _bound(cell.source)
        for exercise_id, source in _solution_sources(cell):
            for name in sorted(_used(_tree(source)) - known - _bound(source)):
                yield f"The solution of {exercise_id} uses {name}, which no cell above it defines or imports."


def _solution_sources(cell: NotebookNode) -> list[tuple[str, str]]:
    """The exercises whose solutions stand in a Markdown cell, and their code."""
    if cell.cell_type != "markdown":
        return []
    return re.findall(r"<!-- solution ([\w.]+) -->.*?```python\n(.*?)```", cell.source, re.DOTALL)


def _questions(notebook: NotebookNode) -> Iterator[str]:
    asked = [(question_id, cell) for cell in _code_cells(notebook) for question_id in called("ask", cell)]
    if len(asked) < LEAST_QUESTIONS:
        yield f"The chapter has {len(asked)} questions, fewer than {LEAST_QUESTIONS}."
    for question_id, cell in asked:
        if not question_id.startswith(f"{chapter_number(notebook)}."):
            yield f"Question {question_id} belongs to another chapter."
        shown = [output.data.get("text/html", "") for output in cell.outputs if "data" in output]
        if not any(f"Question {question_id}:" in html for html in shown):
            yield f"Question {question_id}: its output is not the question as HTML: run build.py execute."


def _tree(source: str) -> ast.Module:
    """A piece of code; magics are passed over."""
    return ast.parse(without_magics(source))


def _used(tree: ast.Module) -> set[str]:
    """The names that a piece of code mentions."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _bound(source: str) -> set[str]:
    """The names that a piece of code defines, imports or takes as arguments."""
    names: set[str] = set()
    for node in ast.walk(_tree(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names
