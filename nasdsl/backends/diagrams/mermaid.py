"""Graph to a Mermaid flowchart, which GitHub and many editors render in Markdown files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from nasdsl.backends.cost import CostTable
from nasdsl.backends.diagrams.diagram import FAMILIES, SHARED_WEIGHTS, Arrow, Box, Diagram
from nasdsl.backends.diagrams.dot import FILLS, ROLES_WITH_ASIDE, TEXT_COLOR, TONE, lane_name, wrap_diagram
from nasdsl.backends.diagrams.from_graph import diagram
from nasdsl.backends.diagrams.labels import cost_label, cost_summary, wrap_text
from nasdsl.ir import Graph

_FRAMES: Mapping[str, tuple[str, str]] = {"output": ("[[", "]]"), "input": ("[", "]"), "group": ("[/", "\\]")}
"""Mermaid has no double frame, and no box with a tab; boxes with double and with slanted sides are the nearest to them."""


def emit_mermaid(graph: Graph, table: CostTable) -> str:
    """Mermaid flowchart of a graph. The same graph and costs give the same text.

    Args:
        table: costs of this graph, as `nasdsl.backends.cost.cost` gives them.

    Raises:
        ValueError: the table is not of this graph.
    """
    return emit_mermaid_diagram(diagram(graph, table))


def emit_mermaid_diagram(drawn: Diagram) -> str:
    """Mermaid flowchart of a diagram."""
    return "\n".join(_lines(drawn)) + "\n"


def _lines(drawn: Diagram) -> Iterator[str]:
    # Names of values could be Mermaid keywords (`end`) or contain its operators; numbers cannot.
    ids = {box.id: f"n{index}" for index, box in enumerate(drawn.boxes)}
    # A wide flowchart runs from top to bottom: pages scroll down, and shrink what is wider than they are.
    yield f"flowchart {'LR' if len(wrap_diagram(drawn)) == 1 else 'TB'}"
    yield f"  %% {_plain(drawn.name)} · {cost_summary(drawn.table)}"
    for lane in drawn.lanes:
        yield f'  subgraph {lane_name(lane).replace(" ", "")}["{_text(lane.label)}"]'
        for box in lane.boxes:
            yield f"    {ids[box.id]}{_box(box)}"
        yield "  end"
    yield f'  subgraph head["head · the same for {_text(", ".join(drawn.pyramid))}"]'
    yield f'    pyramid[["<b>{_text(", ".join(drawn.pyramid))}</b>"]]:::identity'
    for tower in drawn.towers:
        for box in (*tower.layers, *tower.predictions):
            yield f"    {ids[box.id]}{_box(box)}"
        for box in tower.entries:
            yield f'    pyramid -->|"{_text(tower.name)}"| {ids[box.id]}'
        for arrow in tower.arrows:
            yield f"    {_arrow(arrow, ids[arrow.source], ids[arrow.target])}"
    yield "  end"
    for arrow in drawn.arrows:
        yield f"  {_arrow(arrow, ids[arrow.source], ids[arrow.target])}"
    for family in FAMILIES:
        yield f"  classDef {family} fill:{FILLS[family]},stroke:{TONE},color:{TEXT_COLOR}"


def _box(box: Box) -> str:
    has_aside = box.role in ROLES_WITH_ASIDE or box.note == SHARED_WEIGHTS
    rows = [f"<b>{_text(box.name)}</b>{f' {_text(box.note)}' if has_aside else ''}"]
    rows += [_text(line) for line in wrap_text(box.text) if line != box.name]
    if box.macs or box.params or box.role not in ("merge", "output"):
        rows.append(_text((box.note if box.role == "input" else "") + cost_label(box.width, box.macs, box.params)))
    opening, closing = _FRAMES.get(box.role, ("(", ")"))
    return f'{opening}"{"<br/>".join(rows)}"{closing}:::{box.family}'


def _arrow(arrow: Arrow, source: str, target: str) -> str:
    notes = [arrow.mark] if arrow.mark else []
    notes += [f"{arrow.times} times"] if arrow.times > 1 else []
    label = f'|"{", ".join(notes)}"|' if notes else ""
    return f"{source} {'-.->' if arrow.kind == 'merge' else '-->'}{label} {target}"


def _text(text: str) -> str:
    """Escape a text for use in quotes: all but letters, digits and harmless characters as Mermaid's entities."""
    return re.sub(r"[^\w .,:=+()/·→…↑↓-]|_(?=_)", lambda found: f"#{ord(found[0])};", " ".join(text.split()))


def _plain(text: str) -> str:
    return re.sub(r"[^\w.-]", " ", text)
