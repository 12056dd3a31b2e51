"""What is inside a forward pass: every part's result, recorded by hooks while the model runs unchanged.

A hook is a function that PyTorch calls each time a module has computed something. `record` puts one on each module
whose result is wanted, runs the model once, and takes them off again. The attention weights it computes itself, since
the model's own attention never holds them: it adds up the values without writing t squared numbers down.

Shapes in comments: b texts side by side, t tokens, d the hidden size, h query heads, g key-value heads, k the size of
one head, v the vocabulary. What exists once in each layer has the layers as its first axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from course_utils.generation import check_prompt
from course_utils.qwen3 import DecoderLayer, Qwen3Model, rotate


@dataclass(frozen=True)
class Recording:
    """The intermediate values of one forward pass, in float32, without gradients, where the model computes.

    Attributes:
        token_ids: (b, t).
        attention_mask: (b, t), False for padding.
        embeddings: (b, t, d), the row of each token in the embedding table.
        queries: (layers, b, h, t, k), as attention uses them: normalized and rotated.
        keys: (layers, b, g, t, k), likewise.
        values: (layers, b, g, t, k).
        attention: (layers, b, h, t, t), the weight that each token, a row, gives to each, a column. Rows sum to 1.
        head_outputs: (layers, b, t, h, k), the weighted sum of values of each head, which `o_proj` mixes.
        attention_outputs: (layers, b, t, d), what attention adds to the residual stream.
        mlp_outputs: (layers, b, t, d), what the MLP adds to it.
        residual: (layers + 1, b, t, d), the residual stream before the first layer and after each one.
        logits: (b, t, v).
    """

    token_ids: Tensor
    attention_mask: Tensor
    embeddings: Tensor
    queries: Tensor
    keys: Tensor
    values: Tensor
    attention: Tensor
    head_outputs: Tensor
    attention_outputs: Tensor
    mlp_outputs: Tensor
    residual: Tensor
    logits: Tensor


def record(model: Qwen3Model, token_ids: Tensor, attention_mask: Tensor | None = None) -> Recording:
    """Run the model once and keep what its parts computed.

    The model may be quantized or compiled; compiled code is run uncompiled here, since it does not stop for hooks.
    Attention takes layers x b x h x t x t x 4 bytes, so memory grows with the square of the text.

    Args:
        model: it is left as it was, also after an error.
        token_ids: (b, t), one text or several of equal length.
        attention_mask: (b, t), True (or 1) for real tokens, False for padding on the left; None means no padding.

    Raises:
        InputError: if the token ids or the mask have the wrong shape, or ids are beyond the vocabulary.
        ContextLengthError: if the text is longer than the model's context.
    """
    check_prompt(model, token_ids, max_new_tokens=0)
    decoder = model.model
    layers = cast(list[DecoderLayer], list(decoder.layers))
    attentions = [layer.self_attn for layer in layers]
    modules: list[nn.Module] = [decoder.embed_tokens, model.lm_head, *layers, *attentions]
    for layer, part in zip(layers, attentions):
        modules += [part.q_norm, part.k_norm, part.v_proj, part.o_proj, layer.mlp]
    with _watched(modules) as calls, torch.no_grad(), torch.compiler.set_stance("force_eager"):
        model(token_ids, attention_mask=attention_mask)

    def outputs(modules: Sequence[nn.Module]) -> Tensor:
        return torch.stack([calls[module].output for module in modules])

    per_head = (len(layers), *token_ids.shape, -1, model.config.head_dim)
    _, (cos, sin), mask, _ = calls[attentions[0]].inputs  # the same for all layers
    queries = rotate(outputs([part.q_norm for part in attentions]).transpose(2, 3), cos, sin).float()
    keys = rotate(outputs([part.k_norm for part in attentions]).transpose(2, 3), cos, sin).float()
    embeddings = calls[decoder.embed_tokens].output
    return Recording(
        token_ids=token_ids,
        attention_mask=torch.ones_like(token_ids).bool() if attention_mask is None else attention_mask.bool(),
        embeddings=embeddings.float(),
        queries=queries,
        keys=keys,
        values=outputs([part.v_proj for part in attentions]).view(per_head).transpose(2, 3).float(),
        attention=torch.stack([attention_weights(q, k, mask) for q, k in zip(queries, keys)]),
        head_outputs=torch.stack([calls[part.o_proj].inputs[0] for part in attentions]).view(per_head).float(),
        attention_outputs=outputs(attentions).float(),
        mlp_outputs=outputs([layer.mlp for layer in layers]).float(),
        residual=torch.cat((embeddings[None], outputs(layers))).float(),
        logits=calls[model.lm_head].output.float())


def attention_weights(queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
    """How much each token looks at each: softmax(queries keys^T / sqrt(k)). https://arxiv.org/abs/1706.03762.

    Args:
        queries: (b, h, t, k), rotated.
        keys: (b, g, t, k), rotated; each serves h / g query heads.
        mask: (b or 1, 1, t, t), True where a query may look; None lets each token see itself and those before it.

    Returns:
        (b, h, t, t), rows for queries, columns for keys; each row sums to 1.
    """
    _, h, t, k = queries.shape
    keys = keys.repeat_interleave(h // keys.shape[1], dim=1)
    scores = queries @ keys.transpose(-1, -2) / k**0.5
    if mask is None:
        mask = torch.ones(t, t, dtype=torch.bool, device=queries.device).tril()
    return scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)


def logits_by_layer(model: Qwen3Model, recording: Recording) -> Tensor:
    """What the model would say if it ended after each layer: the last norm and the output layer, applied to every
    state of the residual stream. Known as the logit lens.

    Args:
        model: the recorded one.
        recording: of any text.

    Returns:
        (layers + 1, b, t, v) in float32: first what follows from the embeddings alone, last the model's own logits.
        With Qwen3-0.6B that is 18 MB for each token of the text.
    """
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        # One state at a time, as the model does it, so that the last one comes out the same to the last digit.
        return torch.stack([model.lm_head(model.model.norm(state.to(model.dtype))).float()
                            for state in recording.residual])


class _Call(NamedTuple):
    inputs: tuple[Any, ...]
    output: Tensor


@contextmanager
def _watched(modules: Sequence[nn.Module]) -> Iterator[dict[nn.Module, _Call]]:
    """Within this block, what each module was last given and gave out."""
    calls: dict[nn.Module, _Call] = {}

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        calls[module] = _Call(inputs, output)

    handles = [module.register_forward_hook(note) for module in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
