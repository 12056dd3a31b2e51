"""The memory of the key-value cache of several models against the length of the text."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.config import Qwen3Config
from course_utils.kv_cache import StaticKVCache
from course_utils.plots.figure import INK, style


def cache_memory(configs: Mapping[str, Qwen3Config], max_length: int, weights: Mapping[str, int],
                 dtype: torch.dtype = torch.bfloat16) -> Figure:
    """Draw bytes of the cache against tokens, for one sequence.

    Args:
        configs: name and configuration of each model.
        max_length: the longest text drawn, in tokens.
        weights: name and bytes of the weights to compare with, drawn as level lines.
        dtype: number format of keys and values.
    """
    with style():
        fig, ax = pyplot.subplots()
        for name, config in configs.items():
            # On the meta device a cache has a size but no memory.
            whole = StaticKVCache(config, max_length, device="meta", dtype=dtype).num_bytes
            ax.plot([0, max_length], [0, whole / 1e9], label=name)
        for (name, size), line in zip(weights.items(), ("--", ":", "-.")):
            ax.axhline(size / 1e9, color=INK, linestyle=line, linewidth=1.5, marker="", label=name)
        ax.set(xlabel="tokens in the text", ylabel="memory, GB", xlim=(0, max_length))
        ax.set_ylim(bottom=0)
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.legend()
    return fig
