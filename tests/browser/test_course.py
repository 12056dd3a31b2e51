"""A learner's way through the course in a real JupyterLab, in a real browser, by keyboard."""

from __future__ import annotations

import inspect
import os
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from course_utils.exercises import solution_source
from course_utils.exercises.question import find_question

if TYPE_CHECKING:
    from axe import Findings
    from lab import Lab

pytestmark = pytest.mark.browser
NOTEBOOKS = Path(__file__).resolve().parent.parent.parent / "notebooks"
THEMES = ["JupyterLab Light", "JupyterLab Dark"]


@pytest.fixture(scope="module")
def brought_by_jupyterlab(lab: Lab) -> Findings:
    """What axe-core finds in a notebook that has nothing of the course."""
    from axe import findings

    picture = "from IPython.display import Image, display\ndisplay(Image('images/generation_loop.png'))"
    lab.open_cells("plain.ipynb", "# Plain\n\nA [link](x), some `code`, and\n\n- a list", "print(1)", "1 + 1", picture)
    lab.run_all()
    found: Findings = {}
    for theme in THEMES:
        lab.use_theme(theme)
        found |= findings(lab.page)
    return found


def assert_accessible(lab: Lab, brought_by_jupyterlab: Findings) -> None:
    """axe-core finds nothing that is ours, in either theme."""
    from axe import findings

    for theme in THEMES:
        lab.use_theme(theme)
        found = findings(lab.page)
        assert {kind: text for kind, text in found.items() if kind not in brought_by_jupyterlab} == {}
    # JupyterLab gives this name to a picture in HTML without an alternative text.
    assert lab.page.locator("img[alt=Image]").count() == 0


def photograph(lab: Lab, name: str) -> None:
    """Leave pictures of the whole notebook, in either theme."""
    if folder := os.environ.get("COURSE_SCREENSHOTS"):
        for theme in THEMES:
            lab.use_theme(theme)
            lab.photograph(Path(folder) / f"{name}_{theme.split()[-1].lower()}")


@pytest.mark.parametrize("chapter", sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
def test_chapter_as_it_was_saved(lab: Lab, brought_by_jupyterlab: Findings, chapter: str) -> None:
    lab.open(f"{chapter}.ipynb")
    assert_accessible(lab, brought_by_jupyterlab)


@pytest.mark.parametrize("chapter", ["02_tokenizer", "04_one_step", "10_chat_and_prefix_caching"])
def test_chapter_runs(lab: Lab, brought_by_jupyterlab: Findings, chapter: str) -> None:
    lab.open(f"{chapter}.ipynb")
    lab.run_all()
    assert lab.errors() == []
    numbers = lab.numbers()
    assert numbers == [f"[{number}]:" for number in range(2, len(numbers) + 2)]  # the first cell, the set-up, is folded
    assert_accessible(lab, brought_by_jupyterlab)

    # JupyterLab gives a picture no alternative text, so its sentence must stand under it.
    sentences = lab.page.locator(".jp-OutputArea-child:has(.jp-RenderedImage) + *").all_inner_texts()
    assert sentences and all(sentence.startswith("Figure: ") for sentence in sentences)
    photograph(lab, chapter)


def test_exercise_is_typed_until_it_passes(lab: Lab) -> None:
    from playwright.sync_api import expect

    lab.open("04_one_step.ipynb")
    lab.run_all()
    verdict = lab.output('check("4.1"')
    expect(verdict).to_have_text(re.compile("^NOT STARTED 4.1"))

    wrong = "def choose_next(logits):\n    return logits[:, 0].argmax(dim=-1, keepdim=True)"
    for answer, expected in ((wrong, "^NOT YET 4.1 .*earlier row"), (solution_source("4.1"), "^PASSED 4.1")):
        lab.retype("def choose_next(", answer)
        lab.run("def choose_next(")
        lab.run('check("4.1"')
        expect(verdict).to_have_text(re.compile(expected))

    lab.restart_kernel()
    lab.add_cell("from course_utils.exercises import show_progress\nshow_progress(chapter=4)")
    expect(lab.output("show_progress(chapter=4)")).to_contain_text(re.compile("passed +4.1"))


def long_generation() -> None:
    import time

    from course_utils import load_model, load_tokenizer
    from course_utils.completion import stream

    model = load_model("tiny")
    model.register_forward_hook(lambda *_: time.sleep(0.1))  # as slow as a large model
    for piece in stream(model, load_tokenizer("tiny"), "The cat", max_new_tokens=900, eos_token_id=()):
        print(piece, end="", flush=True)


def test_interrupted_generation_keeps_its_text(lab: Lab) -> None:
    from playwright.sync_api import expect

    generation = textwrap.dedent("".join(inspect.getsourcelines(long_generation)[0][1:]))
    lab.open_cells("interrupt.ipynb", generation, "print(6 * 7)")
    lab.run("import time")
    output = lab.output("import time")
    text = output.locator("[data-mime-type$='stdout']")
    expect(text).to_have_text(re.compile(r"\w+ \w+ \w+"))
    written = text.inner_text().rstrip()
    lab.interrupt_kernel()
    expect(output).to_contain_text("KeyboardInterrupt")
    assert text.inner_text().startswith(written)

    lab.wait_until_idle()  # until then the kernel throws away what is sent
    lab.run("print(6 * 7)")
    expect(lab.output("print(6 * 7)")).to_have_text("42")


# A control of each explorer, and keys that change its value. Space opens a list: before that, JupyterLab takes the
# arrow keys for its own.
EXPLORERS = {
    'explore_tokens(tokenizer, "The cat")': ("Text", ["End", "s"]),
    'explore_next_token(model, tokenizer, "The cat")': ("Top-k", ["Control+a", "5", "Enter"]),
    'explore_generation(model, tokenizer, "The cat", max_new_tokens=8)': ("step", ["ArrowUp"]),
    'explore_attention(model, tokenizer, "The cat sees the cat")': ("Head", ["ArrowUp"]),
    "explore_prefix_cache()": ("step", ["ArrowDown"]),
    "explore_online_softmax()": ("step", ["ArrowUp"]),
    "explore_roofline()": ("machine", ["Space", "ArrowDown", "Enter"]),
}
SET_UP = """\
from course_utils import load_model, load_tokenizer
from course_utils.exercises import ask
from course_utils.widgets import *
model, tokenizer = load_model("tiny"), load_tokenizer("tiny")"""


@pytest.fixture(scope="class")
def controls(lab: Lab) -> None:
    """Opens a notebook with everything that a learner can work, and runs it."""
    lab.open_cells("controls.ipynb", SET_UP, *EXPLORERS, "chat_box(model, tokenizer)", 'ask("4.A")')
    lab.run_all()
    assert lab.errors() == []


@pytest.mark.usefixtures("controls")
class TestControls:
    def test_axe_finds_nothing(self, lab: Lab, brought_by_jupyterlab: Findings) -> None:
        assert_accessible(lab, brought_by_jupyterlab)

    @pytest.mark.parametrize("explorer", EXPLORERS)
    def test_explorer_answers_to_the_keyboard(self, lab: Lab, explorer: str) -> None:
        from playwright.sync_api import expect

        label, keys = EXPLORERS[explorer]
        output = lab.output(explorer)
        sentence, picture = output.get_by_role("status"), output.locator(".widget-html-content").first
        said, seen = sentence.inner_text(), picture.inner_html()
        lab.select(explorer)
        lab.tab_to(output.get_by_label(re.compile(f"^{label}")).first)
        for key in keys:
            lab.page.keyboard.press(key)
        expect(sentence).not_to_have_text(said)
        assert picture.inner_html() != seen

    def test_chat_answers_to_the_keyboard(self, lab: Lab) -> None:
        from playwright.sync_api import expect

        output = lab.output("chat_box")
        lab.select("chat_box")
        lab.tab_to(output.get_by_label("message"))
        lab.page.keyboard.type("Hello!")
        lab.page.keyboard.press("Enter")
        expect(output.get_by_role("status")).to_contain_text("written")
        expect(output.get_by_role("log")).to_have_text(re.compile("user: Hello!.*assistant: .+", re.DOTALL))

    def test_question_answers_to_the_keyboard(self, lab: Lab) -> None:
        from playwright.sync_api import expect

        output = lab.output("ask(")
        lab.select("ask(")
        lab.tab_to(output.get_by_role("button", name="Answer B"))
        lab.page.keyboard.press("Enter")
        expect(output.get_by_role("alert")).to_contain_text(find_question("4.A").options[1].verdict)
        photograph(lab, "controls")
