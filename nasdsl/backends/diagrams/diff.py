"""Difference of two decoders as one diagram in DOT."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

from nasdsl.backends.cost import CostTable
from nasdsl.backends.diagrams.diagram import Arrow, Box, Diagram, Lane, Tower, level_difference
from nasdsl.backends.diagrams.dot import Emphasis, Stroke, emit_diagram
from nasdsl.backends.diagrams.from_graph import diagram
from nasdsl.backends.diagrams.labels import format_count, shorten
from nasdsl.ir import Graph

Change: TypeAlias = Literal["added", "removed", "changed", "same"]

STROKES: Mapping[Change, Stroke] = {
    "added": Stroke("#1f883d", 2.5),
    "removed": Stroke("#d1343f", 2.5, dashed=True),
    "changed": Stroke("#b26a00", 2.5),
    "same": Stroke(faded=True),
}
"""Colors that are legible on a white and on a dark page. Broken lines and grey boxes also work without color."""

_WORDS: Mapping[Change, str] = {
    "added": "added (green)",
    "removed": "removed (red, broken)",
    "changed": "changed (amber): expression, layers, operands or size",
    "same": "as before (grey)",
}


def emit_dot_diff(graph_a: Graph, table_a: CostTable, graph_b: Graph, table_b: CostTable) -> str:
    """DOT text of the difference of two decoders: all of b, with what a has in addition or otherwise, matched by name.

    Raises:
        ValueError: a table is not of its graph.
    """
    return emit_diagram(*difference(diagram(graph_a, table_a), diagram(graph_b, table_b)))


def difference(before: Diagram, after: Diagram) -> tuple[Diagram, Emphasis]:
    """One diagram of both, and how its boxes and arrows show what changed."""
    both = _union(before, after)
    changes = compare(before, after)
    old = {box.id: box for box in before.boxes}
    strokes = {}
    for box in both.boxes:
        change = changes[box.id]
        note = _before(old[box.id], box) if change == "changed" else ""
        stroke = STROKES[change]
        strokes[box.id] = Stroke(stroke.colour, stroke.width, stroke.dashed, stroke.faded, note)
    ends_a, ends_b = ({(a.source, a.target) for a in _arrows(d)} for d in (before, after))
    arrows = dict.fromkeys(ends_a - ends_b, STROKES["removed"]) | dict.fromkeys(ends_b - ends_a, STROKES["added"])
    legend = tuple((_WORDS[change], STROKES[change]) for change in STROKES if change in changes.values())
    return both, Emphasis(strokes, arrows, legend)


def compare(before: Diagram, after: Diagram) -> dict[str, Change]:
    """Change of each box, by id. A box is changed if its expression, layers, operands, level or width differ."""
    old, new = ({box.id: box for box in d.boxes} for d in (before, after))
    reads_old, reads_new = _arrows_into(before), _arrows_into(after)
    changes: dict[str, Change] = {}
    for name in old | new:
        if name not in old:
            changes[name] = "added"
        elif name not in new:
            changes[name] = "removed"
        else:
            same = _compared(old[name]) == _compared(new[name]) and reads_old.get(name) == reads_new.get(name)
            changes[name] = "same" if same else "changed"
    return changes


def _compared(box: Box) -> tuple[object, ...]:
    return box.text, box.layers, box.level, box.width, box.note, box.role


def _arrows(drawn: Diagram) -> Iterable[Arrow]:
    yield from drawn.arrows
    for tower in drawn.towers:
        yield from tower.arrows


def _arrows_into(drawn: Diagram) -> dict[str, list[Arrow]]:
    """Arrows into each box, in the order of the operands: inside a block the text of ``f(c4, c3)`` and ``f(c3, c4)`` is the
    same."""
    reads: dict[str, list[Arrow]] = {}
    for arrow in drawn.arrows:
        reads.setdefault(arrow.target, []).append(arrow)
    return reads


def _before(old: Box, new: Box) -> str:
    """What a changed box was before, in one line."""
    parts = []
    if old.text != new.text:
        parts.append(old.text)
    if old.width != new.width:
        parts.append(f"{old.width} ch")
    if old.note != new.note and old.role == "layer":
        parts.append(old.note)
    if old.macs != new.macs:
        parts.append(f"{format_count(old.macs)} MACs")
    return shorten(f"was {', '.join(parts)}", 52) if parts else ""


def _union(before: Diagram, after: Diagram) -> Diagram:
    """Diagram with the boxes and arrows of both; those in both are as in `after`."""
    new = {box.id for lane in after.lanes for box in lane.boxes}
    lanes = {lane.level: lane for lane in before.lanes} | {lane.level: lane for lane in after.lanes}
    gone: dict[int | None, list[Box]] = {}
    for lane in before.lanes:
        gone[lane.level] = [box for box in lane.boxes if box.id not in new]
    kept = {lane.level: lane.boxes for lane in after.lanes}
    order = sorted((level for level in lanes if level is not None), reverse=True) + [x for x in lanes if x is None]
    merged = [Lane(x, lanes[x].label, (*kept.get(x, ()), *gone.get(x, ()))) for x in order]
    levels = {box.id: box.level for lane in merged for box in lane.boxes}
    arrows = [*after.arrows, *_only(before.arrows, after.arrows)]
    name = after.name if before.name == after.name else f"{before.name} → {after.name}"
    return Diagram(
        name,
        after.table,
        tuple(lane for lane in merged if lane.boxes),
        tuple(a._replace(levels=level_difference(levels[a.source], levels[a.target])) for a in arrows),
        after.pyramid,
        _towers(before.towers, after.towers),
        (),
    )


def _only(these: Sequence[Arrow], others: Sequence[Arrow]) -> list[Arrow]:
    ends = {(a.source, a.target) for a in others}
    return [a for a in these if (a.source, a.target) not in ends]


def _towers(before: Sequence[Tower], after: Sequence[Tower]) -> tuple[Tower, ...]:
    old = {tower.name: tower for tower in before}
    towers = []
    for tower in after:
        was = old.pop(tower.name, Tower(tower.name, (), (), ()))
        known = {box.id for box in (*tower.layers, *tower.predictions)} | {p.id for t in after for p in t.predictions}
        layers = (*tower.layers, *(box for box in was.layers if box.id not in known))
        predictions = (*tower.predictions, *(p for p in was.predictions if p.id not in known))
        # An arrow of `before` into a prediction that both have is not drawn: a prediction reads the last layer in any case.
        gone = [a for a in _only(was.arrows, tower.arrows) if a.target not in known]
        start = max(tower.start, was.start)
        towers.append(Tower(tower.name, layers, predictions, (*tower.arrows, *gone), start))
    return (*towers, *old.values())
