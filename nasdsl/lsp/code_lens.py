"""Code lens: the size of a search space, or the cost of a decoder, above it."""

from __future__ import annotations

from lsprotocol.types import CodeLens, CodeLensParams, Command

from nasdsl.lsp.analysis import Analysis
from nasdsl.lsp.documents import Document, Documents
from nasdsl.report.formatting import amount
from nasdsl.spaces.size import space_size


def code_lenses(documents: Documents, document: Document, params: CodeLensParams) -> list[CodeLens]:
    analysis = document.analysis
    decoder = analysis.decoder
    title = "" if decoder is None else _title(analysis)
    if decoder is None or not title:
        return []
    return [CodeLens(analysis.lines.range_of(decoder.name_span), Command(title, ""))]


def _title(analysis: Analysis) -> str:
    figures = analysis.figures
    if figures.space is not None:
        decisions, fillings = figures.space
        return f"{decisions:,} decision{'s' * (decisions != 1)}, {space_size(fillings)} decoders"
    if figures.table is None:
        return ""
    height, width = figures.size
    total = figures.table.total
    return f"{amount(total.macs)} MACs, {amount(total.params)} params on {figures.backbone} at {height}x{width}"
