"""The shapes that one prompt takes on its way through the model, from its ids to the next token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from course_utils.plots.figure import GENERATED, INK, PROMPT, style
from course_utils.qwen3 import Qwen3Model


@dataclass(frozen=True)
class Stage:
    """What one part of the model gave out, and its shape."""

    name: str
    shape: tuple[int, ...]


def record_shapes(model: Qwen3Model, token_ids: Tensor) -> list[Stage]:
    """Run the model once and note the shape of what each part gives out.

    Args:
        model: the model.
        token_ids: (1, t), one prompt.

    Returns:
        Token ids, embeddings, what the layers and the last norm give out, logits, the last row, the next token.
    """
    stages = [Stage("token ids", tuple(token_ids.shape))]
    layers = model.config.num_hidden_layers
    parts: list[tuple[str, nn.Module]] = [
        ("embed_tokens", model.model.embed_tokens), (f"{layers} layers", model.model.layers[-1]),
        ("norm", model.model.norm), ("lm_head: logits", model.lm_head)]
    handles = []
    for name, part in parts:
        def note(_module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
            stages.append(Stage(name, tuple(output.shape)))
        handles.append(part.register_forward_hook(note))
    try:
        with torch.inference_mode():
            last = model(token_ids)[:, -1]
    finally:
        for handle in handles:
            handle.remove()
    next_token = last.argmax(dim=-1, keepdim=True)
    return [*stages, Stage("last row", tuple(last.shape)), Stage("next token", tuple(next_token.shape))]


# In the layers a row reads the rows before it, so they take in all rows; of what they give out, the last is enough.
_READ_WHOLE = ("token ids", "embed_tokens")


def model_shapes(stages: Sequence[Stage], rows: int) -> Figure:
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
                counts = row == rows - 1 or stage.name in _READ_WHOLE
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
