"""Holes in every place that the language has: each has a meaning that all stages agree on, or a diagnostic at the hole."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import pytest

import nasdsl
from nasdsl import resources
from nasdsl.backbones import backbone
from nasdsl.backends.cost import cost
from nasdsl.decoder import check_source
from nasdsl.diagnostics import DiagnosticError, Source
from nasdsl.semantics import check
from nasdsl.spaces import Space, SpaceError, loads_space

HEAD = "head(width=32) { conv_3x3 } predict fcos"


def text(body: str, before: str = "", fpn: str = "width=32, norm=bn", head: str = HEAD) -> str:
    return f"{before} decoder t {{ input c3, c4, c5 fpn({fpn}) {{ {body} }} {head} }}"


# --------------------------------------------------------------------------------- holes that have no meaning

MEANINGLESS = {
    "the number of a bound name": ("let d = ?(3|4) x[d] = conv_3x3(c3) output p3 = x3", ""),
    "the number of a read name": ("let d = ?(3|4) x3 = relu(c3) x4 = relu(c3) output p3 = conv_3x3(x[d])", ""),
    "an end of a range": ("let d = ?(3|4) output p3 = conv(c3, k=?(1..d))", ""),
    "a default": ("output p3 = f(c3)", "op f(x, k=?(1|3)) = conv(x, k=k)"),
    "a default that is computed": ("output p3 = f(c3)", "op f(x, k=2 * ?(1|3) - 1) = conv(x, k=k)"),
    "an op that is passed by name": ("output p3 = f(c3, o=g)", "op f(x, o=relu) = o(x) op g(x) = ?(relu | tanh)(x)"),
    "an op that is passed by name, behind another hole": (
        "a = f(c3, o=?(relu | tanh)) output p3 = f(a, o=g)",
        "op f(x, o=relu) = o(x) op g(x) = ?(relu | tanh)(x)",
    ),
    "a number of parts": ("a, b = split(c3, parts=?(2|4)) output p3 = conv_1x1(a)", ""),
    "a number of parts, by way of a let": ("let n = ?(2|4) a, b = ?(split(parts=n)|split)(c3) output p3 = conv_1x1(a)", ""),
    "a call for the name of a value": ("output p3 = weighted_add(c3, c4, by=?(c5 | relu(c5)))", ""),
    "values and numbers": ("output p3 = mul(c3, ?(c4 | 0.5))", ""),
    "a number for a value": ("output p3 = ?(c3 | 3)", ""),
    "a call for a number": ("output p3 = conv(c3, k=?(conv(k=3) | 3))", ""),
}


@pytest.mark.parametrize("name", MEANINGLESS)
def test_a_hole_without_a_meaning_is_one_finding(name: str) -> None:
    body, before = MEANINGLESS[name]
    checked = check_source(Source("t.nas", text(body, before)))
    assert [p.code for p in checked.problems] == ["NAS503"]
    assert checked.architecture is None


def test_the_finding_is_at_the_hole_and_names_what_reads_it() -> None:
    body = MEANINGLESS["the number of a read name"][0]
    (problem,) = check_source(Source("t.nas", text(body))).problems
    assert problem.span.text == "?(3|4)"
    assert [(span.text, words) for span, words in problem.related] == [("d", "a name reads it here")]


# ------------------------------------------------------------------------------------ holes that have a meaning

BLOCKS = """
op mine(x) = conv_1x1(x)
op free(x) = ?(tanh | sigmoid)(x)
op pass(x, o=relu) = o(x)
op passed(x) = pass(x, o=mine)
agg asff(x, y, w) = weighted_add(x, y, by=w)
op depthwise(x, g=in) = conv(x, k=3, groups=g, width=in)
op scaled(x, s=0.2) = add(x, mul(relu(x), s))
op raised(x, s=0.2) = add(relu(x), s)
op scaled_or(x, s=0.2) = ?(mul(x, s) | mul(x, -s))
choice factors = 0.25 | 4
op kernel(x, k=1) = ?(conv(k=3) | conv_1x1)(conv(x, k=k))
agg both(x, y) = cat(psum(x, y), max(x, y))
block one(x, y) -> (s, t) { s = relu(x) t = ?(tanh | relu)(y) }
block two(x, y) -> (s, t) { s = conv_3x3(x) s2 = s t = s }
block c2f(x, width=width, n=2, o=mine) -> (y) {
  y = conv_1x1(x)
  repeat n { a = o(y) y = sum(y, conv_1x1(a)) }
}
block free_depth(x, n=2, k=1) -> (y) { y = x repeat n { y = ?(relu | conv(k=k))(y) } }
block nested(x, y, m=0) -> (s, t) { s = c2f(x, n=m + 1, o=relu) t = free_depth(y, n=m) }
block cell(a, b) -> (y) { s = sum(?(conv_3x3 | none)(a), ?(skip | none)(b)) y = concat(s, ?(s | none)) }
block deep(x) -> (y) { y = x repeat width/16 { y = ?(relu | conv_3x3)(y) } }
block given(x, o=mine) -> (y) { y = ?(relu | o)(x) }
block spread(x, d=4) -> (y) { y = x repeat d in 1..2 { y = ?(relu | conv(k=3, dilation=d))(y) } }
block tied(x, y) -> (s, t) { shared f(x) = conv_3x3(x) s = f(f(x)) t = f(y) }
block again(x, n=2, unit=conv_3x3) -> (y) { shared f(x) = unit(x) y = x repeat n { y = f(y) } }
block turns(x, n=width/16) -> (z) { repeat n { y = conv_1x1(x) } z = tanh(y) }
block bound_in_turns(x) -> (y) { repeat width/16 { y = conv_1x1(x) } }
block linked(x) -> (y) { shared sep_3x3(x) = conv_3x3(x) let k = sep_3x3 y = k(k(x)) }
block open(x, y) -> (s, t) { shared f(x) = ?(conv_3x3 | mine)(x) s = f(x) t = f(y) }
"""

MEANINGFUL = {
    "the count of a repeat": "a = c3 repeat ?(1..3) { a = conv_3x3(a) } output p3 = a",
    "a let that is a count": "let d = ?(0..3) a = c3 repeat d { a = conv_3x3(a) } output p3 = a",
    "a let that is the beginning of a range": "let d = ?(1..4) a = c3 repeat t in d..4 { a = relu(a) } output p3 = a",
    "a count of nested alternatives": "let d = ?(1 | ?(2 | 3)) a = c3 repeat d { a = conv_1x1(a) } output p3 = a",
    "a let of a let": "let d = ?(1..4) let e = d a = c3 repeat e { a = conv_3x3(a) } output p3 = a",
    "a count that is computed": "let d = ?(1..3) let e = d + 1 a = c3 repeat e * 2 { a = conv_1x1(a) } output p3 = a",
    "what the first of several turns binds": (
        "let d = ?(1..3) repeat d { b = conv_3x3(c3) } merge dangling into b output p3 = b"
    ),
    "a constant let as a count": "let d = 3 a = c3 repeat d { a = ?(relu | conv_3x3)(a) } output p3 = a",
    "an attribute of an op": "output p3 = kernel(c3, k=?(1 | 3))",
    "a level": "output p3 = conv_1x1(resize(c3, to=?(c4 | 5)))",
    "a let of a value": "let k = ?pool a = resize(c3, to=k) b = conv_1x1(k) output p3 = sum(a, b)",
    "a passed op": "a = pass(c3, o=?(relu | tanh)) output p3 = pass(a, o=mine)",
    "a passed op, in an op": "output p3 = ?(passed | relu)(c3)",
    "an op that alternatives pass": "a = ?(relu | pass(o=mine))(c3) output p3 = ?(again(unit=mine) | relu)(a)",
    "an op that a shared op passes": "shared f(x) = ?(relu | again(unit=mine))(x) output p3 = f(c3), p4 = f(c4)",
    "a target of merge": "a = c3 b = c4 let k = ?(a | b) merge dangling into k output p3 = conv_1x1(k)",
    "a let of an op of the file": "let k = ?(mine | relu) a = k(c3) output p3 = k(a)",
    "a let of an op with holes": "let k = ?(free | relu) a = k(c3) output p3 = k(a)",
    "a let of an op, with attributes": "let k = ?(conv_3x3 | conv_1x1(norm=gn)) output p3 = ?(k(act=silu) | relu)(c3)",
    "lets that are computed": "let k = ?(1 | 2) let m = ?(1 | 3) * 2 output p3 = conv(c3, k=3, dilation=k * (m + 1))",
    "a let in rounds": (
        "let k = ?(relu | tanh) repeat t in 1..2 { let k = ?(conv_1x1 | conv_3x3) x[t] = k(c3) } output p3 = sum(x1, k(x2))"
    ),
    "a let of a value that is bound again": "x = c3 repeat 2 { let v = ?(c3 | x) x = conv_3x3(v) } output p3 = x",
    "a let of a level that is bound again": (
        "x = c4 repeat 2 { let v = ?(c3 | x) y = conv_3x3(resize(x, to=v)) x = resize(y, to=c5) } output p3 = conv_1x1(y)"
    ),
    "a let that hides one without a hole": (
        "let k = 3 let j = 3 a = c3 repeat 2 { let k = ?(1 | 3) a = conv(a, k=k) } output p3 = conv(a, k=k, dilation=j)"
    ),
    "lets that hide one without a hole in each round": (
        "a = c3 repeat 2 { let k = 3 b = conv(a, k=k) let k = ?(1 | 3) a = conv(b, k=k) } output p3 = a"
    ),
    "a let of the rounds that hides one without a hole": (
        "let k = 3 a = c3 repeat ?(1..2) { let k = ?(1 | 3) a = conv(a, k=k) } output p3 = conv(a, k=k)"
    ),
    "a word of the section as the variable of rounds": (
        "repeat width in 31..32 { x[width] = ?(conv_1x1 | conv_3x3)(c3) } output p3 = conv_1x1(concat(x31, x32))"
    ),
    "a word of a block as the variable of rounds": "output p3 = spread(c3)",
    "a word of the section in rounds": (
        "x = c3 repeat 2 { let width = 64 x = conv_3x3(x) } y = conv_1x1(x) output p3 = ?(relu | tanh)(y)"
    ),
    "blocks of several results": "a, b = ?(one | two)(c3, c4) output p3 = a, p4 = b",
    "calls of several results": "a, b = ?(one(c3, c4) | two(c4, c3)) output p3 = a, p4 = b",
    "rounds of a block": "a, b = two(c3, c4) repeat 2 { a, b = ?(one | two)(a, b) } output p3 = a, p4 = b",
    "a depth that the width decides": "output p3 = deep(?(c3 | c4))",
    "a depth that a width in front of the call decides": "let width = ?(16 | 32) output p3 = conv_1x1(turns(c3), width=32)",
    "a result that is bound in such turns alone": (
        "let width = ?(16 | 32) x = bound_in_turns(c3) output p3 = conv_1x1(x, width=32)"
    ),
    "a constant factor": "output p3 = mul(c3, ?(0.1 | 1 | -2))",
    "a factor of a choice": "output p3 = mul(c3, ?factors, ?(c3 | c4))",
    "a range of factors": "let k = ?(1..3) output p3 = add(mul(c3, k), mul(c4, 1.0 / k))",
    "a factor that is computed": "let k = ?(1 | 3) let m = k * 0.5 output p3 = mul(c3, m - 2 * ?(1 | 2))",
    "a factor of an op": "output p3 = scaled(c3, s=?(0.1 | 0.5))",
    "a factor of an op with holes": "output p3 = scaled_or(c3, s=?(0.1 | 0.5))",
    "a constant term": "output p3 = add(c3, ?(0.1 | 0 | -2))",
    "a term of a choice": "output p3 = add(c3, ?factors, ?(c3 | c4))",
    "a term beside what may be nothing": "output p3 = add(c3, ?(c4 | none), ?(0 | 0.5))",
    "a term of an op": "output p3 = raised(c3, s=?(0.1 | 0.5))",
    "terms and factors": "let k = ?(1..3) output p3 = add(mul(c3, k), 1.0 / k)",
    "weights per place": "w = conv_1x1(c3, width=2) v = conv(c4, k=3, width=2) output p3 = weighted_add(c3, c5, by=?(w | v))",
    "a let of weights": (
        "w = conv_1x1(c3, width=2) v = conv(c4, k=3, width=2) let k = ?(w | v) x = asff(c3, c5, k)"
        " y = weighted_add(x, ?(x | c4), by=k) output p3 = y"
    ),
    "a pool of weights, of which few fit": "w = conv(c3, k=3, width=2) v = relu(w) output p3 = weighted_add(c3, c5, by=?pool)",
    "the operand's width": (
        "x = conv(?(c3 | c4), k=3, width=?(48 | 96)) output p3 = conv(x, k=3, groups=?(1 | in), width=?(in | 32))"
    ),
    "a width that is the operand's": "let g = ?(1 | in) x = conv_1x1(c3, width=64) output p3 = depthwise(x, g=g)",
    "parts of a split": "a, b = ?(split(c3) | one(c4, c5)) output p3 = conv_1x1(a)",
    "a split": "a, b = split(?(c3 | c4)) output p3 = conv_1x1(concat(?pool, a))",
    "a split in rounds": "x = c3 repeat ?(1..2) { a, b = split(x) x = concat(?(relu | tanh)(a), b) } output p3 = x",
    "an attribute of a block that counts": "output p3 = c2f(c3, n=?(1..3))",
    "an attribute of a block that a let decides": "let d = ?(0..2) x = c2f(c3, n=d) output p3 = c2f(x, n=d + 1, o=relu)",
    "a width and an op of a block": "output p3 = conv_1x1(c2f(c3, width=?(32 | 64), o=?(relu | conv_3x3 | mine)), width=32)",
    "blocks with attributes as alternatives": "output p3 = ?(c2f(n=1) | c2f(n=2, o=tanh) | c2f | conv_3x3)(c3)",
    "an attribute for alternatives that are blocks": "output p3 = ?(c2f | free_depth)(c3, n=?(1 | 2))",
    "holes in a block that an op of the file is given": "output p3 = given(c3), p4 = given(c4, o=tanh)",
    "holes in a block whose depth is one": "output p3 = free_depth(c3, n=?(0..2))",
    "holes in a block whose depth the call fixes": "x = free_depth(c3, k=3) output p3 = free_depth(x, n=1)",
    "holes in a block as an alternative": "output p3 = ?(free_depth(n=?(1..2)) | relu)(c3)",
    "a block in a block, with attributes": "a, b = nested(c3, c4, m=?(0..2)) output p3 = a, p4 = b",
    "nothing in a sum": "a = relu(c3) output p3 = sum(?(a | none), ?(conv_3x3 | none)(c4))",
    "nothing in what aggregations are made of": (
        "output p3 = ?(sum | psum | cat | both | attend)(?(c3 | none), ?(skip | none)(c4))"
    ),
    "nothing in products, maxima and concatenations": (
        "output p3 = conv_1x1(?(add | mul | max | weighted_add | concat)(c3, ?(skip | none)(c4), ?(c5 | none(c3))))"
    ),
    "nothing, passed": "output p3 = sum(c3, pass(c4, o=?(none | relu | mine)))",
    "a let of nothing": "let k = ?(none | relu) let v = ?(c3 | none) output p3 = add(k(c3), v, c4)",
    "nothing given to a block": "output p3 = cell(?(c3 | none), c4)",
    "nothing, and what dangles": "a = relu(c4) b = sum(?(none | tanh)(a), c3) output p3 = b merge dangling into p3",
    "nothing among operands of blocks": "a, b = ?(one | two)(c3, ?(skip | none)(c4)) output p3 = a, p4 = sum(b, c5)",
    "operands that differ": (
        "output p3 = ?(sum | psum)(?(relu | conv(k=?(1 | 3)))(?(c3 | c4)), ?(relu | conv(k=3))(?(c3 | c4))) distinct"
    ),
    "operands that differ by what is in an op": "output p3 = ?(sum | psum)(free(c3), free(c3)) distinct",
    "results of operands that differ": "a, b = ?(one | two)(?(c3 | c4), ?(c3 | c4)) distinct output p3 = a, p4 = b",
    "dangling values": (
        "a = relu(c4) b = ?(c3 | a) c = conv_1x1(b) output p3 = c3 merge dangling into p3 d = tanh(c4) output p4 = d"
    ),
    "ways to a finer map": (
        "a = ?(up_conv | up_conv(k=?(3 | 4)) | up_conv(k=4, stride=4) | carafe(k=?(3 | 5)) | resize(to=c4))(c5)"
        " output p3 = sum(c3, a)"
    ),
    "a factor": "output p3 = conv_1x1(pixel_shuffle(conv_1x1(c5, width=64), factor=?(2 | 4 | 8)))",
    "heads and positions": "a = attention(?(c4 | c5), heads=?(2 | 4), position=?(sine | none)) output p3 = conv_1x1(a)",
    "offsets of a deformable convolution": (
        "a = conv_3x3(c3, width=27) b = conv_1x1(c3, width=27) let k = ?(a | b)"
        " c = deform_conv(?(c3 | sep_3x3(c3)), offset=?(a | b)) output p3 = deform_conv(c, offset=k)"
    ),
    "offsets that are chosen in two steps": (
        "a = conv_3x3(c3, width=27) b = conv_1x1(c3, width=27) d = conv(c3, k=5, width=27)"
        " output p3 = deform_conv(c3, offset=?(a | ?(b | d)))"
    ),
    "kinds of norm": "output p3 = conv_3x3(c3, norm=?(bn | gn16 | gn1 | ln | none))",
    "ways of resizing": "output p3 = add(c3, resize(?(c4 | c5), to=c3, mode=?(nearest | bilinear | aligned)))",
    "nested alternatives": "output p3 = ?(?(relu | ?(tanh | sigmoid))(c3) | sum(?pool, ?(c3 | free(c4))))",
    "a shared op": "shared f(x) = ?(conv_3x3 | sep_3x3)(x) output p3 = f(c3), p4 = f(f(c4))",
    "a shared op that may hand on its operand": "shared f(x) = ?(conv_3x3(x) | x) output p3 = f(c3), p4 = f(f(c4))",
    "calls of a shared op": (
        "shared f(x) = conv_3x3(x) a = ?(f | conv_3x3)(c3) output p3 = f(a), p4 = ?(f(c4) | relu(c4)), p5 = ?(f(c5) | c5)"
    ),
    "a shared op of the turns around": "shared f(x) = conv_3x3(x) x = c3 repeat ?(1..3) { x = f(x) } output p3 = x, p4 = f(c4)",
    "a shared op of each turn": (
        "x = c3 repeat ?(1..3) { shared sep_3x3(x) = ?(conv_3x3 | sep_3x3)(x) x = sep_3x3(sep_3x3(x)) } output p3 = sep_3x3(x)"
    ),
    "a shared op that calls another": (
        "shared f(x) = ?(conv_3x3 | mine)(x) shared g(x, y) = sum(f(x), conv_1x1(f(y)))"
        " output p3 = g(c3, c4), p4 = g(c4, f(c5))"
    ),
    "a shared op of a block": "a, b = tied(c3, c4) c, d = ?(tied | two)(a, b) output p3 = c, p4 = d",
    "a shared op of a block, by way of a let": "output p3 = linked(?(c3 | linked(c3)))",
    "a shared op with holes of a block": "a, b = open(c3, c4) c, d = open(a, b) output p3 = c, p4 = d",
    "a shared op with two results": (
        "shared f(x, y) = ?(two | tied)(x, y) a, b = f(c3, c4) c, d = ?(f | two)(a, b) output p3 = c, p4 = relu(d)"
    ),
    "one result of two of a shared op": "shared f(x, y) = tied(x, y) a, b = f(c3, c4) c, d = f(b, a) output p3 = ?(b | d)",
    "calls of a shared op that may not fit": (
        "shared f(x) = conv_3x3(x) output p3 = f(c3), p4 = f(conv_1x1(c4, width=?(32 | 16))), p5 = ?(relu | tanh)(c5)"
    ),
    "a let of a shared op": "shared f(x) = conv_3x3(x) let k = ?(f | mine) output p3 = k(c3), p4 = f(k(c4))",
    "words where a shared op is defined": (
        "let width = ?(16 | 32) shared f(x) = conv_1x1(sep_3x3(x), width=32) let width = 32"
        " output p3 = f(c3), p4 = f(conv_3x3(c4))"
    ),
    "a shared op of a block with attributes": (
        "output p3 = again(c3), p4 = again(c4, n=?(1 | 2), unit=?(mine | conv_3x3)), p5 = again(c5, unit=relu)"
    ),
    "a shared op that may give nothing": (
        "shared f(x) = ?(conv_3x3 | none)(x) shared g(x, y) = add(x, f(y)) output p3 = add(f(c3), c3), p4 = g(c4, f(c4))"
    ),
    "a shared op whose calls may be dead": "shared f(x) = conv_3x3(x) a = f(c3) b = f(a) output p3 = ?(a | b | c3), p4 = c4",
    "an unread output bound again": "output p3 = c3 repeat 2 { p3 = ?(relu | tanh)(p3) } output p4 = conv_1x1(p3)",
}


def agrees(space: Space, indices: tuple[int, ...]) -> str | None:
    """Digest of a filling, which the text, the counter and the matcher tell alike; None where it cannot be built."""
    filled = space.decode(indices)
    figures = space.figures(indices)
    try:
        decoder = nasdsl.loads(filled)
        graph = decoder.lower(backbone(decoder.backbone or "resnet50").out_channels)
    except DiagnosticError:
        assert figures is None
        return None
    assert figures is not None
    size = decoder.size or (800, 1088)
    table = cost(graph, size, space.classes).decoder
    assert (figures.size, figures.macs, figures.params) == (size, {size: table.macs}, table.params)
    assert figures.dangling == decoder.architecture.fpn.dangling
    assert space.encode(filled) == list(filled.indices)
    assert not decoder.architecture.open_holes
    return decoder.digest


@pytest.mark.parametrize("name", MEANINGFUL)
def test_all_stages_agree_on_every_filling(name: str) -> None:
    space = loads_space(text(MEANINGFUL[name], BLOCKS))
    fillings = {space.decode(i).indices for i in itertools.product(*(range(len(d)) for d in space.domains))}
    assert len(fillings) == space.size > 1
    assert {space.decode(i).count("output ") for i in fillings} == {MEANINGFUL[name].count("output ")}, "as they are written"
    digests = [agrees(space, indices) for indices in sorted(fillings)]
    assert len(set(digests) - {None}) > 1


@pytest.mark.parametrize("let", ["?(conv_1x1 | conv_3x3(norm=gn))", "?(?(conv_1x1 | conv_3x3) | conv_3x3(norm=gn))"])
def test_attributes_behind_a_let_are_those_of_each_op_that_it_may_mean(let: str) -> None:
    space = loads_space(text(f"let k = {let} output p3 = ?(k(act=silu) | k)(c3)"))
    fillings = [space.decode(i) for i in itertools.product(*(range(len(d)) for d in space.domains))]
    outputs = {filled.partition("output p3 = ")[2].partition(" }")[0] for filled in fillings}
    calls = {"conv_1x1(c3, act=silu)", "conv_3x3(c3, norm=gn, act=silu)", "conv_1x1(c3)", "conv_3x3(c3, norm=gn)"}
    assert calls <= outputs


MORE_BLOCKS = """
block same(x, y) -> (s, t) { s = relu(x) t = tanh(y) }
block bound_in_rounds(x, n=width/16) -> (y) { repeat n { y = relu(x) } }
block ended(x) -> (y) { shared f(x) = conv_3x3(x) unread = f(x) y = f(relu(x)) }
block beside(x) -> (y) { unread = relu(x) y = conv_3x3(x) }
block lone(x) -> (y) { y = relu(x) }
block three(x, y) -> (s, t, u) { s = relu(x) t = tanh(x) u = tanh(y) }
op either(x, y) = ?(sum | psum)(x, y)
op windowed(x, k=3) = sum(conv(x, k=k), ?(relu | tanh)(x))
"""

UNCHECKED = {
    "one value for two names": "a, b = ?(same | sum)(c3, c4) output p3 = a, p4 = b",
    "three values for two names": "a, b = ?(same | three)(c3, c4) output p3 = a, p4 = b",
    "values of a shared op for two names": ("shared f(x, y) = ?(same | three)(x, y) a, b = f(c3, c4) output p3 = a, p4 = b"),
    "nothing for two names": "a, b = ?(split | none)(c3) output p3 = conv_1x1(a)",
    "two values for one name": "output p3 = ?(relu | split)(c3)",
    "two values for an operand": "output p3 = sum(c3, ?(c4 | split(c3)))",
    "two values of a block": "output p3 = ?(sum | same)(c3, c4)",
    "two values of a shared op": "shared f(x, y) = same(x, y) output p3 = ?(sum | f)(c3, c4)",
    "operands of a block": "output p3 = ?(relu | same)(c3)",
    "operands of an op with holes": "output p3 = ?(relu | either)(c3), p4 = ?(relu | tanh)(c4)",
    "operands of a shared op": "shared f(x, y) = sum(x, y) output p3 = ?(relu | f)(c3)",
    "attributes of a shared op": "shared f(x) = conv_3x3(x) output p3 = ?(conv | f)(c3, k=3)",
    "attributes of nothing": "output p3 = sum(c4, ?(conv | none)(c3, k=3))",
    "an attribute that a block lacks": "output p3 = ?(c2f | lone)(c3, n=1)",
    "an attribute that an op with holes does not take": "output p3 = windowed(c3, k=?(3 | 2)), p4 = ?(relu | tanh)(c4)",
    "an op with holes that is passed": "output p3 = pass(c3, o=?(relu | free))",
    "an op with holes that a let passes": "let k = ?(relu | free) output p3 = pass(c3, o=k)",
    "a word for an op": "output p3 = given(c3, o=?(relu | bn))",
    "a number for an op": "output p3 = c2f(c3, o=?(relu | 3))",
    "a mistake in a shared op": "let k = ?(1 | 2) shared f(x) = conv(x, k=k) output p3 = f(c3), p4 = f(c4)",
    "a call for the op of a let": "let k = ?(relu | conv(k=3)) output p3 = k(c3)",
    "a number that is none": "let n = ?(1 | 2) let m = ?(1 | 2) output p3 = free_depth(c3, k=n / m)",
    "a count that is none": "output p3 = c2f(c3, n=?(1 | -1))",
    "a count of the width that is none": (
        "let width = ?(32 | 24) x = conv_1x1(c3, width=32) output p3 = conv_1x1(turns(x), width=32)"
    ),
    "a result of turns that are not there": (
        "let width = ?(32 | 8) x = conv_1x1(c3, width=32) output p3 = conv_1x1(bound_in_rounds(x), width=32)"
    ),
    "the level of what has none": "g = ?(relu | global_pool(kind=avg))(c4) output p3 = conv_1x1(resize(c3, to=g))",
    "no output": "let d = ?(1 | 0) repeat d { output p3 = c3 }",
    "a sum of two widths that dangle": "a = conv_1x1(c4, width=?(32 | 64)) output p3 = c3 merge dangling into p3",
    "a circle of what dangles": "output p3 = c3 b = ?(relu(c3) | relu(p3)) merge dangling into p3",
    "an adapter of two values": ("output p3 = ?(relu | tanh)(c3)", "width=32, norm=bn, adapter=?(relu | split)", HEAD),
    "a width of none": ("output p3 = c3", "width=?(32 | 0), norm=bn", HEAD),
}
"""Spaces with mistakes in a filling that is not among those which the checker looks at."""

UNCHECKED_HEADS = {
    "wider than the pyramid": "head(width=?(32 | 64)) { conv_3x3 } predict fcos",
    "another level": "head(width=32) { ?(conv_3x3 | down) } predict fcos",
    "two values": "head(width=32) { ?(conv_3x3 | split) } predict fcos",
    "a kernel": "head(width=32) { conv_3x3 } predict fcos(kernel=?(3 | 2))",
    "a kernel beside an op": "head(width=32) { conv_3x3 } predict fcos(kernel=3, conv=?(none | sep_3x3))",
    "an op without a convolution": "head(width=32) { conv_3x3 } predict fcos(conv=?(none | relu))",
    "an op with groups": "head(width=32) { conv_3x3 } predict fcos(conv=?(none | depthwise))",
    "an op that ends in a convolution of others": "head(width=32) { conv_3x3 } predict fcos(conv=?(none | ended))",
    "an op for towers of two widths": (
        "head(width=32) { cls: conv_3x3 box: conv(k=3, width=?(32 | 64)) } predict fcos(conv=?(conv_1x1 | sep_3x3))"
    ),
    "an op with a layer that nothing reads, for towers of two widths": (
        "head(width=32) { cls: conv_3x3 box: conv(k=3, width=?(32 | 64)) } predict fcos(conv=?(conv_1x1 | beside))"
    ),
}


@pytest.mark.parametrize("name", [*UNCHECKED, *UNCHECKED_HEADS])
def test_a_filling_that_no_check_has_seen_cannot_be_built_or_has_its_figures(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A space may have more alternatives than are checked, and mistakes that two of them make together."""
    monkeypatch.setattr(check, "MOST_FILLINGS", 1)
    given = UNCHECKED.get(name, ("output p3 = c3, p4 = c4", "width=32, norm=bn", UNCHECKED_HEADS.get(name, HEAD)))
    body, fpn, head = (given, "width=32, norm=bn", HEAD) if isinstance(given, str) else given
    space = loads_space(text(body, BLOCKS + MORE_BLOCKS, fpn, head))
    digests = {agrees(space, space.decode(i).indices) for i in itertools.product(*(range(len(d)) for d in space.domains))}
    assert None in digests
    assert len(digests) > 1


def test_samples_predict_by_no_convolution_that_has_weights_of_one_before_it() -> None:
    before = "block ended(x) -> (y) { shared f(x) = conv_3x3(x) y = f(relu(f(x))) }"
    before += " block begun(x) -> (y) { shared f(x) = conv_3x3(x) y = f(x) unread = f(relu(y)) }"
    space = loads_space(text("output p3 = c3", before, head=f"{HEAD}(conv=?(sep_3x3 | ended | begun))"))
    assert [agrees(space, space.decode([index]).indices) is None for index in range(3)] == [False, True, False]
    assert all("conv=ended" not in sampled for sampled in space.samples(10, seed=0))


def test_a_layer_of_the_head_that_does_not_fit_a_level_of_another_width(monkeypatch: pytest.MonkeyPatch) -> None:
    body = "output p3 = conv_1x1(c3, width=?(32 | 48)), p4 = conv_1x1(c4, width=64)"
    head = "head(width=32, norm=bn) { ?(relu | conv(groups=5)) } predict fcos(share=false)"
    monkeypatch.setattr(check, "MOST_FILLINGS", 1)
    space = loads_space(text(body, BLOCKS, head=head))
    digests = [agrees(space, indices) for indices in itertools.product(range(2), repeat=2)]
    assert [digest is None for digest in digests] == [False, True, False, True]


DETECTORS = {
    "sizes": ("detector(size=?(96x128 | 64x64))", 2),
    "backbones of different widths": ('detector(backbone=?(tiny | mobilenet_v2 | "resnet50_v1.5"))', 3),
    "both, one of them fixed": ("detector(size=96x128, backbone=?(tiny | resnet50))", 2),
    "lets": ('let s = ?(96x128 | 64x64) let b = ?(tiny | "resnet101_v1.5") detector(backbone=b, size=s)', 4),
    "a choice, and nested alternatives": ("detector(size=?sizes, backbone=?(tiny | ?(mobilenet_v2 | resnet50)))", 9),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_all_stages_agree_on_the_detector(name: str) -> None:
    """Its size and backbone are decisions, whose fillings cost what the whole pipeline counts for them."""
    detector, fillings = DETECTORS[name]
    body = "x = c3 y = ?(relu | conv_3x3)(c4) output p3 = concat(x, y)"
    before = "choice sizes = 96x128 | 64x64 | 32x96"
    space = loads_space(text(body, before, fpn="width=32, norm=bn, adapter=none", head=f"{detector} {HEAD}"))
    assert space.size == 2 * fillings
    made = [space.decode(i) for i in itertools.product(*(range(len(d)) for d in space.domains))]
    digests = {agrees(space, filled.indices) for filled in made}
    assert len(digests) == 2 * fillings, "a digest for each size and backbone"
    loaded = [nasdsl.loads(filled) for filled in made]
    assert {d.size for d in loaded} == set(space.sizes or (None,))
    assert {d.backbone for d in loaded} == set(space.backbones or (None,))
    assert all(space.legal(str(filled)[: str(filled).index("fpn(")]) == {"fpn"} for filled in made)
    for filled in made:  # a name is the same in quotes
        assert space.encode(filled.replace("backbone=tiny", 'backbone="tiny"')) == list(filled.indices)


def test_a_head_whose_layers_are_counted_on_each_level() -> None:
    """Attention is quadratic in the area of each level, and what lies between `down` and `up_conv` is a level above."""
    before = "op bounce(x) = up_conv(conv_3x3(down(x)))"
    head = "head(width=32) { ?(attention(heads=4) | bounce | conv_3x3) } predict fcos"
    space = loads_space(text("output p3 = c3, p4 = c4, p5 = c5", before, head=head))
    assert len({agrees(space, (i,)) for i in range(3)}) == space.size == 3
    attended = nasdsl.loads(space.decode((0,))).cost(size=(75, 109)).head.macs
    plain = nasdsl.loads(space.decode((2,))).cost(size=(75, 109)).head.macs
    areas = [10 * 14, 5 * 7, 3 * 4]
    layers = 2  # one in each tower
    assert attended - plain == layers * sum(4 * 32 * 32 * a + 2 * 32 * a * a - 9 * 32 * 32 * a for a in areas)
    most = text("output p3 = c3", before, head=f"require macs <= {attended // 10} at 75x109 {head}")
    assert [loads_space(most).keeps([i]) for i in range(3)] == [
        nasdsl.loads(space.decode((i,)).replace(", p4 = c4, p5 = c5", "")).cost(size=(75, 109)).decoder.macs <= attended // 10
        for i in range(3)
    ]


@pytest.mark.parametrize(("chain", "reads_both"), [("conv_1x1 -> conv_3x3", 0), ("relu -> conv_1x1", 1), ("relu -> relu", -1)])
def test_levels_of_different_widths_share_no_weights(chain: str, reads_both: int) -> None:
    """`reads_both`: the layer with weights that reads maps of both widths; levels have their own before index `share`."""
    body = "output p3 = conv_1x1(c3, width=?(32 | 64)), p4 = conv_1x1(c4, width=32)"
    head = f"head(width=32, norm=gn, share=?(0..2)) {{ {chain} }} predict fcos(share=false)"
    space = loads_space(text(body, head=head))
    digests = {indices: agrees(space, indices) for indices in itertools.product(range(2), range(3))}
    for (width, share), digest in digests.items():
        assert (digest is None) == (width == 1 and share <= reads_both), (width, share)


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [
        ("k=3", "k=5", "k=5"),
        ("conv(", "deform_conv(", "deform_conv"),
        ("dilation=2", "dilation=4", "dilation=4"),
        ("tanh(c4)", "tanh(c5)", "c5"),
    ],
)
def test_of_a_text_of_another_space_the_smallest_part_is_named(before: str, after: str, place: str) -> None:
    space = loads_space(text("output p3 = add(conv(c3, k=?(1 | 3), dilation=2), tanh(c4))"))
    filled = str(space.decode((1,)))
    assert filled.count(before) == 1
    with pytest.raises(SpaceError, match=rf"not a decoder of t: `{re.escape(place)}` \(.*\) cannot stand there"):
        space.encode(filled.replace(before, after))


def test_no_hole_is_solved_for_a_number_that_a_text_has_instead_of_it() -> None:
    space = loads_space(text("output p3 = conv(c3, k=3, dilation=?(1 | 3) * 2)"))
    filled = str(space.decode((1,)))
    assert space.encode(filled) == [1]
    assert "dilation=3 * 2" in filled
    with pytest.raises(SpaceError, match="`dilation=6`"):
        space.encode(filled.replace("3 * 2", "6"))


def test_a_let_without_a_hole_may_be_there_or_not() -> None:
    space = loads_space(text("let k = 3 a = c3 repeat 2 { let k = ?(1 | 3) a = conv(a, k=k) } output p3 = conv(a, k=5)"))
    for indices in itertools.product(range(2), repeat=2):
        filled = space.decode(indices)
        assert space.encode(filled.replace("a = c3;", "let k = 3; a = c3;")) == space.encode(filled) == list(indices)
        with pytest.raises(SpaceError, match="not a decoder of t"):
            space.encode(filled.replace("a = c3;", "let k = 7; a = c3;"))


def test_a_text_without_a_let_of_the_space_is_not_of_it() -> None:
    space = loads_space(text("output p3 = c3", head=f"let s = ?(96x128 | 64x64) detector(size=s) {HEAD}"))
    assert [(d.role, d.weights) for d in space.domains] == [("size", ())]
    filled = str(space.decode((1,)))
    assert space.encode(filled) == [1]
    without = filled.replace("let s = 64x64", "").replace("size=s", "size=64x64")
    assert without != filled
    with pytest.raises(SpaceError, match="cannot stand there"):
        space.encode(without)


def test_lets_in_front_of_turns_that_bind_them_again() -> None:
    """Those in front are compared first: the others read them, and whether a turn is there is known later."""
    body = "x = c3 repeat 2 { let v = ?(x | c3) x = sum(v, c4) let w = ?(v | c3) x = add(w, ?(v | x)) } "
    body += "repeat ?(1..2) { let v = ?(x | c4) x = sum(v, conv(c4, k=?(1 | 3))) } output p3 = x"
    space, rng = loads_space(text(body)), random.Random(0)
    for _ in range(40):
        filled = space.decode([rng.randrange(len(domain)) for domain in space.domains])
        again = space.decode(space.encode(str(filled)))
        assert nasdsl.loads(str(again)).digest == nasdsl.loads(str(filled)).digest


@pytest.mark.parametrize("hole", ["?(1 | 3)", "?(1 | 2) + 1"])
@pytest.mark.parametrize("let", ["1 + {}", "{} + 1", "(({}))", "1 - (1 - {})", "-(-{})"])
def test_samples_of_lets_that_read_each_other_can_be_read(let: str, hole: str) -> None:
    """As many as a space may have: samples have them written out, with brackets of their own."""
    values = [hole]
    while len(values) < 150:
        values.append(let.format(f"d{len(values) - 1}"))
        lets = " ".join(f"let d{i} = {value}" for i, value in enumerate(values))
        found = f"{lets} x = c3 repeat d{len(values) - 1} {{ x = relu(x) }} output p3 = x"
        if len(values) >= 40:
            if check_source(Source("t", text(found))).architecture is None:
                break
            body = found
    space = loads_space(text(body))
    for index in range(2):
        filled = space.decode((index,))
        assert space.encode(str(filled)) == [index]
        assert space.load(filled).digest == nasdsl.loads(str(filled)).digest


def test_requirements_are_counted_for_each_filling() -> None:
    """Without `at`, at the size and for the backbone that the filling names."""
    small = nasdsl.loads(text("output p3 = c3", head=f"detector(size=64x64, backbone=tiny) {HEAD}")).cost().decoder.macs
    large = text("output p3 = c3", head=f"require macs <= {small} detector(size=?(64x64 | 96x128), backbone=tiny) {HEAD}")
    space = loads_space(large)
    assert [space.keeps([0]), space.keeps([1])] == [True, False]
    assert loads_space(large.replace(f"{small}", f"{small} at 64x64")).keeps([1])
    checked = check_source(Source("t.nas", large.replace("?(64x64 | 96x128)", "96x128")))
    assert [(p.code, p.help) for p in checked.problems] == [("NAS508", "counted for tiny, images of 96x128 and 80 classes")]


def test_a_given_backbone_wins_over_that_of_the_text() -> None:
    space = loads_space(text("output p3 = ?(relu | tanh)(c3)", head=f"detector(backbone=tiny) {HEAD}"), backbone="mobilenet_v2")
    assert space.backbones == ("mobilenet_v2",)
    assert nasdsl.loads(space.sample(0)).backbone == "mobilenet_v2"
    space = loads_space(text("output p3 = ?(relu | tanh)(c3)"), backbone="mobilenet_v2")
    assert (space.backbone.name, space.backbones, nasdsl.loads(space.sample(0)).backbone) == ("mobilenet_v2", (), None)


def test_a_block_that_some_widths_break() -> None:
    """Its count is no whole number at one of the widths, whatever else is chosen."""
    before = "block deep(x) -> (y) { y = x repeat width/24 { y = relu(y) } }"
    body = "let width = ?(24 | 32) a = conv_1x1(c3, width=32) output p3 = deep(a)"
    assert {p.code for p in check_source(Source("t.nas", text(body, before))).problems} == {"NAS303"}


def test_a_section_and_its_adapter() -> None:
    space = loads_space(
        text(
            "let k = ?(relu | tanh) a = k(c3) output p3 = kernel(a, k=3), p4 = free(c4)", BLOCKS,
            fpn="width=?(32 | 64), norm=?(bn | none), adapter=?(conv_1x1 | mine | none), act=?(relu | silu)",
            head="head(width=32, share=?(0..1)) { cls: ?(conv_3x3 | conv(k=1) | free) box: conv_3x3 }"
            " predict fcos(boxes=?(exp | relu))",
        )
    )  # fmt: skip
    rng = random.Random(0)
    for _ in range(60):
        agrees(space, space.decode([rng.randrange(len(d)) for d in space.domains]).indices)


HEADS = {
    "an op of a trunk": "both: ?(conv_3x3 | sep_3x3) -> conv_1x1 cls: conv_3x3 box: ?(conv_3x3 | free)",
    "the length of a trunk, and sharing": "both: conv_3x3 * ?(1..3) cls: conv_1x1 box: conv_3x3 * ?(0..1)",
    "a block with holes, and with attributes": "cls: free_depth(n=1) -> conv_1x1 box: conv_1x1",
    "an op that layers pass": "both: pass(o=mine) cls: ?(conv_3x3 | pass(o=mine) -> relu) box: pass(o=?(relu | mine))",
    "a trunk that may be none": "both: ?(conv_3x3 -> sep_3x3 | skip) cls: ?(relu | conv(k=3))",
}


@pytest.mark.parametrize("name", HEADS)
def test_trunks_and_norms_of_each_level(name: str) -> None:
    head = f"head(width=32, norm=bn, share=?(0..2), norms=?(shared | level)) {{ {HEADS[name]} }} predict fcos"
    space = loads_space(text("output p3 = c3, p4 = conv_3x3(c4), p5 = c5", BLOCKS, head=head))
    fillings = {space.decode(i).indices for i in itertools.product(*(range(len(d)) for d in space.domains))}
    assert len(fillings) == space.size
    digests = {indices: agrees(space, indices) for indices in sorted(fillings)}
    built = [digest for digest in digests.values() if digest is not None]
    assert len(set(built)) > len(built) / 2 > 4


def test_norms_of_each_level_are_counted() -> None:
    head = "head(width=32, norm=bn, share=1, norms=?(shared | level)) { conv_3x3 -> conv_1x1 } predict fcos"
    space = loads_space(text("output p3 = c3, p4 = c4", head=head))
    assert len({agrees(space, (i,)) for i in range(2)} - {None}) == 2
    assert space.figures((1,)).params - space.figures((0,)).params == 2 * 2 * 32  # type: ignore[union-attr]  # both can be built


LEVELS = {
    "sharing": "head(width=32, norm=bn, share=?(0..2)) { conv_3x3 -> conv_1x1 } predict fcos",
    "layers at any width": (
        "head(width=32, norm=bn, share=1) { cls: ?(depthwise | relu | conv_3x3) box: conv_3x3 } predict fcos"
    ),
    "sharing of predictions": "head(width=32, norm=bn, share=1) { ?(relu | conv_3x3) } predict fcos(share=?(true | false))",
    "layers without weights behind": (
        "head(width=32, norm=bn, norms=?(level | shared), share=1) { depthwise -> ?(relu | norm | free) }"
        " predict fcos(share=false)"
    ),
    "a layer that does not fit a level": (
        "head(width=32, norm=bn, share=1) { conv(k=3, groups=?(32 | 48)) } predict fcos(share=?(true | false))"
    ),
    "a trunk": (
        "head(width=32, norm=?(gn | bn), share=?(1..2)) { both: ?(depthwise | skip) cls: conv_3x3 } predict fcos(share=false)"
    ),
    "ops of predictions": (
        "head(width=32, norm=bn, share=1) { ?(depthwise | conv_3x3) }"
        " predict tal(bins=2, share=false, conv=?(sep_3x3 | mine | none))"
    ),
    "how many layers": "head(width=32, share=?(1..2)) { depthwise * ?(0..1) -> conv_3x3 } predict retinanet(anchors=1)",
}
"""Heads on levels whose widths may differ."""


@pytest.mark.parametrize("name", LEVELS)
def test_levels_of_different_widths(name: str) -> None:
    body = "output p3 = conv_1x1(c3, width=?(32 | 48 | 64)), p4 = conv_3x3(c4, width=?(64 | 96)), p5 = conv_1x1(c5, width=64)"
    space = loads_space(text(body, BLOCKS, head=LEVELS[name]))
    fillings = {space.decode(i).indices for i in itertools.product(*(range(len(d)) for d in space.domains))}
    digests = {agrees(space, indices) for indices in sorted(fillings)}
    assert len(digests) > len(fillings) / 3 > 3


def test_raw_features_of_a_shared_op() -> None:
    """Their widths are known with a backbone: what does not fit then is one finding, at the call."""
    shared = "shared f(x) = ?(conv_3x3 | relu)(x) output p3 = conv_1x1(f(c3)), p4 = conv_1x1(f(?(c4 | c3)))"
    space = loads_space(text(shared, BLOCKS, fpn="width=32, norm=bn, adapter=none"))
    digests = [agrees(space, indices) for indices in itertools.product(range(2), repeat=2)]
    assert digests[0] is None
    assert None not in digests[1:]
    decoder = nasdsl.loads(space.decode([0, 0]))
    with pytest.raises(DiagnosticError) as caught:
        decoder.lower(backbone("resnet50").out_channels)
    (problem,) = caught.value.diagnostics
    assert (problem.code, problem.span.text, problem.label) == ("NAS316", "f(c4)", "a layer receives 1024 channels here")


PREDICTIONS = [
    "fcos(centerness=?(cls | box | none), share=?(true | false), kernel=?(1 | 3))",
    "gfl(bins=?(2..4), share=?(true | false), conv=?(none | sep_3x3 | mine | ?(conv_1x1 | dconv_3x3)))",
    "retinanet(anchors=?(1 | 3), conv=mine)",
    "tal(bins=b, conv=k)",
]


@pytest.mark.parametrize(
    "predict", [pytest.param(p, marks=pytest.mark.long) if p.startswith("gfl") else p for p in PREDICTIONS]
)
def test_predictions(predict: str) -> None:
    """All stages agree on every filling."""
    before = "op mine(x) = conv_1x1(relu(conv(x, k=3, groups=?(1 | 32), norm=?(bn | none))))"
    lets = "let b = ?(2 | 3) let k = ?(sep_3x3 | conv_1x1) "
    head = "head(width=32) { conv_3x3 } predict " + predict
    space = loads_space(text("output p3 = conv_1x1(c3), p4 = conv_3x3(c4)", before, head=head).replace(" fpn(", f" {lets}fpn("))
    fillings = list(itertools.product(*(range(len(d)) for d in space.domains)))
    digests = {agrees(space, space.decode(filling).indices) for filling in fillings}
    assert len(digests) > 1


OPS_BY_NAME = ["?(conv_3x3 | conv_1x1)", "?(none | ?(mine | conv_3x3))", "?(conv_1x1 | ?(none | mine))", "?(conv_1x1 | ?named)"]
"""What chooses an op that an attribute names. The word for no op may stand in a hole in a hole."""


@pytest.mark.parametrize("hole", OPS_BY_NAME)
@pytest.mark.parametrize("attribute", ["adapter", "conv"])
def test_an_op_that_an_attribute_names(attribute: str, hole: str) -> None:
    space = loads_space(naming(attribute, hole, "op mine(x) = conv(x, k=1) choice named = none | mine"))
    fillings = {space.decode(i) for i in itertools.product(*(range(len(d)) for d in space.domains))}
    assert all(agrees(space, filled.indices) for filled in fillings)
    chosen = {filled.partition(f"{attribute}=")[2].partition(")")[0] for filled in fillings}
    assert chosen == set(re.findall(r"\w+", hole.replace("named", "none | mine")))


@pytest.mark.parametrize("hole", ["?(conv_3x3(act=silu) | conv_1x1)", "?(conv_1x1 | ?(conv_3x3(act=silu) | none))", "?called"])
@pytest.mark.parametrize("attribute", ["adapter", "conv"])
def test_a_call_for_an_op_that_an_attribute_names_is_a_finding(attribute: str, hole: str) -> None:
    """A text without holes has no place for its attributes there."""
    (problem,) = check_source(Source("t.nas", naming(attribute, hole, "choice called = none | conv_3x3(act=silu)"))).problems
    assert (problem.code, problem.span.text) == ("NAS503", "conv_3x3(act=silu)")


def naming(attribute: str, value: str, before: str) -> str:
    named = f"{attribute}={value}"
    head = HEAD if attribute == "adapter" else HEAD.replace("fcos", f"fcos({named})")
    fpn = "width=32" + (f", {named}" if attribute == "adapter" else "")
    return text("output p3 = conv_3x3(c3)", before, fpn=fpn, head=head)


@pytest.mark.parametrize("adapter", ["", ", adapter=conv_1x1", ", adapter=none", ", adapter=?(conv_1x1 | none)"])
@pytest.mark.parametrize("body", ["?(tanh | sigmoid)(x)", "conv(x, k=5, dilation=2)"])
def test_an_adapter_that_the_file_defines(body: str, adapter: str) -> None:
    """A definition of the file hides the prelude's conv_1x1, also as the default adapter."""
    before = f"op conv_1x1(x) = {body}"
    space = loads_space(text("output p3 = ?(relu | conv_3x3)(conv(c3, k=1))", before, fpn=f"width=32, norm=bn{adapter}"))
    rng = random.Random(0)
    for _ in range(10):
        agrees(space, space.decode([rng.randrange(len(d)) for d in space.domains]).indices)


def test_an_adapter_that_is_repeated_as_often_as_the_width_says() -> None:
    body = "output p3 = conv_1x1(c3, width=32), p4 = conv_1x1(c4, width=32)"
    space = loads_space(text(body, BLOCKS, fpn="width=?(32 | 16), norm=bn, adapter=?(turns | conv_1x1)"))
    assert len({agrees(space, indices) for indices in itertools.product(range(2), repeat=2)} - {None}) == 4


@pytest.mark.parametrize("alternative", ["k", "k(k=3)", "relu(c4)", "?(relu | k)(k=3)"])
def test_an_alternative_of_a_let_that_is_no_op(alternative: str) -> None:
    """The `let` itself among its own alternatives, or a call with operands."""
    checked = check_source(Source("t.nas", text(f"let k = ?(relu | {alternative}) output p3 = k(c3)")))
    assert {p.code for p in checked.problems} == {"NAS201"}


def test_lets_of_a_decoder_that_a_section_is_taken_from(tmp_path: Path) -> None:
    """Its holes are decisions of the space, and its texts tell them."""
    folder = tmp_path
    (folder / "best.nas").write_text(
        "op mine(x) = conv_1x1(x) decoder best { input c3 let k = ?(relu | mine) let w = ?(32 | 64)"
        " fpn(width=w, norm=bn) { output p3 = k(conv_3x3(k(c3))) } head(width=32) { skip } predict fcos }"
    )
    (folder / "space.nas").write_text(
        'decoder s { input c3 let k = ?(conv_1x1 | conv_3x3) fpn from "best.nas" head(width=32) { k } predict fcos }'
    )
    space = nasdsl.load_space(folder / "space.nas")
    assert space.size == 8
    digests = {agrees(space, space.decode(i).indices) for i in itertools.product(range(2), repeat=3)}
    assert len(digests) == 8


# ------------------------------------------------------------------------------------ every place of the grammar

PLACES: dict[str, list[tuple[str, str]]] = {
    "op_def": [("op f(x) = @(conv_1x1(x) | x) decoder t { input c3 fpn(width=32) { output p3 = f(c3) } H }", "")],
    "param": [("op f(x, k=@(1 | 3)) = conv(x, k=k) decoder t { input c3 fpn(width=32) { output p3 = f(c3) } H }", "NAS503")],
    "choice": [("choice c = relu | @(tanh | conv_1x1) decoder t { input c3 fpn(width=32) { output p3 = ?c(c3) } H }", "")],
    "setting": [
        ("decoder t { input c3 fpn(width=@(32 | 64)) { output p3 = c3 } H }", ""),
        ("decoder t { input c3 fpn(width=32, adapter=@(conv_3x3 | none)) { output p3 = conv_1x1(c3) } H }", ""),
        ("decoder t { input c3 fpn(width=32) { output p3 = conv(c3, k=@(1 | 3)) } H }", ""),
        ("PLAIN head(width=32, share=@(0 | 1)) { conv_3x3 } predict fcos }", ""),
        ("PLAIN head(width=32) { conv(k=@(1 | 3)) } predict fcos }", ""),
        ("PLAIN head(width=32) { relu } predict fcos(boxes=@(exp | relu)) }", ""),
        ("PLAIN head(width=32) { relu } predict tal(bins=@(2 | 4), conv=@(none | sep_3x3)) }", ""),
        ("decoder t { input c3 detector(size=@(64x64 | 96x96)) fpn(width=32) { output p3 = c3 } H }", ""),
    ],
    "assign": [("decoder t { input c3 fpn(width=32) { x = @(c3 | relu(c3)) output p3 = x } H }", "")],
    "target": [("decoder t { input c3 fpn(width=32) { x[@(1 | 2)] = relu(c3) output p3 = c3 } H }", "NAS503")],
    "binding": [("decoder t { input c3 fpn(width=32) { output p3 = @(c3 | relu(c3)) } H }", "")],
    "merge": [("decoder t { input c3 fpn(width=32) { output p3 = c3 merge dangling into p[@(3 | 4)] } H }", "NAS503")],
    "repeat": [
        ("decoder t { input c3 fpn(width=32) { x = c3 repeat @(1 | 2) { x = relu(x) } output p3 = x } H }", ""),
        ("decoder t { input c3 fpn(width=32) { x = c3 repeat t in @(1 | 2)..2 { x = relu(x) } output p3 = x } H }", ""),
        ("decoder t { input c3 fpn(width=32) { x = c3 repeat t in 1..@(1 | 2) { x = relu(x) } output p3 = x } H }", ""),
    ],
    "shared": [
        ("decoder t { input c3 fpn(width=32) { shared f(x) = @(conv_3x3 | relu)(x) output p3 = f(f(c3)) } H }", ""),
        ("decoder t { input c3 fpn(width=32) { shared f(x) = conv(x, k=@(1 | 3)) output p3 = f(c3) } H }", ""),
    ],
    "let": [
        ("decoder t { input c3 let k = @(1 | 3) fpn(width=32) { output p3 = conv(c3, k=k) } H }", ""),
        ("decoder t { input c3 fpn(width=32) { let k = @(1 | 3) output p3 = conv(c3, k=k) } H }", ""),
    ],
    "step": [
        ("PLAIN head(width=32) { @(relu | conv_1x1) } predict fcos }", ""),
        ("PLAIN head(width=32) { conv_3x3 * @(1 | 2) } predict fcos }", ""),
        ("PLAIN head(width=32) { @(relu | tanh) * 2 } predict fcos }", ""),
    ],
    "operand": [("decoder t { input c3 fpn(width=32) { output p3 = add(c3, @(c3 | relu(c3))) } H }", "")],
    "reference": [("decoder t { input c3 fpn(width=32) { x1 = c3 output p3 = relu(x[@(1 | 2)]) } H }", "NAS503")],
    "call": [("decoder t { input c3 fpn(width=32) { output p3 = @(relu | tanh)(c3) } H }", "")],
    "arg": [
        ("decoder t { input c3 fpn(width=32) { output p3 = mul(c3, @(0.5 | 2)) } H }", ""),
        ("decoder t { input c3 fpn(width=32) { output p3 = relu(@(c3 | relu(c3))) } H }", ""),
    ],
    "hole": [
        ("decoder t { input c3 fpn(width=32) { output p3 = conv(c3, k=?(1..@(2 | 3))) } H }", "NAS503"),
        ("decoder t { input c3 fpn(width=32) { output p3 = conv(c3, k=?(@(1 | 3)..3)) } H }", "NAS503"),
    ],
    "alternatives": [("decoder t { input c3 fpn(width=32) { output p3 = ?(relu | @(tanh | conv_1x1))(c3) } H }", "")],
    "weighted": [
        ("decoder t { input c3 fpn(width=32) { output p3 = ?(relu : 2 | @(tanh | conv_1x1) : 0.5)(c3) } H }", ""),
        ("decoder t { input c3 fpn(width=32) { output p3 = ?(relu : @(1 | 2) | tanh)(c3) } H }", "NAS102"),
    ],
    "alternative": [("PLAIN head(width=32) { ?(relu -> @(tanh | relu) | tanh) } predict fcos }", "")],
    "link": [
        ("PLAIN head(width=32) { ?(conv(k=1) * @(1 | 2) | tanh) } predict fcos }", ""),
        ("PLAIN head(width=32) { ?(conv_3x3 * @(1 | 2) | tanh) } predict fcos }", ""),
    ],
    "attribute": [("decoder t { input c3 fpn(width=32) { output p3 = conv(c3, k=1 + @(0 | 2)) } H }", "")],
    "term": [("decoder t { input c3 fpn(width=32) { output p3 = conv(c3, k=3 * @(1 | 3)) } H }", "")],
    "factor": [
        ("decoder t { input c3 fpn(width=32) { output p3 = conv(c3, k=4 + -@(1 | 3)) } H }", ""),
        ("decoder t { input c3 fpn(width=32) { output p3 = conv(c3, k=(@(1 | 3))) } H }", ""),
    ],
    "names without a meaning": [
        ("decoder t { input @(c3 | c4) fpn(width=32) { output p3 = c3 } H }", "NAS102"),
        ("decoder t { input c3 require macs <= @(1 | 2) fpn(width=32) { output p3 = c3 } H }", "NAS102"),
        ("PLAIN head(width=32) { relu } predict @(fcos | retinanet) }", "NAS102"),
        ("decoder t { input c3 fpn from @(a | b) H }", "NAS102"),
    ],
}  # fmt: skip
"""Each rule of the grammar in which a value, an attribute or an op can stand: a text with a hole at @, and the code of its
diagnostic; none where the hole has a meaning."""

EVERY_PLACE = [pytest.param(*row, id=f"{rule} {n}") for rule, rows in PLACES.items() for n, row in enumerate(rows)]


def test_the_places_are_those_of_the_grammar() -> None:
    """A new rule that can hold a hole needs a row."""
    values = {"attribute", "operand", "factor", "term", "hole", "alternatives", "alternative", "reference", "link", "weighted"}
    rules: dict[str, str] = {}
    name = ""
    for line in resources.read("grammars", "nas.lark").splitlines():
        found = re.match(r"\??([a-z_]+): (.*)", line)
        if found:
            name = found[1]
        if name and (found or line.startswith(" ")):
            rules[name] = rules.get(name, "") + (found[2] if found else line)
    with_values = {name for name, right in rules.items() if values & set(re.findall(r"[a-z_]+", right))}
    assert with_values <= set(PLACES)


@pytest.mark.parametrize(("source", "code"), EVERY_PLACE)
def test_a_hole_has_a_meaning_or_a_diagnostic_in_every_place(source: str, code: str) -> None:
    plain = "decoder t { input c3 fpn(width=32) { output p3 = c3 }"
    source = source.replace(" H }", f" {HEAD} }}").replace("PLAIN", plain).replace("@", "?")
    checked = check_source(Source("t.nas", source))
    if code:
        assert [p.code for p in checked.problems] == [code]
        (problem,) = checked.problems
        assert source[problem.span.start] == "?"
        return
    assert checked.problems == []
    space = loads_space(source)
    fillings = {space.decode(i).indices for i in itertools.product(*(range(len(d)) for d in space.domains))}
    assert len(fillings) == space.size > 1
    assert len({agrees(space, indices) for indices in fillings}) == space.size
