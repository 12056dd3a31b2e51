"""Training on disk: all that is needed to go on as if nothing had happened, in one file.

The file is in the safetensors format: the trained weights and the optimizer's moments, and in its header, as JSON, the
plan, the model's configuration, the number of steps, and which blocks were taken. Randomness needs no place, since each
step begins with a seed of its own. One file is replaced in one stroke, so there is always a whole one.

It is for going on with the training; `course_utils.checkpoint` writes the model for everything else.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from course_utils.errors import CheckpointError
from course_utils.files import describe_damage, write_atomically
from course_utils.json_text import parse_json
from course_utils.language import gettext
from course_utils.number import whole_number
from course_utils.training.loop import Trainer

_STATE = "course_utils.training"  # the header's entry
_WEIGHTS = "weights"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # as AdamW calls its state


def save_training(trainer: Trainer, path: Path) -> None:
    """Write the state of a training between two updates; the file that was there is replaced when all is written.

    Raises:
        CheckpointError: if it cannot be written; what was there before is unchanged.
    """
    tensors = {f"{_WEIGHTS}.{name}": parameter for name, parameter in trainer.parameters.items()}
    for name, parameter in trainer.parameters.items():
        tensors |= {f"{moment}.{name}": tensor for moment, tensor in trainer.optimizer.state[parameter].items()}
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {_STATE: json.dumps(_state(trainer))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path.parent, {path.name: lambda file: save_file(on_cpu, file, metadata=header)})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(gettext("The training could not be saved as {path!r} ({error}); what was there before is "
                                      "unchanged. Free disk space, or choose another folder.").format(
            path=str(path), error=error)) from error


def load_training(trainer: Trainer, path: Path) -> None:
    """Put a new trainer where the saved one was: weights, moments, steps done, and blocks taken.

    Everything is checked before anything is changed, except that blocks are taken from the supplies. Weights that are
    not trained are not in the file: they must be as they were.

    Raises:
        CheckpointError: if the file is damaged, of another kind, or of another plan, model or text.
    """
    state, tensors = _read(path)
    here = _state(trainer)
    for what in ("plan", "config"):
        there = state[what]
        other = [name for name in here[what] if there.get(name) != here[what][name]]
        if other or len(there) != len(here[what]):
            differences = ", ".join(gettext("{name} {there!r} instead of {here!r}").format(
                name=name, there=there.get(name), here=here[what][name]) for name in other)
            raise CheckpointError(gettext("{path!r} belongs to another training, with another {what} ({differences}): "
                                          "go on with the same one, or begin anew in another folder.").format(
                path=str(path), what=what, differences=differences or gettext("of another version")))
    _check_tensors(trainer, tensors, path)
    for length, supply in trainer.supplies.items():
        supply.skip(*state["blocks"][str(length)])
    with torch.no_grad():
        for name, parameter in trainer.parameters.items():
            parameter.copy_(tensors[f"{_WEIGHTS}.{name}"])
            if f"step.{name}" in tensors:
                # Copied, for what is read from the file is the file's own memory, and the file will be replaced.
                trainer.optimizer.state[parameter] = {
                    moment: tensors[f"{moment}.{name}"].to(parameter.device, copy=True) for moment in _MOMENTS}
    trainer.steps_done = state["steps_done"]


def _state(trainer: Trainer) -> dict[str, Any]:
    """Everything but tensors, in the form in which JSON gives it back."""
    state = {"steps_done": trainer.steps_done, "plan": asdict(trainer.plan), "config": asdict(trainer.model.config),
             "blocks": {length: (supply.taken, supply.checksum) for length, supply in trainer.supplies.items()}}
    content: dict[str, Any] = json.loads(json.dumps(state))
    return content


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    advice = gettext("delete it to begin anew, or put a good copy in its place")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        why = describe_damage(path) if path.is_file() else gettext("cannot be read")
        raise CheckpointError(gettext("{path!r} {why}, so the training cannot go on from it ({error}): "
                                      "{advice}.").format(
            path=str(path), why=why, error=error, advice=advice)) from error
    try:
        state = parse_json(header[_STATE])
        complete = (isinstance(state["plan"], dict) and isinstance(state["config"], dict)
                    and set(state["blocks"]) == set(map(str, state["plan"]["block_lengths"]))
                    and all(len(position) == 2 and None not in map(whole_number, position)
                            for position in state["blocks"].values())
                    and whole_number(state["steps_done"]) is not None
                    and 0 <= state["steps_done"] <= state["plan"]["steps"])
    except (AttributeError, KeyError, TypeError, ValueError):
        complete = False
    if not complete:
        raise CheckpointError(gettext("{path!r} is not a checkpoint of a training, though it may be a model: "
                                      "{advice}.").format(path=str(path), advice=advice))
    return state, tensors


def _check_tensors(trainer: Trainer, tensors: dict[str, Tensor], path: Path) -> None:
    """Raise unless these are the weights of the trainer's model, and moments of those that were ever updated."""
    wanted: dict[str, torch.Size] = {}
    for name, parameter in trainer.parameters.items():
        wanted[f"{_WEIGHTS}.{name}"] = parameter.shape
        if any(f"{moment}.{name}" in tensors for moment in _MOMENTS):
            wanted |= {f"{moment}.{name}": torch.Size() if moment == "step" else parameter.shape
                       for moment in _MOMENTS}
    found = {name: tensor.shape for name, tensor in tensors.items() if tensor.dtype == torch.float32}
    different = sorted(name for name in {*wanted, *tensors} if wanted.get(name) != found.get(name))
    if different:
        raise CheckpointError(gettext("{path!r} does not hold the parameters that are trained here: {different} and "
                                      "{count} other tensors are missing, unknown, or of another shape. Train the same "
                                      "parameters, or begin anew in another folder.").format(
            path=str(path), different=different[0], count=len(different) - 1))
