"""The numbers that describe a Qwen3 model: what its `config.json` says, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from course_utils.errors import CheckpointError


@dataclass(frozen=True)
class Qwen3Config:
    """The numbers that describe a Qwen3 model, named as in a checkpoint's `config.json`.

    The defaults are those of Qwen3-0.6B.
    """

    vocab_size: int = 151_936
    hidden_size: int = 1024
    intermediate_size: int = 3072
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    num_key_value_heads: int = 8
    head_dim: int = 128
    max_position_embeddings: int = 40_960
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, bool) and not (isinstance(value, (int, float)) and value > 0):
                raise CheckpointError(f"{field.name} is {value!r} in the model's configuration: it must be a "
                                      "positive number.")
        if self.num_attention_heads % self.num_key_value_heads:
            raise CheckpointError(f"{self.num_attention_heads} query heads cannot share "
                                  f"{self.num_key_value_heads} key-value heads evenly: check the configuration.")
        if self.head_dim % 2:
            raise CheckpointError(f"head_dim is {self.head_dim}: rotation works on pairs, so it must be even.")

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Qwen3Config:
        """Read the content of a `config.json`.

        Raises:
            CheckpointError: if it describes another architecture, or a feature that is left out here.
        """
        if config.get("model_type") != "qwen3":
            raise CheckpointError(f"This is a {config.get('model_type', 'nameless')!r} model, and only 'qwen3' (the "
                                  "dense Qwen3 family) is implemented: choose one of those.")
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise CheckpointError("This model scales its rotary angles, which is not implemented: "
                                  "choose a checkpoint without rope scaling.")
        unsupported = [key for key in ("attention_bias", "use_sliding_window") if config.get(key)]
        if config.get("hidden_act", "silu") != "silu":
            unsupported.append("hidden_act")
        if unsupported:
            raise CheckpointError(f"This model sets {', '.join(unsupported)}, which no dense Qwen3 does: "
                                  "choose an original checkpoint.")
        values = {field.name: config[field.name] for field in fields(cls) if field.name in config}
        if "rope_theta" in rope:
            values["rope_theta"] = rope["rope_theta"]
        missing = {field.name for field in fields(cls)} - set(values) - {"tie_word_embeddings"}
        if missing:
            raise CheckpointError(f"config.json lacks {', '.join(sorted(missing))}: it is incomplete, "
                                  "download the model again.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The content of a `config.json` that this class and `transformers` both read."""
        return {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
                "attention_bias": False, "attention_dropout": 0.0, "use_cache": True, **asdict(self)}
