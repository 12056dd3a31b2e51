"""The step of a generation as one call of C: all layers at once, for a few new tokens or a short prompt.

In PyTorch, compiled or not, a step starts some hundred small programs from Python. Where it reads its weights within
some milliseconds, that takes about as long again. Here the addresses of all weights are written down once, and
`kernels/layers.c` goes through them. Numbers on their way through the layers are float32 here, whatever the format of
the weights, so a model in bfloat16 gives logits that differ from PyTorch's in their last digits.
"""

from __future__ import annotations

import copy
import ctypes
import functools
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils import kernels
from course_utils.compilation import with_shared_weights
from course_utils.config import Qwen3Config
from course_utils.kernels import C_FORMATS, Kernel, described
from course_utils.kernels.build import BuildError
from course_utils.kv_cache import Cache, KVCache, StaticKVCache
from course_utils.language import gettext
from course_utils.linear import Linear
from course_utils.quantization import Int4Linear, Int8Linear, quantize
from course_utils.qwen3 import DecoderLayer, Qwen3Model

MOST_NEW_TOKENS = 16  # of all texts together
# More than eight vectors PyTorch multiplies faster in bfloat16 than the kernel does. In smaller layers than these, such
# as those of Qwen3-0.6B, that gains less than starting all its programs takes.
MOST_IN_LARGE_LAYERS, LARGE_LAYER = 8, 1 << 25
_SMALL = Qwen3Config(vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, head_dim=32, max_position_embeddings=8)  # to try it on
_DTYPES = (torch.float32, torch.bfloat16)  # of keys and values that C can write


def steps_problem() -> str | None:
    """Compile all kernels and try a step on a small model. The first call takes some seconds, later ones remember it.

    Returns:
        None if steps in C work here, else one sentence that says what is missing and that everything runs without them.
    """
    return next(filter(None, map(kernels.problem, kernels.KERNELS)), None) or _trial_problem()


@functools.cache
def _trial_problem() -> str | None:
    """Why C does not go through layers here: it cannot be compiled, or gives another result than PyTorch."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        model = Qwen3Model(_SMALL)
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5)
        model = quantize(model, "int8")
        token_ids = torch.arange(8).view(2, 4)
        caches = [StaticKVCache(_SMALL, 6, batch_size=2) for _ in range(2)]
        expected = [model(tokens, caches[0]) for tokens in token_ids.split(2, dim=1)][1]
        model(token_ids[:, :2], caches[1])
        positions = torch.tensor([[2, 3]])
        mask = torch.arange(4) <= positions[..., None]
        try:
            logits = _Steps(model).compute(token_ids[:, 2:], positions, mask[None], caches[1], last_only=False)
        except BuildError as error:
            return kernels.not_in_use(error)
    if not torch.allclose(logits, expected, atol=0.02 * float(expected.abs().max())):
        return kernels.not_in_use(BuildError("a trial gave a wrong result"))
    return None


def native_problem(model: Qwen3Model) -> str | None:
    """Whether steps of a model can be left to C. The first call takes a second, later ones remember it.

    Returns:
        None if they can, else one sentence that says what is missing and that everything runs without it.
    """
    sizes = (model.config.hidden_size, model.config.intermediate_size, model.config.head_dim)
    if model.device.type != "cpu" or model.dtype not in _DTYPES:
        reason = gettext("it computes in {dtype} on {device}").format(dtype=model.dtype, device=model.device)
    elif any(size % kernels.HEAD_STEP for size in sizes):
        reason = gettext("its sizes are not multiples of {step}").format(step=kernels.HEAD_STEP)
    elif model.config.head_dim > kernels.HEAD_MOST:
        reason = gettext("its heads have more than {most} numbers").format(most=kernels.HEAD_MOST)
    elif not all(_are_for_c(linears) for layer in _layers(model) for linears in _linears(layer)):
        if model.quantization is not None and steps_problem() is not None:  # so they are in another order
            return steps_problem()
        reason = gettext("its weights are neither bfloat16 nor integers of one kind")
    else:
        return steps_problem()
    return gettext("The steps of this model are not left to C ({reason}), so PyTorch does their work.").format(
        reason=reason)


def native_model(model: Qwen3Model) -> Qwen3Model:
    """A model with the same weights whose steps are single calls of C, which need no compilation by PyTorch.

    A step is a pass over up to 16 new tokens, those of all texts together, with a cache and without gradients: of
    generating, of speculation, of small batches, of a short prompt. (In bfloat16 over up to 8, in models larger than
    Qwen3-0.6B.) Everything else, such as a longer prompt, is left to the given model, compiled or not. Hooks on its
    layers are not called in a step.

    Args:
        model: in bfloat16, or quantized; it is left as it is. What is changed within its weights afterwards counts.

    Returns:
        The model with steps in C, or `model` itself where that does not work (`native_problem` says why).
    """
    if native_problem(model) is not None:
        return model
    base = model if model.compiled else with_shared_weights(model)
    native, steps = copy.copy(base), _Steps(base)

    def compute(token_ids: Tensor, positions: Tensor, mask: Tensor | None, cache: Cache | None,
                last_only: bool) -> Tensor:
        if isinstance(cache, (KVCache, StaticKVCache)) and steps.fit(token_ids, cache):
            return steps.compute(token_ids, positions, mask, cache, last_only)
        with base.fast_on_cpu(token_ids.numel()):
            return base.compute(token_ids, positions, mask, cache, last_only)

    native.compute = compute  # type: ignore[method-assign]
    native.compiled = True
    return native


class _Steps:
    """What C has to know of a model, as `layers.c` describes it, and calling it."""

    def __init__(self, model: Qwen3Model) -> None:
        self._model = model
        self._kept: list[Any] = []  # what addresses lead to
        self._layers = self._address(b"".join(map(self._layer, _layers(model))))
        self._norm = self._address(model.model.norm.weight)
        self._most = _most_new_tokens(model)

    def fit(self, token_ids: Tensor, cache: Cache) -> bool:
        """Whether this is a step, and of this model: errors are the model's to raise."""
        config, tensors = self._model.config, _tensors(cache)
        if isinstance(cache, StaticKVCache):
            tensors = tensors[:1]  # the others are like it
        elif tensors and len(tensors) != 2 * config.num_hidden_layers:
            return False
        wanted = (token_ids.shape[0], config.num_key_value_heads, config.head_dim, self._model.dtype)
        return (token_ids.numel() <= self._most and not torch.is_grad_enabled()
                and all((*x.shape[:2], x.shape[3], x.dtype) == wanted and x.shape[2] >= cache.length
                        and x.device.type == "cpu" for x in tensors))

    def compute(self, token_ids: Tensor, positions: Tensor, mask: Tensor | None, cache: Cache,
                last_only: bool) -> Tensor:
        """What `Qwen3Model.compute` does."""
        model, config, (b, t) = self._model, self._model.config, token_ids.shape
        x = model.model.embed_tokens(token_ids).float().contiguous()  # (b, t, d)
        cosines, sines = (each.expand(b, 1, t, -1).contiguous() for each in model.model.rotary_emb(positions))
        if mask is None and t > 1:  # a text's first tokens
            mask = torch.ones(t, t, dtype=torch.bool).tril()
        seen = None if mask is None else mask.expand(b, 1, t, -1).contiguous()
        tensors = _tensors(cache)
        if isinstance(cache, KVCache):  # copies, with room at their ends
            tensors = [F.pad(x[:, :, :cache.length], (0, 0, 0, t)) for x in tensors] or [
                torch.empty(b, config.num_key_value_heads, t, config.head_dim, dtype=model.dtype)
                for _ in range(2 * config.num_hidden_layers)]
        caches = ctypes.create_string_buffer(struct.pack(f"={len(tensors)}q", *[x.data_ptr() for x in tensors]))
        step = struct.pack(
            "=17qd4q", kernels.team() or 0, torch.get_num_threads(), _address_of("attention"), self._layers,
            ctypes.addressof(caches), self._norm, C_FORMATS[model.dtype], len(cache.layers), b, t, cache.length,
            tensors[0].shape[2], config.hidden_size, config.intermediate_size, config.num_attention_heads,
            config.num_key_value_heads, config.head_dim, config.rms_norm_eps, cosines.data_ptr(), sines.data_ptr(),
            0 if seen is None else seen.data_ptr(), x.data_ptr())
        if kernels.current_function("layers")(step):
            raise MemoryError("There is not enough memory for a step: give fewer tokens at once.")
        if isinstance(cache, KVCache):
            for layer, pair in zip(cache.layers, zip(tensors[::2], tensors[1::2])):
                layer.held = pair
        hidden = (x[:, -1:] if last_only else x).to(model.dtype)
        if type(model.lm_head) is Linear:
            logits, = kernels.bfloat16_products(hidden.flatten(0, 1), [model.lm_head.weight])
            return logits.view(*hidden.shape[:2], -1)
        return model.lm_head(hidden)

    def _layer(self, layer: DecoderLayer) -> bytes:
        attention = layer.self_attn
        norms = (layer.input_layernorm, attention.q_norm, attention.k_norm, layer.post_attention_layernorm)
        return b"".join((*map(self._linear, _linears(layer)),
                         struct.pack("=4q", *(self._address(norm.weight) for norm in norms))))

    def _linear(self, linears: Sequence[nn.Module]) -> bytes:
        matrices = []
        for linear in map(_for_c, linears):
            assert linear is not None  # `native_problem` has asked
            kernel, inputs, weight, scales = linear
            self._kept += [weight.detach(), scales]
            matrices.append(described(weight, scales))
        return struct.pack("=4q", _address_of(kernel), self._address(b"".join(matrices)), len(matrices), inputs)

    def _address(self, content: Tensor | bytes) -> int:
        """Where something lies that stays there."""
        if isinstance(content, Tensor):
            self._kept.append(content.detach())
            return content.data_ptr()
        self._kept.append(ctypes.create_string_buffer(content, len(content)))
        return ctypes.addressof(self._kept[-1])


def _most_new_tokens(model: Qwen3Model) -> int:
    """How many tokens a pass may be over to be a step."""
    size = sum(weight.nbytes for linears in _linears(_layers(model)[0]) for linear in linears
               for weight in linear.parameters())
    large = model.quantization is None and size > LARGE_LAYER
    return MOST_IN_LARGE_LAYERS if large else MOST_NEW_TOKENS


def _tensors(cache: Cache) -> list[Tensor]:
    """Keys and values of each layer in turn, as the cache has them."""
    if isinstance(cache, StaticKVCache):
        return [x for layer in cache.layers for x in (layer.keys, layer.values)]
    return [x for pair in cache.held for x in pair]


def _address_of(kernel: Kernel) -> int:
    address = ctypes.cast(kernels.current_function(kernel), ctypes.c_void_p).value
    assert address is not None
    return address


def _layers(model: Qwen3Model) -> list[DecoderLayer]:
    return [layer for layer in model.model.layers if isinstance(layer, DecoderLayer)]


def _linears(layer: DecoderLayer) -> tuple[tuple[nn.Module, ...], ...]:
    """The matrices of a layer, those together that meet the same vectors."""
    attention, mlp = layer.self_attn, layer.mlp
    return ((attention.q_proj, attention.k_proj, attention.v_proj), (attention.o_proj,),
            (mlp.gate_proj, mlp.up_proj), (mlp.down_proj,))


class _ForC(NamedTuple):
    """A linear layer as C multiplies with it."""

    kernel: Kernel
    inputs: int
    weight: Tensor
    scales: Tensor | None


def _for_c(linear: nn.Module) -> _ForC | None:
    """None if no kernel is made for it."""
    if type(linear) is Linear and linear.weight.dtype == torch.bfloat16:
        return _ForC("bfloat16", linear.in_features, linear.weight, None)
    if type(linear) is Int8Linear and linear.for_kernel(linear.weight):
        return _ForC("int8", linear.shape[1], linear.weight, linear.scale)
    if type(linear) is Int4Linear and linear.for_kernel(linear.weight):
        return _ForC("int4", 2 * linear.weight.shape[1], linear.weight, linear.scale_and_offset)
    return None


def _are_for_c(linears: Sequence[nn.Module]) -> bool:
    found = [_for_c(linear) for linear in linears]
    return len({each and each.kernel for each in found}) == 1 and all(
        each is not None and each.weight.is_contiguous() for each in found)
