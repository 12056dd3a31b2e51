"""Prefix caching: what was computed for the beginning of one text serves every text that begins the same way.

The keys and values of a token depend on all tokens before it, so they may be used again only behind the same tokens.
A radix tree guarantees that: each node holds a stretch of tokens with their keys and values, and the way from the
root to it spells the text that they were computed for (SGLang's RadixAttention, https://arxiv.org/abs/2312.07104).
`match` finds the longest beginning of a text that the tree holds, `insert` adds what a generation leaves behind, and
`generate_with_prefix` is the generation loop between the two.

Tensors are never written to, so the tree, the caches matched from it and the caches inserted into it share them by
reference. Copies are made in three places: a match that covers several nodes joins them, once; an insertion copies
the new stretch, unless it is all that its cache holds; and an eviction copies what would otherwise keep the evicted
memory alive.

Ctrl-C may strike anywhere and the next use finds the tree in order. It falls between two lines, not between the stores
of one: so each change of the tree is one statement, and what is only counted or sorted is made anew from the tree.

Left out: more than one row, several threads, and pages of fixed size, with which a match would need no joining
(PagedAttention, https://arxiv.org/abs/2309.06180). A node left with one child is not merged with it: that would copy
both, and save no more than a step on the way down.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from course_utils.config import Qwen3Config
from course_utils.errors import InputError
from course_utils.generation import EndTokens, check_prompt, generate_tokens, greedy
from course_utils.kv_cache import KVCache, check_config
from course_utils.language import gettext
from course_utils.number import whole_number
from course_utils.qwen3 import Qwen3Model

Held = list[tuple[Tensor, Tensor]]


@dataclass(eq=False)
class Node:
    """A stretch of tokens below its parent, with what attention has computed about them.

    Attributes:
        token_ids: the stretch; empty for the root alone.
        held: for each layer its keys and values, each (1, key-value heads, len(token_ids), head_dim).
        parent: the node whose stretch comes before; None for the root.
        children: what may come next, by the first token of each.
        last_used: when it was last matched or inserted, on a clock that counts uses.
        pins: how many matches end here and are still open.
    """

    token_ids: tuple[int, ...]
    held: Held = field(repr=False)
    parent: Node | None = field(repr=False)
    children: dict[int, Node] = field(default_factory=dict, repr=False)
    last_used: int = 0
    pins: int = 0


@dataclass
class PrefixStats:
    """What a `PrefixCache` was asked and what it had.

    Attributes:
        lookups: number of matches asked for.
        hits: number of these that found at least one token.
        tokens_asked: length of all texts looked up.
        tokens_reused: how many of these tokens were found.
        tokens_evicted: how many tokens had to make room.
        tokens_not_kept: how many new tokens found no room, because of the budget and of what is in use.
    """

    lookups: int = 0
    hits: int = 0
    tokens_asked: int = 0
    tokens_reused: int = 0
    tokens_evicted: int = 0
    tokens_not_kept: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of the lookups that found something, 0 to 1."""
        return self.hits / self.lookups if self.lookups else 0.0

    @property
    def reuse_rate(self) -> float:
        """Share of the tokens asked for that need not be computed again, 0 to 1."""
        return self.tokens_reused / self.tokens_asked if self.tokens_asked else 0.0


class Match:
    """The longest beginning of a text that the tree holds; nothing of it is evicted until the match is closed.

    It is a context manager: `with prefixes.match(token_ids) as match: ...`. One that nobody has any more is closed.

    Attributes:
        length: number of tokens found.
        cache: their keys and values, to be continued freely: the tree does not notice. For several continuations
            of one match use `cache.copy()`.
        node: where the match ends. The nodes above have a child, so they stay as well.
    """

    _open = False

    def __init__(self, cache: KVCache, node: Node) -> None:
        self.length = cache.length
        self.cache = cache
        self.node = node
        self._open, node.pins = True, node.pins + 1

    def close(self) -> None:
        """Let what was matched be evicted again; closing twice does no harm."""
        if self._open:
            self._open, self.node.pins = False, self.node.pins - 1

    def __enter__(self) -> Match:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()  # where Ctrl-C has come between matching and closing


class PrefixCache:
    """Keys and values of texts, in a radix tree over their tokens.

    When a budget is exceeded, the leaf that was not used for the longest time goes, again and again; what an open
    match uses stays. A stretch counts as used when any of it is. If even that does not make room enough, the end of
    the new text is not kept.

    Everything in it comes from one model: shapes, number format and device are checked, but other weights of the same
    shape cannot be told apart, so call `clear` when the weights have changed.

    Args:
        config: of the model.
        max_tokens: the most tokens it may hold; None is no limit.
        max_bytes: the most memory that their keys and values may take, in bytes; None is no limit.

    Attributes:
        root: the empty stretch that all texts begin with.
        stats: what it was asked so far.

    Raises:
        InputError: if it is no configuration, or a budget is not a positive whole number.
    """

    def __init__(self, config: Qwen3Config, max_tokens: int | None = None,
                 max_bytes: int | None = None) -> None:
        check_config(config)
        for name, budget in (("max_tokens", max_tokens), ("max_bytes", max_bytes)):
            number = whole_number(budget)
            if budget is not None and (number is None or number < 1):
                raise InputError(gettext("{name} is {budget!r}: give a whole number from 1 on, or None for no "
                                         "limit.").format(name=name, budget=budget))
        self.config = config
        self.max_tokens, self.max_bytes = whole_number(max_tokens), whole_number(max_bytes)
        self.stats = PrefixStats()
        self._clock = 0
        self.clear()

    def clear(self) -> None:
        """Forget all texts, those in use included (their matches go on undisturbed); the statistics stay."""
        # By use: least recently used first, and each node behind all those below it, so that the first is a leaf.
        # Counted: whether number and order are those of the tree.
        by_use: OrderedDict[Node, None] = OrderedDict()
        self.root, self._num_tokens, self._by_use, self._counted = Node((), [], None), 0, by_use, True

    @property
    def num_tokens(self) -> int:
        """How many tokens it holds."""
        self._count()
        return self._num_tokens

    @property
    def num_bytes(self) -> int:
        """Memory of the keys and values held, in bytes."""
        held = self._example()
        return self.num_tokens * _bytes_per_token(held) if held else 0

    def nodes(self) -> Iterator[Node]:
        """All nodes but the root, parents before their children, children in the order of their arrival."""
        waiting = [*reversed(self.root.children.values())]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.children.values())

    def match(self, token_ids: Sequence[int], at_most: int | None = None) -> Match:
        """Find the longest beginning of a text that is held.

        Args:
            token_ids: the text.
            at_most: how many tokens to find at most; None is all of them.

        Returns:
            The match, to be closed after use. Its cache shares the tensors of the tree if it covers one node or a part
            of one; of several nodes it is a joined copy.

        Raises:
            InputError: if token_ids are not the ids of at least one token, or at_most is no number of tokens.
        """
        ids = self._check_ids(token_ids)
        most = whole_number(at_most)
        if at_most is not None and (most is None or most < 0):
            raise InputError(gettext("at_most is {at_most!r}: give a number of tokens from 0 on, or None for "
                                     "all.").format(at_most=at_most))
        self._count()
        path = self._descend(ids[:most])
        cache = KVCache.holding(self.config, _join(path)) if path else KVCache(self.config)
        node = path[-1][0] if path else self.root
        self._counted = False
        self._touch(node)
        self._counted, stats = True, self.stats
        stats.lookups, stats.hits, stats.tokens_asked, stats.tokens_reused = (
            stats.lookups + 1, stats.hits + bool(path), stats.tokens_asked + len(ids),
            stats.tokens_reused + cache.length)
        return Match(cache, node)

    def insert(self, token_ids: Sequence[int], cache: KVCache) -> None:
        """Add a text, or what it has beyond the texts that are held already.

        Args:
            token_ids: the text.
            cache: keys and values of its first `cache.length` tokens. The rest is ignored, since a generation ends
                before its last token has any. The cache can be used on.

        Raises:
            InputError: if token_ids are not the ids of at least one token, or the cache holds more tokens than that,
                several rows, or what another model has computed.
        """
        ids = self._check_ids(token_ids)
        held = self._check_cache(cache, len(ids))
        if not held:
            return
        ids = ids[:cache.length]
        self._count()
        path = self._descend(ids)
        present = sum(count for _, count in path)
        node, count = path[-1] if path else (self.root, 0)
        self._counted = False
        if present < len(ids):
            if count < len(node.token_ids):
                node = self._split(node, count)
            kept = self._make_room(len(ids) - present, _bytes_per_token(held), below=node)
            if kept:
                node = self._add(ids[present:present + kept], _cut(held, present, present + kept), parent=node)
        self._touch(node)
        self._counted = True

    def _descend(self, ids: tuple[int, ...]) -> list[tuple[Node, int]]:
        """The nodes that a text passes, with how many of their tokens agree with it: all of them, but for the last."""
        path: list[tuple[Node, int]] = []
        node, done = self.root, 0
        while done < len(ids) and ids[done] in node.children:
            node = node.children[ids[done]]
            count = _agreement(node.token_ids, ids[done:done + len(node.token_ids)])
            path.append((node, count))
            if count < len(node.token_ids):
                break
            done += count
        return path

    def _count(self) -> None:
        """Count and sort the nodes anew if a change of the tree was interrupted."""
        if self._counted:
            return
        nodes = [*self.nodes()]
        for node in reversed(nodes):
            if node.parent is not None:
                node.parent.last_used = max(node.parent.last_used, node.last_used)
        self._num_tokens = sum(len(node.token_ids) for node in nodes)
        self._by_use = OrderedDict.fromkeys(sorted(reversed(nodes), key=lambda node: node.last_used))
        self._counted = True

    def _touch(self, node: Node) -> None:
        """Count a node and those above it as used now."""
        self._clock += 1
        while node.parent is not None:
            node.last_used = self._clock
            self._by_use[node] = None
            self._by_use.move_to_end(node)
            node = node.parent

    def _split(self, node: Node, count: int) -> Node:
        """Make two nodes of one, copying nothing; return the upper one, with the first `count` tokens.

        The lower one stays the object that it was: matches that end in it go on pinning all that they use.
        """
        assert node.parent is not None
        ids, first, below = node.token_ids, node.token_ids[0], _cut(node.held, count, None)
        upper = Node(ids[:count], _cut(node.held, 0, count), node.parent, {ids[count]: node}, node.last_used)
        node.parent.children[first], node.token_ids, node.held, node.parent = upper, ids[count:], below, upper
        return upper

    def _add(self, ids: tuple[int, ...], held: Held, parent: Node) -> Node:
        node = Node(ids, _own(held), parent)
        parent.children[ids[0]] = node
        self._num_tokens += len(ids)
        return node

    def _make_room(self, wanted: int, bytes_per_token: int, below: Node) -> int:
        """Evict until `wanted` more tokens fit, but not the node below which they come; return how many do fit."""
        budgets = [self._num_tokens + wanted]
        if self.max_tokens is not None:
            budgets.append(self.max_tokens)
        if self.max_bytes is not None:
            budgets.append(self.max_bytes // bytes_per_token)
        budget = min(budgets)
        while self._num_tokens + wanted > budget:
            leaf = next((node for node in self._by_use
                         if not node.children and not node.pins and node is not below), None)
            if leaf is None:
                break
            self._evict(leaf)
        fitting = min(wanted, budget - self._num_tokens)
        self.stats.tokens_not_kept += wanted - fitting
        return fitting

    def _evict(self, leaf: Node) -> None:
        assert leaf.parent is not None
        # A view keeps its whole tensor alive. Nodes that were split from one lie above each other, so whoever else
        # looks at the leaf's tensors is found above it, and gets memory of its own.
        node = leaf.parent
        while node.parent is not None:
            if _storage(node) == _storage(leaf):
                node.held = _own(node.held)
            node = node.parent
        del leaf.parent.children[leaf.token_ids[0]], self._by_use[leaf]
        self._num_tokens -= len(leaf.token_ids)
        self.stats.tokens_evicted += len(leaf.token_ids)

    def _check_ids(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        if isinstance(token_ids, (str, bytes)) or not isinstance(token_ids, Sequence):
            raise InputError(gettext("token_ids is a {kind}, not a list of numbers: give the ids of one text, such as "
                                     "tokenizer.encode(text), or token_ids[0].tolist() of a tensor.").format(
                kind=type(token_ids).__name__))
        if not token_ids:
            raise InputError("There are no token ids: give those of at least one token.")
        ids: list[int] = []
        for token in token_ids:
            number = whole_number(token)
            if number is None or not 0 <= number < self.config.vocab_size:
                raise InputError(gettext("{token!r} is not a token id of this model: they are whole "
                                         "numbers from 0 to {vocab_size}.").format(
                    token=token, vocab_size=self.config.vocab_size - 1))
            ids.append(number)
        return tuple(ids)

    def _check_cache(self, cache: KVCache, most: int) -> Held:
        """The keys and values that a cache holds, without what an interrupted pass may have left behind them."""
        if not isinstance(cache, KVCache):
            raise InputError(gettext("A {kind} cannot be inserted: give a KVCache, which is never written to in place "
                                     "and can be shared.").format(kind=type(cache).__name__))
        if cache.length > most:
            raise InputError(gettext("The cache holds {length} tokens and the text has {most}: give all token ids that "
                                     "were computed, prompt and answer.").format(length=cache.length, most=most))
        if not cache.length:
            return []
        held = KVCache.holding(self.config, _cut(cache.held, 0, cache.length)).held
        keys = held[0][0]
        if len(keys) != 1:
            raise InputError(gettext("The cache holds {count} texts side by side: a prefix cache takes one at a "
                                     "time.").format(count=len(keys)))
        self.check_format(keys.dtype, keys.device)
        return held

    def check_format(self, dtype: torch.dtype, device: torch.device) -> None:
        """Make sure that keys and values of this number format and device go with those held.

        Raises:
            InputError: if they do not.
        """
        for keys, _ in self._example()[:1]:
            if (keys.dtype, keys.device) != (dtype, device):
                raise InputError(gettext("This prefix cache holds {dtype} on {device}, and what is to "
                                         "go with it is {own_dtype} on {own_device}: make another "
                                         "PrefixCache, or clear() this one.").format(
                    dtype=keys.dtype, device=keys.device, own_dtype=dtype, own_device=device))

    def _example(self) -> Held:
        """The keys and values of any one node; empty if there is none."""
        node = next(iter(self.root.children.values()), self.root)
        return node.held


def generate_with_prefix(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int, eos_token_id: EndTokens,
                         prefixes: PrefixCache, choose: Callable[[Tensor], Tensor] = greedy) -> Iterator[Tensor]:
    """Generate for one prompt, computing only what `prefixes` does not hold, and leave prompt and answer there.

    At least the last prompt token is computed: its logits choose the first new token, and logits are not kept. What
    was computed is inserted at the end, also when the caller stops early or an error or Ctrl-C ends it.

    Args:
        model: the model that computed everything in `prefixes`.
        token_ids: (1, t), the whole prompt.
        max_new_tokens, eos_token_id, choose: as for `generate_tokens`.
        prefixes: is looked up when the first token is asked for, and extended when the last one is done.

    Yields:
        Each new token, (1, 1).

    Raises:
        InputError: as `generate_tokens`; also if there are several prompts, or `prefixes` is no prefix cache or that of
            another model.
        ContextLengthError: if prompt and new tokens do not fit into the context.
    """
    max_new_tokens = check_prompt(model, token_ids, max_new_tokens)
    if len(token_ids) != 1:
        raise InputError(gettext("A prefix cache serves one prompt at a time, and this is a batch of {count}: generate "
                                 "for each row by itself.").format(count=len(token_ids)))
    if not isinstance(prefixes, PrefixCache):
        raise InputError(gettext("prefixes is a {kind}: give a "
                                 "PrefixCache(model.config).").format(kind=type(prefixes).__name__))
    if model.config != prefixes.config:
        raise InputError("The prefix cache was made for a model of another shape: make one with "
                         "PrefixCache(model.config).")
    prefixes.check_format(model.dtype, model.device)
    return _generate(model, token_ids, max_new_tokens, eos_token_id, prefixes, choose)


def _generate(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int, eos_token_id: EndTokens,
              prefixes: PrefixCache, choose: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    ids: list[int] = token_ids[0].tolist()
    match = prefixes.match(ids, at_most=len(ids) - 1)
    try:
        for token in generate_tokens(model, token_ids[:, match.length:], max_new_tokens, eos_token_id,
                                     cache=match.cache, choose=choose):
            ids.append(int(token))
            yield token
    finally:
        match.close()  # before the insertion, which may need the room of what only began in the same way
        prefixes.insert(ids, match.cache)


def _agreement(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    if one == other:  # the usual case, and the fast one
        return len(one)
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def _cut(held: Held, start: int, end: int | None) -> Held:
    """The keys and values of some of the tokens, as views."""
    return [(keys[:, :, start:end], values[:, :, start:end]) for keys, values in held]


def _join(path: list[tuple[Node, int]]) -> Held:
    """The keys and values of the first tokens of each node, one behind the other; of a single node as views."""
    pieces = [_cut(node.held, 0, count) for node, count in path]
    if len(pieces) == 1:
        return pieces[0]
    return [(torch.cat([keys for keys, _ in layer], dim=2), torch.cat([values for _, values in layer], dim=2))
            for layer in zip(*pieces)]


def _own(held: Held) -> Held:
    """The same keys and values in memory that holds nothing else: copied where they are a part of something larger."""

    def alone(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()  # else what computed it would stay as well
        return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()

    return [(alone(keys), alone(values)) for keys, values in held]


def _storage(node: Node) -> int:
    """Where the memory of a node's first keys begins: the same for nodes that were split from one."""
    return node.held[0][0].untyped_storage().data_ptr()


def _bytes_per_token(held: Held) -> int:
    return sum(tensor[:, :, :1].nbytes for pair in held for tensor in pair)
