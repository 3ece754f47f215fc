"""One finding about a source text, and the error that carries several."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from nasdsl.diagnostics.span import Span

Severity = Literal["error", "warning"]


_LONG_WORD = re.compile(r"\S{100,}")


def shown(text: str) -> str:
    """A text as it may be printed in one line: words of 100 characters cut, and nothing in it that steers a terminal."""
    cut = _LONG_WORD.sub(lambda word: f"{word[0][:60]}…{word[0][-8:]}", text)
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cut)


@dataclass(frozen=True, slots=True)
class Code:
    """The definition of a diagnostic: its stable code and its ``nasdsl explain`` page.

    Attributes:
        code: ``NAS`` and three digits; never reused for another meaning.
        title: a few words that name the mistake.
        text: what it means and how to mend it, in full sentences.
        bad: a file that has just this mistake.
        good: the same file, mended.
        severity: a ``warning`` does not make a file fail.
    """

    code: str
    title: str
    text: str
    bad: str
    good: str
    severity: Severity = "error"

    def __call__(
        self,
        span: Span,
        message: str,
        *,
        label: str = "",
        help: str = "",
        fix: str | None = None,
        related: Iterable[tuple[Span, str]] = (),
    ) -> Diagnostic:
        """A finding of this kind at ``span``. Names of unreasonable length are cut where they are spoken of."""
        return Diagnostic(self, span, shown(message), shown(label), shown(help), fix, tuple(related))


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """A finding: what was found, what was expected, where, and how to mend it.

    Attributes:
        definition: the kind of finding.
        span: the exact place.
        message: what was found.
        label: what was expected; printed beside the underlined place.
        help: how to mend it.
        fix: the text that mends the file when put in place of ``span``, only where that is certain.
        related: other places that matter, each with a few words.
    """

    definition: Code
    span: Span
    message: str
    label: str = ""
    help: str = ""
    fix: str | None = None
    related: tuple[tuple[Span, str], ...] = ()

    @property
    def code(self) -> str:
        return self.definition.code

    @property
    def severity(self) -> Severity:
        return self.definition.severity

    def to_json(self) -> dict[str, object]:
        """The finding as JSON fields; lines and columns count from 1, the end is exclusive."""
        end = Span(self.span.source, self.span.end, self.span.end)
        return {
            "code": self.code,
            "severity": self.severity,
            "title": self.definition.title,
            "message": self.message,
            "expected": self.label,
            "help": self.help,
            "fix": self.fix,
            "file": self.span.source.name,
            "line": self.span.line,
            "column": self.span.column,
            "end_line": end.line,
            "end_column": end.column,
            "related": [
                {"file": span.source.name, "line": span.line, "column": span.column, "message": text}
                for span, text in self.related
            ],
        }


class DiagnosticError(ValueError):
    """A text that does not check. ``diagnostics`` holds every finding, errors and warnings, in the order of the text."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        from nasdsl.diagnostics.render import render_all

        return "\n" + render_all(self.diagnostics)


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that ``word`` is most likely a misspelling of, or None."""
    known = list(dict.fromkeys(candidates))
    if len(word) > 64 or len(known) > 500:  # difflib is quadratic; such a word is no misspelling
        return None
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return close[0]
    folded = {c.lower().replace("_", ""): c for c in known}
    return folded.get(word.lower().replace("_", ""))
