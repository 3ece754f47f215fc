"""Loading of installed packages that add primitives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "nasdsl.primitives"
"""The group of entry points; each names a module that registers custom layers when it is imported."""


class PluginFailure(NamedTuple):
    """An entry point that could not be loaded.

    Attributes:
        name: of the entry point.
        package: the distribution that announces it, with its version.
        error: the exception, on one line.
    """

    name: str
    package: str
    error: str


_failures: tuple[PluginFailure, ...] | None = None


def load_plugins() -> tuple[PluginFailure, ...]:
    """Import the entry points of the group ``nasdsl.primitives``, once a process.

    An entry point that raises is skipped. Returns those that did.
    """
    from importlib.metadata import entry_points  # slow to import, and most texts need no plug-in

    global _failures
    if _failures is None:
        _failures = ()  # what is imported may read texts itself
        try:
            _failures = tuple(failure for entry in entry_points(group=GROUP) if (failure := _load(entry)) is not None)
        except BaseException:  # interrupted: try again the next time
            _failures = None
            raise
    return _failures


def _load(entry: EntryPoint) -> PluginFailure | None:
    from nasdsl.layers.custom import CUSTOM, registering

    origin = f"{_package(entry)}, entry point `{entry.name}`"
    try:
        with registering(origin):
            entry.load()
        for cls in CUSTOM.values():  # of a module that the program has imported before
            if not cls.origin and f"{cls.__module__}.".startswith(f"{entry.module}."):
                cls.origin = origin
    except (Exception, SystemExit) as error:
        return PluginFailure(entry.name, _package(entry), f"{type(error).__name__}: {error}".rstrip(": "))
    return None


def _package(entry: EntryPoint) -> str:
    try:
        name, version = (entry.dist.name, entry.dist.version) if entry.dist is not None else (None, None)
    except Exception:  # metadata that cannot be read
        name = version = None
    return f"{name} {version}" if name else entry.value.partition(":")[0]
