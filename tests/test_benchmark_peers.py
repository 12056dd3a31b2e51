"""Other people's programs, where they are installed: they compute the same text from the same weights.

CI does not install them; `pytest -m peers tests` runs these tests where they are.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from course_utils import KVCache, generate_tokens, load_model
from course_utils.benchmark.peers import ALL_PEERS
from course_utils.benchmark.weights import Subject, Workspace, make_checkpoint
from course_utils.config import Qwen3Config
from course_utils.hub import resolve

PROMPT = torch.randint(6656, (1, 40), generator=torch.Generator().manual_seed(1))
MODULES = {"transformers": "transformers", "reasoning-from-scratch": "reasoning_from_scratch",
           "llama-cpp-python": "llama_cpp", "gguf": "gguf"}

pytestmark = pytest.mark.peers


def workspace(folder: Path, checkpoint: Path) -> Workspace:
    return Workspace(folder, checkpoint, torch.device("cpu"), torch.float32, torch.get_num_threads(), 100)


@pytest.mark.parametrize("name", ALL_PEERS)
def test_peers_write_what_we_write(name: str, tmp_path: Path) -> None:
    row = ALL_PEERS[name]
    missing = [package for package in row.packages if importlib.util.find_spec(MODULES[package]) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    model = load_model("tiny", device="cpu")
    expected = [int(token) for token in generate_tokens(model, PROMPT, 20, cache=KVCache(model.config))]
    place = workspace(tmp_path, resolve("tiny"))
    place.prepare(row.weights)
    engine = row.build(place)
    first, second = (list(engine.generate(PROMPT[0].tolist(), 20)) for _ in range(2))
    assert first == second
    if row.weights == "q4_0.gguf":  # too coarse to choose the same tokens all the way
        assert first[0] == expected[0]
    else:
        assert first == expected
    per_weight = {"bf16.gguf": 2, "q8_0.gguf": 34 / 32, "q4_0.gguf": 18 / 32}.get(row.weights, 4)
    assert engine.weight_bytes == pytest.approx(per_weight * sum(p.numel() for p in model.parameters()), rel=0.01)


@pytest.mark.parametrize("name", ["transformers", "textbook", "llama.cpp-bf16", "llama.cpp-q4_0"])
def test_an_embedding_that_is_not_the_output_layer_is_not_read(name: str, tmp_path: Path) -> None:
    row = ALL_PEERS[name]
    if any(importlib.util.find_spec(MODULES[package]) is None for package in row.packages):
        pytest.skip(f"not installed: {', '.join(row.packages)}")
    sizes = dict(vocab_size=1024, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                 num_key_value_heads=1, head_dim=32, max_position_embeddings=128)
    read = []
    for tied in (True, False):
        folder = tmp_path / str(tied)
        folder.mkdir()
        subject = Subject("small", Qwen3Config(**sizes, tie_word_embeddings=tied), dtype=torch.float32)
        place = workspace(folder, make_checkpoint(subject, folder, seed=0))
        place.prepare(row.weights)
        engine = row.build(place)
        assert len(list(engine.generate([1, 2, 3], 3))) == 3
        read.append(engine.weight_bytes)
    assert read[0] == read[1]
