"""How pictures are shown: always with their sentence, once, and the same each time."""

from __future__ import annotations

import base64

import IPython.display
import matplotlib
import matplotlib.pyplot as plt
import pytest

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
