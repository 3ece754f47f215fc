"""The journal: an append-only file of JSON lines, each on the disk before anything is built on it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nasdsl.search.errors import JournalError

FORMAT: Final = "nasdsl search 1"

_held: set[Path] = set()
"""Locks of this process: those of the system keep only other processes away."""


def read_journal(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records of a journal, and how many bytes of the file they take.

    What lies behind them is a last line that a kill or a power cut tore; it was never acknowledged, so nothing is lost.

    Raises:
        JournalError: the file cannot be read, or a line before the last is broken.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise JournalError(f"cannot read {path}: {error.strerror or error}") from error
    records: list[dict[str, Any]] = []
    size = 0
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        whole = number < len(lines)  # the last one lacks its line end
        try:
            record = json.loads(line) if line or whole else None
            if not isinstance(record, dict) or "kind" not in record:
                raise ValueError("not a record")
        except ValueError:
            if not any(rest.strip(b"\0 \r\t") for rest in lines[number:]):
                return records, size
            raise JournalError(
                f"{path}:{number}: not a record of a search, and there are lines after it: the file was edited or damaged. "
                "Cut it before this line to go on from there"
            ) from None
        if not whole:  # torn exactly before the line end: never acknowledged either
            return records, size
        records.append(record)
        size += len(line) + 1
    return records, size


class Journal:
    """A journal that is being written. Without a path, records go nowhere.

    Args:
        path: the file. A lock beside it keeps other searches away for as long as this one lives.

    Attributes:
        records: what the file held when it was opened.

    Raises:
        JournalError: it cannot be read or written, or another search is writing it.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        self._file = -1
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(path.with_name(f".{path.name}.lock"))
        except OSError as error:
            raise JournalError(f"cannot write to {path.parent}: {error.strerror or error}") from error
        try:
            if path.exists():
                self.records, self._size = read_journal(path)
            else:
                self._size = 0
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, 0, os.SEEK_END)
            os.fsync(self._file)
            _sync_folder(path.parent)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise JournalError(f"cannot write {path}: {error.strerror or error}") from error
            raise

    def append(self, record: Mapping[str, Any], *, sync: bool = True) -> None:
        """Add a record; with `sync`, it is on the disk when this returns.

        Raises:
            JournalError: it cannot be written; the file is as before.
        """
        if self._file < 0:
            return
        line = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        try:
            left = line
            while left:
                left = left[os.write(self._file, left) :]
            if sync:
                os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)
            raise JournalError(f"cannot write {self.path}: {error.strerror or error}; what it holds is whole") from error
        self._size += len(line)

    def close(self) -> None:
        """Give the file and its lock back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self.path is not None:
            self._lock.release()


class Lock:
    """A lock that ends with the process, however that ends, and that forked children do not inherit."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._file = -1
        if self._path in _held:
            raise JournalError(f"this process is searching in {path.parent} already")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            import fcntl
        except ImportError:  # Windows: no protection
            pass
        else:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                os.close(self._file)
                raise JournalError(f"another search is running in {path.parent}; stop it, or choose another folder") from None
            except OSError:  # a file system without locks: no protection
                pass
        _held.add(self._path)

    def release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            _held.discard(self._path)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
