"""A learner's progress as text: all chapters, one chapter, and several learners side by side for an instructor."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from course_utils.errors import InputError
from course_utils.exercises import lookup
from course_utils.exercises.progress import own_progress
from course_utils.exercises.record import Attempts, Progress
from course_utils.language import gettext
from course_utils.printable import aligned, printable


def show_progress(chapter: int | None = None) -> None:
    """Print which exercises were passed.

    Args:
        chapter: its number; None is all chapters.

    Raises:
        InputError: if the chapter has no exercises.
    """
    try:
        progress = own_progress()
    except InputError as error:  # no reason to stop a notebook
        print(gettext("{error} Until then nothing counts as passed.").format(error=error))
        progress = Progress({})
    print(progress_table(progress) if chapter is None else chapter_table(progress, chapter))


def progress_table(progress: Progress) -> str:
    """A line for each chapter, with what is open, and one for the whole."""
    lines = []
    for chapter, ids in _exercises().items():
        still = [exercise_id for exercise_id in ids if not progress.passed(exercise_id)]
        passed = gettext("chapter {chapter:2}   {passed} of {count} passed").format(
            chapter=chapter, passed=len(ids) - len(still), count=len(ids))
        lines.append(passed + (gettext("   open: {ids}").format(ids=", ".join(still)) if still else ""))
    everything = [exercise_id for ids in _exercises().values() for exercise_id in ids]
    lines.append(gettext("in all       {passed} of {count} passed").format(
        passed=_count(progress, everything), count=len(everything)))
    return "\n".join(lines)


def chapter_table(progress: Progress, chapter: int) -> str:
    """A line for a chapter, and one for each of its exercises.

    Raises:
        InputError: if the chapter has no exercises.
    """
    titles = lookup.titles(chapter)
    lines = [gettext("Chapter {chapter}: {passed} of {count} exercises passed").format(
        chapter=chapter, passed=_count(progress, list(titles)), count=len(titles))]
    for exercise_id, title in titles.items():
        kept = progress.exercises.get(exercise_id, Attempts())
        tries = gettext(" (after 1 try)") if kept.tries == 1 else gettext(" (after {tries} tries)")
        state = gettext("open    ") if kept.passed is None else gettext("passed  ")
        lines.append(f"{state}{exercise_id} {gettext(title)}"
                     + (tries.format(tries=kept.tries) if kept.tries else ""))
    return "\n".join(lines)


def learners_table(learners: Mapping[str, Progress]) -> str:
    """A line for each learner: how many exercises of each chapter were passed, of all, and the day of the last.

    Args:
        learners: by a name for those whose file holds none.
    """
    chapters = _exercises()
    everything = [exercise_id for ids in chapters.values() for exercise_id in ids]
    rows = [[gettext("learner"), *map(str, chapters), gettext("all"), gettext("last passed")]]
    rows.append([gettext("of"), *(str(len(ids)) for ids in chapters.values()), str(len(everything)), ""])
    for label, progress in learners.items():
        days = [str(datetime.fromisoformat(kept.passed).date()) for kept in progress.exercises.values()
                if kept.passed is not None]
        counts = [_count(progress, ids) for ids in (*chapters.values(), everything)]
        rows.append([printable(progress.name[:30] or label), *map(str, counts), max(days, default="")])
    return "\n".join(aligned(rows))


def _exercises() -> dict[int, list[str]]:
    """The ids of each chapter's exercises."""
    return {chapter: list(lookup.titles(chapter)) for chapter in lookup.chapters("exercise")}


def _count(progress: Progress, ids: list[str]) -> int:
    return sum(progress.passed(exercise_id) for exercise_id in ids)
