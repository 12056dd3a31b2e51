"""The board of a class as text for a terminal and as HTML for a notebook."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from course_utils.language import gettext
from course_utils.printable import aligned, printable
from course_utils.printable import width as letters_wide
from course_utils.workshop.board import STATES, Board, Standing

_LONGEST_NAME, _LONGEST_REMARK = 30, 100  # letters
_LEFT = 2  # columns that are read as text; the others are numbers and times


def board_text(board: Board, width: int | None = None, height: int | None = None) -> str:
    """The board as lines.

    Args:
        board: of a class.
        width: letters in a line; longer ones are cut. None is no limit.
        height: lines; what does not fit is said. None is no limit.
    """
    lines = [_summary(board), "", *_table(_hurdle_rows(board)), ""]
    lines += _table(_standing_rows(board))
    lines += [printable(line) for line in _remarks(board)]
    if height is not None and len(lines) > height:
        lines = [*lines[:height - 1], gettext("... and {count} more lines: a higher window shows them.").format(
            count=len(lines) - height + 1)]
    return "\n".join(line if width is None else _cut(line, width) for line in lines)


def board_html(board: Board) -> str:
    """The board as HTML that needs no script and no style of its own."""
    parts = [f"<p><strong>{html.escape(_summary(board))}</strong></p>", _html_table(_hurdle_rows(board)),
             _html_table(_standing_rows(board))]
    return "\n".join([*parts, *(f"<p>{html.escape(printable(line))}</p>" for line in _remarks(board))])


def _summary(board: Board) -> str:
    counts = Counter(one.state for one in board.standings)
    states = ", ".join(f"{counts[state]} {gettext(state)}" for state in STATES if counts[state])
    learners = (gettext("1 learner") if len(board.standings) == 1
                else gettext("{count} learners").format(count=len(board.standings)))
    return gettext("Chapter {chapter} at {time:%H:%M}: {learners}").format(
        chapter=board.chapter, time=board.at.astimezone(), learners=learners) + (f": {states}" if states else "")


def _hurdle_rows(board: Board) -> list[list[str]]:
    rows = [[gettext("exercise"), "", gettext("passed"), gettext("solution shown"), gettext("open"), gettext("stuck"),
             gettext("tries (median)")]]
    for hurdle in board.hurdles:
        counts = [str(number or "") for number in (hurdle.passed, hurdle.shown, hurdle.open)]
        stuck = f"{hurdle.stuck}{gettext(' <- most') if hurdle.stops else ''}" if hurdle.stuck else ""
        rows.append([hurdle.id, gettext(hurdle.title), *counts, stuck, f"{hurdle.tries:g}"])
    return rows


def _standing_rows(board: Board) -> list[list[str]]:
    rows = [[gettext("learner"), gettext("state"), gettext("at"), gettext("for"), gettext("tries"), gettext("passed"),
             gettext("solution shown"), gettext("last seen")]]
    for one in board.standings:
        name = one.name[:_LONGEST_NAME] + ("" if one.expected else gettext(" (not on the roster)"))
        rows.append([name, gettext(one.state), *_numbers(one, board)])
    return rows


def _numbers(one: Standing, board: Board) -> list[str]:
    if one.state == "no file":
        return [""] * 6
    return [one.exercise if one.state != "not begun" else "",
            _age(one.since, board.at) if one.exercise and one.state != "not begun" else "", str(one.tries or ""),
            gettext("{passed} of {count}").format(passed=one.passed, count=len(board.hurdles)), str(one.shown or ""),
            _age(one.last, board.at, gettext(" ago"))]


def _remarks(board: Board) -> list[str]:
    """What stands under the tables: what those who are stuck were told, votes, and troubles."""
    told = [gettext("{id}, told {count} last: {remark}").format(
                id=hurdle.id, count=hurdle.remark[1], remark=_short(hurdle.remark[0]))
            for hurdle in board.hurdles if hurdle.stuck and hurdle.remark[1]]
    votes = [gettext("question {id}, chosen first: ").format(id=vote.id)
             + ", ".join(f"{letter}{gettext(' (right)') if letter == vote.right else ''} {count}"
                         for letter, count in vote.first.items()) for vote in board.votes]
    return [*told, *votes, *board.troubles]


def _age(since: datetime | None, at: datetime, after: str = "") -> str:
    if since is None:
        return "?"
    past = at - since
    if past < timedelta(minutes=1):
        return gettext("just now") if after else "< 1 min"
    if past < timedelta(hours=2):
        return f"{past // timedelta(minutes=1)} min{after}"
    return f"{past // timedelta(hours=1)} h{after}" if past < timedelta(days=2) else gettext("{count} days").format(
        count=past.days) + after


def _short(remark: str) -> str:
    return remark if len(remark) <= _LONGEST_REMARK else remark[:_LONGEST_REMARK] + " ..."


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    return aligned([[printable(entry) for entry in row] for row in rows], _LEFT)


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    def line(row: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f'<{tag} style="text-align: {"left" if place < _LEFT else "right"}">'
                                f"{html.escape(printable(entry))}</{tag}>" for place, entry in enumerate(row)) + "</tr>"

    return (f"<table><thead>{line(rows[0], 'th')}</thead><tbody>" + "".join(line(row, "td") for row in rows[1:])
            + "</tbody></table>")


def _cut(line: str, width: int) -> str:
    """The beginning of a line that fits."""
    while letters_wide(line) > width:
        line = line[:-1]
    return line
