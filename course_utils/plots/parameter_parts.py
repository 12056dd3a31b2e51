"""Where the parameters of a model are."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from course_utils.errors import InputError
from course_utils.plots.figure import INK, SERIES, style
from course_utils.qwen3 import Qwen3Model

# The output layer is a table of the same size as the embedding, in small models the very same one.
_PARTS = {"embedding": (SERIES[0], ""), "attention": (SERIES[1], "//"), "MLP": (SERIES[2], ".."), "norms": (INK, ""),
          "output": (SERIES[0], "xx")}


def parameters_by_part(model: Qwen3Model) -> dict[str, int]:
    """Count the parameters of each part of a model; it may be on the meta device.

    Returns:
        Numbers for "embedding", "attention", "MLP", "norms" and "output". An output layer that is tied to the
        embedding counts 0, for it has no parameters of its own.
    """
    counts = dict.fromkeys(_PARTS, 0)
    for name, parameter in model.named_parameters():  # names a tied matrix once, as the embedding
        counts[_part(name)] += parameter.numel()
    return counts


def parameter_parts(models: Mapping[str, Mapping[str, int]]) -> Figure:
    """One bar a model, all of the same length, divided as its parameters are among its parts.

    Args:
        models: name of each model and what `parameters_by_part` counted in it.

    Raises:
        InputError: if a model has no parameters.
    """
    empty = [name for name, counts in models.items() if not sum(counts.values())]
    if empty or not models:
        raise InputError(f"There is nothing to draw for {empty or 'no model'}: count the parameters of a model first.")
    with style():
        fig, ax = plt.subplots(figsize=(7.5, 1.2 + 0.5 * len(models)))
        for row, counts in enumerate(models.values()):
            total, left = sum(counts.values()), 0.0
            for part, (colour, hatch) in _PARTS.items():
                share = counts[part] / total
                ax.barh(row, share, left=left, color=colour, edgecolor="white", hatch=hatch, linewidth=0,
                        label=part if row == 0 else None)
                if share > 0.06:
                    ax.text(left + share / 2, row, f"{share:.0%}", ha="center", va="center", color=INK,
                            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
                left += share
            ax.text(1.01, row, f"{total:,}", va="center")
        ax.set_yticks(range(len(models)), list(models))
        ax.set_xlim(0, 1.28)
        ax.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
        ax.set_xlabel("share of the parameters", loc="left")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(_PARTS))
        ax.invert_yaxis()
    return fig


def _part(name: str) -> str:
    """The part that a parameter with this name belongs to."""
    if "embed_tokens" in name:
        return "embedding"
    if "lm_head" in name:
        return "output"
    if "norm" in name:  # those of queries and keys inside attention as well
        return "norms"
    return "MLP" if ".mlp." in name else "attention"
