"""Reading `.nas` files from disk, within stated limits."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Protocol

from nasdsl import resources
from nasdsl.diagnostics import Source, printable
from nasdsl.files import open_without_waiting
from nasdsl.syntax.encoding import decode

MAX_BYTES = 16_000_000
"""Largest file that is read; the parser's own limit, in characters, is lower."""


class Reader(Protocol):
    """Reads a file; see `read_source`."""

    def __call__(self, path: str | Path, *, name: str | None = None) -> Source: ...


class UnreadableFile(OSError):
    """A file that cannot be read. The message is one line for users."""


def zoo_file(path: str | Path) -> str | Path:
    """The file that ``zoo:NAME`` names, of a decoder or space that comes with the package; any other path as it is.

    Raises:
        UnreadableFile: there is none of this name.
    """
    prefix, _, name = str(path).partition(":")
    if prefix != "zoo":
        return path
    known = resources.zoo()
    if name not in known:
        raise UnreadableFile(f"the zoo has no {printable(name[:80])!r}; it has {', '.join(known)}")
    return known[name]


def read_source(path: str | Path, *, name: str | None = None) -> Source:
    """Read a text file; ``-`` is standard input. Bytes that are not UTF-8 are kept as `decode` says; parsing reports them.

    Args:
        name: what diagnostics call the file; by default its path.

    Raises:
        UnreadableFile: it is missing, a directory, not a regular file, larger than `MAX_BYTES`, or may not be read.
    """
    if str(path) == "-":
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
        return Source("<stdin>", _decode("<stdin>", data))
    name = name or os.fspath(path)
    printed = printable(name)
    try:
        with open(path, "rb", opener=open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableFile(f"{printed}: not a plain file")
            if status.st_size > MAX_BYTES:
                raise UnreadableFile(
                    f"{printed}: {status.st_size / 1e6:.0f} MB; files of more than {MAX_BYTES / 1e6:.0f} MB are not read"
                )
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UnreadableFile(f"{printed}: no such file") from None
    except IsADirectoryError:
        raise UnreadableFile(f"{printed}: a directory, where a .nas file is expected") from None
    except PermissionError:
        raise UnreadableFile(f"{printed}: no permission to read it") from None
    except UnreadableFile:
        raise
    except (OSError, ValueError) as error:
        raise UnreadableFile(f"{printed}: {getattr(error, 'strerror', None) or error}") from None
    return Source(name, _decode(printed, data))


def _decode(name: str, data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise UnreadableFile(f"{name}: more than {MAX_BYTES / 1e6:.0f} MB")
    return decode(data)
