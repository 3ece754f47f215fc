"""`distinct`: what is drawn, proposed and told apart has operands that differ."""

from __future__ import annotations

import itertools

import fake_model
import pytest

import nasdsl
from nasdsl.decoder import check_source
from nasdsl.diagnostics import DiagnosticError, Source
from nasdsl.search.strategies import STRATEGIES, make_strategy
from nasdsl.spaces import loads_space

SPACE = """
choice op = conv_1x1 | skip
decoder t {
  input c3, c4
  fpn(width=32, norm=bn) { x = ?(sum | psum)(?op(?pool), ?op(?pool)) distinct output p3 = x }
  head(width=32) { conv_3x3 }
  predict fcos
}
"""


def text(body: str, before: str = "") -> str:
    fpn = f"fpn(width=32, norm=bn) {{ {body} }}"
    return f"{before} decoder t {{ input c3, c4 {fpn} head(width=32) {{ conv_3x3 }} predict fcos }}"


def test_what_is_drawn_has_operands_that_differ() -> None:
    """Of 2 aggregations and 4 x 4 pairs of operands, 12 pairs differ."""
    space = loads_space(SPACE)
    assert space.size == 32
    kept = {i for i in itertools.product(*(range(len(d)) for d in space.domains)) if space.keeps(i)}
    differ = {i for i in itertools.product(*(range(len(d)) for d in space.domains)) if i[1:3] != i[3:5]}
    assert kept == differ
    assert len(kept) == 24
    drawn = {sample.indices for sample in space.samples(400, seed=0)}
    assert drawn == differ
    for sample in space.samples(5, seed=1):
        assert space.encode(sample) == list(sample.indices)
        assert nasdsl.loads(sample)
    equal = next(i for i in itertools.product(*(range(len(d)) for d in space.domains)) if i not in differ)
    with pytest.raises(DiagnosticError, match="NAS513"):
        space.load(space.decode(equal))


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_strategy_proposes_equal_operands(name: str) -> None:
    space = loads_space(SPACE)
    strategy = make_strategy(name, space, seed=0, **(fake_model.options() | {"initial": 3, "ask": 3} if name == "llm" else {}))
    for number in range(12):
        proposal = strategy.propose()
        assert proposal.indices[1:3] != proposal.indices[3:5]
        strategy.observe(proposal, float(number % 5))


@pytest.mark.parametrize(
    ("body", "is_right"),
    {
        "x = sum(c3, c4) distinct": True,
        "x = sum(c3, c3) distinct": False,
        "x = sum(relu(c3), relu(c3)) distinct": False,
        "x = sum(relu(c3), relu(c4)) distinct": True,
        "x = sum(conv(c3, k=3), conv(c3, k=1)) distinct": True,
        "x = sum(conv(c3, k=3, act=relu), conv(c3, act=relu, k=3)) distinct": False,
        "let k = 3 x = sum(conv(c3, k=k), conv(c3, k=3)) distinct": False,
        "x = add(c3, c4, c3) distinct": False,
        "y = c3 x = sum(y, c3) distinct": True,
        "x = c3 repeat 2 { x = sum(x, c3) } y = sum(x, c3) distinct": True,
        "x = relu(c3) distinct": False,
        "x = pair(c3, c3)": True,
        "x = twice(c3)": False,
    }.items(),
)
def test_operands_of_a_decoder_are_compared_as_they_are_written(body: str, is_right: bool) -> None:
    before = "agg pair(x, y) = add(x, y) distinct" + (" op twice(x) = add(x, x) distinct" if "twice" in body else "")
    found = check_source(Source("t.nas", text(f"{body} output p3 = x", before))).problems
    assert {p.code for p in found} <= {"NAS513", "NAS901"}
    assert ("NAS513" not in {p.code for p in found}) == is_right


def test_the_word_changes_no_digest() -> None:
    one, other = (nasdsl.loads(text(f"x = sum(c3, c4) {word} output p3 = x")) for word in ("", "distinct"))
    assert one.digest == other.digest


def test_a_space_in_which_nothing_differs_says_so() -> None:
    space = loads_space(text("x = sum(?(c3 | relu(c3)), ?(c3 | relu(c3))) distinct output p3 = x"))
    assert {space.keeps(i) for i in ((0, 0), (1, 1))} == {False}
    with pytest.raises(DiagnosticError, match="NAS513"):
        nasdsl.loads(text("output p3 = sum(c3, c3) distinct"))
