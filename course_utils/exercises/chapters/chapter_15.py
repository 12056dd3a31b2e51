"""Exercises of chapter 15, past one machine."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from course_utils.config import Qwen3Config
from course_utils.exercises.answers import NotYet, close, mapping, take, tensor, text, whole
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.planner import cache_bytes, weight_bytes
from course_utils.qwen3 import Attention

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
    return (f"With {memory:,} bytes, {num_weights:,} weights and texts of {context} tokens, {known} can be served, and "
            f"you return {given}. One user's cache takes {cache_bytes(config, context):,} bytes there: does yours?")


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
            return f"The names are {sorted(map(str, given))}. Return {asked}: {sorted(weights)}."
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
            return f"{name} is needed as it is, and its numbers have been changed."
        return (f"{name} of machine {rank} is not its own part: machine 0 holds the first rows or columns, machine 1 "
                "the next ones, without gaps, so that heads stay together.")
    case = f"{name} of shape {tuple(complete.shape)}, divided among {parts}, has the shape {tuple(got.shape)}"
    if name.endswith("norm.weight"):
        return f"{case}. A norm works on one head at a time, so every machine needs all of it."
    if got.shape == complete.shape:
        return f"{case}: it is not divided."
    if got.shape == local_weights({name: complete}, 0, 2)[name].shape:
        return f"{case}, which is a half: use the argument `parts`."
    return (f"{case}: that is the wrong way. The first matrices of a pair are divided by their outputs, the second "
            "(o_proj, down_proj) by their inputs.")


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


def stream_text(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")  # after the last line break, a line has only begun
        for line in lines:
            if line.startswith(b"data: {"):
                delta = json.loads(line[len(b"data: "):])["choices"][0]["delta"]
                if delta.get("content"):
                    yield delta["content"]


# Some pieces look like what stands around them.
_PIECES = ("Hel", "lo", " 世界", " data: {1}", "\n", ' "[DONE]"', " é", "!")
_TEXT = "".join(_PIECES)
_OTHER_PIECES = ("Once", " 你好", " upon", " a", ".")


def _events(pieces: tuple[str, ...] = _PIECES) -> list[bytes]:
    """What a server sends, event by event. The first says who speaks, and the last one before the end nothing."""
    deltas: list[dict[str, str | None]] = [{"role": "assistant", "content": None}]
    deltas += [{"content": piece} for piece in pieces]
    deltas.append({})
    lines = [b"data: " + json.dumps({"choices": [{"delta": delta}]}, ensure_ascii=False).encode() for delta in deltas]
    return [line + b"\n\n" for line in [*lines, b"data: [DONE]"]]


def _cut(size: int) -> list[bytes]:
    """All that a server sends, in chunks of so many bytes."""
    everything = b"".join(_events())
    return [everything[start:start + size] for start in range(0, len(everything), size)]


def _read(answer: Answer, chunks: Iterable[bytes]) -> Iterator[Any]:
    """What an answer hands out."""
    told = answer(iter(chunks))
    if told is None:
        raise NotYet("it returned None. Hand out each piece of text by `yield`.")
    if isinstance(told, str):
        raise NotYet("it returns all as one text. Hand out each piece of text by `yield`.")
    if not isinstance(told, Iterable):
        raise NotYet(f"it returned {told!r}. Hand out each piece of text by `yield`.")
    return iter(told)


def _text_of(answer: Answer, chunks: Iterable[bytes]) -> str:
    told = take(_read(answer, chunks), 10 * len(_PIECES), "It hands out far more than there is. What ends its loop?")
    if None in told:
        raise NotYet("The first event says only who speaks, and its content is None. Hand out what has a text, and "
                     "nothing else.")
    return "".join(text(piece, "texts, each of them a str") for piece in told)


def _verify_stream(answer: Answer) -> str | None:
    return _judge_whole_events(answer) or _judge_cut_events(answer) or _judge_delay(answer)


def _judge_whole_events(answer: Answer) -> str | None:
    try:
        told = _text_of(answer, _events())
    except json.JSONDecodeError:
        return "The last event is `data: [DONE]`, which is no JSON: take only lines that begin with `data: {`."
    except KeyError as error:
        if error.args != ("content",):
            raise
        return "An event may come without a content, as the last one does. Ask for it in a way that allows for this."
    if told == _TEXT.replace("data: ", ""):
        return ("A text may contain `data: ` itself, and there it is gone: cut off the beginning of the line, and "
                "nothing else.")
    if told in (_TEXT.partition(_PIECES[5])[0], _TEXT.replace(_PIECES[5], "")):
        return "A text may contain [DONE] itself. The end is a line that is `data: [DONE]` and nothing else."
    if told != _TEXT:
        return f"With a whole event in each chunk, the text is {_TEXT!r}, and it hands out {told!r}."
    return None


def _judge_cut_events(answer: Answer) -> str | None:
    told = []
    for size in (50, 7, 1, 100_000):
        try:
            told.append((size, _text_of(answer, _cut(size))))
        except UnicodeDecodeError:
            return ("A chunk may end in the middle of a Chinese character, so it cannot be decoded by itself. Put "
                    "bytes together until a line is whole.")
        except json.JSONDecodeError:
            return "A chunk may end in the middle of a line. Keep what comes after the last line break for the next."
    for size, given in told:
        if given == _TEXT:
            continue
        case = f"The same bytes in chunks of {size} give {given!r}"
        if _ascii(given) == _ascii(_TEXT) and set(given) <= set(_TEXT):
            return (f"{case}: where a chunk ends inside a character, the character is lost. Put bytes together until a "
                    "line is whole, and decode then.")
        if _ascii(given) == _ascii(_TEXT):
            return (f"{case}: where a chunk ends inside a character, its parts are replaced. Decode when the line is "
                    "whole.")
        return f"{case}. A chunk is no line: it may hold a part of one, or several."
    return None


def _ascii(letters: str) -> str:
    return "".join(filter(str.isascii, letters))


def _judge_delay(answer: Answer) -> str | None:
    events = _events(_OTHER_PIECES)
    halves = [part for event in events for part in (event[:20], event[20:])]
    pairs = [b"".join(events[at:at + 2]) for at in range(0, len(events), 2)]
    for chunks in (events, halves, pairs):
        told, held_back = _held_back(answer, chunks)
        if told != "".join(_OTHER_PIECES):
            return f"Of a second stream the text is {''.join(_OTHER_PIECES)!r}, and it hands out {told!r}."
        if held_back == "":
            return "The first piece comes only when more is there. Hand out each piece as soon as its line is whole."
        if held_back:
            return (f"After {held_back!r} the next piece had come, and another chunk was taken before it was handed "
                    "out. Hand out each piece as soon as its line is whole.")
    return None


def _held_back(answer: Answer, chunks: list[bytes]) -> tuple[str, str | None]:
    """What an answer hands out, and how much that was when it first took a chunk too early; None if it never did."""
    got = ""
    seen: list[str] = []

    def network() -> Iterator[bytes]:
        for number, chunk in enumerate(chunks):
            if len(got) < len("".join(stream_text(chunks[:number]))):
                seen.append(got)
            yield chunk

    for piece in _read(answer, network()):
        got += piece or ""
    return got, seen[0] if seen else None


def _stream_chunk_is_line(chunks: Iterable[bytes]) -> Iterator[str]:
    for chunk in chunks:
        yield from stream_text([chunk + b"\n"]) if chunk.endswith(b"}\n\n") else ()


def _stream_decodes(chunks: Iterable[bytes]) -> Iterator[str]:
    return stream_text(chunk.decode().encode() for chunk in chunks)


def _stream_ignores(chunks: Iterable[bytes]) -> Iterator[str]:
    return stream_text(chunk.decode(errors="ignore").encode() for chunk in chunks)


def _stream_replaces(chunks: Iterable[bytes]) -> Iterator[str]:
    return stream_text(chunk.decode(errors="replace").encode() for chunk in chunks)


def _deltas(chunks: Iterable[bytes], beginning: bytes = b"data: {") -> Iterator[dict[str, Any]]:
    for line in b"".join(chunks).split(b"\n"):
        if line.startswith(beginning):
            yield json.loads(line[len(b"data: "):])["choices"][0]["delta"]


def _stream_parses_done(chunks: Iterable[bytes]) -> Iterator[str]:
    return (delta.get("content") or "" for delta in _deltas(chunks, b"data: "))


def _stream_with_none(chunks: Iterable[bytes]) -> Iterator[Any]:
    return (delta.get("content") for delta in _deltas(chunks))


def _stream_needs_content(chunks: Iterable[bytes]) -> Iterator[str]:
    return (delta["content"] or "" for delta in _deltas(chunks))


def _stream_waits(chunks: Iterable[bytes]) -> Iterator[str]:
    return stream_text([b"".join(chunks)])


def _stream_one_late(chunks: Iterable[bytes]) -> Iterator[str]:
    before = ""
    for piece in stream_text(chunks):
        if before:
            yield before
        before = piece
    yield before


def _stream_second_late(chunks: Iterable[bytes]) -> Iterator[str]:
    pieces = stream_text(chunks)
    yield next(pieces)
    yield from list(pieces)


def _stream_parts_of_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    for chunk in chunks:
        yield from (delta.get("content") or "" for delta in _deltas([chunk]))


def _stream_removes_data(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                yield json.loads(line.replace(b"data: ", b""))["choices"][0]["delta"].get("content") or ""


def _stream_stops_at_done(chunks: Iterable[bytes]) -> Iterator[str]:
    for piece in stream_text(chunks):
        if "[DONE]" in piece:
            return
        yield piece


def _stream_in_a_buffer(chunks: Iterable[bytes]) -> Iterator[str]:
    buffer = bytearray()
    for chunk in chunks:
        buffer.extend(chunk)
        while (at := buffer.find(b"\n")) >= 0:
            line = bytes(buffer[:at]).decode().strip()
            del buffer[:at + 1]
            if not line or line == "data: [DONE]":
                continue
            yield json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content") or ""


def _stream_by_events(chunks: Iterable[bytes]) -> Iterator[str]:
    waiting = b""
    for chunk in chunks:
        waiting += chunk
        while b"\n\n" in waiting:
            event, waiting = waiting.split(b"\n\n", 1)
            if event != b"data: [DONE]":
                content = json.loads(event[6:])["choices"][0]["delta"].get("content")
                if content is not None:
                    yield content


def _stream_byte_by_byte(chunks: Iterable[bytes]) -> Iterator[str]:
    line = b""
    for byte in (bytes([number]) for chunk in chunks for number in chunk):
        line += byte
        if byte == b"\n":
            yield from stream_text([line])
            line = b""


class _Reader:
    """An iterator that is no generator."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._pieces = stream_text(chunks)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)


_STREAM = Exercise("15.3", "Read a stream", stream_text, _verify_stream, (
    (_stream_chunk_is_line, "A chunk is no line"),
    (_stream_decodes, "cannot be decoded by itself"),
    (_stream_ignores, "the character is lost"),
    (_stream_replaces, "parts are replaced"),
    (_stream_parses_done, "which is no JSON"),
    (_stream_with_none, "only who speaks"),
    (_stream_needs_content, "without a content"),
    (_stream_waits, "The first piece comes only"),
    (_stream_second_late, "After 'Once' the next piece"),
    (_stream_parts_of_lines, "after the last line break"),
    (_stream_removes_data, "may contain `data: ` itself"),
    (_stream_stops_at_done, "may contain [DONE] itself"),
    (lambda chunks: "".join(stream_text(chunks)), "as one text"),
    (lambda chunks: print(end=""), "returned None"),
), also_wrong=(
    _stream_one_late,
    lambda chunks: list(stream_text(chunks)),
    lambda chunks: (piece for piece in stream_text(chunks) if "[DONE]" not in piece),
    lambda chunks: (piece.strip() for piece in stream_text(chunks)),
    lambda chunks: (piece.encode() for piece in stream_text(chunks)),
    lambda chunks: iter([_TEXT]),
    lambda chunks: iter(_PIECES),
), right=(
    _stream_in_a_buffer,
    _stream_by_events,
    _stream_byte_by_byte,
    lambda chunks: (letter for piece in stream_text(chunks) for letter in piece),
    _Reader,
), equivalent={
    '`*lines, rest = (rest + chunk).split(b\'\\n\')` to `*lines, rest = (rest + chunk).rsplit(b\'\\n\')`':
        "Without a limit, both cut everywhere.",
    "`delta = json.loads(line[len(b'data: '):])['choices'][0]['delta']` to "
    "`delta = json.loads(line[len(b'data:'):])['choices'][0]['delta']`": "JSON may begin with a space.",
    "`delta = json.loads(line[len(b'data: '):])['choices'][0]['delta']` to "
    "`delta = json.loads(line[len(b'data: '):])['choices'][-1]['delta']`": "An event has one choice.",
})

EXERCISES: tuple[Exercise, ...] = (_USERS, _LOCAL, _STREAM)
