"""The agenda of a path, as Markdown: a timetable, and for each part what to say, to type and to vote on, and where
people get stuck.

The minutes and notes come from the chapters' marks, the votes and mistakes from `course_utils.exercises`; what holds
for every class stands in `paths/always.md`.
"""

from __future__ import annotations

from workshop.guide import foreseen, notes_of, question_lines, remark_lines
from workshop.parts import Part, heading, is_live
from workshop.paths import FOLDER, Entry, Workshop, chapter_file, read_chapter

from course_utils.exercises.exercise import find_exercise
from course_utils.exercises.question import find_question

MOST_REMARKS = 5  # of an exercise: the checks name the likeliest slips first


def agenda(path: Workshop) -> str:
    """The agenda of a path."""
    titles = {chapter: heading(read_chapter(chapter).cells[0]) for chapter in path.parts()}
    lines = [f"# {path.title}", "", f"*{duration(path)}, breaks included. Chapters {_listed(list(path.parts()))}.*", "",
             " ".join(path.summary.split()), "", "## Aims", "", *(f"- {aim}" for aim in path.aims), "",
             "## Before the day", "", *(f"- {task}" for task in path.beforehand), ""]
    for number, day in enumerate(path.days, start=1):
        lines += ["## Timetable" if len(path.days) == 1 else f"## Day {number}", "", *_timetable(day), ""]
    for number, day in enumerate(path.days, start=1):
        lines += ["## Part by part" if len(path.days) == 1 else f"## Day {number}, part by part", ""]
        for entry in day:
            lines += _entry_lines(entry, titles)
    return "\n".join(lines) + "\n" + (FOLDER / "always.md").read_text(encoding="utf-8")


def duration(path: Workshop) -> str:
    """How long a path takes, in words."""
    days = [clock(sum(entry.minutes for entry in day)) for day in path.days]
    return f"{days[0]} hours" if len(days) == 1 else f"{len(days)} days of {' and '.join(dict.fromkeys(days))} hours"


def clock(minutes: int) -> str:
    """Minutes since the beginning, such as 1:05."""
    return f"{minutes // 60}:{minutes % 60:02}"


def how(part: Part) -> str:
    """What a class does in a part: an exercise, typing along, a vote, or running and talking."""
    if part.exercise:
        return "exercise"
    typed = "type along" if any(map(is_live, part.cells)) else "run and talk"
    return typed + (", vote" if part.questions else "")


def _listed(numbers: list[int]) -> str:
    words = [str(number) for number in numbers]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _timetable(day: tuple[Entry, ...]) -> list[str]:
    lines = ["| Time | Minutes | Chapter | Part | How |", "|---|---|---|---|---|"]
    for entry in day:
        chapter = str(entry.part.chapter) if entry.part else ""
        lines.append(f"| {clock(entry.start)} | {entry.minutes} | {chapter} | {entry.title} "
                     f"| {how(entry.part) if entry.part else ''} |")
    return lines


def _entry_lines(entry: Entry, titles: dict[int, str]) -> list[str]:
    part = entry.part
    lines = [f"### {clock(entry.start)} {entry.title} ({entry.minutes} min)", ""]
    if part is None:
        return [*lines, " ".join(entry.say.split()), ""]
    lines += [f"Chapter {titles[part.chapter]}, in `{chapter_file(part.chapter).name}`.", "", *notes_of(part)]
    if live := [cell.source for cell in part.cells if is_live(cell)]:
        lines += ["**Type together.**", "", *(line for source in live for line in ("```python", source, "```", ""))]
    for question in part.questions:
        lines += question_lines(find_question(question), explained=False)
    if part.exercise:
        remarks = foreseen(find_exercise(part.exercise))
        lines += ["**Where people get stuck.** What the check says to the likeliest mistakes:", "",
                  *remark_lines(remarks[:MOST_REMARKS])]
    return lines
