"""A real JupyterHub with a class of five real learners: `pytest -m jupyterhub`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
HUB = REPOSITORY / "notebooks" / "workshop" / "hub"
PASSWORD = "a small boat"
NAMES = ("ann", "bob", "cem", "dee", "小明")
CHAPTER = "04_one_step.ipynb"
PATIENCE = 120  # seconds until something counts as never

pytestmark = pytest.mark.jupyterhub


@pytest.fixture(scope="module")
def rehearse() -> ModuleType:
    """The script with the learners."""
    for module in ("jupyterhub", "websocket", "requests"):
        pytest.importorskip(module, reason="needs the extra `hub`")
    if not shutil.which("configurable-http-proxy"):
        pytest.skip("needs configurable-http-proxy")
    sys.path.insert(0, str(HUB))
    import rehearse

    rehearse.PATIENCE = PATIENCE  # a learner that waits for ever is told from this file, not by the end of all tests
    return rehearse


def three_ports() -> int:
    """The first of three ports in a row that are free."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                for following in (port + 1, port + 2):
                    with socket.socket() as other:
                        other.bind(("127.0.0.1", following))
            except (OSError, OverflowError):
                continue
            return port


def begin(folder: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    """Start a hub that keeps what it has in a folder."""
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("COURSE_", "HF_", "JUPYTER", "OMP_"))}
    environment |= {"COURSE_HUB_PASSWORD": PASSWORD, "COURSE_HUB_FOLDER": str(folder), "COURSE_HUB_IP": "127.0.0.1",
                    "COURSE_HUB_PORT": str(port), "COURSE_HUB_ALLOW_ROOT": "1", "PYTHONPATH": str(REPOSITORY)}
    with log.open("ab") as stream:
        return subprocess.Popen([sys.executable, "-m", "jupyterhub", "--config", str(HUB / "jupyterhub_config.py")],
                                cwd=REPOSITORY, env=environment, stdout=stream, stderr=subprocess.STDOUT)


@contextmanager
def running(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A hub of its own, its address, and its process; it has ended behind the context."""
    port, log = three_ports(), folder / "log"
    hub, address = begin(folder, port, log), f"http://127.0.0.1:{port}"
    try:
        assert wait_until(lambda: hub.poll() is not None or answers(f"{address}/hub/api")), log.read_text()
        assert hub.poll() is None, log.read_text()
        yield address, hub
    finally:
        hub.terminate()
        hub.wait(PATIENCE)


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=10).close()
        return True
    except OSError:
        return False


def wait_until(true) -> bool:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.2)
    return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the hub of this file's tests keeps what it has."""
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def address(rehearse: ModuleType, folder: Path) -> Iterator[str]:
    """That of the hub."""
    with running(folder) as (address, _):
        yield address


@pytest.fixture(scope="module")
def learners(rehearse: ModuleType, address: str) -> list:
    """The class, all of whom have come at the same time."""
    learners = [rehearse.Learner(address, name, PASSWORD) for name in NAMES]
    rehearse.at_once(learners, rehearse.Learner.start)
    return learners


def test_everyone_has_a_copy_of_the_chapters(learners, folder: Path) -> None:
    chapters = {path.name for path in (REPOSITORY / "notebooks").glob("*.ipynb")}
    for learner in learners:
        assert set(learner.files()) == chapters | {"images"}
    assert {path.name for path in (folder / "learners").iterdir()} == set(NAMES)


def test_all_run_a_chapter_at_once(rehearse, learners) -> None:
    starts, (runs,) = rehearse.rehearse(learners, [CHAPTER])  # who has started may start again
    assert [run.errors for run in runs] == [[]] * len(NAMES)
    assert len(starts) == len(NAMES) and all(1e8 < run.peak < 1e9 for run in runs)
    assert "04_one_step" in rehearse.table(starts, [runs])


def test_a_kernel_dies_and_nobody_else_notices(rehearse, learners) -> None:
    ann, bob, *_ = learners
    with ann.notebook(CHAPTER) as hers, bob.notebook(CHAPTER) as his:
        for kernel in (hers, his):
            assert not kernel.run("import os; from course_utils import load_model; kept = 1").error
        with pytest.raises(rehearse.RehearsalError, match="The kernel died"):
            hers.run("os.kill(os.getpid(), 9)")
        assert his.run("print(kept)").text == "1\n"
        hers.greet()  # a new one, by itself
        assert hers.run("print('kept' in globals())").text == "False\n"


class Listens:
    """A kernel's socket, to which a new kernel says all that it has to say but the ends of the first requests.

    Args:
        lost: how many ends nobody has heard.
    """

    def __init__(self, lost: int) -> None:
        self.asked, self.lost, self.says = 0, lost, []

    def settimeout(self, seconds: float) -> None:
        pass

    def send(self, text: str) -> None:
        header = json.loads(text)["header"]
        self.asked += 1
        self.says.append((header, header["msg_type"].replace("request", "reply"), {"status": "ok"}))
        if self.asked > self.lost:
            self.says.append((header, "status", {"execution_state": "idle"}))

    def recv(self) -> str:
        from websocket import WebSocketTimeoutException
        if not self.says:
            raise WebSocketTimeoutException
        parent, kind, content = self.says.pop(0)
        return json.dumps({"header": {"msg_type": kind}, "parent_header": parent, "content": content})


def test_a_new_kernel_is_asked_until_it_was_heard_in_full(rehearse, monkeypatch) -> None:
    socket = Listens(lost=2)
    rehearse.Kernel(socket, "ann").greet()
    assert socket.asked == 3 and not socket.says
    monkeypatch.setattr(rehearse, "PATIENCE", 0)
    with pytest.raises(rehearse.RehearsalError, match="said nothing"):
        rehearse.Kernel(Listens(lost=9), "ann").greet()
    with pytest.raises(rehearse.RehearsalError, match="said nothing"):
        rehearse.Kernel(Listens(lost=9), "ann").run("1 + 1")


def test_a_learner_gets_no_more_than_a_share(learners) -> None:
    with learners[0].notebook(CHAPTER) as kernel:
        share = int(kernel.run("import os; print(os.environ['MEM_LIMIT'])").text)
        assert int(kernel.run("from course_utils import host_memory; print(host_memory.available())").text) < share
        if shutil.which("prlimit"):
            assert "alloc" in kernel.run(f"import torch; torch.ones({share // 4 + 1})").error
            assert kernel.run("print(torch.ones(3).sum().item())").text == "3.0\n"


def test_learners_share_the_cores(learners) -> None:
    with learners[0].notebook(CHAPTER) as kernel:
        assert kernel.run("import torch; print(torch.get_num_threads())").text == "1\n"


def test_a_learner_updates_and_keeps_an_answer(learners, folder: Path) -> None:
    """As if the course had changed a chapter since the class began."""
    home = folder / "learners" / "dee" / "course"
    copy = nbformat.read(home / CHAPTER, as_version=4)
    stub = next(cell for cell in copy.cells if "raise NotImplementedError" in cell.source)
    answer = stub.source.replace("raise NotImplementedError", "return 'an answer'")
    stub.source = answer
    copy.metadata.course_utils = {"copy_of": "an older version"}
    nbformat.write(copy, home / CHAPTER)
    with learners[3].notebook("01_environment.ipynb") as kernel:
        done = kernel.run("import subprocess, sys; print(subprocess.run([sys.executable, '-m', 'course_utils', "
                          "'update', '.'], capture_output=True, text=True))")
    assert "returncode=0" in done.text, done.text
    assert answer in [cell.source for cell in nbformat.read(home / CHAPTER, as_version=4).cells]
    assert "return 'an answer'" not in (folder / "learners" / "ann" / "course" / CHAPTER).read_text(encoding="utf-8")


def test_the_board_shows_who_has_passed_what(learners, folder: Path) -> None:
    solve = ("from course_utils.exercises import check, solution_source\n"
             "exec('import torch\\nfrom torch import Tensor\\n' + solution_source('4.1'))\n"
             "check('4.1', {})")
    with learners[1].notebook(CHAPTER) as bob, learners[4].notebook(CHAPTER) as ming:
        name = re.search(r"^def (\w+)", bob.run("from course_utils.exercises import solution_source\n"
                                                "print(solution_source('4.1'))").text, re.MULTILINE)[1]
        for kernel in (bob, ming):
            assert kernel.run(solve.format(name)).text.startswith("PASSED 4.1")
    def rows(*arguments: str) -> dict[str, str]:
        board = subprocess.run([sys.executable, "-m", "course_utils", "progress", str(folder / "progress"), *arguments],
                               cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
        return {line.split()[0]: line for line in board.splitlines() if line.strip()}

    assert {"bob", "小明"} <= set(rows())
    roster = folder / "names.txt"
    roster.write_text("\n".join(NAMES), encoding="utf-8")
    board = rows("--chapter", "4", "--roster", str(roster))
    assert set(NAMES) <= set(board), board  # and so who has no file yet


@pytest.mark.parametrize(("name", "password"), [("ann", "another password"), ("../ann", PASSWORD), ("", PASSWORD),
                                                ("ann lee", PASSWORD)])
def test_who_is_not_let_in(rehearse, address, folder: Path, name: str, password: str) -> None:
    before = sorted((folder / "learners").iterdir())
    with pytest.raises(rehearse.RehearsalError, match="was not let in"):
        rehearse.Learner(address, name, password).log_in()
    assert sorted((folder / "learners").iterdir()) == before


def test_a_rehearsal_as_an_instructor_starts_it(rehearse, address, capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COURSE_HUB_PASSWORD", PASSWORD)
    figures = tmp_path / "figures.json"
    assert rehearse.main([address, "--learners", "1", "--chapters", "4", "--json", str(figures)]) == 0
    assert "1 at once" in capsys.readouterr().out and '"core_seconds"' in figures.read_text()
    monkeypatch.setenv("COURSE_HUB_PASSWORD", "another password")
    assert rehearse.main([address, "--learners", "1"]) == 2
    assert "was not let in" in capsys.readouterr().err
    monkeypatch.setenv("COURSE_HUB_PASSWORD", PASSWORD)
    assert rehearse.main([address, "--chapters", "99"]) == 2


def proxies(port: int) -> list[str]:
    """The proxies that serve a port."""
    found = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if "configurable-http-proxy" in line and f"--port {port}" in line]


def test_a_second_hub_leaves_the_first_alone(address, tmp_path: Path) -> None:
    port = int(address.rpartition(":")[2])
    before = proxies(port)
    assert len(before) >= 1
    second = begin(tmp_path, port, tmp_path / "log")
    assert second.wait(PATIENCE) == 1
    assert re.fullmatch(rf"The hub was not started\. Port {port} cannot be had \(.*\): end the program that has it, or "
                        r"set COURSE_HUB_PORT to the first of three ports that are free\.\n",
                        (tmp_path / "log").read_text())
    assert proxies(port) == before and answers(f"{address}/hub/api")


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs Linux: setpriv")
def test_a_hub_that_is_killed_leaves_no_proxy_and_can_start_again(rehearse, tmp_path: Path) -> None:
    with running(tmp_path) as (address, hub):
        port = int(address.rpartition(":")[2])
        assert proxies(port)
        os.kill(hub.pid, signal.SIGKILL)
        hub.wait(PATIENCE)
        assert wait_until(lambda: not proxies(port))
    again = begin(tmp_path, port, tmp_path / "log")
    try:
        assert wait_until(lambda: answers(f"{address}/hub/api"))
    finally:
        again.terminate()
        again.wait(PATIENCE)
    assert not proxies(port)
