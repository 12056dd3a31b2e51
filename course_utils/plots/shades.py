"""Shades for tables of numbers: from white to a colour of the palette, the more the darker."""

from __future__ import annotations

from matplotlib.colors import LinearSegmentedColormap

from course_utils.plots.figure import INK, SERIES

SHARE = LinearSegmentedColormap.from_list("share", ["white", SERIES[0]])  # for 0 to 1
SIGNED = LinearSegmentedColormap.from_list("signed", [SERIES[1], "white", SERIES[0]])  # for -1 to 1


def ink_on(value: float) -> str:
    """The colour of text that can be read on the shade of a value: black on the lighter shades, white on the darker."""
    return INK if -0.78 <= value <= 0.66 else "white"
