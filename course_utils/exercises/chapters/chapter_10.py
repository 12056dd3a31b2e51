"""Exercises of chapter 10: a chat template, what a prompt still costs, which cached stretches go, what was reused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from course_utils.config import Qwen3Config
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.loading import load_tokenizer, random_model
from course_utils.prefix_cache import Node, PrefixCache, generate_with_prefix
from course_utils.qwen3 import Qwen3Model

# ---- 10.1 ------------------------------------------------------------------------------------------------


def chat_text(messages: list[dict[str, str]], thinking: bool) -> str:
    """The text from which a model goes on to answer the last message."""
    text = ""
    for message in messages:
        text += f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n"
    text += "<|im_start|>assistant\n"
    return text if thinking else text + "<think>\n\n</think>\n\n"


_OPEN, _NO_THOUGHTS = "<|im_start|>assistant\n", "<think>\n\n</think>\n\n"


def _last_message_alone(messages: list[dict[str, str]], thinking: bool) -> str:
    return chat_text(messages[-1:], thinking)


def _no_role(messages: list[dict[str, str]], thinking: bool) -> str:
    text = chat_text(messages, thinking)
    for role in ("system", "user"):
        text = text.replace(f"<|im_start|>{role}\n", "<|im_start|>")
    return text


def _no_break_behind_the_role(messages: list[dict[str, str]], thinking: bool) -> str:
    text = chat_text(messages, thinking).removesuffix(_NO_THOUGHTS).removesuffix(_OPEN)
    for role in ("system", "user", "assistant"):
        text = text.replace(f"<|im_start|>{role}\n", f"<|im_start|>{role} ")
    return text + _OPEN + (_NO_THOUGHTS if not thinking else "")


def _no_break_between_turns(messages: list[dict[str, str]], thinking: bool) -> str:
    return chat_text(messages, thinking).replace("<|im_end|>\n", "<|im_end|>")


def _nobody_answers(messages: list[dict[str, str]], thinking: bool) -> str:
    return chat_text(messages, True).removesuffix(_OPEN)


def _closed_at_once(messages: list[dict[str, str]], thinking: bool) -> str:
    return chat_text(messages, thinking) + "<|im_end|>\n"


def _upside_down(messages: list[dict[str, str]], thinking: bool) -> str:
    return chat_text(messages, not thinking)


def _deaf_to_the_switch(messages: list[dict[str, str]], thinking: bool) -> str:
    return chat_text(messages, True)


_TEMPLATE_MISTAKES: tuple[tuple[Answer, str], ...] = (
    (_last_message_alone, "Only the last message is written. The model keeps nothing between two answers: write all of "
                          "them, oldest first."),
    (_no_role, "Nobody can see who speaks: the role comes behind <|im_start|>, on the same line."),
    (_no_break_behind_the_role, "Behind the role comes a line break, \\n, and then the text."),
    (_no_break_between_turns, "Behind <|im_end|> comes a line break, too, before the next turn."),
    (_nobody_answers, "It ends with the user's turn, and the text could go on with anybody's. Add the generation "
                      "prompt, which opens the assistant's turn."),
    (_closed_at_once, "The assistant's turn is closed before it has begun. Its <|im_end|> is for the model to write."),
    (_upside_down, "It is the other way round: with thinking on, the model opens its thoughts itself; with thinking "
                   "off, an empty block is written for it."),
    (_deaf_to_the_switch, "With thinking off, an empty block of thoughts is part of the generation prompt. Print the "
                          "cell above once more: it has an empty line inside and one behind."),
)
_CHATS: tuple[tuple[list[dict[str, str]], bool], ...] = (
    ([{"role": "user", "content": "Hello!"}], True),
    ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "你好！\n你是谁？"}], True),
    ([{"role": "user", "content": "Hello!"}], False),
    ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"},
      {"role": "assistant", "content": "Hello! How can I help you?"}, {"role": "user", "content": ""}], False),
)


def _verify_template(answer: Answer) -> str | None:
    template = load_tokenizer("tiny").chat_template
    chats = [([dict(message) for message in messages], thinking) for messages, thinking in _CHATS]
    told = [answer(messages, thinking) for messages, thinking in chats]
    right = [template.render(messages, enable_thinking=thinking) for messages, thinking in _CHATS]
    for text in told:
        if not isinstance(text, str):
            return f"It returns {type(text).__name__}, and one text, a str, is asked for: join all turns."
    if told == right:
        return None
    for mistake, hint in _TEMPLATE_MISTAKES:
        if told == [mistake(messages, thinking) for messages, thinking in _CHATS]:
            return hint
    text, wanted = next((text, wanted) for text, wanted in zip(told, right) if text != wanted)
    same = next((i for i, (a, b) in enumerate(zip(text, wanted)) if a != b), min(len(text), len(wanted)))
    return (f"Behind {wanted[:same][-20:]!r} the template goes on with {wanted[same:same + 12]!r}, and yours with "
            f"{text[same:same + 12]!r}.")


def _a_list_of_turns(messages: list[dict[str, str]], thinking: bool) -> list[str]:
    return chat_text(messages, thinking).splitlines()


_TEMPLATE = Exercise("10.1", "Write the template", chat_text, _verify_template, (
    *((mistake, hint[:25]) for mistake, hint in _TEMPLATE_MISTAKES),
    (_a_list_of_turns, "one text, a str"),
))

# ---- 10.2 ------------------------------------------------------------------------------------------------


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


_TOKENS_TO_COMPUTE = Exercise("10.2", "What must still be computed", tokens_to_compute, _verify_tokens_to_compute, (
    (_found_instead, "What is asked for is the rest"),
    (_whole_texts_only, "A text need not be found whole"),
    (_equal_tokens_anywhere, "behind the first difference"),
    (_last_text_counts, "the longest common beginning"),
    (_nothing_left, "So at least 1"),
))

# ---- 10.3 ------------------------------------------------------------------------------------------------


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
        gone = answer(root, max_tokens)
        return [node.token_ids[0] for node in gone], _left(root)

    given: Any = answer(_tree(), 24)
    if not isinstance(given, list) or not all(isinstance(node, Node) for node in given):
        return f"It returns a {type(given).__name__}. Return the list of the evicted nodes, the first one first."
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


_MAKE_ROOM = Exercise("10.3", "Make room", evict, _verify_evict, (
    (_inner_nodes_too, "Only a leaf can go"),
    (_newest_first, "the longest ago"),
    (_children_of_the_root, "Look at all leaves"),
    (_ignores_pins, "in use by somebody"),
    (_leaves_once, "anew after each eviction"),
    (_only_names, "delete it from its parent's children"),
    (_everything, "one leaf is enough"),
))

# ---- 10.4 ------------------------------------------------------------------------------------------------


def reuse_share(model: Qwen3Model, prompts: list[list[int]]) -> float:
    """The share of all tokens of these prompts, 0 to 1, that a prefix cache found when they came one by one."""
    prefixes = PrefixCache(model.config)
    for prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
        list(generate_with_prefix(model, ids, 1, None, prefixes))
    return prefixes.stats.reuse_rate


# 20 tokens, of which 0 + 3 + 4 + 2 are found.
_PROMPTS = [[5, 6, 7, 8], [5, 6, 7, 9, 2, 3], [5, 6, 7, 8, 1, 1, 4], [5, 6, 3]]


def _verify_reuse(answer: Answer) -> str | None:
    model = random_model(Qwen3Config(vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=2,
                                     num_attention_heads=2, num_key_value_heads=1, head_dim=8), device="cpu")
    computed: list[int] = []
    watch = model.register_forward_pre_hook(lambda _model, inputs: computed.append(inputs[0].shape[1]))
    try:
        told = answer(model, [list(prompt) for prompt in _PROMPTS])
    finally:
        watch.remove()
    asked = sum(len(prompt) for prompt in _PROMPTS)
    if not isinstance(told, (int, float)):
        return f"It returns {type(told).__name__}, and a share is asked for, a number from 0 to 1."
    if not computed:
        return ("The model has not computed anything. generate_with_prefix is a generator: it works while somebody "
                "takes its tokens, so go through them, by list(...) for example.")
    found = asked - sum(computed)
    if not found:
        return ("Every prompt was computed as a whole. A new PrefixCache knows nothing: make one before the first "
                "prompt, and use it for all.")
    right = reuse_share(model, _PROMPTS)
    if _close(told, right):
        return None
    if _close(told, found):
        return f"That is how many tokens were found, {found}. Divide by the number of tokens in all prompts."
    if _close(told, 1 - right):
        return "That is the share that had to be computed. What is asked for is the rest."
    if _close(told, 3 / 4):
        return ("That is the share of the prompts for which something was found. A prompt of which one token is found "
                "counts there as much as one that is found whole: count tokens.")
    if _close(told, found / (asked - len(_PROMPTS[0]))):
        return "The first prompt is left out. It is asked like the others, and nothing of it is found."
    shares = [0, 3 / 6, 4 / 7, 2 / 3]
    if _close(told, sum(shares) / len(shares)):
        return "That is the mean of the prompts' shares. A long prompt costs more: add up tokens first, divide last."
    return (f"For {asked} tokens, of which {found} are found, it returns {told:.2f}. A share is what was found, "
            "divided by all that was asked.")


def _close(value: float, expected: float) -> bool:
    return abs(value - expected) < 1e-6


def _measured(model: Qwen3Model, prompts: list[list[int]]) -> PrefixCache:
    prefixes = PrefixCache(model.config)
    for prompt in prompts:
        list(generate_with_prefix(model, torch.tensor([prompt], device=model.device), 1, None, prefixes))
    return prefixes


def _nobody_takes_tokens(model: Qwen3Model, prompts: list[list[int]]) -> float:
    prefixes = PrefixCache(model.config)
    for prompt in prompts:
        generate_with_prefix(model, torch.tensor([prompt], device=model.device), 1, None, prefixes)
    return prefixes.stats.reuse_rate


def _a_cache_for_each(model: Qwen3Model, prompts: list[list[int]]) -> float:
    return sum(_measured(model, [prompt]).stats.reuse_rate for prompt in prompts)


def _how_many(model: Qwen3Model, prompts: list[list[int]]) -> int:
    return _measured(model, prompts).stats.tokens_reused


def _computed_share(model: Qwen3Model, prompts: list[list[int]]) -> float:
    return 1 - _measured(model, prompts).stats.reuse_rate


def _hits(model: Qwen3Model, prompts: list[list[int]]) -> float:
    return _measured(model, prompts).stats.hit_rate


def _without_the_first(model: Qwen3Model, prompts: list[list[int]]) -> float:
    return _measured(model, prompts).stats.tokens_reused / sum(len(prompt) for prompt in prompts[1:])


def _mean_of_shares(model: Qwen3Model, prompts: list[list[int]]) -> float:
    prefixes, shares, before = PrefixCache(model.config), [], 0
    for prompt in prompts:
        list(generate_with_prefix(model, torch.tensor([prompt], device=model.device), 1, None, prefixes))
        shares.append((prefixes.stats.tokens_reused - before) / len(prompt))
        before = prefixes.stats.tokens_reused
    return sum(shares) / len(shares)


_REUSE = Exercise("10.4", "Measure the reuse", reuse_share, _verify_reuse, (
    (_nobody_takes_tokens, "is a generator"),
    (_a_cache_for_each, "use it for all"),
    (_how_many, "Divide by the number of tokens"),
    (_computed_share, "had to be computed"),
    (_hits, "count tokens"),
    (_without_the_first, "is left out"),
    (_mean_of_shares, "divide last"),
))

EXERCISES: tuple[Exercise, ...] = (_TEMPLATE, _TOKENS_TO_COMPUTE, _MAKE_ROOM, _REUSE)
