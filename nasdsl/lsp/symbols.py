"""Symbols: the outline of a text, and definitions of all files of the workspace."""

from __future__ import annotations

from lsprotocol.types import DocumentSymbol, DocumentSymbolParams, Location, SymbolKind, WorkspaceSymbol, WorkspaceSymbolParams
from pygls.uris import from_fs_path

from nasdsl.diagnostics import Source, Span
from nasdsl.lsp.analysis import Analysis
from nasdsl.lsp.documents import Document, Documents
from nasdsl.lsp.files import nas_files
from nasdsl.lsp.positions import Lines
from nasdsl.lsp.structure import bound_names
from nasdsl.semantics.files import UnreadableFile
from nasdsl.syntax import ast
from nasdsl.syntax.parser import parse


def document_symbols(documents: Documents, document: Document, params: DocumentSymbolParams) -> list[DocumentSymbol]:
    analysis = document.analysis
    return [found for item in analysis.file.items if (found := _definition(analysis, item)) is not None]


def _definition(analysis: Analysis, item: ast.Definition) -> DocumentSymbol | None:
    if isinstance(item, ast.Use):
        return None
    if isinstance(item, ast.OpDef):
        return _made(analysis, item.name, SymbolKind.Function, item.span, item.name_span, item.kind)
    if isinstance(item, ast.ChoiceDef):
        detail = f"choice of {len(item.alternatives)}"
        return _made(analysis, item.name, SymbolKind.Enum, item.span, item.name_span, detail)
    if isinstance(item, ast.BlockDef):
        children = _values(analysis, item.body)
        return _made(analysis, item.name, SymbolKind.Class, item.span, item.name_span, "block", children)
    parts = [part for i in item.items if (part := _part(analysis, i)) is not None]
    return _made(analysis, item.name, SymbolKind.Module, item.span, item.name_span, "decoder", parts)


def _part(analysis: Analysis, item: ast.DecoderItem) -> DocumentSymbol | None:
    def named(name: str, kind: SymbolKind, children: list[DocumentSymbol] | None = None, detail: str = "") -> DocumentSymbol:
        word = item.span.head(min(len(name), item.span.end - item.span.start))
        return _made(analysis, name, kind, item.span, word, detail, children)

    if isinstance(item, ast.Fpn):
        return named("fpn", SymbolKind.Namespace, _values(analysis, item.body), item.source or "")
    if isinstance(item, ast.Head):
        towers = [
            _made(analysis, t.label, SymbolKind.Field, t.span, t.span.head(len(t.label)), "")
            for t in item.towers
            if t.label is not None
        ]
        return named("head", SymbolKind.Namespace, towers, item.source or "")
    if isinstance(item, ast.Input):
        return named("input", SymbolKind.Property, None, ", ".join(n.name for n in item.names))
    if isinstance(item, ast.Let):
        return _made(analysis, item.name, SymbolKind.Constant, item.span, item.name_span, "let")
    if isinstance(item, ast.Predict):
        return named("predict", SymbolKind.Property, None, item.detector)
    if isinstance(item, ast.Detector):
        return named("detector", SymbolKind.Property)
    return named("require", SymbolKind.Property, None, " ".join(item.span.text.split())[len("require ") :])


def _values(analysis: Analysis, statements: tuple[ast.Statement, ...]) -> list[DocumentSymbol]:
    """The values, words and shared ops of a body, each name once."""
    found: dict[str, DocumentSymbol] = {}
    outputs = {b.name for s in statements if isinstance(s, ast.Output) for b in s.bindings}
    for name, place, statement in bound_names(statements):
        kind = SymbolKind.Interface if name in outputs else SymbolKind.Variable
        word = place.head(len(name))
        whole = Span(place.source, min(statement.start, place.start), max(statement.end, place.end))
        found.setdefault(name, _made(analysis, name, kind, whole, word, ""))
    for item in statements:
        if isinstance(item, ast.Let | ast.OpDef):
            kind = SymbolKind.Constant if isinstance(item, ast.Let) else SymbolKind.Function
            detail = "let" if isinstance(item, ast.Let) else "shared"
            found.setdefault(item.name, _made(analysis, item.name, kind, item.span, item.name_span, detail))
    return sorted(found.values(), key=lambda s: (s.range.start.line, s.range.start.character))


def _made(
    analysis: Analysis, name: str, kind: SymbolKind, span: Span, word: Span, detail: str,
    children: list[DocumentSymbol] | None = None,
) -> DocumentSymbol:  # fmt: skip
    lines = analysis.lines
    return DocumentSymbol(
        name.strip() or "?", kind, lines.range_of(span), lines.range_of(word), detail or None, children=children
    )


def workspace_symbols(documents: Documents, params: WorkspaceSymbolParams) -> list[WorkspaceSymbol]:
    """Definitions in the workspace's files whose names contain what is asked for."""
    wanted = params.query.lower()
    found: list[WorkspaceSymbol] = []
    for path in nas_files(documents.folders):
        try:
            source = documents.read(path)
        except UnreadableFile:
            continue
        for item in _named_items(source):
            if wanted in item.name.lower():
                kind = {ast.OpDef: SymbolKind.Function, ast.ChoiceDef: SymbolKind.Enum, ast.BlockDef: SymbolKind.Class}
                document = documents.at(path)
                uri = document.uri if document is not None else from_fs_path(str(path)) or ""
                place = Location(uri, Lines(source.text, documents.encoding).range_of(item.name_span))
                found.append(WorkspaceSymbol(place, item.name, kind.get(type(item), SymbolKind.Module)))
    return found


def _named_items(source: Source) -> list[ast.OpDef | ast.ChoiceDef | ast.BlockDef | ast.Decoder]:
    return [i for i in parse(source).file.items if not isinstance(i, ast.Use)]
