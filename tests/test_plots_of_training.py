"""The pictures of training and fine-tuning: they show what they were given, and the live one hands everything on."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_hex, to_rgb

from course_utils.errors import InputError
from course_utils.plots.figure import INK
from course_utils.plots.training import (
    abilities,
    learning_curve,
    learning_rate,
    live_learning_curve,
    packed_blocks,
    training_memory,
)
from course_utils.training.loop import TrainingPlan
from course_utils.training.records import Record

matplotlib.use("agg")
END = 9


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    pyplot.close("all")


def test_blocks_show_documents_and_ends() -> None:
    blocks = [np.array([1, 2, 3, END, 4, 5]), np.array([END, 6, 7, 8, 7, END])]
    ax = packed_blocks(blocks, END).axes[0]
    black = [(bar.get_x(), round(bar.get_y() + bar.get_height() / 2)) for bar in ax.patches
             if to_rgb(bar.get_facecolor()) == to_rgb(INK)]
    assert black == [(3, 0), (0, 1), (5, 1)]
    assert sorted(bar.get_width() for bar in ax.patches) == [1, 1, 1, 2, 3, 4]
    assert [text.get_text() for text in ax.texts] == ["3", "2", "4"]


def test_the_learning_rate_is_that_of_the_plan() -> None:
    plan = TrainingPlan(steps=20, warm_up_steps=5, learning_rate=0.5)
    up, down = learning_rate(plan).axes[0].lines[:2]
    drawn = dict(zip(np.concatenate([up.get_xdata(), down.get_xdata()]).tolist(),
                     np.concatenate([up.get_ydata(), down.get_ydata()]).tolist()))
    assert drawn == {step: plan.rate(step) for step in range(20)}


def test_a_learning_curve_shows_losses_and_levels() -> None:
    ax = learning_curve({1: 8.0, 2: 7.0}, {2: 7.5}, {"guessing": 8.8}).axes[0]
    assert [line.get_ydata()[0] for line in ax.lines] == [8.0, 7.5, 8.8]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["trained on", "held out", "guessing"]


class FakeNotebook:
    """What IPython's display would be handed: one new picture, then replacements of it."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.updates: list[str] = []

    def __call__(self, output: dict[str, str], raw: bool, display_id: bool) -> FakeNotebook:
        assert raw and display_id
        self.shown.append(output["text/plain"])
        return self

    def update(self, output: dict[str, str], raw: bool) -> None:
        assert raw and output["image/png"]
        self.updates.append(output["text/plain"])


def records(closed: list[bool]) -> Iterator[Record]:
    try:
        for step in range(1, 7):
            yield Record(step, 9.0 - step, 100.0, 9.5 - step if step % 2 == 0 else None)
    finally:
        closed.append(True)


def test_the_live_curve_hands_every_record_on_and_draws_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = FakeNotebook()
    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", notebook)
    assert [record.step for record in live_learning_curve(records([]))] == [1, 2, 3, 4, 5, 6]
    assert len(notebook.shown) == 1 and len(notebook.updates) == 2
    assert notebook.updates[-1].startswith("Figure: the loss after 6 steps: 3.00 nats") and not pyplot.get_fignums()


def test_leaving_the_live_curve_ends_the_training() -> None:
    """Else the training's last step would not be saved while somebody still holds the generator."""
    closed: list[bool] = []
    curve = live_learning_curve(records(closed))
    next(curve)
    assert not closed
    curve.close()
    assert closed


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
