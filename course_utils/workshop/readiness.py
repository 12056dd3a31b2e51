"""Whether a learner's computer is ready for a workshop, as one small file that the learner sends to the instructor.

The file is JSON, and holds the rows of the check, what the learner wants to be called, and nothing that is secret:
passwords and tokens are taken out, and the home folder is a tilde.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from course_utils.handed_over import read_handed_over, write_handed_over
from course_utils.language import gettext, noted
from course_utils.report import Finding, Status

_FORMAT = "course-utils readiness"
_KIND = noted("a computer's check")
_LONGEST_TEXT = 2000  # characters; an error that a row quotes may be long
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|KEY|CREDENTIAL", re.IGNORECASE)
_SHORTEST_SECRET = 6  # characters; what is shorter would blank out half of any text


@dataclass(frozen=True)
class Readiness:
    """What was found on one computer.

    Attributes:
        agenda: the workshop that it was checked for, a key of `AGENDAS`.
        rows: the findings.
        seconds_per_token: of the bundled model; None if it could not generate.
        name: what the learner wants to be called; may be empty.
        date: when it was checked, ISO 8601 in UTC.
    """

    agenda: str
    rows: tuple[Finding, ...]
    seconds_per_token: float | None
    name: str
    date: str

    def __post_init__(self) -> None:
        texts = [self.agenda, self.name, self.date, *(text for row in self.rows for text in asdict(row).values())]
        if not all(isinstance(text, str) and len(text) <= _LONGEST_TEXT for text in texts):
            raise ValueError("a text is none, or too long")
        if not self.rows or not all(row.status in get_args(Status) for row in self.rows):
            raise ValueError("no rows, or a status that is none")
        datetime.fromisoformat(self.date)
        seconds = self.seconds_per_token
        if seconds is not None and not (isinstance(seconds, float) and math.isfinite(seconds) and seconds > 0):
            raise ValueError(gettext("seconds_per_token is {seconds!r}").format(seconds=seconds))

    @property
    def problems(self) -> list[Finding]:
        """What has to be mended before the workshop."""
        return [row for row in self.rows if row.status == "problem"]


def new_readiness(agenda: str, rows: tuple[Finding, ...], seconds_per_token: float | None, name: str) -> Readiness:
    """What was found just now, without anything secret."""
    clean = tuple(replace(row, value=_without_secrets(row.value)[:_LONGEST_TEXT],
                          remedy=_without_secrets(row.remedy)[:_LONGEST_TEXT]) for row in rows)
    return Readiness(agenda, clean, seconds_per_token, name[:100], datetime.now(UTC).isoformat(timespec="seconds"))


def read_readiness(path: Path) -> Readiness:
    """What a learner sent.

    Raises:
        InputError: if it cannot be read, or is something else.
    """
    return read_handed_over(path, _parse, _KIND)


def write_readiness(readiness: Readiness, path: Path) -> None:
    """Write the file for the instructor; an earlier one is replaced, whole or not at all.

    Raises:
        InputError: if it cannot be written, or another file is there under that name.
    """
    write_handed_over(path, {"format": _FORMAT, **asdict(readiness)}, _parse, _KIND)


def _parse(content: Any) -> Readiness:
    fields = dict(content)
    if fields.pop("format") != _FORMAT:
        raise ValueError("another format")
    return Readiness(**fields | {"rows": tuple(Finding(**row) for row in fields["rows"])})


def _without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """A text without passwords in addresses, values of variables that are secret by name, and the home folder."""
    for name, value in environment.items():
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    text = re.sub(r"(?<=://)[^/\s]+(?=@)|(?<=://)[^/\s@]*:[^/\s@]*(?=\.\.\.|…)", "***", text)  # some are cut short
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text
