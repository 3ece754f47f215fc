"""Docstrings of the Python interface: what each public name does, and what each of its arguments is."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from website import api

ROOT = Path(__file__).parents[2]
ENTRIES = sorted(set(api.entries()))


def resolve(name: str) -> Any:
    """The object of a dotted name, whose modules may be packages that import their names when they are first used."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise AssertionError(name)


def documented(*docstrings: str | None) -> set[str]:
    """The arguments that docstrings describe: in a section of theirs, or by name in the text, in backquotes."""
    found: set[str] = set()
    for text in map(inspect.cleandoc, filter(None, docstrings)):
        for section in re.findall(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", f"{text}\n", re.MULTILINE):
            for names in re.findall(r"^    ([\w, ]+):(?: |$)", section, re.MULTILINE):
                found |= {name.strip() for name in names.split(",")}
        found |= set(re.findall(r"(?<!`)`(\w+)`(?!`)", text))
    return found


def arguments(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls") and name[0] != "_"]


def faults_of_function(name: str, function: Any, owner: type | None = None) -> Iterator[str]:
    text = function.__doc__
    if owner is not None and not text:  # that of the method which it overrides
        text = inspect.getdoc(getattr(owner, function.__name__))
    if not text:
        yield f"{name}: no docstring"
    elif missing := [a for a in arguments(function) if a not in documented(text)]:
        yield f"{name}: nothing about {', '.join(missing)}"


def faults_of_class(name: str, cls: type) -> Iterator[str]:
    if not cls.__doc__ or cls.__doc__.startswith(f"{cls.__name__}("):  # what dataclasses and named tuples make themselves
        yield f"{name}: no docstring"
        return
    helped = {f.name for f in fields(cls) if f.metadata.get("help")} if is_dataclass(cls) else set()
    known = documented(cls.__doc__, vars(cls)["__init__"].__doc__ if "__init__" in vars(cls) else None) | helped
    if not issubclass(cls, BaseException) and not getattr(cls, "_is_protocol", False):
        missing = [argument for argument in arguments(cls) if argument not in known]
        if missing:
            yield f"{name}: nothing about {', '.join(missing)}"
    for attribute, value in vars(cls).items():
        if attribute.startswith("_"):
            continue
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if isinstance(value, property) or type(value).__name__ == "cached_property":
            getter = value.fget if isinstance(value, property) else value.func
            if not getter.__doc__ and not inspect.getdoc(getattr(cls, attribute)):
                yield f"{name}.{attribute}: no docstring"
        elif inspect.isfunction(function):
            yield from faults_of_function(f"{name}.{attribute}", function, cls)


def faults(name: str, value: Any) -> list[str]:
    if inspect.isclass(value):
        return list(faults_of_class(name, value))
    return list(faults_of_function(name, value)) if inspect.isfunction(value) else []


@pytest.mark.parametrize("module", sorted({name.rpartition(".")[0] for name in ENTRIES}))
def test_arguments_are_documented(module: str) -> None:
    found = [fault for name in ENTRIES if name.rpartition(".")[0] == module for fault in faults(name, resolve(name))]
    assert not found, "\n".join(found)


def test_faults_are_found() -> None:
    class Thing:
        """A thing."""

        def __init__(self, size: int) -> None: ...

        def grow(self, by: int, times: int = 1) -> None:
            """Grow `times` times."""

        def bare(self) -> None: ...

        @property
        def large(self) -> bool: ...

    assert faults("Thing", Thing) == [
        "Thing: nothing about size",
        "Thing.grow: nothing about by",
        "Thing.bare: no docstring",
        "Thing.large: no docstring",
    ]
    Thing.__doc__ = "A thing.\n\n    Args:\n        size: in pixels, at\n            least 1.\n    "
    assert faults("Thing", Thing)[0] == "Thing.grow: nothing about by"


def imported_in_docs() -> set[str]:
    """Names that examples of the pages import from nasdsl."""
    found = set()
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for block in re.findall(r"^```py(?:thon)?\b.*?\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "nasdsl":
                    found |= {f"{node.module}.{alias.name}" for alias in node.names}
                elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "nasdsl":
                    found.add(f"nasdsl.{node.attr}")
    return found


def test_what_pages_import_has_an_entry() -> None:
    entries = {id(resolve(name)) for name in ENTRIES}
    modules = {module.name for module in api.MODULES}
    lacking = []
    for name in sorted(imported_in_docs()):
        value = resolve(name)
        is_module = inspect.ismodule(value) and any(m == name or m.startswith(f"{name}.") for m in modules)
        if id(value) not in entries and not is_module:
            lacking.append(name)
    assert lacking == []
