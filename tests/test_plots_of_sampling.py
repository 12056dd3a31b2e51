"""The pictures of choosing a token: candidates, lengths, darts, cuts and chances are drawn as they were given."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import pytest
import torch
from matplotlib import pyplot
from matplotlib.colors import to_rgb
from test_model import SMALL, make, prompt

from course_utils.generation import Step, generate_trace
from course_utils.plots.figure import GENERATED, REJECTED, SERIES
from course_utils.plots.sampling import (
    CandidateTable,
    at_temperatures,
    candidate_lines,
    likeliest_tokens,
    number_line,
    ranked_probabilities,
)
from course_utils.sampling import Sampler, Sampling
from course_utils.tokenizer import Qwen3Tokenizer

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    pyplot.close("all")


@pytest.fixture
def drawn(small_tokenizer: Qwen3Tokenizer) -> list[Step]:
    """Two steps: at the first a less likely token was drawn and one cut off, the second had no choice."""
    (less,), (boat,) = small_tokenizer.encode("<"), small_tokenizer.encode(" boat")
    return [Step(less, [(boat, 0.5), (less, 0.25), (0, 0.125)], [0.667, 0.333, 0.0]), Step(boat, [(boat, 1.0)], [1.0])]


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


def test_number_line_is_as_long_as_the_probabilities() -> None:
    ax = number_line([0.5, 0.25, 0.25], ["a", "b", "c"], darts=[0.1, 0.9]).axes[0]
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == [(0.0, 0.5), (0.5, 0.25), (0.75, 0.25)]
    assert list(ax.lines[0].get_xdata()) == [0.1, 0.9]
    assert len({bar.get_hatch() for bar in ax.patches[:2]}) == 2


def test_number_line_labels_what_has_room() -> None:
    ax = number_line([0.49, 0.02, 0.49], ["$a$", "b", "c"]).axes[0]
    assert [text.get_text() for text in ax.texts] == ["$a$", "c"]


def test_each_temperature_has_its_probabilities() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    axes = at_temperatures(logits, ["a", "b", "c"], [0, 1, 2]).axes
    heights = torch.tensor([[float(bar.get_height()) for bar in ax.patches] for ax in axes], dtype=torch.float32)
    assert torch.allclose(heights, torch.stack([torch.tensor([1.0, 0, 0]), logits.softmax(0), (logits / 2).softmax(0)]))
    assert [ax.get_title() for ax in axes] == ["T = 0", "T = 1", "T = 2"]
    assert all(to_rgb(ax.patches[0].get_facecolor()) == to_rgb(GENERATED) for ax in axes)


def test_ranks_and_cuts() -> None:
    steps = {"flat": torch.full((4,), 0.25), "peaked": torch.tensor([0.05, 0.9, 0.03, 0.02])}
    fig = ranked_probabilities(steps, {"top-k 2": {"flat": 2, "peaked": 2}, "min-p 0.1": {"flat": 4, "peaked": 1}})
    for ax, name in zip(fig.axes, steps):
        assert ax.get_title() == name
        curve = torch.tensor(ax.lines[0].get_ydata())
        assert torch.equal(curve.float(), steps[name].sort(descending=True).values)
    labels = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in fig.axes]
    assert labels == [["top-k 2: 2", "min-p 0.1: 4"], ["top-k 2: 2", "min-p 0.1: 1"]]
    assert ranked_probabilities(steps).axes[0].get_legend() is None


def test_table_says_with_which_chance_each_was_drawn(drawn: list[Step], small_tokenizer: Qwen3Tokenizer) -> None:
    zero = small_tokenizer.token_text(0)
    table = CandidateTable(drawn, small_tokenizer)
    assert repr(table) == (f"step 1: ' boat' 50% → 67%, *'<' 25% → 33%, '{zero}' 12%, cut off\n"
                           "step 2: *' boat' 100% → 100%")
    html = table._repr_html_()
    assert "&lt;" in html and html.count("<td") == 6 and html.count("outline:2px") == 2
    assert ">candidate 1<" in html and ">chosen<" not in html


def test_table_keeps_an_unlikely_token_that_was_drawn(small_tokenizer: Qwen3Tokenizer) -> None:
    step = Step(3, [(1, 0.9), (2, 0.004), (3, 0.003)], [0.9, 0.004, 0.003])
    assert repr(CandidateTable([step], small_tokenizer)).endswith(f"*'{small_tokenizer.token_text(3)}' 0% → 0%")


def test_lines_show_what_was_drawn_and_what_cut_off(drawn: list[Step], small_tokenizer: Qwen3Tokenizer) -> None:
    ax = candidate_lines(drawn, small_tokenizer).axes[0]
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == [(0, 0.5), (0.5, 0.25), (0.75, 0.125), (0, 1)]
    in_the_draw, chosen, cut, only = ax.patches
    assert to_rgb(in_the_draw.get_edgecolor()) == to_rgb(SERIES[0]) and not in_the_draw.get_hatch()
    assert to_rgb(chosen.get_facecolor()) == to_rgb(only.get_facecolor()) == to_rgb(GENERATED)
    assert to_rgb(cut.get_edgecolor()) == to_rgb(REJECTED) and cut.get_hatch()
    behind = [text.get_text() for text in ax.texts if text.get_position()[0] > 1]
    assert behind == ["<", "␣boat"]


def test_a_sampled_trace_is_drawn_and_written(small_tokenizer: Qwen3Tokenizer) -> None:
    """Whatever the sampler draws, be it beyond the likeliest, table and picture show it."""
    steps = generate_trace(make(SMALL), prompt(1, 6), 4, top=2, sampler=Sampler(Sampling(top_p=0.5), seed=3))
    assert repr(CandidateTable(steps, small_tokenizer)).count("*'") == 4
    assert len(candidate_lines(steps, small_tokenizer).axes[0].patches) == sum(len(step.candidates) for step in steps)
