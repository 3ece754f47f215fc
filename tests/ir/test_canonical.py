"""Canonical text: a fixed point of the language, blind to how a decoder was written down."""

from __future__ import annotations

from pathlib import Path

import pytest
import random_decoders

import nasdsl
from nasdsl.ir import Graph, matching

ZOO = Path(__file__).parents[2] / "genotypes"
CASES = [pytest.param(random_decoders.text(s), id=f"free{s}") for s in range(60)]


@pytest.mark.parametrize("text", CASES)
def test_fixed_point(text: str) -> None:
    """Canonical text is a text of the language, and its own canonical text; cost is untouched."""
    decoder = nasdsl.loads(text)
    again = nasdsl.loads(str(decoder))
    assert str(again) == str(decoder)
    assert again.digest == decoder.digest
    assert again.cost().total[:3] == decoder.cost().total[:3]


def test_zoo_digests_differ() -> None:
    digests = {path.stem: nasdsl.load(path).digest for path in ZOO.glob("*.nas")}
    assert len(set(digests.values())) == len(digests) > 20, digests


BASE = """\
decoder a {
  input c3, c4, c5
  fpn(width=64, norm=bn) {
    x1 = psum(conv_3x3(c5), c4)
    x2 = cat(x1, sep_3x3(c3))
    x3 = sum(x2, conv_1x1(x1))
    output p3 = x3, p4 = x1
  }
  head(width=64, norm=gn, share=1) { conv_3x3 -> sep_3x3 }
  predict fcos(centerness=cls)
}
"""


def digest(*changes: tuple[str, str], before: str = "") -> str:
    text = BASE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return nasdsl.loads(before + text).digest


@pytest.mark.parametrize(
    "changes",
    [
        [("decoder a", "decoder b")],
        [(" x1 ", " first "), ("(x1", "(first"), ("= x1", "= first"), ("x2", "second")],
        [("psum(conv_3x3(c5), c4)", "psum(c4, conv_3x3(c5))")],
        [("sum(x2, conv_1x1(x1))", "sum(conv_1x1(x1), x2)")],
        [("x1 = ", "unread = conv_3x3(c3)\n    x1 = ")],
        [("cat(x1, ", "cat(skip(x1), ")],
        [("input c3, c4, c5", "input c5, c4, c2, c3")],
        [("output p3 = x3, p4 = x1", "output p4 = x1; output p3 = x3")],
        [("x2 = cat(x1, sep_3x3(c3))", "s = sep_3x3(c3)\n    x2 = cat(x1, s)")],
        [("conv_3x3 -> sep_3x3", "skip -> conv_3x3 -> sep_3x3"), ("share=1", "share=2")],
        [("conv_3x3 -> sep_3x3", "conv_3x3 -> skip -> sep_3x3")],
        [("conv_3x3 -> sep_3x3", "cls: conv_3x3 -> sep_3x3 box: conv_3x3 -> sep_3x3")],
        [("share=1", "act=relu, share=1")],
        [("norm=gn, share=1", "norm=gn, share=1, norms=shared")],
        [
            ("{ conv_3x3 -> sep_3x3 }", "{ both: skip cls: conv_3x3 -> skip -> sep_3x3 box: conv_3x3 -> sep_3x3 }"),
            ("share=1", "share=2"),
        ],
        [("conv_3x3(c5)", "conv(c5, k=3, dilation=1)")],
    ],
)
def test_equal(changes: list[tuple[str, str]]) -> None:
    assert digest(*changes) == digest()


def test_equal_through_a_block_and_an_op() -> None:
    block = "op mine(x) = conv_3x3(x)\nblock b(u, v) -> (w) { a = mine(u); w = psum(a, v) }\n"
    assert digest(("psum(conv_3x3(c5), c4)", "b(c5, c4)"), before=block) == digest()


@pytest.mark.parametrize(
    "changes",
    [
        [("conv_3x3(c5)", "conv_3x3(c4)")],
        [("conv_3x3(c5)", "sep_3x3(c5)")],
        [("cat(x1, sep_3x3(c3))", "cat(sep_3x3(c3), x1)")],
        [("psum", "sum")],
        [("width=64", "width=32")],
        [("norm=bn", "norm=gn")],
        [("share=1", "share=0")],
        [("share=1", "share=1, norms=level")],
        [("{ conv_3x3 -> sep_3x3 }", "{ both: conv_3x3 -> sep_3x3 }")],
        [("{ conv_3x3 -> sep_3x3 }", "{ both: conv_3x3 cls: sep_3x3 box: sep_3x3 }")],
        [("centerness=cls", "centerness=box")],
        [("centerness=cls", "centerness=cls, boxes=relu")],
        [("p4 = x1", "p5 = x1")],
        [("conv_3x3 -> sep_3x3", "sep_3x3 -> conv_3x3")],
        [("predict fcos(centerness=cls)", "predict retinanet(anchors=9)")],
    ],
)
def test_different(changes: list[tuple[str, str]]) -> None:
    assert digest(*changes) != digest()


def test_the_form_of_boxes_is_written_where_it_is_not_the_default() -> None:
    """Digests of decoders from before there was a choice are those that they had."""
    plain, relu = (nasdsl.loads(BASE.replace("centerness=cls", f"centerness=cls, boxes={form}")) for form in ("exp", "relu"))
    assert plain.digest == nasdsl.loads(BASE).digest
    assert plain.canonical.endswith("  predict fcos(centerness=cls)\n}\n")
    assert relu.canonical == plain.canonical.replace("centerness=cls", "centerness=cls, boxes=relu")
    known = {"nas_fcos": "0011893a8c0bc747", "retinanet": "57782a85b62c7775"}
    for name, digest in known.items():
        assert nasdsl.load(ZOO / f"{name}.nas").digest.startswith(digest)


def test_twins_that_are_read_differently() -> None:
    """Two equal layers with weights of their own are not one layer read twice."""
    shared = "x1 = conv_3x3(c5)\nx2 = sum(x1, x1)"
    apart = "x1 = conv_3x3(c5)\ny1 = conv_3x3(c5)\nx2 = sum(x1, y1)"
    template = BASE[: BASE.index("    x1")] + "    {}\n    output p5 = x2\n" + BASE[BASE.index("  }\n  head") :]
    one, two = (nasdsl.loads(template.replace("{}", body, 1)).digest for body in (shared, apart))
    assert one != two


def test_parameter_free_twins_are_one() -> None:
    template = BASE[: BASE.index("    x1")] + "    {}\n    output p5 = x2\n" + BASE[BASE.index("  }\n  head") :]
    one = nasdsl.loads(template.replace("{}", "x1 = relu(c5)\nx2 = sum(x1, x1)", 1)).digest
    two = nasdsl.loads(template.replace("{}", "x2 = sum(relu(c5), relu(c5))", 1)).digest
    assert one == two


@pytest.mark.parametrize(("steps", "is_told_apart"), [(1, True), (10, False)])
def test_twins_are_paired_by_how_they_are_read_or_by_name(
    steps: int, is_told_apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reads them differently is looked for so many layers behind them, and no further."""
    monkeypatch.setattr(matching, "_MOST_ROUNDS", 4)

    def graph(first: str, second: str) -> Graph:
        return nasdsl.loads(
            "op step(x) = pool(x, k=3, stride=1, kind=max)"
            " decoder d { input c3 fpn(width=8) { a = conv_1x1(c3) b = conv_1x1(c3)"
            f" x = {first} y = {second} repeat {steps} {{ x = step(x) y = step(y) }} output p3 = sum(tanh(x), sigmoid(y)) }}"
            " head(width=8) { skip } predict fcos }"
        ).lower({"c3": 8})

    source, target = graph("a", "b"), graph("b", "a")
    pairs = matching.match_nodes(source.nodes, target.nodes, source.outputs, target.outputs).pairs
    assert (pairs["a.conv"], pairs["b.conv"]) == (("b.conv", "a.conv") if is_told_apart else ("a.conv", "b.conv"))


TWINS = [
    ("a = conv_3x3(c3); b = conv_3x3(c3); y = add(mul(a, b), {})", ["add(a, b)", "add(b, a)"]),
    (
        "x1 = psum(dconv_3x3(c5), skip(c4)); x2 = psum(dconv_3x3(c5), skip(c4)); x3 = psum(x1, x2); y = psum(x3, {})",
        ["psum(x1, x2)", "psum(x2, x1)"],
    ),
    (
        "a = conv_1x1(c3); b = conv_1x1(c3); e = conv_1x1(c4); f = conv_1x1(c4); y = add(mul(a, e), mul(b, f), add(a, b), {})",
        ["add(e, f)", "add(f, e)"],
    ),
]


@pytest.mark.parametrize(("body", "endings"), TWINS)
def test_twins_that_are_read_together(body: str, endings: list[str]) -> None:
    """Twins that nothing tells apart: which one an operand is written first must not show."""
    template = BASE[: BASE.index("    x1")] + "    {}\n    output p3 = y\n" + BASE[BASE.index("  }\n  head") :]
    decoders = [nasdsl.loads(template.replace("{}", body.format(ending), 1)) for ending in endings]
    assert len({d.digest for d in decoders}) == 1
    for decoder in decoders:
        assert nasdsl.loads(str(decoder)).digest == decoder.digest


def test_twins_that_no_symmetry_exchanges() -> None:
    """Six layers alike, read in a circle of six and in two circles of three: every node looks the same, the graphs differ."""

    def digest_of(pairs: list[tuple[int, int]]) -> str:
        layers = "; ".join(f"a{i} = conv_1x1(c3)" for i in range(6))
        sums = ", ".join(f"mul(a{i}, a{j})" for i, j in pairs)
        template = BASE[: BASE.index("    x1")] + f"    {layers}; y = add({sums})\n    output p3 = y\n"
        return nasdsl.loads(template + BASE[BASE.index("  }\n  head") :]).digest

    one = digest_of([(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0)])
    assert one == digest_of([(3, 1), (0, 3), (1, 5), (5, 2), (2, 4), (4, 0)])  # the same circle, numbered otherwise
    assert one != digest_of([(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3)])
