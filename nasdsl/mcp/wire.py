"""Standard input and output of the server: a message is a line, and one that is too long is refused before it is parsed."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, Final

MAX_MESSAGE: Final = 4_000_000
"""Bytes of the longest message that is read: the longest text that a tool takes, all of its characters escaped, is shorter."""

_CHUNK: Final = 65_536
_KEPT: Final = 1_000
"""Bytes at the beginning and the end of a message that is too long, which may say what its number is."""

_ID: Final = rb'"id"\s*:\s*(-?\d{1,15}|"[^"\\]{0,200}")\s*'
_VERSION: Final = rb'"jsonrpc"\s*:\s*"2\.0"\s*'
_FIRST: Final = re.compile(rb"\s*\{\s*(?:" + _VERSION + rb",\s*)?" + _ID + rb"[,}]")
_LAST: Final = re.compile(rb"(?<!\\)" + _ID + rb"(?:,\s*" + _VERSION + rb")?\}\s*\Z")

INVALID_REQUEST: Final = -32600
"""JSON-RPC's code."""


class LineReader(io.RawIOBase):
    """Complete lines from a file descriptor, each of at most `MAX_MESSAGE` bytes; longer ones are left out.

    Args:
        refuse: called for each line that is left out, with its length and the number of its request, None where none was found.
    """

    def __init__(self, descriptor: int, refuse: Callable[[int, int | str | None], None]) -> None:
        self._descriptor = descriptor
        self._refuse = refuse
        self._line = bytearray()  # the last line, which has not ended yet; of one that is too long its beginning
        self._end = b""  # of a line that is too long
        self._length = 0
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            chunk = os.read(self._descriptor, _CHUNK)
            self._ready = memoryview(b"".join(self._lines(chunk)))
            if not chunk:
                break
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that end in a chunk, and at the end of all what is left."""
        for piece in io.BytesIO(chunk):
            self._length += len(piece)
            if self._length <= MAX_MESSAGE:
                self._line += piece
            else:
                del self._line[_KEPT:]
                self._end = (self._end + piece)[-_KEPT:]
            if piece.endswith(b"\n"):
                yield self._ended()
        if not chunk and self._length:
            yield self._ended()

    def _ended(self) -> bytes:
        """The line that has ended; nothing for one that is refused."""
        line, end, length = bytes(self._line), self._end, self._length
        self._line, self._end, self._length = bytearray(), b"", 0
        if length <= MAX_MESSAGE:
            return line
        self._refuse(length, _number(line, end))
        return b""


def _number(beginning: bytes, end: bytes) -> int | str | None:
    """The number of the request that a message is, where it stands first or last in it."""
    found = _FIRST.match(beginning) or _LAST.search(end)
    number: int | str | None = json.loads(found[1]) if found is not None else None
    return number


class LineWriter(io.RawIOBase):
    """Whole lines to a file descriptor, from several threads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = Lock()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        left = memoryview(data)
        with self._lock:
            while left:
                left = left[os.write(self._descriptor, left) :]
        return len(data)

    def refuse(self, length: int, number: int | str | None) -> None:
        """Answer a message that is too long."""
        message = f"a message of {length:,} bytes is not read; expected at most {MAX_MESSAGE:,}"
        error = {"code": INVALID_REQUEST, "message": message}
        self.write(json.dumps({"jsonrpc": "2.0", "id": number, "error": error}).encode() + b"\n")


class _Stream:
    """A text stream with another buffer, which is what the protocol's SDK reads and writes."""

    def __init__(self, stream: Any, buffer: Any) -> None:
        self._stream = stream
        self.buffer = buffer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def bounded_stdio() -> Iterator[None]:
    """Standard input and output through `LineReader` and `LineWriter`.

    Meanwhile programs that are started read nothing from the client, and what they print, or a stray `print`, goes to standard
    error.
    """
    stdin, stdout = sys.stdin, sys.stdout
    stdout.flush()
    wire_in, wire_out, nothing = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    writer = LineWriter(wire_out)
    reader: Any = io.BufferedReader(LineReader(wire_in, writer.refuse), _CHUNK)
    streams: Any = _Stream(stdin, reader), _Stream(stdout, writer)
    sys.stdin, sys.stdout = streams
    try:
        yield
    finally:
        sys.stdin, sys.stdout = stdin, stdout
        os.dup2(wire_in, 0)
        os.dup2(wire_out, 1)
