"""Completion: what may be written at a place, and only that."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from editor import Editor, edited
from lsprotocol import types
from pygls.uris import from_fs_path
from zoo_files import ZOO

from nasdsl.diagnostics import Source
from nasdsl.lsp.completion import completion
from nasdsl.lsp.documents import Documents
from nasdsl.syntax.lexer import WORDS, scan

ROOT = Path(__file__).parents[2]
SPACES = sorted((ROOT / "genotypes" / "spaces").glob("*.nas"))


def proposals(ed: Editor, fpn: str, *, before: str = "", head: str = "conv_3x3", **more: str) -> list[str]:
    text = (
        f"{before}\ndecoder d {{\n input c3, c4\n fpn(width=64) {{\n  a = sum(c3, c4)\n  let k = 3\n{fpn}\n }}\n"
        f" head(width=64) {{ {head} }}\n predict fcos }}"
    )
    found = ed.ask(types.TEXT_DOCUMENT_COMPLETION, text, **more)
    return [item.label for item in found.items]


def test_values_ops_and_attributes_in_a_call(ed: Editor) -> None:
    found = proposals(ed, "b = conv(‸)", before="op mine(x) = skip(x)")
    assert {"c3", "c4", "a", "mine", "conv_3x3", "conv", "k", "stride", "width"} <= set(found)
    assert found.index("k") < found.index("a") < found.index("mine") < found.index("conv_3x3") < found.index("conv")
    assert "b" not in found
    assert not {"output", "let", "max_pool", "bn"} & set(found)


def test_words_of_an_attribute(ed: Editor) -> None:
    assert proposals(ed, "b = pool(a, kind=‸)")[:2] == ["avg", "max"]
    assert {"bn", "gn", "ln", "none"} <= set(proposals(ed, "b = conv(a, k=3, norm=‸)"))
    assert {"c3", "c4", "a"} <= set(proposals(ed, "b = resize(c4, to=‸)"))
    assert "k" in proposals(ed, "b = conv(a, k=‸)")
    before = "op mine(x) = skip(x)\nblock twice(x, unit=conv_1x1) -> (y) { y = unit(x) }"
    assert {"conv_3x3", "mine"} <= set(proposals(ed, "b = twice(a, unit=‸)", before=before))


def test_attributes_of_sections_and_predictions(ed: Editor) -> None:
    text = "decoder d { input c3\n fpn(‸) { output p3 = c3 } }"
    assert [i.label for i in ed.ask(types.TEXT_DOCUMENT_COMPLETION, text).items] == ["act", "adapter", "norm", "width"]
    text = "decoder d { input c3\n predict gfl(‸) }"
    assert "bins" in [i.label for i in ed.ask(types.TEXT_DOCUMENT_COMPLETION, text).items]
    text = "decoder d { input c3\n predict ‸ }"
    assert "retinanet" in [i.label for i in ed.ask(types.TEXT_DOCUMENT_COMPLETION, text).items]


def test_ops_come_with_the_comment_above_their_row(ed: Editor) -> None:
    ops = "# two\n#words ---\nop a1(x) = skip(x)\nop a2(x) = skip(x)\n\nop a3(x) = skip(x)\n# other\nop a4(x) = skip(x)"
    text = f"{ops}\ndecoder d {{ input c3\n fpn(width=8) {{ output p3 = ‸ }} }}"
    found = {
        item.label: item.documentation.value
        for item in ed.ask(types.TEXT_DOCUMENT_COMPLETION, text).items
        if item.documentation
    }
    comments = {name: found[name].rpartition("```")[2].strip() for name in ("a1", "a2", "a3", "a4")}
    assert comments == {"a1": "two words", "a2": "two words", "a3": "", "a4": "other"}


def test_many_ops_in_a_row_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking above each of them for its comment reads a text as often as it has lines."""
    ops = "".join(f"op o{n}(x) = skip(x)\n" for n in range(500))
    documents, reads = Documents(), []
    document = documents.open("untitled:t", f"{ops}decoder d {{ input c3\n fpn(width=8) {{ output p3 = ", 1)
    line_text = Source.line_text
    monkeypatch.setattr(Source, "line_text", lambda self, line: reads.append(line) or line_text(self, line))
    place = document.analysis.lines.position(len(document.analysis.text))
    params = types.CompletionParams(types.TextDocumentIdentifier(document.uri), place)
    assert "o499" in [item.label for item in completion(documents, document, params).items]
    assert 500 <= len([line for line in reads if line <= 500]) < 1500


def test_choices_behind_a_question_mark(ed: Editor) -> None:
    assert proposals(ed, "b = ?‸", before="choice mine = conv_3x3 | skip") == ["mine", "pool"]


def test_statements_and_parts(ed: Editor) -> None:
    assert set(proposals(ed, "‸")) == {"output", "merge", "repeat", "let", "shared"}
    text = "decoder d {\n ‸\n}"
    found = [i.label for i in ed.ask(types.TEXT_DOCUMENT_COMPLETION, text).items]
    assert set(found) == {"input", "detector", "require", "fpn", "head", "predict", "let"}
    found = [i.label for i in ed.ask(types.TEXT_DOCUMENT_COMPLETION, "‸").items]
    assert set(found) == {"use", "op", "agg", "choice", "block", "decoder"}


def test_levels_layers_and_inputs(ed: Editor) -> None:
    assert proposals(ed, "output p3 = a, ‸") == ["p4", "p5", "p6", "p7"]
    assert {"conv_3x3", "conv"} <= set(proposals(ed, "output p3 = a", head="conv_3x3 -> ‸"))
    text = "decoder d { input c3, ‸ }"
    assert [i.label for i in ed.ask(types.TEXT_DOCUMENT_COMPLETION, text).items] == ["c2", "c3", "c4", "c5"]


def test_files_behind_use(ed: Editor, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("ops.nas", "sub/more.nas", "t.nas"):
        (tmp_path / name).write_text("")
    uri = from_fs_path(str(tmp_path / "t.nas")) or ""
    found = ed.ask(types.TEXT_DOCUMENT_COMPLETION, 'use "‸"', uri)
    assert [i.label for i in found.items] == ["ops.nas", "sub/more.nas"]
    assert edited('use "o"', [ed.ask(types.TEXT_DOCUMENT_COMPLETION, 'use "o‸"', uri).items[0].text_edit]) == 'use "ops.nas"'


WORDS_OF_SECTION = ["act", "norm", "width"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("block b(x) -> (‸) {\n y = skip(x)\n u[1] = skip(y) }", ["u1", "y"]),
        ("block b(x) -> (y, ‸) {\n y = skip(x)\n repeat t in 1..2 { n[t] = skip(x) } }", ["n1", "n2", "y"]),
        ("block b(x) -> (‸", []),
        ("block b(x) -> (y,\n ‸", []),  # behind all that was read of the block
        ("op f(‸", []),
        ("decoder d { require ‸ }", ["count", "dangling", "latency", "macs", "params"]),
        ("decoder d { require latency <= 15ms on ‸ }", ["onnxruntime", "openvino", "torch"]),
        ("decoder d { require latency <= 15ms on op‸ }", ["onnxruntime", "openvino", "torch"]),
        ("decoder d { let k = 3\n fpn(width=k+‸) { } }", ["k", *WORDS_OF_SECTION]),
        ("decoder d { input c3\n fpn(width=64) { repeat t in 1..2 { n = m[t-‸] } } }", ["t", *WORDS_OF_SECTION]),
        ("decoder d { let k = 3\n fpn(width=64) { repeat t in 1..‸ { } } }", ["k", *WORDS_OF_SECTION, "in"]),
        ("decoder d { let k = 3\n input c3\n fpn(width=64) { x = resize(c3, to=‸) } }", ["c3", "k", *WORDS_OF_SECTION]),
        ("decoder d { input c3\n fpn(width=64) { x = weighted_add(c3, c3, by=‸) } }", ["c3"]),
        ("decoder d { input c3\n detector(backbone=r‸) }",
         ["mobilenet_v2", "resnet101", "resnet50", "resnext101_64x4d", "tiny", *WORDS_OF_SECTION]),
        ('decoder d { input c3\n detector(backbone="r‸") }',
         ["mobilenet_v2", "resnet101", "resnet101_v1.5", "resnet50", "resnet50_v1.5", "resnext101_64x4d", "tiny"]),
        ('use "‸', []),
        ('op f(x) = conv(x, act="‸', []),
    ],
)  # fmt: skip
def test_all_that_may_stand_at_a_place(ed: Editor, text: str, expected: list[str]) -> None:
    assert [item.label for item in ed.ask(types.TEXT_DOCUMENT_COMPLETION, text, "untitled:t").items] == expected


@pytest.mark.parametrize(
    ("fpn", "there", "absent"),
    [
        ("b = ?(‸)(a)", {"a", "c3", "k", "width", "conv_3x3", "conv"}, {"b"}),
        ("let j = ‸", {"k", "width", "conv_3x3"}, {"j", "a"}),
        ("b = ‸", {"a", "c3", "conv_3x3"}, {"b", "k", "width"}),
        ("shared f(x) = skip(x)\n b = ‸", {"f", "a"}, {"b"}),
        ("b = f(‸)\n shared f(x) = skip(x)", {"a"}, {"f"}),
        ("b = skip(a, other=‸)", {"k", "conv_3x3"}, {"a", "b"}),
        ("a = ‸", {"a", "c3"}, set()),
    ],
)
def test_what_stands_above_is_proposed_where_it_can_be_read(ed: Editor, fpn: str, there: set[str], absent: set[str]) -> None:
    found = set(proposals(ed, fpn))
    assert there <= found
    assert not absent & found


def test_layers_of_a_section_and_quantities_that_are_counted(ed: Editor) -> None:
    text = "decoder d { input c3\n fpn(width=64, adapter=‸) { output p3 = c3 } }"
    found = [item.label for item in ed.ask(types.TEXT_DOCUMENT_COMPLETION, text).items]
    assert found[:3] == ["none", "width", "attend"]
    items = ed.ask(types.TEXT_DOCUMENT_COMPLETION, "decoder d { require count(‸) <= 3 }").items
    assert {"conv_3x3", "conv"} <= {item.label for item in items}
    assert "conv_3x3" in {item.text_edit.new_text for item in items}  # without brackets


def test_an_op_in_place_of_one_of_the_vocabulary_is_proposed_once_and_as_it_is_here(ed: Editor) -> None:
    items = ed.ask(types.TEXT_DOCUMENT_COMPLETION, "op skip(x, n=2) = conv_3x3(x)\nop other(x) = ‸").items
    assert [item.detail for item in items if item.label == "skip"] == ["(x, n=2)"]


def test_nothing_in_a_comment(ed: Editor) -> None:
    assert proposals(ed, "b = skip(a) # sum(‸") == []


def test_a_call_gets_its_brackets_once(ed: Editor) -> None:
    text = "op f(x) = conv_3‸"
    item = next(i for i in ed.ask(types.TEXT_DOCUMENT_COMPLETION, text).items if i.label == "conv_3x3")
    assert item.text_edit.new_text == "conv_3x3($0)"
    assert item.insert_text_format == types.InsertTextFormat.Snippet
    text = "op f(x) = conv_3‸(x)"
    item = next(i for i in ed.ask(types.TEXT_DOCUMENT_COMPLETION, text).items if i.label == "conv_3x3")
    assert edited("op f(x) = conv_3(x)", [item.text_edit]) == "op f(x) = conv_3x3(x)"


OFTEN = ("bifpn", "tood", "nas_fcos_head")


@pytest.mark.parametrize(
    "path",
    [p if p.stem in OFTEN else pytest.param(p, marks=pytest.mark.long) for p in [*ZOO, *SPACES]],
    ids=lambda p: p.stem,
)
def test_what_stands_in_the_zoo_is_proposed_where_it_stands(path: Path) -> None:
    """Each word, but those that are defined there, is among the proposals of the text without it."""
    text = path.read_text(encoding="utf-8")
    documents = Documents()
    names = documents.open("untitled:names", text, 1).analysis.names
    source = documents.get("untitled:names").analysis.source  # type: ignore[union-attr]  # it is open
    words = [t for t in scan(Source("t", text), []) if t.type == "NAME" or t.value in WORDS]
    rng = random.Random(0)
    for token in rng.sample(words, min(40, len(words))):
        occurrence = names.at(source, token.start)
        if token.type == "NAME" and (
            occurrence is None or occurrence.is_definition or occurrence.symbols[0].name != token.value
        ):
            continue
        document = documents.open("untitled:t", text[: token.start] + text[token.end :], 1)
        place = document.analysis.lines.position(token.start)
        params = types.CompletionParams(types.TextDocumentIdentifier(document.uri), place)
        found = [item.label for item in completion(documents, document, params).items]
        line = text[text.rfind("\n", 0, token.start) + 1 : token.start] + "‸" + text[token.end :].partition("\n")[0]
        assert token.value in found, (token.value, line, found[:20])
