"""The pictures of tokens and vocabularies: what they count, draw and say in words."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import matplotlib
import pytest
from matplotlib import pyplot

from course_utils.errors import InputError
from course_utils.plots.figure import INK
from course_utils.plots.tokens import token_pieces, vocabulary_sizes, vocabulary_trade
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


def test_vocabularies() -> None:
    bars = vocabulary_sizes({"mine": 6_626, "GPT-2": 50_257}, "mine").axes[0].patches
    assert [(bar.get_width(), bool(bar.get_hatch())) for bar in bars] == [(6_626, True), (50_257, False)]
    line, = vocabulary_trade([256, 512], {"English": [98, 47]}).axes[0].lines
    assert line.get_xydata().tolist() == [[256, 98], [512, 47]]


@pytest.mark.parametrize("draw", [
    lambda: vocabulary_sizes({"GPT-2": 50_257}, "mine"), lambda: vocabulary_trade([256, 512], {"English": [98]})])
def test_nothing_to_draw_is_said(draw) -> None:
    with pytest.raises(InputError, match=": (give|choose)"):
        draw()
