"""Exercises of chapter 15, past one machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import takewhile
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.config import Qwen3Config
from course_utils.exercises.answers import NotYet, close, describe, mapping, tensor, whole
from course_utils.exercises.chapters.varied_model import CONFIG, varied_model
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.language import gettext
from course_utils.planner import cache_bytes, weight_bytes
from course_utils.qwen3 import Attention, Qwen3Model
from course_utils.sampling import random_generator
from course_utils.training.dataset import IGNORED

# ---- 15.1 ------------------------------------------------------------------------------------------------


def most_users(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    # 2 bytes for each weight, and for each number of the cache.
    per_token = 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return max(0, (memory - 2 * num_weights) // (per_token * context))


# A head has 16 numbers, though 36 hidden ones shared by 6 heads would be 6.
_OTHER = Qwen3Config(vocab_size=50, hidden_size=36, intermediate_size=40, num_hidden_layers=3, num_attention_heads=6,
                     num_key_value_heads=2, head_dim=16)


def _served() -> list[tuple[Qwen3Config, int, int, int]]:
    """Arguments of `most_users`; the second is a byte below a whole number of users, the last have no room at all."""
    real = Qwen3Config()
    weights, one, other = weight_bytes(real), cache_bytes(real, 1000), cache_bytes(_OTHER, 10)
    return [(real, weights + 24 * one, weights // 2, 1000), (real, weights + 24 * one - 1, weights // 2, 1000),
            (_OTHER, 10_000 + 57 * other + 5, 5_000, 10), (_OTHER, 30_000 + 19 * other + 30, 15_000, 20),
            (_OTHER, 10_000 + other, 5_000, 10), (_OTHER, 10_000 + other - 1, 5_000, 10),
            (_OTHER, 10_000, 5_000, 10), (_OTHER, 9_000, 5_000, 10), (real, weights // 2, weights // 2, 1000)]


def _users_without_weights(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    return most_users(config, memory, 0, context)


def _users_with_one_byte(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    return most_users(config, memory + num_weights, num_weights, context)


def _users_by(bytes_of_one: float, memory: int, num_weights: int) -> int:
    return max(0, math.floor((memory - 2 * num_weights) / bytes_of_one))


def _users_with_keys_only(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    return _users_by(cache_bytes(config, context) / 2, memory, num_weights)


def _users_with_shared_hidden(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    head_dim = config.hidden_size // config.num_attention_heads
    return _users_by(cache_bytes(config, context) // config.head_dim * head_dim, memory, num_weights)


def _users_with_query_heads(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    one = cache_bytes(config, context) // config.num_key_value_heads * config.num_attention_heads
    return _users_by(one, memory, num_weights)


def _users_with_one_layer(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    return _users_by(cache_bytes(config, context) // config.num_hidden_layers, memory, num_weights)


def _users_with_hidden(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    return _users_by(4 * config.num_hidden_layers * config.hidden_size * context, memory, num_weights)


def _tokens_that_fit(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    return most_users(config, memory, num_weights, 1)


def _users_below_nothing(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    return (memory - 2 * num_weights) // cache_bytes(config, context)


def _users_rounded_up(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    return max(0, -(-(memory - 2 * num_weights) // cache_bytes(config, context)))


def _users_rounded(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    return max(0, round((memory - 2 * num_weights) / cache_bytes(config, context)))


# What one may have computed instead, the likeliest slip first.
_USER_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_users_without_weights, "That is too many: the weights take memory, too, which is not left for caches."),
    (_users_with_one_byte, "That is too many: each weight takes 2 bytes in bfloat16, not one."),
    (_users_with_shared_hidden, "You take hidden_size / num_attention_heads for the size of a head. In Qwen3 the two "
                                "are independent of each other: use config.head_dim."),
    (_users_with_query_heads, "Keys and values are kept per key-value head, and these are fewer than the query heads."),
    (_users_with_hidden, "You count hidden_size numbers for each token. What is kept are the keys and values: "
                         "num_key_value_heads times head_dim of each."),
    (_users_with_keys_only, "You take a cache for half as large as it is. Each token leaves a key and a value, and "
                            "each of their numbers takes 2 bytes."),
    (_users_with_one_layer, "That is the cache of one layer. Each layer keeps keys and values of its own."),
    (_tokens_that_fit, "That is how many tokens fit. Each user has a text of `context` tokens: divide by it."),
    (_users_rounded_up, "You round up. A byte less than another user needs is no room for that user: round down."),
    (_users_rounded, "You round to the nearest number. Nobody is served by half a cache: round down."),
    (_users_below_nothing, "Where not even the weights fit, nobody can be served: return 0, not a negative number."),
)


def _verify_users(answer: Answer) -> str | None:
    cases = _served()
    told = [whole(answer(*case), "one whole number: how many users can be served") for case in cases]
    right = [most_users(*case) for case in cases]
    if told == right:
        return None
    for slip, hint in _USER_SLIPS:
        if told == [slip(*case) for case in cases]:
            return hint
    (config, memory, num_weights, context), given, known = next(
        case for case in zip(cases, told, right) if case[1] != case[2])
    return gettext("With {memory:,} bytes, {num_weights:,} weights and texts of {context} tokens, "
                   "{known} can be served, and you return {given}. One user's cache takes "
                   "{cache_bytes:,} bytes there: does yours?").format(
        memory=memory, num_weights=num_weights, context=context, known=known, given=given,
        cache_bytes=cache_bytes(config, context))


def _one_after_another(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    users, left = 0, memory - num_weights * 2
    one = sum(config.num_key_value_heads * config.head_dim * 2 for _ in range(2 * config.num_hidden_layers)) * context
    while left >= one:
        left -= one
        users += 1
    return users


def _with_an_if(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    left = memory - 2 * num_weights
    return left // cache_bytes(config, context) if left > 0 else 0


_USERS = Exercise("15.1", "How many users fit", most_users, _verify_users, (
    *((slip, hint[:45]) for slip, hint in _USER_SLIPS),
    (lambda config, memory, num_weights, context: 24, "does yours?"),
    (lambda config, memory, num_weights, context: print(end=""), "returned None"),
), also_wrong=(
    lambda config, memory, num_weights, context: max(0, (memory - 2 * num_weights) / cache_bytes(config, context)),
    lambda config, memory, num_weights, context: max(1, most_users(config, memory, num_weights, context)),
    lambda config, memory, num_weights, context: abs(_users_below_nothing(config, memory, num_weights, context)),
    lambda config, memory, num_weights, context: most_users(config, memory, num_weights, 1000),
    lambda config, memory, num_weights, context: memory // cache_bytes(config, context) - 1,
), right=(
    lambda config, memory, num_weights, context: int(max(0, memory - 2 * num_weights) / cache_bytes(config, context)),
    lambda config, memory, num_weights, context: max(
        math.floor((memory - 2 * num_weights) / cache_bytes(config, context)), 0),
    _one_after_another,
    _with_an_if,
))

# ---- 15.2 ------------------------------------------------------------------------------------------------


def local_weights(weights: Mapping[str, Tensor], rank: int, parts: int) -> dict[str, Tensor]:
    local = {}
    for name, weight in weights.items():
        if name.endswith("norm.weight"):
            local[name] = weight
        else:
            by_inputs = name in ("o_proj.weight", "down_proj.weight")
            local[name] = weight.chunk(parts, dim=1 if by_inputs else 0)[rank]
    return local


_SMALL = Qwen3Config(vocab_size=50, hidden_size=24, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
                     head_dim=8, intermediate_size=40)
_MORE_HEADS = Qwen3Config(vocab_size=50, hidden_size=20, num_hidden_layers=1, num_attention_heads=6,
                          num_key_value_heads=3, head_dim=6, intermediate_size=40)


def _divided() -> list[tuple[dict[str, Tensor], int, int]]:
    """Weights, rank and parts."""
    generator = torch.Generator().manual_seed(15)

    def attention(config: Qwen3Config) -> dict[str, Tensor]:
        return {name: torch.randn(weight.shape, generator=generator)
                for name, weight in Attention(config).state_dict().items()}

    mlp = {name: torch.randn(shape, generator=generator) for name, shape in (
        ("gate_proj.weight", (40, 24)), ("up_proj.weight", (40, 24)), ("down_proj.weight", (24, 40)))}
    small, more = attention(_SMALL), attention(_MORE_HEADS)
    return [(small, 0, 2), (small, 1, 2), (mlp, 0, 2), (mlp, 1, 2), (mlp, 3, 5), (more, 1, 3), (more, 2, 3),
            (small, 0, 1)]


def _verify_local(answer: Answer) -> str | None:
    asked = "a dictionary with the same names, each with the part of this machine"
    cases = _divided()
    told = [mapping(answer({name: weight.clone() for name, weight in weights.items()}, rank, parts), asked)
            for weights, rank, parts in cases]
    for given, (weights, rank, parts) in zip(told, cases):
        if set(given) != set(weights):
            return gettext("The names are {given}. Return {asked}: {weights}.").format(
                given=sorted(map(str, given)), asked=gettext(asked), weights=sorted(weights))
        for name, complete in weights.items():
            if hint := _judge_part(name, tensor(given[name], asked), complete, rank, parts):
                return hint
    return None


def _judge_part(name: str, got: Tensor, complete: Tensor, rank: int, parts: int) -> str | None:
    wanted = local_weights({name: complete}, rank, parts)[name]
    if got.shape == wanted.shape:
        if close(got, wanted):
            return None
        if wanted.shape == complete.shape:
            return gettext("{name} is needed as it is, and its numbers have been changed.").format(name=name)
        return gettext("{name} of machine {rank} is not its own part: machine 0 holds the first rows or columns, "
                       "machine 1 the next ones, without gaps, so that heads stay together.").format(
            name=name, rank=rank)
    case = gettext("{name} of shape {shape}, divided among {parts}, has the shape {given}").format(
        name=name, shape=tuple(complete.shape), parts=parts, given=tuple(got.shape))
    if name.endswith("norm.weight"):
        return gettext("{case}. A norm works on one head at a time, so every machine needs all of it.").format(
            case=case)
    if got.shape == complete.shape:
        return gettext("{case}: it is not divided.").format(case=case)
    if got.shape == local_weights({name: complete}, 0, 2)[name].shape:
        return gettext("{case}, which is a half: use the argument `parts`.").format(case=case)
    return gettext("{case}: that is the wrong way. The first matrices of a pair are divided by their outputs, the "
                   "second (o_proj, down_proj) by their inputs.").format(case=case)


def _local_all_rows(weights: Mapping[str, Tensor], rank: int, parts: int) -> dict[str, Tensor]:
    return {name: weight if "norm" in name else weight.chunk(parts)[rank] for name, weight in weights.items()}


def _local_all_columns(weights: Mapping[str, Tensor], rank: int, parts: int) -> dict[str, Tensor]:
    return {name: weight if "norm" in name else weight.chunk(parts, 1)[rank] for name, weight in weights.items()}


def _local_norms_too(weights: Mapping[str, Tensor], rank: int, parts: int) -> dict[str, Tensor]:
    return {name: weight.chunk(parts, dim=1 if name in ("o_proj.weight", "down_proj.weight") else 0)[rank]
            for name, weight in weights.items()}


def _local_keys_whole(weights: Mapping[str, Tensor], rank: int, parts: int) -> dict[str, Tensor]:
    local = local_weights(weights, rank, parts)
    return {name: weights[name] if name[0] in "kv" else part for name, part in local.items()}


def _local_down_by_rows(weights: Mapping[str, Tensor], rank: int, parts: int) -> dict[str, Tensor]:
    local = local_weights(weights, rank, parts)
    return {name: weights[name].chunk(parts)[rank] if name.startswith("down") else part for name, part in local.items()}


def _local_interleaved(weights: Mapping[str, Tensor], rank: int, parts: int) -> dict[str, Tensor]:
    return {name: weight if "norm" in name else weight[:, rank::parts]
            if name in ("o_proj.weight", "down_proj.weight") else weight[rank::parts]
            for name, weight in weights.items()}


def _local_always_two(weights: Mapping[str, Tensor], rank: int, parts: int) -> dict[str, Tensor]:
    return local_weights(weights, rank % 2, 2)


def _local_by_slices(weights: Mapping[str, Tensor], rank: int, parts: int) -> dict[str, Tensor]:
    local = {}
    for name, weight in weights.items():
        if "norm" not in name:
            dim = int(name.split("_")[0] in ("o", "down"))
            size = weight.shape[dim] // parts
            weight = weight.narrow(dim, rank * size, size).clone()
        local[name] = weight
    return local


def _local_by_reshape(weights: Mapping[str, Tensor], rank: int, parts: int) -> dict[str, Any]:
    local: dict[str, Any] = {}
    for name, weight in weights.items():
        out_features = len(weight)
        if weight.dim() == 1:
            local[name] = weight.tolist()
        elif name[0] in "od":
            local[name] = weight.reshape(out_features, parts, -1)[:, rank].numpy()
        else:
            local[name] = weight.reshape(parts, out_features // parts, -1)[rank].double()
    return local


_LOCAL = Exercise("15.2", "What one of the machines holds", local_weights, _verify_local, (
    (_local_all_rows, "o_proj.weight of shape (24, 32), divided among 2, has the shape (12, 32): that is the wrong"),
    (_local_all_columns, "q_proj.weight of shape (32, 24), divided among 2, has the shape (32, 12): that is the wrong"),
    (_local_down_by_rows, "down_proj.weight of shape (24, 40), divided among 2, has the shape (12, 40)"),
    (_local_norms_too, "every machine needs all of it"),
    (_local_keys_whole, "it is not divided"),
    (_local_interleaved, "not its own part"),
    (_local_always_two, "use the argument `parts`"),
    (lambda weights, rank, parts: [part for part in local_weights(weights, rank, parts).values()], "a dictionary with"),
    (lambda weights, rank, parts: print(end=""), "returned None"),
), also_wrong=(
    lambda weights, rank, parts: local_weights(weights, parts - 1 - rank, parts),
    lambda weights, rank, parts: local_weights(weights, 0, parts),
    lambda weights, rank, parts: local_weights(weights, rank - 1, parts),
    lambda weights, rank, parts: {name.removesuffix(".weight"): part
                                  for name, part in local_weights(weights, rank, parts).items()},
    lambda weights, rank, parts: {name: part / parts for name, part in local_weights(weights, rank, parts).items()},
    lambda weights, rank, parts: {name: part for name, part in local_weights(weights, rank, parts).items()
                                  if "norm" not in name},
), right=(
    lambda weights, rank, parts: {
        name: weight if weight.dim() == 1 else torch.tensor_split(weight, parts, int(name[0] in "od"))[rank]
        for name, weight in weights.items()},
    lambda weights, rank, parts: {
        name: weight if name in ("q_norm.weight", "k_norm.weight")
        else weight.T.chunk(parts)[rank].T if name in ("o_proj.weight", "down_proj.weight")
        else weight.chunk(parts)[rank] for name, weight in weights.items()},
    _local_by_slices,
    _local_by_reshape,
), equivalent={
    "`by_inputs = name in ('o_proj.weight', 'down_proj.weight')` to "
    "`by_inputs = name in ('down_proj.weight', 'o_proj.weight')`": "`in` does not mind the order.",
})

# ---- 15.3 ------------------------------------------------------------------------------------------------


def shared_gradients(model: Qwen3Model, token_ids: Tensor, labels: Tensor,
                     all_reduce: Callable[[Tensor], object]) -> dict[str, Tensor]:
    targets = labels[:, 1:].flatten()
    counted = (targets != -100).sum()
    model.zero_grad()
    logits = model(token_ids[:, :-1]).flatten(0, 1)
    F.cross_entropy(logits, targets, reduction="sum").backward()  # a sum: where nothing counts, there is no mean
    all_reduce(counted)
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:  # as a frozen one has none
            all_reduce(parameter.grad)
            gradients[name] = parameter.grad / counted
    return gradients


_Reduce = Callable[[Any], Any]
_Parts = list[tuple[Tensor, Tensor]]
_MOST_EXCHANGES = 1000  # in a step: far more than the model has parameters
_MOST_ROUNDS = 6


def _parts(seed: int, *counted: tuple[int, ...]) -> _Parts:
    """Token ids and labels, (b, t + 1), of each process: for each of its texts so many tokens count, from the last."""
    generator = random_generator(seed)
    parts = []
    for texts in counted:
        token_ids = torch.randint(1, CONFIG.vocab_size, (len(texts), 8), generator=generator)
        labels = token_ids.clone()
        for row, count in zip(labels, texts):
            row[1:8 - count] = IGNORED  # the first column stays: nothing predicts it, so it never counts
        parts.append((token_ids, labels))
    return parts


def _cases() -> list[tuple[int, _Parts]]:
    """The seed of a model, and what its processes have: uneven numbers of texts and of tokens that count."""
    return [(6, _parts(0, (7, 2), (3, 1))), (7, _parts(1, (5,), (1, 4, 2), (7, 7)))]


def _case_with_nothing() -> tuple[int, _Parts]:
    """In the second of three processes no token counts."""
    return 8, _parts(2, (4, 1), (0, 0), (6,))


class _Exchange:
    """Plays several processes one after the other, and what they exchange.

    Nobody knows a sum before all have given their summands. So all of them run again and again, each time with the sums
    of the time before, until these no longer change. Then they are what real processes would have got, and what is
    returned or raised is what they would have returned or raised.
    """

    def __init__(self, answer: Answer, seed: int, parts: _Parts) -> None:
        self._answer, self._seed, self._parts = answer, seed, parts
        self._sums: list[Tensor] = []

    def gradients(self) -> list[dict[str, Tensor]]:
        """What an answer returns in each of the processes."""
        for _ in range(_MOST_ROUNDS):
            played = [self._play(*part) for part in self._parts]
            given = [summands for _, summands in played]
            sums = [torch.stack(summands).sum(0) for summands in takewhile(_of_one_shape, zip(*given))]
            if len(sums) == len(self._sums) and all(map(_alike, sums, self._sums)):
                break
            self._sums = sums
        told = []
        for result, _ in played:
            if isinstance(result, Exception):
                raise result
            told.append(result)
        self._compare(given)
        return told

    def _play(self, token_ids: Tensor, labels: Tensor) -> tuple[dict[str, Tensor] | Exception, list[Tensor]]:
        """What an answer returns or raises in one process, and what it gave to be added up."""
        model, given = varied_model(self._seed), list[Tensor]()
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)  # what the step before has left
        weights = [parameter.detach().clone() for parameter in model.parameters()]

        def all_reduce(tensor: Any) -> Tensor:
            if not isinstance(tensor, Tensor):
                raise NotYet(gettext("all_reduce was given {describe}. It adds up tensors, each in its place.").format(
                    describe=describe(tensor)))
            if len(given) == _MOST_EXCHANGES:
                raise NotYet(gettext("all_reduce is called more than {most_exchanges} times. What ends the loop around "
                                     "it?").format(most_exchanges=_MOST_EXCHANGES))
            given.append(tensor.detach().clone())
            if len(given) <= len(self._sums) and self._sums[len(given) - 1].shape == tensor.shape:
                with torch.no_grad():
                    tensor.copy_(self._sums[len(given) - 1])
            return tensor

        try:
            told = self._read(self._answer(model, token_ids.clone(), labels.clone(), all_reduce), model)
            if not all(map(torch.equal, weights, model.parameters())):
                raise NotYet("the weights have been changed. The update comes later, once everyone has the gradient.")
        except Exception as error:  # which counts only if it comes with the right sums, too
            return error, given
        return told, given

    @staticmethod
    def _read(told: object, model: Qwen3Model) -> dict[str, Tensor]:
        asked = gettext("a dictionary with a gradient for each parameter, by the names of model.named_parameters()")
        gradients, shapes = mapping(told, asked), {name: p.shape for name, p in model.named_parameters()}
        if set(gradients) != set(shapes):
            raise NotYet(gettext("the dictionary has other names than the parameters. Return {asked}.").format(
                asked=asked))
        found = {name: tensor(gradients[name], gettext("{asked}; {name} has no tensor").format(
            asked=asked, name=name)) for name in shapes}
        for name, shape in shapes.items():
            if found[name].shape != shape:
                raise NotYet(gettext("the gradient of {name} has the shape {shape}, and the parameter "
                                     "{parameter_shape}. Return {asked}.").format(
                    name=name, shape=tuple(found[name].shape), parameter_shape=tuple(shape), asked=asked))
        return found

    @staticmethod
    def _compare(given: list[list[Tensor]]) -> None:
        """All processes must exchange the same things in the same order."""
        counts = [len(summands) for summands in given]
        if len(set(counts)) > 1:
            raise NotYet(gettext("the processes call all_reduce {counts} times, so one would wait for the others for "
                                 "ever. Each takes part in every exchange, even if none of its tokens counts.").format(
                counts=", ".join(map(str, counts))))
        for number, summands in enumerate(zip(*given), 1):
            if not _of_one_shape(summands):
                shapes = ", ".join(str(tuple(each.shape)) for each in summands)
                raise NotYet(gettext("in exchange {number} the processes give tensors of the shapes {shapes}, which "
                                     "cannot be added up. What depends on a process's own texts can only go in as a "
                                     "sum over them.").format(number=number, shapes=shapes))


def _of_one_shape(tensors: Iterable[Tensor]) -> bool:
    return len({each.shape for each in tensors}) == 1


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one.double(), other.double(), 1e-6, 1e-9, equal_nan=True)


def _right_gradients(seed: int, parts: _Parts) -> dict[str, Tensor]:
    """Of the mean over all tokens that count, computed in one process."""
    model = varied_model(seed)
    total = sum(int((labels[:, 1:] != IGNORED).sum()) for _, labels in parts)
    for token_ids, labels in parts:
        logits = model(token_ids[:, :-1]).flatten(0, 1)
        (F.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum") / total).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def _same_gradients(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(close(one[name], other[name], rtol=1e-3, atol=1e-5) for name in other)


@cache
def _results_of(slip: Answer) -> list[list[dict[str, Tensor]]]:
    """What a slip gives in each of the processes of each case."""
    return [_Exchange(slip, *case).gradients() for case in _cases()]


def _verify_shared(answer: Answer) -> str | None:
    cases = _cases()
    told = [_Exchange(answer, *case).gradients() for case in cases]
    if any(not _same_gradients(gradients, _right_gradients(*case))
           for case, processes in zip(cases, told) for gradients in processes):
        return _shared_hint(told)
    case = _case_with_nothing()
    for gradients in _Exchange(answer, *case).gradients():
        if not all(bool(gradient.isfinite().all()) for gradient in gradients.values()):
            return ("If in one process no token counts, all get gradients that are not numbers: a mean over no tokens "
                    "is 0/0, and it spoils every sum. Start from the sum of the losses (reduction=\"sum\").")
        if not _same_gradients(gradients, _right_gradients(*case)):
            return ("If in one process no token counts, the gradients are wrong. It takes part like the others, with "
                    "gradients of zero and a count of zero.")
    return None


def _shared_hint(told: list[list[dict[str, Tensor]]]) -> str:
    for slip, hint in _SHARED_SLIPS:
        if all(_same_gradients(given, known) for processes, others in zip(told, _results_of(slip))
               for given, known in zip(processes, others)):
            return hint
    if any(not _same_gradients(processes[0], other) for processes in told for other in processes[1:]):
        return ("The processes end with different gradients, so from this step on their models would differ. What goes "
                "through all_reduce is the same for all: what is computed from it alone, too.")
    return ("All processes have the same gradients, and these are not the gradient of the mean over all tokens that "
            "count. The sums over all processes are needed of two things: of the gradients, and of the counts.")


def _shared(model: Qwen3Model, token_ids: Tensor, labels: Tensor, reduction: str) -> dict[str, Tensor]:
    """The gradients of the texts of one process, by parameter: of the mean or the sum of their losses."""
    model.zero_grad()
    logits = model(token_ids[:, :-1]).flatten(0, 1)
    F.cross_entropy(logits, labels[:, 1:].flatten(), reduction=reduction).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def _added(gradients: dict[str, Tensor], all_reduce: _Reduce, divisor: Tensor | float = 1.0) -> dict[str, Tensor]:
    for gradient in gradients.values():
        all_reduce(gradient)
    return {name: gradient / divisor for name, gradient in gradients.items()}


def _own_alone(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    return _shared(model, token_ids, labels, "mean")


def _mean_of_means(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    processes = torch.ones(())
    all_reduce(processes)
    return _added(_shared(model, token_ids, labels, "mean"), all_reduce, processes)


def _added_means(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    return _added(_shared(model, token_ids, labels, "mean"), all_reduce)


def _added_sums(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    return _added(_shared(model, token_ids, labels, "sum"), all_reduce)


def _by_own_count(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    counted = (labels[:, 1:] != IGNORED).sum()
    return _added(_shared(model, token_ids, labels, "sum"), all_reduce, counted)


def _by_all_tokens(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    counted = torch.tensor(labels[:, 1:].numel())
    all_reduce(counted)
    return _added(_shared(model, token_ids, labels, "sum"), all_reduce, counted)


def _with_first_column(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    counted = (labels != IGNORED).sum()
    all_reduce(counted)
    return _added(_shared(model, token_ids, labels, "sum"), all_reduce, counted)


def _by_texts(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    texts = torch.tensor(len(labels))
    own = _shared(model, token_ids, labels, "mean")
    all_reduce(texts)
    return _added({name: gradient * len(labels) for name, gradient in own.items()}, all_reduce, texts)


def _loss_shared(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    counted = (labels[:, 1:] != IGNORED).sum()
    own = _shared(model, token_ids, labels, "sum")
    all_reduce(counted)
    return {name: gradient / counted for name, gradient in own.items()}


def _without_reset(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    left = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    counted = (labels[:, 1:] != IGNORED).sum()
    own = _shared(model, token_ids, labels, "sum")
    all_reduce(counted)
    return _added({name: gradient + left[name] for name, gradient in own.items()}, all_reduce, counted)


# What one may have computed instead, the likeliest slip first.
_SHARED_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_own_alone, "Each process has the gradient of its own texts: nothing is added up. Put each gradient through "
                 "all_reduce."),
    (_mean_of_means, "That is the mean of the processes' means, and a token weighs more in it where few of them count. "
                     "Add up sums, and divide by the number of all tokens that count."),
    (_added_means, "The means of the processes are added up, so the gradient is too long. Add up the sums of the "
                   "losses' gradients, and divide by the number of all tokens that count."),
    (_loss_shared, "The number of tokens is added up over all processes, the gradients are not: each has those of its "
                   "own texts. Put each gradient through all_reduce, too."),
    (_added_sums, "The sum over all processes is right, and it is not yet divided by the number of all tokens that "
                  "count."),
    (_by_own_count, "Each process divides by the number of its own tokens, so their gradients differ. That number goes "
                    "through all_reduce, too."),
    (_by_texts, "You weigh the processes by their numbers of texts. Some texts have more tokens that count than "
                "others: count these."),
    (_by_all_tokens, "You divide by the number of all tokens. Those labelled -100 are only read: leave them out of "
                     "the count."),
    (_with_first_column, "You count the first column of the labels, too, and nothing predicts it: count in "
                         "labels[:, 1:]."),
    (_without_reset, "What the step before has left in the parameters is added to the gradients: begin with "
                     "model.zero_grad()."),
)


def _silent_without_tokens(model: Qwen3Model, token_ids: Tensor, labels: Tensor,
                           all_reduce: _Reduce) -> dict[str, Tensor]:
    if (labels[:, 1:] == IGNORED).all():
        return {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    return shared_gradients(model, token_ids, labels, all_reduce)


def _mean_by_hand(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    counts = labels[:, 1:] != IGNORED
    counted = counts.sum()
    losses = F.cross_entropy(model(token_ids[:, :-1]).transpose(1, 2), token_ids[:, 1:], reduction="none")
    model.zero_grad()
    ((losses * counts).sum() / counted).backward()
    own = {name: parameter.grad * counted for name, parameter in model.named_parameters() if parameter.grad is not None}
    all_reduce(counted)
    return _added(own, all_reduce, counted)


def _at_least_one(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    counted = (labels[:, 1:] != IGNORED).sum().clamp(min=1)
    all_reduce(counted)
    return _added(_shared(model, token_ids, labels, "sum"), all_reduce, counted)


def _updates_at_once(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    gradients = shared_gradients(model, token_ids, labels, all_reduce)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.sub_(0.01 * gradients[name])
    return gradients


def _own_number(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    all_reduce(int((labels[:, 1:] != IGNORED).sum()))
    return {}


def _logits_shared(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    all_reduce(model(token_ids[:, :-1]))
    return shared_gradients(model, token_ids, labels, all_reduce)


def _halved(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    return {name: gradient / 2 for name, gradient in shared_gradients(model, token_ids, labels, all_reduce).items()}


def _without_end(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    while True:
        all_reduce(torch.ones(()))


def _uneven_at_the_end(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    gradients = shared_gradients(model, token_ids, labels, all_reduce)
    return {name: gradient * (1 + len(labels) / 10) for name, gradient in gradients.items()}


def _count_first(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    """The number of all tokens is known before the loss, which is divided by it."""
    counted = (labels[:, 1:] != IGNORED).sum()
    total = all_reduce(counted)
    logits = model(token_ids[:, :-1]).transpose(1, 2)
    loss = F.cross_entropy(logits, labels[:, 1:], reduction="sum") / total
    model.zero_grad(set_to_none=False)
    loss.backward()
    for parameter in model.parameters():
        all_reduce(parameter.grad)
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def _in_one_exchange(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    """All gradients and the count in one long vector."""
    names, parameters = zip(*model.named_parameters())
    logs = model(token_ids[:, :-1]).log_softmax(-1)
    counts = labels[:, 1:] != IGNORED
    taken = logs.gather(2, token_ids[:, 1:, None])[..., 0]
    gradients = torch.autograd.grad(-(taken * counts).sum(), parameters)
    vector = torch.cat([counts.sum()[None].float(), *(gradient.flatten() for gradient in gradients)])
    all_reduce(vector)
    split = vector[1:].split([parameter.numel() for parameter in parameters])
    return {name: part.view_as(parameter) / vector[0] for name, part, parameter in zip(names, split, parameters)}


def _text_by_text(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    """Gradient accumulation within the process, in float64."""
    counted = torch.zeros((), dtype=torch.float64)
    sums = {name: torch.zeros_like(parameter, dtype=torch.float64) for name, parameter in model.named_parameters()}
    for row in range(len(token_ids)):
        for name, gradient in _shared(model, token_ids[row:row + 1], labels[row:row + 1], "sum").items():
            sums[name] += gradient
        counted += int((labels[row, 1:] != IGNORED).sum())
    all_reduce(counted)
    return _added(sums, all_reduce, counted)


def _mean_times_count(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    """PyTorch's mean over no tokens is no number, and its gradient nothing all the same."""
    counted = (labels[:, 1:] != IGNORED).sum()
    own = {name: gradient * counted for name, gradient in _shared(model, token_ids, labels, "mean").items()}
    all_reduce(counted)
    return _added(own, all_reduce, counted)


def _share_of_the_mean(model: Qwen3Model, token_ids: Tensor, labels: Tensor, all_reduce: _Reduce) -> dict[str, Tensor]:
    """Each process's mean with its share of the tokens, and zeros where it has none."""
    own = int((labels[:, 1:] != IGNORED).sum())
    total = torch.tensor([float(own)])
    all_reduce(total)
    gradients = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    if own:
        gradients = _shared(model, token_ids, labels, "mean")
    return _added({name: gradient * (own / float(total)) for name, gradient in gradients.items()}, all_reduce)


_SHARED = Exercise("15.3", "One step on several machines", shared_gradients, _verify_shared, (
    *((slip, hint[:60]) for slip, hint in _SHARED_SLIPS),
    (_silent_without_tokens, "would wait for the others for ever"),
    (_mean_by_hand, "a mean over no tokens is 0/0"),
    (_at_least_one, "with gradients of zero and a count of zero"),
    (_updates_at_once, "the weights have been changed"),
    (_own_number, "It adds up tensors, each in its place"),
    (_logits_shared, "which cannot be added up"),
    (_halved, "All processes have the same gradients, and these are not"),
    (_uneven_at_the_end, "The processes end with different gradients"),
    (_without_end, "What ends the loop around it?"),
    (lambda model, token_ids, labels, all_reduce: _shared(model, token_ids, labels, "sum")["lm_head.weight"],
     "it returned a tensor of shape"),
    (lambda model, token_ids, labels, all_reduce: print(end=""), "returned None"),
), also_wrong=(
    lambda model, token_ids, labels, all_reduce: list(
        shared_gradients(model, token_ids, labels, all_reduce).values()),
    lambda model, token_ids, labels, all_reduce: {
        name: gradient.sum() for name, gradient in shared_gradients(model, token_ids, labels, all_reduce).items()},
    lambda model, token_ids, labels, all_reduce: {
        name: -gradient for name, gradient in shared_gradients(model, token_ids, labels, all_reduce).items()},
    lambda model, token_ids, labels, all_reduce: {
        name.removesuffix(".weight"): gradient
        for name, gradient in shared_gradients(model, token_ids, labels, all_reduce).items()},
    lambda model, token_ids, labels, all_reduce: shared_gradients(model, token_ids, token_ids, all_reduce),
    lambda model, token_ids, labels, all_reduce: shared_gradients(model, token_ids, labels, lambda tensor: tensor),
), right=(
    _count_first,
    _in_one_exchange,
    _text_by_text,
    _mean_times_count,
    _share_of_the_mean,
), equivalent={
    "`gradients = {}` is done in the first call alone": "Every call writes all the names anew.",
    "`if parameter.grad is not None:` to `all_reduce(parameter.grad)`": "Nothing is frozen in the models of the check.",
})

EXERCISES: tuple[Exercise, ...] = (_USERS, _LOCAL, _SHARED)
