"""JupyterHub for one class on one computer: everyone logs in with one password, and works in a copy of the chapters.

    COURSE_HUB_PASSWORD="eight letters or more" jupyterhub --config notebooks/workshop/hub/jupyterhub_config.py

All learners compute under the account that starts this, so nothing but good manners keeps them out of one another's
files: README.md beside this file says when that is enough, what each variable below does, and what to take otherwise.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from course_utils.errors import InputError
from course_utils.hub_cache import cache_folder
from course_utils.workshop.copies import copy_chapters
from course_utils.workshop.learners import read_roster

CHAPTERS = Path(__file__).resolve().parents[2]
FIRST_CHAPTER = sorted(path.name for path in CHAPTERS.glob("*.ipynb"))[0]
# It becomes the name of a folder and of a file, in any alphabet.
NAME = r"\w(?:[\w.-]{0,28}\w)?\Z"
SHORTEST_PASSWORD, SHORTEST_ADMIN_PASSWORD = 8, 32  # JupyterHub's own limits
PATIENCE = 300  # seconds; thirty servers that start together on two cores take two minutes
KERNEL_IDLES, SERVER_IDLES = 3600, 5400  # seconds until they are ended


def setting(name: str, default: str = "") -> str:
    """The environment variable COURSE_HUB_`name`."""
    return os.environ.get(f"COURSE_HUB_{name}", default).strip()


def number(name: str, default: int) -> int:
    """The same, where it counts something."""
    text = setting(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        stop(f"COURSE_HUB_{name} is {text!r}: give a whole number from 1 on.")
    return int(text)


def stop(sentence: str) -> NoReturn:
    """End before anything was started."""
    raise SystemExit(f"The hub was not started. {sentence}")


def password(name: str, shortest: int) -> str:
    """A password from the environment, where it does not stand in the history of commands of everyone who looks."""
    text = setting(name)
    if len(text) < shortest:
        stop(f"COURSE_HUB_{name} has {len(text)} characters: set it to {shortest} or more.")
    return text


def check_port(address: str, port: int) -> None:
    """Stop where another program has the port: found out later, it would leave the hub's proxy behind."""
    if port > 65535:
        stop(f"There is no port {port}: set COURSE_HUB_PORT to a number up to 65533.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has just ended is no hindrance
        try:
            probe.bind((address, port))
        except OSError as error:
            stop(f"Port {port} cannot be had ({error.strerror}): end the program that has it, or set COURSE_HUB_PORT "
                 "to the first of three ports that are free.")


def roster(path: str) -> set[str]:
    """The names in a file, one a line, as JupyterHub writes them; empty for no file."""
    try:
        return {name.lower() for name in read_roster(Path(path).expanduser())} if path else set()
    except InputError as error:
        stop(f"COURSE_HUB_ROSTER: {error}")


def hand_out(spawner: Any) -> None:
    """Give a learner copies of the chapters that are not there yet, with their pictures."""
    home = LEARNERS / spawner.user.name
    home.mkdir(parents=True, exist_ok=True)
    copy_chapters(CHAPTERS, home / "course")
    shutil.copytree(CHAPTERS / "images", home / "course" / "images", dirs_exist_ok=True)


def learners_environment(threads: int) -> Mapping[str, object]:
    """What every learner's notebooks find, beside this account's own COURSE_ variables."""
    own = {name: value for name, value in os.environ.items()
           if name.startswith("COURSE_") and not name.startswith("COURSE_HUB_")}
    return {
        # Threads that wait for one another beside other learners' cost more than they bring: see README.md.
        "OMP_NUM_THREADS": str(threads),
        # A fraction of the layers where a chapter measures large shapes: the peak is half as high.
        "COURSE_SMALL": "1",
        # Nobody waits for a hub that the room does not reach; whoever wants a model downloads it before the class, once
        # for all.
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(cache_folder()),
        **own,
        "COURSE_PROGRESS": lambda spawner: str(PROGRESS / f"{spawner.user.name}.json"),
    }


c = get_config()  # noqa: F821  (whoever reads this file defines it)
as_root = hasattr(os, "geteuid") and os.geteuid() == 0
if as_root and not setting("ALLOW_ROOT"):
    stop("Every learner would be root: start it from an account of its own, or in a container that holds nothing else "
         "set COURSE_HUB_ALLOW_ROOT=1.")

# Where everything lies: learners' homes, their progress, and what JupyterHub itself remembers
FOLDER = Path(setting("FOLDER", "~/course-hub")).expanduser().resolve()
LEARNERS, PROGRESS, STATE = FOLDER / "learners", FOLDER / "progress", FOLDER / "state"
for folder in (LEARNERS, PROGRESS, STATE):
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
c.JupyterHub.db_url = f"sqlite:///{STATE / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(STATE / "cookie_secret")
c.ConfigurableHTTPProxy.pid_file = str(STATE / "proxy.pid")

# Three ports in a row: the class's, and two that this computer alone sees
address, port = setting("IP"), number("PORT", 8000)
for offset, where in enumerate((address, "127.0.0.1", "127.0.0.1")):
    check_port(where, port + offset)
c.JupyterHub.bind_url = f"http://{address}:{port}"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{port + 1}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{port + 2}"
if shutil.which("setpriv"):  # Linux: a proxy ends with its hub, however that ended
    c.ConfigurableHTTPProxy.command = ["setpriv", "--pdeathsig", "TERM", "configurable-http-proxy"]

# Who comes in
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = password("PASSWORD", SHORTEST_PASSWORD)
c.Authenticator.username_pattern = NAME
c.Authenticator.allowed_users = roster(setting("ROSTER"))
c.Authenticator.allow_all = not c.Authenticator.allowed_users
if setting("ADMIN_PASSWORD"):
    c.Authenticator.admin_users = {"instructor"}
    c.SharedPasswordAuthenticator.admin_password = password("ADMIN_PASSWORD", SHORTEST_ADMIN_PASSWORD)
c.JupyterHub.template_vars = {"announcement_login": "Your name in one word, the same each time, and the class's "
                                                    "password."}

# What a learner gets
memory = number("MEMORY", 4000) * 10**6
limit = ["prlimit", f"--data={memory}"] if shutil.which("prlimit") else []  # Linux; of each process
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = str(LEARNERS / "{username}")
c.Spawner.cmd = [*limit, sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = [
    # A notebook that lies open for an hour costs memory for nothing: Run All Above brings it back.
    f"--MappingKernelManager.cull_idle_timeout={KERNEL_IDLES}", "--MappingKernelManager.cull_interval=300",
    "--MappingKernelManager.cull_connected=True", f"--ServerApp.shutdown_no_activity_timeout={SERVER_IDLES}",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    *["--allow-root"] * as_root]
c.Spawner.notebook_dir = "~/course"
c.Spawner.default_url = f"/lab/tree/{FIRST_CHAPTER}"
c.Spawner.pre_spawn_hook = hand_out
c.Spawner.mem_limit = memory  # MEM_LIMIT, by which course_utils knows what is a learner's
c.Spawner.environment = learners_environment(max(1, (os.cpu_count() or 1) // number("LEARNERS", 30)))
c.Spawner.start_timeout = c.Spawner.http_timeout = PATIENCE
