"""One holder at a time, in threads as in processes; a process that is killed leaves no lock behind."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from course_utils import file_lock
from course_utils.file_lock import FileLock

REPOSITORY = Path(__file__).resolve().parent.parent
HOLDS_IT = ("import sys, time; from pathlib import Path; from course_utils.file_lock import FileLock; "
            "lock = FileLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)")


def test_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FileLock(path) as first:
        for _ in range(2):
            with pytest.raises(BlockingIOError):
                FileLock(path)
        first.release()
        with FileLock(path):
            first.release()  # which is not the other's
            with pytest.raises(BlockingIOError):
                FileLock(path)
    assert not list(tmp_path.iterdir())


def test_it_goes_with_the_object(tmp_path: Path) -> None:
    FileLock(tmp_path / "lock")
    FileLock(tmp_path / "lock").release()
    assert not list(tmp_path.iterdir())


def test_a_killed_process_leaves_none(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    child = subprocess.Popen([sys.executable, "-c", HOLDS_IT, str(path)], stdout=subprocess.PIPE, text=True,
                             cwd=REPOSITORY)
    try:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            FileLock(path)
    finally:
        child.kill()
        child.communicate()
    assert path.exists()
    FileLock(path).release()
    assert not path.exists()


def test_a_file_that_was_taken_away_in_between_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opened it before its holder deleted it would lock what nobody else finds."""
    path, lock, opened = tmp_path / "lock", file_lock._lock, []

    def deleted_first(file: int) -> None:
        if not opened:
            path.unlink()
        opened.append(file)
        lock(file)

    monkeypatch.setattr(file_lock, "_lock", deleted_first)
    with FileLock(path):
        assert len(opened) == 2 and path.exists()
        with pytest.raises(BlockingIOError):
            FileLock(path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX: flock")
def test_on_a_drive_without_locks_everybody_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(file_lock.fcntl, "flock", no_locks)
    with FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock"):
        pass
