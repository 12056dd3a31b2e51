"""The numbers that describe a Qwen3 model: what its `config.json` says, checked.

What `transformers` would read otherwise than it is computed here is refused: a folder means the same model to both,
or none to this package.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from course_utils.errors import CheckpointError
from course_utils.language import gettext
from course_utils.number import finite_number, whole_number

# Far beyond any model of this kind. A file with larger numbers is damaged or malicious, and would be noticed only when
# memory is full: modules and rotary frequencies are made before the weights are compared with the configuration.
LARGEST_SIZE = 1 << 24
_LARGEST = {"num_hidden_layers": 1 << 10, "num_attention_heads": 1 << 10, "head_dim": 1 << 14,
            "rms_norm_eps": 1.0, "rope_theta": 1e30}

_FLAGS = ("attention_bias", "use_sliding_window")  # features that are left out here
_OTHER_LAYERS = ("num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size", "per_layer_config")
_ROPE = {"rope_type", "type", "rope_theta"}  # what an unscaled rotation may say of itself


@dataclass(frozen=True)
class Qwen3Config:
    """The numbers that describe a Qwen3 model, named as in a checkpoint's `config.json`.

    The defaults are those of Qwen3-0.6B. Numbers of NumPy's become Python's own.

    Raises:
        CheckpointError: if a value is of another kind or out of its range, or if sizes do not fit together.
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
            value = _checked(field.name, getattr(self, field.name), type(field.default))
            object.__setattr__(self, field.name, value)  # as frozen dataclasses do it themselves
        if self.num_attention_heads % self.num_key_value_heads:
            raise CheckpointError(gettext("{num_attention_heads} query heads cannot share {num_key_value_heads} "
                                          "key-value heads evenly: check the configuration.").format(
                num_attention_heads=self.num_attention_heads, num_key_value_heads=self.num_key_value_heads))
        if self.head_dim % 2:
            raise CheckpointError(gettext("head_dim is {head_dim}: rotation works on pairs, so it must be "
                                          "even.").format(head_dim=self.head_dim))

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Qwen3Config:
        """Read the content of a `config.json`, as `transformers` does: without `tie_word_embeddings`, nothing is tied.

        Raises:
            CheckpointError: if it describes another architecture, or a feature that is left out here.
        """
        if not isinstance(config, Mapping):
            raise CheckpointError(gettext("The configuration is {config}: give a mapping, such as what config.json "
                                          "holds.").format(config=reprlib.repr(config)))
        if config.get("model_type") != "qwen3":
            raise CheckpointError(gettext("This is a {get} model, and only 'qwen3' (the dense Qwen3 family) is "
                                          "implemented: choose one of those.").format(
                get=reprlib.repr(config.get("model_type", "nameless"))))
        unsupported = [key for key in _FLAGS if config.get(key, False) is not False]
        unsupported += [key for key in _OTHER_LAYERS if config.get(key)]
        if config.get("hidden_act", "silu") != "silu":
            unsupported.append("hidden_act")
        if unsupported:
            raise CheckpointError(gettext("This model sets {unsupported}, which no dense Qwen3 does: choose an "
                                          "original checkpoint.").format(unsupported=", ".join(unsupported)))
        values = {field.name: config[field.name] for field in fields(cls) if field.name in config}
        values = {"tie_word_embeddings": False, **values, **_rotary_base(config)}
        missing = {field.name for field in fields(cls)} - set(values)
        if missing:
            raise CheckpointError(gettext("config.json lacks {missing}: it is incomplete, download the model "
                                          "again.").format(missing=", ".join(sorted(missing))))
        read = cls(**values)
        layers = config.get("layer_types")
        if layers is not None and layers != ["full_attention"] * read.num_hidden_layers:
            raise CheckpointError(gettext("This model's layer_types are not full_attention for each of its "
                                          "{num_hidden_layers} layers, and nothing else is implemented: choose an "
                                          "original checkpoint.").format(num_hidden_layers=read.num_hidden_layers))
        return read

    def to_dict(self) -> dict[str, Any]:
        """The content of a `config.json` that this class and `transformers` both read."""
        return {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
                "attention_bias": False, "attention_dropout": 0.0, "use_cache": True, **asdict(self)}


def _checked(name: str, value: Any, kind: type) -> int | float | bool:
    """A value as the kind of number that it shall be."""
    if kind is bool:
        if isinstance(value, bool):
            return value
        wanted = gettext("true or false")
    else:
        largest = _LARGEST.get(name, LARGEST_SIZE)
        number = whole_number(value) if kind is int else finite_number(value)
        if number is not None and 0 < number <= largest:
            return number
        wanted = (gettext("a positive whole number, at most {largest}") if kind is int
                  else gettext("a positive number, at most {largest}")).format(largest=largest)
    raise CheckpointError(gettext("{name} is {value} in the model's configuration: it must be {wanted}.").format(
        name=name, value=reprlib.repr(value), wanted=wanted))


def _rotary_base(config: Mapping[str, Any]) -> dict[str, Any]:
    """The base of the rotary angles if the newer or the older object for it has one, under its name.

    `transformers` takes the older object where both are there; here neither may scale the angles.
    """
    ropes = {key: config.get(key) for key in ("rope_parameters", "rope_scaling")}
    for key, rope in ropes.items():
        if rope is not None and not isinstance(rope, Mapping):
            raise CheckpointError(gettext("{key} is {rope} in the model's configuration: it must be an object, or "
                                          "null.").format(key=key, rope=reprlib.repr(rope)))
        # What else it holds are the numbers of a scaling, or an object for each type of layer.
        if rope and (rope.get("rope_type", rope.get("type", "default")) != "default" or not set(rope) <= _ROPE):
            raise CheckpointError(gettext("This model scales its rotary angles ({key}), which is not implemented: "
                                          "choose a checkpoint without rope scaling.").format(key=key))
    rope = ropes["rope_scaling"] or ropes["rope_parameters"] or {}
    return {"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}
