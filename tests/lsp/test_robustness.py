"""Any text, half-written or damaged, is answered: a bug would be on standard error, which the editor of the tests looks at."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from editor import Editor, position
from lsprotocol import types

ROOT = Path(__file__).parents[2]
URI = "file:///nowhere/t.nas"
TEXTS = [p.read_text() for p in sorted((ROOT / "genotypes").rglob("*.nas"))]
PIECES = [
    "", "(", ")", "{", "}", ",", " x ", " = ", "?", "?(", "..", '"', "#", "\n", "\r", "\x00", "\U0001f600", "é", "1y", "[",
    "repeat 3 {", "output ", "in", "?pool", "let ", "use ", " -> ", "\ud800", "\u2028",
]  # fmt: skip


def ask_everything(ed: Editor, text: str, rng: random.Random) -> None:
    """Every request about a text, at a place of it."""
    ed.open(text)
    name = types.TextDocumentIdentifier(URI)
    at = position(text, rng.randrange(len(text) + 1))
    whole = types.Range(types.Position(0, 0), types.Position(10_000, 0))
    for params in (
        types.HoverParams(name, at),
        types.CompletionParams(name, at),
        types.DefinitionParams(name, at),
        types.ReferenceParams(types.ReferenceContext(True), name, at),
        types.DocumentHighlightParams(name, at),
        types.DocumentSymbolParams(name),
        types.FoldingRangeParams(name),
        types.SemanticTokensParams(name),
        types.InlayHintParams(name, whole),
        types.CodeLensParams(name),
        types.CodeActionParams(name, whole, types.CodeActionContext([])),
        types.DocumentFormattingParams(name, types.FormattingOptions(2, True)),
    ):
        ed.request(METHODS[type(params)], params)
    for method, refusable in (
        (types.TEXT_DOCUMENT_PREPARE_RENAME, types.PrepareRenameParams(name, at)),
        (types.TEXT_DOCUMENT_RENAME, types.RenameParams(name, at, "other")),
    ):
        ed.try_request(method, refusable)


METHODS: dict[type, str] = {
    types.HoverParams: types.TEXT_DOCUMENT_HOVER,
    types.CompletionParams: types.TEXT_DOCUMENT_COMPLETION,
    types.DefinitionParams: types.TEXT_DOCUMENT_DEFINITION,
    types.ReferenceParams: types.TEXT_DOCUMENT_REFERENCES,
    types.DocumentHighlightParams: types.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT,
    types.DocumentSymbolParams: types.TEXT_DOCUMENT_DOCUMENT_SYMBOL,
    types.FoldingRangeParams: types.TEXT_DOCUMENT_FOLDING_RANGE,
    types.SemanticTokensParams: types.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL,
    types.InlayHintParams: types.TEXT_DOCUMENT_INLAY_HINT,
    types.CodeLensParams: types.TEXT_DOCUMENT_CODE_LENS,
    types.CodeActionParams: types.TEXT_DOCUMENT_CODE_ACTION,
    types.DocumentFormattingParams: types.TEXT_DOCUMENT_FORMATTING,
}


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.long) for s in range(1, 20))])
def test_damaged_texts(ed: Editor, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(8 if seed == 0 else 40):
        text = rng.choice(TEXTS)
        for _ in range(rng.choice([0, 1, 1, 2, 5])):
            at = rng.randrange(len(text) + 1)
            text = text[:at] + rng.choice(PIECES) + text[at + rng.choice([0, 1, 1, 8, 80]) :]
        ask_everything(ed, text, rng)


def test_a_text_as_it_is_typed(ed: Editor) -> None:
    rng = random.Random(0)
    text = (ROOT / "genotypes" / "nas_fcos.nas").read_text()
    for end in sorted(rng.sample(range(len(text)), 10)):
        ask_everything(ed, text[:end], rng)


def test_texts_that_are_none(ed: Editor) -> None:
    rng = random.Random(0)
    for text in ("", "\ufeff", "\n" * 20, "\x00" * 50, "(" * 300, "decoder", '"', "\ud800", "?" * 40):
        ask_everything(ed, text, rng)


def test_unknown_documents_are_answered_with_nothing(ed: Editor) -> None:
    name = types.TextDocumentIdentifier("file:///nowhere/unknown.nas")
    assert ed.request(types.TEXT_DOCUMENT_HOVER, types.HoverParams(name, types.Position(0, 0))) is None


def test_an_unsaved_text_has_no_folder(ed: Editor) -> None:
    (found,) = ed.open('use "ops.nas"', "untitled:Untitled-1")
    assert found.code == "NAS413" or "folder" in found.message


_WITHOUT_TORCH = """
import sys
from lsprotocol import types
from nasdsl.lsp import server
made = server.create_server("1")
documents = made.documents
text = open(sys.argv[1]).read()
document = documents.open("untitled:t", text, 1)
name, at = types.TextDocumentIdentifier("untitled:t"), types.Position(8, 6)
whole = types.Range(types.Position(0, 0), types.Position(100, 0))
from nasdsl.lsp.picture import picture
assert "svg" in picture(document)
for method, function, _ in server.FEATURES:
    params = {
        "textDocument/inlayHint": types.InlayHintParams(name, whole),
        "textDocument/codeAction": types.CodeActionParams(name, whole, types.CodeActionContext([])),
        "textDocument/references": types.ReferenceParams(types.ReferenceContext(True), name, at),
        "textDocument/rename": types.RenameParams(name, at, "fresh"),
    }.get(method, types.HoverParams(name, at))
    assert function(documents, document, params) is not None or "ormatting" in method, method
assert server.diagnostics_of(documents, document) == []
assert "torch" not in sys.modules and "torchvision" not in sys.modules
print("fine")
"""


def test_no_feature_needs_torch() -> None:
    path = ROOT / "genotypes" / "nas_fcos.nas"
    done = subprocess.run([sys.executable, "-c", _WITHOUT_TORCH, str(path)], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("fine\n", "")
