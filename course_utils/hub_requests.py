"""What `huggingface_hub` asks a hub, with a limit on every wait and an end at the first refusal.

The library itself has no limit in all: each byte that drips in begins its time anew, and it sleeps for as long as a hub
bids it to. So its calls run in a thread of their own here, which is watched; and the hooks of its session, which are
public as the session is, end a request whose answer is a refusal. Requests that others make with the library are left
as they are.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import huggingface_hub
from huggingface_hub import close_session, constants, file_download, get_session

from course_utils.errors import DownloadError
from course_utils.language import gettext

ANSWER_TIMEOUT = 10.0
"""Seconds that the hub may be silent, where HF_HUB_DOWNLOAD_TIMEOUT does not say otherwise."""
LISTING_LIMIT = 30.0
"""Seconds that the list of files may take in all."""
BLOCK_SIZE = 1_000_000
"""Bytes of a file that the library hands over at a time: no more is lost when a download is interrupted."""
BLOCK_LIMIT = 100.0
"""Seconds within which the next block of a file must come."""
RETRY_PAUSE = 1.0
"""Seconds before a hub that is in trouble is asked once more."""

Outcome = TypeVar("Outcome")


class Refusal(Exception):
    """The hub has not answered, or not with what was asked for.

    Attributes:
        status: of HTTP; None if that is not what is wrong.
        code: what the hub says about itself, such as "GatedRepo"; may be empty.
        retry_after: seconds after which it wants to be asked again, if it says so.
    """

    def __init__(self, text: str, status: int | None = None, code: str = "", retry_after: int | None = None) -> None:
        super().__init__(text)
        self.status, self.code, self.retry_after = status, code, retry_after


def answer_timeout() -> float:
    """Seconds that the hub may be silent, by the environment now."""
    seconds = os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT", "").strip()
    return int(seconds) if re.fullmatch(r"[1-9]\d{0,4}", seconds, re.ASCII) else ANSWER_TIMEOUT


def watch(work: Callable[[], Outcome], what: str, limit: float, progress: Callable[[], int] = lambda: 0) -> Outcome:
    """Let the library work in a thread, for as long as it gets on.

    Args:
        work: calls the library.
        what: is waited for, which is said after a tenth of the limit.
        limit: seconds without progress after which the work is left to itself. Whatever it writes to must be closed
            then, and its next request ends it.
        progress: how far it is. What this raises ends the wait, too.

    Returns:
        What the work returns; what it raises is raised here.

    Raises:
        Refusal: if the hub refuses, or the limit is over.
    """
    limit = max(limit, answer_timeout())
    session = get_session()
    if _check not in session.event_hooks["response"]:
        hooks = session.event_hooks
        session.event_hooks = hooks | {"response": [_check, *hooks["response"]]}
    worker = _Worker(work)
    with _settings_of_now():
        worker.start()
        try:
            begin, before, told = time.monotonic(), progress(), False
            while worker.is_alive():
                worker.join(0.1)  # without a time, Windows would not let Ctrl-C through
                waited = time.monotonic() - begin
                if (now := progress()) != before:
                    begin, before = time.monotonic(), now
                elif waited > limit and worker.is_alive():
                    raise Refusal(gettext("nothing came within {limit:.0f} seconds").format(limit=limit))
                elif waited > limit / 10 and not told:
                    told = True
                    print(gettext("Waiting for {what}, {limit:.0f} seconds at most.").format(
                        what=what, limit=limit), file=sys.stderr)
        finally:
            worker.is_left = True
    try:
        return worker.outcome()
    except Refusal:
        raise
    except Exception:
        close_session()  # the next try reads anew what the environment says of proxies and certificates
        raise


def try_twice(work: Callable[[], Outcome]) -> Outcome:
    """Work, and once more if the hub is in trouble (status 5xx)."""
    try:
        return work()
    except Refusal as error:
        if error.status is None or error.status < 500:
            raise
    time.sleep(RETRY_PAUSE)
    return work()


def receive(url: str, path: Path, size: int, headers: dict[str, str], name: str) -> None:
    """Fetch what a file lacks, so that one which was interrupted goes on where it stopped.

    Args:
        url: of the whole file.
        path: of the file on this machine, if there is any of it. What has come stays there, whatever happens.
        size: of the whole file in bytes; more is not taken.
        headers: to send.
        name: to show beside the progress bar.

    Raises:
        Refusal: if the hub refuses, sends too much, or nothing for `BLOCK_LIMIT`; other exceptions if it is not there.
    """
    # Public by its name, though not exported; the function above it, `hf_hub_download`, begins each file anew.
    if not hasattr(file_download, "http_get"):
        raise DownloadError(gettext("huggingface_hub {version} has no http_get any more, with which this "
                                    "package downloads: install an older one, `pip "
                                    "install \"huggingface_hub<3\"`.").format(version=huggingface_hub.__version__))
    start = path.stat().st_size if path.exists() else 0
    if start == size > 0:
        return
    with path.open("ab") as file:
        def length() -> int:
            if file.tell() > size:
                raise Refusal(gettext("it sends more than the {size} bytes that it has listed").format(size=size))
            return file.tell()

        watch(lambda: file_download.http_get(url, file, resume_size=start, headers=headers, displayed_filename=name),
            gettext("more of {name}").format(name=name), BLOCK_LIMIT, length)
        length()


class _Worker(threading.Thread, Generic[Outcome]):
    """A thread that keeps what its work has returned or raised. It does not keep Python from ending."""

    is_left = False

    def __init__(self, work: Callable[[], Outcome]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._answer: list[Outcome] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._answer.append(self._work())
        except BaseException as error:
            self._error = error

    def outcome(self) -> Outcome:
        if self._error is not None:
            raise self._error
        return self._answer[0]


@contextmanager
def _settings_of_now() -> Iterator[None]:
    """Let the library have what the environment says now, which it read when it was imported, and smaller blocks."""
    settings: dict[str, object] = {
        "HF_HUB_OFFLINE": False, "HF_HUB_DOWNLOAD_TIMEOUT": answer_timeout(),
        "DOWNLOAD_CHUNK_SIZE": min(BLOCK_SIZE, constants.DOWNLOAD_CHUNK_SIZE)}
    before = {name: getattr(constants, name) for name in settings}
    vars(constants).update(settings)
    try:
        yield
    finally:
        vars(constants).update(before)


def _check(answer: Any) -> None:
    """What the session calls with each answer before its content is read: end ours if it is a refusal."""
    worker = threading.current_thread()
    if not isinstance(worker, _Worker):
        return
    answer.headers.pop("X-HF-Warning", None)  # which the library would print as it is
    if worker.is_left:
        raise Refusal(gettext("nobody waits for it any more"))
    if answer.status_code >= 400:
        headers = answer.headers
        wait = headers.get("Retry-After", "")
        # https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers
        left = re.search(r"\br=0;t=(\d{1,6})\b", headers.get("RateLimit", "").replace(" ", ""))
        wait = left[1] if left else wait if re.fullmatch(r"\d{1,6}", wait, re.ASCII) else ""
        code = ("Credentials" if "Invalid credentials" in headers.get("X-Error-Message", "")
                else headers.get("X-Error-Code", ""))
        text = f"status {answer.status_code}" + (
            gettext(", trouble of its own that may be over in some minutes") if answer.status_code >= 500 else "")
        raise Refusal(text, answer.status_code, code, int(wait) if wait else None)
