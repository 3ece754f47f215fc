"""Texts that are not UTF-8: found before scanning, so that they give one diagnostic instead of many syntax errors."""

from __future__ import annotations

import codecs
from typing import Final

from nasdsl.diagnostics import Diagnostic, Source, Span
from nasdsl.diagnostics.catalogue import syntax as codes

MAX_ILLEGAL: Final = 32
"""A text with more NULs, or more replacement characters (U+FFFD), is reported as a whole; else each is, by the scanner."""

_SAMPLE = 4096  # bytes of which the encoding is guessed
_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1a\x1b")


def decode(data: bytes) -> str:
    """Decode UTF-8 with or without a byte-order mark.

    Bytes that are not UTF-8 become lone surrogates (``surrogateescape``), which `encoding_error` reports.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("utf-8", errors="surrogateescape")  # the mark stays, so that offsets are those of the file


def encoding_error(source: Source) -> Diagnostic | None:
    """The diagnostic for a text that is not UTF-8, or not text at all; None for a text that can be scanned."""
    text = source.text
    nuls = text.count("\x00")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        at = error.start
    else:
        if nuls <= MAX_ILLEGAL and not (nuls and _encoding_of(text[:_SAMPLE].encode()).startswith("UTF-")):
            return _damage(source)
        at = text.index("\x00")
    try:
        data = text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half a surrogate pair, which no bytes decode to: the scanner reports the character
        return None
    offset = len(text[:at].encode(errors="surrogateescape"))
    encoding = _encoding_of(data[:_SAMPLE])
    help = "save the file as UTF-8"
    if encoding == "UTF-16":
        help += "; PowerShell's `>` writes UTF-16, `Set-Content -Encoding utf8` does not"
    elif encoding == _BINARY:
        help = "expected a text in UTF-8"
    return codes.NOT_UTF8(
        Span(source, at, at + 1), f"not UTF-8 text at byte {offset:,} (0x{data[offset]:02x})",
        label=f"this looks like {encoding}", help=help,
    )  # fmt: skip


_BINARY = "a binary file"


def _damage(source: Source) -> Diagnostic | None:
    """The diagnostic for UTF-8 text that was made from text in another encoding."""
    count = source.text.count("\ufffd")
    if count <= MAX_ILLEGAL:
        return None
    at = source.text.index("\ufffd")
    return codes.NOT_UTF8(
        Span(source, at, at + 1), f"{count:,} replacement characters (U+FFFD)", label="the first of them",
        help="the text was once read in a wrong encoding, which lost characters; go back to an earlier version of the file",
    )  # fmt: skip


def _encoding_of(data: bytes) -> str:
    """What the first bytes of a file that is not UTF-8 look like."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    # ASCII characters in UTF-16 have a NUL as every second byte, in UTF-32 three in four.
    quarters = [data[i::4] for i in range(4)]
    empty = [len(q) >= 2 and q.count(0) >= 0.9 * len(q) for q in quarters]
    if sum(empty) == 3:
        return "UTF-32"
    if empty in ([False, True] * 2, [True, False] * 2):
        return "UTF-16"
    return _BINARY if _CONTROLS.intersection(data) else "Windows-1252, Latin-1 or another encoding of one byte a character"
