"""Texts with another width, compared with the same change made by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from zoo_files import ZOO

import nasdsl
from nasdsl.diagnostics import DiagnosticError, Source
from nasdsl.syntax.rewriting import with_detector, with_prediction, with_width

BODY = "{ output p3 = conv_3x3(c3) }"
CHAIN = "{ conv_3x3 }"
FCOS = next(path for path in ZOO if path.stem == "fcos")


def text(fpn: str = f"fpn(width=64, norm=bn) {BODY}", head: str = f"head(width=64, norm=gn) {CHAIN}", before: str = "") -> str:
    return f"decoder d {{ input c3 {before} {fpn} {head} predict fcos() }}"


def codes(decoder: nasdsl.Decoder, width: int) -> set[str]:
    with pytest.raises(DiagnosticError) as error:
        decoder.with_width(width)
    return {d.code for d in error.value.diagnostics}


def test_the_zoo(zoo_path: Path) -> None:
    decoder = nasdsl.load(zoo_path)
    by_hand = re.sub(r"\b(fpn|head)\(width=\d+", r"\1(width=32", zoo_path.read_text())
    assert by_hand.count("width=32") == 2
    made = decoder.with_width(32)
    assert made.source.text == by_hand
    assert made.digest == nasdsl.loads(by_hand).digest != decoder.digest
    assert made.name == decoder.name
    assert made.with_width(256).with_width(32).source.text == by_hand


def test_its_own_width_is_the_same_decoder(zoo_path: Path) -> None:
    decoder = nasdsl.load(zoo_path)
    found = re.search(r"fpn\(width=(\d+)", decoder.source.text)
    assert found is not None
    same = decoder.with_width(int(found[1])).source.text == decoder.source.text
    assert same == (decoder.name != "nas_fcos_128_256"), "whose head is wider than the width of its fpn"


def test_the_decoder_itself_stays() -> None:
    decoder = nasdsl.loads(text())
    before = (decoder.digest, decoder.source.text)
    decoder.with_width(32)
    assert (decoder.digest, decoder.source.text) == before


@pytest.mark.parametrize(
    ("before", "fpn", "head", "fpn_after"),
    [
        ("let w = 64", f"fpn(norm=bn, width=w) {BODY}", "width=64", f"fpn(width=96, norm=bn) {BODY}"),
        ("let w = 32", f"fpn(width=w * 2, norm=bn) {BODY}", "width=w", f"fpn(width=96, norm=bn) {BODY}"),
        ("", f"fpn(width=(16 + 16) * 2) {BODY}", "width = 32 ", f"fpn(width=96) {BODY}"),
        (
            "let v = 64 let w = v", "fpn(width=w) { output p3 = conv(c3, k=1, groups=v / 2) }", "width=v",
            "fpn(width=96) { output p3 = conv(c3, k=1, groups=48) }",
        ),
        (
            "let w = 64", "fpn(width=64) { let w = 1 output p3 = conv(c3, k=w) }", "width=32",
            "fpn(width=96) { output p3 = conv(c3, k=1) }",
        ),
    ],
    ids=["let", "arithmetic", "brackets and spaces", "let of a let", "let inside"],
)  # fmt: skip
def test_how_widths_are_written(before: str, fpn: str, head: str, fpn_after: str) -> None:
    decoder = nasdsl.loads(text(before=before, fpn=fpn, head=f"head({head}) {CHAIN}"))
    assert decoder.with_width(96).digest == nasdsl.loads(text(fpn=fpn_after, head=f"head(width=96) {CHAIN}")).digest


def test_comments_and_lines_stay() -> None:
    written = text().replace(" {", " { # width=1 fpn\n", 1).replace("fpn(", "fpn # (width=3)\n (").replace("=64", "= # 4\n 64")
    assert nasdsl.loads(written).with_width(96).source.text == re.sub(r"\b64\b", "96", written)


@pytest.mark.parametrize(
    ("fpn", "head"),
    [
        ("fpn from", "head from"), ("fpn() from", "head ( ) from"), ("fpn(norm=gn) from", "head(share=1) from"),
        ("fpn # (\n from", "head( # )\n ) from"), ("fpn(width=128) from", "head(width=v) from"),
    ],
)  # fmt: skip
def test_sections_of_another_file(fpn: str, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "best.nas").write_text(text())
    (tmp_path / "d.nas").write_text(text(before="let v = 64", fpn=f'{fpn} "best.nas"', head=f'{head} "best.nas"'))
    monkeypatch.chdir(tmp_path)
    decoder = nasdsl.load("d.nas")
    monkeypatch.chdir("/")
    made = decoder.with_width(96)
    norm, share = ("gn" if "gn" in fpn else "bn"), ("1" if "share" in head else "0")
    same = text(f"fpn(width=96, norm={norm}) {BODY}", f"head(width=96, norm=gn, share={share}) {CHAIN}")
    assert made.digest == nasdsl.loads(same).digest
    assert made.with_width(32).digest == nasdsl.loads(same.replace("96", "32")).digest


def test_what_does_not_check_at_a_width_is_reported() -> None:
    decoder = nasdsl.loads(text())
    assert codes(decoder, 48) == {"NAS308"}
    for width in (0, -64, 16416):
        assert codes(decoder, width) == {"NAS303"}
    assert "NAS105" in codes(decoder, 10**30)
    assert codes(nasdsl.loads(text(before="require params <= 2M")), 512) == {"NAS508"}
    fixed = nasdsl.loads(text(fpn="fpn(width=64) { output p3 = add(conv_1x1(c3, width=64), c3) }"))
    assert codes(fixed, 96) == {"NAS306"}
    with pytest.raises(TypeError):
        decoder.with_width(64.5)  # type: ignore[arg-type]


def test_a_space_stays_one() -> None:
    space = nasdsl.loads(
        text(
            before="let w = ?(32 | 64)",
            fpn="fpn(width=w) { output p3 = ?(conv_1x1 | skip)(c3) }",
            head=f"head(width=?(32 | 64)) {CHAIN}",
        )
    )
    assert len(space.architecture.open_holes) == 3
    assert [span.text for span in space.with_width(96).architecture.open_holes] == ["?(conv_1x1 | skip)"]


@pytest.mark.parametrize("broken", ["", "op f(x) = x", "decoder d { fpn(width=64 {", "decoder { fpn(width=64) { } }"])
def test_a_text_without_a_decoder_to_change_stays(broken: str) -> None:
    assert with_width(Source("t", broken), 96).text == broken


# ------------------------------------------------------------------------------------------------------ predictions


def test_another_prediction_leaves_the_rest_of_the_text() -> None:
    decoder = nasdsl.load(FCOS)
    improved = decoder.with_prediction("fcos(centerness=box, boxes=relu)")
    before, after = decoder.source.text.splitlines(), improved.source.text.splitlines()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert changed == [("  predict fcos(centerness=cls)", "  predict fcos(centerness=box, boxes=relu)")]
    assert (improved.architecture.predict.centerness, improved.architecture.predict.boxes) == ("box", "relu")


@pytest.mark.parametrize("text", ["", "op f(x) = x", "decoder d { input c3 }", "decoder d { predict fcos predict"])
def test_a_text_without_a_prediction_to_change_stays(text: str) -> None:
    assert with_prediction(Source("t", text), "gfl").text == text


def test_a_prediction_that_does_not_check() -> None:
    with pytest.raises(DiagnosticError, match="sides"):
        nasdsl.load(FCOS).with_prediction("fcos(centerness=sides)")


# ----------------------------------------------------------------------------------------- the detector, several widths


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("decoder d {\n  input c3  # one\n  # two\n  fpn", "decoder d {\n  input c3  # one\n  {}\n  # two\n  fpn"),
        ("decoder d { input c3 fpn", "decoder d { input c3; {} fpn"),
        ("decoder d {\n\tinput c3;\n\tfpn", "decoder d {\n\tinput c3;\n\t{}\n\tfpn"),
        ("decoder d {\ninput c3\ninput c4 fpn", "decoder d {\ninput c3\ninput c4; {} fpn"),
    ],
    ids=["lines and comments", "one line", "tabs", "two inputs"],
)
def test_where_a_detector_is_put(before: str, after: str) -> None:
    rest = f"(width=64) {BODY} head(width=64) {CHAIN} predict fcos }}"
    made = nasdsl.loads(before + rest).with_detector((192, 256), "resnet50_v1.5")
    assert made.source.text == after.replace("{}", 'detector(size=192x256, backbone="resnet50_v1.5")') + rest
    assert (made.size, made.backbone) == ((192, 256), "resnet50_v1.5")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("detector(size=240x320)", "detector(size=96x128, backbone=tiny)"),
        ("detector(backbone=mobilenet_v2)", "detector(size=96x128, backbone=tiny)"),
        ("detector( backbone = ?(tiny | resnet50) ,  size=?(1x1 | 2x2))", "detector( backbone = tiny ,  size=96x128)"),
        (
            "let b = mobilenet_v2 let s = 1x1 let t = s detector(size=t, backbone=b)",
            "let b = tiny let s = 96x128 let t = s detector(size=t, backbone=b)",
        ),
    ],
)
def test_how_a_detector_is_changed(written: str, expected: str) -> None:
    source = Source("t.nas", text(before=written))
    assert with_detector(source, [(96, 128)], ["tiny"]).text == text(before=expected)
    assert with_detector(source) is source
    broken = Source("t.nas", "decoder {")
    assert with_detector(broken, [(1, 1)]) is broken


def test_several_sizes_and_backbones_are_holes() -> None:
    made = with_detector(Source("t.nas", text()), [(1, 2), (3, 4)], ["tiny", "timm:a.b"])
    assert 'detector(size=?(1x2 | 3x4), backbone=?(tiny | "timm:a.b"))' in made.text
    with pytest.raises(ValueError, match="cannot hold"):
        with_detector(made, backbones=['a"b'])


@pytest.mark.parametrize(
    ("before", "fpn", "head"),
    [
        ("", "width=64", "width=32"), ("let w = 64", "width=w", "width=w"), ("let w = 64 let v = 32", "width=w", "width=v"),
        ("let w = 64 let v = w", "width=v", "width=v"), ("", "width=?(16 | 32)", "width=?(16 | 32)"),
        ("let w2 = 3 let w = 64", "width=w, norm=bn", "norm=bn, width=64"),
    ],
    ids=["numbers", "a let", "two lets", "a let of a let", "holes", "a name that is taken"],
)  # fmt: skip
def test_several_widths_are_one_decision(before: str, fpn: str, head: str) -> None:
    written = text(f"fpn({fpn}) {BODY}", f"head({head}) {CHAIN}", before)
    space = nasdsl.loads_space(written).with_width(24, 48)
    assert [d.alternatives for d in space.domains] == [("24", "48")]
    for index, width in enumerate((24, 48)):
        filled = nasdsl.loads(space.decode([index]))
        assert filled.digest == nasdsl.loads(written.replace("?(16 | 32)", "16")).with_width(width).digest
    assert space.with_width(48).size == 1


def test_a_width_with_which_nothing_can_be_built() -> None:
    """Among several too, where it would be one that no sample has."""
    space = nasdsl.loads_space(
        text(f"fpn(width=64) {BODY}", "head(width=64, norm=gn) { conv_3x3 -> ?(conv_3x3 | conv_1x1) }", "")
    )
    assert [d.alternatives for d in space.with_width(32, 96).domains if d.role] == [("32", "96")]
    for widths in ((24,), (32, 24), (24, 32)):
        with pytest.raises(nasdsl.DiagnosticError, match="do not divide 24 channels"):
            space.with_width(*widths)
