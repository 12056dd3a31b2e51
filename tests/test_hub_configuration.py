"""What JupyterHub's configuration for a class does before JupyterHub itself does anything.

A real hub with real learners is started by test_jupyterhub.py.
"""

from __future__ import annotations

import os
import random
import re
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

HUB = Path(__file__).resolve().parent.parent / "notebooks" / "workshop" / "hub"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX: nobody serves a class from Windows")


@pytest.fixture
def set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The configuration, under these variables beside those that it needs."""
    for name in [name for name in os.environ if name.startswith("COURSE_")]:
        monkeypatch.delenv(name)

    def load(**variables: str) -> Config:
        variables = {"PASSWORD": "a small boat", "IP": "127.0.0.1", "PORT": str(free_port()), "ALLOW_ROOT": "1",
                     "FOLDER": str(tmp_path / "hub"), **variables}
        for name, value in variables.items():
            monkeypatch.setenv(f"COURSE_HUB_{name}", value)
        return PyFileConfigLoader("jupyterhub_config.py", path=str(HUB)).load_config()

    return load


def free_port() -> int:
    """The first of three ports in a row that are free, below those that the system gives to whoever asks for any."""
    for port in random.sample(range(20_000, 32_000, 3), 100):
        with ExitStack() as probes, suppress(OSError):
            for each in range(port, port + 3):
                probes.enter_context(socket.socket()).bind(("127.0.0.1", each))
            return port
    pytest.skip("no three ports in a row are free")


@pytest.mark.parametrize(("variables", "sentence"), [
    ({"PASSWORD": ""}, "COURSE_HUB_PASSWORD has 0 characters: set it to 8 or more."),
    ({"PASSWORD": "boat"}, "COURSE_HUB_PASSWORD has 4 characters: set it to 8 or more."),
    ({"ADMIN_PASSWORD": "a small boat, too"}, "COURSE_HUB_ADMIN_PASSWORD has 17 characters: set it to 32 or more."),
    ({"PORT": "http"}, "COURSE_HUB_PORT is 'http': give a whole number from 1 on."),
    ({"PORT": "65534"}, "There is no port 65536: set COURSE_HUB_PORT to a number up to 65533."),
    ({"MEMORY": "0"}, "COURSE_HUB_MEMORY is '0': give a whole number from 1 on."),
    ({"LEARNERS": "many"}, "COURSE_HUB_LEARNERS is 'many': give a whole number from 1 on."),
    ({"ROSTER": "/no/such/file"}, "COURSE_HUB_ROSTER: '/no/such/file' cannot be read"),
])
def test_what_is_wrong_is_one_sentence(set_up, variables, sentence) -> None:
    with pytest.raises(SystemExit) as stopped:
        set_up(**variables)
    assert str(stopped.value).startswith(f"The hub was not started. {sentence}")
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_each_of_the_three_ports_is_tried_before_anything_starts(set_up, offset: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port()))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(SystemExit, match=rf"Port {taken} cannot be had \(.+\): end the program that has it"):
            set_up(PORT=str(taken - offset))


def test_root_is_refused(set_up, monkeypatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(SystemExit, match="Every learner would be root"):
        set_up(ALLOW_ROOT="")
    assert "--allow-root" in set_up().Spawner.args
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "--allow-root" not in set_up(ALLOW_ROOT="").Spawner.args


def test_who_may_come(set_up, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("Ann\n\n  bob \n小明\n", encoding="utf-8")
    assert set_up(ROSTER=str(names)).Authenticator == Config(
        allowed_users={"ann", "bob", "小明"}, allow_all=False, username_pattern=r"\w(?:[\w.-]{0,28}\w)?\Z")
    everyone = set_up(ROSTER="", ADMIN_PASSWORD="b" * 32)
    assert everyone.Authenticator.allow_all and everyone.Authenticator.admin_users == {"instructor"}


@pytest.mark.parametrize(("name", "fits"), [
    ("ann", True), ("a", True), ("ann-lee.2", True), ("小明", True), ("..", False), ("a/b", False), (".ann", False),
    ("ann.", False), ("", False), ("a b", False), ("a\n", False), ("a" * 31, False)])
def test_a_name_is_the_name_of_a_folder(set_up, name: str, fits: bool) -> None:
    # As JupyterHub looks, which compares the beginning alone.
    assert bool(re.compile(set_up().Authenticator.username_pattern).match(name)) == fits


def test_what_a_learner_finds(set_up, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COURSE_MODEL", "nano")
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    found = set_up(LEARNERS="5").Spawner.environment
    assert found["OMP_NUM_THREADS"] == "3" and found["COURSE_SMALL"] == "1" and found["COURSE_MODEL"] == "nano"
    assert not [name for name in found if name.startswith("COURSE_HUB_")]  # the password is nobody's to read
    ann = SimpleNamespace(user=SimpleNamespace(name="ann"))
    assert found["COURSE_PROGRESS"](ann) == str(tmp_path / "hub" / "progress" / "ann.json")
    assert set_up(LEARNERS="30").Spawner.environment["OMP_NUM_THREADS"] == "1"
    assert set_up(MEMORY="1500").Spawner.mem_limit == 1_500_000_000


def test_chapters_are_handed_out_once(set_up, tmp_path: Path) -> None:
    hand_out = set_up().Spawner.pre_spawn_hook
    ann = SimpleNamespace(user=SimpleNamespace(name="ann"))
    course = tmp_path / "hub" / "learners" / "ann" / "course"
    hand_out(ann)
    chapters = {path.name for path in HUB.parents[1].glob("*.ipynb")}
    assert {path.name for path in course.glob("*.ipynb")} == chapters and any((course / "images").iterdir())
    first = course / "01_environment.ipynb"
    first.write_text("mine")
    hand_out(ann)
    assert first.read_text() == "mine"
