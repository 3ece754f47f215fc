"""Everything that the package does with a text before torch: check, print, format, count, draw, sample, answer an editor.

Any text gives diagnostics and nothing else, each step within a second; formatting keeps what a text means.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from findings import assert_sane
from lsprotocol import types

from nasdsl.decoder import Decoder, check_source, loads
from nasdsl.diagnostics import Diagnostic, DiagnosticError, Source, explain, is_message, render_all
from nasdsl.diagnostics.catalogue import CODES
from nasdsl.ir import MissingFeature
from nasdsl.lsp.diagnostics import diagnostics_of
from nasdsl.lsp.documents import Documents
from nasdsl.lsp.positions import Lines
from nasdsl.lsp.rename import Refused
from nasdsl.lsp.server import FEATURES
from nasdsl.semantics.check import Checked
from nasdsl.spaces import SpaceError
from nasdsl.spaces.space import load_space_source
from nasdsl.syntax.formatter import format_text
from torture.subject import Report

SECONDS = 1.0
"""Processor time that a step may take on the nominal core."""

MAX_LOOKED_AT = 20
"""Findings of a text that are looked at closely, which takes as long as many a text."""

MAX_DRAWN = 400
"""Layers of a decoder that are written out as canonical text and source here: a text of a few words may have 100,000."""


def exercise(text: str, rng: random.Random, report: Report, *, editor: bool = True) -> Checked:
    """Do with a text what the package can do, and report what is wrong.

    Args:
        rng: where in the text the editor asks.
        editor: whether an editor is answered too, which takes as long as the rest.
    """
    report.about(text)
    report.count("texts")
    with report.step("check", SECONDS):
        checked = check_source(Source("t.nas", text))
    errors = [finding for finding in checked.problems if finding.severity == "error"]
    report.count("with errors" if errors else "that check")
    assert not (errors and checked.architecture), "a text with an error gave an architecture"
    _look_at(checked.problems, text, report)
    formatted = _format(text, report)
    if checked.architecture is not None and checked.architecture.open_holes:
        _sample(text, formatted, rng, report)
    elif checked.architecture is not None:
        _lower(Decoder(checked.architecture, Source("t.nas", text)), formatted, report)
    if editor:
        _edit(text, rng, report)
    return checked


def _look_at(found: list[Diagnostic], text: str, report: Report) -> None:
    for finding in found[:MAX_LOOKED_AT]:
        assert_sane(finding, text)
    with report.step("print findings", SECONDS):
        assert "\x1b" not in render_all(found)
    for code in {finding.code for finding in found}:
        assert code in CODES
        assert explain(code)


def _format(text: str, report: Report) -> str | None:
    with report.step("fmt", SECONDS):
        try:
            formatted = format_text(text)
        except DiagnosticError:
            return None
    report.count("formatted")
    assert format_text(formatted) == formatted, "formatting twice is not formatting once"
    return formatted


def _digest(text: str) -> str:
    return loads(text).digest


def _lower(decoder: Decoder, formatted: str | None, report: Report) -> None:
    assert formatted is not None, "a text that checks cannot be formatted"
    with report.step("cost", SECONDS):
        try:
            table = decoder.cost((96, 160), classes=7)
        except (DiagnosticError, MissingFeature):
            report.count("not for the reference backbone")
            return
    report.count("counted")
    assert table.total.macs >= table.decoder.macs >= 0
    if len(table.nodes) > MAX_DRAWN:
        report.count("too large to be written out")
        return
    with report.step("canonical text", SECONDS):
        canonical = decoder.canonical
    assert _digest(canonical) == decoder.digest, "the canonical text is another decoder"
    assert _digest(formatted) == decoder.digest, "formatting changed the digest"
    report.count("digests kept by fmt")
    with report.step("compile to source", SECONDS):
        from nasdsl.backends.source import emit_source

        compile(emit_source(decoder.lower(_channels()), 7), "emitted", "exec")


def _channels() -> dict[str, int]:
    from nasdsl.backbones import backbone

    return {"c1": 64, "c6": 2048, "c7": 2048, **backbone("resnet50").out_channels}


def _sample(text: str, formatted: str | None, rng: random.Random, report: Report) -> None:
    assert formatted is not None, "a space that checks cannot be formatted"
    with report.step("read a space", SECONDS):
        try:
            space = load_space_source(Source("t.nas", text))
        except (DiagnosticError, ValueError) as error:
            if not isinstance(error, DiagnosticError) and not is_message(error):
                raise
            report.count("no space")
            return
    report.count("spaces")
    for _ in range(2):
        with report.step("sample", SECONDS):
            try:
                filled = space.sample(rng, attempts=20)
            except SpaceError:
                report.count("no filling in 20 attempts")
                return
        report.count("samples")
        if len(filled) > 20_000:
            return
        with report.step("encode", SECONDS):
            indices = space.encode(filled)
        assert space.decode(indices) == filled, "decoding what was encoded gives another text"
        with report.step("read a sample", SECONDS):
            sampled = space.load(filled)
        figures = space.figures(filled.indices)
        assert figures is not None
        try:
            sampled.cost((96, 160), classes=7)
        except (DiagnosticError, MissingFeature):
            report.count("not for the reference backbone")


# ---------------------------------------------------------------------------------------------------- editor


class _Raising(logging.Handler):
    """Bugs are logged by the language server, which then answers with nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            raise AssertionError(f"the language server logs: {record.getMessage()}") from (record.exc_info or (None, None))[1]


@contextmanager
def errors_of_the_server() -> Iterator[None]:
    """Within, what the language server logs as an error is raised."""
    handler, logger = _Raising(), logging.getLogger("nasdsl.lsp")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _edit(text: str, rng: random.Random, report: Report) -> None:
    documents = Documents()
    uri = "untitled:t.nas"
    with errors_of_the_server():
        document = documents.open(uri, text, 1)
        with report.step("editor: findings", SECONDS):
            diagnostics_of(documents, document)
        at = Lines(document.analysis.text, documents.encoding).position(rng.randrange(len(document.analysis.text) + 1))
        name, whole = types.TextDocumentIdentifier(uri), types.Range(types.Position(0, 0), types.Position(10_000, 0))
        for method, function, _ in FEATURES:
            params = {
                types.TEXT_DOCUMENT_INLAY_HINT: types.InlayHintParams(name, whole),
                types.TEXT_DOCUMENT_CODE_ACTION: types.CodeActionParams(name, whole, types.CodeActionContext([])),
                types.TEXT_DOCUMENT_REFERENCES: types.ReferenceParams(types.ReferenceContext(True), name, at),
                types.TEXT_DOCUMENT_RENAME: types.RenameParams(name, at, "other"),
            }.get(method, types.HoverParams(name, at))
            with report.step(f"editor: {method.partition('/')[2]}", SECONDS), suppress(Refused):
                function(documents, document, params)
    report.count("answered to an editor")
