"""The pictures of chapter 13: they show what they were given, and the live one hands everything on."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_rgb

from course_utils.plots.figure import INK
from course_utils.plots.learning_curve import learning_curve, live_learning_curve
from course_utils.plots.learning_rate import learning_rate
from course_utils.plots.packed_blocks import packed_blocks
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
