"""Folding of diagrams: blocks, turns and repeats as one box, and the views that open them."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import nasdsl
from nasdsl.backbones import backbone
from nasdsl.backends.cost import CostTable, cost
from nasdsl.backends.diagrams import fold_graph, render
from nasdsl.backends.diagrams.diagram import SEVERAL_LEVELS, Diagram
from nasdsl.backends.diagrams.dot import emit_diagram
from nasdsl.backends.diagrams.folding import Folding, fold, fold_to_fit, groups_of, views
from nasdsl.backends.diagrams.folding import Path as GroupPath
from nasdsl.backends.diagrams.from_graph import diagram
from nasdsl.ir import Graph

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

NECK = """block cell(x, y) -> (u, v) {
  u = conv_3x3(add(x, resize(y, to=x)))
  v = conv_1x1(add(y, resize(u, to=y)))
}
block twice(x) -> (y) {
  m = conv_1x1(x)
  repeat 2 { m = conv_3x3(m) }
  y = add(m, x)
}
decoder neck {
  input c3, c4, c5
  fpn(width=64, norm=bn) {
    a = c3
    b = c4
    repeat 3 { a, b = cell(a, b) }
    t = twice(sum(b, c5))
    repeat t_ in 1..2 {
      w = conv_3x3(t)
      t = add(w, t)
    }
    output p3 = a, p4 = t
    output p5 = twice(c5)
  }
  head(width=64, norm=gn) { conv_3x3 }
  predict fcos
}
"""

TEXTS = {path.stem: path.read_text() for path in sorted((ROOT / "genotypes").glob("*.nas"))} | {"neck": NECK}


def lowered(text: str) -> tuple[Graph, CostTable]:
    known = backbone("resnet50")
    graph = nasdsl.loads(text).lower(known.out_channels)
    return graph, cost(graph, (256, 320), 80, known)


def drawn(text: str) -> Diagram:
    return diagram(*lowered(text))


def check(whole: Diagram, folding: Folding) -> None:
    """A folded diagram says what the whole one says."""
    boxes = {box.id: box for lane in whole.lanes for box in lane.boxes}
    shown = {box.id: box for lane in folding.diagram.lanes for box in lane.boxes}
    assert set(shown) == {folding.drawn_as[name] for name in boxes}
    assert len(shown) == sum(len(lane.boxes) for lane in folding.diagram.lanes)  # every one once
    for lane in folding.diagram.lanes:
        assert {box.level for box in lane.boxes} == {lane.level}
    for name, box in shown.items():
        members = [boxes[inner] for inner, outer in folding.drawn_as.items() if outer == name and inner in boxes]
        assert (box.macs, box.params) == (sum(m.macs for m in members), sum(m.params for m in members))
        levels = {m.level for m in members}
        assert box.level == (levels.pop() if len(levels) == 1 else SEVERAL_LEVELS)
    expected = {(folding.drawn_as[a.source], folding.drawn_as[a.target], a.kind) for a in whole.arrows}
    found = [(a.source, a.target, a.kind) for a in folding.diagram.arrows]
    assert len(found) == len(set(found))
    assert set(found) == {ends for ends in expected if ends[0] != ends[1]}
    for arrow in folding.diagram.arrows:
        ends = (arrow.source, arrow.target)
        levels = {a.levels for a in whole.arrows if (folding.drawn_as[a.source], folding.drawn_as[a.target]) == ends}
        is_into_group = arrow.target in folding.closed
        assert arrow.levels == (0 if is_into_group or len(levels) > 1 else levels.pop())
    assert (folding.diagram.towers, folding.diagram.pyramid) == (whole.towers, whole.pyramid)
    emit_diagram(folding.diagram)  # it can be laid out


@pytest.mark.parametrize("name", TEXTS)
def test_a_folded_diagram_says_what_the_whole_one_says(name: str) -> None:
    whole = drawn(TEXTS[name])
    paths = {path[: n + 1] for path in groups_of(whole).values() for n in range(len(path))}
    choose = random.Random(0)
    ways: list[Callable[[GroupPath], bool]] = [lambda _: False, lambda _: True]
    for _ in range(4):
        ways.append(frozenset(path for path in paths if choose.random() < 0.6).__contains__)
    for is_open in ways:
        check(whole, fold(whole, is_open))
    check(whole, fold_to_fit(whole))
    assert fold(whole, lambda _: True).diagram == whole
    assert not fold(whole, lambda _: True).closed


def test_what_is_a_group() -> None:
    whole = drawn(NECK)
    found = {path for path in groups_of(whole).values() if path}
    names = sorted({tuple(group.name for group in path) for path in found})
    assert names == [
        ("p5.twice",),
        ("p5.twice", "repeat 2"),
        # A turn with one call of a block is the same box as the call.
        ("repeat 3", "turn 1"),
        ("repeat 3", "turn 2"),
        ("repeat 3", "turn 3"),
        ("repeat t_ in 1..2", "turn 1"),
        ("repeat t_ in 1..2", "turn 2"),
        ("t.twice",),
        ("t.twice", "repeat 2"),
    ]


def test_a_statement_that_calls_a_block_is_one_box() -> None:
    folding = fold(drawn(NECK), lambda _: False)
    boxes = {box.name: box for lane in folding.diagram.lanes for box in lane.boxes}
    assert set(boxes) == {"c3", "c4", "c5", "repeat 3", "t", "repeat t_ in 1..2", "p3", "p4", "p5"}
    assert boxes["t"].text == "twice(sum(b, c5))"
    assert boxes["t"].role == "group"
    assert boxes["p5"].role == "output"  # an output stays one
    assert boxes["repeat 3"].level == SEVERAL_LEVELS
    assert boxes["repeat 3"].text == "a, b = cell(a, b)"
    assert boxes["t"].note == "5 values"


def test_a_level_that_only_a_group_has_is_no_lane() -> None:
    block = "block inner(x) -> (y) { a = down(x) b = relu(a) y = add(x, resize(b, to=x)) }\n"
    whole = drawn(block + NECK.replace("output p5 = twice(c5)", "f = inner(c5)\n    output p5 = f"))
    assert [lane.level for lane in whole.lanes] == [6, 5, 4, 3]
    folding = fold(whole, lambda _: False)
    assert [lane.level for lane in folding.diagram.lanes if lane.level != SEVERAL_LEVELS] == [5, 4, 3]
    check(whole, folding)


@pytest.mark.parametrize("name", ["nas_fpn", "bifpn"])
def test_wide_decoders_are_folded_by_default(name: str) -> None:
    graph, table = lowered(TEXTS[name])
    assert fold_graph(graph, table, fold=False).rows > 3
    assert fold_graph(graph, table).rows == 1
    assert fold_graph(graph, table).closed
    assert render(graph, table, "dot") != render(graph, table, "dot", fold=False)
    assert not fold_graph(graph, table, fold=False).closed


def test_what_fits_is_not_folded() -> None:
    graph, table = lowered(TEXTS["nas_fcos"])
    assert not fold_graph(graph, table).closed
    assert render(graph, table, "dot") == render(graph, table, "dot", fold=False)


@pytest.mark.parametrize(
    ("name", "closed"),
    [
        ("nas_fpn", ["repeat 7"]),  # its seven turns do not fit
        ("bifpn", ["a3 … a7", "turn 1", "turn 2"]),  # its layers fit, and their values do not
        ("nas_fcos", []),
    ],
)
def test_as_little_is_folded_as_is_needed(name: str, closed: list[str]) -> None:
    found = fold_to_fit(drawn(TEXTS[name]))
    boxes = {box.id: box for lane in found.diagram.lanes for box in lane.boxes}
    assert sorted(boxes[name].name for name in found.closed) == closed
    assert found.rows == 1


def test_every_group_can_be_opened() -> None:
    whole = drawn(NECK)
    first = fold(whole, lambda _: False)
    found = views(first)
    expected = ["", "p5", "repeat 3", "repeat t_ in 1..2", "t", "turn 1", "turn 2", "turn 3", "repeat 2", "turn 1", "turn 2"]
    assert sorted(view.title for view in found) == sorted([*expected, "repeat 2", "everything"])
    for view in found:
        check(whole, view.folding)
        assert view.parent == -1 or set(found[view.parent].folding.opened) <= set(view.folding.opened)
        if view.path:
            assert view.path not in view.folding.closed.values()
            assert view.path in found[view.parent].folding.closed.values()
    assert len(views(first, most=5)) == 6
