"""Exercises and quick questions, in one module a chapter each, and what notebooks call: check, ask, show_progress."""

from course_utils.exercises.checking import check
from course_utils.exercises.exercise import Exercise, solution_source
from course_utils.exercises.progress_table import show_progress
from course_utils.exercises.question import Option, Question, ask

__all__ = ["Exercise", "Option", "Question", "ask", "check", "show_progress", "solution_source"]
