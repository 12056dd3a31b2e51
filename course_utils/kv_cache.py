"""Key-value caches: what attention has already computed about past tokens, kept instead of recomputed.

A cache owns its own position. The model asks it how many tokens it holds (`length`) and for room for the new ones
(`reserve`), each layer hands its new keys and values to `update` of its own part (one of `layers`), and the model
calls `advance` once per forward pass, when all layers are done. Until then nothing counts, so a pass that was
interrupted halfway leaves the cache as it was.

Two classes with the same methods: `KVCache` grows by concatenation, `StaticKVCache` reserves its memory once.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from course_utils.config import Qwen3Config
from course_utils.device import get_device
from course_utils.errors import ContextLengthError, InputError
from course_utils.language import gettext
from course_utils.number import check_dtype, require_whole_number, whole_number
from course_utils.torch_internals import mark_static_address


class _Position:
    """What both caches have: how many tokens they hold, and how many they can."""

    length: int
    max_length: int

    def advance(self, num_tokens: int) -> None:
        """Count `num_tokens` more tokens as held; the model calls this when every layer has been updated."""
        self.length += num_tokens

    def truncate(self, length: int) -> None:
        """Forget all tokens from position `length` on.

        Raises:
            InputError: if `length` is negative, more than the cache holds, or no whole number.
        """
        number = whole_number(length)
        if number is None or not 0 <= number <= self.length:
            raise InputError(gettext("Cannot cut a cache of {length} tokens to {wanted!r}: give a "
                                     "length from 0 to {length}.").format(length=self.length, wanted=length))
        self.length = number


class GrowingLayer:
    """One layer's part of a `KVCache`."""

    def __init__(self) -> None:
        self.held: tuple[Tensor, Tensor] | None = None

    def update(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add new keys and values; return all, past and new.

        Args:
            keys: (batch, key-value heads, new tokens, head_dim), already rotated.
            values: the same shape.

        Returns:
            Keys and values: (batch, key-value heads, past + new tokens, head_dim).

        Raises:
            InputError: if those held are of another number of sequences, another model, number format or device.
        """
        if self.held is not None:
            _check_new(keys, self.held[0])
            keys, values = torch.cat((self.held[0], keys), dim=2), torch.cat((self.held[1], values), dim=2)
        self.held = keys, values
        return keys, values

    def cut(self, length: int) -> None:
        """Keep the first `length` tokens at most."""
        if self.held is not None and self.held[0].shape[2] > length:
            self.held = (self.held[0][:, :, :length], self.held[1][:, :, :length]) if length else None


class KVCache(_Position):
    """A cache that grows: each step concatenates the new keys and values to the old ones.

    Simple and never larger than needed, but every step copies everything that is already there.

    Args:
        config: of the model that will use the cache; gives the number of layers and the longest context.

    Raises:
        InputError: if it is no configuration.
    """

    def __init__(self, config: Qwen3Config) -> None:
        check_config(config)
        self.max_length = config.max_position_embeddings
        self.length = 0
        self.layers = [GrowingLayer() for _ in range(config.num_hidden_layers)]

    @classmethod
    def holding(cls, config: Qwen3Config, held: Sequence[tuple[Tensor, Tensor]]) -> KVCache:
        """A cache that starts with given keys and values, which are shared and not copied.

        Args:
            config: of the model that computed them.
            held: for each layer keys and values, each (batch, key-value heads, tokens, head_dim).

        Raises:
            InputError: if these are no keys and values, or their shapes are not those of the model, or differ.
        """
        check_config(config)
        if not isinstance(held, Sequence) or not all(map(is_keys_and_values, held)):
            raise InputError("These are no keys and values: give a list with a pair of tensors for each layer, such as "
                             "the `held` of another cache.")
        shapes = {tensor.shape for pair in held for tensor in pair}
        shape = shapes.pop() if len(shapes) == 1 else torch.Size()
        fits = len(shape) == 4 and (shape[1], shape[3]) == (config.num_key_value_heads, config.head_dim)
        if len(held) != config.num_hidden_layers or not fits or not 0 < shape[2] <= config.max_position_embeddings:
            raise InputError(gettext("These keys and values, of {count} layers, are not those of this model: it has "
                                     "{num_hidden_layers} layers, each (batch, {num_key_value_heads}, tokens, "
                                     "{head_dim}) with the same number of tokens.").format(
                count=len(held), num_hidden_layers=config.num_hidden_layers,
                num_key_value_heads=config.num_key_value_heads, head_dim=config.head_dim))
        cache = cls(config)
        cache.length = shape[2]
        for layer, pair in zip(cache.layers, held):
            layer.held = pair
        return cache

    @property
    def held(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each layer, each (batch, key-value heads, tokens, head_dim); empty for an empty cache."""
        return [layer.held for layer in self.layers if layer.held is not None]

    def reserve(self, num_tokens: int) -> int:
        """Get ready for a pass with `num_tokens` new tokens; return for how many tokens `update` will give keys."""
        for layer in self.layers:
            layer.cut(self.length)  # drops what an interrupted pass may have left behind
        return self.length + num_tokens

    def truncate(self, length: int) -> None:
        """Forget all tokens from position `length` on."""
        super().truncate(length)
        for layer in self.layers:
            layer.cut(self.length)

    def copy(self) -> KVCache:
        """A cache with the same content that can be continued on its own.

        The tensors are shared, which is safe: this class never writes into a tensor it holds.
        """
        other = copy.copy(self)
        other.layers = [copy.copy(layer) for layer in self.layers]
        return other

    @property
    def num_bytes(self) -> int:
        """Memory of the keys and values held, in bytes."""
        return sum(tensor.nbytes for pair in self.held for tensor in pair)


class StaticLayer:
    """One layer's part of a `StaticKVCache`: keys and values, and where the next ones go."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values  # (b, g, max_length, k)
        self.slots: Tensor
        self.shown = 0

    def update(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write new keys and values after the old ones; return views of all (see `GrowingLayer.update`).

        Raises:
            InputError: if the cache was made for another number of sequences, another model, number format or device,
                or if gradients are asked for.
        """
        _check_new(keys, self.keys)
        if keys.requires_grad or values.requires_grad:
            raise InputError("A StaticKVCache is written in place, and no gradient can pass through that: call the "
                             "model within torch.no_grad() or torch.inference_mode(), or use a KVCache.")
        self.keys[:, :, self.slots] = keys
        self.values[:, :, self.slots] = values
        return self.keys[:, :, : self.shown], self.values[:, :, : self.shown]


class StaticKVCache(_Position):
    """A cache of fixed size: memory for `max_length` tokens is reserved at once and written in place.

    Nothing is copied per step and addresses never change, at the price of paying for the whole length up front.
    On a CPU attention is shown the slots in use and no others, since it would take its time for each. On an NVIDIA
    GPU a single new token is shown all of them, and the model masks the empty ones: with the same shapes in every
    step, the step can be recorded once and replayed (a CUDA graph). For another text, `truncate(0)` and use it
    again: a recording is bound to the cache's addresses.

    Args:
        config: of the model that will use the cache.
        max_length: the most tokens it can hold, prompt included.
        batch_size: number of sequences side by side.
        device, dtype: as of the model's weights.

    Raises:
        InputError: if the first argument is no configuration, batch_size no whole number from 1 on, or this machine has
            no such device or number format.
        ContextLengthError: if `max_length` is no whole number from 1 up to the model's context.
    """

    def __init__(self, config: Qwen3Config, max_length: int, batch_size: int = 1,
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        check_config(config)
        batch_size, length = require_whole_number("batch_size", batch_size, 1), whole_number(max_length)
        if length is None or not 0 < length <= config.max_position_embeddings:
            raise ContextLengthError(gettext("A cache for {max_length!r} tokens does not fit this model: choose "
                                             "max_length from 1 to {max_position_embeddings}.").format(
                max_length=max_length, max_position_embeddings=config.max_position_embeddings))
        check_dtype(dtype)
        device = None if device is None else get_device(device)
        self.max_length = length
        self.length = 0
        shape = (2, batch_size, config.num_key_value_heads, length, config.head_dim)
        with torch.inference_mode(False):  # what is made within inference mode can be written to nowhere else
            self._fill([torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.num_hidden_layers)])

    def _fill(self, stores: list[Tensor]) -> None:
        self.layers = [StaticLayer(keys, values) for keys, values in stores]
        self._whole = stores[0].device.type == "cuda"
        if self._whole:
            for layer in self.layers:
                mark_static_address(layer.keys)
                mark_static_address(layer.values)

    def reserve(self, num_tokens: int) -> int:
        """Get ready for a pass with `num_tokens` new tokens; return for how many slots `update` will give keys."""
        end = self.length + num_tokens
        # Where to write is a tensor, so that a recorded step can be told another place.
        slots = torch.arange(self.length, end, device=self.layers[0].keys.device)
        shown = self.max_length if self._whole and num_tokens == 1 else end
        for layer in self.layers:
            layer.slots, layer.shown = slots, shown
        return shown

    def copy(self) -> StaticKVCache:
        """A cache with the same content and memory of its own."""
        other = copy.copy(self)
        with torch.inference_mode(False):
            other._fill([torch.stack((layer.keys, layer.values)) for layer in self.layers])
        return other

    @property
    def num_bytes(self) -> int:
        """Memory reserved, in bytes, whether used yet or not."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers)


Cache = KVCache | StaticKVCache
LayerCache = GrowingLayer | StaticLayer


def check_cache(cache: object, config: Qwen3Config) -> None:
    """Make sure that a model can use a cache, by what can be told before the first keys are there (see `update`).

    Args:
        cache: one of the two classes here, or one of your own with the same methods.
        config: of the model.

    Raises:
        InputError: if it is no cache, or has another number of layers than the model.
    """
    layers = getattr(cache, "layers", None)
    if layers is None:
        raise InputError(gettext("The cache is a {kind}: give a KVCache(model.config), or a "
                                 "StaticKVCache.").format(kind=type(cache).__name__))
    if len(layers) != config.num_hidden_layers:
        raise InputError(gettext("The cache has {count} layers and the model {num_hidden_layers}: make one with this "
                                 "model's config.").format(
            count=len(layers), num_hidden_layers=config.num_hidden_layers))


def is_keys_and_values(value: object) -> bool:
    """Whether this is a pair of tensors, as a layer of a cache holds them."""
    return isinstance(value, Sequence) and len(value) == 2 and all(isinstance(tensor, Tensor) for tensor in value)


def check_config(config: object) -> None:
    """Make sure that a cache is made from a configuration.

    Raises:
        InputError: if it is none.
    """
    if not isinstance(config, Qwen3Config):
        raise InputError(gettext("A cache is made from a model's configuration, and this is a "
                                 "{kind}: give model.config.").format(kind=type(config).__name__))


def _check_new(keys: Tensor, held: Tensor) -> None:
    """Make sure that new keys can go with those of a cache, (b, g, tokens, k) both."""
    fits = keys.dtype == held.dtype and keys.device == held.device
    for axis in (0, 1, 3):  # to a compiler this also says that only the length can change
        fits = fits and keys.shape[axis] == held.shape[axis]
    if not fits:
        raise InputError(gettext("Keys of shape {shape} in {dtype} on {device} do not fit into a cache of "
                                 "shape {given_shape} in {given_dtype} on {given_device}: make one with this "
                                 "model's config and, for a StaticKVCache, its dtype, its device and a "
                                 "batch_size of {batch_size}.").format(
            shape=tuple(keys.shape), dtype=keys.dtype, device=keys.device, given_shape=tuple(held.shape),
            given_dtype=held.dtype, given_device=held.device, batch_size=keys.shape[0]))
