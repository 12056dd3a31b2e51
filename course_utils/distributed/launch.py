"""Starting several processes with PyTorch's `torchrun`, and saying in one sentence why they ended."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import ErrorHandler, record

from course_utils.errors import CourseError, InputError
from course_utils.files import write_atomically
from course_utils.language import gettext
from course_utils.number import require_whole_number

# How torchrun describes a process that failed, in its summary; the one that it takes for the cause comes last.
_FAILURE = re.compile(r"^  rank +: (\d+)[^\n]*\n  exitcode +: (-?\d+)[^\n]*\n  error_file[^\n]*\n  traceback +: (.*?)"
                      r"(?=^\[\d+\]:$|^[-=]{9,}$)", re.MULTILINE | re.DOTALL)
_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # torchrun names there to each process a file for its exception
_OWN_ERROR, _NO_TRACEBACK = "course_utils.errors.", "To enable traceback see"


def torchrun(program: Sequence[str], processes: int = 2, timeout: float = 300) -> dict[str, Any]:
    """Run a program in several processes on this machine, and read what the first one has printed.

    Args:
        program: what follows the options of `torchrun`, such as ("-m", "course_utils.distributed", "generate"). Each
            process calls `process_group`, and the first one prints a JSON object as its last line.
        processes: how many.
        timeout: seconds after which they are ended.

    Returns:
        The object.

    Raises:
        InputError: if there is no such number of processes.
        CourseError: if one fails, with its number and the reason, or if the time is up. None is left running.
    """
    processes = require_whole_number(gettext("The number of processes"), processes, 1)
    with TemporaryDirectory(prefix="torchrun_") as logs:  # one that torchrun makes itself stays behind
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
                   "--nproc-per-node", str(processes), "--log-dir", logs, *program]
        job = subprocess.Popen(command, env=_environment(processes), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, encoding="utf-8", errors="replace")
        try:
            output, errors = job.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise CourseError(gettext("The {processes} processes were not done after {timeout:g} seconds and were "
                                      "ended: allow more time, or give them less to do.").format(
                processes=processes, timeout=timeout)) from error
        finally:
            if job.poll() is None:
                job.terminate()  # torchrun then ends its processes; killed, it would leave them behind
                job.communicate()
    if job.returncode:
        raise CourseError(_reason(errors))
    try:
        result = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        result = None
    if not isinstance(result, dict):
        raise CourseError(gettext("The processes have ended well, but the last line they printed is "
                                  "no JSON object: {output!r}.").format(output=output[-200:]))
    return result


def _environment(processes: int) -> dict[str, str]:
    """Environment of the processes: they share the processor's cores, and talk over the loopback interface.

    On Windows PyTorch may have been built without libuv, which its store takes unless told otherwise.
    """
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    threads = max(1, (os.cpu_count() or 1) // processes)
    defaults = {"OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1",
                **({"GLOO_SOCKET_IFNAME": loopback} if loopback else {}),
                **({"USE_LIBUV": "0"} if sys.platform == "win32" else {})}
    return {**defaults, **os.environ, "PYTHONUTF8": "1"}


def _reason(errors: str) -> str:
    """Why the processes ended, from what torchrun wrote."""
    causes = []
    for number, exit_code, trace in reversed(_FAILURE.findall(errors)):
        message = (trace.strip().splitlines() or [""])[-1].strip()
        # The others lose their connection and fail as well, or are ended by torchrun (SIGTERM), and all that may come
        # to light at once.
        if int(exit_code) < 0:
            weight = 3 if int(exit_code) == -signal.SIGTERM else 0
            causes.append((weight, gettext("Process {number} was ended by the signal {signal}.").format(
                number=number, signal=_signal(-int(exit_code)))))
        elif message.startswith(_OWN_ERROR):
            causes.append((1, gettext("Process {number} failed: {message}").format(
                number=number, message=message.split(": ", 1)[-1])))
        else:
            known = message and not message.startswith(_NO_TRACEBACK)
            what = message if known else gettext("exit code {exit_code}").format(exit_code=exit_code)
            causes.append((2, gettext("Process {number} failed with {what}.").format(
                number=number, what=what.rstrip("."))))
    if not causes:
        lines = [line.strip() for line in errors.splitlines() if any(map(str.isalnum, line))]
        return gettext("torchrun failed: {line}").format(
            line=lines[-1] if lines else gettext("it did not say why"))
    return gettext("{causes} No process can go on without the others, so all were ended.").format(
        causes=min(causes, key=lambda cause: cause[0])[1])


def _signal(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else str(number)


class _WholeErrorFile(ErrorHandler):
    """Tells torchrun of an exception in one stroke.

    As soon as one process has failed, torchrun ends the others, which have lost their connection and may just be
    writing that down, and of a file it finds half-written it makes an error of its own.
    """

    def record_exception(self, e: BaseException) -> None:
        file = os.environ.get(_ERROR_FILE)
        if not file:
            return

        def write(path: Path) -> None:
            os.environ[_ERROR_FILE] = str(path)  # for good: this process has nothing else to say
            ErrorHandler.record_exception(self, e)

        write_atomically(Path(file).parent, {Path(file).name: write})


def leave_after(main: Callable[[], None]) -> None:
    """Run a program that uses a process group, and end the process at once. An error gets into torchrun's summary.

    Gloo's threads let go of the tensors of the last exchange some time after it is over. If Python has begun to end by
    then, they crash the process now and then. So Python's ending is left out.
    """
    status = 1
    try:
        record(main, _WholeErrorFile())()
        status = 0
    except Exception:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextmanager
def process_group() -> Iterator[int]:
    """Within this block the processes that `torchrun` started can exchange tensors.

    Yields:
        The number of this process (its rank), from 0 on.

    Raises:
        InputError: if the program was not started by `torchrun`.
    """
    if not dist.is_torchelastic_launched():
        raise InputError("This program needs several processes: start it with `python -m torch.distributed.run "
                         "--standalone --nproc-per-node 2 -m ...`.")
    dist.init_process_group("gloo", timeout=timedelta(minutes=10))
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()
