"""How a class stands in one chapter: who is stuck on what and for how long, and which exercise stops the class.

It is computed from the files in which the learners' progress is kept; see `exercises/record.py` for what is in them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median

from course_utils.exercises import lookup
from course_utils.exercises.record import Attempts, Progress, moment
from course_utils.language import noted

MANY_TRIES = 3
"""Who has failed so often at one exercise is stuck."""
LONG = timedelta(minutes=10)
"""Who has tried one exercise for so long is stuck, too; who has done nothing for so long is quiet."""

STATES = (noted("stuck"), noted("quiet"), noted("at work"), noted("not begun"), noted("no file"), noted("done"))
"""In the order in which they need a look. "quiet": nothing was noted lately, and there is something left to do."""


@dataclass(frozen=True)
class Standing:
    """Where one learner stands.

    Attributes:
        name: of the learner.
        state: one of `STATES`.
        passed: how many of the chapter's exercises passed.
        shown: how many of them passed after their solution was shown.
        exercise: the one that the learner is at; empty if none is open.
        since: when it was tried first, or if it was not, when the learner did the last thing before it; None if the
            file does not say.
        tries: at that exercise.
        remark: what its check said last.
        last: when something was noted last, in this chapter; None if the file does not say.
        expected: whether the learner is on the roster, or there is none.
    """

    name: str
    state: str
    passed: int = 0
    shown: int = 0
    exercise: str = ""
    since: datetime | None = None
    tries: int = 0
    remark: str = ""
    last: datetime | None = None
    expected: bool = True


@dataclass(frozen=True)
class Hurdle:
    """How the class stands with one exercise.

    Attributes:
        id: of the exercise.
        title: of the exercise.
        passed: learners whose answer passed.
        shown: those of them who had the solution shown before.
        open: learners who tried it and have not passed.
        stuck: learners who are at it and stuck.
        tries: median of those who tried it or passed.
        remark: what most of those who have not passed were told last, and how many they are.
        stops: whether somebody is stuck here, and nowhere more than here.
    """

    id: str
    title: str
    passed: int
    shown: int
    open: int
    stuck: int
    tries: float
    remark: tuple[str, int] = ("", 0)
    stops: bool = False


@dataclass(frozen=True)
class Vote:
    """What a class answered to a quick question.

    Attributes:
        id: of the question.
        first: how many chose each letter first.
        right: the letter of the right option.
    """

    id: str
    first: Mapping[str, int]
    right: str


@dataclass(frozen=True)
class Board:
    """How a class stands in one chapter at one moment.

    Attributes:
        chapter: its number.
        at: the moment.
        standings: one for each learner, those first who need a look.
        hurdles: one for each exercise of the chapter.
        votes: one for each of its questions that somebody answered.
        troubles: files that could not be read, a sentence each.
    """

    chapter: int
    at: datetime
    standings: tuple[Standing, ...]
    hurdles: tuple[Hurdle, ...]
    votes: tuple[Vote, ...]
    troubles: tuple[str, ...] = ()

    def __str__(self) -> str:
        from course_utils.workshop.board_view import board_text

        return board_text(self)

    def _repr_html_(self) -> str:
        from course_utils.workshop.board_view import board_html

        return board_html(self)


def board_of(chapter: int, learners: Mapping[str, Progress], roster: Sequence[str] | None = None,
             at: datetime | None = None, troubles: Iterable[str] = ()) -> Board:
    """How a class stands.

    Args:
        chapter: its number.
        learners: each one's progress, by name.
        roster: the names of those who should be there; None if nobody knows. Upper and lower case are the same.
        at: the moment; None is now.
        troubles: what could not be read, a sentence each.

    Raises:
        InputError: if the chapter has no exercises.
    """
    titles, at = lookup.titles(chapter), at or datetime.now(UTC)
    expected = None if roster is None else {same_name(name) for name in roster}
    standings = [_standing(name, progress, list(titles), at, expected is None or same_name(name) in expected)
                 for name, progress in learners.items()]
    here = {same_name(name) for name in learners}
    standings += [Standing(name, "no file") for name in roster or () if same_name(name) not in here]
    standings.sort(key=lambda one: (STATES.index(one.state), one.since or at, one.name.casefold()))
    stuck = Counter(one.exercise for one in standings if one.state == "stuck")
    worst = max(stuck.values(), default=0)
    hurdles = [_hurdle(exercise_id, title, learners.values(), stuck[exercise_id], worst)
               for exercise_id, title in titles.items()]
    return Board(chapter, at, tuple(standings), tuple(hurdles), tuple(_votes(chapter, learners.values())),
                 tuple(troubles))


def same_name(name: str) -> str:
    """What two ways to write one name have in common."""
    return " ".join(name.split()).casefold()


def _standing(name: str, progress: Progress, ids: Sequence[str], at: datetime, expected: bool) -> Standing:
    noted = {exercise_id: progress.exercises.get(exercise_id, Attempts()) for exercise_id in ids}
    passed = [exercise_id for exercise_id in ids if progress.passed(exercise_id)]
    shown = sum(noted[exercise_id].shown is not None for exercise_id in passed)
    events = sorted((moment(time), exercise_id) for exercise_id, one in noted.items()
                    for time in (one.seen, one.last, one.passed, one.shown) if time is not None)
    last = events[-1][0] if events else None
    if len(passed) == len(ids):
        return Standing(name, "done", len(passed), shown, last=last, expected=expected)
    exercise = _at(noted, events)
    one = noted[exercise]
    since = moment(one.first) if one.first is not None else last
    if one.tries and (one.tries >= MANY_TRIES or since is not None and at - since >= LONG):
        state = "stuck"
    elif not events and not passed and not any(kept.tries for kept in noted.values()):
        state = "not begun"
    elif last is not None and at - last >= LONG:
        state = "quiet"
    else:
        state = "at work"
    return Standing(name, state, len(passed), shown, exercise, since, one.tries, one.remark, last, expected)


def _at(noted: Mapping[str, Attempts], events: Sequence[tuple[datetime, str]]) -> str:
    """The exercise that a learner is at: the one tried last, or after one that passed the next that is open."""
    ids = list(noted)
    still = [exercise_id for exercise_id in ids if noted[exercise_id].passed is None]
    tried = [(time, exercise_id) for time, exercise_id in events
             if noted[exercise_id].tries or noted[exercise_id].passed is not None]  # "Run All" sees all, and tries none
    if not tried:  # a file without times, or nothing was tried yet
        return next((exercise_id for exercise_id in reversed(still) if noted[exercise_id].tries), still[0])
    latest = tried[-1][1]
    after = ids[ids.index(latest):] + ids[:ids.index(latest)]
    return next(exercise_id for exercise_id in after if exercise_id in still)


def _hurdle(exercise_id: str, title: str, learners: Iterable[Progress], stuck: int, worst: int) -> Hurdle:
    noted = [progress.exercises[exercise_id] for progress in learners if exercise_id in progress.exercises]
    passed = [one for one in noted if one.passed is not None]
    still = [one for one in noted if one.passed is None and one.tries]
    remarks = Counter(one.remark for one in still if one.remark)
    tries = [one.tries for one in noted if one.tries or one.passed is not None]
    return Hurdle(exercise_id, title, len(passed), sum(one.shown is not None for one in passed), len(still), stuck,
                  median(tries) if tries else 0, remarks.most_common(1)[0] if remarks else ("", 0),
                  stuck > 0 and stuck == worst)


def _votes(chapter: int, learners: Iterable[Progress]) -> Iterable[Vote]:
    answered = [progress.questions for progress in learners]
    for question in lookup.of_chapter("question", chapter):
        first = Counter(questions[question.id].letters[0] for questions in answered if question.id in questions)
        if first:
            yield Vote(question.id, {letter: first[letter] for letter, _ in question.lettered},
                       next(letter for letter, option in question.lettered if option.right))
