"""Make a USB stick from which learners install the course without a network.

    python notebooks/workshop/stick.py FOLDER --system windows macos --python 3.12 3.13

FOLDER then holds the wheels for each of the systems and Pythons, the repository as it is committed, `install.cmd` for
Windows, `install.sh` for the others, and checksums: 220 to 320 MB for a system and a Python. An interrupted run goes on
when the same command is given again; what an earlier run put there and this one does not need is removed. Needs git
and `pip install -e ".[workshop]"`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from wheels import SYSTEMS, Target, fetch, resolve, sha256

from course_utils.errors import CourseError

REPOSITORY = Path(__file__).resolve().parents[2]
ON_STICK = Path(__file__).resolve().parent / "on_stick"
SUMS, COURSE = "SHA256SUMS", "course.zip"


def make_stick(folder: Path, targets: Sequence[Target], repository: Path = REPOSITORY, torch: str | None = None,
               ) -> None:
    """Make the folder, or bring an earlier one up to date.

    Args:
        folder: of the stick; it is new, empty, or has been made here.
        targets: the systems and Pythons.
        repository: the checkout that goes onto the stick.
        torch: an index or folder with PyTorch's wheels for Linux; None is that of its makers.

    Raises:
        CourseError: if something cannot be had; says what, and what to do.
    """
    if folder.exists() and not (folder / "wheels").is_dir() and any(folder.iterdir()):
        raise CourseError(f"{folder} holds something else than a stick made here: give an empty folder, or a new one.")
    _pack(repository, None)  # better said now than after the wheels
    wheel_folder, target_folder = folder / "wheels", folder / "targets"
    for part in (wheel_folder, target_folder):
        part.mkdir(parents=True, exist_ok=True)
    (folder / SUMS).unlink(missing_ok=True)  # without it nobody installs from a stick that is half made
    for source in ON_STICK.iterdir():
        # Windows reads the labels of a .cmd file, and its editor a text, best with line ends of its own.
        newline = "\n" if source.suffix in (".py", ".sh") else "\r\n"
        (folder / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8", newline=newline)
    needed: set[Path] = set()
    for old in target_folder.iterdir():
        old.unlink()
    for target in targets:
        place = "" if not SYSTEMS[target.system].torch else torch or SYSTEMS[target.system].torch
        found = fetch(resolve(target, repository, place), target, wheel_folder, place)
        needed.update(found)
        lines = "".join(f"./wheels/{wheel.name}\n" for wheel in found)
        (target_folder / f"{target}.txt").write_text(lines, encoding="utf-8", newline="\n")
    for old in set(wheel_folder.iterdir()) - needed:
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    _pack(repository, folder / COURSE)
    files = [folder / COURSE, *(folder / source.name for source in sorted(ON_STICK.iterdir())),
             *sorted(target_folder.iterdir()), *sorted(wheel_folder.iterdir())]
    sums = "".join(f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
    (folder / SUMS).write_text(sums, encoding="utf-8", newline="\n")


def _pack(repository: Path, archive: Path | None) -> None:
    """Write what is committed into a ZIP file; with None only see whether this can be done.

    Whatever else lies in the folder, such as the names of learners, stays where it is.
    """
    command = ["git", "-C", str(repository)]
    command += ["rev-parse", "HEAD"] if archive is None else ["archive", "--format=zip", f"--output={archive}", "HEAD"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        trouble = run.stderr.strip() if run.returncode else ""
    except OSError as error:
        trouble = f"git does not start: {error.strerror}"
    if trouble:
        raise CourseError(f"The course's repository cannot be packed ({trouble.splitlines()[-1]}): install git, and "
                         "make the stick from a clone of it.")


def supported_pythons(repository: Path = REPOSITORY) -> list[str]:
    """The Pythons that pyproject.toml names, such as "3.11"."""
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in project["classifiers"])
    return [match[1] for match in found if match]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)  # type: ignore[union-attr]
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the stick: new, empty, or made by this command")
    parser.add_argument("--system", nargs="+", required=True, choices=SYSTEMS, help="of the learners")
    parser.add_argument("--python", nargs="+", required=True, choices=supported_pythons(), help="of the learners")
    parser.add_argument("--torch", metavar="PLACE", help="an index or folder with PyTorch's wheels for Linux (default: "
                        "those without CUDA, from pytorch.org)")
    options = parser.parse_args(arguments)
    targets = [Target(system, python) for system in dict.fromkeys(options.system)
               for python in dict.fromkeys(options.python)]
    try:
        make_stick(options.folder, targets, torch=options.torch)
    except CourseError as error:
        raise SystemExit(f"stick.py: {error}") from error
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file())
    print(f"{options.folder} is ready: {size / 1e6:.0f} MB for {', '.join(map(str, targets))}. Try it as a learner "
          "would: README.txt there says how.")
    changes = subprocess.run(["git", "-C", str(REPOSITORY), "status", "--porcelain"], capture_output=True, text=True,
                             check=False).stdout.splitlines()
    if changes:
        print(f"{len(changes)} changed or new files of the repository are not committed, and so not on the stick.")


if __name__ == "__main__":
    sys.exit(main())
