"""Reads the files that reports are made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nasdsl.files import parse_json, read_bytes


class ReportError(ValueError):
    """A folder or file is not what a report is made of; the message says what was expected."""


def read_text(file: Path) -> str:
    """The content of a text file.

    Raises:
        ReportError: it cannot be read.
    """
    try:
        return read_bytes(file).decode()
    except (OSError, UnicodeError) as error:
        raise ReportError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error


def read_object(file: Path, form: str | None = None) -> Mapping[str, Any]:
    """The content of a JSON file that holds an object.

    Args:
        form: what the object has as ``format``. None: anything.

    Raises:
        ReportError: the file cannot be read, is no JSON, or holds something else.
    """
    text = read_text(file)
    try:
        found = parse_json(text)
    except ValueError as error:
        raise ReportError(f"{file} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ReportError(f"{file} holds a {type(found).__name__}; expected an object")
    if form is not None and found.get("format") != form:
        raise ReportError(f"{file} is not of the form {form!r}")
    return found
