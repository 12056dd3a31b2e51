"""How pictures are shown: always with their sentence, once, and the same each time."""

from __future__ import annotations

import base64

import IPython.display
import matplotlib
import matplotlib.pyplot as plt
import pytest

from course_utils.errors import InputError
from course_utils.plots import figure, has_cjk_font, show_figure, style


@pytest.fixture(autouse=True)
def no_window():
    with matplotlib.rc_context({"backend": "agg"}):
        yield
    plt.close("all")


@pytest.fixture
def displayed(monkeypatch):
    """What a notebook's cell would display."""
    shown = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr(plt, "install_repl_displayhook", lambda: None)  # it would use that object
    monkeypatch.setattr(IPython.display, "display", lambda data, raw: shown.append(data))
    return shown


def line():
    with style():
        fig, ax = plt.subplots()
        ax.plot([1, 2])
    return fig


def test_picture_has_its_sentence_and_is_closed(displayed, capsys):
    show_figure(line(), "A line rises\n   from 1 to 2.")
    assert displayed[0]["text/plain"] == "Figure: A line rises from 1 to 2."
    assert base64.b64decode(displayed[0]["image/png"]).startswith(b"\x89PNG")
    assert capsys.readouterr().out == "Figure: A line rises from 1 to 2.\n"
    assert plt.get_fignums() == []


def test_same_picture_is_the_same_file(displayed):
    show_figure(line(), "One.")
    show_figure(line(), "One.")
    assert displayed[0] == displayed[1]


def test_outside_a_notebook_there_is_the_sentence(capsys):
    show_figure(line(), "A line.")
    assert capsys.readouterr().out == "Figure: A line.\n"


def test_style_ends_with_its_block_and_asks_for_fonts_that_are_there():
    before = matplotlib.rcParams["font.family"]
    with style():
        assert len(matplotlib.rcParams["font.family"]) == 1 + has_cjk_font()
        for name in matplotlib.rcParams["font.family"]:
            matplotlib.font_manager.findfont(name, fallback_to_default=False)
    assert matplotlib.rcParams["font.family"] == before


def size_of(output):
    """Width and height in pixels, from the header of a PNG."""
    png = base64.b64decode(output["image/png"])
    return tuple(int.from_bytes(png[at:at + 4], "big") for at in (16, 20))


def test_a_picture_for_a_projector_has_more_pixels_and_no_small_text(monkeypatch):
    def size_with(points):
        fig = line()
        fig.axes[0].set_title("smallest", fontsize=points)
        fig.axes[0].tick_params(labelsize=14)
        return size_of(figure.as_output(fig, "A line."))

    monkeypatch.delenv("COURSE_FIGURE_SCALE", raising=False)
    width, height = size_with(9)
    assert (width, height) == size_with(13) == (700, 350)
    monkeypatch.setenv("COURSE_FIGURE_SCALE", "2")
    assert size_with(13) == (2 * width, 2 * height)
    large, _ = size_with(8)
    assert abs(large - 2 * width * 12 / 8) <= 1  # 8 points have become 12


@pytest.mark.parametrize("said", ["0.5", "5", "two", "nan"])
def test_a_scale_that_nobody_can_draw_is_refused(monkeypatch, said):
    monkeypatch.setenv("COURSE_FIGURE_SCALE", said)
    with pytest.raises(InputError, match=f"COURSE_FIGURE_SCALE is '{said}'"):
        figure.as_output(line(), "A line.")


@pytest.mark.parametrize("font, told", [(True, ""), (False, "No font here")])
def test_chinese_without_a_font_is_told_in_the_picture_and_nowhere_else(font, told, monkeypatch, recwarn):
    monkeypatch.setattr(figure, "has_cjk_font", lambda: font)
    fig, ax = plt.subplots()
    ax.set_title("词元")
    figure.as_output(fig, "A title.")
    assert fig.get_suptitle().startswith(told) and bool(fig.get_suptitle()) is bool(told)
    assert not [warning for warning in recwarn if "missing from" in str(warning.message)]


def test_a_picture_is_described_in_the_readers_language(monkeypatch):
    monkeypatch.setenv("COURSE_LANGUAGE", "zh")
    assert figure.as_output(plt.figure(), "一条线。")["text/plain"] == "图：一条线。"
