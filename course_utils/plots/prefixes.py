"""A radix tree of cached prefixes, and what a step has changed in it: what was reused, what is new, what had to go."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from course_utils.language import gettext, noted
from course_utils.plots.figure import CACHED, GENERATED, INK, REJECTED, has_cjk_font, style
from course_utils.prefix_cache import PrefixCache
from course_utils.tokenizer import Qwen3Tokenizer

# Each node as the path to its end, all token ids from the root on, and how many of these are its own.
Tree = dict[tuple[int, ...], int]

# Colour, line and width of a box; what happened to it is also written in it.
_STYLES = {noted("new"): (GENERATED, "-", 2.2), noted("reused"): (CACHED, "-", 2.2),
           noted("evicted"): (REJECTED, "--", 1.6), "": (INK, "-", 0.9)}
_COLUMN, _WIDTH, _ROW, _HEIGHT = 2.45, 2.1, 0.78, 0.62  # inches
_LINE = 30  # characters that fit into a box


def snapshot(prefixes: PrefixCache) -> Tree:
    """The nodes of a prefix cache as they are now; later changes of the cache do not change it."""
    paths: dict[int, tuple[int, ...]] = {id(prefixes.root): ()}
    for node in prefixes.nodes():
        paths[id(node)] = paths[id(node.parent)] + node.token_ids
    return {paths[id(node)]: len(node.token_ids) for node in prefixes.nodes()}


@dataclass(frozen=True)
class TreeStep:
    """What happened between two snapshots of a tree.

    Attributes:
        before, after: the snapshots.
        matched: beginnings of texts that were found in between, as token ids.
    """

    before: Tree
    after: Tree
    matched: Sequence[Sequence[int]] = ()

    @cached_property
    def new(self) -> Tree:
        """The nodes whose tokens were not there before; what a split leaves of an old node is not new."""
        return {path: own for path, own in self.after.items() if _longest_common(path, self.before) <= len(path) - own}

    @cached_property
    def split(self) -> Tree:
        """The upper halves of old nodes that were cut in two, where a text left them in their middle."""
        return {path: own for path, own in self.after.items() if path not in self.before and path not in self.new}

    @cached_property
    def reused(self) -> Tree:
        """The nodes that were there before and of which something was found."""
        return {path: own for path, own in self.after.items()
                if path not in self.new and _longest_common(path, self.matched) > len(path) - own}

    @cached_property
    def evicted(self) -> Tree:
        """The nodes that are gone, or the lower part of a node that is gone."""
        gone = {path: min(own, len(path) - _longest_common(path, self.after)) for path, own in self.before.items()}
        return {path: own for path, own in gone.items() if own}


def radix_tree(step: TreeStep, tokenizer: Qwen3Tokenizer) -> Figure:
    """Draw the tree after a step, root at the left, with what the step evicted in dashed boxes.

    Each box says how many tokens its stretch has and how its text begins and ends, without control tokens. A token with
    characters that no installed font has is written as its id, in brackets.

    Args:
        step: what happened.
        tokenizer: to write the tokens.
    """
    nodes = {**step.after, **step.evicted}
    places = _places(nodes, [*step.before, *step.after])
    columns = 1 + max((column for column, _ in places.values()), default=0)
    rows = 1 + max((row for _, row in places.values()), default=0)
    with style():
        fig, ax = pyplot.subplots(figsize=(max(5.0, 0.9 + _COLUMN * (columns - 1)), 0.25 + _ROW * rows))
        ax.set_xlim(-0.45, max(4.5, 0.5 + _COLUMN * (columns - 1)))
        ax.set_ylim(_ROW * (rows - 0.4), -_ROW * 0.6)
        ax.set_axis_off()
        _box(ax, (-0.35, _ROW * places[()][1]), 0.7, gettext("root"), "" if nodes else gettext("empty"), "")
        for path, own in nodes.items():
            column, row = places[path]
            state = next((name for name in ("new", "reused", "evicted") if path in getattr(step, name)), "")
            left, middle = 0.55 + _COLUMN * (column - 1), _ROW * row
            upper_column, upper_row = places[_parent(path, own, nodes)]
            right_of_upper = 0.35 if upper_column == 0 else 0.55 + _COLUMN * (upper_column - 1) + _WIDTH
            colour, line, width = _STYLES[state]
            ax.plot([right_of_upper, left], [_ROW * upper_row, middle], color=colour, linestyle=line, linewidth=width,
                    marker="", zorder=1)
            title = gettext("1 token") if own == 1 else gettext("{count} tokens").format(count=own)
            title += f", {gettext(state)}" if state else ""
            _box(ax, (left, middle), _WIDTH, title, _label(path[-own:], tokenizer), state)
    return fig


def _box(ax: Axes, place: tuple[float, float], width: float, title: str, text: str, state: str) -> None:
    left, middle = place
    colour, line, thickness = _STYLES[state]
    ax.add_patch(Rectangle((left, middle - _HEIGHT / 2), width, _HEIGHT, facecolor="white", edgecolor=colour,
                           linestyle=line, linewidth=thickness))
    top = middle - 0.09 - (0.075 * (1 + text.count("\n")) if text else 0)
    for y, content, size, weight in ((top, title, 9, "bold"), (top + 0.19, text, 8, "normal")):
        ax.text(left + width / 2, y, content, ha="center", va="top", fontsize=size, weight=weight, color=INK,
                linespacing=1.1, parse_math=False)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    return len(os.path.commonprefix([list(one), list(other)]))


def _longest_common(path: Sequence[int], others: Iterable[Sequence[int]]) -> int:
    return max((_common(path, other) for other in others), default=0)


def _parent(path: tuple[int, ...], own: int, nodes: Tree) -> tuple[int, ...]:
    """The path of the node above; of an evicted one, whose place may have been taken, the nearest there is."""
    above = path[:-own]
    return max((other for other in nodes if above[:len(other)] == other), key=len, default=())


def _places(nodes: Tree, order: list[tuple[int, ...]]) -> dict[tuple[int, ...], tuple[int, float]]:
    """Column and row of each node and of the root: leaves one below the other, a parent in the middle of its children.

    Siblings stand in the order in which they came, given by `order`, so that a tree keeps its shape as it grows.
    """
    children: dict[tuple[int, ...], list[tuple[int, ...]]] = {path: [] for path in ((), *nodes)}
    for path in sorted(nodes, key=lambda path: next(i for i, p in enumerate(order) if p[:len(path)] == path)):
        children[_parent(path, nodes[path], nodes)].append(path)
    places: dict[tuple[int, ...], tuple[int, float]] = {}
    leaves = 0

    def place(path: tuple[int, ...], column: int) -> float:
        nonlocal leaves
        rows = [place(child, column + 1) for child in children[path]]
        if not rows:
            rows, leaves = [float(leaves)], leaves + 1
        places[path] = column, (rows[0] + rows[-1]) / 2
        return places[path][1]

    place((), 0)
    return places


def _label(token_ids: Sequence[int], tokenizer: Qwen3Tokenizer) -> str:
    """How a stretch begins and ends, in one line or two."""
    text = tokenizer.decode(token_ids)
    if not (text.isascii() or has_cjk_font()):
        pieces = [(token_id, tokenizer.token_bytes(token_id)) for token_id in token_ids]
        text = "".join(data.decode() if data.isascii() else f"[{token_id}]" for token_id, data in pieces)
    for control in tokenizer.special_tokens:
        text = text.replace(control, " ")
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if _width(text) <= _LINE:
        return text
    # A word or two less rather than half a word, where there are words.
    first = next(n for n in range(len(text), 0, -1) if _width(text[:n]) < _LINE)
    first = max(text.rfind(" ", first - 8, first + 1), 0) or first
    last = next(n for n in range(first, len(text)) if _width(text[n:]) < _LINE)
    last = last if last == first else text.find(" ", last, last + 8) + 1 or last
    return text[:first] + ("…\n…" if last > first + 1 else "\n") + text[last:].strip()


def _width(text: str) -> int:
    """Width in columns; a Chinese character takes two."""
    return sum(1 if character.isascii() else 2 for character in text)
