"""Exercises of chapter 9, inside the transformer: a rotation, a head, what a token changes, a head to be found."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_utils.config import Qwen3Config
from course_utils.exercises.answers import NotYet, close, tensor, whole, wholes
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.language import gettext
from course_utils.qwen3 import RotaryEmbedding, rotate


def _same(given: list[Tensor], expected: list[Tensor]) -> bool:
    """Whether all of these tensors agree, where NaN is like NaN."""
    return all(close(one.nan_to_num(99), other.nan_to_num(99), 1e-4, 1e-5) for one, other in zip(given, expected))


# ---- 9.1 -------------------------------------------------------------------------------------------------


def rotate_to(x: Tensor, position: int, theta: float) -> Tensor:
    """Rotate a query or key, (size,), as Qwen3 does for a token at this position."""
    half = x.shape[-1] // 2
    angles = position * theta ** -(torch.arange(half) / half)
    first, second = x[:half], x[half:]
    return torch.cat((first * angles.cos() - second * angles.sin(),
                      first * angles.sin() + second * angles.cos()))


def _interleave(x: Tensor) -> Tensor:
    """Halves to neighbours: pair (i, i + half) is moved to (2 i, 2 i + 1)."""
    return x.view(2, -1).T.flatten()


def _neighbours_as_pairs(x: Tensor, position: int, theta: float) -> Tensor:
    return _interleave(rotate_to(x.view(-1, 2).T.flatten(), position, theta))


def _backwards(x: Tensor, position: int, theta: float) -> Tensor:
    return rotate_to(x, -position, theta)


def _one_angle(x: Tensor, position: int, theta: float) -> Tensor:
    return rotate_to(x, position, 1.0)


def _slow_first(x: Tensor, position: int, theta: float) -> Tensor:
    return rotate_to(x, position, 1 / theta)


def _half_exponent(x: Tensor, position: int, theta: float) -> Tensor:
    return rotate_to(x, position, theta ** 0.5)


def _ignores_theta(x: Tensor, position: int, theta: float) -> Tensor:
    return rotate_to(x, position, 10_000.0)


def _from_one(x: Tensor, position: int, theta: float) -> Tensor:
    return rotate_to(x, position + 1, theta)


def _updated_too_soon(x: Tensor, position: int, theta: float) -> Tensor:
    half = x.shape[-1] // 2
    angles = position * theta ** -(torch.arange(half) / half)
    first = x[:half] * angles.cos() - x[half:] * angles.sin()
    return torch.cat((first, first * angles.sin() + x[half:] * angles.cos()))


def _exponent_twice(x: Tensor, position: int, theta: float) -> Tensor:
    return rotate_to(x, position, theta ** 2)


def _in_degrees(x: Tensor, position: int, theta: float) -> Tensor:
    return rotate_to(x, position * math.pi / 180, theta)  # type: ignore[arg-type]


def _always_one(x: Tensor, position: int, theta: float) -> Tensor:
    return rotate_to(x, 1, theta)


def _sine_for_cosine(x: Tensor, position: int, theta: float) -> Tensor:
    half = x.shape[-1] // 2
    angles = position * theta ** -(torch.arange(half) / half)
    return torch.cat((x[:half] * angles.sin() - x[half:] * angles.cos(),
                      x[:half] * angles.cos() + x[half:] * angles.sin()))


# What one may have computed instead, the likeliest slip first.
_ROTATION_SLIPS: tuple[tuple[Answer, str], ...] = (
    (lambda x, position, theta: x, "Nothing is turned: what comes back is the vector that was handed in."),
    (_neighbours_as_pairs, "It pairs neighbours, 0 with 1, 2 with 3. Qwen3 pairs number i with number i + size / 2."),
    (_backwards, "It turns the other way round. The first of a pair becomes first * cos - second * sin."),
    (_always_one, "It turns as if each token stood at position 1. Use the argument position."),
    (_from_one, "It counts positions from 1. The first token is at position 0, and its vectors are not turned."),
    (_one_angle, "All pairs turn by the same angle. Pair i turns by position * theta ** (-2 i / size)."),
    (_ignores_theta, "It does not use theta: 10,000 is the base of the first rotary models, Qwen3 has another."),
    (_slow_first, "The later pairs turn faster than the first. The exponent is negative: theta ** (-2 i / size)."),
    (_half_exponent, "The pairs turn too fast: by your exponent pair i turns like pair i / 2. It is -2 i / size, where "
                     "size is the whole head's."),
    (_exponent_twice, "The pairs turn too slowly: by your exponent pair i turns like pair 2 i. It is -2 i / size, "
                      "which is -i / half."),
    (_updated_too_soon, "The second half is computed from the first half's new numbers. Keep the old ones: both of a "
                        "pair turn at once."),
    (_sine_for_cosine, "Sine and cosine have changed places: at position 0 the sine is 0, and the vector has to stay "
                       "as it is."),
    (_in_degrees, "The angles are taken for degrees. They are radians, as torch.cos and torch.sin want them."),
)
# Size, theta, position.
_ROTATIONS = ((8, 1_000_000.0, 0), (8, 1_000_000.0, 3), (32, 100.0, 17), (2, 500.0, 1), (12, 20_000.0, 5))


def _rotation_cases() -> list[tuple[Tensor, int, float]]:
    generator = torch.Generator().manual_seed(92)
    return [(torch.randn(size, generator=generator), position, theta) for size, theta, position in _ROTATIONS]


def _of_the_package(x: Tensor, position: int, theta: float) -> Tensor:
    rotary = RotaryEmbedding(Qwen3Config(head_dim=len(x), rope_theta=theta))
    return rotate(x.view(1, 1, 1, len(x)), *rotary(torch.tensor([[position]]))).flatten()


def _verify_rotation(answer: Answer) -> str | None:
    cases = _rotation_cases()
    told = []
    for x, position, theta in cases:
        kept = x.clone()
        told.append(tensor(answer(kept, position, theta), "the turned vector, (size,)", tuple(x.shape)))
        if not torch.equal(x, kept):
            return "It changes the vector that it was given. Make a new one with torch.cat."
    right = [_of_the_package(*case) for case in cases]
    if _same(told, right):
        return None
    for slip, hint in _ROTATION_SLIPS:
        if _same(told, [slip(*case) for case in cases]):
            return hint
    at = next(at for at, one in enumerate(told) if not _same([one], [right[at]]))
    x, position, theta = cases[at]
    if not math.isclose(float(told[at].norm()), float(x.norm()), rel_tol=1e-4):
        return gettext("The vector of size {count} has another length than before. A rotation changes the direction "
                       "alone: look at signs, and at which numbers make a pair.").format(count=len(x))
    return gettext("The vector of size {count} is turned, but not as in Qwen3: at position {position} pair i, "
                   "which is numbers i and i + size / 2, turns by position * theta ** (-2 i / size), and "
                   "theta is {theta:g}.").format(count=len(x), position=position, theta=theta)


def _pair_by_pair(x: Tensor, position: int, theta: float) -> list[float]:
    half = len(x) // 2
    turned = [0.0] * len(x)
    for i in range(half):
        angle = position / theta ** (2 * i / len(x))
        first, second = float(x[i]), float(x[i + half])
        turned[i] = first * math.cos(angle) - second * math.sin(angle)
        turned[i + half] = first * math.sin(angle) + second * math.cos(angle)
    return turned


def _as_complex_numbers(x: Tensor, position: int, theta: float) -> Tensor:
    first, second = x.double().chunk(2)
    angles = position * theta ** -(torch.arange(0, len(x), 2) / len(x)).double()
    turned = torch.complex(first, second) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag))


def _with_turned_halves(x: Tensor, position: int, theta: float) -> Tensor:
    angles = position * theta ** -(torch.arange(0, len(x), 2) / len(x)).repeat(2)
    first, second = x.chunk(2)
    return x * angles.cos() + torch.cat((-second, first)) * angles.sin()


def _with_numpy(x: Tensor, position: int, theta: float) -> Any:
    first, second = np.split(x.numpy(), 2)
    angles = position * theta ** -(np.arange(len(first)) / len(first))
    return np.concatenate((first * np.cos(angles) - second * np.sin(angles),
                           first * np.sin(angles) + second * np.cos(angles)))


_ROTATE = Exercise("9.1", "Rotate by hand", rotate_to, _verify_rotation, wrong=(
    *((slip, hint[:25]) for slip, hint in _ROTATION_SLIPS),
    (lambda x, position, theta: x.copy_(rotate_to(x, position, theta)), "torch.cat"),
    (lambda x, position, theta: 2 * rotate_to(x, position, theta), "another length"),
    (lambda x, position, theta: rotate_to(x, 2 * position, theta), "not as in Qwen3"),
    (lambda x, position, theta: rotate_to(x, position, theta)[None], "(size,)"),
    (lambda x, position, theta: print(end=""), "returned None"),
), also_wrong=(
    lambda x, position, theta: rotate_to(x, position, 1_000_000.0),
    lambda x, position, theta: rotate_to(x, 3, theta),
    lambda x, position, theta: rotate_to(x, position, theta).flip(0),
    lambda x, position, theta: -rotate_to(x, position, theta),
    lambda x, position, theta: rotate_to(x[:8], position, theta),
), right=(
    _pair_by_pair,
    _as_complex_numbers,
    _with_turned_halves,
    _with_numpy,
    lambda x, position, theta: rotate_to(x=x, position=position, theta=theta),
), equivalent={
    "`half = x.shape[-1] // 2` to `half = x.shape[-0] // 2`": "There is one dimension, number 0 and -1.",
})

# ---- 9.2 -------------------------------------------------------------------------------------------------


def attention_head(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What one head hands on: queries, keys, values and the result are (tokens, size)."""
    scores = queries @ keys.T / queries.shape[-1] ** 0.5
    later = torch.ones_like(scores, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(later, -torch.inf).softmax(dim=-1)
    return weights @ values


def _no_scale(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return attention_head(queries * queries.shape[-1] ** 0.5, keys, values)


def _scale_by_the_size(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return attention_head(queries / queries.shape[-1] ** 0.5, keys, values)


def _scale_by_tokens(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return attention_head(queries * (queries.shape[-1] / queries.shape[0]) ** 0.5, keys, values)


def _no_mask(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return (queries @ keys.T / queries.shape[-1] ** 0.5).softmax(dim=-1) @ values


def _mask_after_softmax(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return (queries @ keys.T / queries.shape[-1] ** 0.5).softmax(dim=-1).tril() @ values


def _zero_for_minus_infinity(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return (queries @ keys.T / queries.shape[-1] ** 0.5).tril().softmax(dim=-1) @ values


def _wrong_axis(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    scores = queries @ keys.T / queries.shape[-1] ** 0.5
    later = torch.ones_like(scores, dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(dim=0) @ values


def _into_the_future(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return attention_head(queries.flip(0), keys.flip(0), values.flip(0)).flip(0)


def _not_itself(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    scores = queries @ keys.T / queries.shape[-1] ** 0.5
    later = torch.ones_like(scores, dtype=torch.bool).triu(0)
    return scores.masked_fill(later, -torch.inf).softmax(dim=-1) @ values


def _keys_for_values(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return attention_head(queries, keys, keys)


def _fixed_size(size: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return attention_head(queries * (queries.shape[-1] / size) ** 0.5, keys, values)


def _sum_of_all_before(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return values.cumsum(0) / torch.arange(1, len(values) + 1)[:, None]


def _values_that_keys_weigh(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return attention_head(keys, queries, values)


_FIXED = ("The scores are divided by the root of {0}, whatever the size of the head is. The notebook's `size` is that "
          "of its own model: take queries.shape[-1].")
# What one may have computed instead, the likeliest slip first.
_HEAD_SLIPS: tuple[tuple[Answer, str], ...] = (
    *((partial(_fixed_size, size), _FIXED.format(size)) for size in (32, 64, 128)),
    (_no_mask, "Each token sees the tokens after it. Mask the scores above the diagonal."),
    (_no_scale, "The scores are not scaled. Divide them by the square root of the head's size before the softmax."),
    (_scale_by_the_size, "The scores are divided by the head's size. Divide by its square root, as their spread "
                         "grows with that."),
    (_scale_by_tokens, "The scores are scaled by the number of tokens. What makes them large is the number of "
                       "products in each sum: the size of the head, queries.shape[-1]."),
    (_mask_after_softmax, "The mask comes after the softmax, so the weights of a row no longer add up to one. Mask "
                          "the scores, with minus infinity, before the softmax."),
    (_zero_for_minus_infinity, "The masked scores are 0, and 0 is a score like any other: e to the power of 0 is 1. "
                               "Put minus infinity there."),
    (_wrong_axis, "The softmax runs down the columns. A row is what one query gives to all keys: use dim=-1."),
    (_not_itself, "The diagonal is masked, too, so the first token has nothing to look at. Each token sees itself: "
                  "triu(1) begins above the diagonal."),
    (_into_the_future, "Each token sees itself and what comes after it. It is the other triangle: mask where the "
                       "key's place is greater than the query's."),
    (_keys_for_values, "It mixes the keys. The weights come from queries and keys; what is mixed are the values."),
    (_values_that_keys_weigh, "Queries and keys have changed places. A row of the scores belongs to a query: "
                              "queries @ keys.T."),
    (_sum_of_all_before, "All that came before counts alike here: queries and keys have no say."),
)


def _head_cases() -> list[tuple[Tensor, Tensor, Tensor]]:
    """Queries, keys and values of different numbers of tokens and sizes; all as large as they are in a model."""
    generator = torch.Generator().manual_seed(91)
    return [(2 * torch.randn(t, size, generator=generator), 2 * torch.randn(t, size, generator=generator),
             torch.randn(t, size, generator=generator)) for t, size in ((5, 16), (3, 4), (1, 8), (9, 6))]


def _verify_head(answer: Answer) -> str | None:
    cases = _head_cases()
    told = []
    for case in cases:
        handed = [part.clone() for part in case]
        told.append(tensor(answer(*handed), "what the head hands on, (tokens, size)", tuple(case[2].shape)))
        if not all(torch.equal(part, copy) for part, copy in zip(case, handed)):
            return "It changes the queries, keys or values that it was given. Make new tensors instead."
    right = [attention_head(*case) for case in cases]
    if _same(told, right):
        return None
    for slip, hint in _HEAD_SLIPS:
        if _same(told, [slip(*case) for case in cases]):
            return hint
    at = next(at for at, one in enumerate(told) if not _same([one], [right[at]]))
    t, size = cases[at][0].shape
    return gettext("For {t} tokens and a head of size {size} the result is another one. Compare your steps with the "
                   "cells above, for three tokens: scores, scaled scores, mask, weights.").format(t=t, size=size)


def _row_by_row(queries: Tensor, keys: Tensor, values: Tensor) -> list[list[float]]:
    rows = []
    for place, query in enumerate(queries):
        weights = (keys[:place + 1] @ query / math.sqrt(len(query))).softmax(dim=0)
        rows.append((weights @ values[:place + 1]).tolist())
    return rows


def _of_pytorch(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    attend = torch.nn.functional.scaled_dot_product_attention
    return attend(queries[None], keys[None], values[None], is_causal=True)[0]


def _head_with_numpy(queries: Tensor, keys: Tensor, values: Tensor) -> Any:
    scores = np.asarray(queries, np.float64) @ np.asarray(keys).T / np.sqrt(queries.shape[1])
    weights = np.tril(np.exp(scores - scores.max(axis=1, keepdims=True)))
    return weights / weights.sum(axis=1, keepdims=True) @ np.asarray(values)


def _with_a_large_number(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    places = torch.arange(len(queries))
    scores = torch.einsum("ik,jk->ij", queries, keys) * queries.shape[-1] ** -0.5
    return torch.where(places[:, None] >= places, scores, -1e9).softmax(-1) @ values


_SECOND = "There are two dimensions, and the last one is number 1."
_SCORES = "`scores = queries @ keys.T / queries.shape[-1] ** 0.5`"
_WEIGHTS = "`weights = scores.masked_fill(later, -torch.inf).softmax(dim=-1)`"
_HEAD = Exercise("9.2", "One attention head", attention_head, _verify_head, wrong=(
    *((slip, hint[:41]) for slip, hint in _HEAD_SLIPS),
    (lambda queries, keys, values: attention_head(queries.mul_(2), keys, values), "Make new tensors"),
    (lambda queries, keys, values: attention_head(3 * queries, keys, values), "For 5 tokens"),
    (lambda queries, keys, values: queries @ keys.T, "what the head hands on"),
    (lambda queries, keys, values: print(end=""), "returned None"),
), also_wrong=(
    lambda queries, keys, values: values,
    lambda queries, keys, values: attention_head(queries, keys, values)[:1].expand(len(values), -1),
    lambda queries, keys, values: attention_head(queries, keys, values).round(decimals=1),
    lambda queries, keys, values: _fixed_size(16, queries, keys, values),
    lambda queries, keys, values: attention_head(queries, keys.flip(0), values.flip(0)),
), right=(
    _row_by_row,
    _of_pytorch,
    _head_with_numpy,
    _with_a_large_number,
), equivalent={
    f"{_SCORES} to `scores = queries @ keys.T / queries.shape[1] ** 0.5`": _SECOND,
    f"{_WEIGHTS} to `weights = scores.masked_fill(later, -torch.inf).softmax(dim=1)`": _SECOND,
})

# ---- 9.3 -------------------------------------------------------------------------------------------------


def changed_keys(num_tokens: int, place: int, layer: int) -> list[int]:
    """The places at which this layer computes other keys when the token at `place` is replaced by another."""
    if layer == 0:
        return [place]  # made of the token itself and its position
    return list(range(place, num_tokens))  # made of all that the tokens there have looked at


def _itself_alone(num_tokens: int, place: int, layer: int) -> list[int]:
    return [place]


def _first_layer_too(num_tokens: int, place: int, layer: int) -> list[int]:
    return list(range(place, num_tokens))


def _after_it_alone(num_tokens: int, place: int, layer: int) -> list[int]:
    return list(range(place + 1, num_tokens)) if layer else [place]


def _all_places(num_tokens: int, place: int, layer: int) -> list[int]:
    return list(range(num_tokens)) if layer else [place]


def _those_before(num_tokens: int, place: int, layer: int) -> list[int]:
    return list(range(place + 1)) if layer else [place]


def _one_place_a_layer(num_tokens: int, place: int, layer: int) -> list[int]:
    return list(range(place, min(place + layer + 1, num_tokens)))


def _how_many(num_tokens: int, place: int, layer: int) -> int:
    return len(changed_keys(num_tokens, place, layer))


def _counts_from_one(num_tokens: int, place: int, layer: int) -> list[int]:
    return changed_keys(num_tokens, place, max(layer - 1, 0))


def _last_one_missing(num_tokens: int, place: int, layer: int) -> list[int]:
    return list(range(place, num_tokens - 1)) if layer else [place]


def _one_too_many(num_tokens: int, place: int, layer: int) -> list[int]:
    return list(range(place, num_tokens + 1)) if layer else [place]


def _all_but_the_first_layer(num_tokens: int, place: int, layer: int) -> list[int]:
    return changed_keys(num_tokens, place, 0 if layer else 1)


def _nothing_in_the_first_layer(num_tokens: int, place: int, layer: int) -> list[int]:
    return list(range(place, num_tokens)) if layer else []


# What one may think instead, the likeliest slip first.
_CHANGE_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_itself_alone, "Only the token itself, in every layer? The tokens after it have looked at it in layer 0, and of "
                    "what they took along their keys in layer 1 are made."),
    (_first_layer_too, "Layer 0 is special. Its keys come straight from the embeddings, before any token has looked "
                       "at another."),
    (_counts_from_one, "Layers count from 0: the one that is special is layer 0, and layer 1 is like those after it."),
    (_all_but_the_first_layer, "It is the other way round: layer 0 is the one in which no token has looked at another "
                               "yet."),
    (_nothing_in_the_first_layer, "In layer 0 a key is made of the token itself, and that is another one."),
    (_after_it_alone, "You leave out the replaced token itself. Its own vector is another one in every layer."),
    (_last_one_missing, "The last place is missing. range(place, num_tokens) ends with num_tokens - 1, which is the "
                        "last."),
    (_one_too_many, "Places count from 0, so the last one is num_tokens - 1."),
    (_all_places, "Can a token see what comes after it? Think of the mask."),
    (_those_before, "It is the other direction: a token looks back, so a change reaches those that come later."),
    (_one_place_a_layer, "The change does not creep on by one place a layer. In a single layer every later token can "
                         "look at the changed one, however far away."),
)
# Number of tokens, place, layer.
_CHANGES = ((6, 2, 0), (6, 2, 1), (6, 2, 5), (5, 4, 3), (4, 0, 0), (9, 0, 2), (1, 0, 4), (8, 3, 1), (3, 1, 0))


def _verify_changes(answer: Answer) -> str | None:
    told = [sorted(wholes(answer(*case), "the places themselves, a list of whole numbers", ordered=False))
            for case in _CHANGES]
    right = [changed_keys(*case) for case in _CHANGES]
    if told == right:
        return None
    for slip, hint in _CHANGE_SLIPS:
        if told == [slip(*case) for case in _CHANGES]:
            return hint
    case, places = next((case, places) for case, places, known in zip(_CHANGES, told, right) if places != known)
    return gettext("changed_keys{case} returns {places}, and the model says otherwise. Which tokens can know of the "
                   "change when this layer computes its keys?").format(case=case, places=places)


def _marked(num_tokens: int, place: int, layer: int) -> list[int]:
    knows = [token == place for token in range(num_tokens)]
    for _ in range(layer):
        knows = [any(knows[:token + 1]) for token in range(num_tokens)]
    return [token for token, known in enumerate(knows) if known]


_CHANGED_KEYS = Exercise("9.3", "What one token changes", changed_keys, _verify_changes, wrong=(
    *((slip, hint[:35]) for slip, hint in _CHANGE_SLIPS),
    (_how_many, "the places themselves"),
    (lambda num_tokens, place, layer: [6 - place], "the model says otherwise"),
    (lambda num_tokens, place, layer: print(end=""), "returned None"),
), also_wrong=(
    lambda num_tokens, place, layer: changed_keys(6, place, layer),
    lambda num_tokens, place, layer: changed_keys(num_tokens, 2, layer),
    lambda num_tokens, place, layer: changed_keys(num_tokens, place, 1),
    lambda num_tokens, place, layer: [token + 1 for token in changed_keys(num_tokens, place, layer)],
    lambda num_tokens, place, layer: str(changed_keys(num_tokens, place, layer)),
), right=(
    _marked,
    lambda num_tokens, place, layer: torch.arange(place, num_tokens if layer else place + 1),
    lambda num_tokens, place, layer: {place} | {token for token in range(num_tokens) if layer > 0 and token > place},
    lambda num_tokens, place, layer: np.arange(num_tokens)[place:][: None if layer else 1],
))

# ---- 9.4 -------------------------------------------------------------------------------------------------


def previous_token_head(attention: Tensor) -> tuple[int, int]:
    """Layer and head that look most at the previous token; attention is (layers, heads, tokens, tokens)."""
    scores = attention.diagonal(-1, dim1=-2, dim2=-1).mean(dim=-1)  # (layers, heads)
    layer, head = divmod(int(scores.argmax()), attention.shape[1])
    return layer, head


def _best(scores: Tensor) -> tuple[int, int]:
    layer, head = divmod(int(scores.argmax()), scores.shape[1])
    return layer, head


def _looks_at_itself(attention: Tensor) -> tuple[int, int]:
    return _best(attention.diagonal(0, dim1=-2, dim2=-1).mean(dim=-1))


def _upper_diagonal(attention: Tensor) -> tuple[int, int]:
    return _best(attention.diagonal(1, dim1=-2, dim2=-1).mean(dim=-1))


def _first_column(attention: Tensor) -> tuple[int, int]:
    return _best(attention[:, :, 1:, 0].mean(dim=-1))


def _two_back(attention: Tensor) -> tuple[int, int]:
    return _best(attention.diagonal(-2, dim1=-2, dim2=-1).mean(dim=-1))


def _one_lucky_token(attention: Tensor) -> tuple[int, int]:
    return _best(attention.diagonal(-1, dim1=-2, dim2=-1).amax(dim=-1))


def _last_token_only(attention: Tensor) -> tuple[int, int]:
    return _best(attention[:, :, -1, -2])


def _how_often_it_is_most(attention: Tensor) -> tuple[int, int]:
    before = torch.arange(attention.shape[-1] - 1)
    return _best((attention[:, :, 1:].argmax(dim=-1) == before).sum(dim=-1))


def _median(attention: Tensor) -> tuple[int, int]:
    return _best(attention.diagonal(-1, dim1=-2, dim2=-1).median(dim=-1).values)


def _least(attention: Tensor) -> tuple[int, int]:
    layer, head = divmod(_number(-attention), attention.shape[1])
    return layer, head


def _number(attention: Tensor) -> int:
    return int(attention.diagonal(-1, dim1=-2, dim2=-1).mean(dim=-1).argmax())


def _by_layers(attention: Tensor) -> tuple[int, int]:
    layer, head = divmod(_number(attention), attention.shape[0])
    return layer, head


def _of_eight_heads(attention: Tensor) -> tuple[int, int]:
    layer, head = divmod(_number(attention), 8)
    return layer, head


def _head_then_layer(attention: Tensor) -> tuple[int, int]:
    layer, head = previous_token_head(attention)
    return head, layer


def _head_from_one(attention: Tensor) -> tuple[int, int]:
    layer, head = previous_token_head(attention)
    return layer + 1, head + 1


def _made_up_attention(layers: int, heads: int, tokens: int, searched: tuple[int, int]) -> Tensor:
    """Attention in which one head each looks at what a mistaken answer takes for the previous token.

    The head that is searched looks at the previous token most on average, by turns very much and little.
    """
    causal = torch.ones(tokens, tokens).tril()
    attention = (causal / causal.sum(dim=-1, keepdim=True)).repeat(layers, heads, 1, 1)
    # Not the very first head either, which argmax finds where it is given equal numbers.
    others = [(layer, head) for layer in range(layers) for head in range(heads)
              if (layer, head) not in ((0, 0), searched)]

    def looks_at(place: tuple[int, int], row: int, token: int, share: float) -> None:
        attention[place][row, :row + 1] = (1 - share) / row
        attention[place][row, token] = share

    for row in range(1, tokens):
        attention[searched][row, :row - 1] = 0.0
        attention[searched][row, row - 1:row + 1] = torch.tensor([0.95, 0.05] if row % 2 else [0.3, 0.7])
        # As far as there are heads: most often, the token itself, one lucky row, the last row, two back, the first, and
        # the previous token in the text's first half.
        for place, (token, share) in zip(others, (
                (row - 1, 0.55), (row, 0.9), (row - 1, 0.99) if row == 2 else (row, 1 / (row + 1)),
                (row - 1, 0.97) if row == tokens - 1 else (row, 1 / (row + 1)),
                (max(row - 2, 0), 0.9 if row > 1 else 0.5), (0, 0.9 if row > 1 else 0.5),
                (row - 1, 0.9 if row < tokens / 2 else 1 / (row + 1)))):
            looks_at(place, row, token, share)
    return attention


# What one may have looked for instead, the likeliest slip first.
_SEARCH_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_head_then_layer, "Layer and head are the wrong way round: return the layer first."),
    (_by_layers, "You divide by the number of layers. argmax counts through the heads of a layer first, so divide by "
                 "the number of heads, attention.shape[1]."),
    (_of_eight_heads, "You take it that a layer has eight heads. How many there are, attention.shape[1] says."),
    (_head_from_one, "You count from 1. Layers and heads count from 0."),
    (_looks_at_itself, "That head looks at the token itself, which is the diagonal. The previous token stands one "
                       "place to the left of it."),
    (_upper_diagonal, "You read above the diagonal, where all weights are 0. A row is a query: the previous token is "
                      "one column to the left, diagonal(-1)."),
    (_two_back, "That head looks two tokens back. The previous token stands one place to the left of the diagonal: "
                "diagonal(-1)."),
    (_first_column, "That head looks at the first token of the text, whatever the distance. The previous token is "
                    "another one for each row."),
    (_how_often_it_is_most, "That head has the previous token in front most often, but not by much. Take the mean of "
                            "the weights instead of counting rows."),
    (_median, "That head has the largest median. The average is asked for: mean."),
    (_one_lucky_token, "That head does so for one token and not for the others. Take the mean over the tokens."),
    (_last_token_only, "That head does so for the last token and not for the others. Take the mean over all rows that "
                       "have a previous token."),
    (_least, "That head looks least at the previous token. The largest mean is asked for: argmax."),
)
# Layers, heads, tokens, and the head that is searched.
_MADE_UP = ((3, 4, 9, (0, 3)), (2, 5, 6, (1, 1)), (5, 3, 7, (4, 0)), (2, 9, 5, (1, 7)), (1, 2, 8, (0, 1)))


def _verify_search(answer: Answer) -> str | None:
    attentions = [_made_up_attention(*case) for case in _MADE_UP]
    told = [_layer_and_head(answer(attention.clone())) for attention in attentions]
    right = [searched for *_, searched in _MADE_UP]
    if told == right:
        return None
    for slip, hint in _SEARCH_SLIPS:
        if told == [slip(attention) for attention in attentions]:
            return hint
    at = next(at for at, found in enumerate(told) if found != right[at])
    layers, heads, tokens, (layer, head) = _MADE_UP[at]
    return gettext("In a made-up attention of {layers} layers, {heads} heads and {tokens} tokens it finds layer "
                   "{told}, head {told_head}, and it is layer {layer}, head {head}. Take the mean of "
                   "attention[layer, head, i, i - 1] over i from 1 on.").format(
        layers=layers, heads=heads, tokens=tokens, told=told[at][0], told_head=told[at][1], layer=layer, head=head)


def _layer_and_head(returned: object) -> tuple[int, int]:
    try:
        whole(returned)
    except NotYet:
        layer, head = wholes(returned, "the layer and the head, two whole numbers", 2)
        return layer, head
    raise NotYet("That is one number. argmax without dim counts over all heads of all layers: divide by the number of "
                 "heads, the quotient is the layer, the remainder the head (divmod).")


def _one_head_after_another(attention: Tensor) -> tuple[int, int]:
    best, found = -1.0, (0, 0)
    for layer, heads in enumerate(attention):
        for head, weights in enumerate(heads):
            mean = sum(float(weights[i, i - 1]) for i in range(1, len(weights))) / (len(weights) - 1)
            if mean > best:
                best, found = mean, (layer, head)
    return found


def _unravelled(attention: Tensor) -> Any:
    scores = np.trace(attention.numpy(), offset=-1, axis1=2, axis2=3)
    return np.unravel_index(scores.argmax(), scores.shape)


def _largest_of_each_layer(attention: Tensor) -> list[int]:
    places = torch.arange(1, attention.shape[-1])
    best, heads = attention[:, :, places, places - 1].mean(-1).max(dim=1)
    layer = int(best.argmax())
    return [layer, int(heads[layer])]


_MEAN = "`scores = attention.diagonal(-1, dim1=-2, dim2=-1).mean(dim=-1)`"
_SEARCH = Exercise("9.4", "The head that looks one back", previous_token_head, _verify_search, wrong=(
    *((slip, hint[:40]) for slip, hint in _SEARCH_SLIPS),
    (_number, "That is one number"),
    (lambda attention: (0, 3), "In a made-up attention"),
    (lambda attention: attention.diagonal(-1, dim1=-2, dim2=-1).mean(dim=-1).flatten(), "two whole numbers"),
    (lambda attention: print(end=""), "returned None"),
), also_wrong=(
    lambda attention: (0, previous_token_head(attention)[1]),
    lambda attention: divmod(_number(attention), 4),
    lambda attention: previous_token_head(attention[:, :, :5, :5]),
    lambda attention: previous_token_head(attention[:2]),
    lambda attention: _best(attention.sum(dim=-2).amax(dim=-1)),
    lambda attention: str(previous_token_head(attention)),
), right=(
    _one_head_after_another,
    _unravelled,
    _largest_of_each_layer,
    lambda attention: divmod(_number(attention.double()), attention.size(1)),
), equivalent={
    f"{_MEAN} to `scores = attention.diagonal(-1, dim1=-2, dim2=-1).sum(dim=-1)`":
        "Every head has as many tokens with a previous one, so the largest sum has the largest mean.",
    f"{_MEAN} to `scores = attention.diagonal(-1, dim1=2, dim2=-1).mean(dim=-1)`":
        "There are four dimensions, so number 2 is the last but one.",
})

EXERCISES: tuple[Exercise, ...] = (_ROTATE, _HEAD, _CHANGED_KEYS, _SEARCH)
