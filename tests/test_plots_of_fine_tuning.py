"""The pictures of chapter 14: they show what they were given."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_hex

from course_utils.errors import InputError
from course_utils.plots.abilities import abilities
from course_utils.plots.training_memory import training_memory

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    pyplot.close("all")


def test_each_ability_has_a_bar_for_each_model() -> None:
    fig = abilities({"before": {"new": 0.0, "old": 1.0}, "after": {"new": 0.9, "old": 0.25}})
    ax = fig.axes[0]
    assert [bar.get_width() for bar in ax.patches] == [0, 100, 90, 25]
    middles = [bar.get_y() + bar.get_height() / 2 for bar in ax.patches]
    assert middles[0] < middles[2] and abs(sum(middles[::2]) / 2) < 1e-9  # both around the first ability's name
    assert len({(to_hex(bar.get_facecolor()), bar.get_hatch()) for bar in ax.patches}) == 2
    assert len({bar.get_hatch() for bar in ax.patches}) == 2  # told apart without colours as well
    assert [label.get_text() for label in ax.get_yticklabels()] == ["new", "old"]
    assert [text.get_text() for text in ax.texts] == ["0", "100", "90", "25"]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["before", "after"]


@pytest.mark.parametrize("shares", [{}, {"a": {}}, {"a": {"x": 1}, "b": {"y": 1}},
                                    {str(i): {"x": 1.0} for i in range(5)}])
def test_models_that_cannot_be_compared_are_refused(shares: dict[str, dict[str, float]]) -> None:
    with pytest.raises(InputError, match="the same abilities"):
        abilities(shares)


def test_parts_of_memory_stand_one_behind_the_other() -> None:
    fig = training_memory({"full": {"weights": 26e6, "gradients": 26e6, "moments": 52e6},
                           "LoRA": {"weights": 26e6, "gradients": 1e6, "moments": 2e6}})
    ax = fig.axes[0]
    bars = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    assert bars == [(0, 26), (0, 26), (26, 26), (26, 1), (52, 52), (27, 2)]
    assert [text.get_text() for text in ax.texts] == ["104", "29"]
    assert len({bar.get_hatch() for bar in ax.patches}) == 3
    assert [label.get_text() for label in ax.get_yticklabels()] == ["full", "LoRA"]
