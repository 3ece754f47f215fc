"""Diagrams: what is drawn, how it is written, and that every format opens."""

from __future__ import annotations

import html
import json
import os
import random
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import pytest

import nasdsl
from nasdsl.backbones import backbone
from nasdsl.backends.cost import CostTable, cost
from nasdsl.backends.diagrams import rendering
from nasdsl.backends.diagrams.diagram import Diagram
from nasdsl.backends.diagrams.diff import compare, emit_dot_diff
from nasdsl.backends.diagrams.dot import FILLS, RESIZED, TEXT_COLOR, TONE, emit_diagram, emit_dot, quote, wrap_diagram
from nasdsl.backends.diagrams.from_graph import diagram, family
from nasdsl.backends.diagrams.labels import expression, format_count, text_width, wrap_text
from nasdsl.backends.diagrams.layout import ROW_GAP, arrange, spread
from nasdsl.backends.diagrams.mermaid import emit_mermaid
from nasdsl.backends.diagrams.routes import Rectangle
from nasdsl.backends.diagrams.wrapping import split_rows
from nasdsl.diagnostics import Source
from nasdsl.ir import Graph
from nasdsl.layers import Add, Concat, Conv, DeformConv, GlobalPool, Norm, Resize

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "goldens" / "nas_fcos.dot"

POOLED = """decoder pooled {
  input c3, c4, c5
  fpn(width=64, norm=bn) {
    g = mul(c3, sigmoid(global_pool(c3, kind=max)))
    pooled = global_pool(c5, kind=avg)
    m = mul(c4, sigmoid(pooled))
    output p3 = g, p4 = m, p5 = c5
  }
  head(width=64, norm=gn, share=2) { conv_3x3 -> conv_3x3 -> conv_3x3 }
  predict fcos(centerness=cls)
}
"""

BIFPN = """agg fuse2(x, y)    = conv(weighted_add(x, y), k=3)
agg fuse3(x, y, z) = conv(weighted_add(x, y, z), k=3)
block bifpn(p3, p4, p5) -> (q3, q4, q5) {
  m4 = fuse2(p4, p5)
  q3 = fuse2(p3, m4)
  q4 = fuse3(p4, m4, resize(q3, to=p4))
  q5 = fuse2(p5, resize(q4, to=p5))
}
decoder bifpn3 {
  input c3, c4, c5
  fpn(width=64, norm=bn) {
    a3, a4, a5 = bifpn(c3, c4, c5)
    repeat 2 { a3, a4, a5 = bifpn(a3, a4, a5) }
    output p3 = a3, p4 = a4, p5 = a5
    output p6 = down(p5), p7 = down(relu(p6))
  }
  head(width=64, norm=gn, share=0) {
    cls: sep_3x3 -> sep_3x3
    box: sep_3x3 -> sep_3x3 -> sep_3x3
  }
  predict fcos(centerness=box)
}
"""

TRUNK = """decoder trunk {
  input c3, c4
  fpn(width=64, norm=bn) {
    shared refine(x) = conv_3x3(x)
    output p3 = refine(c3), p4 = refine(sum(c3, c4))
  }
  head(width=64, norm=bn, norms=level) {
    both: conv_3x3 * 2
    cls: sep_3x3
    box: conv_3x3 * 2
  }
  predict fcos(centerness=box)
}
"""

TEXTS = {path.stem: path.read_text() for path in sorted((ROOT / "genotypes").glob("*.nas"))}
TEXTS |= {"pooled": POOLED, "bifpn": BIFPN, "trunk": TRUNK}
LARGE = {"asff", "bfp", "carafe_fpn", "dyhead", "nas_fpn", "rtdetr", "sepc", "yolox"}
"""Whose diagrams are large, or have nothing in them that the others have not: among the long tests."""


def blocks(count: int) -> str:
    """A decoder of so many blocks, each on the one before and on an input or a block somewhat further back."""
    lines = []
    for t in range(1, count + 1):
        before = f"x{t - 1}" if t > 1 else "c4"
        other = f"x{t - 5}" if t % 3 and t > 5 else f"c{3 + t % 3}"
        lines.append(f"    x{t} = psum(sep_3x3({before}), skip({other}))")
    body = "\n".join(lines)
    return (
        f"decoder deep {{\n  input c3, c4, c5\n  fpn(width=32, norm=bn) {{\n{body}\n"
        f"    output p3 = x{count}, p5 = c5\n    merge dangling into p3\n  }}\n"
        "  head(width=32, norm=gn, share=0) { conv_3x3 }\n  predict fcos(centerness=cls)\n}\n"
    )


def lowered(text: str, name: str = "<text>") -> tuple[Graph, CostTable]:
    graph = nasdsl.loads(text, name=name).lower(backbone("resnet50").out_channels)
    return graph, cost(graph, (800, 1088), 80)


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.long if name in LARGE else ()) for name in sorted(TEXTS)])
def decoder(request: pytest.FixtureRequest) -> tuple[Graph, CostTable]:
    return lowered(TEXTS[request.param], f"{request.param}.nas")


def statements(dot: str) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """Boxes and arrows of a DOT text with their attributes; a reference is the box that it stands for."""
    nodes, edges = {}, {}
    reference = r" \(row \d+\)$"
    for line in dot.splitlines():
        if found := re.match(r'\s*"([^"]*)" -> "([^"]*)" \[(.*)\];$', line):
            ends = re.sub(reference, "", found[1]), found[2]
            assert ends not in edges, "two arrows between the same boxes"
            edges[ends] = found[3]
        elif found := re.match(r'\s*"([^"]*)" \[(.*)\];$', line):
            assert found[1] not in nodes, "a box drawn twice"
            if not re.search(reference, found[1]):
                nodes[found[1]] = found[2]
    return nodes, edges


# ---------------------------------------------------------------------------------------------- what is drawn


def test_every_value_is_drawn_once(decoder: tuple[Graph, CostTable]) -> None:
    graph, table = decoder
    nodes, _ = statements(emit_dot(graph, table))
    drawn = diagram(graph, table)
    assert set(nodes) == {box.id for box in drawn.boxes} | {"head"}
    for value in {id(n.value): n.value for n in graph.nodes}.values():
        name = value.name.removesuffix(" adapter").removesuffix(".merge")
        boxes = [b for b in (value.name, name, f"output {name}") if b in nodes]
        assert boxes, value
    assert sum(box.macs for lane in drawn.lanes for box in lane.boxes) == table.fpn.macs
    assert sum(box.params for lane in drawn.lanes for box in lane.boxes) == table.fpn.params
    assert sum(box.macs for t in drawn.towers for box in (*t.layers, *t.predictions)) == table.head.macs
    assert sum(box.params for t in drawn.towers for box in (*t.layers, *t.predictions)) == table.head.params


def test_every_operand_is_an_arrow(decoder: tuple[Graph, CostTable]) -> None:
    """Derived independently from the layers: resizes are skipped, except for a value that is one."""
    graph, table = decoder
    _, edges = statements(emit_dot(graph, table))
    nodes = {n.id: n for n in graph.nodes}
    of_output = {f"{name}.merge": f"output {name}" for name, i in graph.outputs.items() if nodes[i].value.kind == "merge"}

    def box(name: str, kind: str) -> str:
        return f"output {name}" if kind == "output" else of_output.get(name, name.removesuffix(" adapter"))

    for node in graph.nodes:
        target = box(node.value.name, node.value.kind)
        for operand in node.inputs:
            source = nodes[operand]
            named = []
            while isinstance(source.layer, Resize):
                named.append(box(source.value.name, source.value.kind))
                source = nodes[source.inputs[0]]
            origin = box(source.value.name, source.value.kind)
            if origin != target and not isinstance(node.layer, Resize):
                renamed = [f"output {name}" for name, i in graph.outputs.items() if i == operand]
                assert any((o, target) in edges for o in (origin, *named, *renamed)), (origin, target)
    for source_id, target_id in edges:
        assert not source_id.startswith("output ") or target_id.startswith("output "), "only outputs read outputs"


def test_published_decoder_reads_what_figure_3_shows() -> None:
    graph, table = lowered(TEXTS["nas_fcos"])
    drawn = diagram(graph, table)
    reads = {(a.source, a.target, a.kind, a.times, a.mark) for a in drawn.arrows}
    assert reads == {
        ("c5", "x1", "data", 2, ""), ("c5", "x2", "data", 2, ""), ("x1", "x3", "data", 1, ""), ("c5", "x3", "data", 1, ""),
        ("c3", "x4", "data", 1, ""), ("c5", "x4", "data", 1, "↑4"), ("x2", "x5", "data", 1, ""), ("c5", "x5", "data", 1, ""),
        ("x1", "x6", "data", 1, "↑4"), ("x4", "x6", "data", 1, ""), ("x4", "x7", "data", 1, ""), ("c4", "x7", "data", 1, "↑2"),
        ("x5", "output p5", "data", 1, ""), ("x3", "output p5", "merge", 1, ""),
        ("x6", "p4.merge", "data", 1, ""), ("x3", "p4.merge", "merge", 1, "↑4"), ("p4.merge", "output p4", "data", 1, "↓2"),
        ("x7", "output p3", "data", 1, ""), ("x3", "output p3", "merge", 1, "↑4"),
        ("output p5", "output p6", "data", 1, "↓2"), ("output p6", "output p7", "data", 1, "↓2"),
    }  # fmt: skip
    assert [a.name for a in drawn.removed] == ["c2 adapter"]


def test_merges_are_broken_lines_and_outputs_have_two_frames(decoder: tuple[Graph, CostTable]) -> None:
    graph, table = decoder
    nodes, edges = statements(emit_dot(graph, table))
    kinds = {(a.source, a.target): a.kind for a in diagram(graph, table).arrows}
    for ends, attributes in edges.items():
        assert ("style=dashed" in attributes) == (kinds.get(ends) == "merge"), ends
    framed = {name for name, attributes in nodes.items() if "peripheries=2" in attributes}
    assert framed == {f"output {name}" for name in graph.outputs} | {"head"}
    merged = [n for n in graph.nodes if n.value.kind == "merge" and len(n.inputs) > 1]
    assert sum(len(n.inputs) - 1 for n in merged) == sum(kind == "merge" for kind in kinds.values())


def test_resize_is_marked_where_the_level_changes_and_nowhere_else(decoder: tuple[Graph, CostTable]) -> None:
    graph, table = decoder
    _, edges = statements(emit_dot(graph, table))
    levels = {box.id: box.level for box in diagram(graph, table).boxes}
    seen = 0
    for (source, target), attributes in edges.items():
        before, after = levels.get(source), levels.get(target)
        moved = before is not None and after is not None and before != after
        assert (RESIZED in attributes and "resize" in attributes) == moved, (source, target)
        if moved:
            assert before is not None
            assert after is not None
            arrow = "↑" if after < before else "↓"
            assert f">{arrow}{2 ** abs(after - before)}<" in attributes
            seen += 1
    assert seen or "pooled" in graph.name or len(graph.levels) == 1


def test_a_resized_copy_that_several_read_is_its_source() -> None:
    text = POOLED.replace("m = mul", "a = add(c3, c5)\n    b = add(c3, c5)\n    m = mul").replace("p3 = g", "p3 = add(a, b)")
    arrows = {(a.source, a.target): a.mark for a in diagram(*lowered(text)).arrows}
    assert arrows["c5", "a"] == arrows["c5", "b"] == "↑4"
    assert ("a", "b") not in arrows


def test_a_dead_value_that_made_a_shared_copy_is_not_drawn() -> None:
    text = POOLED.replace("m = mul", "dead = add(c3, c5)\n    b = add(c3, c5)\n    m = mul").replace("p3 = g", "p3 = add(b, g)")
    graph, table = lowered(text)
    drawn = diagram(graph, table)
    assert "dead" not in {box.id for box in drawn.boxes}
    assert ("c5", "b") in {(a.source, a.target) for a in drawn.arrows}


def test_a_value_that_is_a_resize_stays_a_box() -> None:
    text = POOLED.replace("m = mul", "r = resize(c5, to=c3)\n    m = mul").replace("p3 = g", "p3 = add(r, g)")
    arrows = {(a.source, a.target): a.mark for a in diagram(*lowered(text)).arrows}
    assert arrows["c5", "r"] == "↑4"
    assert arrows["r", "output p3"] == ""


def test_bands_name_their_level_and_pooled_values_have_their_own() -> None:
    drawn = diagram(*lowered(POOLED))
    assert [lane.label for lane in drawn.lanes] == [
        "P5 / C5 · stride 32 · 25x34", "P4 / C4 · stride 16 · 50x68", "P3 / C3 · stride 8 · 100x136", "global pooling · 1x1",
    ]  # fmt: skip
    assert [box.id for box in drawn.lanes[-1].boxes] == ["pooled"]
    assert [layer.note for layer in drawn.towers[0].layers] == ["per level", "per level", "shared"]


def test_head_is_drawn_once_a_tower(decoder: tuple[Graph, CostTable]) -> None:
    graph, table = decoder
    _, edges = statements(emit_dot(graph, table))
    trunk = () if graph.head.trunk is None else graph.head.trunk.layers
    for tower in graph.head.towers:
        chain = ["head", *(f"head both {layer.index}" for layer in trunk)]
        chain += [f"head {tower.name} {layer.index}" for layer in tower.layers]
        assert all(ends in edges for ends in pairwise(chain))
        for prediction in graph.head.predictions:
            assert ((chain[-1], f"head {prediction.name}") in edges) == (prediction.tower == tower.name)


def test_a_cost_table_of_another_graph_is_refused() -> None:
    with pytest.raises(ValueError, match="cost table"):
        diagram(lowered(TEXTS["nas_fcos"])[0], lowered(TEXTS["fcos"])[1])


# ---------------------------------------------------------------------------------------------- layout


def place(drawn: Diagram) -> tuple[dict[str, Rectangle], list[Rectangle]]:
    layout = arrange(drawn, {box.id: (120.0, 40.0) for box in drawn.boxes} | {"head": (50.0, 20.0)})
    return dict(layout.boxes), list(layout.bands)


@pytest.mark.parametrize("name", [*sorted(TEXTS), "deep"])
def test_boxes_stand_in_their_band_and_on_no_other(name: str) -> None:
    drawn = diagram(*lowered(TEXTS.get(name) or blocks(40)))
    boxes, bands = place(drawn)
    for above, below in pairwise(bands):
        assert above.bottom < below.top, "bands lie in the order of their levels"
    for lane, band in zip(drawn.lanes, bands, strict=True):
        for box in lane.boxes:
            here = boxes[box.id]
            assert band.top <= here.top + 0.01
            assert here.bottom <= band.bottom + 0.01
            assert band.left <= here.left
            assert here.right <= band.right
    found = sorted(boxes.items(), key=lambda item: item[1].left)
    for index, (one, a) in enumerate(found):
        for other, b in found[index + 1 :]:
            apart = a.right <= b.left or b.right <= a.left or a.bottom <= b.top + 0.01 or b.bottom <= a.top + 0.01
            assert apart, (one, other)
    for arrow in drawn.arrows:
        if not (arrow.source.startswith("output") and arrow.target.startswith("output")):
            assert boxes[arrow.source].right < boxes[arrow.target].left, "data flows from left to right"


def test_spread_keeps_order_and_distance() -> None:
    heights = [10.0, 20.0, 10.0]
    centres = spread([50.0, 50.0, 40.0], heights, 0.0, 200.0)
    assert centres == sorted(centres)
    assert centres[1] - centres[0] == pytest.approx(15 + ROW_GAP)
    assert spread([-100.0], [10.0], 0.0, 50.0) == [5.0]
    assert spread([1000.0], [10.0], 0.0, 50.0) == [45.0]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_hold_on_white_and_on_a_dark_page() -> None:
    assert all(contrast(TEXT_COLOR, fill) > 9 for fill in FILLS.values())
    for colour in (TONE, RESIZED):
        assert contrast(colour, "#ffffff") > 4
        assert contrast(colour, "#0d1117") > 4


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (7, "7"), (999, "999"), (1000, "1 k"), (456_000, "456 k"), (999_600, "1 M"), (1_230_000_000, "1.23 G")],
)
def test_human(count: int, text: str) -> None:
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("text", "right"),
    [("x1 = add(a,\n   b) ", "add(a, b)"), ("x[t] = f(x[t-1], k=3)", "f(x[t-1], k=3)"), ("conv(k=3)", "conv(k=3)"),
     ("x = f(a) # = why\n", "f(a)")],
)  # fmt: skip
def test_expression(text: str, right: str) -> None:
    assert expression(Source("s", text).span(0, len(text))) == right


def test_long_expressions_are_wrapped_and_cut() -> None:
    rows = wrap_text("cat(" + ", ".join(["dconv_3x3(x1)"] * 20) + ")")
    assert len(rows) == 2
    assert rows[1].endswith("…")
    assert all(len(row) <= 36 for row in rows)
    assert text_width("m", 10) > text_width("i", 10)


def test_families() -> None:
    depthwise, grouped, plain = Conv(64, 3, groups=64), Conv(64, 1, groups=64), Conv(64, 1)
    assert family(()) == "identity"
    assert family([depthwise, plain]) == "separable"
    assert family([Concat(), Norm("bn"), grouped]) == "aggregation"
    assert family([grouped]) == "separable"
    assert family([DeformConv(64), Concat(), depthwise]) == "deformable"
    assert family([Add(), plain]) == "convolution"
    assert family([GlobalPool("max")]) == family([Resize(3)]) == "resampling"


# ---------------------------------------------------------------------------------------------- wide diagrams

SCREEN = 1800.0
"""Points: 2400 pixels in a browser."""

C2F = """block c2f(x) -> (y) {
  a = conv_1x1(x)
  b1 = conv_3x3(a)
  d1 = add(a, conv_3x3(b1))
  b2 = conv_3x3(d1)
  d2 = add(d1, conv_3x3(b2))
  y = conv_1x1(concat(a, d1, d2))
}
decoder yolo_like {
  input c3, c4, c5
  fpn(width=128, norm=bn) {
    t4 = c2f(concat(resize(c5, to=c4), c4))
    t3 = c2f(concat(resize(t4, to=c3), c3))
    q4 = c2f(concat(down(t3), t4))
    q5 = c2f(concat(down(q4), c5))
    output p3 = t3, p4 = q4, p5 = q5
  }
  head(width=128, norm=gn) { conv_3x3 -> conv_3x3 }
  predict fcos
}
"""
LONG_HEAD = POOLED.replace(
    "{ conv_3x3 -> conv_3x3 -> conv_3x3 }", f"{{\n cls: {' -> '.join(['conv_3x3'] * 20)}\n box: conv_3x3 -> sep_3x3\n }}"
)
WIDE = {"bifpn": TEXTS["bifpn"], "nas_fpn": TEXTS["nas_fpn"], "c2f": C2F, "long head": LONG_HEAD, "deep": blocks(60)}
WIDE["long trunk"] = TRUNK.replace("* 2\n    cls: sep_3x3", "* 8\n    cls: sep_3x3 * 9")


@pytest.mark.parametrize("name", TEXTS | WIDE)
def test_no_diagram_is_wider_than_a_screen(name: str) -> None:
    dot = emit_dot(*lowered((TEXTS | WIDE)[name]))
    bounds = re.search(r'bb="(\S+),(\S+),(\S+),(\S+)"', dot)
    assert bounds is not None
    assert float(bounds[1]) == 0
    assert 500 < float(bounds[3]) <= SCREEN
    for left, right in re.findall(r'bb="([-\d.]+),[-\d.]+,([-\d.]+),', dot):
        assert float(left) == 0
        assert float(right) == float(bounds[3]), "bands are as wide as the diagram"


@pytest.mark.parametrize("seed", range(12))
def test_no_row_of_a_random_decoder_is_wider_than_a_screen(seed: int) -> None:
    """Values of names and expressions of every length, whose operands are anywhere before them."""
    draw = random.Random(seed)
    names = ["c3", "c4", "c5"]
    lines = []
    for number in range(50):
        name = "v" * draw.randint(1, 30) + str(number)
        recent = names[-draw.choice((2, 5, 60)) :]
        one, other = draw.choice(recent), draw.choice(names)
        call = draw.choice(("relu({})", "add({0}, resize({1}, to={0}))", "sum(conv_1x1({}), sep_3x3(conv_1x1({})))"))
        lines.append(f"    {name} = {call.format(one, other)}")
        names.append(name)
    text = (
        "decoder d {\n  input c3, c4, c5\n  fpn(width=32, norm=bn) {\n" + "\n".join(lines) + f"\n    output p3 = {names[-1]}\n"
        "    merge dangling into p3\n  }\n  head(width=32, norm=gn) { conv_3x3 }\n  predict fcos\n}\n"
    )
    drawn = diagram(*lowered(text))
    rows = wrap_diagram(drawn)
    assert len(rows) > 1
    for row in rows:
        for arrow in row.diagram.arrows:
            assert row.columns[arrow.source] < row.columns[arrow.target]
    bounds = re.search(r'bb="(\S+),(\S+),(\S+),(\S+)"', emit_diagram(drawn))
    assert bounds is not None
    assert float(bounds[3]) <= SCREEN


@pytest.mark.parametrize("name", WIDE)
def test_rows_have_each_box_once_and_each_arrow_at_its_ends_or_their_references(name: str) -> None:
    drawn = diagram(*lowered(WIDE[name]))
    rows = wrap_diagram(drawn)
    assert len(rows) > 1
    found = [box for row in rows for box in row.diagram.boxes if box.role != "reference"]
    assert sorted(box.id for box in found) == sorted(box.id for box in drawn.boxes)
    assert {box.id: box for box in found} == {box.id: box for box in drawn.boxes}
    arrows = set()
    for number, row in enumerate(rows, 1):
        here = {box.id: box for box in row.diagram.boxes}
        references = {name: box for name, box in here.items() if box.role == "reference"}
        assert set(references) == set(row.origins)
        for reference in references.values():
            origin = row.origins[reference.id]
            assert origin.id not in here, "what is in the row itself needs no reference"
            assert (reference.name, reference.level, reference.family) == (origin.name, origin.level, origin.family)
            (home,) = [n for n, other in enumerate(rows, 1) if any(box is origin for box in other.diagram.boxes)]
            assert home < number
            assert reference.text in (f"from row {home}", "from the row above")
        towers = [arrow for tower in row.diagram.towers for arrow in tower.arrows]
        for arrow in (*row.diagram.arrows, *towers):
            assert {arrow.source, arrow.target} <= set(here)
            assert here[arrow.target].role != "reference"
            arrows.add(arrow._replace(source=row.origins[arrow.source].id if arrow.source in references else arrow.source))
    assert arrows == {*drawn.arrows, *(arrow for tower in drawn.towers for arrow in tower.arrows)}


def test_a_chain_takes_the_fewest_rows() -> None:
    """Boxes of 100 points in columns 60 points apart: a row of 1000 holds 6, a further one 5 and the reference before them."""
    for count in (2, 6, 7, 11, 12, 16, 17, 40):
        lines = "\n".join(f"x{i} = relu({'c3' if i == 1 else f'x{i - 1}'})" for i in range(1, count - 1))
        text = (
            f"decoder d {{\n input c3\n fpn(width=32) {{\n{lines}\n output p3 = {f'x{count - 2}' if count > 2 else 'c3'} }}\n"
            " head(width=32) { skip }\n predict fcos\n}\n"
        )
        drawn = diagram(*lowered(text))
        assert len(drawn.arrows) == count - 1
        rows = split_rows(drawn, {box.id: (100.0, 30.0) for box in drawn.boxes} | {"head": (50.0, 20.0)}, 1000)
        assert len(rows) == 1 + max(0, -(-(count - 6) // 5)), count


def test_a_diagram_that_fits_is_not_wrapped(decoder: tuple[Graph, CostTable]) -> None:
    graph, table = decoder
    drawn = diagram(graph, table)
    (row,) = split_rows(drawn, {box.id: (1.0, 1.0) for box in drawn.boxes} | {"head": (1.0, 1.0)}, 1e6)
    assert (row.diagram, row.origins, row.label) == (drawn, {}, "")


def test_a_wide_diagram_as_each_format(tmp_path: Path) -> None:
    from PIL import Image

    graph, table = lowered(TEXTS["nas_fpn"])
    assert rendering.fold_graph(graph, table, fold=False).rows > 3
    rendering.write(graph, table, tmp_path / "wide.png", fold=False)
    with Image.open(tmp_path / "wide.png") as image:
        assert image.size[0] <= 2 * SCREEN + 100
        assert image.size[1] > image.size[0]
    svg = ElementTree.fromstring(rendering.render(graph, table, "svg", fold=False))
    assert float((svg.get("width") or "").removesuffix("pt")) <= SCREEN + 50
    ids = [element.get("id") for element in svg.iter() if (element.get("id") or "").startswith("box")]
    assert len(ids) == len(set(ids)) > len(list(diagram(graph, table).boxes))
    printed = {element.text for element in svg.iter()}
    assert {"row 1 of 9", "row 9 of 9", "from row 8"} <= printed
    assert emit_mermaid(graph, table).startswith("flowchart TB\n")
    assert emit_mermaid(*lowered(TEXTS["fcos"])).startswith("flowchart LR\n")


def test_the_difference_of_wide_decoders_is_wrapped() -> None:
    before, after = lowered(TEXTS["bifpn"]), lowered(TEXTS["bifpn"].replace("repeat 2", "repeat 3"))
    assert rendering.count_diff_rows(*before, *after) > 2
    dot = emit_dot_diff(*before, *after)
    bounds = re.search(r'bb="\S+,\S+,(\S+),\S+"', dot)
    assert bounds is not None
    assert float(bounds[1]) <= SCREEN
    _, edges = statements(dot)
    added = {ends for ends, attributes in edges.items() if "#1f883d" in attributes}
    new, old = ({(a.source, a.target) for a in diagram(*d).arrows} for d in (after, before))
    assert added == new - old


# ---------------------------------------------------------------------------------------------- DOT and Mermaid


def test_dot_is_the_golden() -> None:
    dot = emit_dot(*lowered(TEXTS["nas_fcos"], "nas_fcos.nas"))
    if os.environ.get("NASDSL_UPDATE_GOLDENS"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(dot)
    assert dot == GOLDEN.read_text(), "the diagram has changed; if it should, run with NASDSL_UPDATE_GOLDENS=1"


def test_dot_and_mermaid_need_neither_graphviz_nor_torch_nor_networkx() -> None:
    code = (
        "import sys, nasdsl\n"
        "from nasdsl.backbones import backbone\nfrom nasdsl.backends.cost import cost\n"
        "from nasdsl.backends.diagrams import rendering\n"
        "g = nasdsl.load(sys.argv[1]).lower(backbone('resnet50').out_channels)\n"
        "t = cost(g, (800, 1088), 80)\n"
        "assert rendering.render(g, t, 'dot') and rendering.render(g, t, 'mmd')\n"
        "print([m for m in ('torch', 'networkx', 'graphviz', 'pygraphviz') if m in sys.modules])\n"
    )
    path = ROOT / "genotypes" / "nas_fcos.nas"
    ran = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.long
def test_ten_thousand_blocks_take_seconds() -> None:
    graph, table = lowered(blocks(10_000))
    start = time.perf_counter()
    dot = emit_dot(graph, table)
    assert time.perf_counter() - start < 20  # 6 s; the bound is for machines under load
    assert "x10000" in dot


def test_quote_survives_what_a_name_can_hold() -> None:
    assert quote('a"b\\n<&>\n\x00c') == '"a\\"b\\\\\\\\n<&amp;>\\nc"'


NASTY = 'C:\\new "a" <b> &amp; $HTML$ é\n.nas'


def test_sources_of_any_name_and_text_come_through() -> None:
    text = POOLED.replace("g = mul(c3,", 'g = mul(c3, # "quoted" <b>&lt; \\N & ]]> -->\n')
    graph, table = lowered(text, NASTY)
    svg = rendering.render(graph, table, "svg").decode()
    tips = {e.get("{http://www.w3.org/1999/xlink}title") for e in ElementTree.fromstring(svg).iter()}
    tip = next(tip for tip in tips if tip and '"quoted" <b>' in tip)
    assert tip.startswith('C:\\new "a" <b> &amp; $HTML$ é')
    assert "\\N & ]]> -->" in tip
    page = rendering.render(graph, table, "html").decode()
    assert "&quot;quoted&quot; &lt;b&gt;&amp;lt; \\N &amp; ]]&gt; --&gt;" in page
    assert "mul(c3, sigmoid(global_pool" in emit_mermaid(graph, table)


def test_mermaid_has_the_same_boxes_and_arrows(decoder: tuple[Graph, CostTable]) -> None:
    graph, table = decoder
    text = emit_mermaid(graph, table)
    drawn = diagram(graph, table)
    boxes = list(drawn.boxes)
    assert [int(i) for i in re.findall(r"^ +n(\d+)[\[(]", text, re.MULTILINE)] == list(range(len(boxes)))
    head = sum(len(tower.arrows) + len(tower.entries) for tower in drawn.towers)
    assert len(re.findall(r"^ +\w+ (?:-->|-\.->)", text, re.MULTILINE)) == len(drawn.arrows) + head
    assert text.count("-.->") == sum(a.kind == "merge" for a in drawn.arrows)
    assert text.count("subgraph") == text.count("\n  end") == len(drawn.lanes) + 1
    for line in text.splitlines():
        if '"' in line:
            assert re.fullmatch(r'[^"]*("[^"]*"[^"]*)+', line)


# ---------------------------------------------------------------------------------------------- pictures


def test_each_layer_of_a_repeated_step_is_one() -> None:
    head = "head(width=64, norm=gn) { conv(k=3, groups=2 * 4) * 3 -> conv_1x1 * 1 }"
    text = re.sub(r"head\(.*?\}", head, POOLED, count=1)
    tower = diagram(*lowered(text)).towers[0]
    assert [box.text for box in tower.layers] == ["conv(k=3, groups=2 * 4)"] * 3 + ["conv_1x1"]


def test_svg_is_xml_and_names_everything(decoder: tuple[Graph, CostTable]) -> None:
    graph, table = decoder
    root = ElementTree.fromstring(rendering.render(graph, table, "svg", fold=False))
    printed = [e.text or "" for e in root.iter("{http://www.w3.org/2000/svg}text")]
    drawn = diagram(graph, table)
    for name in {box.name for box in drawn.boxes} | {lane.label for lane in drawn.lanes} | {graph.name}:
        assert name in printed, name
    ids = {e.get("id") for e in root.iter()}
    assert {f"box{i}" for i in range(len(list(drawn.boxes)))} <= ids


def test_files_by_suffix(tmp_path: Path) -> None:
    graph, table = lowered(TEXTS["fcos"])
    begins = {"svg": b"<?xml", "png": b"\x89PNG\r\n", "pdf": b"%PDF", "dot": b"digraph", "mmd": b"flowchart", "html": b"<!DOC"}
    assert set(begins) == set(rendering.FORMATS)
    for suffix, begin in begins.items():
        path = tmp_path / f"fcos.{suffix.upper() if suffix == 'png' else suffix}"
        rendering.write(graph, table, path)
        assert path.read_bytes().startswith(begin), suffix
    for wrong in ("fcos.gif", "fcos"):
        with pytest.raises(ValueError, match="svg, png, pdf, dot, mmd, html"):
            rendering.write(graph, table, tmp_path / wrong)
    with pytest.raises(ValueError, match="'jpg'"):
        rendering.render(graph, table, "jpg")


def test_page_stands_alone(decoder: tuple[Graph, CostTable]) -> None:
    graph, table = decoder
    page = rendering.render(graph, table, "html").decode()
    without_text = re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL)
    assert not re.search(r"https?:|//\w|\bsrc=|\bhref=|url\(|@import|<link|xlink:", without_text)
    found = re.search(r"const places = (\{.*?\}), views = (\[.*\]), rowsOf", page)
    assert found is not None
    places, views = json.loads(found[1]), json.loads(found[2])
    for line in {line for lines in places.values() for line in lines}:
        assert f'id="{line}"' in page, line
    for row in places:
        assert f'data-box="{row}"' in page
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    for view in views:
        assert sorted(row for rows in view["boxes"].values() for row in rows) == sorted(places)
        assert set(view["opens"]) <= set(view["boxes"]) <= set(ids)
        assert all(0 < target < len(views) for target in view["opens"].values())
    opened = {target for view in views for target in view["opens"].values()}
    assert opened == set(range(1, len(views) - 1))  # the last one has everything open
    assert "prefers-color-scheme: dark" in page
    assert f"{table.decoder.macs:,}" in page


# ---------------------------------------------------------------------------------------------- Graphviz


def fake_dot(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "dot"
    program.write_text(f"#!{sys.executable}\n{script}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_the_program_is_used_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_dot(tmp_path, "import sys\ngot = sys.stdin.read()\nprint('<?xml fake', sys.argv[1:], 'digraph' in got)", monkeypatch)
    drawn = rendering.draw(emit_dot(*lowered(TEXTS["fcos"])), "svg")
    assert b"fake" in drawn
    assert b"-Tsvg" in drawn
    assert b"True" in drawn


def test_a_program_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys\nsys.stdin.read()\nprint('Error: it broke\\nFontconfig warning: x', file=sys.stderr)\nsys.exit(3)"
    fake_dot(tmp_path, script, monkeypatch)
    with pytest.raises(rendering.RenderError, match="Error: it broke") as raised:
        rendering.draw("digraph { a }", "svg")
    assert "\n" not in str(raised.value)


def test_a_program_without_output_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_dot(tmp_path, "import sys\nsys.stdin.read()", monkeypatch)
    with pytest.raises(rendering.RenderError, match="produced no svg"):
        rendering.draw("digraph { a }", "svg")


@pytest.fixture
def no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasdsl.backends.diagrams.rendering.shutil.which", lambda name: None)


@pytest.mark.usefixtures("no_program")
def test_libraries_that_fail_are_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(rendering.RenderError) as raised:
        rendering.draw("digraph {", "svg")
    assert "\n" not in str(raised.value)
    assert rendering.draw('digraph { a [label="a"] }', "svg").startswith(b"<?xml")
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("no_program")
def test_libraries_that_hang_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "TIMEOUT", 0.2)
    monkeypatch.setattr(rendering, "_PYGRAPHVIZ", "import time\ntime.sleep(30)")
    with pytest.raises(rendering.RenderError, match=r"did not finish in 0\.2 s"):
        rendering.draw("digraph { }", "svg")


@pytest.mark.usefixtures("no_program")
def test_without_graphviz_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasdsl.backends.diagrams.rendering.find_spec", lambda name: None)
    with pytest.raises(rendering.RenderError, match=r"install its `dot` program.*pip install pygraphviz.*need none"):
        rendering.draw("digraph { }", "png")


# ---------------------------------------------------------------------------------------------- differences


def changed() -> tuple[Graph, CostTable]:
    text = TEXTS["nas_fcos"].replace("x7 = cat(dconv_3x3(x4), dconv_3x3(c4))", "x7 = cat(dconv_3x3(x4), sep_3x3(c4))")
    text = text.replace("x3 = cat(dconv_3x3(x1), skip(c5))", "y3 = cat(dconv_3x3(x1), skip(c5))")
    return lowered(text.replace(" -> conv_1x1 -> skip -> skip", " -> conv_1x1"))


def test_diff_shows_added_removed_and_changed() -> None:
    before, after = lowered(TEXTS["nas_fcos"]), changed()
    changes = compare(diagram(*before), diagram(*after))
    different = {name: change for name, change in changes.items() if change != "same"}
    assert different == {
        "x3": "removed", "y3": "added", "x7": "changed", "output p5": "changed", "p4.merge": "changed", "output p3": "changed",
        "head cls 4": "removed", "head cls 5": "removed", "head box 4": "removed", "head box 5": "removed",
    }  # fmt: skip
    nodes, edges = statements(emit_dot_diff(*before, *after))
    assert 'style="rounded,filled,dashed"' in nodes["x3"]
    assert "#d1343f" in nodes["x3"]
    assert "#1f883d" in nodes["y3"]
    assert "was cat(dconv_3x3(x4), dconv_3x3(c4))" in nodes["x7"]
    assert TONE in nodes["x1"]
    assert "#d1343f" in edges["x1", "x3"]
    assert "#1f883d" in edges["x1", "y3"]
    assert "#d1343f" not in edges["c5", "x1"]
    assert ("head cls 3", "head cls_logits") in edges


def test_another_form_of_boxes_is_shown() -> None:
    exp, relu = lowered(POOLED), lowered(POOLED.replace("centerness=cls", "centerness=cls, boxes=relu"))
    changes = compare(diagram(*exp), diagram(*relu))
    assert {name for name, change in changes.items() if change != "same"} == {"head bbox_reg"}
    for write in (emit_dot, lambda *it: html.unescape(emit_mermaid(*it).replace("#", "&#"))):
        assert write(*relu).count("relu(s * conv_3x3) * stride") == 1
    assert "was relu(s * conv_3x3) * stride" in emit_dot_diff(*relu, *exp)


def test_diff_with_itself_changes_nothing(decoder: tuple[Graph, CostTable]) -> None:
    drawn = diagram(*decoder)
    assert set(compare(drawn, drawn).values()) == {"same"}


def test_an_op_of_the_same_name_that_computes_something_else_is_a_change() -> None:
    one, other = (
        f"op mine(x) = conv(x, k={k})\n" + POOLED.replace("g = mul(c3,", "h = mine(c3)\n    g = mul(h,") for k in (1, 3)
    )
    changes = compare(diagram(*lowered(one)), diagram(*lowered(other)))
    assert {name for name, change in changes.items() if change != "same"} == {"h"}


@pytest.mark.parametrize("call", ["both(c3, c5)", "both(c4, c3)"])
def test_a_block_of_the_same_text_with_other_operands_is_a_change(call: str) -> None:
    block = "block both(x, y) -> (q) { q = add(resize(x, to=x), relu(resize(y, to=y))) }\n"
    one, other = (block + POOLED.replace("g = mul(c3,", f"h = {c}\n    g = mul(h,") for c in ("both(c3, c4)", call))
    changes = compare(diagram(*lowered(one)), diagram(*lowered(other)))
    different = [name for name, change in changes.items() if change != "same"]
    assert len(different) == 1
    assert different[0].endswith("both.q")


def test_diff_of_decoders_that_read_each_other_backwards() -> None:
    one = POOLED.replace("m = mul(c4", "a = add(c4, c4)\n    b = relu(a)\n    m = mul(b")
    other = POOLED.replace("m = mul(c4", "b = add(c4, c4)\n    a = relu(b)\n    m = mul(a")
    svg = rendering.render_diff(*lowered(one), *lowered(other), "svg")
    ElementTree.fromstring(svg)


def test_diff_is_drawn_in_each_format() -> None:
    before, after = lowered(TEXTS["nas_fcos"]), lowered(TEXTS["retinanet"])
    assert rendering.render_diff(*before, *after, "png").startswith(b"\x89PNG")
    printed = {e.text for e in ElementTree.fromstring(rendering.render_diff(*before, *after, "svg")).iter()}
    assert "nas_fcos → retinanet" in printed
    assert "removed (red, broken)" in printed
    assert rendering.render_diff(*before, *after, "dot").startswith(b"digraph")
    with pytest.raises(ValueError, match="html"):
        rendering.render_diff(*before, *after, "html")
