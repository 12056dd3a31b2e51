"""The instructor's table before the day: whose computer is ready, who needs help, and with what."""

from __future__ import annotations

from collections.abc import Mapping

from course_utils.language import gettext
from course_utils.printable import aligned, printable
from course_utils.workshop.readiness import Readiness


def readiness_table(learners: Mapping[str, Readiness]) -> str:
    """A line for each computer, those that need help first; below, each problem with who has it and what to do.

    Args:
        learners: by the name of their file, which stands for those without a name of their own.
    """
    found = {file: (printable(readiness.name[:30]) or printable(file), readiness)
             for file, readiness in learners.items()}
    ordered = sorted(found.values(), key=lambda entry: (not entry[1].problems, entry[0].casefold()))
    rows = [[gettext("learner"), gettext("ready"), gettext("for"), gettext("ms a token"), gettext("checked"),
             gettext("what to look at")]]
    rows += [[label, gettext("NO") if readiness.problems else gettext("yes"), printable(readiness.agenda),
              _milliseconds(readiness), readiness.date[:10], _what(readiness)] for label, readiness in ordered]
    lines = aligned(rows, left=len(rows[0]))
    helpless = [label for label, readiness in ordered if readiness.problems]
    ready = gettext("{ready} of {all} are ready.").format(ready=len(ordered) - len(helpless), all=len(ordered))
    lines += ["", ready + (gettext(" Help: {helpless}.").format(helpless=", ".join(helpless)) if helpless else "")]
    return "\n".join([*lines, *_problems(ordered)])


def _milliseconds(readiness: Readiness) -> str:
    seconds = readiness.seconds_per_token
    return "-" if seconds is None else f"{seconds * 1e3:.1f}"


def _what(readiness: Readiness) -> str:
    problems, notes = ([printable(row.what) for row in readiness.rows if row.status == status]
                       for status in ("problem", "note"))
    return "; ".join(filter(None, [", ".join(problems), "notes: " + ", ".join(notes) if notes else ""]))


def _problems(ordered: list[tuple[str, Readiness]]) -> list[str]:
    """Each problem once, that of most learners first."""
    who: dict[tuple[str, str], list[str]] = {}
    values: dict[tuple[str, str], list[str]] = {}
    for label, readiness in ordered:
        for row in readiness.problems:
            key = (row.what, row.remedy)
            who.setdefault(key, []).append(label)
            if row.value not in values.setdefault(key, []):
                values[key].append(row.value)
    lines = []
    for key in sorted(who, key=lambda key: -len(who[key])):
        lines += ["", f"{printable(gettext(key[0]))}: {', '.join(who[key])}",
                  *(gettext("  Found: {value}").format(value=printable(value)) for value in values[key]),
                  gettext("  To do: {remedy}").format(remedy=printable(gettext(key[1])))]
    return lines
