"""A small random model for the checks of loops and caches: its greedy text varies, and depends on all that came before.

A model with the usual small random weights repeats its last token for ever, so that a loop that feeds the wrong token,
or keeps a cache of another text, writes the same as a right one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from course_utils.config import Qwen3Config
from course_utils.kv_cache import Cache
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import random_generator

CONFIG = Qwen3Config(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, head_dim=8, max_position_embeddings=128, tie_word_embeddings=False)
_SPREAD = 0.3  # of the weights; with the usual 0.02 what a token says of itself drowns the rest


@dataclass(frozen=True)
class Pass:
    """A forward pass of a watched model.

    Args:
        token_ids: what it was given, (b, t).
        cache: the cache that it was given, or None.
        held: how many tokens that cache held before.
    """

    token_ids: Tensor
    cache: Cache | None
    held: int


def varied_model(seed: int = 6) -> Qwen3Model:
    """The model, in float32 on the CPU; another seed gives one that writes otherwise.

    Args:
        seed: of its weights.
    """
    model = Qwen3Model(CONFIG).float().eval()
    generator = random_generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, _SPREAD, generator=generator)
    return model


@contextmanager
def watched(model: Qwen3Model) -> Iterator[list[Pass]]:
    """A list to which each forward pass of the model adds, as long as the body runs.

    Args:
        model: any of the package's.
    """
    passes: list[Pass] = []

    def note(_model: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        token_ids = args[0] if args else kwargs["token_ids"]
        cache = args[1] if len(args) > 1 else kwargs.get("cache")
        passes.append(Pass(token_ids.clone(), cache, cache.length if cache is not None else 0))

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield passes
    finally:
        hook.remove()
