"""How many tokens well-known vocabularies have."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from course_utils.errors import InputError
from course_utils.plots.figure import SERIES, style


def vocabulary_sizes(sizes: Mapping[str, int], highlighted: str) -> Figure:
    """One bar a vocabulary.

    Args:
        sizes: name and number of tokens of each.
        highlighted: the one that the reader is using; its bar is hatched.

    Raises:
        InputError: if `highlighted` is not among them.
    """
    if highlighted not in sizes:
        raise InputError(f"There is no vocabulary {highlighted!r}: choose one of {', '.join(sizes)}.")
    with style():
        fig, ax = plt.subplots(figsize=(7.0, 0.8 + 0.42 * len(sizes)))
        for row, (name, size) in enumerate(sizes.items()):
            mine = name == highlighted
            ax.barh(row, size, color="white" if mine else SERIES[0], edgecolor=SERIES[0],
                    hatch="//" if mine else "")
            ax.text(size, row, f" {size:,}", va="center")
        ax.set_yticks(range(len(sizes)), list(sizes))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.set_xlim(0, max(sizes.values()) * 1.18)
        ax.set_xlabel("tokens in the vocabulary")
        ax.invert_yaxis()
    return fig
