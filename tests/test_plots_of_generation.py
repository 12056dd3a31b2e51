"""The pictures of chapters 4 and 5: they show what they were given, and every token as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import matplotlib
import pytest
import torch
from matplotlib import pyplot
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from readable import assert_readable
from test_model import SMALL, make, prompt

from course_utils.generation import Step
from course_utils.plots.candidates import CandidateTable
from course_utils.plots.figure import CACHED, GENERATED, PROMPT
from course_utils.plots.likeliest import likeliest_tokens
from course_utils.plots.pipeline import generation_loop, pipeline
from course_utils.plots.prefill_decode import prefill_and_decode
from course_utils.plots.recomputation import recomputation, reuse
from course_utils.plots.shapes import model_shapes, record_shapes
from course_utils.plots.time_by_length import time_by_length
from course_utils.tokenizer import Qwen3Tokenizer

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


def faces(cells: list[Patch]) -> dict[str, int]:
    """How many cells have which colour."""
    return dict(Counter(next(color for color in (PROMPT, GENERATED, CACHED, "white")
                             if to_rgb(color) == to_rgb(cell.get_facecolor())) for cell in cells))


def test_recomputation_draws_each_computed_token() -> None:
    cells = recomputation(3, 5).axes[0].patches
    assert len(cells) == 5 * 3 + 5 * 4 // 2
    assert faces(cells) == {PROMPT: 3, GENERATED: 4, "white": 4 * 3 + 4 * 3 // 2}
    assert all(bool(cell.get_hatch()) == (to_rgb(cell.get_facecolor()) == to_rgb("white")) for cell in cells)


def test_with_a_cache_each_token_is_computed_once() -> None:
    cells = reuse(3, 5).axes[0].patches
    assert faces(cells) == {PROMPT: 3, GENERATED: 4, CACHED: 4 * 3 + 4 * 3 // 2}


def test_likeliest_tokens_are_bars_in_order(small_tokenizer: Qwen3Tokenizer) -> None:
    boat = small_tokenizer.encode(" boat")[0]
    ax = likeliest_tokens([(boat, 0.75), (0, 0.25)], small_tokenizer).axes[0]
    assert [bar.get_width() for bar in ax.patches] == [0.75, 0.25]
    assert ax.get_yticklabels()[0].get_text() == f"'{small_tokenizer.token_text(boat)}'"


def test_candidates_are_the_same_as_table_and_as_text(small_tokenizer: Qwen3Tokenizer) -> None:
    (less,) = small_tokenizer.encode("<")
    (end,) = small_tokenizer.encode("<|im_end|>")
    table = CandidateTable([Step(less, [(less, 0.9), (end, 0.095), (0, 0.005)], [1.0, 0.0, 0.0]),
                            Step(end, [(end, 1.0)], [1.0])], small_tokenizer)
    assert repr(table) == "step 1: '<' 90%, '<|im_end|>' 10%\nstep 2: '<|im_end|>' 100%"
    html = table._repr_html_()
    assert "&lt;|im_end|&gt;" in html and "<|im_end|>" not in html
    assert html.count("<tr") == 3 and html.count("<td") == 4


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
