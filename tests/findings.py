"""What holds of every finding about every text, computed apart from the package: used wherever tests make findings."""

from __future__ import annotations

import re

from nasdsl.decoder import check_source
from nasdsl.diagnostics import Diagnostic, Source, render
from nasdsl.semantics.check import Checked

JSON_FIELDS = {
    "code", "severity", "title", "message", "expected", "help", "fix", "file", "line", "column", "end_line", "end_column",
    "related",
}  # fmt: skip


def checked(text: str, name: str = "t.nas") -> Checked:
    """Check a text, and what must hold of any outcome."""
    outcome = check_source(Source(name, text))
    errors = [d for d in outcome.problems if d.severity == "error"]
    assert not (errors and outcome.architecture), "a text with an error gave an architecture"
    for finding in outcome.problems:
        assert_sane(finding, text)
    return outcome


def place(text: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset, both from 1."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def assert_sane(finding: Diagnostic, text: str) -> None:
    """The span lies in the text, line and column are right, JSON says the same, and the place is what is underlined."""
    span = finding.span
    assert finding.message
    assert finding.message.isprintable(), repr(finding.message)
    if span.source.text != text:
        assert finding.related, "a finding in another file is no finding about this one"
        return
    assert 0 <= span.start <= span.end <= len(text)
    line, column = place(text, span.start)
    assert (span.line, span.column) == (line, column)
    assert str(span) == f"{span.source.name}:{line}:{column}"
    fields = finding.to_json()
    assert set(fields) == JSON_FIELDS
    assert (fields["line"], fields["column"]) == (line, column)
    assert (fields["end_line"], fields["end_column"]) == place(text, span.end)
    assert fields["code"] == finding.code
    assert fields["severity"] == finding.severity
    for other, _ in finding.related:
        assert 0 <= other.start <= other.end <= len(other.source.text)
    assert_underlined(finding, text)


def assert_underlined(finding: Diagnostic, text: str) -> None:
    """Under the source line, the marks stand below the characters of the span."""
    rendered = render(finding)
    head, *rows = rendered.split("\n")
    assert head == f"{finding.severity}[{finding.code}]: {finding.message}"
    marked = next(i for i, row in enumerate(rows) if re.match(r" +\| +\^| +\| \^", row))
    bar = rows[marked].index(" | ") + 3
    marks = rows[marked][bar:]
    start = len(marks) - len(marks.lstrip(" "))
    length = len(marks.lstrip(" ")) - len(marks.lstrip(" ").lstrip("^"))
    above = next(row for row in reversed(rows[:marked]) if row[: bar - 3].strip().isdigit())
    assert int(above[: bar - 3]) == finding.span.line
    shown = above[bar:]
    line_end = text.find("\n", finding.span.start)
    first_line = text[finding.span.start : min(finding.span.end, line_end if line_end >= 0 else len(text))].rstrip("\r")
    expected = "".join(c if c.isprintable() else "\ufffd" for c in first_line.replace("\t", "    "))
    before = text[text.rfind("\n", 0, finding.span.start) + 1 : finding.span.start].replace("\t", "    ")
    if "…" not in (shown[:1], shown[-1:]):
        assert start == len(before)
    if not expected:
        assert length == 1  # a place between characters
    elif shown[-1:] == "…":
        assert expected.startswith(shown[start : start + length].rstrip("…"))
    else:
        assert shown[start : start + length].rstrip() == expected.rstrip()
        assert length == len(expected)


def fixed(text: str, finding: Diagnostic) -> str:
    """The text with a finding's own fix put in at its place."""
    assert finding.fix is not None
    return text[: finding.span.start] + finding.fix + text[finding.span.end :]


def assert_fixes_work(text: str) -> int:
    """Every fix that a finding offers takes that finding away; gives the number of fixes tried."""
    before = check_source(Source("t.nas", text)).problems
    tried = 0
    for finding in before:
        if finding.fix is None or finding.span.source.text != text:
            continue
        tried += 1
        after = check_source(Source("t.nas", fixed(text, finding))).problems
        moved = len(finding.fix) - (finding.span.end - finding.span.start)
        still = [
            d
            for d in after
            if (d.code, d.message) == (finding.code, finding.message)
            and finding.span.start <= d.span.start <= finding.span.start + max(moved, 0)
        ]
        assert not still, f"{finding.fix!r} does not take away: {finding.message}\n{fixed(text, finding)}"
    return tried
