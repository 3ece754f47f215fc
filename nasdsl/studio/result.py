"""What the compiler says of a text: findings, picture, costs, and of a search space its size and a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from nasdsl.backbones import TIMM
from nasdsl.backbones import backbone as find_backbone
from nasdsl.backends import diagrams
from nasdsl.backends.cost import CostTable, cost
from nasdsl.backends.requirements import DEFAULT_SIZE, quantity_of
from nasdsl.decoder import REFERENCE_BACKBONE, Decoder, check_source, load_source
from nasdsl.diagnostics import DiagnosticError, Source, Span, is_message
from nasdsl.ir import Graph
from nasdsl.semantics.check import Checked
from nasdsl.spaces import Space, load_space_source
from nasdsl.studio.picture import picture
from nasdsl.studio.places import Places
from nasdsl.studio.settings import Settings
from nasdsl.syntax import ast
from nasdsl.syntax.formatter import format_text
from nasdsl.syntax.rewriting import with_width

CLASSES: Final = 80
"""Object classes that costs are counted for."""

ATTEMPTS: Final = 2_000
"""Fillings that are drawn for a sample at the most."""

MAX_LAYERS: Final = 4_000
"""Layers of the largest decoder that is drawn."""

MAX_SHOWN: Final = 200
"""Findings that are listed; the others are counted."""


class NoFigures(ValueError):
    """Why there is neither picture nor cost. The message is one line."""


def check(
    source: Source, settings: Settings, *, path: Path | None = None, root: Path | None = None, view: int = 0, seed: int = 0
) -> dict[str, Any]:
    """Check a text, and draw and count the decoder in it, or a sample of the space. Never raises for a text.

    Args:
        path, root: where the text lies, and the folder that files which it uses must not leave; see `check_source`.
        view: which of the picture's views is drawn; see `nasdsl.studio.picture.picture`.
        seed: of the sample of a space.

    Returns:
        ``diagnostics``, ``errors``, ``warnings``, and ``kind``: ``decoder``, ``space``, ``definitions`` (the text has
        neither), or ``broken`` (it has errors). A decoder has ``name``, ``digest``, ``backbone``, ``size``, ``classes``,
        ``cost`` by part, ``rows`` by value, ``removed`` and ``picture``, or else ``problem``, which says why not. A space has
        ``space`` beside these, which are those of its sample.
    """
    checked = check_source(source, path=path, root=root)
    errors = sum(problem.severity == "error" for problem in checked.problems)
    result: dict[str, Any] = {
        "diagnostics": _shown(checked, source),
        "errors": errors,
        "warnings": len(checked.problems) - errors,
        "kind": "broken",
    }
    if errors:
        return result
    if checked.architecture is None or checked.program is None:
        return {**result, "kind": "definitions"}
    try:
        if checked.program.decisions:
            result["kind"] = "space"
            space = load_space_source(source, path, backbone=settings.backbone, classes=CLASSES, root=root, checked=checked)
            if settings.width is not None:
                space = space.with_width(settings.width)
            result["space"] = _described(space)
            decoder, text = _sample(space, seed)
            result["space"] |= {"sample": text, "seed": seed}
            return result | _figures(decoder, settings, view, None)
        result["kind"] = "decoder"
        decoder = Decoder(checked.architecture, source, path)
        if settings.width is not None:
            decoder = load_source(with_width(source, settings.width), path, root)
        return result | _figures(decoder, settings, view, decoder.source)
    except DiagnosticError as error:
        at = f"at width {settings.width}: " if settings.width is not None else ""
        return result | {"problem": at + "; ".join(f"{d.message} (line {d.span.line})" for d in error.diagnostics[:3])}
    except ValueError as error:
        if not is_message(error):
            raise
        return result | {"problem": str(error)}


def graph_of(decoder: Decoder, settings: Settings) -> tuple[Graph, CostTable]:
    """The graph of a decoder for a backbone, and its cost.

    Raises:
        NoFigures: the backbone is a model of timm.
        DiagnosticError, MissingFeature: see `Decoder.lower`.
    """
    name = settings.backbone or decoder.backbone or REFERENCE_BACKBONE
    if name.startswith(TIMM):
        raise NoFigures(
            f"torch counts {name}, and is not loaded here: `nasdsl compile` shows its costs; choose another backbone"
        )
    found = find_backbone(name)
    graph = decoder.lower(found.out_channels)
    return graph, cost(graph, settings.size or decoder.size or DEFAULT_SIZE, CLASSES, found)


def _figures(decoder: Decoder, settings: Settings, view: int, shown: Source | None) -> dict[str, Any]:
    """Costs and picture. `shown` is the text whose lines the page has on the screen; None where it has another one."""
    result: dict[str, Any] = {
        "name": decoder.name,
        "digest": decoder.digest,
        "backbone": settings.backbone or decoder.backbone or REFERENCE_BACKBONE,
        "classes": CLASSES,
    }
    graph, table = graph_of(decoder, settings)
    result["size"] = "x".join(map(str, table.size))
    parts = {"total": table.total, "backbone": table.backbone, "fpn": table.fpn, "head": table.head}
    result["cost"] = {name: {"macs": part.macs, "params": part.params} for name, part in parts.items()}
    result["removed"] = [
        {"name": r.name, "macs": r.macs, "params": r.params, "line": r.line if r.span.source is shown else None}
        for r in table.removed
    ]
    if len(graph.nodes) > MAX_LAYERS:
        return result | {"problem": f"{decoder.name} has {len(graph.nodes):,} layers; at most {MAX_LAYERS:,} are drawn"}
    return result | picture(diagrams.fold_graph(graph, table), view, shown)


# ------------------------------------------------------------------------------------------------------- spaces


def _described(space: Space) -> dict[str, Any]:
    from nasdsl.spaces.size import space_size

    return {
        "name": space.name,
        "fillings": space_size(space.size),
        "exactly": f"{space.size:,}" if space.size < 10**30 else "",
        "requirements": [f"{quantity_of(r)} {r.comparison} {r.bound.text}" for r in space.program.requirements],
        "decisions": [
            {
                "name": domain.role or domain.name or domain.kind,
                "alternatives": list(domain.alternatives[:60]),
                "count": domain.size,
                "line": domain.span.line if domain.span.source is space.source else None,
            }
            for domain in space.domains
        ],
    }


def _sample(space: Space, seed: int) -> tuple[Decoder, str]:
    """A decoder of a space, and its text in the layout of `nasdsl fmt`."""
    text = format_text(str(space.sample(seed, attempts=ATTEMPTS)))
    return space.load(text), text


# ------------------------------------------------------------------------------------------------------ findings


def _shown(checked: Checked, source: Source) -> list[dict[str, Any]]:
    """The findings with their places in UTF-16 code units. One that lies in another file is where the text brings that in."""
    places = Places(source.text)
    found = []
    for problem in checked.problems[:MAX_SHOWN]:
        span = problem.span
        elsewhere = "" if span.source is source else str(span)
        if elsewhere:
            span = _brings_in(checked, source, span)
        found.append(
            {
                "code": problem.code,
                "severity": problem.severity,
                "message": problem.message,
                "expected": problem.label,
                "help": problem.help,
                "fix": None if elsewhere else problem.fix,
                "elsewhere": elsewhere,
                "line": span.line,
                "column": span.column,
                **places.range_of(span),
                "related": [_related(note, other, source, places) for other, note in problem.related],
            }
        )
    return found


def _related(note: str, span: Span, source: Source, places: Places) -> dict[str, Any]:
    if span.source is not source:
        return {"message": note, "place": str(span)}
    return {"message": note, "place": f"line {span.line}", **places.range_of(span)}


def _brings_in(checked: Checked, source: Source, span: Span) -> Span:
    """The statement that brings in the file of a finding, as far as its name tells; else the first that brings in any."""
    statements: list[tuple[Span, str]] = []
    for item in checked.file.items if checked.file is not None else ():
        if isinstance(item, ast.Use):
            statements.append((item.span, item.path))
        elif isinstance(item, ast.Decoder):
            statements += [(i.span, i.source) for i in item.items if isinstance(i, ast.Fpn | ast.Head) and i.source]
    name = Path(span.source.name).name
    by_name = [statement for statement, path in statements if Path(path).name == name]
    return (by_name or [statement for statement, _ in statements] or [source.span(0, 0)])[0]
