"""A model's name -> its folder on disk: bundled, one's own, or downloaded from the hub and verified.

`huggingface_hub` fetches the files into its usual cache (`HF_HOME`), resumes, and shows progress. It checks
sizes only, so this module compares every file with the checksum that the hub publishes, once: the result is
kept in the model's cache folder as `verified/COMMIT.json` (checksum, size and time of change of each file),
and files that have not changed since are not read again. A model that is complete and verified is used
without any request.

Environment: `HF_ENDPOINT` names a mirror, `HF_HUB_OFFLINE=1` forbids requests, `HF_HOME` moves the cache, and
a token is sent only if `HF_TOKEN` is set. If the hub does not answer within `ANSWER_TIMEOUT` seconds, that is
said at once instead of trying again; during the download each read may take `HF_HUB_DOWNLOAD_TIMEOUT` (10)
seconds.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, is_offline_mode, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import filter_repo_objects

from course_utils.errors import CheckpointError, DownloadError, InputError
from course_utils.family import SHORT_NAMES, find_repo_id
from course_utils.files import check_path, describe_damage
from course_utils.json_text import parse_json

BUNDLED = ("tiny", "nano")
ANSWER_TIMEOUT = 10.0
"""Seconds that the hub has for its first answer."""

_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "merges.txt"]


def resolve(name: str | Path, patterns: Sequence[str] | None = None) -> Path:
    """Find the folder of a model, downloading it if it is not on this machine yet.

    Args:
        name: `tiny` or `nano`; a Qwen3 model of the hub, such as `qwen3-0.6b` or `Qwen/Qwen3-0.6B-Base`, in
            any case; or a folder in Hugging Face layout (as a `Path`, or as text that is none of these
            names).
        patterns: which files are needed of a model of the hub, as for `download`.

    Returns:
        The folder. One from the hub has been verified; if it is here already, no request is made.

    Raises:
        InputError: if there is neither a model nor a folder of that name.
        CheckpointError: if a bundled model is missing from this installation.
        DownloadError: see `download`.
    """
    check_path(name, "The model", "one, such as 'tiny', or of a folder")
    if isinstance(name, str):
        if name.lower() in BUNDLED:
            return _bundled_folder(name.lower())
        repo_id = find_repo_id(name)
        if repo_id is not None:
            return _find_cached(repo_id, constants.DEFAULT_REVISION) or download(repo_id, patterns=patterns)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise InputError(_unknown(str(name)))
    return folder


def download(name: str, revision: str | None = None, endpoint: str | None = None,
             patterns: Sequence[str] | None = None) -> Path:
    """Fetch a Qwen3 model from the hub, or what has changed since the last time, and verify every file.

    If the hub cannot be reached, a copy that is complete in the cache is used as it is.

    Args:
        name: full or short name of a model of the family.
        revision: branch, tag or commit; None is the main branch.
        endpoint: address of the hub or a mirror; None is `HF_ENDPOINT`, or huggingface.co.
        patterns: which files, such as `["tokenizer.json"]`; None is all that a model needs.

    Returns:
        The folder of this revision in the cache of `huggingface_hub`, all files verified.

    Raises:
        InputError: if the family has no such model.
        DownloadError: if the model cannot be fetched or is damaged. A damaged file is deleted, so the next
            try fetches it again; a partial one is never used.
    """
    check_path(name, "The model", "one, such as 'qwen3-0.6b-base'")
    repo_id = find_repo_id(str(name))
    if repo_id is None:
        raise InputError(_unknown(str(name)))
    revision = revision or constants.DEFAULT_REVISION
    address = endpoint or constants.ENDPOINT
    # False stops the library from looking for a token by itself: these models are public.
    token = os.environ.get("HF_TOKEN") or False
    try:
        info = HfApi(endpoint=endpoint, token=token).model_info(
            repo_id, revision=revision, files_metadata=True, timeout=ANSWER_TIMEOUT)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise _refused(error, repo_id, revision, address) from error
    except Exception as error:  # which network library raises, and what, depends on the hub library's version
        cached = _find_cached(repo_id, revision)
        if cached is not None:
            return cached
        raise _unreachable(error, repo_id, revision, address) from error

    wanted = _PATTERNS if patterns is None else list(patterns)
    files = {file.rfilename: file for file in filter_repo_objects(
        info.siblings or [], allow_patterns=wanted, key=lambda file: file.rfilename)}
    checksums = {file_name: file.lfs.sha256 if file.lfs else file.blob_id or ""
                 for file_name, file in files.items()}
    unknown = sorted(file_name for file_name, checksum in checksums.items() if not checksum)
    if info.sha is None or not files or unknown:
        raise DownloadError(f"{address} publishes no checksum for {', '.join(unknown) or 'any file'} of "
                            f"{repo_id}, so nothing that it sends could be trusted: use another mirror.")
    _refuse_strange_names(info.sha, checksums, address)
    cache = Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}"
    folder = cache / "snapshots" / info.sha
    missing = [file for file_name, file in files.items() if not (folder / file_name).exists()]
    _require_disk_space(sum(file.size or 0 for file in missing), cache)
    try:
        for file in missing:  # one by one in this thread, so that an interrupt ends the download at once
            hf_hub_download(repo_id, file.rfilename, revision=info.sha, endpoint=endpoint, token=token)
        if patterns is None:
            # Nothing is left to fetch; this notes which commit the revision is and which files belong to it.
            snapshot_download(repo_id, revision=revision, endpoint=endpoint, token=token,
                              allow_patterns=_PATTERNS)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise _refused(error, repo_id, revision, address) from error
    except Exception as error:
        raise _broken_off(error, repo_id, address) from error
    _verify(folder, checksums, whole=patterns is None)
    return folder


def _bundled_folder(name: str) -> Path:
    """Where a bundled model is: inside the package in a wheel, beside it in a source checkout."""
    package = Path(__file__).resolve().parent
    for data in (package / "data", package.parent / "data"):
        if (data / name).is_dir():
            return data / name
    raise CheckpointError(f"The bundled model {name!r} is missing from this installation of course_utils: "
                          "install it again, or restore the data folder of the repository.")


def _unknown(name: str) -> str:
    """What to say about a name that stands for nothing."""
    close = difflib.get_close_matches(name.lower().removeprefix("qwen/"), [*BUNDLED, *SHORT_NAMES], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return (f"There is no model and no folder {name!r}.{hint} Possible are {', '.join(BUNDLED)} (bundled), "
            f"{', '.join(SHORT_NAMES)} (from the hub), or the path of a folder with a config.json.")


def _find_cached(repo_id: str, revision: str) -> Path | None:
    """The complete and verified folder of a revision in the cache, or None; makes no request."""
    try:
        folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=_PATTERNS,
                                        local_files_only=True))
    except OSError:  # nothing there, or not all of it
        return None
    record = _read_record(folder)
    if record:
        checksums = {name: str(entry["checksum"]) for name, entry in record.items()}
    else:
        # Fetched by another program. Where links are possible, the cache names contents by their checksum.
        checksums = {path.name: path.resolve().name for path in folder.iterdir()}
        if not all(len(checksum) in (40, 64) for checksum in checksums.values()):
            return None
    if not all((folder / name).is_file() for name in checksums) or not _has_all(folder):
        return None
    _verify(folder, checksums)
    return folder


def _has_all(folder: Path) -> bool:
    """Whether a folder has a configuration, a tokenizer, and all the weights: another program may fetch but a part."""
    index = folder / "model.safetensors.index.json"
    weights = ["model.safetensors"]
    if index.is_file():
        try:
            weights = sorted(set(parse_json(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False
    return all(isinstance(name, str) and (folder / name).is_file()
               for name in ("config.json", "tokenizer.json", *weights))


def _refuse_strange_names(commit: str, checksums: Mapping[str, str], address: str) -> None:
    """Make sure that what a server names is what it should be before any path is made of it.

    Raises:
        DownloadError: if the commit is no 40 hexadecimal digits, or a file's name leads out of its folder, or its
            checksum is none.
    """
    strange = [name for name, checksum in checksums.items()
               if not _FILE_NAME.fullmatch(name) or not _CHECKSUM.fullmatch(checksum)]
    if strange or not _COMMIT.fullmatch(commit):
        raise DownloadError(f"{address} names a file, a checksum or a commit as no hub does "
                            f"({(strange or [commit])[0][:80]!r}): nothing was fetched, use another mirror.")


# The files of these models lie side by side in one folder.
_FILE_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,200}")
_COMMIT, _CHECKSUM = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def _verify(folder: Path, checksums: Mapping[str, str], whole: bool = True) -> None:
    """Compare files with their checksums, except those that were compared before and have not changed.

    Args:
        folder: of one commit, in the hub library's cache.
        checksums: SHA-256 (64 digits) of each large file, git's own hash (40 digits) of each small one.
        whole: whether these are all files of the model; only then is the result kept, since what is kept for a
            folder says that the folder is complete.

    Raises:
        DownloadError: at the first file that differs, which is deleted if it lies in the model's own cache.
    """
    before = _read_record(folder)
    record = {}
    for name, checksum in checksums.items():
        path = folder / name
        stat = path.stat()
        entry = {"checksum": checksum, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        if before.get(name) != entry and _checksum(path, like=checksum) != checksum:
            damage, content = describe_damage(path), path.resolve()
            if not content.is_relative_to(folder.parent.parent.resolve()):
                raise DownloadError(f"{name} {damage}: its checksum is not the one that the hub publishes. It is a "
                                    f"link to {str(content)!r}, which was left alone: remove the link {str(path)!r}, "
                                    "and run this again.")
            content.unlink()  # and then the link to it
            path.unlink(missing_ok=True)
            raise DownloadError(f"{name} {damage}: its checksum is not the one that the hub publishes. It "
                                "has been deleted, so run this again to download it anew; if that fails "
                                "too, use another network or mirror (HF_ENDPOINT).")
        record[name] = entry
    if whole and record != before:
        _write_record(folder, record)


def _checksum(path: Path, like: str) -> str:
    """Hash of a file in hexadecimal: SHA-256, or git's hash of a blob, whichever is as long as `like`."""
    digest = hashlib.sha256()
    if len(like) == 40:
        # https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _record_path(folder: Path) -> Path:
    return folder.parent.parent / "verified" / f"{folder.name}.json"


def _read_record(folder: Path) -> dict[str, dict[str, str | int]]:
    """What `_verify` has found before; empty if there is nothing, or nothing readable."""
    try:
        record: dict[str, dict[str, str | int]] = parse_json(_record_path(folder).read_text(encoding="utf-8"))
        return record
    except (OSError, ValueError):
        return {}


def _write_record(folder: Path, record: Mapping[str, object]) -> None:
    path = _record_path(folder)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        # A cache that others fill may be read-only; then every load compares the files anew.
        temporary.unlink(missing_ok=True)


def _require_disk_space(needed: int, cache: Path) -> None:
    """Raise if `needed` bytes do not fit on the disk that holds the cache."""
    existing = next(parent for parent in cache.parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DownloadError(f"The download needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free at "
                            f"{str(existing)!r}. {_FREE_SPACE}")


_FREE_SPACE = "Free some space, or set HF_HOME to a folder on a larger disk, and run this again."


def _refused(error: Exception, repo_id: str, revision: str, address: str) -> DownloadError:
    """The hub has answered: not this model, or not to you."""
    if isinstance(error, GatedRepoError):
        return DownloadError(f"{address} gives {repo_id} only to people who have accepted its terms: accept "
                             "them on the model's page, create a token there, and set HF_TOKEN to it.")
    if isinstance(error, RevisionNotFoundError):
        return DownloadError(f"{repo_id} has no revision {revision!r} at {address}: "
                             "leave it out, or give an existing branch, tag or commit.")
    return DownloadError(f"{address} does not have the model {repo_id}: check the address of the mirror "
                         "(HF_ENDPOINT), and HF_TOKEN if it is set.")


def _unreachable(error: Exception, repo_id: str, revision: str, address: str) -> DownloadError:
    """The hub has not answered, or something else has."""
    if is_offline_mode():
        return DownloadError(f"{repo_id} ({revision}) is not complete on this machine, and HF_HUB_OFFLINE "
                             "forbids to download it: unset HF_HUB_OFFLINE, or use the bundled model 'tiny'.")
    if isinstance(error, (ValueError, KeyError, TypeError)):
        return DownloadError(f"{address} answered with something else than the hub would, perhaps the login "
                             "page of a network: open it in a browser, or correct HF_ENDPOINT.")
    return DownloadError(f"The hub at {address} cannot be reached ({_first_line(error)}), and {repo_id} is "
                         "not complete on this machine: check the network, set HF_ENDPOINT to a mirror, or "
                         "use the bundled model 'tiny'.")


def _broken_off(error: Exception, repo_id: str, address: str) -> DownloadError:
    """The download has begun and not ended well."""
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        return DownloadError(f"The disk became full while {repo_id} was downloaded. {_FREE_SPACE}")
    return DownloadError(f"The download of {repo_id} from {address} broke off ({_first_line(error)}): run "
                         "this again, files that have arrived whole are kept. If a file keeps failing, a "
                         "proxy may be answering in the hub's place: use another network or mirror.")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
