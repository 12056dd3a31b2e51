"""Exercises of chapter 14, fine-tuning and LoRA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor

from course_utils.exercises.answers import close, tensor, whole, wholes
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.family import FAMILY
from course_utils.language import gettext
from course_utils.lora import TARGETS, Adapters, LoRA, count_trainable
from course_utils.qwen3 import Qwen3Model
from course_utils.training.dataset import IGNORED

# ---- 14.1 ------------------------------------------------------------------------------------------------

def batch_forward(x: Tensor, W: Tensor, adapters: list[tuple[Tensor, Tensor, float]],
                  which: list[int | None]) -> Tensor:
    y = x @ W.T  # once, for all texts
    for text, number in enumerate(which):
        if number is not None:
            A, B, alpha = adapters[number]
            y[text] += x[text] @ A.T @ B.T * (alpha / A.shape[0])
    return y


_Adapter = tuple[Tensor, Tensor, float]  # A, (rank, in); B, (out, rank); alpha
_Batch = tuple[Tensor, Tensor, list[_Adapter], list[int | None]]

# Shape of x; out_features; rank and alpha of each adapter; the adapter of each text. With rank 3 and alpha 2 the factor
# is no whole number.
_BATCHES: tuple[tuple[tuple[int, int, int], int, tuple[tuple[int, float], ...], tuple[int | None, ...]], ...] = (
    ((3, 2, 6), 5, ((4, 8.0), (2, 3)), (1, None, 0)),
    ((5, 3, 4), 9, ((3, 2), (1, 16.0), (3, 5)), (0, 2, 0, None, 2)),
    ((1, 4, 7), 3, ((2, 7.0),), (0,)),
    ((2, 1, 5), 8, ((2, 3.0), (4, 1)), (None, None)),
)


def _batches() -> list[_Batch]:
    """Arguments of `batch_forward`."""
    generator = torch.Generator().manual_seed(14)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return [(random(*shape), random(width, shape[-1]),
             [(random(rank, shape[-1]), random(width, rank), alpha) for rank, alpha in settings], list(which))
            for shape, width, settings, which in _BATCHES]


def _added(x: Tensor, adapter: _Adapter, factor: float | None = None) -> Tensor:
    """What an adapter adds, by default times alpha / rank."""
    A, B, alpha = adapter
    return x @ A.T @ B.T * (alpha / len(A) if factor is None else factor)


def _scaled(scale: Callable[[Tensor, Tensor, float], float]) -> Answer:
    """The right answer with another factor in place of alpha / rank."""

    def answer(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
        y = x @ W.T
        for text, number in enumerate(which):
            if number is not None:
                y[text] += _added(x[text], adapters[number], scale(*adapters[number]))
        return y

    return answer


def _layer_alone(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
    return x @ W.T


def _adapters_alone(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
    return batch_forward(x, W * 0, adapters, which)


def _never_the_first(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
    return batch_forward(x, W, adapters, [number or None for number in which])


def _by_place(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
    return batch_forward(x, W, adapters, [text if text < len(adapters) else None for text in range(len(x))])


def _all_of_them(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
    return x @ W.T + sum(_added(x, adapter) for adapter in adapters)


def _one_for_all(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
    return x @ W.T + _added(x, adapters[0])


def _last_for_none(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
    return batch_forward(x, W, adapters, [-1 if number is None else number for number in which])


def _first_for_none(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
    return batch_forward(x, W, adapters, [number or 0 for number in which])


def _everything_scaled(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
    y = x @ W.T
    for text, number in enumerate(which):
        if number is not None:
            A, B, alpha = adapters[number]
            y[text] = (y[text] + x[text] @ A.T @ B.T) * (alpha / len(A))
    return y


def _piled_up(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
    y, merged = x @ W.T, W.clone()
    for text, number in enumerate(which):
        if number is not None:
            A, B, alpha = adapters[number]
            merged += B @ A * (alpha / len(A))
            y[text] = x[text] @ merged.T
    return y


# What one may have computed instead, the likeliest slip first.
_BATCH_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_layer_alone, "The result is that of the layer alone: what A and B compute is not added."),
    (_never_the_first, "Texts with adapter 0 get none: 0 counts as false in Python. Ask `is not None`."),
    (_last_for_none, "Texts without an adapter get the last one, as an index of -1 does. They get W alone."),
    (_first_for_none, "Texts without an adapter get adapter 0. They get W alone."),
    (_adapters_alone, "The result is that of A and B alone: the layer's own output, x @ W.T, is a part of it."),
    (_scaled(lambda A, B, alpha: 1.0), "A and B are added without their factor: multiply what they compute by "
                                       "alpha / rank."),
    (_scaled(lambda A, B, alpha: alpha), "What A and B compute is multiplied by alpha alone: the factor is "
                                         "alpha / rank."),
    (_one_for_all, "All texts get adapter 0: which one a text gets stands in `which`."),
    (_all_of_them, "Every text gets all the adapters: it gets the one that `which` names, or none."),
    (_by_place, "The first text gets adapter 0, the second adapter 1: `which` says which one a text gets."),
    (_everything_scaled, "The factor alpha / rank is on the layer's own output too: it is for the adapter alone."),
    (_scaled(lambda A, B, alpha: len(A) / alpha), "The factor is upside down: it is alpha / rank, and the rank is the "
                                                  "number of rows of A."),
    (_scaled(lambda A, B, alpha: alpha / A.shape[1]), "You divide alpha by the number of columns of A, and the rank is "
                                                      "the number of its rows."),
    (_scaled(lambda A, B, alpha: alpha / len(B)), "You divide alpha by the number of rows of B, and the rank is the "
                                                  "number of its columns."),
    (_scaled(lambda A, B, alpha: alpha // len(A)), "The factor is rounded down, as `//` does: with alpha 2 and rank 3 "
                                                   "it is 2/3."),
    (_piled_up, "An adapter that is added to W stays there for the texts after it. Start from W for each text, or add "
                "to the output instead."),
)


def _verify_batch(answer: Answer) -> str | None:
    cases = _batches()
    told: list[Tensor] = []
    for x, W, adapters, which in cases:
        copies = [(A.clone(), B.clone(), alpha) for A, B, alpha in adapters]
        own = x.clone(), W.clone()
        told.append(tensor(answer(*own, copies, list(which)), "a tensor, the output of the layer for all texts"))
        if not torch.equal(own[1], W):
            return "The argument W has been changed. It serves all texts and must stay: add to the output instead."
        pairs = [(own[0], x)]
        for (own_a, own_b, _), (A, B, _) in zip(copies, adapters):
            pairs += (own_a, A), (own_b, B)
        if not all(torch.equal(mine, before) for mine, before in pairs):
            return "An argument has been changed, x or one of the adapters. They are needed again: work on copies."

    def like(one: Answer) -> bool:
        return all(close(given, one(*case), rtol=1e-4, atol=1e-4) for given, case in zip(told, cases))

    if like(batch_forward):
        return None
    for slip, hint in _BATCH_SLIPS:
        if like(slip):
            return hint
    for given, (x, W, adapters, which) in zip(told, cases):
        right = batch_forward(x, W, adapters, which)
        case = gettext("With x of shape {shape}, W of shape {weight} and which={which}").format(
            shape=tuple(x.shape), weight=tuple(W.shape), which=which)
        if given.shape != right.shape:
            return gettext("{case} the result has the shape {shape}, and {wanted} is right.").format(
                case=case, shape=tuple(given.shape), wanted=tuple(right.shape))
        for text, number in enumerate(which):
            if not close(given[text], right[text], rtol=1e-4, atol=1e-4):
                adapter = gettext("no adapter") if number is None else gettext(
                    "adapter {number} of rank {count}").format(number=number, count=len(adapters[number][0]))
                return gettext("{case} text {text}, which has {adapter}, is not right: x @ W.T, and with an adapter x "
                               "@ A.T @ B.T times alpha / rank is added.").format(case=case, text=text, adapter=adapter)
    return None


def _writes_into_w(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
    y = batch_forward(x, W, adapters, which)
    for A, B, alpha in adapters:
        W += B @ A * alpha / len(A)
    return y


def _writes_into_x(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
    x += 1
    return batch_forward(x - 1, W, adapters, which)


def _one_rank(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
    rank = len(adapters[0][0])
    return _scaled(lambda A, B, alpha: alpha / rank)(x, W, adapters, which)


def _one_alpha(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
    first = adapters[0][2]
    return _scaled(lambda A, B, alpha: first / len(A))(x, W, adapters, which)


def _once_each(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
    y = x @ W.T
    for number, adapter in enumerate(adapters):
        if number in which:
            text = which.index(number)
            y[text] += _added(x[text], adapter)
    return y


def _merged_for_each(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
    """A matrix for each text."""
    matrices = [W if number is None else W + adapters[number][1] @ adapters[number][0]
                * (adapters[number][2] / len(adapters[number][0])) for number in which]
    return torch.einsum("bti,boi->bto", x, torch.stack(matrices))


def _adapter_by_adapter(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
    """All texts of an adapter at once."""
    y = torch.nn.functional.linear(x, W)
    for number, adapter in enumerate(adapters):
        mask = torch.tensor([own == number for own in which])
        y[mask] += _added(x[mask], adapter)
    return y


def _padded_to_one_rank(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> Tensor:
    """Two batched products, the small matrices filled up with zeros, as an engine may do it."""
    most = max(len(A) for A, _, _ in adapters)
    low, high = torch.zeros(len(x), most, W.shape[1]), torch.zeros(len(x), W.shape[0], most)
    for text, number in enumerate(which):
        if number is not None:
            A, B, alpha = adapters[number]
            low[text, :len(A)], high[text, :, :len(A)] = A, B * (alpha / len(A))
    return x @ W.T + x @ low.mT @ high.mT


def _in_numpy(x: Tensor, W: Tensor, adapters: list[_Adapter], which: list[int | None]) -> np.ndarray:
    inputs, own = x.double().numpy(), W.double().numpy()
    rows = []
    for text, number in zip(inputs, which):
        row = text @ own.T
        if number is not None:
            A, B, alpha = adapters[number]
            row = row + alpha / A.shape[0] * (text @ (B.double().numpy() @ A.double().numpy()).T)
        rows.append(row)
    return np.stack(rows)


_BATCH = Exercise("14.1", "A batch with several adapters", batch_forward, _verify_batch, (
    *((slip, hint[:50]) for slip, hint in _BATCH_SLIPS),
    (_writes_into_w, "The argument W has been changed"),
    (_writes_into_x, "An argument has been changed, x or"),
    (lambda x, W, adapters, which: batch_forward(x, W, adapters, which).sum(1), "has the shape (3, 5), and (3, 2, 5)"),
    (_one_rank, "is not right: x @ W.T"),
    (lambda x, W, adapters, which: print(end=""), "returned None"),
), also_wrong=(
    _one_alpha,
    _once_each,
    lambda x, W, adapters, which: batch_forward(x, W, adapters, which[::-1]),
    lambda x, W, adapters, which: batch_forward(x, W, adapters[::-1], which),
    lambda x, W, adapters, which: batch_forward(x, W, adapters, which).relu(),
    lambda x, W, adapters, which: batch_forward(x[:1].expand_as(x), W, adapters, which),
    lambda x, W, adapters, which: batch_forward(x, W, adapters, [number for number in which if number is not None]),
    lambda x, W, adapters, which: 2 * x @ W.T - batch_forward(x, W, adapters, which),
), right=(
    _merged_for_each,
    _adapter_by_adapter,
    _padded_to_one_rank,
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
    return gettext("For the shapes {shapes}, rank {rank} and {layers} layers it is {count:,}, and you return {given:,}"
                   ". A has rank times in_features numbers and B out_features times rank, in every layer.").format(
        shapes=shapes, rank=rank, layers=layers, count=count, given=given)


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
        case = gettext("For {chat}, where an answer begins after {begin} and ends with {end}, ").format(
            chat=chat, begin=begin, end=end)
        told = wholes(answer(list(chat), list(begin), end), gettext("a list of {count} labels: one for each "
                                                                    "token").format(count=len(chat)),
                      len(chat))
        if hint := _judge_labels(told, chat, begin, end):
            return case + gettext(hint)
    return None


def _judge_labels(told: list[int], chat: list[int], begin: list[int], end: int) -> str | None:
    expected = chat_labels(chat, begin, end)
    if told == expected:
        return None
    counted = [place for place, label in enumerate(told) if label != IGNORED]
    wanted = [place for place, label in enumerate(expected) if label != IGNORED]
    if any(told[place] != chat[place] for place in counted):
        if all(label in (0, 1) for label in told):
            return gettext("the labels are 0 and 1. The label is the token's own id where it "
                           "counts, and {ignored} elsewhere.").format(ignored=IGNORED)
        if told == [*expected[1:], IGNORED]:
            return "all labels are one place early. Labels are not shifted: the loss does that."
        return gettext("a label is neither {ignored} nor its own token's id.").format(ignored=IGNORED)
    if not counted:
        return "no token counts: the model would learn nothing."
    if len(counted) == len(chat):
        return gettext("every token counts: what the user says is only read, and labelled {ignored}.").format(
            ignored=IGNORED)
    if wanted and counted == [place for place in range(len(chat)) if place not in wanted]:
        return gettext("it is the wrong way round: the answer counts, and the rest is {ignored}.").format(
            ignored=IGNORED)
    missing, more = sorted(set(wanted) - set(counted)), sorted(set(counted) - set(wanted))
    if missing and all(chat[place] == end for place in missing) and not more:
        return "the end of the answer is left out: a model that is never shown where to stop will not stop."
    if more and not missing and wanted and min(more) > min(wanted):
        return gettext("tokens after the end of the answer count: stop at {end}.").format(end=end)
    if more and not missing and all(chat[place] in begin for place in more):
        return "the tokens that open the answer count: they stand in the prompt, so they are only read."
    if missing and not more:
        return gettext("some of the answers' tokens do not count, at places {missing}: every "
                       "answer counts, to its end.").format(missing=missing)
    return gettext("the tokens at places {counted} count, and {wanted} would be right.").format(
        counted=counted, wanted=wanted)


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

EXERCISES: tuple[Exercise, ...] = (_BATCH, _COUNT, _LABELS)
