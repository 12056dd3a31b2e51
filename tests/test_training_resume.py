"""A run that was stopped, by whatever means, ends with the same weights as one that was not; and what is on the disk
is always a whole checkpoint."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import training_process
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_model import SMALL, make, variant
from test_training import PLAN, plan, some_blocks, some_labelled_blocks, supply, weights_of
from training_process import PLAN as LONG
from training_process import fresh_blocks, fresh_model

from course_utils.checkpoint import load_checkpoint
from course_utils.errors import CheckpointError, CourseError, InputError
from course_utils.loading import load_tokenizer
from course_utils.qwen3 import Qwen3Model
from course_utils.training import __main__ as command
from course_utils.training import checkpoints, recipes, run
from course_utils.training.checkpoints import load_training, save_training
from course_utils.training.dataset import IGNORED
from course_utils.training.loop import Trainer, TrainingPlan
from course_utils.training.records import read_log
from course_utils.training.run import CHECKPOINT, LOG, train

REPOSITORY = Path(__file__).resolve().parent.parent
PLANS = {
    "two block lengths": PLAN,
    "in parts": plan(micro_batches=2, weight_decay=0.5),
    "three lengths, bfloat16": plan(block_lengths=(8, 64, 16), bfloat16=True),
}


@pytest.fixture(autouse=True)
def ctrl_c_interrupts() -> Iterator[None]:
    """As in a terminal: tests that run in the background begin by ignoring it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run_until(stop: int, plan: TrainingPlan, folder: Path, model: Qwen3Model | None = None,
              **options: Any) -> Qwen3Model:
    """A fresh model and fresh blocks, as a new process would have them, trained until `stop` steps are done."""
    model = make(SMALL) if model is None else model
    steps = train(model, supply(plan), plan, folder, **options)
    for record in steps:
        if record.step == stop:
            break
    steps.close()
    return model


# The same weights


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_stopped_and_resumed_is_the_same_as_not_stopped(plan: TrainingPlan, tmp_path: Path) -> None:
    whole = run_until(6, plan, tmp_path / "whole")
    for stops in ((3, 6), (1, 2, 5, 6)):
        for stop in stops:
            resumed = run_until(stop, plan, tmp_path / str(stops))
        assert torch.equal(weights_of(resumed), weights_of(whole))
        assert contents(tmp_path / str(stops))[CHECKPOINT] == contents(tmp_path / "whole")[CHECKPOINT]
        records, expected = (read_log(tmp_path / name / LOG) for name in (str(stops), "whole"))
        assert [(r.step, r.loss) for r in records] == [(r.step, r.loss) for r in expected]


class Dropout(torch.nn.Module):
    """A layer with chance in it, as an adapter may have."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(self.layer(x), 0.3, self.training)


def test_chance_and_a_part_of_the_weights_resume_too(tmp_path: Path) -> None:
    """Dropout falls as it would have, whatever draws numbers in between; weights that are not trained stay out."""

    def part() -> Qwen3Model:
        model = make(SMALL)
        model.requires_grad_(False)
        model.model.layers[0].mlp.requires_grad_(True)
        model.model.layers[0].mlp.down_proj = Dropout(model.model.layers[0].mlp.down_proj)
        return model

    whole = run_until(6, PLAN, tmp_path / "whole", part())
    for stop in (2, 6):
        torch.rand(stop)
        resumed = run_until(stop, PLAN, tmp_path / "resumed", part(), report_every=1,
                            sample=lambda model: str(torch.rand(1)))
    assert torch.equal(weights_of(resumed), weights_of(whole))
    assert not torch.equal(weights_of(whole), weights_of(run_until(6, plan(seed=7), tmp_path / "other", part())))
    names = {name.split("layers.0.mlp.")[-1] for name in load_file(tmp_path / "whole" / CHECKPOINT)}
    assert names == {"gate_proj.weight", "up_proj.weight", "down_proj.layer.weight"}


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    whole = run_until(6, PLAN, tmp_path)
    before = contents(tmp_path)
    model = make(SMALL)
    assert list(train(model, supply(), PLAN, tmp_path)) == []
    assert torch.equal(weights_of(model), weights_of(whole)) and contents(tmp_path) == before


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(list(train(make(SMALL), supply(), PLAN))) == 6
    assert not list(tmp_path.iterdir())


def test_the_file_is_safetensors_and_json(tmp_path: Path) -> None:
    run_until(2, PLAN, tmp_path)
    with safe_open(tmp_path / CHECKPOINT, framework="pt") as file:
        state = json.loads(file.metadata()["course_utils.training"])
    assert state["steps_done"] == 2 and state["plan"]["learning_rate"] == PLAN.learning_rate
    assert {length: taken for length, (taken, _) in state["blocks"].items()} == {"16": 4, "32": 2}
    weights = {name.removeprefix("weights."): tensor for name, tensor in load_file(tmp_path / CHECKPOINT).items()
               if name.startswith("weights.")}
    assert weights.keys() == dict(make(SMALL).named_parameters()).keys()


# Interruptions within one process


def at_update(number: int, do: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something happen in the middle of an update: some of the weights are new then, the others old."""
    original, calls = torch.optim.AdamW.step, []

    def step(optimizer: torch.optim.AdamW) -> None:
        calls.append(1)
        matrices, vectors = optimizer.param_groups
        for chosen in ([matrices], [vectors]):
            optimizer.param_groups = chosen
            original(optimizer)
            if len(calls) == number and chosen == [matrices]:
                do()
        optimizer.param_groups = [matrices, vectors]

    monkeypatch.setattr(torch.optim.AdamW, "step", step)


def steps_saved(folder: Path) -> int:
    trainer = Trainer(make(SMALL), supply(), PLAN)
    load_training(trainer, folder / CHECKPOINT)
    return trainer.steps_done


def test_ctrl_c_waits_for_the_step_and_saves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_until(6, PLAN, tmp_path / "whole")
    with monkeypatch.context() as patch:
        at_update(4, lambda: signal.raise_signal(signal.SIGINT), patch)
        with pytest.raises(KeyboardInterrupt):
            run_until(6, PLAN, tmp_path / "stopped")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert steps_saved(tmp_path / "stopped") == len(read_log(tmp_path / "stopped" / LOG)) == 4
    assert torch.equal(weights_of(run_until(6, PLAN, tmp_path / "stopped")), weights_of(whole))


def test_a_second_ctrl_c_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_until(6, PLAN, tmp_path / "whole")
    with monkeypatch.context() as patch:
        at_update(4, lambda: [signal.raise_signal(signal.SIGINT) for _ in range(2)], patch)
        with pytest.raises(KeyboardInterrupt):
            run_until(6, PLAN, tmp_path / "stopped", save_every=2)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert steps_saved(tmp_path / "stopped") == 2 and len(read_log(tmp_path / "stopped" / LOG)) == 3
    assert torch.equal(weights_of(run_until(6, PLAN, tmp_path / "stopped")), weights_of(whole))


def test_ctrl_c_while_saving_is_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        save_file(*arguments, **options)

    monkeypatch.setattr(checkpoints, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_until(6, PLAN, tmp_path, save_every=3)
    assert steps_saved(tmp_path) == 3 and len(contents(tmp_path)) == 2


def test_an_error_of_the_reader_saves_what_was_done(tmp_path: Path) -> None:
    for steps, error in ((2, RuntimeError), (4, KeyboardInterrupt)):
        with pytest.raises(error):
            for record in train(make(SMALL), supply(), PLAN, tmp_path):
                if record.step == steps:
                    raise error
        assert steps_saved(tmp_path) == steps


def test_who_ignores_ctrl_c_goes_on_to(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with run.interrupts_held_back():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


# Failures


def test_a_training_that_fails_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_until(2, PLAN, tmp_path)
    before = contents(tmp_path)[CHECKPOINT]
    model = make(SMALL)
    model.model.norm.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(CourseError, match="At step 3 .* last checkpoint"):
        list(train(model, supply(), PLAN, tmp_path))
    assert contents(tmp_path)[CHECKPOINT] == before
    with pytest.raises(InputError, match="end after 6, before the training"):
        list(train(make(SMALL), {16: (b for b, _ in zip(some_blocks(16), range(6))), 32: some_blocks(32)}, PLAN,
                   tmp_path))
    assert contents(tmp_path)[CHECKPOINT] == before


@pytest.mark.parametrize("full", ["the checkpoint", "the renaming", "the log"])
def test_a_full_disk_leaves_the_last_checkpoint(full: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_until(6, PLAN, tmp_path / "whole")
    folder = tmp_path / "stopped"
    run_until(2, PLAN, folder)
    before, attempts = contents(folder)[CHECKPOINT], []

    def no_space(*arguments: Any, **_: Any) -> None:
        attempts.append(arguments)
        if full == "the checkpoint":
            arguments[1].write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        steps = train(make(SMALL), supply(), PLAN, folder, save_every=4)
        if full == "the checkpoint":
            patch.setattr(checkpoints, "save_file", no_space)
        elif full == "the renaming":
            patch.setattr(os, "replace", no_space)
        else:
            patch.setattr(Path, "open", no_space)
        with pytest.raises(CheckpointError, match=r"No space left on device.*[Ff]ree disk space"):
            list(steps)
    assert full == "the log" or len(attempts) == 1
    assert contents(folder).keys() == {CHECKPOINT, LOG} and contents(folder)[CHECKPOINT] == before
    assert torch.equal(weights_of(run_until(6, PLAN, folder)), weights_of(whole))


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CheckpointError, match="could not be written"):
        train(make(SMALL), supply(), PLAN, tmp_path / "file")


def damage(path: Path, how: str) -> None:
    content, tensors = path.read_bytes(), load_file(path)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    state = json.loads(header["course_utils.training"])
    name = "weights.model.norm.weight"
    if how in ("cut", "empty", "page"):
        path.write_bytes({"cut": content[:-100], "empty": b"", "page": b"<html>Log in</html>"}[how])
        return
    if how == "a model":
        header = {}
    elif how == "no step":
        del state["steps_done"]
    elif how == "no blocks":
        state["blocks"] = {}
    elif how == "too many steps":
        state["steps_done"] = 7
    elif how == "other shape":
        tensors[name] = tensors[name][1:].clone()
    elif how == "other type":
        tensors[name] = tensors[name].double()
    elif how == "no moment":
        del tensors["exp_avg.model.norm.weight"]
    elif how == "unknown":
        tensors["weights.model.lora"] = torch.zeros(3)
    if how != "a model":
        header["course_utils.training"] = json.dumps(state)
    save_file(tensors, path, metadata=header)


@pytest.mark.parametrize(("how", "message"), [
    ("cut", "is damaged or cut short"), ("empty", "is empty"), ("page", "is an HTML page"),
    ("a model", "is not a checkpoint of a training"), ("no step", "is not a checkpoint of a training"),
    ("no blocks", "is not a checkpoint of a training"),
    ("too many steps", "is not a checkpoint of a training"), ("other shape", "norm.weight .* of another shape"),
    ("other type", "norm.weight"), ("no moment", "exp_avg.model.norm.weight"), ("unknown", "weights.model.lora")])
def test_a_damaged_or_foreign_file_is_refused(how: str, message: str, tmp_path: Path) -> None:
    run_until(2, PLAN, tmp_path)
    damage(tmp_path / CHECKPOINT, how)
    before, model = contents(tmp_path), make(SMALL)
    with pytest.raises(CheckpointError, match=message) as error:
        train(model, supply(), PLAN, tmp_path)
    assert "\n" not in str(error.value)
    assert torch.equal(weights_of(model), weights_of(make(SMALL))) and contents(tmp_path) == before


def test_another_training_is_refused(tmp_path: Path) -> None:
    run_until(2, PLAN, tmp_path)
    before, model = contents(tmp_path), make(SMALL)
    other = make(variant(rms_norm_eps=1e-5))
    labelled = {length: some_labelled_blocks(length) for length in PLAN.block_lengths}
    short = {16: (b for b, _ in zip(some_blocks(16), range(3))), 32: some_blocks(32)}
    for refused, message in (
            (lambda: train(model, supply(), plan(learning_rate=1.0, steps=7), tmp_path),
             "with another plan .steps 6 instead of 7, learning_rate 0.003 instead of 1.0"),
            (lambda: train(other, supply(), PLAN, tmp_path), "another config .rms_norm_eps 1e-06 instead of 1e-05"),
            (lambda: train(model, labelled, PLAN, tmp_path), "blocks of 16 tokens are not those"),
            (lambda: train(model, short, PLAN, tmp_path), "took 4 blocks of 16 tokens, and now there are 3")):
        with pytest.raises(CheckpointError, match=message):
            refused()
    assert torch.equal(weights_of(model), weights_of(make(SMALL))) and contents(tmp_path) == before


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    for name in (CHECKPOINT, LOG, "settings.json"):
        (tmp_path / f".{name}.123.tmp").write_text("half")
    (tmp_path / ".mine.tmp").write_text("not ours")
    assert len(list(train(make(SMALL), supply(), PLAN, tmp_path))) == 6
    assert contents(tmp_path).keys() == {CHECKPOINT, LOG, ".mine.tmp"}


def test_a_checkpoint_of_before_the_first_step(tmp_path: Path) -> None:
    trainer = Trainer(make(SMALL), supply(), PLAN)
    save_training(trainer, tmp_path / CHECKPOINT)
    trainer.update()
    load_training(Trainer(make(SMALL), supply(), PLAN), tmp_path / CHECKPOINT)


def test_two_trainings_in_one_folder(tmp_path: Path) -> None:
    """The second one says so and changes nothing; it may begin as soon as the first has ended, however that was."""
    first = train(make(SMALL), supply(), PLAN, tmp_path, save_every=1)
    next(first)
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match="Another training is going on in .* choose another folder"):
        train(make(SMALL), supply(), PLAN, tmp_path)
    assert contents(tmp_path) == before
    first.close()
    train(make(SMALL), supply(), PLAN, tmp_path)  # which is let go unused
    with pytest.raises(CheckpointError, match="another plan"):
        train(make(SMALL), supply(), plan(steps=7), tmp_path)
    assert [record.step for record in train(make(SMALL), supply(), PLAN, tmp_path)] == [2, 3, 4, 5, 6]
    assert contents(tmp_path).keys() == {CHECKPOINT, LOG}


def test_ctrl_c_while_the_handlers_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It strikes as soon as it can, and finds all others in their places again."""
    terminated = signal.signal(signal.SIGTERM, lambda *_: None)
    before, change = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}, signal.signal

    def change_and_strike(number: signal.Signals, handler: Any) -> Any:
        old = change(number, handler)
        if handler is before[signal.SIGINT]:
            signal.raise_signal(signal.SIGINT)
        return old

    try:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(signal, "signal", change_and_strike)
            with run.interrupts_held_back():
                pass
        assert {number: signal.getsignal(number) for number in before} == before
    finally:
        signal.signal(signal.SIGTERM, terminated)


# Interruptions of a real process


@pytest.mark.parametrize(("number", "die"), [(signal.SIGINT, ()), (signal.SIGKILL, ("die",))],
                         ids=["Ctrl-C", "killed while it saves"])
def test_a_process_that_was_stopped_resumes(number: signal.Signals, die: tuple[str, ...], tmp_path: Path) -> None:
    whole = fresh_model()
    for _ in train(whole, fresh_blocks(), LONG):
        pass
    child = subprocess.Popen(
        [sys.executable, training_process.__file__, str(tmp_path), str(torch.get_num_threads()), *die],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    try:
        assert child.stdout is not None
        while not die and child.stdout.readline() not in ("25\n", ""):
            pass
        if not die:
            with pytest.raises(CheckpointError, match="in another process"):
                train(fresh_model(), fresh_blocks(), LONG, tmp_path)
            child.send_signal(number)
        _, errors = child.communicate(timeout=120)
    finally:
        child.kill()
    assert child.returncode == -number, errors
    trainer = Trainer(fresh_model(), fresh_blocks(), LONG)
    load_training(trainer, tmp_path / CHECKPOINT)
    if die:
        assert trainer.steps_done == 20 and any(name.endswith(".tmp") for name in contents(tmp_path))
    else:
        assert trainer.steps_done == len(read_log(tmp_path / LOG)) >= 25
    resumed = fresh_model()
    records = list(train(resumed, fresh_blocks(), LONG, tmp_path))
    assert records[0].step == trainer.steps_done + 1 and records[-1].step == 60
    assert torch.equal(weights_of(resumed), weights_of(whole))
    assert [record.step for record in read_log(tmp_path / LOG)] == list(range(1, 61))
    assert contents(tmp_path).keys() == {CHECKPOINT, LOG}


# The recipes


def test_a_recipe_resumes_in_either_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = variant(vocab_size=recipes.VOCAB_SIZE, hidden_size=16, head_dim=4, num_hidden_layers=1)
    small = plan(steps=4, tokens_per_step=64, block_lengths=(32, 64))

    def recipe(share: float) -> recipes.Recipe:
        return recipes.Recipe(config, (recipes.Stage(small, recipes.EVEN, seed=0), recipes.Stage(
            small, recipes.MORE_WORDS, seed=5, answers_only=True, share=share)))

    monkeypatch.setitem(recipes.RECIPES, "tiny", recipe(0.25))
    tokenizer, lines = REPOSITORY / "data" / "tiny", []

    whole = recipes.train_bundled("tiny", tmp_path / "whole", tokenizer, report=lines.append)
    assert [line.split(":")[0] for line in lines] == ["stage 1, step 4 of 4", "stage 2, step 4 of 4"]
    assert "Once upon a time," in lines[0]
    exported = load_checkpoint(tmp_path / "whole")
    assert torch.equal(weights_of(exported), weights_of(whole).bfloat16())

    interrupt = pytest.raises(KeyboardInterrupt)
    for number in (2, 3):  # in the first stage, then in the second
        with monkeypatch.context() as patch, interrupt:
            at_update(number, lambda: signal.raise_signal(signal.SIGINT), patch)
            recipes.train_bundled("tiny", tmp_path / "resumed", tokenizer)
        # A stage that has come to its end leaves a model that can be used.
        assert (tmp_path / "resumed" / "model.safetensors").exists() == (number == 3)
    shutil.copytree(tmp_path / "resumed", tmp_path / "elsewhere", ignore=shutil.ignore_patterns("training"))
    resumed = recipes.train_bundled("tiny", tmp_path / "resumed", tokenizer)
    assert torch.equal(weights_of(resumed), weights_of(whole))
    second = recipes.train_bundled("tiny", tmp_path / "elsewhere", first_stage=2)
    assert torch.equal(weights_of(second), weights_of(whole))

    ends = []  # at the beginning of the second stage, and at its end
    for share in (0.0, 1.0):
        monkeypatch.setitem(recipes.RECIPES, "tiny", recipe(share))
        ends.append(weights_of(recipes.train_bundled("tiny", tmp_path / f"share {share}", tokenizer)))
    assert not torch.equal(*ends)
    torch.testing.assert_close(weights_of(whole), 0.75 * ends[0] + 0.25 * ends[1], rtol=0.01, atol=1e-4)


def test_a_recipe_that_distills_resumes_and_needs_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = variant(vocab_size=recipes.VOCAB_SIZE, hidden_size=16, head_dim=4, num_hidden_layers=1)
    small = plan(steps=4, tokens_per_step=64, block_lengths=(32, 64))

    def trained(folder: str, distills: bool = True, **options: Any) -> torch.Tensor:
        stage = recipes.Stage(small, recipes.EVEN, seed=0, distills=distills)
        monkeypatch.setitem(recipes.RECIPES, "nano", recipes.Recipe(config, (stage,)))
        return weights_of(recipes.train_bundled("nano", tmp_path / folder, **options))

    with pytest.raises(InputError, match="learns from the model that it drafts for.*--target"):
        trained("without")
    assert not (tmp_path / "without").exists()
    tiny = REPOSITORY / "data" / "tiny"
    whole = trained("whole", target=tiny)
    assert not torch.equal(whole, trained("of the text", distills=False, target=tiny))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        at_update(2, lambda: signal.raise_signal(signal.SIGINT), patch)
        trained("resumed", target=tiny)
    assert torch.equal(trained("resumed", target=tiny), whole)


def test_where_only_answers_count_questions_are_read() -> None:
    tokenizer = load_tokenizer("tiny")
    mixture = {"notion": 1, "outside": 1, "context": 1, "story": 1}
    ids, labels = next(recipes.blocks_of(tokenizer, 400, 5, mixture, answers_only=True))
    parts = islice(recipes.documents_in_parts(5, tokenizer.chat_template, mixture), 40)
    end = "<|endoftext|>"
    read, counted = zip(*((asked + rest + end, rest + end) for _, asked, rest in parts))
    assert "".join(read).startswith(tokenizer.decode(ids.tolist(), skip_special_tokens=False))
    assert "".join(counted).startswith(tokenizer.decode(labels[labels != IGNORED].tolist(), skip_special_tokens=False))
    assert 0.3 < (labels != IGNORED).mean() < 0.9


@pytest.mark.parametrize("stage", [0, len(recipes.RECIPES["tiny"].stages) + 1])
def test_a_stage_that_is_not_there(tmp_path: Path, stage: int) -> None:
    with pytest.raises(InputError, match=f"no stage {stage}"):
        recipes.train_bundled("tiny", tmp_path, first_stage=stage)


def test_the_command_says_that_it_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "train_bundled", interrupted)
    monkeypatch.setattr(sys, "argv", ["training", "tiny", "--out", str(tmp_path)])
    assert command.main() == 130
    assert "goes on" in capsys.readouterr().err
