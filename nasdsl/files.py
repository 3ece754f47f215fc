"""Atomic writing of files, and reading of those that a stranger may have made."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Final

MAX_BYTES: Final = 4 << 30
"""Largest file that is read as a whole."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that it has either its old or its complete new content, even if the process or the machine fails.

    It keeps its mode: the new content can be read by whom the old one could. A link in the place of the unfinished file is not
    followed.

    Args:
        write: writes the content to an open file.

    Raises:
        OSError: it cannot be written; the old file is unchanged. It has the file's name.
    """
    unfinished = unfinished_path(path)
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
        with contextlib.suppress(OSError):  # a folder is in its place
            unfinished.unlink()
        # A write has no name, as with a full disk; opening and renaming have that of the unfinished file.
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, unfinished, str(unfinished)):
            error.filename = str(path)
            del error.filename2  # None would be part of its text
        raise
    sync_folder(path.parent)


def put_in_place(unfinished: Path, path: Path) -> None:
    """Rename a file that a library has written to the name that it is for, once its content is on the disk.

    Raises:
        OSError: it cannot be; the old file is unchanged.
    """
    with open(unfinished, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(unfinished, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk; without this a new file can be gone after a power cut."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it where they are missing; they are on the disk when it returns.

    Raises:
        OSError: one cannot be made, or a file is in its place.
    """
    missing = []
    for path in (folder, *folder.parents):
        if path.is_dir():
            break
        missing.append(path)
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def unfinished_path(path: Path) -> Path:
    """Where the content of a file is written before it is renamed; one name, so that a killed process leaves at most one."""
    return path.with_name(f".{path.name}.unfinished")


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file's whole content, as `write_atomically`."""
    write_atomically(path, lambda file: file.write(content))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def open_plain(path: str | Path) -> BufferedReader:
    """Open a file for reading. A stranger's folder may hold a pipe in its place, which never ends, or a link to a device.

    Raises:
        OSError: it cannot be opened, is no plain file, or has more than `MAX_BYTES`.
    """
    file = open(path, "rb", opener=open_without_waiting)  # noqa: SIM115  # it is for the caller to close
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
        file.close()
        large = f"{status.st_size / 1e9:.0f} GB; at most {MAX_BYTES / 1e9:.0f} GB are read"
        raise OSError(errno.EINVAL, large if stat.S_ISREG(status.st_mode) else "not a plain file", str(path))
    return file


def open_without_waiting(path: str, flags: int) -> int:
    """Open a file without waiting for a writer, as a named pipe would."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_bytes(path: str | Path) -> bytes:
    """The content of a plain file; see `open_plain`."""
    with open_plain(path) as file:
        return file.read()


def read_text(path: str | Path) -> str:
    """The content of a plain file in UTF-8, with or without a byte-order mark.

    Raises:
        OSError: see `open_plain`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path).decode("utf-8-sig")


def read_json(path: str | Path) -> Any:
    """The value of a JSON file.

    Raises:
        OSError: see `open_plain`.
        ValueError: see `parse_json`.
    """
    return parse_json(read_bytes(path))


def parse_json(data: str | bytes) -> Any:
    """The value of a JSON text, which may be of a stranger.

    Raises:
        ValueError: it is no JSON, no UTF-8, or nests deeper than Python's stack.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("its lists and objects nest too deeply") from None


def json_lines(data: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The lines of a log that hold a JSON object, and the objects; others, such as one that a kill cut off, are left out.

    Args:
        data: content of the file.
    """
    for line in data.split(b"\n"):
        try:
            value = parse_json(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield line, value
