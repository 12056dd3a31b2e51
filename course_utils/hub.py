"""A model's name -> its folder on disk: bundled, one's own, or downloaded from the hub and verified.

`huggingface_hub` asks the hub and fetches the files (`hub_requests`), into the cache that it shares with other programs
(`hub_cache`). This package adds limits to every wait, compares every file with the checksum that the hub publishes
before it gets its name, and goes on where an interrupted download stopped. A model that is complete and verified is
used without any request. No name that a hub or mirror gives leads out of the model's own folder in the cache.

Environment, read at each call: `HF_ENDPOINT` names a mirror, `HF_HUB_OFFLINE=1` forbids requests, `HF_HOME` moves the
cache, `HF_HUB_DOWNLOAD_TIMEOUT` is for how many seconds the hub may be silent, and a token is sent only if there is one
in `HF_TOKEN`.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import shutil
import socket
import ssl
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.utils import build_hf_headers

from course_utils import hub_requests
from course_utils.errors import CheckpointError, CourseError, DownloadError, InputError
from course_utils.family import SHORT_NAMES, find_repo_id
from course_utils.file_lock import FileLock
from course_utils.files import check_path, describe_damage
from course_utils.hub_cache import (
    PATTERNS,
    add,
    blob_path,
    cache_folder,
    checksum_of,
    find_cached,
    is_checksum,
    is_commit,
    is_file_name,
    is_loaded,
    missing_files,
    model_folder,
    note_commit,
    partial_path,
    remove_partials,
    verify,
)
from course_utils.hub_requests import Refusal, answer_timeout, receive, try_twice, watch
from course_utils.language import gettext, noted
from course_utils.number import whole_number

BUNDLED = ("tiny", "nano")

_PUBLIC_HUB = "https://huggingface.co"
_FREE_SPACE = noted("Free some space, or set HF_HOME to a folder on a larger disk, and run this again.")


@dataclass(frozen=True)
class _File:
    """A file of a commit, as the hub lists it.

    Attributes:
        name: in the model's folder.
        size: in bytes.
        checksum: SHA-256 (64 digits) of a large file, git's own hash (40 digits) of a small one.
    """

    name: str
    size: int
    checksum: str


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
    check_path(name, gettext("The model"), gettext("one, such as 'tiny', or of a folder"))
    if isinstance(name, str):
        if name.lower() in BUNDLED:
            return _bundled_folder(name.lower())
        repo_id = find_repo_id(name)
        if repo_id is not None:
            with _explained(repo_id):
                cached = find_cached(repo_id, constants.DEFAULT_REVISION)
            return cached or download(name, patterns=patterns)
    if not str(name).strip():
        raise InputError(_unknown(name))
    try:
        folder = Path(name).expanduser()
        found = folder.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # too long, forbidden, a NUL, `~` of nobody
        raise InputError(_unknown(name)) from error
    if not found:
        raise InputError(_unknown(name))
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
        InputError: if the family has no such model, or another argument or variable cannot be what it should be.
        DownloadError: if the model cannot be fetched or is damaged. The next try goes on where this one stopped; what
            is damaged is deleted and fetched again by it, and nothing partial or unverified is ever used.
    """
    check_path(name, gettext("The model"), gettext("one, such as 'qwen3-0.6b-base'"))
    repo_id = find_repo_id(str(name))
    if repo_id is None:
        raise InputError(_unknown(name))
    revision = _checked_revision(constants.DEFAULT_REVISION if revision is None else revision)
    with _explained(repo_id):
        if is_offline():
            cached = find_cached(repo_id, revision)
            if cached is None:
                raise DownloadError(gettext("{repo_id} ({revision}) is not complete on this machine, and "
                                            "HF_HUB_OFFLINE forbids to download it: unset HF_HUB_OFFLINE, or use the "
                                            "bundled model 'tiny'.").format(repo_id=repo_id, revision=revision)
                                    + _folder_at_hand(name, repo_id))
            return cached
        address, token = hub_address(endpoint), _token()
        try:
            commit, files = _list_files(repo_id, revision, address, token, PATTERNS if patterns is None else patterns)
        except CourseError:
            raise
        except Exception as error:  # which network library raises, and what, depends on the hub library's version
            refused = isinstance(error, Refusal) and (error.status in (401, 404) or error.code == "GatedRepo")
            cached = None if refused else find_cached(repo_id, revision)
            if cached is None:
                raise _not_listed(error, repo_id, revision, address, _folder_at_hand(name, repo_id)) from error
            return cached
        folder = model_folder(repo_id) / "snapshots" / commit
        lacking = [file for file in files if not (folder / file.name).is_file()]
        if lacking:
            _fetch_all(lacking, folder, repo_id, address, token, whole=patterns is None)
        missing = missing_files(folder) if patterns is None else []
        if missing:
            raise DownloadError(gettext("{address} has {repo_id} without {missing}: use another mirror.").format(
                address=address, repo_id=repo_id, missing=", ".join(missing[:5])))
        verify(folder, {file.name: file.checksum for file in files}, known={file.name for file in lacking},
               whole=patterns is None)
        if patterns is None:
            note_commit(model_folder(repo_id), revision, commit)
    return folder


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids requests now."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in ("1", "ON", "YES", "TRUE")


def hub_address(endpoint: str | None = None) -> str:
    """Address of the hub, without a slash at its end: the argument, else HF_ENDPOINT now, else huggingface.co.

    Raises:
        InputError: if it is no web address.
    """
    address = (endpoint or os.environ.get("HF_ENDPOINT") or _PUBLIC_HUB).strip().rstrip("/")
    if not re.fullmatch(r"https?://([\w-]+(\.[\w-]+)*|\[[0-9a-f:]+\])(:\d{1,5})?(/[\w.~/-]*)?", address,
                        re.ASCII | re.IGNORECASE):
        origin = gettext("The endpoint") if endpoint else "HF_ENDPOINT"
        raise InputError(gettext("{origin} is {shortened}, and this is not a web address: give one such as "
                                 "{public_hub}, without a name or password.").format(
            origin=origin, shortened=_shortened(address), public_hub=_PUBLIC_HUB))
    return address


def _list_files(repo_id: str, revision: str, address: str, token: str | None,
                patterns: Collection[str]) -> tuple[str, list[_File]]:
    """Ask the hub for the commit of a revision and for its files.

    Raises:
        DownloadError: if what it names is not what it should be, before any path is made of it. Other exceptions: if
            there is no answer, or another one.
    """
    # False stops the library from looking for a token by itself: these models are public.
    api = HfApi(endpoint=address, token=token or False)
    info = try_twice(lambda: watch(
        lambda: api.model_info(repo_id, revision=revision, files_metadata=True, timeout=answer_timeout()),
        gettext("the list of files of {repo_id} from {address}").format(repo_id=repo_id, address=address),
        hub_requests.LISTING_LIMIT))
    files = [_listed(entry) for entry in info.siblings or [] if not _is_others(entry.rfilename, patterns)]
    unsigned = sorted(file.name for file in files if is_file_name(file.name) and not file.checksum)
    if not files or unsigned:
        raise DownloadError(gettext("{address} publishes no checksum for {found} of {repo_id}, so nothing that it "
                                    "sends could be trusted: use another mirror.").format(
            address=address, found=", ".join(unsigned[:5]) or gettext("any file"), repo_id=repo_id))
    strange: list[object] = [file.name for file in files if not (
        is_file_name(file.name) and is_checksum(file.checksum) and 0 <= _size(file) < 2 ** 63)]
    strange += [] if is_commit(info.sha) else [info.sha]
    if strange:
        raise DownloadError(gettext("{address} names a file, its size or checksum, or a commit as no hub does ("
                                    "{shortened}): nothing was fetched, use another mirror.").format(
            address=address, shortened=_shortened(strange[0])))
    if len({file.name.lower() for file in files}) < len(files):  # some drives know no other
        raise DownloadError(gettext("{address} lists a file of {repo_id} twice: nothing was "
                                    "fetched, use another mirror.").format(address=address, repo_id=repo_id))
    return str(info.sha), files


def _is_others(name: object, patterns: Collection[str]) -> bool:
    """Whether it is the name of a file that is not asked for: of another kind, or in a folder below the model's."""
    return isinstance(name, str) and (not is_loaded(name, patterns) or "/" in name
                                      and all(is_file_name(part) for part in name.split("/")))


def _size(file: _File) -> int:
    """The size that a hub has listed; -1 if that is no number."""
    size = whole_number(file.size)
    return -1 if size is None else size


def _listed(entry: Any) -> _File:
    return _File(entry.rfilename, *((entry.lfs.size, entry.lfs.sha256) if entry.lfs else (entry.size, entry.blob_id)))


def _fetch_all(files: list[_File], folder: Path, repo_id: str, address: str, token: str | None, whole: bool) -> None:
    """Fetch files into the folder of a commit, one after the other; each gets its name there once it is verified.

    Args:
        files: that are missing.
        folder: of the commit.
        repo_id: name of the model.
        address: of the hub.
        token: to send.
        whole: whether nothing is missing afterwards, so that parts of other commits' files are of no use any more.
    """
    cache = folder.parent.parent
    partials = [partial_path(folder, file.checksum) for file in files]
    present = sum(path.stat().st_size for path in partials if path.is_file())
    _require_disk_space(sum(file.size for file in files) - present, cache)
    blob_path(folder, "").mkdir(parents=True, exist_ok=True)
    # What is compressed on the way could not go on in its middle.
    headers = build_hf_headers(token=token or False) | {"Accept-Encoding": "identity"}
    try:
        lock = FileLock(cache / "downloading.lock")
    except BlockingIOError as error:
        raise DownloadError(gettext("Another program is downloading {repo_id} to {cache!r} now: wait until it has "
                                    "ended, and run this again.").format(repo_id=repo_id, cache=str(cache))) from error
    with lock:
        for file in files:
            url = hf_hub_url(repo_id, file.name, revision=folder.name, endpoint=address)
            try:
                _fetch(file, folder, url, headers)
            except CourseError:
                raise
            except Exception as error:
                of_network = isinstance(error, (ConnectionError, TimeoutError))
                if isinstance(error, OSError) and error.errno and not of_network:
                    raise  # of the disk
                raise _broken_off(error, file.name, repo_id, address) from error
        if whole:
            remove_partials(folder)


def _fetch(file: _File, folder: Path, url: str, headers: dict[str, str]) -> None:
    """Fetch one file, or the rest of it, and give it its name.

    Raises:
        DownloadError: if it is another file than the hub has listed. Other exceptions: if it does not come.
    """
    content = blob_path(folder, file.checksum)
    if content.is_file() and checksum_of(content, like=file.checksum) == file.checksum:
        return add(folder, file.name, file.checksum, content)
    partial = partial_path(folder, file.checksum)
    while True:
        if partial.is_file() and partial.stat().st_size > file.size:
            partial.unlink()
        resumed = partial.is_file()
        try:
            try_twice(lambda: receive(url, partial, file.size, headers, file.name))
        except Refusal as error:
            # Without that part, or with too much, the beginning that is here may be wrong.
            if not resumed or error.status != 416 and partial.stat().st_size <= file.size:
                raise
        if checksum_of(partial, like=file.checksum) == file.checksum:
            return add(folder, file.name, file.checksum, partial)
        damage = describe_damage(partial)
        partial.unlink()
        if not resumed:  # else again, from its beginning
            raise DownloadError(
                gettext("{name} {damage}: its checksum is not the one that the hub publishes. It has been deleted, so "
                        "run this again to download it anew; if that fails too, a proxy may be answering in the hub's "
                        "place: use another network or mirror (HF_ENDPOINT).").format(name=file.name, damage=damage))


def _bundled_folder(name: str) -> Path:
    """Where a bundled model is: inside the package in a wheel, beside it in a source checkout."""
    package = Path(__file__).resolve().parent
    for data in (package / "data", package.parent / "data"):
        if (data / name).is_dir():
            return data / name
    raise CheckpointError(gettext("The bundled model {name!r} is missing from this installation of course_utils: "
                                  "install it again, or restore the data folder of the repository.").format(name=name))


def _unknown(name: object) -> str:
    """What to say about a name that stands for nothing."""
    close = difflib.get_close_matches(str(name)[:100].lower().removeprefix("qwen/"), [*BUNDLED, *SHORT_NAMES], n=1)
    hint = gettext(" Did you mean {close!r}?").format(close=close[0]) if close else ""
    return gettext("There is no model and no folder {shortened}.{hint} Possible are {bundled} (bundled), {short_names} "
                   "(from the hub), or the path of a folder with a config.json.").format(
        shortened=_shortened(name), hint=hint, bundled=", ".join(BUNDLED), short_names=", ".join(SHORT_NAMES))


def _shortened(value: object) -> str:
    """A value as it would be written, cut where it is long."""
    shown = repr(str(value) if isinstance(value, Path) else value)
    return shown if len(shown) <= 100 else f"{shown[:80]}... ({len(shown)} characters)"


def _checked_revision(revision: object) -> str:
    # https://git-scm.com/docs/git-check-ref-format, and a little less
    if isinstance(revision, str) and re.fullmatch(r"\w[\w./+-]{0,199}", revision, re.ASCII) and not (
            ".." in revision or "//" in revision or "/." in revision or revision.endswith(("/", "."))):
        return revision
    raise InputError(gettext("The revision {shortened} cannot be the name of a branch, tag or commit: leave it out, or "
                             "give one such as 'main'.").format(shortened=_shortened(revision)))


def _token() -> str | None:
    token = os.environ.get("HF_TOKEN", "").strip()  # a line feed at its end comes with `cat` and from secrets
    if not re.fullmatch("[!-~]*", token):
        raise InputError("HF_TOKEN holds a space, a line break or another character that no token has: copy the "
                         "token again, or unset HF_TOKEN, since these models are public.")
    return token or None


def _folder_at_hand(name: str, repo_id: str) -> str:
    """A hint at a folder with the model's name, which a reader may have meant."""
    for folder in (Path(name), Path(repo_id.partition("/")[2]), Path(repo_id)):
        if (folder / "config.json").is_file():
            return gettext(" Here is a folder of this name: to use it, give its path, {found!r}.").format(
                found=os.path.join(".", folder))
    return ""


def _require_disk_space(needed: int, cache: Path) -> None:
    """Raise if `needed` bytes do not fit on the disk that holds the cache."""
    existing = next(parent for parent in cache.parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DownloadError(gettext("The download needs {needed:.1f} GB, and {free:.1f} GB are free at "
                                    "{existing!r}. {free_space}").format(
            needed=needed / 1e9, free=free / 1e9, existing=str(existing), free_space=gettext(_FREE_SPACE)))


def _not_listed(error: Exception, repo_id: str, revision: str, address: str, hint: str) -> DownloadError:
    """There is no list of files: the hub refuses, or is not there, or something else answers."""
    if isinstance(error, Refusal) and error.code == "RevisionNotFound":
        return DownloadError(gettext("{repo_id} has no revision {revision!r} at {address}: leave it out, or give an "
                                     "existing branch, tag or commit.").format(
            repo_id=repo_id, revision=revision, address=address))
    if isinstance(error, Refusal) and (error.status == 404 or error.code == "RepoNotFound"):
        return DownloadError(gettext("{address} does not have the model {repo_id}: check the address of the mirror "
                                     "(HF_ENDPOINT), and HF_TOKEN if it is set.").format(
            address=address, repo_id=repo_id))
    if isinstance(error, (ValueError, LookupError, TypeError, AttributeError, RecursionError)):
        return DownloadError(gettext("{address} answered with something else than the hub would, perhaps the login "
                                     "page of a network: open it in a browser, or correct HF_ENDPOINT.").format(
            address=address))
    return _refused(error, repo_id, address) or DownloadError(
        gettext("The hub at {address} cannot be reached ({first_line}), and {repo_id} is not complete on this machine: "
                "check {network}, set HF_ENDPOINT to a mirror, or use the bundled model 'tiny'.{hint}").format(
            address=address, first_line=_first_line(error), repo_id=repo_id, network=_network(address), hint=hint))


def _broken_off(error: Exception, file_name: str, repo_id: str, address: str) -> DownloadError:
    """A file has not arrived."""
    if isinstance(error, Refusal) and error.status == 404:
        return DownloadError(gettext("{address} lists {file_name} of {repo_id} and does not have it: use another "
                                     "mirror.").format(address=address, file_name=file_name, repo_id=repo_id))
    return _refused(error, repo_id, address) or DownloadError(
        gettext("The download of {file_name} of {repo_id} from {address} broke off ({first_line}): run this again, and "
                "it goes on where it stopped. If it keeps breaking off, check {network}, or use a mirror "
                "(HF_ENDPOINT).").format(
            file_name=file_name, repo_id=repo_id, address=address, first_line=_first_line(error),
            network=_network(address)))


def _refused(error: Exception, repo_id: str, address: str) -> DownloadError | None:
    """What a refusal, by the hub or by something before it, means; None if the error does not say."""
    if _is_due_to(error, ssl.SSLCertVerificationError):
        return DownloadError(gettext("The certificate of {address} is signed by nobody that this computer "
                                     "trusts ({first_line}), as where a company's proxy opens encrypted "
                                     "connections: set SSL_CERT_FILE to the file with that proxy's "
                                     "certificate, or use another network.").format(
            address=address, first_line=_first_line(error)))
    if _is_due_to(error, socket.gaierror):
        return DownloadError(gettext("This computer does not find the address of {address} (no DNS): check "
                                     "{network}, and the spelling of HF_ENDPOINT if it is set, or use the "
                                     "bundled model 'tiny'.").format(address=address, network=_network(address)))
    status, code = (error.status, error.code) if isinstance(error, Refusal) else (None, "")
    if status == 407 or "407" in str(error) and type(error).__name__ == "ProxyError":
        return DownloadError("The proxy between this computer and the hub asks for a login: put name and password into "
                             "HTTPS_PROXY, as in http://NAME:PASSWORD@PROXY:PORT.")
    if code == "GatedRepo":
        return DownloadError(gettext("{address} gives {repo_id} only to people who have accepted its terms: accept "
                                     "them on the model's page, create a token there, and set HF_TOKEN to it.").format(
            address=address, repo_id=repo_id))
    if status == 401 and _token():
        return DownloadError(gettext("{address} does not accept the token in HF_TOKEN, which may have expired: unset "
                                     "it, since {repo_id} is public, or set it to a new one.").format(
            address=address, repo_id=repo_id))
    if status == 401:
        return DownloadError(gettext("{address} asks for a login: set HF_TOKEN to a token of that hub, "
                                     "or HF_ENDPOINT to another.").format(address=address))
    if status == 403:
        return DownloadError(gettext("{address} refuses to give {repo_id} (status 403), as a firewall does, or a hub "
                                     "to a token without the right: use another network or mirror (HF_ENDPOINT), or "
                                     "unset HF_TOKEN.").format(address=address, repo_id=repo_id))
    if status == 429 and isinstance(error, Refusal):
        rest = gettext(" in {retry_after} seconds").format(
            retry_after=error.retry_after) if error.retry_after is not None else gettext(" in some minutes")
        return DownloadError(gettext("{address} has had too many requests from this network: run this again{rest}, or "
                                     "set HF_TOKEN, with which the hub allows more.").format(
            address=address, rest=rest))
    return None


def _is_due_to(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Whether an error of the network library, whichever that is, comes from one of Python's own."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None


def _network(address: str) -> str:
    """What to check where an address cannot be reached."""
    url = urlsplit(address)
    if {url.scheme, "all"} & set(getproxies()) and not proxy_bypass(url.hostname or ""):
        return gettext("the network and its proxy ({upper}_PROXY or the settings of this computer)").format(
            upper=url.scheme.upper())
    return gettext("the network")


def _first_line(error: Exception) -> str:
    """What an error says, in short."""
    kind = "" if isinstance(error, Refusal) else type(error).__name__
    lines = str(error).strip().splitlines()
    return ": ".join(part for part in (kind, lines[0][:200] if lines else "") if part)


@contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    """Turn what the disk refuses into one sentence; the network's errors have become others before."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DownloadError(gettext("The disk became full while {repo_id} was downloaded. {free_space}").format(
                repo_id=repo_id, free_space=gettext(_FREE_SPACE))) from error
        where = _shortened(str(error.filename or cache_folder()))
        raise DownloadError(gettext("The cache for {repo_id} cannot be used ({found}: {where}): make it readable and "
                                    "writable, or set HF_HOME to a folder of your own.").format(
            repo_id=repo_id, found=error.strerror or type(error).__name__, where=where)
                            ) from error
