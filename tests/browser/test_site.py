"""The website: it builds without a warning, every link inside it leads somewhere, it loads nothing from elsewhere, and
axe-core finds nothing on any page in either theme. The pages are opened as files, as somebody offline opens them.

`pytest -m site tests/browser` builds it anew and leaves it in build/site.
"""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag

import nbformat
import pytest

import course_utils
from course_utils import exercises, plots, widgets

if TYPE_CHECKING:
    from playwright.sync_api import Playwright

pytestmark = pytest.mark.site
REPOSITORY = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((REPOSITORY / "notebooks").glob("[0-9]*.ipynb"))
CHINESE = sorted((REPOSITORY / "notebooks" / "zh").glob("[0-9]*.ipynb"))
ELSEWHERE = re.compile(r"(?:\w+:)?//")


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the website, built anew with the commands that CONTRIBUTING.md names, one for each language."""
    pytest.importorskip("myst_nb", reason="needs the extra `site`")
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    commands = re.findall(r"^sphinx-build (.*)$", text, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        build = subprocess.run([sys.executable, "-m", "sphinx", "-E", *command.split()], cwd=REPOSITORY,
                               capture_output=True, text=True, check=False)
        assert build.returncode == 0, build.stderr
    return REPOSITORY / "build" / "site"


class Page(HTMLParser):
    """What a page has: the ids that links may name, its links, and the addresses that a browser loads by itself."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids.add(values.get("id", ""))
        if tag == "a":
            self.links.append(values.get("href", ""))
        elif tag == "link":
            self.loaded.append(values.get("href", ""))
        self.loaded += [values[name] for name in ("src", "srcset", "poster", "data") if name in values]
        self.loaded += re.findall(r"url\(['\"]?(.*?)['\"]?\)", values.get("style", ""))


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[Path, Page]:
    """Each page by its file."""
    return {path: Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}


def test_every_chapter_and_text_is_a_page(site: Path) -> None:
    wanted = [f"{path.stem}.html" for path in CHAPTERS]
    wanted += ["index.html", "search.html", "genindex.html", "site/performance.html", "site/glossary.html"]
    wanted += [f"workshop/{name}.html" for name in ("install", "before", "mail")]
    wanted += ["zh/index.html", "zh/search.html", *(f"zh/{path.stem}.html" for path in CHINESE)]
    assert [name for name in wanted if not (site / name).is_file()] == []


def test_every_link_inside_leads_somewhere(pages: dict[Path, Page]) -> None:
    dead = []
    for path, page in pages.items():
        for link in page.links:
            if ":" in link.partition("/")[0] or ELSEWHERE.match(link):
                continue
            address, place = urldefrag(unquote(link))
            target = (path.parent / address).resolve() if address else path
            if not target.is_file() or (place and target in pages and place not in pages[target].ids):
                dead.append(f"{path.name}: {link}")
    assert dead == []


def test_no_page_loads_anything_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    loaded = [(path.name, address) for path, page in pages.items() for address in page.loaded]
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        loaded += [(path.name, address) for address in re.findall(r"(?:url\(|@import )['\"]?([^'\")]*)", text)]
    assert loaded
    assert [found for found in loaded if ELSEWHERE.match(found[1])] == []


def test_every_picture_of_a_chapter_has_its_sentence(site: Path) -> None:
    for path in [*CHAPTERS, *CHINESE]:
        html = (site / path.relative_to(REPOSITORY / "notebooks").with_suffix(".html")).read_text(encoding="utf-8")
        outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
        pictures = [output for output in outputs if "image/png" in output.get("data", {})]
        assert len(re.findall('<img alt="(?:Figure: |图：)', html)) == len(pictures), path.name


def test_pages_of_both_languages_lead_to_each_other(site: Path, pages: dict[Path, Page]) -> None:
    for path in [*CHINESE, Path("index")]:
        for here, there, language in (("", "zh/", "en"), ("zh/", "../", "zh-CN")):
            page = site / here / f"{path.stem}.html"
            assert f'<html lang="{language}"' in page.read_text(encoding="utf-8")
            assert f"{there}{path.stem}.html" in pages[page].links
    untranslated = {path.stem for path in CHAPTERS} - {path.stem for path in CHINESE}
    assert not [name for name in untranslated if f"zh/{name}.html" in pages[site / f"{name}.html"].links]


def test_the_chinese_pages_speak_chinese(site: Path) -> None:
    for path in CHINESE:
        html = (site / "zh" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert html.count("显示准备代码") == 1 and "大语言模型怎样写出文字" in html and "Show the set-up" not in html


def test_set_up_is_folded_and_so_are_hints_and_solutions(site: Path) -> None:
    for path in CHAPTERS:
        html = (site / f"{path.stem}.html").read_text(encoding="utf-8")
        sources = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
        assert html.count("Show the set-up") == 1, path.name
        for summary in ("Hint 1", "Hint 2", "Solution"):
            fold = f"<details><summary>{summary}</summary>"
            assert html.count(fold) == sum(source.count(fold) for source in sources), (path.name, summary)


def test_functions_and_classes_that_readers_import_are_documented(site: Path, pages: dict[Path, Page]) -> None:
    documented = {name.rpartition(".")[2] for path, page in pages.items() if path.parent == site / "site" / "reference"
                  for name in page.ids if name.startswith("course_utils.")}
    imported = {(package.__name__, name) for package in (course_utils, exercises, plots, widgets)
                for name in package.__all__}
    for path in CHAPTERS:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and "import" in cell.source and "course_utils" in cell.source:
                imported |= {(node.module, alias.name) for node in ast.walk(ast.parse(cell.source))
                             if isinstance(node, ast.ImportFrom) and node.module for alias in node.names
                             if node.module.partition(".")[0] == "course_utils"}
    found = {name: getattr(import_module(module), name, None) for module, name in imported}
    assert {name for name, value in found.items() if inspect.isfunction(value) or inspect.isclass(value)} <= documented


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(driver: Playwright, chromium: dict[str, Any], pages: dict[Path, Page], theme: str) -> None:
    from axe import findings_on_page
    from playwright.sync_api import expect

    found, requests = [], []
    browser = driver.chromium.launch(**chromium)
    page = browser.new_page(color_scheme=theme, reduced_motion="reduce", viewport={"width": 1280, "height": 1000})
    page.on("request", lambda request: requests.append(request.url))
    for path in pages:
        page.goto(path.as_uri())
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
        page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
        found += [f"{path.name}: {finding}" for finding in findings_on_page(page)]
    browser.close()
    assert found == []
    assert [address for address in requests if not address.startswith(("file:", "data:"))] == []
