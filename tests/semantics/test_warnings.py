"""Warnings where a text means another thing than it says, and the comments that silence them."""

from __future__ import annotations

from pathlib import Path

import pytest
from findings import checked
from zoo_files import ZOO

import nasdsl
from nasdsl.decoder import check_source
from nasdsl.diagnostics import Source
from nasdsl.diagnostics.allowed import allowed_codes
from nasdsl.spaces import loads_space
from nasdsl.syntax.formatter import format_text

SQUEEZE = "op squeeze(x, width=width, inner=width / 2) = conv_3x3(conv_1x1(x, width=inner), width=width)\n"


def text(body: str, before: str = "", *, section: str = "width=64, norm=bn", head: str = "conv_3x3", detector: str = "") -> str:
    return (
        f"{before}decoder d {{\n  input c3, c4, c5\n  {detector}\n  fpn({section}) {{\n    {body}\n  }}\n"
        f"  head(width=64, norm=gn) {{ {head} }}\n  predict fcos\n}}\n"
    )


def warned(source: str) -> list[tuple[str, str]]:
    """Code and place of each warning; there is nothing else."""
    outcome = checked(source)
    assert outcome.architecture is not None
    assert [p for p in outcome.problems if p.severity != "warning"] == []
    assert list(outcome.architecture.warnings) == outcome.problems
    return [(p.code, p.span.text) for p in outcome.problems]


RAW = "width=64, norm=bn, adapter=none"


@pytest.mark.parametrize(
    ("source", "places"),
    [
        (text("output p3 = sep_3x3(c3)", section=RAW), ["sep_3x3(c3)"]),
        (text("output p3 = sep_3x3(relu(c3))", section=RAW), ["sep_3x3(relu(c3))"]),
        (text("output p3 = sep_3x3(c3)", section=RAW, detector="detector(backbone=resnet50)"), ["sep_3x3(c3)"]),
        (text("output p3 = sep_3x3(c3)", section=RAW.replace("64", "512"), detector="detector(backbone=resnet50)"), []),
        (text("output p3 = sep_3x3(conv_1x1(c3))", section=RAW), []),
        (text("output p3 = sep_3x3(c3)"), []),
        (
            text("output p3 = conv(conv_1x1(c3, width=128), k=3, groups=width)"),
            ["conv(conv_1x1(c3, width=128), k=3, groups=width)"],
        ),
        (text("output p3 = conv(c3, k=3, groups=width, width=128)"), []),  # each channel becomes two
        (text("output p3 = conv(c3, k=3, groups=32)"), []),
        (text("output p3 = cat(c3, c3)"), []),  # a grouped 1x1 convolution, as it says
    ],
)
def test_a_convolution_that_is_almost_depthwise(source: str, places: list[str]) -> None:
    assert warned(source) == [("NAS904", place) for place in places]


@pytest.mark.parametrize(
    ("call", "place"),
    [
        ("squeeze(c3)", None),
        ("squeeze(c3, width=128)", "width=128"),
        ("squeeze(c3, width=128, inner=64)", None),
        ("squeeze(c3, width=64)", None),  # that of the section
        ("squeeze(c3, inner=8)", None),
        ("conv_3x3(c3, width=128)", None),
    ],
)
def test_a_default_that_follows_the_section(call: str, place: str | None) -> None:
    assert warned(text(f"output p3 = {call}", SQUEEZE)) == ([] if place is None else [("NAS905", place)])


def test_a_default_in_the_body_of_an_op_is_one_warning_there() -> None:
    source = text("a = f(c3)\n    output p3 = f(a)", SQUEEZE + "op f(x) = conv_1x1(squeeze(x, width=128))\n")
    assert warned(source) == [("NAS905", "width=128")]
    (warning,) = checked(source).problems
    assert "`inner=64`" in warning.help


@pytest.mark.parametrize(
    ("gate", "least"),
    [
        ("conv_1x1(c4)", "0.5"),
        ("conv_1x1(c4, norm=none)", "0.5"),
        ("conv_1x1(c4, act=silu)", "0.43"),
        ("relu(c4)", "0.5"),
        ("conv_1x1(c4, act=none)", None),  # BatchNorm alone can close it
        ("conv_1x1(c4, norm=none, act=none)", None),
        ("conv_1x1(c4, act=leaky_relu)", None),
        ("c4", None),
    ],
)
def test_a_gate_that_cannot_close(gate: str, least: str | None) -> None:
    source = (
        text(f"output p3 = mul(c3, sigmoid({gate}))", section=RAW + ", act=relu")
        if gate in ("c4", "relu(c4)")
        else text(f"output p3 = mul(c3, sigmoid({gate}))")
    )
    assert warned(source) == ([] if least is None else [("NAS906", f"sigmoid({gate})")])
    if least is not None:
        assert f"less than {least}:" in checked(source).problems[0].label


def test_a_hard_gate_that_cannot_close() -> None:
    assert warned(text("output p3 = mul(c3, hardsigmoid(conv_1x1(c4)))")) == [("NAS906", "hardsigmoid(conv_1x1(c4))")]
    assert warned(text("output p3 = mul(c3, hardsigmoid(conv_1x1(c4, act=none)))")) == []
    (found,) = checked(text("output p3 = mul(c3, hardsigmoid(conv_1x1(c4, act=silu)))")).problems
    assert "less than 0.45:" in found.label


def test_the_least_values_are_those_of_torch() -> None:
    import torch

    from nasdsl.semantics.rules import LEAST_VALUES

    x = torch.linspace(-8, 8, 100_001)
    for name, least in LEAST_VALUES.items():
        found = getattr(torch.nn.functional, name)(x).min().item()
        assert found == pytest.approx(least, abs=5e-4), name


def test_layers_of_a_head() -> None:
    head = "conv_3x3 -> gated"
    before = "op gated(x) = mul(x, sigmoid(conv_1x1(x)))\n"
    assert warned(text("output p3 = c3", before, head=head)) == [("NAS906", "gated")]


def test_an_output_of_another_level() -> None:
    silent = text("output p3 = c3, p4 = resize(conv_3x3(c3), to=4)")
    assert warned(silent) == []
    loud = text("output p3 = c3, p4 = conv_3x3(c3)")
    assert warned(loud) == [("NAS907", "p4 = conv_3x3(c3)")]
    assert nasdsl.loads(loud).digest == nasdsl.loads(silent).digest, "what the help says is what happens"
    assert warned(text("output p3 = c3, p4 = down(c3)\n    output p5 = down(p4)")) == []
    aggregated = text("x = conv_3x3(sum(c3, c4))\n    output p3 = x, p4 = x, p5 = sep_3x3(x)")
    assert warned(aggregated) == [], "the aggregation has given it its level"


# --------------------------------------------------------------------------------------------------------- silenced


COMMENTS = {
    "# nas: allow NAS907": True,
    "# nas: allow NAS907 (shrunk on purpose)": True,
    "# nas: allow NAS901, NAS907": True,
    "# nas: allow NAS901 NAS907 for a reason": True,
    "# shrunk. nas: allow NAS907": True,
    "# nas: allow NAS906": False,
    "# allow NAS907": False,
    "# NAS907": False,
}


@pytest.mark.parametrize("comment", COMMENTS)
def test_a_comment_on_the_line_silences_a_warning(comment: str) -> None:
    loud = [("NAS907", "p4 = c3")]
    assert warned(text(f"output p3 = c3, p4 = c3  {comment}")) == ([] if COMMENTS[comment] else loud)
    assert warned(text(f"{comment}\n    output p3 = c3, p4 = c3")) == loud, "on the line itself"
    assert warned(text(f"output p3 = c3, p4 = c3\n    {comment}")) == loud


def test_a_comment_behind_the_decoder_silences_all_of_it() -> None:
    source = text("output p3 = c3, p4 = c3\n    output p5 = c3").rstrip()
    assert len(warned(source)) == 2
    assert warned(f"{source}  # nas: allow NAS907") == []
    assert len(warned(f"{source}\n# nas: allow NAS907")) == 2


def test_an_error_is_never_silenced() -> None:
    problems = checked(text("output p3 = cnv(c3)  # nas: allow NAS201")).problems
    assert [p.code for p in problems] == ["NAS201"]


def test_a_comment_beside_a_statement_of_several_lines() -> None:
    source = text("output p3 = c3,\n      p4 = conv_3x3(  # nas: allow NAS907\n        c3)")
    assert warned(source) == []


def test_widths_that_depend_on_holes_are_no_finding_of_the_space() -> None:
    """The pyramid's value is that of one of several turns."""
    body = "x = c3\n    repeat ?(1..3) { x = conv_3x3(x) }\n    output p3 = x"
    assert warned(text(body, head="sep_3x3")) == []
    raw = text("output p3 = c3", section="width=64, norm=bn, adapter=none", head="conv_1x1 * ?(1..2) -> sep_3x3")
    assert warned(raw) == []
    plain = text(body + ", p4 = sep_3x3(c4)", section="width=64, norm=bn, adapter=none")
    assert warned(plain) == [("NAS904", "sep_3x3(c4)")], "a raw feature, whatever fills the hole"


def test_the_formatter_keeps_the_comment() -> None:
    source = text("output p3=c3,p4=c3 # nas: allow NAS907")
    formatted = format_text(source)
    assert formatted != source
    assert warned(formatted) == []


def test_what_a_space_allows_its_samples_allow() -> None:
    space = text("x = ?(conv_1x1 | conv_3x3)(c3)\n    output p3 = c3, p4 = x  # nas: allow NAS907")
    assert checked(space).problems == []
    sample = loads_space(space).sample(0)
    assert sample.endswith("# nas: allow NAS907")
    assert check_source(Source("t", sample)).problems == []
    assert warned(format_text(sample)) == [], "on lines of its own too"
    assert loads_space(space).encode(sample) == list(sample.indices)
    assert "allow" not in loads_space(space.replace("allow", "see")).sample(0)


@pytest.mark.parametrize("path", [*ZOO, *sorted((ZOO[0].parent / "spaces").glob("*.nas"))], ids=lambda p: p.stem)
def test_the_zoo_and_its_spaces_are_silent(path: Path) -> None:
    """A published decoder that truly does what a warning is about says so, with the reason."""
    source = Source(str(path), path.read_text(encoding="utf-8"))
    assert check_source(source, path=path).problems == []
    for line in source.text.splitlines():
        if allowed_codes(line):
            assert line.rstrip().endswith(")"), "a reason in brackets"


# ------------------------------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize(
    ("value", "width"),
    [
        ("0.5 * 64", 32),
        ("64 / 2.0", 32),
        ("0.29 * 100", 29),
        ("0.25 * 1.5 * 128", 48),
        ("63.5 + 0.5", 64),
        ("96 - 0.1 * 320", 64),
    ],
)
def test_arithmetic_with_fractions_that_comes_out_whole(value: str, width: int) -> None:
    source = text(f"output p3 = conv_1x1(conv_3x3(c3, width={value}))")
    written = text(f"output p3 = conv_1x1(conv_3x3(c3, width={width}))")
    assert nasdsl.loads(source).digest == nasdsl.loads(written).digest


@pytest.mark.parametrize("value", ["0.3 * 64", "64 / 1.5", "32.5 * 1"])
def test_arithmetic_that_does_not(value: str) -> None:
    assert [p.code for p in checked(text(f"output p3 = conv_3x3(c3, width={value})")).problems] == ["NAS303"]
