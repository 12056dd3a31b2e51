"""A limit on what a learner's answer may take, so that a loop without an end costs seconds and not the kernel.

A second thread watches the time and the memory, and has Python raise `Stopped` in the thread that the answer runs in.
That works in a notebook, in a plain script, in any thread, and on Windows, where no signal can be set to a time. Python
raises it between two steps of its own, so it ends every loop and every generator that is written in Python. It cannot
end a single call that stays outside Python: `time.sleep(1000)`, `sum(itertools.count())`, one huge product of matrices,
`input()`; nor a loop that catches everything with a bare `except:`. There "restart the kernel" remains.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from course_utils import host_memory
from course_utils.language import gettext

_UNWATCHED = 1.0  # seconds in which most answers are done, so that the system need not be asked for its memory
_LOOK_EVERY = 0.25  # seconds between two looks at the memory
_ASK_AGAIN = 1.0  # seconds after which an answer that swallowed the exception is stopped once more

P = ParamSpec("P")
T = TypeVar("T")


class Stopped(BaseException):
    """An answer took too long or too much memory; its text says which.

    No `Exception`, so that an answer's own `except Exception` lets it through, as it does a KeyboardInterrupt.
    """


def within(seconds: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function returns, unless it takes longer than so many seconds, or half of the memory that was free.

    Args:
        seconds: how long it may take, by the clock on the wall.
        function: what to call.
        args, kwargs: its arguments.

    Raises:
        Stopped: if it took more, with the function's own lines in its traceback.
    """
    watcher = _Watcher(seconds)
    try:
        try:
            watcher.start()
            return function(*args, **kwargs)
        finally:
            # Python may raise what was ordered wherever a function begins or a loop turns. An assignment is neither, so
            # after this line, come what may, nothing more is ordered, and no exception reaches the notebook's own code.
            watcher.armed = False
            watcher.take_back()
    except Stopped as stopped:
        stopped.args = (watcher.reason,)
        raise


class _Watcher(threading.Thread):
    """Watches the thread that made it as long as it is armed."""

    def __init__(self, seconds: float) -> None:
        super().__init__(daemon=True)
        self.armed, self._ordered = True, False
        self.reason = gettext("after {seconds:g} seconds").format(seconds=seconds)
        self._seconds = seconds
        self._watched = ctypes.c_ulong(threading.get_ident())
        self._ended, self._lock = threading.Event(), threading.Lock()

    def run(self) -> None:
        """Wait for the end of the time or of the memory, then order the exception until the body is left."""
        end = time.monotonic() + self._seconds
        if self._ended.wait(min(self._seconds, _UNWATCHED)):
            return
        free, before = host_memory.available(), host_memory.resident()
        while time.monotonic() < end:
            if self._ended.wait(min(_LOOK_EVERY, max(0.0, end - time.monotonic()))):
                return
            if host_memory.resident() - before > free / 2:
                self.reason = gettext("when it had taken half of the free memory")
                break
        while self._order():
            if self._ended.wait(_ASK_AGAIN):
                return

    def _order(self) -> bool:
        """Have `Stopped` raised in the watched thread; returns False if it is armed no longer."""
        with self._lock:
            if self.armed:
                self._ordered = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(self._watched, ctypes.py_object(Stopped))
            return self.armed

    def take_back(self) -> None:
        """End the watch, and let an exception that was ordered and not yet raised come here.

        Ordering None instead would leave a note in the interpreter that something is to be raised. Nothing ever takes
        that away, and Python 3.11 then does not come back from a tracer that raises.
        """
        with self._lock:  # if it is just being ordered, wait for it
            if self._ordered:
                try:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(self._watched, ctypes.py_object(Stopped))
                    while True:  # it is raised where a loop turns
                        pass
                except Stopped:
                    pass
        self._ended.set()
