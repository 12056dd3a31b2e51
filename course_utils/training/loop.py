"""The training loop: next-token loss, AdamW, warm-up and cosine decay, one update after another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.compilation import compile_or_eager, compiler_reason, warn_uncompiled
from course_utils.errors import ContextLengthError, CourseError, InputError
from course_utils.language import gettext
from course_utils.number import finite_number, require_whole_number
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import random_generator
from course_utils.training.dataset import IGNORED, Supply

BETAS = (0.9, 0.98)
_COMPILED_SHAPES = 8  # PyTorch compiles a function for no more and runs it uncompiled for others


@dataclass(frozen=True)
class TrainingPlan:
    """How to train. The same plan, data and initial weights give the same model, bit for bit on one CPU.

    Attributes:
        steps: number of updates.
        tokens_per_step: how many tokens each update sees.
        block_lengths: tokens that the model sees at once; the steps go through them in turn. Short blocks teach
            attention faster, for there is less to look at; long ones teach it to look far.
        micro_batches: in how many parts, one after the other, the tokens of a step are computed (gradient
            accumulation). More of them need less memory and give the same gradient, up to rounding.
        learning_rate: at its peak.
        warm_up_steps: over which the rate rises.
        decay_steps: where it would reach zero; None is `steps`. A larger one ends a stage before.
        weight_decay: of matrices; norms have none.
        gradient_clip: longest gradient let through.
        bfloat16: compute matrix products in bfloat16 (autocast). That is faster on processors which have
            instructions for it, and slower on others. Weights, gradients and moments are float32 either way.
        compiled: use `torch.compile` where it works, and as long as it does. It takes a while at the start, which a
            long run earns back.
        seed: of what is random in a step, such as the dropout of an adapter.

    Raises:
        InputError: if a number is out of its range, or the tokens of a step are no whole number of blocks.
    """

    steps: int
    tokens_per_step: int = 2048
    block_lengths: tuple[int, ...] = (512,)
    micro_batches: int = 1
    learning_rate: float = 3e-3
    warm_up_steps: int = 100
    decay_steps: int | None = None
    weight_decay: float = 0.1
    gradient_clip: float = 1.0
    bfloat16: bool = True
    compiled: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.block_lengths, (tuple, list)) or not self.block_lengths:
            raise InputError(gettext("block_lengths is {block_lengths!r}: give at least one, such as (512,).").format(
                block_lengths=self.block_lengths))
        what = gettext("A block length of the training plan")
        plain: dict[str, Any] = {"block_lengths": tuple(
            require_whole_number(what, length, 1) for length in self.block_lengths)}
        for name, least in (("steps", 1), ("tokens_per_step", 1), ("micro_batches", 1), ("warm_up_steps", 0),
                            ("seed", 0), ("decay_steps", 1)):
            if name != "decay_steps" or self.decay_steps is not None:
                what = gettext("{name} of the training plan").format(name=name)
                plain[name] = require_whole_number(what, getattr(self, name), least)
        random_generator(self.seed)  # it says how large a seed may be
        for name, positive in (("learning_rate", True), ("gradient_clip", True), ("weight_decay", False)):
            number = finite_number(getattr(self, name))
            if number is None or number < 0 or positive and number == 0:
                remedy = (gettext("{name} is {value!r} in the training plan: give a positive number.") if positive else
                          gettext("{name} is {value!r} in the training plan: give a number that is not negative."))
                raise InputError(remedy.format(name=name, value=getattr(self, name)))
            plain[name] = number
        for name, value in plain.items():
            object.__setattr__(self, name, value)  # as frozen dataclasses do it themselves
        for length in self.block_lengths:
            if self.tokens_per_step % (length * self.micro_batches):
                raise InputError(gettext("{tokens_per_step} tokens in a step are not {micro_batches} equal "
                                         "parts of whole blocks of {length}: make tokens_per_step a multiple "
                                         "of {whole}.").format(
                    tokens_per_step=self.tokens_per_step, micro_batches=self.micro_batches, length=length,
                    whole=length * self.micro_batches))
        if self.compiled and len(set(self.block_lengths)) > _COMPILED_SHAPES:
            raise InputError(gettext("The training plan has {count} different block lengths: give at most "
                                     "{compiled_shapes}, or compiled=False.").format(
                count=len(set(self.block_lengths)), compiled_shapes=_COMPILED_SHAPES))

    def rate(self, step: int) -> float:
        """Learning rate at a step: a straight line up, then half a cosine down to nothing."""
        if step < self.warm_up_steps:
            return self.learning_rate * (step + 1) / self.warm_up_steps
        progress = (step - self.warm_up_steps) / max(1, (self.decay_steps or self.steps) - self.warm_up_steps)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def next_token_loss(model: Callable[[Tensor], Tensor], token_ids: Tensor, labels: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of each token given those before it, in nats.

    Args:
        model: token ids, (b, t), to logits, (b, t, v).
        token_ids: (b, t + 1).
        labels: (b, t + 1), `IGNORED` where a token is only read, its id elsewhere; None counts them all. The first
            column is never predicted. If no token counts, the mean is NaN.
    """
    logits = model(token_ids[:, :-1])
    targets = (token_ids if labels is None else labels)[:, 1:]
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def ids_and_labels(blocks: np.ndarray, model: Qwen3Model) -> tuple[Tensor, Tensor]:
    """Blocks, (b, t + 1) or (b, 2, t + 1) with labels, as two tensors (b, t + 1) on the model's device.

    Raises:
        InputError: if there are none, an id is not in the vocabulary, or no token counts.
    """
    if blocks.ndim not in (2, 3) or blocks.size == 0:
        raise InputError(gettext("The blocks have shape {shape}: give (blocks, tokens), or (blocks, 2, tokens) with "
                                 "labels, and at least one.").format(shape=blocks.shape))
    token_ids, labels = (blocks, blocks) if blocks.ndim == 2 else (blocks[:, 0], blocks[:, 1])
    for ids in (token_ids, labels[labels != IGNORED]):
        if ids.size and not 0 <= ids.min() <= ids.max() < model.config.vocab_size:
            raise InputError(gettext("Token id {token_id} is not in the vocabulary of {vocab_size}: encode the text "
                                     "with this model's own tokenizer.").format(
                token_id=ids.min() if ids.min() < 0 else ids.max(), vocab_size=model.config.vocab_size))
    if _counted(labels) == 0:
        raise InputError("In none of the blocks does a token count: let some labels be the ids of their tokens.")
    ids_tensor, labels_tensor = (torch.from_numpy(array.astype(np.int64)).to(model.device)
                                 for array in (token_ids, labels))
    return ids_tensor, labels_tensor


def _counted(labels: np.ndarray | Tensor) -> int:
    """How many tokens count: as a target, so never those of the first column."""
    return int((labels[:, 1:] != IGNORED).sum())


def _weighted(token_ids: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Parts of `size` rows, each with its share of the tokens that count. Parts without any are left out."""
    for ids, part in zip(token_ids.split(size), labels.split(size)):
        if _counted(part):
            yield ids, part, _counted(part) / _counted(labels)


@torch.no_grad()
def held_out_loss(model: Qwen3Model, blocks: np.ndarray, batch_size: int = 4) -> float:
    """Mean loss over blocks the model was not trained on, in nats per token that counts.

    Args:
        blocks: (n, t + 1), or (n, 2, t + 1) with labels.
        batch_size: how many are computed at once.

    Raises:
        InputError: as `ids_and_labels`.
    """
    parts = _weighted(*ids_and_labels(blocks, model), batch_size)
    return sum(next_token_loss(model, ids, labels).item() * share for ids, labels, share in parts)


class Trainer:
    """A model in training, changed in place by one `update` after another.

    Only parameters that require a gradient are trained, so of a model with an adapter the adapter alone.

    Args:
        model: its trainable weights are float32. Between updates it is in `eval()` mode.
        blocks: for each block length of the plan a supply that does not end before the plan does.
        plan: how to train.

    Attributes:
        parameters: the trained ones, by name.
        optimizer: AdamW (https://arxiv.org/abs/1711.05101).
        supplies: the blocks, by length.
        steps_done: number of updates made.

    Raises:
        InputError: if nothing can be trained, weights are not float32, or blocks of some length are missing.
        ContextLengthError: if a block is longer than the model's context.
    """

    def __init__(self, model: Qwen3Model, blocks: Mapping[int, Iterable[np.ndarray]], plan: TrainingPlan) -> None:
        self.model, self.plan, self.steps_done = model.eval(), plan, 0
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise InputError("No parameter of this model requires a gradient, so there is nothing to train.")
        for name, parameter in self.parameters.items():
            if parameter.dtype != torch.float32:
                raise InputError(gettext("{name} is {dtype}: small updates would be lost in its rounding, load the "
                                         "model with dtype=torch.float32.").format(name=name, dtype=parameter.dtype))
        lengths = sorted(set(plan.block_lengths))
        missing = [length for length in lengths if length not in blocks]
        if missing:
            raise InputError(gettext("The plan asks for blocks of {missing} tokens, and there are only those of "
                                     "{there}.").format(
                missing=", ".join(map(str, missing)), there=", ".join(map(str, blocks)) or gettext("no length")))
        if lengths[-1] > model.config.max_position_embeddings:
            raise ContextLengthError(gettext("Blocks of {lengths} tokens are longer than the model's context of "
                                             "{max_position_embeddings}: plan shorter ones.").format(
                lengths=lengths[-1], max_position_embeddings=model.config.max_position_embeddings))
        self.supplies = {length: Supply(blocks[length], length) for length in lengths}
        matrices = [p for p in self.parameters.values() if p.dim() > 1]
        vectors = [p for p in self.parameters.values() if p.dim() <= 1]
        self.optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": plan.weight_decay},
                                            {"params": vectors, "weight_decay": 0.0}],
                                           lr=plan.learning_rate, betas=BETAS, fused=True)
        # Each block length gets code of its own. Code for any length would depend on which length came first, and
        # that is another one after a resumption.
        self._forward: Callable[[Tensor], Tensor] = (
            compile_or_eager(model, model.device, dynamic=False) if plan.compiled else model)
        self._compiled = self._forward is not model

    def update(self) -> float:
        """Make one update.

        Returns:
            The loss of its tokens before it, in nats per token that counts.

        Raises:
            InputError: if the blocks have come to an end, or hold ids that are not in the vocabulary.
            CourseError: if loss or gradient is no longer a finite number; the weights are as they were before.
        """
        plan = self.plan
        length = plan.block_lengths[self.steps_done % len(plan.block_lengths)]
        rows = plan.tokens_per_step // length
        token_ids, labels = ids_and_labels(self.supplies[length].take(rows), self.model)
        for group in self.optimizer.param_groups:
            group["lr"] = plan.rate(self.steps_done)
        with _training(self.model, (plan.seed + self.steps_done) % 2**64):
            loss = self._loss_and_gradient(token_ids, labels)
            norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), plan.gradient_clip).item()
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise CourseError(gettext("At step {steps_done} the loss is {loss} and the gradient's length "
                                          "{norm}: begin again, or from the last checkpoint, with a smaller "
                                          "learning rate.").format(
                    steps_done=self.steps_done + 1, loss=loss, norm=norm))
            self.optimizer.step()
        self.steps_done += 1
        return loss

    def _loss_and_gradient(self, token_ids: Tensor, labels: Tensor) -> float:
        """The loss of a step, and its gradient in the parameters; uncompiled from the step on in which that fails.

        What computes the gradient is compiled only when it is needed, so that may fail although the loss is there.
        """
        if not self._compiled:
            return self._add_up(self._forward, token_ids, labels)
        try:
            return self._add_up(self._forward, token_ids, labels)
        except Exception as error:  # whatever a compiler may say
            reason = compiler_reason(error)
        torch.manual_seed(self.plan.seed + self.steps_done)
        loss = self._add_up(self.model, token_ids, labels)  # what fails here, too, is not the compiler's fault
        self._forward, self._compiled = self.model, False
        warn_uncompiled(reason)
        return loss

    def _add_up(self, forward: Callable[[Tensor], Tensor], token_ids: Tensor, labels: Tensor) -> float:
        self.optimizer.zero_grad()
        loss = 0.0
        for ids, part, share in self.parts(token_ids, labels):
            with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.plan.bfloat16):
                # The mean over all tokens is that over the parts, each weighted by its share: gradients just add up.
                part_loss = self.loss(forward, ids, part) * share
            part_loss.backward()
            loss += part_loss.item()
        return loss

    def loss(self, forward: Callable[[Tensor], Tensor], token_ids: Tensor, labels: Tensor) -> Tensor:
        """What training makes smaller: `next_token_loss`."""
        return next_token_loss(forward, token_ids, labels)

    def parts(self, token_ids: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
        """The micro-batches of a step, each with its share of the tokens that count; those without any are left out."""
        return _weighted(token_ids, labels, len(token_ids) // self.plan.micro_batches)


@contextmanager
def _training(model: Qwen3Model, seed: int) -> Iterator[None]:
    """Within the block the model is in `train()` mode and gives the same results every time; then all is as before."""
    # Compiled, the embedding's gradient is otherwise added up in whatever order the threads arrive, so two runs would
    # differ. A GPU refuses some operations in this mode.
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic or model.device.type == "cpu")
    model.train()
    try:
        # Seeded for each step, chance needs no place in a checkpoint and is not disturbed by what happens between.
        with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
    finally:
        model.eval()
        torch.use_deterministic_algorithms(deterministic)
