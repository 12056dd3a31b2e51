"""`course-utils check` before a workshop: a learner's computer into a file, and an instructor's files into a table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.printable import printable
from course_utils.report import EnvironmentReport
from course_utils.workshop.agendas import AGENDAS
from course_utils.workshop.readiness import Readiness, new_readiness, read_readiness, write_readiness
from course_utils.workshop.readiness_table import readiness_table


def check_computer(file: Path, agenda: str, name: str, notebooks: Path | None) -> bool:
    """Look at this computer, print what was found, and write it to a file for the instructor.

    Args:
        file: an earlier check in it is replaced.
        agenda: a key of `AGENDAS`.
        name: what the learner wants to be called; may be empty.
        notebooks: the folder of the chapters; None if they are not here.

    Returns:
        Whether it is ready.

    Raises:
        InputError: if the file cannot be written, or holds something else.
    """
    from course_utils.workshop.computer import look_for_workshop

    if file.exists():
        read_readiness(file)  # better said now than after a minute
    print(gettext("Looking at this computer for a workshop of {title}, up to a minute ...").format(
        title=gettext(AGENDAS[agenda].title)), flush=True)
    readiness = new_readiness(agenda, *look_for_workshop(AGENDAS[agenda], notebooks), name)
    write_readiness(readiness, file)
    print(printable(str(EnvironmentReport(readiness.rows)), keep="\n"))
    print()
    told = (gettext("Written to {file}: send it to your instructor. It holds this table and the name {name}.")
            if name else
            gettext("Written to {file}: send it to your instructor. It holds this table, and no name."))
    print(printable(told.format(file=file, name=name)), flush=True)
    return not readiness.problems


def show_computers(files: Sequence[Path]) -> tuple[bool, bool]:
    """Print the table of the files that learners sent; what is wrong with a file goes to stderr.

    Returns:
        Whether every file could be read, and whether everybody is ready.
    """
    learners: dict[str, Readiness] = {}
    for path in files:
        try:
            learners[str(path)] = read_readiness(path)
        except InputError as error:
            print(f"course-utils: {error}", file=sys.stderr)
    if learners:
        print(readiness_table(learners))
    return len(learners) == len(files), not any(readiness.problems for readiness in learners.values())
