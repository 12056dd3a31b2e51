"""What this computer has for the course: one table, each row OK, note or problem, with what to do about it."""

from __future__ import annotations

import http.client
import importlib.metadata
import os
import platform
import shutil
import sys
import sysconfig
import threading
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from course_utils import host_memory, kernels
from course_utils.device import available_devices, describe_device, free_memory, get_device, total_memory
from course_utils.errors import CourseError, InputError
from course_utils.language import gettext, noted
from course_utils.linear import fastest_routine, routine_speeds
from course_utils.native import steps_problem
from course_utils.report import EnvironmentReport, Finding, look_at_all
from course_utils.threads import THREADS_VARIABLE, thread_count
from course_utils.timing import format_bytes

OLDEST_PYTHON = (3, 11)
OLDEST_MACOS = 14
# As platform.machine() calls their processors.
SUPPORTED_MACHINES = {"Linux": ("x86_64", "aarch64"), "Windows": ("AMD64",), "Darwin": ("arm64",)}
NEEDED_PACKAGES = ("tokenizers", "safetensors", "huggingface_hub", "jinja2", "numpy", "matplotlib", "tqdm")
HUB_TIMEOUT = 3.0  # seconds
PLACEHOLDER = "https://github.com/OWNER/"  # what the course's address begins with until it is set
PROJECT_FILE = Path(__file__).resolve().parent.parent / "pyproject.toml"  # in a checkout
# Beside the weights there is the cache of keys and values, and what one layer computes.
SPARE_SHARE = 0.2


def environment_report(check_network: bool = True) -> EnvironmentReport:
    """Look at everything the course needs, and at what makes it faster. Takes a second or two, changes nothing.

    Args:
        check_network: ask the model hub whether it answers, for three seconds at most. Nothing is asked where
            HF_HUB_OFFLINE is set.

    Returns:
        The table. What cannot be found out is a note in it: this function never raises.
    """
    looks: list[tuple[str, Callable[[], Finding | Sequence[Finding]]]] = [
        ("Python", _python), ("Platform", _platform), ("PyTorch", _pytorch), ("Packages", _packages),
        ("Notebook packages", _notebook_packages), ("Device", _device), ("Memory", _memory), ("Disk", _disk),
        ("Models that fit", _models), ("C++ compiler", _compiler), ("Kernels", _kernels),
        ("Single vectors", _single_vectors), ("Threads", _threads),
        ("Bundled models", _bundled),
        ("Model hub", lambda: _hub(check_network))]
    return EnvironmentReport(look_at_all(looks))


def repository_row() -> Finding:
    """The address of the course's repository: that of the checkout, else what the package was installed with.

    It is no part of the report: it concerns whoever publishes a copy, and no learner.

    Returns:
        A note while the address is the placeholder, for then all links in the notebooks are dead.
    """
    what = noted("Repository")
    address = _address_in_checkout() or _address_in_metadata()
    if address is None:
        return Finding(what, "not known")
    if address.startswith(PLACEHOLDER):
        return Finding(what, gettext("{address}, a placeholder").format(address=address), "note",
                       gettext("Before you publish this copy, run in its folder: python notebooks/build.py repository "
                               "https://github.com/YOU/NAME"))
    return Finding(what, address)


def _address_in_checkout() -> str | None:
    try:
        project = tomllib.loads(PROJECT_FILE.read_text(encoding="utf-8"))["project"]
        return str(project["urls"]["Repository"]) if project["name"] == "course-utils" else None
    except (OSError, ValueError, KeyError, TypeError):  # none there, or another project's
        return None


def _address_in_metadata() -> str | None:
    try:
        lines = importlib.metadata.metadata("course-utils").get_all("Project-URL", [])
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((line.partition(", ")[2] for line in lines if line.startswith("Repository, ")), None)


def where() -> str:
    """Where this Python runs: "Google Colab", "Lightning Studio", "GitHub Codespaces", "Binder", "JupyterHub" or
    "local"."""
    if "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ:
        return "Google Colab"
    # What each of them sets; Binder is a JupyterHub, too.
    signs = {"LIGHTNING_CLOUDSPACE_ID": "Lightning Studio", "CODESPACES": "GitHub Codespaces",
             "BINDER_SERVICE_HOST": "Binder", "JUPYTERHUB_USER": "JupyterHub"}
    return next((name for variable, name in signs.items() if os.environ.get(variable)), "local")


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return Finding("Python", version, "problem", gettext("Install Python {oldest} or later.").format(oldest=oldest))
    return Finding("Python", version)


def _platform() -> Finding:
    system, machine, macos = platform.system(), platform.machine(), platform.mac_ver()[0]
    value = f"{f'macOS {macos}' if macos else system}, {machine}, {where()}"
    old = bool(macos) and int(macos.partition(".")[0]) < OLDEST_MACOS
    if old or machine not in SUPPORTED_MACHINES.get(system, ()):
        return Finding("Platform", value, "note", "PyTorch has no current package for such a machine, so the course is "
                                                   "not tested on it: open the chapters in Google Colab, by the link "
                                                   "under each title.")
    return Finding("Platform", value)


def _pytorch() -> Finding:
    return Finding("PyTorch", torch.__version__)


def _versions(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of the packages that are installed, with their versions, and those that are not."""
    found, missing = [], []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return found, missing


def _packages() -> Finding:
    found, missing = _versions(NEEDED_PACKAGES)
    if missing:
        return Finding("Packages", gettext("missing: {missing}").format(missing=", ".join(missing)), "problem",
                       f"{_pip()} install {' '.join(missing)}")
    return Finding("Packages", ", ".join(found))


def _notebook_packages() -> Finding:
    what = noted("Notebook packages")
    if where() == "Google Colab":
        # Colab brings its own notebook; its page draws the controls of ipywidgets 7 only.
        version = importlib.metadata.version("ipywidgets")
        if int(version.partition(".")[0]) > 7:
            return Finding(what, f"ipywidgets {version}", "note",
                           "Sliders and buttons do not show in Colab: choose Runtime > Disconnect and delete runtime, "
                           "and do not install ipywidgets again.")
        return Finding(what, gettext("ipywidgets {version}, Colab's own notebook").format(version=version))
    found, missing = _versions(("jupyterlab", "ipywidgets"))
    if missing:
        return Finding(what, ", ".join([*found, gettext("missing: {missing}").format(
            missing=", ".join(missing))]), "note",
                       gettext("{pip} install {missing}, unless your editor shows notebooks itself.").format(
                           pip=_pip(), missing=" ".join(missing)))
    return Finding(what, ", ".join(found))


def _pip() -> str:
    return gettext("Run: python -m pip")


def _device() -> Finding:
    try:
        device = get_device()
    except CourseError as error:
        return Finding("Device", str(error), "problem", "Unset the environment variable COURSE_DEVICE or correct it.")
    value = describe_device(device)
    if device.type == "cpu" and available_devices() == ["cpu"] and shutil.which("nvidia-smi"):
        return Finding("Device", value, "note",
                       "There seems to be an NVIDIA GPU that this PyTorch cannot use. Install the build for CUDA, as "
                       "pytorch.org/get-started describes, to be faster.")
    if device.type == "cpu":
        value += gettext("; every chapter runs on it")
    return Finding("Device", value)


def _memory() -> list[Finding]:
    free = host_memory.available()
    value = gettext("{free} free of {total}").format(
        free=format_bytes(free), total=format_bytes(host_memory.total()))
    rows = [Finding("Memory", value) if free > 2e9 else
            Finding("Memory", value, "note",
                    gettext("Close other programs and other notebooks (Kernel > Shut Down All Kernels)."))]
    device = get_device()
    if device.type != "cpu":
        rows.append(Finding("Memory of the device",
                            gettext("{free} free of {total}").format(
                                free=format_bytes(free_memory(device)),
                                total=format_bytes(total_memory(device)))))
    return rows


def _disk() -> Finding:
    from course_utils.hub_cache import cache_folder

    cache = cache_folder()
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    value = gettext("{free} free where downloaded models are kept ({with_tilde})").format(
        free=format_bytes(free), with_tilde=_with_tilde(cache))
    if free < 3e9:
        return Finding("Disk", value, "note", "The bundled models need nothing more, the smallest download needs 1.5 "
                                              "GB: free some space, or set HF_HOME to a folder on a larger disk.")
    return Finding("Disk", value)


def _with_tilde(path: Path) -> str:
    """A path that does not tell the user's name where it can be helped."""
    try:
        return str(Path("~") / path.relative_to(Path.home()))
    except (ValueError, RuntimeError):
        return str(path)


def _models() -> Finding:
    from course_utils.family import FAMILY
    from course_utils.planner import weight_bytes

    free = free_memory(get_device())
    fitting, smallest = ["tiny", "nano"], None
    for name, config in FAMILY.items():
        if name.endswith("-Base"):  # as large as the chat model of the same size
            continue
        size = weight_bytes(config)  # in bfloat16, the format in which the family is published
        smallest = size if smallest is None else min(size, smallest)
        if size * (1 + SPARE_SHARE) <= free:
            fitting.append(f"{name.partition('/')[2]} ({format_bytes(size)})")
    value = ", ".join(fitting)
    if len(fitting) == 2 and smallest is not None:
        return Finding("Models that fit", value, "note", gettext("The downloaded ones do not fit, and the course does "
                                                                 "not need them: the smallest takes {free} of "
                                                                 "free memory.").format(
            free=format_bytes(smallest * (1 + SPARE_SHARE))))
    return Finding("Models that fit", value)


def _compiler() -> Finding:
    """What `torch.compile` needs on a CPU: a C++ compiler, and on Linux the headers of Python."""
    what = noted("C++ compiler")
    compiler = next(filter(None, map(shutil.which, [*filter(None, [os.environ.get("CXX")]),
                                                    *_compilers(platform.system())])), None)
    header = Path(sysconfig.get_path("include"), "Python.h").is_file()
    if compiler and header:
        return Finding(what, gettext("{name}, with Python.h; torch.compile can use them").format(
            name=Path(compiler).name))
    missing = " and ".join(name for name, there in (("a C++ compiler", compiler), ("Python.h", header)) if not there)
    return Finding(what, gettext("missing: {missing}").format(missing=missing), "note",
                   gettext("Only torch.compile (chapter 7) needs it. "
                           "{how_to_get_compiler}").format(how_to_get_compiler=_how_to_get_compiler(platform.system())))


def _compilers(system: str) -> tuple[str, ...]:
    """Commands to look for, the one that PyTorch itself tries first at the front."""
    return {"Windows": ("cl", "clang-cl", "g++"), "Darwin": ("clang++", "g++")}.get(system, ("g++", "clang++", "c++"))


def _how_to_get_compiler(system: str) -> str:
    if system == "Windows":
        return gettext("Install the Build Tools for Visual Studio with C++, and start Python from their "
                        "\"Developer Command Prompt\".")
    if system == "Darwin":
        return gettext("Run: xcode-select --install")
    return gettext("On Debian or Ubuntu run: sudo apt install g++ python3-dev")


def _kernels() -> Finding:
    """The kernels, compiled now if they were not before."""
    what = noted("Kernels")
    problem = steps_problem()
    if problem is None:
        return Finding(what, gettext("{instruction_set}, for weights in 8 and 4 bits, attention and whole "
                                     "steps").format(instruction_set=kernels.instruction_set()))
    return Finding(what, problem, "note",
                   gettext("Only the speed depends on them."))


def _single_vectors() -> Finding:
    """Which routine multiplies single vectors in bfloat16, tried now if it was not before."""
    speeds = routine_speeds(torch.bfloat16, torch.get_num_threads())
    tried = ", ".join(f"{name} {speed / 1e9:.0f}" for name, speed in speeds.items())
    return Finding(noted("Single vectors"), gettext("{routine} multiplies them in bfloat16 (GB/s of weights: "
                                                    "{tried})").format(
        routine=fastest_routine(torch.bfloat16), tried=tried))


def _threads() -> Finding:
    what, number = noted("Threads"), torch.get_num_threads()
    if os.environ.get(THREADS_VARIABLE):
        try:
            return Finding(what, gettext("{threads} for every model, as {variable} says").format(
                threads=thread_count(0), variable=THREADS_VARIABLE))
        except InputError as error:
            return Finding(what, str(error), "problem", gettext("Unset the environment variable {variable} or correct "
                                                                "it.").format(variable=THREADS_VARIABLE))
    return Finding(what, gettext("{number} for large models, 1 for small ones such as tiny, whose operations are "
                                 "shorter than waiting for each other; {variable}=N sets another number").format(
        number=number, variable=THREADS_VARIABLE))


def _bundled() -> Finding:
    from course_utils.hub import BUNDLED, resolve

    missing = []
    for name in BUNDLED:
        try:
            resolve(name)
        except CourseError:
            missing.append(name)
    if missing:
        return Finding("Bundled models", gettext("missing: {missing}").format(missing=", ".join(missing)), "problem",
                       gettext("Install the package again, or restore the data folder of the repository."))
    return Finding("Bundled models", ", ".join(BUNDLED))


def _hub(check_network: bool) -> Finding:
    from course_utils.hub import hub_address, is_offline

    what, fine = noted("Model hub"), gettext("The bundled models need no network.")
    if is_offline():
        return Finding(what, gettext("not asked, HF_HUB_OFFLINE is set"), "note", gettext("{fine} Unset it to download "
                                                                                 "others.").format(fine=fine))
    if not check_network:
        return Finding(what, gettext("not asked"), "note", fine)
    try:
        address = hub_address()
    except InputError as error:
        return Finding(what, gettext("not asked"), "note", f"{fine} {error}")
    trouble = _why_unreachable(address)
    if trouble:
        return Finding(what, gettext("{address} does not answer ({trouble})").format(
            address=address, trouble=trouble), "note",
                   gettext("{fine} To download others, check the network, or set HF_ENDPOINT to a mirror.").format(
                       fine=fine))
    return Finding(what, f"{address} answers")


def _why_unreachable(address: str) -> str | None:
    """Ask an address for its first page without the content. None if it answers in time, else the reason."""
    reasons: list[str | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")
            with urllib.request.urlopen(request, timeout=HUB_TIMEOUT):
                reasons.append(None)
        except urllib.error.HTTPError as error:  # it is there, though it may not like the question
            reasons.append(None if error.code < 500 else f"error {error.code}")
        except (OSError, ValueError, http.client.HTTPException) as error:
            reasons.append(str(getattr(error, "reason", error)))

    # In a thread of its own, since looking up a name can take far longer than the timeout.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_TIMEOUT)
    return reasons[0] if reasons else gettext("no answer within {hub_timeout:.0f} seconds").format(
        hub_timeout=HUB_TIMEOUT)
