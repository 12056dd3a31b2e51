"""Key-value caches: what attention has already computed about past tokens, kept instead of recomputed.

A cache owns its own position. The model asks it how many tokens it holds (`length`), hands each layer's new
keys and values to `update`, and calls `advance` once per forward pass, when all layers are done. Until then
nothing counts, so a pass that was interrupted halfway leaves the cache as it was.

Two classes with the same methods: `KVCache` grows by concatenation, `StaticKVCache` reserves its memory once.
"""

from __future__ import annotations

from typing import Union

import torch
from torch import Tensor

from course_utils.config import Qwen3Config
from course_utils.errors import ContextLengthError, InputError


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
            InputError: if `length` is negative or more than the cache holds.
        """
        if not 0 <= length <= self.length:
            raise InputError(f"Cannot cut a cache of {self.length} tokens to {length}: "
                             f"give a length from 0 to {self.length}.")
        self.length = length


class KVCache(_Position):
    """A cache that grows: each step concatenates the new keys and values to the old ones.

    Simple and never larger than needed, but every step copies everything that is already there.

    Args:
        config: of the model that will use the cache; gives the number of layers and the longest context.
    """

    def __init__(self, config: Qwen3Config) -> None:
        self.max_length = config.max_position_embeddings
        self.length = 0
        self._layers: list[tuple[Tensor, Tensor] | None] = [None] * config.num_hidden_layers

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add one layer's new keys and values; return all it holds.

        Args:
            layer: index of the layer, from 0.
            keys: (batch, key-value heads, new tokens, head_dim), already rotated.
            values: the same shape.

        Returns:
            Keys and values of all tokens, past and new: (batch, key-value heads, length + new, head_dim).
        """
        past = self._layers[layer]
        if past is not None and self.length > 0:
            # Cutting to `length` drops what an interrupted pass may have left behind.
            keys = torch.cat((past[0][:, :, : self.length], keys), dim=2)
            values = torch.cat((past[1][:, :, : self.length], values), dim=2)
        self._layers[layer] = (keys, values)
        return keys, values

    def truncate(self, length: int) -> None:
        """Forget all tokens from position `length` on."""
        super().truncate(length)
        self._layers = [pair and (pair[0][:, :, :length], pair[1][:, :, :length]) for pair in self._layers]

    def copy(self) -> KVCache:
        """A cache with the same content that can be continued on its own.

        The tensors are shared, which is safe: this class never writes into a tensor it holds.
        """
        other = object.__new__(KVCache)
        other.max_length, other.length, other._layers = self.max_length, self.length, list(self._layers)
        return other

    @property
    def num_bytes(self) -> int:
        """Memory of the keys and values held, in bytes."""
        return sum(t.numel() * t.element_size() for pair in self._layers if pair for t in pair)


class StaticKVCache(_Position):
    """A cache of fixed size: memory for `max_length` tokens is reserved at once and written in place.

    Nothing is copied per step and addresses never change, at the price of paying for the whole length up front.

    Args:
        config: of the model that will use the cache.
        max_length: the most tokens it can hold, prompt included.
        batch_size: number of sequences side by side.
        device, dtype: as of the model's weights.

    Raises:
        ContextLengthError: if `max_length` is more than the model's context.
    """

    def __init__(self, config: Qwen3Config, max_length: int, batch_size: int = 1,
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        if not 0 < max_length <= config.max_position_embeddings:
            raise ContextLengthError(f"A cache for {max_length} tokens does not fit this model: "
                                     f"choose max_length from 1 to {config.max_position_embeddings}.")
        shape = (2, batch_size, config.num_key_value_heads, max_length, config.head_dim)
        self.max_length = max_length
        self.length = 0
        self._layers = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.num_hidden_layers)]

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write one layer's new keys and values behind the old ones; return views of all (see `KVCache.update`)."""
        end = self.length + keys.shape[2]
        store = self._layers[layer]
        store[0, :, :, self.length:end] = keys
        store[1, :, :, self.length:end] = values
        return store[0, :, :, :end], store[1, :, :, :end]

    def copy(self) -> StaticKVCache:
        """A cache with the same content and memory of its own."""
        other = object.__new__(StaticKVCache)
        other.max_length, other.length = self.max_length, self.length
        other._layers = [store.clone() for store in self._layers]
        return other

    @property
    def num_bytes(self) -> int:
        """Memory reserved, in bytes, whether used yet or not."""
        return sum(store.numel() * store.element_size() for store in self._layers)


Cache = Union[KVCache, StaticKVCache]
