"""Graph to DOT, the language of Graphviz: a band for each pyramid level, data from left to right, the head below.

Pure text: nothing here needs Graphviz. Colours hold on white paper and on a dark page alike: boxes bring a fill of their
own under dark print, and all that stands outside them is of a middle tone on a transparent ground.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from nasdsl.backends.cost import CostTable
from nasdsl.backends.diagrams.diagram import FAMILIES, Arrow, Box, Diagram, Family, diagram
from nasdsl.backends.diagrams.labels import LINE_LENGTH, figures, headline, human, shorten, text_width, where, wrap
from nasdsl.backends.diagrams.layout import LABEL_HEIGHT, Point, Rectangle, Route, arrange
from nasdsl.ir import Graph

FONT = "Helvetica,Arial,sans-serif"

FILLS: Mapping[Family, str] = {
    "deformable": "#a9cdf2",
    "separable": "#b7e0b1",
    "convolution": "#f7d794",
    "aggregation": "#d9c7f0",
    "resampling": "#a8e0dc",
    "identity": "#dfe3e8",
    "custom": "#f5b8c4",
}
"""Fill of a box. Print on it has a contrast of 9 and more (WCAG asks for 4.5)."""

PRINT = "#16191d"
TONE = "#737a83"
"""Lines and print outside the boxes: a contrast of 4.3 on white and on GitHub's dark #0d1117."""
RESIZED = "#c2620e"
"""Arrows along which the resolution changes; 4.2 on white, 4.5 on the dark page."""
MARK = "#f3d3b0"
BAND = "#80808018"

FRAME = 4.0
"""How far Graphviz draws a second frame outside the first, in points."""


@dataclass(frozen=True, slots=True)
class Stroke:
    """How a box or an arrow is set off, in a picture of a difference.

    Attributes:
        colour: of its line; empty leaves the usual one.
        width: of its line, in points.
        dashed: whether the line is broken.
        faded: whether the box gives up its fill.
        before: its figures on the other side, where they differ.
    """

    colour: str = ""
    width: float = 1.0
    dashed: bool = False
    faded: bool = False
    before: str = ""


PLAIN = Stroke()


@dataclass(frozen=True, slots=True)
class Emphasis:
    """What is set off, by id of box and by ends of arrow, with the rows that the legend explains it in."""

    boxes: Mapping[str, Stroke]
    arrows: Mapping[tuple[str, str], Stroke]
    legend: tuple[tuple[str, Stroke], ...]


NO_EMPHASIS = Emphasis({}, {}, ())


def emit_dot(graph: Graph, table: CostTable) -> str:
    """The picture of a graph in DOT. The same graph and figures give the same text.

    Args:
        table: figures of this graph, as `nasdsl.backends.cost.cost` gives them.

    Raises:
        ValueError: the table is not of this graph.
    """
    return emit_diagram(diagram(graph, table))


def emit_diagram(drawn: Diagram, emphasis: Emphasis = NO_EMPHASIS) -> str:
    """A diagram in DOT."""
    return "\n".join(_lines(drawn, emphasis)) + "\n"


def _lines(drawn: Diagram, emphasis: Emphasis) -> Iterator[str]:
    pyramid = _pyramid(drawn)
    rows = {box.id: _rows(box, emphasis) for box in drawn.boxes}
    elements = element_ids(drawn)
    sizes = {box.id: _size(rows[box.id], FRAME if box.role == "output" else 0.0) for box in drawn.boxes}
    sizes["head"] = _size([Row(pyramid, 12, bold=True)], FRAME)
    layout = arrange(drawn, sizes)
    title, title_height = _title(drawn, emphasis)
    right = max([r.right for r in layout.bands] + ([layout.head.right] if layout.head else []), default=0.0)
    bottom = max([r.bottom for r in layout.bands] + ([layout.head.bottom] if layout.head else []), default=0.0)
    yield f"digraph {quote(drawn.name)} {{"
    # Places come with the text: Graphviz draws, and does not arrange (nop2). Its own arrangement keeps no order of bands.
    yield (
        f'  graph [layout=nop2, bgcolor=transparent, fontname="{FONT}", fontsize=11, fontcolor="{TONE}", pad=0.15,'
        f" bb={_bounds(Rectangle(0, -title_height, right, bottom))}, labelloc=t, tooltip={quote(drawn.name)},"
        f" lp={_points([Point(right / 2, -title_height / 2)])},"
    )
    yield f"    label={_left(title, right)}];"
    yield (
        f'  node [shape=box, style="rounded,filled", fontname="{FONT}", fontsize=12, fontcolor="{PRINT}", color="{TONE}",'
        " fixedsize=true];"
    )
    yield f'  edge [color="{TONE}", fontname="{FONT}", fontsize=9, fontcolor="{PRINT}", arrowsize=0.6, penwidth=1.1];'
    for lane, place in zip(drawn.lanes, layout.bands, strict=True):
        yield from _band("pooled" if lane.level is None else f"level {lane.level}", lane.label, place)
        for box in lane.boxes:
            yield "    " + _box(box, elements[box.id], rows[box.id], layout.boxes[box.id], emphasis)
        yield "  }"
    if layout.head is not None:
        label = f"head · the same for {', '.join(drawn.pyramid)}; figures are sums over them"
        yield from _band("head", label, layout.head)
        yield (
            f'    "head" [label=<<b>{escape(pyramid)}</b>>, {_place(layout.boxes["head"], FRAME)}, peripheries=2,'
            f' fillcolor="{FILLS["identity"]}", tooltip={quote(label)}];'
        )
        for tower in drawn.towers:
            for box in (*tower.layers, *tower.predictions):
                yield "    " + _box(box, elements[box.id], rows[box.id], layout.boxes[box.id], emphasis)
        towers = {box.id: tower.name for tower in drawn.towers for box in tower.entries}
        for arrow, route in layout.head_arrows:
            yield "    " + _arrow(arrow, route, emphasis, towers[arrow.target] if arrow.source == "head" else "")
        yield "  }"
    for arrow, route in zip(drawn.arrows, layout.routes, strict=True):
        yield "  " + _arrow(arrow, route, emphasis)
    yield "}"


def element_ids(drawn: Diagram) -> dict[str, str]:
    """Id of each box's element in the SVG, where names of the text could not stand as they are."""
    return {box.id: f"box{index}" for index, box in enumerate(drawn.boxes)}


def _band(name: str, label: str, place: Rectangle) -> Iterator[str]:
    yield f"  subgraph {quote(f'cluster {name}')} {{"
    width = place.right - place.left - 16
    yield (
        f"    graph [bb={_bounds(place)}, lp={_points([Point(place.center.x, place.top + LABEL_HEIGHT / 2)])},"
        f' style="rounded,filled", fillcolor="{BAND}", color="{TONE}40", tooltip={quote(label)},'
        f" label={_left([_small(label, 11)], width)}];"
    )


def _pyramid(drawn: Diagram) -> str:
    names = drawn.pyramid
    return ", ".join(names) if len(names) < 3 else f"{names[0]} … {names[-1]}"


class Row(NamedTuple):
    """A line of print in a box."""

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


def _rows(box: Box, emphasis: Emphasis) -> list[Row]:
    in_head = box.role in ("layer", "prediction")
    rows = [Row(shorten(box.name, LINE_LENGTH), 12, bold=True, aside=box.note if in_head else "")]
    if box.role == "layer":
        rows += [Row(line, 10) for line in wrap(box.text) if line != box.name]
    else:
        rows += [Row(line, 10) for line in wrap(box.text)]
    if box.macs or box.params or box.role not in ("merge", "output"):
        rows.append(Row((box.note if box.role == "input" else "") + figures(box.width, box.macs, box.params), 9))
    before = emphasis.boxes.get(box.id, PLAIN).before
    return [*rows, Row(before, 9)] if before else rows


def _size(rows: Iterable[Row], frame: float) -> tuple[float, float]:
    """Width and height of a box around some rows, in points, for a sans-serif as wide as they come (DejaVu Sans)."""
    found = list(rows)
    width, height = max(row.width for row in found) + 16, sum(row.size * 1.2 + 2 for row in found) + 8
    return round(width + 2 * frame, 1), round(height + 2 * frame, 1)


def _box(box: Box, element: str, rows: Iterable[Row], place: Rectangle, emphasis: Emphasis) -> str:
    stroke = emphasis.boxes.get(box.id, PLAIN)
    width = place.right - place.left - (14 + 2 * FRAME if box.role == "output" else 14)
    attributes = {
        "label": _left([row.markup for row in rows], width),
        "tooltip": quote(where(box.span)),
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
    if stroke.dashed:
        attributes["style"] = '"rounded,filled,dashed"'
    elif box.role == "input":
        attributes["style"] = "filled"
    if box.role == "output":
        attributes["peripheries"] = "2"
    return f"{quote(box.id)} [{_place(place, FRAME if box.role == 'output' else 0.0)}, {_attributes(attributes)}];"


def _arrow(arrow: Arrow, route: Route, emphasis: Emphasis, name: str = "") -> str:
    stroke = emphasis.arrows.get((arrow.source, arrow.target), PLAIN)
    tip = f"{arrow.target} reads {arrow.source}" + (f" {arrow.times} times" if arrow.times > 1 else "")
    if arrow.kind == "merge":
        tip = f"{arrow.source} dangles and is added to {arrow.target}"
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
    """Graphviz counts places in points, y upwards, and sizes in inches, without a second frame."""
    width, height = (place.right - place.left - 2 * frame) / 72, (place.bottom - place.top - 2 * frame) / 72
    return f"pos={_points([place.center])}, width={width:.3f}, height={height:.3f}"


def _points(points: Iterable[Point]) -> str:
    return f'"{" ".join(_pair(p) for p in points)}"'


def _pair(point: Point) -> str:
    return f"{point.x:.1f},{0.0 - point.y:.1f}"


def _bounds(place: Rectangle) -> str:
    return f'"{place.left:.1f},{-place.bottom:.1f},{place.right:.1f},{-place.top:.1f}"'


def _left(rows: Iterable[str], width: float) -> str:
    """A label of known width, its lines on the left: Graphviz itself centres labels on their places."""
    cells = "".join(f'<tr><td align="left">{row}</td></tr>' for row in rows)
    return f'<<table border="0" cellborder="0" cellspacing="0" cellpadding="1" width="{width:.0f}">{cells}</table>>'


def _title(drawn: Diagram, emphasis: Emphasis) -> tuple[list[str], float]:
    """Rows of the title with the legend, and their height in points."""
    cells = []
    present = {box.family for box in drawn.boxes}
    for name, words in FAMILIES.items():
        if name in present:
            cells.append(f'<td bgcolor="{FILLS[name]}"><font color="{PRINT}" point-size="10">{words}</font></td>')
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
    rows = [
        f'<font point-size="18"><b>{escape(drawn.name)}</b></font>',
        _small(headline(drawn.table), 11),
        f'<table border="0" cellborder="0" cellspacing="3" cellpadding="3"><tr>{"".join(cells)}</tr></table>',
        _small(" · ".join(keys), 10),
    ]
    height = 88.0
    if drawn.removed:
        removed = ", ".join(f"{r.name} ({human(r.macs)} MACs)" for r in drawn.removed[:6])
        more = f" and {len(drawn.removed) - 6} more" if len(drawn.removed) > 6 else ""
        rows.append(f"<i>{_small(f'left out, because no output depends on it: {removed}{more}', 10)}</i>")
        height += 14
    return rows, height


def _small(text: str, size: int) -> str:
    return f'<font point-size="{size}">{escape(text)}</font>'


def escape(text: str) -> str:
    """A text as it stands in an HTML-like label, or in XML."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return _printable(text)


def quote(text: str) -> str:
    """A name, or a tooltip that Graphviz shows as it stands here.

    Graphviz reads entities in a tooltip, and backslashes twice: two of them before an N still become the node's name.
    """
    text = _printable(text).replace("&", "&amp;").replace("\\", "\\" * 4).replace('"', '\\"')
    return '"' + text.replace("\r", "").replace("\n", "\\n") + '"'


def _printable(text: str) -> str:
    """Without control characters, which XML cannot hold."""
    return "".join(c for c in text if c in "\n\t" or (ord(c) >= 32 and ord(c) not in (0xFFFE, 0xFFFF)))
