"""Inlay hints: shapes behind the names that a statement binds, and the share of the cost that a section has."""

from __future__ import annotations

from lsprotocol.types import InlayHint, InlayHintKind, InlayHintParams, MarkupContent, MarkupKind

from nasdsl.diagnostics import Span
from nasdsl.lsp.analysis import Analysis
from nasdsl.lsp.documents import Document, Documents
from nasdsl.lsp.structure import bound_names
from nasdsl.report.formatting import amount, percent
from nasdsl.syntax import ast

MOST_SHAPES = 2
"""Shapes of one name that are written out; a name with more has as many turns, or alternatives, that differ."""


def inlay_hints(documents: Documents, document: Document, params: InlayHintParams) -> list[InlayHint]:
    analysis = document.analysis
    first, last = analysis.lines.offset(params.range.start), analysis.lines.offset(params.range.end)
    decoder = analysis.decoder
    hints: list[InlayHint] = []
    for item in () if decoder is None else decoder.items:
        if isinstance(item, ast.Fpn | ast.Head):
            hints += _section(analysis, item, first, last)
        if isinstance(item, ast.Fpn):
            for _, name, _ in bound_names(item.body):
                if first <= name.end <= last:
                    hints += _shape(analysis, name)
    return hints


def _shape(analysis: Analysis, name: Span) -> list[InlayHint]:
    features = analysis.figures.features.get((name.source, name.start, name.end))
    if not features:
        return []
    shapes = list(dict.fromkeys(analysis.figures.shape(feature) for feature in features))
    levels = sorted({"no level" if f.level is None else f"level {f.level}" for f in features})
    label = " or ".join(shapes[:MOST_SHAPES]) + (" …" if len(shapes) > MOST_SHAPES else "")
    return [
        InlayHint(
            analysis.lines.position(name.end),
            f": {label}",
            InlayHintKind.Type,
            tooltip=MarkupContent(MarkupKind.PlainText, f"channels x height x width, {', '.join(levels)}"),
        )
    ]


def _section(analysis: Analysis, item: ast.Fpn | ast.Head, first: int, last: int) -> list[InlayHint]:
    table = analysis.figures.table
    text = analysis.text
    end = item.span.end if item.source is not None else text.find("{", _behind_settings(item), item.span.end) + 1
    if table is None or not end or not first <= end <= last:
        return []
    part = table.fpn if isinstance(item, ast.Fpn) else table.head
    share = analysis.figures.share(part)
    label = f"{amount(part.macs)} MACs ({percent(share or 0)}), {amount(part.params)} params"
    height, width = analysis.figures.size
    tooltip = f"{analysis.figures.backbone}, {height}x{width}; the share is that of backbone, fpn and head together"
    return [
        InlayHint(analysis.lines.position(end), label, padding_left=True, tooltip=MarkupContent(MarkupKind.PlainText, tooltip))
    ]


def _behind_settings(item: ast.Fpn | ast.Head) -> int:
    return max([item.span.start, *(setting.span.end for setting in item.settings)])
