"""Lock files: one process at a time writes a folder."""

from __future__ import annotations

import os
from pathlib import Path

_held: set[Path] = set()
"""Locks of this process: the system's locks keep only other processes out."""


class LockHeld(Exception):
    """A lock is held.

    Attributes:
        here: whether this process holds it.
    """

    def __init__(self, *, here: bool) -> None:
        super().__init__("held by this process" if here else "held by another process")
        self.here = here


class Lock:
    """An exclusive lock on a file, released when the process ends, however it ends. Forked children do not inherit it.

    On Windows, and on file systems without locks, only this process is kept out.

    Args:
        path: of the file, which is created.

    Raises:
        LockHeld: this process or another one holds the lock.
        OSError: the file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        if self._path in _held:
            raise LockHeld(here=True)
        self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            import fcntl
        except ImportError:  # Windows
            pass
        else:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                os.close(self._file)
                raise LockHeld(here=False) from None
            except OSError:  # a file system without locks
                pass
        _held.add(self._path)

    def release(self) -> None:
        """Release the lock; does nothing the second time."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            _held.discard(self._path)
