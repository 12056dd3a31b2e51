"""Qwen3, the dense model family, in plain PyTorch: token ids in, logits out.

The modules are named as in the published checkpoints, so their weights load without a table of renamings.
Shapes in comments: b sequences, t new tokens, s tokens in all (past and new), d the hidden size, h query heads,
g key-value heads, k the size of one head, v the vocabulary.

Left out on purpose: mixture of experts, sliding windows, rotary scaling, dropout (Qwen3 trains without it).

Source: Qwen3 Technical Report, https://arxiv.org/abs/2505.09388.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.config import Qwen3Config
from course_utils.errors import ContextLengthError, InputError
from course_utils.kv_cache import Cache


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last dimension, then scale. https://arxiv.org/abs/1910.07467."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # The mean of squares needs more than bfloat16's eight bits.
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class RotaryEmbedding(nn.Module):
    """Cosines and sines of the angles by which queries and keys are rotated. https://arxiv.org/abs/2104.09864.

    Pair i of a head turns by `position * theta ** (-2 i / head_dim)`. Angles are computed in float32 and element
    by element: in bfloat16, or as a TF32 matrix product, far positions would become indistinguishable.
    """

    frequencies: Tensor

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.head_dim, self.theta = config.head_dim, config.rope_theta
        self.register_buffer("frequencies", self._make_frequencies(), persistent=False)

    def _make_frequencies(self) -> Tensor:
        # No weights: they are made on a real device even while the model is built on meta.
        exponents = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device="cpu") / self.head_dim
        return self.theta ** -exponents

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RotaryEmbedding:
        # `to(bfloat16)`, `half()` and `to_empty()` come by here. Made anew on the new device, the frequencies lose
        # nothing.
        super()._apply(fn, recurse)
        self.frequencies = self._make_frequencies().to(self.frequencies.device)
        return self

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Args: positions: (b or 1, t), integers. Returns: cosines and sines, each (b or 1, 1, t, head_dim)."""
        angles = positions[:, None, :, None].float() * self.frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (i, i + head_dim / 2) of x, (b, heads, t, head_dim), by its angle."""
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention: several query heads share one head of keys and values.

    https://arxiv.org/abs/2305.13245. Queries and keys are normalized per head before they are rotated.
    """

    def __init__(self, config: Qwen3Config, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        query_size = config.num_attention_heads * config.head_dim
        key_value_size = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key_value_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_value_size, bias=False)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Optional[Tensor],
                cache: Optional[Cache]) -> Tensor:
        b, t, _ = x.shape
        per_head = (b, t, -1, self.head_dim)
        queries = self.q_norm(self.q_proj(x).view(per_head)).transpose(1, 2)  # (b, h, t, k)
        keys = self.k_norm(self.k_proj(x).view(per_head)).transpose(1, 2)  # (b, g, t, k)
        values = self.v_proj(x).view(per_head).transpose(1, 2)  # (b, g, t, k)
        queries, keys = rotate(queries, *rotary), rotate(keys, *rotary)
        if cache is not None:
            keys, values = cache.update(self.layer, keys, values)  # (b, g, s, k)
        # Without a mask the tokens are either a whole prompt (causal) or a single new one (it sees everything). A
        # branch decides it: compiled for any t, the bare comparison would not be a bool but an open question.
        is_causal = True if mask is None and t > 1 else False
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=is_causal,
                                                  enable_gqa=True)
        return self.o_proj(attended.transpose(1, 2).reshape(b, t, -1))


class MLP(nn.Module):
    """SwiGLU: a linear layer whose output is gated by the SiLU of another. https://arxiv.org/abs/2002.05202."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """One transformer block: attention, then MLP, each normalized before and added to the residual stream."""

    def __init__(self, config: Qwen3Config, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Optional[Tensor],
                cache: Optional[Cache]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotary, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Everything below the output layer: token ids to hidden states."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(config)

    def forward(self, token_ids: Tensor, positions: Tensor, mask: Optional[Tensor],
                cache: Optional[Cache]) -> Tensor:
        x = self.embed_tokens(token_ids)  # (b, t, d)
        rotary = self.rotary_emb(positions)
        for layer in self.layers:
            x = layer(x, rotary, mask, cache)
        return self.norm(x)


class Qwen3Model(nn.Module):
    """A Qwen3 language model: for each token, a score for every token that could come next.

    Args:
        config: sizes of the model. The new model has random weights; `load_model` gives it trained ones.
    """

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.apply(_initialize)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Let the output layer use the embedding's own tensor, if the configuration says so."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return self.model.embed_tokens.weight.dtype

    def forward(self, token_ids: Tensor, cache: Optional[Cache] = None, attention_mask: Optional[Tensor] = None,
                last_only: bool = False) -> Tensor:
        """Compute the logits of the next token.

        Args:
            token_ids: (b, t) integers. With a cache, only the tokens that it does not hold yet.
            cache: keys and values of past tokens; it is extended by these t.
            attention_mask: (b, s), True (or 1) for real tokens, False for padding on the left, covering past and new
                tokens; positions are counted from the first real token. Without it all tokens are real.
            last_only: compute only the last position's logits, which is all that generation needs.

        Returns:
            Logits, (b, t, vocab_size), or (b, 1, vocab_size) with `last_only`, in the dtype of the weights.

        Raises:
            InputError: if token_ids or attention_mask have the wrong shape.
            ContextLengthError: if past and new tokens do not fit into the context or the cache.
        """
        if token_ids.dim() != 2 or token_ids.shape[1] == 0:
            raise InputError(f"token_ids has shape {tuple(token_ids.shape)}: the model expects (batch, tokens) with at "
                             "least one token; for a single prompt use torch.tensor([ids]) or unsqueeze(0).")
        t = token_ids.shape[1]
        past = cache.length if cache is not None else 0
        longest = min(self.config.max_position_embeddings, cache.max_length if cache is not None else past + t)
        if past + t > longest:
            raise ContextLengthError(f"{past + t} tokens do not fit: the longest possible here is {longest}. "
                                     "Shorten the prompt, ask for fewer new tokens, or use a larger cache.")
        positions, mask = _positions_and_mask(token_ids, past, attention_mask)
        hidden = self.model(token_ids, positions, mask, cache)  # (b, t, d)
        if cache is not None:
            cache.advance(t)
        return self.lm_head(hidden[:, -1:] if last_only else hidden)


def _positions_and_mask(token_ids: Tensor, past: int,
                        attention_mask: Optional[Tensor]) -> tuple[Tensor, Optional[Tensor]]:
    """Positions, (b or 1, t), and the mask of who may look at whom, (b or 1, 1, t, s), or None if none is needed."""
    b, t = token_ids.shape
    s = past + t
    slots = torch.arange(s, device=token_ids.device)
    if attention_mask is None:
        positions = slots[None, past:]
        if past == 0 or t == 1:
            return positions, None
        return positions, (slots[None, :] <= slots[past:, None])[None, None]
    if attention_mask.shape != (b, s):
        raise InputError(f"attention_mask has shape {tuple(attention_mask.shape)}: it must be ({b}, {s}), one entry "
                         "for each token, those in the cache included.")
    real = attention_mask.bool()
    positions = (real.long().cumsum(dim=1) - 1).clamp(min=0)[:, past:]
    causal = slots[None, :] <= slots[past:, None]  # (t, s)
    # A padding token looks at itself alone: a row without any allowed key would turn into NaN.
    itself = slots[None, :] == slots[past:, None]
    return positions, ((causal & real[:, None, :]) | itself)[:, None]


def _initialize(module: nn.Module) -> None:
    """Small normal weights, as GPT-2 and its successors start with."""
    if isinstance(module, (nn.Linear, nn.Embedding)) and not module.weight.is_meta:
        nn.init.normal_(module.weight, std=0.02)
