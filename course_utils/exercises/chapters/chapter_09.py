"""Exercises of chapter 9, inside the transformer: a rotation, a head, what a token changes, a head to be found."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_utils.config import Qwen3Config
from course_utils.exercises.exercise import Exercise
from course_utils.qwen3 import RotaryEmbedding, rotate

Answer = Callable[..., Any]


def _same(result: Tensor, expected: Tensor) -> bool:
    return torch.allclose(result.double(), expected.double(), rtol=1e-4, atol=1e-5)


def _not_like(result: object, expected: Tensor) -> str | None:
    """A hint if an answer is no tensor of the expected shape."""
    if not isinstance(result, Tensor):
        return f"It returns {type(result).__name__}, and a tensor is asked for. Is there a return at the end?"
    if result.shape != expected.shape:
        return (f"What it returns has shape {tuple(result.shape)}, and {tuple(expected.shape)} is asked for: "
                "look at the docstring of the stub.")
    return None


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


_ROTATION_MISTAKES: tuple[tuple[Answer, str], ...] = (
    (_from_one, "It counts positions from 1. The first token is at position 0, and its vectors are not turned."),
    (_neighbours_as_pairs, "It pairs neighbours, 0 with 1, 2 with 3. Qwen3 pairs number i with number i + size / 2."),
    (_backwards, "It turns the other way round. The first of a pair becomes first * cos - second * sin."),
    (_one_angle, "All pairs turn by the same angle. Pair i turns by position * theta ** (-2 i / size)."),
    (_slow_first, "The later pairs turn faster than the first. The exponent is negative: theta ** (-2 i / size)."),
    (_half_exponent, "The pairs turn too fast: by your exponent pair i turns like pair i / 2. It is -2 i / size, where "
                     "size is the whole head's."),
    (_ignores_theta, "It does not use theta: 10,000 is the base of the first rotary models, Qwen3 has another."),
    (_updated_too_soon, "The second half is computed from the first half's new numbers. Keep the old ones: both of a "
                        "pair turn at once."),
)


def _verify_rotation(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(92)
    for size, theta, position in ((8, 1_000_000.0, 0), (8, 1_000_000.0, 3), (32, 100.0, 17)):
        rotary = RotaryEmbedding(Qwen3Config(head_dim=size, rope_theta=theta))
        x = torch.randn(size, generator=generator)
        expected = rotate(x.view(1, 1, 1, size), *rotary(torch.tensor([[position]]))).flatten()
        kept = x.clone()
        result = answer(x, position, theta)
        if hint := _not_like(result, expected):
            return hint
        if not torch.equal(x, kept):
            return "It changes the vector that it was given. Make a new one with torch.cat."
        if not _same(result, expected):
            for mistake, hint in _ROTATION_MISTAKES:
                if _same(result, mistake(kept, position, theta)):
                    return hint
            if not math.isclose(float(result.norm()), float(kept.norm()), rel_tol=1e-4):
                return "The vector has another length than before. A rotation changes the direction alone."
            return (f"The vector of size {size} is turned, but not as in Qwen3: at position {position} pair i, which "
                    "is numbers i and i + size / 2, turns by position * theta ** (-2 i / size).")
    return None


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


_HEAD_MISTAKES: tuple[tuple[Answer, str], ...] = (
    (_no_scale, "The scores are not scaled. Divide them by the square root of the head's size before the softmax."),
    (_scale_by_the_size, "The scores are divided by the head's size. Divide by its square root, as their spread "
                         "grows with that."),
    (_scale_by_tokens, "The scores are scaled by the number of tokens. What makes them large is the number of "
                       "products in each sum: the size of the head, queries.shape[-1]."),
    (_no_mask, "Each token sees the tokens behind it. Mask the scores above the diagonal."),
    (_mask_after_softmax, "The mask comes after the softmax, so the weights of a row no longer add up to one. Mask "
                          "the scores, with minus infinity, before the softmax."),
    (_zero_for_minus_infinity, "The masked scores are 0, and 0 is a score like any other: e to the power of 0 is 1. "
                               "Put minus infinity there."),
    (_wrong_axis, "The softmax runs down the columns. A row is what one query gives to all keys: use dim=-1."),
    (_into_the_future, "Each token sees itself and what comes behind it. It is the other triangle: mask where the "
                       "key's place is greater than the query's."),
    (_not_itself, "The diagonal is masked too, so the first token has nothing to look at. Each token sees itself: "
                  "triu(1) begins above the diagonal."),
    (_keys_for_values, "It mixes the keys. The weights come from queries and keys; what is mixed are the values."),
)


def _verify_head(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(91)
    for tokens, size in ((5, 16), (3, 4), (1, 8)):
        qkv = [torch.randn(tokens, size, generator=generator) for _ in range(3)]
        kept = [part.clone() for part in qkv]
        result, expected = answer(*qkv), attention_head(*kept)
        if hint := _not_like(result, expected):
            return hint
        if not all(torch.equal(part, copy) for part, copy in zip(qkv, kept)):
            return "It changes the queries, keys or values that it was given. Make new tensors instead."
        if not _same(result, expected):
            for mistake, hint in _HEAD_MISTAKES:
                if torch.allclose(result, mistake(*kept), rtol=1e-4, atol=1e-5, equal_nan=True):
                    return hint
            return (f"The result for {tokens} tokens is not the weighted sum of the values. Print your weights: each "
                    "row must add up to one, and be zero behind its own token.")
    return None


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


def _behind_it_alone(num_tokens: int, place: int, layer: int) -> list[int]:
    return list(range(place + 1, num_tokens)) if layer else [place]


def _all_places(num_tokens: int, place: int, layer: int) -> list[int]:
    return list(range(num_tokens)) if layer else [place]


def _those_before(num_tokens: int, place: int, layer: int) -> list[int]:
    return list(range(place + 1)) if layer else [place]


def _one_place_a_layer(num_tokens: int, place: int, layer: int) -> list[int]:
    return list(range(place, min(place + layer + 1, num_tokens)))


def _how_many(num_tokens: int, place: int, layer: int) -> int:
    return len(changed_keys(num_tokens, place, layer))


_CHANGE_MISTAKES: tuple[tuple[Answer, str], ...] = (
    (_itself_alone, "Only the token itself, in every layer? The tokens behind it have looked at it in layer 0, and of "
                    "what they took along their keys in layer 1 are made."),
    (_first_layer_too, "Layer 0 is special. Its keys come straight from the embeddings, before any token has looked "
                       "at another."),
    (_behind_it_alone, "You leave out the replaced token itself. Its own vector is another one in every layer."),
    (_all_places, "Can a token see what comes behind it? Think of the mask."),
    (_those_before, "It is the other direction: a token looks back, so a change reaches those that come later."),
    (_one_place_a_layer, "The change does not creep on by one place a layer. In a single layer every later token can "
                         "look at the changed one, however far away."),
)
# Number of tokens, place, layer.
_CHANGES = ((6, 2, 0), (6, 2, 1), (6, 2, 5), (5, 4, 3), (4, 0, 0), (9, 0, 2))


def _verify_changes(answer: Answer) -> str | None:
    told = []
    for case in _CHANGES:
        result = answer(*case)
        if not isinstance(result, (list, tuple, set, range)):
            return (f"changed_keys{case} returns {type(result).__name__}. Return the places themselves, a list of "
                    "whole numbers.")
        told.append(sorted(result))
    right = [changed_keys(*case) for case in _CHANGES]
    if told == right:
        return None
    for mistake, hint in _CHANGE_MISTAKES:
        if told == [mistake(*case) for case in _CHANGES]:
            return hint
    case, places = next((case, places) for case, places, known in zip(_CHANGES, told, right) if places != known)
    return (f"changed_keys{case} returns {places}, and the model says otherwise. Which tokens can know of the change "
            "when this layer computes its keys?")


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


def _one_lucky_token(attention: Tensor) -> tuple[int, int]:
    return _best(attention.diagonal(-1, dim1=-2, dim2=-1).amax(dim=-1))


def _last_token_only(attention: Tensor) -> tuple[int, int]:
    return _best(attention[:, :, -1, -2])


def _head_then_layer(attention: Tensor) -> tuple[int, int]:
    layer, head = previous_token_head(attention)
    return head, layer


def _one_number(attention: Tensor) -> int:
    return int(attention.diagonal(-1, dim1=-2, dim2=-1).mean(dim=-1).argmax())


def _made_up_attention(layers: int, heads: int, tokens: int) -> Tensor:
    """Attention in which one head each looks evenly at what a mistaken answer takes for the previous token.

    The last head of the first layer is the one that looks at the previous token.
    """
    causal = torch.ones(tokens, tokens).tril()
    attention = (causal / causal.sum(dim=-1, keepdim=True)).repeat(layers, heads, 1, 1)

    def looks_at(layer: int, head: int, rows: slice, place: Callable[[int], int], share: float) -> None:
        for row in range(tokens)[rows]:
            attention[layer, head, row, :row + 1] = (1 - share) / row if row else 0.0
            attention[layer, head, row, place(row)] = share if row else 1.0

    looks_at(0, heads - 1, slice(None), lambda row: max(row - 1, 0), 0.6)
    looks_at(1, 0, slice(None), lambda row: row, 0.9)
    looks_at(1, 1, slice(None), lambda row: 0, 0.9)
    looks_at(2, 1, slice(2, 3), lambda row: row - 1, 0.99)
    looks_at(2, 2, slice(tokens - 1, None), lambda row: row - 1, 0.95)
    return attention


_SEARCH_MISTAKES: tuple[tuple[Answer, str], ...] = (
    (_head_then_layer, "Layer and head are the wrong way round: return the layer first."),
    (_looks_at_itself, "That head looks at the token itself, which is the diagonal. The previous token stands one "
                       "place to the left of it."),
    (_upper_diagonal, "You read above the diagonal, where all weights are 0. A row is a query: the previous token is "
                      "one column to the left, diagonal(-1)."),
    (_first_column, "That head looks at the first token of the text, whatever the distance. The previous token is "
                    "another one for each row."),
    (_one_lucky_token, "That head does so for one token and not for the others. Take the mean over the tokens."),
    (_last_token_only, "That head does so for the last token and not for the others. Take the mean over all rows that "
                       "have a previous token."),
)


def _verify_search(answer: Answer) -> str | None:
    attention = _made_up_attention(3, 4, 9)
    expected = previous_token_head(attention)
    result = answer(attention.clone())
    if isinstance(result, (int, Tensor)) and not isinstance(result, bool) and torch.as_tensor(result).numel() == 1:
        return ("That is one number. argmax without dim counts over all heads of all layers: divide by the number of "
                "heads, the quotient is the layer, the remainder the head (divmod).")
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        return f"It returns {type(result).__name__}, and the layer and the head, two whole numbers, are asked for."
    found = int(result[0]), int(result[1])
    if found != expected:
        for mistake, hint in _SEARCH_MISTAKES:
            if found == mistake(attention):
                return hint
        return (f"It finds layer {found[0]}, head {found[1]}, and in this made-up attention it is layer {expected[0]}, "
                f"head {expected[1]}. Take the mean of attention[layer, head, i, i - 1] over i from 1 on.")
    return None


EXERCISES: tuple[Exercise, ...] = (
    Exercise("9.1", "Rotate by hand", rotate_to, _verify_rotation,
             tuple((mistake, hint[:25]) for mistake, hint in _ROTATION_MISTAKES)),
    Exercise("9.2", "One attention head", attention_head, _verify_head,
             tuple((mistake, hint[:25]) for mistake, hint in _HEAD_MISTAKES)),
    Exercise("9.3", "What one token changes", changed_keys, _verify_changes,
             (*((mistake, hint[:25]) for mistake, hint in _CHANGE_MISTAKES), (_how_many, "the places themselves"))),
    Exercise("9.4", "The head that looks one back", previous_token_head, _verify_search,
             (*((mistake, hint[:25]) for mistake, hint in _SEARCH_MISTAKES), (_one_number, "That is one number"))),
)
