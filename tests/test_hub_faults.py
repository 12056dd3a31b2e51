"""Faults on the way from the hub: each ends in one sentence within a moment, harms nothing, and heals.

A fault is a function that breaks something: the hub's answers, the cache, or the environment. Afterwards nothing
outside the model's own folder has changed, no file that the test had put there is gone, nothing unverified bears the
name of a model's file, and once the fault is over the same call succeeds.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hub_server import LOGIN_PAGE, REPO, HubServer, Reply

from course_utils import hub_requests
from course_utils.errors import CourseError, DownloadError, InputError
from course_utils.file_lock import FileLock
from course_utils.hub import download, resolve
from course_utils.hub_cache import is_loaded

pytestmark = pytest.mark.usefixtures("hub_environment")

LONGEST = 60.0
"""Seconds within which a fault has been told on the slowest machine: that it is told at all is what counts."""
WAITED_FOR = ("silent", "drip", "drip head", "stall")
"""Faults that a limit ends."""


@dataclass
class Scene:
    """What a fault can break.

    Attributes:
        server: the hub.
        cache: folder of the model in the cache.
        patch: undone before the retry.
    """

    server: HubServer
    cache: Path
    patch: pytest.MonkeyPatch


Break = Callable[[Scene], object]
FAULTS: dict[str, tuple[Break, str | None]] = {}
"""Each fault with a pattern of what must be said; None where the download succeeds all the same."""


def broken_listing(change: Callable[[dict[str, Any]], object]) -> Break:
    def break_it(scene: Scene) -> None:
        scene.server.listing = change
    return break_it


def of_weights(**values: Any) -> Break:
    """Other values in the entry of the weights; those of "lfs" where they are named so."""
    def change(listing: dict[str, Any]) -> object:
        entry = next(entry for entry in listing["siblings"] if entry["rfilename"] == "model.safetensors")
        for key, value in values.items():
            (entry["lfs"] if key in ("sha256", "size") else entry)[key] = value
        return listing
    return broken_listing(change)


def of_config(**values: Any) -> Break:
    def change(listing: dict[str, Any]) -> object:
        entry = next(entry for entry in listing["siblings"] if entry["rfilename"] == "config.json")
        entry.update(values)
        return listing
    return broken_listing(change)


def without(*names: str) -> Break:
    def change(listing: dict[str, Any]) -> object:
        return listing | {"siblings": [entry for entry in listing["siblings"] if entry["rfilename"] not in names]}
    return broken_listing(change)


def replied(part: str, fault: str | Reply) -> Break:
    def break_it(scene: Scene) -> None:
        if fault in WAITED_FOR:
            for limit in ("ANSWER_TIMEOUT", "LISTING_LIMIT", "BLOCK_LIMIT"):
                scene.patch.setattr(hub_requests, limit, 0.5 if limit == "ANSWER_TIMEOUT" else 1.0)
        # A reply counts how often it was given: each test has its own.
        scene.server.fault = Reply(**vars(fault)) if isinstance(fault, Reply) else fault
        scene.server.faulty = part
    return break_it


def in_cache(change: Callable[[Path, Path], object]) -> Break:
    """Something wrong in a cache that was complete, which is then asked for the model while the hub is there.

    Args:
        change: is given the model's folder in the cache, and that of the commit.
    """
    def break_it(scene: Scene) -> None:
        change(scene.cache, download(REPO, endpoint=scene.server.endpoint))
    return break_it


def environment(**variables: str) -> Break:
    def break_it(scene: Scene) -> None:
        for name, value in variables.items():
            scene.patch.setenv(name, value)
    return break_it


# What the hub lists

for name in ("../../victim.json", "../../../victim.json", "/victim.json", "..\\victim.json", "C:/victim.json",
             "a/../../victim.json", "a//b.json", "./x.json", "\x1b[2Jx.json", "\x9b2Jx.json", "x\n.json", "x\0.json",
             "\u202egpj.json", "x" * 5000 + ".json", 5, None, [], {}, True, "\ud800.json"):
    FAULTS[f"file named {name!r:.30}"] = (of_config(rfilename=name), "names a file.* as no hub does")
for name in ("..", ".", "", "/", "x.json/", "onnx/config.json", "config.JSON"):
    FAULTS[f"file named {name!r:.30}"] = (of_config(rfilename=name), "without config.json")
for name, pattern in (("x" * 300 + ".json", "as no hub does"), ("a/victim.json", None), ("con.txt", None),
                      ("model.safetensors:stream", None), (".hidden.json", "as no hub does"),
                      ("~/victim.json", "as no hub does"), ("-rf.json", "does not have it"),
                      ("wei ght.json", "as no hub does"), ("模型.json", "as no hub does")):
    FAULTS[f"another file named {name!r:.30}"] = (broken_listing(lambda listing, name=name: listing | {
        "siblings": [*listing["siblings"], {"rfilename": name, "size": 1, "blobId": "0" * 40}]}), pattern)
for name in ("config.json", "Config.json"):
    FAULTS[f"a second {name}"] = (broken_listing(lambda listing, name=name: listing | {
        "siblings": [*listing["siblings"], {"rfilename": name, "size": 1, "blobId": "0" * 40}]}), "twice")
for sha in (None, 5, "", "main", "../../victim", "/tmp", "A" * 40, "g" * 40, "a" * 39, "a" * 40 + "\n", [], {}, True):
    FAULTS[f"commit {sha!r:.30}"] = (broken_listing(lambda listing, sha=sha: listing | {"sha": sha}),
                                     "as no hub does")
for siblings in (5, "config.json", True, [5], ["config.json"], [None], [[]], [{}]):
    FAULTS[f"files {siblings!r}"] = (broken_listing(lambda listing, siblings=siblings: listing | {
        "siblings": siblings}), "something else than the hub would")
for siblings in (None, {}, []):
    FAULTS[f"files {siblings!r}"] = (broken_listing(lambda listing, siblings=siblings: listing | {
        "siblings": siblings}), "no checksum for any file")
for size in ("5", -1, 1.5, True, None, [], float("nan"), float("inf")):
    FAULTS[f"size {size!r}"] = (of_config(size=size), "its size .* as no hub does .'config.json'")
    FAULTS[f"size of the weights {size!r}"] = (of_weights(size=size), "its size .* as no hub does")
FAULTS["size of an exabyte"] = (of_weights(size=10 ** 18), "needs 1000000000.0 GB")
FAULTS["size beyond 64 bits"] = (of_weights(size=10 ** 400), "as no hub does")
for size, pattern in ((0, "more than the 0 bytes"), (100, "more than the 100 bytes"),
                      (10 ** 6, None)):  # what counts is the checksum
    FAULTS[f"size {size}"] = (of_weights(size=size), pattern)
for checksum in (5, None, "", "abc", "../../../victim", "Z" * 64, [], True, "a" * 40 + "\n"):
    pattern = "its size or checksum.* as no hub does" if checksum else "no checksum for "
    FAULTS[f"checksum {checksum!r:.30}"] = (of_config(blobId=checksum), pattern)
    FAULTS[f"checksum of the weights {checksum!r:.30}"] = (of_weights(sha256=checksum), pattern)
for index in (b"{}", b"[]", b'{"weight_map": {}}', b'{"weight_map": {"a": "../../victim.json"}}',
              b'{"weight_map": {"a": 5}}', b'{"weight_map": {"a": []}}', b'{"weight_map": []}', b"[" * 100_000,
              b"\xff"):
    FAULTS[f"index {index[:40]!r}"] = (lambda scene, index=index: (scene.server.files.pop("model.safetensors"),
                                       scene.server.files.update({"model.safetensors.index.json": index})),
                                       "has Qwen/Qwen3-0.6B without ")
FAULTS["checksum of another file"] = (of_weights(sha256="0" * 64), "model.safetensors is damaged")
for name in ("config.json", "tokenizer.json", "model.safetensors"):
    FAULTS[f"without {name}"] = (without(name), f"without {name}: use another mirror")
FAULTS["without generation_config.json"] = (without("generation_config.json"), None)
for content in (b"", b"{", b"null", b"5", b"[]", b'"text"', b"\xff\xfe", b"[" * 100_000, LOGIN_PAGE, b"{}",
                b"x" * 10_000_001, b"NaN"):
    FAULTS[f"listing {content[:12]!r} ({len(content)})"] = (
        broken_listing(lambda listing, content=content: content), "something else than the hub would")

# What the hub answers instead

for part in ("listing", "model.safetensors"):
    for status, pattern in ((400, "status 400"), (401, "asks for a login"), (402, "status 402"),
                            (403, "status 403.*firewall"), (407, "proxy .* asks for a login"), (408, "status 408"),
                            (410, "status 410"), (418, "status 418"), (429, "too many requests.*in some minutes"),
                            (451, "status 451"), (500, "status 500"), (502, "status 502"),
                            (503, "status 503"), (504, "status 504"), (599, "status 599"), (304, "")):
        FAULTS[f"{part}: status {status}"] = (replied(part, Reply(status)), pattern)
    FAULTS[f"{part}: status 204"] = (replied(part, Reply(204)), "")
    FAULTS[f"{part}: status 500 once"] = (replied(part, Reply(500, times=1)), None)
    FAULTS[f"{part}: status 503 once"] = (replied(part, Reply(503, times=1)), None)
    FAULTS[f"{part}: wait an hour"] = (replied(part, Reply(429, {"Retry-After": "3600"})), "again in 3600 seconds")
    FAULTS[f"{part}: wait a minute"] = (replied(part, Reply(429, {"RateLimit": '"api";r=0;t=55'})),
                                        "again in 55 seconds")
    for rest in ("-1", "1e9", "9" * 50, "Wed, 21 Oct 2026 07:28:00 GMT", ""):
        FAULTS[f"{part}: wait {rest:.10}"] = (replied(part, Reply(429, {"Retry-After": rest})), "in some minutes")
    FAULTS[f"{part}: unavailable for an hour"] = (replied(part, Reply(503, {"Retry-After": "3600"})), "status 503")
    FAULTS[f"{part}: gated"] = (replied(part, Reply(403, {"X-Error-Code": "GatedRepo"})), "accepted its terms")
    FAULTS[f"{part}: escape sequences"] = (replied(part, Reply(
        418, {"X-Error-Code": "\x1b[2J", "X-Error-Message": "\x1b[2J"}, b"\x1b[2J")), "")
    FAULTS[f"{part}: escape sequence of one byte"] = (replied(part, Reply(
        418, {"X-Error-Code": "\x9b2J", "X-Error-Message": "\x9b2J"}, b"\x9b2J")), "status 418")
    for place in ("file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x", "http://", "http://[", "http://127.0.0.1:x/",
                  "/api/models/" + REPO + "/revision/main", "", "http://127.0.0.1:9/"):
        FAULTS[f"{part}: sent on to {place!r:.30}"] = (replied(part, Reply(302, {"Location": place})), "")
    FAULTS[f"{part}: sent on to itself"] = (replied(part, Reply(302, {"Location": "?again"})), "")
    for fault, pattern in (("silent", "timed out|nothing came"), ("drip", "nothing came"),
                           ("drip head", "nothing came"), ("noise", "not HTTP"), ("hang up", "disconnected")):
        FAULTS[f"{part}: {fault}"] = (replied(part, fault), pattern)
FAULTS["listing: expired token"] = (lambda scene: (scene.patch.setenv("HF_TOKEN", "hf_old"), replied(
    "listing", Reply(401))(scene)), "does not accept the token in HF_TOKEN")
FAULTS["file: expired token"] = (lambda scene: (scene.patch.setenv("HF_TOKEN", "hf_old"), replied(
    "config.json", Reply(401))(scene)), "does not accept the token in HF_TOKEN")
FAULTS["listing: status 404"] = (replied("listing", Reply(404)), "does not have the model")
FAULTS["listing: no such revision"] = (replied("listing", Reply(404, {"X-Error-Code": "RevisionNotFound"})),
                                       "has no revision 'main'")
FAULTS["listing: login page"] = (replied("listing", Reply(200, body=LOGIN_PAGE)), "login page of a network")
FAULTS["file: status 404"] = (replied("model.safetensors", Reply(404)), "lists model.safetensors .* does not have it")
FAULTS["all: portal"] = (replied("", "portal"), "login page of a network")
FAULTS["all: down"] = (replied("", "down"), "cannot be reached .status 503")
for fault, pattern in (("gated", "accepted its terms"), ("cut", "broke off"), ("drop", None),
                       ("flip", "damaged or cut short"), ("html", "HTML page.*a proxy may be answering"),
                       ("pointer", "git-LFS pointer"), ("stall", "broke off"), ("endless", "broke off"),
                       ("chunked html", "a proxy may be answering"), ("no ranges", None), ("wrong range", None)):
    FAULTS[f"file: {fault}"] = (replied("model.safetensors", fault), pattern)
    FAULTS[f"small file: {fault}"] = (replied("config.json", fault), pattern)


def with_header(name: str, value: str) -> Break:
    """The right content, with a header that one could make a path of, or print."""
    return lambda scene: replied("model.safetensors", Reply(
        200, {name: value}, scene.server.files["model.safetensors"]))(scene)


for header in ("ETag", "X-Linked-Etag", "X-Repo-Commit", "Content-Disposition"):
    for value in ('"../../../victim.json"', '"/victim.json"', 'filename="..\\victim.json";', "", "x" * 200):
        FAULTS[f"{header}: {value:.30}"] = (with_header(header, value), None)
FAULTS["warning with an escape sequence"] = (with_header("X-HF-Warning", "\x9b2J"), None)

# What stands in the environment

for address in ("file:///etc", "huggingface.co", "http://", "http://a b", "https://user:secret@127.0.0.1", "http://[x",
                "http://127.0.0.1:99999999", "http://\x1b[2J", "http://x\n.com", "ftp://x"):
    FAULTS[f"HF_ENDPOINT {address!r}"] = (environment(HF_ENDPOINT=address), "not a web address")
FAULTS["HF_ENDPOINT unknown"] = (environment(HF_ENDPOINT="http://no-such-host.invalid"), "no DNS")
FAULTS["HF_ENDPOINT with a label too long"] = (environment(HF_ENDPOINT=f"http://{'a' * 70}.invalid"),
                                               "HF_ENDPOINT")
for token in ("hf a", "hf\nb", "hf\x1b", "hf\u00e9", "\u4f60"):
    FAULTS[f"HF_TOKEN {token!r}"] = (environment(HF_TOKEN=token), "HF_TOKEN holds a space")
for token in ("hf_a\n", " hf_a ", "\r\n", ""):
    FAULTS[f"HF_TOKEN {token!r}"] = (environment(HF_TOKEN=token), None)
for value in ("1", "true", "YES", "on", " 1 "):
    FAULTS[f"HF_HUB_OFFLINE {value!r}"] = (environment(HF_HUB_OFFLINE=value), "HF_HUB_OFFLINE forbids")
for value in ("0", "no", "", "false"):
    FAULTS[f"HF_HUB_OFFLINE {value!r}"] = (environment(HF_HUB_OFFLINE=value), None)
FAULTS["SOCKS proxy"] = (environment(HTTP_PROXY="socks5://127.0.0.1:1", http_proxy="socks5://127.0.0.1:1",
                                     NO_PROXY="", no_proxy=""), "SOCKS proxy")
FAULTS["proxy that is not there"] = (environment(HTTP_PROXY="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9",
                                                 NO_PROXY="", no_proxy=""),
                                      "cannot be reached.*and its proxy .HTTP_PROXY")
FAULTS["HF_HOME below a file"] = (environment(HF_HUB_CACHE="/dev/null/hub"), "cannot be used.*HF_HOME")
FAULTS["HF_HOME too long"] = (environment(HF_HUB_CACHE="/" + "x" * 5000), "cannot be used.*HF_HOME")

# What is in the cache


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    """Put something else in the place of a file or folder, which is kept under another name."""
    if os.path.lexists(path):
        path.rename(path.with_name(f"{path.name}.was"))
    make(path)


def loop(path: Path) -> None:
    path.symlink_to(path)


for what, make in (("empty", lambda path: path.write_bytes(b"")),
                   ("binary", lambda path: path.write_bytes(b"\xff\xfe")),
                   ("a list", lambda path: path.write_text("[1]")), ("a number", lambda path: path.write_text("1")),
                   ("nested", lambda path: path.write_text("[" * 100_000)),
                   ("a foreign name", lambda path: path.write_text('{"../../../victim.json": {"checksum": "0"}}')),
                   ("a null", lambda path: path.write_text('{"config.json": null}')),
                   ("a number for a checksum", lambda path: path.write_text('{"config.json": {"checksum": 5}}')),
                   ("only a part", lambda path: path.write_text(json.dumps(
                       {"config.json": {"checksum": "0" * 40, "size": 1, "mtime_ns": 1}}))),
                   ("a folder", Path.mkdir), ("a loop", loop)):
    if what != "only a part":
        FAULTS[f"record: {what}"] = (in_cache(lambda cache, folder, make=make: replaced(
            cache / "verified" / f"{folder.name}.json", make)), None)
    FAULTS[f"branch: {what}"] = (in_cache(lambda cache, folder, make=make: replaced(
        cache / "refs" / "main", make)), None)
    if what != "a folder":
        FAULTS[f"weights in the cache: {what}"] = (in_cache(lambda cache, folder, make=make: replaced(
            folder / "model.safetensors", make)), "left alone: remove the file" if what != "a loop" else None)
for name in ("refs", "verified"):
    FAULTS[f"{name} is a file"] = (in_cache(lambda cache, folder, name=name: replaced(
        cache / name, Path.touch)), None)
FAULTS["record gone"] = (in_cache(lambda cache, folder: shutil.rmtree(cache / "verified")), None)
FAULTS["branch gone"] = (in_cache(lambda cache, folder: shutil.rmtree(cache / "refs")), None)
FAULTS["contents gone"] = (in_cache(lambda cache, folder: shutil.rmtree(cache / "blobs")), None)
FAULTS["names gone"] = (in_cache(lambda cache, folder: shutil.rmtree(cache / "snapshots")), None)
FAULTS["content damaged"] = (in_cache(lambda cache, folder: (folder / "config.json").write_text("x")),
                             "config.json is damaged.*deleted, so run this again")
FAULTS["content damaged, name gone"] = (in_cache(lambda cache, folder: (
    (folder / "config.json").write_text("x"), (folder / "config.json").unlink())), None)
FAULTS["a mirror's list of another program"] = (in_cache(lambda cache, folder: (
    (cache / "trees").mkdir(), (cache / "trees" / f"{folder.name}.json").write_text("poison"))), None)


def refusing(function: str) -> Break:
    """A cache with a damaged file, where something may not be done."""
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(args[0]))

    def break_it(scene: Scene) -> None:
        (download(REPO) / "config.json").write_text("x")
        scene.patch.setattr(function, refuse)
    return break_it


FAULTS["content damaged, read-only"] = (refusing("course_utils.hub_cache.Path.unlink"), "cannot be deleted.*HF_HOME")
FAULTS["content unreadable"] = (refusing("course_utils.hub_cache.checksum_of"), "Permission denied.*HF_HOME")


@pytest.fixture
def scene(hub_files: dict[str, bytes], hub_environment: Path, tmp_path: Path) -> Iterator[Scene]:
    (tmp_path / "victim.json").write_text("mine")
    hub_environment.mkdir()
    (hub_environment / "victim.json").write_text("mine")
    with HubServer(REPO, dict(hub_files)) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server.endpoint)
        yield Scene(server, hub_environment / "models--Qwen--Qwen3-0.6B", patch)


def content_outside(scene: Scene) -> dict[str, bytes]:
    """All files below the test's folder that are not in the model's."""
    top = scene.cache.parent.parent
    return {str(path): path.read_bytes() for path in top.rglob("*")
            if path.is_file() and scene.cache not in path.parents}


def content_inside(scene: Scene) -> set[bytes]:
    """What lies in the model's folder, but for notes."""
    return {path.read_bytes() for path in scene.cache.rglob("*") if path.is_file() and not path.is_symlink()
            and path.relative_to(scene.cache).parts[0] not in ("verified", "refs")}


def no_file_is_unverified(scene: Scene) -> bool:
    published = {name: content for name, content in scene.server.files.items() if is_loaded(name)}
    return all(path.read_bytes() == published[path.name]
               for path in scene.cache.glob(f"snapshots/{scene.server.commit}/*")
               if is_loaded(path.name) and path.is_file())


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name: str, scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    break_it, pattern = FAULTS[name]
    whole = dict(scene.server.files)
    break_it(scene)
    outside, inside = content_outside(scene), content_inside(scene)
    begin, said = time.monotonic(), None
    try:
        download(REPO)
    except CourseError as error:
        said = str(error)
    assert time.monotonic() - begin < LONGEST
    if pattern is None:
        assert said is None
    else:
        assert said is not None and re.search(pattern, said), said
        assert said.isprintable() and len(said) < 700
    assert "\x1b" not in capsys.readouterr().err
    assert content_outside(scene) == outside
    assert inside <= content_inside(scene) or name.startswith("content damaged")
    if not name.startswith(("content", "weights in the cache")):  # what others have put there is as they left it
        assert no_file_is_unverified(scene)
    scene.server.fault = scene.server.listing = None
    scene.server.files = whole
    scene.patch.undo()
    if told := re.search(r"remove the (?:link|file) '(.+?)'", said or ""):
        Path(told[1]).unlink()
    with suppress(DownloadError) if name.startswith("content") else nullcontext():
        download(REPO, endpoint=scene.server.endpoint)  # which finds and deletes what the first try could not
    folder = download(REPO, endpoint=scene.server.endpoint)
    assert no_file_is_unverified(scene) and (folder / "model.safetensors").is_file()
    assert content_outside(scene) == outside
    if name not in ("refs is a file", "branch: a folder"):  # where it cannot be noted, the hub is asked each time
        scene.patch.setenv("HF_HUB_OFFLINE", "1")
        assert resolve(REPO) == folder


# Names and revisions that are none

NAMES = ["", " ", "\n", "~nosuch/x", "x" * 5000, "qwen3-0.6b\0", "\0", "a/" * 3000, "\x1b[2J", "\x9b", "\ud800",
         "../nowhere", "qwen3-0.6b\n", "Qwen/", "/dev/null", 5, None, b"tiny", [], 1.5, True]
REVISIONS = ["", "../../victim", "a/../b", "/main", "main/", "a\\b", "x" * 300, "a\0b", "\x1b[2J", "a b", "\n",
             "main\n", "refs//x", ".hidden", "-rf", "a..b", "主", 5, b"main", "a/.b"]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: f"{name!r:.20}")
def test_name(name: Any) -> None:
    for find in (resolve, download):
        with pytest.raises(InputError, match="There is no model and no folder|The model is .*give the name") as info:
            find(name)
        assert str(info.value).isprintable() and len(str(info.value)) < 700


@pytest.mark.parametrize("revision", REVISIONS, ids=lambda name: f"{name!r:.20}")
def test_revision(revision: Any, scene: Scene) -> None:
    with pytest.raises(InputError, match="cannot be the name of a branch") as info:
        download(REPO, revision=revision)
    assert str(info.value).isprintable() and not scene.server.requests and not scene.cache.exists()


def test_folder_at_hand_is_hinted_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "Qwen3-0.6B"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hint = re.escape(f"folder of this name: to use it, give its path, {os.path.join('.', 'Qwen3-0.6B')!r}")
    for name in ("qwen3-0.6b", "Qwen3-0.6B", REPO):
        with pytest.raises(DownloadError, match=hint):
            resolve(name)
    assert resolve("./Qwen3-0.6B") == Path("Qwen3-0.6B")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(DownloadError, match=hint):
            resolve("qwen3-0.6b")


# Interruptions

GOES_ON: dict[str, Callable[[Scene, Path], object]] = {
    "as it was": lambda scene, partial: None,
    "with a hub that knows no ranges": lambda scene, partial: replied("model.safetensors", "no ranges")(scene),
    "with another range": lambda scene, partial: replied("model.safetensors", "wrong range")(scene),
    "with no such range": lambda scene, partial: replied("model.safetensors", Reply(416, times=1))(scene),
    "with a connection that drops": lambda scene, partial: replied("model.safetensors", "drop")(scene),
    "with a hub in trouble": lambda scene, partial: replied("model.safetensors", Reply(503, times=1))(scene),
    "from something else": lambda scene, partial: partial.write_bytes(b"x" * partial.stat().st_size),
    "from nothing": lambda scene, partial: partial.write_bytes(b""),
    "from all": lambda scene, partial: partial.write_bytes(scene.server.files["model.safetensors"]),
    "from all of something else": lambda scene, partial: partial.write_bytes(
        b"x" * len(scene.server.files["model.safetensors"])),
    "from too much": lambda scene, partial: partial.write_bytes(b"x" * 1_000_000),
    "from a file that is gone": lambda scene, partial: partial.unlink(),
}


@pytest.mark.parametrize("how", GOES_ON)
def test_interrupted_download_goes_on(how: str, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1024)
    replied("model.safetensors", "cut")(scene)
    with pytest.raises(DownloadError, match="broke off.*run this again, and it goes on where it stopped"):
        download(REPO)
    (partial,) = scene.cache.glob("blobs/*.partial")
    whole, there = scene.server.files["model.safetensors"], partial.stat().st_size
    assert 0 < there < len(whole) and whole.startswith(partial.read_bytes())
    scene.server.fault = None
    GOES_ON[how](scene, partial)
    scene.server.ranges.clear()
    scene.server.requests.clear()
    folder = download(REPO)
    assert (folder / "model.safetensors").read_bytes() == whole
    assert not list(scene.cache.glob("blobs/*.partial"))
    if how == "as it was":
        assert scene.server.ranges == [there]
    if how == "from all":
        assert not any(path.endswith("model.safetensors") for _, path, _ in scene.server.requests)


def test_two_downloads_of_one_model_do_not_mix(scene: Scene) -> None:
    scene.cache.mkdir()
    with FileLock(scene.cache / "downloading.lock"):
        with pytest.raises(DownloadError, match="Another program is downloading.*wait until it has ended"):
            download(REPO)
    assert (download(REPO) / "model.safetensors").is_file()


def test_a_library_without_what_downloads_is_named(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("huggingface_hub.file_download.http_get")
    with pytest.raises(DownloadError, match="no http_get any more.*install an older one"):
        download(REPO)


# The environment


@pytest.mark.parametrize("seconds, timeout", [("7", 7), (" 70\n", 70), ("", 10), ("0", 10), ("-1", 10), ("x", 10)])
def test_seconds_of_silence(seconds: str, timeout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", seconds)
    assert hub_requests.answer_timeout() == timeout


def test_environment_is_read_when_it_is_needed(scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # as it was when the library was imported
    monkeypatch.setenv("HF_TOKEN", "hf_one")
    assert scene.cache in download(REPO).parents
    monkeypatch.setenv("HF_TOKEN", "hf_two")
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "elsewhere"))
    assert tmp_path / "elsewhere" / "hub" in download(REPO).parents
    assert {token for *_, token in scene.server.requests} == {"Bearer hf_one", "Bearer hf_two"}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to sign a certificate")
def test_certificate_that_nobody_signed(hub_files: dict[str, bytes], tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    pair = tmp_path / "pair.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pair, "-out", tmp_path / "own.pem"],
                   check=True, capture_output=True)
    pair.write_text(pair.read_text() + (tmp_path / "own.pem").read_text())
    with HubServer(REPO, dict(hub_files), certificate=pair) as server:
        with pytest.raises(DownloadError, match="signed by nobody.*self.signed certificate.*set SSL_CERT_FILE"):
            download(REPO, endpoint=server.endpoint)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
        folder = download(REPO, endpoint=server.endpoint)
    assert (folder / "model.safetensors").is_file()


def test_waiting_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    replied("listing", "silent")(scene)
    with pytest.raises(DownloadError):
        download(REPO)
    assert f"Waiting for the list of files of {REPO}" in capsys.readouterr().err


def test_count(record_property: Callable[[str, object], None]) -> None:
    count = sum(map(len, (FAULTS, NAMES, REVISIONS, GOES_ON)))
    record_property("injected faults of the hub", count)
    assert count >= 200
