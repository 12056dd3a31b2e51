"""The dense Qwen3 family: which models there are, what they are called, and how large they are.

Source: Qwen3 Technical Report, https://arxiv.org/abs/2505.09388, table 1, and each model's `config.json`.
"""

from __future__ import annotations

from dataclasses import replace

from course_utils.config import Qwen3Config

_CHAT = {
    "0.6B": Qwen3Config(),
    "1.7B": Qwen3Config(hidden_size=2048, intermediate_size=6144),
    "4B": Qwen3Config(hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32),
    "8B": Qwen3Config(hidden_size=4096, intermediate_size=12_288, num_hidden_layers=36,
                      num_attention_heads=32, tie_word_embeddings=False),
    "14B": Qwen3Config(hidden_size=5120, intermediate_size=17_408, num_hidden_layers=40,
                      num_attention_heads=40, tie_word_embeddings=False),
    "32B": Qwen3Config(hidden_size=5120, intermediate_size=25_600, num_hidden_layers=64,
                      num_attention_heads=64, tie_word_embeddings=False),
}
# The base models were published with the context they were trained on; 32B has no base model.
_BASE = {f"{size}-Base": replace(config, max_position_embeddings=32_768)
         for size, config in _CHAT.items() if size != "32B"}

FAMILY: dict[str, Qwen3Config] = {f"Qwen/Qwen3-{size}": config for size, config in {**_CHAT, **_BASE}.items()}
"""Hub name of each model of the family, such as `Qwen/Qwen3-0.6B-Base`, and its configuration."""

_BY_LOWER_CASE = {repo_id.lower(): repo_id for repo_id in FAMILY}
SHORT_NAMES: tuple[str, ...] = tuple(name.split("/")[1] for name in _BY_LOWER_CASE)
"""The same without the owner and in lower case, such as `qwen3-0.6b-base`."""


def find_repo_id(name: str) -> str | None:
    """Full hub name of a model of the family.

    Args:
        name: full or short name, in any mixture of cases: `Qwen/Qwen3-0.6B` or `qwen3-0.6b`.

    Returns:
        The name as the hub spells it, or None if the family has no such model.
    """
    lower = name.lower()
    return _BY_LOWER_CASE.get(lower if "/" in lower else f"qwen/{lower}")
