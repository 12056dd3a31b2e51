"""Exercises of chapter 15, past one machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from course_utils.config import Qwen3Config
from course_utils.exercises.exercise import Exercise
from course_utils.planner import cache_bytes, weight_bytes
from course_utils.qwen3 import Attention


def most_users(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    # 2 bytes for each weight, and for each number of the cache.
    per_token = 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return max(0, (memory - 2 * num_weights) // (per_token * context))


def _verify_users(answer: Callable[..., Any]) -> str | None:
    config = Qwen3Config()
    weights, one = weight_bytes(config), cache_bytes(config, 1000)
    result = answer(config, weights + 24 * one, weights // 2, 1000)
    if result == 24 + weights // one:
        return "That is too many: the weights take memory too, and their bytes are not left for caches."
    if result == 24 + weights // 2 // one:
        return "That is too many: each weight takes 2 bytes in bfloat16, not one."
    if result == 48:
        return "That is twice too many. Each token leaves a key and a value, of 2 bytes a number."
    if result == 12:
        return "That is half of what fits. Keys and values are kept per key-value head, and these are fewer."
    if result == 24_000:
        return "That is how many tokens fit. Each user has a text of `context` tokens: divide by it."
    if result != 24:
        return (f"After the weights of Qwen3-0.6B there is memory for 24 texts of 1000 tokens, and it returns "
                f"{result}.")
    if answer(config, weights + 24 * one - 1, weights // 2, 1000) != 23:
        return "One byte less than 24 users need is room for 23: round down."
    if answer(config, weights // 2, weights // 2, 1000) != 0:
        return "Where not even the weights fit, nobody can be served: return 0, not a negative number."
    return None


def _users_without_weights(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    return most_users(config, memory, 0, context)


def _users_with_one_byte(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    return most_users(config, memory + num_weights, num_weights, context)


def _users_with_keys_only(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return max(0, (memory - 2 * num_weights) // (per_token * context))


def _users_with_query_heads(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    per_token = 2 * 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    return max(0, (memory - 2 * num_weights) // (per_token * context))


def _users_below_nothing(config: Qwen3Config, memory: int, num_weights: int, context: int) -> int:
    per_token = 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return (memory - 2 * num_weights) // (per_token * context)


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


def _verify_local(answer: Callable[..., Any]) -> str | None:
    torch.manual_seed(15)
    attention = {name: torch.randn_like(weight) for name, weight in Attention(_SMALL).state_dict().items()}
    mlp = {"gate_proj.weight": torch.randn(40, 24), "up_proj.weight": torch.randn(40, 24),
           "down_proj.weight": torch.randn(24, 40)}
    for weights in (attention, mlp):
        halves = [answer(weights, rank, 2) for rank in (0, 1)]
        for rank, half in enumerate(halves):
            hint = _compare(weights, half, local_weights(weights, rank, 2), rank)
            if hint is not None:
                return hint
    quarter = answer(mlp, 3, 4)["gate_proj.weight"]
    if quarter.shape != (10, 24):
        return (f"Of 4 parts each holds 10 of the 40 rows of gate_proj, and it returns {tuple(quarter.shape)}: "
                "use parts.")
    return None


def _compare(weights: Mapping[str, Tensor], half: Any, wanted: Mapping[str, Tensor], rank: int) -> str | None:
    if not isinstance(half, dict) or set(half) != set(weights):
        return "It must return a dictionary with the same names, each with the part of this machine."
    for name, whole in weights.items():
        got = half[name]
        if name.endswith("norm.weight"):
            if got.shape != whole.shape:
                return f"{name} is divided. A norm works on one head at a time, so every machine needs all of it."
            continue
        if got.shape == whole.shape:
            return f"{name} is not divided: each of 2 machines holds half of it."
        if got.shape != wanted[name].shape:
            return (f"{name} is divided the wrong way, its part has shape {tuple(got.shape)}. The first matrices of a "
                    "pair are divided by their outputs, the second (o_proj, down_proj) by their inputs.")
        if not torch.equal(got, wanted[name]):
            return (f"{name} of machine {rank} is not its own part: machine 0 holds the first rows or columns, machine "
                    "1 the next ones, without gaps, so that heads stay together.")
    return None


def _local_all_rows(weights: Mapping[str, Tensor], rank: int, parts: int) -> dict[str, Tensor]:
    return {name: weight if "norm" in name else weight.chunk(parts)[rank] for name, weight in weights.items()}


def _local_norms_too(weights: Mapping[str, Tensor], rank: int, parts: int) -> dict[str, Tensor]:
    return {name: weight.chunk(parts, dim=1 if name in ("o_proj.weight", "down_proj.weight") else 0)[rank]
            for name, weight in weights.items()}


def _local_keys_whole(weights: Mapping[str, Tensor], rank: int, parts: int) -> dict[str, Tensor]:
    local = local_weights(weights, rank, parts)
    return {name: weights[name] if name[0] in "kv" else part for name, part in local.items()}


def _local_interleaved(weights: Mapping[str, Tensor], rank: int, parts: int) -> dict[str, Tensor]:
    return {name: weight if "norm" in name else weight[:, rank::parts]
            if name in ("o_proj.weight", "down_proj.weight") else weight[rank::parts]
            for name, weight in weights.items()}


def _local_always_two(weights: Mapping[str, Tensor], rank: int, parts: int) -> dict[str, Tensor]:
    return local_weights(weights, rank % 2, 2)


def stream_text(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")  # behind the last line break, a line has only begun
        for line in lines:
            if line.startswith(b"data: {"):
                delta = json.loads(line[len(b"data: "):])["choices"][0]["delta"]
                if delta.get("content"):
                    yield delta["content"]


_PIECES = ("Hel", "lo", " 世界", "!")


def _events() -> list[bytes]:
    """What a server sends, line by line. The first event says who speaks, and the last one before the end nothing."""
    deltas: list[dict[str, str | None]] = [{"role": "assistant", "content": None}]
    deltas += [{"content": piece} for piece in _PIECES]
    deltas.append({})
    lines = [b"data: " + json.dumps({"choices": [{"delta": delta}]}, ensure_ascii=False).encode() for delta in deltas]
    return [line + b"\n\n" for line in [*lines, b"data: [DONE]"]]


def _verify_stream(answer: Callable[..., Any]) -> str | None:
    if answer(iter(_events())) is None:
        return "It returns nothing. Hand out each piece of text by `yield`."
    try:
        told = list(answer(iter(_events())))
    except json.JSONDecodeError:
        return "The last event is `data: [DONE]`, which is no JSON: take only lines that begin with `data: {`."
    except KeyError as error:
        if error.args != ("content",):
            raise
        return "An event may come without a content, as the last one does. Ask for it in a way that allows for this."
    if None in told:
        return ("The first event says only who speaks, and its content is None. Hand out what has a text, and nothing "
                "else.")
    if "".join(told) != "".join(_PIECES):
        return f"With a whole event in each chunk, the text is {''.join(_PIECES)!r}, and it hands out {told}."
    everything = b"".join(_events())
    for size in (50, 5, len(everything)):
        chunks = [everything[start:start + size] for start in range(0, len(everything), size)]
        try:
            told = list(answer(iter(chunks)))
        except UnicodeDecodeError:
            return ("A chunk may end in the middle of a Chinese character, so it cannot be decoded by itself. Put "
                    "bytes together until a line is whole.")
        except json.JSONDecodeError:
            return "A chunk may end in the middle of a line. Keep what stands behind the last line break for the next."
        if "".join(told) != "".join(_PIECES):
            return (f"The same bytes in chunks of {size} give {''.join(told)!r}. A chunk is no line: it may hold a "
                    "part of one, or several.")
    seen = 0

    def network() -> Iterator[bytes]:
        nonlocal seen
        for event in _events():
            seen += 1
            yield event

    next(iter(answer(network())))
    if seen > 3:
        return "The first piece comes only when everything is there. Hand out each piece as soon as its line is whole."
    return None


def _stream_chunk_is_line(chunks: Iterable[bytes]) -> Iterator[str]:
    for chunk in chunks:
        yield from stream_text([chunk + b"\n"]) if chunk.endswith(b"}\n\n") else ()


def _stream_decodes(chunks: Iterable[bytes]) -> Iterator[str]:
    return stream_text(chunk.decode().encode() for chunk in chunks)


def _stream_parses_done(chunks: Iterable[bytes]) -> Iterator[str]:
    for line in b"".join(chunks).split(b"\n"):
        if line.startswith(b"data: "):
            yield json.loads(line[6:])["choices"][0]["delta"].get("content") or ""


def _stream_with_none(chunks: Iterable[bytes]) -> Iterator[Any]:
    for line in b"".join(chunks).split(b"\n"):
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])["choices"][0]["delta"].get("content")


def _stream_needs_content(chunks: Iterable[bytes]) -> Iterator[str]:
    for line in b"".join(chunks).split(b"\n"):
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])["choices"][0]["delta"]["content"] or ""


def _stream_waits(chunks: Iterable[bytes]) -> Iterator[str]:
    return stream_text([b"".join(chunks)])


def _stream_parts_of_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    for chunk in chunks:
        for line in chunk.split(b"\n"):
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])["choices"][0]["delta"].get("content") or ""


EXERCISES: tuple[Exercise, ...] = (
    Exercise("15.1", "How many users fit", most_users, _verify_users, (
        (_users_without_weights, "weights take memory too"),
        (_users_with_one_byte, "2 bytes in bfloat16"),
        (_users_with_keys_only, "a key and a value"),
        (_users_with_query_heads, "per key-value head"),
        (_users_below_nothing, "return 0"),
    )),
    Exercise("15.2", "What one of the machines holds", local_weights, _verify_local, (
        (_local_all_rows, "the wrong way"),
        (_local_norms_too, "every machine needs all of it"),
        (_local_keys_whole, "is not divided"),
        (_local_interleaved, "not its own part"),
        (_local_always_two, "use parts"),
    )),
    Exercise("15.3", "Read a stream", stream_text, _verify_stream, (
        (_stream_chunk_is_line, "A chunk is no line"),
        (_stream_decodes, "cannot be decoded by itself"),
        (_stream_parses_done, "which is no JSON"),
        (_stream_with_none, "only who speaks"),
        (_stream_needs_content, "without a content"),
        (_stream_waits, "only when everything is there"),
        (_stream_parts_of_lines, "behind the last line break"),
    )),
)
