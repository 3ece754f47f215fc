"""`require count(op)`: the calls that straight-line statements have."""

from __future__ import annotations

import itertools

import pytest

import nasdsl
from nasdsl.decoder import check_source
from nasdsl.diagnostics import DiagnosticError, Source
from nasdsl.ir.graph import Graph
from nasdsl.layers import DeformConv
from nasdsl.semantics.calls import CallCounter
from nasdsl.spaces import loads_space

BEFORE = """
choice op = dconv_3x3 | conv_3x3 | skip | none
op two(x, o=dconv_3x3) = o(dconv_3x3(x))
block stage(x, n=2, o=skip) -> (y) { y = x repeat n { y = o(dconv_3x3(y)) } }
block free(x, n=1) -> (y) { y = x repeat n { y = add(?op(y), c(y)) } }
op c(x) = relu(x)
"""


def text(body: str, require: str = "", head: str = "conv_3x3", fpn: str = "") -> str:
    fpn = f"fpn(width=32, norm=bn{fpn}) {{ {body} }}"
    return f"{BEFORE} decoder t {{ input c3, c4 {require} {fpn} head(width=32) {{ {head} }} predict fcos }}"


def calls(body: str, name: str = "dconv_3x3", **parts: str) -> int:
    checked = check_source(Source("t.nas", text(body, **parts)))
    assert checked.program is not None
    return CallCounter(checked.program, [name]).count()[name]


@pytest.mark.parametrize(
    ("body", "parts", "count"),
    [
        ("output p3 = dconv_3x3(dconv_3x3(c3))", {}, 2),
        ("x = c3 repeat 3 { x = dconv_3x3(x) } output p3 = x", {}, 3),
        ("unread = dconv_3x3(c3) output p3 = c3", {}, 1),
        ("output p3 = two(two(c3), o=relu)", {}, 3),
        ("output p3 = stage(c3, n=3, o=two)", {}, 9),
        ("let k = dconv_3x3 output p3 = k(c3)", {}, 1),
        ("output p3 = sum(none(dconv_3x3(c3)), c3)", {}, 0),
        ("output p3 = c3", {"head": "dconv_3x3 * 2 -> conv_3x3"}, 4),
        ("output p3 = c3", {"head": "cls: dconv_3x3 box: conv_3x3"}, 1),
        ("output p3 = c3", {"fpn": ", adapter=dconv_3x3"}, 2),
    ],
)
def test_calls_are_counted_where_they_are(body: str, parts: dict[str, str], count: int) -> None:
    assert calls(body, **parts) == count


def test_a_word_of_the_section_names_what_it_is_at_the_call() -> None:
    body = "x = stage(c3, n=1, o=act) let act = silu let width = 32 output p3 = stage(x, n=2, o=act)"
    assert [calls(body, name) for name in ("relu", "silu", "dconv_3x3")] == [1, 2, 3]


def test_a_primitive_counts_as_the_layers_that_are_built() -> None:
    """Where everything is read, each call of `deform_conv` is a layer of the graph."""
    body = "x = stage(two(c3), n=2, o=dconv_3x3) output p3 = x, p4 = dconv_3x3(c4)"
    decoder = nasdsl.loads(text(body))
    graph: Graph = decoder.lower({"c3": 32, "c4": 32})
    assert calls(body, "deform_conv") == sum(isinstance(node.layer, DeformConv) for node in graph.nodes) == 7


def test_a_decoder_that_breaks_it_is_a_finding() -> None:
    body = "output p3 = two(c3)"
    assert nasdsl.loads(text(body, "require count(dconv_3x3) <= 2"))
    with pytest.raises(DiagnosticError, match="has 2 calls of dconv_3x3"):
        nasdsl.loads(text(body, "require count(dconv_3x3) < 2"))


def test_a_space_keeps_what_its_texts_keep() -> None:
    body = "a = free(c3, n=?(0..2)) b = ?op(a) output p3 = sum(?(b | a), ?op(c4))"
    head = "?(dconv_3x3 | conv_3x3)"
    space = loads_space(text(body, "require count(dconv_3x3) <= 2", head))
    kept = 0
    for indices in itertools.islice(itertools.product(*(range(len(d)) for d in space.domains)), 0, None, 23):
        if any(index and not flag for index, flag in zip(indices, space.active(indices), strict=True)):
            continue
        figures = space.figures(indices)
        checked = check_source(Source("t.nas", space.decode(indices)))
        assert (figures is None) == (checked.architecture is None)
        if figures is None or checked.program is None:
            continue
        assert figures.calls == CallCounter(checked.program, ["dconv_3x3"]).count()
        assert space.keeps(indices) == (figures.calls["dconv_3x3"] <= 2)
        kept += space.keeps(indices)
    assert 0 < kept < space.size
