"""Diagrams that are wider than a screen are drawn in rows."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from diagram_texts import POOLED, TEXTS, TRUNK, blocks, lowered, statements

from nasdsl.backends.cost import CostTable
from nasdsl.backends.diagrams import rendering
from nasdsl.backends.diagrams.diff import emit_dot_diff
from nasdsl.backends.diagrams.dot import emit_diagram, emit_dot, wrap_diagram
from nasdsl.backends.diagrams.from_graph import diagram
from nasdsl.backends.diagrams.mermaid import emit_mermaid
from nasdsl.backends.diagrams.wrapping import split_rows
from nasdsl.ir import Graph

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
WIDE["trunk of a whole row"] = TRUNK.replace("* 2\n    cls: sep_3x3", "* 6\n    cls: sep_3x3 * 9")


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
