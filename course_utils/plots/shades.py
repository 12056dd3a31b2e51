"""Shades for tables of numbers: from white to a colour of the palette, the more the darker."""

from __future__ import annotations

from matplotlib.colors import LinearSegmentedColormap

from course_utils.plots.figure import GENERATED, INK, PROMPT

SHARE = LinearSegmentedColormap.from_list("share", ["white", PROMPT])  # for 0 to 1
SIGNED = LinearSegmentedColormap.from_list("signed", [GENERATED, "white", PROMPT])  # for -1 to 1


def ink_on(value: float) -> str:
    """The colour of text that can be read on the shade of a value: black, but white where it is darkest."""
    return "white" if value > 0.9 else INK
