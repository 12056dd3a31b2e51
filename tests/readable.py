"""What makes a picture or HTML readable, for the tests of both."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import combinations
from typing import Any

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

_WIDEST = 10  # inches; a wider picture would be shrunk in a notebook, and its text with it
_SMALLEST = 8  # points


def luminance(color: Any) -> float:
    """Relative luminance, as WCAG 2.1 defines it, of any color that matplotlib knows."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in to_rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Any, other: Any) -> float:
    """From 1 to 21; WCAG 2.1 asks for 4.5 between text and what is behind it, and for 3 between shapes."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def shown_texts(fig: Figure) -> list[Text]:
    """All texts of a drawn picture that can be seen."""
    beyond = {tick.label1 for ax in fig.axes for axis in (ax.xaxis, ax.yaxis) for tick in axis.get_major_ticks()
              if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())}
    hidden = {label for ax in fig.axes if not ax.axison for axis in (ax.xaxis, ax.yaxis)
              for label in (axis.label, axis.offsetText, *axis.get_ticklabels(which="both"))}
    return [text for text in fig.findobj(Text)
            if text.get_visible() and text.get_text().strip() and text not in beyond | hidden]


def assert_readable(fig: Figure) -> None:
    """Text of at least 8 points, none over another, none beyond the edge, in a picture that a notebook shows whole."""
    fig.draw_without_rendering()
    assert fig.get_figwidth() <= _WIDEST
    texts = shown_texts(fig)
    assert min(text.get_fontsize() for text in texts) >= _SMALLEST
    boxes = [Text.get_window_extent(text).extents.tolist() for text in texts]  # that of a note has its arrow in it
    for text, (left, bottom, right, top) in zip(texts, boxes):
        assert left >= -1 and bottom >= -1 and right <= fig.bbox.width + 1 and top <= fig.bbox.height + 1, text
    for (one, a), (other, b) in combinations(zip(texts, boxes), 2):
        apart = max(a[0], b[0]) > min(a[2], b[2]) - 2 or max(a[1], b[1]) > min(a[3], b[3]) - 2
        assert apart, (one, other)


def assert_readable_on_any_page(html: str) -> None:
    """Every text has a color and a background of the HTML's own, with enough contrast, or both of the page."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.texts
    for text, color, background in reader.texts:
        assert (color is None) == (background is None), (text, color, background)
        needed = 4.5 if any(character.isalnum() for character in text) else 3  # a sign alone is a shape
        assert color is None or contrast(color, background) >= needed, (text, color, background)


class _Reader(HTMLParser):
    """Collects texts with the color and the background that they inherit; None is what the page sets."""

    _VOID = ("br", "img", "hr")
    # What JupyterLab's style sheet sets itself: in a dark theme, light text on the dark rows of a table.
    _COLORED, _PAINTED = ("table", "code", "pre"), ("tr", "code", "pre")

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[tuple[str, str | None, str | None]] = []
        self._inherited: list[tuple[str | None, str | None]] = [(None, None)]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._VOID:
            return
        color, background = self._inherited[-1]
        own = dict(re.findall(r"(?:^|;)\s*(color|background)\s*:\s*([^;]+)", dict(attrs).get("style") or ""))
        self._inherited.append((own.get("color", None if tag in self._COLORED else color),
                                own.get("background", None if tag in self._PAINTED else background)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self._VOID:
            self._inherited.pop()

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((data, *self._inherited[-1]))
