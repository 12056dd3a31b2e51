"""Training and fine-tuning: blocks of text, rate and loss, what has to be in memory, and what came of it."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing

import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.plots.figure import HATCHES, INK, SERIES, as_output, in_notebook, style
from course_utils.training.loop import TrainingPlan
from course_utils.training.records import Record

_LOOKS = tuple(zip(SERIES, HATCHES))  # told apart without colours as well


def packed_blocks(blocks: Sequence[np.ndarray], end_id: int) -> Figure:
    """Draw each block as a row, each document in it as a bar with its number of tokens, and the ends in black.

    Args:
        blocks: arrays of token ids, all of one length, as `pack` makes them.
        end_id: the end-of-text token.
    """
    looks = _LOOKS[:3]  # not the fourth, which is black, as the ends are
    with style():
        fig, ax = pyplot.subplots(figsize=(7.5, 0.9 + 0.42 * len(blocks)))
        number = 0
        for row, block in enumerate(blocks):
            ends = [*np.flatnonzero(block == end_id).tolist(), len(block)]
            start = 0
            for end in ends:
                if end > start:
                    colour, hatch = looks[number % len(looks)]
                    ax.barh(row, end - start, left=start, height=0.75, facecolor="white", hatch=hatch,
                            edgecolor=colour, linewidth=1)
                    if end - start >= len(block) // 12:  # in a narrower bar the number would not fit
                        ax.text((start + end) / 2, row, str(end - start), ha="center", va="center", fontsize=9,
                                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0})
                    number += 1
                if end < len(block):
                    ax.barh(row, 1, left=end, height=0.75, color=INK)
                start = end + 1
        ax.set(xlabel=gettext("tokens"), xlim=(0, len(blocks[0])))
        names = [gettext("block {row}").format(row=row + 1) for row in range(len(blocks))]
        ax.set_yticks(range(len(blocks)), names, fontsize=9)
        ax.locator_params(axis="x", integer=True)
        ax.invert_yaxis()
    return fig


def learning_rate(plan: TrainingPlan) -> Figure:
    """Draw the rate of every step of a plan: warm-up, then cosine decay."""
    rates = [plan.rate(step) for step in range(plan.steps)]
    rising = plan.warm_up_steps
    with style():
        fig, ax = pyplot.subplots(figsize=(7.0, 2.8))
        ax.plot(range(rising), rates[:rising], color=SERIES[1], marker="", linestyle="--", label=gettext("warm-up"))
        ax.plot(range(rising, plan.steps), rates[rising:], color=SERIES[0], marker="", label=gettext("half a cosine"))
        ax.axhline(plan.learning_rate, color=INK, linewidth=1, linestyle=":", marker="", label=gettext("peak"))
        ax.set(xlabel=gettext("step"), ylabel=gettext("learning rate"), xlim=(0, plan.steps),
               ylim=(0, 1.1 * plan.learning_rate))
        ax.legend(loc="lower left", bbox_to_anchor=(0.12, 0.02))
    return fig


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
        ax.plot(list(trained), list(trained.values()), color=SERIES[0], marker="", linewidth=1,
                label=gettext("trained on"))
        ax.plot(list(held_out), list(held_out.values()), color=SERIES[1], marker="s", markersize=5,
                label=gettext("held out"))
        for (name, loss), line in zip((levels or {}).items(), _LEVELS):
            ax.axhline(loss, color=INK, linestyle=line, marker="", linewidth=1.5, label=name)
        ax.set(xlabel=gettext("step"), ylabel=gettext("loss, nats per token"), xlim=(0, None), ylim=(0, None))
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
                    gettext("the loss after {step} steps: {loss:.2f} nats per token on the text of that step, "
                            "{held_out_loss:.2f} on held-out text.").format(
                        step=record.step, loss=record.loss, held_out_loss=record.held_out_loss)))
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


def training_memory(parts: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw what has to be in memory for training, apart from the text: a bar for each way, one part behind the other.

    Args:
        parts: name of each way -> name of each of at most four parts, the same for all -> bytes.
    """
    with style():
        fig, ax = pyplot.subplots(figsize=(7.0, 1.3 + 0.55 * len(parts)))
        left = [0.0] * len(parts)
        for name, (colour, hatch) in zip(next(iter(parts.values())), _LOOKS):
            sizes = [each[name] / 1e6 for each in parts.values()]
            ax.barh(list(parts), sizes, left=left, color=colour, hatch=hatch, edgecolor="white", label=name)
            left = [start + size for start, size in zip(left, sizes)]
        for place, total in enumerate(left):
            ax.annotate(f"{total:,.0f}", (total, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
        ax.set(xlabel=gettext("million bytes"), xlim=(0, 1.15 * max(left)))
        ax.invert_yaxis()
        fig.legend(loc="outside upper center", ncols=3, fontsize=9)
    return fig


def abilities(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw what models can do: a group of bars for each ability, in it a bar for each model.

    Args:
        shares: name of each model, at most four -> name of each ability, the same for all -> share of right answers,
            0 to 1.

    Raises:
        InputError: if there are too many models, or their abilities differ.
    """
    names = list(next(iter(shares.values()), {}))
    if not names or len(shares) > len(_LOOKS) or any(list(each) != names for each in shares.values()):
        raise InputError(gettext("There are {count} models: give one to {most}, with the same "
                                 "abilities in the same order.").format(count=len(shares), most=len(_LOOKS)))
    with style():
        fig, ax = pyplot.subplots(figsize=(7.4, 1.0 + (0.25 + 0.17 * len(shares)) * len(names)))
        height = 0.8 / len(shares)
        for number, ((model, each), (colour, hatch)) in enumerate(zip(shares.items(), _LOOKS)):
            places = np.arange(len(names)) + (number - (len(shares) - 1) / 2) * height
            bars = ax.barh(places, [100 * share for share in each.values()], height, color=colour, hatch=hatch,
                           edgecolor="white", label=model)
            ax.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
        ax.set(xlabel=gettext("right to the letter, %"), xlim=(0, 108))
        ax.set_yticks(range(len(names)), names, fontsize=10)
        ax.invert_yaxis()
        fig.legend(loc="outside upper center", ncols=len(shares), fontsize=9)
    return fig
