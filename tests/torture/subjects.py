"""All subjects, by name. A module of this package with a `SUBJECT` is one."""

from __future__ import annotations

from importlib import import_module

from torture.subject import Subject

MODULES = {
    name: f"torture.{name}"
    for name in (
        "fuzz", "guided", "spaces", "differential", "mutated", "resumed", "strangers", "crashes", "kills", "workers",
        "pictures", "metrics", "targets", "finite",
    )
}  # fmt: skip


def subject(name: str) -> Subject:
    """The subject of a name; its module, and torch where that needs it, is imported only then."""
    found: Subject = import_module(MODULES.get(name, name)).SUBJECT  # another name is that of a module: those of the tests
    return found
