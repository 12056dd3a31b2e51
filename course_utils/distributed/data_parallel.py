"""Data parallelism: each process holds the whole model and computes its micro-batches of every step.

It is gradient accumulation in space instead of time. The plan says of how many micro-batches a step consists, one
process would compute them one after the other, and several divide them among themselves. The gradients are added up
all the same, by PyTorch's `DistributedDataParallel`, which does so while the backward pass is still under way; then
every process makes the same update. So the same plan gives the same model, up to rounding, on any number of processes,
and a run may go on with another number than it began with.

Source: PyTorch Distributed, https://arxiv.org/abs/2006.15704.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from course_utils.errors import CheckpointError, InputError
from course_utils.language import gettext
from course_utils.qwen3 import Qwen3Model
from course_utils.training.checkpoints import load_training
from course_utils.training.loop import Trainer, TrainingPlan
from course_utils.training.records import Record
from course_utils.training.run import CHECKPOINT, run


class DataParallelTrainer(Trainer):
    """A trainer in each of several processes, which make every update together.

    Args:
        model: begins everywhere with the weights of the first process.
        blocks: the same in every process, which takes all blocks and computes its own part of them.
        plan: the same in every process. Adapters with dropout draw other numbers than in one process.

    Raises:
        InputError, ContextLengthError: as `Trainer`, or if the micro-batches cannot be divided evenly among the
            processes, or the plan asks for compilation.
    """

    def __init__(self, model: Qwen3Model, blocks: Mapping[int, Iterable[np.ndarray]], plan: TrainingPlan) -> None:
        processes = dist.get_world_size()
        if plan.micro_batches % processes:
            raise InputError(gettext("The plan has {micro_batches} micro-batches for {processes} processes: give "
                                     "micro_batches as a multiple of the number of processes.").format(
                micro_batches=plan.micro_batches, processes=processes))
        if plan.compiled:
            raise InputError("Training on several processes is not compiled here: plan it with compiled=False.")
        super().__init__(model, blocks, plan)
        self._forward = self._replica = DistributedDataParallel(model)

    def parts(self, token_ids: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
        """The micro-batches of this process, with shares that make the mean over all processes the sum of the parts."""
        processes, parts = dist.get_world_size(), list(super().parts(token_ids, labels))
        while len(parts) % processes:  # a part without a token that counts was left out
            parts.append((*parts[0][:2], 0.0))  # one that weighs nothing, for who exchanges gradients must not wait
        mine = [(ids, part, share * processes) for ids, part, share in parts[dist.get_rank()::processes]]
        for each in mine[:-1]:
            with self._replica.no_sync():  # still in force while the part is computed
                yield each
        yield mine[-1]

    def update(self) -> float:
        """Make one update, in all processes at once. Returns and raises as `Trainer.update`, everywhere the same."""
        loss = torch.tensor(super().update(), dtype=torch.float64)
        dist.all_reduce(loss)
        return loss.item() / dist.get_world_size()


def train_data_parallel(model: Qwen3Model, blocks: Mapping[int, Iterable[np.ndarray]], plan: TrainingPlan,
                        folder: str | Path | None = None, **options: Any) -> Iterator[Record]:
    """`course_utils.training.run.train` on all processes of the group, each of which calls this.

    The first process writes checkpoint and log, and all begin from the checkpoint that is there. When one process ends,
    for whatever reason, the others cannot go on, and `torchrun` ends them; the same command goes on from the last
    checkpoint.

    Args:
        model, blocks, plan: as for `DataParallelTrainer`.
        folder, options: as for `train`; the options are for the first process.

    Raises:
        CourseError: as `train`; also CheckpointError, if not all processes see the same checkpoint.
    """
    trainer = DataParallelTrainer(model, blocks, plan)
    if dist.get_rank() == 0:
        records = run(trainer, folder, **options)
    else:
        if folder is not None and (checkpoint := Path(folder) / CHECKPOINT).exists():
            load_training(trainer, checkpoint)
        records = run(trainer)
    steps: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(steps, trainer.steps_done)
    if len(set(steps)) > 1:
        raise CheckpointError(gettext("The processes would go on from different steps, {steps}: give a folder that all "
                                      "of them can read.").format(steps=steps))
    return records
