"""A product of a vector and a matrix on two machines: the matrix divided by its outputs, or by its inputs."""

from __future__ import annotations

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from course_utils.plots.figure import INK, SERIES, style

_FIRST, _SECOND, _BOTH = (SERIES[0], "//"), (SERIES[1], ".."), (INK, "")


def split_matrices() -> Figure:
    """Draw both ways, input times matrix is output; what a machine holds has its colour and its hatching."""
    with style():
        fig, (outputs, inputs) = pyplot.subplots(1, 2, figsize=(9.0, 2.4))
        _draw(outputs, "by outputs: the halves stand side by side",
              [(0, 2, 2, 0.5, _BOTH)], [(3.2, 1.25, 1, 2, _FIRST), (4.2, 1.25, 1, 2, _SECOND)],
              [(6.4, 2, 1, 0.5, _FIRST), (7.4, 2, 1, 0.5, _SECOND)])
        _draw(inputs, "by inputs: the two results are added",
              [(0, 2, 1, 0.5, _FIRST), (1, 2, 1, 0.5, _SECOND)],
              [(3.2, 2.25, 2, 1, _FIRST), (3.2, 1.25, 2, 1, _SECOND)],
              [(6.4, 2.6, 2, 0.5, _FIRST), (6.4, 1.4, 2, 0.5, _SECOND)])
        inputs.text(7.4, 2.25, "+", ha="center", va="center", fontsize=14)
    return fig


def _draw(ax: Axes, title: str, *parts: list[tuple[float, float, float, float, tuple[str, str]]]) -> None:
    for name, x, boxes in zip(("input", "matrix", "output"), (1.0, 4.2, 7.4), parts):
        for left, bottom, width, height, (color, hatch) in boxes:
            ax.add_patch(Rectangle((left, bottom), width, height, facecolor="white", hatch=hatch, edgecolor=color,
                                   linewidth=1.5))
        ax.text(x, 0.75, name, ha="center", fontsize=10)
    ax.text(2.6, 2.25, "×", ha="center", va="center", fontsize=14)
    ax.text(5.8, 2.25, "=", ha="center", va="center", fontsize=14)
    ax.set(xlim=(-0.2, 8.6), ylim=(0.5, 3.5))
    ax.set_aspect("equal")
    ax.set_title(title, fontsize=10)
    ax.axis("off")
