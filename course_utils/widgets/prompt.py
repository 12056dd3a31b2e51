"""A prompt as a learner types it."""

from __future__ import annotations

import torch
from torch import Tensor

from course_utils.errors import InputError
from course_utils.generation import check_prompt
from course_utils.qwen3 import Qwen3Model
from course_utils.tokenizer import Qwen3Tokenizer


def encode_prompt(model: Qwen3Model, tokenizer: Qwen3Tokenizer, prompt: str, max_new_tokens: int = 1) -> Tensor:
    """A prompt as token ids, (1, t), where the model computes.

    Raises:
        InputError: if it is empty.
        ContextLengthError: if it and the new tokens do not fit into the context.
    """
    token_ids = tokenizer.encode(prompt)
    if not token_ids:
        raise InputError("The prompt is empty: type at least one letter.")
    ids = torch.tensor([token_ids], device=model.device)
    check_prompt(model, ids, max_new_tokens)
    return ids
