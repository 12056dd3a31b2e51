"""A training as a process of its own, to be stopped by signals: `python training_process.py FOLDER THREADS [die]`.

It prints each step when it is done, and sleeps in step 50 until it is killed. With `die` it kills itself in the middle
of writing its third checkpoint.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from course_utils.config import Qwen3Config
from course_utils.qwen3 import Qwen3Model
from course_utils.training.loop import TrainingPlan
from course_utils.training.run import train

CONFIG = Qwen3Config(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, head_dim=8, max_position_embeddings=64)
PLAN = TrainingPlan(steps=60, tokens_per_step=64, block_lengths=(16, 16, 32), micro_batches=2, warm_up_steps=5,
                    bfloat16=False, compiled=False)


def fresh_model() -> Qwen3Model:
    torch.manual_seed(0)
    return Qwen3Model(CONFIG)


def fresh_blocks() -> dict[int, Iterator[np.ndarray]]:
    def blocks(length: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(length)
        while True:
            yield rng.integers(CONFIG.vocab_size, size=length + 1)

    return {length: blocks(length) for length in PLAN.block_lengths}


def main(folder: str, threads: str, *die: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background begins by ignoring it
    torch.set_num_threads(int(threads))
    rename, renamed = os.replace, []

    def rename_or_die(source: Path, target: Path) -> Any:
        renamed.append(target)
        if die and len(renamed) == 4:  # the log, then checkpoints
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    os.replace = rename_or_die  # type: ignore[assignment]
    for record in train(fresh_model(), fresh_blocks(), PLAN, folder, save_every=10):
        print(record.step, flush=True)
        if record.step == 50:
            time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
