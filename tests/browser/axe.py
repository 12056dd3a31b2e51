"""What axe-core finds in the cells of a notebook, and on a page of the website.

axe-core (https://github.com/dequelabs/axe-core) tries those rules of the WCAG that a machine can try. It comes with the
Python package axe-playwright-python.
"""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

# Not the editors and the numbers beside them: both are JupyterLab's own, with the colours of the code.
_CELLS = {"include": [[".jp-Notebook"]],
          "exclude": [[".jp-InputArea-editor"], [".jp-InputPrompt"], [".jp-OutputPrompt"], [".jp-Toolbar"]]}
# The criteria of the WCAG 2.2, levels A and AA.
_LEVELS = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
_KIND = """selector => {
    const lasting = element => [...element.classList].filter(name => !name.startsWith("jp-mod-"));
    const name = element => [element.localName, ...lasting(element)].join(".");
    const element = document.querySelector(selector);
    return name(element.parentElement) + " > " + name(element);
}"""

Findings = dict[tuple[str, str], str]


def findings(page: Page) -> Findings:
    """What axe-core finds: by rule and kind of element an example of it."""
    # JupyterLab's body has no height and hides what goes beyond it, so that axe-core takes all of it for invisible.
    page.add_style_tag(content="html, body { height: 100% }")
    found: Findings = {}
    for violation in Axe().run(page, context=_CELLS).response["violations"]:
        for node in violation["nodes"]:
            kind = page.evaluate(_KIND, node["target"][0])
            found[violation["id"], kind] = f"{node['failureSummary']}: {node['html'][:300]}"
    return found


def findings_on_page(page: Page) -> list[str]:
    """What axe-core finds on a whole page of which all is ours: a line for each rule and element."""
    return [f"{violation['id']}: {node['failureSummary']}: {node['html'][:300]}"
            for violation in Axe().run(page, options=_LEVELS).response["violations"] for node in violation["nodes"]]
