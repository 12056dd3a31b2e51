"""Boxes and arrows, of which the course's diagrams are made."""

from __future__ import annotations

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from course_utils.plots.figure import INK

Place = tuple[float, float]


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty picture without axes, whose units are inches from its lower left corner."""
    fig, ax = pyplot.subplots(figsize=(width, height), layout="none")
    ax.set_position((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    return fig, ax


def box(ax: Axes, place: Place, size: tuple[float, float], title: str, text: str = "", color: str = INK,
        line: str = "-") -> None:
    """A box with round corners around a middle, with a bold title, and text below it."""
    (x, y), (width, height) = place, size
    ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, facecolor="white", edgecolor=color,
                                boxstyle="round,pad=0,rounding_size=0.08", linewidth=2, linestyle=line))
    ax.text(x, y + (0.27 * height if text else 0), title, ha="center", va="center", weight="bold", fontsize=11,
            parse_math=False)
    ax.text(x, y - 0.14 * height, text, ha="center", va="center", fontsize=9, parse_math=False)


def arrow(ax: Axes, start: Place, end: Place, color: str = INK, bend: float = 0.0, heads: str = "-|>") -> None:
    """An arrow, straight or bent to one side."""
    ax.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", arrowstyle=heads, mutation_scale=13,
                                 linewidth=1.6, color=color, shrinkA=0, shrinkB=0))


def note(ax: Axes, place: Place, text: str) -> None:
    """Words beside an arrow."""
    ax.text(*place, text, ha="center", va="center", fontsize=9, parse_math=False)
