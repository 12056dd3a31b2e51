"""What all pictures have in common: their colours, their fonts, and that nothing in them is cut or covered."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.colors import is_color_like, to_hex, to_rgb
from matplotlib.figure import Figure
from plot_gallery import GALLERY
from readable import assert_readable, contrast, shown_texts

from course_utils import plots
from course_utils.language import languages
from course_utils.plots import CACHED, GENERATED, INK, PROMPT, REJECTED, SERIES, TINTS, labels
from course_utils.plots.diagram import canvas
from course_utils.plots.figure import SHARE, SIGNED, ink_on
from course_utils.plots.labels import shortened, token_labels, width
from course_utils.tokenizer import Qwen3Tokenizer

matplotlib.use("agg")
FOLDER = Path(plots.__file__).parent
SOURCES = [path for folder in (FOLDER, FOLDER.parent / "widgets") for path in sorted(folder.glob("*.py"))]
MEANINGS = (PROMPT, GENERATED, CACHED, REJECTED, INK)
# How the colours of a screen look to those who lack one kind of cone (https://doi.org/10.1109/TVCG.2009.113), in
# linear red, green and blue.
COLOUR_BLIND = {
    "none": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                            [0.004733, 0.691367, 0.303900]]),
}


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    pyplot.close("all")


def test_the_gallery_has_every_picture() -> None:
    drawing = set()
    for each in pkgutil.iter_modules([str(FOLDER)]):
        module = importlib.import_module(f"course_utils.plots.{each.name}")
        drawing |= {function for name, function in inspect.getmembers(module, inspect.isfunction)
                    if function.__module__ == module.__name__ and not name.startswith("_")
                    and inspect.signature(function).return_annotation == "Figure"}
    assert drawing == set(GALLERY)


def test_every_picture_can_be_had_from_plots() -> None:
    """A module of the same name as a picture would hide it, or be hidden."""
    assert all(getattr(plots, picture.__name__) is picture and picture.__name__ in plots.__all__ for picture in GALLERY)
    assert not {each.name for each in pkgutil.iter_modules([str(FOLDER)])} & set(plots.__all__)


def test_the_package_alone_brings_no_matplotlib() -> None:
    """It takes a second to import, and whoever only generates draws nothing."""
    code = "import course_utils, sys; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize("draw", GALLERY, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("name", [name for name in languages() if name != "en"])
def test_a_picture_is_drawn_in_each_language(draw: Callable[..., Figure], name: str, small_tokenizer: Qwen3Tokenizer,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_LANGUAGE", name)
    assert [fig.number for fig in [GALLERY[draw](small_tokenizer)]] == pyplot.get_fignums()


@pytest.mark.parametrize("draw", GALLERY, ids=lambda draw: draw.__name__)
def test_a_picture_can_be_read(draw: Callable[..., Figure], small_tokenizer: Qwen3Tokenizer) -> None:
    fig = GALLERY[draw](small_tokenizer)
    assert pyplot.get_fignums() == [fig.number]  # the one that is returned, and show_figure closes it
    assert_readable(fig)
    # Text of another colour would need its own look at what is behind it.
    assert {to_hex(text.get_color()) for text in shown_texts(fig)} <= {to_hex(INK), to_hex("white")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.stem}.{path.stem}")
def test_colours_come_from_the_palette(path: Path) -> None:
    """The only literals are white, behind everything, and none; a single letter may be a marker."""
    if path == FOLDER / "figure.py":
        return
    literals = [node.value for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) > 1]
    named = {text for text in literals if is_color_like(text) and not re.fullmatch(r"[\d.]+", text)}
    assert named <= {"white", "none"}
    assert not [text for text in literals if re.search(r"#[0-9a-fA-F]{3}", text)]


@pytest.mark.parametrize("color", [*MEANINGS, *SERIES])
def test_shapes_stand_out_against_white(color: str) -> None:
    assert contrast(color, "white") >= 3


@pytest.mark.parametrize("tint", [*TINTS, "white"])
def test_text_can_be_read_on_every_tint(tint: str) -> None:
    assert contrast(INK, tint) >= 4.5


@pytest.mark.parametrize(("shades", "low"), [(SHARE, 0.0), (SIGNED, -1.0)])
def test_text_can_be_read_on_every_shade(shades: matplotlib.colors.Colormap, low: float) -> None:
    for step in range(101):
        value = low + (1 - low) * step / 100
        assert contrast(shades(step / 100), ink_on(value)) >= 4.5, value


@pytest.mark.parametrize("kind", COLOUR_BLIND)
def test_colours_differ_for_everyone(kind: str) -> None:
    """Each meaning from each, each of a series from each, and both from one another."""
    seen = {color: _lab(COLOUR_BLIND[kind] @ _linear(color)) for color in {*MEANINGS, *SERIES}}
    distances = {pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]])) for pair in combinations(seen, 2)}
    assert min(distances.values()) > 15, min(distances, key=distances.__getitem__)


def test_what_runs_off_the_edge_or_over_other_text_is_found() -> None:
    for words in ([(0.5, "long " * 20)], [(0.5, "one"), (0.52, "another")]):
        fig, ax = canvas(3, 1)
        for x, text in words:
            ax.text(x, 0.5, text)
        with pytest.raises(AssertionError):
            assert_readable(fig)


def test_labels_are_texts_with_visible_spaces_or_ids(small_tokenizer: Qwen3Tokenizer,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    boat, river = small_tokenizer.encode(" boat")[0], small_tokenizer.encode("小")
    (end,) = small_tokenizer.encode("<|im_start|>")
    ids = torch.tensor([boat, river[0], end])
    texts = [small_tokenizer.token_text(int(token_id)) for token_id in ids]
    assert texts[0].startswith(" ") and not texts[1].isascii()
    monkeypatch.setattr(labels, "has_cjk_font", lambda: False)
    assert token_labels(small_tokenizer, ids) == ["␣" + texts[0][1:], f"id {river[0]}", "<|im_start|>"]
    monkeypatch.setattr(labels, "has_cjk_font", lambda: True)
    assert token_labels(small_tokenizer, [river[0]]) == [texts[1]]


@pytest.mark.parametrize(("text", "short"), [
    ("", ""), ("abcde", "abcde"), ("abcdef", "abcd…"), ("小船", "小船"), ("小船a", "小船a"), ("小船走", "小船…")])
def test_a_cut_text_fits(text: str, short: str) -> None:
    assert shortened(text, 5) == short and width(short) <= 5


def _linear(color: str) -> np.ndarray:
    values = np.array(to_rgb(color))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    """CIELAB, in which a distance of 2 can just be seen."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratios = to_xyz @ np.clip(linear, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(ratios > 0.008856, np.cbrt(ratios), 7.787 * ratios + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
