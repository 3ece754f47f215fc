"""HTML page of a diagram: the diagram, the text beside it and a table of costs, which highlight each other under the mouse.

A folded block or `repeat` opens at a click: the page has a picture for each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath

from nasdsl.backends.diagrams.diagram import Diagram
from nasdsl.backends.diagrams.dot import TONE, element_ids, emit_diagram, escape
from nasdsl.backends.diagrams.folding import View
from nasdsl.backends.diagrams.labels import cost_summary
from nasdsl.diagnostics import Source


def emit_page(views: Sequence[View], draw: Callable[[str], str]) -> str:
    """Make the HTML page of a diagram. It is self-contained: nothing is loaded from elsewhere.

    Args:
        views: what the page shows, the first one at first. The table has every value.
        draw: draws a DOT text as SVG.
    """
    drawn = views[0].folding.whole
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
    parts = {
        "NAME": escape(drawn.name),
        "HEADLINE": escape(cost_summary(drawn.table)),
        "PICTURES": "\n".join(_inline(draw(emit_diagram(view.folding.diagram)), n) for n, view in enumerate(views)),
        "VIEWS": _json([_view(view, n, views, elements) for n, view in enumerate(views)]),
        "HINT": " Click a box with a tab to open it." if any(view.folding.closed for view in views) else "",
        "TEXTS": texts,
        "ROWS": "\n".join(_rows(drawn, elements)),
        "PLACES": _json(places),
        "TONE": TONE,
    }
    return re.sub(r"@([A-Z]+)@", lambda found: parts[found[1]], _PAGE)


def _json(data: object) -> str:
    """JSON for a script: `</script>` in a name would end it; nothing else in JSON can."""
    return json.dumps(data).replace("<", "\\u003c")


def _view(view: View, number: int, views: Sequence[View], rows: Mapping[str, str]) -> dict[str, object]:
    """What the script knows of a view: the rows of the table of each box, and the view that each folded box opens."""
    folding = view.folding
    elements = element_ids(folding.diagram)
    boxes: dict[str, list[str]] = {}
    for box, drawn_as in folding.drawn_as.items():
        boxes.setdefault(f"v{number}-{elements[drawn_as]}", []).append(rows[box])
    targets = {other.path: n for n, other in enumerate(views) if other.path}
    opens = {f"v{number}-{elements[box]}": targets[path] for box, path in folding.closed.items() if path in targets}
    return {"title": view.title, "parent": view.parent, "boxes": boxes, "opens": opens}


def _inline(svg: str, number: int) -> str:
    """SVG element for an HTML page: without prologue, namespaces and fixed size, its ids those of the view."""
    svg = svg[svg.index("<svg") :]
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(width|height|xmlns|xmlns:xlink)="[^"]*"', "", head)
    # Graphviz's <title> elements hold ids; the tooltips are in xlink:title.
    rest = re.sub(r"<title>[^<]*</title>\n?", "", rest)
    rest = re.sub(r"<!--.*?-->\n?", "", rest, flags=re.DOTALL)
    rest = re.sub(r'<a xlink:title="([^"]*)">', r"<a><title>\1</title>", rest)
    rest = re.sub(r'<g id="(?!box)[^"]*"', "<g", rest)
    rest = rest.replace('<g id="box', f'<g id="v{number}-box')
    hidden = " hidden" if number else ""
    return f'{head} class="picture" id="v{number}" role="img"{hidden}>{rest}'


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
        cells = [box.name, box.text, "" if box.level is None else str(box.level), drawn.shape(box) or "·"]
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
.picture { display: block; width: 100%; height: min(76vh, 90vw); cursor: grab; touch-action: none; }
.picture[hidden] { display: none; }
.picture text[fill="@TONE@"] { fill: var(--soft); }
.picture a { cursor: inherit; }
.opens, .opens a { cursor: zoom-in; }
.opens:focus-visible { outline: 2px solid #d1343f; }
nav { display: flex; flex-wrap: wrap; gap: .4rem; padding: .4rem .6rem; border-bottom: 1px solid var(--line); }
nav:empty { display: none; }
button { font: inherit; padding: .1rem .6rem; border: 1px solid var(--line); border-radius: 6px; background: none; }
button { color: inherit; cursor: pointer; }
button:disabled { font-weight: bold; cursor: default; }
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
<h1>@NAME@</h1><p>@HEADLINE@. Wheel or pinch to zoom, drag to move, double click to fit.@HINT@</p>
<main><div id="view"><nav></nav>@PICTURES@</div><aside>@TEXTS@</aside></main>
<h2>Cost for one image</h2>
<table><thead><tr><th>value</th><th>expression</th><th>level</th><th>shape</th><th class="n">MACs</th>
<th class="n">params</th><th class="n">line</th></tr></thead><tbody>
@ROWS@
</tbody></table>
<script>
"use strict";
// places: lines of the text of each row of the table. A view has the rows of each of its boxes, and the view that a box opens.
const places = @PLACES@, views = @VIEWS@, rowsOf = {}, boxOf = {};
let shown = 0, full, view, picture;
const pointers = new Map();
const row = name => document.querySelector(`[data-box="${name}"]`);
// Scrolls the text alone: scrollIntoView would move the page under the mouse, too.
function reveal(line) {
  const aside = document.querySelector("aside"), own = line.getBoundingClientRect();
  const {top, bottom} = aside.getBoundingClientRect();
  if (own.top < top) aside.scrollTop -= top - own.top;
  if (own.bottom > bottom) aside.scrollTop += own.bottom - bottom;
}
function mark(rows, scroll) {
  for (const old of document.querySelectorAll(".hit")) old.classList.remove("hit");
  let first = scroll;
  for (const name of rows) {
    document.getElementById(boxOf[shown][name])?.classList.add("hit");
    row(name)?.classList.add("hit");
    for (const line of places[name]) {
      const element = document.getElementById(line);
      element.classList.add("hit");
      if (first) reveal(element);
      first = false;
    }
  }
}
function link(element, rows, scroll) {
  if (!element) return;
  element.addEventListener("mouseenter", () => mark(rows, scroll));
  element.addEventListener("mouseleave", () => mark([]));
}
for (const [name, lines] of Object.entries(places)) {
  link(row(name), [name], true);
  for (const line of lines) (rowsOf[line] ??= []).push(name);
}
for (const [line, rows] of Object.entries(rowsOf)) {
  const element = document.getElementById(line);
  element.classList.add("linked");
  link(element, rows, false);
}
const fit = () => picture.setAttribute("viewBox", (view = [...full]).join(" "));
function show(number) {
  for (const each of document.querySelectorAll(".picture")) each.toggleAttribute("hidden", each.id !== `v${number}`);
  shown = number;
  picture = document.getElementById(`v${number}`);
  full = picture.dataset.full.split(" ").map(Number);
  pointers.clear();
  fit();
  const way = [];
  for (let at = number; at >= 0; at = views[at].parent) way.unshift(at);
  const last = views.length - 1, nav = document.querySelector("nav");
  if (last && !way.includes(last)) way.push(last);
  nav.replaceChildren(...(last ? way : []).map(at => {
    const button = document.createElement("button");
    button.textContent = at ? views[at].title : "overview";
    button.disabled = at === number;
    button.addEventListener("click", () => show(at));
    return button;
  }));
}
function zoom(by, event) {
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
  by = Math.min(Math.max(by, 0.02 * full[2] / view[2]), 4 * full[2] / view[2]);
  view = [at.x - (at.x - view[0]) * by, at.y - (at.y - view[1]) * by, view[2] * by, view[3] * by];
  picture.setAttribute("viewBox", view.join(" "));
}
const scale = () => Math.max(view[2] / picture.clientWidth, view[3] / picture.clientHeight);
views.forEach(({boxes, opens}, number) => {
  const own = document.getElementById(`v${number}`), {x, y, width, height} = own.viewBox.baseVal;
  own.dataset.full = [x, y, width, height].join(" ");
  boxOf[number] = {};
  for (const [box, rows] of Object.entries(boxes)) {
    for (const name of rows) boxOf[number][name] = box;
    link(document.getElementById(box), rows, true);
  }
  for (const [box, target] of Object.entries(opens)) {
    const element = document.getElementById(box);
    element.classList.add("opens");
    element.setAttribute("tabindex", "0");
    element.setAttribute("role", "button");
    element.addEventListener("keydown", event => { if (event.key === "Enter") show(target); });
  }
  let pressed = null;
  own.addEventListener("wheel", event => {
    event.preventDefault();
    zoom(Math.exp(event.deltaY / 500), event);
  }, {passive: false});
  own.addEventListener("dblclick", fit);
  own.addEventListener("pointerdown", event => {
    const box = event.target.closest(".opens");
    pressed = box && {target: opens[box.id], x: event.clientX, y: event.clientY};
    pointers.set(event.pointerId, event);
    own.setPointerCapture(event.pointerId);
  });
  own.addEventListener("pointermove", event => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const other = [...pointers.values()].find(p => p.pointerId !== event.pointerId);
    if (other) {
      const far = p => Math.hypot(p.clientX - other.clientX, p.clientY - other.clientY);
      zoom(far(before) / Math.max(far(event), 1), other);
    } else {
      view[0] -= (event.clientX - before.clientX) * scale();
      view[1] -= (event.clientY - before.clientY) * scale();
      picture.setAttribute("viewBox", view.join(" "));
    }
    pointers.set(event.pointerId, event);
  });
  own.addEventListener("pointerup", event => {
    pointers.delete(event.pointerId);
    // A press that moves is a drag, and opens nothing.
    if (pressed && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) < 4) show(pressed.target);
    pressed = null;
  });
  own.addEventListener("pointercancel", event => pointers.delete(event.pointerId));
});
show(0);
document.documentElement.dataset.ready = "yes";
</script></body></html>
"""
