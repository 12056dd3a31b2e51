"""Learners at a hub, as real ones: they log in by the form, open chapters and run them.

    python notebooks/workshop/hub/rehearse.py http://localhost:8000 --learners 5 --chapters 4

asks for the class's password, lets so many learners start and run the chapters at once, and prints seconds and memory.
Each has a name that begins with `rehearsal-`; delete their folders afterwards. `--json FILE` writes all figures.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import nbformat
import requests
from websocket import WebSocket, WebSocketException, WebSocketTimeoutException, create_connection

Result = TypeVar("Result")
CHAPTERS = Path(__file__).resolve().parents[2]
PATIENCE = 600  # seconds until an answer counts as never
ASKS_AGAIN = 5  # seconds until a new kernel is greeted once more
# What a kernel (its children included) and the server above it took so far: bytes of memory, seconds of a core.
_TAKEN = """\
import json as _json, psutil as _psutil
from course_utils import host_memory as _memory
_kernel = _psutil.Process()
_server = _kernel.parent()
_seconds = [sum(each.cpu_times()[:4]) for each in (_kernel, _server)]
print(_json.dumps([_memory.peak(), _seconds[0], _server.memory_info().rss, _seconds[1]]))"""


class RehearsalError(Exception):
    """What a learner would see go wrong, in a sentence."""


class _SilenceError(RehearsalError):
    """A kernel that says nothing."""


@dataclass
class Cell:
    """What came of one code cell: what it printed, what it raised ("" for nothing), and how long that took."""

    text: str
    error: str
    seconds: float


@dataclass
class ChapterRun:
    """A chapter that a learner ran from top to bottom.

    Attributes:
        chapter: its file.
        opened: seconds until the kernel had run the first cell.
        seconds: from then to the last.
        slowest: seconds of the slowest cell but the first.
        peak: most memory of the kernel, in bytes.
        core_seconds: what the kernel took of processors, its children included.
        server: memory of the learner's JupyterLab then, in bytes.
        server_core_seconds: what that took of processors since it started.
        errors: what its cells raised, where they were not meant to.
    """

    chapter: str
    opened: float
    seconds: float
    slowest: float
    peak: int
    core_seconds: float
    server: int
    server_core_seconds: float
    errors: list[str] = field(default_factory=list)


class Kernel:
    """A notebook that a learner has opened.

    Args:
        socket: leads to its kernel.
    """

    def __init__(self, socket: WebSocket, identity: str) -> None:
        self._socket, self.identity = socket, identity

    def greet(self) -> None:
        """Wait for a new kernel, or for the one in the place of one that died.

        What a kernel says before the server listens is lost, so it is asked about itself until it was heard in full.

        Raises:
            RehearsalError: if it died, or is silent for too long.
        """
        end = time.perf_counter() + PATIENCE
        while True:
            try:
                for _ in self._answers("kernel_info_request", {}, ASKS_AGAIN):
                    pass
                return
            except _SilenceError:
                if time.perf_counter() > end:
                    raise RehearsalError(f"The kernel has said nothing for {PATIENCE} seconds.") from None

    def run(self, code: str) -> Cell:
        """Run a cell, and wait for its end.

        Raises:
            RehearsalError: if the kernel died, or is silent for too long.
        """
        begun, text, error = time.perf_counter(), "", ""
        for kind, content in self._answers("execute_request", {
                "code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False,
                "stop_on_error": False}, PATIENCE):
            if kind == "stream":
                text += content["text"]
            elif kind == "error":
                error = f"{content['ename']}: {content['evalue']}"
        return Cell(text, error, time.perf_counter() - begun)

    def _answers(self, request: str, content: Mapping[str, object], patience: float) -> Iterator[tuple[str, Any]]:
        """Send a request; the kind and content of each message that answers it, until the kernel has done with it."""
        number = uuid.uuid4().hex
        self._socket.send(json.dumps({
            "header": {"msg_id": number, "msg_type": request, "username": "", "session": self.identity,
                       "version": "5.3"},
            "parent_header": {}, "metadata": {}, "channel": "shell", "content": content}))
        waits_for = {"idle", request.replace("request", "reply")}
        while waits_for:
            message = self._receive(patience)
            kind, answer = message["header"]["msg_type"], message["content"]
            if kind == "status" and answer["execution_state"] in ("restarting", "dead"):
                raise RehearsalError("The kernel died.")
            if message["parent_header"].get("msg_id") == number:
                waits_for -= {kind, answer.get("execution_state")}
                yield kind, answer

    def _receive(self, patience: float) -> dict[str, Any]:
        self._socket.settimeout(patience)
        while True:
            try:
                received = self._socket.recv()
            except WebSocketTimeoutException:
                raise _SilenceError(f"The kernel has said nothing for {patience} seconds.") from None
            except (WebSocketException, OSError) as error:
                raise RehearsalError(f"The kernel's connection broke off: {error}") from error
            if received:
                message: dict[str, Any] = json.loads(received)
                return message


class Learner:
    """Somebody in front of a browser.

    Args:
        address: of the hub, such as "http://localhost:8000".
        name: to log in with.
        password: the class's.
    """

    def __init__(self, address: str, name: str, password: str) -> None:
        self.name, self._password = name, password
        self._hub = address.rstrip("/")
        self._home = f"{self._hub}/user/{quote(name)}"
        self._browser = requests.Session()
        self._browser.trust_env = False  # the hub is in the room: no proxy, no .netrc

    def log_in(self) -> None:
        """Fill in the form of the hub's front page; a server is started by that.

        Raises:
            RehearsalError: if the name or password is refused.
        """
        page = f"{self._hub}/hub/login"
        self._browser.get(page, timeout=PATIENCE).raise_for_status()
        answer = self._browser.post(page, timeout=PATIENCE, data={
            "username": self.name, "password": self._password, "_xsrf": self._xsrf("/hub/")})
        if answer.status_code == 403:
            raise RehearsalError(f"{self.name!r} was not let in: is the password right, and the name on the roster?")
        answer.raise_for_status()

    def start(self) -> float:
        """Log in, and wait for JupyterLab; the seconds that took.

        Raises:
            RehearsalError: if it does not come.
        """
        begun = time.perf_counter()
        self.log_in()
        while time.perf_counter() - begun < PATIENCE:
            page = self._browser.get(f"{self._home}/lab", timeout=PATIENCE)
            if urlsplit(page.url).path.startswith(urlsplit(self._home).path):  # not the hub's page that says to wait
                if page.ok:
                    return time.perf_counter() - begun
                if page.status_code == 404:
                    raise RehearsalError(f"The server of {self.name!r} has no JupyterLab: install the extra `hub` for "
                                         "the Python that runs the hub.")
            time.sleep(0.3)
        raise RehearsalError(f"No server for {self.name!r} within {PATIENCE} seconds: what does the hub's log say?")

    @contextmanager
    def notebook(self, path: str) -> Iterator[Kernel]:
        """Open a notebook of one's folder; its kernel ends with the context."""
        session = self._ask("POST", "sessions", {"path": path, "name": path, "type": "notebook",
                                                 "kernel": {"name": "python3"}}).json()
        identity = uuid.uuid4().hex
        address = f"ws{self._home.removeprefix('http')}/api/kernels/{session['kernel']['id']}/channels"
        cookies = [f"{cookie.name}={cookie.value}" for cookie in self._browser.cookies
                   if urlsplit(self._home).path.startswith(cookie.path.rstrip("/"))]
        socket = create_connection(f"{address}?session_id={identity}", timeout=PATIENCE, origin=self._hub,
                                   cookie="; ".join(cookies))
        try:
            kernel = Kernel(socket, identity)
            kernel.greet()
            yield kernel
        finally:
            socket.close()
            self._ask("DELETE", f"sessions/{session['id']}")

    def files(self) -> list[str]:
        """The names in one's folder."""
        return [entry["name"] for entry in self._ask("GET", "contents/").json()["content"]]

    def run_chapter(self, path: str) -> ChapterRun:
        """Open a chapter of one's folder, and run it from top to bottom."""
        content = self._ask("GET", f"contents/{quote(path)}").json()["content"]
        cells = [cell for cell in nbformat.from_dict(content).cells if cell.cell_type == "code"]
        begun, errors, times = time.perf_counter(), [], []
        with self.notebook(path) as kernel:
            for cell in cells:
                done = kernel.run(cell.source)
                times.append(done.seconds if times else time.perf_counter() - begun)
                if done.error and "raises-exception" not in cell.metadata.get("tags", []):
                    errors.append(f"{cell.get('id', '')}: {done.error}")
            taken = json.loads(kernel.run(_TAKEN).text)
        return ChapterRun(path, times[0], sum(times[1:]), max(times[1:], default=0.0), *taken, errors)

    def _xsrf(self, path: str) -> str:
        """What a form sends back, so that no other page can send it."""
        return next((str(cookie.value) for cookie in self._browser.cookies
                     if cookie.name == "_xsrf" and cookie.path == path), "")

    def _ask(self, method: str, what: str, content: object = None) -> requests.Response:
        answer = self._browser.request(method, f"{self._home}/api/{what}", json=content, timeout=PATIENCE, headers={
            "X-XSRFToken": self._xsrf(f"{urlsplit(self._home).path}/")})
        if not answer.ok:
            raise RehearsalError(f"{self.name!r} was answered {answer.status_code} to {method} {what}: "
                                 f"{answer.text[:200]}")
        return answer


def at_once(learners: Sequence[Learner], do: Callable[[Learner], Result]) -> list[Result]:
    """Let all learners do something at the same time; what each came to."""
    with ThreadPoolExecutor(len(learners)) as pool:
        return list(pool.map(do, learners))


def chapters(numbers: str) -> list[str]:
    """The files of chapters, such as "4" or "5,6".

    Raises:
        RehearsalError: if there is none of a number.
    """
    files = {path.name.partition("_")[0].lstrip("0"): path.name for path in CHAPTERS.glob("[0-9]*.ipynb")}
    found = [files.get(number.strip().lstrip("0")) for number in numbers.split(",")]
    if None in found:
        raise RehearsalError(f"There are no chapters {numbers!r}: give numbers with commas between them, such as 5,6.")
    return [name for name in found if name is not None]


def rehearse(learners: Sequence[Learner], files: Sequence[str]) -> tuple[list[float], list[list[ChapterRun]]]:
    """Let learners start and run chapters, all at once; the seconds of the start, and of each chapter all runs."""
    return (at_once(learners, Learner.start),
            [at_once(learners, partial(Learner.run_chapter, path=file)) for file in files])


def table(starts: Sequence[float], runs: Sequence[Sequence[ChapterRun]]) -> str:
    """Medians as text, a line for each chapter."""
    lines = [f"{len(starts)} at once, medians. JupyterLab came after {median(starts):.1f} s, to the last after "
             f"{max(starts):.1f} s.",
             f"{'':24}  first cell   chapter  slowest cell  core       kernel   JupyterLab",
             f"{'':24}           s         s             s  seconds        MB           MB"]
    for each in runs:
        columns = [median(values) for values in zip(*(
            (run.opened, run.seconds, run.slowest, run.core_seconds, run.peak / 1e6, run.server / 1e6)
            for run in each))]
        lines.append("{:24.24}  {:10.1f} {:9.1f} {:13.1f} {:8.1f} {:9.0f} {:12.0f}".format(each[0].chapter, *columns))
        lines += [f"  raised: {error}" for error in sorted({error for run in each for error in run.errors})]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 if a cell raised an error, 2 if the rehearsal broke off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="of the hub, such as http://localhost:8000")
    parser.add_argument("--learners", type=int, default=5, metavar="N", help="how many at once (%(default)s)")
    parser.add_argument("--chapters", default="4", metavar="NUMBERS", help="such as 5,6 (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    if options.learners < 1:
        parser.error(f"--learners is {options.learners}: give a number from 1 on")
    password = os.environ.get("COURSE_HUB_PASSWORD") or getpass.getpass("The class's password: ")
    learners = [Learner(options.address, f"rehearsal-{number}", password) for number in range(options.learners)]
    try:
        starts, runs = rehearse(learners, chapters(options.chapters))
    except (RehearsalError, OSError, WebSocketException) as error:  # those of requests are OSErrors
        print(f"The rehearsal broke off. {error}", file=sys.stderr)
        return 2
    print(table(starts, runs))
    if options.json is not None:
        options.json.write_text(json.dumps({"starts": starts, "runs": [[asdict(run) for run in each] for each in runs]},
                                           indent=1) + "\n", encoding="utf-8")
    return 1 if any(run.errors for each in runs for run in each) else 0


if __name__ == "__main__":
    sys.exit(main())
