"""The USB stick: which wheels lie on it, that a run goes on where it stopped, and that it installs without a network.

The wheels are small ones, from an index on this machine; `test_stick_real.py` takes the real ones.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from stick_installation import alone, install
from wheel_index import PYTHON, Index, make_repository

from course_utils import cli
from course_utils.environment import OLDEST_MACOS, SUPPORTED_MACHINES
from course_utils.errors import CourseError
from course_utils.workshop.agendas import AGENDAS

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "notebooks" / "workshop"))

import stick as sticks  # noqa: E402  (a script beside the notebooks, not a module of the package)
import wheels as wheels_of  # noqa: E402
from stick import make_stick  # noqa: E402
from wheels import SYSTEMS, Target  # noqa: E402

_specification = importlib.util.spec_from_file_location("install", sticks.ON_STICK / "install.py")
assert _specification is not None and _specification.loader is not None
installer = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(installer)

MOON = "wheels/moon-2.0-py3-none-any.whl"
HERE = installer.SYSTEMS.get((platform.system(), platform.machine()), "linux")


class Made(NamedTuple):
    stick: Path
    index: Index
    repository: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """A stick for this computer and Windows. Tests share it: work on a copy to change anything."""
    folder = tmp_path_factory.mktemp("stick")
    index, repository = Index(folder), make_repository(folder / "repository")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PIP_FIND_LINKS", raising=False)
        for name, value in index.environment(folder / "cache").items():
            patch.setenv(name, value)
        made = Made(folder / "made here", index, repository)
        make(made)
        yield made
    index.server.shutdown()
    index.server.server_close()


def make(made: Made, *targets: Target) -> None:
    make_stick(made.stick, targets or (Target("windows", "3.12"), Target(HERE, PYTHON)), made.repository,
               f"{made.index.address}/cpu")


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Made:
    """The stick, copied to a folder of one's own."""
    return made._replace(stick=Path(shutil.copytree(made.stick, tmp_path / "copied stick")))


def wheels_for(stick: Path, target: str) -> set[str]:
    lines = (stick / "targets" / f"{target}.txt").read_text().splitlines()
    return {line.removeprefix("./wheels/") for line in lines}


# What is on it


def test_each_target_has_the_wheels_of_its_own_system(made) -> None:
    windows, here = wheels_for(made.stick, "windows-3.12"), wheels_for(made.stick, f"{HERE}-{PYTHON}")
    common = {"moon-2.0-py3-none-any.whl", "editables-1.0-py3-none-any.whl", "backend_helper-1.0-py3-none-any.whl"}
    assert common <= windows & here and any(name.startswith("pip-") for name in windows & here)
    assert windows - here >= {"torch-2.0-cp312-cp312-win_amd64.whl", "boat-1.0-cp311-abi3-win_amd64.whl",
                              "oars-1.0-py3-none-any.whl"}
    assert {path.name for path in (made.stick / "wheels").iterdir()} == windows | here


@pytest.mark.parametrize("system", ["linux", "linux-arm"])
def test_on_linux_pytorch_comes_without_gigabytes(copy, system) -> None:
    make(copy, Target(system, PYTHON))
    found = wheels_for(copy.stick, f"{system}-{PYTHON}")
    assert [name for name in found if name.startswith(("torch", "gigabytes"))] == [
        f"torch-2.0+cpu-cp3{PYTHON[2:]}-none-manylinux_2_28_{'aarch64' if 'arm' in system else 'x86_64'}.whl"]


def test_what_is_not_committed_stays_at_home(made) -> None:
    with zipfile.ZipFile(made.stick / "course.zip") as archive:
        assert {"pyproject.toml", "course_utils/__main__.py"} < set(archive.namelist())
        assert "names.txt" not in archive.namelist()


def test_each_file_has_a_checksum(made) -> None:
    lines = (made.stick / "SHA256SUMS").read_text().splitlines()
    sums = {name: checksum for checksum, name in (line.split("  ") for line in lines)}
    assert sums == {path.relative_to(made.stick).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
                    for path in made.stick.rglob("*") if path.is_file() and path.name != "SHA256SUMS"}


def test_line_ends_are_those_of_the_reader(made) -> None:
    for name in ("install.cmd", "README.txt"):
        content = (made.stick / name).read_bytes()
        assert content.count(b"\n") == content.count(b"\r\n") > 5
    assert b"\r" not in (made.stick / "install.sh").read_bytes() + (made.stick / "install.py").read_bytes()


# A run that goes on


def test_a_second_run_fetches_nothing_and_changes_nothing(copy) -> None:
    before = {path: path.read_bytes() for path in copy.stick.rglob("*") if path.is_file()}
    copy.index.fetched.clear()
    make(copy)
    assert copy.index.fetched == [] and before == {path: path.read_bytes() for path in before}


def test_what_is_damaged_comes_anew_and_what_is_not_needed_goes(copy) -> None:
    damaged = copy.stick / MOON
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (copy.stick / "wheels" / "moon-1.0-py3-none-any.whl").write_bytes(b"old")
    copy.index.fetched.clear()
    make(copy, Target(HERE, PYTHON))
    assert copy.index.fetched == [damaged.name]
    assert {path.name for path in (copy.stick / "wheels").iterdir()} == wheels_for(copy.stick, f"{HERE}-{PYTHON}")
    assert [path.name for path in (copy.stick / "targets").iterdir()] == [f"{HERE}-{PYTHON}.txt"]


def test_an_interrupted_run_goes_on_and_nobody_installs_from_it(made, tmp_path, monkeypatch) -> None:
    new, calls = made._replace(stick=tmp_path / "stick"), []
    download = wheels_of._download

    def interrupted(pin, *arguments):
        calls.append(pin.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return download(pin, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(wheels_of, "_download", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(new)
    result = install(new.stick, "--to", str(tmp_path / "course"))
    assert result.returncode == 1 and "was not finished" in result.stderr and not (tmp_path / "course").exists()
    there = {path.name for path in (new.stick / "wheels").iterdir()}
    assert len(there) == 2
    made.index.fetched.clear()
    make(new)
    assert there.isdisjoint(made.index.fetched)
    assert (new.stick / "SHA256SUMS").read_text() == (made.stick / "SHA256SUMS").read_text()


# The installation page


def test_on_linux_the_pages_line_takes_pytorch_without_gigabytes(made) -> None:
    if HERE not in ("linux", "linux-arm"):
        pytest.skip("needs Linux: the line is for Linux")
    page = (REPOSITORY / "notebooks" / "workshop" / "install.md").read_text(encoding="utf-8")
    block = page.partition("<!-- cpu command -->")[2].split("```")[1]
    [line] = [line.strip() for line in block.splitlines() if "pip install" in line]
    assert f"--extra-index-url {wheels_of.CPU_BUILDS} " in line
    program, *arguments = shlex.split(line.replace(wheels_of.CPU_BUILDS, f"{made.index.address}/cpu"))
    assert program == ".venv/bin/python"
    run = subprocess.run([sys.executable, *arguments, "--dry-run", "--ignore-installed", "--quiet", "--report", "-"],
                         cwd=made.repository, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = {entry["metadata"]["name"]: entry["metadata"]["version"] for entry in json.loads(run.stdout)["install"]}
    assert found == {"torch": "2.0+cpu", "moon": "2.0", "boat": "1.0", "course-utils": "0.1.0"}


@pytest.mark.parametrize("page", ["install.md", "before.md", "mail.md"])
def test_commands_that_the_pages_name_there_are(page, capsys) -> None:
    text = (REPOSITORY / "notebooks" / "workshop" / page).read_text(encoding="utf-8")
    for arguments in re.findall(r"course-utils (check[^`\n]*)", text):
        words = shlex.split(arguments.replace("WORKSHOP", "two-days").split(";")[0])
        cli._parser().parse_args(words)
    for arguments in re.findall(r"stick\.py (.*)", text):
        with pytest.raises(SystemExit):
            sticks.main([*shlex.split(arguments), "--none-such"])
        assert "unrecognized arguments: --none-such" in capsys.readouterr().err  # which is all that is wrong with it
        assert set(re.findall(r"[a-z]+", arguments)) - {"stick", "system", "python"} <= SYSTEMS.keys()
    for name in re.findall(r"`([a-z]+-[a-z-]+)`", text):
        assert name in AGENDAS


# What goes wrong while it is made


def test_a_wheel_that_there_is_not_for_a_system(copy) -> None:
    with pytest.raises(CourseError, match="uv finds no wheels for windows-3.11: .*Run the same command again if the"):
        make(copy, Target("windows", "3.11"))
    assert not (copy.stick / "SHA256SUMS").exists()


@pytest.mark.parametrize(("name", "said"), [
    ("none-such", "There is no wheel of none-such 1.0 for windows-3.12: ERROR: .*none-such.* it goes on"),
    ("editables", "editables-1.0-py3-none-any.whl came damaged, or is another than .* it goes on")])
def test_a_wheel_that_does_not_come_whole(copy, monkeypatch, name, said) -> None:
    monkeypatch.setattr(sticks, "resolve", lambda *_: [wheels_of.Pin(name, "1.0", frozenset({"0" * 64}))])
    with pytest.raises(CourseError, match=said):
        make(copy)
    assert not list((copy.stick / "wheels").glob("tmp*"))


@pytest.mark.parametrize("folder", ["with a thesis", "repository"])
def test_folders_that_are_something_else(made, tmp_path, folder) -> None:
    repository = made.repository
    if folder == "repository":
        repository = tmp_path / "repository"
        repository.mkdir()
        said = r"cannot be packed \(.*\): install git, and make the stick from a clone"
    else:
        (tmp_path / "stick").mkdir()
        (tmp_path / "stick" / "thesis.txt").write_text("mine")
        said = "holds something else than a stick made here: give an empty folder"
    with pytest.raises(CourseError, match=said):
        make_stick(tmp_path / "stick", [Target(HERE, PYTHON)], repository)
    assert not (tmp_path / "stick" / "wheels").exists()


def test_no_git_and_no_uv(made, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(CourseError, match=r"run python -m pip install .*\[workshop\]"):
        patch.setitem(sys.modules, "uv", None)
        make(made._replace(stick=tmp_path / "stick"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CourseError, match="git does not start"):
        make(made._replace(stick=tmp_path / "stick"))


def test_wrong_arguments(capsys, tmp_path) -> None:
    for arguments in ([], ["--system", "amiga", "--python", "3.12"], ["--system", "linux", "--python", "2.7"]):
        with pytest.raises(SystemExit) as caught:
            sticks.main([str(tmp_path / "stick"), *arguments])
        assert caught.value.code == 2
    assert sticks.supported_pythons(REPOSITORY)[0] == "3.11"


# The installation


@pytest.mark.parametrize("network", [True, False])
def test_it_installs(made, tmp_path, network) -> None:
    poison = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_CONSTRAINT": "/none", "PIP_TARGET": str(tmp_path / "other")}
    result = install(made.stick, "--to", str(tmp_path / "a course"), "--name", "Ann",
                     before=() if network else alone(), **poison)
    assert result.returncode == 0, result.stdout + result.stderr
    check = json.loads((tmp_path / "a course" / "check.json").read_text())
    assert check["torch"] == ("2.0+cpu" if HERE.startswith("linux") else "2.0")
    assert check["arguments"][-4:] == ["--for", "half-a-day", "--name", "Ann"]
    assert str(tmp_path / "a course") in check["path"]
    assert "Installed in" in (tmp_path / "a course" / "install.log").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"a course"}


def test_a_second_installation_leaves_what_a_learner_wrote(made, tmp_path) -> None:
    course = tmp_path / "course"
    assert install(made.stick, "--to", str(course)).returncode == 0
    (course / "backend.py").write_text((course / "backend.py").read_text() + "# mine\n")
    shutil.rmtree(next((course / ".venv").rglob("moon")))
    result = install(made.stick, "--to", str(course))
    assert result.returncode == 0 and "its files stay as they are" in result.stdout
    assert (course / "backend.py").read_text().endswith("# mine\n")


@pytest.mark.parametrize(("damage", "said"), [
    (lambda stick: (stick / MOON).unlink(), f"{MOON} is missing"),
    (lambda stick: (stick / MOON).write_bytes(b"x"), f"{MOON} is damaged"),
    (lambda stick: (stick / "course.zip").write_bytes(b"x"), "course.zip is damaged"),
    (lambda stick: (stick / "targets" / f"{HERE}-{PYTHON}.txt").write_text("./wheels/x.whl\n"), "is damaged"),
    (lambda stick: (stick / "SHA256SUMS").unlink(), "was not finished"),
    (lambda stick: shutil.rmtree(stick / "targets"), "nothing yet"),
    (lambda stick: (stick / "targets" / f"{HERE}-{PYTHON}.txt").rename(stick / "targets" / "amiga-3.12.txt"),
     "amiga-3.12, windows-3.12, and this computer is of the kind"),
    (lambda stick: (stick / "targets" / f"{HERE}-{PYTHON}.txt").rename(stick / "targets" / f"{HERE}-3.99.txt"),
     "This stick is for Python 3.99, and here is 3.")])
def test_a_stick_that_is_not_whole_installs_nothing(copy, tmp_path, damage, said) -> None:
    damage(copy.stick)
    result = install(copy.stick, "--to", str(tmp_path / "course"))
    assert result.returncode == 1 and said in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "course").exists()


def test_a_wheel_that_pip_refuses_is_named(copy, tmp_path) -> None:
    wheel = copy.stick / MOON
    before = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("moon/__init__.py", "")
    sums = copy.stick / "SHA256SUMS"
    sums.write_text(sums.read_text().replace(before, hashlib.sha256(wheel.read_bytes()).hexdigest()))
    result = install(copy.stick, "--to", str(tmp_path / "course"))
    assert result.returncode == 1 and "STOPPED: pip could not install (" in result.stderr and "moon" in result.stderr
    assert "install.log to your instructor" in result.stderr


def test_folders_that_cannot_be(made, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(installer, "STICK", made.stick)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(installer.Stop, match="holds something else: choose another folder by --to"):
        installer.unpack(tmp_path)
    with pytest.raises(installer.Stop, match=r"cannot be written \(.*\): choose another folder by --to"):
        installer.unpack(tmp_path / "thesis.txt" / "course")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(installer.Stop, match="free some space"):
        installer.check_space(tmp_path / "course", [])


@pytest.mark.parametrize(("system", "machine", "macos", "said"), [
    ("Darwin", "x86_64", "14.1", "no package for this computer .Darwin on x86_64.* Google Colab"),
    ("Darwin", "arm64", "13.6", "needs macOS 14 or later, and this is 13.6: open .* Google Colab"),
    ("Windows", "ARM64", "", "no package for this computer .Windows on ARM64")])
def test_computers_without_a_pytorch(monkeypatch, system, machine, macos, said) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "mac_ver", lambda: (macos, ("", "", ""), machine))
    with pytest.raises(installer.Stop, match=said):
        installer.find_system()


def test_the_installer_knows_the_computers_that_the_course_supports() -> None:
    assert set(installer.SYSTEMS) == {(system, machine) for system, machines in SUPPORTED_MACHINES.items()
                                      for machine in machines}
    assert set(installer.SYSTEMS.values()) == SYSTEMS.keys()
    assert installer.OLDEST_MACOS == OLDEST_MACOS
    assert SYSTEMS["macos"].platforms[0] == f"macosx_{OLDEST_MACOS}_0_arm64"


def test_it_finds_another_python(copy, tmp_path) -> None:
    if os.name != "posix":
        pytest.skip("needs POSIX: a program is a script")
    target = copy.stick / "targets" / f"{HERE}-{PYTHON}.txt"
    target.rename(target.with_name(f"{HERE}-3.99.txt"))
    program = tmp_path / "python3.99"
    program.write_text('#!/bin/sh\nif [ "$1" = -c ]; then echo 3.99; else echo "called $@"; fi\n')
    program.chmod(0o755)
    result = install(copy.stick, "--to", "x y", PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert result.stdout.splitlines()[-1] == f"called {copy.stick / 'install.py'} --to x y"
