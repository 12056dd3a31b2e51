"""What a larger vocabulary buys: shorter token sequences for the same text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from course_utils.errors import InputError
from course_utils.plots.figure import style


def vocabulary_trade(sizes: Sequence[int], tokens: Mapping[str, Sequence[int]]) -> Figure:
    """One curve a text: number of tokens over the size of the vocabulary, on a logarithmic axis.

    Args:
        sizes: vocabulary sizes, ascending.
        tokens: for each text, by a name, the number of tokens that it has with each of these sizes.

    Raises:
        InputError: if a text has not one number for each size.
    """
    if any(len(counts) != len(sizes) for counts in tokens.values()):
        raise InputError(f"There are {len(sizes)} vocabulary sizes: give as many numbers of tokens for every text.")
    with style():
        fig, ax = plt.subplots()
        for name, counts in tokens.items():
            ax.plot(sizes, counts, label=name)
        ax.set_xscale("log", base=2)
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45)
        ax.minorticks_off()
        ax.set_ylim(bottom=0)
        ax.set_xlabel("tokens in the vocabulary")
        ax.set_ylabel("tokens of the text")
        ax.legend()
    return fig
