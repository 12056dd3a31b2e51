"""What it takes to install the course, and what CI does: the files that say so agree, and the scripts do what they say.

Whether the package index agrees is asked by .ci/run, not here: these tests need no network.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from course_utils.environment import OLDEST_MACOS, OLDEST_PYTHON, SUPPORTED_MACHINES

REPOSITORY = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
sys.path.insert(0, str(REPOSITORY / ".ci"))

import check_constraints  # noqa: E402  (a script of CI, not a module of the package)

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
STEPS = set(re.findall(r"^    (\w+)\)$", (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE))
needs_posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX: bash")


def workflow(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def steps(path: Path) -> list[dict[str, Any]]:
    """Each step of each job of a workflow, a matrix filled in."""
    found = []
    for job in workflow(path)["jobs"].values():
        matrix = job.get("strategy", {}).get("matrix", {})
        rows = matrix.get("include") or [{name: value} for name, values in matrix.items() for value in values] or [{}]
        for row in rows:
            for step in job["steps"]:
                command = re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda name, row=row: row[name[1]], step.get("run", ""))
                found.append(step | {"run": command})
    return found


# Which Pythons


def test_every_file_names_the_same_pythons() -> None:
    named = check_constraints.named_pythons()
    oldest = named[0]
    assert named == sorted(named, key=Version) and len(named) >= 2
    assert PROJECT["project"]["requires-python"] == f">={oldest}"
    assert PROJECT["tool"]["mypy"]["python_version"] == oldest == ".".join(map(str, OLDEST_PYTHON))
    assert f"With Python {oldest} or later" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
    script = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    assert f"version_info < {OLDEST_PYTHON}" in script and f"Python {oldest} or later" in script
    tests = workflow(REPOSITORY / ".github" / "workflows" / "tests.yml")["jobs"]["tests"]
    rows = tests["strategy"]["matrix"]["include"]
    assert {row["python"] for row in rows} == set(named)
    assert {row["python"] for row in rows if "tests" in row["steps"].split()} >= {oldest, named[-1]}


def test_the_readme_supports_the_machines_that_the_check_supports() -> None:
    names = {("Linux", "x86_64"): "Linux (x86-64", ("Linux", "aarch64"): " and Arm)", ("Windows", "AMD64"):
             "Windows (x86-64)", ("Darwin", "arm64"): f"macOS {OLDEST_MACOS} or later on Apple silicon"}
    assert set(names) == {(system, machine) for system, machines in SUPPORTED_MACHINES.items() for machine in machines}
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    supported, _, others = readme.partition("Supported are ")[2].partition("PyTorch has no current packages for")
    assert all(name in supported for name in names.values())
    others = " ".join(others.partition("\n\n")[0].split())
    assert "Macs with Intel processors, older macOS and Windows on Arm: there" in others and "Google Colab" in others


# Constraints


def requirements() -> list[Requirement]:
    """What the course needs, with all extras, without itself."""
    project = PROJECT["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return [found for found in map(Requirement, lines) if found.name != project["name"]]


def test_every_requirement_has_a_tested_version_within_its_bounds() -> None:
    pinned = {canonicalize_name(name): version for name, version in check_constraints.pins().items()}
    for requirement in requirements():
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_colab_is_not_below_the_lower_bounds() -> None:
    pinned = check_constraints.pins(REPOSITORY / ".ci" / "colab-constraints.txt")
    bounds = {canonicalize_name(requirement.name): requirement.specifier for requirement in requirements()}
    for name, version in pinned.items():
        assert bounds.get(canonicalize_name(name), Requirement(name).specifier).contains(version), name


def test_colab_is_tried_with_its_own_python() -> None:
    text = (REPOSITORY / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    job = yaml.safe_load(text)["jobs"]["colab"]
    settings = [step.get("with", {}) for step in job["steps"]]
    assert [each["python-version"] for each in settings if "python-version" in each] == ["3.13"]


@pytest.mark.parametrize("line", ['numpy==2.4.6; python_version >= "3.11"', "numpy>=2", "numpy"])
def test_a_constraint_is_a_name_and_a_version(line: str, tmp_path: Path) -> None:
    file = tmp_path / "constraints.txt"
    file.write_text(f"# Tested.\n\n{line}\n")
    with pytest.raises(ValueError, match="write NAME==VERSION"):
        check_constraints.pins(file)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[tuple[str, str | None], str]:
    """What pip says of the index, by package and Python; anything else it does not know."""
    answers: dict[tuple[str, str | None], str] = {("pip", None): "Available versions: 26.1, 26.0"}

    def run(command: list[str], env: dict[str, str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[1:5] == ["-m", "pip", "index", "versions"] and "PIP_QUIET" not in env
        python = next((word.partition("=")[2] for word in command if word.startswith("--python-version=")), None)
        said = answers.get((command[5], python), "ERROR: No matching distribution found for it")
        found = said.startswith("Available")
        return subprocess.CompletedProcess(command, 1 - found, said if found else "", "" if found else said)

    monkeypatch.setenv("PIP_QUIET", "1")
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(check_constraints, "pins", lambda: {"boat": "2.0", "moon": "1.5"})
    monkeypatch.setattr(check_constraints, "named_pythons", lambda: ["3.11", "3.14"])
    for python in ("3.11", "3.14"):
        answers["boat", python] = "Available versions: 3.0, 2.0, 1.0"
        answers["moon", python] = "Available versions: 1.5+cpu, 1.4"
    return answers


def test_constraints_that_admit_every_python(index, capsys) -> None:
    assert check_constraints.main() == 0
    assert capsys.readouterr().out == "Each of 2 constraints admits Python 3.11, 3.14.\n"


@pytest.mark.parametrize("said", [None, "Available versions: 2.0, 1.5.1"])
def test_a_constraint_that_does_not_is_named(index, said, capsys) -> None:
    del index["moon", "3.14"]
    if said:
        index["moon", "3.14"] = said
    assert check_constraints.main() == 1
    assert capsys.readouterr().out.startswith("moon==1.5 has no wheel for Python 3.14 here: ")


@pytest.mark.parametrize("silent", [("pip", None), ("moon", "3.14")])
@pytest.mark.parametrize("said", ["WARNING: Retrying (4)\nERROR: No matching distribution found", "ERROR: HTTP 407"])
def test_an_index_that_is_not_there_is_said(index, silent, said, capsys) -> None:
    index[silent] = said
    assert check_constraints.main() == 0
    assert re.match("SKIPPED whether each constraint .*: needs a package index", capsys.readouterr().out)


# What CI runs


def ci(*arguments: str, at: Path = REPOSITORY, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    return subprocess.run([str(at / ".ci" / "run"), *arguments], env=kept | environment, capture_output=True,
                          text=True, timeout=120, check=False)


@needs_posix
def test_a_repository_under_another_address_is_told_the_command() -> None:
    result = ci("address", GITHUB_REPOSITORY="ann/fork", GITHUB_SERVER_URL="https://github.com")
    assert result.returncode == 1
    assert "Run: python notebooks/build.py repository https://github.com/ann/fork\n" in result.stderr


@needs_posix
def test_the_repository_under_its_own_address_passes() -> None:
    address = PROJECT["project"]["urls"]["Repository"]
    result = ci("address", GITHUB_REPOSITORY=address.removeprefix("https://github.com/").upper())
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@needs_posix
@pytest.mark.parametrize("forgotten", ["research.google.com/github/", "lightning.ai/new", "codespaces.new",
                                       "mybinder.org"])
def test_a_fork_whose_badges_lead_elsewhere_is_told_the_command(forgotten: str, tmp_path: Path) -> None:
    for name in (".ci/run", "pyproject.toml", "notebooks/04_one_step.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    old = PROJECT["project"]["urls"]["Repository"].removeprefix("https://github.com/")
    for name in ("pyproject.toml", "notebooks/04_one_step.ipynb"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        for before, after in ((old, "ann/fork"), (old.replace("/", "%2F"), "ann%2Ffork")):
            text = text.replace(before, after)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert ci("address", at=tmp_path, GITHUB_REPOSITORY="ann/fork").returncode == 0
    text = re.sub(rf"({re.escape(forgotten)}\S*?)ann(/|%2F)fork", r"\1eve\2fork", text)
    (tmp_path / "notebooks/04_one_step.ipynb").write_text(text, encoding="utf-8")
    result = ci("address", at=tmp_path, GITHUB_REPOSITORY="ann/fork")
    assert result.returncode == 1 and result.stdout == "notebooks/04_one_step.ipynb\n"
    assert "Run: python notebooks/build.py repository https://github.com/ann/fork\n" in result.stderr


@needs_posix
def test_what_a_machine_cannot_do_is_said_at_the_end() -> None:
    result = ci("address")
    assert result.returncode == 0
    assert result.stdout.endswith("Left out, for what this machine lacks:\n"
                                  "SKIPPED whether pyproject.toml names this repository: GitHub alone knows\n")


@needs_posix
def test_a_step_that_is_none() -> None:
    result = ci("adress")
    assert result.returncode == 2 and "no step adress" in result.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_take_steps_of_ci_run_and_pin_what_they_use(path: Path) -> None:
    assert workflow(path)["permissions"] == {"contents": "read"}
    for step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"]), step
        asked = re.match(r"\.ci/run(?: --newest)?((?: [a-z]+)+)", step["run"])
        assert asked is None or set(asked[1].split()) <= STEPS, step
        assert not re.search(r"\b(pytest|ruff|mypy|pip install)\b", step["run"]), step


def test_workflows_take_every_step() -> None:
    taken = {word for path in WORKFLOWS for step in steps(path) for word in step["run"].split()}
    assert {"address", "constraints", "tests", "code", "linters", "browser", "workshop", "site", "colab",
            "wheel", "jupyterhub", "stick"} == STEPS <= taken


def test_every_skip_says_what_the_machine_lacks() -> None:
    """.ci/run excuses a skipped test by its reason: a test that skips off one system says which it needs."""
    for path in sorted(REPOSITORY.glob("tests/**/test_*.py")):
        for condition, reason in re.findall(r'skipif\((.*?), reason="(.*?)"\)', path.read_text(encoding="utf-8")):
            if "sys.platform" in condition or "os.name" in condition:
                assert reason.startswith(("needs Linux: ", "needs POSIX: ")), (path.name, reason)
