"""What `config.json` may say, and which sentence answers what it may not."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from course_utils.config import Qwen3Config
from course_utils.errors import CheckpointError

SIZES = [name for name, value in asdict(Qwen3Config()).items() if type(value) is int]
FLOATS = [name for name, value in asdict(Qwen3Config()).items() if type(value) is float]
CONTENT = Qwen3Config().to_dict()

NO_NUMBERS: list[Any] = [True, False, "8", "", None, [8], {"a": 8}, 0, -8, float("inf"), float("-inf"), float("nan"),
                         10**18, 10**400, 8j]


@pytest.mark.parametrize("value", [*NO_NUMBERS, 8.0, 2.5, 1e18], ids=lambda value: str(value)[:10])
@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_positive_whole_numbers(name: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=f"^{name} is .*: it must be a positive whole number, at most") as caught:
        Qwen3Config(**{name: value})
    assert len(str(caught.value)) < 200
    with pytest.raises(CheckpointError, match=f"^{name} is"):
        Qwen3Config.from_dict({**CONTENT, name: value})


@pytest.mark.parametrize("value", [*NO_NUMBERS, 1e300], ids=lambda value: str(value)[:10])
@pytest.mark.parametrize("name", FLOATS)
def test_other_numbers_are_positive_and_finite(name: str, value: Any) -> None:
    if name == "rope_theta" and value == 10**18:
        return  # a large base, but one that can be computed with
    with pytest.raises(CheckpointError, match=f"^{name} is .*: it must be a positive number, at most"):
        Qwen3Config(**{name: value})


@pytest.mark.parametrize("value", [1, 0, "true", None, np.True_, []])
def test_what_is_tied_is_true_or_false(value: Any) -> None:
    with pytest.raises(CheckpointError, match="tie_word_embeddings is .*: it must be true or false"):
        Qwen3Config.from_dict({**CONTENT, "tie_word_embeddings": value})


def test_sizes_beyond_memory_are_refused_before_any_is_taken() -> None:
    """A head of 2e9 took 4 GB for its frequencies, and ten million layers as many modules."""
    for name, value in (("head_dim", 2_000_000_000), ("num_hidden_layers", 10_000_000)):
        with pytest.raises(CheckpointError, match=f"{name} is {value}"):
            Qwen3Config.from_dict({**CONTENT, name: value})


def test_numbers_of_numpy_and_tensors_become_those_of_python() -> None:
    config = Qwen3Config(hidden_size=np.int64(64), num_hidden_layers=torch.tensor(2),  # type: ignore[arg-type]
                         rms_norm_eps=np.float32(0.5), rope_theta=np.int32(10_000))  # type: ignore[arg-type]
    assert config == replace(Qwen3Config(), hidden_size=64, num_hidden_layers=2, rms_norm_eps=0.5, rope_theta=10_000.0)
    assert Qwen3Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_nothing_is_tied_unless_it_is_said() -> None:
    content = {key: value for key, value in CONTENT.items() if key != "tie_word_embeddings"}
    assert Qwen3Config.from_dict(content) == Qwen3Config(tie_word_embeddings=False)


@pytest.mark.parametrize("content", [[], "qwen3", None, 3])
def test_something_else_than_a_mapping_is_refused(content: Any) -> None:
    with pytest.raises(CheckpointError, match="give a mapping"):
        Qwen3Config.from_dict(content)


def test_a_long_value_is_shown_in_short_and_harmless() -> None:
    deep: Any = 1
    for _ in range(900):  # as deep as JSON can be read, and too deep to be printed in full
        deep = [deep]
    for value in ("\x1b[2J" * 1000, deep, {str(key): deep for key in range(1000)}):
        for name in ("hidden_size", "model_type", "rope_scaling", "rope_theta", "layer_types"):
            with pytest.raises(CheckpointError) as caught:
                Qwen3Config.from_dict({**CONTENT, name: value})
            assert len(str(caught.value)) < 300 and "\x1b" not in str(caught.value)
