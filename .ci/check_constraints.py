"""Does each line of constraints.txt admit each Python that pyproject.toml names? pip asks the package index.

    python .ci/check_constraints.py

What a release needs of Python, and for which Pythons it has wheels, is read from the index's own pages; nothing is
downloaded or installed. It is asked for this system alone. Exit status 1: a line does not, and is named. Where no index
answers, a line that begins with SKIPPED says so, and the status is 0.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TIMEOUT = 120.0  # seconds a question may take


class Unanswered(Exception):
    """The index did not answer."""


def named_pythons(project_file: Path = FOLDER.parent / "pyproject.toml") -> list[str]:
    """The Pythons of the classifiers, such as "3.11", in their order."""
    classifiers = tomllib.loads(project_file.read_text(encoding="utf-8"))["project"]["classifiers"]
    found = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in classifiers)
    return [match.group(1) for match in found if match]


def pins(constraints_file: Path = FOLDER / "constraints.txt") -> dict[str, str]:
    """Package to version, from lines NAME==VERSION.

    Raises:
        ValueError: if a line is none: one with a marker would leave some Python without a tested version.
    """
    found = {}
    for line in constraints_file.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            match = re.fullmatch(r"([\w.-]+)==([\w.]+)", line)
            if match is None:
                raise ValueError(f"{constraints_file.name} has the line {line!r}: write NAME==VERSION alone.")
            found[match.group(1)] = match.group(2)
    return found


def releases(package: str, python: str | None = None) -> list[str]:
    """The versions of a package that the index has for this system and a Python (None: this one), maybe none.

    Raises:
        Unanswered: if the index cannot be reached.
    """
    command = [sys.executable, "-m", "pip", "index", "versions", package]
    if python is not None:
        command += [f"--python-version={python}", "--only-binary=:all:"]
    environment = {name: value for name, value in os.environ.items() if name != "PIP_QUIET"}
    try:
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise Unanswered(f"no answer about {package} within {TIMEOUT:.0f} seconds") from None
    found = re.search(r"^Available versions: (.*)$", run.stdout, re.MULTILINE)
    if found:
        # A local build, such as 2.13.0+cpu, is a build of that release.
        return [version.partition("+")[0] for version in found.group(1).split(", ")]
    # pip says of an index that it cannot reach what it says of an absent package, after telling of its tries.
    if "Retrying" in run.stderr or "No matching distribution found" not in run.stderr:
        raise Unanswered((run.stderr.strip().splitlines() or ["pip said nothing"])[-1])
    return []


def faults(pinned: dict[str, str], pythons: list[str]) -> list[str]:
    """A sentence for each pin and Python that do not go together.

    Raises:
        Unanswered: if the index cannot be reached.
    """
    pairs = list(product(pinned, pythons))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        admitted = pool.map(releases, *zip(*pairs))
        return [f"{package}=={pinned[package]} has no wheel for Python {python} here: pin a release that every named "
                "Python admits, or name fewer." for (package, python), found in zip(pairs, admitted)
                if pinned[package] not in found]


def main() -> int:
    """Print the faults, or that there are none. The exit status."""
    pinned, pythons = pins(), named_pythons()
    try:
        if not releases("pip"):
            raise Unanswered("it does not even know pip")
        found = faults(pinned, pythons)
    except Unanswered as reason:
        print(f"SKIPPED whether each constraint admits each Python: needs a package index ({reason})")
        return 0
    print(*found or [f"Each of {len(pinned)} constraints admits Python {', '.join(pythons)}."], sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
