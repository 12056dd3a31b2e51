"""The pictures of how a model writes: they show what they were given, and every token as text."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import pytest
import torch
from matplotlib import pyplot
from readable import assert_readable
from test_model import SMALL, make, prompt

from course_utils.plots.generation import (
    generation_loop,
    model_shapes,
    pipeline,
    prefill_and_decode,
    record_shapes,
    time_by_length,
)

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    pyplot.close("all")


def test_recorded_shapes_are_those_of_the_model() -> None:
    model, ids = make(SMALL), prompt(1, 6)
    stages = record_shapes(model, ids)
    d, v = SMALL.hidden_size, SMALL.vocab_size
    assert [stage.shape for stage in stages] == [
        (1, 6), (1, 6, d), (1, 6, d), (1, 6, d), (1, 6, v), (1, v), (1, 1)]
    assert not any(module._forward_hooks for module in model.modules())
    rectangles = model_shapes(stages, rows=6).axes[0].patches
    assert len(rectangles) == 5 * 6 + 2


def test_times_are_drawn_as_given() -> None:
    fig = time_by_length({"small": {1: 0.001, 2: 0.002}, "large": {1: 0.5, 3: 0.7}})
    assert [ax.get_title() for ax in fig.axes] == ["small", "large"]
    assert torch.allclose(torch.tensor(fig.axes[1].lines[0].get_xydata()),
                          torch.tensor([[1.0, 500.0], [3.0, 700.0]], dtype=torch.float64))
    bars = prefill_and_decode([0.5, 0.1, 0.1], prompt_tokens=96).axes[0].patches
    assert [round(bar.get_x()) for bar in bars] == [0, 500, 600]


def test_the_loop_shows_prompt_ids_and_next_token() -> None:
    texts = {text.get_text() for text in generation_loop("Explain.", [7, 13], " It").axes[0].texts}
    assert {'"Explain."', "[7, 13]", '" It"', "keys and values, cached"} <= texts


def test_the_pipeline_ends_with_text() -> None:
    texts = [text.get_text() for text in pipeline("Explain.", [7, 13], 5, " It").axes[0].texts]
    assert texts.index("encode") < texts.index("choose") < texts.index("decode")
    boxes = [text for text in texts if text in ('"Explain."', "[7, 13]", "5", '" It"')]
    assert boxes == ['"Explain."', "[7, 13]", "5", '" It"']


def test_a_long_prompt_stays_in_its_box() -> None:
    fig = pipeline("Explain large language models.", list(range(100, 120)), 5, " It")
    assert_readable(fig)
    texts = {text.get_text() for text in fig.axes[0].texts}
    assert '"Explain large\nlanguage models."' in texts
    assert "[100, 101, 102,\n103, 104, 105,\n106, 107, 108, …" in texts
