"""A folder in Hugging Face layout <-> a model: `config.json` and the weights as safetensors.

Loading builds the model without memory and hangs the memory-mapped tensors of the file into it, so nothing is
held twice and pages are read when the first step needs them; only an output layer that is stored although it is tied
is compared with the embedding at once. Every tensor's name and shape is checked before. The model is the one that
`transformers` reads from the same folder, number format included; what would differ is refused. Saving is all or
nothing. Pickle files (`.bin`, `.pt`) are refused: reading one runs whatever program it contains.

Format: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from course_utils.config import Qwen3Config
from course_utils.device import get_device
from course_utils.errors import CheckpointError, InputError
from course_utils.files import check_path, json_writer, read_json, read_tensors, write_atomically
from course_utils.language import gettext
from course_utils.number import check_dtype
from course_utils.quantization import KINDS, convert
from course_utils.qwen3 import Qwen3Model

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_EMBEDDING, _OUTPUT = "model.embed_tokens.", "lm_head."  # the beginnings of their tensors' names
_QUANTIZATION = "quantization_config"  # as the hub calls it
_METHOD = "course_utils"
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_config(folder: str | Path) -> Qwen3Config:
    """Read the `config.json` of a checkpoint.

    Raises:
        InputError: if folder is not the name of one.
        CheckpointError: if the folder or file is missing, is not JSON, or describes another kind of model.
    """
    check_path(folder, "folder", "a model's folder")
    return Qwen3Config.from_dict(_read_config(Path(folder)))


def load_checkpoint(folder: str | Path, device: torch.device | str | None = None,
                    dtype: torch.dtype | None = None) -> Qwen3Model:
    """Build the model that a folder in Hugging Face layout describes, with its weights.

    On a CPU and in the checkpoint's own dtype the weights stay memory-mapped: several processes share them,
    and changing them (training) makes private copies and never touches the file. If `config.json` ties the output
    layer to the embedding and another one is stored, the stored one is used, and the model is not tied.

    Args:
        folder: holds `config.json` and `model.safetensors`, or several shards and
            `model.safetensors.index.json`.
        device: where the weights shall be; None leaves them on the CPU.
        dtype: number format to convert to; None takes the one that `config.json` names, or if it names none, the
            one that all weights are stored in.

    Returns:
        The model in `eval()` mode.

    Raises:
        InputError: if folder is not the name of one, this machine has no such device, or no model computes in dtype.
        CheckpointError: if a file is missing or damaged, or if the tensors are not exactly those that the
            configuration asks for.
    """
    check_path(folder, "folder", "a model's folder")
    check_dtype(dtype)
    device, folder = None if device is None else get_device(device), Path(folder)
    content = _read_config(folder)
    config = Qwen3Config.from_dict(content)
    weights = _read_weights(folder)
    if config.tie_word_embeddings and not _head_is_embedding(weights):
        config = replace(config, tie_word_embeddings=False)
    with torch.device("meta"):  # shapes without memory
        model = Qwen3Model(config)
    kind = _quantization(content, folder)
    if kind is not None:
        convert(model, kind)
    _check_weights(weights, model)
    if dtype is None:
        dtype = _own_dtype(content, weights)
    if config.tie_word_embeddings:  # some checkpoints store the same matrix a second time
        weights |= {_OUTPUT + name.removeprefix(_EMBEDDING): tensor for name, tensor in weights.items()
                    if name.startswith(_EMBEDDING)}
    model.load_state_dict(weights, assign=True)
    if model.quantization is not None:  # packed anew, they need their file no more; nor may a norm keep it in memory
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    model.tie_weights()
    return model.to(device=device, dtype=dtype).eval()


def save_checkpoint(model: Qwen3Model, folder: str | Path,
                    generation_config: Mapping[str, Any] | None = None) -> None:
    """Write a model as a folder that `load_checkpoint` reads, and `transformers` too if it is not quantized.

    All files are written in full beside the old ones before any of these is replaced: a full disk or an
    interruption leaves the old checkpoint as it was.

    Args:
        model: weights are written in their own dtype, a tied output layer once.
        folder: is created if needed.
        generation_config: content of `generation_config.json`, such as `{"eos_token_id": 0}`, if any.

    Raises:
        InputError: if an argument is of the wrong kind.
        CheckpointError: if the files cannot be written, or the model has an adapter (`course_utils.lora`).
    """
    if not isinstance(model, Qwen3Model):
        raise InputError(gettext("model is a {kind}: give a Qwen3Model, such as load_model() gives.").format(
            kind=type(model).__name__))
    if generation_config is not None and not isinstance(generation_config, Mapping):
        raise InputError(gettext("generation_config is a {kind}: give a dictionary, such as "
                                 "{{'eos_token_id': 0}}, or None.").format(kind=type(generation_config).__name__))
    check_path(folder, gettext("The folder of the model"), gettext("a folder"))
    folder = Path(folder)
    if model.adapted:
        raise CheckpointError("The model has an adapter beside its weights, and such a checkpoint could not be loaded: "
                              "merge the adapter first, or save it by itself with `save_adapter`.")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
               if not (model.config.tie_word_embeddings and name.startswith(_OUTPUT))}
    config = {**model.config.to_dict(), "dtype": str(model.dtype).removeprefix("torch.")}
    if model.quantization is not None:
        config[_QUANTIZATION] = {"quant_method": _METHOD, "kind": model.quantization}
    writers: dict[str, Callable[[Path], object]] = {
        _WEIGHTS: lambda path: save_file(weights, path, metadata={"format": "pt"}),
        "config.json": json_writer(config),
    }
    if generation_config is not None:
        writers["generation_config.json"] = json_writer(generation_config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder, writers)
    except (OSError, ValueError, SafetensorError) as error:  # ValueError: a NUL in the name
        raise CheckpointError(gettext("The model could not be saved in {folder!r} ({error}); what was there before is "
                                      "unchanged. Free disk space, or choose another folder.").format(
            folder=str(folder), error=error)) from error


def _read_config(folder: Path) -> dict[str, Any]:
    """The content of `config.json`."""
    if not folder.is_dir():
        raise CheckpointError(gettext("There is no folder {folder!r}: check the path of the model.").format(
            folder=str(folder)))
    return read_json(folder / "config.json")


def _quantization(config: Mapping[str, Any], folder: Path) -> str | None:
    """How the weights of a checkpoint are quantized by this package; None if they are not."""
    content = config.get(_QUANTIZATION)
    if content is None:
        return None
    if not isinstance(content, dict) or content.get("quant_method") != _METHOD or content.get("kind") not in KINDS:
        raise CheckpointError(gettext("The weights in {folder!r} are quantized in a way that this package does not "
                                      "know: choose a checkpoint that is not quantized, and use `quantize`.").format(
            folder=str(folder)))
    return str(content["kind"])


def _own_dtype(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> torch.dtype:
    """The number format that a checkpoint is meant to be computed in, its norms and matrices alike."""
    for key in ("dtype", "torch_dtype"):  # the newer name goes first
        named = config.get(key)
        if named is not None:
            if not isinstance(named, str) or named not in _DTYPES:
                raise CheckpointError(gettext("{key} is {named} in config.json, which this model cannot compute in: "
                                              "name one of {dtypes}.").format(
                    key=key, named=reprlib.repr(named), dtypes=", ".join(_DTYPES)))
            return _DTYPES[named]
    stored = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
    if len(stored) > 1:
        raise CheckpointError(gettext("The weights are stored in {count} number formats, and config.json names none of "
                                      "them to compute in: add it there as \"dtype\", or load with "
                                      "dtype=torch.float32.").format(count=len(stored)))
    return stored.pop()


def _head_is_embedding(weights: Mapping[str, Tensor]) -> bool:
    """Whether the output layer is the embedding: not stored, or stored as the same numbers, which are read for this."""
    pairs = [(tensor, weights.get(_EMBEDDING + name.removeprefix(_OUTPUT))) for name, tensor in weights.items()
             if name.startswith(_OUTPUT)]
    # Compared as they are stored, in whichever format they will be used: what then turns out alike computes alike.
    return all(other is not None and head.dtype == other.dtype and torch.equal(head, other) for head, other in pairs)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, memory-mapped."""
    if (folder / _WEIGHTS).is_file():
        return read_tensors(folder / _WEIGHTS)
    if (folder / _INDEX).is_file():
        weights: dict[str, Tensor] = {}
        for shard in _shards(folder):
            more = read_tensors(shard)
            twice = sorted(set(weights) & set(more))
            if twice:
                raise CheckpointError(gettext("{some} stand in {name} and in another file of {folder!r}: fetch the "
                                              "checkpoint again, into an empty folder.").format(
                    some=_some(twice), name=shard.name, folder=str(folder)))
            weights.update(more)
        return weights
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLE_SUFFIXES)
    if pickles:
        raise CheckpointError(gettext("{folder!r} has its weights only as pickle ({pickles}), which is never read here "
                                      "because unpickling can run any program: get the model as safetensors.").format(
            folder=str(folder), pickles=", ".join(pickles)))
    raise CheckpointError(gettext("There are no weights in {folder!r}, neither {weights} nor {index}: fetch the "
                                  "missing files.").format(folder=str(folder), weights=_WEIGHTS, index=_INDEX))


def _shards(folder: Path) -> list[Path]:
    """Paths of the files among which the index distributes the weights."""
    weight_map = read_json(folder / _INDEX).get("weight_map")
    # An index comes from elsewhere: it may name files of its own folder and no others.
    if not isinstance(weight_map, dict) or not all(
            isinstance(name, str) and name == Path(name).name for name in weight_map.values()):
        raise CheckpointError(gettext("{folder!r} has no valid weight_map from tensors to files of its folder: fetch "
                                      "the file again.").format(folder=str(folder / _INDEX)))
    shards = [folder / name for name in sorted(set(weight_map.values()))]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise CheckpointError(gettext("{count} of {in_all} weight files are missing in {folder!r}: fetch "
                                      "{missing}.").format(
            count=len(missing), in_all=len(shards), folder=str(folder), missing=", ".join(missing)))
    return shards


def _check_weights(weights: Mapping[str, Tensor], model: Qwen3Model) -> None:
    """Raise unless the tensors are those of the model, each with its shape, and can be computed with."""
    wanted = model.state_dict()
    tied = model.config.tie_word_embeddings
    optional = {name for name in wanted if tied and name.startswith(_OUTPUT)}
    missing = sorted(set(wanted) - set(weights) - optional)
    if missing:
        hint = (gettext(' If its output layer is the embedding, add "tie_word_embeddings": true to config.json.')
                if all(name.startswith(_OUTPUT) for name in missing) else "")
        raise CheckpointError(gettext("The weights lack {some}: the checkpoint is incomplete or does not belong to its "
                                      "config.json, fetch it again.{hint}").format(some=_some(missing), hint=hint))
    unknown = sorted(set(weights) - set(wanted))
    if unknown:
        raise CheckpointError(gettext("The weights hold {some}, which a Qwen3 model of this config.json does "
                                      "not have: choose an original dense Qwen3 checkpoint, neither quantized "
                                      "nor an adapter.").format(some=_some(unknown)))
    for name, tensor in weights.items():
        if tensor.shape != wanted[name].shape:
            raise CheckpointError(gettext("{name} has shape {shape}, and config.json asks for {wanted}: use the "
                                          "config.json of these weights.").format(
                name=name, shape=tuple(tensor.shape), wanted=tuple(wanted[name].shape)))
        floats = wanted[name].is_floating_point()
        if floats and tensor.dtype not in _DTYPES.values() or not floats and tensor.dtype != wanted[name].dtype:
            raise CheckpointError(gettext("{name} is stored as {dtype}, which this model cannot compute with: choose a "
                                          "checkpoint in float32, bfloat16 or float16.").format(
                name=name, dtype=tensor.dtype))


def _some(names: list[str]) -> str:
    """The first few of a long list of names."""
    more = gettext(" and {count} more tensors").format(count=len(names) - 3) if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
