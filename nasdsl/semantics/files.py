"""Reading `.nas` files from disk, within stated limits."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from nasdsl.diagnostics import Source, printable

MAX_BYTES = 16_000_000
"""Largest file that is opened; the parser's own limit on characters is lower."""


class UnreadableFile(OSError):
    """A file that cannot be read as text; the message is one line, without a traceback's help."""


def read_source(path: str | Path, *, name: str | None = None) -> Source:
    """The text of a file; ``-`` is standard input. Bytes that are not UTF-8 become U+FFFD, which the scanner reports.

    Raises:
        UnreadableFile: missing, a directory, no permission, no plain file, or larger than `MAX_BYTES`.
    """
    if str(path) == "-":
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
        return Source("<stdin>", _decode("<stdin>", data))
    where = name or os.fspath(path)
    says = printable(where)
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableFile(f"{says}: not a plain file")
            if status.st_size > MAX_BYTES:
                raise UnreadableFile(
                    f"{says}: {status.st_size / 1e6:.0f} MB; files of more than {MAX_BYTES / 1e6:.0f} MB are not read"
                )
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UnreadableFile(f"{says}: no such file") from None
    except IsADirectoryError:
        raise UnreadableFile(f"{says}: a directory, where a .nas file is expected") from None
    except PermissionError:
        raise UnreadableFile(f"{says}: no permission to read it") from None
    except UnreadableFile:
        raise
    except (OSError, ValueError) as error:
        raise UnreadableFile(f"{says}: {getattr(error, 'strerror', None) or error}") from None
    return Source(where, _decode(says, data))


def _open_without_waiting(path: str, flags: int) -> int:
    """Open so that a named pipe without a writer does not block for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _decode(name: str, data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise UnreadableFile(f"{name}: more than {MAX_BYTES / 1e6:.0f} MB")
    return data.decode("utf-8-sig", errors="replace")
