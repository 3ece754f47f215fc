"""`none` leaves an operand out: what is left is what a hand writes without it."""

from __future__ import annotations

import pytest

import nasdsl
from nasdsl.decoder import check_source
from nasdsl.diagnostics import DiagnosticError, Source
from nasdsl.spaces import loads_space

BEFORE = "op thing(x, o=skip) = o(x) block b(x, y) -> (s) { s = sum(x, y) }"


def text(body: str) -> str:
    fpn = f"fpn(width=32, norm=bn) {{ {body} }}"
    return f"{BEFORE} decoder t {{ input c3, c4, c5 {fpn} head(width=32) {{ conv_3x3 }} predict fcos }}"


EQUAL = {
    "output p3 = sum(c3, none(c4))": "output p3 = c3",
    "output p3 = add(c3, none, conv_3x3(c4))": "output p3 = add(c3, conv_3x3(c4))",
    "output p4 = sum(none(c3), c4)": "output p4 = c4",
    "output p3 = psum(c3, none)": "output p3 = scale(c3)",
    "output p3 = cat(none, c3)": "output p3 = conv(relu(norm(c3)), k=1, groups=width, norm=none, act=none, bias=false)",
    "output p3 = conv_1x1(concat(c3, none, relu(c4)))": "output p3 = conv_1x1(concat(c3, relu(c4)))",
    "output p3 = max(c3, none(c4), tanh(c3))": "output p3 = max(c3, tanh(c3))",
    "output p3 = weighted_add(c3, none(c4))": "output p3 = c3",
    "output p3 = sum(mul(c3, none(c4)), c5)": "output p3 = c5",
    "output p3 = sum(mul(none(c4), 0.5), c3)": "output p3 = c3",
    "output p3 = attend(none, c3)": "output p3 = c3",
    "output p3 = sum(conv_3x3(none), c3)": "output p3 = c3",
    "output p3 = sum(thing(c4, o=none), c3)": "output p3 = c3",
    "output p3 = b(none, conv_3x3(c3))": "output p3 = conv_3x3(c3)",
    "let k = none output p3 = sum(k(c3), add(c3, k, relu(c3)))": "output p3 = add(c3, relu(c3))",
    "a = relu(c4) output p3 = sum(none(a), c3) merge dangling into p3": "a = relu(c4) output p3 = c3 merge dangling into p3",
}


@pytest.mark.parametrize("body", EQUAL)
def test_what_is_left_is_what_a_hand_writes(body: str) -> None:
    found, written = nasdsl.loads(text(body)), nasdsl.loads(text(EQUAL[body]))
    assert found.digest == written.digest
    assert nasdsl.loads(found.canonical).digest == written.digest
    assert found.architecture.fpn.dangling == written.architecture.fpn.dangling


@pytest.mark.parametrize(
    "body",
    [
        "x = sum(none(c3), none(c4)) output p3 = c3",
        "output p3 = none",
        "output p3 = relu(none(c3))",
        "output p3 = mul(c3, none)",
        "output p3 = sum(c3, up(c4, none))",
        "a, d = split(none) output p3 = c3",
        "x = b(none, none) output p3 = c3",
    ],
)
def test_a_value_without_operands_is_a_finding(body: str) -> None:
    codes = {p.code for p in check_source(Source("t.nas", text(body))).problems if p.severity == "error"}
    assert codes == {"NAS511"}


def test_a_value_or_an_op_of_this_name_comes_first() -> None:
    assert nasdsl.loads(text("none = relu(c3) output p3 = none")).digest == nasdsl.loads(text("output p3 = relu(c3)")).digest
    own = "op none(x) = relu(x) " + text("output p3 = none(c3)")
    assert nasdsl.loads(own).digest == nasdsl.loads(text("output p3 = relu(c3)")).digest


def test_a_space_draws_what_is_left_and_nothing_else() -> None:
    """Of 3 x 3 alternatives for the two operands all but one leave something."""
    space = loads_space(text("x = sum(?(skip | relu | none)(c3), ?(skip | relu | none)(c4)) output p3 = x"))
    assert space.size == 9
    nothing = [space.domains[0].alternatives.index("none"), space.domains[1].alternatives.index("none")]
    assert space.figures(nothing) is None
    with pytest.raises(DiagnosticError, match="NAS511"):
        space.load(space.decode(nothing))
    drawn = {sample.indices for sample in space.samples(200, seed=0)}
    assert len(drawn) == 8
    assert tuple(nothing) not in drawn
    assert "none" in space.legal(space.decode(nothing).partition("sum(")[0] + "sum(")
