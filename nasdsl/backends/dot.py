"""Graph to DOT, the language of Graphviz: a band for each pyramid level, data from left to right, the head below.

Pure text: nothing here needs Graphviz. Colours hold on white paper and on a dark page alike: boxes bring a fill of their
own under dark print, and all that stands outside them is of a middle tone on a transparent ground.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from nasdsl.backends.cost import CostTable
from nasdsl.backends.diagram import (
    FAMILIES,
    Arrow,
    Box,
    Diagram,
    Family,
    Lane,
    diagram,
    figures,
    headline,
    human,
    shorten,
)
from nasdsl.diagnostics import Span
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
BAND = "#80808018"

_LINE_LENGTH = 36
"""Characters of an expression on one line of a box."""

_LAYOUT_EFFORT = 400
"""Above so many boxes Graphviz is asked for less: fewer rounds, straight lines. Its time grows faster than the text."""


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
    large = sum(len(lane.boxes) for lane in drawn.lanes) > _LAYOUT_EFFORT
    yield f"digraph {quote(drawn.name)} {{"
    yield (
        f'  graph [rankdir=LR, newrank=true, bgcolor=transparent, fontname="{FONT}", fontsize=11, fontcolor="{TONE}",'
        f" nodesep=0.16, ranksep=0.5, pad=0.2, labelloc=t, labeljust=l, tooltip={quote(drawn.name)},"
        + (" splines=line, nslimit=2, mclimit=0.1," if large else " splines=true,")
    )
    yield f"    label=<{_title(drawn, emphasis)}>];"
    yield (
        f'  node [shape=box, style="rounded,filled", fontname="{FONT}", fontsize=12, fontcolor="{PRINT}", color="{TONE}",'
        ' margin="0.08,0.04", height=0.3, width=0.5];'
    )
    yield (f'  edge [color="{TONE}", fontname="{FONT}", fontsize=10, fontcolor="{RESIZED}", arrowsize=0.7, penwidth=1.1];')
    for lane in drawn.lanes:
        yield from _lane(lane, emphasis)
    if drawn.towers:
        yield from _head(drawn, emphasis)
    yield from _order(drawn)
    for arrow in drawn.arrows:
        yield _arrow(arrow, emphasis)
    yield "}"


def _lane(lane: Lane, emphasis: Emphasis) -> Iterator[str]:
    name = "pooled" if lane.level is None else f"level {lane.level}"
    yield f"  subgraph {quote(f'cluster {name}')} {{"
    yield f'    label={quote(lane.label)}; style="rounded,filled"; fillcolor="{BAND}"; color="{TONE}40"; penwidth=1;'
    yield f"    tooltip={quote(lane.label)};"
    yield f'    {quote(f"lane {name}")} [label="", style=invis, width=0.01, height=0.3, fixedsize=true];'
    for box in lane.boxes:
        yield "    " + _box(box, emphasis)
    yield "  }"


def _head(drawn: Diagram, emphasis: Emphasis) -> Iterator[str]:
    names = ", ".join(drawn.pyramid)
    yield '  subgraph "cluster head" {'
    label = quote(f"head · the same for {names}; figures are sums over them")
    yield f'    label={label}; style="rounded,filled"; fillcolor="{BAND}"; color="{TONE}40"; penwidth=1; tooltip={label};'
    pyramid = names if len(drawn.pyramid) < 3 else f"{drawn.pyramid[0]} … {drawn.pyramid[-1]}"
    yield (
        f'    "head" [label=<<b>{escape(pyramid)}</b>>, peripheries=2, fillcolor="{FILLS["identity"]}",'
        f" tooltip={quote(f'pyramid features {names}')}];"
    )
    for tower in drawn.towers:
        for box in (*tower.layers, *tower.predictions):
            yield "    " + _box(box, emphasis)
        for entry in tower.entries:
            yield "    " + _arrow(Arrow("head", entry.id), emphasis)
        for arrow in tower.arrows:
            yield "    " + _arrow(arrow, emphasis)
    yield "  }"


def _order(drawn: Diagram) -> Iterator[str]:
    """Unseen lines that hold the picture in shape: bands in the order of their levels, outputs in one column."""
    lanes = [quote("lane pooled" if lane.level is None else f"lane level {lane.level}") for lane in drawn.lanes]
    column = [*lanes, *(['"head"'] if drawn.towers else [])]
    posts = [quote(f"post {place}") for place in range(len(column))]
    yield f'  {{ rank=same; node [label="", style=invis, width=0.01, height=0.3, fixedsize=true]; {"; ".join(posts)}; }}'
    yield f"  {{ rank=same; {'; '.join(column)}; }}"
    yield f"  {' -> '.join(posts)} [style=invis];"
    yield '  "root" [label="", style=invis, width=0.01, height=0.3, fixedsize=true];'
    for post in posts:
        yield f'  "root" -> {post} [style=invis];'
    for post, lane in zip(posts, column):
        for i in range(4):
            yield f"  {post} -> {lane} [style=invis, weight=100];"
    for lane, anchor in zip(drawn.lanes, lanes, strict=True):
        for box in lane.boxes:
            if box.role == "input":
                yield f"  {anchor} -> {quote(box.id)} [style=invis, weight=10];"
    outputs = [quote(box.id) for lane in drawn.lanes for box in lane.boxes if box.role == "output"]
    yield f"  {{ rank=same; {'; '.join(outputs)}; }}"


def _box(box: Box, emphasis: Emphasis) -> str:
    stroke = emphasis.boxes.get(box.id, PLAIN)
    rows = [f"<b>{escape(box.name)}</b>"]
    if box.role in ("layer", "prediction"):
        rows[0] += _small(f"&#160; {box.note}", 10, escaped=True)
    if box.role != "layer":
        rows += [_small(line, 10) for line in wrap(box.text)]
    if box.macs or box.params or box.role not in ("merge", "output"):
        rows.append(_small((box.note if box.role == "input" else "") + figures(box), 9))
    if stroke.before:
        rows.append(_small(stroke.before, 9))
    table = "".join(f'<tr><td align="left">{row}</td></tr>' for row in rows)
    attributes = {
        "label": f'<<table border="0" cellborder="0" cellspacing="0" cellpadding="1">{table}</table>>',
        "tooltip": quote(where(box.span)),
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
    return f"{quote(box.id)} [{', '.join(f'{k}={v}' for k, v in attributes.items())}];"


def _arrow(arrow: Arrow, emphasis: Emphasis) -> str:
    stroke = emphasis.arrows.get((arrow.source, arrow.target), PLAIN)
    tip = f"{arrow.target} reads {arrow.source}" + (f" {arrow.times} times" if arrow.times > 1 else "")
    if arrow.kind == "merge":
        tip = f"{arrow.source} dangles and is added to {arrow.target}"
    attributes = {}
    colour = stroke.colour
    if arrow.mark:
        attributes["label"] = quote(f" {arrow.mark} ")
        colour = colour or RESIZED
        up, factor = arrow.levels < 0, 1 << abs(arrow.levels)
        tip += f"; height and width {'times' if up else 'over'} {factor}"
        attributes["labeltooltip"] = quote(tip)
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
    return f"{quote(arrow.source)} -> {quote(arrow.target)} [{', '.join(f'{k}={v}' for k, v in attributes.items())}];"


def _title(drawn: Diagram, emphasis: Emphasis) -> str:
    cells = []
    present = {box.family for box in drawn.boxes}
    for name, words in FAMILIES.items():
        if name in present:
            cells.append(f'<td bgcolor="{FILLS[name]}"><font color="{PRINT}" point-size="10">{words}</font></td>')
    for words, stroke in emphasis.legend:
        cells.append(f'<td border="1" color="{stroke.colour or TONE}">{_small(words, 10)}</td>')
    arrows = drawn.arrows
    keys = ["║ pyramid output"]
    if any(a.times > 1 for a in arrows):
        keys.append("═ read twice")
    if any(a.kind == "merge" for a in arrows):
        keys.append("╌ dangling value merged in")
    if any(a.mark for a in arrows):
        keys.append("↑n ↓n map grows, shrinks n times")
    rows = [
        f'<td align="left"><font point-size="18"><b>{escape(drawn.name)}</b></font></td>',
        f'<td align="left">{_small(headline(drawn.table), 11)}</td>',
        f'<td align="left"><table border="0" cellborder="0" cellspacing="3" cellpadding="3"><tr>{"".join(cells)}</tr>'
        "</table></td>",
        f'<td align="left">{_small(" · ".join(keys), 10)}</td>',
    ]
    if drawn.removed:
        removed = [f"{r.name} ({human(r.macs)} MACs)" for r in drawn.removed[:6]]
        more = f" and {len(drawn.removed) - 6} more" if len(drawn.removed) > 6 else ""
        note = f"not drawn, because no output depends on it: {', '.join(removed)}{more}"
        rows.append(f'<td align="left"><font color="{TONE}" point-size="10"><i>{escape(note)}</i></font></td>')
    table = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<table border="0" cellborder="0" cellspacing="0" cellpadding="2">{table}</table>'


def _small(text: str, size: int, *, escaped: bool = False) -> str:
    return f'<font point-size="{size}">{text if escaped else escape(text)}</font>'


def wrap(text: str, length: int = _LINE_LENGTH, lines: int = 2) -> list[str]:
    """An expression on at most so many lines, broken behind commas where that fits; an ellipsis for what is left out."""
    rows: list[str] = []
    while text and len(rows) < lines:
        if len(text) <= length or len(rows) == lines - 1:
            rows.append(shorten(text, length))
            break
        cut = text.rfind(", ", 0, length) + 1 or text.rfind(" ", 0, length) + 1 or length
        rows.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return rows


def where(span: Span) -> str:
    """``file:line`` and the source text, for a tooltip."""
    return f"{span.source.name}:{span.line}\n{shorten(span.text, 400)}"


def escape(text: str) -> str:
    """A text as it stands in an HTML-like label, or in XML."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return _printable(text)


def quote(text: str) -> str:
    """A text as a DOT string: Graphviz reads backslashes and entities in it, and must show what stands here."""
    text = _printable(text).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
    return '"' + text.replace("\r", "").replace("\n", "\\n") + '"'


def _printable(text: str) -> str:
    """Without control characters, which XML cannot hold."""
    return "".join(c for c in text if c in "\n\t" or (ord(c) >= 32 and ord(c) not in (0xFFFE, 0xFFFF)))


def join(parts: Iterable[str]) -> str:
    return " · ".join(part for part in parts if part)
