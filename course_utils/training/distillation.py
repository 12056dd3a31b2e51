"""Distillation: a small model learns from the probabilities that a large one gives, not from the text alone.

A draft model is trained like this at last: the better it foresees what its target would write, the more of its tokens
are accepted (https://arxiv.org/abs/2310.08461).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.qwen3 import Qwen3Model
from course_utils.training.dataset import IGNORED
from course_utils.training.loop import Trainer, TrainingPlan


def distillation_loss(model: Callable[[Tensor], Tensor], target: Callable[[Tensor], Tensor], token_ids: Tensor,
                      labels: Tensor) -> Tensor:
    """Mean cross-entropy between two models' probabilities of the next token, in nats.

    It is least where both are the same, and then as large as the target is unsure (https://arxiv.org/abs/1503.02531).

    Args:
        model: the one that learns: token ids, (b, t), to logits, (b, t, v).
        target: the one that it learns from; it gets no gradient.
        token_ids: (b, t + 1).
        labels: (b, t + 1), `IGNORED` where a token is only read; what they are elsewhere makes no difference.
    """
    counts = labels[:, 1:] != IGNORED
    with torch.no_grad():
        probabilities = target(token_ids[:, :-1])[counts].float().softmax(-1)
    return F.cross_entropy(model(token_ids[:, :-1])[counts].float(), probabilities)


class DistillingTrainer(Trainer):
    """As `Trainer`, but the model learns from the probabilities of `target` instead of the text's own tokens.

    Raises:
        InputError: also if the vocabularies differ.
    """

    def __init__(self, model: Qwen3Model, target: Qwen3Model, blocks: Mapping[int, Iterable[np.ndarray]],
                 plan: TrainingPlan) -> None:
        sizes = model.config.vocab_size, target.config.vocab_size
        if sizes[0] != sizes[1]:
            raise InputError(gettext("The model has {own} tokens and the one it shall learn from {target}: both need "
                                     "the same tokenizer.").format(own=sizes[0], target=sizes[1]))
        super().__init__(model, blocks, plan)
        self.target = target.eval()

    def loss(self, forward: Callable[[Tensor], Tensor], token_ids: Tensor, labels: Tensor) -> Tensor:
        """`distillation_loss`."""
        return distillation_loss(forward, self.target, token_ids, labels)
