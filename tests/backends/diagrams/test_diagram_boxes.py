"""What is drawn: boxes, arrows, marks and bands."""

from __future__ import annotations

from itertools import pairwise

import pytest
from diagram_texts import POOLED, TEXTS, lowered, statements

from nasdsl.backends.cost import CostTable
from nasdsl.backends.diagrams.dot import RESIZED, emit_dot
from nasdsl.backends.diagrams.from_graph import diagram
from nasdsl.ir import Graph
from nasdsl.layers import Resize


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


def test_an_output_that_is_a_copy_which_others_read_too_comes_from_its_source() -> None:
    text = POOLED.replace("m = mul", "a = add(c3, c4)\n    b = add(a, resize(c3, to=c4))\n    m = mul")
    drawn = diagram(*lowered(text.replace("p3 = g, p4 = m", "p3 = add(b, g, m), p4 = resize(c3, to=c4)")))
    arrows = {(a.source, a.target): a.mark for a in drawn.arrows}
    assert arrows["c3", "output p4"] == "↓2"
    assert next((b.text, b.family, b.level) for b in drawn.boxes if b.id == "output p4") == ("c3", "resampling", 4)


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
