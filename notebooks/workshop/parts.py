"""The parts of a chapter: what an instructor plans with, and the marks in the cells' metadata that say so.

A part begins at each Markdown cell with a heading, and where a chapter goes on behind an exercise. The first cell of a
part has a mark under `workshop` in its metadata:

    role      "core", or "optional" for what a class may leave out
    for       whom it is for: "everyone", "engineers" who run models, "researchers" who want to know what is inside
    minutes   how long it takes; of an exercise its task says so, and of nothing else
    before, after, skip   what an instructor says before and after it, and when to leave it out (each may be missing)

A code cell with `"live": true` in its mark is typed by the instructor while the others type along.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from nbformat import NotebookNode

MARK = "workshop"
ROLES = ("core", "optional")
AUDIENCES = ("everyone", "engineers", "researchers")
NOTES = ("before", "after", "skip")
WORDS_PER_MINUTE = 200
_TIME = re.compile(r"\*\*Time:\*\*\s+(\d+)\s+minutes(?:,\s+(\d+)\s+of\s+them)?")
_TASK = re.compile(r"^##+ Exercise ([\w.]+): ", re.MULTILINE)
TASK_TIME = re.compile(r"\*(?:Easy|Medium|Hard), (\d+) minutes?\.\*")
_SOLUTION = re.compile(r"<!-- solution ([\w.]+) -->")
_NO_PROSE = re.compile(r"```.*?```|<details>.*?</details>|<!--.*?-->", re.DOTALL)


@dataclass(frozen=True)
class Part:
    """A part of a chapter.

    Attributes:
        chapter: its number.
        title: its heading; where a chapter goes on behind an exercise, that of the text before it.
        start: the number of its first cell, from 0.
        cells: its cells.
        mark: the first cell's mark, empty if it has none.
    """

    chapter: int
    title: str
    start: int
    cells: tuple[NotebookNode, ...]
    mark: dict[str, object]

    @property
    def exercise(self) -> str:
        """The id of the exercise that this part is; empty if it is none."""
        task = _TASK.search(without_code(self.cells[0].source))
        return task.group(1) if task else ""

    @property
    def minutes(self) -> int:
        """How long it takes: what an exercise's task says, else what the mark says; 0 if neither says anything."""
        task = TASK_TIME.search(self.cells[0].source) if self.exercise else None
        minutes = self.mark.get("minutes")
        return int(task.group(1)) if task else minutes if isinstance(minutes, int) else 0

    @property
    def role(self) -> str:
        """One of `ROLES`."""
        return str(self.mark.get("role", ""))

    @property
    def audience(self) -> str:
        """One of `AUDIENCES`."""
        return str(self.mark.get("for", ""))

    @property
    def questions(self) -> list[str]:
        """The ids of the quick questions that it asks."""
        return [question for cell in self.cells if cell.cell_type == "code" for question in called("ask", cell)]

    def note(self, name: str) -> str:
        """One of `NOTES`; empty if the mark has none."""
        return str(self.mark.get(name, ""))


def mark_of(cell: NotebookNode) -> dict[str, object]:
    """The mark of a cell; empty if it has none."""
    return dict(cell.metadata.get(MARK, {}))


def is_live(cell: NotebookNode) -> bool:
    """Whether a cell is typed by the instructor."""
    return bool(mark_of(cell).get("live"))


def called(function: str, cell: NotebookNode) -> list[str]:
    """The ids with which a code cell calls `check` or `ask`."""
    return re.findall(rf"^{function}\(\"([\w.]+)\"", cell.source, re.MULTILINE)


def without_code(source: str) -> str:
    """A Markdown cell without its blocks of code, folds and comments, in which no heading is one."""
    return _NO_PROSE.sub("", source)


def heading(cell: NotebookNode) -> str:
    """The first heading of a Markdown cell, without its number signs; empty if it has none."""
    if cell.cell_type != "markdown":
        return ""
    found = re.search(r"^#{1,3} (.*)$", without_code(cell.source), re.MULTILINE)
    return found.group(1) if found else ""


def chapter_number(notebook: NotebookNode) -> int:
    """The chapter's number, from its first heading; 0 if that has none."""
    found = re.match(r"# (\d+)\.", notebook.cells[0].source) if notebook.cells else None
    return int(found.group(1)) if found else 0


def stated_minutes(notebook: NotebookNode) -> tuple[int, int | None]:
    """How long a chapter takes according to its first cell, and how much of it the exercises take, where it says so."""
    found = _TIME.search(notebook.cells[0].source) if notebook.cells else None
    if found is None:
        return 0, None
    return int(found.group(1)), int(found.group(2)) if found.group(2) else None


def beginnings(notebook: NotebookNode) -> list[int]:
    """The numbers of the cells at which parts begin: headings, and code that goes on behind an exercise's solution."""
    found = [number for number, cell in enumerate(notebook.cells) if number == 0 or heading(cell)]
    for number, cell in enumerate(notebook.cells[:-1]):
        if cell.cell_type == "markdown" and _SOLUTION.search(cell.source):
            stop = min((each for each in found if each > number), default=len(notebook.cells))
            if any(each.cell_type == "code" for each in notebook.cells[number + 1:stop]):
                found.append(number + 1)
    return sorted(set(found))


def parts(notebook: NotebookNode) -> list[Part]:
    """The parts of a chapter, in order; together they are all its cells, and each has a title of its own."""
    found: list[Part] = []
    starts = beginnings(notebook)
    title, times = "", 0
    for start, stop in zip(starts, [*starts[1:], len(notebook.cells)]):
        cells = tuple(notebook.cells[start:stop])
        own = heading(cells[0])
        times += not own
        name = own or f"{title}, continued" + (f" {times}" if times > 1 else "")
        part = Part(chapter_number(notebook), name, start, cells, mark_of(cells[0]))
        if own and not part.exercise:
            title, times = own, 0
        found.append(part)
    return found


def faults_of_marks(notebook: NotebookNode) -> Iterator[str]:
    """What is wrong with the marks of a chapter: what is missing, what nobody knows, and minutes that do not add up."""
    found = parts(notebook)
    for part in found:
        name = f"The part {part.title!r}"
        keys = {"role", "for", *NOTES} | (set() if part.exercise else {"minutes"})
        if not part.mark:
            yield f"{name} has no mark: run build.py mark, and look at what it proposes."
        elif part.role not in ROLES or part.audience not in AUDIENCES or not set(part.mark) <= keys:
            yield (f"{name} is marked {part.mark}: `role` must be one of {', '.join(ROLES)}, `for` one of "
                   f"{', '.join(AUDIENCES)}, and there may be {', '.join(sorted(keys - {'role', 'for'}))}.")
        elif not part.exercise and (type(part.mark.get("minutes")) is not int or part.minutes < 1):
            yield f"{name} needs a whole number of minutes in its mark."
    first = {part.start for part in found}
    for number, cell in enumerate(notebook.cells):
        mark = mark_of(cell)
        if number not in first and mark and (mark != {"live": True} or not _can_be_live(cell)):
            yield (f"Cell {cell.id} is marked {mark}: all that a cell inside a part may be is live, if it is code to "
                   "type.")
    stated, for_exercises = stated_minutes(notebook)
    total, exercises = (sum(part.minutes for part in chosen) for chosen in
                        (found, [part for part in found if part.exercise]))
    if total != stated:
        yield (f"The chapter states {stated} minutes, and its parts take {total}: correct one, or run build.py mark "
               "--anew.")
    if for_exercises not in (None, exercises):
        yield f"The chapter states {for_exercises} minutes for the exercises, and their tasks take {exercises}."


def _can_be_live(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and not re.search(
        r"^# @title|raise NotImplementedError|^(?:check|ask|show_progress)\(", cell.source, re.MULTILINE)


def propose_marks(notebook: NotebookNode, anew: bool = False) -> None:
    """Give each part that has none a mark: core, for everyone, and minutes such that the chapter takes its stated time.

    Args:
        notebook: changed.
        anew: whether the minutes of all parts are estimated again; roles and notes stay.

    Raises:
        ValueError: if the parts that are marked leave less than a minute for each of the others.
    """
    found = parts(notebook)
    for part in found:
        mark = {"role": "core", "for": "everyone"} | part.mark
        if anew or part.exercise:
            mark.pop("minutes", None)
        part.cells[0].metadata[MARK] = mark
    found = parts(notebook)
    open_parts = [part for part in found if not part.exercise and "minutes" not in part.mark]
    left = stated_minutes(notebook)[0] - sum(part.minutes for part in found)
    if left < len(open_parts):
        raise ValueError(f"Chapter {chapter_number(notebook)} has {left} minutes left for {len(open_parts)} parts: "
                         "correct the time that it states, or estimate anew with --anew.")
    if open_parts:
        for part, minutes in zip(open_parts, _shared(left, [_weight(part) for part in open_parts])):
            part.cells[0].metadata[MARK]["minutes"] = minutes


def _weight(part: Part) -> float:
    """A part's share of the time, in minutes: reading, looking at code and what it shows, questions, explorers."""
    weight = 0.0
    for cell in part.cells:
        if cell.cell_type == "markdown":
            weight += len(without_code(cell.source).split()) / WORDS_PER_MINUTE
        elif not cell.source.startswith("# @title"):
            pictures = sum("image/png" in output.get("data", {}) for output in cell.outputs)
            weight += 0.3 + 0.12 * len(cell.source.splitlines()) + pictures
            weight += 1.0 * cell.source.startswith("ask(") + 2.0 * cell.source.startswith("widgets.")
    return weight


def _shared(total: int, weights: list[float]) -> list[int]:
    """Whole numbers of at least 1, about in proportion to the weights, that add up to the total."""
    free = total - len(weights)
    exact = [free * weight / sum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    by_rest = sorted(range(len(weights)), key=lambda at: shares[at] - exact[at])
    for at in by_rest[:free - sum(shares)]:
        shares[at] += 1
    return [1 + share for share in shares]
