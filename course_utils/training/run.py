"""A training with everything around it: progress, records, checkpoints, and going on after an interruption."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
from tqdm.auto import tqdm

from course_utils.errors import CheckpointError
from course_utils.file_lock import FileLock
from course_utils.files import remove_scratch
from course_utils.language import gettext
from course_utils.number import require_whole_number
from course_utils.qwen3 import Qwen3Model
from course_utils.timing import timed
from course_utils.training.checkpoints import load_training, save_training
from course_utils.training.loop import Trainer, TrainingPlan, held_out_loss, ids_and_labels
from course_utils.training.records import Log, Record

CHECKPOINT, LOG, LOCK = "training.safetensors", "training.jsonl", ".training.lock"  # in the folder of a run


def train(model: Qwen3Model, blocks: Mapping[int, Iterable[np.ndarray]], plan: TrainingPlan,
          folder: str | Path | None = None, *, save_every: int = 250, report_every: int = 100,
          held_out: np.ndarray | None = None, sample: Callable[[Qwen3Model], str] | None = None) -> Iterator[Record]:
    """Train a model in place: `for record in train(...)` makes one step after another.

    With a folder the run can be stopped at any time and called again with the same arguments, on a fresh model and
    fresh blocks: it goes on where it was, and ends with the same weights, bit for bit on a CPU with the same number of
    threads. A run that has come to its end then makes no more steps, and the model has the weights of its end.

    However the loop is left (Ctrl-C, `break`, an error in its body), the last whole step is saved. Ctrl-C waits until
    the step is done; a second one does not, and costs the steps since the last checkpoint. A training that has failed
    is not saved: the checkpoint before is the good one.

    The arguments are checked, and an earlier run is loaded, when the function is called.

    Args:
        model: as for `Trainer`.
        blocks: for each block length of the plan a supply without end, from its beginning also when the run goes on:
            the blocks that were taken already are passed over.
        plan: how to train.
        folder: for the checkpoint and the log (`read_log`); None keeps nothing.
        save_every: steps between two checkpoints. There is one at the end, too.
        report_every: steps between two measurements of the held-out loss, and two samples; also at the end.
        held_out: blocks to measure the loss on, (n, t + 1), or (n, 2, t + 1) with labels.
        sample: lets the model write a text that shows what it has learned.

    Yields:
        A record of each step.

    Raises:
        InputError, ContextLengthError: if the model, the blocks and the plan do not fit each other.
        CheckpointError: if the folder holds a checkpoint of another training or a damaged one, if another training is
            going on in it, or if nothing can be written there; what was there before is unchanged.
        CourseError: if the loss is no longer a number.
    """
    return run(Trainer(model, blocks, plan), folder, save_every=save_every, report_every=report_every,
               held_out=held_out, sample=sample)


def run(trainer: Trainer, folder: str | Path | None = None, *, save_every: int = 250, report_every: int = 100,
        held_out: np.ndarray | None = None, sample: Callable[[Qwen3Model], str] | None = None) -> Iterator[Record]:
    """What `train` does with a trainer made before. Arguments, records and errors as there."""
    save_every = require_whole_number("save_every", save_every, 1)
    report_every = require_whole_number("report_every", report_every, 1)
    if held_out is not None:
        ids_and_labels(held_out, trainer.model)
    with ExitStack() as held:
        checkpoint = None if folder is None else Path(folder) / CHECKPOINT
        if checkpoint is not None:
            held.enter_context(only_training(checkpoint.parent))
            remove_scratch(checkpoint.parent)
            if checkpoint.exists():
                load_training(trainer, checkpoint)
        log = Log(None if folder is None else Path(folder) / LOG, trainer.steps_done)
        return _steps(trainer, checkpoint, log, held.pop_all(), save_every, report_every, held_out, sample)


def only_training(folder: Path) -> FileLock:
    """Keep other trainings out of a folder until the lock is released, by whatever end of this process if not before.

    Raises:
        CheckpointError: if there is one already, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / LOCK)
    except BlockingIOError as error:
        raise CheckpointError(
            gettext("Another training is going on in {folder!r}, in another process or, neither finished nor closed, "
                    "in this one: wait for its end, stop it, or choose another folder.").format(
                folder=str(folder))) from error
    except OSError as error:
        raise CheckpointError(gettext("{folder!r} could not be written to ({error}): free disk space, or choose "
                                      "another folder.").format(folder=str(folder), error=error)) from error


def _steps(trainer: Trainer, checkpoint: Path | None, log: Log, held: ExitStack, save_every: int, report_every: int,
           held_out: np.ndarray | None, sample: Callable[[Qwen3Model], str] | None) -> Iterator[Record]:
    model, plan, unsaved = trainer.model, trainer.plan, False

    def save() -> None:
        nonlocal unsaved
        unsaved = False  # what cannot be written is not tried again on the way out
        if checkpoint is not None:
            save_training(trainer, checkpoint)

    bar = tqdm(desc="training", total=plan.steps * plan.tokens_per_step, unit=" tokens", unit_scale=True,
               initial=trainer.steps_done * plan.tokens_per_step, mininterval=1,
               disable=bool(os.environ.get("TQDM_DISABLE")))  # tqdm's own switch, which its notebook bar overlooks
    with held:
        try:
            while trainer.steps_done < plan.steps:
                with interrupts_held_back():
                    unsaved = False  # a step that is broken off leaves weights that are half old, half new
                    with timed(model.device) as watch:
                        loss = trainer.update()
                    unsaved = True
                    step = trainer.steps_done
                    due = step % report_every == 0 or step == plan.steps
                    record = Record(step, loss, plan.tokens_per_step / watch.seconds,
                                    held_out_loss(model, held_out) if due and held_out is not None else None,
                                    sample(model) if due and sample is not None else None)
                    log.write(record)
                    if step % save_every == 0 or step == plan.steps:
                        save()
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                bar.update(plan.tokens_per_step)
                yield record
        finally:
            bar.close()
            if unsaved:
                save()


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Let Ctrl-C take effect at the end of the block. A second one takes effect at once.

    The same for the signal that tells a process to end, where the program has a handler for it.
    """
    handlers: dict[int, Callable[[int, FrameType | None], object]] = {
        number: handler for number in (signal.SIGINT, signal.SIGTERM)
        if callable(handler := signal.getsignal(number))}  # who ignores one shall go on to
    if threading.current_thread() is not threading.main_thread():  # other threads are never interrupted
        handlers = {}
    held_back: list[int] = []

    def hold_back(number: int, frame: FrameType | None) -> None:
        held_back.append(number)
        if len(held_back) > 1:
            handlers[number](number, frame)

    for number in handlers:
        signal.signal(number, hold_back)
    try:
        yield
    finally:
        for number, handler in reversed(handlers.items()):  # Ctrl-C last: from then on it may strike
            signal.signal(number, handler)
    if held_back:
        handlers[held_back[0]](held_back[0], None)
