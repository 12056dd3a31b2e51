"""The pictures of weights: parts, bits and bytes are those of the model."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import pytest
import torch
from matplotlib import pyplot

from course_utils.errors import InputError
from course_utils.family import FAMILY
from course_utils.plots.weights import FORMATS, model_sizes, number_formats, parameter_parts, parameters_by_part
from course_utils.qwen3 import Qwen3Model

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    pyplot.close("all")


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


@pytest.mark.parametrize("draw", [
    lambda: model_sizes({}), lambda: number_formats(["float13"]), lambda: parameter_parts({})])
def test_nothing_to_draw_is_said(draw) -> None:
    with pytest.raises(InputError, match=": (give|choose|count)"):
        draw()
