"""The picture of a prefix cache: every node has a box with its tokens, and what a step did to it stands in the box."""

from __future__ import annotations

import random
from collections.abc import Iterator

import matplotlib
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from test_model import SMALL, make, prompt

from course_utils.kv_cache import KVCache
from course_utils.plots import prefixes as module
from course_utils.plots.prefixes import Tree, TreeStep, radix_tree, snapshot
from course_utils.prefix_cache import PrefixCache
from course_utils.tokenizer import Qwen3Tokenizer

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    pyplot.close("all")


def boxes(figure: Figure) -> dict[str, Rectangle]:
    """The boxes by their texts, the two texts of a box joined."""
    ax = figure.axes[0]
    found: dict[str, Rectangle] = {}
    for box in ax.patches:
        assert isinstance(box, Rectangle)
        inside = [text.get_text() for text in ax.texts if box.get_bbox().contains(*text.get_position())]
        found[" | ".join(text for text in inside if text)] = box
    return found


def test_a_snapshot_is_the_tree_as_it_was() -> None:
    model, prefixes = make(SMALL), PrefixCache(SMALL)
    assert snapshot(prefixes) == {}
    first = prompt(1, 8)[0].tolist()
    other = [*first[:5], (first[5] + 1) % SMALL.vocab_size, 3]
    trees = []
    for ids in (first, other):
        cache = KVCache(SMALL)
        model(prompt(1, len(ids)), cache=cache)  # which keys there are does not matter here
        prefixes.insert(ids, cache)
        trees.append(snapshot(prefixes))
    assert trees == [{tuple(first): 8}, {tuple(first[:5]): 5, tuple(first): 3, tuple(other): 2}]


BEFORE: Tree = {(1, 2, 3, 4): 4, (1, 2, 3, 4, 5): 1, (1, 2, 3, 4, 6, 7): 2, (8, 9): 2}


@pytest.mark.parametrize(("after", "matched", "new", "reused", "evicted"), [
    (BEFORE, [], [], [], []),
    # A split: no token is new, and what was matched is the upper half.
    ({(1, 2): 2, (1, 2, 3, 4): 2, (1, 2, 9): 1, **{path: own for path, own in BEFORE.items() if len(path) != 4}},
     [(1, 2)], [(1, 2, 9)], [(1, 2)], []),
    # A match that ends inside a node uses it.
    (BEFORE, [(1, 2, 3, 4, 6)], [], [(1, 2, 3, 4), (1, 2, 3, 4, 6, 7)], []),
    # Two branches go, and their parent, which is a leaf then, stays.
    ({(1, 2, 3, 4): 4, (8, 9): 2}, [], [], [], [(1, 2, 3, 4, 5), (1, 2, 3, 4, 6, 7)]),
    # A node is split and its lower half goes.
    ({(1, 2, 3, 4): 4, (1, 2, 3, 4, 6): 1, (1, 2, 3, 4, 6, 8): 1, (8, 9): 2}, [(1, 2, 3, 4, 6)], [(1, 2, 3, 4, 6, 8)],
     [(1, 2, 3, 4), (1, 2, 3, 4, 6)], [(1, 2, 3, 4, 5), (1, 2, 3, 4, 6, 7)]),
    ({}, [], [], [], list(BEFORE)),
])
def test_what_a_step_did(after: Tree, matched: list[tuple[int, ...]], new: list[tuple[int, ...]],
                         reused: list[tuple[int, ...]], evicted: list[tuple[int, ...]]) -> None:
    step = TreeStep(BEFORE, after, matched)
    assert (list(step.new), list(step.reused), list(step.evicted)) == (new, reused, evicted)
    assert sum(after.values()) == sum(BEFORE.values()) + sum(step.new.values()) - sum(step.evicted.values())


def test_the_empty_tree_has_a_root(small_tokenizer: Qwen3Tokenizer) -> None:
    assert list(boxes(radix_tree(TreeStep({}, {}), small_tokenizer))) == ["root | empty"]


def test_boxes_say_what_happened(small_tokenizer: Qwen3Tokenizer) -> None:
    encode = small_tokenizer.encode
    begin, cat, moon = (encode(text) for text in ("<|im_start|>user\n", "A cat sat.", "$ round $ it"))
    gone, old = tuple(begin + encode("d")), tuple(begin + cat)
    before = {tuple(begin): len(begin), old: len(cat), gone: 1}
    after = {tuple(begin): len(begin), old: len(cat), tuple(begin + moon): len(moon)}
    figure = radix_tree(TreeStep(before, after, [begin]), small_tokenizer)
    figure.canvas.draw()
    found = boxes(figure)
    assert set(found) == {"root", f"{len(begin)} tokens, reused | user", f"{len(cat)} tokens | A cat sat.",
                          f"{len(moon)} tokens, new | $ round $ it", "1 token, evicted | d"}
    dashed = [text for text, box in found.items() if box.get_linestyle() == "--"]
    assert dashed == ["1 token, evicted | d"]
    assert len(figure.axes[0].lines) == 4  # each node hangs on one line


@pytest.mark.parametrize("seed", range(6))
def test_nothing_overlaps(small_tokenizer: Qwen3Tokenizer, seed: int) -> None:
    """Trees grown from random texts, with texts far too long for a box; all texts stay in their boxes."""
    rng = random.Random(seed)
    common = small_tokenizer.encode("The little boat went down the river, and the river went on to the sea.")
    texts = [tuple(common[:rng.randrange(20)] + [rng.randrange(300) for _ in range(rng.randrange(1, 30))])
             for _ in range(12)]
    before, after = grown(texts[:6]), grown(texts[3:])
    step = TreeStep(before, after, texts[3:6])
    figure = radix_tree(step, small_tokenizer)
    figure.canvas.draw()
    ax = figure.axes[0]
    assert len(ax.patches) == len(after) + len(step.evicted) + 1
    rectangles = [box.get_window_extent() for box in ax.patches]
    assert not any(a.overlaps(b) for i, a in enumerate(rectangles) for b in rectangles[:i])
    for text in ax.texts:
        assert isinstance(text, Text) and text.get_fontsize() >= 8
        inside = text.get_window_extent()
        assert any(box.x0 <= inside.x0 and inside.x1 <= box.x1 and box.y0 <= inside.y0 and inside.y1 <= box.y1
                   for box in rectangles) or not text.get_text(), text.get_text()
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0
               and box.y1 <= figure.bbox.y1 for box in rectangles)


def grown(texts: list[tuple[int, ...]]) -> Tree:
    """The radix tree of some texts, by brute force: it branches where two texts part."""
    ends = set(texts)
    for one in texts:
        for other in texts:
            n = next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
            ends.add(one[:n])
    ends.discard(())
    return {path: len(path) - max((len(p) for p in ends if p != path and path[:len(p)] == p), default=0)
            for path in sorted(ends, key=len)}


def test_a_node_stays_in_its_place_while_others_come(small_tokenizer: Qwen3Tokenizer) -> None:
    first, second = grown([(1, 2, 3), (1, 2, 4)]), grown([(1, 2, 3), (1, 2, 4), (1, 2, 0, 5)])
    rows = [[box.get_y() for box in radix_tree(TreeStep(first, after), small_tokenizer).axes[0].patches]
            for after in (first, second)]
    assert rows[0][2:4] == rows[1][2:4]


@pytest.mark.parametrize("font", [False, True])
def test_chinese_is_written_where_a_font_has_it(small_tokenizer: Qwen3Tokenizer, font: bool,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_cjk_font", lambda: font)
    ids = small_tokenizer.encode("cat 小猫")
    label = module._label(ids, small_tokenizer)
    if font:
        assert label == "cat 小猫"
    else:
        assert label.startswith("cat") and label.isascii() and label.endswith(f"[{ids[-1]}]")


@pytest.mark.parametrize("text", ["The little boat went down the river, and the river went on to the sea.",
                                  "小船沿着小河走，小河流到大海。小猫坐在窗前看月亮，月亮很圆。", "a" * 200, "b" * 31])
def test_long_texts_are_shortened_in_the_middle(small_tokenizer: Qwen3Tokenizer, text: str,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_cjk_font", lambda: True)
    first, last = module._label(small_tokenizer.encode(text), small_tokenizer).split("\n")
    assert text.startswith(first.rstrip("…")) and text.endswith(last.lstrip("…"))
    assert module._width(first) <= 31 and module._width(last) <= 31
