"""A lock that one holder at a time has, in whatever process: for files that must not be written by two at once.

The lock is the operating system's and not the file, so a process that is killed leaves none behind. Left out: waiting,
which is the caller's, who can say what for; and drives without locks, on which everybody gets one.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class FileLock:
    """Take the lock at once, or raise; released at the end of a `with` block, by `release`, or with the object.

    Args:
        path: of a file that is there for nothing else; it comes with the lock and goes when that is released.

    Raises:
        BlockingIOError: if someone else holds it, this process included.
        OSError: if the file cannot be made.
    """

    _file: int | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        while self._file is None:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                _lock(file)
                if _is_at(file, path):  # else whoever held it before has just taken the file away
                    self._file, file = file, -1
            finally:
                if file != -1:
                    os.close(file)

    def release(self) -> None:
        """Let others have it; a second time does no harm."""
        if self._file is None:
            return
        file, self._file = self._file, None
        # Windows deletes no file that is open; elsewhere the next one could have it before it is deleted.
        for step in (os.close, self._delete) if sys.platform == "win32" else (self._delete, os.close):
            step(file)

    def _delete(self, _: int) -> None:
        with suppress(OSError):  # it stays, which does no harm
            self.path.unlink()

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


def _lock(file: int) -> None:
    """Raises: BlockingIOError: if it is locked already."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except PermissionError as error:  # as Windows says it
        raise BlockingIOError(*error.args) from error
    except OSError:
        pass  # a drive without locks: going on may lose something, stopping would lose it surely


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
