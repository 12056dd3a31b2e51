"""The pictures of the inside of a model: they show what they were given, tokens can be read, and text stays apart."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import pytest
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from readable import assert_readable
from test_model import SMALL, make, prompt

from course_utils.errors import InputError
from course_utils.plots.inside import attention_maps, likeliest_by_layer, position_waves, rotary_angles, word_similarity
from course_utils.plots.labels import token_labels
from course_utils.qwen3 import RotaryEmbedding
from course_utils.recording import record
from course_utils.sinusoidal import sinusoidal_encoding
from course_utils.tokenizer import Qwen3Tokenizer

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    pyplot.close("all")


def ticks(ax: Axes) -> tuple[list[str], list[str]]:
    return [text.get_text() for text in ax.get_xticklabels()], [text.get_text() for text in ax.get_yticklabels()]


@pytest.mark.parametrize(("heads", "tokens"), [(1, 1), (1, 3), (4, 3), (2, 8), (3, 19), (1, 40)])
def test_attention_maps_show_each_head(heads: int, tokens: int) -> None:
    attention = record(make(SMALL), prompt(1, tokens)).attention[0, 0, :heads]
    labels = [f"$token{place}" for place in range(tokens)]  # a dollar is no formula
    fig = attention_maps(attention, labels, [f"layer 0, head {head}" for head in range(heads)])
    drawn = [ax for ax in fig.axes if ax.images]
    assert [ax.get_title() for ax in drawn] == [f"layer 0, head {head}" for head in range(heads)]
    for ax, weights in zip(drawn, attention):
        assert torch.equal(torch.from_numpy(ax.images[0].get_array().data), weights)
        assert ticks(ax) == (labels, labels)
        numbers = [float(text.get_text()) for text in ax.texts]
        assert len(numbers) == (tokens * (tokens + 1) // 2 if tokens <= 8 else 0)
        assert all(abs(number - value) <= 0.0051 for number, value in zip(
            numbers, (weights[row, column] for row in range(tokens) for column in range(row + 1))))
    assert_readable(fig)


def test_attention_maps_hatch_what_the_mask_forbids() -> None:
    fig = attention_maps(torch.eye(4)[None], list("abcd"), ["one"])
    (future,) = fig.axes[0].collections
    (outline,) = future.get_paths()
    hidden = [(row, column) for row in range(4) for column in range(4) if outline.contains_point((column, row))]
    assert hidden == [(row, column) for row in range(4) for column in range(4) if column > row]


def test_word_similarity_shows_numbers_and_words() -> None:
    matrix = torch.tensor([[1.0, 0.423, -0.004], [0.423, 1.0, -0.5], [-0.004, -0.5, 1.0]])
    fig = word_similarity(matrix, ["␣cat", "␣dog", "id 4408"])
    ax = fig.axes[0]
    assert [text.get_text() for text in ax.texts] == [
        "1.00", "0.42", "0.00", "0.42", "1.00", "-0.50", "0.00", "-0.50", "1.00"]
    assert ticks(ax) == (["␣cat", "␣dog", "id 4408"],) * 2
    assert_readable(fig)


@pytest.mark.parametrize("size", [2, 8, 32, 1024])
def test_waves_are_columns_of_the_encoding(size: int) -> None:
    encoding = sinusoidal_encoding(64, size)
    fig = position_waves(encoding)
    lines = fig.axes[0].lines
    assert 1 <= len(lines) <= 4 and len({line.get_marker() for line in lines}) == len(lines)
    for line in lines:
        column = int(line.get_label().removeprefix("column "))
        assert column % 2 == 0  # a sine
        assert torch.equal(torch.tensor(line.get_ydata()), encoding[:, column])
    assert torch.equal(torch.from_numpy(fig.axes[1].images[0].get_array().data), encoding)
    assert_readable(fig)


def test_rotary_dots_stand_where_the_rotation_puts_them() -> None:
    rotary = RotaryEmbedding(SMALL)
    fig = rotary_angles(rotary.frequencies, [0, 1, 7], positions=12)
    cos, sin = rotary(torch.arange(12)[None])
    for ax, pair in zip(fig.axes, [0, 1, 7]):
        dots = torch.tensor(ax.lines[0].get_xydata(), dtype=torch.float32)
        distance = torch.arange(1, 13)[:, None]
        assert torch.allclose(dots / distance, torch.stack((cos[0, 0, :, pair], sin[0, 0, :, pair]), dim=1), atol=1e-5)
        assert [text.get_text() for text in ax.texts] == ["0", "11"] and ax.get_title() == f"pair {pair}"
    assert_readable(fig)


def test_likeliest_by_layer_names_the_best_token_of_each_cell(small_tokenizer: Qwen3Tokenizer) -> None:
    boat = small_tokenizer.encode(" boat")[0]
    (end,) = small_tokenizer.encode("<|im_start|>")
    logits = torch.full((7, 9, 500), -20.0)
    logits[..., boat] = 0
    logits[2, 1] = 0  # all alike: none reaches one per cent
    logits[6, 8, boat], logits[6, 8, end] = -1.0, 0.0
    labels = token_labels(small_tokenizer, [boat] * 9)
    fig = likeliest_by_layer(logits, small_tokenizer, labels)
    ax = fig.axes[0]
    cells = {tuple(map(round, text.get_position())): text.get_text() for text in ax.texts}
    assert len(cells) == 7 * 9
    assert cells[1, 2] == "?" and cells[8, 6] == "<|im_star…\n73%" and cells[0, 0] == f"{labels[0]}\n100%"
    assert ticks(ax) == (labels, ["embeddings", *[f"after layer {layer}" for layer in range(6)]])
    bottom, top = ax.get_ylim()
    assert bottom < top  # the embeddings are at the bottom, the last layer on top
    assert_readable(fig)


@pytest.mark.parametrize("draw", [
    lambda tokenizer: attention_maps(torch.ones(2, 2), ["a", "b"], ["one"]),
    lambda tokenizer: attention_maps(torch.ones(1, 2, 2), ["a"], ["one"]),
    lambda tokenizer: attention_maps(torch.ones(0, 2, 2), ["a", "b"], []),
    lambda tokenizer: attention_maps(torch.ones(1, 41, 41), ["a"] * 41, ["one"]),
    lambda tokenizer: word_similarity(torch.eye(3), ["a", "b"]),
    lambda tokenizer: word_similarity(torch.ones(0, 0), []),
    lambda tokenizer: position_waves(torch.ones(4)),
    lambda tokenizer: position_waves(torch.ones(1, 4)),
    lambda tokenizer: rotary_angles(torch.ones(4), [4]),
    lambda tokenizer: rotary_angles(torch.ones(4), []),
    lambda tokenizer: rotary_angles(torch.ones(4), [0], positions=1),
    lambda tokenizer: likeliest_by_layer(torch.ones(2, 1, 3, 9), tokenizer, ["a"] * 3),
    lambda tokenizer: likeliest_by_layer(torch.ones(2, 3, 9), tokenizer, ["a"]),
    lambda tokenizer: likeliest_by_layer(torch.ones(2, 13, 9), tokenizer, ["a"] * 13)])
def test_what_cannot_be_drawn_is_refused(draw, small_tokenizer: Qwen3Tokenizer) -> None:
    with pytest.raises(InputError, match="give"):
        draw(small_tokenizer)
    assert not pyplot.get_fignums()
