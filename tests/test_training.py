"""The loop that made the bundled models: packing, the plan, and that a short run learns."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from test_model import SMALL, make, make_transformers, prompt

from course_utils.errors import InputError
from course_utils.qwen3 import Qwen3Model
from course_utils.training.bpe import train_bpe
from course_utils.training.dataset import pack
from course_utils.training.loop import TrainingPlan, held_out_loss, next_token_loss, train


def test_blocks_begin_with_a_document_and_are_full() -> None:
    documents = [[1, 2, 3], [4, 5], [6, 7, 8, 9], [10], [11, 12, 13]]
    blocks = list(pack(documents, block_length=5, end_id=0))
    assert [block.tolist() for block in blocks] == [[1, 2, 3, 0, 4, 5], [6, 7, 8, 9, 0, 10]]


def test_too_little_text_is_refused() -> None:
    with pytest.raises(InputError, match="do not fill one block of 9"):
        list(pack([[1, 2], [3]], block_length=8, end_id=0))
    with pytest.raises(InputError, match="65536 is above 65535"):
        list(pack([[65_536] * 9], block_length=8, end_id=0))


def test_the_loss_equals_that_of_transformers() -> None:
    model = make(SMALL)
    expected = make_transformers(model)(prompt(2, 30), labels=prompt(2, 30)).loss
    assert next_token_loss(model, prompt(2, 30)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    plan = TrainingPlan(steps=1_000, warm_up_steps=100, learning_rate=1e-3)
    rates = [plan.rate(step) for step in range(1_000)]
    assert rates[0] == pytest.approx(1e-5) and max(rates) == pytest.approx(1e-3)
    assert rates.index(max(rates)) in (99, 100)
    assert rates[100:] == sorted(rates[100:], reverse=True) and rates[-1] < 1e-8


def test_the_tokenizer_is_the_same_every_time() -> None:
    texts = ["the cat sat on the mat 猫坐在垫子上", "the dog sat on the log 狗坐在木头上"] * 20
    first, second = (train_bpe(texts, 300).to_str() for _ in range(2))
    assert first == second


@pytest.mark.slow
def test_a_short_run_learns_and_repeats() -> None:
    """Two runs from the same seed on a pattern that can be learned: both end the same, and much better."""
    plan = TrainingPlan(steps=40, tokens_per_step=128, block_lengths=(32,), warm_up_steps=5, learning_rate=1e-2)

    def run() -> tuple[list[float], float]:
        torch.manual_seed(0)
        model = Qwen3Model(SMALL)
        rng = np.random.default_rng(0)
        starts = iter(lambda: int(rng.integers(200)), -1)
        documents = ([i % 200 + 1 for i in range(start, start + 40)] for start in starts)
        blocks = {length: pack(documents, length, 0) for length in plan.block_lengths}
        held_out = np.stack(list(islice(blocks[32], 4)))
        losses = [loss for _, loss in train(model, blocks, plan)]
        return losses, held_out_loss(model, held_out)

    (first, held_out), (second, _) = run(), run()
    assert first == second
    assert np.mean(first[-5:]) < 0.5 * first[0]
    assert held_out < 0.5 * first[0]
