"""Qwen3, the dense model family, in plain PyTorch: token ids in, logits out.

The modules are named as in the published checkpoints, so their weights load without a table of renamings.
Shapes in comments: b sequences, t new tokens, s tokens in all (past and new), d the hidden size, h query heads,
g key-value heads, k the size of one head, v the vocabulary.

Left out on purpose: mixture of experts, sliding windows, rotary scaling, dropout (Qwen3 trains without it).

Source: Qwen3 Technical Report, https://arxiv.org/abs/2505.09388.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils import host_memory, kernels
from course_utils.config import Qwen3Config
from course_utils.errors import ContextLengthError, InputError
from course_utils.kv_cache import Cache, LayerCache, check_cache
from course_utils.language import gettext
from course_utils.linear import Linear, fastest_routine, side_by_side, vector_products
from course_utils.threads import computing_with, thread_count


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

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        query_size = config.num_attention_heads * config.head_dim
        key_value_size = config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, query_size)
        self.k_proj = Linear(config.hidden_size, key_value_size)
        self.v_proj = Linear(config.hidden_size, key_value_size)
        self.o_proj = Linear(query_size, config.hidden_size)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None,
                cache: LayerCache | None) -> Tensor:
        b, t, _ = x.shape
        per_head = (b, t, -1, self.head_dim)
        queries, keys, values = side_by_side(x, self.q_proj, self.k_proj, self.v_proj)
        queries = self.q_norm(queries.view(per_head)).transpose(1, 2)  # (b, h, t, k)
        keys = self.k_norm(keys.view(per_head)).transpose(1, 2)  # (b, g, t, k)
        values = values.view(per_head).transpose(1, 2)  # (b, g, t, k)
        queries, keys = rotate(queries, *rotary), rotate(keys, *rotary)
        if cache is not None:
            keys, values = cache.update(keys, values)  # (b, g, s, k)
        attended = attend(queries, keys, values, mask)
        return self.o_proj(attended.transpose(1, 2).reshape(b, t, -1))


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Mix the values, each weighted by how well its key fits the query. https://arxiv.org/abs/1706.03762.

    Args:
        queries: (b, h, t, k), for the last t of s tokens.
        keys, values: (b, g, s, k).
        mask: (b or 1, 1, t, s), True where a query may look. None: the tokens are either a whole text (each sees
            itself and those before it) or a single new one (it sees everything).

    Returns:
        (b, h, t, k).
    """
    if kernels.attends(queries, keys, values):
        return kernels.attention(queries, keys, values, mask)
    b, h, t, k = queries.shape
    if t == 1:
        # The query heads that share keys become the rows of one matrix: no key is copied or read twice.
        rows = queries.view(b, keys.shape[1], -1, k)  # (b, g, h / g, k)
        return F.scaled_dot_product_attention(rows, keys, values, attn_mask=mask).view(b, h, 1, k)
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=mask is None,
                                          enable_gqa=True)


class MLP(nn.Module):
    """SwiGLU: a linear layer whose output is gated by the SiLU of another. https://arxiv.org/abs/2002.05202."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = side_by_side(x, self.gate_proj, self.up_proj)
        return self.down_proj(F.silu(gate) * up)


class DecoderLayer(nn.Module):
    """One transformer block: attention, then MLP, each normalized before and added to the residual stream."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None,
                cache: LayerCache | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotary, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Everything below the output layer: token ids to hidden states."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(config)

    def forward(self, token_ids: Tensor, positions: Tensor, mask: Tensor | None,
                cache: Cache | None) -> Tensor:
        x = self.embed_tokens(token_ids)  # (b, t, d)
        rotary = self.rotary_emb(positions)
        for index, layer in enumerate(self.layers):
            x = layer(x, rotary, mask, cache and cache.layers[index])
        return self.norm(x)


class Qwen3Model(nn.Module):
    """A Qwen3 language model: for each token, a score for every token that could come next.

    Args:
        config: sizes of the model. The new model has random weights; `load_model` gives it trained ones.

    Attributes:
        quantization: None, or how its weights are stored (`course_utils.quantization`).
        compiled: whether its arithmetic is compiled (`course_utils.compilation`).
        adapted: whether an adapter stands beside its weights (`course_utils.lora`); not one that is merged into them.

    Raises:
        InputError: if it is no configuration.
    """

    quantization: str | None = None
    compiled: bool = False
    adapted: bool = False

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        if not isinstance(config, Qwen3Config):
            raise InputError(gettext("A model is made from a configuration, and this is a {kind}: give a "
                                     "Qwen3Config.").format(kind=type(config).__name__))
        self.config = config
        self.model = Decoder(config)
        self.lm_head: nn.Module = Linear(config.hidden_size, config.vocab_size)
        self.apply(_initialize)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Let the output layer use the embedding's own tensors, if the configuration says so."""
        if self.config.tie_word_embeddings:
            # The weight, and its scale if it is quantized.
            for name, _ in (*self.lm_head.named_parameters(), *self.lm_head.named_buffers()):
                setattr(self.lm_head, name, getattr(self.model.embed_tokens, name))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Qwen3Model:
        super()._apply(fn, recurse)
        self.tie_weights()  # moved to another device or format, shared integers would become two
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format that the model computes in; its weights have the same unless they are quantized."""
        return self.model.norm.weight.dtype

    def forward(self, token_ids: Tensor, cache: Cache | None = None, attention_mask: Tensor | None = None,
                last_only: bool = False) -> Tensor:
        """Compute the logits of the next token.

        Args:
            token_ids: (b, t) integers. With a cache, only the tokens that it does not hold yet.
            cache: keys and values of past tokens; it is extended by these t.
            attention_mask: (b, s), True (or 1) for real tokens, False (or 0) for padding, covering past and new tokens;
                positions are counted from the first real token. Padding is on the left: each text ends in a real
                token. Without a mask all tokens are real.
            last_only: compute only the last position's logits, which is all that generation needs.

        Returns:
            Logits, (b, t, vocab_size), or (b, 1, vocab_size) with `last_only`, in the dtype of the weights.

        Raises:
            InputError: if token_ids or attention_mask have the wrong shape or type or are on another device, ids are
                not in the vocabulary, the mask does not end in real tokens, or the cache is of another model, batch,
                number format or device. On a GPU within inference mode what ids and mask hold is not looked at, since
                each step of a generation would wait for the one before; `generate_tokens` looks at them before its
                first step.
            ContextLengthError: if past and new tokens do not fit into the context or the cache.
        """
        check_token_ids(token_ids)
        if not torch.compiler.is_compiling():
            self._check_devices(token_ids, attention_mask)
        t = token_ids.shape[1]
        readable = not token_ids.is_meta and not torch.compiler.is_compiling() and (
            token_ids.device.type == "cpu" or not torch.is_inference_mode_enabled())
        if readable:
            check_vocabulary(token_ids, self.config.vocab_size)
        if cache is not None:
            check_cache(cache, self.config)
        past = cache.length if cache is not None else 0
        longest = min(self.config.max_position_embeddings, cache.max_length if cache is not None else past + t)
        if past + t > longest:
            raise ContextLengthError(gettext("{past} tokens do not fit: the longest possible here is "
                                             "{longest}. Shorten the prompt, ask for fewer new tokens, or use "
                                             "a larger cache.").format(past=past + t, longest=longest))
        if attention_mask is not None:
            check_mask(attention_mask, (token_ids.shape[0], past + t), readable)
        s = cache.reserve(t) if cache is not None else t
        positions, mask = _positions_and_mask(token_ids, past, s, attention_mask)
        with self.fast_on_cpu(token_ids.numel()):
            logits = self.compute(token_ids, positions, mask, cache, last_only)
        if cache is not None:
            cache.advance(t)
        return logits

    @contextmanager
    def fast_on_cpu(self, tokens: int) -> Iterator[None]:
        """Memory at hand, threads and a routine for single vectors, as they suit this model and so many tokens."""
        if self.device.type != "cpu" or torch.compiler.is_compiling() or torch.is_grad_enabled():
            yield
            return
        host_memory.keep_what_is_freed()
        # What is compiled is compiled for a number of threads, so that does not depend on the tokens.
        threads = thread_count(_layer_elements(self.config) * self.dtype.itemsize, 1 if self.compiled else tokens)
        with computing_with(threads):
            own = (tokens == 1 and not self.compiled and self.quantization is None
                   and fastest_routine(self.dtype) == "PyTorch")
            with vector_products(self.device) if own else nullcontext():
                yield

    def _check_devices(self, token_ids: Tensor, attention_mask: Tensor | None) -> None:
        for name, tensor in (("token_ids", token_ids), ("attention_mask", attention_mask)):
            if isinstance(tensor, Tensor) and tensor.device != self.device:
                raise InputError(gettext("{name} is on {device} and the model on {model_device}: move it with {name}"
                                         ".to(model.device).").format(
                    name=name, device=tensor.device, model_device=self.device))

    def compute(self, token_ids: Tensor, positions: Tensor, mask: Tensor | None, cache: Cache | None,
                last_only: bool) -> Tensor:
        """The arithmetic of `forward` and nothing else: the part that is worth compiling."""
        hidden = self.model(token_ids, positions, mask, cache)  # (b, t, d)
        return self.lm_head(hidden[:, -1:] if last_only else hidden)


EMBEDDING = "model.embed_tokens.weight"
"""Name of the one weight of which a pass looks rows up; a tied output layer is this matrix, too."""


@functools.lru_cache
def _layer_elements(config: Qwen3Config) -> int:
    """Numbers in the weights of one layer."""
    shapes = weight_shapes(config)
    return sum(math.prod(shape) for name, shape in shapes.items() if name.startswith("model.layers.0."))


@functools.lru_cache
def weight_shapes(config: Qwen3Config) -> Mapping[str, tuple[int, ...]]:
    """Name of each weight of a model, as in a checkpoint -> its shape. A tied output layer is not named again.

    Whatever counts, divides or adapts weights asks here. The answer is read off the modules above, built without
    memory, so it cannot differ from the model.
    """
    with torch.device("meta"):
        model = Qwen3Model(config)
    return MappingProxyType({name: tuple(parameter.shape) for name, parameter in model.named_parameters()})


def check_token_ids(token_ids: Tensor) -> None:
    """Make sure that these are token ids, (b, t), at least one of them; whose vocabulary is not asked.

    Raises:
        InputError: if they are not.
    """
    if not isinstance(token_ids, Tensor):
        raise InputError(gettext("token_ids is a {kind}: give a tensor of shape (batch, tokens), such as "
                                 "torch.tensor([tokenizer.encode(text)]).").format(kind=type(token_ids).__name__))
    if token_ids.dim() != 2 or token_ids.numel() == 0:
        raise InputError(gettext("token_ids has shape {shape}: the model expects (batch, tokens) with at least one "
                                 "token; for a single prompt use torch.tensor([ids]) or unsqueeze(0).").format(
            shape=tuple(token_ids.shape)))
    if token_ids.dtype not in (torch.int64, torch.int32):
        raise InputError(gettext("Token ids are integers of 64 or 32 bits, and these are {dtype}: use "
                                 "dtype=torch.long.").format(dtype=token_ids.dtype))


def check_vocabulary(token_ids: Tensor | Sequence[int], vocab_size: int) -> None:
    """Make sure that all of some ids, at least one, are in a vocabulary. For a tensor on a GPU it waits for the GPU.

    Raises:
        InputError: if one is not.
    """
    if isinstance(token_ids, Tensor) and token_ids.is_meta:
        raise InputError("token_ids is on the device meta, where a tensor holds nothing: make it on another.")
    if not isinstance(token_ids, Tensor):
        low, high = min(token_ids), max(token_ids)
    elif token_ids.numel() == 1:  # in each step of a generation, so it is not worth an operation on tensors
        low = high = int(token_ids)
    else:
        low, high = int(token_ids.min()), int(token_ids.max())
    if low < 0 or high >= vocab_size:
        raise InputError(gettext("Token id {token_id} is not in the vocabulary of {vocab_size}: encode the text with "
                                 "this model's own tokenizer.").format(
            token_id=low if low < 0 else high, vocab_size=vocab_size))


def check_mask(attention_mask: Tensor, shape: tuple[int, int], readable: bool = True) -> None:
    """Make sure that an attention mask says which tokens are real, and that each text ends in a real one.

    Args:
        attention_mask: the mask.
        shape: (b, s), what it must cover.
        readable: False looks at its shape alone, not at what it holds.

    Raises:
        InputError: if it does not.
    """
    if not isinstance(attention_mask, Tensor):
        raise InputError(gettext("attention_mask is a {kind}: give a tensor of shape {shape}.").format(
            kind=type(attention_mask).__name__, shape=shape))
    if attention_mask.shape != shape:
        raise InputError(gettext("attention_mask has shape {shape}: it must be "
                                 "{wanted}, one entry for each token, those in the "
                                 "cache included.").format(shape=tuple(attention_mask.shape), wanted=shape))
    if not readable:
        return
    if attention_mask.dtype != torch.bool and not bool(((attention_mask == 0) | (attention_mask == 1)).all()):
        raise InputError("attention_mask holds other numbers than 0 and 1: give 1 or True for real tokens, 0 or False "
                         "for padding.")
    if not bool(attention_mask[:, -1].all()):
        raise InputError("attention_mask ends in padding, where the text is to go on: put the padding on the left, as "
                         "course_utils.batching.pad_left does.")


def _positions_and_mask(token_ids: Tensor, past: int, s: int,
                        attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Positions, (b or 1, t), and the mask of who may look at whom, (b or 1, 1, t, s), or None if none is needed.

    s counts past tokens, new ones, and what a cache may show behind them, which nobody may look at.
    """
    t = token_ids.shape[1]
    end = past + t
    slots = torch.arange(s, device=token_ids.device)
    new = slots[past:end]
    if attention_mask is None:
        if end == s and (past == 0 or t == 1):
            return new[None], None
        return new[None], (slots[None, :] <= new[:, None])[None, None]
    real = F.pad(attention_mask.bool(), (0, s - end))
    positions = (real.long().cumsum(dim=1) - 1).clamp(min=0)[:, past:end]
    causal = slots[None, :] <= new[:, None]  # (t, s)
    # A padding token looks at itself alone: a row without any allowed key would turn into NaN.
    itself = slots[None, :] == new[:, None]
    return positions, ((causal & real[:, None, :]) | itself)[:, None]


def _initialize(module: nn.Module) -> None:
    """Small normal weights, as GPT-2 and its successors start with."""
    if isinstance(module, (nn.Linear, nn.Embedding)) and not module.weight.is_meta:
        nn.init.normal_(module.weight, std=0.02)
