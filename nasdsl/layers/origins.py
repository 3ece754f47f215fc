"""Registered classes, primitives and kinds of prediction: which package they come from, and how messages name them."""

from __future__ import annotations

import sys
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


def class_path(cls: type) -> str:
    """A class by its module and name."""
    return f"{cls.__module__}.{cls.__qualname__}"


def described(what: str, cls: type, name: str | None = None) -> str:
    """A class in messages: its name in texts, its module and class, and the package and entry point it comes from.

    Args:
        what: ``primitive`` or ``prediction``.
        name: in texts. None: the one that it is registered by, if it is.
    """
    name = name or getattr(cls, "kind", None)
    origin = getattr(cls, "origin", "")
    place = f"{class_path(cls)} of {origin}" if origin else class_path(cls)
    return f"the {what} `{name}` ({place})" if name else place


def is_same_class(old: type, new: type) -> bool:
    """Whether a class is the other one, defined again: its module was reloaded, or is run as a script as well."""

    def file(cls: type) -> object:
        return getattr(sys.modules.get(cls.__module__), "__file__", None) or cls.__module__

    return old.__qualname__ == new.__qualname__ and (old.__module__ == new.__module__ or file(old) == file(new))
