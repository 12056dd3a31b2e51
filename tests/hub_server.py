"""A model hub on 127.0.0.1: the part of the hub's protocol that a download uses, with faults on demand.

It answers what `huggingface_hub` asks: a model's commit and files with their checksums, the listing
of a commit, and each file (HEAD, GET, byte ranges, ETag, and the X-Repo-Commit and X-Linked-* headers).
"""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from course_utils.config import Qwen3Config

REPO = "Qwen/Qwen3-0.6B"
CONFIG = Qwen3Config(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                     num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=64)
"""Of the model whose files the fixture `hub_files` has."""
LOGIN_PAGE = b"<!DOCTYPE html><html><body>Please log in to this network.</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234567890\n"


@dataclass
class Reply:
    """An answer in place of the right one.

    Args:
        status: of HTTP.
        headers: beside Content-Length.
        body: content.
        times: how often; None is always.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    times: int | None = None


@dataclass
class HubServer:
    """A hub with one model; use as a context manager.

    Args:
        repo_id: name of the model.
        files: its files on the main branch. Those that end in .safetensors are stored the way of large files.
        certificate: file with key and certificate, if the hub is to speak HTTPS.

    Attributes:
        fault: what goes wrong: one of the names in `_Handler`, a `Reply`, or None.
        faulty: the file with which it goes wrong; "listing" is the list of files.
        listing: turns the list of files into what is sent instead, as JSON or as bytes.
        in_the_middle: called when half of the faulty file has been sent, with the fault "stall".
        requests: each request so far, as (method, path, token or None).
        ranges: where each answer began that was not a whole file, in bytes.
    """

    repo_id: str
    files: dict[str, bytes]
    certificate: Path | None = None
    fault: str | Reply | None = None
    faulty: str = "model.safetensors"
    listing: Callable[[dict[str, Any]], object] | None = None
    in_the_middle: Callable[[], None] = lambda: None
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    ranges: list[int] = field(default_factory=list)

    def __enter__(self) -> HubServer:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self  # type: ignore[attr-defined]
        self.closing = threading.Event()
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        scheme = "http" if self.certificate is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.server_address[1]}"

    @property
    def commit(self) -> str:
        """Changes with the content, as a commit does."""
        content = b"".join(name.encode() + content for name, content in sorted(self.files.items()))
        return hashlib.sha1(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection. Faults of everything:

    down: every request fails with status 503.      portal: every request is answered with a login page.

    Faults of the list of files, or of one file:

    silent: no answer.                              drip: half of the content, then a byte now and then.
    drip head: the same with the headers.           noise: something that is not HTTP.
    hang up: the connection is closed.

    Faults of a file:

    gated: files are given only to the accepted.    cut: a file ends after its half, however often one asks.
    drop: the first answer ends after its half.     flip: one bit of a file is wrong.
    html: a login page instead of a file.           pointer: a git-LFS pointer instead of a file.
    stall: half of a file, then nothing more.       unsigned: no checksums are published.
    endless: more than was announced.               chunked html: a login page of unknown length.
    no ranges: always the whole file.               wrong range: another part than was asked for.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms, for its head and its body are sent apart

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    @property
    def hub(self) -> HubServer:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, ssl.SSLError):  # the other side has had enough
            pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Authorization")))
        api, resolve = f"/api/models/{self.hub.repo_id}/", f"/{self.hub.repo_id}/resolve/"
        if self.hub.fault == "down":
            self._refuse(503, None)
        elif self.hub.fault == "portal":
            self._send(LOGIN_PAGE, {"Content-Type": "text/html"})
        elif path.startswith(api):
            kind, _, revision = path[len(api):].partition("/")
            if not self._goes_wrong("listing"):
                self._send_listing(kind, revision)
        elif path.startswith(resolve):
            revision, _, name = path[len(resolve):].partition("/")
            if not self._goes_wrong(name):
                self._send_file(revision, name)
        else:
            self._refuse(401, "RepoNotFound")

    def _goes_wrong(self, part: str) -> bool:
        """Answer with the fault if this part has one that may befall any; False if it has none."""
        fault = self.hub.fault if part == self.hub.faulty else None
        if isinstance(fault, Reply):
            if fault.times is not None:
                fault.times -= 1
                self.hub.fault = fault if fault.times > 0 else None
            self.send_response(fault.status)
            for name, value in fault.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(fault.body)))
            self.end_headers()
            self.wfile.write(fault.body)
        elif fault == "silent":
            self.hub.closing.wait(30)
        elif fault == "drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self._length_of(part))
            self._drip(b"{" * self._length_of(part))
        elif fault == "drip head":
            self._drip(b"HTTP/1.1 200 OK\r\n" + b"X-Filler: x\r\n" * 50)
        elif fault == "noise":
            self.wfile.write(b"\x15\x03\x01 this is not HTTP\r\n\r\n")
        elif fault != "hang up":
            return False
        self.close_connection = not isinstance(fault, Reply)
        return True

    def _length_of(self, part: str) -> int:
        return 100_000 if part == "listing" else len(self.hub.files[part])

    def _drip(self, content: bytes) -> None:
        self.wfile.write(content[:10])
        for byte in content[10:]:
            if self.hub.closing.is_set():
                return
            time.sleep(0.05)
            self.wfile.write(bytes([byte]))

    def _send_listing(self, kind: str, revision: str) -> None:
        if revision not in ("main", self.hub.commit):
            return self._refuse(404, "RevisionNotFound")
        if kind == "tree":
            listing: object = [self._entry(name, "path", "oid", "oid") | {"type": "file"}
                               for name in self.hub.files]
        else:
            listing = {"id": self.hub.repo_id, "sha": self.hub.commit,
                       "siblings": [self._entry(name, "rfilename", "blobId", "sha256")
                                    for name in self.hub.files]}
            if self.hub.listing is not None:
                listing = self.hub.listing(listing)
        content = listing if isinstance(listing, bytes) else json.dumps(listing).encode()
        self._send(content, {"Content-Type": "application/json"})

    def _entry(self, name: str, name_key: str, blob_key: str, sha_key: str) -> dict[str, object]:
        content = self.hub.files[name]
        entry: dict[str, object] = {name_key: name, "size": len(content)}
        if self.hub.fault == "unsigned":
            return entry
        entry[blob_key] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if name.endswith(".safetensors"):
            entry["lfs"] = {sha_key: hashlib.sha256(content).hexdigest(), "size": len(content),
                            "pointerSize": 130}
        return entry

    def _send_file(self, revision: str, name: str) -> None:
        if revision not in ("main", self.hub.commit) or name not in self.hub.files:
            return self._refuse(404, "EntryNotFound")
        fault = self.hub.fault if name == self.hub.faulty else None
        if fault == "gated":
            return self._refuse(403, "GatedRepo")
        content = POINTER if fault == "pointer" else self.hub.files[name]
        entry = self._entry(name, "path", "oid", "oid")
        lfs = entry.get("lfs")
        headers = {"X-Repo-Commit": self.hub.commit, "ETag": f'"{entry["oid"]}"'}
        if isinstance(lfs, dict):
            headers |= {"X-Linked-Etag": f'"{lfs["oid"]}"', "X-Linked-Size": str(len(content))}
        if self.command == "HEAD":
            return self._send(content, headers)
        if fault == "html":
            return self._send(LOGIN_PAGE, headers)
        if fault == "flip":
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        half = len(content) // 2
        if fault == "cut":
            self._send(content, headers, start, stop=max(start, half))
        elif fault == "drop":
            self.hub.fault = None
            self._send(content, headers, stop=half)
        elif fault == "stall":
            self._send(content, headers, start, stop=max(start, half))
            self.hub.in_the_middle()
            self.hub.closing.wait(30)
        elif fault in ("endless", "chunked html"):
            self._send_chunked(LOGIN_PAGE if fault == "chunked html" else content + b"more")
        elif fault == "no ranges":
            self._send(content, headers)
        elif fault == "wrong range":
            self._send(content, headers, max(start - 1, 0))
        else:
            self._send(content, headers, start)

    def _send_chunked(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content))

    def _send(self, content: bytes, headers: dict[str, str], start: int = 0, stop: int | None = None) -> None:
        """Send content from `start`; with `stop`, promise all of it, send up to there and hang up."""
        self.send_response(206 if start else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        if start:
            self.hub.ranges.append(start)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[start:stop])
            self.wfile.flush()
        if stop is not None:
            self.close_connection = True

    def _refuse(self, status: int, code: str | None) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
