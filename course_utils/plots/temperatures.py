"""What temperature does to a distribution: the same tokens at several temperatures."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from course_utils.plots.figure import GENERATED, SERIES, style
from course_utils.sampling import Sampling


def at_temperatures(logits: Tensor, labels: Sequence[str], temperatures: Sequence[float]) -> Figure:
    """Draw the probabilities at each temperature, one panel each; the likeliest token stands out.

    Args:
        logits: (v,).
        labels: one a token.
        temperatures: from 0 on.
    """
    with style():
        fig, axes = pyplot.subplots(1, len(temperatures), figsize=(9.0, 2.6), sharey=True, squeeze=False)
        for ax, temperature in zip(axes[0], temperatures):
            probabilities = Sampling(temperature=temperature).probabilities(logits[None])[0]
            bars = ax.bar(range(len(labels)), probabilities.tolist(), color=SERIES[0], edgecolor="white")
            bars[int(logits.argmax())].set(facecolor=GENERATED, hatch="//")
            ax.bar_label(bars, [f"{value:.0%}" for value in probabilities.tolist()], fontsize=8, padding=2)
            ax.set_title(f"T = {temperature:g}", fontsize=11)
            ax.set_xticks(range(len(labels)), labels, rotation=90, fontsize=9, parse_math=False)
        axes[0, 0].margins(y=0.12)
        axes[0, 0].yaxis.set_major_formatter(PercentFormatter(1))
        axes[0, 0].set_ylabel("probability")
    return fig
