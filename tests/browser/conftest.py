"""A browser, and in front of it a JupyterLab, once for all tests of this folder: `pytest -m browser`.

With COURSE_SCREENSHOTS=FOLDER in the environment the tests leave pictures there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

if TYPE_CHECKING:
    from lab import Lab
    from playwright.sync_api import Playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# Nothing but the page: no sandbox, which a container forbids, and no requests of the browser's own.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def driver() -> Iterator[Playwright]:
    """What starts browsers. A process can have one alone."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser`")
    with playwright.sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="session")
def chromium() -> dict[str, Any]:
    """How `driver` starts Chromium."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    return {"executable_path": CHROMIUM, "headless": True, "args": ARGUMENTS}


@pytest.fixture(scope="session")
def lab(driver: Playwright, chromium: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab with copies of the chapters, as they are committed, but that no cell counts as executed."""
    from lab import PATIENCE, REPOSITORY, Lab, jupyterlab
    from playwright.sync_api import expect

    folder = tmp_path_factory.mktemp("learner")
    for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.execution_count = None
        nbformat.write(notebook, folder / path.name)
    shutil.copytree(REPOSITORY / "notebooks" / "images", folder / "images")
    expect.set_options(timeout=PATIENCE)
    with jupyterlab(folder) as address:
        context = driver.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), **chromium, viewport={"width": 1280, "height": 1000})
        context.set_default_timeout(PATIENCE)
        yield Lab(context.pages[0], address, folder)
        context.close()
