"""What a new version of the course means for a folder of copies: which answers go where, and what to tell the learner.

Nothing here touches a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course_utils.language import gettext
from course_utils.workshop.notebook_answers import Notebook, OwnAnswer, checks, digest, find_answers, with_answers

_STAMP = "course_utils"  # a notebook's metadata under this name say which version of a chapter it is a copy of


@dataclass(frozen=True)
class Renewal:
    """What became of one notebook.

    Attributes:
        name: of the file.
        outcome: "new", "renewed", "gone" (the course has it no longer) or "damaged" (and begun anew).
        answers: the exercises whose answers were put back.
        left: how many other cells of the learner's own are in the kept file alone.
    """

    name: str
    outcome: str
    answers: tuple[str, ...] = ()
    left: int = 0

    def __str__(self) -> str:
        said = {"new": gettext("new"), "renewed": gettext("renewed"),
                "gone": gettext("no longer in the course, and moved to the kept files"),
                "damaged": gettext("could not be read as a notebook, and is begun anew")}[self.outcome]
        if self.answers:
            said += gettext(", your answers put back: {exercises}").format(exercises=", ".join(self.answers))
        if self.left:
            said += gettext("; other cells of yours that are in the kept file: {count}").format(count=self.left)
        return f"{self.name}: {said}"


@dataclass(frozen=True)
class Update:
    """What became of a folder of copies.

    Attributes:
        folder: with the copies.
        renewals: one for each notebook that was not as new as the course already.
        kept: the folder with the files as they were; None if none was replaced.
        unplaced: exercises whose answers were not put back, such as those that the course no longer has. They are in
            the kept files.
    """

    folder: Path
    renewals: tuple[Renewal, ...] = ()
    kept: Path | None = None
    unplaced: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.renewals:
            return gettext("All copies in {folder!r} are as new as the course.").format(folder=str(self.folder))
        lines = [str(renewal) for renewal in self.renewals]
        if self.unplaced:
            lines.append(gettext("Not put back, since the course has no place for them, but in "
                                 "the kept files: {exercises}").format(exercises=", ".join(self.unplaced)))
        if self.kept is not None:
            lines += [gettext("The files as they were: {folder!r}").format(folder=str(self.kept)),
                      gettext("If one of them is open in JupyterLab, use File, Reload Notebook from Disk.")]
        return "\n".join(lines)


@dataclass
class RenewalPlan:
    """What to put where.

    Attributes:
        answers: by notebook of the course, and in it by exercise.
        left: by notebook of the learner: how many own cells belong to no exercise.
        unplaced: exercises whose answers find no place.
    """

    answers: dict[str, dict[str, OwnAnswer]] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    unplaced: list[str] = field(default_factory=list)


def plan_renewal(course: Mapping[str, Notebook], copies: Mapping[str, Notebook], renewed: Collection[str],
                 gone: Collection[str], known: Collection[str], versions: Collection[str]) -> RenewalPlan:
    """Which answers go where: those of a chapter first, then those of its former name, then of copies by learners.

    Args:
        course: the notebooks of the course, by name.
        copies: those of the learner that can be read.
        renewed: the names of those of the course that are written anew.
        gone: the names of copies of what the course no longer has.
        known: the digests of the course's cells, today's and those of earlier copies.
        versions: of chapters, all cells of which are in `known`.
    """
    plan = RenewalPlan()
    home = {exercise_id: (name, function) for name, notebook in course.items()
            for exercise_id, (_, function) in checks(notebook).items()}
    missing = {name for name in renewed if name not in copies}
    own = [name for name in copies if name not in course and name not in gone]
    found = []
    for name in [*(name for name in renewed if name in copies), *gone, *own]:
        names = {exercise_id: function for exercise_id, (chapter, function) in home.items()
                 if chapter == name or name not in course}
        complete = copied_version(copies[name]) in versions
        answers, plan.left[name] = find_answers(copies[name], known, names, complete)
        found += [(name, answer, _target(answer, home)) for answer in answers]
    # First those to a function that is still asked for; where only the number is the same, it may be another exercise.
    found.sort(key=lambda each: each[2] is None or home[each[2]][1] != each[1].name)
    origin: dict[str, tuple[str, str]] = {}
    for name, answer, target in found:
        chapter = home[target][0] if target else ""
        if name in own and chapter not in missing:
            continue  # it stands in a file that is not touched
        came_from = (name, answer.exercise_id)
        if target and chapter in renewed and origin.setdefault(target, came_from) == came_from:
            kept = plan.answers.setdefault(chapter, {}).setdefault(target, OwnAnswer(target))
            kept.above += answer.above
            kept.below += answer.below
        elif name not in own:
            plan.unplaced.append(answer.exercise_id)
    return plan


def copy_of(notebook: Notebook, answers: Mapping[str, OwnAnswer], before: Mapping[str, Any]) -> bytes:
    """The file of a copy: a chapter with answers in it, and with the kernel that the learner chose.

    Args:
        notebook: as the course has it.
        answers: by exercise id.
        before: the copy until now; empty if there is none.
    """
    new = with_answers(notebook, answers)
    kernel = before.get("metadata", {}).get("kernelspec")
    new["metadata"] = {**new["metadata"], **({"kernelspec": kernel} if kernel else {}),
                       _STAMP: {"copy_of": version(notebook)}}
    text = json.dumps(new, ensure_ascii=False, indent=1) + "\n"
    return text.encode("utf-8", "backslashreplace")  # half a surrogate pair is written as JSON has it: \ud800


def copied_version(notebook: Notebook | None) -> str | None:
    """Which version of a chapter a notebook is a copy of; None if it is none that was made here."""
    stamp = notebook["metadata"].get(_STAMP) if notebook is not None else None
    found = stamp.get("copy_of") if isinstance(stamp, dict) else None
    return found if isinstance(found, str) else None


def version(notebook: Notebook) -> str:
    """What tells two versions of a chapter apart: their cells' sources. Outputs differ each time it is run."""
    return hashlib.sha256("\n".join(map(digest, notebook["cells"])).encode()).hexdigest()


def _target(answer: OwnAnswer, home: Mapping[str, tuple[str, str]]) -> str | None:
    """The exercise of the course that an answer is to: the one with its id, unless another has its function now."""
    if answer.exercise_id in home and home[answer.exercise_id][1] == answer.name:
        return answer.exercise_id
    moved = [other for other, (_, name) in home.items() if name and name == answer.name]
    return moved[0] if len(moved) == 1 else answer.exercise_id if answer.exercise_id in home else None
