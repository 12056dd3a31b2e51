"""Exercises of chapter 14, fine-tuning and LoRA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_utils.exercises.exercise import Exercise
from course_utils.family import FAMILY
from course_utils.lora import TARGETS, Adapters, LoRA, count_trainable
from course_utils.qwen3 import Qwen3Model
from course_utils.training.dataset import IGNORED

# ---- 14.1 ------------------------------------------------------------------------------------------------


def lora_forward(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    rank = A.shape[0]
    low = x @ A.T  # (..., rank): through the narrow place
    return x @ W.T + low @ B.T * (alpha / rank)


def _verify_forward(answer: Callable[..., Any]) -> str | None:
    generator = torch.Generator().manual_seed(14)
    x, W, A, B = (torch.randn(shape, generator=generator) for shape in ((2, 3, 6), (5, 6), (4, 6), (5, 4)))
    own, low = x @ W.T, x @ A.T @ B.T
    before = [tensor.clone() for tensor in (x, W, A, B)]
    told = answer(x, W, A, B, 8.0)
    if any(not torch.equal(*pair) for pair in zip((x, W, A, B), before)):
        return "One of the arguments has been changed. W in particular must stay as it is: add to the output instead."
    if not isinstance(told, Tensor):
        return f"It returns {type(told).__name__}, and a tensor is asked for."
    if told.shape != own.shape:
        return f"For x of shape {tuple(x.shape)} the result has shape {tuple(told.shape)}, not {tuple(own.shape)}."
    for wrong, hint in (
        (own, "The result is that of the layer alone: what A and B compute is not added."),
        (low * 2, "The result is that of A and B alone: the layer's own output, x @ W.T, is a part of it."),
        (own + low, "A and B are added without their factor: multiply what they compute by alpha / rank."),
        (own + low * 8, "What A and B compute is multiplied by alpha alone: the factor is alpha / rank."),
        ((own + low) * 2, "The factor alpha / rank is on the layer's own output too: it is for the adapter alone."),
        (own + low / 2, "The factor is upside down: it is alpha / rank, and the rank is the number of rows of A."),
        (own + low * 8 / 6, "You divide alpha by the number of columns of A, and the rank is the number of its rows."),
    ):
        if torch.allclose(told, wrong, atol=1e-4):
            return hint
    if not torch.allclose(told, own + low * 2, atol=1e-4):
        return "The shape is right, the numbers are not: x @ W.T, and x @ A.T @ B.T times alpha / rank, added up."
    return None


def _without_scaling(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return x @ W.T + x @ A.T @ B.T


def _alpha_alone(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return x @ W.T + x @ A.T @ B.T * alpha


def _everything_scaled(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return (x @ W.T + x @ A.T @ B.T) * alpha / A.shape[0]


def _upside_down(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return x @ W.T + x @ A.T @ B.T * A.shape[0] / alpha


def _adapter_alone(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return x @ A.T @ B.T * alpha / A.shape[0]


def _writes_into_w(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    W += B @ A * alpha / A.shape[0]
    return x @ W.T


def _columns_for_rank(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return x @ W.T + x @ A.T @ B.T * alpha / A.shape[1]


# ---- 14.2 ------------------------------------------------------------------------------------------------


def adapter_parameters(shapes: list[tuple[int, int]], rank: int, layers: int) -> int:
    in_one_layer = sum(rank * (out_features + in_features) for out_features, in_features in shapes)
    return layers * in_one_layer


def _real_count(lora: LoRA) -> tuple[list[tuple[int, int]], int, int]:
    """Shapes of what is adapted in a layer of Qwen3-0.6B, its number of layers, and the count of the package."""
    config = FAMILY["Qwen/Qwen3-0.6B"]
    with torch.device("meta"):
        adapters = Adapters(Qwen3Model(config))
        adapters.add("counted", lora)
    shapes = [shape for path, shape in adapters.shapes(lora).items() if path.startswith("model.layers.0.")]
    return shapes, config.num_hidden_layers, count_trainable(adapters.model).trainable


def _verify_count(answer: Callable[..., Any]) -> str | None:
    for lora in (LoRA(rank=8), LoRA(rank=16, targets=TARGETS)):
        shapes, layers, expected = _real_count(lora)
        told, case = answer(list(shapes), lora.rank, layers), f"For {', '.join(lora.targets)} and rank {lora.rank}"
        if told == expected:
            continue
        outs, ins = sum(out for out, _ in shapes), sum(in_ for _, in_ in shapes)
        hints = {
            expected // layers: f"Each of the {layers} layers has matrices of its own.",
            layers * lora.rank * ins: "That is A alone: B has out_features times rank numbers.",
            layers * lora.rank * outs: "That is B alone: A has rank times in_features numbers.",
            layers * sum(out * in_ for out, in_ in shapes): (
                "Those are the parameters of the model's own layers, which are frozen: count A, (rank, in_features), "
                "and B, (out_features, rank)."),
            layers * lora.rank * sum(out * in_ for out, in_ in shapes): (
                "A and B are two matrices side by side: add their sizes instead of multiplying them."),
            layers * (outs + ins): "That is a rank of 1: each further rank is one more row of A and column of B.",
        }
        hint = hints.get(told, "A has rank times in_features numbers and B out_features times rank, in every layer.")
        return f"{case}, Qwen3-0.6B has {expected:,} of them, and it returns {told}. {hint}"
    return None


def _single_layer(shapes: list[tuple[int, int]], rank: int, layers: int) -> int:
    return adapter_parameters(shapes, rank, 1)


def _a_alone(shapes: list[tuple[int, int]], rank: int, layers: int) -> int:
    return layers * sum(rank * in_features for _, in_features in shapes)


def _whole_matrices(shapes: list[tuple[int, int]], rank: int, layers: int) -> int:
    return layers * sum(out_features * in_features for out_features, in_features in shapes)


def _multiplied(shapes: list[tuple[int, int]], rank: int, layers: int) -> int:
    return rank * _whole_matrices(shapes, rank, layers)


def _rank_forgotten(shapes: list[tuple[int, int]], rank: int, layers: int) -> int:
    return adapter_parameters(shapes, 1, layers)


# ---- 14.3 ------------------------------------------------------------------------------------------------


def chat_labels(token_ids: list[int], begin: list[int], end: int) -> list[int]:
    labels, answering = [IGNORED] * len(token_ids), False
    for place, token in enumerate(token_ids):
        if answering:
            labels[place] = token
            answering = token != end  # the end is a part of the answer
        elif token_ids[max(0, place - len(begin) + 1):place + 1] == begin:
            answering = True
    return labels


# 1 opens a message, 2 ends it, 3 is a line break; 8 is the user and 9 the assistant.
_BEGIN, _END = [1, 9, 3], 2
_CHATS: tuple[list[int], ...] = (
    [1, 8, 3, 20, 21, 2, 3, 1, 9, 3, 30, 31, 32, 2, 3],
    [1, 8, 3, 20, 2, 3, 1, 9, 3, 30, 2, 3, 1, 8, 3, 22, 9, 3, 2, 3, 1, 9, 3, 31, 32, 2],  # two turns
    [1, 8, 3, 20, 2, 3],  # no answer
)


def _right_labels(chat: list[int]) -> list[int]:
    return chat_labels(chat, _BEGIN, _END)


def _verify_labels(answer: Callable[..., Any]) -> str | None:
    for chat in _CHATS:
        told, expected = answer(list(chat), list(_BEGIN), _END), _right_labels(chat)
        case = f"For {chat}, where an answer begins behind {_BEGIN} and ends with {_END}, "
        if not isinstance(told, list) or len(told) != len(chat):
            return f"{case}a list of {len(chat)} labels is asked for: one for each token."
        if told == expected:
            continue
        counted = [place for place, label in enumerate(told) if label != IGNORED]
        wanted = [place for place, label in enumerate(expected) if label != IGNORED]
        if any(told[place] != chat[place] for place in counted):
            return (f"{case}a label is neither {IGNORED} nor its own token's id. Labels are not shifted: the loss does "
                    "that.")
        if not counted:
            return f"{case}no token counts: the model would learn nothing."
        if len(counted) == len(chat):
            return f"{case}every token counts: what the user says is only read, and labelled {IGNORED}."
        if counted == [place for place in range(len(chat)) if place not in wanted]:
            return f"{case}it is the wrong way round: the answer counts, and the rest is {IGNORED}."
        missing, more = sorted(set(wanted) - set(counted)), sorted(set(counted) - set(wanted))
        if missing and all(chat[place] == _END for place in missing) and not more:
            return (f"{case}the end of the answer is left out: a model that is never shown where to stop "
                    "will not stop.")
        if more and not missing and min(more) > min(wanted):
            return f"{case}tokens behind the end of the answer count: stop at {_END}."
        if more and not missing and all(chat[place] in _BEGIN for place in more):
            return f"{case}the tokens that open the answer count: they stand in the prompt, so they are only read."
        if missing and not more:
            return f"{case}some of the answers' tokens do not count, at places {missing}: every answer counts."
        return f"{case}the tokens at places {counted} count, and {wanted} would be right."
    return None


def _everything_counts(token_ids: list[int], begin: list[int], end: int) -> list[int]:
    return list(token_ids)


def _without_the_end(token_ids: list[int], begin: list[int], end: int) -> list[int]:
    return [IGNORED if token == end else token for token in chat_labels(token_ids, begin, end)]


def _never_stops(token_ids: list[int], begin: list[int], end: int) -> list[int]:
    return chat_labels(token_ids, begin, -1)


def _opening_too(token_ids: list[int], begin: list[int], end: int) -> list[int]:
    labels = chat_labels(token_ids, begin, end)
    for place in range(len(labels)):
        if token_ids[place:place + len(begin)] == begin:
            labels[place:place + len(begin)] = begin
    return labels


def _first_answer_only(token_ids: list[int], begin: list[int], end: int) -> list[int]:
    labels = chat_labels(token_ids, begin, end)
    first = labels.index(end) + 1 if end in labels else len(labels)
    return labels[:first] + [IGNORED] * (len(labels) - first)


def _shifted(token_ids: list[int], begin: list[int], end: int) -> list[int]:
    return chat_labels(token_ids, begin, end)[1:] + [IGNORED]


def _only_the_user(token_ids: list[int], begin: list[int], end: int) -> list[int]:
    labels = chat_labels(token_ids, begin, end)
    return [token if label == IGNORED else IGNORED for token, label in zip(token_ids, labels)]


EXERCISES: tuple[Exercise, ...] = (
    Exercise("14.1", "A linear layer with an adapter", lora_forward, _verify_forward, (
        (_without_scaling, "without their factor"),
        (_alpha_alone, "by alpha alone"),
        (_everything_scaled, "for the adapter alone"),
        (_upside_down, "upside down"),
        (_adapter_alone, "is a part of it"),
        (_writes_into_w, "has been changed"),
        (_columns_for_rank, "the number of its rows"),
    )),
    Exercise("14.2", "Count what is trained", adapter_parameters, _verify_count, (
        (_single_layer, "matrices of its own"),
        (_a_alone, "A alone"),
        (_whole_matrices, "which are frozen"),
        (_multiplied, "add their sizes"),
        (_rank_forgotten, "a rank of 1"),
    )),
    Exercise("14.3", "The labels of a chat", chat_labels, _verify_labels, (
        (_everything_counts, "only read"),
        (_without_the_end, "will not stop"),
        (_never_stops, "stop at 2"),
        (_opening_too, "that open the answer"),
        (_first_answer_only, "every answer counts"),
        (_shifted, "not shifted"),
        (_only_the_user, "wrong way round"),
    )),
)
