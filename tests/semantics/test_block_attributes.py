"""Blocks with attributes: a call means what the block's statements say with the call's values in them."""

from __future__ import annotations

import itertools

import pytest

import nasdsl
from nasdsl.decoder import check_source
from nasdsl.diagnostics import Source
from nasdsl.spaces import SpaceError, loads_space

STAGE = """
op mine(x) = relu(norm(conv(x, k=3, norm=none, act=none)))
block stage(x, width=width, n=2, k=3, inner=width / 2, unit=conv_3x3) -> (y) {
  x0 = conv_1x1(x)
  repeat t in 1..n { x[t] = unit(conv(x[t-1], k=k, width=inner)) }
  y = concat(x0, x[n])
}
"""


def text(body: str, before: str = "", width: int = 32) -> str:
    fpn = f"fpn(width={width}, norm=bn) {{ {body} }}"
    return f"{before} decoder t {{ input c3, c4 {fpn} head(width=32) {{ conv_3x3 }} predict fcos }}"


def codes(body: str, before: str) -> list[str]:
    return [p.code for p in check_source(Source("t.nas", text(body, before))).problems]


@pytest.mark.parametrize(("n", "k", "unit"), list(itertools.product((0, 1, 3), (1, 3), ("conv_3x3", "tanh", "mine"))))
def test_a_call_is_the_statements_with_its_values(n: int, k: int, unit: str) -> None:
    called = text(f"y = stage(c3, n={n}, k={k}, unit={unit}) output p3 = conv_1x1(y)", STAGE)
    lines = ["x0 = conv_1x1(c3)"] + [f"x{t} = {unit}(conv(x{t - 1}, k={k}, width=16))" for t in range(1, n + 1)]
    written = text(f"{' '.join(lines)} y = concat(x0, x{n}) output p3 = conv_1x1(y)", STAGE)
    assert nasdsl.loads(called).digest == nasdsl.loads(written).digest


def test_an_attribute_of_a_section_is_set_for_the_whole_body() -> None:
    called = text("y = stage(c3, n=1, width=64, inner=8) output p3 = conv_1x1(y)", STAGE)
    written = text(
        "let width = 64 x0 = conv_1x1(c3) x1 = conv_3x3(conv(x0, k=3, width=8)) let width = 32 "
        "output p3 = conv_1x1(concat(x0, x1))"
    )
    assert nasdsl.loads(called).digest == nasdsl.loads(written).digest
    assert nasdsl.loads(text("output p3 = conv_1x1(stage(c3))", STAGE, width=64)).digest == nasdsl.loads(
        text("output p3 = conv_1x1(stage(c3, n=2, width=64, k=3, inner=32, unit=conv_3x3))", STAGE, width=64)
    ).digest  # fmt: skip


def test_a_word_of_the_body_hides_an_attribute() -> None:
    body = "let k = n a = conv(x, k=n) let n = k + 2 y = conv(a, k=n) repeat n in n..n { y = conv(y, k=n) }"
    block = f"block f(x, n=3) -> (y) {{ {body} }}"
    assert (
        nasdsl.loads(text("output p3 = f(c3, n=1)", block)).digest
        == nasdsl.loads(text("output p3 = conv(conv(conv(c3, k=1), k=3), k=3)")).digest
    )


@pytest.mark.parametrize(
    ("body", "code"),
    {
        "stage(c3, m=1)": "NAS302",
        "stage(c3, n=1, n=2)": "NAS305",
        "stage(c3, n=1.5)": "NAS303",
        "stage(c3, n=relu)": "NAS303",
        "stage(c3, k=2)": "NAS303",
        "stage(c3, unit=nothing)": "NAS201",
        "stage(c3, n=100000000)": "NAS410",
        "stage(c3, c4)": "NAS301",
    }.items(),
)
def test_a_wrong_call_is_one_finding_at_the_call(body: str, code: str) -> None:
    (found,) = check_source(Source("t.nas", text(f"output p3 = conv_1x1({body})", STAGE))).problems
    assert found.code == code
    assert found.span.start >= text("", STAGE).index("decoder")  # and not in the block


def test_mistakes_in_a_block_that_nothing_calls_are_found() -> None:
    """Also in what an attribute repeats: it is read once with the defaults."""
    assert codes("output p3 = c3", "block f(x, n=2) -> (y) { y = x repeat n { y = nothing(y) } }") == ["NAS201"]
    assert codes("output p3 = c3", "block f(x, n=?(1 | 2)) -> (y) { y = x repeat n { y = relu(y) } }") == ["NAS503"]
    assert codes("output p3 = c3", "block f(x, n=2) -> (y) { y = relu(x) repeat 0 { y = relu(y) } }") == ["NAS303"]
    assert codes("output p3 = c3", "block f(x, x=2) -> (y) { y = relu(x) }") == ["NAS206"]


@pytest.mark.parametrize("op", ["relu", "?(relu | tanh)"])
@pytest.mark.parametrize("n", ["0", "?(0 | 1)"])
def test_a_result_that_a_call_leaves_unbound_is_one_finding_at_the_call(op: str, n: str) -> None:
    """The block binds it with its defaults: whether a call does is known of the call alone."""
    block = f"block f(x, n=1) -> (y, z) {{ z = x repeat n {{ y = {op}(x) }} }}"
    assert codes("a, b = f(c3) output p3 = sum(a, b)", block) == []
    (found,) = check_source(Source("t.nas", text(f"a, b = f(c3, n={n}) output p3 = sum(a, b)", block))).problems
    assert found.span.text.startswith("f")
    assert found.span.start > text("", block).index("decoder")
    unbound = "`y` is not bound in every filling" if op != "relu" and n != "0" else "the block `f` binds no `y`"
    assert found.message == unbound
    assert [span.text for span, _ in found.related][:1] == ["y"]


def test_a_text_with_another_body_is_no_filling() -> None:
    """Also where the difference is in what an attribute repeats."""
    block = "block f(x, n=2) -> (y) {{ y = x repeat n {{ y = {}(y) }} }}"
    space = loads_space(text("output p3 = f(c3, n=?(1..3))", block.format("conv_3x3")))
    assert space.encode(text("output p3 = f(c3, n=2)", block.format("conv_3x3"))) == [1]
    with pytest.raises(SpaceError, match="not a decoder"):
        space.encode(text("output p3 = f(c3, n=2)", block.format("sep_3x3")))
    with pytest.raises(SpaceError, match="not a decoder"):
        space.encode(text("output p3 = f(c3, n=2)", block.format("conv_3x3").replace("n=2", "n=1")))


@pytest.mark.parametrize("inside", ["let width = ?(32 | 64)", "let width = 32 let act = ?(relu | silu)"])
def test_a_text_with_another_body_is_no_filling_behind_a_let_either(inside: str) -> None:
    """How often the body is repeated is decided by the width at the call."""
    block = "block f(x, n=width/16) -> (z) {{ repeat n {{ y = {}(x) }} z = tanh(y) }}"
    space = loads_space(text(f"{inside} output p3 = conv_1x1(f(c3), width=32)", block.format("conv_3x3")))
    for index in range(2):
        assert space.encode(space.decode([index])) == [index]
        with pytest.raises(SpaceError, match="not a decoder of t: `conv_1x1"):
            space.encode(space.decode([index]).replace("conv_3x3(x)", "conv_1x1(x)"))
