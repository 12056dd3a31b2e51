"""The loss over a training: as a picture, and as one that grows while the training runs."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.plots.figure import INK, SERIES, as_output, in_notebook, style
from course_utils.training.records import Record

_LEVELS = (":", "--", "-.")


def learning_curve(trained: Mapping[int, float], held_out: Mapping[int, float],
                   levels: Mapping[str, float] | None = None) -> Figure:
    """Draw the loss against the step.

    Args:
        trained: the loss of the tokens of each step, in nats per token.
        held_out: the loss over held-out text, at the steps where it was measured.
        levels: further losses to compare with, by name, drawn as level lines.
    """
    with style():
        fig, ax = pyplot.subplots()
        ax.plot(list(trained), list(trained.values()), color=SERIES[0], marker="", linewidth=1, label="trained on")
        ax.plot(list(held_out), list(held_out.values()), color=SERIES[1], marker="s", markersize=5, label="held out")
        for (name, loss), line in zip((levels or {}).items(), _LEVELS):
            ax.axhline(loss, color=INK, linestyle=line, marker="", linewidth=1.5, label=name)
        ax.set(xlabel="step", ylabel="loss, nats per token", xlim=(0, None), ylim=(0, None))
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def live_learning_curve(records: Generator[Record, None, None],
                        levels: Mapping[str, float] | None = None) -> Generator[Record, None, None]:
    """Hand on the records of a training, and draw its curve anew at each held-out loss: `for record in
    live_learning_curve(train(...))`.

    In a notebook one picture changes in its place. Elsewhere nothing is drawn.

    Args:
        records: what `train` returns.
        levels: as for `learning_curve`.
    """
    trained: dict[int, float] = {}
    held_out: dict[int, float] = {}
    picture = _Picture()
    with closing(records):  # however the loop is left, the training saves its last step
        for record in records:
            trained[record.step] = record.loss
            if record.held_out_loss is not None:
                held_out[record.step] = record.held_out_loss
                picture.show(learning_curve(trained, held_out, levels), (
                    f"the loss after {record.step} steps: {record.loss:.2f} nats per token on the text of that step, "
                    f"{record.held_out_loss:.2f} on held-out text."))
            yield record


class _Picture:
    """A place in a notebook's output whose picture can be replaced."""

    def __init__(self) -> None:
        self._handle = None

    def show(self, fig: Figure, description: str) -> None:
        output = as_output(fig, description)
        if self._handle is not None:
            self._handle.update(output, raw=True)
        elif in_notebook():
            from IPython.display import display

            self._handle = display(output, raw=True, display_id=True)
