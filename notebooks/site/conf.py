"""The course as a website: `sphinx-build -W --keep-going -d build/doctrees -c notebooks/site notebooks build/site`.

In another language: its folder instead of `notebooks`, with `-D language=zh_CN` and a folder of its own in build/site.

The pages are the notebooks as they are committed (nothing is executed), README.md, PERFORMANCE.md, the texts of
workshop/, the package's docstrings and the notions of its corpus. No text stands here a second time, and no page loads
anything from elsewhere.
"""

import sys
import tomllib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parents[1]
sys.path[:0] = [str(FOLDER), str(FOLDER.parent), str(REPOSITORY)]

from sources import TRANSLATIONS, lines_of  # noqa: E402

_PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "How a large language model writes text"
author = "its authors"
copyright = f"{author}. Licence: {_PROJECT['license']}"
release = _PROJECT["version"]
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.linkcode", "sources"]
# A translation has a folder of its own, such as zh/, and is a site of its own with the same configuration.
# What is left out of workshop/ are parts of the pages in site/guide.
exclude_patterns = [f"{code}/**" for code in TRANSLATIONS] + [
    "workshop/*/**", "workshop/capstone.md", "workshop/projector.md", "**/.ipynb_checkpoints"]
course_repository = _PROJECT["urls"]["Repository"]

# Notebooks: shown as they are
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # widgets show their static form
nb_merge_streams = True
nb_code_prompt_show = "Show the set-up"
nb_code_prompt_hide = "Hide the set-up"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"  # browsers draw it themselves

# Docstrings
napoleon_custom_sections = [("Attributes", "params_style")]  # a list of fields, not entries of their own
autodoc_member_order = "bysource"
# What a package takes from its modules is described there.
autodoc_default_options = {"members": True, "ignore-module-all": True}
autodoc_preserve_defaults = True
# `textbook.py` has a Qwen3Model, too: where a type is written without its module, either page will do.
suppress_warnings = ["ref.python"]
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_display_short_literal_types = True
add_module_names = False


def linkcode_resolve(domain: str, info: dict[str, Any]) -> str | None:
    """The address of a name's source in the repository."""
    place = lines_of(info["module"], info["fullname"]) if domain == "py" and info["module"] else None
    return place and f"{course_repository}/blob/main/{place}"


# Looks
html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["static"]
templates_path = ["templates"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_last_updated_fmt = None
html_theme_options = {
    "repository_url": course_repository,
    "repository_branch": "main",
    "path_to_docs": "notebooks",
    "use_repository_button": True,
    "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    "show_toc_level": 2,
    "article_header_end": ["language-switch", "article-header-buttons"],
    # Colours of code that can be read, in either theme (WCAG, level AA and better).
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
