"""What several models can do, ability by ability: what fine-tuning has brought, and what it has cost."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.errors import InputError
from course_utils.plots.figure import HATCHES, SERIES, style

_LOOKS = tuple(zip(SERIES, HATCHES))  # told apart without colours as well


def abilities(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw a group of bars for each ability, in it a bar for each model.

    Args:
        shares: name of each model, at most four -> name of each ability, the same for all -> share of right answers,
            0 to 1.

    Raises:
        InputError: if there are too many models, or their abilities differ.
    """
    names = list(next(iter(shares.values()), {}))
    if not names or len(shares) > len(_LOOKS) or any(list(each) != names for each in shares.values()):
        raise InputError(f"There are {len(shares)} models: give one to {len(_LOOKS)}, with the same abilities in the "
                         "same order.")
    with style():
        fig, ax = pyplot.subplots(figsize=(7.4, 1.0 + (0.25 + 0.17 * len(shares)) * len(names)))
        height = 0.8 / len(shares)
        for number, ((model, each), (colour, hatch)) in enumerate(zip(shares.items(), _LOOKS)):
            places = np.arange(len(names)) + (number - (len(shares) - 1) / 2) * height
            bars = ax.barh(places, [100 * share for share in each.values()], height, color=colour, hatch=hatch,
                           edgecolor="white", label=model)
            ax.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
        ax.set(xlabel="right to the letter, %", xlim=(0, 108))
        ax.set_yticks(range(len(names)), names, fontsize=10)
        ax.invert_yaxis()
        fig.legend(loc="outside upper center", ncols=len(shares), fontsize=9)
    return fig
