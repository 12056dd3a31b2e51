"""A limit on what a learner's answer may take, so that a loop without an end costs seconds and not the kernel.

A second thread watches the time and the memory, and has Python raise `Stopped` in the thread that the answer runs in.
That works in a notebook, in a plain script, in any thread, and on Windows, where there are no timers by signal. Python
raises it between two steps of its own, so it ends every loop and every generator that is written in Python. It cannot
end a single call that stays outside Python: `time.sleep(1000)`, `sum(itertools.count())`, one huge product of matrices,
`input()`; nor a loop that catches everything with a bare `except:`. There "restart the kernel" remains.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from course_utils import host_memory

_LOOK_EVERY = 0.25  # seconds between two looks at the memory
_ASK_AGAIN = 1.0  # seconds after which an answer that caught the exception is stopped once more


class Stopped(BaseException):
    """An answer took too long or too much memory; its text says which.

    No `Exception`, so that an answer's own `except Exception` lets it through, as it does a KeyboardInterrupt.
    """


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Stop the body after so many seconds, or when it has taken half of the memory that was free.

    Args:
        seconds: how long the body may take, by the clock on the wall.

    Raises:
        Stopped: in the body, wherever it is then.
    """
    watcher = _Watcher(seconds)
    watcher.start()
    try:
        yield
    except Stopped as stopped:
        stopped.args = (watcher.reason,)
        raise
    finally:
        watcher.end()


class _Watcher(threading.Thread):
    """Watches the thread that made it until `end` is called."""

    def __init__(self, seconds: float) -> None:
        super().__init__(daemon=True)
        self.seconds, self.reason = seconds, f"after {seconds:g} seconds"
        self._watched = ctypes.c_ulong(threading.get_ident())
        self._ended, self._lock = threading.Event(), threading.Lock()

    def run(self) -> None:
        end = time.monotonic() + self.seconds
        if self._ended.wait(min(self.seconds, 1.0)):  # most answers are done by now, and the system was asked nothing
            return
        free, before = host_memory.available(), host_memory.resident()
        while time.monotonic() < end:
            if self._ended.wait(min(_LOOK_EVERY, max(0.0, end - time.monotonic()))):
                return
            if host_memory.resident() - before > free / 2:
                self.reason = "when it had taken half of the free memory"
                break
        while True:
            with self._lock:
                if self._ended.is_set():
                    return
                ctypes.pythonapi.PyThreadState_SetAsyncExc(self._watched, ctypes.py_object(Stopped))
            if self._ended.wait(_ASK_AGAIN):
                return

    def end(self) -> None:
        """Watch no longer, and take back an exception that was ordered and not yet raised."""
        try:
            with self._lock:
                self._ended.set()
        finally:  # if the exception comes just here: the next order would reach the notebook's own code
            self._ended.set()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(self._watched, None)
