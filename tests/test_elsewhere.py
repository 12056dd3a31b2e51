"""The files by which the course starts elsewhere: Codespaces, Binder, and Kubernetes.

None of these can be started here. What is tested: they are what their formats allow, and agree with the project.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
HUB = REPOSITORY / "notebooks" / "workshop" / "hub"
DEVCONTAINER = json.loads((REPOSITORY / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
POST_BUILD = (REPOSITORY / ".binder" / "postBuild").read_text(encoding="utf-8")
sys.path.insert(0, str(HUB))
sys.path.insert(0, str(REPOSITORY / ".ci"))

import check_constraints  # noqa: E402  (a script of CI, not a module of the package)
import plan  # noqa: E402  (a script beside the hub's configuration, not a module of the package)


def read_yaml(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def test_a_dev_container_is_what_the_format_allows() -> None:
    # https://containers.dev/implementors/json_reference/
    assert DEVCONTAINER.keys() <= {"name", "image", "hostRequirements", "onCreateCommand", "remoteEnv",
                                   "customizations"}
    needs = DEVCONTAINER["hostRequirements"]
    assert needs.keys() <= {"cpus", "memory", "storage", "gpu"} and isinstance(needs["cpus"], int)
    assert all(re.fullmatch(r"\d+([tgmk]b)?", needs[name]) for name in ("memory", "storage"))
    assert all(isinstance(value, str) for value in DEVCONTAINER["remoteEnv"].values())
    image, _, python = DEVCONTAINER["image"].partition(":")
    assert image == "mcr.microsoft.com/devcontainers/python" and python in check_constraints.named_pythons()
    for file in DEVCONTAINER["customizations"]["codespaces"]["openFiles"]:
        assert (REPOSITORY / file).is_file()
    command, script = DEVCONTAINER["onCreateCommand"].split()
    assert command == "bash" and (REPOSITORY / script).is_file()


def test_binder_has_the_files_that_it_knows() -> None:
    # https://repo2docker.readthedocs.io/en/latest/config_files.html
    folder = REPOSITORY / ".binder"
    assert {path.name for path in folder.iterdir()} == {"environment.yml", "postBuild", "start"}
    environment = read_yaml(folder / "environment.yml")
    assert environment.keys() == {"name", "channels", "dependencies"}
    python = next(name.partition("=")[2] for name in environment["dependencies"] if name.startswith("python="))
    assert python in check_constraints.named_pythons()
    for name in ("postBuild", "start"):
        assert (folder / name).read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
        if os.name == "posix":
            assert os.access(folder / name, os.X_OK)
            assert subprocess.run(["bash", "-n", str(folder / name)], check=False).returncode == 0
    assert (folder / "start").read_text(encoding="utf-8").endswith('\nexec "$@"\n')


def test_both_install_what_was_tested_and_pytorch_for_processors() -> None:
    commands = [line.split() for line in POST_BUILD.splitlines() if line.startswith("python -m pip install")]
    assert len(commands) == 2
    for command in commands:
        assert (REPOSITORY / command[command.index("-c") + 1]).is_file()
    first, second = commands
    assert first[-3:] == ["--index-url", "https://download.pytorch.org/whl/cpu", "torch"]
    assert second[-2:] == ["-e", '".[lab]"']


def test_kubernetes_gives_learners_what_they_were_measured_to_take() -> None:
    values = read_yaml(HUB / "values.yaml")
    learner = values["singleuser"]
    runs = [run for each in json.loads(plan.MEASURED.read_text(encoding="utf-8"))["runs"] for run in each]

    def gigabytes(text: str) -> float:
        return 1e9 * float(text.removesuffix("G"))

    road = plan.read_measured(plan.MEASURED, "1,2,3,4,5,6")
    assert gigabytes(learner["memory"]["guarantee"]) >= road.kernel + road.server - 0.05e9
    assert gigabytes(learner["memory"]["limit"]) >= max(run["peak"] + run["server"] for run in runs)
    assert learner["defaultUrl"].endswith("01_environment.ipynb") and all(
        isinstance(value, str) for value in learner["extraEnv"].values())
    source = (HUB / "jupyterhub_config.py").read_text(encoding="utf-8")
    assert all(f'"{name}"' in source for name in learner["extraEnv"])
    command = learner["lifecycleHooks"]["postStart"]["exec"]["command"]
    assert command[:2] == ["bash", "-c"]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX: bash")
def test_the_command_of_kubernetes_makes_copies(tmp_path: Path) -> None:
    (script,) = read_yaml(HUB / "values.yaml")["singleuser"]["lifecycleHooks"]["postStart"]["exec"]["command"][2:]
    script = script.replace("/srv/repo", str(REPOSITORY)).replace("python ", f"{sys.executable} ")
    for _ in range(2):  # a second start changes nothing
        subprocess.run(["bash", "-c", script], env=os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)},
                       check=True, timeout=100)
        chapter = tmp_path / "course" / "01_environment.ipynb"
        assert chapter.is_file() and any((tmp_path / "course" / "images").iterdir())
