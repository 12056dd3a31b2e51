"""The errors a reader of the course may see: one sentence on what is wrong, one on what to do.

Everything this package raises on purpose is a `CourseError`, so a caller can catch all of it at once; the
subclasses say which kind of thing went wrong. Those about a bad argument are also `ValueError`s.
"""

from __future__ import annotations


class CourseError(Exception):
    """Base of all errors that this package raises on purpose."""


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
