"""Atomic writing of files."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that it has either its old or its complete new content, even if the process or the machine fails.

    It keeps its mode: the new content can be read by whom the old one could. A link in the place of the unfinished file is not
    followed.

    Args:
        write: writes the content to an open file.

    Raises:
        OSError: it cannot be written; the old file is unchanged. It has the file's name.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")  # one name, so that a killed process leaves at most one
    if unfinished.is_symlink():
        raise OSError(errno.ELOOP, "a link is in its way", str(path))
    try:
        with open(unfinished, "wb") as file:
            with contextlib.suppress(FileNotFoundError):
                os.chmod(unfinished, stat.S_IMODE(path.stat().st_mode))
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None and error.errno is not None:  # of a write: a full disk
            error.filename = str(path)
        raise
    if os.name == "posix":  # so that the new name is on the disk as well
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file's whole content, as `write_atomically`."""
    write_atomically(path, lambda file: file.write(content))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
