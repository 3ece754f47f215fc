"""Sections that a decoder takes from other files: ``fpn from "file"``, ``head(width=128) from "file"``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import structure
from nasdsl.semantics import attributes
from nasdsl.semantics.vocabulary import Library, Vocabulary
from nasdsl.syntax import ast

_S = TypeVar("_S", ast.Fpn, ast.Head)


class Origin(NamedTuple):
    """Where a section's text lies: what its words mean, and its folder for further paths."""

    vocabulary: Vocabulary
    folder: Path | None
    lets: dict[str, Any]


class Sections(NamedTuple):
    """A decoder with its sections, each with the place that its words are read in."""

    decoder: ast.Decoder
    origin: Origin
    fpn: tuple[ast.Fpn, Origin]
    head: tuple[ast.Head, Origin]


def take(
    node: _S, origin: Origin, kind: type[_S], library: Library, problems: list[Diagnostic], holes: list[Span]
) -> tuple[_S, Origin] | None:
    """A section, or the one of another decoder that ``from`` names, with attributes changed.

    None, with a diagnostic, where there is no such file or section. `holes` gets those of the other decoder's `let`s.
    """
    if node.source is None:
        return node, origin
    found = library.open(node.source, node.span, origin.folder)
    if found is None:
        return None
    path, file = found
    library.enter(path)
    theirs = Origin(library.vocabulary(file, path.parent), path.parent, {})
    decoder = next((item for item in file.items if isinstance(item, ast.Decoder)), None)
    section = next((item for item in decoder.items if isinstance(item, kind)), None) if decoder else None
    taken = None
    if decoder is None or section is None:
        word = "fpn" if kind is ast.Fpn else "head"
        if not any(p.span.source is file.span.source and p.code < "NAS2" for p in problems):
            problems.append(
                structure.NO_SECTION(node.span, f'"{node.source}" has no `{word}` to take', label="expected a decoder in it")
            )
    else:
        bind_lets(decoder, theirs.lets, problems, holes)
        taken = take(section, theirs, kind, library, problems, holes)
    library.leave()
    if taken is None:
        return None
    inner, place = taken
    own = tuple(_in_own_words(s, origin, problems) for s in node.settings)
    kept = tuple(s for s in inner.settings if s.name not in {s.name for s in own})
    return replace(inner, settings=kept + own), place


def _in_own_words(setting: ast.Setting, origin: Origin, problems: list[Diagnostic]) -> ast.Setting:
    """An attribute set beside ``from``, its words read where it stands: the section is read with those of its file."""
    value = attributes.evaluate(setting.value, origin.lets, problems)
    span = setting.value.span
    if isinstance(value, int | float):
        return replace(setting, value=ast.Number(span, value, str(value)))
    return replace(setting, value=ast.Reference(span, value)) if isinstance(value, str) else setting


def bind_lets(decoder: ast.Decoder, lets: dict[str, Any], problems: list[Diagnostic], holes: list[Span]) -> None:
    """Enter the values of a decoder's own `let`s."""
    for item in decoder.items:
        if isinstance(item, ast.Let):
            bind_let(item, lets, problems, holes)


def bind_let(node: ast.Let, words: dict[str, Any], problems: list[Diagnostic], holes: list[Span]) -> None:
    """Enter what a `let` binds: a number or a word; `holes` gets its hole, if it is one."""
    if isinstance(node.value, ast.NamedHole | ast.ChoiceHole | ast.RangeHole):
        holes.append(node.value.span)
    words[node.name] = attributes.evaluate(node.value, words, problems)


def resolve_sections(file: ast.File, path: Path | None = None) -> Sections | None:
    """The sections of a file that checks; None where it holds no decoder."""
    folder = path.resolve().parent if path is not None else None
    library = Library(folder, [])
    if path is not None:
        library.enter(path.resolve())
    decoder = next((item for item in file.items if isinstance(item, ast.Decoder)), None)
    if decoder is None:
        return None
    origin = Origin(library.vocabulary(file, folder), folder, {})
    found: list[Any] = []
    for kind in (ast.Fpn, ast.Head):
        node = next((item for item in decoder.items if isinstance(item, kind)), None)
        found.append(None if node is None else take(node, origin, kind, library, [], []))
    return None if None in found else Sections(decoder, origin, found[0], found[1])
