"""Distillation against transformers and PyTorch's own divergence."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from test_model import SMALL, make, make_transformers, prompt, variant
from test_training import PLAN, masked, plan, some_blocks, some_labelled_blocks, supply, weights_of

from course_utils.errors import InputError
from course_utils.qwen3 import Qwen3Model
from course_utils.training.dataset import IGNORED
from course_utils.training.distillation import DistillingTrainer, distillation_loss
from course_utils.training.loop import Trainer


def another(**sizes: int) -> Qwen3Model:
    """A model with the same tokens, of another size."""
    torch.manual_seed(2)
    model = Qwen3Model(variant(**sizes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.1)
    return model.eval()


@pytest.mark.parametrize("labels", [prompt(3, 30), masked(prompt(3, 30))], ids=["all tokens", "some tokens"])
def test_the_loss_is_the_divergence_and_what_the_target_is_unsure_of(labels: torch.Tensor) -> None:
    model, target, token_ids = make(SMALL), another(hidden_size=32), prompt(3, 30)
    loss = distillation_loss(model, target, token_ids, labels)
    loss.backward()
    other, other_target = make_transformers(model), make_transformers(target)
    counts = labels[:, 1:] != IGNORED
    expected = other_target(token_ids[:, :-1]).logits[counts].double().log_softmax(-1).detach()
    unsure = -(expected.exp() * expected).sum(-1).mean()
    divergence = torch.nn.functional.kl_div(other(token_ids[:, :-1]).logits[counts].double().log_softmax(-1), expected,
                                            reduction="batchmean", log_target=True)
    assert loss.item() == pytest.approx((divergence + unsure).item(), rel=1e-5)
    divergence.backward()
    gradients = {name: p.grad for name, p in other.named_parameters()}
    for name, parameter in model.named_parameters():
        assert (parameter.grad - gradients[name]).abs().max() <= 1e-4 * gradients[name].abs().max(), name
    assert all(p.grad is None for p in target.parameters())


def test_a_model_learns_to_write_what_its_target_would() -> None:
    """From random text: what comes next there says nothing, only the target does."""
    target = another(hidden_size=16, num_hidden_layers=1)
    longer = plan(steps=150, learning_rate=1e-2, tokens_per_step=256, block_lengths=(32,))
    held_out = torch.stack([torch.from_numpy(block) for block in islice(some_blocks(32, seed=1), 8)])

    def fresh() -> Qwen3Model:
        torch.manual_seed(0)
        return Qwen3Model(SMALL)

    def agreement(trainer: Trainer) -> float:
        for _ in range(longer.steps):
            trainer.update()
        with torch.no_grad():
            return (trainer.model(held_out).argmax(-1) == target(held_out).argmax(-1)).double().mean().item()

    before = weights_of(target)
    assert agreement(DistillingTrainer(fresh(), target, supply(longer), longer)) > 0.3
    assert agreement(Trainer(fresh(), supply(longer), longer)) < 0.1
    assert torch.equal(weights_of(target), before)


def test_parts_of_a_step_add_up() -> None:
    ends = []
    for micro_batches in (1, 2):
        labelled = {length: some_labelled_blocks(length) for length in PLAN.block_lengths}
        trainer = DistillingTrainer(make(SMALL), another(hidden_size=32), labelled, plan(micro_batches=micro_batches))
        losses = [trainer.update() for _ in range(4)]
        ends.append((losses, weights_of(trainer.model)))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-4)
    torch.testing.assert_close(ends[0][1], ends[1][1], rtol=1e-3, atol=1e-4)


def test_both_need_the_same_tokens() -> None:
    with pytest.raises(InputError, match="has 210 tokens and the one it shall learn from 211: both need the same"):
        DistillingTrainer(make(variant(vocab_size=210)), make(SMALL), supply(), PLAN)
