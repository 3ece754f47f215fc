"""A folder that a server was given, and nothing outside of it: for `nasdsl mcp` and `nasdsl studio`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nasdsl.diagnostics import printable
from nasdsl.files import write_bytes

MAX_READ = 16_000_000
"""Bytes of the largest file that is read."""


class FolderError(ValueError):
    """A path outside of the folder, or a file that cannot be written. The message is for the one who asked."""


@dataclass(frozen=True)
class Folder:
    """A folder; paths are relative to it, and links are followed before a path is judged.

    Attributes:
        root: without links.
        is_writable: whether `write` may write.
    """

    root: Path
    is_writable: bool = False

    @classmethod
    def open(cls, path: str | Path, *, is_writable: bool = False) -> Folder:
        """The folder at a path.

        Raises:
            FolderError: it is none.
        """
        root = Path(path).resolve()
        if not root.is_dir():
            raise FolderError(f"{path} is no folder")
        return cls(root, is_writable)

    def path(self, name: str) -> Path:
        """The path of a file or folder within, without links.

        Raises:
            FolderError: it lies outside, or is no path.
        """
        if not name or "\0" in name:
            raise FolderError(f"{printable(name)!r} is no path; expected one relative to the folder {self.root.name!r}")
        if os.path.isabs(name) or name.startswith(("~", "\\")):
            raise FolderError(f"{printable(name)}: expected a path relative to the folder {self.root.name!r}")
        try:
            path = (self.root / name).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a name too long
            raise FolderError(f"{printable(name)}: {getattr(error, 'strerror', None) or error}") from None
        if not path.is_relative_to(self.root):
            raise FolderError(f"{printable(name)} lies outside of the folder {self.root.name!r}, and is not read")
        return path

    def write(self, name: str, text: str) -> Path:
        """Write a ``.nas`` file, whole or not at all.

        Raises:
            FolderError: the server only reads, or the file cannot be written.
        """
        if not self.is_writable:
            raise FolderError("this server only reads; `nasdsl mcp --write` lets it save .nas files")
        path = self.path(name)
        if path.suffix != ".nas" or not name.endswith(".nas"):
            raise FolderError(f"{printable(name)}: expected a name that ends in .nas")
        if path.exists() and not path.is_file():
            raise FolderError(f"{printable(name)} is there, and is no plain file")
        if not path.parent.is_dir():
            raise FolderError(f"{printable(name)}: there is no folder {printable(str(Path(name).parent))!r}")
        try:
            write_bytes(path, text.encode())
        except (OSError, UnicodeEncodeError) as error:
            raise FolderError(f"cannot write {printable(name)}: {getattr(error, 'strerror', None) or error}") from None
        return path
