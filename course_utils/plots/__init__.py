"""Pictures a reader looks at: one module an idea, and the palette and `show_figure` that they all share."""

from course_utils.plots.figure import (
    CACHED,
    FAINT,
    GENERATED,
    HATCHES,
    INK,
    PROMPT,
    REJECTED,
    SERIES,
    TINTS,
    cjk_font,
    has_cjk_font,
    show_figure,
    style,
)

__all__ = [
    "CACHED", "FAINT", "GENERATED", "HATCHES", "INK", "PROMPT", "REJECTED", "SERIES", "TINTS", "cjk_font",
    "has_cjk_font", "show_figure", "style",
]
