"""The journal of a search: an append-only file of JSON lines, each synced to disk before the search goes on."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nasdsl.files import make_folder, parse_json, read_bytes, sync_folder
from nasdsl.lock import Lock, LockHeld
from nasdsl.search.errors import JournalError

FORMAT: Final = "nasdsl search 1"
_CHECKSUM: Final = re.compile(rb',"crc":"([0-9a-f]{8})"}$')


def read_journal(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Read the records of a journal.

    An incomplete last line, left by a kill or a power cut, is ignored: it was never acknowledged, so nothing is lost. Each
    line ends in a checksum, so that a changed digit is damage as well. Lines of earlier versions have none.

    Returns:
        The records, and how many bytes of the file they take.

    Raises:
        JournalError: the file cannot be read, or a line before the last is broken.
    """
    try:
        data = read_bytes(path)
    except OSError as error:
        raise JournalError(f"cannot read {path}: {error.strerror or error}") from error
    records: list[dict[str, Any]] = []
    size = 0
    lines = data.split(b"\n")
    with_checksums = False  # from the first line that has one
    for number, line in enumerate(lines[:-1], 1):  # what stands behind the last newline was never acknowledged
        try:
            record, has_checksum = _parse(line)
            if not isinstance(record, dict) or "kind" not in record or (with_checksums and not has_checksum):
                raise ValueError("not a record")
        except ValueError:
            if not any(rest.strip(b"\0 \r\t") for rest in lines[number:]):
                return records, size
            raise JournalError(
                f"{path}:{number}: not a record of a search, and lines follow it: the file was edited or damaged. "
                "Remove this line and those after it to resume from there"
            ) from None
        with_checksums = has_checksum
        records.append(record)
        size += len(line) + 1
    return records, size


def _parse(line: bytes) -> tuple[Any, bool]:
    """The record of a line without its checksum, and whether it has one.

    Raises:
        ValueError: the line is no JSON, or not what its checksum is of.
    """
    line = line.rstrip()  # an editor may have written \r\n
    found = _CHECKSUM.search(line)
    if found is None:
        return parse_json(line), False
    body = line[: found.start()] + b"}"
    if zlib.crc32(body) != int(found[1], 16):
        raise ValueError("not what its checksum is of")
    return parse_json(body), True


def _line(record: Mapping[str, Any]) -> bytes:
    body = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


def lock_folder(path: Path) -> Lock:
    """Lock the folder of a search, by a file beside the one at `path`.

    Raises:
        JournalError: a search is running in the folder.
        OSError: the file cannot be created.
    """
    try:
        return Lock(path.with_name(f".{path.name}.lock"))
    except LockHeld as held:
        if held.here:
            raise JournalError(f"this process is searching in {path.parent} already") from None
        raise JournalError(f"another search is running in {path.parent}; stop it, or choose another folder") from None


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
        self._file: int | None = None
        if path is None:
            return
        try:
            make_folder(path.parent)
            self._lock = lock_folder(path)
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
            sync_folder(path.parent)
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
        if self._file is None:
            return
        line = _line(record)
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

    def sync(self) -> None:
        """Return when all records are on the disk.

        Raises:
            JournalError: they cannot be written.
        """
        if self._file is not None:
            try:
                os.fsync(self._file)
            except OSError as error:
                raise JournalError(f"cannot write {self.path}: {error.strerror or error}") from error

    def close(self) -> None:
        """Close the file and release its lock."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if self.path is not None:
            self._lock.release()
