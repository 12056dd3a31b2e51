"""A learner in front of JupyterLab: opens notebooks, types, presses keys, and looks at what there is to see."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from playwright.sync_api import Locator, Page, expect

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 60_000  # milliseconds until something counts as never: many times what a slow machine needs
_PROMPT = ".jp-CodeCell .jp-InputPrompt:not(.jp-Placeholder-prompt)"

# A learner's settings, where they decide what a test sees. No question about news may cover the page, and cells that
# are not in sight shall be in the page all the same, for a test finds them there without scrolling.
_SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """A JupyterLab of this Python with settings of its own, which shows `folder`; its address, with the token.

    What the learner has passed is kept in `folder`/progress.json.
    """
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("COURSE_", "HF_", "JUPYTER"))}
    for kind in ("JUPYTER_CONFIG", "JUPYTER_DATA", "JUPYTER_RUNTIME", "JUPYTERLAB_SETTINGS", "JUPYTERLAB_WORKSPACES"):
        environment[f"{kind}_DIR"] = str(folder / ".jupyter" / kind.lower())
    for name, values in _SETTINGS.items():
        path = folder / ".jupyter" / "jupyterlab_settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    token, port = secrets.token_hex(16), _free_port()
    environment |= {"JUPYTER_TOKEN": token, "PYTHONPATH": str(REPOSITORY), "COURSE_SMALL": "1",
                    "COURSE_PROGRESS": str(folder / "progress.json")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser",
               "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
               f"--ServerApp.root_dir={folder}"]
    log = folder / ".jupyter" / "log"
    with log.open("w", encoding="utf-8") as stream:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api?token={token}", server, log)
        yield f"http://127.0.0.1:{port}/lab/tree/{{}}?reset&token={token}"
    finally:
        server.terminate()  # it ends its kernels
        server.wait(30)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(PATIENCE // 200):
        try:
            urllib.request.urlopen(address, timeout=10).close()
            return
        except urllib.error.URLError:
            if server.poll() is not None:
                break
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start. It said:\n{log.read_text(encoding='utf-8')}")


class Lab:
    """One page of JupyterLab.

    Args:
        page: the browser's page.
        address: that of JupyterLab, with {} for the notebook's path.
        folder: what JupyterLab shows.
    """

    def __init__(self, page: Page, address: str, folder: Path) -> None:
        self.page, self._address, self._folder = page, address, folder

    def open(self, name: str) -> None:
        """Open a notebook of the folder and wait until its kernel is ready; before that a click on Run is lost."""
        self.page.goto(self._address.format(name))
        expect(self.page.locator(".jp-Notebook")).to_be_visible()
        self.wait_until_idle()

    def open_cells(self, name: str, *cells: str) -> None:
        """Write a notebook with these code cells and open it; a cell that begins with # is Markdown."""
        notebook = nbformat.v4.new_notebook(cells=[
            nbformat.v4.new_markdown_cell(cell) if cell.startswith("# ") else nbformat.v4.new_code_cell(cell)
            for cell in cells])
        notebook.metadata.kernelspec = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
        nbformat.write(notebook, self._folder / name)
        self.open(name)

    def wait_until_idle(self) -> None:
        """Wait until no cell waits for the kernel, and the kernel for nothing."""
        expect(self.page.locator("#jp-main-statusbar")).to_contain_text("| Idle")
        expect(self.page.locator(".jp-InputPrompt", has_text="[*]")).to_have_count(0)

    def run_all(self) -> None:
        """Run > Run All Cells, and wait for the end."""
        self._menu("Run", "Run All Cells")
        expect(self.page.locator(_PROMPT).first).to_have_text(re.compile(r"\[\d+\]"))
        self.wait_until_idle()

    def restart_kernel(self) -> None:
        """Restart the kernel with the keys `0 0`, and say yes."""
        self.page.locator(".jp-Notebook").press("Escape")
        self.page.keyboard.press("0")
        self.page.keyboard.press("0")
        self.page.get_by_role("button", name="Confirm Kernel Restart").press("Enter")
        self.wait_until_idle()

    def interrupt_kernel(self) -> None:
        """Interrupt the kernel with the keys `I I`."""
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("i")
        self.page.keyboard.press("i")

    def use_theme(self, name: str) -> None:
        """Change to "JupyterLab Light" or "JupyterLab Dark"."""
        self.page.evaluate("name => jupyterapp.commands.execute('apputils:change-theme', {theme: name})", name)
        light = "true" if name.endswith("Light") else "false"
        expect(self.page.locator("body")).to_have_attribute("data-jp-theme-light", light)
        expect(self.page.locator("#jupyterlab-splash")).to_have_count(0)  # it covers the page meanwhile

    def cell(self, code: str) -> Locator:
        """The code cell in which this stands."""
        return self.page.locator(".jp-CodeCell").filter(has=self.page.locator(".cm-content", has_text=code))

    def output(self, code: str) -> Locator:
        """The outputs of the code cell in which this stands."""
        return self.cell(code).locator(".jp-Cell-outputArea")

    def numbers(self) -> list[str]:
        """What stands beside each code cell, such as "[2]:"; nothing does beside one that is folded."""
        return self.page.locator(_PROMPT).all_inner_texts()

    def errors(self) -> list[str]:
        """What cells raised, or wrote to stderr."""
        return self.page.locator("[data-mime-type$='vnd.jupyter.error'], [data-mime-type$='vnd.jupyter.stderr']"
                                 ).all_inner_texts()

    def run(self, code: str) -> None:
        """Go to the code cell in which this stands, and press Shift+Enter."""
        self.cell(code).locator(".cm-content").press("Shift+Enter")

    def select(self, code: str) -> None:
        """Select the code cell in which this stands, without editing it."""
        self.cell(code).locator(".cm-content").press("Escape")

    def add_cell(self, code: str) -> None:
        """Type a new cell below the selected one, with the keys `B` and Enter, and run it."""
        for key in ("b", "Enter"):
            self.page.keyboard.press(key)
        self._type(code)
        self.page.keyboard.press("Shift+Enter")

    def retype(self, code: str, new: str) -> None:
        """Replace the code of the cell in which this stands."""
        editors = self.page.locator(".cm-content")
        editor = editors.nth([code in text for text in editors.all_inner_texts()].index(True))  # its text will go
        editor.press("Control+a")
        self._type(new)
        assert [line.rstrip("\n") for line in editor.locator(".cm-line").all_inner_texts()] == new.splitlines()

    def tab_to(self, control: Locator) -> None:
        """Press Tab until a control has the focus."""
        for _ in range(60):
            if control.evaluate("element => element === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"The Tab key does not lead to {control}.")

    def photograph(self, path: Path) -> None:
        """Pictures of the whole notebook from top to bottom: `path`-01.png and so on."""
        path.parent.mkdir(parents=True, exist_ok=True)
        window = self.page.locator(".jp-WindowedPanel-outer")
        step = window.evaluate("element => element.clientHeight")
        height = self.page.locator(".jp-WindowedPanel-viewport").evaluate("element => element.scrollHeight")
        for number, top in enumerate(range(0, height, step), start=1):
            window.evaluate("(element, top) => element.scrollTo(0, top)", top)
            window.screenshot(path=f"{path}-{number:02}.png")

    def _type(self, code: str) -> None:
        """Type as a person does: the editor itself indents a line like the one before it, and deeper after a colon. So
        `code` may go deeper from line to line, but not back."""
        for number, line in enumerate(code.splitlines()):
            if number:
                self.page.keyboard.press("Enter")
            self.page.keyboard.type(line.strip())

    def _menu(self, menu: str, entry: str) -> None:
        self.page.get_by_role("menuitem", name=menu, exact=True).click()
        self.page.get_by_role("menuitem", name=entry, exact=True).click()
