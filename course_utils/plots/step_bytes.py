"""What a decoding step moves between memory and processor, as the text grows."""

from __future__ import annotations

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.config import Qwen3Config
from course_utils.costs import copied_bytes, pass_bytes
from course_utils.plots.figure import CACHED, INK, style

_POINTS = 9


def step_bytes(config: Qwen3Config, max_length: int, batch: int = 1) -> Figure:
    """Draw the bytes of one step in bfloat16 against the tokens in each text: weights, and with either cache.

    Args:
        config: sizes of the model.
        max_length: the longest text drawn, in tokens.
        batch: number of texts side by side.
    """
    lengths = [max_length * point // (_POINTS - 1) for point in range(_POINTS)]
    costs = [pass_bytes(config, 1, length, batch) for length in lengths]
    copied = [copied_bytes(config, length, batch) for length in lengths]
    lines = (
        ("with a growing cache, which is copied", "--", "D", [cost.total + c for cost, c in zip(costs, copied)]),
        ("with a fixed cache", "-", "^", [cost.total for cost in costs]),
        ("weights alone", ":", "", [cost.weights for cost in costs]),
    )
    with style():
        fig, ax = pyplot.subplots()
        for name, line, marker, moved in lines:
            ax.plot(lengths, [each / 1e9 for each in moved], marker=marker, linestyle=line, label=name,
                    color=CACHED if marker else INK)
        ax.set(xlabel="tokens in each text", ylabel="moved in one step, GB", xlim=(0, None), ylim=(0, None))
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.legend()
    return fig
