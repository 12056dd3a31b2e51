"""A folder in the layout of `peft` <-> an adapter: `adapter_config.json` and the matrices as safetensors.

Everything in a file is checked before the model is touched: it must be plain LoRA, and have exactly the matrices that
its settings ask for on this model. As with whole models, saving is all or nothing, and pickle is refused.

Format: https://huggingface.co/docs/peft/developer_guides/checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from course_utils.errors import CheckpointError, InputError
from course_utils.files import check_path, json_writer, read_json, read_tensors, write_atomically
from course_utils.language import gettext
from course_utils.lora import Adapters, LoRA

_CONFIG, _WEIGHTS, _PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_READ = ("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules", "init_lora_weights")
# These say where an adapter comes from, or hold settings of something that is off.
_WITHOUT_EFFECT = ("auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "peft_version",
                   "megatron_core", "qalora_group_size", "eva_config")
# Other ways to begin (such as "pissa") change the model's own weights, and the adapter fits only the changed ones.
_BEGINNINGS = (True, False, "gaussian", "eva", "orthogonal")


def save_adapter(adapters: Adapters, name: str, folder: str | Path) -> None:
    """Write an adapter as a folder that `load_adapter` and `peft` read.

    As with `save_checkpoint`, an interruption leaves what was there before as it was.

    Args:
        adapters: of a model.
        name: which of them; it need not be active.
        folder: is created if needed.

    Raises:
        InputError: if there is no such adapter, it holds NaN or infinity, or an argument is of the wrong kind.
        CheckpointError: if the files cannot be written.
    """
    folder = _checked(adapters, folder)
    tensors = {key: tensor.detach().cpu().contiguous()
               for path, pair in adapters.matrices(name).items() for key, tensor in zip(_keys(path), pair)}
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise InputError(gettext("The adapter {name!r} holds NaN or infinity, so it is not saved: go back to one that "
                                 "was saved before, and train with a smaller learning rate.").format(name=name))
    lora = adapters.settings[name]
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None, "inference_mode": True,
              "r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout,
              "target_modules": list(lora.targets), "bias": "none", "fan_in_fan_out": False,
              "init_lora_weights": True, "modules_to_save": None, "use_rslora": False, "use_dora": False}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder, {_WEIGHTS: lambda path: save_file(tensors, path, metadata={"format": "pt"}),
                                   _CONFIG: json_writer(config)})
    except (OSError, ValueError, SafetensorError) as error:  # ValueError: a NUL in the name
        raise CheckpointError(gettext("The adapter could not be saved in {folder!r} ({error}); what was there before "
                                      "is unchanged. Free disk space, or choose another folder.").format(
            folder=str(folder), error=error)) from error


def load_adapter(adapters: Adapters, name: str, folder: str | Path) -> None:
    """Read an adapter that `save_adapter` or `peft` has written, and let it work.

    Its matrices become float32. On a quantized model it cannot be trained further.

    Args:
        adapters: of the model that it is for.
        name: any that is not taken.
        folder: holds `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        InputError: if the name is taken, or an argument is of the wrong kind.
        CheckpointError: if a file is missing or damaged, describes something other than plain LoRA, or belongs to
            another model.
    """
    folder = _checked(adapters, folder)
    adapters.check_new(name)
    lora = _read_settings(folder)
    wanted: dict[str, tuple[int, int]] = {}
    for path, (rows, columns) in adapters.shapes(lora).items():
        wanted |= zip(_keys(path), ((lora.rank, columns), (rows, lora.rank)))
    # Copied out of the mapped file, which may then be replaced while the adapter is in use.
    tensors = {key: tensor.to(torch.float32, copy=True) for key, tensor in _read_matrices(folder, wanted).items()}
    adapters.add_trained(name, lora, {path: (tensors[a], tensors[b]) for path in adapters.shapes(lora)
                                      for a, b in [_keys(path)]})


def _checked(adapters: object, folder: str | Path) -> Path:
    """The folder as a path, if both arguments are of the right kind."""
    if not isinstance(adapters, Adapters):
        raise InputError(gettext("adapters is a {kind}: give the Adapters of a model, "
                                 "Adapters(model).").format(kind=type(adapters).__name__))
    check_path(folder, gettext("The folder of the adapter"), gettext("a folder"))
    return Path(folder)


def _keys(path: str) -> tuple[str, str]:
    """What A and B of a layer are called in a file. `peft` wraps the model in two objects, whose names come first."""
    return f"base_model.model.{path}.lora_A.weight", f"base_model.model.{path}.lora_B.weight"


def _read_settings(folder: Path) -> LoRA:
    """The settings of an adapter, if it is one of plain LoRA."""
    if not (folder / _CONFIG).is_file():
        raise CheckpointError(gettext("There is no {config} in {folder!r}: give the folder of an adapter.").format(
            config=_CONFIG, folder=str(folder)))
    where, config = gettext("The adapter in {folder!r}").format(folder=str(folder)), read_json(folder / _CONFIG)
    problem = _problem(config)
    if problem is not None:
        raise CheckpointError(f"{where} {problem}")
    try:
        return LoRA(config["r"], config["lora_alpha"], config.get("lora_dropout", 0.0), config["target_modules"])
    except InputError as error:
        raise CheckpointError(gettext("{where} has settings that are not possible here. {error}").format(
            where=where, error=error)) from error


def _problem(config: Mapping[str, Any]) -> str | None:
    """Why an adapter is not one of plain LoRA for generating text, as the end of a sentence; None if it is."""
    if config.get("peft_type") != "LORA":
        return gettext("is of the kind {kind!r}: choose one of the kind 'LORA', the only one known here.").format(
            kind=config.get("peft_type"))
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        return gettext("is for the task {config!r}: choose one for 'CAUSAL_LM', generating text.").format(
            config=config["task_type"])
    missing = [key for key in ("r", "lora_alpha", "target_modules") if key not in config]
    if missing:
        return gettext("lacks {missing} in its {config}: fetch the file again.").format(
            missing=", ".join(missing), config=_CONFIG)
    beginning = config.get("init_lora_weights", True)
    if beginning not in _BEGINNINGS:
        return gettext("began as {beginning!r}, for which the model's own weights were changed: convert it to plain "
                       "LoRA with peft, or choose another.").format(beginning=beginning)
    # Whatever is unknown and not off may change what the adapter computes.
    more = [key for key, value in config.items() if key not in _READ + _WITHOUT_EFFECT and value and value != "none"]
    if more:
        return gettext("sets {more}, which plain LoRA does not have: choose one that was trained without.").format(
            more=", ".join(sorted(more)))
    return None


def _read_matrices(folder: Path, wanted: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
    """The tensors of an adapter, memory-mapped, if they are exactly those that are wanted."""
    path = folder / _WEIGHTS
    if not path.is_file() and (folder / _PICKLE).is_file():
        raise CheckpointError(gettext("{folder!r} has the adapter only as pickle ({pickle}), which is never read here "
                                      "because unpickling can run any program: get it as safetensors.").format(
            folder=str(folder), pickle=_PICKLE))
    if not path.is_file():
        raise CheckpointError(gettext("There is no {weights} in {folder!r}: fetch the missing file.").format(
            weights=_WEIGHTS, folder=str(folder)))
    tensors = read_tensors(path)
    if wanted.keys() != tensors.keys():
        lacking, more = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
        difference = gettext("lacks {names}").format(names=lacking[0]) if lacking else gettext(
            "holds {more}, which its settings do not ask for").format(more=more[0])
        raise CheckpointError(gettext("{path!r} {difference}: it is incomplete, does not belong to its {config}, or "
                                      "was trained on another model.").format(
            path=str(path), difference=difference, config=_CONFIG))
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name]:
            raise CheckpointError(gettext("{name} has shape {shape} in {path!r}, and this model needs {wanted}: use "
                                          "the adapter with the model that it was trained on.").format(
                name=name, shape=tuple(tensor.shape), path=str(path), wanted=wanted[name]))
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise CheckpointError(gettext("{name} in {path!r} does not consist of finite numbers: fetch the file "
                                          "again, or train the adapter anew with a smaller learning rate.").format(
                name=name, path=str(path)))
    return tensors
