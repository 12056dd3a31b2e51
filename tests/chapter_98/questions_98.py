"""A chapter for tests alone: questions."""

from __future__ import annotations

from course_utils.exercises.question import Option, Question

QUESTIONS = (
    Question("98.A", "What is `a<b`, and why & how?", (
        Option("A tag, `<b>`", "HTML has none called `a<b`."),
        Option("A <i>comparison</i>", "It is true if a is less than b.", right=True),
        Option("An assignment", "That is `a = b`."),
    )),
)
