"""The three workshops that the course is cut for: which chapters each takes, and what these need of a computer.

The chapters are those of the agendas in `notebooks/workshop/paths`, which the installed package comes without; a test
compares them. The memory is the peak of a chapter's Python process, measured on Linux with
each chapter run from top to bottom, rounded up, and 1 GB for JupyterLab and a browser. The disk is for what chapters
write and then delete (compiled code, trained models); the installation itself is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from course_utils.language import noted


@dataclass(frozen=True)
class Agenda:
    """A workshop of a given length.

    Attributes:
        title: how long it is, in words.
        chapters: the numbers of its chapters, in order.
        memory: bytes of main memory that should be free when it begins.
        disk: bytes that should be free where temporary files are kept.
    """

    title: str
    chapters: tuple[int, ...]
    memory: float
    disk: float


AGENDAS = {
    "ninety-minutes": Agenda(noted("90 minutes"), (5, 6), memory=4e9, disk=0.5e9),
    "half-a-day": Agenda(noted("half a day"), (1, 2, 4, 5, 6, 7), memory=6e9, disk=0.5e9),
    "two-days": Agenda(noted("two days"), (1, 2, 3, 4, 5, 6, 7, 8, 14), memory=6e9, disk=0.5e9),
}
"""By the name that `course-utils check --for` takes."""

SMALL_MEMORY = 3e9
"""Free bytes with which every agenda still runs: what measures the shape of a real model then takes fewer layers."""
