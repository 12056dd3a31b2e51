"""Install the course from the stick that this file lies on, without a network. Needs Python alone, 3.11 or later.

What it does: look for the wheels that fit, compare checksums, unpack the course, make a virtual environment in its
folder, install into that, and look whether the computer is ready for the workshop.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

STICK = Path(__file__).resolve().parent
SYSTEMS = {("Windows", "AMD64"): "windows", ("Darwin", "arm64"): "macos", ("Linux", "x86_64"): "linux",
           ("Linux", "aarch64"): "linux-arm"}
OLDEST_MACOS = 14
COLAB = "open the chapters in Google Colab, or ask your instructor"


class Stop(Exception):
    """The installation cannot go on: one sentence on what is wrong, one on what to do."""


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--to", type=Path, default=Path.home() / "llm-course", metavar="FOLDER",
                        help="where the course goes (default: llm-course in your home folder)")
    parser.add_argument("--name", help="what your instructor is to call you")
    parser.add_argument("--for", dest="agenda", default="half-a-day", metavar="WORKSHOP",
                        help="ninety-minutes, half-a-day or two-days (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        if not (STICK / "SHA256SUMS").is_file():
            raise Stop("The stick was not finished, its file SHA256SUMS is missing: ask your instructor to run the "
                       "same stick.py command again.")
        system, pythons = find_system()
        if this_python() not in pythons:
            return subprocess.call([*another_python(pythons), str(Path(__file__).resolve()), *sys.argv[1:]])
        target = f"{system}-{this_python()}"
        wheels = check_files(target)
        folder = options.to.expanduser().resolve()
        check_space(folder, wheels)
        unpack(folder)
        python = install(folder, target, wheels)
    except Stop as problem:
        print("STOPPED:", problem, file=sys.stderr)
        return 1
    return check(folder, python, options)


def find_system():
    """What kind of computer this is, and the Pythons that the stick has wheels for there, oldest first."""
    kind = f"{platform.system()} on {platform.machine()}, with a Python of {sys.maxsize.bit_length() + 1} bits"
    system = SYSTEMS.get((platform.system(), platform.machine()))
    if system is None or sys.maxsize < 2**32:
        raise Stop(f"PyTorch has no package for this computer ({kind}): {COLAB}.")
    macos = platform.mac_ver()[0]
    if macos and int(macos.partition(".")[0]) < OLDEST_MACOS:
        raise Stop(f"PyTorch needs macOS {OLDEST_MACOS} or later, and this is {macos}: {COLAB}.")
    there = sorted(path.stem for path in (STICK / "targets").glob("*.txt"))
    pythons = [name.rpartition("-")[2] for name in there if name.rpartition("-")[0] == system]
    if not pythons:
        raise Stop(f"This stick is for {', '.join(there) or 'nothing yet'}, and this computer is of the kind {system}: "
                   "ask your instructor for another.")
    return system, sorted(pythons, key=lambda version: int(version.partition(".")[2]))


def this_python():
    return "{}.{}".format(*sys.version_info)


def another_python(pythons):
    """The command of a Python on this computer that the stick has wheels for, the newest that there is."""
    for version in reversed(pythons):
        for command in (["py", "-" + version], ["python" + version], ["python3"], ["python"]):
            if shutil.which(command[0]) and version_of(command) == version:
                return command
    raise Stop(f"This stick is for Python {' or '.join(pythons)}, and here is {platform.python_version()}: install one "
               "of those, from the folder python of the stick if it has one, or from python.org.")


def version_of(command):
    code = "import sys; print('{}.{}'.format(*sys.version_info))"
    run = subprocess.run([*command, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return run.stdout.decode("ascii", "replace").strip()


def check_files(target):
    """Compare the files that are needed with the checksums.

    Returns:
        The wheels.
    """
    lines = (STICK / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    sums = {name: checksum for checksum, name in (line.split("  ", 1) for line in lines)}
    listed = (STICK / "targets" / (target + ".txt")).read_text(encoding="utf-8").split()
    names = ["course.zip", f"targets/{target}.txt", *(name.replace("./", "", 1) for name in listed)]
    print(f"Comparing {len(names)} files with their checksums ...", flush=True)
    for name in names:
        path = STICK / name
        if not path.is_file():
            raise Stop(f"{name} is missing on the stick: copy the stick again, or ask your instructor.")
        if sums.get(name) != sha256(path):
            raise Stop(f"{name} is damaged on the stick: copy the stick again, or ask your instructor.")
    return [STICK / name for name in names[2:]]


def sha256(path):
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            checksum.update(block)
    return checksum.hexdigest()


def check_space(folder, wheels):
    size = 0
    for path in [STICK / "course.zip", *wheels]:
        with zipfile.ZipFile(path) as archive:
            size += sum(entry.file_size for entry in archive.infolist())
    existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(existing).free
    if free < size * 1.2:
        raise Stop(f"{existing} has {free / 1e9:.1f} GB free, and the course takes {size * 1.2 / 1e9:.1f} GB: free "
                   "some space, or choose another disk by --to FOLDER.")


def unpack(folder):
    """Put the course there, whole or not at all. What is there already stays: a learner may have written in it."""
    if (folder / "course_utils").is_dir():
        print(f"{folder} is there already: its files stay as they are, its packages are installed anew.")
        return
    if folder.exists() and any(folder.iterdir()):
        raise Stop(f"{folder} holds something else: choose another folder by --to FOLDER.")
    print(f"Unpacking the course into {folder} ...", flush=True)
    partial = folder.with_name(folder.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        with zipfile.ZipFile(STICK / "course.zip") as archive:
            archive.extractall(partial)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        raise Stop(f"{folder} cannot be written ({error.strerror}): choose another folder by --to FOLDER."
                   ) from error


def install(folder, target, wheels):
    """Make the virtual environment and install into it.

    Returns:
        Its Python.
    """
    print(f"Installing {len(wheels)} packages, one to five minutes ...", flush=True)
    begun = time.monotonic()
    environment = folder / ".venv"
    try:
        # Without pip: some Linux systems leave out what would put it there. It comes from the stick.
        venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt", clear=True).create(environment)
    except OSError as error:
        raise Stop(f"{environment} cannot be made ({error.strerror}): close JupyterLab if it is open, and start this "
                   "again.") from error
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [str(next(wheel for wheel in wheels if wheel.name.startswith("pip-"))) + "/pip", "install", "--no-index",
           "--no-deps", "--no-input", "--disable-pip-version-check", "--no-warn-script-location"]
    # No setting of this computer's pip may lead elsewhere.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    clean["PIP_CONFIG_FILE"] = os.devnull
    with (folder / "install.log").open("a", encoding="utf-8") as log:
        for what in (["-r", f"targets/{target}.txt"], ["--no-build-isolation", "-e", str(folder)]):
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} pip install {' '.join(what)}\n")
            log.flush()
            status = subprocess.call([str(python), *pip, *what], cwd=str(STICK), env=clean, stdout=log, stderr=log)
            if status:
                raise Stop(f"pip could not install ({last_line(folder / 'install.log')}): send "
                           f"{folder / 'install.log'} to your instructor.")
        seconds = time.monotonic() - begun
        log.write(f"Installed in {seconds:.0f} s.\n")
    print(f"Installed in {seconds:.0f} s.", flush=True)
    return python


def last_line(path):
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines)[-1].strip()


def check(folder, python, options):
    """Look at the computer, and say how to go on. The exit status is that of the check: 0 is ready."""
    name = options.name
    if name is None:
        name = ""
        if sys.stdin is not None and sys.stdin.isatty():
            name = input("What shall your instructor call you? (Enter: nothing) ").strip()
    command = [str(python), "-m", "course_utils", "check", "--workshop", str(folder / "check.json"), "--for",
               options.agenda, *(["--name", name] if name else [])]
    status = subprocess.call(command, cwd=str(folder))
    program = python.with_name("course-utils.exe" if os.name == "nt" else "course-utils")
    print(f'\nTo open the first chapter:\n    "{program}" lab')
    return status


if __name__ == "__main__":
    sys.exit(main())
