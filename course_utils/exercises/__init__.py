"""Exercises: the solution and the check of each, one module a chapter, and `check`, which the notebooks call."""

from course_utils.exercises.exercise import Exercise, check, solution_source

__all__ = ["Exercise", "check", "solution_source"]
