"""A model in the cache that all programs share which load models from the hub (`HF_HOME`).

Layout, that of `huggingface_hub`: `blobs/CHECKSUM` holds contents, `snapshots/COMMIT/NAME` links to them (where links
are impossible, as on many Windows machines, the content itself is there), and `refs/BRANCH` names a commit
(https://huggingface.co/docs/huggingface_hub/guides/manage-cache). This package adds `verified/COMMIT.json`, which says
what each file was when it was compared with its checksum, and `blobs/CHECKSUM.partial` while it downloads.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from course_utils.errors import DownloadError
from course_utils.files import describe_damage, json_writer, write_atomically
from course_utils.json_text import parse_json
from course_utils.language import gettext

PATTERNS = ("*.json", "*.safetensors", "*.jinja", "merges.txt")
"""The files that this package loads."""

_INDEX = "model.safetensors.index.json"
# The files of these models lie side by side in one folder.
_FILE_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,150}")
_CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def cache_folder() -> Path:
    """The folder that holds all models of the hub, by the variables that `huggingface_hub` reads, read now."""
    environment = os.environ.get
    home = environment("HF_HOME") or os.path.join(environment("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    folder = environment("HF_HUB_CACHE") or environment("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return Path(os.path.expandvars(os.path.expanduser(folder))).absolute()


def model_folder(repo_id: str) -> Path:
    """The folder of one model of the family, whether it exists or not."""
    return cache_folder() / f"models--{repo_id.replace('/', '--')}"


def is_file_name(name: object) -> bool:
    """Whether a file of that name lies directly in a model's folder, on any system."""
    return isinstance(name, str) and _FILE_NAME.fullmatch(name) is not None


def is_checksum(text: object) -> bool:
    """Whether it is a SHA-256 (64 digits), or git's own hash (40)."""
    return isinstance(text, str) and _CHECKSUM.fullmatch(text) is not None


def is_commit(text: object) -> bool:
    return isinstance(text, str) and _COMMIT.fullmatch(text) is not None


def missing_files(folder: Path) -> list[str]:
    """Names of the files that a model needs and that its folder lacks: another program may fetch but a part."""
    weights = ["model.safetensors"]
    if (folder / _INDEX).is_file():
        try:
            weights = sorted(set(parse_json((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            weights = []
        if not weights:
            return [_INDEX]  # there, and none
    return [str(name) for name in ("config.json", "tokenizer.json", *weights)
            if not is_file_name(name) or not (folder / name).is_file()]


def find_cached(repo_id: str, revision: str) -> Path | None:
    """The complete and verified folder of a revision in the cache, or None; makes no request.

    Raises:
        DownloadError: see `verify`.
    """
    cache = model_folder(repo_id)
    commit = revision if is_commit(revision) else _read_ref(cache, revision)
    folder = cache / "snapshots" / (commit or "none")
    if commit is None or not folder.is_dir() or missing_files(folder):
        return None
    record = _read_record(folder)
    checksums = {}
    for path in folder.iterdir():
        if is_loaded(path.name):
            # The cache names contents by their checksum; where there are no links, what was noted of it is left.
            named = os.path.basename(os.path.realpath(path))
            checksums[path.name] = named if is_checksum(named) else str(record.get(path.name, {}).get("checksum"))
    if not all(is_checksum(checksum) and (folder / name).is_file() for name, checksum in checksums.items()):
        return None
    verify(folder, checksums)
    return folder


def is_loaded(name: str, patterns: Collection[str] = PATTERNS) -> bool:
    """Whether a name is one of those that the patterns stand for."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def verify(folder: Path, checksums: Mapping[str, str], known: Collection[str] = (), whole: bool = True) -> None:
    """Compare files with their checksums, except those that were compared before and have not changed.

    Args:
        folder: of one commit.
        checksums: SHA-256 (64 digits) of each large file, git's own hash (40 digits) of each small one.
        known: names of files that were compared just now.
        whole: whether these are all files of the model; only then is the result kept, since what is kept for a
            folder says that the folder is complete.

    Raises:
        DownloadError: at the first file that differs. It is deleted if it is one of the cache's own contents, which
            are called by their checksum; what else lies there under its name is left alone.
    """
    before = _read_record(folder)
    record = {}
    for name, checksum in checksums.items():
        path = folder / name
        stat = path.stat()
        entry = {"checksum": checksum, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        if name not in known and before.get(name) != entry and checksum_of(path, like=checksum) != checksum:
            raise _damaged(path)
        record[name] = entry
    if whole and record != before:
        _write_note(_record_path(folder), json_writer(record))


def add(folder: Path, name: str, checksum: str, content: Path) -> None:
    """Give a content its place in the cache, all at once: no other program sees a part of it.

    Args:
        folder: of the commit.
        name: of the file in it.
        checksum: of the content, which was compared.
        content: a file on the cache's disk, which is moved.
    """
    blob = _blobs(folder) / checksum
    folder.mkdir(parents=True, exist_ok=True)
    if content != blob:
        os.replace(content, blob)
    scratch = folder / f".{name}.{os.getpid()}.tmp"
    scratch.unlink(missing_ok=True)
    try:
        scratch.symlink_to(os.path.relpath(blob, folder))
    except OSError:  # as on many Windows machines
        os.replace(blob, scratch)
    os.replace(scratch, folder / name)


def blob_path(folder: Path, checksum: str) -> Path:
    """Where the content with a checksum is, if it is there."""
    return _blobs(folder) / checksum


def partial_path(folder: Path, checksum: str) -> Path:
    """Where as much of a content is as has come, until it is whole."""
    return _blobs(folder) / f"{checksum}.partial"


def remove_partials(folder: Path) -> None:
    """Remove what has come of contents that are not needed any more."""
    for path in _blobs(folder).glob("*.partial"):
        path.unlink()


def checksum_of(path: Path, like: str) -> str:
    """Hash of a file in hexadecimal: SHA-256, or git's hash of a blob, whichever is as long as `like`."""
    digest = hashlib.sha256()
    if len(like) == 40:
        # https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def note_commit(cache: Path, revision: str, commit: str) -> None:
    """Note which commit a branch or tag is."""
    if revision != commit and _read_ref(cache, revision) != commit:
        _write_note(cache / "refs" / revision, lambda path: path.write_text(commit, encoding="utf-8"))


def _damaged(path: Path) -> DownloadError:
    """What to say about a file that is not what it should be, once it has been deleted if it is the cache's."""
    wrong = gettext("{name} {describe_damage}: its checksum is not the one that the hub publishes").format(
        name=path.name, describe_damage=describe_damage(path))
    content = Path(os.path.realpath(path))
    if content.parent != Path(os.path.realpath(_blobs(path.parent))):
        remedy = (gettext("{wrong}. It is {content!r}, which was left alone: remove the link {path!r}, and "
                          "run this again.")
                  if path.is_symlink() else
                  gettext("{wrong}. It is {content!r}, which was left alone: remove the file {path!r}, and "
                          "run this again."))
        return DownloadError(remedy.format(wrong=wrong, content=str(content), path=str(path)))
    try:
        content.unlink()
        path.unlink(missing_ok=True)  # the link to it
    except OSError as error:
        return DownloadError(gettext("{wrong}, and it cannot be deleted here ({strerror}): set HF_HOME to a folder of "
                                     "your own, and run this again to download it there.").format(
            wrong=wrong, strerror=error.strerror))
    return DownloadError(gettext("{wrong}. It has been deleted, so run this again to download it anew; if that fails "
                                 "too, use another network or mirror (HF_ENDPOINT).").format(wrong=wrong))


def _blobs(folder: Path) -> Path:
    return folder.parent.parent / "blobs"


def _record_path(folder: Path) -> Path:
    return folder.parent.parent / "verified" / f"{folder.name}.json"


def _read_record(folder: Path) -> dict[str, dict[str, Any]]:
    """What `verify` has found before; empty if there is nothing, or nothing that it could have written."""
    try:
        record = parse_json(_record_path(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if isinstance(record, dict) and all(is_file_name(name) and isinstance(entry, dict)
                                        and is_checksum(entry.get("checksum")) for name, entry in record.items()):
        return record
    return {}


def _read_ref(cache: Path, revision: str) -> str | None:
    """The commit that a branch or tag was the last time, or None."""
    try:
        with (cache / "refs" / revision).open("rb") as file:
            commit = file.read(100).strip().decode("ascii")
    except (OSError, ValueError):
        return None
    return commit if is_commit(commit) else None


def _write_note(path: Path, writer: Callable[[Path], object]) -> None:
    """Write a note. A cache that others fill may be read-only; then every load compares the files anew."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path.parent, {path.name: writer})
