"""Findings in an editor are those of ``nasdsl check``, and their fixes mend the text."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from editor import Editor, cut, edited, position
from lsprotocol import types
from malformed import MALFORMED
from pygls.uris import from_fs_path
from zoo_files import ZOO

from nasdsl.decoder import check_source
from nasdsl.diagnostics import Source
from nasdsl.semantics.files import read_source

ROOT = Path(__file__).parents[2]
URI = "file:///nowhere/t.nas"
FILES = [*ZOO, *sorted((ROOT / "genotypes" / "spaces").glob("*.nas")), *sorted((ROOT / "tests" / "data").rglob("*.nas")),
         *sorted((ROOT / "examples").rglob("*.nas")), ROOT / "grammars" / "prelude.nas"]  # fmt: skip
OFTEN = random.Random(0).sample(sorted(MALFORMED), 25)


def expected(text: str, path: Path) -> list[tuple[str, str, types.Range]]:
    """Code, message and range of each finding that `check` prints about the text itself."""
    source = Source(str(path), text)
    return [
        (p.code, p.message, types.Range(position(text, p.span.start), position(text, p.span.end)))
        for p in check_source(source, path=path).problems
        if p.span.source is source
    ]


def shown(diagnostics: list[types.Diagnostic]) -> list[tuple[str, str, types.Range]]:
    return [(str(d.code), d.message.split("\n")[0], d.range) for d in diagnostics]


def test_the_files_are_there() -> None:
    assert len(FILES) > 35


@pytest.mark.long
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_file_shows_what_check_prints(ed: Editor, path: Path) -> None:
    uri = ed.open_file(path)
    assert shown(ed.wait(uri)) == expected(read_source(path).text, path)
    ed.close_text(uri)


@pytest.mark.parametrize("name", [n if n in OFTEN else pytest.param(n, marks=pytest.mark.long) for n in MALFORMED])
def test_every_malformed_text_shows_what_check_prints(ed: Editor, name: str) -> None:
    text = MALFORMED[name]
    if "\x00" in text or not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    text = text.removeprefix("\ufeff")
    assert shown(ed.open(text)) == expected(text, Path("/nowhere/t.nas"))


def test_every_mistake_of_a_file_with_severity_place_and_help(ed: Editor) -> None:
    path = ROOT / "examples" / "mistakes.nas"
    uri = ed.open_file(path)
    found = ed.wait(uri)
    assert [d.code for d in found] == ["NAS201", "NAS202", "NAS407"]
    first = found[0]
    assert (first.severity, first.source) == (types.DiagnosticSeverity.Error, "nasdsl")
    assert cut(path.read_text(), first.range) == "dcnv_3x3"
    assert "help: did you mean `dconv_3x3`?" in first.message


def test_columns_count_utf_16_units(ed: Editor) -> None:
    text = "decoder d { input c3\n fpn(width=64) { output p3 = conv_3x3(c3) } # \U0001f600\U0001f600 é\r\n"
    text += " \U0001f600 head(width=64) { conv_3x4 } predict fcos }"
    found = ed.open(text)
    assert shown(found) == expected(text, Path("/nowhere/t.nas"))
    assert [cut(text, d.range) for d in found] == ["\U0001f600", "conv_3x4"]
    assert found[1].range.start.character == len(" 😀 head(width=64) { ".encode("utf-16-le")) // 2


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_the_protocol_says(ed: Editor, end: str) -> None:
    text = "# form feed \x0c, next line \x85, line separator \u2028" + end + "decoder d { input c3" + end + "}"
    found = ed.open(text)
    if end != "\r":  # which ends no line of a comment of the language
        assert all(d.range.start.line in (1, 2) for d in found)
        assert shown(found) == expected(text, Path("/nowhere/t.nas"))


def test_a_change_is_checked_and_overtaken_ones_are_not_waited_for(ed: Editor) -> None:
    good = MALFORMED["missing ) in a call"].replace("conv_3x3(c3\n", "conv_3x3(c3)\n")
    assert ed.open(good) == []
    for number in range(20):
        ed.change(good.replace("x1 =", f"x{number} ="), wait=False)
    assert [(d.code, d.message.split("\n")[0]) for d in ed.wait(URI)] == [("NAS202", "no value is called `x1`")]
    assert ed.change(good) == []


TYPED = [
    "",
    "(",
    ")",
    "{",
    "}",
    ",",
    "x",
    " = ",
    "?(",
    "..",
    '"',
    "\n",
    "[t-1]",
    "repeat 3 {",
    "output ",
    "let k = ",
    " -> ",
    "1y",
    "é",
]


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.long) for s in range(1, 20))])
def test_after_each_edit_findings_are_those_of_check(ed: Editor, seed: int) -> None:
    """A server that has seen other versions says what a fresh check says."""
    rng = random.Random(seed)
    text = read_source(rng.choice(FILES)).text
    ed.open(text)
    for _ in range(15 if seed == 0 else 60):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(TYPED) + text[at + rng.choice([0, 0, 1, 3, 30]) :]
        assert shown(ed.change(text)) == expected(text, Path("/nowhere/t.nas"))


def test_a_file_that_another_uses_is_read_as_it_is_open(ed: Editor, tmp_path: Path) -> None:
    ops, user = tmp_path / "ops.nas", tmp_path / "user.nas"
    ops.write_text("op two(x) = conv_3x3(conv_3x3(x))\n")
    fpn = "fpn(width=64) { output p3 = two(c3) }"
    user.write_text(f'use "ops.nas"\ndecoder d {{ input c3\n {fpn}\n head(width=64) {{ conv_3x3 }} predict fcos }}\n')
    uri = ed.open_file(user)
    assert ed.wait(uri) == []
    other = ed.open_file(ops)
    ed.change("op two(x) = conv_3x3(conv_3x4(x))\n", other)
    (found,) = ed.until(lambda: ed.diagnostics[uri].diagnostics or None)
    assert found.code == "NAS201"
    assert found.range.start.line == 0
    assert "ops.nas:1:22" in found.message
    assert found.related_information is not None
    place = found.related_information[0].location
    assert (place.uri, place.range.start.character) == (other, 21)
    ed.close_text(other)
    ed.until(lambda: True if not ed.diagnostics[uri].diagnostics else None)
    ed.close_text(uri)


def test_a_file_that_changes_on_the_disk_is_read_again(ed: Editor, tmp_path: Path) -> None:
    ops, user = tmp_path / "ops.nas", tmp_path / "user.nas"
    user.write_text('use "ops.nas"\nchoice a = two | conv_3x3\n')
    uri = ed.open_file(user)
    assert [d.range.start.line for d in ed.wait(uri)] == [0]
    ops.write_text("op two(x) = conv_3x3(conv_3x3(x))\n")
    ed.diagnostics.pop(uri)
    events = [types.FileEvent(from_fs_path(str(ops)) or "", types.FileChangeType.Created)]
    ed._client.workspace_did_change_watched_files(types.DidChangeWatchedFilesParams(events))
    assert ed.wait(uri) == []
    ed.close_text(uri)


@pytest.mark.parametrize(
    ("text", "line", "place"),
    [
        ('op g(x) = skip(x)\nuse "other.nas"\nuse "ops.nas"', 2, "ops.nas:1:13"),
        ('op g(x) = skip(x)\nuse "between.nas"', 1, "ops.nas:1:13"),
        ('use "other.nas"\ndecoder d { input c3\n fpn from "decoder.nas"\n head(width=64) { conv_3x3 } predict fcos }', 2,
         "decoder.nas:3:30"),
    ],
    ids=["used", "used by what is used", "section"],
)  # fmt: skip
def test_a_finding_in_another_file_stands_where_the_text_brings_that_in(
    ed: Editor, tmp_path: Path, text: str, line: int, place: str
) -> None:
    (tmp_path / "ops.nas").write_text("op two(x) = conv_3x4(x)\n")
    (tmp_path / "between.nas").write_text('use "ops.nas"\n')
    (tmp_path / "other.nas").write_text("op three(x) = skip(x)\n")
    (tmp_path / "decoder.nas").write_text(
        "decoder d {\n  input c3\n  fpn(width=8) { output p3 = conv_3x4(c3) }\n"
        "  head(width=64) { conv_3x3 }\n  predict fcos\n}\n"
    )
    (found,) = ed.open(text, from_fs_path(str(tmp_path / "t.nas")) or "")
    assert (found.code, found.range.start.line) == ("NAS201", line)
    assert f"{place}: unknown op `conv_3x4`" in found.message


# ------------------------------------------------------------------------------------------------------------- fixes


def actions(ed: Editor, text: str, only: list[str] | None = None) -> list[types.CodeAction]:
    whole = types.Range(types.Position(0, 0), position(text, len(text)))
    context = types.CodeActionContext([], only)  # type: ignore[arg-type]  # kinds are words
    found = ed.about(types.TEXT_DOCUMENT_CODE_ACTION, text, range=whole, context=context)
    return list(found)


def edits_of(action: types.CodeAction) -> list[types.TextEdit]:
    assert action.edit is not None
    assert action.edit.document_changes is not None
    (change,) = action.edit.document_changes
    assert isinstance(change, types.TextDocumentEdit)
    assert change.text_document.uri == URI
    return list(change.edits)  # type: ignore[arg-type]  # plain edits


def test_fixes_are_those_of_the_findings(ed: Editor) -> None:
    text = (ROOT / "examples" / "mistakes.nas").read_text()
    fixes = [p for p in check_source(Source("t", text)).problems if p.fix is not None]
    found = actions(ed, text, ["quickfix"])
    assert [a.title for a in found] == ["Replace `dcnv_3x3` by `dconv_3x3`"]
    assert edited(text, edits_of(found[0])) == text[: fixes[0].span.start] + "dconv_3x3" + text[fixes[0].span.end :]
    assert found[0].is_preferred


@pytest.mark.parametrize("name", ["missing ) in a call", "missing , between operands", "missing -> in a chain"])
def test_all_fixes_at_once(ed: Editor, name: str) -> None:
    text = MALFORMED[name]
    (action,) = actions(ed, text, ["source.fixAll"])
    assert not ed.change(edited(text, edits_of(action)))


@pytest.mark.parametrize("comment", ["", "  # mine", "  # nas: allow NAS902"])
def test_a_warning_can_be_allowed(ed: Editor, comment: str) -> None:
    text = f"decoder d {{\n  input c3, c4\n  fpn(width=64) {{\n    x = conv_3x3(c4){comment}\n    output p3 = conv_3x3(c3)\n"
    text += "  }\n  head(width=64) { conv_3x3 }\n  predict fcos\n}\n"
    (found,) = ed.open(text)
    assert found.code == "NAS901"
    assert found.tags == (types.DiagnosticTag.Unnecessary,)
    action = next(a for a in actions(ed, text) if a.title.startswith("Allow"))
    assert ed.change(edited(text, edits_of(action))) == []
