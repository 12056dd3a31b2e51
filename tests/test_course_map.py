"""The map of the course is the one that the chapters themselves tell."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from course_utils.plots.course import CHAPTERS, PATHS

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def first_cell(number: int) -> str:
    path, = (REPOSITORY / "notebooks").glob(f"{number:02}_*.ipynb")
    return " ".join("".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]).split())


def all_needed(number: int) -> set[int]:
    direct = set(CHAPTERS[number].needs)
    return direct.union(*map(all_needed, direct)) if direct else set()


def test_every_chapter_is_on_it() -> None:
    assert set(CHAPTERS) == {int(path.name[:2]) for path in (REPOSITORY / "notebooks").glob("*.ipynb")}
    assert len({chapter.place for chapter in CHAPTERS.values()}) == len(CHAPTERS)


@pytest.mark.parametrize("number", CHAPTERS)
def test_times_and_what_a_chapter_builds_on_are_those_at_its_top(number: int) -> None:
    time, builds_on = re.search(r"\*\*Time:\*\* (\d+) minutes.*?\*\*Builds on:\*\* (.*)", first_cell(number)).groups()
    assert int(time) == CHAPTERS[number].minutes
    assert f"| {time} min |" in next(line for line in README.splitlines() if line.startswith(f"| {number} |"))
    # Only what is meant by "builds on": chapter 7 goes on to say where chapter 1 looked for a compiler.
    named = {int(n) for n in re.findall(r"\b(\d+)\b", re.sub(r"\(\S+\)", "", builds_on.split(" It ")[0]))}
    assert named <= all_needed(number) and set(CHAPTERS[number].needs) <= named


def test_a_way_through_is_a_row_of_the_map_and_a_line_of_the_readme() -> None:
    for row, (title, _) in enumerate(PATHS):
        first, last, *more = map(int, re.findall(r"\d+", title))
        chapters = {number for number, chapter in CHAPTERS.items() if chapter.place[1] == row}
        assert chapters == {*range(first, last + 1), *more}
        hours = sum(CHAPTERS[number].minutes for number in chapters) / 60
        assert f"{title.partition(':')[0].lower()}" in README.lower() and f"about {hours:.0f} hours" in README
    hours = sum(chapter.minutes for chapter in CHAPTERS.values()) / 60
    assert f"about {hours:.0f} hours in all" in " ".join(README.split())


def test_no_chapter_builds_on_a_later_one() -> None:
    assert all(needed < number for number, chapter in CHAPTERS.items() for needed in chapter.needs)
