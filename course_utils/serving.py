"""Handing a model over to a serving engine: the folder it reads, and a client that talks to it.

Engines such as vLLM, SGLang and `transformers serve` read the hub's layout of a checkpoint and speak one protocol, chat
completions: the request is JSON, and the answer comes as server-sent events, one JSON object a line.
https://platform.openai.com/docs/api-reference/chat and https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

from __future__ import annotations

import http.client
import importlib.metadata
import importlib.util
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from course_utils.chat import Message, check_messages
from course_utils.checkpoint import save_checkpoint
from course_utils.errors import CheckpointError, CourseError, InputError
from course_utils.files import read_json
from course_utils.json_text import parse_json
from course_utils.language import gettext
from course_utils.qwen3 import Qwen3Model
from course_utils.tokenizer import TOKENIZER_FILES, Qwen3Tokenizer

_NEEDED = ("transformers", "fastapi", "uvicorn", "openai", "pydantic")
_GRACE = 10.0  # seconds a server has to end by itself
_LONGEST_LINE = 1_000_000  # bytes of an event; one holds a piece of text, mostly a token


def export_model(model: Qwen3Model, tokenizer: Qwen3Tokenizer, folder: str | Path) -> Path:
    """Write all that a serving engine needs into one folder: weights, configuration, tokenizer, chat template.

    Args:
        model: whose weights are not quantized, since engines have formats of their own for that.
        tokenizer: its files are copied from the folder that it was loaded from.
        folder: is created if needed.

    Returns:
        The folder.

    Raises:
        CheckpointError: if the model is quantized, or files cannot be written or copied.
    """
    if model.quantization is not None:
        raise CheckpointError(gettext("This model is quantized to {quantization} in this package's own format: export "
                                      "the original, and let the engine quantize it.").format(
            quantization=model.quantization))
    folder = Path(folder)
    settings = tokenizer.folder / "generation_config.json"
    save_checkpoint(model, folder, read_json(settings) if settings.is_file() else None)
    try:
        for name in TOKENIZER_FILES:
            if (tokenizer.folder / name).is_file() and tokenizer.folder.resolve() != folder.resolve():
                shutil.copyfile(tokenizer.folder / name, folder / name)
    except OSError as error:
        raise CheckpointError(gettext("The tokenizer's files could not be copied to "
                                      "{folder!r} ({error}): free disk space, or choose "
                                      "another folder.").format(folder=str(folder), error=error)) from error
    return folder


def stream_chat(address: str, model: str, messages: Sequence[Message], max_new_tokens: int = 100,
                seconds: float = 60.0) -> Iterator[str]:
    """Ask a chat server and hand out its answer as it comes, greedily and without a block of thoughts.

    The arguments are checked at once; nothing is sent until the first piece is asked for. An engine may hand out the
    line breaks that follow an empty block of thoughts.

    Args:
        address: of the server's interface, such as "http://127.0.0.1:8000/v1".
        model: the name by which the server knows it; most take the folder or the hub name they were started with.
        messages: as for `ChatTemplate.render`.
        max_new_tokens: how many tokens at most.
        seconds: how long to wait for each piece, from the moment on when it is asked for.

    Yields:
        Pieces of the answer.

    Raises:
        InputError: if the messages are none, or the address does not begin with http.
        CourseError: if no server answers, it refuses the request, or the answer breaks off.
    """
    if not address.startswith(("http://", "https://")):
        raise InputError(gettext("The address is {address!r}: give one such as "
                                 "http://127.0.0.1:8000/v1.").format(address=address))
    check_messages(messages)
    try:
        body = json.dumps({
            "model": model, "messages": list(messages), "max_tokens": max_new_tokens, "temperature": 0, "stream": True,
            "chat_template_kwargs": {"enable_thinking": False}}).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(gettext("The messages cannot be written as JSON ({error}): give texts, "
                                 "numbers, lists and objects.").format(error=error)) from error
    return _answer(address, body, seconds)


class _Deadline:
    """The moment until which bytes may come; it can be moved."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.move()

    def move(self) -> None:
        self._end = time.monotonic() + self._seconds

    def left(self) -> float:
        """Seconds that are left. Raises: TimeoutError: if none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(gettext("nothing to show within {seconds:g} seconds").format(seconds=self._seconds))
        return left


class _TimedReader(io.RawIOBase):
    """Reads from a socket until the deadline, however slowly the bytes come: a socket's own limit is for each of them.

    Args:
        raw: of the response, which is read from.
        sock: beneath it.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: _Deadline) -> None:
        self._raw, self._sock, self._deadline = raw, sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.left())
        try:
            return self._raw.readinto(buffer)
        except TimeoutError:
            self._deadline.left()
            raise

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    """A response with a deadline in all, for its head as for its body."""

    def __init__(self, deadline: _Deadline, sock: socket.socket, **options: Any) -> None:
        super().__init__(sock, **options)
        self.fp = io.BufferedReader(_TimedReader(self.fp.detach(), sock, deadline))


@contextmanager
def _response(address: str, body: bytes, deadline: _Deadline) -> Iterator[http.client.HTTPResponse]:
    """Send a request and open the answer. No proxy: a server of one's own is behind none."""
    parts = urlsplit(f"{address.rstrip('/')}/chat/completions")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc.rpartition("@")[2], timeout=deadline.left())
    connection.response_class = partial(_TimedResponse, deadline)  # type: ignore[assignment]
    try:
        connection.request("POST", parts.path, body, {"Content-Type": "application/json", "Connection": "close"})
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()


def _answer(address: str, body: bytes, seconds: float) -> Iterator[str]:
    deadline = _Deadline(seconds)
    try:
        with _response(address, body, deadline) as response:
            if response.status != 200:
                said = response.read(300).decode(errors="replace").strip()
                raise CourseError(gettext("The server at {address} refused the request ({status} {reason}: {said}): "
                                          "check the name of the model and the messages.").format(
                    address=address, status=response.status, reason=response.reason, said=said))
            while line := response.readline(_LONGEST_LINE + 1):
                if len(line) > _LONGEST_LINE:
                    raise ValueError(gettext("a line of more than {longest_line} bytes").format(
                        longest_line=_LONGEST_LINE))
                if not line.startswith(b"data:"):
                    continue  # empty lines separate the events, and lines that begin with a colon are comments
                data = line[len(b"data:"):].strip()
                if data == b"[DONE]":
                    return
                text, ended = _delta(parse_json(data))
                if text:
                    yield text
                    deadline.move()
                if ended:
                    return
    except (OSError, http.client.HTTPException) as error:
        raise CourseError(gettext("The server at {address} cannot be reached, or has stopped answering ({error}): "
                                  "start it, or check the address.").format(address=address, error=error)) from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CourseError(gettext("What the server at {address} sends is no chat completion ("
                                  "{error}): check the address.").format(address=address, error=error)) from error
    raise CourseError(gettext("The answer of the server at {address} broke off before its end: "
                              "look into the server's log.").format(address=address))


def _delta(event: dict[str, Any]) -> tuple[str, bool]:
    """The new text in an event, and whether it is the last one."""
    if "error" in event:
        raise CourseError(gettext("The server ended the answer with an error: {event}.").format(event=event["error"]))
    choice = event["choices"][0]
    text = choice["delta"].get("content") or ""
    if not isinstance(text, str):
        raise TypeError(gettext("the text is {text}").format(text=str(text)[:80]))
    return text, choice.get("finish_reason") is not None


def missing_for_serving() -> list[str]:
    """The packages that `transformers serve` needs and that are not installed, or too old."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if "transformers" not in missing and importlib.metadata.version("transformers").startswith(("3.", "4.")):
        missing.append("transformers 5")
    return missing


@contextmanager
def chat_server(seconds: float = 120.0) -> Iterator[str]:
    """Run `transformers serve` on this machine's own CPU for the length of a `with` block, and end it behind it.

    It loads a model when it is first asked for it, by the path of its folder. It listens on the loopback interface
    alone, so nobody outside can reach it, and asks no hub for anything.

    Args:
        seconds: how long to wait until it answers.

    Yields:
        The address, for `stream_chat`.

    Raises:
        CourseError: if something it needs is not installed, or it does not start; with the last line that it printed.
    """
    missing = missing_for_serving()
    if missing:
        raise CourseError(gettext("transformers serve needs {missing}: run pip "
                                  "install \"transformers[serving]\".").format(missing=", ".join(missing)))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(_command(port), stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   env={**os.environ, "HF_HUB_OFFLINE": "1"}, start_new_session=True)
        try:
            _wait_until_it_answers(port, process, seconds, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            _end(process)


def _command(port: int) -> list[str]:
    return [sys.executable, "-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1", "--port", str(port),
            "--device", "cpu"]


def _wait_until_it_answers(port: int, process: subprocess.Popen[bytes], seconds: float, log: Any) -> None:
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            connection.getresponse()
            return
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
        finally:
            connection.close()
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
    text = (gettext("The server did not answer within {seconds:g} seconds. The last it printed: {last}")
            if process.poll() is None else gettext("The server ended at once. The last it printed: {last}"))
    raise CourseError(text.format(seconds=seconds, last=last))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server, and what it may have started."""
    for kill, ask in ((False, process.terminate), (True, process.kill)):
        if process.poll() is None:
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL if kill else signal.SIGTERM)
            else:
                ask()
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                continue
