"""How a model writes: the way of a text through it, the shapes on this way, and the time of its passes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from course_utils.language import gettext
from course_utils.plots.diagram import arrow, box, canvas, note
from course_utils.plots.figure import CACHED, GENERATED, INK, PROMPT, SERIES, style
from course_utils.qwen3 import Qwen3Model

_WIDTH, _HEIGHT, _STEP = 1.36, 1.1, 1.64  # inches: of a box, and from one to the next
_LETTERS = 18  # that fit into a line of a box
_Part = tuple[str, str, str]  # title, text and colour of a box


def pipeline(prompt: str, token_ids: Sequence[int], next_id: int, next_token: str) -> Figure:
    """Draw one step for a short prompt: text, ids, model, logits, the id of the next token, its text.

    Args:
        prompt: the text.
        token_ids: its tokens.
        next_id: the token that was chosen.
        next_token: its text.
    """
    with style():
        fig, ax = canvas(0.1 + 6 * _STEP, 2.0)
        _row(ax, 0.85, [*_to_logits(prompt, token_ids), (gettext("next token"), str(next_id), GENERATED),
                        (gettext("text"), f'"{next_token}"', GENERATED)],
             [gettext("encode"), gettext("embed"), gettext("output layer"), gettext("choose"), gettext("decode")])
    return fig


def generation_loop(prompt: str, token_ids: Sequence[int], next_token: str) -> Figure:
    """Draw the loop for a short prompt: five boxes in a row, an arrow back, and the cache under the model.

    Args:
        prompt: the text.
        token_ids: its tokens.
        next_token: the text of the token that comes next.
    """
    with style():
        fig, ax = canvas(0.1 + 5 * _STEP, 3.2)
        middle, low = 2.05, 2.05 - _HEIGHT / 2 - 0.08
        _row(ax, middle, [*_to_logits(prompt, token_ids), (gettext("next token"), f'"{next_token}"', GENERATED)],
             [gettext("encode"), gettext("embed"), gettext("output layer"), gettext("choose")])
        arrow(ax, (_place(4), low), (_place(1), low), GENERATED, bend=-0.17)
        note(ax, (_place(3.6), 0.5), gettext("append it and go round again"))
        box(ax, (_place(2), 0.4), (2.4, 0.55), gettext("keys and values, cached"), color=CACHED)
        arrow(ax, (_place(2), 0.72), (_place(2), low), CACHED, heads="<|-|>")
    return fig


def _to_logits(prompt: str, token_ids: Sequence[int]) -> list[_Part]:
    return [(gettext("text"), f'"{prompt}"', PROMPT), (gettext("token ids"), str(list(token_ids)), PROMPT),
            ("Qwen3", gettext("attention and MLP, layer by layer"), INK),
            ("logits", gettext("one score for every token"), INK)]


def _place(number: float) -> float:
    """The middle of a box, counted from 0, in inches from the left."""
    return 0.05 + _STEP * (number + 0.5)


def _row(ax: Axes, middle: float, parts: Sequence[_Part], between: Sequence[str]) -> None:
    for number, (title, text, color) in enumerate(parts):
        # A Chinese character is as wide as two letters.
        lines = textwrap.wrap(text, _LETTERS if text.isascii() else _LETTERS // 2, max_lines=3, placeholder=" …")
        box(ax, (_place(number), middle), (_WIDTH, _HEIGHT), title, "\n".join(lines), color)
    for number, words in enumerate(between):
        left = _place(number) + _WIDTH / 2
        arrow(ax, (left + 0.03, middle), (left + _STEP - _WIDTH - 0.03, middle))
        note(ax, (left + (_STEP - _WIDTH) / 2, middle + _HEIGHT / 2 + 0.25), words)


@dataclass(frozen=True)
class PartShape:
    """What one part of the model gave out, and its shape."""

    name: str
    shape: tuple[int, ...]


def record_shapes(model: Qwen3Model, token_ids: Tensor) -> list[PartShape]:
    """Run the model once and note the shape of what each part gives out.

    Args:
        model: the model.
        token_ids: (1, t), one prompt.

    Returns:
        Token ids, embeddings, what the layers and the last norm give out, logits, the last row, the next token.
    """
    stages = [PartShape(gettext("token ids"), tuple(token_ids.shape))]
    layers = model.config.num_hidden_layers
    parts: list[tuple[str, nn.Module]] = [
        ("embed_tokens", model.model.embed_tokens),
        (gettext("{layers} layers").format(layers=layers), model.model.layers[-1]),
        ("norm", model.model.norm), ("lm_head: logits", model.lm_head)]
    handles = []
    for name, part in parts:
        def note(_module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
            stages.append(PartShape(name, tuple(output.shape)))
        handles.append(part.register_forward_hook(note))
    try:
        with torch.inference_mode():
            last = model(token_ids)[:, -1]
    finally:
        for handle in handles:
            handle.remove()
    next_token = last.argmax(dim=-1, keepdim=True)
    return [*stages, PartShape(gettext("last row"), tuple(last.shape)),
            PartShape(gettext("next token"), tuple(next_token.shape))]


# In the layers a row reads the rows before it, so they take in all rows; of what they give out, the last is enough.
# The first two stages, ids and embeddings, go into them.
_READ_WHOLE = 2


def model_shapes(stages: Sequence[PartShape], rows: int) -> Figure:
    """Draw each stage as a table with one row a token; its width grows with the logarithm of its columns.

    Rows that the next token depends on are filled and hatched, the others empty.

    Args:
        stages: as `record_shapes` returns them.
        rows: tokens of the prompt.
    """
    with style():
        fig, ax = pyplot.subplots(figsize=(9, 3.4))
        left = 0.0
        for number, stage in enumerate(stages):
            columns = stage.shape[-1] if number not in (0, len(stages) - 1) else 1
            width = 0.5 + 0.35 * math.log2(columns)
            # The two last stages have only the row that counts, at the height it had before.
            drawn = range(rows) if number < len(stages) - 2 else [rows - 1]
            for row in drawn:
                counts = row == rows - 1 or number < _READ_WHOLE
                color = GENERATED if number == len(stages) - 1 else PROMPT
                ax.add_patch(Rectangle((left, -row), width, 0.86, facecolor=color if counts else "white",
                                       edgecolor="white" if counts else color, hatch="//" if counts else ""))
            middle = left + width / 2
            ax.text(middle, 1.75, stage.name, ha="center", fontsize=9)
            ax.text(middle, 1.15, str(stage.shape).replace(" ", "\u2009"), ha="center", fontsize=9, weight="bold")
            gap = max(1.0, (len(stage.name) + 4) * 0.2 - width / 2)
            if number < len(stages) - 1:
                # On to the last row an arrow leads at that row's height.
                height = 0.43 - (rows - 1) * (0.5 if number < len(stages) - 3 else 1)
                ax.annotate("", (left + width + gap, height), (left + width + 0.1, height),
                            arrowprops={"arrowstyle": "->", "color": INK})
            left += width + gap
        ax.set_xlim(-0.8, left)
        ax.set_ylim(-rows + 0.7, 2.4)
        ax.axis("off")
    return fig


_MARKERS = ("o", "s")


def time_by_length(seconds: Mapping[str, Mapping[int, float]]) -> Figure:
    """Draw the time of a step against the number of tokens it computes, one panel a model, each with its own scale.

    Args:
        seconds: name of each model, and for each length in tokens the seconds of a step.
    """
    with style():
        fig, axes = pyplot.subplots(1, len(seconds), figsize=(4.2 * len(seconds), 3.2), squeeze=False)
        for number, (ax, (name, times)) in enumerate(zip(axes[0], seconds.items())):
            ax.plot(list(times), [1000 * value for value in times.values()],
                    color=SERIES[number % 2], marker=_MARKERS[number % 2])
            ax.set_title(name)
            ax.set_xlabel(gettext("tokens in the text"))
            ax.set_ylabel(gettext("milliseconds per step"))
            ax.set_xlim(left=0)
            ax.set_ylim(bottom=0)
    return fig


def prefill_and_decode(seconds: Sequence[float], prompt_tokens: int) -> Figure:
    """Draw the passes of one generation one after another on a time line.

    Args:
        seconds: how long each pass took; the first one is the prefill.
        prompt_tokens: how many tokens the first pass computed; every other computes one.
    """
    with style():
        fig, ax = pyplot.subplots(figsize=(8, 2.3))
        start = 0.0
        for number, length in enumerate(seconds):
            ax.barh(0, 1000 * length, left=1000 * start, height=0.6, edgecolor="white",
                    facecolor=GENERATED if number else PROMPT, hatch="//" if number else "",
                    label=gettext("prefill: {count} tokens in one pass").format(count=prompt_tokens) if number == 0
                    else gettext("decode: one token a pass") if number == 1 else None)
            start += length
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set_ylim(-0.45, 1)
        ax.set_xlabel(gettext("milliseconds since the prompt was given"))
        ax.legend(loc="upper left", ncols=2, fontsize=9)
    return fig
