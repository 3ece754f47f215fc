"""The texts of the language's design page: they parse, they check, and they mean what the page says of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from findings import checked
from language_page import FOLDER, TEXTS

from nasdsl.decoder import check_source, load, loads
from nasdsl.diagnostics import Diagnostic, DiagnosticError, Source
from nasdsl.ir import Graph, Node, lower
from nasdsl.ir.canonical import canonical_text
from nasdsl.layers import Add, Conv, DeformConv, Norm, Resize, WeightedAdd
from nasdsl.semantics.architecture import Architecture

CHANNELS = {f"c{level}": 64 * 2**level for level in range(1, 8)}
DECODERS = ["nas_fcos", "fcos", "bifpn3"]
BEST_FPN = TEXTS["nas_fcos"]


def architecture(text: str, path: Path | None = None) -> Architecture:
    outcome = check_source(Source("t.nas", text), path=path)
    wrong = [d.message for d in outcome.problems if d.code != "NAS907"]  # an op that changes the level, put out as p3
    assert wrong == []
    assert outcome.architecture is not None
    return outcome.architecture


def graph(text: str, path: Path | None = None) -> Graph:
    return lower(architecture(text, path), CHANNELS)


def problems(path: Path) -> list[Diagnostic]:
    return check_source(Source(path.name, path.read_text(encoding="utf-8")), path=path).problems


def by_id(made: Graph) -> dict[str, Node]:
    return {node.id: node for node in made.nodes}


def behind(made: Graph, name: str) -> Node:
    """The node of an output, seen through the resize to its level."""
    node = by_id(made)[made.outputs[name]]
    return by_id(made)[node.inputs[0]] if isinstance(node.layer, Resize) else node


def named(made: Graph, name: str) -> Node:
    """The node that computes a value of the text: the last that belongs to it, resizes for its readers aside."""
    own = [n for n in made.nodes if n.value.name == name and ".to_p" not in n.id]
    return own[-1]


# --------------------------------------------------------------------------------------------------- whole decoders


def test_the_pages_have_seven_texts() -> None:
    assert set(TEXTS) == {*DECODERS, "prelude", "nas_fcos_fpn_space", "nas_fcos_head_space", "deep_space"}


@pytest.mark.parametrize("name", TEXTS)
def test_every_text_checks(name: str, tmp_path: Path) -> None:
    (tmp_path / "best_fpn.nas").write_text(BEST_FPN)
    (tmp_path / "t.nas").write_text(TEXTS[name])
    assert problems(tmp_path / "t.nas") == []


@pytest.mark.parametrize("name", DECODERS)
def test_levels_and_widths_are_known_and_right(name: str) -> None:
    made = graph(TEXTS[name])
    width = 64 if name == "bifpn3" else 256
    assert list(made.outputs) == ["p3", "p4", "p5", "p6", "p7"]
    assert made.levels == {f"p{level}": level for level in range(3, 8)}
    for output, identity in made.outputs.items():
        node = by_id(made)[identity]
        assert node.out == (int(output[1:]), width)
    for node in made.nodes:
        assert node.out.level is not None
        assert node.out.width > 0


@pytest.mark.parametrize("name", DECODERS)
def test_on_one_line_it_is_the_same_decoder(name: str) -> None:
    lines = [line.partition("#")[0].strip() for line in TEXTS[name].splitlines()]
    line = " ".join(filter(None, lines))
    assert loads(line).digest == loads(TEXTS[name]).digest


def test_nas_fcos_values() -> None:
    made = graph(TEXTS["nas_fcos"])
    levels = {name: named(made, name).out.level for name in ("x1", "x2", "x3", "x4", "x5", "x6", "x7")}
    # The finest operand decides: x4 reads c3, x6 and x7 read x4; all others read c5 and what is as coarse.
    assert levels == {"x1": 5, "x2": 5, "x3": 5, "x4": 3, "x5": 5, "x6": 3, "x7": 3}
    adapters = [n for n in made.nodes if n.value.kind == "adapter"]
    assert {n.value.name for n in adapters} == {"c3 adapter", "c4 adapter", "c5 adapter"}
    assert [type(n.layer).__name__ for n in adapters] == ["Conv", "Norm", "Activation"] * 3
    assert {n.layer for n in adapters if isinstance(n.layer, Conv)} == {Conv(256, 1)}
    assert {n.layer for n in adapters if isinstance(n.layer, Norm)} == {Norm("bn")}
    assert [r.value.name for r in made.removed] == ["c2 adapter"], "c2 is named, and nothing reads it"


def test_x3_dangles_and_is_added_behind_p3_p4_p5_before_they_are_resized() -> None:
    made = graph(TEXTS["nas_fcos"])
    x3 = named(made, "x3").id
    for output, block, stride_level in (("p3", "x7", 3), ("p4", "x6", 3), ("p5", "x5", 5)):
        add = behind(made, output)
        assert isinstance(add.layer, Add)
        assert add.out.level == stride_level, "summed at the resolution of the block behind the output"
        first, second = (by_id(made)[i] for i in add.inputs)
        assert first.id == named(made, block).id
        if stride_level == 5:
            assert second.id == x3
        else:
            assert isinstance(second.layer, Resize)
            assert second.layer.level == 3
            assert second.inputs == (x3,)
    last = by_id(made)[made.outputs["p4"]]
    assert isinstance(last.layer, Resize)
    assert (last.operands[0].level, last.out.level) == (3, 4), "only then resized to stride 16"
    assert not isinstance(by_id(made)[made.outputs["p3"]].layer, Resize)
    p6 = by_id(made)[made.outputs["p6"]]
    assert p6.layer == Conv(256, 3, stride=2, bias=True)
    assert p6.inputs == (made.outputs["p5"],)


def test_fcos_takes_raw_features_and_resizes_nearest() -> None:
    made = graph(TEXTS["fcos"])
    lateral = named(made, "l3")
    assert lateral.layer == Conv(256, 1, bias=True)
    assert lateral.operands[0].width == CHANNELS["c3"], "adapter=none: the raw feature"
    resizes = [n for n in made.nodes if isinstance(n.layer, Resize)]
    assert [(n.layer.level, n.layer.mode) for n in resizes if isinstance(n.layer, Resize)] == [(4, "nearest"), (3, "nearest")]
    assert not [n for n in made.nodes if isinstance(n.layer, Norm)]


def test_heads() -> None:
    for name, chains in (
        ("nas_fcos", {"cls": ["dconv_3x3", "conv_3x3", "dconv_3x3", "conv_1x1", "skip", "skip"]}),
        ("fcos", {"cls": ["conv_3x3"] * 4}),
        ("bifpn3", {"cls": ["sep_3x3"] * 2, "box": ["sep_3x3"] * 3}),
    ):
        head = graph(TEXTS[name]).head
        towers = {tower.name: [layer.op for layer in tower.layers] for tower in head.towers}
        assert towers == {"cls": chains["cls"], "box": chains.get("box", chains["cls"])}
        assert all(layer.shared for tower in head.towers for layer in tower.layers), "share=0 is fully shared"
        rows = {p.name: (p.tower, p.channels(80)) for p in head.predictions}
        centerness = "box" if name == "bifpn3" else "cls"
        assert rows == {"cls_logits": ("cls", 80), "bbox_reg": ("box", 4), "centerness": (centerness, 1)}


@pytest.mark.parametrize("share", range(7))
def test_the_sharing_index(share: int) -> None:
    head = graph(TEXTS["nas_fcos"].replace("share=0", f"share={share}")).head
    for tower in head.towers:
        assert [layer.shared for layer in tower.layers] == [index >= share for index in range(6)]


def test_bifpn3() -> None:
    made = graph(TEXTS["bifpn3"])
    fusions = [n for n in made.nodes if isinstance(n.layer, WeightedAdd)]
    assert len(fusions) == 3 * 4, "a layer of four fusions, used three times"
    assert sorted(len(n.inputs) for n in fusions) == [2] * 9 + [3] * 3
    assert len({n.id for n in made.nodes}) == len(made.nodes)
    unrolled = TEXTS["bifpn3"].replace(
        "a3, a4, a5 = bifpn(c3, c4, c5)\n    repeat 2 { a3, a4, a5 = bifpn(a3, a4, a5) }",
        "a3, a4, a5 = bifpn(c3, c4, c5)\n    b3, b4, b5 = bifpn(a3, a4, a5)\n    d3, d4, d5 = bifpn(b3, b4, b5)",
    ).replace("p3 = a3, p4 = a4, p5 = a5", "p3 = d3, p4 = d4, p5 = d5")  # fmt: skip
    assert "d5" in unrolled
    assert loads(unrolled).digest == loads(TEXTS["bifpn3"]).digest


# ------------------------------------------------------------------------------------------------------ the op table

OPS = ["skip", "conv_1x1", "conv_3x3", "sep_3x3", "sep_3x3_d3", "sep_5x5_d6", "dconv_3x3", "down", "sum", "psum", "cat"]


def expansion(op: str, before: str, section: str) -> list[tuple[object, ...]]:
    """Layers, operands and shapes that a call of `op` becomes."""
    operands = "c3, c4" if op in ("sum", "psum", "cat") else "c3"
    text = (
        f"{before}\ndecoder d {{ input c3, c4 fpn({section}) {{ x = {op}({operands}) output p3 = x }} "
        "head(width=64) { skip } predict fcos }"
    )
    made = graph(text)
    order = {node.id: number for number, node in enumerate(made.nodes)}
    return [(node.layer, tuple(order[i] for i in node.inputs), node.out) for node in made.nodes]


@pytest.mark.parametrize("section", ["width=64, norm=bn", "width=64, norm=gn, act=silu", "width=128, norm=none, act=none"])
@pytest.mark.parametrize("op", OPS)
def test_the_ops_of_the_page_are_those_of_the_prelude(op: str, section: str) -> None:
    assert f" {op}(" in TEXTS["prelude"]
    page = expansion(op, TEXTS["prelude"], section)
    assert page == expansion(op, "", section)
    if op != "skip":
        assert page != expansion("skip", "", section)


def test_the_page_defines_just_these_ops() -> None:
    file = check_source(Source("t", TEXTS["prelude"]))
    assert file.problems == []
    assert [line.split("(")[0].split()[1] for line in TEXTS["prelude"].splitlines()] == OPS


def test_what_the_page_says_of_primitives() -> None:
    def layers(call: str, section: str = "width=64, norm=none, act=none") -> list[object]:
        fpn = f"fpn({section}, adapter=none) {{ output p3 = {call} }}"
        text = f"decoder d {{ input c3, c4 {fpn} head(width=64) {{ skip }} predict fcos }}"
        return [n.layer for n in graph(text).nodes][1:]

    assert layers("conv(c3, k=3)") == [Conv(64, 3, 1, 1, 1, bias=True)]
    assert layers("conv(c3, k=3, norm=bn)") == [Conv(64, 3, 1, 1, 1, bias=False), Norm("bn")]
    assert layers("conv(c3, k=3, norm=bn, bias=true)") == [Conv(64, 3, 1, 1, 1, bias=True), Norm("bn")]
    assert layers("conv(c3, k=3, bias=false)") == [Conv(64, 3, 1, 1, 1, bias=False)]
    assert layers("dconv_3x3(c3)") == [DeformConv(64, 3, offset_groups=2, bias=True)]
    grouped = layers("cat(conv_1x1(c3), conv_1x1(c4))", "width=64, norm=bn, act=none")
    assert grouped[-1] == Conv(64, 1, groups=64, bias=False)


# -------------------------------------------------------------------------------------------------------- the spaces


def test_spaces_check_and_hold_open_holes(tmp_path: Path) -> None:
    fpn = checked(TEXTS["nas_fcos_fpn_space"]).architecture
    assert fpn is not None
    assert fpn.open_holes
    (tmp_path / "best_fpn.nas").write_text(BEST_FPN.replace("256", "128"))
    head = architecture(TEXTS["nas_fcos_head_space"], tmp_path / "t.nas")
    assert [span.text for span in head.open_holes] == ["?(0..6)", *["?head_op"] * 6]


@pytest.mark.parametrize("name", ["nas_fcos_fpn_space", "nas_fcos_head_space"])
def test_a_space_compiles_to_nothing_and_says_so(name: str, tmp_path: Path) -> None:
    (tmp_path / "best_fpn.nas").write_text(BEST_FPN)
    (tmp_path / "t.nas").write_text(TEXTS[name])
    command = [sys.executable, "-m", "nasdsl", "compile", "t.nas", "--format", "json"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error[NAS501]")
    assert "open hole" in ran.stderr
    with pytest.raises(DiagnosticError):
        load(tmp_path / "t.nas").cost()


# ------------------------------------------------------------------------------------------------ files that use files

HEAD = " head(width=64, norm=gn) { conv_3x3 -> conv_3x3 } predict fcos(centerness=cls) }\n"


def test_fpn_from_another_file_is_that_fpn(tmp_path: Path) -> None:
    (tmp_path / "best.nas").write_text(BEST_FPN)
    whole = BEST_FPN[: BEST_FPN.index("  fpn(")] + '  fpn from "best.nas"\n' + BEST_FPN[BEST_FPN.index("  head(") :]
    assert canonical_text(graph(whole, tmp_path / "t.nas")) == canonical_text(graph(BEST_FPN))


def test_attributes_of_a_taken_section_are_changed(tmp_path: Path) -> None:
    (tmp_path / "best.nas").write_text(BEST_FPN)
    start, rest = BEST_FPN[: BEST_FPN.index("  fpn(")], BEST_FPN[BEST_FPN.index("  head(") :].replace("256", "128")
    taken = start + '  fpn(width=128) from "best.nas"\n' + rest
    assert canonical_text(graph(taken, tmp_path / "t.nas")) == canonical_text(graph(BEST_FPN.replace("256", "128")))
    both = start + '  fpn(width=128, norm=gn, adapter=conv_3x3) from "best.nas"\n' + rest
    other = BEST_FPN.replace("256", "128").replace("norm=bn)", "norm=gn, adapter=conv_3x3)")
    assert canonical_text(graph(both, tmp_path / "t.nas")) == canonical_text(graph(other))


def test_head_from_another_file_and_from_through_a_chain(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "best.nas").write_text(BEST_FPN)
    section = BEST_FPN[BEST_FPN.index("  fpn(") : BEST_FPN.index("  head(")]
    middle = BEST_FPN.replace(section, '  fpn(width=128) from "best.nas"\n')
    (tmp_path / "sub" / "middle.nas").write_text(middle.replace("head(width=256", "head(width=128"))
    text = (
        'decoder d { input c2, c3, c4, c5 fpn(norm=gn) from "sub/middle.nas" head(share=2) from "sub/middle.nas" '
        "predict fcos(centerness=cls) }"
    )
    expected = BEST_FPN.replace("256", "128").replace("norm=bn", "norm=gn").replace("share=0", "share=2")
    taken, plain = graph(text, tmp_path / "t.nas"), graph(expected)
    assert canonical_text(taken, "_") == canonical_text(plain, "_")
    assert taken.head.share == 2


def test_a_taken_section_means_what_it_meant_where_it_was_written(tmp_path: Path) -> None:
    """Its ops are those of its own file, even where the file that takes it calls others by the same names."""
    (tmp_path / "ops.nas").write_text("op inner(x) = conv(x, k=5)\n")
    ops = 'use "ops.nas"\nop mine(x) = inner(conv_1x1(x))\n'
    theirs = ops + "decoder a { input c3 fpn(width=64, norm=bn) { output p3 = mine(c3) }" + HEAD
    (tmp_path / "a.nas").write_text(theirs)
    ours = 'op mine(x) = skip(x)\nop inner(x) = skip(x)\ndecoder b { input c3 fpn from "a.nas"' + HEAD
    taken = graph(ours, tmp_path / "b.nas")
    assert [n.layer.k for n in taken.nodes if isinstance(n.layer, Conv)] == [1, 1, 5]
    assert canonical_text(taken, "_") == canonical_text(graph(theirs, tmp_path / "a.nas"), "_")


def test_use_brings_in_ops_aggregations_blocks_and_choices(tmp_path: Path) -> None:
    (tmp_path / "ops.nas").write_text(
        "op five(x) = conv(x, k=5)\nagg both(x, y) = five(add(x, y))\n"
        "block two(x) -> (y, z) { y = five(x) z = skip(x) }\nchoice op = five | conv_3x3\n"
    )
    body = "fpn(width=64, norm=bn) { a, b = two(c3) output p3 = both(a, b) }"
    made = graph('use "ops.nas"\ndecoder d { input c3 ' + body + HEAD, tmp_path / "t.nas")
    assert [n.layer.k for n in made.nodes if isinstance(n.layer, Conv)] == [1, 5, 5]
    space = architecture('use "ops.nas"\ndecoder d { input c3 fpn(width=64) { output p3 = ?op(c3) }' + HEAD, tmp_path / "t.nas")
    assert [span.text for span in space.open_holes] == ["?op"]


def test_a_definition_hides_that_of_a_used_file_which_hides_the_preludes(tmp_path: Path) -> None:
    (tmp_path / "ops.nas").write_text("op conv_3x3(x) = conv(x, k=7)\nop other(x) = conv_3x3(x)\n")
    body = "decoder d { input c3 fpn(width=64, norm=bn) { output p3 = conv_3x3(other(c3)) }" + HEAD.replace("conv_3x3", "skip")
    kernels = lambda text: [n.layer.k for n in graph(text, tmp_path / "t.nas").nodes if isinstance(n.layer, Conv)]  # noqa: E731
    assert kernels('use "ops.nas"\n' + body) == [1, 7, 7]
    assert kernels('use "ops.nas"\nop conv_3x3(x) = conv(x, k=9)\n' + body) == [1, 7, 9], "a used file does not see who uses it"


def test_a_circle_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.nas").write_text('decoder a { input c3 fpn from "b.nas"' + HEAD)
    (tmp_path / "b.nas").write_text('decoder b { input c3 fpn from "a.nas"' + HEAD)
    for name in ("a", "b"):
        found = problems(tmp_path / f"{name}.nas")
        assert [d.code for d in found] == ["NAS412"]
        assert "a.nas" in found[0].message
        assert "b.nas" in found[0].message


def test_a_mistake_in_a_used_file_is_shown_in_that_file_and_once(tmp_path: Path) -> None:
    (tmp_path / "ops.nas").write_text("op five(x) = cnv(x, k=5)\nop six(x) = conv(x k=7)\n")
    body = "decoder d { input c3 fpn(width=64) { output p3 = six(five(five(c3))) }"
    (tmp_path / "t.nas").write_text('use "ops.nas"\n' + body + HEAD)
    found = problems(tmp_path / "t.nas")
    assert [(d.code, d.span.source.name, d.span.line) for d in found] == [("NAS201", "ops.nas", 1), ("NAS102", "ops.nas", 2)]


def test_a_used_file_that_cannot_be_read_is_one_mistake(tmp_path: Path) -> None:
    (tmp_path / "t.nas").write_text('use "ops.nas"\ndecoder d { input c3 fpn(width=64) { output p3 = six(five(c3)) }' + HEAD)
    assert [d.code for d in problems(tmp_path / "t.nas")] == ["NAS411"]


def test_findings_of_the_page_texts_as_json(tmp_path: Path) -> None:
    """The command says of each text what the functions say."""
    (tmp_path / "best_fpn.nas").write_text(BEST_FPN)
    for name, text in TEXTS.items():
        (tmp_path / f"{name}.nas").write_text(text)
    command = [sys.executable, "-m", "nasdsl", "check", "--format", "json", *(f"{name}.nas" for name in TEXTS)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert json.loads(ran.stdout) == {"ok": True, "diagnostics": []}
    assert FOLDER.is_dir()
