"""The check of an answer, which notebooks call in the cell under the stub.

    PASSED 4.1 Title
    NOT STARTED 4.1 Title
    NOT YET 4.1 Title: a hint

It raises nothing, so that "Run All" goes on, and stops an answer that does not come to an end; with the environment
variable COURSE_STRICT=1 it raises unless passed.
"""

from __future__ import annotations

import linecache
import os
import traceback

from course_utils.exercises.exercise import Answer, Exercise, NotYet, find_exercise
from course_utils.exercises.limits import Stopped, within
from course_utils.exercises.progress import note_not_started, record_result
from course_utils.language import gettext, noted

PASSED, NOT_STARTED, NOT_YET = noted("PASSED"), noted("NOT STARTED"), noted("NOT YET")
_MOST_LETTERS = 300  # of an error's text: some list every argument of a function


def check(exercise_id: str, answer: Answer) -> None:
    """Print whether an answer to an exercise passes, and a hint if it does not; note it in the learner's progress.

    Args:
        exercise_id: such as "4.1".
        answer: the learner's function itself, without parentheses.

    Raises:
        InputError: if there is no such exercise.
        AssertionError: only with COURSE_STRICT=1 in the environment, unless it passed.
        KeyboardInterrupt: if the learner interrupts it, since that is to stop "Run All", too.
    """
    exercise = find_exercise(exercise_id)
    try:
        verdict, hint = judge(exercise, answer)
    except KeyboardInterrupt:
        print(gettext("NOT YET {id} {title}: you interrupted it. If it took long, look whether every "
                      "loop in it comes to an end.").format(id=exercise.id, title=gettext(exercise.title)))
        raise
    line = f"{gettext(verdict)} {exercise.id} {gettext(exercise.title)}"
    if hint:
        line = gettext("{line}: {hint}").format(line=line, hint=hint)
    print(line)
    if said := (note_not_started(exercise.id) if verdict == NOT_STARTED
                else record_result(exercise.id, verdict == PASSED, hint)):
        print(said)
    if verdict != PASSED and os.environ.get("COURSE_STRICT") == "1":
        raise AssertionError(line)


def judge(exercise: Exercise, answer: Answer, seconds: float | None = None) -> tuple[str, str]:
    """Run an exercise's check on an answer, under a limit of time.

    Args:
        exercise: the exercise.
        answer: the learner's function.
        seconds: how long it may take; by default what the exercise says.

    Returns:
        The verdict, PASSED, NOT_STARTED or NOT_YET, and in the reader's language the remark, which is empty unless the
        verdict is NOT_YET.
    """
    if not callable(answer):
        return NOT_YET, gettext("got {kind}, not a function. Pass the function itself, without parentheses.").format(
            kind=type(answer).__name__)
    try:
        hint = within(exercise.seconds if seconds is None else seconds, exercise.verify, answer)
    except NotYet as refused:
        return NOT_YET, gettext(str(refused))
    except Stopped as stopped:
        line = _own_line(stopped, answer)
        where = gettext(", in its line `{line}`").format(line=line) if line else ""
        return NOT_YET, gettext("it was stopped {stopped}{where}. Does every loop in it come to an end? If so, the "
                                "computer was busy: run the check again.").format(stopped=stopped, where=where)
    except (Exception, SystemExit) as error:  # whatever a learner's function does, the notebook goes on
        if isinstance(error, NotImplementedError) and not error.args:  # with a text it is PyTorch's, not the stub's
            return NOT_STARTED, ""
        return NOT_YET, _describe(error, answer)
    return (PASSED, "") if hint is None else (NOT_YET, gettext(hint))


def _own_line(error: BaseException, answer: Answer) -> str:
    """The line of the learner's cell that an exception came from, if it came from there."""
    file = getattr(getattr(answer, "__code__", None), "co_filename", None)
    lines = [linecache.getline(frame.f_code.co_filename, number).strip()
             for frame, number in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    return lines[-1] if lines else ""


def _describe(error: BaseException, answer: Answer) -> str:
    """What was raised, and in which line of the learner's cell if it was there."""
    text = " ".join(str(error).split())
    if len(text) > _MOST_LETTERS:
        text = text[:_MOST_LETTERS] + " ..."
    raised = gettext("raised {kind}").format(kind=type(error).__name__) + (f": {text}" if text else "")
    if line := _own_line(error, answer):
        return gettext("its line `{line}` {raised}").format(line=line, raised=raised)
    return gettext("calling it, or using what it returned, {raised}").format(raised=raised)
