"""A package index on this machine with small wheels made on the spot, and a repository that needs them."""

from __future__ import annotations

import hashlib
import http.server
import importlib.metadata
import subprocess
import sys
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, unquote

PYTHON = "{}.{}".format(*sys.version_info)
_CP = PYTHON.replace("3.", "cp3")

PROJECT = '''
[build-system]
requires = ["backend-helper"]
build-backend = "backend"
backend-path = ["."]
[project]
name = "course-utils"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["torch", "moon>=1"]
[project.optional-dependencies]
lab = ["boat"]
'''
# What hatchling does, in small.
BACKEND = '''
import pathlib, zipfile
def get_requires_for_build_editable(config_settings=None):
    return ["editables"]
def build_editable(folder, config_settings=None, metadata_directory=None):
    import backend_helper, editables
    name = "course_utils-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        wheel.writestr("course_utils.pth", str(pathlib.Path.cwd()))
        for file, lines in {"METADATA": ["Metadata-Version: 2.1", "Name: course-utils", "Version: 0.1.0",
                                         "Requires-Dist: torch", "Requires-Dist: moon>=1", "Provides-Extra: lab",
                                         "Requires-Dist: boat; extra == 'lab'"],
                            "WHEEL": ["Wheel-Version: 1.0", "Generator: x", "Root-Is-Purelib: true",
                                      "Tag: py3-none-any"], "RECORD": []}.items():
            wheel.writestr("course_utils-0.1.0.dist-info/" + file, "\\n".join(lines))
    return name
'''
MAIN = '''
import json, sys
import boat, moon, torch
arguments = sys.argv[1:]
with open(arguments[arguments.index("--workshop") + 1], "w") as file:
    json.dump({"arguments": arguments, "torch": torch.__version__, "path": sys.path}, file)
'''


def make_wheel(folder: Path, name: str, version: str, tag: str = "py3-none-any", needs: Sequence[str] = ()) -> Path:
    """A wheel with a module of the package's name, which knows its version."""
    module, path = name.replace("-", "_"), folder / f"{name.replace('-', '_')}-{version}-{tag}.whl"
    metadata = "".join(["Metadata-Version: 2.1\n", f"Name: {name}\nVersion: {version}\n",
                        *(f"Requires-Dist: {line}\n" for line in needs)])
    information = f"{module}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{module}/__init__.py", f"__version__ = {version!r}\n")
        wheel.writestr(f"{information}/METADATA", metadata)
        wheel.writestr(f"{information}/WHEEL", f"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{information}/RECORD", "")
    return path


def pip_wheel(folder: Path) -> Path:
    """The pip of this Python, packed again as the wheel that it came from."""
    distribution = importlib.metadata.distribution("pip")
    path = folder / f"pip-{distribution.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file in distribution.files or []:
            if file.parts[0].startswith("pip") and file.suffix != ".pyc":
                wheel.write(file.locate(), str(file))
    return path


class Index:
    """A server of `/simple/NAME/` and, of PyTorch's CPU builds, `/cpu/torch/`.

    Attributes:
        folder: with the wheels of the index; those of the other page are in `cpu` beside it.
        fetched: the names of the wheels that pip asked for, in order; uv reads what they need, and keeps that.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.cpu = folder / "index", folder / "cpu"
        self.fetched: list[str] = []
        for part in (self.folder, self.cpu):
            part.mkdir()
        for name, tag in (("torch", f"{_CP}-none-manylinux_2_28_x86_64"), ("torch", f"{_CP}-none-macosx_14_0_arm64"),
                          ("torch", "cp312-cp312-win_amd64"), ("torch", f"{_CP}-none-manylinux_2_28_aarch64")):
            make_wheel(self.folder, name, "2.0", tag, ["gigabytes; sys_platform == 'linux'"])
        for machine in ("x86_64", "aarch64"):
            make_wheel(self.cpu, "torch", "2.0+cpu", f"{_CP}-none-manylinux_2_28_{machine}")
        for platform in ("manylinux2014_x86_64", "manylinux_2_17_aarch64", "macosx_11_0_arm64", "win_amd64"):
            make_wheel(self.folder, "boat", "1.0", f"cp311-abi3-{platform}", ["oars; sys_platform == 'win32'"])
        for name, version in (("gigabytes", "1.0"), ("oars", "1.0"), ("moon", "1.0"), ("moon", "2.0"), ("moon", "3.0"),
                              ("editables", "1.0"), ("backend-helper", "1.0")):
            make_wheel(self.folder, name, version)
        pip_wheel(self.folder)
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body are sent together: apart, 40 ms go by with each answer

            def do_GET(self) -> None:
                path = unquote(self.path.partition("?")[0])
                content = index.answer(path)
                if self.command == "GET" and path.endswith(".whl") and self.headers["User-Agent"].startswith("pip/"):
                    index.fetched.append(path.rpartition("/")[2])
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/zip")
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content or b"")

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path: str) -> bytes | None:
        """A page of links with checksums, or a wheel; None for what is not there."""
        if path.endswith("/"):
            name, folder = path.strip("/").rpartition("/")[2], self.cpu if path.startswith("/cpu/") else self.folder
            wheels = sorted(folder.glob(f"{name.replace('-', '_')}-*.whl"))
            links = [f'<a href="/{folder.name}/{quote(wheel.name)}#sha256={_sum(wheel)}">{wheel.name}</a>'
                     for wheel in wheels]
            return f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode() if links else None
        wheel = self.folder.parent / path.strip("/")
        return wheel.read_bytes() if wheel.is_file() else None

    def environment(self, cache: Path) -> dict[str, str]:
        """What makes uv and pip ask this index alone."""
        return {"UV_DEFAULT_INDEX": f"{self.address}/simple", "UV_CACHE_DIR": str(cache), "UV_NO_CONFIG": "1",
                "PIP_INDEX_URL": f"{self.address}/simple", "PIP_NO_CACHE_DIR": "1", "PIP_CONFIG_FILE": "/dev/null"}


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_repository(folder: Path) -> Path:
    """A repository as small as can be that is installed as the course is."""
    for name, text in (("pyproject.toml", PROJECT), ("backend.py", BACKEND), ("course_utils/__init__.py", ""),
                       ("course_utils/__main__.py", MAIN), (".ci/constraints.txt", "# tested\nmoon==2.0\ntorch==2.0\n"),
                       (".gitignore", "names.txt\n"), ("names.txt", "Ann\n")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for command in (["init", "--quiet"], ["add", "--all"],
                    ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "--no-gpg-sign", "-m", "x"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    return folder
