"""Exercises and quick questions, in one module a chapter each, and what notebooks call: check, ask, show_progress,
show_solution."""

from course_utils.exercises.checking import check
from course_utils.exercises.exercise import Exercise, solution_source
from course_utils.exercises.progress_table import show_progress
from course_utils.exercises.question import Option, Question, ask
from course_utils.exercises.showing import show_solution

__all__ = ["Exercise", "Option", "Question", "ask", "check", "show_progress", "show_solution",
           "solution_source"]
