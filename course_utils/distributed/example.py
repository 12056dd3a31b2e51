"""A small training, the same on one process and on several: `train(*small_training(20))`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from course_utils.config import Qwen3Config
from course_utils.loading import load_tokenizer
from course_utils.qwen3 import Qwen3Model
from course_utils.training.loop import TrainingPlan
from course_utils.training.recipes import blocks_of

_LENGTH = 64


def small_training(steps: int) -> tuple[Qwen3Model, dict[int, Iterator[np.ndarray]], TrainingPlan]:
    """Model, blocks and plan of a training from noise, on the course's own text, in steps of two micro-batches."""
    tokenizer = load_tokenizer("tiny")
    plan = TrainingPlan(steps=steps, tokens_per_step=16 * _LENGTH, block_lengths=(_LENGTH,), micro_batches=2,
                        warm_up_steps=5, bfloat16=False, compiled=False)
    torch.manual_seed(0)
    model = Qwen3Model(Qwen3Config(vocab_size=6_656, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                                   num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                                   max_position_embeddings=_LENGTH))
    return model, {_LENGTH: blocks_of(tokenizer, _LENGTH, seed=0)}, plan
