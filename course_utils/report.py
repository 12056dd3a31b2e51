"""A table of findings: what was looked at, what was found, how good that is, and what to do about it.

A note says that something is slower or missing, and the course goes on without it; a problem has to be mended. Nothing
here needs PyTorch, so that an instructor's table of many computers comes at once.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from course_utils.language import gettext
from course_utils.printable import padded, width

Status = Literal["OK", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One finding: what was looked at, what was found, how good that is, and what to do if it is not."""

    what: str
    value: str
    status: Status = "OK"
    remedy: str = ""

    def shown(self) -> tuple[str, str, str, str]:
        """What, value, status and remedy in the reader's language; kept in English is what has nothing filled in."""
        return gettext(self.what), gettext(self.value), gettext(self.status), gettext(self.remedy)


@dataclass(frozen=True)
class EnvironmentReport:
    """The table. It prints as aligned text, and as an HTML table in a notebook."""

    rows: tuple[Finding, ...]

    @property
    def problems(self) -> list[Finding]:
        """The rows that have to be mended before the course works."""
        return [row for row in self.rows if row.status == "problem"]

    def summary(self) -> str:
        """One sentence on the whole."""
        if self.problems:
            return gettext("Please mend first: {problems}.").format(
                problems=", ".join(gettext(row.what) for row in self.problems))
        notes = [gettext(row.what) for row in self.rows if row.status == "note"]
        said = gettext("Everything the course needs is here.")
        return said + (gettext(" Worth reading: {notes}.").format(notes=", ".join(notes)) if notes else "")

    def __str__(self) -> str:
        names = (gettext("Status"), gettext("What"), gettext("Found"))
        rows = [row.shown() for row in self.rows]
        cells = [names, tuple("-" * width(name) for name in names),
                 *((status, what, value) for what, value, status, _ in rows)]
        remedies = ["", "", *(remedy for *_, remedy in rows)]
        first, second = (max(width(line[column]) for line in cells) for column in (0, 1))
        lines = []
        for (status, what, value), remedy in zip(cells, remedies):
            lines.append(f"{padded(status, first)}  {padded(what, second)}  {value}")
            if remedy:
                lines.append(" " * (first + second + 4) + gettext("To do: {remedy}").format(remedy=remedy))
        return "\n".join([*lines, "", self.summary()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        # Notebooks align numbers to the right and never break a line: both are wrong for sentences.
        style = ' style="text-align: left; white-space: normal; vertical-align: top"'
        head = "".join(f'<th scope="col"{style}>{name}</th>' for name in (
            gettext("What"), gettext("Status"), gettext("Found"), gettext("To do")))
        body = "".join(
            f'<tr><th scope="row"{style}>{html.escape(what)}</th>'
            + "".join(f"<td{style}>{html.escape(cell)}</td>" for cell in (status, value, remedy)) + "</tr>"
            for what, value, status, remedy in (row.shown() for row in self.rows))
        return (f"<table><caption>{html.escape(self.summary())}</caption>"
                f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def look_at_all(looks: Sequence[tuple[str, Callable[[], Finding | Sequence[Finding]]]]) -> tuple[Finding, ...]:
    """The findings of many looks. One that fails is a note: a computer like no other must still get its other rows.

    Args:
        looks: what is looked at, and the function that does.
    """
    rows: list[Finding] = []
    for what, look in looks:
        try:
            found = look()
        except Exception as error:
            found = Finding(what, gettext("could not be found out ({kind}: {error})").format(
                kind=type(error).__name__, error=error), "note", "Go on; come back if something goes wrong later.")
        rows += [found] if isinstance(found, Finding) else found
    return tuple(rows)
