"""Diagnostics: findings about a source text, and the codes that define them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from nasdsl.diagnostics.span import Span

Severity = Literal["error", "warning"]

_LONG_WORD = re.compile(r"\S{100,}")


def printable(text: str) -> str:
    """Make a text safe to print on one line: shorten words of 100 characters and more, replace control characters."""
    cut = _LONG_WORD.sub(lambda word: f"{word[0][:60]}…{word[0][-8:]}", text)
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cut)


@dataclass(frozen=True, slots=True)
class Code:
    """The definition of a kind of diagnostic: its stable code and its ``nasdsl explain`` page.

    Attributes:
        code: ``NAS`` and three digits; never reused for another meaning.
        title: a few words that name the mistake.
        text: what it means and how to fix it, in full sentences.
        bad: a file with this mistake and no other.
        good: the same file, corrected.
        severity: a file that has only warnings passes.
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
        """Make a diagnostic of this kind at ``span``. Very long names in its texts are shortened."""
        return Diagnostic(self, span, printable(message), printable(label), printable(help), fix, tuple(related))


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """A finding about a source text.

    Attributes:
        definition: the kind of finding.
        span: the exact place.
        message: what was found.
        label: what was expected; printed next to the underlined place.
        help: how to fix it.
        fix: the text to put in place of ``span``; None unless the fix is certain.
        related: other places that matter, each with a short note.
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
        """The diagnostic as JSON fields. Lines and columns count from 1; the end is exclusive."""
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


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that ``word`` most likely misspells, or None."""
    known = list(dict.fromkeys(candidates))
    if len(word) > 64 or len(known) > 500:  # difflib is quadratic
        return None
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return close[0]
    folded = {c.lower().replace("_", ""): c for c in known}
    return folded.get(word.lower().replace("_", ""))
