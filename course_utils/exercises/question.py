"""A quick question: several options, one of them right, and an explanation of each.

A question stands in `questions_NN.py` of this folder, in the tuple `QUESTIONS`. `ask` shows it: with a button for each
option where widgets work, and as text to unfold where they do not. One may go on choosing, since the wrong options are
mistakes that people make, and what is said about them is worth reading, too.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any

from course_utils.exercises import lookup
from course_utils.exercises.progress import note_choice
from course_utils.language import gettext


@dataclass(frozen=True)
class Option:
    """One option of a question. `code` may stand between backticks in both texts.

    Args:
        text: what is offered.
        explanation: one or two sentences on why it is right or wrong.
        right: whether it is the right one.
    """

    text: str
    explanation: str
    right: bool = False

    @property
    def verdict(self) -> str:
        """Whether it is right, in the reader's words."""
        return gettext("Right.") if self.right else gettext("Not quite.")


@dataclass(frozen=True)
class Question:
    """One question.

    Args:
        id: chapter and letter, such as "4.A".
        text: the question; `code` may stand between backticks.
        options: three or four, of which exactly one is right.
    """

    id: str
    text: str
    options: tuple[Option, ...]

    @property
    def lettered(self) -> list[tuple[str, Option]]:
        """The options with their letters: A, B, C, D."""
        return list(zip("ABCD", self.options))


def find_question(question_id: str) -> Question:
    """The question with this id.

    Raises:
        InputError: if there is none.
    """
    question: Question = lookup.find("question", question_id)
    return question


def question_text(question: Question) -> str:
    """The question and its options as plain text, without the explanations."""
    options = [f"{letter}. {gettext(option.text)}" for letter, option in question.lettered]
    return "\n".join([gettext("Question {id}: {text}").format(id=question.id, text=gettext(question.text)), *options])


def question_html(question: Question) -> str:
    """The question as HTML that needs no widgets: each option unfolds into its explanation."""
    options = [f"<details><summary>{letter}. {inline(option.text)}</summary>"
               f"<p>{option.verdict} {inline(option.explanation)}</p></details>"
               for letter, option in question.lettered]
    return "\n".join([_heading(question), *options])


def ask(question_id: str) -> None:
    """Show a question in a notebook, with buttons where widgets work; outside one, print it.

    Args:
        question_id: such as "4.A".

    Raises:
        InputError: if there is no such question.
    """
    from course_utils.plots.figure import in_notebook

    question = find_question(question_id)
    if in_notebook():
        from IPython.display import display

        display(question_output(question), raw=True)
    else:
        print(question_text(question))


def question_output(question: Question) -> dict[str, Any]:
    """The question as a notebook shows and keeps it, by media type: with buttons, as HTML and as plain text."""
    from course_utils.widgets.panel import Panel, View

    # Without widgets nothing is missing, so unlike an explorer's panel it says nothing about them.
    html = question_html(question)
    return Panel(View(html, question_text(question)), lambda: question_widget(question)).output() | {"text/html": html}


def question_widget(question: Question) -> Any:
    """The question with a button for each option; the explanation of the one that was chosen last stands below."""
    import ipywidgets

    # As close as lines of one paragraph, for the widgets' own style sets paragraphs far apart.
    options = "<br>".join(f"{letter}. {inline(option.text)}" for letter, option in question.lettered)
    text = ipywidgets.HTML(f'<div style="line-height: 1.6">{_heading(question)}<p>{options}</p></div>')
    explanation = ipywidgets.HTML()

    def button(letter: str, option: Option) -> Any:
        def choose(_: Any) -> None:
            # An alert, since the widget puts a new element in, and of the live regions only an alert is then read out.
            explanation.value = (f'<p role="alert" style="line-height: 1.6"><strong>{letter}: {option.verdict}'
                                 f"</strong> {inline(option.explanation)}</p>")
            if said := note_choice(question.id, letter, option.right):
                explanation.value += f"<p>{inline(said)}</p>"

        made = ipywidgets.Button(description=gettext("Answer {letter}").format(letter=letter),
                                        tooltip=gettext(option.text), layout={"width": "auto"})
        made.on_click(choose)
        return made

    buttons = ipywidgets.HBox([button(letter, option) for letter, option in question.lettered],
                              layout=ipywidgets.Layout(flex_flow="row wrap"))
    return ipywidgets.VBox([text, buttons, explanation])


def inline(text: str) -> str:
    """A text in the reader's language as HTML: escaped, and what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(gettext(text)))


def _heading(question: Question) -> str:
    heading = gettext("Question {id}:").format(id=question.id)
    return f"<p><strong>{heading}</strong> {inline(question.text)}</p>"
