"""What the website's pages are made of besides notebooks: texts of the repository, notions, docstrings, formulas.

A Sphinx extension; conf.py names it.
"""

from __future__ import annotations

import html
import inspect
import os
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import nbformat
from babel import Locale
from babel.messages.pofile import read_po
from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.util.logging import getLogger
from workshop.agenda import agenda
from workshop.guide import chapter_guide
from workshop.paths import read_path

from course_utils.corpus.notions import Notion, notions

REPOSITORY = Path(__file__).resolve().parents[2]
# Texts of the repository that are pages, where a language has them.
PAGES = {"README.md": "index.md", "PERFORMANCE.md": "site/performance.md",
         **{f"notebooks/workshop/{name}.md": f"workshop/{name}.md" for name in ("install", "before", "mail")},
         "notebooks/workshop/projector.md": "site/guide/projector.md",
         "notebooks/workshop/capstone.md": "site/guide/capstone.md",
         "notebooks/workshop/hub/README.md": "site/guide/server.md"}
NOTEBOOKS = REPOSITORY / "notebooks"
# The languages that there are besides English, as their folders are called.
TRANSLATIONS = tuple(sorted(path.name for path in (NOTEBOOKS / "locale").iterdir() if (NOTEBOOKS / path.name).is_dir()))
_CHAPTER = re.compile(r"(?<=\]\()(\d\d_\w+\.ipynb)")
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")
_log = getLogger(__name__)


def lead_to_pages(app: Sphinx, included: Path, _page: str, content: list[str]) -> None:
    """Turn the links of a text of the repository to where the website has what they name, or else to the repository."""
    text, code = Path(app.srcdir) / included, _code(app.config.language)

    def target(link: re.Match[str]) -> str:
        path = (text.parent / link.group()).resolve()
        name = path.relative_to(REPOSITORY).as_posix()
        if not path.exists():
            _log.warning("%s links to %s, which is not there: correct the link.", text.name, name)
        page = Path(app.srcdir) / PAGES.get(name if code == "en" else name.replace(f".{code}.md", ".md"), "none")
        here = page if page.is_file() and (code == "en" or f".{code}." in name) else path
        if here == page or here.is_relative_to(app.srcdir) and not here.is_relative_to(Path(app.srcdir) / "workshop"):
            return "/" + here.relative_to(app.srcdir).as_posix()
        if path.suffix == ".png":  # a translation's pictures are those of the English chapters
            return os.path.relpath(path, app.srcdir).replace(os.sep, "/")
        return f"{app.config.course_repository}/{'tree' if path.is_dir() else 'blob'}/main/{name}"

    content[0] = _LINK.sub(target, content[0])


def lead_to_english(app: Sphinx, _page: str, content: list[str]) -> None:
    """Turn links to chapters that are not yet translated to the English ones in the repository."""
    content[0] = _CHAPTER.sub(lambda link: link[0] if (Path(app.srcdir) / link[0]).is_file() else
                              f"{app.config.course_repository}/blob/main/notebooks/{link[0]}", content[0])


def speak(app: Sphinx, config: Config) -> None:
    """Put what conf.py says in English into the language of the site."""
    code = _code(config.language)
    if code == "en":
        return
    with (NOTEBOOKS / "locale" / code / "common.po").open("rb") as file:
        catalog = read_po(file, locale=code)
    for name in ("project", "html_title", "nb_code_prompt_show", "nb_code_prompt_hide"):
        entry = catalog.get(config[name])
        config[name] = (entry and entry.string) or config[name]
    config.html_theme_options["path_to_docs"] += f"/{code}"


def add_translations(app: Sphinx, page: str, _template: str, context: dict[str, Any], _doctree: object) -> None:
    """Tell a page in which other languages it exists: for each its tag, its own name, and the page's address."""
    here, root = _code(app.config.language), context["content_root"].removeprefix("./")
    context["course_translations"] = [
        (code, Locale.parse(code).get_display_name(), f"{root}{way}{page}.html")
        for code in ("en", *TRANSLATIONS) if code != here
        for way in [("" if here == "en" else "../") + ("" if code == "en" else f"{code}/")]
        if any((NOTEBOOKS / ("" if code == "en" else code) / f"{page}{end}").is_file() for end in (".ipynb", ".md"))]


def _code(language: str) -> str:
    """The folder of a language: "zh" for "zh_CN"."""
    return language.partition("_")[0]


class Notions(SphinxDirective):
    """`{notions}`: the corpus's hand-written notions as a glossary, in alphabetical order, with Chinese names."""

    def run(self) -> list[nodes.Node]:
        entries = []
        for notion in sorted(notions(), key=lambda notion: _headword(notion).casefold()):
            chinese = "" if notion.zh == notion.term else f"<span lang=\"zh\">{html.escape(notion.zh)}</span>. "
            entries.append(f"{_headword(notion)}\n  {chinese}{notion.en} {notion.en_more}")
        return self.parse_text_to_nodes("\n\n".join(["```{glossary}", *entries, "```"]))


def _headword(notion: Notion) -> str:
    """Under what it is looked up: "KV cache" for "a KV cache"."""
    return re.sub(r"^an? ", "", notion.term)


class Guide(SphinxDirective):
    """`{guide} 06_kv_cache` or `{guide} half_a_day`: a chapter's page for instructors, or a workshop's agenda."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        chapter = Path(self.env.srcdir) / f"{name}.ipynb"
        if chapter.is_file():
            self.env.note_dependency(str(chapter))
            text = chapter_guide(nbformat.read(chapter, as_version=4))
        else:
            text = agenda(read_path(name))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class Modules(SphinxDirective):
    """`{modules}`: the public functions of the modules that its lines name, of packages those of all their modules."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        text = "\n\n".join(f"## {name.removeprefix('course_utils.')}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```"
                           for line in self.content for name in _modules(line))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def _modules(name: str) -> Iterator[str]:
    """A module, or a package (if it says anything of itself) and the modules right in it."""
    module = import_module(name)
    if module.__doc__:
        yield name
    for part in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if not part.ispkg and not part.name.startswith("_"):
            yield f"{name}.{part.name}"


def as_restructured_text(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with `code` and indented examples: say so in the markup that Sphinx reads."""
    parts = "\n".join(lines).split("`")
    for number, part in enumerate(parts):
        if number % 2:
            after = r"\ " if parts[number + 1][:1].isalnum() else ""
            parts[number] = f"``{part}``{after}"
        else:
            parts[number] = re.sub(r"[*|\\]|(?<=\w)_(?!\w)", r"\\\g<0>", part)
    text = re.sub(r"^( *)(.*:)(?=\n\n\1 {4})", r"\1\2:", "".join(parts), flags=re.MULTILINE)
    lines[:] = text.split("\n")


class AlternativeTexts(SphinxTransform):
    """A picture's plain form, such as "Figure: bars of ...", is its alternative text."""

    default_priority = 400

    def apply(self, **_: Any) -> None:
        for bundle in self.document.findall(lambda node: node.get("nb_element") == "mime_bundle"
                                            if isinstance(node, nodes.container) else False):
            forms = {form["mime_type"]: form for form in bundle.children if "mime_type" in form}
            for image in bundle.findall(nodes.image):
                if "text/plain" in forms:
                    image["alt"] = forms["text/plain"].astext()


def lines_of(module: str, name: str) -> str | None:
    """Where the repository has a function or class, such as "course_utils/qwen3.py#L10-L20"; None for other names."""
    found: Any = import_module(module)
    for part in name.split("."):
        found = inspect.unwrap(getattr(found, part, None))
    try:
        lines, first = inspect.getsourcelines(found)
        path = Path(inspect.getfile(found)).resolve()
    except (TypeError, OSError):  # a constant, an attribute of instances, or what a dataclass wrote itself
        return None
    return f"{path.relative_to(REPOSITORY).as_posix()}#L{first}-L{first + len(lines) - 1}"


def visit_math(writer: Any, node: nodes.math | nodes.math_block) -> None:
    """A formula as MathML, which browsers draw without a script."""
    block = isinstance(node, nodes.math_block)
    try:
        formula = tex2mathml(re.sub(r"\\dots\b", r"\\ldots", node.astext()), as_block=block)
    except MathError as error:
        _log.warning("%s: write the formula with commands that docutils knows.", error, location=node)
        raise nodes.SkipNode from None
    writer.body.append(f'<div class="math">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register all this with Sphinx."""
    app.add_config_value("course_repository", "", "env", types=str)
    app.connect("config-inited", speak)
    app.connect("include-read", lead_to_pages)
    app.connect("source-read", lead_to_english)
    app.connect("html-page-context", add_translations)
    app.add_directive("notions", Notions)
    app.add_directive("modules", Modules)
    app.add_directive("guide", Guide)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=1)  # before napoleon
    app.add_transform(AlternativeTexts)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
