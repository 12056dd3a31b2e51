"""A model's name -> the model, its tokenizer and its sampling, ready to generate.

Which model the whole course runs on is one switch: the environment variable `COURSE_MODEL`, or the argument
`name`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from course_utils.checkpoint import load_checkpoint, load_config
from course_utils.config import Qwen3Config
from course_utils.device import free_memory, get_device
from course_utils.family import FAMILY, find_repo_id
from course_utils.hub import BUNDLED, resolve
from course_utils.number import check_dtype
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import Sampling, random_generator
from course_utils.tokenizer import Qwen3Tokenizer

DEFAULT_MODEL = "tiny"
_CHUNK = 1 << 20
SMALL_VARIABLE = "COURSE_SMALL"
_SMALL_LAYERS = 4
# Weights of 1.2 GB in bfloat16, and as much again for caches, for what is computed, and for other notebooks.
_NEEDED_MEMORY = 2.5e9  # bytes


def load_model(name: str | Path | None = None, device: torch.device | str | None = None,
               dtype: torch.dtype | None = None) -> Qwen3Model:
    """Load a model by its name, in `eval()` mode.

    Args:
        name: `tiny` or `nano` (bundled), a Qwen3 model of the hub such as `qwen3-0.6b-base` (downloaded the
            first time), or a folder in Hugging Face layout. None is the environment variable `COURSE_MODEL`,
            or `tiny`.
        device: None is `get_device()`.
        dtype: None is float32 for a bundled model, so that it writes the same text on every machine, and the
            checkpoint's own format (bfloat16) for any other.

    Raises:
        InputError: if there is no such model, this machine has no such device, or no model computes in dtype.
        CheckpointError: if its files are incomplete or damaged.
        DownloadError: if it cannot be downloaded.
    """
    name, device = _chosen(name), get_device(device)
    check_dtype(dtype)  # before anything is downloaded
    if dtype is None and _is_bundled(name):
        dtype = torch.float32
    return load_checkpoint(resolve(name), device=device, dtype=dtype)


def load_tokenizer(name: str | Path | None = None) -> Qwen3Tokenizer:
    """Load the tokenizer of a model.

    Args:
        name: as of `load_model`, with the same default.

    Raises:
        InputError, CheckpointError, DownloadError: as `load_model`.
        TokenizerError: if the folder has no readable tokenizer.
    """
    return Qwen3Tokenizer(resolve(_chosen(name)))


def load_sampling(name: str | Path | None = None) -> Sampling:
    """Load how a model's makers advise to sample from it: its `generation_config.json`, greedy without one.

    Args:
        name: as of `load_model`, with the same default.

    Raises:
        InputError, CheckpointError, DownloadError: as `load_model`.
    """
    return Sampling.from_folder(resolve(_chosen(name)))


def random_model(name_or_config: str | Path | Qwen3Config, dtype: torch.dtype = torch.bfloat16,
                 device: torch.device | str | None = None, seed: int = 0) -> Qwen3Model:
    """Build a model of a real shape with random weights: it writes nonsense at the speed of the real one.

    Args:
        name_or_config: a name as of `load_model`, of which only the configuration is needed (nothing is
            downloaded), or a configuration.
        dtype: number format of the weights.
        device: None is `get_device()`.
        seed: the same seed gives the same weights on every device.

    Returns:
        The model in `eval()` mode.

    Raises:
        InputError, CheckpointError: as `load_model`.
    """
    config = name_or_config if isinstance(name_or_config, Qwen3Config) else _config_of(name_or_config)
    device = get_device(device)
    check_dtype(dtype)
    generator = random_generator(seed)
    with torch.device("meta"):
        model = Qwen3Model(config)
    weights = {name: _random_weight(parameter, dtype, device, generator)
               for name, parameter in model.named_parameters()}  # names a tied matrix once
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights, assign=True)
    model.tie_weights()
    return model.to(device).eval()


def _chosen(name: str | Path | None) -> str | Path:
    return name if name is not None else os.environ.get("COURSE_MODEL") or DEFAULT_MODEL


def _is_bundled(name: str | Path) -> bool:
    return isinstance(name, str) and name.lower() in BUNDLED


def _config_of(name: str | Path) -> Qwen3Config:
    """The configuration of a named model, from the package's own table where the model is on the hub."""
    repo_id = find_repo_id(name) if isinstance(name, str) else None
    return FAMILY[repo_id] if repo_id else load_config(resolve(name))


def _random_weight(parameter: nn.Parameter, dtype: torch.dtype, device: torch.device | str,
                   generator: torch.Generator) -> torch.Tensor:
    """Ones for a norm, else small normal numbers, as a fresh `Qwen3Model` has them."""
    if parameter.dim() == 1:
        return torch.ones(parameter.shape, dtype=dtype, device=device)
    weight = torch.empty(parameter.shape, dtype=dtype, device=device)
    # Drawn in float32 (which is faster than in bfloat16) and on the CPU (which gives the same numbers for any
    # device), but piece by piece, so that no second matrix is ever held.
    numbers = torch.empty(_CHUNK)
    for piece in weight.view(-1).split(_CHUNK):
        piece.copy_(numbers[:piece.numel()].normal_(std=0.02, generator=generator))
    return weight


def timing_config() -> Qwen3Config:
    """The shape on which the course measures speed and memory: that of the real Qwen3-0.6B.

    Where the environment variable COURSE_SMALL is 1, or less than 2.5 GB of the device's memory is free, only
    four of the 28 layers are kept. Every matrix still has its real size, so ratios and shares mean the same.
    """
    config = FAMILY["Qwen/Qwen3-0.6B"]
    if os.environ.get(SMALL_VARIABLE) == "1" or free_memory(get_device()) < _NEEDED_MEMORY:
        return replace(config, num_hidden_layers=_SMALL_LAYERS)
    return config
