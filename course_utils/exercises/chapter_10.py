"""Exercises of chapter 10: what of a prompt must still be computed, and which cached stretches make room."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from course_utils.exercises.exercise import Answer, Exercise
from course_utils.prefix_cache import Node

# ---- 10.1 ------------------------------------------------------------------------------------------------


def tokens_to_compute(prompt: list[int], cached: list[list[int]]) -> int:
    longest = 0
    for text in cached:
        common = 0
        while common < min(len(prompt), len(text)) and prompt[common] == text[common]:
            common += 1
        longest = max(longest, common)
    # The logits behind the last token are not in the cache, so that token is always computed.
    return max(len(prompt) - longest, 1)


def _verify_tokens_to_compute(answer: Answer) -> str | None:
    def told(prompt: list[int], *cached: list[int]) -> Any:
        return answer(prompt, list(cached))

    if not isinstance(told([5, 6, 7], [5, 6, 8]), int):
        return "Return a whole number: how many tokens of the prompt go through the model."
    if told([5, 6, 7, 8, 9]) != 5:
        return "With nothing in the cache all 5 tokens of a prompt must be computed."
    result = told([5, 6, 7, 8, 9], [5, 6, 1, 2])
    if result == 2:
        return ("For the prompt 5 6 7 8 9 and the cached text 5 6 1 2 you return 2, which is how many are found. "
                "What is asked for is the rest.")
    if result == 5:
        return ("The prompt 5 6 7 8 9 and the cached text 5 6 1 2 share their first two tokens. A text need not be "
                "found whole: its beginning helps too.")
    if told([5, 6, 7, 8, 9], [5, 1, 7, 8, 9]) != 4:
        return ("The prompt 5 6 7 8 9 and the cached text 5 1 7 8 9 share their beginning, 5, and no more: behind the "
                "first difference keys and values are others, even of equal tokens. Stop there.")
    if told([5, 6, 7, 8, 9], [6, 7, 8]) != 5:
        return "The text 6 7 8 occurs inside the prompt 5 6 7 8 9, but not at its beginning: nothing can be reused."
    if told([5, 6, 7, 8, 9], [5, 6, 7, 1], [5, 2]) != 2 or told([5, 6, 7, 8, 9], [5, 2], [5, 6, 7, 1]) != 2:
        return "Of several cached texts take the one with the longest common beginning, wherever it stands in the list."
    if told([5, 6, 7], [5, 6, 7, 8]) != 1 or told([5, 6, 7], [5, 6, 7]) != 1:
        return ("When the whole prompt is found, the next token is still missing: its logits come from computing the "
                "last token of the prompt. So at least 1.")
    if told([5, 6, 7, 8, 9], [5, 6, 7]) != 2:
        return "Of the prompt 5 6 7 8 9 the cached text 5 6 7 leaves 2 tokens."
    return None


def _found_instead(prompt: list[int], cached: list[list[int]]) -> int:
    return len(prompt) if not cached else len(prompt) - tokens_to_compute(prompt, cached)


def _whole_texts_only(prompt: list[int], cached: list[list[int]]) -> int:
    found = max((len(text) for text in cached if prompt[:len(text)] == text), default=0)
    return max(len(prompt) - found, 1)


def _equal_tokens_anywhere(prompt: list[int], cached: list[list[int]]) -> int:
    found = max((sum(a == b for a, b in zip(prompt, text)) for text in cached), default=0)
    return max(len(prompt) - found, 1)


def _last_text_counts(prompt: list[int], cached: list[list[int]]) -> int:
    return tokens_to_compute(prompt, cached[-1:])


def _nothing_left(prompt: list[int], cached: list[list[int]]) -> int:
    return tokens_to_compute([*prompt, -1], cached) - 1


_TOKENS_TO_COMPUTE = Exercise("10.1", "What must still be computed", tokens_to_compute, _verify_tokens_to_compute, (
    (_found_instead, "What is asked for is the rest"),
    (_whole_texts_only, "A text need not be found whole"),
    (_equal_tokens_anywhere, "behind the first difference"),
    (_last_text_counts, "the longest common beginning"),
    (_nothing_left, "So at least 1"),
))

# ---- 10.2 ------------------------------------------------------------------------------------------------


def evict(root: Node, max_tokens: int) -> list[Node]:
    def nodes(top: Node) -> list[Node]:
        return [top, *(node for child in top.children.values() for node in nodes(child))]

    gone: list[Node] = []
    while sum(len(node.token_ids) for node in nodes(root)) > max_tokens:
        leaves = [(parent, child) for parent in nodes(root) for child in parent.children.values()
                  if not child.children and not child.pins]
        if not leaves:
            break
        parent, oldest = min(leaves, key=lambda pair: pair[1].last_used)
        del parent.children[oldest.token_ids[0]]
        gone.append(oldest)
    return gone


def _grow(parent: Node, first: int, length: int, last_used: int, pins: int = 0) -> Node:
    node = Node(tuple(range(first, first + length)), [], parent, last_used=last_used, pins=pins)
    parent.children[first] = node
    return node


def _tree() -> Node:
    """A system prompt, 10, with two chats, 20 and 30, of which the first has a second turn, 40; other examples, 50.

    A node was used whenever one below it was, so of two on one path the upper one is never older.
    """
    root = Node((), [], None)
    system = _grow(root, 10, 4, last_used=5)
    first = _grow(system, 20, 3, last_used=2)
    _grow(system, 30, 6, last_used=5)
    _grow(first, 40, 5, last_used=2)
    _grow(root, 50, 7, last_used=4)
    return root


def _left(root: Node) -> set[int]:
    """The nodes that a tree still has, each by its first token."""
    return {first for child in root.children.values() for first in (child.token_ids[0], *_left(child))}


def _verify_evict(answer: Answer) -> str | None:
    def after(max_tokens: int, pinned: Callable[[Node], Node] | None = None) -> tuple[list[int], set[int]]:
        root = _tree()
        if pinned is not None:
            pinned(root).pins = 1
        gone: Any = answer(root, max_tokens)
        if not isinstance(gone, list) or not all(isinstance(node, Node) for node in gone):
            raise TypeError("return the list of the nodes that were evicted, the first one first")
        return [node.token_ids[0] for node in gone], _left(root)

    gone, left = after(25)
    if gone:
        return "The tree has 25 tokens, and with a budget of 25 nothing need go."
    gone, left = after(24)
    if gone and left == {10, 20, 30, 40, 50}:
        return "You name a node but leave it in the tree: delete it from its parent's children."
    if gone == [20]:
        return ("The node that starts with 20 has a child, whose keys were computed behind it and are of no use "
                "without it. Only a leaf can go.")
    if gone == [30]:
        return "You evict what was used last. last_used is a clock: the smallest is the longest ago."
    if gone == [50]:
        return ("You evict 50, used at 4, though there is a leaf used at 2, deeper in the tree. Look at all leaves, "
                "not only at the root's children.")
    if not gone:
        return "With 25 tokens and a budget of 24 something must go, and nothing went."
    if len(gone) > 1:
        return "With 25 tokens and a budget of 24 one leaf is enough: stop as soon as the rest fits."
    gone, left = after(18)
    if gone == [40, 50]:
        return ("After its only child has gone, the node 20 is a leaf itself, and older than 50. Look for the leaves "
                "anew after each eviction.")
    if gone != [40, 20] or left != {10, 30, 50}:
        return f"With a budget of 18 the leaf 40 goes, then 20. Yours are {gone}, in this order."
    gone, left = after(24, lambda root: root.children[10].children[20].children[40])
    if 40 in gone:
        return "A node with pins is in use by somebody just now: it must stay, however old it is."
    if gone != [50]:
        return f"While 40 is pinned, 50 is the oldest leaf that may go. Yours are {gone}."
    gone, left = after(0)
    if left:
        return f"With a budget of 0 everything can go, one leaf after another. Yours leaves {sorted(left)}."
    gone, left = after(0, lambda root: root.children[10])
    if 10 in gone or left != {10}:
        return "With a budget of 0 and the system prompt pinned, all but the system prompt goes."
    return None


def _inner_nodes_too(root: Node, max_tokens: int) -> list[Node]:
    nodes = sorted(_all(root), key=lambda node: node.last_used)
    gone = []
    while sum(len(node.token_ids) for node in _all(root)) > max_tokens:
        node = next(node for node in nodes if not node.pins and node not in gone)
        assert node.parent is not None
        node.parent.children.pop(node.token_ids[0], None)
        gone.append(node)
    return gone


def _all(root: Node) -> list[Node]:
    return [found for child in root.children.values() for found in (child, *_all(child))]


def _size(root: Node) -> int:
    return sum(len(node.token_ids) for node in _all(root))


def _evict_by(root: Node, max_tokens: int, candidates: Callable[[], list[Node]],
              key: Callable[[Node], int] = lambda node: node.last_used) -> list[Node]:
    """Evict while there are candidates, the one with the smallest key first."""
    gone: list[Node] = []
    while _size(root) > max_tokens and (nodes := candidates()):
        node = min(nodes, key=key)
        assert node.parent is not None
        del node.parent.children[node.token_ids[0]]
        gone.append(node)
    return gone


def _free_leaves(root: Node) -> list[Node]:
    return [node for node in _all(root) if not node.children and not node.pins]


def _newest_first(root: Node, max_tokens: int) -> list[Node]:
    return _evict_by(root, max_tokens, lambda: _free_leaves(root), key=lambda node: -node.last_used)


def _children_of_the_root(root: Node, max_tokens: int) -> list[Node]:
    return _evict_by(root, max_tokens, lambda: [node for node in _free_leaves(root) if node.parent is root])


def _ignores_pins(root: Node, max_tokens: int) -> list[Node]:
    return _evict_by(root, max_tokens, lambda: [node for node in _all(root) if not node.children])


def _leaves_once(root: Node, max_tokens: int) -> list[Node]:
    first = _free_leaves(root)
    return _evict_by(root, max_tokens, lambda: [node for node in first if node in _free_leaves(root)])


def _only_names(root: Node, max_tokens: int) -> list[Node]:
    return evict(copy.deepcopy(root), max_tokens)


def _everything(root: Node, max_tokens: int) -> list[Node]:
    return evict(root, 0) if _size(root) > max_tokens else []


EXERCISES: tuple[Exercise, ...] = (_TOKENS_TO_COMPUTE, Exercise("10.2", "Make room", evict, _verify_evict, (
    (_inner_nodes_too, "Only a leaf can go"),
    (_newest_first, "the longest ago"),
    (_children_of_the_root, "Look at all leaves"),
    (_ignores_pins, "in use by somebody"),
    (_leaves_once, "anew after each eviction"),
    (_only_names, "delete it from its parent's children"),
    (_everything, "one leaf is enough"),
)))
