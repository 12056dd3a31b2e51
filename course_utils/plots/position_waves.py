"""The sinusoidal position encoding: each pair of columns a wave, each row a position."""

from __future__ import annotations

from matplotlib import pyplot
from matplotlib.figure import Figure
from torch import Tensor

from course_utils.errors import InputError
from course_utils.plots.figure import style
from course_utils.plots.shades import SIGNED

_WAVES = 4


def position_waves(encoding: Tensor) -> Figure:
    """Draw some columns of an encoding as waves over the positions, and all of it as a table of shades.

    Args:
        encoding: (positions, size), as `sinusoidal_encoding` gives it.

    Raises:
        InputError: if it is not a matrix of at least two positions.
    """
    if encoding.dim() != 2 or encoding.shape[0] < 2:
        raise InputError(f"The encoding has shape {tuple(encoding.shape)}: give (positions, size) with at least two "
                         "positions.")
    values = encoding.detach().float().cpu().numpy()
    positions, size = values.shape
    with style():
        fig, (left, right) = pyplot.subplots(1, 2, figsize=(9.5, 3.6))
        for line, column in enumerate(range(0, size, max(2, size // _WAVES // 2 * 2))):
            left.plot(values[:, column], label=f"column {column}", markevery=(2 * line, max(1, positions // 6)))
        left.set_xlabel("position")
        left.set_ylabel("value")
        left.set_ylim(-1.1, 1.6)
        left.set_yticks([-1, 0, 1])
        left.legend(loc="upper right", ncols=2, fontsize=9)
        table = right.imshow(values, cmap=SIGNED, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        right.set_xlabel("column")
        right.locator_params(axis="x", integer=True)
        right.set_ylabel("position")
        fig.colorbar(table, ax=right, ticks=[-1, 0, 1], label="value")
    return fig
