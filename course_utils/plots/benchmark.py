"""The picture of a benchmark: how fast each row writes, and where it stands under the machine's two roofs."""

from __future__ import annotations

from pathlib import Path

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.benchmark.report import Report, RowResult
from course_utils.costs import pass_flops
from course_utils.errors import InputError
from course_utils.plots.figure import style
from course_utils.plots.roofline import Point, draw_roofline
from course_utils.plots.speed_bars import draw_speed_bars


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
        draw_speed_bars(above, _speeds(rows), limits)
        above.legend(loc="lower right", bbox_to_anchor=(1, 1))
        draw_roofline(below, {row.title: _decode(report, row) for row in rows},
                      {row.title: _prefill(report, row) for row in rows}, bandwidth.high, report.arithmetic)
    return fig


def benchmark_sentence(report: Report) -> str:
    """The picture in words: its alternative text."""
    speeds = ", ".join(f"{name} {speed:.1f}" for name, speed in _speeds(report.rows).items())
    return (f"Decoding speeds of {report.model} in tokens per second, each beside the limit of the memory ({speeds}); "
            "below, the same rows and their prefill in a roofline.")


def save_picture(report: Report, path: Path) -> str:
    """Write the picture to a .png or .svg file that carries its alternative text; return that text.

    Raises:
        InputError: if nothing was measured, or the file cannot be written.
    """
    sentence, fig = f"Figure: {benchmark_sentence(report)}", benchmark_picture(report)
    try:
        fig.savefig(path, dpi=150, metadata={"Description": sentence})
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written ({error}): choose another file.") from error
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
