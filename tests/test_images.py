"""The pictures of the README are those that the code draws."""

from __future__ import annotations

import base64
import importlib.util
import io
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.image import imread

from course_utils.generation import generate_text_basic
from course_utils.loading import load_model, load_tokenizer
from course_utils.plots.figure import as_output

matplotlib.use("agg")
FOLDER = Path(__file__).resolve().parent.parent / "notebooks" / "images"
_spec = importlib.util.spec_from_file_location("draw", FOLDER / "draw.py")
assert _spec is not None and _spec.loader is not None
draw = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(draw)


def test_every_picture_is_drawn_by_the_script() -> None:
    assert {path.name for path in FOLDER.glob("*.png")} == set(draw.IMAGES)


@pytest.mark.parametrize("name", draw.IMAGES)
def test_a_committed_picture_is_what_the_code_draws(name: str) -> None:
    drawn = imread(io.BytesIO(base64.b64decode(as_output(draw.IMAGES[name](), name)["image/png"])))
    committed = imread(FOLDER / name)
    assert drawn.shape == committed.shape, "run notebooks/images/draw.py"
    # Another version of matplotlib may smooth edges differently.
    assert np.abs(drawn - committed).mean() < 0.005, "run notebooks/images/draw.py"


def test_the_loop_in_the_readme_is_that_of_the_bundled_model() -> None:
    model, tokenizer = load_model("tiny", device="cpu"), load_tokenizer("tiny")
    fig = draw.IMAGES["generation_loop.png"]()
    texts = {text.get_text() for text in fig.axes[0].texts}
    pyplot.close(fig)
    ids = tokenizer.encode("Explain logits.")
    next_id = int(generate_text_basic(model, torch.tensor([ids]), 1)[0, 0])
    assert {'"Explain logits."', str(ids), f'"{tokenizer.decode([next_id])}"'} <= texts
