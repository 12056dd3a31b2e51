"""The training loop against transformers and PyTorch's own AdamW; packing, the plan, and what is refused."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from functorch.compile import make_boxed_func
from test_model import SMALL, make, make_transformers, prompt, variant
from torch._dynamo.backends.common import aot_autograd

from course_utils import compilation
from course_utils.errors import CheckpointError, ContextLengthError, CourseError, InputError
from course_utils.qwen3 import Qwen3Model
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.training.bpe import train_bpe
from course_utils.training.dataset import IGNORED, Supply, epochs, label_answers, pack, pack_labelled, split
from course_utils.training.loop import BETAS, Trainer, TrainingPlan, held_out_loss, next_token_loss
from course_utils.training.records import Log, Record, read_log
from course_utils.training.run import train

PLAN = TrainingPlan(steps=6, tokens_per_step=64, block_lengths=(16, 32), warm_up_steps=2, bfloat16=False,
                    compiled=False)


def some_blocks(length: int, seed: int = 0) -> Iterator[np.ndarray]:
    rng = np.random.default_rng([seed, length])
    while True:
        yield rng.integers(SMALL.vocab_size, size=length + 1)


def some_labelled_blocks(length: int, share: float = 0.4) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(length)
    for block in some_blocks(length):
        yield np.stack([block, np.where(rng.random(length + 1) < share, block, IGNORED)])


def supply(plan: TrainingPlan = PLAN) -> dict[int, Iterator[np.ndarray]]:
    return {length: some_blocks(length) for length in plan.block_lengths}


def plan(**changes: object) -> TrainingPlan:
    return TrainingPlan(**{**vars(PLAN), **changes})


def weights_of(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for _, p in sorted(model.named_parameters())])


# Against transformers and PyTorch


def masked(token_ids: torch.Tensor, seed: int = 0) -> torch.Tensor:
    keep = torch.rand(token_ids.shape, generator=torch.Generator().manual_seed(seed)) < 0.3
    return token_ids.where(keep, IGNORED)


@pytest.mark.parametrize("labels", [None, masked(prompt(3, 30))], ids=["all tokens", "some tokens"])
def test_loss_and_gradients_equal_those_of_transformers(labels: torch.Tensor | None) -> None:
    model, token_ids = make(SMALL), prompt(3, 30)
    other = make_transformers(model)
    loss = next_token_loss(model, token_ids, labels)
    expected = other(token_ids, labels=token_ids if labels is None else labels).loss
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    gradients = {name: p.grad for name, p in other.named_parameters()}
    assert gradients.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert (parameter.grad - gradients[name]).abs().max() <= 1e-5 * gradients[name].abs().max(), name


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_updates_equal_those_of_adamw_on_transformers(micro_batches: int) -> None:
    model = make(SMALL)
    other, labelled = make_transformers(model), {length: some_labelled_blocks(length) for length in (16, 32)}
    trainer = Trainer(model, labelled, plan(micro_batches=micro_batches))
    groups = [{"params": [p for p in other.parameters() if p.dim() == dim], "weight_decay": decay}
              for dim, decay in ((2, PLAN.weight_decay), (1, 0.0))]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=BETAS, foreach=False)
    again = {length: some_labelled_blocks(length) for length in (16, 32)}
    before = weights_of(model)
    for step, length in enumerate((16, 32, 16, 32, 16)):
        batch = torch.from_numpy(np.stack(list(islice(again[length], 64 // length))))
        for group in optimizer.param_groups:
            group["lr"] = PLAN.rate(step)
        optimizer.zero_grad()
        expected = other(batch[:, 0], labels=batch[:, 1]).loss
        expected.backward()
        torch.nn.utils.clip_grad_norm_(other.parameters(), PLAN.gradient_clip)
        optimizer.step()
        assert trainer.update() == pytest.approx(expected.item(), rel=1e-5)
    moved = weights_of(model) - before
    # Adam divides by the gradient's size, so where a gradient is almost nothing its rounding errors count in full:
    # single weights may differ, all together do not.
    assert (moved - (weights_of(other) - before)).norm() <= 1e-4 * moved.norm()


# The loss, and what is summed up in parts


def test_the_loss_is_the_mean_over_the_tokens_that_count() -> None:
    model, token_ids = make(SMALL), prompt(2, 12)
    labels = masked(token_ids)
    log_probabilities = model(token_ids).log_softmax(-1)
    each = [-log_probabilities[row, column - 1, token_ids[row, column]].item()
            for row in range(2) for column in range(1, 12) if labels[row, column] != IGNORED]
    assert 3 < len(each) < 22
    assert next_token_loss(model, token_ids, labels).item() == pytest.approx(np.mean(each), rel=1e-5)
    stacked = torch.stack([token_ids, labels], dim=1).numpy()
    assert held_out_loss(model, stacked, batch_size=1) == pytest.approx(np.mean(each), rel=1e-5)


def test_what_is_not_to_be_learned_does_not_matter() -> None:
    """Labels at the ignored places, and everything behind the last one that counts, change nothing."""
    model, token_ids = make(SMALL), prompt(1, 20)
    labels = torch.full_like(token_ids, IGNORED)
    labels[0, 5:8] = token_ids[0, 5:8]
    changed = token_ids.clone()
    changed[0, 8:] = 0
    assert next_token_loss(model, changed, labels).item() == pytest.approx(
        next_token_loss(model, token_ids, labels).item(), rel=1e-6)


def gradient_after(micro_batches: int, labels_share: float) -> tuple[float, torch.Tensor]:
    chosen = plan(steps=1, tokens_per_step=128, block_lengths=(16,), micro_batches=micro_batches, gradient_clip=1e9)
    model = make(SMALL)
    loss = Trainer(model, {16: some_labelled_blocks(16, labels_share)}, chosen).update()
    return loss, torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("labels_share", [1.0, 0.3, 0.02])
def test_parts_add_up_to_the_whole(labels_share: float) -> None:
    """With two tokens in a hundred, some parts have none that counts."""
    loss, gradient = gradient_after(1, labels_share)
    for micro_batches in (2, 8):
        in_parts, its_gradient = gradient_after(micro_batches, labels_share)
        assert in_parts == pytest.approx(loss, rel=1e-5)
        assert (its_gradient - gradient).norm() <= 1e-5 * gradient.norm()


def test_only_what_requires_a_gradient_is_trained() -> None:
    model = make(SMALL)
    model.requires_grad_(False)
    model.model.layers[1].self_attn.q_proj.weight.requires_grad_(True)
    before = {name: p.clone() for name, p in model.named_parameters()}
    trainer = Trainer(model, supply(), PLAN)
    trainer.update()
    changed = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert changed == list(trainer.parameters) == ["model.layers.1.self_attn.q_proj.weight"]


def test_a_step_leaves_no_trace_but_in_the_weights() -> None:
    model = make(SMALL)
    trainer = Trainer(model, supply(), PLAN)
    state = torch.get_rng_state()
    trainer.update()
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled() and not model.training


# The plan


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    plan = TrainingPlan(steps=1_000, warm_up_steps=100, learning_rate=1e-3)
    rates = [plan.rate(step) for step in range(1_000)]
    assert rates[0] == pytest.approx(1e-5) and max(rates) == pytest.approx(1e-3)
    assert rates.index(max(rates)) in (99, 100)
    assert rates[100:] == sorted(rates[100:], reverse=True) and rates[-1] < 1e-8


@pytest.mark.parametrize(("changes", "message"), [
    ({"steps": 0}, "steps .*is 0"), ({"steps": 2.0}, "steps .*is 2.0"), ({"steps": True}, "steps .*is True"),
    ({"tokens_per_step": -1}, "tokens_per_step .*is -1"), ({"micro_batches": 0}, "micro_batches .*is 0"),
    ({"warm_up_steps": -1}, "warm_up_steps .*is -1"), ({"decay_steps": 0}, "decay_steps .*is 0"),
    ({"seed": -1}, "seed .*is -1"),
    ({"block_lengths": ()}, "at least one"), ({"block_lengths": 16}, "block_lengths is 16"),
    ({"block_lengths": (16, 0)}, "length.* is 0"), ({"block_lengths": (16, 24)}, "a multiple of 24"),
    ({"micro_batches": 3}, "3 equal parts of whole blocks of 16"), ({"learning_rate": 0.0}, "learning_rate is 0.0"),
    ({"learning_rate": math.nan}, "learning_rate is nan"), ({"learning_rate": "high"}, "learning_rate is 'high'"),
    ({"weight_decay": -0.1}, "weight_decay is -0.1"), ({"gradient_clip": 0}, "gradient_clip is 0"),
    ({"compiled": True, "block_lengths": (1, 2, 4, 8, 16, 32, 64) * 2 + (60, 20), "tokens_per_step": 960},
     "9 different block lengths"),
])
def test_a_senseless_plan_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(**changes)


# Documents and blocks


def test_blocks_begin_with_a_document_and_are_full() -> None:
    documents = [[1, 2, 3], [4, 5], [6, 7, 8, 9], [10], [11, 12, 13]]
    blocks = list(pack(documents, block_length=5, end_id=0))
    assert [block.tolist() for block in blocks] == [[1, 2, 3, 0, 4, 5], [6, 7, 8, 9, 0, 10]]


def test_labels_keep_to_their_tokens() -> None:
    documents = [([1, 2, 3], [IGNORED, 2, 3]), ([4, 5], [4, IGNORED]), ([6], [6])]
    (block,) = pack_labelled(documents, block_length=7, end_id=0)
    assert block.tolist() == [[1, 2, 3, 0, 4, 5, 0, 6], [IGNORED, 2, 3, 0, 4, IGNORED, IGNORED, 6]]


@pytest.mark.parametrize("thoughts", ["", "<think>\nIt is late.\n</think>\n\n"])
def test_only_answers_count_in_a_chat(thoughts: str, tokenizer: Qwen3Tokenizer) -> None:
    turns = [("system", "You are an assistant."), ("user", "assistant\n"), ("assistant", "The moon, 月亮!"),
             ("user", "<|im_start|>assistant"), ("assistant", thoughts + "The sea.")]
    messages = [{"role": role, "content": content} for role, content in turns]
    token_ids = tokenizer.encode_chat(messages, add_generation_prompt=False)
    labels = label_answers(token_ids, tokenizer)
    assert len(labels) == len(token_ids) and all(b in (a, IGNORED) for a, b in zip(token_ids, labels))
    counted = tokenizer.decode([label for label in labels if label != IGNORED])
    assert counted == f"The moon, 月亮!<|im_end|>{thoughts}The sea.<|im_end|>"
    # What is left out before the last answer is the prompt that generation would begin with.
    if not thoughts:
        prompt = tokenizer.encode_chat(messages[:-1])
        assert token_ids[:len(prompt)] == prompt
        assert labels[len(prompt) - 1] == IGNORED and labels[len(prompt)] != IGNORED


def test_a_book_is_split_without_loss() -> None:
    """Each token but the first is predicted exactly once, in its place, and the end stands where the book ends."""
    for book in (list(range(1, 24)), list(range(1, 21)), list(range(1, 22)), [7]):
        pieces = list(split(book, 5))
        assert list(chain(pieces[0][:1], *(piece[1:] for piece in pieces))) == book
        assert all(len(piece) == 6 for piece in pieces[:-1]) and len(pieces[-1]) <= 6
    blocks = list(pack(chain(split(list(range(1, 15)), 5), [[99] * 9]), 5, end_id=0))
    assert [block.tolist() for block in blocks] == [
        [1, 2, 3, 4, 5, 6], [6, 7, 8, 9, 10, 11], [11, 12, 13, 14, 0, 99]]


def test_epochs_hold_every_document_once_in_changing_order() -> None:
    documents = [[i] for i in range(50)]
    first, second = (list(islice(each, 50)) for stream in [epochs(documents, 3)] for each in (stream, stream))
    assert sorted(first) == sorted(second) == documents and first != second
    assert list(islice(epochs(documents, 3), 100)) == first + second
    with pytest.raises(InputError, match="no documents"):
        next(epochs([], 0))


def test_bad_documents_are_refused() -> None:
    for documents in ([[1, 2], [3]], []):
        with pytest.raises(InputError, match="do not fill one block of 9"):
            list(pack(documents, block_length=8, end_id=0))
    with pytest.raises(InputError, match="block_length is 0"):
        list(pack([[1]], block_length=0, end_id=0))
    with pytest.raises(InputError, match="2 tokens has 1 labels"):
        list(pack_labelled([([1, 2], [1])], 1, 0))


def test_blocks_that_end_or_have_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match="end after 3, before the training"):
        Supply(islice(some_blocks(4), 3), 4).take(4)
    with pytest.raises(InputError, match=r"shape \(5,\): for 8 tokens it must be \(9,\)"):
        Supply(some_blocks(4), 8).take(1)


# What a trainer refuses


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(InputError, match="asks for blocks of 32 tokens, and there are only those of 16"):
        Trainer(make(SMALL), {16: some_blocks(16)}, PLAN)
    with pytest.raises(ContextLengthError, match="32 tokens are longer than the model's context of 24"):
        Trainer(make(variant(max_position_embeddings=24)), supply(), PLAN)
    with pytest.raises(InputError, match="norm.weight is torch.bfloat16|embed_tokens.weight is torch.bfloat16"):
        Trainer(make(SMALL, torch.bfloat16), supply(), PLAN)
    with pytest.raises(InputError, match="nothing to train"):
        Trainer(make(SMALL).requires_grad_(False), supply(), PLAN)
    for name in ("save_every", "report_every"):
        with pytest.raises(InputError, match=f"{name} is 0"):
            train(make(SMALL), supply(), PLAN, **{name: 0})


def spoilt(length: int, value: int, row: slice) -> Iterator[np.ndarray]:
    for block in some_labelled_blocks(length):
        block[row, 3] = value
        yield block


@pytest.mark.parametrize(("value", "row", "message"), [
    (SMALL.vocab_size, slice(0, 2), "Token id 211 is not in the vocabulary of 211"),
    (-1, slice(0, 1), "Token id -1 is not"), (-7, slice(1, 2), "Token id -7 is not")])
def test_ids_beyond_the_vocabulary_are_refused(value: int, row: slice, message: str) -> None:
    model = make(SMALL)
    before = weights_of(model)
    trainer = Trainer(model, {length: spoilt(length, value, row) for length in (16, 32)}, PLAN)
    with pytest.raises(InputError, match=message):
        trainer.update()
    assert torch.equal(weights_of(model), before) and trainer.steps_done == 0
    with pytest.raises(InputError, match=message):
        train(model, supply(), PLAN, held_out=np.stack([next(spoilt(16, value, row))]))


def test_blocks_without_a_token_that_counts_are_refused() -> None:
    with pytest.raises(InputError, match="In none of the blocks"):
        Trainer(make(SMALL), {length: some_labelled_blocks(length, 0.0) for length in (16, 32)}, PLAN).update()
    with pytest.raises(InputError, match="at least one"):
        held_out_loss(make(SMALL), np.zeros((0, 17), dtype=np.int64))


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_that_is_no_number_changes_nothing(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(SMALL)
    trainer = Trainer(model, supply(), PLAN)
    trainer.update()
    before = weights_of(model)
    if what == "loss":
        model.model.norm.register_forward_hook(lambda *_: torch.full((4, 16, 48), math.nan, requires_grad=True))
    else:
        model.model.norm.weight.register_hook(lambda gradient: gradient * math.inf)
    trainer.plan = plan(block_lengths=(16,))
    with pytest.raises(CourseError, match="At step 2 the loss is"):
        trainer.update()
    assert torch.equal(weights_of(model), before) and trainer.steps_done == 1


# Records


def test_a_run_reports_every_step_and_measures_now_and_then(tmp_path: Path) -> None:
    model, held_out = make(SMALL), np.stack(list(islice(some_blocks(16, seed=9), 5)))
    samples = iter("abc")
    records = list(train(model, supply(), PLAN, tmp_path, report_every=4, held_out=held_out,
                         sample=lambda model: next(samples)))
    assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record.sample for record in records] == [None, None, None, "a", None, "b"]
    assert [record.held_out_loss is not None for record in records] == [False, False, False, True, False, True]
    assert records[-1].held_out_loss == held_out_loss(model, held_out)
    assert all(record.loss > 0 and record.tokens_per_second > 0 for record in records)
    assert read_log(tmp_path / "training.jsonl") == records


def test_a_log_drops_what_will_be_done_again_and_what_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Log(path, 0)
    records = [Record(step, 1.5, 100.0, sample="猫\n") for step in range(1, 6)]
    for record in records:
        log.write(record)
    with path.open("ab") as file:
        file.write('{"step": 6, "sample": "猫'.encode()[:-1])
    assert read_log(path) == records
    Log(path, 3).write(records[3])
    assert read_log(path) == records[:4]
    assert read_log(tmp_path / "none") == []


@pytest.mark.parametrize("line", ["{", "[]", '{"steps": 1}', '{"step": "1", "loss": 1, "tokens_per_second": 1}',
                                  "\xff"])
def test_a_foreign_log_is_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes((line + "\n").encode("latin-1"))
    with pytest.raises(CheckpointError, match="Line 1 of the log .* delete it"):
        read_log(tmp_path / "log")


# The tokenizer, and learning itself


def test_the_tokenizer_is_the_same_every_time() -> None:
    texts = ["the cat sat on the mat 猫坐在垫子上", "the dog sat on the log 狗坐在木头上"] * 20
    first, second = (train_bpe(texts, 300).to_str() for _ in range(2))
    assert first == second


def counting(length: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    starts = iter(lambda: int(rng.integers(200)), -1)
    return pack(([i % 200 + 1 for i in range(start, start + 40)] for start in starts), length, 0)


@pytest.mark.slow
def test_a_short_run_learns_and_resumes_compiled(tmp_path: Path) -> None:
    """With torch.compile and bfloat16: a run on a pattern that can be learned ends much better than it began, and one
    that was stopped ends the same, though the block lengths come in another order after the stop."""
    plan = TrainingPlan(steps=40, tokens_per_step=128, block_lengths=(32, 64), warm_up_steps=5, learning_rate=1e-2)

    def run(stop: int) -> tuple[Qwen3Model, list[Record]]:
        for until in {stop, plan.steps}:
            torch.manual_seed(0)
            model = Qwen3Model(SMALL)
            steps = train(model, {length: counting(length) for length in plan.block_lengths}, plan,
                          tmp_path / str(stop))
            for record in steps:
                if record.step == until:
                    break
            steps.close()
        return model, read_log(tmp_path / str(stop) / "training.jsonl")

    (whole, records), (resumed, its_records) = run(plan.steps), run(13)
    assert torch.equal(weights_of(whole), weights_of(resumed))
    losses = [record.loss for record in records]
    assert losses == [record.loss for record in its_records] and len(losses) == 40
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    assert held_out_loss(whole, np.stack(list(islice(counting(32), 100, 104)))) < 0.5 * losses[0]


# A compiler that fails in the middle


@pytest.mark.parametrize("when", ["loss", "gradient"])
def test_a_compiler_that_fails_leaves_the_training_uncompiled(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the weights of one that was never compiled, and a warning that says why."""
    def good(graph: torch.fx.GraphModule, example_inputs: object) -> Callable[..., object]:
        return make_boxed_func(graph.forward)

    def failing(graph: torch.fx.GraphModule, example_inputs: object) -> Callable[..., object]:
        raise OSError(28, "No space left on device")

    backend = aot_autograd(fw_compiler=failing if when == "loss" else good, bw_compiler=failing)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    monkeypatch.setattr(compilation, "compile_problem", lambda device: None)
    torch.compiler.reset()
    models = []
    for compiled in (False, True):
        model, steps = make(SMALL), plan(compiled=compiled, bfloat16=False)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert len(list(train(model, supply(steps), steps))) == 6
        reasons = [str(warning.message) for warning in said if "uncompiled" in str(warning.message)]
        assert len(reasons) == compiled and all("No space left on device" in reason for reason in reasons)
        models.append(model)
    assert torch.equal(*map(weights_of, models))
