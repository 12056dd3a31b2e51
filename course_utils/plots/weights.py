"""What a model's weights are: how many bytes, of which bits, in which parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.errors import InputError
from course_utils.language import gettext, noted
from course_utils.plots.figure import INK, SERIES, style
from course_utils.qwen3 import Qwen3Model
from course_utils.timing import format_bytes


def model_sizes(sizes: Mapping[str, int], free: int | None = None) -> Figure:
    """One bar a model, on a logarithmic axis; models that do not fit are hatched.

    Args:
        sizes: name of each model and its bytes, smallest first.
        free: bytes of memory that can be had, drawn as a dashed line; None draws no line.

    Raises:
        InputError: if there is no model, or one without a size.
    """
    if not sizes or min(sizes.values()) <= 0:
        raise InputError(gettext("The sizes are {sizes}: give at least one model, each with a "
                                 "positive number of bytes.").format(sizes=dict(sizes)))
    with style():
        fig, ax = pyplot.subplots(figsize=(7.0, 0.9 + 0.38 * len(sizes)))
        for row, size in enumerate(sizes.values()):
            fits = free is None or size <= free
            ax.barh(row, size, color=SERIES[0] if fits else "white", edgecolor=SERIES[0], hatch="" if fits else "//")
            ax.text(size * 1.1, row, format_bytes(size), va="center",
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
        if free:
            ax.axvline(free, color=INK, linestyle="--", marker="", label=gettext("free here: {format_bytes}").format(
                format_bytes=format_bytes(free)))
            ax.legend(loc="lower left", bbox_to_anchor=(0, 1))
        ax.set_xscale("log")
        ax.set_xlim(min(sizes.values()) / 3, max(*sizes.values(), free or 0, 1) * 12)
        ax.set_yticks(range(len(sizes)), list(sizes))
        ax.invert_yaxis()
        ax.set_xlabel(gettext("bytes"), color=INK)
    return fig


# Bits of sign, exponent and fraction. IEEE 754 for float32 and float16; an integer has no exponent.
FORMATS: dict[str, tuple[int, int, int]] = {
    "float32": (1, 8, 23), "TF32": (1, 8, 10), "bfloat16": (1, 8, 7), "float16": (1, 5, 10), "int8": (1, 0, 7),
}
_BITS = ((noted("sign"), INK, "S"), (noted("exponent: how large"), SERIES[1], "E"),
         (noted("fraction: how exact"), SERIES[0], "F"))


def number_formats(names: Sequence[str]) -> Figure:
    """One row of boxes a format, one box a bit, with a letter for the part that the bit belongs to.

    Args:
        names: which of `FORMATS`.

    Raises:
        InputError: if a name is not one of them.
    """
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise InputError(gettext("The formats are {names}: choose some of {formats}.").format(
            names=list(names), formats=", ".join(FORMATS)))
    with style():
        fig, ax = pyplot.subplots(figsize=(8.0, 0.8 + 0.5 * len(names)))
        for row, name in enumerate(names):
            bits = [part for part, count in zip(_BITS, FORMATS[name]) for _ in range(count)]
            for column, (_, colour, letter) in enumerate(bits):
                ax.barh(row, 1, left=column, height=0.7, color=colour, edgecolor="white")
                ax.text(column + 0.5, row, letter, ha="center", va="center", color="white", fontsize=8)
            ax.text(len(bits) + 0.4, row, gettext("{count} bits").format(count=len(bits)), va="center", color=INK)
        for label, colour, _ in _BITS:
            ax.barh(0, 0, color=colour, label=gettext(label))
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
        ax.set_yticks(range(len(names)), list(names))
        ax.set_xlim(0, 36)
        ax.set_xticks([])
        ax.spines["bottom"].set_visible(False)
        ax.invert_yaxis()
    return fig


# The output layer is a table of the same size as the embedding, in small models the very same one.
_PARTS = {noted("embedding"): (SERIES[0], ""), noted("attention"): (SERIES[1], "//"), noted("MLP"): (SERIES[2], ".."),
          noted("norms"): (INK, ""), noted("output"): (SERIES[0], "xx")}


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
        raise InputError(gettext("There is nothing to draw for {model}: count the parameters of a model first.").format(
            model=empty or gettext("no model")))
    with style():
        fig, ax = pyplot.subplots(figsize=(7.5, 1.2 + 0.5 * len(models)))
        for row, counts in enumerate(models.values()):
            total, left = sum(counts.values()), 0.0
            for part, (colour, hatch) in _PARTS.items():
                share = counts[part] / total
                ax.barh(row, share, left=left, color=colour, edgecolor="white", hatch=hatch, linewidth=0,
                        label=gettext(part) if row == 0 else None)
                if share > 0.06:
                    ax.text(left + share / 2, row, f"{share:.0%}", ha="center", va="center", color=INK,
                            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
                left += share
            ax.text(1.01, row, f"{total:,}", va="center")
        ax.set_yticks(range(len(models)), list(models))
        ax.set_xlim(0, 1.28)
        ax.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
        ax.set_xlabel(gettext("share of the parameters"), loc="left")
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
