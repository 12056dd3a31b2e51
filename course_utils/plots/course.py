"""The map of the course: which chapter builds on which, how long each takes, and three ways through."""

from __future__ import annotations

from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_utils.language import gettext, noted
from course_utils.plots.diagram import Place, arrow, box, canvas
from course_utils.plots.figure import CACHED, GENERATED, PROMPT, style


class Chapter(NamedTuple):
    """A chapter on the map: its short name, how long it takes in minutes, what it builds on, and where it stands.

    What a chapter builds on by way of another is left out. `place` counts boxes from the left, and rows from the top:
    a row is a way through the course.
    """

    name: str
    minutes: int
    needs: tuple[int, ...]
    place: tuple[int, int]


CHAPTERS: dict[int, Chapter] = {
    1: Chapter(noted("Environment"), 60, (), (0, 0)),
    2: Chapter(noted("Tokenizer"), 90, (1,), (1, 0)),
    3: Chapter(noted("The model"), 105, (2,), (2, 0)),
    4: Chapter(noted("One step"), 70, (3,), (3, 0)),
    5: Chapter(noted("The loop"), 90, (4,), (4, 0)),
    6: Chapter(noted("KV cache"), 120, (5,), (5, 0)),
    7: Chapter(noted("Compilation"), 105, (6,), (6, 0)),
    8: Chapter(noted("Sampling"), 125, (6,), (4, 1)),
    9: Chapter(noted("Inside"), 170, (6,), (2, 1)),
    10: Chapter(noted("Chat, prefixes"), 145, (8,), (3, 1)),
    11: Chapter(noted("Bottlenecks"), 145, (7,), (6, 1)),
    12: Chapter(noted("Speculation"), 140, (8, 11), (5, 1)),
    13: Chapter(noted("Training"), 130, (9,), (2, 2)),
    14: Chapter(noted("Fine-tuning"), 95, (13, 10), (3, 2)),
    15: Chapter(noted("Many machines"), 105, (13, 11), (6, 2)),
    16: Chapter(noted("Below PyTorch"), 145, (9, 11), (7, 1)),
}
PATHS: tuple[tuple[str, str], ...] = ((noted("Just the road: 1 to 7"), PROMPT),
                                      (noted("Serving: 8 to 12 and 16"), CACHED),
                                      (noted("Changing: 13 to 15"), GENERATED))
_STEP, _ROW, _SIZE = 1.235, 1.5, (1.1, 0.8)  # inches: from box to box, from row to row, and of a box


def course_map() -> Figure:
    """Draw all chapters as boxes, a row a way through the course, with an arrow from each to those that build on it."""
    with style():
        fig, ax = canvas(0.1 + 8 * _STEP, 4.7)
        for row, (title, color) in enumerate(PATHS):
            minutes = sum(chapter.minutes for chapter in CHAPTERS.values() if chapter.place[1] == row)
            # The first row leaves no room beside its boxes.
            x, y = 0.15, _middle((0, row))[1] + (0 if row else 0.65)
            words = gettext("{title}, about {minutes:.0f} hours").format(title=gettext(title), minutes=minutes / 60)
            ax.text(x, y, words.replace(": ", ":\n").replace(", ", ",\n") if row else words, va="center", weight="bold")
            for number, chapter in CHAPTERS.items():
                if chapter.place[1] == row:
                    words = gettext("{name}\n{minutes} min").format(name=gettext(chapter.name), minutes=chapter.minutes)
                    box(ax, _middle(chapter.place), _SIZE, f"{number}", words, color)
        for chapter in CHAPTERS.values():
            for needed in chapter.needs:
                _connect(ax, CHAPTERS[needed].place, chapter.place)
    return fig


def _middle(place: tuple[int, int]) -> Place:
    return 0.05 + _STEP * (place[0] + 0.5), 3.72 - _ROW * place[1]


def _connect(ax: Axes, start: tuple[int, int], end: tuple[int, int]) -> None:
    (x0, y0), (x1, y1) = _middle(start), _middle(end)
    width, height = _SIZE[0] / 2 + 0.03, _SIZE[1] / 2 + 0.03
    if start[1] != end[1]:
        arrow(ax, (x0, y0 - height), (x1, y1 + height))
    elif abs(start[0] - end[0]) == 1:
        right = 1 if x1 > x0 else -1
        arrow(ax, (x0 + right * width, y0), (x1 - right * width, y1))
    else:  # below the boxes between
        arrow(ax, (x0, y0 - height), (x1, y1 - height), bend=0.08)
