"""Diagrams of the difference of two decoders."""

from __future__ import annotations

import html
import xml.etree.ElementTree as ElementTree

import pytest
from diagram_texts import POOLED, TEXTS, lowered, statements

from nasdsl.backends.cost import CostTable
from nasdsl.backends.diagrams import rendering
from nasdsl.backends.diagrams.diff import compare, emit_dot_diff
from nasdsl.backends.diagrams.dot import TONE, emit_dot
from nasdsl.backends.diagrams.from_graph import diagram
from nasdsl.backends.diagrams.mermaid import emit_mermaid
from nasdsl.ir import Graph


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


def test_layers_that_levels_share_no_more_are_a_change() -> None:
    shared, own = lowered(POOLED.replace("share=2", "share=0")), lowered(POOLED)
    nodes, _ = statements(emit_dot_diff(*shared, *own))
    assert [name for name, text in sorted(nodes.items()) if "was shared" in text] == [
        "head box 0", "head box 1", "head cls 0", "head cls 1",
    ]  # fmt: skip


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
