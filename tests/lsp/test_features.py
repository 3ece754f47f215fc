"""Each feature, over a pipe."""

from __future__ import annotations

from pathlib import Path

import pytest
from editor import CURSOR, Editor, cut, edited, offset, position
from lsprotocol import types
from pygls.uris import from_fs_path

import nasdsl
from nasdsl.backbones import BACKBONES
from nasdsl.image_size import SIZE_FORM
from nasdsl.lsp import describe
from nasdsl.lsp.semantic_tokens import MODIFIERS, TYPES
from nasdsl.lsp.settings import Settings, read_settings
from nasdsl.report.formatting import amount, percent
from nasdsl.semantics import primitives
from nasdsl.syntax.formatter import format_text

ROOT = Path(__file__).parents[2]
URI = "file:///nowhere/t.nas"
FCOS = (ROOT / "genotypes" / "nas_fcos.nas").read_text()
BIFPN = (ROOT / "genotypes" / "bifpn.nas").read_text()
TOOD = (ROOT / "genotypes" / "tood.nas").read_text()
SPACE = (ROOT / "genotypes" / "spaces" / "nas_fcos_head.nas").read_text()
WHOLE = types.Range(types.Position(0, 0), types.Position(10_000, 0))


def marked(text: str, word: str, number: int = 0) -> str:
    """A text with the cursor at the n-th place of a word."""
    at = -1
    for _ in range(number + 1):
        at = text.index(word, at + 1)
    return text[:at] + CURSOR + text[at:]


def hover(ed: Editor, text: str, word: str, number: int = 0) -> str:
    found = ed.ask(types.TEXT_DOCUMENT_HOVER, marked(text, word, number))
    return "" if found is None else str(found.contents.value)


# ------------------------------------------------------------------------------------------------------------- hover


def test_hover_over_a_value_says_level_shape_width_and_cost(ed: Editor) -> None:
    text = hover(ed, FCOS, "x4")
    assert "level 3, stride 8, width 256: `256 x 100 x 136`" in text
    row = next(n for n in nasdsl.loads(FCOS).cost().nodes if n.name == "x4")
    assert f"{amount(row.macs)} MACs ({percent(0.05)}), {amount(row.params)} params" in text
    assert "on resnet50 at 800x1088" in text
    assert text == hover(ed, FCOS, "x4", 1)  # where it is read


def test_hover_over_an_input_has_its_adapter(ed: Editor) -> None:
    assert "1.78 G MACs" in hover(ed, FCOS, "c3")


def test_hover_over_an_op_has_its_definition_and_comment(ed: Editor) -> None:
    text = hover(ed, FCOS, "dconv_3x3")
    assert "op dconv_3x3(x, width=width) = deform_conv(x, k=3, offset_groups=2, width=width)" in text
    assert "DCNv2" in text
    assert "prelude.nas, line 20" in text


def test_hover_over_a_primitive_and_an_attribute(ed: Editor) -> None:
    assert "pooling. An odd `k` has padding" in hover(ed, "op f(x) = pool(x, k=3, kind=max)", "pool")
    assert "`k`: a whole number from 1 to 64; default `3`" in hover(ed, "op f(x) = pool(x, k=3, kind=max)", "k=3")
    assert "`max`" in hover(ed, "op f(x) = pool(x, k=3, kind=max)", "max")


NAMES = """\
op gate(x, k=3) = conv(x, k=k, act=act)
block two(a) -> (b) { b = gate(a) }
decoder d {
  let n = 2
  input c3
  fpn(width=64, norm=bn) {
    x = gate(c3)
    repeat i in 1..n { x = two(x) }
    output p3 = x
  }
  head(width=64, norm=gn) { conv_3x3 * n }
  predict gfl(bins=8)
}
"""


@pytest.mark.parametrize(
    ("word", "number", "says"),
    [
        ("x, k=k", 0, "operand of what is defined here"),
        ("k, act", 0, "attribute of what is defined here"),
        ("act)", 0, "The attribute of the section that contains the call."),
        ("a) ->", 0, "operand of what is defined here"),
        ("n {", 0, "let n = 2"),
        ("n }", 0, "let n = 2"),
        ("i in", 0, "repeat i in 1..n"),
        ("gfl", 0, "predict gfl"),
        ("bins", 0, "(of `gfl`)"),
        ("two(x)", 0, "block two(a) -> (b)"),
    ],
)
def test_hover_over_names_of_all_kinds(ed: Editor, word: str, number: int, says: str) -> None:
    assert says in hover(ed, NAMES, word, number)


def test_hover_over_a_prediction_has_its_attributes_and_its_cost(ed: Editor) -> None:
    text = hover(ed, NAMES, "gfl")
    assert "- `bins`: a whole number from 1 to 256; default `16`\n- `kernel`: an odd number from 1 to 3; default `3`" in text
    costs = {node.name: node for node in nasdsl.loads(NAMES).cost().nodes}
    for name in ("cls_logits", "bbox_reg"):
        assert f"| {name} | {amount(costs[name].macs)} | {amount(costs[name].params)} |" in text


def test_hover_over_a_layer_of_the_head_has_its_cost(ed: Editor) -> None:
    rows = [n for n in nasdsl.loads(FCOS).cost().nodes if n.name in ("cls 1", "box 1")]
    assert sum(r.macs for r in rows) == pytest.approx(21.4e9, rel=0.01)
    assert "at all levels: 21.4 G MACs" in hover(ed, FCOS, "conv_3x3 -> dconv_3x3 -> conv_1x1")


def test_hover_over_the_decoder_and_a_section(ed: Editor) -> None:
    assert "| fpn | 39.7 G | 10.7 M | 21\N{NO-BREAK SPACE}% |" in hover(ed, FCOS, "nas_fcos {")
    assert "39.7 G MACs (21\N{NO-BREAK SPACE}%)" in hover(ed, FCOS, "fpn(")
    assert "A search space of 7 decisions and 326,592 decoders" in hover(ed, SPACE, "nas_fcos_head_space")


def test_hover_at_another_backbone_and_size(ed: Editor) -> None:
    ed.configure(backbone="mobilenet_v2", size="320x320")
    text = hover(ed, FCOS, "x4")
    row = next(n for n in nasdsl.loads(FCOS).cost(size=(320, 320), backbone="mobilenet_v2").nodes if n.name == "x4")
    assert f"{row.macs / 1e9:.2f} G MACs" in text
    assert "on mobilenet_v2 at 320x320" in text
    assert "`256 x 40 x 40`" in text
    ed.configure(backbone="resnet5", size="big")
    ed.until(lambda: ed.messages if len(ed.messages) > 1 else None)
    assert "no backbone is called `resnet5`; expected one of" in ed.messages[0]
    assert "`big` is no size" in ed.messages[1]
    assert "on resnet50 at 800x1088" in hover(ed, FCOS, "x4")


HOLES = """\
choice mix = skip | conv_3x3
block two(a) -> (b) { b = conv_3x3(a) }
decoder d {
  input c3, c4
  fpn(width=64) { x = ?pool  y = ?mix(x)  output p3 = two(y) }
  head(width=64) { both: conv_3x3 }
  require macs <= 100G
  require latency <= 15ms on torch
  predict fcos
}
"""


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("pool", "`?pool`: any value that is bound above."),
        ("mix(x)", "choice mix = skip | conv_3x3"),
        ("both", "The trunk: layers that both towers go on from."),
        ("macs", "Multiply-accumulates of fpn and head, for one image."),
        ("latency", "Time of one image, which `nasdsl latency` measures."),
        ("b = conv", "```nas\nb = conv_3x3(a)\n```\n\nIts level and width depend on the call of the block."),
        ("output", "`output p3 = x` names a level of the pyramid; pK has stride 2^K."),
        ("torch", ""),
        ("100G", ""),
    ],
)
def test_hover_in_a_space(ed: Editor, word: str, says: str) -> None:
    text = hover(ed, HOLES, word)
    assert says in text
    assert bool(says) == bool(text)


NO_PICTURE = "There is no decoder in this text that fits the backbone "
SECTION = (
    "decoder d {{ input c3, {0}\n {1} fpn(width=64, adapter=none) {{ x = {2}\n  y = skip(c3)\n  output p3 = conv_3x3(y) }}\n"
)
SECTION += " head(width=64) {{ conv_3x3 }} predict fcos }}"


@pytest.mark.parametrize(
    ("text", "width", "message"),
    [
        (SECTION.format("c6", "", "conv_3x3(c6)"), "a width that the backbone gives: `? x", NO_PICTURE + "resnet50."),
        (SECTION.format("c4", "", "split(c3, n=3)"), "width 512: `512 x", "The text has errors."),
        (SECTION.format("c4", "detector(backbone=resnet5)", "c3"), "a width that the backbone gives: `? x",
         "The text has errors."),
        (SECTION.format("c4", 'detector(backbone="timm:resnet18")', "c3"), "a width that the backbone gives: `? x",
         NO_PICTURE + "timm:resnet18."),
    ],
    ids=["no backbone has the level", "a layer does not take the width", "unknown", "timm"],
)  # fmt: skip
def test_hover_where_costs_are_not_known_says_what_is(ed: Editor, text: str, width: str, message: str) -> None:
    assert hover(ed, text, "y = ") == f"```nas\ny = skip(c3)\n```\n\nlevel 3, stride 8, {width} 100 x 136`"
    assert hover(ed, text, "d {") == ""
    assert hover(ed, text, "fpn") == describe.KEYWORDS["fpn"]
    assert "| map |" not in hover(ed, text, "fcos")
    assert ed.request("nasdsl/picture", {"uri": URI}).message == message


def test_hover_over_a_value_of_a_block_without_a_decoder(ed: Editor) -> None:
    text = hover(ed, "block two(a) -> (b) { b = conv_3x3(a) }", "b = ")
    assert text == "```nas\nb = conv_3x3(a)\n```\n\nIts level and width depend on the call of the block."


def test_hover_over_a_value_with_a_mistake_is_its_statement(ed: Editor) -> None:
    assert hover(ed, HOLES.replace("?mix(x)", "nope(x)"), "y = ") == "```nas\ny = nope(x)\n```"


def test_hover_over_a_prediction_that_there_is_not(ed: Editor) -> None:
    assert hover(ed, NAMES.replace("gfl(bins=8)", "glf"), "glf") == ""


def test_hover_in_a_text_with_errors_still_has_shapes(ed: Editor) -> None:
    text = FCOS.replace("x7 = cat(dconv_3x3(x4), dconv_3x3(c4))", "x7 = cat(dconv_3x3(x4), dcnv_3x3(")
    assert text != FCOS
    assert "level 3, stride 8, width 256" in hover(ed, text, "x4")


# ------------------------------------------------------------------------------------------------------- inlay hints


@pytest.mark.parametrize("name", ["nas_fcos", "bifpn", "panet", "yolof"])
def test_shapes_are_those_of_the_cost_table(ed: Editor, name: str) -> None:
    text = (ROOT / "genotypes" / f"{name}.nas").read_text()
    rows = {n.name: n.shape for n in nasdsl.loads(text).cost().nodes}
    hints = [h for h in ed.about(types.TEXT_DOCUMENT_INLAY_HINT, text, range=WHOLE) if h.label.startswith(": ")]
    labels = {text[: offset(text, h.position)].split()[-1]: h.label for h in hints}
    seen = [word for word in labels if word in rows and text.count(f" {word} = ") == 1]
    assert seen
    for word in seen:
        assert labels[word] == ": " + " x ".join(map(str, rows[word])), word


def test_sections_say_their_share(ed: Editor) -> None:
    labels = [h.label for h in ed.about(types.TEXT_DOCUMENT_INLAY_HINT, FCOS, range=WHOLE)]
    assert "39.7 G MACs (21\N{NO-BREAK SPACE}%), 10.7 M params" in labels
    assert "79.1 G MACs (43\N{NO-BREAK SPACE}%), 4.37 M params" in labels


def test_hints_of_a_range_alone(ed: Editor) -> None:
    lines = types.Range(types.Position(6, 0), types.Position(7, 0))
    assert [h.label for h in ed.about(types.TEXT_DOCUMENT_INLAY_HINT, FCOS, range=lines)] == [": 256 x 25 x 34"]


def test_shapes_in_a_space_are_those_of_its_fillings(ed: Editor) -> None:
    text = (
        "decoder d { input c3, c4\n fpn(width=64) {\n  a = ?(conv_3x3 | sep_3x3)(c3)\n  b = resize(c4, to=?(a | c4))\n"
        "  c = conv_3x3(c3, width=?(8..12))\n  output p3 = sum(a, b)\n }\n head(width=64) { conv_3x3 } predict fcos }"
    )
    labels = [h.label for h in ed.about(types.TEXT_DOCUMENT_INLAY_HINT, text, range=WHOLE)]
    assert labels[0] == ": 64 x 100 x 136"
    assert sorted(labels[1][2:].split(" or ")) == ["64 x 100 x 136", "64 x 50 x 68"]
    assert labels[2].endswith(" …")


# ------------------------------------------------------------------------------------------ definition and references


def places(found: object) -> list[tuple[str, int]]:
    return [(loc.uri.rpartition("/")[2], loc.range.start.line + 1) for loc in found]  # type: ignore[attr-defined]


def test_definitions_of_values_words_and_ops(ed: Editor) -> None:
    ask = types.TEXT_DOCUMENT_DEFINITION
    assert places(ed.ask(ask, marked(FCOS, "x1", 1))) == [("t.nas", 7)]
    assert places(ed.ask(ask, marked(FCOS, "cat("))) == [("prelude.nas", 34)]
    found = ed.ask(ask, marked(FCOS, "cat("))[0]
    prelude = Path(found.uri.removeprefix("file://"))
    assert cut(prelude.read_text(), found.range) == "cat"
    assert places(ed.ask(ask, marked(TOOD, "f[t-1]"))) == [("t.nas", 10), ("t.nas", 11)]
    assert places(ed.ask(ask, marked("op f(x) = relu(x)", "relu"))) == []


def test_definitions_in_used_files(ed: Editor, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "ops.nas").write_text("# ops\nop two(x) = conv_3x3(conv_3x3(x))\n")
    text = 'use "sub/ops.nas"\nop four(x) = two(two(x))\n'
    uri = from_fs_path(str(tmp_path / "t.nas")) or ""
    assert places(ed.ask(types.TEXT_DOCUMENT_DEFINITION, marked(text, "two("), uri)) == [("ops.nas", 2)]
    assert places(ed.ask(types.TEXT_DOCUMENT_DEFINITION, marked(text, "ops.nas"), uri)) == [("ops.nas", 1)]


def test_references_of_a_value_with_and_without_its_definition(ed: Editor) -> None:
    text = marked(FCOS, "x1")
    for include, lines in ((True, [7, 9, 12]), (False, [9, 12])):
        context = types.ReferenceContext(include)
        assert [line for _, line in places(ed.ask(types.TEXT_DOCUMENT_REFERENCES, text, context=context))] == lines


def test_references_in_files_that_use_this_one(ed: Editor, tmp_path: Path) -> None:
    (tmp_path / "user.nas").write_text('use "ops.nas"\nop four(x) = two(two(x))\n')
    (tmp_path / "other.nas").write_text("op two(x) = conv_3x3(x)\n")
    (tmp_path / "gone.nas").symlink_to(tmp_path / "none")  # a file that cannot be read is left out
    ops = tmp_path / "ops.nas"
    text = "op two(x) = conv_3x3(conv_3x3(x))\n"
    ops.write_text(text)
    ed.work_in(tmp_path)
    uri = from_fs_path(str(ops)) or ""
    context = types.ReferenceContext(True)
    found = ed.ask(types.TEXT_DOCUMENT_REFERENCES, marked(text, "two"), uri, context=context)
    assert sorted(places(found)) == [("ops.nas", 1), ("user.nas", 2), ("user.nas", 2)]


def test_references_of_an_op_of_a_text_that_is_not_saved(ed: Editor) -> None:
    text = "op two(x) = conv_3x3(x)\nop four(x) = two(two(x))"
    found = ed.ask(types.TEXT_DOCUMENT_REFERENCES, marked(text, "two"), "untitled:T", context=types.ReferenceContext(True))
    assert [(loc.uri, loc.range.start.line, loc.range.start.character) for loc in found] == [
        ("untitled:T", 0, 3), ("untitled:T", 1, 13), ("untitled:T", 1, 17),
    ]  # fmt: skip


def test_references_tell_an_op_from_others_of_its_name(ed: Editor, tmp_path: Path) -> None:
    for name in ("ops", "more"):
        (tmp_path / f"{name}.nas").write_text(f"op two(x) = conv_3x3(x)  # of {name}\n")
    user = 'use "{0}"\nop four(x) = two(two(x))\nblock b(x) -> (y) {{ let two = 3 y = conv(x, k=two) }}\n'
    (tmp_path / "user.nas").write_text(user.format("ops.nas"))
    (tmp_path / "both.nas").write_text('use "ops.nas"\n' + user.format("more.nas"))
    (tmp_path / "other.nas").write_text(user.format("more.nas"))
    ed.work_in(tmp_path)
    everywhere = [("ops.nas", 1), ("user.nas", 2), ("user.nas", 2)]
    for name, number in (("ops.nas", 0), ("user.nas", 0), ("user.nas", 1)):  # from each of the places
        uri = from_fs_path(str(tmp_path / name)) or ""
        text = marked((tmp_path / name).read_text(), "two", number)
        found = ed.ask(types.TEXT_DOCUMENT_REFERENCES, text, uri, context=types.ReferenceContext(True))
        assert sorted(places(found)) == everywhere
        ed.close_text(uri)


def test_highlights_tell_writing_from_reading(ed: Editor) -> None:
    found = ed.ask(types.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT, marked(FCOS, "x1"))
    assert [(h.range.start.line + 1, h.kind.name) for h in found] == [(7, "Write"), (9, "Read"), (12, "Read")]


# ----------------------------------------------------------------------------------- outline, folding, layout, colours


def test_the_outline_has_every_name(ed: Editor) -> None:
    found = ed.about(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL, BIFPN)
    blocks, decoder = [s for s in found if s.detail == "block"], found[-1]
    assert [b.name for b in blocks] == [
        line.split()[1].split("(")[0] for line in BIFPN.splitlines() if line.startswith("block")
    ]
    assert [c.name for c in decoder.children] == ["input", "fpn", "head", "predict"]
    fpn = decoder.children[1]
    assert {"p3", "p4", "p5", "p6", "p7"} <= {c.name for c in fpn.children}

    def inside(symbols: list[types.DocumentSymbol], around: types.Range | None) -> None:
        for symbol in symbols:
            assert BIFPN[offset(BIFPN, symbol.selection_range.start) :].startswith(symbol.name)
            for part, whole in ((symbol.selection_range, symbol.range), (symbol.range, around)):
                if whole is not None:
                    assert offset(BIFPN, whole.start) <= offset(BIFPN, part.start)
                    assert offset(BIFPN, part.end) <= offset(BIFPN, whole.end)
            inside(list(symbol.children or ()), symbol.range)

    inside(list(found), None)


def test_the_outline_of_all_kinds_of_parts(ed: Editor) -> None:
    text = (
        'use "a.nas"\nop f(x) = skip(x)\nchoice mix = f | skip\ndecoder d {\n  let k = 3\n  input c3, c4\n'
        "  detector(size=240x320)\n  require  macs <= 100G\n  fpn { let j = 1 shared g(x) = f(x) a = g(c3) output p3 = a }\n"
        '  head from "b.nas"\n  predict fcos\n}\n'
    )
    found = ed.about(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL, text)
    assert [(s.name, s.kind.name, s.detail) for s in found] == [
        ("f", "Function", "op"), ("mix", "Enum", "choice of 2"), ("d", "Module", "decoder"),
    ]  # fmt: skip
    assert [(s.name, s.kind.name, s.detail) for s in found[-1].children] == [
        ("k", "Constant", "let"), ("input", "Property", "c3, c4"), ("detector", "Property", None),
        ("require", "Property", "macs <= 100G"), ("fpn", "Namespace", None), ("head", "Namespace", "b.nas"),
        ("predict", "Property", "fcos"),
    ]  # fmt: skip
    assert [(s.name, s.kind.name, s.detail) for s in found[-1].children[4].children] == [
        ("j", "Constant", "let"), ("g", "Function", "shared"), ("a", "Variable", None), ("p3", "Interface", None),
    ]  # fmt: skip


def test_symbols_of_the_workspace(ed: Editor, tmp_path: Path) -> None:
    (tmp_path / "ops.nas").write_text("op twofold(x) = conv_3x3(x)\nblock b(x) -> (y) { y = skip(x) }\n")
    (tmp_path / "gone.nas").symlink_to(tmp_path / "none")  # a file that cannot be read is left out
    ed.work_in(tmp_path)
    found = ed.request(types.WORKSPACE_SYMBOL, types.WorkspaceSymbolParams("TWO"))
    assert [(s.name, s.location.range.start.character) for s in found] == [("twofold", 3)]


def test_folding_of_bodies_comments_and_uses(ed: Editor) -> None:
    text = '# one\n# two\nuse "a.nas" use "c.nas"\nuse "b.nas"\ndecoder d {\n  fpn(width=64) {\n'
    text += "    a = sum(\n      c3,\n      c4\n    )\n  }\n  head {"
    found = ed.about(types.TEXT_DOCUMENT_FOLDING_RANGE, text)
    assert [(f.start_line, f.end_line, str(f.kind)) for f in found] == [
        (0, 1, "comment"), (2, 3, "imports"), (5, 9, "region"), (6, 8, "region"),
    ]  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_formatting_makes_what_fmt_makes(ed: Editor, end: str) -> None:
    text = FCOS.replace("  ", " ").replace("x1 = cat", "x1=cat").replace("\n", end).replace("# ", "# é\u2028\U0001f600 ", 1)
    options = types.FormattingOptions(2, True)
    edits = ed.about(types.TEXT_DOCUMENT_FORMATTING, text, options=options)
    assert edited(text, edits) == format_text(text)
    assert list(ed.about(types.TEXT_DOCUMENT_FORMATTING, format_text(text), options=options)) == []
    assert ed.about(types.TEXT_DOCUMENT_FORMATTING, "decoder d {", options=options) is None


def tokens(ed: Editor, text: str) -> list[tuple[str, str, list[str]]]:
    """Text, type and modifiers of each token."""
    data = list(ed.about(types.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL, text).data)
    found, line, column = [], 0, 0
    for i in range(0, len(data), 5):
        lines, columns, length, type, modifiers = data[i : i + 5]
        line, column = line + lines, columns + (0 if lines else column)
        place = types.Range(types.Position(line, column), types.Position(line, column + length))
        words = [m for bit, m in enumerate(MODIFIERS) if modifiers >> bit & 1]
        found.append((cut(text, place), TYPES[type], words))
    return found


def test_colours_of_names_are_what_they_refer_to(ed: Editor) -> None:
    text = 'op f(x, k=3) = conv(x, k=k, act=relu)  # \U0001f600 é\nchoice n = f | skip\nuse "o.nas"'
    assert tokens(ed, text) == [
        ("op", "keyword", []), ("f", "function", ["declaration"]), ("x", "parameter", ["declaration"]),
        ("k", "property", ["declaration"]), ("=", "operator", []), ("3", "number", []), ("=", "operator", []),
        ("conv", "function", ["defaultLibrary"]), ("x", "parameter", []), ("k", "property", ["defaultLibrary"]),
        ("=", "operator", []), ("k", "property", []), ("act", "property", ["defaultLibrary"]), ("=", "operator", []),
        ("relu", "enumMember", ["defaultLibrary"]), ("# \U0001f600 é", "comment", []),
        ("choice", "keyword", []), ("n", "enum", ["declaration"]), ("=", "operator", []), ("f", "function", []),
        ("|", "operator", []), ("skip", "function", ["defaultLibrary"]), ("use", "keyword", []), ('"o.nas"', "string", []),
    ]  # fmt: skip


@pytest.mark.parametrize("text", [FCOS, BIFPN, TOOD, SPACE], ids=["nas_fcos", "bifpn", "tood", "space"])
def test_every_word_of_the_zoo_has_a_colour(ed: Editor, text: str) -> None:
    coloured = " ".join(word for word, *_ in tokens(ed, text)).split()
    signs = str.maketrans("(){}[],;:", " " * 9)
    code = [line.partition("#")[0] for line in text.splitlines()]
    comments = [line.partition("#")[2] for line in text.splitlines() if "#" in line]
    assert len("".join(coloured)) == len("".join("\n".join(code).translate(signs).split())) + sum(
        len("".join(f"#{c}".split())) for c in comments
    )


# ----------------------------------------------------------------------------------------------------------- code lens


def test_the_size_of_a_space_stands_above_it(ed: Editor) -> None:
    (lens,) = ed.about(types.TEXT_DOCUMENT_CODE_LENS, SPACE)
    assert lens.command.title == "7 decisions, 326,592 decoders"
    assert cut(SPACE, lens.range) == "nas_fcos_head_space"


def test_the_cost_of_a_decoder_stands_above_it(ed: Editor) -> None:
    (lens,) = ed.about(types.TEXT_DOCUMENT_CODE_LENS, FCOS)
    assert lens.command.title == "186 G MACs, 38.6 M params on resnet50 at 800x1088"
    assert list(ed.about(types.TEXT_DOCUMENT_CODE_LENS, "op f(x) = skip(x)")) == []


def test_the_picture_of_a_decoder(ed: Editor) -> None:
    ed.open(FCOS)
    found = ed.request("nasdsl/picture", {"uri": URI})
    assert found.svg.lstrip().startswith("<?xml") or "<svg" in found.svg
    assert ">x4<" in found.svg
    ed.open(SPACE)
    assert "has no picture" in ed.request("nasdsl/picture", {"uri": URI}).message
    ed.open("decoder d {")
    assert ed.request("nasdsl/picture", {"uri": URI}).message == "The text has errors."
    assert ed.request("nasdsl/picture", {"uri": "file:///nowhere/other.nas"}).message == "This text is not open."


def test_positions_in_front_of_a_mark_are_right(ed: Editor) -> None:
    text = "\ufeff" + FCOS.replace("# ", "", 0)
    ed.open(text)
    place = types.HoverParams(types.TextDocumentIdentifier(URI), position(text, text.index("x4")))
    assert "level 3" in ed.request(types.TEXT_DOCUMENT_HOVER, place).contents.value


@pytest.mark.parametrize(
    ("given", "settings", "problems"),
    [
        (None, Settings(), []),
        ("resnet101", Settings(), []),
        ({"nasdsl": "resnet101"}, Settings(), []),
        ({"nasdsl": {"backbone": "resnet101"}}, Settings("resnet101"), []),
        ({"backbone": "", "size": "64x96"}, Settings(None, (64, 96)), []),
        ({"backbone": "timm:resnet18"}, Settings(),
         ["nasdsl.backbone: `timm:resnet18` is counted with torch, so its costs are shown by `nasdsl compile` only"]),
        ({"backbone": 3, "size": 320}, Settings(),
         [f"nasdsl.backbone: no backbone is called `3`; expected one of {', '.join(BACKBONES)}",
          f"nasdsl.size: `320` is no size; expected {SIZE_FORM}"]),
    ],
)  # fmt: skip
def test_settings_of_any_form(given: object, settings: Settings, problems: list[str]) -> None:
    assert read_settings(given) == (settings, problems)


@pytest.mark.parametrize("name", ["add", "mul"])
def test_numbers_among_operands_are_no_attribute(name: str) -> None:
    found = primitives.find(name)
    assert found is not None
    assert describe.primitive(found).startswith(f"```nas\n{name}(x, y, …)\n```")
