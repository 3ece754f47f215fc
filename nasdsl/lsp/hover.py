"""Hover: level, shape, width and costs of a value; what an op, an attribute or a word of the language is."""

from __future__ import annotations

from lsprotocol.types import Hover, HoverParams, MarkupContent, MarkupKind

from nasdsl.diagnostics import Span
from nasdsl.layers import UNKNOWN_WIDTH, Feature
from nasdsl.lsp import describe
from nasdsl.lsp.analysis import Analysis
from nasdsl.lsp.documents import Document, Documents
from nasdsl.lsp.figures import Amount
from nasdsl.lsp.structure import statement_of
from nasdsl.predictions import find_kind
from nasdsl.predictions.kind import checked_maps
from nasdsl.report.formatting import amount as shown
from nasdsl.report.formatting import percent
from nasdsl.semantics.attributes import Accepts
from nasdsl.semantics.infer_prediction import COMMON, kind_attributes
from nasdsl.semantics.resolved_names import Symbol
from nasdsl.spaces.size import space_size
from nasdsl.syntax import ast


def hover(documents: Documents, document: Document, params: HoverParams) -> Hover | None:
    analysis = document.analysis
    offset = analysis.lines.offset(params.position)
    occurrence = analysis.name_at(offset)
    if occurrence is not None:
        parts = [describe_symbol(analysis, symbol, occurrence.span) for symbol in occurrence.symbols[:6]]
        text = "\n\n---\n\n".join(dict.fromkeys(part for part in parts if part))
        return _made(analysis, text, occurrence.span)
    token = next((t for t in analysis.tokens if t.start <= offset <= t.end and t.value in describe.KEYWORDS), None)
    if token is None or token.type == "NAME":
        return None
    parts = [describe.KEYWORDS[token.value]]
    if token.type in ("FPN", "HEAD"):
        parts.append(section_cost(analysis, token.value))
    return _made(analysis, "\n\n".join(part for part in parts if part), token.span)


def _made(analysis: Analysis, text: str, span: Span) -> Hover | None:
    if not text:
        return None
    return Hover(MarkupContent(MarkupKind.Markdown, text), analysis.lines.range_of(span))


def describe_symbol(analysis: Analysis, symbol: Symbol, place: Span) -> str:
    """What a name refers to, as Markdown; `place` is where it stands."""
    kind, name = symbol.kind, symbol.name
    if kind in ("value", "input", "output"):
        return _value(analysis, symbol, place)
    if kind in ("op", "agg", "shared", "block", "choice"):
        text = describe.definition(symbol)
        step = _step_at(analysis, place)
        return "\n\n".join(part for part in (text, step) if part)
    if kind == "primitive":
        return "\n\n".join(part for part in (describe.primitive(symbol.meaning), _step_at(analysis, place)) if part)
    if kind in ("parameter", "attribute"):
        what = "operand" if kind == "parameter" else "attribute"
        return f"{describe.code(symbol.meaning.span.text)}\n\n{what} of what is defined here"
    if kind in ("let", "variable"):
        node = symbol.meaning
        text = node.span.text if kind == "let" else node.span.text.partition("{")[0].strip()
        return describe.code(" ".join(text.split()))
    if kind == "section":
        return f"{describe.attribute(name, symbol.meaning)}\n\nThe attribute of the section that contains the call."
    if kind == "setting":
        return describe.attribute(name, symbol.meaning) + (f" (of `{symbol.owner}`)" if symbol.owner else "")
    if kind == "word":
        accepts = symbol.meaning
        return f"`{name}`, a value of {describe.attribute(symbol.owner, accepts)}" if isinstance(accepts, Accepts) else ""
    if kind == "decoder":
        return whole_cost(analysis)
    if kind == "prediction":
        return _prediction(analysis, name)
    if kind == "pool":
        return "`?pool`: any value that is bound above."
    return describe.TOWERS.get(name) or describe.QUANTITIES.get(name) or ""


# ---------------------------------------------------------------------------------------------------------- values


def _value(analysis: Analysis, symbol: Symbol, place: Span) -> str:
    statement = None if symbol.span is None else statement_of(analysis, symbol.span)
    parts = []
    if symbol.kind == "input":
        parts.append(describe.code(f"input {symbol.name}"))
    elif statement is not None:
        parts.append(describe.code(_short(statement.text)))
    features = of_symbol(analysis, symbol)
    if features:
        parts.append("  \n".join(_described(analysis, f) for f in features[:4]) + ("  \n…" if len(features) > 4 else ""))
    elif statement is not None and _is_in(analysis, ast.BlockDef, statement):
        parts.append("Its level and width depend on the call of the block.")
    amount = None if statement is None else analysis.figures.amount(statement)
    if amount is not None:
        parts.append(_cost(analysis, amount))
    if symbol.kind == "input" and amount is not None:
        parts[-1] += ", for its adapter"
    return "\n\n".join(parts)


def of_symbol(analysis: Analysis, symbol: Symbol) -> list[Feature]:
    """Level and width of a value, at all places that bind it."""
    found: dict[Feature, None] = {}
    for occurrence in analysis.names.of(analysis.source):
        if occurrence.is_definition and symbol in occurrence.symbols:
            for place, features in analysis.figures.features.items():
                if place[0] is analysis.source and place[1] == occurrence.span.start:
                    found.update(features)
    return list(found)


def _described(analysis: Analysis, feature: Feature) -> str:
    shape = analysis.figures.shape(feature)
    width = "a width that the backbone gives" if feature.width == UNKNOWN_WIDTH else f"width {feature.width}"
    level = "no level (globally pooled)" if feature.level is None else f"level {feature.level}, stride {1 << feature.level}"
    return f"{level}, {width}: `{shape}`"


def _cost(analysis: Analysis, amount: Amount) -> str:
    figures = analysis.figures
    total = figures.table.total.macs if figures.table is not None else 0
    share = f" ({percent(amount.macs / total)})" if total and amount.macs >= 0.005 * total else ""
    return f"{shown(amount.macs)} MACs{share}, {shown(amount.params)} params, {_conditions(analysis)}"


def _conditions(analysis: Analysis) -> str:
    height, width = analysis.figures.size
    return f"on {analysis.figures.backbone} at {height}x{width}"


def _short(text: str) -> str:
    lines = text.split("\n")
    return text if len(lines) <= 6 else "\n".join([*lines[:5], "  …"])


def _step_at(analysis: Analysis, place: Span) -> str:
    """The cost of a layer of the head that begins here."""
    for (source, start, _), amount in analysis.figures.amounts.items():
        if source is place.source and start == place.start and amount.times and _is_in(analysis, ast.Head, place):
            return f"This layer, at all levels: {_cost(analysis, amount)}"
    return ""


def _is_in(analysis: Analysis, kind: type[ast.BlockDef | ast.Head], place: Span) -> bool:
    parts = [*analysis.file.items, *(() if analysis.decoder is None else analysis.decoder.items)]
    return any(isinstance(part, kind) and part.span.start < place.start < part.span.end for part in parts)


# ---------------------------------------------------------------------------------------------------- whole parts


def section_cost(analysis: Analysis, section: str) -> str:
    """What the fpn or the head costs; empty where it is not known."""
    figures = analysis.figures
    if figures.table is None:
        return ""
    part = figures.table.fpn if section == "fpn" else figures.table.head
    share = figures.share(part)
    return f"{shown(part.macs)} MACs ({percent(share or 0)}), {shown(part.params)} params, {_conditions(analysis)}"


def whole_cost(analysis: Analysis) -> str:
    """Costs of a decoder by part; of a space, its size."""
    figures = analysis.figures
    if figures.space is not None:
        decisions, fillings = figures.space
        return f"A search space of {decisions:,} decisions and {space_size(fillings)} decoders"
    table = figures.table
    if table is None:
        return ""
    rows = [
        f"| {name} | {shown(part.macs)} | {shown(part.params)} | {percent(figures.share(part) or 0)} |"
        for name, part in (
            ("backbone", table.backbone), ("fpn", table.fpn), ("head", table.head), ("**total**", table.total),
        )
    ]  # fmt: skip
    lines = ["| part | MACs | params | share |", "|---|--:|--:|--:|", *rows]
    return "\n".join(lines) + f"\n\n{_conditions(analysis)}, 80 classes"


def _prediction(analysis: Analysis, name: str) -> str:
    cls = find_kind(name)
    if cls is None:
        return ""
    accepted = {**kind_attributes(cls), **COMMON}
    fields = "\n".join(f"- {describe.attribute(name, accepts)}" for name, accepts in accepted.items())
    parts = [describe.code(f"predict {name}"), " ".join((cls.__doc__ or "").split("\n\n")[0].split()), fields]
    figures = analysis.figures
    if figures.graph is not None and figures.table is not None:
        maps = {m.name for m in checked_maps(figures.graph.predict)}
        rows = [row for row in figures.table.nodes if row.name in maps]
        lines = [f"| {row.name} | {shown(row.macs)} | {shown(row.params)} |" for row in rows]
        parts.append("\n".join(["| map | MACs | params |", "|---|--:|--:|", *lines]))
    return "\n\n".join(part for part in parts if part)
