"""How often each token comes out, by several ways of choosing it, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.plots.figure import HATCHES, INK, SERIES, style


def token_shares(labels: Sequence[str], shares: Mapping[str, Sequence[float]]) -> Figure:
    """Draw a group of bars for each token and a bar for each way.

    Args:
        labels: one for each token.
        shares: name of each way, four at most, and its share of each token, 0 to 1.
    """
    width = 0.84 / len(shares)
    with style():
        fig, ax = pyplot.subplots(figsize=(8, 3.6))
        for number, ((name, values), (colour, hatch)) in enumerate(zip(shares.items(), zip(SERIES, HATCHES))):
            left = [place - 0.42 + width * (number + 0.5) for place in range(len(labels))]
            ax.bar(left, [100 * value for value in values], width, label=name, facecolor="white" if hatch else colour,
                   edgecolor=colour, hatch=hatch)
        # A dollar sign would begin a formula.
        ax.set_xticks(range(len(labels)), [label.replace("$", r"\$") for label in labels])
        ax.tick_params(axis="x", length=0, colors=INK)
        ax.set_ylabel("share of the draws, %")
        ax.legend(fontsize=9)
    return fig
