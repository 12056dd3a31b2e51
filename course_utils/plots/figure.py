"""What all pictures of the course share: colours and shades, a style, and how they are shown.

A picture alone says nothing to a reader who cannot see it, nor to a comparison of outputs. So every picture is
shown together with one sentence, which stands under it and is its alternative text.
"""

from __future__ import annotations

import base64
import io
import math
import os
import re
import warnings
from contextlib import AbstractContextManager

import matplotlib
from matplotlib import font_manager, pyplot
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib.text import Text

from course_utils.errors import InputError
from course_utils.language import gettext

# Each of these colours has a meaning, in all chapters the same. They differ for colour-blind readers too, and have a
# contrast of at least 3:1 on white (Okabe and Ito, 2008), which is enough for shapes; text is black.
PROMPT = "#0072b2"
GENERATED = "#d55e00"
CACHED = "#009e73"
REJECTED = "#cc79a7"
INK = "black"
# What is none of these, such as one model beside another: first, second, third ... of what a picture compares. They
# are dark, so as not to be taken for one of the colours above, and bars also have hatches.
SERIES = ("#332288", "#6b4a00", "#595959", INK)
HATCHES = ("", "//", "..", "xx")
LEAST_POINTS_ENLARGED = 12  # of text in a picture for a projector
# Lines to guide the eye, which say nothing themselves.
FAINT = "silver"
# Light shades under black text, for neighbours that are to differ.
TINTS = ("#dbd7ec", "#eee3c9", "#e2e2e2")
# Shades for tables of numbers: from white to a colour of the palette, the more the darker.
SHARE = LinearSegmentedColormap.from_list("share", ["white", SERIES[0]])  # for 0 to 1
SIGNED = LinearSegmentedColormap.from_list("signed", [SERIES[1], "white", SERIES[0]])  # for -1 to 1

# Fonts with Chinese characters that come with macOS, Windows, and the font packages of Linux.
_CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "PingFang SC", "Hiragino Sans GB", "Heiti TC",
    "Microsoft YaHei", "SimHei", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Arial Unicode MS",
    "Noto Sans CJK JP",  # so an earlier matplotlib than 3.11 calls Noto Sans CJK, and draws its Japanese forms
)
# Written into a picture that has Chinese characters where nothing can draw them; in English, for that can be drawn.
_NO_FONT = "No font here has Chinese characters, so there are boxes: install one, such as Noto Sans CJK."
_CHINESE = re.compile("[\u2e80-\u9fff\uff00-\uffef]")


def ink_on(value: float) -> str:
    """The colour of text that can be read on the shade of a value: black on the lighter shades, white on the darker."""
    return INK if -0.78 <= value <= 0.66 else "white"


def cjk_font() -> str | None:
    """The name of an installed font that has Chinese characters, or None; matplotlib brings none of its own."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in _CJK_FONTS if name in installed), None)


def has_cjk_font() -> bool:
    """Whether matplotlib can draw Chinese on this machine; if not, label tokens by their ids."""
    return cjk_font() is not None


def style() -> AbstractContextManager[None]:
    """The look of the course's pictures: `with style(): fig, ax = plt.subplots()`.

    White behind everything, so that a dark theme does not swallow the black text; Chinese in labels if a font is there.
    """
    chinese = cjk_font()
    return matplotlib.rc_context({
        "figure.figsize": (7.0, 3.5),
        "figure.facecolor": "white",
        "figure.constrained_layout.use": True,
        "font.family": ["DejaVu Sans", chinese] if chinese else ["DejaVu Sans"],
        "font.size": 11,
        "axes.facecolor": "white",
        "axes.edgecolor": INK,
        "axes.titlesize": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(
            color=SERIES, marker=["o", "s", "^", "D"],
        ),
        "legend.frameon": False,
        "lines.linewidth": 2,
    })


def show_figure(fig: Figure, description: str) -> None:
    """Show a picture in a notebook with one sentence that says what it shows, and close it.

    The sentence is the picture's plain-text alternative and is also printed under it, because JupyterLab and Colab
    ignore an alternative text in an output's metadata. Outside a notebook only the sentence is printed.

    Args:
        fig: the picture.
        description: a full sentence: what is drawn, and the conclusion, with numbers where they are the same on
            every machine, since the comparison of outputs compares it.
    """
    output = as_output(fig, description)
    if in_notebook():
        from IPython.display import display

        display(output, raw=True)
    print(output["text/plain"])


def in_notebook() -> bool:
    """Whether this is run by IPython, which can display more than text."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return get_ipython() is not None


def figure_scale() -> float:
    """How many times as many pixels in each direction a picture has: what COURSE_FIGURE_SCALE says, or 1.

    Raises:
        InputError: if the environment variable is no number from 1 to 4.
    """
    said = os.environ.get("COURSE_FIGURE_SCALE", "").strip() or "1"
    try:
        scale = float(said)
    except ValueError:
        scale = math.nan
    if not 1 <= scale <= 4:
        raise InputError(gettext("The environment variable COURSE_FIGURE_SCALE is {said!r}, and a picture can be 1 to "
                                 "4 times as large: set it to 2 for a projector, or unset it.").format(said=said))
    return scale


def as_output(fig: Figure, description: str) -> dict[str, str]:
    """A picture and its sentence as a notebook keeps them, by media type. The picture is closed.

    For a projector (see `figure_scale`) it has more pixels, and is so large that no text is below
    `LEAST_POINTS_ENLARGED` points.

    Raises:
        InputError: if COURSE_FIGURE_SCALE cannot be read.
    """
    scale = figure_scale()
    if scale > 1:  # larger as a whole, so that what fits into the picture does so still
        smallest = min((float(text.get_fontsize()) for text in fig.findobj(Text) if text.get_text().strip()),
                       default=math.inf)
        scale *= max(1.0, LEAST_POINTS_ENLARGED / smallest)
    png = io.BytesIO()
    if not has_cjk_font() and any(_CHINESE.search(text.get_text()) for text in fig.findobj(Text)):
        fig.suptitle(fig.get_suptitle() or _NO_FONT, fontsize=8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")  # the picture says it, once and in one sentence
        # No version of matplotlib inside, so the same picture is the same file.
        fig.savefig(png, format="png", dpi=100 * scale, facecolor="white", metadata={"Software": None})
    pyplot.close(fig)  # an open figure would be shown a second time at the end of the cell
    return {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": as_sentence(description)}


def as_sentence(description: str) -> str:
    """A picture's sentence as it stands under the picture, on one line."""
    return gettext("Figure: {sentence}").format(sentence=" ".join(description.split()))
