"""Two processes against one: the same logits, tokens and training; and what a process that fails leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import distributed_worker
import pytest
import torch
from distributed_worker import CONFIGS, PLAN, forward_and_generate, fresh_model, labelled_batch, labelled_blocks
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from course_utils.distributed import launch
from course_utils.distributed.example import small_training
from course_utils.distributed.launch import process_group, torchrun
from course_utils.distributed.tensor_parallel import local_config
from course_utils.errors import CourseError, InputError
from course_utils.generation import generate_text_basic_cache
from course_utils.loading import load_model, load_tokenizer
from course_utils.training.loop import Trainer, next_token_loss
from course_utils.training.run import CHECKPOINT, LOG, train

COURSE = ("-m", "course_utils.distributed")
SMALL = CONFIGS["grouped, tied"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, torch.Tensor], dict[str, str]]]:
    """Of each process the tensors it computed and what it was refused."""
    folder = tmp_path_factory.mktemp("distributed")
    assert torchrun([distributed_worker.__file__, str(folder)]) == {"processes": 2}
    return [(load_file(folder / f"{number}.safetensors"), json.loads((folder / f"{number}.json").read_text()))
            for number in range(2)]


# Tensor parallelism


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_a_divided_model_computes_and_writes_what_the_whole_one_does(name: str, results: list[Any]) -> None:
    expected = forward_and_generate(fresh_model(CONFIGS[name]), CONFIGS[name])
    keys = expected.pop("keys")  # (layers, b, key-value heads, s, k)
    for tensors, _ in results:
        for what, tensor in expected.items():
            found = tensors[f"{name}: {what}"]
            if tensor.is_floating_point():
                assert (found - tensor).abs().max() <= 1e-4 * tensor.abs().max(), what
            else:
                assert found.equal(tensor), what
    for tensor in expected:  # not only close to one process's, but to the last bit those of the other
        assert results[0][0][f"{name}: {tensor}"].equal(results[1][0][f"{name}: {tensor}"])
    together = torch.cat([tensors[f"{name}: keys"] for tensors, _ in results], dim=2)
    assert [tensors[f"{name}: keys"].shape[2] for tensors, _ in results] == [keys.shape[2] // 2] * 2
    assert (together - keys).abs().max() <= 1e-4 * keys.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_each_process_holds_half_of_every_matrix(name: str, results: list[Any]) -> None:
    parameters = [p.numel() for p in fresh_model(CONFIGS[name]).parameters() if p.dim() > 1]
    norms = [p.numel() for p in fresh_model(CONFIGS[name]).parameters() if p.dim() == 1]
    for tensors, _ in results:
        assert tensors[f"{name}: parameters"].item() == sum(parameters) // 2 + sum(norms)


@pytest.mark.slow
@pytest.mark.parametrize("what, says", [
    ("divided twice", "is not divided yet"),
    ("uneven", "evenly among 2 processes: num_key_value_heads = 1, intermediate_size = 81"),
    ("two dimensions", "The mesh has 2 dimensions"),
    ("quantized", "model.embed_tokens is a Int8Embedding and cannot be divided"),
    ("adapter", "q_proj is a LoRALinear and cannot be divided"),
    ("micro-batches", "1 micro-batches for 2 processes"),
    ("compiled", "compiled=False"),
    ("other disks", "different steps, [3, 0]"),
])
def test_what_cannot_be_divided_is_refused_in_every_process(what: str, says: str, results: list[Any]) -> None:
    for _, refused in results:
        assert says in refused[what]


def test_a_local_configuration_has_a_share_of_the_heads() -> None:
    local = local_config(SMALL, 2)
    assert (local.num_attention_heads, local.num_key_value_heads, local.intermediate_size) == (2, 1, 40)
    assert (local.hidden_size, local.head_dim, local.vocab_size) == (SMALL.hidden_size, SMALL.head_dim, 212)
    assert local_config(SMALL, 1) == SMALL


@pytest.mark.parametrize("processes", [0, -2, 2.0, True, "2", 3])
def test_a_model_is_not_divided_among_so_many(processes: Any) -> None:
    with pytest.raises(InputError, match="number of processes|evenly among 3 processes"):
        local_config(SMALL, processes)


@pytest.mark.slow
def test_the_command_compares_a_model_alone_and_together() -> None:
    model, tokenizer = load_model("tiny", device="cpu"), load_tokenizer("tiny")
    result = torchrun([*COURSE, "generate", "--model", "tiny", "--prompt", "从前，", "--tokens", "8"])
    expected = generate_text_basic_cache(model, torch.tensor([tokenizer.encode("从前，")]), 8)[0].tolist()
    alone, together = result["alone"], result["together"]
    assert together["token_ids"] == alone["token_ids"] == expected
    assert together["text"] == alone["text"] == tokenizer.decode(expected)
    assert 0 <= result["largest_difference"] < 1e-4
    assert sum(together["cache_bytes"]) == alone["cache_bytes"][0] > 0
    parameters = sum(p.numel() for p in model.parameters())
    assert alone["parameters"] == [parameters] * 2 and max(together["parameters"]) < 0.51 * parameters


# Data parallelism


@pytest.mark.slow
def test_training_together_equals_training_alone(results: list[Any]) -> None:
    expected = distributed_worker.train(Trainer(fresh_model(SMALL), labelled_blocks(), PLAN))
    for tensors, _ in results:
        assert (tensors["trained: losses"] - expected["losses"]).abs().max() <= 1e-5
        assert (tensors["trained: weights"] - expected["weights"]).abs().max() <= 1e-5
        assert tensors["trained: weights"].equal(results[0][0]["trained: weights"])
    assert len(set(expected["losses"].tolist())) == PLAN.steps


@pytest.mark.slow
def test_the_gradients_of_exercise_15_3_are_those_of_the_whole_batch(results: list[Any]) -> None:
    """With PyTorch's own all_reduce in real processes; the exercise's check only plays them."""
    model = fresh_model(SMALL)
    next_token_loss(model, *labelled_batch([0, 1, 2, 3])).backward()
    for tensors, _ in results:
        for name, parameter in model.named_parameters():
            assert (tensors[f"exercise: {name}"] - parameter.grad).norm() <= 1e-4 * parameter.grad.norm() + 1e-7


@pytest.mark.slow
def test_a_run_whose_process_died_says_so_and_goes_on(tmp_path: Path) -> None:
    command = [*COURSE, "train", "--folder", str(tmp_path / "run"), "--steps", "9"]
    with pytest.raises(CourseError, match="^Process 1 was ended by the signal SIGKILL. No process can go on"):
        torchrun([*command, "--kill-at", "7"])
    result = torchrun(command)
    alone = [record.loss for record in train(*small_training(9), tmp_path / "alone")]
    assert result["steps"] == [6, 7, 8, 9]  # the last checkpoint is that of step 5
    assert result["losses"] == pytest.approx(alone[5:], abs=1e-5)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {CHECKPOINT, LOG}
    together, expected = (load_file(tmp_path / run / CHECKPOINT) for run in ("run", "alone"))
    assert together.keys() == expected.keys()
    weights = [name for name in expected if name.startswith("weights.")]
    assert all((together[name] - expected[name]).abs().max() <= 1e-4 for name in weights)


# Starting and ending


@pytest.mark.slow
def test_when_the_time_is_up_no_process_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "sleeps.py"
    program.write_text("import os, pathlib, sys, time\n"
                       "pathlib.Path(sys.argv[1], f'{os.getpid()}.pid').touch()\ntime.sleep(600)\n")
    communicate = subprocess.Popen.communicate

    def time_is_up_when_both_run(job: Any, input: None = None, timeout: float | None = None) -> Any:
        if timeout is None:
            return communicate(job)
        while len(list(tmp_path.glob("*.pid"))) < 2 and job.poll() is None:
            time.sleep(0.05)
        raise subprocess.TimeoutExpired("torchrun", timeout)

    monkeypatch.setattr(subprocess.Popen, "communicate", time_is_up_when_both_run)
    with pytest.raises(CourseError, match="not done after 60 seconds"):
        torchrun([str(program), str(tmp_path)], timeout=60)
    numbers = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert len(numbers) == 2
    for number in numbers:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


@pytest.mark.slow
def test_the_reason_is_found_when_a_process_is_ended_while_it_says_what_it_lost(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("TMPDIR", str(scratch))
    program = tmp_path / "loses.py"
    program.write_text("""
import json, os, pathlib, signal, sys, time
from course_utils.distributed.launch import leave_after

half_written = pathlib.Path(sys.argv[1], "half_written")

def write_half(content, file):
    file.write(json.dumps(content)[:20])
    file.flush()
    half_written.touch()
    time.sleep(600)

def main():
    if os.environ["RANK"] == "0":
        json.dump = write_half  # as PyTorch writes an exception down
        raise RuntimeError("Connection closed by peer")
    while not half_written.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

leave_after(main)
""")
    with pytest.raises(CourseError, match="^Process 1 was ended by the signal SIGKILL. No process can go on"):
        torchrun([str(program), str(tmp_path)], timeout=120)
    assert (tmp_path / "half_written").exists()
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
def test_a_program_that_prints_no_result_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "says.py").write_text("print('[1, 2]')")
    with pytest.raises(CourseError, match=r"no JSON object: '\[1, 2\]\\n'"):
        torchrun([str(tmp_path / "says.py")], processes=1)


@pytest.mark.parametrize("processes", [0, 1.5, None])
def test_an_impossible_number_of_processes_is_refused(processes: Any) -> None:
    with pytest.raises(InputError, match="whole number from 1 on"):
        torchrun(COURSE, processes=processes)


def test_outside_of_torchrun_there_is_no_group() -> None:
    with pytest.raises(InputError, match="torch.distributed.run --standalone"), process_group():
        pass


def summary(tmp_path: Path, **failures: tuple[int, str | None]) -> str:
    """What torchrun writes when processes have failed, each with an exit code and the message of its exception."""
    described = {}
    for order, (name, (exit_code, message)) in enumerate(failures.items()):
        error_file = tmp_path / f"{name}.json"
        if message is not None:
            error_file.write_text(json.dumps({"message": {"message": message, "extraInfo": {
                "py_callstack": f"Traceback (most recent call last):\n  File\n{message}\n", "timestamp": str(order)}}}))
        number = int(name.removeprefix("process_"))
        described[number] = ProcessFailure(number, 1000 + number, exit_code, str(error_file))
    return f"some line before\n{ChildFailedError('program', described)}\n"


LOST = "RuntimeError: Connection closed by peer [127.0.0.1]:1234."
OWN = "course_utils.errors.InputError: The prompt is empty: give one."


@pytest.mark.parametrize("failures, says", [
    ({"process_0": (1, LOST), "process_1": (-9, None)}, "Process 1 was ended by the signal SIGKILL."),
    ({"process_0": (-6, None), "process_1": (-15, None)}, "Process 0 was ended by the signal SIGABRT."),
    ({"process_0": (1, LOST), "process_1": (1, OWN)}, "Process 1 failed: The prompt is empty: give one."),
    ({"process_0": (-15, None), "process_1": (1, OWN)}, "Process 1 failed: The prompt is empty: give one."),
    ({"process_0": (1, LOST)}, "Process 0 failed with RuntimeError: Connection closed by peer [127.0.0.1]:1234."),
    ({"process_1": (1, LOST), "process_0": (1, LOST)}, "Process 1 failed with RuntimeError"),
    ({"process_3": (2, None)}, "Process 3 failed with exit code 2."),
    ({"process_0": (-15, None)}, "Process 0 was ended by the signal SIGTERM."),
])
def test_the_reason_names_the_process_that_failed_first(failures: Any, says: str, tmp_path: Path) -> None:
    assert launch._reason(summary(tmp_path, **failures)).startswith(says)


def test_without_a_summary_the_reason_is_the_last_line() -> None:
    assert launch._reason("Traceback\nNo module named torchrun\n====\n") == "torchrun failed: No module named torchrun"
    assert launch._reason("") == "torchrun failed: it did not say why"


def test_processes_share_the_cores_and_what_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert launch._environment(2)["OMP_NUM_THREADS"] == "4"
    assert launch._environment(16)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert launch._environment(2)["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(("platform", "value"), [("win32", "0"), ("linux", None)])
def test_on_windows_no_libuv_is_needed(platform: str, value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.sys, "platform", platform)
    monkeypatch.delenv("USE_LIBUV", raising=False)
    assert launch._environment(2).get("USE_LIBUV") == value
    monkeypatch.setenv("USE_LIBUV", "1")
    assert launch._environment(2)["USE_LIBUV"] == "1"
