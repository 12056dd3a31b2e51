"""Exercises of chapter 3: counting what a file stores, and parameters from the configuration alone."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from course_utils.config import Qwen3Config
from course_utils.exercises.exercise import Answer, Exercise
from course_utils.family import FAMILY

_SMALL, _LARGE = FAMILY["Qwen/Qwen3-0.6B"], FAMILY["Qwen/Qwen3-8B"]

# ---- 3.1 -------------------------------------------------------------------------------------------------


def stored_parameters(path: str | Path) -> int:
    """How many numbers a safetensors file holds; reads only its header."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items()
               if name != "__metadata__")


def _verify_stored_parameters(answer: Answer) -> str | None:
    wide, short = torch.zeros(3, 5), torch.zeros(7, dtype=torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.safetensors"
        save_file({"wide": wide, "short": short}, path)
        got = answer(path)
        expected = wide.numel() + short.numel()
        if got == wide.nbytes + short.nbytes:
            return "it counts bytes. Multiply the numbers of the shape instead: math.prod(entry['shape'])."
        if got == 2:
            return "it counts tensors. Add up how many numbers each of them has."
        if got == 3 + 5 + 7:
            return "it adds the numbers of a shape. A 3 by 5 tensor has 15 entries: multiply them, with math.prod."
        if got != expected:
            return f"for a file with tensors of 3 by 5 and of 7 numbers it returned {got!r}, and these are {expected}."
        save_file({"wide": wide}, path, metadata={"format": "pt"})
        try:
            got = answer(path)
        except (KeyError, TypeError):
            return "it stumbles over __metadata__, an entry of the header that is no tensor. Leave it out."
        if got != wide.numel():
            return "with an entry __metadata__ in the header the result changes. That is no tensor: leave it out."
        with path.open("r+b") as file:  # a header alone: whoever loads the tensors fails here
            file.truncate(8 + int.from_bytes(file.read(8), "little"))
        try:
            return None if answer(path) == wide.numel() else "it reads more than the header. Stop behind it."
        except Exception:  # noqa: BLE001 - whichever way of loading it was
            return "it loads the tensors. Read only the header: eight bytes, then as many as these say."


def _header(path: str | Path) -> dict[str, dict[str, list[int]]]:
    with open(path, "rb") as file:
        header: dict[str, dict[str, list[int]]] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return header


def _by_loading(path: str | Path) -> int:
    from safetensors.torch import load_file

    return sum(tensor.numel() for tensor in load_file(path).values())


def _bytes_by_header(path: str | Path) -> int:
    return sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in _header(path).values())


_STORED_PARAMETERS = Exercise("3.1", "Count without loading", stored_parameters, _verify_stored_parameters, wrong=(
    (_by_loading, "loads the tensors"),
    (_bytes_by_header, "counts bytes"),
    (lambda path: len(_header(path)), "counts tensors"),
    (lambda path: sum(sum(entry["shape"]) for entry in _header(path).values()), "adds the numbers"),
    (lambda path: sum(math.prod(entry["shape"]) for entry in _header(path).values()), "no tensor"),
))

# ---- 3.2 -------------------------------------------------------------------------------------------------


def tensors_stored(config: Qwen3Config) -> int:
    """How many tensors its checkpoint stores, a tied matrix once."""
    layer = 4 + 3 + 4  # attention, MLP, norms
    outside = 2 if config.tie_word_embeddings else 3  # embedding, last norm, output layer
    return config.num_hidden_layers * layer + outside


def _verify_tensors_stored(answer: Answer) -> str | None:
    for config in (_SMALL, _LARGE, replace(_SMALL, num_hidden_layers=1)):
        got, expected, layers = answer(config), tensors_stored(config), config.num_hidden_layers
        if got == expected:
            continue
        if got is None:
            return "it returned None. Does the function end with a return?"
        if not isinstance(got, int):
            return f"it returned {type(got).__name__}. Return a whole number."
        if got > 1000:
            return f"it returned {got:,}, which counts numbers. A matrix is one tensor, however many numbers it has."
        tied = "tied" if config.tie_word_embeddings else "not tied"
        likely = {
            1: "the output layer is counted although it is tied: then nothing of it is stored.",
            -1: "one tensor is missing. Outside the layers there are the embedding, the last norm and, where "
                "tie_word_embeddings is false, the output layer.",
            -2: "it counts the layers alone. What stands before them and behind them in the summary?",
            -2 * layers: "two tensors of each layer are missing: attention has norms of its own, q_norm and k_norm.",
            -4 * layers: "the norms of the layers are missing: each is one tensor.",
        }
        return likely.get(got - expected, f"a model with {layers} layers, {tied}, stores {expected} tensors, and it "
                                          f"returned {got}. Count the names of one layer in the header.")
    return None


def _tensors(config: Qwen3Config, layer: int, outside: int) -> int:
    """What a count comes to that takes these numbers of tensors."""
    return config.num_hidden_layers * layer + outside


_TENSORS_STORED = Exercise("3.2", "How many tensors?", tensors_stored, _verify_tensors_stored, wrong=(
    (lambda config: _tensors(config, 11, 3), "although it is tied"),
    (lambda config: _tensors(config, 11, 2), "one tensor is missing"),
    (lambda config: _tensors(config, 11, 0), "layers alone"),
    (lambda config: _tensors(config, 9, _tables(config) + 1), "q_norm and k_norm"),
    (lambda config: _tensors(config, 7, _tables(config) + 1), "norms of the layers"),
    (lambda config: count_parameters(config), "counts numbers"),
    (lambda config: 310, "model with 36 layers, not tied"),
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


def _verify_count_parameters(answer: Answer) -> str | None:
    for config in (_SMALL, _LARGE, replace(_SMALL, num_hidden_layers=3, head_dim=64)):
        got, expected = answer(config), count_parameters(config)
        if got == expected:
            continue
        if not isinstance(got, (int, float)):
            return f"it returned {type(got).__name__}. Return one number."
        table = config.vocab_size * config.hidden_size
        keys = config.num_key_value_heads * config.head_dim
        queries = config.num_attention_heads * config.head_dim
        layers = config.num_hidden_layers
        likely = {
            table: "the output layer is counted although it is tied. Count it only where tie_word_embeddings is false.",
            -table: "the output layer is missing. Where tie_word_embeddings is false it has a matrix of its own.",
            -config.hidden_size: "the last norm, behind all layers, is missing.",
            -2 * config.head_dim * layers: "the norms of queries and keys, over head_dim numbers each, are missing.",
            -config.hidden_size * config.intermediate_size * layers:
                "the MLP has three matrices: gate_proj, up_proj and down_proj.",
            2 * config.hidden_size * (queries - keys) * layers:
                "keys and values have fewer heads than queries: use num_key_value_heads for them.",
        }
        difference = int(got - expected)
        norms = (2 * config.hidden_size + 2 * config.head_dim) * layers + config.hidden_size
        likely[-norms] = ("all norms are missing: two over hidden_size and two over head_dim in each layer, and the "
                          "last one.")
        return likely.get(difference, f"for a model with {expected:,} parameters it returned {got:,}. Go through the "
                                      "printed summary line by line.")
    return None


def _count(config: Qwen3Config, tables: int, key_heads: int, mlp_matrices: int = 3, last_norm: int = 1,
           layer_norms: int = 1) -> int:
    """What a count comes to that takes some numbers differently."""
    width, head = config.hidden_size, config.head_dim
    attention = 2 * width * head * (config.num_attention_heads + key_heads)
    layer = attention + mlp_matrices * width * config.intermediate_size + layer_norms * 2 * (width + head)
    return tables * config.vocab_size * width + config.num_hidden_layers * layer + last_norm * width


def _tables(config: Qwen3Config) -> int:
    return 1 if config.tie_word_embeddings else 2


_COUNT_PARAMETERS = Exercise("3.3", "Count without building", count_parameters, _verify_count_parameters, wrong=(
    (lambda config: _count(config, 2, config.num_key_value_heads), "although it is tied"),
    (lambda config: _count(config, 1, config.num_key_value_heads), "output layer is missing"),
    (lambda config: _count(config, _tables(config), config.num_attention_heads), "fewer heads"),
    (lambda config: _count(config, _tables(config), config.num_key_value_heads, mlp_matrices=2), "three matrices"),
    (lambda config: _count(config, _tables(config), config.num_key_value_heads, last_norm=0), "last norm"),
    (lambda config: _count(config, _tables(config), config.num_key_value_heads, last_norm=0, layer_norms=0),
     "all norms are missing"),
))

EXERCISES = (_STORED_PARAMETERS, _TENSORS_STORED, _COUNT_PARAMETERS)
