"""The pictures of chapters 1 to 3: what they count, draw and say in words."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import matplotlib
import pytest
import torch
from matplotlib import pyplot

from course_utils.errors import InputError
from course_utils.family import FAMILY
from course_utils.plots.figure import INK
from course_utils.plots.model_sizes import model_sizes
from course_utils.plots.number_formats import FORMATS, number_formats
from course_utils.plots.parameter_parts import parameter_parts, parameters_by_part
from course_utils.plots.token_pieces import token_pieces
from course_utils.plots.vocabulary_sizes import vocabulary_sizes
from course_utils.plots.vocabulary_trade import vocabulary_trade
from course_utils.qwen3 import Qwen3Model
from course_utils.tokenizer import Qwen3Tokenizer

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    pyplot.close("all")


@pytest.mark.parametrize("text", ["The cat <b>& the boat</b>.", "小船 龘\n🙂", "a<|im_end|>", ""])
def test_token_pieces_show_every_token(small_tokenizer: Qwen3Tokenizer, text: str) -> None:
    shown = token_pieces(small_tokenizer, text)
    ids = small_tokenizer.encode(text)
    assert [token_id for token_id, _, _ in shown.pieces] == ids
    assert b"".join(data for _, data, _ in shown.pieces).decode() == text
    assert repr(shown).splitlines()[0] == f"{len(ids)} tokens:" and len(repr(shown).splitlines()) == len(ids) + 1
    boxes = re.findall(r'role="listitem".*?pre">(.*?)</div><div[^>]*>(\d+)</div>', shown._repr_html_())
    assert [int(token_id) for _, token_id in boxes] == ids
    assert [html.unescape(piece) for piece, _ in boxes] == [piece for _, _, piece in shown.pieces]


def test_token_pieces_hold_their_own_colours(small_tokenizer: Qwen3Tokenizer) -> None:
    """A dark theme's white text must not end up on a light box."""
    for box in re.findall(r'<div role="[^>]*>', token_pieces(small_tokenizer, "The cat")._repr_html_()):
        assert "background: " in box and f"; color: {INK}" in box


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B"])
def test_parts_add_up_to_the_model(name: str) -> None:
    config = FAMILY[name]
    with torch.device("meta"):
        model = Qwen3Model(config)
    parts = parameters_by_part(model)
    assert sum(parts.values()) == sum(parameter.numel() for parameter in model.parameters())
    table = config.vocab_size * config.hidden_size
    assert parts["embedding"] == table and parts["output"] == (0 if config.tie_word_embeddings else table)
    bars = parameter_parts({name: parts}).axes[0].patches
    assert sum(bar.get_width() for bar in bars) == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_bits_are_those_of_the_format(dtype: torch.dtype) -> None:
    _, exponent, fraction = bits = FORMATS[str(dtype).removeprefix("torch.")]
    info = torch.finfo(dtype)
    assert sum(bits) == info.bits and info.eps == 2.0**-fraction and info.max < 2.0 ** 2 ** (exponent - 1)


def test_number_formats_draw_a_box_a_bit() -> None:
    legend = 3
    assert len(number_formats(["TF32", "int8"]).axes[0].patches) == 19 + 8 + legend


def test_models_that_do_not_fit_are_hatched() -> None:
    bars = model_sizes({"small": 10**7, "large": 10**10}, free=10**9).axes[0].patches
    assert [bool(bar.get_hatch()) for bar in bars] == [False, True]
    assert [bar.get_width() for bar in bars] == [10**7, 10**10]


def test_vocabularies() -> None:
    bars = vocabulary_sizes({"mine": 6_626, "GPT-2": 50_257}, "mine").axes[0].patches
    assert [(bar.get_width(), bool(bar.get_hatch())) for bar in bars] == [(6_626, True), (50_257, False)]
    line, = vocabulary_trade([256, 512], {"English": [98, 47]}).axes[0].lines
    assert line.get_xydata().tolist() == [[256, 98], [512, 47]]


@pytest.mark.parametrize("draw", [
    lambda: model_sizes({}), lambda: number_formats(["float13"]), lambda: parameter_parts({}),
    lambda: vocabulary_sizes({"GPT-2": 50_257}, "mine"), lambda: vocabulary_trade([256, 512], {"English": [98]}),
])
def test_nothing_to_draw_is_said(draw) -> None:
    with pytest.raises(InputError, match=": (give|choose|count)"):
        draw()
