"""The weights that all rows share: written once to a folder, in each form that a row asks for, and memory-mapped.

Each row runs in a process of its own, and processes that map the same file share its pages. So a machine holds
the weights once per form, not once per row.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from course_utils.checkpoint import load_checkpoint, save_checkpoint
from course_utils.config import Qwen3Config
from course_utils.device import free_memory
from course_utils.errors import InputError
from course_utils.family import FAMILY, SHORT_NAMES, find_repo_id
from course_utils.hub import BUNDLED, resolve
from course_utils.language import gettext
from course_utils.loading import random_model, timing_config
from course_utils.quantization import Kind, quantize
from course_utils.qwen3 import weight_shapes

_BYTES_PER_WEIGHT = {"original": 2.0, "int8": 1.01, "int4": 0.75, "bf16.gguf": 2.0, "q8_0.gguf": 1.07,
                     "q4_0.gguf": 0.57}
_SPARE = 1.05


@dataclass(frozen=True)
class Subject:
    """The model that is measured.

    Attributes:
        name: for the reader.
        config: its sizes.
        checkpoint: the folder of its weights; None for random ones.
        dtype: number format to compute in.
    """

    name: str
    config: Qwen3Config
    checkpoint: Path | None = None
    dtype: torch.dtype = torch.bfloat16

    @classmethod
    def of_model(cls, name: str) -> Subject:
        """A model by its name as of `load_model`, in the number format that `load_model` gives it.

        Raises:
            InputError, CheckpointError, DownloadError: as `load_model`.
        """
        folder = resolve(name)
        model = load_checkpoint(folder)  # memory-mapped: nothing is read but the header
        return cls(name, model.config, folder, torch.float32 if name.lower() in BUNDLED else model.dtype)

    @classmethod
    def of_shape(cls, name: str | None = None) -> Subject:
        """Random bfloat16 weights in the shape of a model of the family; None is that of `timing_config`.

        Raises:
            InputError: if the family has no such model.
        """
        if name is None:
            config = timing_config()
            return cls(gettext("Qwen3-0.6B shape with {count} layers").format(count=config.num_hidden_layers), config)
        repo_id = find_repo_id(name)
        if repo_id is None:
            raise InputError(gettext("There is no shape {name!r}: choose one of "
                                     "{short_names}.").format(name=name, short_names=", ".join(SHORT_NAMES)))
        return cls(f"{repo_id.split('/')[1]} shape", FAMILY[repo_id])


@dataclass(frozen=True)
class Workspace:
    """Where the weights are, and what an engine has to know beside them. It is handed to each row's process.

    Attributes:
        folder: holds what was written for this benchmark, and is deleted after it.
        checkpoint: the original weights, in Hugging Face layout.
        device, dtype: where and in which number format to compute.
        threads: of the processor.
        max_length: the most tokens that will be asked for, prompt included.
    """

    folder: Path
    checkpoint: Path
    device: torch.device
    dtype: torch.dtype
    threads: int
    max_length: int

    def path(self, form: str) -> Path:
        """The folder or file of the weights in one form."""
        return self.checkpoint if form == "original" else self.folder / form

    def prepare(self, form: str) -> None:
        """Write the weights in one form, unless they are there.

        Args:
            form: "original"; "int8" or "int4", quantized by us; or the name of a GGUF file, "bf16.gguf" and others.

        Raises:
            CheckpointError: if they cannot be written.
        """
        path = self.path(form)
        if path.exists():
            return
        if path.suffix == ".gguf":
            from course_utils.benchmark.gguf_file import write_gguf

            write_gguf(load_checkpoint(self.checkpoint), path)
        else:
            kind: Kind = "int8" if form == "int8" else "int4"
            save_checkpoint(quantize(load_checkpoint(self.checkpoint, dtype=self.dtype), kind), path)


def make_checkpoint(subject: Subject, folder: Path, seed: int) -> Path:
    """The folder of a subject's weights; random ones are written into `folder` first."""
    if subject.checkpoint is not None:
        return subject.checkpoint
    path = folder / "original"
    save_checkpoint(random_model(subject.config, subject.dtype, device="cpu", seed=seed), path)
    return path


def require_disk_space(subject: Subject, forms: Iterable[str], folder: Path) -> None:
    """Raise unless the forms of the weights that will be written fit on the disk.

    Raises:
        InputError: with how much is needed and where.
    """
    written = {form for form in forms if form != "original" or subject.checkpoint is None}
    needed = int(_SPARE * _weights(subject) * sum(_BYTES_PER_WEIGHT[form] for form in written))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(gettext("The weights to be measured need {needed:.1f} GB, and {free:.1f} GB are "
                                 "free at {folder!r}: free some space, set TMPDIR to a folder on a larger "
                                 "disk, or choose fewer rows.").format(
            needed=needed / 1e9, free=free / 1e9, folder=str(folder)))


def require_memory(subject: Subject, forms: Sequence[str], device: torch.device) -> None:
    """Raise unless the weights fit into memory: while they are made, on the CPU, and while all rows hold them.

    Args:
        subject: whose weights.
        forms: of each row; on a CPU rows with the same one share its pages, on other devices each has its own copy.
        device: where the rows compute.

    Raises:
        InputError: with how much is needed and where.
    """
    cpu = torch.device("cpu")
    held = set(forms) if device.type == "cpu" else forms
    made = {form for form in {"original", *forms} if form != "original" or subject.checkpoint is None}
    for place, per_weight in ((cpu, max((_BYTES_PER_WEIGHT[form] for form in made), default=0.0)),
                              (device, sum(_BYTES_PER_WEIGHT[form] for form in held))):
        needed, free = int(_SPARE * _weights(subject) * per_weight), free_memory(place)
        if needed > free:
            raise InputError(gettext("The weights to be measured need {needed:.1f} GB of memory, and "
                                     "{free:.1f} GB are free ({type}): close other programs, or choose fewer "
                                     "rows or a smaller model.").format(
                needed=needed / 1e9, free=free / 1e9, type=place.type))


def _weights(subject: Subject) -> int:
    """How many weights a subject has."""
    return sum(map(math.prod, weight_shapes(subject.config).values()))
