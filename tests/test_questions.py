"""Every question keeps the rules, and `ask` shows one with widgets and without."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import pytest

from course_utils.errors import InputError
from course_utils.exercises import ask, lookup
from course_utils.exercises.question import (
    Question,
    find_question,
    inline,
    question_html,
    question_output,
    question_text,
    question_widget,
)

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
CHAPTERS = lookup.chapters("question")
ALL = [question for number in CHAPTERS for question in lookup.of_chapter("question", number)]
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def test_every_chapter_has_questions():
    assert CHAPTERS == lookup.chapters("exercise")


@pytest.mark.parametrize("chapter", CHAPTERS)
class TestEveryChapter:
    def test_ids_count_up(self, chapter):
        questions = lookup.of_chapter("question", chapter)
        assert [question.id for question in questions] == [f"{chapter}.{letter}" for _, letter in
                                                           zip(questions, "ABCDEFGH")]
        assert len(questions) >= 2

    def test_notebook_asks_them(self, chapter):
        [path] = NOTEBOOKS.glob(f"{chapter:02}_*.ipynb")
        source = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
        asked = re.findall(r"^ask\(\"([\w.]+)\"\)", source, re.MULTILINE)
        assert asked == [question.id for question in lookup.of_chapter("question", chapter)]

    def test_the_right_option_cannot_be_guessed(self, chapter):
        questions = lookup.of_chapter("question", chapter)
        places = {[option.right for option in question.options].index(True) for question in questions}
        longest = [max(question.options, key=lambda option: len(option.text)).right for question in questions]
        assert len(places) > 1, "the right option always stands at the same place"
        assert not all(longest), "the right option is always the longest"


@pytest.mark.parametrize("question", ALL, ids=lambda question: question.id)
class TestEveryQuestion:
    def test_is_found_by_its_id(self, question):
        assert find_question(question.id) is question

    def test_has_three_or_four_options_and_one_is_right(self, question):
        assert len(question.options) in (3, 4)
        assert sum(option.right for option in question.options) == 1

    def test_every_text_is_there_and_none_twice(self, question):
        texts = [text.strip() for option in question.options for text in (option.text, option.explanation)]
        assert question.text.strip() and all(texts) and len(set(texts)) == len(texts)

    def test_backticks_come_in_pairs(self, question):
        for text in [question.text, *(t for option in question.options for t in (option.text, option.explanation))]:
            assert "`" not in inline(text)


@pytest.fixture
def question(chapter_98) -> Question:
    return find_question("98.A")


def test_as_text(question):
    assert question_text(question) == ("Question 98.A: What is `a<b`, and why & how?\nA. A tag, `<b>`\n"
                                       "B. A <i>comparison</i>\nC. An assignment")


def test_as_html_everything_is_escaped_and_each_explanation_folded(question):
    html = question_html(question)
    assert "<strong>Question 98.A:</strong> What is <code>a&lt;b</code>, and why &amp; how?" in html
    assert ("<details><summary>B. A &lt;i&gt;comparison&lt;/i&gt;</summary>"
            "<p>Right. It is true if a is less than b.</p></details>") in html
    assert "<details><summary>A. A tag, <code>&lt;b&gt;</code></summary><p>Not quite. HTML has none" in html
    assert html.count("<details>") == html.count("</details>") == 3 and "<b>" not in html


def test_with_buttons_one_may_choose_until_it_is_right(question):
    text, buttons, explanation = question_widget(question).children
    assert "A. A tag, <code>&lt;b&gt;</code>" in text.value and "less than" not in text.value
    assert [button.description for button in buttons.children] == ["Answer A", "Answer B", "Answer C"]
    assert explanation.value == ""
    for place, said in ((0, "A: Not quite."), (2, "C: Not quite."), (1, "B: Right."), (0, "A: Not quite.")):
        buttons.children[place].click()
        assert f"<strong>{said}</strong>" in explanation.value and 'role="alert"' in explanation.value
    assert "HTML has none called <code>a&lt;b</code>." in explanation.value


def test_one_output_has_all_forms(question):
    output = question_output(question)
    assert set(output) == {"text/html", "text/plain", WIDGET_VIEW}
    assert output["text/html"] == question_html(question) and output["text/plain"] == question_text(question)
    assert len(output[WIDGET_VIEW]["model_id"]) == 32


def test_without_ipywidgets_it_is_text_to_unfold(question, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert set(question_output(question)) == {"text/html", "text/plain"}


def test_ask_outside_a_notebook(chapter_98, capsys):
    ask("98.A")
    assert capsys.readouterr().out.startswith("Question 98.A: What is `a<b`")


def test_unknown_id(chapter_98):
    with pytest.raises(InputError, match="There is no question '98.B': chapter 98 has 98.A. Use the id"):
        ask("98.B")
    with pytest.raises(InputError, match="chapter 97 has no questions"):
        ask("97.A")
