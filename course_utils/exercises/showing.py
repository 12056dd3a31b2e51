"""The solution of an exercise in a cell of the learner's own notebook, as an instructor or a stuck learner wants it."""

from __future__ import annotations

from course_utils.exercises.exercise import solution_source
from course_utils.exercises.progress import note_solution_shown
from course_utils.language import gettext


def show_solution(exercise_id: str) -> None:
    """Put the solution of an exercise into a new cell below this one; outside a notebook, print it.

    That it was shown is noted in the learner's progress. What the learner has written stays as it is.

    Args:
        exercise_id: such as "6.1".

    Raises:
        InputError: if there is no such exercise.
    """
    from course_utils.plots.figure import in_notebook  # pictures need PyTorch, and the board of a class does without

    source = solution_source(exercise_id)
    if in_notebook():
        from IPython import get_ipython

        get_ipython().set_next_input(source)
        print(gettext("The solution of {exercise_id} stands in the cell below. Read it, run it, and run the check "
                      "again.").format(exercise_id=exercise_id))
    else:
        print(source)
    if told := note_solution_shown(exercise_id):
        print(told)
