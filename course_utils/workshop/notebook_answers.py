"""A learner's answers in a notebook: found in one version of a chapter, and put into another.

An exercise has a stub, a cell that ends in `raise NotImplementedError`, and right under it its check, such as
`check("6.1", generate_with_cache)`. Its id is what an answer is found by; where the cells stand, how many there are and
which ids they have may change. A learner's own cells are those whose source no version of the course has. To an answer
belong the own cells that stand right above or right below its check, and any that define the function that is checked,
wherever they stand.

Notebooks are plain dictionaries here, as their JSON has them.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from course_utils.json_text import parse_json

Cell = dict[str, Any]
Notebook = dict[str, Any]

_CHECK = re.compile(r"""^[ \t]*check\(\s*["']([\w.]+)["']\s*,\s*([^\W\d]\w*)?""", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} .*(?<!\d)\d+\.\d+", re.MULTILINE)  # such as "## Exercise 6.1: the loop with a cache"
_STUB = re.compile(r"""(?:[ \t]*("{3}|'{3}).*?\1)?\s*raise NotImplementedError(\(\))?\s*\Z""", re.DOTALL)


@dataclass
class OwnAnswer:
    """A learner's own cells for one exercise, in their order.

    Attributes:
        exercise_id: as the learner's notebook has it; numbers may change from one version of the course to the next.
        name: of the function that is checked; empty if the check is given something else.
        above: cells that belong above the check.
        below: cells that belong below it.
    """

    exercise_id: str
    name: str = ""
    above: list[Cell] = field(default_factory=list)
    below: list[Cell] = field(default_factory=list)


def parse_notebook(data: bytes) -> Notebook:
    """A notebook from the content of its file.

    Raises:
        ValueError: if it is none, such as after a merge that left its marks.
    """
    notebook = parse_json(data)
    if not isinstance(notebook, dict) or not isinstance(notebook.get("metadata"), dict) or \
            not isinstance(cells := notebook.get("cells"), list) or not all(map(_is_cell, cells)):
        raise ValueError("it has no cells")
    return notebook


def source(cell: Cell) -> str:
    """The source of a cell, which a file may have line by line."""
    text = cell["source"]
    return text if isinstance(text, str) else "".join(text)


def digest(cell: Cell) -> str:
    """What tells whether two cells have the same source; white space at the end does not count."""
    return hashlib.sha256(f"{cell['cell_type']}\n{source(cell).rstrip()}".encode("utf-8", "surrogatepass")).hexdigest()


def checks(notebook: Notebook) -> dict[str, tuple[int, str]]:
    """Where each exercise's check stands, and the name of the function that it is given, by exercise id."""
    found: dict[str, tuple[int, str]] = {}
    for place, cell in enumerate(notebook["cells"]):
        for exercise_id, name in _checked(cell):
            found.setdefault(exercise_id, (place, name))
    return found


def find_answers(notebook: Notebook, known: Collection[str], names: Mapping[str, str], complete: bool = True
                 ) -> tuple[list[OwnAnswer], int]:
    """A learner's answers, and how many other cells of the learner's own there are.

    Args:
        notebook: of the learner; it is not changed.
        known: the digests of the course's cells.
        names: of the functions that the course checks, by exercise id: for answers whose check the learner has deleted.
        complete: whether `known` has the version that the learner began with. If not, a text below a check may be the
            course's and is not taken for the learner's, and what else is the learner's is not counted.
    """
    cells = notebook["cells"]
    own = [bool(source(cell).strip()) and digest(cell) not in known and not _is_stub(cell) for cell in cells]
    # Each exercise has a key here: the name of its function, or its id if there is no name.
    checked = [[name or exercise_id for exercise_id, name in _checked(cell)] for cell in cells]
    wanted = {name: (len(cells), exercise_id) for exercise_id, name in names.items() if name}
    for place, cell in reversed(list(enumerate(cells))):  # the first of several checks counts
        wanted |= {name or exercise_id: (place, exercise_id) for exercise_id, name in _checked(cell)}
    belongs: dict[int, str] = {}
    for place, cell in enumerate(cells):
        if own[place] and cell["cell_type"] == "code":
            defined = [name for name in _defined(cell) if name in wanted]
            if checked[place] or defined:
                belongs[place] = (defined or checked[place])[0]

    def spread(start: int, step: int, key: str) -> None:
        """Take own cells from a place on, up to the next that is the course's or another exercise's."""
        place = start + step
        while 0 <= place < len(cells):
            cell = cells[place]
            if not own[place]:
                if not (step < 0 and cell["cell_type"] == "code" and not checked[place]
                        and (_is_stub(cell) or not source(cell).strip())):
                    return
            elif place in belongs or _HEADING.search(source(cell)) and cell["cell_type"] == "markdown":
                if belongs.get(place) != key:
                    return
            elif cell["cell_type"] == "code" or complete:
                belongs[place] = key
            else:
                return
            place += step

    anchors = {place: keys[0] for place, keys in enumerate(checked) if keys} | belongs
    for place, key in sorted(anchors.items()):
        spread(place, -1, key)
    for place, keys in enumerate(checked):
        if keys:
            spread(place, +1, keys[0])
    answers: dict[str, OwnAnswer] = {}
    for place, key in sorted(belongs.items()):
        check, exercise_id = wanted[key]
        answer = answers.setdefault(key, OwnAnswer(exercise_id, key if key != exercise_id else ""))
        # What defines the function belongs above its check, so that "Run All" finds it, wherever it was written.
        is_above = place <= check or answer.name in _defined(cells[place])
        (answer.above if is_above else answer.below).append(cells[place])
    return list(answers.values()), sum(own) - len(belongs) if complete else 0


def with_answers(notebook: Notebook, answers: Mapping[str, OwnAnswer]) -> Notebook:
    """A copy of a notebook with learners' cells at their exercises.

    A stub gives way to cells that define its function. Cells that are put in get ids of their own.

    Args:
        notebook: as the course has it.
        answers: by exercise id; the notebook has all these exercises.
    """
    notebook = copy.deepcopy(notebook)
    cells, taken = notebook["cells"], {cell.get("id") for cell in notebook["cells"]}
    places = checks(notebook)

    def renamed(cell: Cell, exercise_id: str) -> Cell:
        number = 1
        while (name := f"answer-{exercise_id.replace('.', '-')}-{number}") in taken:
            number += 1
        taken.add(name)
        return {**copy.deepcopy(cell), "id": name}

    for exercise_id, answer in sorted(answers.items(), key=lambda item: -places[item[0]][0]):  # from the end
        place, name = places[exercise_id]
        above = [renamed(cell, exercise_id) for cell in answer.above]
        below = [renamed(cell, exercise_id) for cell in answer.below]
        cells[place] |= {"outputs": [], "execution_count": None}  # NOT STARTED is no longer true
        cells[place + 1:place + 1] = below
        stub = place - 1 if place and name in _defined(cells[place - 1]) and _is_stub(cells[place - 1]) else place
        cells[stub if any(name in _assigned(cell) for cell in above) else place:place] = above
    return notebook


def _checked(cell: Cell) -> list[tuple[str, str]]:
    return _CHECK.findall(source(cell)) if cell["cell_type"] == "code" else []


def _defined(cell: Cell) -> list[str]:
    """The functions that a cell defines, even if it cannot be parsed."""
    return re.findall(r"^(?:async +)?def +(\w+)", source(cell), re.MULTILINE) if cell["cell_type"] == "code" else []


def _assigned(cell: Cell) -> list[str]:
    """The names of functions that a cell defines, and of what it assigns."""
    return [*_defined(cell), *(re.findall(r"^(\w+) *(?::[^=\n]*)?=(?!=)", source(cell), re.MULTILINE)
                               if cell["cell_type"] == "code" else [])]


def _is_stub(cell: Cell) -> bool:
    """Whether a cell is one function and says of it no more than that it is not written."""
    text = source(cell)
    _, colon, body = text.partition(":\n") if len(_defined(cell)) == 1 and text.startswith("def ") else ("", "", "")
    return bool(colon) and _STUB.fullmatch(body) is not None


def _is_cell(cell: object) -> bool:
    if not isinstance(cell, dict) or not isinstance(cell.get("cell_type"), str):
        return False
    text = cell.get("source")
    return isinstance(text, str) or isinstance(text, list) and all(isinstance(line, str) for line in text)
