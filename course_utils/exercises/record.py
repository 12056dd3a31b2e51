"""What is noted of a learner, and how it stands in a file.

A file from before a field was there is read as if nothing had been noted in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from course_utils.language import gettext

_FORMAT = "course-utils progress"
_LONGEST_REMARK = 1000  # letters; the longest that a check makes is a third of it
_MOST_CHOICES = 100


@dataclass(frozen=True)
class Attempts:
    """How far a learner is with one exercise. All times are ISO 8601 in UTC, and None if it did not happen so far.

    Attributes:
        tries: answers that were not right yet, before the first that passed.
        passed: when it passed.
        seen: when its check was first run with nothing written yet: NOT STARTED.
        first: when an answer was first tried.
        last: when one was tried last.
        remark: what the last answer that was not right was told.
        shown: when the solution was shown, before it passed.
    """

    tries: int = 0
    passed: str | None = None
    seen: str | None = None
    first: str | None = None
    last: str | None = None
    remark: str = ""
    shown: str | None = None

    def __post_init__(self) -> None:
        if type(self.tries) is not int or self.tries < 0:
            raise ValueError(gettext("tries is {tries!r}").format(tries=self.tries))
        if not isinstance(self.remark, str) or len(self.remark) > _LONGEST_REMARK:
            raise ValueError("remark is no text, or too long")
        for time in (self.passed, self.seen, self.first, self.last, self.shown):
            if time is not None:
                moment(time)


@dataclass(frozen=True)
class Choices:
    """What a learner chose when asked a quick question.

    Attributes:
        letters: of the options, in the order in which they were chosen, such as "BA".
        right: when the right one was chosen, ISO 8601 in UTC; None if it was not so far.
    """

    letters: str
    right: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.letters, str) or not 0 < len(self.letters) <= _MOST_CHOICES or \
                not set(self.letters) <= set("ABCD"):
            raise ValueError(gettext("letters is {letters!r}").format(letters=self.letters))
        if self.right is not None:
            moment(self.right)


@dataclass(frozen=True)
class Progress:
    """How far a learner is.

    Attributes:
        exercises: a record for each exercise that was tried, by id.
        name: of the learner, where the file was exported under one.
        questions: a record for each quick question that was answered, by id.
        told: whether the learner was told what is noted.
    """

    exercises: dict[str, Attempts]
    name: str = ""
    questions: dict[str, Choices] = field(default_factory=dict)
    told: bool = False

    def passed(self, exercise_id: str) -> bool:
        """Whether an exercise was passed."""
        return self.exercises.get(exercise_id, Attempts()).passed is not None


def moment(time: str) -> datetime:
    """A time in a record; one without a time zone is in UTC.

    Raises:
        ValueError: if it is no ISO 8601.
    """
    if not isinstance(time, str):
        raise ValueError(gettext("{time!r} is no time").format(time=time))
    parsed = datetime.fromisoformat(time)
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)


def now() -> str:
    """The time, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def parse_record(content: Any) -> Progress:
    """The progress that the JSON of a file says, for `course_utils.handed_over`.

    Raises:
        ValueError, KeyError, TypeError or AttributeError: if it is none.
    """
    name, told = content.get("name", ""), content.get("told", False)
    if content["format"] != _FORMAT or not isinstance(name, str) or not isinstance(told, bool):
        raise ValueError("another format")
    exercises = {exercise_id: Attempts(**noted) for exercise_id, noted in content["exercises"].items()}
    questions = {question_id: Choices(**noted) for question_id, noted in content.get("questions", {}).items()}
    return Progress(exercises, name, questions, told)


def plain_record(progress: Progress) -> dict[str, Any]:
    """A progress as `parse_record` reads it, for a JSON file; what was not noted is left out."""
    return {"format": _FORMAT} | {name: value for name, value in (
        ("name", progress.name), ("told", progress.told), ("exercises", _noted(progress.exercises)),
        ("questions", _noted(progress.questions))) if value or name == "exercises"}


def _noted(records: Mapping[str, Attempts | Choices]) -> dict[str, dict[str, Any]]:
    return {key: {part.name: value for part in fields(record)
                  if (value := getattr(record, part.name)) != part.default} for key, record in records.items()}
