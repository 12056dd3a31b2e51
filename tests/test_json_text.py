"""JSON nested without end, in every kind of file that is read: it is damaged, and never a `RecursionError`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from course_utils import hub_cache
from course_utils.adapter_checkpoint import load_adapter
from course_utils.chat import read_settings
from course_utils.checkpoint import load_checkpoint, save_checkpoint
from course_utils.config import Qwen3Config
from course_utils.errors import CourseError
from course_utils.exercises.progress import read_progress
from course_utils.json_text import parse_json
from course_utils.loading import random_model
from course_utils.lora import Adapters
from course_utils.sampling import Sampling
from course_utils.training.checkpoints import load_training
from course_utils.training.own_data import read_documents
from course_utils.training.records import read_log

DEEP = '{"a":' * 100_000 + "\n"
CONFIG = Qwen3Config(vocab_size=8, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1,
                     num_key_value_heads=1, head_dim=2)


def _index(folder: Path) -> None:
    save_checkpoint(random_model(CONFIG, device="cpu"), folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(DEEP)
    load_checkpoint(folder)


def _read(name: str, read: Callable[[Path], object]) -> Callable[[Path], object]:
    """What writes the file and then reads it; `read` is given its path."""
    def write_and_read(folder: Path) -> object:
        (folder / name).write_text(DEEP)
        return read(folder / name)
    return write_and_read


def _training_state(folder: Path) -> None:
    save_file({"weights.a": torch.zeros(1)}, folder / "state", metadata={"course_utils.training": DEEP})
    load_training(SimpleNamespace(), folder / "state")  # type: ignore[arg-type]


READERS: dict[str, Callable[[Path], object]] = {
    "config.json": _read("config.json", lambda file: load_checkpoint(file.parent)),
    "index": _index,
    "adapter": _read("adapter_config.json", lambda file: load_adapter(Adapters(random_model(CONFIG, device="cpu")), "a",
                                                                       file.parent)),
    "tokenizer_config.json": _read("tokenizer_config.json", read_settings),
    "generation_config.json": _read("generation_config.json", lambda file: Sampling.from_folder(file.parent)),
    "log": _read("log.jsonl", read_log),
    "progress": _read("progress.json", read_progress),
    "own data": _read("own.jsonl", read_documents),
    "training": _training_state,
}


@pytest.mark.parametrize("kind", READERS)
def test_nested_without_end(kind: str, tmp_path: Path) -> None:
    with pytest.raises(CourseError) as caught:
        READERS[kind](tmp_path)
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


def test_record_of_the_hub(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots" / "commit"
    (tmp_path / "verified").mkdir()
    (tmp_path / "verified" / "commit.json").write_text(DEEP)
    assert hub_cache._read_record(folder) == {}


def test_whatever_is_wrong_is_a_value_error() -> None:
    for text in (DEEP, "[" * 100_000, "{", "", b"\xff"):
        with pytest.raises(ValueError):
            parse_json(text)
    assert parse_json(json.dumps({"a": [1, None]})) == {"a": [1, None]}
