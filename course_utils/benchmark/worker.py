"""One row in a process of its own: it builds an engine, runs it when asked, and reads the clock.

In a process of its own a row's peak memory is its own, a crash ends that row alone, and all rows can be ready at
once, so that the benchmark can take turns among them. An idle one waits at its end of a pipe and costs no time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from typing import Any

import torch

from course_utils import kernels
from course_utils.benchmark.engines import Engine, Row
from course_utils.benchmark.weights import Workspace
from course_utils.device import peak_memory, reset_peak_memory, synchronize
from course_utils.errors import CourseError
from course_utils.language import gettext

_PATIENCE = 5.0  # seconds to end by itself


class RowError(CourseError):
    """A row cannot be measured; the others can."""


class Worker:
    """The benchmark's side of a row's process.

    Args:
        row: what to build.
        workspace: where its weights are.
    """

    def __init__(self, row: Row, workspace: Workspace) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit PyTorch's threads in pieces
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, row, workspace), name=f"bench {row.name}")
        self._process.start()
        theirs.close()  # so that either side notices when the other is gone

    def load(self) -> tuple[int, int, str]:
        """Build the engine; return its `weight_bytes`, `cache_bytes` and `note`."""
        facts: tuple[int, int, str] = self._ask("load")
        return facts

    def generate(self, prompt_ids: list[int], new_tokens: int) -> list[float]:
        """Generate once; return the seconds that each new token took, the first one with the whole prompt."""
        seconds: list[float] = self._ask("generate", prompt_ids, new_tokens)
        return seconds

    def reset_peak(self) -> None:
        """Let `peak` count from what is in use now, where the device can do that."""
        self._ask("reset_peak")

    def peak(self) -> int:
        """The most memory in use since, in bytes: resident on a CPU, allocated on a GPU."""
        peak: int = self._ask("peak")
        return peak

    def close(self, patience: float = _PATIENCE) -> None:
        """End the process, by force if it does not end by itself within some seconds."""
        self._pipe.close()
        self._process.join(patience)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def _ask(self, method: str, *arguments: object) -> Any:
        """Raises: RowError: if the engine failed, or its process is gone."""
        try:
            self._pipe.send((method, arguments))
            answer, problem = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(_PATIENCE)
            raise RowError(gettext("its process ended with status {exitcode}; the usual reason is too little "
                                   "memory").format(exitcode=self._process.exitcode)) from error
        if problem is not None:
            raise RowError(problem)
        return answer


class _Server:
    """The row's side: what `Worker` asks for, by the same names."""

    engine: Engine

    def __init__(self, row: Row, workspace: Workspace) -> None:
        self.row, self.workspace, self.device = row, workspace, workspace.device

    def load(self) -> tuple[int, int, str]:
        self.engine = self.row.build(self.workspace)
        return self.engine.weight_bytes, self.engine.cache_bytes, self.engine.note

    def generate(self, prompt_ids: list[int], new_tokens: int) -> list[float]:
        synchronize(self.device)
        times = [time.perf_counter()]
        for _ in self.engine.generate(prompt_ids, new_tokens):
            synchronize(self.device)
            times.append(time.perf_counter())
        return [after - before for before, after in zip(times, times[1:])]

    def reset_peak(self) -> None:
        reset_peak_memory(self.device)

    def peak(self) -> int:
        return peak_memory(self.device)


def _serve(pipe: Connection, row: Row, workspace: Workspace) -> None:
    """What the row's process runs: answer questions until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the benchmark decides what it means
    os.dup2(2, 1)  # what libraries print must not mix with the table
    # A compile cache of its own, and empty: so compile time means the first compilation, whatever ran before.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(workspace.folder / f"compiled-{row.name}")
    if not row.kernels:
        os.environ[kernels.VARIABLE] = "0"
    torch.set_num_threads(workspace.threads)
    server = _Server(row, workspace)
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer: tuple[object, str | None] = (getattr(server, method)(*arguments), None)
        except CourseError as error:
            answer = None, str(error)
        except Exception as error:  # whatever other people's programs may raise
            line = next(filter(None, map(str.strip, str(error).splitlines())), "")
            answer = None, f"{type(error).__name__}: {line}" if line else type(error).__name__
        try:
            pipe.send(answer)
        except OSError:  # the benchmark has gone
            return
