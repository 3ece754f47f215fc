"""Diagram to DOT, the language of Graphviz: a band for each pyramid level, data from left to right, the head below.

This needs no Graphviz. Colors are legible on a white and on a dark page: boxes are filled and have dark text, and everything
outside them is of a medium tone on a transparent background.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nasdsl.backends.cost import CostTable
from nasdsl.backends.diagrams.diagram import (
    FAMILIES,
    SEVERAL_LEVELS,
    SHARED_WEIGHTS,
    Arrow,
    Box,
    Diagram,
    Family,
    Lane,
)
from nasdsl.backends.diagrams.from_graph import diagram
from nasdsl.backends.diagrams.labels import (
    LINE_LENGTH,
    cost_label,
    cost_summary,
    format_count,
    shorten,
    text_width,
    tooltip,
    wrap_text,
)
from nasdsl.backends.diagrams.layout import LABEL_HEIGHT, Layout, Size, arrange_rows
from nasdsl.backends.diagrams.routes import Point, Rectangle, Route
from nasdsl.backends.diagrams.wrapping import Row, split_rows
from nasdsl.ir import Graph

FONT = "Helvetica,Arial,sans-serif"

FILLS: Mapping[Family, str] = {
    "deformable": "#a9cdf2",
    "attention": "#f2b98a",
    "separable": "#b7e0b1",
    "convolution": "#f7d794",
    "aggregation": "#d9c7f0",
    "resampling": "#a8e0dc",
    "identity": "#dfe3e8",
    "custom": "#f5b8c4",
}
"""Fill color of a box. Text on it has a contrast of 9 or more (WCAG requires 4.5)."""

TEXT_COLOR = "#16191d"
TONE = "#737a83"
"""Color of lines, and of text outside boxes: a contrast of 4.3 on white and on GitHub's dark #0d1117."""
RESIZED = "#c2620e"
"""Color of arrows along which the resolution changes: a contrast of 4.2 on white, 4.5 on the dark page."""
MARK = "#f3d3b0"
BAND = "#80808018"

ROLES_WITH_ASIDE = frozenset({"layer", "prediction", "group"})
"""Boxes with their note beside the title."""

FRAME = 4.0
"""Distance at which Graphviz draws a second frame around the first, in points."""


@dataclass(frozen=True, slots=True)
class Stroke:
    """Style of a box or an arrow in the diagram of a difference.

    Attributes:
        colour: color of the line; empty for the default.
        width: width of the line, in points.
        dashed: whether the line is broken.
        faded: whether the box has no fill color.
        before: what a changed box was before.
    """

    colour: str = ""
    width: float = 1.0
    dashed: bool = False
    faded: bool = False
    before: str = ""


PLAIN = Stroke()


@dataclass(frozen=True, slots=True)
class Emphasis:
    """Styles by id of the box and by ends of the arrow, and the legend of the styles."""

    boxes: Mapping[str, Stroke]
    arrows: Mapping[tuple[str, str], Stroke]
    legend: tuple[tuple[str, Stroke], ...]


NO_EMPHASIS = Emphasis({}, {}, ())


def emit_dot(graph: Graph, table: CostTable) -> str:
    """DOT text of a graph. The same graph and costs give the same text.

    Args:
        table: costs of this graph, as `nasdsl.backends.cost.cost` gives them.

    Raises:
        ValueError: the table is not of this graph.
    """
    return emit_diagram(diagram(graph, table))


def emit_diagram(drawn: Diagram, emphasis: Emphasis = NO_EMPHASIS) -> str:
    """DOT text of a diagram, wrapped into rows where it is wide."""
    return "\n".join(_lines(drawn, emphasis)) + "\n"


def wrap_diagram(drawn: Diagram, emphasis: Emphasis = NO_EMPHASIS) -> list[Row]:
    """Split a diagram into rows, with boxes of the size that their text needs."""
    return _wrap(drawn, emphasis)[0]


def _wrap(drawn: Diagram, emphasis: Emphasis) -> tuple[list[Row], dict[str, list[Line]], dict[str, Size]]:
    """Rows of a diagram, the lines of text in each box, and the size of each box and of ``head``, the entry of the head."""
    lines = {box.id: _box_lines(box, emphasis) for box in drawn.boxes}
    sizes = {box.id: _size(lines[box.id], FRAME if box.role == "output" else 0.0) for box in drawn.boxes}
    sizes["head"] = _size([Line(_pyramid(drawn), 12, bold=True)], FRAME)
    rows = split_rows(drawn, sizes)
    of_references = {box.id: _box_lines(box, emphasis) for row in rows for box in row.diagram.boxes if box.role == "reference"}
    return rows, lines | of_references, sizes | {name: _size(found, 0.0) for name, found in of_references.items()}


def _lines(drawn: Diagram, emphasis: Emphasis) -> Iterator[str]:
    rows, lines, sizes = _wrap(drawn, emphasis)
    layouts = arrange_rows([row.diagram for row in rows], [row.columns for row in rows], sizes)
    title, title_height = _title(drawn, emphasis, wrapped=len(rows) > 1)
    frames = [place for layout in layouts for place in (*layout.bands, layout.head) if place is not None]
    right = max((place.right for place in frames), default=0.0)
    bottom = max((place.bottom for place in frames), default=0.0)
    yield f"digraph {quote(drawn.name)} {{"
    # Graphviz only draws: all positions are given (layout=nop2), since its own layouts do not keep the order of the bands.
    yield (
        f'  graph [layout=nop2, bgcolor=transparent, fontname="{FONT}", fontsize=11, fontcolor="{TONE}", pad=0.15,'
        f" bb={_bounds(Rectangle(0, -title_height, right, bottom))}, labelloc=t, tooltip={quote(drawn.name)},"
        f" lp={_points([Point(right / 2, -title_height / 2)])},"
    )
    yield f"    label={_left(title, right)}];"
    yield (
        f'  node [shape=box, style="rounded,filled", fontname="{FONT}", fontsize=12, fontcolor="{TEXT_COLOR}", color="{TONE}",'
        " fixedsize=true];"
    )
    yield f'  edge [color="{TONE}", fontname="{FONT}", fontsize=9, fontcolor="{TEXT_COLOR}", arrowsize=0.6, penwidth=1.1];'
    elements = element_ids(drawn)
    for number, (row, layout) in enumerate(zip(rows, layouts, strict=True), 1):
        suffix = "" if number == 1 else f" row {number}"
        yield from _row(row, layout, lines, elements, emphasis, drawn, suffix)
    yield "}"


def _row(
    row: Row,
    layout: Layout,
    lines: Mapping[str, Sequence[Line]],
    elements: Mapping[str, str],
    emphasis: Emphasis,
    drawn: Diagram,
    suffix: str,
) -> Iterator[str]:
    """Statements of one row of a diagram.

    Args:
        lines: text in each box.
        elements: see `element_ids`.
        drawn: the whole diagram.
        suffix: makes the names of clusters and elements unique among the rows.
    """
    lanes, towers = row.diagram.lanes, row.diagram.towers

    def node(box: Box) -> str:
        origin = row.origins.get(box.id, box)
        element = elements[origin.id] if origin is box else f"{elements[origin.id]}{suffix.replace(' ', '_')}"
        return _box(box, origin, element, lines[box.id], layout.boxes[box.id], emphasis)

    for index, (lane, place) in enumerate(zip(lanes, layout.bands, strict=True)):
        name = lane_name(lane) + suffix
        yield from _band(name, lane.label, place, row.label if index == 0 else "")
        for box in lane.boxes:
            yield "    " + node(box)
        yield "  }"
    if layout.head is not None:
        continued = "" if row.diagram.pyramid else ", continued"
        label = f"head{continued} · the same for {', '.join(drawn.pyramid)}; figures are sums over them"
        yield from _band(f"head{suffix}" if not row.diagram.pyramid else "head", label, layout.head)
        if row.diagram.pyramid:
            yield (
                f'    "head" [label=<<b>{escape(_pyramid(drawn))}</b>>, {_place(layout.boxes["head"], FRAME)}, peripheries=2,'
                f' fillcolor="{FILLS["identity"]}", tooltip={quote(label)}];'
            )
        for tower in towers:
            for box in (*tower.layers, *tower.predictions):
                yield "    " + node(box)
        names = {box.id: tower.name for tower in towers for box in tower.entries}
        for arrow, route in layout.head_arrows:
            yield "    " + _arrow(arrow, row, route, emphasis, names[arrow.target] if arrow.source == "head" else "")
        yield "  }"
    for arrow, route in zip(row.diagram.arrows, layout.routes, strict=True):
        yield "  " + _arrow(arrow, row, route, emphasis)


def lane_name(lane: Lane) -> str:
    """Name of a lane's cluster."""
    return "pooled" if lane.level is None else "several levels" if lane.level == SEVERAL_LEVELS else f"level {lane.level}"


def element_ids(drawn: Diagram) -> dict[str, str]:
    """Id of each box's element in the SVG, by id of the box (which may hold characters that an XML id may not)."""
    return {box.id: f"box{index}" for index, box in enumerate(drawn.boxes)}


def _band(name: str, label: str, place: Rectangle, note: str = "") -> Iterator[str]:
    """Begin the cluster of a level or of the head."""
    yield f"  subgraph {quote(f'cluster {name}')} {{"
    width = place.right - place.left - 16
    text = _small(label, 11) + (f" <b>{_small(note, 11)}</b>" if note else "")
    yield (
        f"    graph [bb={_bounds(place)}, lp={_points([Point(place.center.x, place.top + LABEL_HEIGHT / 2)])},"
        f' style="rounded,filled", fillcolor="{BAND}", color="{TONE}40", tooltip={quote(label)},'
        f" label={_left([text], width)}];"
    )


def _pyramid(drawn: Diagram) -> str:
    names = drawn.pyramid
    return ", ".join(names) if len(names) < 3 else f"{names[0]} … {names[-1]}"


class Line(NamedTuple):
    """A line of text in a box; `aside` is small text after it."""

    text: str
    size: int
    bold: bool = False
    aside: str = ""

    @property
    def markup(self) -> str:
        text = f"<b>{escape(self.text)}</b>" if self.bold else _small(self.text, self.size)
        return text + (f" {_small(self.aside, 10)}" if self.aside else "")

    @property
    def width(self) -> float:
        aside = text_width(" " + self.aside, 10) if self.aside else 0.0
        return text_width(self.text, self.size) * (1.1 if self.bold else 1.0) + aside


def _box_lines(box: Box, emphasis: Emphasis) -> list[Line]:
    """Lines of text in a box."""
    if box.role == "reference":
        return [Line(shorten(box.name, LINE_LENGTH), 12, bold=True), Line(box.text, 9)]
    aside = box.note if box.role in ROLES_WITH_ASIDE or box.note == SHARED_WEIGHTS else ""
    rows = [Line(shorten(box.name, LINE_LENGTH), 12, bold=True, aside=aside)]
    if box.role == "layer":
        rows += [Line(line, 10) for line in wrap_text(box.text) if line != box.name]
    else:
        rows += [Line(line, 10) for line in wrap_text(box.text)]
    if box.macs or box.params or box.role not in ("merge", "output"):
        rows.append(Line((box.note if box.role == "input" else "") + cost_label(box.width, box.macs, box.params), 9))
    before = emphasis.boxes.get(box.id, PLAIN).before
    return [*rows, Line(before, 9)] if before else rows


def _size(lines: Iterable[Line], frame: float) -> tuple[float, float]:
    """Width and height of a box around lines of text, in points, for a wide sans-serif font (DejaVu Sans)."""
    found = list(lines)
    width, height = max(line.width for line in found) + 16, sum(line.size * 1.2 + 2 for line in found) + 8
    return round(width + 2 * frame, 1), round(height + 2 * frame, 1)


def _box(box: Box, origin: Box, element: str, lines: Iterable[Line], place: Rectangle, emphasis: Emphasis) -> str:
    """Statement of a box. `origin` is the box itself, or the one that a reference stands for."""
    stroke = emphasis.boxes.get(origin.id, PLAIN)
    width = place.right - place.left - (14 + 2 * FRAME if box.role == "output" else 14)
    attributes = {
        "label": _left([line.markup for line in lines], width),
        "tooltip": quote(tooltip(box.span)),
        "id": element,
        "class": quote(f"{box.role} {box.family}"),
        "fillcolor": quote("#8080800c" if stroke.faded else FILLS[box.family]),
    }
    if stroke.faded:
        attributes["fontcolor"] = quote(TONE)
    if stroke.colour:
        attributes["color"] = quote(stroke.colour)
    if stroke.width != PLAIN.width:
        attributes["penwidth"] = f"{stroke.width:g}"
    if box.role == "reference":
        attributes["style"] = '"rounded,filled,dotted"'
    elif stroke.dashed:
        attributes["style"] = '"rounded,filled,dashed"'
    elif box.role == "input":
        attributes["style"] = "filled"
    elif box.role == "group":
        attributes["shape"] = "folder"
        attributes["style"] = "filled"
    if box.role == "output":
        attributes["peripheries"] = "2"
    return f"{quote(box.id)} [{_place(place, FRAME if box.role == 'output' else 0.0)}, {_attributes(attributes)}];"


def _arrow(arrow: Arrow, row: Row, route: Route, emphasis: Emphasis, name: str = "") -> str:
    """Statement of an arrow. `name` is the tower that an arrow into the head leads to."""
    source = row.origins[arrow.source].id if arrow.source in row.origins else arrow.source
    stroke = emphasis.arrows.get((source, arrow.target), PLAIN)
    tip = f"{arrow.target} reads {source}" + (f" {arrow.times} times" if arrow.times > 1 else "")
    if arrow.kind == "merge":
        tip = f"{source} dangles and is added to {arrow.target}"
    attributes = {"pos": f'"e,{_pair(route.tip)} {" ".join(_pair(p) for p in route.curve)}"'}
    colour = stroke.colour
    if arrow.mark:
        attributes["label"], attributes["lp"] = _badge(arrow.mark, MARK), _points([route.mark])
        colour = colour or RESIZED
        up, factor = arrow.levels < 0, 1 << abs(arrow.levels)
        tip += f"; height and width {'times' if up else 'over'} {factor}"
        attributes["labeltooltip"] = quote(tip)
    elif name:
        attributes["label"], attributes["lp"] = _badge(name, FILLS["identity"]), _points([route.mark])
    if arrow.times > 1:
        colour = f"{colour or TONE}:invis:{colour or TONE}"  # a double line
    if colour:
        attributes["color"] = quote(colour)
    if stroke.width != PLAIN.width:
        attributes["penwidth"] = f"{stroke.width:g}"
    if arrow.kind == "merge" or stroke.dashed:
        attributes["style"] = "dashed"
    attributes["tooltip"] = quote(tip)
    attributes["class"] = quote(f"{arrow.kind}{' resize' if arrow.mark else ''}")
    return f"{quote(arrow.source)} -> {quote(arrow.target)} [{_attributes(attributes)}];"


def _badge(text: str, fill: str) -> str:
    cell = f'<td bgcolor="{fill}">{escape(text)}</td>'
    return f'<<table border="0" cellborder="0" cellspacing="0" cellpadding="1"><tr>{cell}</tr></table>>'


def _attributes(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in found.items())


def _place(place: Rectangle, frame: float = 0.0) -> str:
    """Attributes for position and size. Graphviz measures positions in points, y upwards, and sizes in inches, without a
    second frame."""
    width, height = (place.right - place.left - 2 * frame) / 72, (place.bottom - place.top - 2 * frame) / 72
    return f"pos={_points([place.center])}, width={width:.3f}, height={height:.3f}"


def _points(points: Iterable[Point]) -> str:
    return f'"{" ".join(_pair(p) for p in points)}"'


def _pair(point: Point) -> str:
    return f"{point.x:.1f},{0.0 - point.y:.1f}"


def _bounds(place: Rectangle) -> str:
    return f'"{place.left:.1f},{-place.bottom:.1f},{place.right:.1f},{-place.top:.1f}"'


def _left(rows: Iterable[str], width: float) -> str:
    """Label with left-aligned lines, as a table of the given width: Graphviz centers other labels."""
    cells = "".join(f'<tr><td align="left">{row}</td></tr>' for row in rows)
    return f'<<table border="0" cellborder="0" cellspacing="0" cellpadding="1" width="{width:.0f}">{cells}</table>>'


def _title(drawn: Diagram, emphasis: Emphasis, wrapped: bool) -> tuple[list[str], float]:
    """Lines of the title, with the legend, and their height in points."""
    cells = []
    present = {box.family for box in drawn.boxes}
    for name, words in FAMILIES.items():
        if name in present:
            cells.append(f'<td bgcolor="{FILLS[name]}"><font color="{TEXT_COLOR}" point-size="10">{words}</font></td>')
    for words, stroke in emphasis.legend:
        cells.append(f'<td border="2" color="{stroke.colour or TONE}">{_small(words, 10)}</td>')
    arrows = drawn.arrows
    keys = ["double frame: pyramid output"]
    if any(a.times > 1 for a in arrows):
        keys.append("double line: read twice")
    if any(a.kind == "merge" for a in arrows):
        keys.append("broken line: dangling value, merged in")
    if any(a.mark for a in arrows):
        keys.append("↑2, ↓2: the map's height and width times, over 2")
    if any(box.role == "group" for box in drawn.boxes):
        keys.append("tab: a block or a repeat, folded")
    if wrapped:
        keys.append("dotted frame: value of another row")
    rows = [
        f'<font point-size="18"><b>{escape(drawn.name)}</b></font>',
        _small(cost_summary(drawn.table), 11),
        f'<table border="0" cellborder="0" cellspacing="3" cellpadding="3"><tr>{"".join(cells)}</tr></table>',
        _small(" · ".join(keys), 10),
    ]
    height = 88.0
    if drawn.removed:
        removed = ", ".join(f"{r.name} ({format_count(r.macs)} MACs)" for r in drawn.removed[:6])
        more = f" and {len(drawn.removed) - 6} more" if len(drawn.removed) > 6 else ""
        rows.append(f"<i>{_small(f'left out, because no output depends on it: {removed}{more}', 10)}</i>")
        height += 14
    return rows, height


def _small(text: str, size: int) -> str:
    return f'<font point-size="{size}">{escape(text)}</font>'


def escape(text: str) -> str:
    """Escape a text for an HTML-like label or XML."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return _printable(text)


def quote(text: str) -> str:
    """Quote a name or a tooltip, so that Graphviz shows it unchanged.

    Graphviz replaces entities in a tooltip, and unescapes backslashes twice: two before an N still become the node's name.
    """
    text = _printable(text).replace("&", "&amp;").replace("\\", "\\" * 4).replace('"', '\\"')
    return '"' + text.replace("\r", "").replace("\n", "\\n") + '"'


def _printable(text: str) -> str:
    """Remove control characters, which XML does not allow."""
    if text.isprintable():
        return text
    return "".join(c for c in text if c in "\n\t" or (ord(c) >= 32 and ord(c) not in (0xFFFE, 0xFFFF)))
