"""Renaming of what a text defines. What would change its meaning is refused, with the reason."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from lsprotocol.types import PrepareRenameParams, PrepareRenamePlaceholder, RenameParams, TextEdit, WorkspaceEdit

from nasdsl.diagnostics import Source
from nasdsl.lsp.analysis import Analysis, prelude_source
from nasdsl.lsp.documents import Document, Documents
from nasdsl.lsp.navigation import places_of
from nasdsl.semantics import primitives
from nasdsl.semantics.resolved_names import Occurrence, Symbol
from nasdsl.semantics.vocabulary import prelude
from nasdsl.syntax.lexer import RESERVED

_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_OPS = ("op", "agg", "shared", "block")


class Refused(Exception):
    """A renaming that is refused. The message says why."""


def prepare_rename(documents: Documents, document: Document, params: PrepareRenameParams) -> PrepareRenamePlaceholder:
    """The part of the name under the cursor that can be renamed: of a numbered one, what stands before the number.

    Raises:
        Refused: nothing can be renamed here.
    """
    analysis = document.analysis
    occurrence = _occurrence(analysis, params.position)
    stem = _stem(analysis, occurrence)
    start = occurrence.span.start
    return PrepareRenamePlaceholder(analysis.lines.range(start, start + len(stem)), stem)


def rename(documents: Documents, document: Document, params: RenameParams) -> WorkspaceEdit:
    """Edits of all places that name what is under the cursor, also in files of the workspace that use this one.

    Raises:
        Refused: it cannot be renamed, or the new name would change what a text means.
    """
    analysis = document.analysis
    occurrence = _occurrence(analysis, params.position)
    stem, name = _stem(analysis, occurrence), params.new_name.strip()
    if name == stem:
        return WorkspaceEdit()
    places = places_of(documents, document, occurrence.symbols)
    symbols = list({s: None for _, _, _, place in places for s in place.symbols})
    _check_name(analysis, name, symbols)
    edits: dict[str, dict[int, TextEdit]] = {}
    cuts: dict[Path | None, dict[int, tuple[int, str]]] = {}
    analyses: dict[int, Analysis] = {}
    for owner, lines, uri, place in places:
        start = place.span.start
        edits.setdefault(uri, {})[start] = TextEdit(lines.range(start, start + len(stem)), name)
        cuts.setdefault(owner.path_of(place.span.source), {})[start] = (start + len(stem), name)
        analyses[id(owner)] = owner
    for owner in analyses.values():
        _check_meaning(documents, owner, cuts)
    return documents.edit({uri: list(found.values()) for uri, found in edits.items()})


def _occurrence(analysis: Analysis, position: Any) -> Occurrence:
    """The name under the cursor, of something that this text defines."""
    if analysis.has_syntax_errors:
        raise Refused("the text has syntax errors; mend them before renaming")
    occurrence = analysis.name_at(analysis.lines.offset(position))
    if occurrence is None:
        raise Refused("there is no name here that the text defines")
    for symbol in occurrence.symbols:
        if symbol.kind == "input":
            raise Refused(f"`{symbol.name}` is a feature of the backbone: its name says which")
        if symbol.kind == "output":
            raise Refused(f"`{symbol.name}` is a level of the pyramid: its name says which")
        if symbol.span is None:
            raise Refused(f"`{symbol.name}` is a {_KINDS.get(symbol.kind, 'word')} of the language, and cannot be renamed")
        if symbol.span.source is prelude_source():
            raise Refused(f"`{symbol.name}` is of the vocabulary that every text has (prelude.nas), and cannot be renamed")
        if symbol.span.source is not analysis.source:
            file = symbol.span.source.name.replace("\\", "/").rpartition("/")[2]
            raise Refused(f"`{symbol.name}` is defined in {file}; rename it there")
        if symbol.kind == "attribute" and symbol.name in primitives.SECTION:
            raise Refused(f"`{symbol.name}` sets the section's attribute of this name for what is called; it cannot be renamed")
    return occurrence


_KINDS = {"primitive": "primitive", "section": "section attribute", "setting": "built-in attribute", "prediction": "prediction"}


def _stem(analysis: Analysis, occurrence: Occurrence) -> str:
    """The part of a name that is renamed: all of it, but for numbered names (``x[t]``) what stands before the number."""
    family = analysis.names.occurrences_of(occurrence.symbols)
    words = {place.span.text for place in family}
    shortest = min(words, key=len)
    if not all(word == shortest or (word.startswith(shortest) and word[len(shortest) :].isdigit()) for word in words):
        raise Refused("the places of this name are written in different ways")
    return shortest


def _check_name(analysis: Analysis, name: str, symbols: list[Symbol]) -> None:
    """Refuse a name that is none, and one that exists already."""
    if not _NAME.fullmatch(name):
        raise Refused(f"`{name}` is no name: expected letters, digits and `_`, not a digit first")
    kinds = {symbol.kind for symbol in symbols}
    if name in RESERVED and kinds != {"choice"}:
        raise Refused(f"`{name}` is a word of the language")
    if name in primitives.SECTION and kinds & {"attribute", "let", "variable"}:
        raise Refused(f"`{name}` is an attribute of the section, which this would set")
    if kinds & {*_OPS} and (primitives.find(name) is not None or name in prelude().definitions):
        raise Refused(f"`{name}` exists already: it is of the vocabulary that every text has")
    for other in analysis.names.visible(analysis.source, symbols[0].span.start if symbols[0].span else 0):
        if (
            other.name == name
            and (other.kind in _OPS) == bool(kinds & {*_OPS})
            and (other.kind == "choice") == ("choice" in kinds)
        ):
            assert other.span is not None
            raise Refused(f"`{name}` exists already, in line {other.span.line}")
    for occurrence in analysis.names.of(analysis.source):
        for other in occurrence.symbols:
            if other.name == name and any(_same_body(other, symbol) for symbol in symbols):
                raise Refused(f"`{name}` exists already, in line {occurrence.span.line}")


def _same_body(one: Symbol, other: Symbol) -> bool:
    return one.region is not None and other.region is not None and one.region[::2] == other.region[::2]  # source and end


# ------------------------------------------------------------------------------------------- the same meaning as before


def _check_meaning(documents: Documents, before: Analysis, cuts: dict[Path | None, dict[int, tuple[int, str]]]) -> None:
    """Check the renamed text, and refuse if a name in it refers to something else than before, or a finding comes or goes."""

    def read(path: str | Path, *, name: str | None = None) -> Source:
        source = documents.read(path, name=name)
        return Source(source.name, _renamed(source.text, _cuts_of(cuts, Path(path))))

    text = _renamed(before.text, _cuts_of(cuts, before.path))
    after = Analysis(text, before.source.name, before.path, read, before.settings, before.encoding)
    old, new = dict(_facts(before, cuts)), dict(_facts(after, {}))
    if old != new:
        places = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        line = min((line for key in places if (line := _line(after, key))), default=0)
        where = f" (see line {line})" if line else ""
        raise Refused(f"with this name the text would mean something else{where}")


def _facts(analysis: Analysis, cuts: dict[Path | None, dict[int, tuple[int, str]]]) -> Iterator[tuple[Any, Any]]:
    """What names refer to, and findings, by their places in the text with its `cuts` made."""

    shifts: dict[int, tuple[str, list[int], list[int]]] = {}  # of each source: its path, where it is cut, by how much it moves

    def place(source: Source, start: int) -> tuple[str, int]:
        if id(source) not in shifts:
            path = analysis.path_of(source)
            made = sorted(_cuts_of(cuts, path).items())
            longer = accumulate((len(new) - (end - at) for at, (end, new) in made), initial=0)
            shifts[id(source)] = str(path), [at for at, _ in made], list(longer)
        name, starts, moves = shifts[id(source)]
        return name, start + moves[bisect_left(starts, start)]

    for occurrence in analysis.names.occurrences.values():
        if occurrence.span.source is prelude_source():  # its bodies are entered once, by whichever text calls them first
            continue
        meant: set[tuple[Any, ...]] = set()
        for symbol in occurrence.symbols:
            if symbol.span is None:
                meant.add((symbol.kind, symbol.owner, symbol.name))
            else:
                meant.add((symbol.kind, *place(symbol.span.source, symbol.span.start)))
        yield place(occurrence.span.source, occurrence.span.start), meant
    for number, problem in enumerate(analysis.problems):
        yield ("finding", number), (problem.code, place(problem.span.source, problem.span.start))


def _line(analysis: Analysis, key: Any) -> int:
    path, start = key
    return analysis.source.span(start, start).line if path == str(analysis.path) and isinstance(start, int) else 0


def _cuts_of(cuts: dict[Path | None, dict[int, tuple[int, str]]], path: Path | None) -> dict[int, tuple[int, str]]:
    if path is None:
        return cuts.get(None, {})
    return next((found for other, found in cuts.items() if other is not None and other.resolve() == path.resolve()), {})


def _renamed(text: str, cuts: dict[int, tuple[int, str]]) -> str:
    for start in sorted(cuts, reverse=True):
        end, new = cuts[start]
        text = text[:start] + new + text[end:]
    return text
