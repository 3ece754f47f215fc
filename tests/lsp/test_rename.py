"""Renaming keeps the meaning, or is refused with the reason."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from editor import CURSOR, Editor, edited
from lsprotocol import types
from pygls.uris import from_fs_path
from zoo_files import ZOO

import nasdsl
from nasdsl.diagnostics import Source
from nasdsl.lsp.documents import Documents
from nasdsl.lsp.rename import Refused, rename
from nasdsl.semantics.vocabulary import prelude
from nasdsl.syntax.lexer import scan

RENAME, PREPARE = types.TEXT_DOCUMENT_RENAME, types.TEXT_DOCUMENT_PREPARE_RENAME

TEXT = """op wide(x, k=3, width=width) = conv(x, k=k, width=width)
choice mix = conv_3x3 | wide
block stage(x) -> (y) { y = wide(x, k=5) }
decoder d {
  input c3, c4
  fpn(width=64) {
    let kernel = 3
    n0 = wide(c3, k=kernel)
    repeat t in 1..2 { n[t] = stage(n[t - 1]) }
    m = sum(n2, wide(c4))
    output p3 = m, p4 = conv_3x3(c4)
  }
  head(width=64) { conv_3x3 }
  predict fcos
}
"""

_SIZE = TEXT.replace("k=3, w", "size=3, w").replace("k=k,", "k=size,").replace("k=5", "size=5").replace("k=kern", "size=kern")


def at(word: str, number: int = 0) -> str:
    place = -1
    for _ in range(number + 1):
        place = TEXT.index(word, place + 1)
    return TEXT[:place] + CURSOR + TEXT[place:]


def renamed(ed: Editor, marked: str, name: str) -> str:
    (change,) = ed.ask(RENAME, marked, new_name=name).document_changes
    return edited(marked.replace(CURSOR, ""), change.edits)


@pytest.mark.parametrize(
    ("marked", "name", "expected"),
    [
        (at("m = sum"), "mean", TEXT.replace("m = sum", "mean = sum").replace("p3 = m,", "p3 = mean,")),
        (at("wide(x, k=3"), "broad", TEXT.replace("wide", "broad")),
        (at("n[t]"), "v", TEXT.replace("n0 ", "v0 ").replace("n[t", "v[t").replace("n2", "v2")),
        (at("n2"), "v", TEXT.replace("n0 ", "v0 ").replace("n[t", "v[t").replace("n2", "v2")),
        (at("k=3"), "size", _SIZE),
        (at("t in"), "turn", TEXT.replace("t in", "turn in").replace("[t]", "[turn]").replace("[t -", "[turn -")),
        (at("kernel"), "side", TEXT.replace("kernel", "side")),
        (at("mix"), "op", TEXT.replace("mix", "op")),
        (at("stage"), "step", TEXT.replace("stage", "step")),
        (at("d {"), "other", TEXT.replace("decoder d", "decoder other")),
    ],
)  # fmt: skip
def test_every_place_is_renamed(ed: Editor, marked: str, name: str, expected: str) -> None:
    found = renamed(ed, marked, name)
    assert found == expected
    assert nasdsl.loads(found).digest == nasdsl.loads(TEXT).digest


@pytest.mark.parametrize(
    ("marked", "name", "reason"),
    [
        (at("m = sum"), "n0", "`n0` exists already, in line 8"),
        (at("m = sum"), "c3", "`c3` exists already, in line 5"),
        (at("m = sum"), "p4", "`p4` exists already, in line 11"),
        (at("m = sum"), "n1", "`n1` exists already, in line 9"),
        (at("m = sum"), "let", "`let` is a word of the language"),
        (at("m = sum"), "3m", "`3m` is no name"),
        (at("wide(x"), "stage", "`stage` exists already, in line 3"),
        (at("wide(x"), "conv_3x3", "`conv_3x3` exists already: it is of the vocabulary"),
        (at("wide(x"), "conv", "`conv` exists already: it is of the vocabulary"),
        (at("k=3"), "x", "`x` exists already, in line 1"),
        (at("k=3"), "act", "`act` is an attribute of the section"),
    ],
)
def test_a_name_that_changes_the_meaning_is_refused(ed: Editor, marked: str, name: str, reason: str) -> None:
    if reason == "would mean something else":
        marked = marked.replace("k=kernel", "k=kernel").replace("let kernel = 3", "let kernel = 3")
        text = (
            "op f(x, o=conv_3x3) = o(x)\ndecoder d { input c3\n fpn(width=64) { let "
            + CURSOR
            + "a = 3\n output p3 = f(conv(c3, k=a), o=sep_3x3) }\n head(width=64) { conv_3x3 } predict fcos }"
        )
        marked, name = text, "sep_3x3"
    assert reason in ed.refusal(RENAME, marked, new_name=name)


def test_a_name_that_stays_needs_no_edits(ed: Editor) -> None:
    assert ed.ask(RENAME, at("m = sum"), new_name=" m ").document_changes is None


def test_the_first_text_that_calls_an_op_of_the_vocabulary_can_be_renamed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The body of such an op is elaborated once a process, so that the names in it are entered for the first text alone."""
    op = prelude().definitions["conv_3x3"]
    monkeypatch.setattr(op, "body", None)
    monkeypatch.setattr(op, "weight", 0)
    text = "op two(x) = conv_3x3(x)\nop four(x) = two(two(x))\n"
    documents = Documents()
    document = documents.open("untitled:t", text, 1)
    place = document.analysis.lines.position(text.index("two"))
    made = rename(documents, document, types.RenameParams(types.TextDocumentIdentifier(document.uri), place, "twice"))
    (change,) = made.document_changes or ()
    assert isinstance(change, types.TextDocumentEdit)
    assert edited(text, change.edits) == text.replace("two", "twice")


def test_a_word_that_would_stand_for_an_op_is_refused(ed: Editor) -> None:
    marked = (
        "op f(x, o=conv_3x3) = o(x)\ndecoder d { input c3\n fpn(width=64) {\n  let ‸a = 3\n"
        "  output p3 = f(conv(c3, k=a), o=sep_3x3) }\n head(width=64) { conv_3x3 } predict fcos }"
    )
    assert "would mean something else (see line 5)" in ed.refusal(RENAME, marked, new_name="sep_3x3")


@pytest.mark.parametrize(
    ("marked", "reason"),
    [
        (at("conv_3x3"), "`conv_3x3` is of the vocabulary that every text has (prelude.nas)"),
        (at("conv("), "`conv` is a primitive of the language"),
        (at("c3, c4"), "`c3` is a feature of the backbone"),
        (at("p3"), "`p3` is a level of the pyramid"),
        (at("width=width"), "`width` sets the section's attribute"),
        (at("fcos"), "`fcos` is a prediction of the language"),
        (at("fpn"), "there is no name here"),
        ("decoder d { " + CURSOR + "x", "the text has syntax errors"),
    ],
)
def test_what_cannot_be_renamed_says_why(ed: Editor, marked: str, reason: str) -> None:
    assert reason in ed.refusal(PREPARE, marked)
    assert reason in ed.refusal(RENAME, marked, new_name="other")


def test_the_number_of_a_name_is_no_part_of_what_is_renamed(ed: Editor) -> None:
    found = ed.ask(PREPARE, at("n2"))
    assert found.placeholder == "n"
    assert found.range.end.character - found.range.start.character == 1


def test_a_name_of_a_used_file_is_renamed_there_for_all_who_use_it(ed: Editor, tmp_path: Path) -> None:
    ops, user = tmp_path / "ops.nas", tmp_path / "user.nas"
    ops.write_text("op two(x, k=3) = conv(conv(x, k=k), k=k)\n")
    text = 'use "ops.nas"\nop four(x) = two(two(x, k=5))\nop three(x) = skip(x)\n'
    user.write_text(text)
    ed.work_in(tmp_path)
    uri, other = from_fs_path(str(ops)) or "", from_fs_path(str(user)) or ""
    marked = text.replace("two(two", f"{CURSOR}two(two")
    ed.at(marked, other)
    with pytest.raises(Exception, match=r"`two` is defined in ops\.nas; rename it there"):
        ed.ask(RENAME, marked, other, new_name="twice")
    ed.close_text(other)
    marked = ops.read_text().replace("two", f"{CURSOR}two")
    changes = ed.ask(RENAME, marked, uri, new_name="twice").document_changes
    made = {c.text_document.uri: edited((ops if c.text_document.uri == uri else user).read_text(), c.edits) for c in changes}
    assert made == {uri: ops.read_text().replace("two", "twice"), other: text.replace("two", "twice")}
    assert "would mean something else" in _refusal(ed, marked, uri, "three")
    attribute = ops.read_text().replace("k=3", f"{CURSOR}k=3")
    changes = ed.ask(RENAME, attribute, uri, new_name="side").document_changes
    assert edited(text, next(c.edits for c in changes if c.text_document.uri == other)) == text.replace("k=5", "side=5")


def _refusal(ed: Editor, marked: str, uri: str, name: str) -> str:
    try:
        found = ed.ask(RENAME, marked, uri, new_name=name)
    except Exception as error:
        return str(getattr(error, "message", error))
    raise AssertionError(found)


@pytest.mark.parametrize(
    "path",
    [p if p.stem in ("bifpn", "tood") else pytest.param(p, marks=pytest.mark.long) for p in ZOO],
    ids=lambda p: p.stem,
)
def test_a_renamed_decoder_is_the_same_decoder(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    digest = nasdsl.loads(text).digest
    documents = Documents()
    document = documents.open("untitled:t", text, 1)
    rng, done = random.Random(0), 0
    names = [t for t in scan(Source("t", text), []) if t.type == "NAME"]
    for token in rng.sample(names, min(25, len(names))):
        place = document.analysis.lines.position(token.start)
        params = types.RenameParams(types.TextDocumentIdentifier(document.uri), place, "fresh")
        made: types.WorkspaceEdit | str
        try:
            made = rename(documents, document, params)
        except Refused as refused:
            made = str(refused)
        if isinstance(made, str):
            assert any(word in made for word in ("language", "vocabulary", "backbone", "pyramid", "section"))
            continue
        (change,) = made.document_changes or ()
        assert isinstance(change, types.TextDocumentEdit)
        assert nasdsl.loads(edited(text, change.edits)).digest == digest
        done += 1
    assert done
