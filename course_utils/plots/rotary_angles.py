"""The rotary embedding: each pair of a head's numbers turns with the position, the first fast, the last slowly."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from torch import Tensor

from course_utils.errors import InputError
from course_utils.plots.figure import FAINT, INK, SERIES, style


def rotary_angles(frequencies: Tensor, pairs: Sequence[int], positions: int = 12) -> Figure:
    """Draw how far some pairs have turned at each position, one panel a pair.

    A dot stands for a position, the further out the later, so that a pair which hardly turns is a straight line and
    one which turns fast a spiral.

    Args:
        frequencies: (head_dim / 2,), by how many radians each pair turns per position: `rotary_emb.frequencies`.
        pairs: which of them, counted from 0.
        positions: how many, counted from 0.

    Raises:
        InputError: if there is no such pair, or nothing to draw.
    """
    if not pairs or positions < 2 or not all(0 <= pair < len(frequencies) for pair in pairs):
        raise InputError(f"Pairs {list(pairs)} at {positions} positions cannot be drawn: give pairs from 0 to "
                         f"{len(frequencies) - 1}, and at least two positions.")
    places = torch.arange(positions)
    with style():
        fig, axes = pyplot.subplots(1, len(pairs), squeeze=False, figsize=(2.5 * len(pairs), 2.9))
        for ax, pair in zip(axes.flat, pairs):
            angles = places * float(frequencies[pair])
            x, y = (places + 1) * angles.cos(), (places + 1) * angles.sin()
            ax.plot(x, y, color=SERIES[0], marker="o", markersize=5, linewidth=1)
            ax.plot(x[:1], y[:1], color=SERIES[1], marker="s", markersize=8)
            for position, away in ((0, (0.0, -13.0)), (positions - 1, (12 * float(angles[-1].cos()),
                                                                      12 * float(angles[-1].sin())))):
                ax.annotate(str(position), (x[position], y[position]), away, textcoords="offset points", ha="center",
                            va="center", fontsize=9, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
            ax.axhline(0, color=FAINT, linewidth=1, marker="", zorder=0)
            ax.axvline(0, color=FAINT, linewidth=1, marker="", zorder=0)
            reach = 1.35 * positions
            ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            ax.set_title(f"pair {pair}", fontsize=11, color=INK)
    return fig
