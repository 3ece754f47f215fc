"""Diagnostics as text for a terminal, laid out as rustc does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from nasdsl.diagnostics.catalogue import CODES
from nasdsl.diagnostics.diagnostic import Diagnostic
from nasdsl.diagnostics.span import Span

_STYLES = {"error": "1;31", "warning": "1;33", "bold": "1", "frame": "1;34", "help": "1;36"}
_MAX_COLUMNS = 160  # a longer source line is cut around the underlined place


def _paint(text: str, style: str, color: bool) -> str:
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if color and text else text


def _excerpt(span: Span) -> tuple[str, int, int]:
    """The source line of ``span``, at most `_MAX_COLUMNS` of it, and where to underline it: start and length in columns."""
    line = span.source.line_text(span.line)
    start = span.column - 1
    length = max(1, min(span.end - span.start, len(line) - start))
    if len(line) > _MAX_COLUMNS:
        left = max(0, min(start - _MAX_COLUMNS // 4, len(line) - _MAX_COLUMNS))
        head = "…" if left else ""
        tail = "…" if left + _MAX_COLUMNS < len(line) else ""
        line = head + line[left : left + _MAX_COLUMNS] + tail
        start = start - left + len(head)
        length = max(1, min(length, len(line) - start))
    before = line[:start].replace("\t", "    ")
    # A place between two characters is one column, also in front of a tab.
    under = line[start : start + length].replace("\t", "    ") if span.end > span.start else ""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line.replace("\t", "    "))
    return line, len(before), max(1, len(under))


class _Frame(NamedTuple):
    """A place to print: its source line, underlined with `mark`, and a label."""

    span: Span
    label: str
    mark: str
    style: str


def _frames(frames: list[_Frame], gutter: int, color: bool) -> list[str]:
    """The frames of one source in the order of its lines. Neighbouring frames of one line share the printed line."""
    out: list[str] = []
    bar = _paint("|", "frame", color)
    above = ""
    for span, label, mark, style in sorted(frames, key=lambda f: f.span.line):
        line, start, length = _excerpt(span)
        number = _paint(str(span.line).rjust(gutter), "frame", color)
        shown = f" {number} {bar} {line}".rstrip()
        if shown != above:
            out.append(shown)
            above = shown
        under = _paint(mark * length + (f" {label}" if label else ""), style, color)
        out.append(f" {' ' * gutter} {bar} {' ' * start}{under}")
    return out


def render(diagnostic: Diagnostic, *, color: bool = False) -> str:
    """Format a diagnostic: headline, ``file:line:column``, the underlined source line, related places, help."""
    places = [diagnostic.span, *(span for span, _ in diagnostic.related)]
    gutter = max(len(str(place.line)) for place in places)
    severity = diagnostic.severity
    pad = " " * gutter
    bar = _paint("|", "frame", color)
    out = [
        _paint(f"{severity}[{diagnostic.code}]", severity, color) + _paint(f": {diagnostic.message}", "bold", color),
        f" {pad}{_paint('-->', 'frame', color)} {diagnostic.span}",
        f" {pad} {bar}",
    ]
    related = [_Frame(span, text, "-", "frame") for span, text in diagnostic.related]
    here = diagnostic.span.source
    main = _Frame(diagnostic.span, diagnostic.label, "^", severity)
    out += _frames([main, *(f for f in related if f.span.source is here)], gutter, color)
    for frame in related:
        if frame.span.source is not here:
            out += [f" {pad}{_paint('-->', 'frame', color)} {frame.span}", *_frames([frame], gutter, color)]
    if diagnostic.help:
        out += [f" {pad} {bar}", f" {pad} {_paint('=', 'frame', color)} {_paint('help', 'help', color)}: {diagnostic.help}"]
    return "\n".join(out)


def render_all(diagnostics: Iterable[Diagnostic], *, color: bool = False) -> str:
    """Format diagnostics with a blank line between them."""
    return "\n\n".join(render(d, color=color) for d in diagnostics)


def explain(code: str) -> str | None:
    """The ``nasdsl explain`` page of a code, with a wrong and a right example; None for an unknown code."""
    entry = CODES.get(code.upper())
    if entry is None:
        return None

    def indent(text: str) -> str:
        return "\n".join(f"    {line}".rstrip() for line in text.strip("\n").splitlines())

    return (
        f"{entry.code}: {entry.title} ({entry.severity})\n\n{entry.text}\n\n"
        f"Wrong:\n\n{indent(entry.bad)}\n\nRight:\n\n{indent(entry.good)}\n"
    )
