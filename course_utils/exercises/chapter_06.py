"""Exercises of chapter 6, key-value caching."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_utils.config import Qwen3Config
from course_utils.exercises.exercise import Exercise
from course_utils.generation import generate_text_basic_cache
from course_utils.kv_cache import Cache, KVCache, StaticKVCache
from course_utils.loading import random_model
from course_utils.qwen3 import Qwen3Model

_SMALL = Qwen3Config(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                     num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=128)


def generate_with_cache(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int) -> Tensor:
    cache = KVCache(model.config)
    inputs, new_tokens = token_ids, []
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            logits = model(inputs, cache=cache)
        inputs = logits[:, -1].argmax(dim=-1, keepdim=True)
        new_tokens.append(inputs)
    return torch.cat(new_tokens, dim=1)


def _verify_generate(answer: Callable[..., Any]) -> str | None:
    model = random_model(_SMALL, dtype=torch.float32, device="cpu")
    prompt = torch.tensor([[3, 14, 15, 92, 65], [35, 89, 79, 32, 38]])
    expected = generate_text_basic_cache(model, prompt, 6)
    passes: list[tuple[int, Cache | None]] = []

    def watch(module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        token_ids = args[0] if args else kwargs["token_ids"]
        passes.append((token_ids.shape[1], args[1] if len(args) > 1 else kwargs.get("cache")))

    model.register_forward_pre_hook(watch, with_kwargs=True)
    result = answer(model, prompt, 6)
    if not isinstance(result, Tensor):
        return (f"It returns {type(result).__name__}. Join the new tokens with torch.cat(..., dim=1) and "
                "return that tensor.")
    widths, caches = [width for width, _ in passes], [cache for _, cache in passes]
    if any(cache is None for cache in caches):
        return ("The model is called without a cache, so it computes everything again. "
                "Call model(inputs, cache=cache).")
    if any(cache is not caches[0] for cache in caches):
        return "There is a new cache at each step, and a new cache knows nothing. Make one before the loop."
    if any(width != 1 for width in widths[1:]):
        return ("After the first step the model is given more than one token per row. The cache holds the "
                "others: give it the newest token alone.")
    if widths and widths[0] != 5:
        return "The first step is not given the whole prompt. That is the prefill: it fills the cache."
    if len(widths) != 6:
        return (f"6 new tokens took {len(widths)} forward passes. The last token needs no pass of its own: "
                "6 are enough.")
    if result.shape == (2, 11) and torch.equal(result[:, :5], prompt):
        return "The prompt is returned too. Return the new tokens alone."
    if result.shape != (2, 6):
        return f"For 2 prompts and 6 new tokens the result has shape {tuple(result.shape)}, not (2, 6)."
    if not torch.equal(result, expected):
        return ("The passes are right, but the tokens are not the likeliest ones. "
                "Take argmax over the last position's logits.")
    return None


def _whole_text_again(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int) -> Tensor:
    cache = KVCache(model.config)
    text = token_ids
    for _ in range(max_new_tokens):
        text = torch.cat((text, model(text, cache=cache)[:, -1].argmax(-1, keepdim=True)), dim=1)
    return text[:, token_ids.shape[1]:]


def _forgetful(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int) -> Tensor:
    new_tokens = [token_ids]
    for _ in range(max_new_tokens):
        new_tokens.append(model(new_tokens[-1], cache=KVCache(model.config))[:, -1].argmax(-1, keepdim=True))
    return torch.cat(new_tokens[1:], dim=1)


def _uncached(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int) -> Tensor:
    text = token_ids
    for _ in range(max_new_tokens):
        text = torch.cat((text, model(text)[:, -1].argmax(-1, keepdim=True)), dim=1)
    return text[:, token_ids.shape[1]:]


def _prompt_too(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int) -> Tensor:
    return torch.cat((token_ids, generate_with_cache(model, token_ids, max_new_tokens)), dim=1)


def _one_pass_more(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int) -> Tensor:
    return generate_with_cache(model, token_ids, max_new_tokens + 1)[:, :max_new_tokens]


def longest_text(config: Qwen3Config, free_bytes: int, bytes_per_number: int = 2, batch_size: int = 1) -> int:
    # 2: the keys, and as many values.
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * bytes_per_number
    return min(free_bytes // (per_token * batch_size), config.max_position_embeddings)


def _verify_longest(answer: Callable[..., Any]) -> str | None:
    config = Qwen3Config()
    size = StaticKVCache(config, 1, device="meta", dtype=torch.bfloat16).num_bytes
    result = answer(config, 1000 * size)
    if result == 2000:
        return "That is twice too many tokens. Each token leaves two vectors per head: a key and a value."
    if result == 500:
        return "That is half of what fits. Keys and values are kept per key-value head, and these are fewer."
    if result == 1000 * config.num_hidden_layers:
        return "That is too many tokens. Each layer keeps keys and values of its own."
    if result != 1000:
        return f"In {1000 * size} bytes fit 1000 tokens of Qwen3-0.6B in bfloat16, and it returns {result}."
    if answer(config, 1000 * size, 4) != 500:
        return "With 4 bytes per number (float32) only half as many tokens fit: use bytes_per_number."
    if answer(config, 1000 * size, 2, 4) != 250:
        return "With 4 sequences side by side each one has a quarter of the memory: use batch_size."
    if answer(config, 1000 * size - 1) != 999:
        return "One byte less than 1000 tokens need is room for 999: round down."
    if answer(config, 10**15) != config.max_position_embeddings:
        return ("However much memory there is, the text is no longer than the model's context, "
                "max_position_embeddings.")
    return None


def _keys_only(config: Qwen3Config, free_bytes: int, bytes_per_number: int = 2, batch_size: int = 1) -> int:
    per_token = config.num_hidden_layers * config.num_key_value_heads * config.head_dim * bytes_per_number
    return min(free_bytes // (per_token * batch_size), config.max_position_embeddings)


def _query_heads(config: Qwen3Config, free_bytes: int, bytes_per_number: int = 2, batch_size: int = 1) -> int:
    per_token = 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * bytes_per_number
    return min(free_bytes // (per_token * batch_size), config.max_position_embeddings)


def _one_layer(config: Qwen3Config, free_bytes: int, bytes_per_number: int = 2, batch_size: int = 1) -> int:
    per_token = 2 * config.num_key_value_heads * config.head_dim * bytes_per_number
    return min(free_bytes // (per_token * batch_size), config.max_position_embeddings)


def _one_text(config: Qwen3Config, free_bytes: int, bytes_per_number: int = 2, batch_size: int = 1) -> int:
    return longest_text(config, free_bytes, bytes_per_number)


def _without_end(config: Qwen3Config, free_bytes: int, bytes_per_number: int = 2, batch_size: int = 1) -> int:
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * bytes_per_number
    return free_bytes // (per_token * batch_size)


EXERCISES: tuple[Exercise, ...] = (
    Exercise("6.1", "The loop with a cache", generate_with_cache, _verify_generate, (
        (_whole_text_again, "newest token alone"),
        (_forgetful, "a new cache at each step"),
        (_uncached, "without a cache"),
        (_prompt_too, "new tokens alone"),
        (_one_pass_more, "no pass of its own"),
    )),
    Exercise("6.2", "How long a text fits", longest_text, _verify_longest, (
        (_keys_only, "a key and a value"),
        (_query_heads, "per key-value head"),
        (_one_layer, "Each layer"),
        (_one_text, "use batch_size"),
        (_without_end, "max_position_embeddings"),
    )),
)
