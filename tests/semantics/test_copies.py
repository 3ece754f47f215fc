"""Calls of ops and blocks with holes, each of which is elaborated anew: how many there may be."""

from __future__ import annotations

import pytest

from nasdsl.decoder import Checked, check_source
from nasdsl.diagnostics import Source
from nasdsl.semantics.elaborate_expression import MAX_COPIED

HOLE, WITHOUT, LEFT_OUT = "?(b0(a) | a)", "b0(a)", "y y b0(a)"
"""What the second block computes: `LEFT_OUT` has no `=` in it."""


def doubling(count: int, last: str, copies: int = 1) -> str:
    """Blocks that each call the one before twice; the second one computes `last`. `copies`: of the third and following ones."""
    blocks = ["block b0(x) -> (y) { y = relu(x) }", f"block b1(x) -> (y) {{ a = b0(x) {'y = ' * (last != LEFT_OUT)}{last} }}"]
    for i in range(2, count):
        blocks += [f"block b{i}{'_' * n}(x) -> (y) {{ a = b{i - 1}(x) y = b{i - 1}(a) }}" for n in range(copies)]
    fpn = f"fpn(width=32, norm=bn) {{ output p3 = b{count - 1}(c3) }}"
    return "\n".join([*blocks, f"decoder d {{ input c3 {fpn} head(width=32) {{ skip }} predict fcos }}"])


def check(text: str) -> tuple[Checked, list[str]]:
    checked = check_source(Source("t.nas", text))
    return checked, [problem.message for problem in checked.problems if problem.severity == "error"]


def test_few_are_no_finding() -> None:
    checked, errors = check(doubling(9, HOLE))
    assert errors == []
    assert checked.architecture is not None
    assert checked.architecture.decisions == 2**7


@pytest.mark.parametrize("copies", [1, 40])
def test_too_many_are_one_finding(copies: int) -> None:
    """Also where each of many blocks stays below the limit."""
    count = 18 if copies == 1 else 12
    checked, errors = check(doubling(count, HOLE, copies))
    assert errors == [f"ops and blocks with holes expand into more than {MAX_COPIED:,} calls, statements and alternatives"]
    assert checked.architecture is None


def test_what_has_no_hole_is_elaborated_once() -> None:
    _, errors = check(doubling(12, WITHOUT, 40))
    assert errors == []


def test_what_a_mistake_has_left_out_is_no_hole() -> None:
    """Only its own line has findings, in a text that would be too much if what it has left out were a hole."""
    checked, errors = check(doubling(12, LEFT_OUT, 40))
    assert errors
    assert {problem.span.line for problem in checked.problems} == {2}
