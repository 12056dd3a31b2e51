"""A model hub on 127.0.0.1: the part of the hub's protocol that a download uses, with faults on demand.

It answers what `huggingface_hub` asks: a model's commit and files with their checksums, the listing of a
commit, and each file (HEAD, GET, byte ranges, ETag, and the X-Repo-Commit and X-Linked-* headers).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LOGIN_PAGE = b"<!DOCTYPE html><html><body>Please log in to this network.</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234567890\n"


@dataclass
class HubServer:
    """A hub with one model; use as a context manager.

    Args:
        repo_id: name of the model.
        files: its files on the main branch. Those that end in .safetensors are stored the way of large files.

    Attributes:
        fault: what goes wrong: one of the names in `_Handler`, or None.
        faulty: the file with which it goes wrong.
        in_the_middle: called when half of the faulty file has been sent, with the fault "stall".
        requests: each request so far, as (method, path, token or None).
        ranges: where each answer began that was not a whole file, in bytes.
    """

    repo_id: str
    files: dict[str, bytes]
    fault: str | None = None
    faulty: str = "model.safetensors"
    in_the_middle: Callable[[], None] = lambda: None
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    ranges: list[int] = field(default_factory=list)

    def __enter__(self) -> HubServer:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def commit(self) -> str:
        """Changes with the content, as a commit does."""
        content = b"".join(name.encode() + content for name, content in sorted(self.files.items()))
        return hashlib.sha1(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection. Faults:

    down: every request fails with status 503.      portal: every request is answered with a login page.
    gated: files are given only to the accepted.    cut: a file ends after its half, however often one asks.
    drop: the first answer ends after its half.     flip: one bit of a file is wrong.
    html: a login page instead of a file.           pointer: a git-LFS pointer instead of a file.
    stall: half of a file, then nothing more.       unsigned: no checksums are published.
    """

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    @property
    def hub(self) -> HubServer:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

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
            self._send_listing(kind, revision)
        elif path.startswith(resolve):
            revision, _, name = path[len(resolve):].partition("/")
            self._send_file(revision, name)
        else:
            self._refuse(401, "RepoNotFound")

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
        self._send(json.dumps(listing).encode(), {"Content-Type": "application/json"})

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
            self._send(content, headers, stop=half)
            self.hub.in_the_middle()
            self.rfile.read(1)  # until the other side hangs up
        else:
            self._send(content, headers, start)

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
