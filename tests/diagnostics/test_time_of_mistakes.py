"""A text with a mistake is checked about as fast as one without: no work that grows faster than the text."""

from __future__ import annotations

import difflib
import random
import time
from collections.abc import Iterator

import pytest
from machine_speed import slowness

from nasdsl.decoder import check_source
from nasdsl.diagnostics import Diagnostic, Source, did_you_mean
from nasdsl.diagnostics.diagnostic import MAX_CANDIDATES, MAX_COMPARED, MAX_WORD
from nasdsl.semantics.elaborate_body import MAX_STATEMENTS

pytestmark = pytest.mark.usefixtures("own_garbage")

SECONDS = 1.0  # of processor time; each takes less than a third on a quiet machine


def decoder(body: str, before: str = "") -> str:
    return (
        f"{before}decoder d {{\n  input c3, c4\n  fpn(width=64, norm=bn) {{\n{body}\n  }}\n"
        "  head(width=64, norm=gn) { conv_3x3 }\n  predict fcos(centerness=cls)\n}\n"
    )


def lines(pattern: str, count: int) -> str:
    return "\n".join(pattern.format(i=i, before=i - 1) for i in range(1, count + 1))


REPEAT = "    x0 = skip(c3)\n    repeat t in 1..{rounds} {{ x[t] = conv_3x3({read}[t-1]) }}\n    output p3 = x0"

TEXTS = {
    "a wrong name in a repeat": (decoder(REPEAT.format(rounds=999, read="y")), {"NAS202"}),
    "a wrong name in a long repeat": (decoder(REPEAT.format(rounds=MAX_STATEMENTS, read="y")), {"NAS202"}),
    "a wrong name in a repeat below many others": (
        decoder(lines("    a_value_with_a_long_name_{i} = skip(c3)", 400) + "\n" + REPEAT.format(rounds=999, read="a_value")),
        {"NAS202", "NAS901"},
    ),
    "hundreds of wrong names among hundreds of right ones": (
        decoder(lines("    a_value_with_a_long_name_{i} = skip(a_value_of_a_longer_name_{i})", 480) + "\n    output p3 = c3"),
        {"NAS202", "NAS901"},
    ),
    "hundreds of wrong ops among hundreds of right ones": (
        decoder(
            lines("    x{i} = an_op_with_a_longer_name_{i}(c3)", 480) + "\n    output p3 = c3",
            before=lines("op an_op_with_a_long_name_{i}(x) = skip(x)", 450) + "\n",
        ),
        {"NAS201", "NAS901"},
    ),
    "a wrong op in thousands of layers of a head": (
        decoder("    output p3 = c3").replace("conv_3x3 }", " -> ".join(["conv_3x"] * 3000) + " }"), {"NAS201"}
    ),
    "a comma missing on each of thousands of lines": (
        decoder(lines("    x{i} = sum(c3 c4)", 2000) + "\n    output p3 = x1"), {"NAS102", "NAS202"}
    ),
    "a bracket missing on each of thousands of lines": (
        decoder(lines("    x{i} = sum(c3, c4", 2000) + "\n    output p3 = x1"), {"NAS102", "NAS107"}
    ),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", TEXTS)
def test_a_mistake_takes_no_longer_than_a_second(name: str) -> None:
    text, codes = TEXTS[name]
    seconds: list[float] = []
    for _ in range(3):  # a shared core can become slower while it runs
        start = time.process_time()
        found = check_source(Source("t.nas", text)).problems
        seconds.append(time.process_time() - start)
        assert {d.code for d in found} <= codes
        assert found
        if seconds[-1] < SECONDS:
            return
    assert min(seconds) < SECONDS * slowness(), seconds


def test_rounds_that_are_left_out_are_not_missed() -> None:
    """After many rounds with mistakes the others are not read; what they would bind is not reported as unknown."""
    text = decoder(REPEAT.format(rounds=9_999, read="y").replace("output p3 = x0", "output p3 = sum(x9999, x5000)"))
    found: list[Diagnostic] = check_source(Source("t.nas", text)).problems
    assert [(d.code, d.message) for d in found] == [("NAS202", "no value is called `y0`")]
    still = check_source(Source("t.nas", text.replace("x5000", "z5000"))).problems
    assert [d.code for d in still] == ["NAS202", "NAS202"]


def test_no_more_candidates_are_looked_at_than_may_be_suggested() -> None:
    def endless() -> Iterator[str]:
        for number in range(MAX_CANDIDATES + 1):
            yield f"x{number}"
        pytest.fail("one candidate too many shows that none is suggested")

    assert did_you_mean("y1", endless()) is None
    assert did_you_mean("x" * (MAX_WORD + 1), ["x" * MAX_WORD]) is None


def test_few_candidates_are_compared_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    ratio = difflib.SequenceMatcher.ratio

    def counted(matcher: difflib.SequenceMatcher[str]) -> float:
        nonlocal compared
        compared += 1
        return ratio(matcher)

    monkeypatch.setattr(difflib.SequenceMatcher, "ratio", counted)
    known = [f"an_op_with_a_long_name_{number}" for number in range(MAX_CANDIDATES)]
    assert did_you_mean("an_op_with_a_longer_name_321", known) == "an_op_with_a_long_name_321"
    assert 0 < compared <= MAX_COMPARED


def closest(word: str, candidates: list[str]) -> str | None:
    """The standard library's answer."""
    found = difflib.get_close_matches(word, dict.fromkeys(candidates), n=1, cutoff=0.6)
    return found[0] if found else {c.lower().replace("_", ""): c for c in candidates}.get(word.lower().replace("_", ""))


def test_suggestions_are_those_of_difflib() -> None:
    rng = random.Random(0)
    words = "conv_1x1 conv_3x3 sep_3x3 sep_5x5 sep_3x3_d3 dconv_3x3 down down_max up sum psum cat attend relu x1 x12 X7".split()
    suggested = 0
    for _ in range(3000):
        known = [rng.choice(words) + rng.choice(["", "1", "_2", str(rng.randrange(99))]) for _ in range(rng.randrange(40))]
        word = list(rng.choice(words))
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(word) + 1)
            word[at : at + rng.randrange(2)] = rng.choice(["", *"abcx_019CONV"])
        found = did_you_mean("".join(word), known)
        assert found == closest("".join(word), known), (word, known)
        suggested += found is not None
    assert 1000 < suggested < 2900
