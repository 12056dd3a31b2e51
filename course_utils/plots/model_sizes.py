"""How much memory models need, beside the memory there is."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from course_utils.errors import InputError
from course_utils.plots.figure import INK, SERIES, style
from course_utils.timing import format_bytes


def model_sizes(sizes: Mapping[str, int], free: int | None = None) -> Figure:
    """One bar a model, on a logarithmic axis; models that do not fit are hatched.

    Args:
        sizes: name of each model and its bytes, smallest first.
        free: bytes of memory that can be had, drawn as a dashed line; None draws no line.

    Raises:
        InputError: if there is no model, or one without a size.
    """
    if not sizes or min(sizes.values()) <= 0:
        raise InputError(f"The sizes are {dict(sizes)}: give at least one model, each with a positive number of bytes.")
    with style():
        fig, ax = plt.subplots(figsize=(7.0, 0.9 + 0.38 * len(sizes)))
        for row, size in enumerate(sizes.values()):
            fits = free is None or size <= free
            ax.barh(row, size, color=SERIES[0] if fits else "white", edgecolor=SERIES[0], hatch="" if fits else "//")
            ax.text(size * 1.1, row, format_bytes(size), va="center",
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
        if free:
            ax.axvline(free, color=INK, linestyle="--", marker="", label=f"free here: {format_bytes(free)}")
            ax.legend(loc="lower left", bbox_to_anchor=(0, 1))
        ax.set_xscale("log")
        ax.set_xlim(min(sizes.values()) / 3, max(*sizes.values(), free or 0, 1) * 12)
        ax.set_yticks(range(len(sizes)), list(sizes))
        ax.invert_yaxis()
        ax.set_xlabel("bytes", color=INK)
    return fig
