"""The exported folder, served by somebody else's engine; the client against it, and against servers that misbehave."""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch

from course_utils import serving
from course_utils.completion import generate
from course_utils.errors import CheckpointError, CourseError, InputError
from course_utils.loading import load_model, load_sampling, load_tokenizer
from course_utils.quantization import quantize
from course_utils.serving import chat_server, export_model, missing_for_serving, stream_chat

CHATS = {
    "English": [{"role": "user", "content": "What is a KV cache?"}],
    "Chinese": [{"role": "user", "content": "什么是分词器？"}],
    "several turns": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is a token?"},
        {"role": "assistant", "content": "A token is a piece of text."},
        {"role": "user", "content": "What is a tokenizer?"},
    ],
}


@pytest.fixture(scope="module")
def model_and_tokenizer():
    return load_model("tiny", device="cpu"), load_tokenizer("tiny")


@pytest.fixture(scope="module")
def folder(model_and_tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(*model_and_tokenizer, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    if missing_for_serving():
        pytest.skip(f"transformers serve needs {', '.join(missing_for_serving())}")
    with chat_server() as address:
        yield address


@pytest.mark.slow
class TestRealServer:
    """All in one launch of `transformers serve`, which takes its time to import."""

    @pytest.mark.parametrize("messages", CHATS.values(), ids=CHATS)
    @pytest.mark.parametrize("most", [40, 5])
    def test_streams_our_own_greedy_text(self, model_and_tokenizer, folder, address, messages, most) -> None:
        model, tokenizer = model_and_tokenizer
        ours = generate(model, tokenizer, tokenizer.encode_chat(messages), most)
        pieces = list(stream_chat(address, str(folder), messages, most))
        # The empty block of thoughts is in the prompt; this engine hands out the line breaks behind it.
        assert "".join(pieces).lstrip("\n") == ours.text
        assert len(pieces) > 1 or most == 5

    def test_unknown_model_is_refused_and_the_server_goes_on(self, folder, address, tmp_path) -> None:
        with pytest.raises(CourseError, match="refused the request"):
            list(stream_chat(address, str(tmp_path / "nothing"), CHATS["English"]))
        assert "".join(stream_chat(address, str(folder), CHATS["English"], 5))


def test_server_is_gone_behind_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_command", lambda port: [sys.executable, "-m", "http.server", str(port),
                                                           "--bind", "127.0.0.1"])
    monkeypatch.setattr(serving, "missing_for_serving", lambda: [])
    with pytest.raises(KeyboardInterrupt), chat_server() as address:
        port = int(address.split(":")[-1].split("/")[0])
        raise KeyboardInterrupt
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    with pytest.raises(CourseError, match="cannot be reached"):
        list(stream_chat(address, "tiny", CHATS["English"], seconds=5))


def test_export_is_a_whole_model(model_and_tokenizer, folder: Path) -> None:
    model, tokenizer = model_and_tokenizer
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja"}
    again, other = load_model(folder, device="cpu"), load_tokenizer(folder)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert other.encode_chat(CHATS["Chinese"]) == tokenizer.encode_chat(CHATS["Chinese"])
    assert load_sampling(folder) == load_sampling("tiny")
    before = (folder / "tokenizer.json").read_bytes()
    assert export_model(again, other, folder) == folder  # over itself
    assert (folder / "tokenizer.json").read_bytes() == before


def test_quantized_model_is_not_exported(model_and_tokenizer, tmp_path: Path) -> None:
    model, tokenizer = model_and_tokenizer
    with pytest.raises(CheckpointError, match="quantized to int8"):
        export_model(quantize(model, "int8"), tokenizer, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    """A server that answers with what `Script.body` holds, and keeps the request; the proxy that is set is dead."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    class Script(BaseHTTPRequestHandler):
        status, body, request, address = 200, b"", {}, ""

        def do_POST(self) -> None:
            type(self).request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                self.send_response(self.status)
                self.end_headers()
                for part in [self.body] if isinstance(self.body, bytes) else self.body:
                    self.wfile.write(part)
            except OSError:
                pass  # the client has gone

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Script) as server:
        Script.address = f"http://127.0.0.1:{server.server_port}/v1"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Script
        server.shutdown()


def event(text: str | None, finish: str | None = None) -> bytes:
    delta = {} if text is None else {"content": text}
    return f"data: {json.dumps({'choices': [{'delta': delta, 'finish_reason': finish}]})}\n\n".encode()


def ask(scripted: type) -> str:
    return "".join(stream_chat(scripted.address, "m", CHATS["English"], 7, seconds=5))


@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", event(None, "stop"), event("", "length") + b"data: [DONE]\n"])
def test_client_reads_events_as_engines_send_them(scripted, end: bytes) -> None:
    scripted.body = b": a comment\n\n" + event(None) + event("小") + event("船, boat") + end
    assert ask(scripted) == "小船, boat"
    assert scripted.request == {"model": "m", "messages": CHATS["English"], "max_tokens": 7, "temperature": 0,
                                "stream": True, "chat_template_kwargs": {"enable_thinking": False}}


@pytest.mark.parametrize(("status", "body", "message"), [
    (200, event("half"), "broke off"),
    (200, b"", "broke off"),
    (200, event("half") + b'data: {"error": "out of memory"}\n\n', "out of memory"),
    (200, b"data: <html>\n\n", "no chat completion"),
    (200, b'data: {"choices": []}\n\n', "no chat completion"),
    (200, b"data: 3\n\n", "no chat completion"),
    (200, b'data: {"choices": [{"delta": {"content": [1]}}]}\n\n', "no chat completion"),
    (200, b"data: " + b"[" * 100_000 + b"\n\n", "no chat completion"),
    (200, itertools.repeat(b"data: {" + b"x" * 100_000), "a line of more than 1000000 bytes"),
    (301, b"", "301"),
    (500, b"\x1b]0;title\x07\x9b31m\nred\r\xe2\x80\xaeolleh", r"\\x1b\]0;title\\x07.31m red.\\u202eolleh\)"),
    (404, b"no such model", "404 Not Found: no such model"),
    (500, b"", "500"),
])
def test_client_says_what_went_wrong(scripted, status: int, body: bytes, message: str) -> None:
    scripted.status, scripted.body = status, body
    with pytest.raises(CourseError, match=message):
        ask(scripted)


def drip(parts: Iterable[bytes], pause: float = 0.05) -> Iterator[bytes]:
    for part in parts:
        time.sleep(pause)
        yield part


@pytest.mark.parametrize("parts", [(b":",) * 200, (b": ping\n\n",) * 200, (event(None),) * 200,
                                   (event("one"), *(b"x",) * 200)],
                         ids=["bytes", "comments", "events without text", "after a piece"])
def test_a_drip_ends_in_time(scripted, parts: tuple[bytes, ...]) -> None:
    scripted.body = drip(parts)
    begin = time.monotonic()
    with pytest.raises(CourseError, match="nothing to show within 0.5 seconds"):
        list(stream_chat(scripted.address, "m", CHATS["English"], seconds=0.5))
    assert time.monotonic() - begin < 4


def test_a_drip_in_the_head_ends_in_time() -> None:
    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            try:
                for part in drip([b"HTTP/1.1 200 OK\r\nX: ", *(b"x",) * 200]):
                    connection.sendall(part)
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        begin = time.monotonic()
        with pytest.raises(CourseError, match="nothing to show within 0.5 seconds"):
            list(stream_chat(f"http://127.0.0.1:{server.getsockname()[1]}/v1", "m", CHATS["English"], seconds=0.5))
        assert time.monotonic() - begin < 4


def test_a_reader_may_take_its_time(scripted) -> None:
    scripted.body = drip([event("a"), event("b"), event("c", "stop")], pause=0.3)
    pieces = []
    for piece in stream_chat(scripted.address, "m", CHATS["English"], seconds=0.5):
        pieces.append(piece)
        time.sleep(0.6)
    assert pieces == ["a", "b", "c"]


@pytest.mark.parametrize(("address", "messages", "message"), [
    ("127.0.0.1:8000/v1", CHATS["English"], "The address is '127.0.0.1:8000/v1'"),
    ("http://127.0.0.1:9/v1", [], "message"),
    ("http://127.0.0.1:9/v1", [{"role": "user", "content": {1, 2}}], "content"),
    ("http://127.0.0.1:9/v1", [{"role": "user", "content": "a", "name": {1}}], "cannot be written as JSON"),
])
def test_what_cannot_be_asked_is_refused_at_once(address: str, messages: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        stream_chat(address, "m", messages)


@pytest.mark.parametrize(("program", "seconds", "message"), [
    ("print('first'); print('no such option'); raise SystemExit(2)", 30, "ended at once.*no such option"),
    ("import time; print('loading', flush=True); time.sleep(60)", 1, "within 1 seconds.*loading"),
])
def test_server_that_does_not_start(monkeypatch: pytest.MonkeyPatch, program: str, seconds: float,
                                    message: str) -> None:
    started = []
    popen = serving.subprocess.Popen
    monkeypatch.setattr(serving.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    monkeypatch.setattr(serving, "_command", lambda port: [sys.executable, "-c", program])
    monkeypatch.setattr(serving, "missing_for_serving", lambda: [])
    with pytest.raises(CourseError, match=message), chat_server(seconds):
        raise AssertionError("it never came up")
    assert started[0].poll() is not None


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX: signals")
def test_server_that_does_not_want_to_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    monkeypatch.setattr(serving, "_GRACE", 0.3)
    process = serving.subprocess.Popen([sys.executable, "-c", deaf], stdout=serving.subprocess.PIPE,
                                       start_new_session=True)
    assert process.stdout is not None and process.stdout.readline() == b"1\n"
    serving._end(process)
    assert process.poll() == -9
    process.stdout.close()


def test_packages_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_NEEDED", ("json", "no_such_package"))
    assert missing_for_serving() == ["no_such_package"]
    monkeypatch.setattr(serving.importlib.metadata, "version", lambda name: "4.57.0")
    assert missing_for_serving() == ["no_such_package", "transformers 5"]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "missing_for_serving", lambda: ["fastapi", "uvicorn"])
    with pytest.raises(CourseError, match="needs fastapi, uvicorn: run pip install"), chat_server():
        raise AssertionError("it must not start")
