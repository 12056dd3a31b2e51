"""The errors a reader of the course may see: one sentence on what is wrong, one on what to do.

Everything this package raises on purpose is a `CourseError`, so a caller can catch all of it at once; the
subclasses say which kind of thing went wrong. Those about a bad argument are also `ValueError`s.
"""

from __future__ import annotations

from course_utils.language import gettext
from course_utils.printable import printable


class CourseError(Exception):
    """Base of all errors that this package raises on purpose.

    A message may quote a stranger: the name of a tensor, what a server said. Wherever it is shown, in a terminal or
    above a traceback, it is one line and steers nothing. It is in the reader's language: here, where it is shown, if it
    was raised with a sentence as it stands in the code, and where it is raised if something was filled in.
    """

    def __str__(self) -> str:
        return printable(" ".join(gettext(super().__str__()).splitlines()))


class InputError(CourseError, ValueError):
    """An argument has the wrong shape, type or range."""


class ContextLengthError(InputError):
    """Prompt and requested tokens together do not fit into the model's context."""


class TokenizerError(CourseError):
    """A tokenizer file is missing or damaged, or an id has no text."""


class CheckpointError(CourseError):
    """A model folder is incomplete, damaged, or holds another kind of model."""


class DownloadError(CourseError):
    """A model could not be fetched from the hub."""
