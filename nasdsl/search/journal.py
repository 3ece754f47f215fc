"""The journal of a search: an append-only file of JSON lines, each synced to disk before the search goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nasdsl.search.errors import JournalError
from nasdsl.search.lock import Lock

FORMAT: Final = "nasdsl search 1"


def read_journal(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Read the records of a journal.

    An incomplete last line, left by a kill or a power cut, is ignored: it was never acknowledged, so nothing is lost.

    Returns:
        The records, and how many bytes of the file they take.

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
        complete = number < len(lines)  # the last one has no newline
        try:
            record = json.loads(line) if line or complete else None
            if not isinstance(record, dict) or "kind" not in record:
                raise ValueError("not a record")
        except ValueError:
            if not any(rest.strip(b"\0 \r\t") for rest in lines[number:]):
                return records, size
            raise JournalError(
                f"{path}:{number}: not a record of a search, and lines follow it: the file was edited or damaged. "
                "Remove this line and those after it to resume from there"
            ) from None
        if not complete:  # torn exactly before the newline: never acknowledged either
            return records, size
        records.append(record)
        size += len(line) + 1
    return records, size


class Journal:
    """A journal open for appending.

    Args:
        path: the file. A lock beside it keeps other searches out while the journal is open. None writes nothing.

    Attributes:
        records: those in the file when it was opened.

    Raises:
        JournalError: the file cannot be read or written, or another search is writing it.
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
        """Append a record.

        Args:
            sync: return only when it is on the disk.

        Raises:
            JournalError: it cannot be written; the file is unchanged.
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
            raise JournalError(
                f"cannot write {self.path}: {error.strerror or error}; its earlier records are complete"
            ) from error
        self._size += len(line)

    def close(self) -> None:
        """Close the file and release its lock."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self.path is not None:
            self._lock.release()


def _sync_folder(folder: Path) -> None:
    """Make the creation of a file in it durable."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
