"""Exercises of chapter 14, fine-tuning and LoRA."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor

from course_utils.exercises.answers import close, tensor, whole, wholes
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.family import FAMILY
from course_utils.lora import TARGETS, Adapters, LoRA, count_trainable
from course_utils.qwen3 import Qwen3Model
from course_utils.training.dataset import IGNORED

# ---- 14.1 ------------------------------------------------------------------------------------------------


def lora_forward(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    rank = A.shape[0]
    low = x @ A.T  # (..., rank): through the narrow place
    return x @ W.T + low @ B.T * (alpha / rank)


# Shape of x, in_features last; out_features, rank, alpha. With rank 3 and alpha 2 the factor is no whole number.
_LAYERS: tuple[tuple[tuple[int, ...], int, int, float], ...] = (
    ((2, 3, 6), 5, 4, 8.0), ((7, 4), 9, 3, 2), ((5,), 8, 2, 3.0), ((1, 1, 10), 3, 1, 16))


def _layers() -> list[tuple[Tensor, Tensor, Tensor, Tensor, float]]:
    """Arguments of `lora_forward`."""
    generator = torch.Generator().manual_seed(14)
    made = []
    for shape, out_features, rank, alpha in _LAYERS:
        shapes = (shape, (out_features, shape[-1]), (rank, shape[-1]), (out_features, rank))
        x, W, A, B = (torch.randn(each, generator=generator) for each in shapes)
        made.append((x, W, A, B, alpha))
    return made


def _layer_alone(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return x @ W.T


def _adapter_alone(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return x @ A.T @ B.T * alpha / A.shape[0]


def _without_scaling(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return x @ W.T + x @ A.T @ B.T


def _alpha_alone(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return x @ W.T + x @ A.T @ B.T * alpha


def _everything_scaled(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return (x @ W.T + x @ A.T @ B.T) * alpha / A.shape[0]


def _upside_down(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return x @ W.T + x @ A.T @ B.T * A.shape[0] / alpha


def _columns_for_rank(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return x @ W.T + x @ A.T @ B.T * alpha / A.shape[1]


def _rows_of_b_for_rank(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return x @ W.T + x @ A.T @ B.T * alpha / B.shape[0]


def _whole_factor(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return x @ W.T + x @ A.T @ B.T * (alpha // A.shape[0])


# What one may have computed instead, the likeliest slip first.
_FORWARD_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_layer_alone, "The result is that of the layer alone: what A and B compute is not added."),
    (_adapter_alone, "The result is that of A and B alone: the layer's own output, x @ W.T, is a part of it."),
    (_without_scaling, "A and B are added without their factor: multiply what they compute by alpha / rank."),
    (_alpha_alone, "What A and B compute is multiplied by alpha alone: the factor is alpha / rank."),
    (_everything_scaled, "The factor alpha / rank is on the layer's own output too: it is for the adapter alone."),
    (_upside_down, "The factor is upside down: it is alpha / rank, and the rank is the number of rows of A."),
    (_columns_for_rank, "You divide alpha by the number of columns of A, and the rank is the number of its rows."),
    (_rows_of_b_for_rank, "You divide alpha by the number of rows of B, and the rank is the number of its columns."),
    (_whole_factor, "The factor is rounded down, as `//` does: with alpha 2 and rank 3 it is 2/3."),
)


def _verify_forward(answer: Answer) -> str | None:
    cases = _layers()
    told: list[Tensor] = []
    for x, W, A, B, alpha in cases:
        copies = x.clone(), W.clone(), A.clone(), B.clone()
        told.append(tensor(answer(*copies, alpha), "a tensor, the output of the layer with its adapter"))
        for name, before, after in zip(("x", "W", "A", "B"), (x, W, A, B), copies):
            if not torch.equal(before, after):
                return (f"The argument {name} has been changed. W in particular must stay as it is: add to the output "
                        "instead.")

    def like(one: Answer) -> bool:
        return all(close(given, one(*case), rtol=1e-4, atol=1e-4) for given, case in zip(told, cases))

    if like(lora_forward):
        return None
    for slip, hint in _FORWARD_SLIPS:
        if like(slip):
            return hint
    for given, case in zip(told, cases):
        right, shapes = lora_forward(*case), ", ".join(str(tuple(each.shape)) for each in case[:4])
        if given.shape != right.shape:
            return (f"With x, W, A and B of shapes {shapes} the result has the shape {tuple(given.shape)}, and "
                    f"{tuple(right.shape)} is right.")
        if not close(given, right, rtol=1e-4, atol=1e-4):
            return (f"With x, W, A and B of shapes {shapes} and alpha {case[4]:g} the shape is right, the numbers are "
                    "not: x @ W.T, and x @ A.T @ B.T times alpha / rank, added up.")
    return None


def _writes_into_w(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    W += B @ A * alpha / A.shape[0]
    return x @ W.T


def _in_numpy(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> np.ndarray:
    inputs, own, narrow, wide = (each.double().numpy() for each in (x, W, A, B))
    merged = own + alpha / len(narrow) * (wide @ narrow)
    return np.asarray(inputs @ merged.T)


def _writes_into_x(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    x += 1
    return lora_forward(x - 1, W, A, B, alpha)


_FORWARD = Exercise("14.1", "A linear layer with an adapter", lora_forward, _verify_forward, (
    *((slip, hint[:50]) for slip, hint in _FORWARD_SLIPS),
    (_writes_into_w, "The argument W has been changed"),
    (_writes_into_x, "The argument x has been changed"),
    (lambda x, W, A, B, alpha: lora_forward(x, W, A, B, alpha).sum(), "has the shape (), and (2, 3, 5)"),
    (lambda x, W, A, B, alpha: lora_forward(x, W, A, B, 8.0), "added up"),
    (lambda x, W, A, B, alpha: print(end=""), "returned None"),
), also_wrong=(
    lambda x, W, A, B, alpha: x @ W.T - x @ A.T @ B.T * alpha / len(A),
    lambda x, W, A, B, alpha: x @ W.T + (x @ A.T @ B.T).relu() * alpha / len(A),
    lambda x, W, A, B, alpha: x @ W.T + x @ A.T @ B.T * alpha / 4,
    lambda x, W, A, B, alpha: x @ W.T + x @ A.T @ B.T * alpha / len(A) ** 0.5,
    lambda x, W, A, B, alpha: lora_forward(x.flatten()[:A.shape[1]], W, A, B, alpha),
), right=(
    lambda x, W, A, B, alpha: torch.nn.functional.linear(x, W + B @ A * (alpha / A.shape[0])),
    lambda x, W, A, B, alpha: x @ W.T + alpha / B.shape[1] * torch.einsum("...i,ri,or->...o", x, A, B),
    lambda x, W, A, B, alpha: (x.double() @ W.double().T + x.double() @ A.double().T @ B.double().T * alpha / len(A)),
    _in_numpy,
))

# ---- 14.2 ------------------------------------------------------------------------------------------------


def adapter_parameters(shapes: list[tuple[int, int]], rank: int, layers: int) -> int:
    in_one_layer = sum(rank * (out_features + in_features) for out_features, in_features in shapes)
    return layers * in_one_layer


@cache
def _real_count(lora: LoRA) -> tuple[list[tuple[int, int]], int, int]:
    """Shapes of what is adapted in a layer of Qwen3-0.6B, its number of layers, and the count of the package."""
    config = FAMILY["Qwen/Qwen3-0.6B"]
    with torch.device("meta"):
        adapters = Adapters(Qwen3Model(config))
        adapters.add("counted", lora)
    shapes = [shape for path, shape in adapters.shapes(lora).items() if path.startswith("model.layers.0.")]
    return shapes, config.num_hidden_layers, count_trainable(adapters.model).trainable


def _counts() -> list[tuple[list[tuple[int, int]], int, int, int]]:
    """Shapes, rank, layers, and how many numbers A and B have."""
    real = [(*_real_count(lora), lora.rank) for lora in (LoRA(rank=8), LoRA(rank=16, targets=TARGETS))]
    return [([(6, 8)], 2, 3, 84), ([(3, 10), (7, 7), (2, 5)], 3, 2, 204), ([(4, 9)], 1, 1, 13),
            *((shapes, rank, layers, count) for shapes, layers, count, rank in real)]


def _first_shape(shapes: list[tuple[int, int]], rank: int, layers: int) -> int:
    return adapter_parameters(shapes[:1], rank, layers)


def _single_layer(shapes: list[tuple[int, int]], rank: int, layers: int) -> int:
    return adapter_parameters(shapes, rank, 1)


def _a_alone(shapes: list[tuple[int, int]], rank: int, layers: int) -> int:
    return layers * sum(rank * in_features for _, in_features in shapes)


def _b_alone(shapes: list[tuple[int, int]], rank: int, layers: int) -> int:
    return layers * sum(rank * out_features for out_features, _ in shapes)


def _whole_matrices(shapes: list[tuple[int, int]], rank: int, layers: int) -> int:
    return layers * sum(out_features * in_features for out_features, in_features in shapes)


def _multiplied(shapes: list[tuple[int, int]], rank: int, layers: int) -> int:
    return rank * _whole_matrices(shapes, rank, layers)


def _rank_forgotten(shapes: list[tuple[int, int]], rank: int, layers: int) -> int:
    return adapter_parameters(shapes, 1, layers)


def _weights_too(shapes: list[tuple[int, int]], rank: int, layers: int) -> int:
    return _whole_matrices(shapes, rank, layers) + adapter_parameters(shapes, rank, layers)


# What one may have computed instead, the likeliest slip first.
_COUNT_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_single_layer, "You count a single layer. Each of the layers has matrices of its own."),
    (_first_shape, "You count the first of the shapes alone. Add up all that are adapted in a layer."),
    (_a_alone, "That is A alone: B has out_features times rank numbers."),
    (_b_alone, "That is B alone: A has rank times in_features numbers."),
    (_whole_matrices, "Those are the parameters of the model's own layers, which are frozen: count A, (rank, "
                      "in_features), and B, (out_features, rank)."),
    (_weights_too, "The model's own matrices are counted, too, and they are frozen: count A and B alone."),
    (_multiplied, "A and B are two matrices side by side: add their sizes instead of multiplying them."),
    (_rank_forgotten, "That is a rank of 1: each further rank is one more row of A and column of B."),
)


def _verify_count(answer: Answer) -> str | None:
    cases = _counts()
    told = [whole(answer(list(shapes), rank, layers), "one whole number: how many numbers A and B consist of")
            for shapes, rank, layers, _ in cases]
    if told == [count for *_, count in cases]:
        return None
    for slip, hint in _COUNT_SLIPS:
        if told == [slip(shapes, rank, layers) for shapes, rank, layers, _ in cases]:
            return hint
    (shapes, rank, layers, count), given = next((case, given) for case, given in zip(cases, told) if given != case[-1])
    return (f"For the shapes {shapes}, rank {rank} and {layers} layers it is {count:,}, and you return {given:,}. A "
            "has rank times in_features numbers and B out_features times rank, in every layer.")


def _by_building(shapes: list[tuple[int, int]], rank: int, layers: int) -> int:
    made = [torch.empty(size, device="meta") for out_features, in_features in shapes
            for size in ((rank, in_features), (out_features, rank))]
    return sum(matrix.numel() for matrix in made) * layers


def _layer_by_layer(shapes: list[tuple[int, int]], rank: int, layers: int) -> int:
    count = 0
    for _ in range(layers):
        for shape in shapes:
            for size in shape:
                count += size * rank
    return count


_COUNT = Exercise("14.2", "Count what is trained", adapter_parameters, _verify_count, (
    *((slip, hint[:35]) for slip, hint in _COUNT_SLIPS),
    (lambda shapes, rank, layers: adapter_parameters(shapes, 8, layers), "in every layer"),
    (lambda shapes, rank, layers: [rank * sum(shape) for shape in shapes], "how many numbers A and B consist of"),
    (lambda shapes, rank, layers: print(end=""), "returned None"),
), also_wrong=(
    lambda shapes, rank, layers: adapter_parameters(shapes[-1:], rank, layers),
    lambda shapes, rank, layers: adapter_parameters(shapes, rank, 28),
    lambda shapes, rank, layers: adapter_parameters(shapes, rank, layers) // 2,
    lambda shapes, rank, layers: adapter_parameters([shapes[0]] * len(shapes), rank, layers),
    lambda shapes, rank, layers: adapter_parameters(shapes, rank, layers) + layers * rank * rank,
), right=(
    lambda shapes, rank, layers: rank * layers * sum(map(sum, shapes)),
    lambda shapes, rank, layers: np.array(shapes).sum() * rank * layers,
    lambda shapes, rank, layers: float(sum(rank * ins + outs * rank for outs, ins in shapes)) * layers,
    _by_building,
    _layer_by_layer,
), equivalent={
    "`rank` and `layers` are exchanged": "They are multiplied with each other.",
})

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


# Chats, what opens an answer, what closes it. 1 opens a message, 3 is a line break; 8 is the user, 9 the assistant.
_CHATS: tuple[tuple[list[int], list[int], int], ...] = (
    ([1, 8, 3, 20, 21, 2, 3, 1, 9, 3, 30, 31, 32, 2, 3], [1, 9, 3], 2),
    ([1, 8, 3, 20, 2, 3, 1, 9, 3, 30, 2, 3, 1, 8, 3, 22, 9, 3, 2, 3, 1, 9, 3, 31, 32, 2], [1, 9, 3], 2),  # two turns
    ([1, 8, 3, 20, 2, 3], [1, 9, 3], 2),  # no answer
    ([4, 5, 6, 7, 40, 0, 41, 0, 5, 6, 7, 4, 4, 5, 6, 7, 0, 42], [4, 5, 6, 7], 0),  # at once; then an empty one; id 0
    ([50, 6, 51, 50, 7, 52, 6, 53, 7, 54], [6], 7),  # one token opens it
    ([1, 8, 3, 20, 2, 1, 9, 3, 33, 34], [1, 9, 3], 2),  # cut off before its end
)


def _verify_labels(answer: Answer) -> str | None:
    for chat, begin, end in _CHATS:
        case = f"For {chat}, where an answer begins after {begin} and ends with {end}, "
        told = wholes(answer(list(chat), list(begin), end), f"a list of {len(chat)} labels: one for each token",
                      len(chat))
        if hint := _judge_labels(told, chat, begin, end):
            return case + hint
    return None


def _judge_labels(told: list[int], chat: list[int], begin: list[int], end: int) -> str | None:
    expected = chat_labels(chat, begin, end)
    if told == expected:
        return None
    counted = [place for place, label in enumerate(told) if label != IGNORED]
    wanted = [place for place, label in enumerate(expected) if label != IGNORED]
    if any(told[place] != chat[place] for place in counted):
        if all(label in (0, 1) for label in told):
            return f"the labels are 0 and 1. The label is the token's own id where it counts, and {IGNORED} elsewhere."
        if told == [*expected[1:], IGNORED]:
            return "all labels are one place early. Labels are not shifted: the loss does that."
        return f"a label is neither {IGNORED} nor its own token's id."
    if not counted:
        return "no token counts: the model would learn nothing."
    if len(counted) == len(chat):
        return f"every token counts: what the user says is only read, and labelled {IGNORED}."
    if wanted and counted == [place for place in range(len(chat)) if place not in wanted]:
        return f"it is the wrong way round: the answer counts, and the rest is {IGNORED}."
    missing, more = sorted(set(wanted) - set(counted)), sorted(set(counted) - set(wanted))
    if missing and all(chat[place] == end for place in missing) and not more:
        return "the end of the answer is left out: a model that is never shown where to stop will not stop."
    if more and not missing and wanted and min(more) > min(wanted):
        return f"tokens after the end of the answer count: stop at {end}."
    if more and not missing and all(chat[place] in begin for place in more):
        return "the tokens that open the answer count: they stand in the prompt, so they are only read."
    if missing and not more:
        return f"some of the answers' tokens do not count, at places {missing}: every answer counts, to its end."
    return f"the tokens at places {counted} count, and {wanted} would be right."


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


def _zeros_and_ones(token_ids: list[int], begin: list[int], end: int) -> list[int]:
    return [int(label != IGNORED) for label in chat_labels(token_ids, begin, end)]


def _last_of_the_opening(token_ids: list[int], begin: list[int], end: int) -> list[int]:
    return chat_labels(token_ids, begin[-1:], end)


def _cut_short(token_ids: list[int], begin: list[int], end: int) -> list[int]:
    labels = chat_labels(token_ids, begin, end)
    return [IGNORED] * len(labels) if end not in labels else labels


def _joined(token_ids: list[int], begin: list[int], end: int) -> list[int]:
    """Cuts the chat where answers begin, instead of walking through it."""
    labels, place = [IGNORED] * len(token_ids), 0
    while place + len(begin) <= len(token_ids):
        if token_ids[place:place + len(begin)] != begin:
            place += 1
            continue
        start = place + len(begin)
        stop = token_ids.index(end, start) + 1 if end in token_ids[start:] else len(token_ids)
        labels[start:stop] = token_ids[start:stop]
        place = stop
    return labels


def _by_a_mask(token_ids: list[int], begin: list[int], end: int) -> Tensor:
    ids, counts = torch.tensor(token_ids), torch.zeros(len(token_ids), dtype=torch.bool)
    open_answer = False
    read: list[int] = []
    for place, token in enumerate(token_ids):
        counts[place] = open_answer
        read.append(token)
        if open_answer and token == end:
            open_answer, read = False, []
        elif not open_answer and read[-len(begin):] == begin:
            open_answer = True
    return torch.where(counts, ids, IGNORED)


def _handing_out(token_ids: list[int], begin: list[int], end: int) -> Iterator[int]:
    answering = False
    last: list[int] = []
    for token in token_ids:
        yield token if answering else IGNORED
        last = [*last, token][-len(begin):]
        answering = token != end if answering else last == begin


_SLICE = "`if token_ids[max(0, place - len(begin) + 1):place + 1] == begin:`"
_LABELS = Exercise("14.3", "The labels of a chat", chat_labels, _verify_labels, (
    (_everything_counts, "only read, and labelled"),
    (_without_the_end, "will not stop"),
    (_never_stops, "stop at 2"),
    (_opening_too, "that open the answer"),
    (_first_answer_only, "every answer counts"),
    (_shifted, "not shifted"),
    (_only_the_user, "wrong way round"),
    (_zeros_and_ones, "0 and 1"),
    (lambda token_ids, begin, end: [label for label in chat_labels(token_ids, begin, end) if label != IGNORED],
     "one for each token"),
    (lambda token_ids, begin, end: [IGNORED] * len(token_ids), "learn nothing"),
    (lambda token_ids, begin, end: [0 if label == IGNORED else label for label in chat_labels(token_ids, begin, end)],
     "nor its own token's id"),
    (lambda token_ids, begin, end: print(end=""), "returned None"),
), also_wrong=(
    _last_of_the_opening,
    _cut_short,
    lambda token_ids, begin, end: chat_labels(token_ids, [1, 9, 3], end),
    lambda token_ids, begin, end: chat_labels(token_ids, begin, 2),
    lambda token_ids, begin, end: chat_labels(token_ids, begin, end) + [IGNORED],
    lambda token_ids, begin, end: chat_labels(token_ids, begin[:2], end),
), right=(
    _joined,
    _by_a_mask,
    _handing_out,
    lambda token_ids, begin, end: np.array(_joined(token_ids, begin, end)),
), equivalent={
    f"{_SLICE} to `if token_ids[place - len(begin) + 1:place + 1] == begin:`":
        "A start below zero counts from the end, and what it cuts out is shorter than `begin`.",
    f"{_SLICE} to `if token_ids[max(-1, place - len(begin) + 1):place + 1] == begin:`":
        "A start of -1 cuts out one token at most, and stands only where `begin` has more.",
})

EXERCISES: tuple[Exercise, ...] = (_FORWARD, _COUNT, _LABELS)
