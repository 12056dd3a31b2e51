"""The files of a class: one for each learner, in a folder that an instructor can read, and who should be there.

No name leaves the room, and no server is asked: the folder is one that learners' exports were copied to, a shared
drive, or where a server for the class keeps them.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from course_utils.errors import InputError
from course_utils.exercises.progress import read_progress
from course_utils.exercises.record import Progress
from course_utils.language import gettext
from course_utils.workshop.board import Board, board_of
from course_utils.workshop.board_view import board_text

_CLEAR = "\x1b[H\x1b[2J\x1b[3J"
_LONGEST_ROSTER = 1_000_000  # bytes


def class_board(folder: str | Path, chapter: int, roster: str | Path | None = None) -> Board:
    """How a class stands in one chapter, to be shown in a notebook or printed.

    Args:
        folder: with the learners' files, each a learner's `progress.json` or an export, under the learner's name.
        chapter: its number.
        roster: a text file with the name of a learner in each line; None if nobody knows who should be there.

    Raises:
        InputError: if the folder or the roster cannot be read, or the chapter has no exercises.
    """
    learners, troubles = read_learners([Path(folder)])
    return board_of(chapter, learners, None if roster is None else read_roster(Path(roster)), troubles=troubles)


def read_learners(paths: Sequence[Path]) -> tuple[dict[str, Progress], list[str]]:
    """The progress of several learners, by name: that of the export, or else of the file.

    Args:
        paths: files, and folders, of which all files that end in .json are read.

    Returns:
        Them, and for each file that cannot be read a sentence.

    Raises:
        InputError: if a folder cannot be read.
    """
    learners: dict[str, Progress] = {}
    troubles = []
    for path in paths:
        try:
            found = sorted(file for file in path.iterdir() if file.suffix == ".json" and not file.name.startswith(".")
                           ) if path.is_dir() else [path]
        except OSError as error:
            raise InputError(gettext("{path!r} cannot be read ({strerror}): give the folder with the "
                                     "learners' files.").format(path=str(path), strerror=error.strerror)) from error
        for file in found:
            try:
                progress = read_progress(file)
            except InputError as error:
                troubles.append(str(error))
                continue
            # What the package calls it says nothing of whose it is.
            name = progress.name.strip() or (file.stem if file.stem != "progress" else str(file))
            learners[name if name not in learners else f"{name} ({file})"] = progress
    return learners, troubles


def read_roster(path: Path) -> list[str]:
    """The names in a file, one in each line; empty lines and those that begin with # are left out.

    Raises:
        InputError: if it cannot be read, or is no text in UTF-8.
    """
    try:
        if path.stat().st_size > _LONGEST_ROSTER:
            raise InputError(gettext("{path!r} is too large for a list of names: give a text file "
                                     "with a name in each line.").format(path=str(path)))
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # as some editors on Windows begin a file
    except OSError as error:
        raise InputError(gettext("{path!r} cannot be read ({strerror}): give a text file with a name in each "
                                 "line.").format(path=str(path), strerror=error.strerror)
                         ) from error
    except UnicodeDecodeError as error:
        raise InputError(gettext("{path!r} is no text in UTF-8: save it in that encoding, with a name in each "
                                 "line.").format(path=str(path))
                         ) from error
    return [" ".join(line.split()) for line in lines if line.strip() and not line.lstrip().startswith("#")]


def watch_class(look: Callable[[], Board], seconds: float = 2.0) -> None:
    """Show a board in the terminal and renew it, until Ctrl-C.

    Args:
        look: what makes the board.
        seconds: from one look to the next.
    """
    try:
        while True:
            board, size = look(), shutil.get_terminal_size()
            screen = sys.stdout.isatty()
            text = board_text(board, size.columns - 1, size.lines - 2) if screen else board_text(board)
            print((_CLEAR if screen else "") + text, gettext("Ctrl-C ends this.") if screen else "", sep="\n",
                  flush=True)
            time.sleep(seconds)
    except KeyboardInterrupt:
        print()
