"""Loading of installed packages that add primitives and kinds of prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nasdsl.layers.origins import registering

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "nasdsl.primitives"
"""The group of entry points; each names a module that registers custom layers when it is imported."""

PREDICTIONS: Final = "nasdsl.predictions"
"""The same for kinds of prediction."""


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


_failures: dict[str, tuple[PluginFailure, ...]] = {}
"""Entry points that could not be loaded, by group, once it was loaded."""


def load_plugins(group: str = GROUP, registry: Mapping[str, Any] | None = None) -> tuple[PluginFailure, ...]:
    """Import the entry points of a group, once a process.

    An entry point that raises is skipped. Returns those that did.

    Args:
        registry: the registered classes by name; of those that the program has imported before, the origin is noted. None:
            the custom layers.
    """
    if (known := _failures.get(group)) is not None:
        return known
    from importlib.metadata import entry_points  # slow to import, and most texts need no plug-in

    if registry is None:
        from nasdsl.layers.custom import CUSTOM

        registry = CUSTOM
    _failures[group] = ()  # what is imported may read texts itself
    try:
        loaded = (_load(entry, registry) for entry in entry_points(group=group))
        _failures[group] = tuple(failure for failure in loaded if failure is not None)
    except BaseException:  # interrupted: try again the next time
        del _failures[group]
        raise
    return _failures[group]


def _load(entry: EntryPoint, registry: Mapping[str, Any]) -> PluginFailure | None:
    origin = f"{_package(entry)}, entry point `{entry.name}`"
    try:
        with registering(origin):
            entry.load()
        for cls in registry.values():  # of a module that the program has imported before
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
