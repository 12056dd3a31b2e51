"""What a training reports, one record a step, kept as a log in JSON lines: data for a learning curve."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from course_utils.errors import CheckpointError
from course_utils.files import write_atomically
from course_utils.json_text import parse_json
from course_utils.language import gettext
from course_utils.number import whole_number


@dataclass(frozen=True)
class Record:
    """How a step went.

    Attributes:
        step: number of updates made so far, from 1 on.
        loss: of the tokens of this step before the update, in nats per token.
        tokens_per_second: of this update; the first one may include the time to compile.
        held_out_loss: after the update, in nats per token; None if it was not measured.
        sample: text that the model wrote after the update; None if it wrote none.
    """

    step: int
    loss: float
    tokens_per_second: float
    held_out_loss: float | None = None
    sample: str | None = None


def read_log(path: Path) -> list[Record]:
    """All records of a log; none if there is no such file. A last line without an end, which a process left that was
    killed while it wrote, is passed over.

    Raises:
        CheckpointError: if a line is no record.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    except OSError as error:
        raise CheckpointError(gettext("The log {path!r} cannot be read ({error}): choose another folder.").format(
            path=str(path), error=error)) from error
    return [_record(line, number, path) for number, line in enumerate(lines, start=1)]


class Log:
    """A log that a training writes to.

    Args:
        path: of the file; None writes nothing.
        steps_done: later records are dropped, since these steps are about to be made again.

    Raises:
        CheckpointError: if the file is damaged or cannot be written.
    """

    def __init__(self, path: Path | None, steps_done: int) -> None:
        self.path = path
        if path is not None:
            text = "".join(map(_line, (record for record in read_log(path) if record.step <= steps_done)))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path.parent, {path.name: lambda file: file.write_text(text, encoding="utf-8")})
            except OSError as error:
                raise _not_written(path, error) from error

    def write(self, record: Record) -> None:
        """Append one record. Raises: CheckpointError: if it cannot be written."""
        if self.path is not None:
            try:
                with self.path.open("a", encoding="utf-8", newline="\n") as file:
                    file.write(_line(record))
            except OSError as error:
                raise _not_written(self.path, error) from error


def _line(record: Record) -> str:
    content = {name: value for name, value in asdict(record).items() if value is not None}
    return json.dumps(content, ensure_ascii=False) + "\n"


def _record(line: bytes, number: int, path: Path) -> Record:
    try:
        record = Record(**parse_json(line))
        if whole_number(record.step) is not None:
            return record
    except (TypeError, ValueError):
        pass
    raise CheckpointError(gettext("Line {number} of the log {path!r} is not a record of a training: repair the log or "
                                  "delete it, the training itself does not need it.").format(
        number=number, path=str(path)))


def _not_written(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(gettext("The log {path!r} could not be written ({error}): free disk space, or choose "
                                   "another folder.").format(path=str(path), error=error))
