"""The training loop: next-token loss, AdamW, warm-up and cosine decay."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from course_utils.compilation import compile_or_eager
from course_utils.errors import CourseError
from course_utils.qwen3 import Qwen3Model


@dataclass(frozen=True)
class TrainingPlan:
    """How to train.

    Attributes:
        steps: number of updates.
        tokens_per_step: how many tokens each update sees.
        block_lengths: tokens that the model sees at once; the steps go through them in turn. Short blocks teach
            attention faster, for there is less to look at; long ones teach it to look far.
        learning_rate: at its peak.
        warm_up_steps: over which the rate rises.
        decay_steps: where it would reach zero; None is `steps`. A larger one ends a stage before.
        weight_decay: of matrices; norms have none.
        gradient_clip: longest gradient let through.
    """

    steps: int
    tokens_per_step: int = 2048
    block_lengths: tuple[int, ...] = (512,)
    learning_rate: float = 3e-3
    warm_up_steps: int = 100
    decay_steps: int | None = None
    weight_decay: float = 0.1
    gradient_clip: float = 1.0

    def rate(self, step: int) -> float:
        """Learning rate at a step: a straight line up, then half a cosine down to nothing."""
        if step < self.warm_up_steps:
            return self.learning_rate * (step + 1) / self.warm_up_steps
        progress = (step - self.warm_up_steps) / max(1, (self.decay_steps or self.steps) - self.warm_up_steps)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def next_token_loss(model: Callable[[torch.Tensor], torch.Tensor], block: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each token given those before it, in nats. `block`: (b, t + 1) token ids."""
    logits = model(block[:, :-1])
    return F.cross_entropy(logits.float().flatten(0, 1), block[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: Qwen3Model, blocks: np.ndarray, batch_size: int = 4) -> float:
    """Mean loss over blocks the model was not trained on, in nats per token."""
    batches = torch.from_numpy(blocks.astype(np.int64)).split(batch_size)
    return float(np.mean([next_token_loss(model, batch).item() for batch in batches]))


def train(model: Qwen3Model, blocks: Mapping[int, Iterator[np.ndarray]],
          plan: TrainingPlan) -> Iterator[tuple[int, float]]:
    """Train in place; yields (step, loss) after each step, so that the caller can report, save or stop.

    Weights, gradients and the optimizer's state are float32; matrix products run in bfloat16 (autocast).

    Args:
        model: in float32; it is left in `eval()` mode.
        blocks: an endless supply of blocks for each block length of the plan.
        plan: how to train.

    Raises:
        CourseError: if the loss is no longer a number; the caller's last checkpoint is the good one.
    """
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": plan.weight_decay},
                                   {"params": vectors, "weight_decay": 0.0}],
                                  lr=plan.learning_rate, betas=(0.9, 0.98), fused=True)
    compiled = compile_or_eager(model, model.device)
    model.train()
    # Compiled, the embedding's gradient is otherwise added up in whatever order the threads arrive, so two runs would
    # differ. A GPU refuses some operations in this mode.
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic or model.device.type == "cpu")
    try:
        yield from _steps(model, compiled, optimizer, blocks, plan)
    finally:
        torch.use_deterministic_algorithms(deterministic)
        model.eval()


def _steps(model: Qwen3Model, compiled: Callable[[torch.Tensor], torch.Tensor], optimizer: torch.optim.Optimizer,
           blocks: Mapping[int, Iterator[np.ndarray]], plan: TrainingPlan) -> Iterator[tuple[int, float]]:
    started = time.perf_counter()
    bar = tqdm(range(plan.steps), desc="training", unit="step", mininterval=5)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        length = plan.block_lengths[step % len(plan.block_lengths)]
        batch = np.stack([next(blocks[length]) for _ in range(plan.tokens_per_step // length)]).astype(np.int64)
        with torch.autocast(model.device.type, torch.bfloat16):
            loss = next_token_loss(compiled, torch.from_numpy(batch).to(model.device))
        value = loss.item()
        if not math.isfinite(value):
            raise CourseError(f"The loss became {value} at step {step}: go back to the last checkpoint and use a "
                              "smaller learning rate.")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.gradient_clip)
        optimizer.step()
        tokens = (step + 1) * plan.tokens_per_step
        bar.set_postfix(loss=f"{value:.3f}", tokens_per_s=f"{tokens / (time.perf_counter() - started):.0f}")
        yield step, value
