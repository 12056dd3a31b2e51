"""How documents lie in the blocks that a model is trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.plots.figure import HATCHES, INK, SERIES, style

_LOOKS = tuple(zip(SERIES, HATCHES))[:3]  # not the fourth, which is black


def packed_blocks(blocks: Sequence[np.ndarray], end_id: int) -> Figure:
    """Draw each block as a row, each document in it as a bar with its number of tokens, and the ends in black.

    Args:
        blocks: arrays of token ids, all of one length, as `pack` makes them.
        end_id: the end-of-text token.
    """
    with style():
        fig, ax = pyplot.subplots(figsize=(7.5, 0.9 + 0.42 * len(blocks)))
        number = 0
        for row, block in enumerate(blocks):
            ends = [*np.flatnonzero(block == end_id).tolist(), len(block)]
            start = 0
            for end in ends:
                if end > start:
                    colour, hatch = _LOOKS[number % len(_LOOKS)]
                    ax.barh(row, end - start, left=start, height=0.75, facecolor="white", hatch=hatch,
                            edgecolor=colour, linewidth=1)
                    if end - start >= len(block) // 12:  # in a narrower bar the number would not fit
                        ax.text((start + end) / 2, row, str(end - start), ha="center", va="center", fontsize=9,
                                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0})
                    number += 1
                if end < len(block):
                    ax.barh(row, 1, left=end, height=0.75, color=INK)
                start = end + 1
        ax.set(xlabel="tokens", xlim=(0, len(blocks[0])))
        ax.set_yticks(range(len(blocks)), [f"block {row + 1}" for row in range(len(blocks))], fontsize=9)
        ax.locator_params(axis="x", integer=True)
        ax.invert_yaxis()
    return fig
