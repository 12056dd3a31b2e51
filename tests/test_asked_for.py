"""The hub, a browser, the website, a GPU, peers and a stick's wheels are needed when `-m` names them, never else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from asked_for import ASKED_FOR_BY_NAME, asked_for

TESTS = Path(__file__).resolve().parent
FILES = {"hub": "test_hub_real.py", "peers": "test_benchmark_peers.py", "browser": "browser/test_course.py",
         "site": "browser/test_site.py", "jupyterhub": "test_jupyterhub.py", "gpu": "test_device.py",
         "stick": "test_stick_real.py"}


@pytest.mark.parametrize(("expression", "names"), [
    ("", set()), ("hub", {"hub"}), (" hub ", {"hub"}), ("hub or gpu", {"hub", "gpu"}),
    ("hub and slow", {"hub", "slow"}),
    ("not slow", set()), ("not hub", set()), ("not (hub and slow)", set()), ("not hub or slow", {"slow"}),
    ("not (slow or not gpu)", {"gpu"}), ("not not hub", {"hub"}), ("peers and not (hub or gpu)", {"peers"}),
    ("hub(size=1)", {"hub"}), ("githubish", {"githubish"}), ("hub and", set()),
    ("a-b or browser", {"a", "b", "browser"}),
])
def test_names_behind_no_not(expression: str, names: set[str]) -> None:
    assert asked_for(expression) == names


@pytest.mark.slow
@pytest.mark.parametrize(("expression", "expected"), [
    ("", set()), ("(peers or gpu) and not slow", {"peers", "gpu"})])
def test_pytest_collects_nothing_else(expression: str, expected: set[str]) -> None:
    """The project's own files, as pytest collects them under the project's own settings."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-m", expression,
         *(str(TESTS / name) for name in FILES.values())],
        cwd=TESTS.parent, capture_output=True, text=True, timeout=300, check=False)
    collected = set(re.findall(r"^tests/([\w/]+\.py)", run.stdout, re.MULTILINE)) - {FILES["gpu"]}
    assert collected == {FILES[name] for name in expected} - {FILES["gpu"]}, run.stdout + run.stderr
    assert ("test_tf32_rounds_factors" in run.stdout) == ("gpu" in expected)


def test_every_such_marker_is_known(pytestconfig: pytest.Config) -> None:
    declared = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    assert ASKED_FOR_BY_NAME <= declared and set(FILES) == ASKED_FOR_BY_NAME
