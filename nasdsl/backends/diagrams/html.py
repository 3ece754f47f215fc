"""HTML page of a diagram: the diagram, the text beside it and a table of costs, which highlight each other under the mouse."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import PurePath

from nasdsl.backends.cost import Areas
from nasdsl.backends.diagrams.diagram import Box, Diagram
from nasdsl.backends.diagrams.dot import TONE, element_ids, escape
from nasdsl.backends.diagrams.labels import cost_summary
from nasdsl.diagnostics import Source
from nasdsl.layers import Feature


def emit_page(drawn: Diagram, svg: str) -> str:
    """Make the HTML page of a diagram. It is self-contained: nothing is loaded from elsewhere.

    Args:
        svg: the diagram as Graphviz drew it.
    """
    elements = element_ids(drawn)
    sources: dict[int, tuple[int, Source]] = {}
    for box in drawn.boxes:
        sources.setdefault(id(box.span.source), (len(sources), box.span.source))
    places = {}
    for box in drawn.boxes:
        number = sources[id(box.span.source)][0]
        last = box.span.line + box.span.text.count("\n")
        places[elements[box.id]] = [f"s{number}-{line}" for line in range(box.span.line, last + 1)]
    texts = "\n".join(_listing(number, source) for number, source in sources.values())
    # `</script>` in a name would end the script; nothing else in JSON can.
    data = json.dumps(places).replace("<", "\\u003c")
    parts = {
        "NAME": escape(drawn.name),
        "HEADLINE": escape(cost_summary(drawn.table)),
        "PICTURE": _inline(svg),
        "TEXTS": texts,
        "ROWS": "\n".join(_rows(drawn, elements)),
        "PLACES": data,
        "TONE": TONE,
    }
    return re.sub(r"@([A-Z]+)@", lambda found: parts[found[1]], _PAGE)


def _inline(svg: str) -> str:
    """SVG element for an HTML page: without prologue, namespaces and fixed size."""
    svg = svg[svg.index("<svg") :]
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(width|height|xmlns|xmlns:xlink)="[^"]*"', "", head)
    # Graphviz's <title> elements hold ids; the tooltips are in xlink:title.
    rest = re.sub(r"<title>[^<]*</title>\n?", "", rest)
    rest = re.sub(r"<!--.*?-->\n?", "", rest, flags=re.DOTALL)
    rest = re.sub(r'<a xlink:title="([^"]*)">', r"<a><title>\1</title>", rest)
    return f'{head} id="picture" role="img">{rest}'


def _listing(number: int, source: Source) -> str:
    lines = source.text.rstrip("\n").split("\n")
    rows = "".join(
        f'<span class="line" id="s{number}-{place}"><i>{place}</i>{escape(line.rstrip()) or " "}</span>'
        for place, line in enumerate(lines, 1)
    )
    name = escape(PurePath(source.name).name)
    return f"<h2>{name}</h2><pre>{rows}</pre>"


def _rows(drawn: Diagram, elements: dict[str, str]) -> Iterator[str]:
    table = drawn.table
    for box in drawn.boxes:
        cells = [box.name, box.text, "" if box.level is None else str(box.level), _shape(drawn, box)]
        figures = [f"{box.macs:,}", f"{box.params:,}"]
        yield (
            f'<tr data-box="{elements[box.id]}">'
            + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            + "".join(f'<td class="n">{cell}</td>' for cell in figures)
            + f'<td class="n">{box.span.line}</td></tr>'
        )
    for name, part in (("fpn", table.fpn), ("head", table.head), ("fpn and head", table.decoder)):
        figures = [f"{part.macs:,}", f"{part.params:,}"]
        numbers = "".join(f'<td class="n">{cell}</td>' for cell in figures)
        yield f'<tr class="sum"><td>{name}</td><td></td><td></td><td></td>{numbers}<td></td></tr>'
    for absent in drawn.removed:
        name = f"{escape(absent.name)} (left out: no output depends on it)"
        yield (
            f'<tr class="gone"><td colspan="4">{name}</td><td class="n">{absent.macs:,}</td>'
            f'<td class="n">{absent.params:,}</td><td class="n">{absent.span.line}</td></tr>'
        )


def _shape(drawn: Diagram, box: Box) -> str:
    if box.level is None:
        return str(box.width)
    height, width = Areas(drawn.table.size).map(Feature(box.level, box.width))
    return f"{box.width} x {height} x {width}"


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>@NAME@</title>
<style>
:root { color-scheme: light dark; --page: #fff; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --hit: #fff3c4; }
@media (prefers-color-scheme: dark) {
  :root { --page: #0d1117; --ink: #e6edf3; --soft: #9198a1; --line: #30363d; --hit: #4b3a06; }
}
body { margin: 1.5rem; background: var(--page); color: var(--ink); font: 14px/1.45 Helvetica, Arial, sans-serif; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1rem; margin: 1rem 0 .3rem; }
p { color: var(--soft); margin: .2rem 0 1rem; }
main { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
#view { flex: 3 1 40rem; min-width: 0; border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
#picture { display: block; width: 100%; height: 76vh; cursor: grab; touch-action: none; }
#picture text[fill="@TONE@"] { fill: var(--soft); }
#picture a { cursor: inherit; }
aside { flex: 1 1 24rem; min-width: 0; max-height: 78vh; overflow: auto; }
pre { margin: 0; font: 12px/1.5 ui-monospace, Menlo, Consolas, monospace; }
.line { display: block; white-space: pre; padding-right: 1rem; } .line.linked { cursor: pointer; }
.line i { display: inline-block; width: 2.6em; margin-right: 1em; text-align: right; color: var(--soft); font-style: normal; }
table { border-collapse: collapse; font-size: 13px; } th { text-align: left; }
td, th { padding: .15rem .7rem; border-bottom: 1px solid var(--line); }
.n { text-align: right; font-variant-numeric: tabular-nums; } .sum { font-weight: bold; } .gone { color: var(--soft); }
.hit { background: var(--hit); }
.node.hit path, .node.hit polygon { stroke: #d1343f; stroke-width: 2.5; }
</style></head><body>
<h1>@NAME@</h1><p>@HEADLINE@. Wheel or pinch to zoom, drag to move, double click to fit.</p>
<main><div id="view">@PICTURE@</div><aside>@TEXTS@</aside></main>
<h2>Cost for one image</h2>
<table><thead><tr><th>value</th><th>expression</th><th>level</th><th>shape</th><th class="n">MACs</th>
<th class="n">params</th><th class="n">line</th></tr></thead><tbody>
@ROWS@
</tbody></table>
<script>
"use strict";
const places = @PLACES@, boxes = {};
for (const [box, lines] of Object.entries(places)) for (const line of lines) (boxes[line] ??= []).push(box);
const row = box => document.querySelector(`[data-box="${box}"]`);
function mark(found, scroll) {
  for (const old of document.querySelectorAll(".hit")) old.classList.remove("hit");
  for (const box of found) {
    document.getElementById(box)?.classList.add("hit");
    row(box)?.classList.add("hit");
    places[box].forEach((line, place) => {
      const element = document.getElementById(line);
      element.classList.add("hit");
      if (scroll && !place) element.scrollIntoView({block: "nearest"});
    });
  }
}
function link(element, found, scroll) {
  if (!element) return;
  element.addEventListener("mouseenter", () => mark(found, scroll));
  element.addEventListener("mouseleave", () => mark([]));
}
for (const box of Object.keys(places)) { link(document.getElementById(box), [box], true); link(row(box), [box], true); }
for (const [line, found] of Object.entries(boxes)) {
  const element = document.getElementById(line);
  element.classList.add("linked");
  link(element, found, false);
}
const picture = document.getElementById("picture"), whole = picture.viewBox.baseVal;
const full = [whole.x, whole.y, whole.width, whole.height], pointers = new Map();
let view = [...full];
const show = () => picture.setAttribute("viewBox", view.join(" "));
const scale = () => Math.max(view[2] / picture.clientWidth, view[3] / picture.clientHeight);
function zoom(by, event) {
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
  by = Math.min(Math.max(by, 0.02 * full[2] / view[2]), 4 * full[2] / view[2]);
  view = [at.x - (at.x - view[0]) * by, at.y - (at.y - view[1]) * by, view[2] * by, view[3] * by];
  show();
}
picture.addEventListener("wheel", event => {
  event.preventDefault();
  zoom(Math.exp(event.deltaY / 500), event);
}, {passive: false});
picture.addEventListener("dblclick", () => { view = [...full]; show(); });
picture.addEventListener("pointerdown", event => {
  pointers.set(event.pointerId, event);
  picture.setPointerCapture(event.pointerId);
});
picture.addEventListener("pointermove", event => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const other = [...pointers.values()].find(p => p.pointerId !== event.pointerId);
  if (other) {
    const far = p => Math.hypot(p.clientX - other.clientX, p.clientY - other.clientY);
    zoom(far(before) / Math.max(far(event), 1), other);
  } else {
    view[0] -= (event.clientX - before.clientX) * scale();
    view[1] -= (event.clientY - before.clientY) * scale();
    show();
  }
  pointers.set(event.pointerId, event);
});
for (const end of ["pointerup", "pointercancel"]) picture.addEventListener(end, event => pointers.delete(event.pointerId));
</script></body></html>
"""
