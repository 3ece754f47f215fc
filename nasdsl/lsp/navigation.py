"""Definition, references and highlights: where a name is defined, and all places that name the same."""

from __future__ import annotations

from pathlib import Path

from lsprotocol.types import (
    DefinitionParams,
    DocumentHighlight,
    DocumentHighlightKind,
    DocumentHighlightParams,
    Location,
    Position,
    Range,
    ReferenceParams,
)
from pygls.uris import from_fs_path

from nasdsl.lsp.analysis import Analysis
from nasdsl.lsp.documents import Document, Documents
from nasdsl.lsp.files import analyses_of_users
from nasdsl.lsp.positions import Lines
from nasdsl.semantics.resolved_names import Occurrence, Symbol

OF_FILES = ("op", "agg", "block", "choice", "attribute")
"""Kinds of what other files can name."""


def definition(documents: Documents, document: Document, params: DefinitionParams) -> list[Location]:
    """Where a name is defined, also in the vocabulary and in used files; of the path of a file, the file."""
    analysis = document.analysis
    offset = analysis.lines.offset(params.position)
    occurrence = analysis.name_at(offset)
    if occurrence is None:
        return _file_at(analysis, offset)
    found = []
    for symbol in occurrence.symbols:
        place = None if symbol.span is None else documents.place(analysis, symbol.span, document.uri)
        if place is not None and symbol.span is not None:
            found.append(Location(place[0], place[1].range_of(symbol.span)))
    return _distinct(found)


def _file_at(analysis: Analysis, offset: int) -> list[Location]:
    token = next((t for t in analysis.tokens if t.type == "STRING" and t.start <= offset <= t.end), None)
    if token is None or analysis.path is None:
        return []
    path = (analysis.path.parent / token.value[1:-1]).resolve()
    uri = from_fs_path(str(path)) if path in {p.resolve() for p in analysis.files} and path.is_file() else None
    return [] if uri is None else [Location(uri, Range(Position(0, 0), Position(0, 0)))]


def references(documents: Documents, document: Document, params: ReferenceParams) -> list[Location]:
    """All places that name the same; of what a file defines, also those in files of the workspace that use it."""
    analysis = document.analysis
    occurrence = analysis.name_at(analysis.lines.offset(params.position))
    if occurrence is None:
        return []
    found = []
    for _, lines, uri, place in places_of(documents, document, occurrence.symbols):
        if params.context.include_declaration or not place.is_definition:
            found.append(Location(uri, lines.range_of(place.span)))
    return _distinct(found)


def places_of(documents: Documents, document: Document, symbols: list[Symbol]) -> list[tuple[Analysis, Lines, str, Occurrence]]:
    """The places that name these symbols, in this text, the files that it brings in, and files of the workspace that use it.

    What is built in has places in this text alone.
    """
    analysis = document.analysis
    found: list[tuple[Analysis, Lines, str, Occurrence]] = []
    for place in analysis.names.occurrences_of(symbols):
        at = documents.place(analysis, place.span, document.uri)
        if at is not None:
            found.append((analysis, at[1], at[0], place))
    for symbol in symbols:
        if symbol.kind not in OF_FILES or symbol.span is None:
            continue
        home = analysis.path_of(symbol.span.source)
        if home is None:
            continue
        for uri, other in analyses_of_users(documents, home):
            if uri == document.uri:
                continue
            for theirs in _same(other, symbol, home):
                for place in other.names.occurrences_of([theirs]):
                    at = documents.place(other, place.span, uri)
                    if at is not None:
                        found.append((other, at[1], at[0], place))
    return found


def _same(analysis: Analysis, symbol: Symbol, home: Path) -> list[Symbol]:
    """The symbols of another analysis that stand for a definition of a file."""
    assert symbol.span is not None
    found = []
    for candidate in {s for o in analysis.names.occurrences.values() for s in o.symbols}:
        span = candidate.span
        if candidate.name != symbol.name or candidate.kind != symbol.kind or span is None or span.start != symbol.span.start:
            continue
        path = analysis.path_of(span.source)
        if path is not None and path.resolve() == home.resolve():
            found.append(candidate)
    return found


def highlights(documents: Documents, document: Document, params: DocumentHighlightParams) -> list[DocumentHighlight]:
    """All places in the text that name the same as the one under the cursor."""
    analysis = document.analysis
    occurrence = analysis.name_at(analysis.lines.offset(params.position))
    if occurrence is None:
        return []
    return [
        DocumentHighlight(
            analysis.lines.range_of(place.span),
            DocumentHighlightKind.Write if place.is_definition else DocumentHighlightKind.Read,
        )
        for place in analysis.names.occurrences_of(occurrence.symbols)
        if place.span.source is analysis.source
    ]


def _distinct(locations: list[Location]) -> list[Location]:
    return list({(loc.uri, loc.range.start.line, loc.range.start.character): loc for loc in locations}.values())
