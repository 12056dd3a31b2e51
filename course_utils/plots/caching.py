"""What a key-value cache saves, and what it takes: passes, copies, memory, and the time of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from course_utils.config import Qwen3Config
from course_utils.kv_cache import StaticKVCache
from course_utils.language import gettext, noted
from course_utils.plots.figure import CACHED, GENERATED, INK, PROMPT, SERIES, style


def recomputation(prompt_tokens: int, new_tokens: int) -> Figure:
    """Draw one row a forward pass without a cache, and one cell a token that the pass computes.

    Args:
        prompt_tokens: length of the prompt.
        new_tokens: number of tokens generated, which is the number of passes.
    """
    return _passes(prompt_tokens, new_tokens, cached=False)


def reuse(prompt_tokens: int, new_tokens: int) -> Figure:
    """Draw the same passes with a cache: what a pass computes, and whose keys and values it finds in the cache.

    Args:
        prompt_tokens: length of the prompt.
        new_tokens: number of tokens generated, which is the number of passes.
    """
    return _passes(prompt_tokens, new_tokens, cached=True)


def _passes(prompt_tokens: int, new_tokens: int, cached: bool) -> Figure:
    with style():
        fig, ax = pyplot.subplots(figsize=(8, 0.9 + 0.32 * new_tokens))
        for step in range(new_tokens):
            for place in range(prompt_tokens + step):
                color = PROMPT if place < prompt_tokens else GENERATED
                # A pass computes the token that the pass before has chosen for the first time.
                if step == 0 or place == prompt_tokens + step - 1:
                    _cell(ax, place, step, color)
                elif cached:
                    _cell(ax, place, step, CACHED, "white", "..")
                else:
                    _cell(ax, place, step, "white", color, "//")
        ax.set_xlim(-0.2, prompt_tokens + new_tokens)
        ax.set_ylim(new_tokens + 0.1, -0.2)
        passes = [gettext("pass {step}").format(step=step + 1) for step in range(new_tokens)]
        ax.set_yticks([step + 0.4 for step in range(new_tokens)], passes)
        ax.set_xticks([])
        ax.set_xlabel(gettext("tokens of the text so far"))
        before = (Patch(facecolor=CACHED, edgecolor="white", hatch="..", label=gettext("not computed: cached"))
                  if cached
                  else Patch(facecolor="white", edgecolor=INK, hatch="//", label=gettext("computed before")))
        ax.legend(handles=[Patch(facecolor=PROMPT, edgecolor=INK, label=gettext("prompt")),
                           Patch(facecolor=GENERATED, edgecolor=INK, label=gettext("generated")), before],
                  loc="upper right", fontsize=9)
    return fig


def _cell(ax: Axes, place: int, step: int, face: str, edge: str = INK, hatch: str = "") -> None:
    ax.add_patch(Rectangle((place, step), 0.9, 0.8, facecolor=face, edgecolor=edge, linewidth=0.8, hatch=hatch))


# Face, edge and hatch of a place. What is copied was cached before, so it has the same colour as what stays.
_PROMPT, _TOKEN, _STAYS = (PROMPT, "white", ""), (GENERATED, "white", "//"), (CACHED, "white", "..")
_COPIED, _IDLE = ("white", CACHED, ".."), ("white", SERIES[2], "")
_NAMES = {_PROMPT: noted("written: prompt"), _TOKEN: noted("written: new token"),
          _COPIED: noted("copied to new memory"),
          _STAYS: noted("stays where it is"),
          _IDLE: noted("reserved, not used yet")}


def cache_kinds(prompt_tokens: int, steps: int, max_length: int) -> Figure:
    """Draw the places of a growing and of a fixed cache after the prompt and after each further token.

    Args:
        prompt_tokens: length of the prompt, which fills the cache first.
        steps: number of tokens after it.
        max_length: places of the fixed cache.
    """
    with style():
        fig, (growing, fixed) = pyplot.subplots(1, 2, figsize=(9.0, 3.4), sharey=True)
        _draw_row(growing, 0, [_PROMPT] * prompt_tokens)
        _draw_row(fixed, 0, [_PROMPT] * prompt_tokens + [_IDLE] * (max_length - prompt_tokens))
        for step in range(1, steps + 1):
            held = prompt_tokens + step - 1
            _draw_row(growing, step, [_COPIED] * held + [_TOKEN])
            _draw_row(fixed, step, [_STAYS] * held + [_TOKEN] + [_IDLE] * (max_length - held - 1))
        growing.set_title(gettext("growing: everything is copied"))
        fixed.set_title(gettext("fixed: one place is written"))
        for ax in (growing, fixed):
            ax.set(xlim=(0.4, max_length + 0.6), ylim=(steps + 0.6, -0.6), xlabel=gettext("place in the cache"),
                   yticks=range(steps + 1))
        tokens = [gettext("token {step}").format(step=step) for step in range(1, steps + 1)]
        growing.set_yticklabels([gettext("prompt"), *tokens])
        fig.legend(handles=[Patch(facecolor=face, edgecolor=edge, hatch=hatch, label=gettext(name))
                            for (face, edge, hatch), name in _NAMES.items()], loc="outside lower center", ncols=3)
    return fig


def _draw_row(ax: Axes, step: int, looks: list[tuple[str, str, str]]) -> None:
    for place, (face, edge, hatch) in enumerate(looks):
        ax.add_patch(Rectangle((place + 0.55, step - 0.45), 0.9, 0.9, facecolor=face, edgecolor=edge, hatch=hatch))


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
        ax.set(xlabel=gettext("tokens in the text"), ylabel=gettext("memory, GB"), xlim=(0, max_length))
        ax.set_ylim(bottom=0)
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.legend()
    return fig


def step_time(lengths: Sequence[int], without_cache: Sequence[float], with_cache: Sequence[float]) -> Figure:
    """Draw seconds per step against the length of the text, without and with a cache.

    Args:
        lengths: tokens before the new one.
        without_cache, with_cache: seconds of one step at each length.
    """
    with style():
        fig, ax = pyplot.subplots()
        for seconds, name, color, marker in ((without_cache, gettext("without a cache"), SERIES[0], "o"),
                                             (with_cache, gettext("with a cache"), CACHED, "^")):
            ax.plot(lengths, [1e3 * each for each in seconds], color=color, marker=marker, label=name)
        ax.set(xlabel=gettext("tokens in the text"), ylabel=gettext("one step, ms"), xticks=list(lengths))
        ax.set_ylim(bottom=0)
        ax.legend()
    return fig
