"""What a workshop needs to know of a computer beyond the environment's report: does it do what a chapter does?

It starts a notebook kernel, generates five tokens, and compares versions, memory and disk with what was tested.
"""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils import host_memory
from course_utils.language import gettext, noted
from course_utils.report import Finding, look_at_all
from course_utils.workshop.agendas import SMALL_MEMORY, Agenda

if TYPE_CHECKING:
    from course_utils.qwen3 import Qwen3Model

INSTALL = noted('Run in the course\'s folder: python -m pip install -c .ci/constraints.txt -e ".[lab]"')
TOKENS = 5
SLOW = 0.1  # seconds a token; chapters generate hundreds
KERNEL_TIMEOUT = 90.0  # seconds; a virus scanner may read all of PyTorch first
# One thread is the better choice until more bring this much: where a browser or a virus scanner takes a core,
# threads that wait for one another are many times slower.
WORTH_MORE_THREADS = 1.25


def look_for_workshop(agenda: Agenda, notebooks: Path | None) -> tuple[tuple[Finding, ...], float | None]:
    """Look at everything that a workshop needs. Takes up to a minute, changes nothing.

    Args:
        agenda: which workshop.
        notebooks: the folder of the chapters; None if they are not here.

    Returns:
        The rows, and the seconds that a token takes; None if none could be generated.
    """
    try:
        from course_utils.environment import environment_report
        from course_utils.loading import load_model
    except (ImportError, OSError) as error:  # what a broken installation of PyTorch raises
        return (_no_pytorch(error),), None
    speeds: dict[int, float] = {}

    def generation() -> list[Finding]:
        text, measured = generate_five(load_model("tiny", device="cpu"))
        speeds.update(measured)
        return [_speed(text, speeds), _threads(speeds)]

    rows = look_at_all([
        ("Chapters", lambda: _chapters(agenda, notebooks)),
        (noted("Tested versions"),
         lambda: compare_versions(notebooks and notebooks.parent / ".ci" / "constraints.txt")),
        (noted("Notebook kernel"), lambda: start_kernel(notebooks)),
        ("Five tokens", generation),
        (noted("Memory for the workshop"), lambda: _memory(agenda)),
        ("Disk for the workshop", lambda: _disk(agenda))])
    return (*environment_report().rows, *rows), min(speeds.values(), default=None)


def _no_pytorch(error: Exception) -> Finding:
    remedy = gettext("Make a fresh virtual environment. {install}").format(install=gettext(INSTALL))
    if sys.platform == "win32" and isinstance(error, OSError):
        remedy = gettext("Install Microsoft's Visual C++ Redistributable (x64) from "
                         "aka.ms/vs/17/release/vc_redist.x64.exe, which PyTorch needs.")
    return Finding("PyTorch", gettext("cannot be loaded ({kind}: {error})").format(
        kind=type(error).__name__, error=error), "problem", remedy)


def _chapters(agenda: Agenda, notebooks: Path | None) -> Finding:
    what, names = "Chapters", ", ".join(map(str, agenda.chapters))
    lacking = [chapter for chapter in agenda.chapters
               if notebooks is None or not list(notebooks.glob(f"{chapter:02}_*.ipynb"))]
    if lacking:
        return Finding(what, f"missing: {', '.join(map(str, lacking))}", "problem",
                       "Get the course's repository (git clone, its ZIP file, or the instructor's stick), and run this "
                       "in its folder.")
    return Finding(what, gettext("{names} are here").format(names=names))


def compare_versions(constraints: Path | None) -> Finding:
    """What is installed beside what was tested.

    Args:
        constraints: a file with lines NAME==VERSION; None, or one that is not there, compares nothing.
    """
    what = noted("Tested versions")
    if constraints is None or not constraints.is_file():
        return Finding(what, "not compared: the list of them came without the course's repository", "note",
                       "Nothing need be done if the rest is well.")
    tested = dict(re.findall(r"^([\w.-]+)==([\w.]+)$", constraints.read_text(encoding="utf-8"), re.MULTILINE))
    others, same = [], 0
    for name, version in tested.items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # not every extra is for learners
            continue
        if installed.partition("+")[0] == version:  # a local build, such as 2.13.0+cpu, is a build of that release
            same += 1
        else:
            others.append(gettext("{name} {installed} ({version} was tested)").format(
                name=name, installed=installed, version=version))
    if others:
        return Finding(what, ", ".join(others), "note", gettext("They should do. For what was tested: "
                                                                "{install}").format(install=gettext(INSTALL)))
    return Finding(what, gettext("{same} packages are as tested").format(same=same))


def start_kernel(notebooks: Path | None) -> Finding:
    """Start a notebook's kernel, and let it import the package as a chapter's first cell does."""
    what, reinstall = noted("Notebook kernel"), gettext("Run: python -m pip install --force-reinstall ipykernel")
    try:
        from jupyter_client.manager import run_kernel
    except ImportError:
        return Finding(what, "JupyterLab is not installed for this Python", "problem", INSTALL)
    begun = time.perf_counter()
    try:
        with run_kernel(kernel_name="python3", startup_timeout=KERNEL_TIMEOUT, cwd=str(notebooks or Path.home()),
                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as started:
            client: Any = started  # a blocking one, which waits for the reply
            reply = client.execute("import sys, course_utils; course_utils.environment_report", reply=True,
                                   timeout=KERNEL_TIMEOUT, user_expressions={"python": "sys.prefix"})["content"]
    except Exception as error:  # whatever it is, no chapter would start either
        return Finding(what, gettext("does not start ({kind}: {error})").format(
            kind=type(error).__name__, error=error), "problem", reinstall)
    seconds = time.perf_counter() - begun
    python = reply.get("user_expressions", {}).get("python", {}).get("data", {}).get("text/plain")
    if reply["status"] != "ok" or python is None:
        return Finding(what, gettext("cannot import the course ({kind}: {error})").format(
            kind=reply.get("ename"), error=reply.get("evalue")), "problem",
                       INSTALL)
    if not os.path.samefile(ast.literal_eval(python), sys.prefix):
        return Finding(what, gettext("is that of another Python ({path})").format(
            path=ast.literal_eval(python)), "problem",
                       "Run: python -m ipykernel install --sys-prefix; if that does not help, jupyter kernelspec list "
                       "shows which kernel python3 comes first: remove it.")
    return Finding(what, gettext("runs a first cell after {seconds:.0f} s").format(seconds=seconds))


def generate_five(model: Qwen3Model) -> tuple[str, dict[int, float]]:
    """Generate five tokens on the CPU, with one thread and with as many as PyTorch takes by itself.

    Returns:
        The text, and seconds a token by the number of threads.
    """
    import torch

    from course_utils.generation import generate_text_basic_cache
    from course_utils.loading import load_tokenizer
    from course_utils.timing import median_seconds

    tokenizer, device = load_tokenizer("tiny"), torch.device("cpu")
    start = "Once upon a"
    prompt, threads = torch.tensor([tokenizer.encode(start)]), torch.get_num_threads()
    speeds = {}
    try:
        for count in sorted({1, threads}):
            torch.set_num_threads(count)
            timing = median_seconds(lambda: generate_text_basic_cache(model, prompt, TOKENS), device)
            speeds[count] = timing.median / TOKENS
        new = generate_text_basic_cache(model, prompt, TOKENS)
    finally:
        torch.set_num_threads(threads)
    return start + tokenizer.decode(new[0].tolist()), speeds


def _speed(text: str, speeds: dict[int, float]) -> Finding:
    best = min(speeds.values())
    value = f'"{text}", {best * 1e3:.1f} ms a token'
    if best > SLOW:
        return Finding("Five tokens", value, "note", "Close other programs, plug the laptop in, and leave out what the "
                       "instructor calls optional; or open the chapters in Google Colab.")
    return Finding("Five tokens", value)


def _threads(speeds: dict[int, float]) -> Finding:
    """Which number of threads to take for the bundled models."""
    what, most = noted("Threads for the workshop"), max(speeds)
    if most == 1:
        return Finding(what, "1, as set")
    measured = ", ".join(f"{count}: {seconds * 1e3:.1f} ms a token" for count, seconds in speeds.items())
    if speeds[most] * WORTH_MORE_THREADS < speeds[1]:
        return Finding(what, gettext("{most} are recommended ({measured})").format(most=most, measured=measured))
    return Finding(what, gettext("1 is recommended ({measured})").format(
        measured=measured), "note", "Start JupyterLab with the environment "
                   "variable OMP_NUM_THREADS=1: the bundled models are so small that threads wait more than they work.")


def _memory(agenda: Agenda) -> Finding:
    what, free, total = noted("Memory for the workshop"), host_memory.available(), host_memory.total()
    value = gettext("{free:.1f} GB free of {total:.1f} GB, {memory:.0f} GB wanted").format(
        free=free / 1e9, total=total / 1e9, memory=agenda.memory / 1e9)
    if total < SMALL_MEMORY:
        return Finding(what, value, "problem", "This computer is too small: open the chapters in Google Colab, by the "
                                               "link under each title.")
    if free < agenda.memory:
        return Finding(what, value, "note", gettext("Close other programs. If it stays so, start JupyterLab with the "
                                                    "environment variable COURSE_SMALL=1, with which "
                                                    "{small_memory:.0f} GB do.").format(
            small_memory=SMALL_MEMORY / 1e9))
    return Finding(what, value)


def _disk(agenda: Agenda) -> Finding:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    value = gettext("{free:.1f} GB free for temporary files, {disk:.1f} GB wanted").format(
        free=free / 1e9, disk=agenda.disk / 1e9)
    if free < agenda.disk:
        return Finding("Disk for the workshop", value, "problem", "Free some space: empty the trash, delete downloads.")
    return Finding("Disk for the workshop", value)
