"""Findings of the checker as diagnostics of an editor, and their fixes as code actions."""

from __future__ import annotations

from collections.abc import Sequence

from lsprotocol.types import (
    CodeAction,
    CodeActionKind,
    CodeActionParams,
    DiagnosticRelatedInformation,
    DiagnosticSeverity,
    DiagnosticTag,
    Location,
    TextEdit,
)
from lsprotocol.types import Diagnostic as Shown

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import lints
from nasdsl.lsp.analysis import Analysis
from nasdsl.lsp.documents import Document, Documents
from nasdsl.syntax import ast

SOURCE = "nasdsl"

KINDS = [CodeActionKind.QuickFix, CodeActionKind.SourceFixAll]


def diagnostics_of(documents: Documents, document: Document) -> list[Shown]:
    """The findings of ``nasdsl check``. One that lies in another file is shown where the text names that file."""
    return [_shown(documents, document, problem) for problem in document.analysis.problems]


def _shown(documents: Documents, document: Document, problem: Diagnostic) -> Shown:
    analysis = document.analysis
    message = "\n".join(
        part for part in (problem.message, problem.label, f"help: {problem.help}" if problem.help else "") if part
    )
    related = list(problem.related)
    span = problem.span
    if span.source is not analysis.source:
        related.insert(0, (span, problem.label or problem.message))
        message = f"{span}: {message}"
        span = _brings_in(analysis, span)
    return Shown(
        analysis.lines.range_of(span),
        message,
        DiagnosticSeverity.Error if problem.severity == "error" else DiagnosticSeverity.Warning,
        code=problem.code,
        source=SOURCE,
        tags=[DiagnosticTag.Unnecessary] if problem.code == lints.UNREAD.code else None,
        related_information=[
            DiagnosticRelatedInformation(Location(place[0], place[1].range_of(other)), text or problem.message)
            for other, text in related
            if (place := documents.place(analysis, other, document.uri)) is not None
        ],
    )


def _brings_in(analysis: Analysis, span: Span) -> Span:
    """The statement of the text that brings in the file of a finding: `use` or `from`; else its first character."""
    path = analysis.path_of(span.source)
    statements: list[tuple[Span, str]] = []
    for item in analysis.file.items:
        if isinstance(item, ast.Use):
            statements.append((item.span, item.path))
        elif isinstance(item, ast.Decoder):
            statements += [(i.span, i.source) for i in item.items if isinstance(i, ast.Fpn | ast.Head) and i.source]
    for statement, name in statements:
        if path is not None and analysis.path is not None and (analysis.path.parent / name).resolve() == path.resolve():
            return statement
    return statements[0][0] if statements else Span(analysis.source, 0, 0)


# ------------------------------------------------------------------------------------------------------------ fixes


def code_actions(documents: Documents, document: Document, params: CodeActionParams) -> list[CodeAction]:
    """The fixes of the findings in a range, a comment that allows each warning, and all certain fixes of the text at once."""
    analysis = document.analysis
    lines = analysis.lines
    start, end = lines.offset(params.range.start), lines.offset(params.range.end)
    own = [p for p in analysis.problems if p.span.source is analysis.source]
    here = [p for p in own if p.span.start <= end and start <= p.span.end]
    only = params.context.only
    actions: list[CodeAction] = []
    if _wanted(CodeActionKind.QuickFix, only):
        for problem in here:
            if problem.fix is not None:
                edit = TextEdit(lines.range_of(problem.span), problem.fix)
                actions.append(_action(documents, document, _title(problem), CodeActionKind.QuickFix, [edit], problem))
        for problem in here:
            if problem.severity == "warning":
                title = f"Allow {problem.code} on this line"
                edit = _allow(analysis, problem)
                actions.append(_action(documents, document, title, CodeActionKind.QuickFix, [edit], problem, preferred=False))
    fixes = _apart([p for p in own if p.fix is not None])
    if fixes and _wanted(CodeActionKind.SourceFixAll, only):
        edits = [TextEdit(lines.range_of(p.span), p.fix or "") for p in fixes]
        actions.append(_action(documents, document, "Apply all fixes of nasdsl", CodeActionKind.SourceFixAll, edits, None))
    return actions


def _wanted(kind: str, only: Sequence[str] | None) -> bool:
    return not only or any(kind == k or kind.startswith(f"{k}.") for k in only)


def _action(
    documents: Documents,
    document: Document,
    title: str,
    kind: CodeActionKind,
    edits: list[TextEdit],
    problem: Diagnostic | None,
    *,
    preferred: bool = True,
) -> CodeAction:
    return CodeAction(
        title,
        kind,
        diagnostics=None if problem is None else [_shown(documents, document, problem)],
        is_preferred=preferred if problem is not None else None,
        edit=documents.edit({document.uri: edits}),
    )


def _title(problem: Diagnostic) -> str:
    old, new = (" ".join(text.split()) for text in (problem.span.text, problem.fix or ""))
    if not old:
        return f"Insert `{new}`"
    return f"Replace `{old[:40]}` by `{new[:60]}`" if new else f"Remove `{old[:40]}`"


def _allow(analysis: Analysis, problem: Diagnostic) -> TextEdit:
    """The comment that allows a warning, at the end of its line; behind the codes that the line allows already."""
    source = analysis.source
    line = source.line_text(problem.span.line)
    end = source.line_starts[problem.span.line - 1] + len(line)
    comment = f" {problem.code}" if "nas: allow" in line else f"  # nas: allow {problem.code}"
    if "#" in line and "nas: allow" not in line:
        comment = f" nas: allow {problem.code}"
    return TextEdit(analysis.lines.range(end, end), comment)


def _apart(problems: list[Diagnostic]) -> list[Diagnostic]:
    """Findings whose places do not touch, so that their fixes can be applied together."""
    kept: list[Diagnostic] = []
    for problem in sorted(problems, key=lambda p: p.span.start):
        if not kept or problem.span.start > kept[-1].span.end:
            kept.append(problem)
    return kept
