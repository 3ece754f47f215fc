"""The file on the disk that the page shows: opened, watched and saved, and never overwritten unseen."""

from __future__ import annotations

import hashlib
import stat
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nasdsl.diagnostics import printable
from nasdsl.files import write_bytes
from nasdsl.folder import Folder, FolderError
from nasdsl.semantics.files import MAX_BYTES
from nasdsl.studio.messages import MAX_TEXT
from nasdsl.studio.settings import BadRequest

MISSING: Final = ""
"""The version of a file that does not exist."""

_MARK: Final = "\ufeff".encode()


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds.

    Attributes:
        version: hash of its bytes; `MISSING` without a file.
        text: with line feeds alone, and without a byte-order mark.
        has_mark: whether the file begins with a byte-order mark.
        has_crlf: whether its lines end as on Windows.
    """

    version: str
    text: str
    has_mark: bool = False
    has_crlf: bool = False

    def encode(self, text: str) -> bytes:
        """The bytes of another text for this file: its lines end as those of the file."""
        data = text.replace("\n", "\r\n") if self.has_crlf else text
        return (_MARK if self.has_mark else b"") + data.encode()


ABSENT: Final = Content(MISSING, "")


@dataclass
class Files:
    """The ``.nas`` files that lie directly in one folder, by name. Nothing outside of it is read or written, links included.

    Attributes:
        folder: where they lie.
    """

    folder: Folder
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def root(self) -> Path:
        return self.folder.root

    def read(self, name: str) -> Content:
        """What a file holds now.

        Raises:
            BadRequest: it is no name of a file in the folder, not a text in UTF-8, or too long.
        """
        path = self._path(name)
        if not path.exists():
            return ABSENT
        try:
            if path.stat().st_size > MAX_BYTES:
                raise BadRequest(f"{name} has more than {MAX_BYTES / 1e6:.0f} MB, and is not opened")
            data = path.read_bytes()
        except FileNotFoundError:  # removed just now
            return ABSENT
        except OSError as error:
            raise BadRequest(f"{name}: {error.strerror or error}") from None
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadRequest(f"{name} is not UTF-8 text at byte {error.start:,}, and is left as it is") from None
        if len(text) > MAX_TEXT:
            raise BadRequest(f"{name} has {len(text):,} characters; at most {MAX_TEXT:,} are opened")
        windows = text.count("\r\n")
        return Content(
            hashlib.sha256(data).hexdigest(),
            text.replace("\r\n", "\n").replace("\r", "\n"),
            data.startswith(_MARK),
            windows > text.count("\n") - windows,
        )

    def open(self, name: str) -> dict[str, Any]:
        """``name``, ``text``, ``version``, and whether it ``exists``."""
        return _as_answer(name, self.read(name))

    def changes(self, name: str, version: str) -> dict[str, Any]:
        """What has become of a file since a version of it: ``{"changed": False}``, or what `open` gives with ``changed``."""
        found = self.read(name)
        return {"changed": False} if found.version == version else {"changed": True, **_as_answer(name, found)}

    def save(self, name: str, text: str, version: str) -> dict[str, Any]:
        """Write a file, whole or not at all, if it is still the version that the writer has seen.

        Returns:
            ``{"saved": True, "version": …}``; or what `open` gives, with ``saved`` false, where the file is another one by now,
            and stays as it is.

        Raises:
            BadRequest: it cannot be written.
        """
        if len(text) > MAX_TEXT:
            raise BadRequest(f"the text has {len(text):,} characters; at most {MAX_TEXT:,} are saved")
        with self._lock:
            found = self.read(name)
            if found.version != version:
                return {"saved": False, **_as_answer(name, found)}
            path = self._path(name)
            try:
                data = found.encode(text)
                write_bytes(path, data)
            except UnicodeEncodeError:
                raise BadRequest("the text holds half of a character, which no file can hold") from None
            except OSError as error:
                raise BadRequest(f"cannot write {name}: {error.strerror or error}") from None
            return {"saved": True, "name": name, "version": hashlib.sha256(data).hexdigest()}

    def _path(self, name: str) -> Path:
        """The path of a file by name.

        Raises:
            BadRequest: it is no plain file in the folder, or one outside through a link.
        """
        shown = printable(name[:80])
        if Path(name).name != name or "\\" in name or not name.endswith(".nas") or name.startswith("."):
            raise BadRequest(f"{shown!r} is no name of a file; expected one such as mine.nas, without a folder")
        try:
            path = self.folder.path(name)
        except FolderError as error:
            raise BadRequest(str(error)) from None
        if path.parent != self.root or path.suffix != ".nas":
            raise BadRequest(f"{shown} is a link to a file of another folder or kind, and is not opened")
        try:
            status = path.stat()
        except FileNotFoundError:
            return path
        except OSError as error:
            raise BadRequest(f"{shown}: {error.strerror or error}") from None
        if not stat.S_ISREG(status.st_mode):
            raise BadRequest(f"{shown} is no plain file")
        return path


def _as_answer(name: str, found: Content) -> dict[str, Any]:
    return {"name": name, "text": found.text, "version": found.version, "exists": found.version != MISSING}
