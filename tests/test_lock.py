"""Lock files: one process at a time, released however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nasdsl.lock import Lock, LockHeld

HOLD = "import sys, pathlib, nasdsl.lock as l; lock = l.Lock(pathlib.Path(sys.argv[1])); print('held', flush=True); input()"


def test_a_lock_is_held_once_in_this_process_by_whatever_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lock = Lock(Path("lock"))
    with pytest.raises(LockHeld, match=r"^held by this process$") as raised:
        Lock(tmp_path / "lock")
    assert raised.value.here is True
    Lock(tmp_path / "other").release()
    lock.release()
    with monkeypatch.context() as patched:
        patched.setattr(os, "close", lambda descriptor: pytest.fail(f"{descriptor} is another file by now"))
        lock.release()
    Lock(tmp_path / "lock").release()


def test_of_two_processes_one_waits_for_none(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
        for _ in range(2):  # one that is not got is not held here either
            with pytest.raises(LockHeld, match=r"^held by another process$") as raised:
                Lock(tmp_path / "lock")
            assert raised.value.here is False
        assert not before or len(os.listdir("/proc/self/fd")) == before, "a file is left open"
        other.kill()
    Lock(tmp_path / "lock").release()


def test_where_the_file_system_has_no_locks_this_process_is_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", none)
    lock = Lock(tmp_path / "lock")
    with pytest.raises(LockHeld):
        Lock(tmp_path / "lock")
    lock.release()


def test_where_the_system_has_no_such_locks_this_process_is_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    lock = Lock(tmp_path / "lock")
    with pytest.raises(LockHeld):
        Lock(tmp_path / "lock")
    lock.release()
    Lock(tmp_path / "lock").release()


def test_the_file_can_be_locked_by_other_users_of_a_shared_folder(tmp_path: Path) -> None:
    """As far as the umask lets them; it is no program."""
    before = os.umask(0)
    try:
        Lock(tmp_path / "lock").release()
    finally:
        os.umask(before)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o666
