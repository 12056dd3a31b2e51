"""The instructor's page of a chapter: its parts, the answers, and the mistakes that its checks foresee.

All of it comes from the chapter's marks and from `course_utils.exercises`; nothing is written here.
"""

from __future__ import annotations

import re

from nbformat import NotebookNode
from workshop.parts import Part, parts, stated_minutes

from course_utils.exercises import solution_source
from course_utils.exercises.checking import judge
from course_utils.exercises.exercise import Exercise, find_exercise
from course_utils.exercises.question import Question, find_question


def foreseen(exercise: Exercise) -> list[str]:
    """What the check of an exercise says to each foreseen mistake, each remark once, in the exercise's order."""
    return list(dict.fromkeys(judge(exercise, answer)[1] for answer, _ in exercise.wrong))


def chapter_guide(notebook: NotebookNode) -> str:
    """The instructor's page of a chapter, as Markdown."""
    found = parts(notebook)
    lines = [f"# Instructor's page: {found[0].title}", "",
             f"{stated_minutes(notebook)[0]} minutes for a reader. What is optional may be left out.", "",
             _table(found), ""]
    for part in found:
        notes = notes_of(part)
        if not notes and not part.questions and not part.exercise:
            continue
        lines += [f"## {part.title}", "", *notes]
        for question in part.questions:
            lines += question_lines(find_question(question), explained=True)
        if part.exercise:
            lines += _exercise_lines(find_exercise(part.exercise))
    return "\n".join(lines).rstrip() + "\n"


def notes_of(part: Part) -> list[str]:
    """What an instructor says before and after a part, and when to leave it out, as paragraphs of Markdown."""
    labels = {"before": "Before", "after": "After", "skip": "When to leave it out"}
    return [line for name, label in labels.items() if part.note(name)
            for line in (f"**{label}.** {part.note(name)}", "")]


def question_lines(question: Question, explained: bool) -> list[str]:
    """A quick question with its right option marked, and on request with what is said about each option."""
    lines = [f"**Vote, {question.id}.** {as_markdown(question.text)}", ""]
    for letter, option in question.lettered:
        lines.append(f"- {letter}. {as_markdown(option.text)}{' **(right)**' if option.right else ''}")
        if explained:
            lines.append(f"  - {option.verdict} {as_markdown(option.explanation)}")
    return [*lines, ""]


def remark_lines(remarks: list[str]) -> list[str]:
    """Remarks of a check as a list."""
    return [f"- {as_markdown(remark)}" for remark in remarks] + [""]


def as_markdown(text: str) -> str:
    """A plain text, in which `code` may stand between backticks, as one line of Markdown that shows just that."""
    pieces = re.split(r"(`[^`]+`)", " ".join(text.split()))
    return "".join(piece if piece.startswith("`") else re.sub(r"[\\*_<>\[\]$|#~`]", r"\\\g<0>", piece)
                   for piece in pieces)


def _exercise_lines(exercise: Exercise) -> list[str]:
    return ["**Where people get stuck.** The check foresees these mistakes, and says:", "",
            *remark_lines(foreseen(exercise)),
            "**Solution.**", "", "```python", solution_source(exercise.id), "```", ""]


def _table(found: list[Part]) -> str:
    rows = ["| Part | Minutes | Role | For |", "|---|---|---|---|"]
    rows += [f"| {part.title} | {part.minutes} | {part.role} | {part.audience} |" for part in found]
    return "\n".join(rows)

