"""The benchmark: what it computes from given times, the order it measures in, and what becomes of a row that fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from course_utils import KVCache, benchmark, generate_text_basic, kernels, random_model
from course_utils.benchmark import ROWS, Report, Row, Settings, Subject, run, run_benchmark, weights
from course_utils.benchmark.choices import choose_rows, choose_settings, most_tokens
from course_utils.benchmark.engines import CourseEngine, weight_bytes_read
from course_utils.benchmark.machine import versions
from course_utils.benchmark.peers import ALL_PEERS, PEERS, Transformers
from course_utils.benchmark.published import TEXTBOOK
from course_utils.benchmark.report import RowResult, Run, Spread
from course_utils.benchmark.weights import Workspace, make_checkpoint
from course_utils.benchmark.worker import RowError
from course_utils.cli import main
from course_utils.config import Qwen3Config
from course_utils.costs import arithmetic_rate, cache_elements
from course_utils.errors import ContextLengthError, InputError
from course_utils.quantization import quantize

SMALL = Qwen3Config(vocab_size=96, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, head_dim=16, max_position_embeddings=128)
UNTIED = Qwen3Config(**{**SMALL.__dict__, "tie_word_embeddings": False})
SUBJECT = Subject("small", SMALL, dtype=torch.float32)
FEW = Settings(prompt_tokens=5, new_tokens=4, runs=3, contexts=(7, 20))
CPU = torch.device("cpu")


class Unbuildable:
    def __init__(self, workspace: Workspace) -> None:
        raise ValueError("The engine has no wheels.\nTrace of the engine")


class Dying:
    """Its process ends in the second generation, as when the system takes it for lack of memory."""

    weight_bytes, cache_bytes, note = 100, 0, ""

    def __init__(self, workspace: Workspace) -> None:
        self.generations = 0

    def generate(self, prompt_ids: list[int], new_tokens: int) -> Iterator[int]:
        self.generations += 1
        if self.generations == 2:
            os._exit(9)
        yield from range(new_tokens)


class Telling:
    """Notes why its process uses no kernels, if that is so."""

    weight_bytes, cache_bytes = 100, 0

    def __init__(self, workspace: Workspace) -> None:
        self.note = kernels.problem("int4") or "kernels"

    def generate(self, prompt_ids: list[int], new_tokens: int) -> Iterator[int]:
        yield from range(new_tokens)


# --- figures from times --------------------------------------------------------------------------------------------

def example() -> Report:
    runs = [Run(first=2.0, steps=[0.1, 0.3], bandwidth=1000.0), Run(first=1.0, steps=[0.1, 0.1], bandwidth=500.0),
            Run(first=4.0, steps=[0.5, 0.5], bandwidth=2000.0)]
    rows = [RowResult("kv", "KV cache", weight_bytes=80, cache_bytes=2, runs=runs, step_seconds={7: 0.0125},
                      compile_seconds=12.34, peak_memory=1_500_000_000, note="It is an example."),
            RowResult("int8", "int8", problem="there are no wheels")]
    return Report("2026-11-21T00:00:00+00:00", "small", "random weights in float32", SMALL,
                  Settings(prompt_tokens=9, new_tokens=3, contexts=(7, 20)),
                  {"device": "CPU", "processor": "abacus", "cores": 2, "memory": 3}, {"python": "3.10"}, 2, rows,
                  arithmetic=4e9, published=TEXTBOOK)


def test_medians_and_spreads_of_runs() -> None:
    row = example().rows[0]
    assert row.first_token() == Spread(2.0, 1.0, 4.0)
    assert row.prefill(8) == Spread(4.0, 2.0, 8.0)
    assert row.decode() == Spread(pytest.approx(5.0), pytest.approx(2.0), pytest.approx(10.0))
    assert example().rows[1].decode() is None


def test_the_limit_counts_weights_and_cache_and_the_probe_beside_the_run() -> None:
    row = example().rows[0]
    assert row.limit(context=10, bandwidth=1000.0) == 1000 / (80 + 20)
    # With 9 prompt tokens and 2 steps the context is 10: the limits are 10, 5 and 20 tokens per second.
    assert row.share(9) == Spread(pytest.approx(0.5), pytest.approx(0.1), pytest.approx(2.0))
    assert example().bandwidth() == Spread(1000.0, 500.0, 2000.0)


def test_the_table_has_every_figure_and_every_reason() -> None:
    text = str(example())
    line = next(line for line in text.splitlines() if line.startswith("KV cache "))
    assert line.split()[2:] == ["4", "2000.0", "5.0", "2.0", "10.0", "50%", "12.50", "-", "12.3", "1.5", "GB"]
    for part in ("int8: there are no wheels", "KV cache: It is an example.", "abacus", "python 3.10", "seed 0",
                 "2026-11-21", "2.0", "Not measured here", "NVIDIA H100"):
        assert part in text
    assert "Interrupted" not in text
    assert "NVIDIA" not in text.split("Not measured here")[0]


def test_json_round_trip() -> None:
    report = example()
    assert Report.from_json(report.to_json()) == report
    content = json.loads(report.to_json())
    assert content["rows"][0]["summary"]["decode_tokens_per_second"]["median"] == pytest.approx(5.0)
    assert content["rows"][1]["summary"]["decode_tokens_per_second"] is None


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "figures.json"
    file.write_text("old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(InputError, match="disk full"):
        patch.setattr(os, "replace", fail)
        example().write_json(file)
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"] and file.read_text() == "old"
    example().write_json(file)
    assert Report.from_json(file.read_text(encoding="utf-8")) == example()


# --- what is asked for ---------------------------------------------------------------------------------------------

def test_rows_by_name() -> None:
    assert [row.name for row in choose_rows()] == ["regular", "compiled", "kv", "kv-compiled", "static", "int8",
                                                 "int8-pytorch", "int4", "int4-pytorch", "native", "int8-native",
                                                 "int4-native"]
    assert [row.name for row in choose_rows(["static", "kv", "static"])] == ["static", "kv"]
    assert [row.name for row in choose_rows(["kv", "transformers"])] == ["kv", "transformers"]
    assert [row.name for row in choose_rows(["kv"], peers=True)] == ["kv", *PEERS]
    assert "transformers-compiled" in ALL_PEERS and "transformers-compiled" not in PEERS


@pytest.mark.parametrize("names", [[], [""], ["kv", "fast"]])
def test_unknown_rows_are_explained(names: list[str]) -> None:
    with pytest.raises(InputError, match="choose from regular, compiled, kv, kv-compiled, static, int8, "):
        choose_rows(names)


def test_defaults_are_cut_to_the_context() -> None:
    assert choose_settings(Qwen3Config()) == Settings(512, 48, 3, (128, 1024, 4096), 0)
    settings = choose_settings(SMALL)
    assert (settings.prompt_tokens, settings.contexts) == (80, ())
    longer = Qwen3Config(**{**SMALL.__dict__, "max_position_embeddings": 140})
    settings = choose_settings(longer, new_tokens=10)
    assert settings.contexts == (128,) and most_tokens(settings) == 140


@pytest.mark.parametrize("wrong", [{"prompt_tokens": 0}, {"new_tokens": 1}, {"runs": 0}])
def test_too_little_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="give at least"):
        choose_settings(SMALL, **wrong)


@pytest.mark.parametrize("wrong", [{"prompt_tokens": 100}, {"contexts": [8, 117]}, {"contexts": [0]}])
def test_what_does_not_fit_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ContextLengthError, match=r"128|116"):
        choose_settings(SMALL, **wrong)  # type: ignore[arg-type]


def test_shapes_of_the_family() -> None:
    assert Subject.of_shape("Qwen3-1.7B-base").config.hidden_size == 2048
    with pytest.raises(InputError, match="qwen3-0.6b"):
        Subject.of_shape("qwen9")
    nano = Subject.of_model("nano")
    assert nano.dtype == torch.float32 and nano.checkpoint is not None and nano.config.hidden_size == 96


def test_a_disk_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(InputError, match="TMPDIR"):
        run_benchmark([ROWS["kv"]], SUBJECT, FEW, CPU)


@pytest.mark.parametrize(("names", "device", "rows_hold"), [
    (["kv", "static"], "cpu", 2.0), (["kv", "static"], "cuda", 4.0), (["kv", "int8"], "cuda", 3.01)])
def test_a_memory_that_is_too_small(names: list[str], device: str, rows_hold: float,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU each row has the weights for itself; on a CPU those of the same form share them."""
    subject, free = Subject.of_shape("qwen3-32b"), {}
    monkeypatch.setattr(weights, "free_memory", lambda device: free[device.type])
    forms, needed = [ROWS[name].weights for name in names], 1.05 * weights._weights(subject)
    free.update({"cpu": 2.1 * needed, device: 1.01 * rows_hold * needed})
    weights.require_memory(subject, forms, torch.device(device))
    free[device] = 0.99 * rows_hold * needed
    with pytest.raises(InputError, match=rf"need \d+\.\d GB of memory, and \d+\.\d GB are free \({device}\)"):
        weights.require_memory(subject, forms, torch.device(device))
    free.update({device: 9 * needed, "cpu": 1.9 * needed})  # they are made on the CPU first
    with pytest.raises(InputError, match=r"GB are free \(cpu\)"):
        weights.require_memory(subject, forms, torch.device(device))


def test_memory_is_looked_at_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "free_memory", lambda _: 1)
    monkeypatch.setattr(run, "make_checkpoint", lambda *_: pytest.fail("weights are made"))
    with pytest.raises(InputError, match="GB of memory"):
        run_benchmark([ROWS["kv"]], SUBJECT, FEW, CPU)


# --- what a pass costs ---------------------------------------------------------------------------------------------

def test_bytes_of_a_step() -> None:
    tied, untied = random_model(SMALL, torch.bfloat16, "cpu"), random_model(UNTIED, torch.bfloat16, "cpu")
    parameters = sum(parameter.nbytes for parameter in tied.parameters())
    assert weight_bytes_read(tied) == parameters + tied.model.rotary_emb.frequencies.nbytes
    assert weight_bytes_read(untied) == weight_bytes_read(tied)
    assert 0.5 < weight_bytes_read(quantize(tied, "int8")) / weight_bytes_read(tied) < 0.6
    assert cache_elements(SMALL) * 11 * 2 == _filled(tied, 11).num_bytes


def _filled(model: torch.nn.Module, tokens: int) -> KVCache:
    cache = KVCache(SMALL)
    model(torch.zeros(1, tokens, dtype=torch.long), cache=cache)
    return cache


def test_arithmetic_rate_is_plausible() -> None:
    assert 1e7 < arithmetic_rate("cpu", torch.float32, size=256) < 1e15


def test_versions() -> None:
    assert versions(["numpy", "no-such-distribution"]).keys() == {"python", "torch", "course_utils", "numpy"}


# --- engines -------------------------------------------------------------------------------------------------------

@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, make_checkpoint(SUBJECT, tmp_path, seed=3), CPU, torch.float32, 1, 40)


@pytest.mark.parametrize("make", [
    CourseEngine, partial(CourseEngine, cache="growing"), partial(CourseEngine, cache="static"), Transformers])
def test_engines_write_the_same_text_each_time(make: partial[CourseEngine], workspace: Workspace) -> None:
    model = random_model(SMALL, torch.float32, "cpu", seed=3)
    engine = make(workspace)
    for prompt, new in (([3, 1, 4], 6), ([1, 5], 5), ([9, 2, 6, 5, 3], 12), ([3, 1, 4], 6)):
        expected = generate_text_basic(model, torch.tensor([prompt]), new)[0].tolist()
        assert list(engine.generate(prompt, new)) == expected
    assert engine.weight_bytes == pytest.approx(weight_bytes_read(model), rel=0.01)
    assert engine.cache_bytes in (0, 4 * cache_elements(SMALL))


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_quantized_weights_are_written_once(kind: str, workspace: Workspace) -> None:
    workspace.prepare(kind)
    before = (workspace.path(kind) / "model.safetensors").stat().st_mtime_ns
    workspace.prepare(kind)
    assert (workspace.path(kind) / "model.safetensors").stat().st_mtime_ns == before
    engine = CourseEngine(workspace, kind, "static")
    assert len(list(engine.generate([1, 2], 3))) == 3
    assert engine.weight_bytes < 0.5 * CourseEngine(workspace).weight_bytes


# --- order and interruption ----------------------------------------------------------------------------------------

class FakeWorker:
    """Says that each token took a second, the prompt two, and the first one five; notes what it was asked."""

    asked: list[tuple[str, str, int, int]] = []
    interrupt_at = -1

    def __init__(self, row: Row, workspace: Workspace) -> None:
        self.name = row.name

    def load(self) -> tuple[int, int, str]:
        return 1000, 10, "uncompiled" if self.name == "static" else ""

    def generate(self, prompt_ids: list[int], new_tokens: int) -> list[float]:
        if len(self.asked) == self.interrupt_at:
            raise KeyboardInterrupt
        first = not any(name == self.name for name, *_ in self.asked)
        self.asked.append((self.name, "generate", len(prompt_ids), new_tokens))
        if self.name == "int8":
            raise RowError("broken")
        return [5.0 if first else 2.0] + [1.0] * (new_tokens - 1)

    def reset_peak(self) -> None:
        self.asked.append((self.name, "reset", 0, 0))

    def peak(self) -> int:
        return 77

    def close(self, patience: float = 5.0) -> None:
        self.asked.append((self.name, "close", 0, 0))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeWorker]:
    monkeypatch.setattr(run, "Worker", FakeWorker)
    monkeypatch.setattr(run, "read_bandwidth", lambda device: 8000.0)
    monkeypatch.setattr(run, "arithmetic_rate", lambda device, dtype: 9.0)
    monkeypatch.setattr(FakeWorker, "asked", [])
    return FakeWorker


def order(asked: list[tuple[str, str, int, int]], prompt: int) -> list[str]:
    return [name for name, what, length, _ in asked if (what, length) == ("generate", prompt)]


def test_rows_take_turns_forward_and_backward(fake: type[FakeWorker]) -> None:
    settings = Settings(prompt_tokens=6, new_tokens=20, runs=3, contexts=(7,))
    report = run_benchmark(choose_rows(["regular", "kv", "kv-compiled"]), SUBJECT, settings, CPU)
    rows = ["regular", "kv", "kv-compiled"]
    warm_up = [name for name in rows for _ in range(2)]
    assert order(fake.asked, 6) == [*warm_up, *rows, *rows[::-1], *rows]
    assert order(fake.asked, 7) == rows
    # Without a cache every token costs a whole prompt, so a few are enough.
    assert [tokens for name, _, length, tokens in fake.asked if name == "regular" and length == 6] == [8] * 5
    assert [tokens for name, _, length, tokens in fake.asked if name == "kv" and length == 6] == [20] * 5
    assert [row.peak_memory for row in report.rows] == [77] * 3
    assert report.rows[1].runs == [Run(2.0, [1.0] * 19, 8000.0)] * 3
    assert report.rows[1].step_seconds == {7: 1.0}
    assert [row.compile_seconds for row in report.rows] == [None, None, 3.0]
    assert (report.arithmetic, report.interrupted) == (9.0, False)


def test_compile_time_is_what_the_first_generation_took_longer(fake: type[FakeWorker]) -> None:
    report = run_benchmark(choose_rows(["kv-compiled", "static"]), SUBJECT, FEW, CPU)
    compiled, uncompiled = report.rows
    assert compiled.compile_seconds == 3.0
    assert uncompiled.compile_seconds is None and uncompiled.note == "uncompiled"


def test_long_contexts_are_not_asked_of_rows_without_a_cache(fake: type[FakeWorker]) -> None:
    config = Qwen3Config(**{**SMALL.__dict__, "max_position_embeddings": 700})
    settings = Settings(prompt_tokens=6, new_tokens=4, runs=1, contexts=(512, 600))
    report = run_benchmark(choose_rows(["regular", "kv"]), Subject("longer", config), settings, CPU)
    assert [list(row.step_seconds) for row in report.rows] == [[512], [512, 600]]


def test_a_row_that_fails_is_left_out_and_the_others_go_on(fake: type[FakeWorker]) -> None:
    report = run_benchmark(choose_rows(["kv", "int8"]), SUBJECT, FEW, CPU)
    assert [row.problem for row in report.rows] == ["", "broken"]
    assert [len(row.runs) for row in report.rows] == [3, 0]
    assert [what for name, what, *_ in fake.asked if name == "int8"] == ["generate", "close"]


@pytest.mark.parametrize(("at", "runs"), [(0, 0), (6, 0), (7, 1), (10, 4)])
def test_an_interruption_keeps_what_was_measured(fake: type[FakeWorker], monkeypatch: pytest.MonkeyPatch, at: int,
                                                 runs: int) -> None:
    monkeypatch.setattr(fake, "interrupt_at", at)
    report = run_benchmark(choose_rows(["kv", "static"]), SUBJECT, FEW, CPU)
    assert report.interrupted and "Interrupted" in str(report)
    assert sum(len(row.runs) for row in report.rows) == runs
    assert [name for name, what, *_ in fake.asked if what == "close"] == ["kv", "static"]


def test_no_contexts_are_no_steps(fake: type[FakeWorker]) -> None:
    report = run_benchmark([ROWS["kv"]], SUBJECT, Settings(6, 4, 1, contexts=()), CPU)
    assert report.rows[0].step_seconds == {} and len(report.rows[0].runs) == 1


def test_what_is_not_installed_is_a_row_with_that_reason(fake: type[FakeWorker]) -> None:
    row = Row("absent", "absent", CourseEngine, packages=("numpy", "no-such-distribution"))
    report = run_benchmark([row, ROWS["kv"]], SUBJECT, FEW, CPU)
    assert report.rows[0].problem == "not installed (python -m pip install no-such-distribution)"
    assert len(report.rows[1].runs) == 3 and all(name == "kv" for name, *_ in fake.asked)


# --- the real thing ------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_processes_measure_and_fail_on_their_own() -> None:
    rows = [ROWS["kv"], Row("unbuildable", "unbuildable", Unbuildable), ROWS["static"], Row("dying", "dying", Dying)]
    report = run_benchmark(rows, SUBJECT, Settings(5, 4, 2, (7,)), CPU)
    kv, unbuildable, static, dying = report.rows
    assert unbuildable.problem == "ValueError: The engine has no wheels."
    assert "status 9" in dying.problem and not dying.runs
    for row in (kv, static):
        assert not row.problem
        assert [len(run.steps) for run in row.runs] == [3, 3]
        assert all(seconds > 0 for run in row.runs for seconds in (run.first, *run.steps, run.bandwidth))
        assert row.step_seconds.keys() == {7} and row.step_seconds[7] > 0
        assert row.peak_memory is not None and row.peak_memory > 1e7
        assert row.cache_bytes == 4 * cache_elements(SMALL)
    assert kv.compile_seconds is None
    assert static.note or static.compile_seconds is not None
    assert Report.from_json(report.to_json()) == report


@pytest.mark.slow
def test_rows_without_kernels_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    rows = [Row(name, name, Telling, kernels=name == "with") for name in ("with", "without")]
    report = run_benchmark(rows, SUBJECT, FEW, CPU)
    assert [row.note for row in report.rows] == [kernels.problem("int4") or "kernels",
                                                 "The environment variable COURSE_KERNELS is 0, so PyTorch's own "
                                                 "operators do the kernels' work."]
    assert {name for name, row in ROWS.items() if not row.kernels} == {"int8-pytorch", "int4-pytorch"}


def gone(group: int) -> bool:
    """Whether a process group ends within ten seconds; Python's own helper outlives the program by a moment."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX: process groups")
def test_ctrl_c_keeps_figures_and_leaves_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "course_utils", "bench", "--model", "nano", "--rows", "kv,regular", "--runs",
               "100000", "--prompt-tokens", "8", "--contexts", "8", "--device", "cpu", "--json", "-"]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                               cwd=Path(__file__).resolve().parent.parent, env=environment)
    assert process.stdout is not None and process.stderr is not None
    try:
        shown = b""
        while b"run 3" not in shown and (some := process.stderr.read1()):
            shown += some
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, (shown + err).decode()
    report = Report.from_json(out.decode())
    assert report.interrupted and all(len(row.runs) >= 1 for row in report.rows)
    assert "Interrupted" in err.decode() and "Traceback" not in err.decode()
    assert not list(temporary.iterdir())
    assert gone(process.pid)


# --- the command ---------------------------------------------------------------------------------------------------

@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Let the command measure nothing; returns what it asked for."""
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(benchmark, "run_benchmark", lambda *arguments: calls.append(arguments) or example())
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # it is the test's process that would change
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    return calls


def test_the_command_hands_on_what_it_was_given(canned: list[tuple[object, ...]],
                                                capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--model", "nano", "--rows", "kv,int8", "--prompt-tokens", "9", "--new-tokens", "5", "--runs",
                 "2", "--contexts", "3,4", "--seed", "8"]) == 0
    assert main(["bench", "--shape", "qwen3-4b", "--peers"]) == 0
    (rows, subject, settings, device), (more, shape, defaults, _) = canned
    assert [row.name for row in rows] == ["kv", "int8"] and device == CPU
    assert (subject.name, settings) == ("nano", Settings(9, 5, 2, (3, 4), 8))
    assert [row.name for row in more] == [*ROWS, *PEERS] and defaults == Settings()
    assert (shape.config.hidden_size, shape.checkpoint) == (2560, None)
    assert "KV cache" in capsys.readouterr().out


def test_json_on_stdout_leaves_the_table_to_stderr(canned: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert Report.from_json(captured.out) == example()
    assert "KV cache" in captured.err


def test_files_are_written(canned: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    json_file, png, svg = (tmp_path / name for name in ("b.json", "b.png", "b.svg"))
    assert main(["bench", "--json", str(json_file), "--plot", str(png)]) == 0
    sentence = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("Figure: "))
    assert Report.from_json(json_file.read_text(encoding="utf-8")) == example()
    assert png.read_bytes()[:4] == b"\x89PNG" and sentence.encode() in png.read_bytes()
    assert main(["bench", "--plot", str(svg)]) == 0
    assert sentence in svg.read_text(encoding="utf-8")


def test_an_interrupted_benchmark_prints_what_it_has(monkeypatch: pytest.MonkeyPatch, canned: list[object],
                                                     tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = example()
    report.interrupted = True
    report.rows[0].runs = []
    monkeypatch.setattr(benchmark, "run_benchmark", lambda *_: report)
    assert main(["bench", "--plot", str(tmp_path / "b.png"), "--json", str(tmp_path / "b.json")]) == 130
    assert "Interrupted" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


@pytest.mark.parametrize(("arguments", "reason"), [
    (["--rows", "kv,fast"], "'fast'"), (["--shape", "qwen9"], "'qwen9'"), (["--model", "no/where"], "'no/where'"),
    (["--model", "nano", "--shape", "qwen3-4b"], "leave one out"), (["--runs", "0"], "at least 1"),
    (["--model", "nano", "--prompt-tokens", "2048"], "2048"), (["--contexts", "1,many"], "whole numbers"),
    (["--model", "nano", "--contexts", "4096"], "4096"), (["--plot", "b.doc"], ".png or .svg"),
    (["--json", "/no/such/folder/b.json"], "folder that exists"), (["--json", "x" * 300], "another folder"),
    (["--plot", "x" * 300 + ".png"], "another folder"), (["--seed", str(2**64)], "2**64 - 1"),
    (["--seed", "-1"], "2**64 - 1"), (["--device", "abacus"], "abacus")])
def test_bad_input_is_one_clear_error(arguments: list[str], reason: str, canned: list[object],
                                      capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    captured = capsys.readouterr()
    assert (captured.out, canned) == ("", [])
    assert captured.err.startswith("course-utils: ") and captured.err.count("\n") == 1 and reason in captured.err
