"""Exercises of chapter 3: counting what a file stores, and parameters from the configuration alone."""

from __future__ import annotations

import json
import math
import struct
import tempfile
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from course_utils.config import Qwen3Config
from course_utils.exercises.answers import number, whole
from course_utils.exercises.calls import calls_of
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.family import FAMILY
from course_utils.language import gettext
from course_utils.qwen3 import Qwen3Model

_SMALL, _LARGE = FAMILY["Qwen/Qwen3-0.6B"], FAMILY["Qwen/Qwen3-8B"]

# ---- 3.1 -------------------------------------------------------------------------------------------------


def stored_parameters(path: str | Path) -> int:
    """How many numbers a safetensors file holds; reads only its header."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items()
               if name != "__metadata__")


# Shapes of what is in the files: one that the page names, others with an empty tensor and with a single number.
_STORED: tuple[dict[str, tuple[int, ...]], ...] = (
    {"a_matrix": (3, 5), "row": (7,)}, {"one": (2, 3, 4)},
    {"column": (5, 1), "none": (0, 9), "row": (6,), "single": ()})
_MUCH = (2048, 1024)  # the shape of a tensor of 8 MiB in float32
_OF_ALL_NUMBERS = 1_000_000  # so many numbers, or bytes, at once are no header


def _verify_stored_parameters(answer: Answer) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        given = []
        for at, shapes in enumerate(_STORED):
            path = Path(folder) / f"{at}.safetensors"
            _write(path, shapes)
            given.append(_how_many(answer(path)))
        right = [sum(map(math.prod, shapes.values())) for shapes in _STORED]
        if given != right:
            return _stored_slip(given) or next(
                gettext("for a file with tensors of the shapes {values} it returned {told}, and these are {expected} "
                        "numbers. Multiply the numbers of each shape, and add that up for all tensors.").format(
                    values=list(shapes.values()), told=told, expected=expected)
                for shapes, told, expected in zip(_STORED, given, right) if told != expected)
        path = Path(folder) / "with_metadata.safetensors"
        _write(path, _STORED[0], {"format": "pt"})
        try:
            told = _how_many(answer(path))
        except (KeyError, TypeError):
            return "it stumbles over __metadata__, an entry of the header that is no tensor. Leave it out."
        if told != right[0]:
            return "with an entry __metadata__ in the header the result changes. That is no tensor: leave it out."
        return _reads_too_much(answer, Path(folder) / "large.safetensors")


def _write(path: Path, shapes: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None) -> None:
    """A file of tensors of these shapes, in this order; of several the last one is in bfloat16."""
    save_file({name: torch.ones(shape, dtype=torch.bfloat16 if _size(shapes, name) == 2 else torch.float32)
               for name, shape in shapes.items()}, path, metadata=metadata)


def _size(shapes: dict[str, tuple[int, ...]], name: str) -> int:
    """Bytes of one number of a tensor."""
    return 2 if len(shapes) > 1 and name == list(shapes)[-1] else 4


def _how_many(returned: Any) -> int:
    return whole(returned, "one whole number: how many numbers are stored in the file")


def _reads_too_much(answer: Answer, path: Path) -> str | None:
    """Whether an answer takes more of a file than its header: measured by what it makes, in Python and in PyTorch."""
    _write(path, {"much": _MUCH})
    tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        with _LargestTensor() as largest:
            told = _how_many(answer(path))
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        if not tracing:
            tracemalloc.stop()
    if largest.numbers > _OF_ALL_NUMBERS:
        return ("it loads the tensors, or makes others as large. Read only the header: eight bytes, then as many as "
                "these say.")
    if peak > _OF_ALL_NUMBERS:
        return ("it reads all of the file, which may have more gigabytes than your memory. Read only the header: "
                "file.read(8), then file.read(length).")
    return None if told == math.prod(_MUCH) else gettext("for one tensor of {much} it returned {told}.").format(
        much=_MUCH, told=told)


class _LargestTensor(TorchFunctionMode):
    """Notes how many numbers the largest tensor has that PyTorch makes meanwhile; a mere shape has none."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and not made.is_meta:
            self.numbers = max(self.numbers, made.numel())
        return made


def _stored_slip(given: list[int]) -> str | None:
    """What a wrong count for the files of `_STORED` comes from, if it is a likely one."""
    bytes_stored = [sum(math.prod(shape) * _size(shapes, name) for name, shape in shapes.items()) for shapes in _STORED]
    likely = (
        (bytes_stored, "it counts bytes. Multiply the numbers of the shape instead: math.prod(entry['shape'])."),
        ([len(shapes) for shapes in _STORED], "it counts tensors. Add up how many numbers each of them has."),
        ([sum(map(sum, shapes.values())) for shapes in _STORED],
         "it adds the numbers of a shape. A 3 by 5 tensor has 15 entries: multiply them, with math.prod."),
        ([math.prod(list(shapes.values())[0]) for shapes in _STORED],
         "only one tensor is counted. Add up all entries of the header."),
        ([math.prod(list(shapes.values())[-1]) for shapes in _STORED],
         "only one tensor is counted. Add up all entries of the header."),
        ([sum(math.prod(shape) if shape else 0 for shape in shapes.values()) for shapes in _STORED],
         "a tensor of the shape [] is one number, and you count none: math.prod([]) is 1."),
    )
    return next((hint for told, hint in likely if given == told), None)


def _header(path: str | Path) -> dict[str, dict[str, Any]]:
    with open(path, "rb") as file:
        header: dict[str, dict[str, Any]] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return header


def _tensors_of(path: str | Path) -> list[dict[str, Any]]:
    header = _header(path)
    header.pop("__metadata__", None)
    return list(header.values())


def _by_loading(path: str | Path) -> int:
    return sum(tensor.numel() for tensor in load_file(path).values())


def _by_reading_all(path: str | Path) -> int:
    data = Path(path).read_bytes()
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def _by_getting_each(path: str | Path) -> int:
    with safe_open(path, "pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118 - it is no dictionary


def _by_slices(path: str | Path) -> int:
    with safe_open(path, "pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def _with_struct(path: str | Path) -> int:
    with Path(path).open("rb") as file:
        header = json.loads(file.read(*struct.unpack("<Q", file.read(8))))
    header.pop("__metadata__", None)
    return int(sum(np.prod(entry["shape"]) for entry in header.values()))


def _by_offsets(path: str | Path) -> float:
    """Bytes by their format."""
    sizes = {"F32": 4, "BF16": 2}
    return sum((entry["data_offsets"][1] - entry["data_offsets"][0]) / sizes[entry["dtype"]]
               for entry in _tensors_of(path))


def _one_by_one(path: str | Path) -> int:
    count = 0
    for name, entry in _header(path).items():
        if name == "__metadata__":
            continue
        size = 1
        for side in entry["shape"]:
            size *= side
        count += size
    return count


_STORED_PARAMETERS = Exercise("3.1", "Count without loading", stored_parameters, _verify_stored_parameters, wrong=(
    (_by_loading, "loads the tensors"),
    (_by_reading_all, "reads all of the file"),
    (lambda path: sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in _tensors_of(path)),
     "counts bytes"),
    (lambda path: len(_tensors_of(path)), "counts tensors"),
    (lambda path: sum(sum(entry["shape"]) for entry in _tensors_of(path)), "adds the numbers"),
    (lambda path: math.prod(_tensors_of(path)[0]["shape"]), "only one tensor"),
    (lambda path: sum(2 * math.prod(entry["shape"]) for entry in _tensors_of(path)), "for a file with tensors"),
    (lambda path: sum(math.prod(entry["shape"]) for entry in _tensors_of(path) if entry["shape"]), "is one number"),
    (lambda path: sum(math.prod(entry["shape"]) for entry in _header(path).values()), "stumbles over"),
    (lambda path: sum(math.prod(entry.get("shape", [])) for entry in _header(path).values()), "the result changes"),
    (lambda path: [math.prod(entry["shape"]) for entry in _tensors_of(path)], "how many numbers are stored"),
    (lambda path: print(end=""), "returned None"),
), also_wrong=(
    _by_getting_each,
    lambda path: sum(torch.zeros(entry["shape"]).numel() for entry in _tensors_of(path)),
    lambda path: Path(path).stat().st_size // 4,
    lambda path: sum(math.prod(entry["shape"]) for entry in _tensors_of(path) if len(entry["shape"]) == 2),
    lambda path: sum(entry["shape"][0] * entry["shape"][-1] for entry in _tensors_of(path) if entry["shape"]),
    lambda path: 22,
), right=(
    _by_slices,
    _with_struct,
    _by_offsets,
    _one_by_one,
    lambda path: sum(torch.Size(entry["shape"]).numel() for entry in _tensors_of(path)),
))

# ---- 3.2 -------------------------------------------------------------------------------------------------


def tensors_stored(config: Qwen3Config) -> int:
    """How many tensors its checkpoint stores, a tied matrix once."""
    layer = 4 + 3 + 4  # attention, MLP, norms
    outside = 2 if config.tie_word_embeddings else 3  # embedding, last norm, output layer
    return config.num_hidden_layers * layer + outside


# Tied and not, of several depths; the second one has as many layers as a tied model of the family.
_DEPTHS = (_SMALL, replace(_LARGE, num_hidden_layers=28), _LARGE, replace(_SMALL, num_hidden_layers=1),
           replace(_LARGE, num_hidden_layers=5))


def _tables(config: Qwen3Config) -> int:
    return 1 if config.tie_word_embeddings else 2


def _tensors(layer: int, outside: Callable[[Qwen3Config], int]) -> Answer:
    """An answer that counts so many tensors in a layer and outside of the layers."""
    return lambda config: config.num_hidden_layers * layer + outside(config)


# What one may have counted instead, the likeliest slip first.
_TENSOR_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_tensors(11, lambda config: 3), "the output layer is counted although it is tied: then nothing of it is stored."),
    (_tensors(11, lambda config: 2), "one tensor is missing where tie_word_embeddings is false: there the output layer "
                                     "has one of its own."),
    (_tensors(11, _tables), "the last norm, after all layers, is missing."),
    (_tensors(11, lambda config: 0), "it counts the layers alone. What stands before them and after them in the "
                                     "summary?"),
    (_tensors(9, lambda config: _tables(config) + 1), "two tensors of each layer are missing: attention has norms of "
                                                      "its own, q_norm and k_norm."),
    (_tensors(7, lambda config: _tables(config) + 1), "the norms of the layers are missing: each is one tensor."),
    (_tensors(12, lambda config: _tables(config) + 1), "one tensor of each layer too many: has an activation function, "
                                                       "or the rotation, something that is stored?"),
    (_tensors(11, lambda config: 4 - _tables(config)), "tied and not tied are the wrong way round: a tied output layer "
                                                       "is not stored again."),
    (lambda config: 11 + _tables(config) + 1, "it counts one layer. There are config.num_hidden_layers of them."),
)


def _verify_tensors_stored(answer: Answer) -> str | None:
    given = [whole(answer(config), "one whole number: how many tensors are stored") for config in _DEPTHS]
    right = [tensors_stored(config) for config in _DEPTHS]
    if given == right:
        return None
    for slip, hint in _TENSOR_SLIPS:
        if given == [slip(config) for config in _DEPTHS]:
            return hint
    at = next(at for at, one in enumerate(given) if one != right[at])
    if given[at] > 1000:
        return gettext("it returned {given:,}, which counts numbers. A matrix is one tensor, "
                       "however many numbers it has.").format(given=given[at])
    tied = gettext("tied") if _DEPTHS[at].tie_word_embeddings else gettext("not tied")
    return gettext("a model with {num_hidden_layers} layers, {tied}, stores {right} tensors, and it returned {given}. "
                   "Count the names of one layer in the header.").format(
        num_hidden_layers=_DEPTHS[at].num_hidden_layers, tied=tied, right=right[at], given=given[at])


def _by_names(config: Qwen3Config) -> int:
    layer = [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    layer += ["input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"]
    names = {f"model.layers.{i}.{name}.weight" for i in range(config.num_hidden_layers) for name in layer}
    return len(names | {"embed_tokens", "norm"} | (set() if config.tie_word_embeddings else {"lm_head"}))


def _by_building(config: Qwen3Config) -> int:
    with torch.device("meta"):
        return len(list(Qwen3Model(replace(config, hidden_size=8, intermediate_size=8, vocab_size=8)).parameters()))


_TENSORS_STORED = Exercise("3.2", "How many tensors?", tensors_stored, _verify_tensors_stored, wrong=(
    *((slip, hint[:40]) for slip, hint in _TENSOR_SLIPS),
    (lambda config: count_parameters(config), "counts numbers"),
    (lambda config: 310, "model with 28 layers, not tied"),
    (lambda config: [11] * config.num_hidden_layers, "how many tensors are stored"),
    (lambda config: print(end=""), "returned None"),
), also_wrong=(
    lambda config: 28 * 11 + _tables(config) + 1,
    lambda config: config.num_hidden_layers * 11 + (2 if config.num_hidden_layers <= 28 else 3),
    lambda config: 399 if config.num_hidden_layers == 36 else tensors_stored(_SMALL),
    lambda config: tensors_stored(config) + config.num_hidden_layers * 7,
    lambda config: tensors_stored(config) / 2,
    lambda config: f"{tensors_stored(config)} tensors",
), right=(
    lambda config: 11 * config.num_hidden_layers + 3 - config.tie_word_embeddings,
    lambda config: 2 + (not config.tie_word_embeddings) + sum([11] * config.num_hidden_layers),
    _by_names,
    _by_building,
))

# ---- 3.3 -------------------------------------------------------------------------------------------------


def count_parameters(config: Qwen3Config) -> int:
    """Number of parameters of the model that config describes."""
    width = config.hidden_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    attention = 2 * width * queries + 2 * width * keys
    mlp = 3 * width * config.intermediate_size
    norms = 2 * width + 2 * config.head_dim
    matrices = 1 if config.tie_word_embeddings else 2
    return (matrices * config.vocab_size * width
            + config.num_hidden_layers * (attention + mlp + norms) + width)


_ODD = Qwen3Config(vocab_size=101, hidden_size=20, intermediate_size=33, num_hidden_layers=3, num_attention_heads=6,
                   num_key_value_heads=2, head_dim=4)
# The first one is small, so that whoever builds the model is told so, and not stopped for its memory.
_COUNTED = (_ODD, _SMALL, _LARGE, replace(_SMALL, num_hidden_layers=4, head_dim=64),
            replace(_ODD, tie_word_embeddings=False, num_key_value_heads=3))


def _numbers_of(config: Qwen3Config) -> tuple[int, int, int]:
    """Numbers of a vector, of all queries, of all keys."""
    return (config.hidden_size, config.num_attention_heads * config.head_dim,
            config.num_key_value_heads * config.head_dim)


def _count(tables: Callable[[Qwen3Config], int] = _tables, mlp: int = 3, last_norm: int = 1, layer_norms: int = 1,
           head_norms: int = 1, layers: bool = True,
           widths: Callable[[Qwen3Config], tuple[int, int, int]] = _numbers_of,
           head: Callable[[Qwen3Config], int] = lambda config: config.head_dim) -> Answer:
    """An answer that takes some part of the count otherwise."""
    def answer(config: Qwen3Config) -> int:
        width, queries, keys = widths(config)
        layer = 2 * width * queries + 2 * width * keys + mlp * width * config.intermediate_size
        layer += layer_norms * 2 * width + head_norms * 2 * head(config)
        return (tables(config) * config.vocab_size * width + (config.num_hidden_layers if layers else 1) * layer
                + last_norm * width)
    return answer


def _shared_out(config: Qwen3Config) -> int:
    return config.hidden_size // config.num_attention_heads


_COUNT_SLIPS: tuple[tuple[Answer, str], ...] = (
    (_count(widths=lambda config: (config.hidden_size,) * 3),
     "it takes the matrices of attention for hidden_size by hidden_size. The width inside attention is heads times "
     "head_dim: queries have num_attention_heads, keys and values num_key_value_heads of them."),
    (_count(widths=lambda config: (config.hidden_size, config.hidden_size, _numbers_of(config)[2])),
     "it takes q_proj and o_proj for hidden_size by hidden_size. Queries have num_attention_heads * head_dim numbers, "
     "which need not be hidden_size: 2048 in `base`, where hidden_size is 1024."),
    (_count(widths=lambda config: (config.hidden_size, config.num_attention_heads * _shared_out(config),
                                   config.num_key_value_heads * _shared_out(config)), head=_shared_out),
     "it computes the size of a head, hidden_size / num_attention_heads. The configuration says it, head_dim, and says "
     "another one: 128 in `base`, where the quotient is 64."),
    (_count(widths=lambda config: (_numbers_of(config)[0], _numbers_of(config)[1], _numbers_of(config)[1])),
     "keys and values have fewer heads than queries: use num_key_value_heads for them."),
    (_count(tables=lambda config: 2), "the output layer is counted although it is tied. Count it only where "
                                      "tie_word_embeddings is false."),
    (_count(tables=lambda config: 1), "the output layer is missing. Where tie_word_embeddings is false it has a matrix "
                                      "of its own."),
    (_count(tables=lambda config: _tables(config) - 1), "the embedding is missing: vocab_size by hidden_size."),
    (_count(mlp=2), "the MLP has three matrices: gate_proj, up_proj and down_proj."),
    (_count(last_norm=0, layer_norms=0, head_norms=0), "all norms are missing: two over hidden_size and two over "
                                                       "head_dim in each layer, and the last one."),
    (_count(last_norm=0), "the last norm, after all layers, is missing."),
    (_count(head_norms=0), "the norms of queries and keys, over head_dim numbers each, are missing."),
    (_count(layer_norms=0), "the two norms of each layer over hidden_size are missing."),
    (_count(head=lambda config: config.hidden_size), "q_norm and k_norm work on one head: they have head_dim numbers "
                                                     "each, not hidden_size."),
    (_count(head_norms=1, head=lambda config: sum(_numbers_of(config)[1:]) // 2),
     "q_norm and k_norm have head_dim numbers each: all heads share them."),
    (_count(layers=False), "it counts one layer. There are config.num_hidden_layers of them."),
)


def _verify_count_parameters(answer: Answer) -> str | None:
    given = []
    for config in _COUNTED:
        with calls_of(nn.Module, "__init__") as built:
            returned = answer(config)
        if built:
            return ("it builds the model, or a part of it. The number is asked for without: compute it from the "
                    "numbers in the configuration.")
        given.append(number(returned, "one number, of parameters"))
    right = [count_parameters(config) for config in _COUNTED]
    if given == right:
        return None
    for slip, hint in _COUNT_SLIPS:
        if given == [slip(config) for config in _COUNTED]:
            return hint
    at = next(at for at in (1, *range(len(given))) if given[at] != right[at])  # `base`, if it is wrong there
    return gettext("for a model of {num_hidden_layers} layers with {right:,} parameters it returned {given:,.0f}. Go "
                   "through the printed summary line by line: each matrix and each norm of a layer, then what stands "
                   "outside the layers.").format(
        num_hidden_layers=_COUNTED[at].num_hidden_layers, right=right[at], given=given[at])


def _by_building_it(config: Qwen3Config) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Qwen3Model(config).parameters())


def _by_shapes(config: Qwen3Config) -> int:
    width, queries, keys = _numbers_of(config)
    layer = [(width, queries), (queries, width), (width, keys), (width, keys), *3 * [(width, config.intermediate_size)],
             (width,), (width,), (config.head_dim,), (config.head_dim,)]
    outside = [(width,), *_tables(config) * [(config.vocab_size, width)]]
    return sum(map(math.prod, config.num_hidden_layers * layer + outside))


def _in_one_line(c: Qwen3Config) -> int:
    return c.hidden_size * (c.vocab_size * (2 - c.tie_word_embeddings) + 1 + c.num_hidden_layers * (
        2 * c.head_dim * (c.num_attention_heads + c.num_key_value_heads) + 3 * c.intermediate_size + 2
    )) + c.num_hidden_layers * 2 * c.head_dim


def _layer_by_layer(config: Qwen3Config) -> Any:
    width, queries, keys = (np.int64(one) for one in _numbers_of(config))
    total = width * config.vocab_size + width
    for _ in range(config.num_hidden_layers):
        total += 2 * width * (queries + keys) + 3 * width * config.intermediate_size + 2 * (width + config.head_dim)
    if not config.tie_word_embeddings:
        total += width * config.vocab_size
    return total


_COUNT_PARAMETERS = Exercise("3.3", "Count without building", count_parameters, _verify_count_parameters, wrong=(
    *((slip, hint[:50]) for slip, hint in _COUNT_SLIPS),
    (_by_building_it, "builds the model"),
    (lambda config: tensors_stored(config), "line by line"),
    (lambda config: f"{count_parameters(config):,}", "of parameters"),
    (lambda config: print(end=""), "returned None"),
), also_wrong=(
    lambda config: 596_049_920,
    lambda config: count_parameters(replace(_SMALL, tie_word_embeddings=config.tie_word_embeddings)),
    lambda config: count_parameters(config) / 1e9,
    lambda config: count_parameters(config) + config.num_hidden_layers * config.hidden_size,
    lambda config: 28 * (count_parameters(config) // config.num_hidden_layers),
    _count(tables=lambda config: 3 - _tables(config)),
    _count(widths=lambda config: (config.hidden_size, _numbers_of(config)[2], _numbers_of(config)[2])),
), right=(
    _by_shapes,
    _in_one_line,
    _layer_by_layer,
    lambda config: float(count_parameters(config)),
))

EXERCISES: tuple[Exercise, ...] = (_STORED_PARAMETERS, _TENSORS_STORED, _COUNT_PARAMETERS)
