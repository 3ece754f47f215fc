"""Which package registers classes at the moment: messages about them name it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_origin = ""


def origin() -> str:
    """The package and entry point that are being imported; empty where none are."""
    return _origin


@contextmanager
def registering(origin: str) -> Iterator[None]:
    """Context in which classes are registered for a package and entry point, which messages name."""
    global _origin
    before, _origin = _origin, origin
    try:
        yield
    finally:
        _origin = before
