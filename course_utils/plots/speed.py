"""How fast a program is, beside how fast its machine lets it be: bars, the roofline, the picture of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_utils.benchmark.report import Report, RowResult
from course_utils.costs import pass_flops
from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.plots.figure import GENERATED, INK, PROMPT, SERIES, as_sentence, style


def call_times(uncompiled: Sequence[float], compiled: Sequence[float]) -> Figure:
    """Draw seconds of each call on a logarithmic scale, the same calls without and with compilation.

    So warm-up and steady state can be told apart.
    """
    with style():
        fig, ax = pyplot.subplots()
        for seconds, name, color, marker in ((uncompiled, gettext("regular"), SERIES[0], "o"),
                                             (compiled, gettext("compiled"), SERIES[1], "s")):
            ax.plot(range(1, len(seconds) + 1), seconds, color=color, marker=marker, label=name)
        ax.set(xlabel=gettext("call"), ylabel=gettext("seconds"), yscale="log", xticks=range(1, len(compiled) + 1))
        ax.legend()
    return fig


def speed_bars(speeds: Mapping[str, float], limit: float | Mapping[str, float], what: str = "") -> Figure:
    """Draw a bar for each way of generating, and a line at the limit, or a mark at the limit of each.

    Args:
        speeds: name and tokens per second of each way.
        limit: tokens per second at which the weights are read as fast as the memory can deliver them; a mapping from
            names if the ways differ in what they read.
        what: of what the speeds are, written at the axis, such as "4 of 28 layers".
    """
    with style():
        fig, ax = pyplot.subplots(figsize=(7.0, 0.8 + 0.55 * len(speeds)))
        _draw_speed_bars(ax, speeds, limit)
        if what:
            ax.set_xlabel(f"{ax.get_xlabel()}, {what}")
        fig.legend(loc="outside upper right")
    return fig


def _draw_speed_bars(ax: Axes, speeds: Mapping[str, float], limit: float | Mapping[str, float]) -> None:
    """The content of `speed_bars`, in a panel of a larger picture."""
    bars = ax.barh(list(speeds), list(speeds.values()), color=SERIES[0])
    if isinstance(limit, Mapping):
        limits = [limit[name] for name in speeds]
        ax.plot(limits, list(speeds), color=INK, linestyle="none", marker="|", markersize=18, markeredgewidth=2,
                label=gettext("limit of the memory"))
    else:
        limits = [limit]
        ax.axvline(limit, color=INK, linestyle="--", label=gettext("limit of the memory: {limit:.1f}").format(
            limit=limit))
    ax.bar_label(bars, fmt="%.1f", padding=3)
    ax.set(xlabel=gettext("tokens per second"), xlim=(0, 1.15 * max(*limits, *speeds.values())))
    ax.invert_yaxis()


_NEAR = 10.0  # a factor: names that are less far apart sideways must not be level
_LINE = 0.037  # the height of a name, as a share of the panel's


@dataclass(frozen=True)
class Point:
    """Where a program stands.

    Attributes:
        intensity: floating-point operations per byte that it reads.
        rate: floating-point operations per second that it reaches.
    """

    intensity: float
    rate: float


def roofline(decode: Mapping[str, Point], prefill: Mapping[str, Point], bandwidth: float, arithmetic: float) -> Figure:
    """Draw the two roofs of a machine, and what programs reach under them: the roofline model.

    Left of the ridge the memory is the limit, right of it the arithmetic. https://doi.org/10.1145/1498765.1498785.

    Args:
        decode: name of each way of generating, and where its decoding stands.
        prefill: the same for the reading of the prompt.
        bandwidth: bytes per second that the memory delivers.
        arithmetic: floating-point operations per second of a large matrix product.
    """
    with style():
        fig, ax = pyplot.subplots(figsize=(7.0, 4.5))
        _draw_roofline(ax, decode, prefill, bandwidth, arithmetic)
    return fig


def _draw_roofline(ax: Axes, decode: Mapping[str, Point], prefill: Mapping[str, Point], bandwidth: float,
                  arithmetic: float) -> None:
    """The content of `roofline`, in a panel of a larger picture."""
    ridge = arithmetic / bandwidth
    intensities = [ridge, *(point.intensity for point in (*decode.values(), *prefill.values()))]
    left, column = min(intensities) / 3, 2 * max(intensities)
    right = 30 * column  # room for the names
    ax.plot([left, ridge, right], [left * bandwidth / 1e9, arithmetic / 1e9, arithmetic / 1e9], color=INK, marker="")
    names: list[tuple[Point, str, str]] = []
    for series, phase, color, marker in ((decode, gettext("decode"), GENERATED, "o"),
                                         (prefill, gettext("prefill"), PROMPT, "s")):
        ax.plot([point.intensity for point in series.values()], [point.rate / 1e9 for point in series.values()],
                color=color, marker=marker, linestyle="none", label=phase)
        names += [(point, name, color) for name, point in series.items()]
    # Left of the ridge a name stands beside its point, right of it in a column, and below the names that are near.
    placed: list[tuple[float, float]] = []
    rates = [arithmetic, *(point.rate for point, _, _ in names)]
    apart = (4 * max(rates) / min(rates)) ** _LINE
    for point, name, color in sorted(names, key=lambda item: -item[0].rate):
        x = 1.4 * point.intensity if point.intensity < ridge else column
        y = min([point.rate / 1e9, *(above / apart for beside, above in placed if 1 / _NEAR < x / beside < _NEAR)])
        placed.append((x, y))
        ax.annotate(name, (point.intensity, point.rate / 1e9), (x, y), fontsize=8, va="center",
                    arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5, "relpos": (0.0, 0.5)})
    lowest, highest = min(y for _, y in placed), max(y for _, y in placed)
    ax.set(xscale="log", yscale="log", xlim=(left, right), xlabel=gettext("operations per byte read"),
           ylabel=gettext("billion operations per second"), ylim=(0.8 * lowest, 3 * max(arithmetic / 1e9, highest)))
    ax.legend(loc="upper left")


def benchmark_picture(report: Report) -> Figure:
    """Draw the decoding speed of each row beside its limit, and under it the roofline.

    Raises:
        InputError: if nothing was measured.
    """
    rows, bandwidth = [row for row in report.rows if row.runs], report.bandwidth()
    if bandwidth is None or report.arithmetic is None:
        raise InputError("Nothing was measured, so there is nothing to draw: let at least one row run.")
    limits = {row.title: row.limit(report.decode_context(row), bandwidth.high) for row in rows}
    with style():
        fig, (above, below) = pyplot.subplots(2, figsize=(7.0, 6.0 + 0.4 * len(rows)),
                                              height_ratios=(0.8 + 0.4 * len(rows), 5.0))
        _draw_speed_bars(above, _speeds(rows), limits)
        above.legend(loc="lower right", bbox_to_anchor=(1, 1))
        _draw_roofline(below, {row.title: _decode(report, row) for row in rows},
                      {row.title: _prefill(report, row) for row in rows}, bandwidth.high, report.arithmetic)
    return fig


def benchmark_sentence(report: Report) -> str:
    """The picture in words: its alternative text."""
    speeds = ", ".join(f"{name} {speed:.1f}" for name, speed in _speeds(report.rows).items())
    return gettext("Decoding speeds of {model} in tokens per second, each beside the limit of the memory ({speeds}); "
                   "below, the same rows and their prefill in a roofline.").format(model=report.model, speeds=speeds)


def save_benchmark_picture(report: Report, path: Path) -> str:
    """Write the picture to a .png or .svg file that carries its alternative text; return that text.

    Raises:
        InputError: if nothing was measured, or the file cannot be written.
    """
    sentence, fig = as_sentence(benchmark_sentence(report)), benchmark_picture(report)
    try:
        fig.savefig(path, dpi=150, metadata={"Description": sentence})
    except OSError as error:
        raise InputError(gettext("{path!r} cannot be written ({error}): choose another file.").format(
            path=str(path), error=error)) from error
    finally:
        pyplot.close(fig)
    return sentence


def _speeds(rows: list[RowResult]) -> dict[str, float]:
    return {row.title: speed.median for row in rows if (speed := row.decode()) is not None}


def _decode(report: Report, row: RowResult) -> Point:
    """A step with a cache computes one token, and a step without one all of them."""
    context = round(report.decode_context(row))
    flops = pass_flops(report.config, 1, context) if row.cache_bytes else pass_flops(report.config, context + 1)
    return Point(flops / (row.weight_bytes + row.cache_bytes * context), flops * _speeds([row])[row.title])


def _prefill(report: Report, row: RowResult) -> Point:
    tokens, first = report.settings.prompt_tokens, row.first_token()
    flops = pass_flops(report.config, tokens)
    seconds = first.median if first is not None else float("inf")
    return Point(flops / (row.weight_bytes + row.cache_bytes * tokens), flops / seconds)
