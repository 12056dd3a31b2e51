"""Exercises of chapter 10: a chat template, what a prompt still costs, which cached stretches go, what was reused."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from course_utils.exercises.answers import NotYet, describe, items, number, whole
from course_utils.exercises.answers import text as one_text
from course_utils.exercises.calls import calls_of
from course_utils.exercises.chapters.varied_model import varied_model, watched
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.language import gettext
from course_utils.loading import load_tokenizer
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


def _no_break_after_the_role(messages: list[dict[str, str]], thinking: bool) -> str:
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


def _stripped(messages: list[dict[str, str]], thinking: bool) -> str:
    return chat_text([{**message, "content": message["content"].strip()} for message in messages], thinking)


def _newest_first(messages: list[dict[str, str]], thinking: bool) -> str:
    return chat_text(messages[::-1], thinking)


def _without_system(messages: list[dict[str, str]], thinking: bool) -> str:
    return chat_text([message for message in messages if message["role"] != "system"], thinking)


def _all_users(messages: list[dict[str, str]], thinking: bool) -> str:
    return chat_text([{**message, "role": "user"} for message in messages], thinking)


def _no_end_of_turns(messages: list[dict[str, str]], thinking: bool) -> str:
    return chat_text(messages, thinking).replace("<|im_end|>", "")


def _no_break_after_the_thoughts(messages: list[dict[str, str]], thinking: bool) -> str:
    return chat_text(messages, True) + ("" if thinking else "<think>\n\n</think>")


def _no_line_between_thoughts(messages: list[dict[str, str]], thinking: bool) -> str:
    return chat_text(messages, True) + ("" if thinking else "<think>\n</think>\n\n")


# What one may have written instead, the likeliest slip first.
_TEMPLATE_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_last_message_alone, "Only the last message is written. The model keeps nothing between two answers: write all of "
                          "them, oldest first."),
    (_nobody_answers, "It ends with the user's turn, and the text could go on with anybody's. Add the generation "
                      "prompt, which opens the assistant's turn."),
    (_closed_at_once, "The assistant's turn is closed before it has begun. Its <|im_end|> is for the model to write."),
    (_no_break_between_turns, "After <|im_end|> comes a line break, too, before the next turn."),
    (_no_role, "Nobody can see who speaks: the role comes after <|im_start|>, on the same line."),
    (_no_break_after_the_role, "After the role comes a line break, \\n, and then the text."),
    (_no_end_of_turns, "No turn is closed: after each content comes <|im_end|>."),
    (_deaf_to_the_switch, "With thinking off, an empty block of thoughts is part of the generation prompt. Print the "
                          "cell above once more: it has an empty line inside and one after it."),
    (_upside_down, "It is the other way round: with thinking on, the model opens its thoughts itself; with thinking "
                   "off, an empty block is written for it."),
    (_no_break_after_the_thoughts, "After </think> come two line breaks, and then the model's answer."),
    (_no_line_between_thoughts, "Between <think> and </think> stands an empty line: two line breaks."),
    (_stripped, "The contents are stripped. Spaces and line breaks at their ends belong to them: leave them."),
    (lambda messages, thinking: chat_text(messages, thinking).strip(),
     "The text is stripped. It ends with a line break, after which the model begins."),
    (_newest_first, "The newest message stands first. A conversation is written as it went, the oldest first."),
    (_without_system, "The system's message is missing. It is written like all others."),
    (_all_users, "All turns are the user's. Write the role that each message has."),
)
_CHATS: tuple[tuple[list[dict[str, str]], bool], ...] = (
    ([{"role": "user", "content": "Hello!"}], True),
    ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "你好！\n你是谁？"}], True),
    ([{"role": "user", "content": "Hello!"}], False),
    ([{"role": "system", "content": " Be brief.\n"}, {"role": "user", "content": "Hello! "},
      {"role": "assistant", "content": "Hello! How can I help you? "}, {"role": "user", "content": ""}], False),
    ([{"role": "user", "content": "\n  def f(x):\n"}, {"role": "assistant", "content": "    return x"},
      {"role": "user", "content": "\tAnd then?"}], True),
)


def _verify_template(answer: Answer) -> str | None:
    template = load_tokenizer("tiny").chat_template
    told = [one_text(answer([dict(message) for message in messages], thinking), "one text, a str: all turns, joined")
            for messages, thinking in _CHATS]
    right = [template.render(messages, enable_thinking=thinking) for messages, thinking in _CHATS]
    if told == right:
        return None
    for slip, hint in _TEMPLATE_SLIPS:
        if told == [slip(messages, thinking) for messages, thinking in _CHATS]:
            return hint
    given, wanted = next((given, wanted) for given, wanted in zip(told, right) if given != wanted)
    same = next((i for i, (a, b) in enumerate(zip(given, wanted)) if a != b), min(len(given), len(wanted)))
    return gettext("After {wanted!r} the template goes on with {next_wanted!r}, and yours with {given!r}.").format(
        wanted=wanted[:same][-20:], next_wanted=wanted[same:same + 12], given=given[same:same + 12])


def _joined(messages: list[dict[str, str]], thinking: bool) -> str:
    turns = ["<|im_start|>{role}\n{content}<|im_end|>".format(**message) for message in messages]
    opened = "<|im_start|>assistant" + ("" if thinking else "\n<think>\n\n</think>\n")
    return "\n".join([*turns, opened, ""])


def _by_recursion(messages: list[dict[str, str]], thinking: bool) -> str:
    if not messages:
        return _OPEN + _NO_THOUGHTS * (not thinking)
    first, *rest = messages
    return "<|im_start|>" + first["role"] + "\n" + first["content"] + "<|im_end|>\n" + _by_recursion(rest, thinking)


_TEMPLATE = Exercise("10.1", "Write the template", chat_text, _verify_template, wrong=(
    *((slip, hint[:30]) for slip, hint in _TEMPLATE_SLIPS),
    (lambda messages, thinking: chat_text(messages, thinking).splitlines(), "one text, a str"),
    (lambda messages, thinking: chat_text(messages, thinking).replace("|", ""), "the template goes on with"),
    (lambda messages, thinking: print(end=""), "returned None"),
), also_wrong=(
    lambda messages, thinking: chat_text(messages, thinking).lower(),
    lambda messages, thinking: chat_text(messages[:1], thinking),
    lambda messages, thinking: chat_text(messages[-2:], thinking),
    lambda messages, thinking: chat_text([message for message in messages if message["content"]], thinking),
    lambda messages, thinking: chat_text(messages, thinking) + "\n",
    lambda messages, thinking: chat_text(messages, thinking).encode(),
), right=(
    _joined,
    _by_recursion,
    lambda messages, thinking: load_tokenizer("tiny").chat_template.render(messages, enable_thinking=thinking),
    lambda messages, thinking: chat_text(messages=messages, thinking=thinking),
))

# ---- 10.2 ------------------------------------------------------------------------------------------------


def tokens_to_compute(prompt: list[int], cached: list[list[int]]) -> int:
    longest = 0
    for text in cached:
        common = 0
        while common < min(len(prompt), len(text)) and prompt[common] == text[common]:
            common += 1
        longest = max(longest, common)
    # The logits after the last token are not in the cache, so that token is always computed.
    return max(len(prompt) - longest, 1)


# Prompt, cached texts, and what to look at if the answer differs; the likeliest slips first.
_PROMPTS_AND_TEXTS: tuple[tuple[list[int], list[list[int]], str], ...] = (
    ([5, 6, 7, 8, 9], [], "With nothing in the cache all 5 tokens of a prompt must be computed."),
    ([5, 6, 7, 8, 9], [[5, 6, 1, 2]],
     "The prompt 5 6 7 8 9 and the cached text 5 6 1 2 share their first two tokens, so 3 are left to compute."),
    ([5, 6, 7, 8, 9], [[5, 6, 7]], "Of the prompt 5 6 7 8 9 the cached text 5 6 7 leaves 2 tokens."),
    ([5, 6, 7, 8, 9], [[5, 1, 7, 8, 9]],
     "The prompt 5 6 7 8 9 and the cached text 5 1 7 8 9 share their beginning, 5, and no more: after the first "
     "difference keys and values are others, even of equal tokens. Stop there."),
    ([5, 6, 7, 8, 9], [[6, 7, 8]],
     "The text 6 7 8 occurs inside the prompt 5 6 7 8 9, but not at its beginning: nothing can be reused."),
    ([7, 8, 9], [[5, 6, 7, 8, 9]],
     "The prompt 7 8 9 occurs inside the cached text 5 6 7 8 9, but not at its beginning. Its keys and values were "
     "computed after 5 6, so nothing can be reused."),
    ([5, 6, 7, 8, 9], [[5, 6, 7, 1], [5, 2]], "Of the cached texts 5 6 7 1 and 5 2 the first leaves only 2 tokens."),
    ([5, 6, 7, 8, 9], [[5, 2, 8, 9, 9, 9], [5, 6, 7, 1]],
     "Of the cached texts 5 2 8 9 9 9 and 5 6 7 1 the second leaves only 2 tokens. The longest common beginning "
     "counts, wherever it stands in the list."),
    ([5, 6, 7, 8, 9], [[5, 1], [5, 6, 3, 3, 3, 3], [5, 6, 7, 2]],
     "Of the cached texts 5 1, 5 6 3 3 3 3 and 5 6 7 2 the last leaves only 2 tokens. The longest common beginning "
     "counts, not the longest text."),
    ([4, 1, 2, 3, 3, 3], [[4, 1], [4, 1, 3], [4]],
     "The beginnings that several texts share with the prompt do not add up: the longest counts."),
    ([5, 6, 7], [[5, 6, 7, 8]], "When the whole prompt is found, the next token is still missing: its logits come from "
                                "computing the last token of the prompt. So at least 1."),
    ([5, 6, 7], [[5, 6, 7]], "When the cached text is the prompt itself, the last token must still be computed, for "
                             "its logits. So at least 1."),
    ([0, 0, 3], [[0, 0]], "Of the prompt 0 0 3 the cached text 0 0 leaves 1 token. Is 0 a token like any other?"),
    ([4], [[4, 4]], "A prompt of one token is always computed, for its logits."),
    ([4], [], "A prompt of one token is always computed, for its logits."),
    ([3, 1], [[], [2]], "An empty cached text, or one that begins otherwise, leaves both tokens of the prompt 3 1."),
)


def _found_instead(prompt: list[int], cached: list[list[int]]) -> int:
    return max((_common(prompt, text) for text in cached), default=0)


def _common(one: list[int], other: list[int]) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def _whole_texts_only(prompt: list[int], cached: list[list[int]]) -> int:
    found = max((len(text) for text in cached if prompt[:len(text)] == text), default=0)
    return max(len(prompt) - found, 1)


def _whole_prompts_only(prompt: list[int], cached: list[list[int]]) -> int:
    return 1 if any(text[:len(prompt)] == prompt for text in cached) else len(prompt)


def _equal_tokens_anywhere(prompt: list[int], cached: list[list[int]]) -> int:
    found = max((sum(a == b for a, b in zip(prompt, text)) for text in cached), default=0)
    return max(len(prompt) - found, 1)


def _same_tokens_in_any_order(prompt: list[int], cached: list[list[int]]) -> int:
    held = {token for text in cached for token in text}
    return max(sum(token not in held for token in prompt), 1)


def _found_inside(prompt: list[int], cached: list[list[int]]) -> int:
    """A beginning of the prompt counts wherever it stands in a cached text."""
    found = max((_common(prompt, text[start:]) for text in cached for start in range(len(text))), default=0)
    return max(len(prompt) - found, 1)


def _last_text_counts(prompt: list[int], cached: list[list[int]]) -> int:
    return tokens_to_compute(prompt, cached[-1:])


def _first_text_counts(prompt: list[int], cached: list[list[int]]) -> int:
    return tokens_to_compute(prompt, cached[:1])


def _longest_text_counts(prompt: list[int], cached: list[list[int]]) -> int:
    return tokens_to_compute(prompt, sorted(cached, key=len)[-1:])


def _added_up(prompt: list[int], cached: list[list[int]]) -> int:
    return max(len(prompt) - sum(_common(prompt, text) for text in cached), 1)


def _nothing_left(prompt: list[int], cached: list[list[int]]) -> int:
    return tokens_to_compute([*prompt, -1], cached) - 1


def _one_more_always(prompt: list[int], cached: list[list[int]]) -> int:
    return min(tokens_to_compute([*prompt, -1], cached), len(prompt))


# What one may have counted instead, the likeliest slip first.
_COMPUTE_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_found_instead, "You return how many tokens are found. What is asked for is the rest."),
    (_nothing_left, "When the whole prompt is found, you return 0, but the next token is still missing: its logits "
                    "come from computing the last token of the prompt. So at least 1."),
    (_whole_texts_only, "You count a cached text only if the prompt begins with all of it. Its beginning helps, too."),
    (_whole_prompts_only, "You count a cached text only if it holds the whole prompt. A part of it helps, too."),
    (_found_inside, "You find the prompt's beginning anywhere in a cached text. What stands there was computed after "
                    "other tokens, so its keys and values are others: compare from the first token on."),
    (_equal_tokens_anywhere, "You count equal tokens after the first difference, too. Keys and values depend on all "
                             "tokens before, so stop there."),
    (_same_tokens_in_any_order, "You count tokens that occur in some cached text. They have to stand at its beginning, "
                                "in the same order."),
    (_last_text_counts, "The last cached text decides. Look for the longest common beginning among all of them."),
    (_first_text_counts, "The first cached text decides. Look for the longest common beginning among all of them."),
    (_longest_text_counts, "The longest cached text decides. What counts is the longest beginning that it has in "
                           "common with the prompt."),
    (_added_up, "You add up what several texts have in common with the prompt. The longest counts, alone."),
    (_one_more_always, "One more than needed: only where the whole prompt is found, its last token is computed again."),
)


def _verify_tokens_to_compute(answer: Answer) -> str | None:
    told = [whole(answer(list(prompt), [list(text) for text in cached]),
                  "one whole number: how many tokens of the prompt go through the model")
            for prompt, cached, _ in _PROMPTS_AND_TEXTS]
    right = [tokens_to_compute(prompt, cached) for prompt, cached, _ in _PROMPTS_AND_TEXTS]
    if told == right:
        return None
    for slip, hint in _COMPUTE_SLIPS:
        if told == [slip(prompt, cached) for prompt, cached, _ in _PROMPTS_AND_TEXTS]:
            return hint
    at = next(at for at, given in enumerate(told) if given != right[at])
    return gettext("{case} You return {told}.").format(case=gettext(_PROMPTS_AND_TEXTS[at][2]), told=told[at])


def _in_one_line(prompt: list[int], cached: list[list[int]]) -> int:
    found = [length for text in cached for length in range(1, len(prompt)) if text[:length] == prompt[:length]]
    return len(prompt) - max(found, default=0)


def _from_a_set(prompt: list[int], cached: list[list[int]]) -> int:
    held = {tuple(text[:length]) for text in cached for length in range(len(text) + 1)}
    rest = 1
    while rest < len(prompt) and tuple(prompt[:-rest]) not in held:
        rest += 1
    return rest


def _with_numpy(prompt: list[int], cached: list[list[int]]) -> Any:
    best = np.int64(0)
    for text in cached:
        shared = min(len(text), len(prompt))
        same = np.array(text[:shared]) == np.array(prompt[:shared])
        best = max(best, np.cumprod(same).sum().astype(np.int64))
    return max(len(prompt) - best, np.int64(1))


_TOKENS_TO_COMPUTE = Exercise("10.2", "What must still be computed", tokens_to_compute, _verify_tokens_to_compute, (
    *((slip, hint[:45]) for slip, hint in _COMPUTE_SLIPS),
    (lambda prompt, cached: tokens_to_compute(prompt, cached) if cached else 0, "nothing in the cache"),
    (lambda prompt, cached: tokens_to_compute(prompt, cached) / len(prompt), "how many tokens of the prompt"),
    (lambda prompt, cached: print(end=""), "returned None"),
), also_wrong=(
    lambda prompt, cached: max(len(prompt) - max(map(len, cached), default=0), 1),
    lambda prompt, cached: tokens_to_compute(prompt[::-1], [text[::-1] for text in cached]),
    lambda prompt, cached: tokens_to_compute(prompt, [text for text in cached if len(text) <= len(prompt)]),
    lambda prompt, cached: tokens_to_compute(prompt, [text for text in cached if all(text)]),
    lambda prompt, cached: min(tokens_to_compute(prompt, cached), 4),
), right=(
    _in_one_line,
    _from_a_set,
    _with_numpy,
    lambda prompt, cached: max(1, len(prompt) - max((_common(prompt, text) for text in cached), default=0)),
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


def _tree(*pinned: int) -> Node:
    """A system prompt, 10, with two chats, 20 and 30, of which the first has a second turn, 40; other examples, 50.

    A node was used whenever one below it was, so of two on one path the upper one is never older.
    """
    root = Node((), [], None)
    system = _grow(root, 10, 4, last_used=5)
    first = _grow(system, 20, 3, last_used=2)
    nodes = (system, first, _grow(system, 30, 6, last_used=5), _grow(first, 40, 5, last_used=2),
             _grow(root, 50, 7, last_used=4))
    for node in nodes:
        node.pins = 1 if node.token_ids[0] in pinned else 0
    return root


def _other_tree(*pinned: int) -> Node:
    """Texts without a common beginning, one of which begins with token 0 and was used at 0."""
    root = Node((), [], None)
    nodes = (_grow(root, 60, 2, last_used=9), _grow(root, 0, 9, last_used=0), _grow(root, 70, 1, last_used=6),
             _grow(root, 80, 3, last_used=8))
    deep = (_grow(nodes[2], 90, 8, last_used=6), _grow(nodes[2], 95, 2, last_used=3))
    for node in (*nodes, *deep):
        node.pins = 2 if node.token_ids[0] in pinned else 0
    return root


# A tree, nodes that are pinned in it, and a budget. The trees have 25 and 25 tokens.
_BUDGETS: tuple[tuple[Callable[..., Node], tuple[int, ...], int], ...] = (
    (_tree, (), 25), (_tree, (), 24), (_tree, (), 18), (_tree, (40,), 24), (_tree, (), 0), (_tree, (10,), 0),
    (_tree, (), 20), (_other_tree, (), 24), (_other_tree, (), 14), (_other_tree, (95,), 14), (_other_tree, (0, 90), 3),
    (_other_tree, (), 30),
)


def _left(root: Node) -> set[int]:
    """The nodes that a tree still has, each by its first token."""
    return {first for child in root.children.values() for first in (child.token_ids[0], *_left(child))}


def _evictions(answer: Answer) -> list[tuple[list[int], set[int]]]:
    """For each budget which nodes went, in their order, and which are left, each by its first token."""
    told = []
    asked = "the list of the evicted nodes, the first one first"
    for tree, pinned, max_tokens in _BUDGETS:
        root = tree(*pinned)
        gone = items(answer(root, max_tokens), asked)
        for node in gone:
            if not isinstance(node, Node):
                raise NotYet(gettext("an entry of what it returned is {describe}. Return {asked}.").format(
                    describe=describe(node), asked=gettext(asked)))
            if not node.token_ids:
                raise NotYet("It evicts the root, which holds no tokens and always stays.")
        told.append(([node.token_ids[0] for node in gone], _left(root)))
    return told


def _verify_evict(answer: Answer) -> str | None:
    told, right = _evictions(answer), _evictions(evict)
    if told == right:
        return None
    for slip, hint in _EVICT_SLIPS:
        if told == _evictions(slip):
            return hint
    at = next(at for at, one in enumerate(told) if one != right[at])
    _, pinned, max_tokens = _BUDGETS[at]
    first = "".join(gettext(", while the node that starts with {token} is pinned").format(
        token=token) for token in pinned)
    if told[at][0] == right[at][0]:
        return gettext("With 25 tokens and a budget of {max_tokens}{first} you name the right nodes, but those left in "
                       "the tree start with {told}, and not with {right}.").format(
            max_tokens=max_tokens, first=first, told=sorted(told[at][1]), right=sorted(right[at][1]))
    return gettext("With 25 tokens and a budget of {max_tokens}{first}, the nodes that start with {right} go, in this "
                   "order, and yours are {told}. Which leaf was used least recently, after each eviction?").format(
        max_tokens=max_tokens, first=first, right=right[at][0], told=told[at][0])


def _inner_nodes_too(root: Node, max_tokens: int) -> list[Node]:
    nodes = sorted(_all(root), key=lambda node: node.last_used)
    gone = []
    while sum(len(node.token_ids) for node in _all(root)) > max_tokens:
        node = next((node for node in nodes if not node.pins and node not in gone), None)
        if node is None:
            break
        assert node.parent is not None
        node.parent.children.pop(node.token_ids[0], None)
        gone.append(node)
    return gone


def _all(root: Node) -> list[Node]:
    return [found for child in root.children.values() for found in (child, *_all(child))]


def _size(root: Node) -> int:
    return sum(len(node.token_ids) for node in _all(root))


def _evict_by(root: Node, max_tokens: int, candidates: Callable[[], list[Node]],
              key: Callable[[Node], int] = lambda node: node.last_used,
              size: Callable[[Node], int] = _size) -> list[Node]:
    """Evict while there are candidates, the one with the smallest key first."""
    gone: list[Node] = []
    while size(root) > max_tokens and (nodes := candidates()):
        node = min(nodes, key=key)
        assert node.parent is not None
        del node.parent.children[node.token_ids[0]]
        gone.append(node)
    return gone


def _free_leaves(root: Node) -> list[Node]:
    return [node for node in _all(root) if not node.children and not node.pins]


def _newest_leaf_first(root: Node, max_tokens: int) -> list[Node]:
    return _evict_by(root, max_tokens, lambda: _free_leaves(root), key=lambda node: -node.last_used)


def _largest_leaf_first(root: Node, max_tokens: int) -> list[Node]:
    return _evict_by(root, max_tokens, lambda: _free_leaves(root), key=lambda node: -len(node.token_ids))


def _children_of_the_root(root: Node, max_tokens: int) -> list[Node]:
    return _evict_by(root, max_tokens, lambda: [node for node in _free_leaves(root) if node.parent is root])


def _ignores_pins(root: Node, max_tokens: int) -> list[Node]:
    return _evict_by(root, max_tokens, lambda: [node for node in _all(root) if not node.children])


def _leaves_once(root: Node, max_tokens: int) -> list[Node]:
    first = _free_leaves(root)
    return _evict_by(root, max_tokens, lambda: [node for node in first if node in _free_leaves(root)])


def _counts_nodes(root: Node, max_tokens: int) -> list[Node]:
    return _evict_by(root, max_tokens, lambda: _free_leaves(root), size=lambda top: len(_all(top)))


def _one_to_spare(root: Node, max_tokens: int) -> list[Node]:
    return _evict_by(root, max_tokens - 1, lambda: _free_leaves(root))


def _a_single_one(root: Node, max_tokens: int) -> list[Node]:
    return evict(root, max(max_tokens, _size(root) - 1))


def _only_names(root: Node, max_tokens: int) -> list[Node]:
    return evict(copy.deepcopy(root), max_tokens)


def _everything(root: Node, max_tokens: int) -> list[Node]:
    return evict(root, 0) if _size(root) > max_tokens else []


def _last_one_first(root: Node, max_tokens: int) -> list[Node]:
    return evict(root, max_tokens)[::-1]


def _and_all_the_rest(root: Node, max_tokens: int) -> list[Node]:
    gone = evict(root, max_tokens)
    root.children.clear()
    return gone


# What one may have evicted instead, the likeliest slip first.
_EVICT_SLIPS: tuple[tuple[Answer, str], ...] = (
    (lambda root, max_tokens: [], "Nothing ever goes, though the tree has 25 tokens and the budget is less."),
    (_only_names, "You name a node but leave it in the tree: delete it from its parent's children."),
    (_inner_nodes_too, "The node that starts with 20 has a child, whose keys were computed after it and are of no use "
                       "without it. Only a leaf can go."),
    (_newest_leaf_first, "You evict what was used last. last_used is a clock: the smallest is the longest ago."),
    (_a_single_one, "One leaf goes and no more, even if the rest does not fit. Go on until it does."),
    (_everything, "Once it is too much, everything goes. Stop as soon as the rest fits."),
    (_one_to_spare, "With 25 tokens and a budget of 25 nothing need go: that is no more than the budget."),
    (_children_of_the_root, "You look at the root's children alone. The oldest leaf may be deeper in the tree: look "
                            "at all leaves."),
    (_leaves_once, "After its only child has gone, the node 20 is a leaf itself, and older than 50. Look for the "
                   "leaves anew after each eviction."),
    (_ignores_pins, "A node with pins is in use by somebody just now: it must stay, however old it is."),
    (_counts_nodes, "You count nodes. max_tokens is about tokens: the lengths of token_ids, added up."),
    (_largest_leaf_first, "The longest stretch goes first. It is the one that was not used for the longest time."),
    (_last_one_first, "The right nodes go, but the list is the wrong way round: the one that went first comes first."),
)


def _by_the_parents(root: Node, max_tokens: int) -> tuple[Node, ...]:
    gone: list[Node] = []
    total = _size(root)
    while total > max_tokens:
        leaves = sorted(_free_leaves(root), key=lambda node: node.last_used)
        if not leaves:
            break
        leaf = leaves[0]
        assert leaf.parent is not None
        leaf.parent.children.pop(leaf.token_ids[0])
        total -= len(leaf.token_ids)
        gone.append(leaf)
    return tuple(gone)


def _one_by_one(root: Node, max_tokens: int) -> Iterator[Node]:
    while _size(root) > max_tokens and (leaves := _free_leaves(root)):
        leaf = min(leaves, key=lambda node: node.last_used)
        assert leaf.parent is not None
        leaf.parent.children = {first: node for first, node in leaf.parent.children.items() if node is not leaf}
        yield leaf


def _recursively(root: Node, max_tokens: int) -> list[Node]:
    leaves = _free_leaves(root)
    if _size(root) <= max_tokens or not leaves:
        return []
    leaf = min(leaves, key=lambda node: node.last_used)
    assert leaf.parent is not None
    del leaf.parent.children[leaf.token_ids[0]]
    return [leaf] + _recursively(root, max_tokens)


_MAKE_ROOM = Exercise("10.3", "Make room", evict, _verify_evict, (
    *((slip, hint[:40]) for slip, hint in _EVICT_SLIPS),
    (lambda root, max_tokens: len(evict(root, max_tokens)), "the first one first"),
    (lambda root, max_tokens: [node.last_used for node in evict(root, max_tokens)], "an entry of what it returned"),
    (_and_all_the_rest, "left in the tree"),
    (lambda root, max_tokens: [root], "evicts the root"),
    (lambda root, max_tokens: evict(root, 20), "in this order, and yours"),
    (lambda root, max_tokens: print(end=""), "returned None"),
), also_wrong=(
    lambda root, max_tokens: evict(root, max_tokens // 2),
    lambda root, max_tokens: evict(root, max_tokens)[:1],
    lambda root, max_tokens: evict(root, 24),
    lambda root, max_tokens: set(evict(root, max_tokens)),
    lambda root, max_tokens: evict(root.children[next(iter(root.children))], max_tokens),
), right=(
    _by_the_parents,
    _one_by_one,
    _recursively,
    lambda root, max_tokens: evict(root=root, max_tokens=max_tokens),
), equivalent={
    "`return [top, *(node for child in top.children.values() for node in nodes(child))]` to "
    "`return [*(node for child in top.children.values() for node in nodes(child)), top]`":
        "In which order the nodes are listed does not matter: no two leaves were used at the same time.",
})

# ---- 10.4 ------------------------------------------------------------------------------------------------


def reuse_share(model: Qwen3Model, prompts: list[list[int]]) -> float:
    """The share of all tokens of these prompts, 0 to 1, that a prefix cache found when they came one by one."""
    prefixes = PrefixCache(model.config)
    for prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
        list(generate_with_prefix(model, ids, 1, None, prefixes))
    return prefixes.stats.reuse_rate


# Of the first 20 tokens 0 + 3 + 4 + 2 are found; then prompts that are sent twice, and two that share nothing.
_READ = (
    [[5, 6, 7, 8], [5, 6, 7, 9, 2, 3], [5, 6, 7, 8, 1, 1, 4], [5, 6, 3]],
    [[8, 0, 9], [8, 0, 9], [1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 8]],
    [[5, 6], [7, 8, 9]],
)


def _verify_reuse(answer: Answer) -> str | None:
    told, right, found = [], [], []
    for seed, prompts in enumerate(_READ):
        model = varied_model(seed)
        with watched(model) as seen, calls_of(PrefixCache, "__init__") as made:
            told.append(number(answer(model, [list(prompt) for prompt in prompts]), "a share, a number from 0 to 1"))
        if not made:
            return "The share is to be measured: make a PrefixCache, and let the model read all prompts with it."
        if not seen:
            return ("The model has not computed anything. generate_with_prefix is a generator: it works while somebody "
                    "takes its tokens, so go through them, by list(...) for example.")
        right.append(reuse_share(model, prompts))
        found.append(_measured(model, prompts).stats.tokens_reused)
    if _near(told, right):
        return None
    for slip, hint in _REUSE_SLIPS:
        if _near(told, [slip(varied_model(seed), prompts) for seed, prompts in enumerate(_READ)]):
            return hint
    at = next(at for at, share in enumerate(told) if not _near([share], [right[at]]))
    asked = sum(map(len, _READ[at]))
    return gettext("For {count} prompts of {asked} tokens in all, of which {found} are found, it returns {told:.3g}, "
                   "and {right:.3g} is right: what was found, divided by all that was asked.").format(
        count=len(_READ[at]), asked=asked, found=found[at], told=told[at], right=right[at])


def _near(given: list[float], expected: list[float]) -> bool:
    return all(abs(one - other) < 1e-6 for one, other in zip(given, expected))


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


def _for_each_prompt(model: Qwen3Model, prompts: list[list[int]]) -> float:
    return _measured(model, prompts).stats.tokens_reused / len(prompts)


def _without_the_first(model: Qwen3Model, prompts: list[list[int]]) -> float:
    return _measured(model, prompts).stats.tokens_reused / sum(len(prompt) for prompt in prompts[1:])


def _found_to_computed(model: Qwen3Model, prompts: list[list[int]]) -> float:
    stats = _measured(model, prompts).stats
    return stats.tokens_reused / (stats.tokens_asked - stats.tokens_reused)


def _in_percent(model: Qwen3Model, prompts: list[list[int]]) -> float:
    return 100 * reuse_share(model, prompts)


def _mean_of_shares(model: Qwen3Model, prompts: list[list[int]]) -> float:
    shares = _shares(model, prompts)
    return sum(shares) / len(shares)


def _of_the_last(model: Qwen3Model, prompts: list[list[int]]) -> float:
    return _shares(model, prompts)[-1]


def _shares(model: Qwen3Model, prompts: list[list[int]]) -> list[float]:
    """The share of each prompt that is found."""
    prefixes, shares, before = PrefixCache(model.config), [], 0
    for prompt in prompts:
        list(generate_with_prefix(model, torch.tensor([prompt], device=model.device), 1, None, prefixes))
        shares.append((prefixes.stats.tokens_reused - before) / len(prompt))
        before = prefixes.stats.tokens_reused
    return shares


# What one may have returned instead, the likeliest slip first.
_REUSE_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_a_cache_for_each, "Nothing is ever found. A new PrefixCache knows nothing: make one before the first prompt, and "
                        "use it for all."),
    (_how_many, "That is how many tokens were found. Divide by the number of tokens in all prompts."),
    (_computed_share, "That is the share that had to be computed. What is asked for is the rest."),
    (_hits, "That is the share of the prompts for which something was found. A prompt of which one token is found "
            "counts there as much as one that is found whole: count tokens."),
    (_mean_of_shares, "That is the mean of the prompts' shares. A long prompt costs more: add up tokens first, divide "
                      "last."),
    (_of_the_last, "That is the share of the last prompt. The tokens of all prompts count."),
    (_without_the_first, "The first prompt is left out. It is asked like the others, and nothing of it is found."),
    (_for_each_prompt, "That is divided by the number of prompts. Divide by the number of their tokens."),
    (_found_to_computed, "That is what was found, divided by what was not. Divide by all that was asked."),
    (_in_percent, "These are per cent. Return a share, from 0 to 1."),
)


def _own_tree(model: Qwen3Model, prompts: list[list[int]]) -> float:
    found = sum(max([0, *(min(_common(prompt, other), len(prompt) - 1) for other in prompts[:at])])
                for at, prompt in enumerate(prompts))
    return found / sum(map(len, prompts))


def _from_the_counts(model: Qwen3Model, prompts: list[list[int]]) -> float:
    prefixes = PrefixCache(config=model.config)
    for prompt in prompts:
        for _ in generate_with_prefix(model, torch.tensor(prompt)[None], 1, None, prefixes):
            pass
    return prefixes.stats.tokens_reused / prefixes.stats.tokens_asked


def _by_matching(model: Qwen3Model, prompts: list[list[int]]) -> float:
    prefixes, found = PrefixCache(model.config), 0
    for prompt in prompts:
        with prefixes.match(prompt, at_most=len(prompt) - 1) as match:
            found += match.length
            with torch.no_grad():
                model(torch.tensor([prompt[match.length:]]), cache=match.cache)
            prefixes.insert(prompt, match.cache)
    return found / sum(len(prompt) for prompt in prompts)


def _taking_one_token(model: Qwen3Model, prompts: list[list[int]]) -> Any:
    prefixes, before = PrefixCache(model.config, max_tokens=10_000), []
    for prompt in prompts:
        next(generate_with_prefix(model, torch.tensor([prompt]), 1, [], prefixes))
        before.append(len(prompt))
    return torch.tensor(prefixes.stats.tokens_reused) / torch.tensor(before).sum()


_REUSE = Exercise("10.4", "Measure the reuse", reuse_share, _verify_reuse, (
    (_own_tree, "is to be measured"),
    (_nobody_takes_tokens, "is a generator"),
    *((slip, hint[:45]) for slip, hint in _REUSE_SLIPS),
    (lambda model, prompts: reuse_share(model, prompts[::-1]), "divided by all that was asked"),
    (lambda model, prompts: _measured(model, prompts).stats, "a number from 0 to 1"),
    (lambda model, prompts: print(end=""), "returned None"),
), also_wrong=(
    lambda model, prompts: reuse_share(model, [*prompts, *prompts]),
    lambda model, prompts: reuse_share(model, prompts[:2]),
    lambda model, prompts: round(reuse_share(model, prompts), 1),
    lambda model, prompts: reuse_share(model, [sorted(prompt) for prompt in prompts]),
    lambda model, prompts: _hits(model, prompts) * reuse_share(model, prompts),
), right=(
    _from_the_counts,
    _by_matching,
    _taking_one_token,
    lambda model, prompts: reuse_share(model=model, prompts=prompts),
), equivalent={
    "`ids = torch.tensor([prompt], device=model.device)` to `ids = torch.tensor([prompt])`":
        "The models of the check are on the CPU, where a tensor is without a device being named.",
    "`list(generate_with_prefix(model, ids, 1, None, prefixes))` to "
    "`list(generate_with_prefix(model, ids, 2, None, prefixes))`":
        "One new token is enough, and two do no harm: the share is that of the prompts.",
})

EXERCISES: tuple[Exercise, ...] = (_TEMPLATE, _TOKENS_TO_COMPUTE, _MAKE_ROOM, _REUSE)
