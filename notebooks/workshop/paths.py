"""A path: a workshop as a list of chapters' parts, read from a file of `paths/`, with the minutes that the marks say.

A file holds what no chapter can know: title, aims, how long, what comes between the parts. A block is either some parts
of a chapter, or something else with its own minutes; the one with `rest = true` takes what is left of its day.

    title = "..."
    summary = "..."           one sentence on who comes and what they leave with
    aims = ["...", ...]
    beforehand = ["...", ...] what the instructor does before the day

    [[days]]
    minutes = 90              breaks included

    [[days.blocks]]
    chapter = 6
    parts = ["The same text", ...]

    [[days.blocks]]
    title = "Break"
    minutes = 15              or rest = true
    say = "..."
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from workshop.parts import Part, is_live, parts

FOLDER = Path(__file__).resolve().parent / "paths"
NOTEBOOKS = Path(__file__).resolve().parents[1]
# A class takes longer than a reader, who neither types along nor votes.
LINES_TYPED_A_MINUTE, MINUTES_OF_A_VOTE = 4, 2
LEAST_REST = 5  # minutes that a day keeps free for questions


@dataclass(frozen=True)
class Entry:
    """A line of an agenda.

    Attributes:
        start: minutes since the day began.
        minutes: how long it takes.
        title: what it is.
        part: the part of a chapter, or None for a break and the like.
        say: what the path's file says about it.
    """

    start: int
    minutes: int
    title: str
    part: Part | None = None
    say: str = ""


@dataclass(frozen=True)
class Workshop:
    """A workshop.

    Attributes:
        name: of its file, such as "half_a_day".
        title, summary, aims, beforehand: as the file says.
        days: the entries of each day.
    """

    name: str
    title: str
    summary: str
    aims: tuple[str, ...]
    beforehand: tuple[str, ...]
    days: tuple[tuple[Entry, ...], ...]

    @property
    def minutes(self) -> int:
        """How long it takes, breaks included."""
        return sum(entry.minutes for day in self.days for entry in day)

    def parts(self) -> dict[int, list[Part]]:
        """The parts of each chapter, by its number."""
        found: dict[int, list[Part]] = {}
        for entry in (entry for day in self.days for entry in day):
            if entry.part is not None:
                found.setdefault(entry.part.chapter, []).append(entry.part)
        return found


def names() -> list[str]:
    """The names of all paths, the shortest first."""
    return sorted((file.stem for file in FOLDER.glob("*.toml")), key=lambda name: read_path(name).minutes)


def chapter_file(number: int) -> Path:
    """A chapter's notebook.

    Raises:
        ValueError: if there is none.
    """
    found = list(NOTEBOOKS.glob(f"{number:02}_*.ipynb"))
    if len(found) != 1:
        raise ValueError(f"There is no chapter {number}: a path names one.")
    return found[0]


def read_chapter(number: int) -> NotebookNode:
    """A chapter, as it is committed."""
    return nbformat.read(chapter_file(number), as_version=4)


def minutes_in_class(part: Part) -> int:
    """How long a part takes in a class: what its mark says, the typing of its live cells, and its votes."""
    lines = sum(len(cell.source.splitlines()) for cell in part.cells if is_live(cell))
    return part.minutes + -(-lines // LINES_TYPED_A_MINUTE) + MINUTES_OF_A_VOTE * len(part.questions)


def read_path(name: str) -> Workshop:
    """A path, with the minutes that its chapters' marks say.

    Raises:
        ValueError: if a block names what no chapter has, parts are not in the chapter's order, or a day takes longer
            than it has.
    """
    content = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    days = tuple(_entries(day, f"{name}, day {number}") for number, day in enumerate(content["days"], start=1))
    path = Workshop(name, content["title"], content["summary"].strip(), tuple(content["aims"]),
                    tuple(content["beforehand"]), days)
    for chapter, chosen in path.parts().items():
        starts = [part.start for part in chosen]
        if starts != sorted(set(starts)):
            raise ValueError(f"{name}: the parts of chapter {chapter} are not in its order, or one comes twice.")
    return path


def _entries(day: dict, where: str) -> tuple[Entry, ...]:
    """The lines of a day; see this module's description for what a day holds."""
    lines: list[tuple[int | None, str, Part | None, str]] = []
    for block in day["blocks"]:
        if "chapter" not in block:
            lines.append((None if block.get("rest") else block["minutes"], block["title"], None, block["say"]))
            continue
        known = {part.title: part for part in parts(read_chapter(block["chapter"]))}
        if missing := [title for title in block["parts"] if title not in known]:
            raise ValueError(f"{where}: chapter {block['chapter']} has no part {missing[0]!r}. Its parts are "
                             f"{'; '.join(known)}.")
        lines += [(minutes_in_class(known[title]), title, known[title], "") for title in block["parts"]]
    rest = day["minutes"] - sum(minutes or 0 for minutes, *_ in lines)
    if [minutes for minutes, *_ in lines].count(None) != 1 or rest < LEAST_REST:
        raise ValueError(f"{where}: of {day['minutes']} minutes {rest} are left. Exactly one block must have rest = "
                         f"true and take them, at least {LEAST_REST}: leave out a part.")
    found, start = [], 0
    for minutes, title, part, say in lines:
        minutes = rest if minutes is None else minutes
        found.append(Entry(start, minutes, title, part, say))
        start += minutes
    return tuple(found)
