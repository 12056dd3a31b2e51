"""Names to folders, and downloads from a hub on this machine with every fault that a network can have."""

from __future__ import annotations

import contextlib
import errno
import json
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import huggingface_hub
import pytest
from hub_server import CONFIG, REPO, HubServer

from course_utils import hub, hub_cache
from course_utils.checkpoint import load_checkpoint
from course_utils.errors import CheckpointError, DownloadError, InputError
from course_utils.family import FAMILY, SHORT_NAMES, find_repo_id
from course_utils.hub import download, resolve

pytestmark = pytest.mark.usefixtures("hub_environment")


@pytest.fixture
def cache(hub_environment: Path) -> Path:
    return hub_environment


@pytest.fixture
def files(hub_files: dict[str, bytes]) -> dict[str, bytes]:
    return hub_files


@pytest.fixture
def server(files: dict[str, bytes]) -> Iterator[HubServer]:
    with HubServer(REPO, dict(files)) as running:
        yield running


def leftovers(cache: Path) -> list[Path]:
    """What of the weights is in the cache: parts, or links that lead to something."""
    return [path for path in cache.rglob("*") if path.name.endswith(".incomplete") or
            path.name == "model.safetensors"] if cache.exists() else []


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


# Names


def test_family_has_eleven_models_of_the_published_sizes() -> None:
    published = {"0.6B": 596_049_920, "1.7B": 1_720_574_976, "4B": 4_022_468_096, "8B": 8_190_735_360,
                 "14B": 14_768_307_200, "32B": 32_762_123_264}
    assert len(FAMILY) == len(SHORT_NAMES) == 11 and "Qwen/Qwen3-32B-Base" not in FAMILY
    for repo_id, config in FAMILY.items():
        # Counted without a module tree, which would take seconds for 64 layers.
        queries, keys = (config.head_dim * heads
                         for heads in (config.num_attention_heads, config.num_key_value_heads))
        columns = 2 * queries + 2 * keys + 3 * config.intermediate_size + 2  # with both layer norms
        layer = config.hidden_size * columns + 2 * config.head_dim
        matrices = 1 if config.tie_word_embeddings else 2
        count = (config.num_hidden_layers * layer + config.hidden_size
                 + matrices * config.vocab_size * config.hidden_size)
        assert count == published[repo_id.split("-")[1]], repo_id
        assert config.max_position_embeddings == (32_768 if repo_id.endswith("-Base") else 40_960)


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B-Base", "qwen3-0.6b-base", "QWEN3-0.6B-BASE"])
def test_names_are_understood_in_any_case(name: str) -> None:
    assert find_repo_id(name) == "Qwen/Qwen3-0.6B-Base"


@pytest.mark.parametrize("name, meant", [("qwen3-0.6", "qwen3-0.6b"), ("tinny", "tiny"),
                                         ("Qwen/Qwen3-8", "qwen3-8b")])
def test_unknown_name_lists_what_there_is(name: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"no folder '{name}'. Did you mean '{meant}'.*nano.*qwen3-32b"):
        resolve(name)


def test_unknown_name_is_not_downloaded() -> None:
    with pytest.raises(InputError, match="no model and no folder 'gpt2'"):
        download("gpt2")


def test_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert resolve(tmp_path) == tmp_path == resolve(str(tmp_path))


def test_bundled_models_are_found_in_wheel_and_checkout(tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "course_utils"
    monkeypatch.setattr(hub, "__file__", str(package / "hub.py"))
    with pytest.raises(CheckpointError, match="'tiny' is missing from this installation"):
        resolve("tiny")
    for data in (tmp_path / "data", package / "data"):  # the package's own goes first
        (data / "tiny").mkdir(parents=True)
        assert resolve("Tiny") == data / "tiny"


# Downloads that go well


def test_download_is_complete_verified_and_selective(server: HubServer, files: dict[str, bytes]) -> None:
    folder = download("qwen3-0.6b", endpoint=server.endpoint)
    wanted = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    fetched = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert fetched == {name: files[name] for name in wanted}
    assert folder.name == server.commit
    assert load_checkpoint(folder).config == CONFIG
    record = json.loads((folder.parent.parent / "verified" / f"{server.commit}.json").read_text())
    assert set(record) == wanted and len(record["model.safetensors"]["checksum"]) == 64


def test_second_download_asks_but_reads_nothing_again(server: HubServer,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    folder = download(REPO, endpoint=server.endpoint)
    server.requests.clear()
    monkeypatch.setattr(hub_cache, "checksum_of", lambda *args, **kwargs: pytest.fail("compared again"))
    assert download(REPO, endpoint=server.endpoint) == folder
    assert all(path.startswith("/api/") for _, path, _ in server.requests)


def test_new_commit_is_fetched(server: HubServer) -> None:
    first = download(REPO, endpoint=server.endpoint)
    server.files["generation_config.json"] = b'{"eos_token_id": 1}'
    second = download(REPO, endpoint=server.endpoint)
    assert second != first and (second / "generation_config.json").read_bytes() == b'{"eos_token_id": 1}'
    assert download(REPO, revision=server.commit, endpoint=server.endpoint) == second


def test_resolve_makes_no_request_for_a_model_that_is_here(server: HubServer) -> None:
    folder = download(REPO, endpoint=server.endpoint)
    server.requests.clear()
    assert resolve("qwen3-0.6b") == folder and not server.requests


def test_resolve_downloads_from_the_mirror_of_the_environment(server: HubServer,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f" {server.endpoint}/\n")
    assert resolve("qwen3-0.6b").name == server.commit


def test_dropped_connection_resumes(server: HubServer, files: dict[str, bytes],
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    server.fault = "drop"
    folder = download(REPO, endpoint=server.endpoint)
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert server.ranges and server.ranges[0] > 0


def test_token_is_sent_only_if_set_in_the_environment(server: HubServer, monkeypatch: pytest.MonkeyPatch,
                                                      tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_from_an_earlier_login")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    download(REPO, endpoint=server.endpoint)
    assert {token for *_, token in server.requests} == {None}
    monkeypatch.setenv("HF_TOKEN", "hf_mine\n")  # as from a file
    download(REPO, endpoint=server.endpoint)
    assert server.requests[-1][2] == "Bearer hf_mine"


# Without a network


@pytest.mark.parametrize("how", ["offline", "closed", "down", "portal"])
def test_complete_copy_works_without_the_hub(server: HubServer, how: str,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    folder = download(REPO, endpoint=server.endpoint)
    if how == "offline":
        go_offline(monkeypatch)
    server.fault = how
    assert download(REPO, endpoint=closed_port() if how == "closed" else server.endpoint) == folder
    assert resolve(REPO) == folder


@pytest.mark.parametrize("how, message", [
    ("offline", "HF_HUB_OFFLINE forbids.*unset HF_HUB_OFFLINE, or use the bundled model 'tiny'"),
    ("closed", "cannot be reached.*check the network, set HF_ENDPOINT to a mirror"),
    ("down", "cannot be reached.*503.*check the network"),
    ("portal", "something else than the hub would.*login page.*correct HF_ENDPOINT"),
])
def test_nothing_here_and_no_hub(server: HubServer, how: str, message: str, monkeypatch: pytest.MonkeyPatch,
                                 cache: Path) -> None:
    if how == "offline":
        go_offline(monkeypatch)
    server.fault = how
    with pytest.raises(DownloadError, match=message):
        download(REPO, endpoint=closed_port() if how == "closed" else server.endpoint)
    assert not leftovers(cache)


def test_copy_of_another_program_is_verified_by_blob_names(server: HubServer, cache: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    patterns = ["*.json", "*.safetensors"]
    folder = Path(huggingface_hub.snapshot_download(REPO, endpoint=server.endpoint, allow_patterns=patterns,
                                                    cache_dir=cache))
    go_offline(monkeypatch)
    assert resolve(REPO) == folder
    weights = (folder / "model.safetensors").resolve()
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.raises(DownloadError, match="model.safetensors is damaged.*deleted"):
        resolve(REPO)


def test_incomplete_copy_is_not_used_offline(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = download(REPO, endpoint=server.endpoint)
    (folder / "tokenizer.json").unlink()
    go_offline(monkeypatch)
    with pytest.raises(DownloadError, match="not complete on this machine"):
        resolve(REPO)


# What the hub refuses


def test_no_such_model(server: HubServer) -> None:
    with pytest.raises(DownloadError, match="does not have the model Qwen/Qwen3-8B: check the address"):
        download("qwen3-8b", endpoint=server.endpoint)


def test_no_such_revision(server: HubServer) -> None:
    with pytest.raises(DownloadError, match="no revision 'v9'.*leave it out"):
        download(REPO, revision="v9", endpoint=server.endpoint)


def test_gated_model(server: HubServer, cache: Path) -> None:
    server.fault = "gated"
    with pytest.raises(DownloadError, match="accepted its terms.*set HF_TOKEN"):
        download(REPO, endpoint=server.endpoint)
    assert not leftovers(cache)


def test_hub_without_checksums_is_not_trusted(server: HubServer, cache: Path) -> None:
    server.fault = "unsigned"
    with pytest.raises(DownloadError, match="no checksum for config.json.*another mirror"):
        download(REPO, endpoint=server.endpoint)
    assert not leftovers(cache)


# What goes wrong on the way


@pytest.mark.parametrize("fault, message", [
    ("cut", "broke off.*run this again"),
    ("html", "is an HTML page.*deleted, so run this again.*a proxy may be answering"),
    ("flip", "model.safetensors is damaged or cut short: its checksum.*deleted, so run this again"),
    ("pointer", "model.safetensors is a git-LFS pointer.*deleted, so run this again"),
])
def test_bad_content_is_never_used(server: HubServer, fault: str, message: str, cache: Path,
                                   files: dict[str, bytes]) -> None:
    server.fault = fault
    with pytest.raises(DownloadError, match=message):
        download(REPO, endpoint=server.endpoint)
    assert not leftovers(cache)
    server.fault = None  # the next try fetches it anew
    assert (resolve_at(server) / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_wrong_small_file_is_found_too(server: HubServer, files: dict[str, bytes]) -> None:
    server.fault, server.faulty = "flip", "config.json"
    with pytest.raises(DownloadError, match="config.json is damaged"):
        download(REPO, endpoint=server.endpoint)
    server.fault = None
    assert (resolve_at(server) / "config.json").read_bytes() == files["config.json"]


def resolve_at(server: HubServer) -> Path:
    return download(REPO, endpoint=server.endpoint)


@pytest.mark.parametrize("name", ["../../../mine.json", "/etc/mine.json", "a/../../mine.json", "..", "C:\\mine.json",
                                  ".mine.json", "a\x1b[31m.json", "x" * 5_000 + ".json"])
def test_a_server_that_names_files_elsewhere_touches_none(server: HubServer, cache: Path, name: str) -> None:
    mine = cache.parent / "mine.json"
    mine.write_text("{}")
    server.files[name] = b"theirs"
    # A file that no model needs is not even asked for.
    needed = name.endswith(".json")
    with pytest.raises(DownloadError, match="as no hub does") if needed else contextlib.nullcontext():
        download(REPO, endpoint=server.endpoint)
    assert mine.read_text() == "{}"


def test_a_link_out_of_the_cache_is_not_followed_to_delete(server: HubServer, tmp_path: Path) -> None:
    config = download(REPO, endpoint=server.endpoint) / "config.json"
    mine = tmp_path / "mine.json"
    mine.write_text("mine")
    config.unlink()
    config.symlink_to(mine)
    with pytest.raises(DownloadError, match="was left alone: remove the link"):
        resolve(REPO)
    assert mine.read_text() == "mine"


def test_a_part_that_another_program_fetched_is_not_the_model(server: HubServer, files: dict[str, bytes], cache: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface_hub.snapshot_download(REPO, endpoint=server.endpoint, allow_patterns=["config.json", "tokenizer.json"],
                                      cache_dir=cache)
    with monkeypatch.context() as patch:
        go_offline(patch)
        with pytest.raises(DownloadError):
            resolve(REPO)
    assert (resolve_at(server) / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_file_that_rots_later_is_found(server: HubServer, files: dict[str, bytes]) -> None:
    weights = (download(REPO, endpoint=server.endpoint) / "model.safetensors").resolve()
    weights.write_bytes(files["model.safetensors"][:-1] + b"\xff")
    with pytest.raises(DownloadError, match="model.safetensors is damaged"):
        resolve(REPO)
    assert (resolve_at(server) / "model.safetensors").read_bytes() == files["model.safetensors"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX: signals to a thread")
def test_interrupt_ends_the_download_and_leaves_nothing_half(server: HubServer, cache: Path) -> None:
    server.fault = "stall"
    reader = threading.main_thread().ident
    assert reader is not None
    server.in_the_middle = lambda: signal.pthread_kill(reader, signal.SIGINT)
    # Whoever is started in the background by a shell ignores the signal, as `nohup pytest &` does.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            download(REPO, endpoint=server.endpoint)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not leftovers(cache)
    server.fault = None
    assert load_checkpoint(resolve_at(server)).config == CONFIG


def test_disk_that_becomes_full(server: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = huggingface_hub.file_download.http_get

    def write_half(url: str, temp_file: BinaryIO, **options: Any) -> None:
        if "safetensors" not in url:
            return fetch(url, temp_file, **options)
        temp_file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub.file_download, "http_get", write_half)
    with pytest.raises(DownloadError, match="disk became full.*Free some space, or set HF_HOME"):
        download(REPO, endpoint=server.endpoint)
    assert not leftovers(cache)
    monkeypatch.setattr(huggingface_hub.file_download, "http_get", fetch)
    assert load_checkpoint(resolve_at(server)).config == CONFIG


def test_disk_that_is_too_small_is_noticed_before(server: HubServer, cache: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(DownloadError, match="needs .* GB, and 0.0 GB are free.*HF_HOME"):
        download(REPO, endpoint=server.endpoint)
    assert not any("/resolve/" in path for _, path, _ in server.requests)


def test_read_only_cache_still_works(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = download(REPO, endpoint=server.endpoint)
    for path in (folder.parent.parent / "verified").iterdir():
        path.unlink()

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "write_text", refuse)
    assert download(REPO, endpoint=server.endpoint) == folder
