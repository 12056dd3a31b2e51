"""How many tokens a pass of the target brings, by the number of tokens drafted for it."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.plots.figure import INK, SERIES, style


def tokens_per_pass(measured: Mapping[int, float], predicted: Mapping[float, Mapping[int, float]]) -> Figure:
    """Draw measured points beside curves of the formula.

    Args:
        measured: number of drafted tokens to tokens per pass.
        predicted: for each acceptance rate of a single token, the same.
    """
    with style():
        fig, ax = pyplot.subplots(figsize=(7, 3.6))
        for (rate, curve), colour, line in zip(predicted.items(), SERIES, ("--", "-", ":")):
            ax.plot(list(curve), list(curve.values()), color=colour, linestyle=line, marker="",
                    label=f"formula, {rate:.0%} accepted")
        ax.plot(list(measured), list(measured.values()), color=INK, linestyle="none", marker="D", label="measured")
        ax.set(xlabel="drafted tokens per pass", ylabel="new tokens per pass", xticks=list(measured))
        ax.set_ylim(bottom=0)
        ax.legend(fontsize=9)
    return fig
