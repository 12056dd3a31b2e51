"""The bits of the number formats that models are stored and computed in."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from course_utils.errors import InputError
from course_utils.plots.figure import INK, SERIES, style

# Bits of sign, exponent and fraction. IEEE 754 for float32 and float16; an integer has no exponent.
FORMATS: dict[str, tuple[int, int, int]] = {
    "float32": (1, 8, 23), "TF32": (1, 8, 10), "bfloat16": (1, 8, 7), "float16": (1, 5, 10), "int8": (1, 0, 7),
}
_PARTS = (("sign", INK, "S"), ("exponent: how large", SERIES[1], "E"), ("fraction: how exact", SERIES[0], "F"))


def number_formats(names: Sequence[str]) -> Figure:
    """One row of boxes a format, one box a bit, with a letter for the part that the bit belongs to.

    Args:
        names: which of `FORMATS`.

    Raises:
        InputError: if a name is not one of them.
    """
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise InputError(f"The formats are {list(names)}: choose some of {', '.join(FORMATS)}.")
    with style():
        fig, ax = plt.subplots(figsize=(8.0, 0.8 + 0.5 * len(names)))
        for row, name in enumerate(names):
            bits = [part for part, count in zip(_PARTS, FORMATS[name]) for _ in range(count)]
            for column, (_, colour, letter) in enumerate(bits):
                ax.barh(row, 1, left=column, height=0.7, color=colour, edgecolor="white")
                ax.text(column + 0.5, row, letter, ha="center", va="center", color="white", fontsize=8)
            ax.text(len(bits) + 0.4, row, f"{len(bits)} bits", va="center", color=INK)
        for label, colour, _ in _PARTS:
            ax.barh(0, 0, color=colour, label=label)
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
        ax.set_yticks(range(len(names)), list(names))
        ax.set_xlim(0, 36)
        ax.set_xticks([])
        ax.spines["bottom"].set_visible(False)
        ax.invert_yaxis()
    return fig
