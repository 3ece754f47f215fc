"""``detector(size=…, backbone=…)``: the detector that a decoder is for, through all stages."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.in_process import invoke

import nasdsl
from nasdsl.backbones import BACKBONES, UnknownBackbone, backbone
from nasdsl.decoder import check_source
from nasdsl.diagnostics import DiagnosticError, Source
from nasdsl.syntax.formatter import format_text

SIZES = [None, (240, 320), (1, 1), (16384, 16384)]
NAMES = [None, *BACKBONES]


def text(detector: str = "", inputs: str = "c3, c4") -> str:
    return (
        f"decoder d {{\n  input {inputs}\n{detector}  fpn(width=32, norm=bn) {{ output p3 = sum(c3, c4) }}\n"
        "  head(width=32, norm=gn) { conv_3x3 }\n  predict fcos(centerness=cls)\n}\n"
    )


def statement(size: tuple[int, int] | None, name: str | None) -> str:
    parts = [] if size is None else [f"size={size[0]}x{size[1]}"]
    parts += [] if name is None else [f"backbone={name}" if name.isidentifier() else f'backbone="{name}"']
    return f"  detector({', '.join(parts)})\n" if parts else ""


def test_digests_of_texts_without_a_detector_are_those_of_earlier_versions() -> None:
    assert nasdsl.loads(text()).digest == "de66bd5596cbdd735531d7574c49834752d5516be48480464f923a350be5a9a6"


def test_every_size_and_backbone_is_a_decoder_of_its_own() -> None:
    """Part of canonical text and digest, which is a fixed point, and of what costs are counted for."""
    digests = {}
    for size in SIZES:
        for name in NAMES:
            decoder = nasdsl.loads(text(statement(size, name)))
            assert (decoder.size, decoder.backbone) == (size, name)
            again = nasdsl.loads(decoder.canonical)
            assert (again.canonical, again.digest, again.size, again.backbone) == (
                decoder.canonical, decoder.digest, size, name,
            )  # fmt: skip
            assert statement(size, name) in decoder.canonical
            plain = nasdsl.loads(text())
            assert decoder.canonical.replace(statement(size, name), "") == plain.canonical
            assert decoder.canonical_fpn == plain.canonical_fpn
            found, expected = decoder.cost(), plain.cost(size or (800, 1088), name or "resnet50")
            assert (found.size, found.total, found.backbone) == (expected.size, expected.total, expected.backbone)
            assert decoder.cost((64, 96), "tiny").total == plain.cost((64, 96), "tiny").total
            digests[decoder.digest] = size, name
    assert len(digests) == len(SIZES) * len(NAMES)


def test_a_requirement_is_not_checked_of_what_the_backbone_does_not_fit() -> None:
    """What does not fit is the finding; of a text that asks for nothing it is one when the costs are counted."""
    split = "a, b, c = split(c3, parts=3) output p3 = conv_1x1(a)"
    wanting = text().replace("norm=bn)", "norm=bn, adapter=none)", 1).replace("output p3 = sum(c3, c4)", split)
    assert check_source(Source("d.nas", wanting)).architecture is not None
    checked = check_source(Source("d.nas", wanting.replace("  fpn(", "  require params <= 1M\n  fpn(")))
    assert checked.architecture is None
    (finding,) = [problem for problem in checked.problems if problem.severity == "error"]
    assert (finding.code, finding.message) == ("NAS307", "3 parts do not divide 512 channels with this backbone")


def test_its_attributes_stand_in_any_order_and_spelling() -> None:
    first = nasdsl.loads(text('  detector(size=240x320, backbone="tiny")\n'))
    second = nasdsl.loads(text("  let b = tiny let s = 240x320\n  detector(backbone=b, size=(s))\n"))
    assert first.digest == second.digest
    assert '\n  detector(size=240x320, backbone="tiny")\n' in format_text(first.source.text.replace("(size", "( size"))


def test_detector_is_a_name_everywhere_else() -> None:
    """Texts that have it as the name of a decoder, op, value, word or tower keep their meaning."""
    written = (
        "op detector(x, detector=3) = conv(x, k=detector)\n"
        "block two(x) -> (y) { detector = detector (x)\n y = detector(detector, detector=1) }\n"
        "choice detector = detector(detector=5) | relu\n"
        "decoder detector {{ input c3, c4 let w = {w} {d}\n"
        "  fpn(width=32) {{ detector = two(c3) x, y = pair(detector, c4)\n z = ?detector(x) output p3 = z }}\n"
        "  head(width=32) {{ detector(detector=1) -> detector }}\n predict fcos }}\n"
        "block pair(a, b) -> (s, t) {{ detector = a; s = detector; t = b }}"
    ).replace("{{", "{").replace("}}", "}")  # fmt: skip
    space = nasdsl.loads_space(written.replace("{w}", "detector").replace("{d}", ""))
    assert space.size == 2
    assert (space.sizes, space.backbones) == ((), ())
    renamed = written.replace("detector", "other").replace("{w}", "other").replace("{d}", "")
    for index in range(2):
        filled = space.load(space.decode([index]))
        assert filled.digest == nasdsl.loads(nasdsl.loads_space(renamed).decode([index])).digest
    with_statement = nasdsl.loads_space(written.replace("{w}", "3").replace("{d}", "detector # (\n (size=8x8)"))
    assert with_statement.sizes == ((8, 8),)


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_inputs_that_the_backbone_lacks(name: str) -> None:
    given = backbone(name).out_channels
    for level in (1, 2, 6, 7):
        source = Source("t.nas", text(statement(None, name), f"c3, c4, c{level}"))
        found = [(p.code, [s.text for s, _ in p.related]) for p in check_source(source).problems]
        assert found == ([] if f"c{level}" in given else [("NAS210", [f"c{level}"])])


def test_a_decoder_that_fits_its_own_backbone_alone() -> None:
    """Raw features of equal widths, which those of the reference backbone are not."""
    fpn = "fpn(width=32, adapter=none) { output p3 = sum(c4, c5) }"
    body = f"decoder d {{ input c4, c5 %s {fpn} head(width=32) {{ skip }} predict fcos }}"
    assert nasdsl.loads(body % "detector(backbone=tiny)").digest
    with pytest.raises(DiagnosticError, match="channels"):
        assert nasdsl.loads(body % "").digest


def test_with_detector() -> None:
    decoder = nasdsl.loads(text())
    changed = decoder.with_detector((96, 128)).with_detector(backbone="tiny")
    assert changed.digest == nasdsl.loads(text(statement((96, 128), "tiny"))).digest
    assert changed.with_detector().digest == changed.digest
    with pytest.raises(UnknownBackbone, match="no_such"):
        decoder.with_detector(backbone="no_such")
    with pytest.raises(DiagnosticError, match="NAS210"):
        nasdsl.loads(text(inputs="c3, c4, c6")).with_detector(backbone="tiny")


def test_a_detector_is_built_for_its_size_and_backbone() -> None:
    made = nasdsl.detector(nasdsl.loads(text(statement((96, 128), "tiny"))), classes=2, seed=0)
    assert made.backbone.name == "tiny"
    assert made.transform.fixed_size == (96, 128)
    given = nasdsl.detector(nasdsl.loads(text(statement((96, 128), "tiny"))), "mobilenet_v2", classes=2, min_size=64)
    assert (given.backbone.name, given.transform.fixed_size) == ("mobilenet_v2", None)


def test_the_command_line_takes_both_from_the_text(tmp_path: Path) -> None:
    file = tmp_path / "d.nas"
    file.write_text(text(statement((96, 128), "tiny")))
    assert invoke("compile", file).stdout.startswith("d on tiny, 96x128, 80 classes")
    assert invoke("compile", file, "--size", "64x64").stdout.startswith("d on tiny, 64x64, 80 classes")
    assert invoke("compile", file, "--backbone", "resnet50").stdout.startswith("d on resnet50, 96x128")
    invoke("render", file, "-o", tmp_path / "d.dot")
    drawn = (tmp_path / "d.dot").read_text()
    assert f"{nasdsl.load(file).cost().nodes[0].macs / 1e3:.0f} k MACs" in drawn
