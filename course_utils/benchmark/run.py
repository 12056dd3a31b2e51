"""The benchmark itself: every row is warmed up, then the rows take turns.

Other programs slow a machine down for seconds at a time. Were one row measured after another, that would fall on
one of them; so in each round every row runs once, forward in one round and backward in the next.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from course_utils.bandwidth import read_bandwidth
from course_utils.benchmark.choices import CONTEXT_STEPS, UNSETTLED_STEPS, check_settings, most_tokens
from course_utils.benchmark.engines import Row
from course_utils.benchmark.machine import hardware, installed_version, versions
from course_utils.benchmark.report import Report, RowResult, Run, Settings
from course_utils.benchmark.weights import Subject, Workspace, make_checkpoint, require_disk_space, require_memory
from course_utils.benchmark.worker import RowError, Worker
from course_utils.costs import arithmetic_rate
from course_utils.errors import CourseError, InputError

# Without a cache each token costs as much as the prompt, and one as much as the next: a few tell as much as many.
UNCACHED_TOKENS, UNCACHED_CONTEXT = 8, 512


def run_benchmark(rows: Sequence[Row], subject: Subject, settings: Settings, device: torch.device) -> Report:
    """Measure rows side by side. Progress is shown on stderr.

    A row that cannot be measured keeps the reason, and the others go on. Ctrl-C ends the benchmark and keeps what was
    measured.

    Args:
        rows: what to measure, each in a process of its own.
        subject: the model.
        settings: lengths, runs and seed. A row without a cache generates at most 8 tokens and is not measured at
            contexts above 512.
        device: where to compute.

    Raises:
        InputError: if a setting makes no sense, there are no rows, or disk or memory are too small for the weights.
        ContextLengthError: if prompt and new tokens, or a context, do not fit into the model's context.
        CheckpointError: if the weights cannot be read or written.
    """
    check_settings(settings, subject.config)
    if not rows:
        raise InputError("There are no rows to measure: name at least one.")
    require_memory(subject, [row.weights for row in rows], device)
    report = Report(
        date=datetime.now(UTC).isoformat(timespec="seconds"), model=subject.name,
        weights=f"{'its own' if subject.checkpoint else 'random'} weights in "
        f"{str(subject.dtype).removeprefix('torch.')}",
        config=subject.config, settings=settings, hardware=hardware(device),
        versions=versions(package for row in rows for package in row.packages), threads=torch.get_num_threads(),
        rows=[RowResult(row.name, row.title) for row in rows])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="course-utils-bench-")))
        require_disk_space(subject, {"original", *(row.weights for row in rows)}, folder)
        benchmark = _Benchmark(report, rows, subject, folder, device)
        stack.callback(benchmark.close)
        try:
            benchmark.run()
        except KeyboardInterrupt:
            report.interrupted = True
    return report


def in_turn(rows: Sequence[RowResult], number: int) -> list[RowResult]:
    """The order of the rows in a round: forward, then backward, and so on."""
    return list(rows if number % 2 == 0 else reversed(rows))


class _Benchmark:
    """The rows' processes, and what has been measured so far."""

    def __init__(self, report: Report, rows: Sequence[Row], subject: Subject, folder: Path,
                 device: torch.device) -> None:
        self.report, self.settings, self.device = report, report.settings, device
        self.rows = {row.name: row for row in rows}
        self.subject, self.folder = subject, folder
        self.workers: dict[str, Worker] = {}
        generator = torch.Generator().manual_seed(report.settings.seed)
        longest = most_tokens(report.settings)
        self.ids: list[int] = torch.randint(subject.config.vocab_size, (longest,), generator=generator).tolist()

    def run(self) -> None:
        """Measure everything, in the order in which it matters should it be interrupted."""
        steps = len(self.rows) * (2 + self.settings.runs + len(self.settings.contexts)) + 1
        with tqdm(total=steps, bar_format="{l_bar}{bar:20}| {n_fmt}/{total_fmt} [{elapsed}]") as self.bar:
            self.bar.set_description("weights")
            workspace = self._prepare()
            self.report.arithmetic = arithmetic_rate(self.device, self.subject.dtype)
            self.bar.update()
            for row in self.report.rows:
                if not row.problem:  # all at once: they import their libraries while others load
                    self.workers[row.name] = Worker(self.rows[row.name], workspace)
            for row in self.report.rows:
                self._attempt(row, "loading", self._load)
            for row in self.report.rows:
                self._attempt(row, "warm-up", self._warm_up)
            for number in range(self.settings.runs):
                for row in in_turn(self.report.rows, number):
                    self._attempt(row, f"run {number + 1}", self._run)
            for number, context in enumerate(self.settings.contexts):
                for row in in_turn(self.report.rows, number):
                    self._attempt(row, f"context {context}", partial(self._step_at, context))

    def close(self) -> None:
        """End all processes; at once if they may be at work."""
        for worker in self.workers.values():
            worker.close(patience=0.0 if self.report.interrupted else 5.0)

    def _prepare(self) -> Workspace:
        checkpoint = make_checkpoint(self.subject, self.folder, self.settings.seed)
        workspace = Workspace(self.folder, checkpoint, self.device, self.subject.dtype, self.report.threads,
                              most_tokens(self.settings))
        for row in self.report.rows:
            missing = [name for name in self.rows[row.name].packages if installed_version(name) is None]
            if missing:
                row.problem = f"not installed (python -m pip install {' '.join(missing)})"
                continue
            try:
                workspace.prepare(self.rows[row.name].weights)
            except CourseError as error:
                row.problem = str(error)
        return workspace

    def _attempt(self, row: RowResult, what: str, action: Callable[[RowResult], None]) -> None:
        self.bar.set_description(f"{row.title}: {what}")
        if not row.problem:
            try:
                action(row)
            except RowError as error:
                row.problem = str(error)
                self.workers.pop(row.name).close()
        self.bar.update()

    def _load(self, row: RowResult) -> None:
        row.weight_bytes, row.cache_bytes, row.note = self.workers[row.name].load()

    def _warm_up(self, row: RowResult) -> None:
        # As long as the runs, so that every size that will occur has occurred.
        first, second = sum(self._generate(row)), sum(self._generate(row))
        if self.rows[row.name].compiled and not row.note:
            row.compile_seconds = max(0.0, first - second)
        self.workers[row.name].reset_peak()

    def _run(self, row: RowResult) -> None:
        bandwidth = read_bandwidth(self.device)
        first, *steps = self._generate(row)
        row.runs.append(Run(first, steps, bandwidth))
        row.peak_memory = self.workers[row.name].peak()

    def _generate(self, row: RowResult) -> list[float]:
        tokens = self.settings.new_tokens
        if not self.rows[row.name].cached:
            tokens = min(tokens, UNCACHED_TOKENS)
        return self.workers[row.name].generate(self.ids[:self.settings.prompt_tokens], tokens)

    def _step_at(self, context: int, row: RowResult) -> None:
        if not self.rows[row.name].cached and context > UNCACHED_CONTEXT:
            return
        seconds = self.workers[row.name].generate(self.ids[:context], 1 + UNSETTLED_STEPS + CONTEXT_STEPS)
        row.step_seconds[context] = statistics.median(seconds[1 + UNSETTLED_STEPS:])
