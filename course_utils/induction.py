"""Heads that copy: finding them by where they look, and showing what they do by leaving them out.

A head that copies looks, at a token that the text has had before, at what came after it then, and makes that likelier
to come next. Source: In-context Learning and Induction Heads, https://arxiv.org/abs/2209.11895, where it is called an
induction head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.qwen3 import Qwen3Model
from course_utils.recording import Recording


def copying_scores(recording: Recording) -> Tensor:
    """How much attention each head pays, at a token that occurred before, to the tokens that came after it then.

    Args:
        recording: of a text, or several, in which tokens occur again; best a sequence of random words twice over,
            where no habit of the language tells what comes next.

    Returns:
        (layers, h), from 0 to 1: the mean over all tokens that occurred before.

    Raises:
        InputError: if no token occurs twice.
    """
    ids, real = recording.token_ids, recording.attention_mask
    b, t = ids.shape
    # before[b, i, j]: token j, before i, is the same token as i.
    before = ((ids[:, :, None] == ids[:, None, :]) & real[:, :, None] & real[:, None, :]).tril(-1)
    after = torch.cat((before.new_zeros(b, t, 1), before[:, :, :-1]), dim=2)  # the column next to each
    again = before.any(dim=-1)
    if not bool(again.any()):
        raise InputError(gettext("None of the {ids} tokens occurs twice, so there is nothing to copy: record a text "
                                 "that repeats itself.").format(ids=ids.numel()))
    paid = (recording.attention * after[None, :, None]).sum(dim=-1)  # (layers, b, h, t)
    return paid.transpose(1, 2)[:, :, again].mean(dim=-1)


@contextmanager
def without_head(model: Qwen3Model, layer: int, head: int) -> Iterator[None]:
    """Within this block one head of the model adds nothing: `o_proj` is given zeros in its place.

    Compiled code runs uncompiled within it, since it does not stop for hooks.

    Args:
        model: is as before when the block ends, also after an error.
        layer, head: counted from 0.

    Raises:
        InputError: if the model has no such head.
    """
    config = model.config
    if not (0 <= layer < config.num_hidden_layers and 0 <= head < config.num_attention_heads):
        raise InputError(gettext("There is no head {head} in layer {layer}: the model has {num_hidden_layers} layers "
                                 "of {num_attention_heads} heads, both counted from 0.").format(
            head=head, layer=layer, num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads))
    start = head * config.head_dim

    def silence(_module: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
        heads: Tensor = inputs[0].clone()  # (b, t, h * k)
        heads[..., start:start + config.head_dim] = 0
        return heads

    handle = model.get_submodule(f"model.layers.{layer}.self_attn.o_proj").register_forward_pre_hook(silence)
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        handle.remove()
