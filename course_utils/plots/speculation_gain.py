"""When speculative decoding pays: the gain by the number of drafted tokens, for good drafts and poor ones."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.plots.figure import INK, SERIES, style


def speculation_gain(gains: Mapping[str, Mapping[float, Mapping[int, float]]]) -> Figure:
    """Draw a panel for each situation and a curve for each acceptance rate, its best place marked.

    Args:
        gains: title of each situation, then share of tokens accepted, then number of drafted tokens: speed with
            speculation as a multiple of the speed without.
    """
    with style():
        fig, axes = pyplot.subplots(1, len(gains), figsize=(8, 3.4), sharey=True, squeeze=False)
        for ax, (title, curves) in zip(axes[0], gains.items()):
            for (rate, curve), colour, line in zip(curves.items(), SERIES, ("-", "--", "-.", ":")):
                best = max(curve, key=lambda count: curve[count])
                ax.plot(list(curve), list(curve.values()), color=colour, linestyle=line, marker="",
                        label=f"{rate:.0%} accepted")
                ax.plot([best], [curve[best]], color=colour, linestyle="none", marker="o")
            ax.axhline(1, color=INK, linewidth=1)
            ax.set_title(title, fontsize=11)
            ax.set_xlabel("drafted tokens per pass")
        axes[0][0].set_ylabel("times as fast")
        axes[0][0].set_ylim(bottom=0)
        fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=9)
    return fig
