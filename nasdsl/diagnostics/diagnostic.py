"""Diagnostics: findings about a source text, and the codes that define them."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from nasdsl.diagnostics.span import Span

Severity = Literal["error", "warning"]

MAX_CANDIDATES = 500
MAX_COMPARED = 50
MAX_WORD = 64
MIN_RATIO = 0.6
"""Limits of `did_you_mean`."""

_LONG_WORD = re.compile(r"\S{100,}")


def printable(text: str) -> str:
    """Make a text safe to print on one line: shorten words of 100 characters and more, replace control characters."""
    if len(text) < 100 and text.isprintable():  # what nearly all are
        return text
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
        """``NAS`` and three digits."""
        return self.definition.code

    @property
    def severity(self) -> Severity:
        """``"error"`` or ``"warning"``."""
        return self.definition.severity

    def to_json(self) -> dict[str, object]:
        """The diagnostic as JSON fields. Lines and columns count from 1; the end is exclusive."""
        end = self.span.tail(0)
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
    """The candidate that ``word`` most likely misspells, or None.

    That is the one with the highest `difflib` ratio, if it is at least 0.6, among the `MAX_COMPARED` candidates that have most
    characters in common with the word. Of more than `MAX_CANDIDATES` candidates none is suggested, and no more are looked at.
    So a text with many unknown names among many known ones is checked quickly.
    """
    known = _distinct(candidates)
    return None if len(word) > MAX_WORD or known is None else _most_alike(word, tuple(known))


@lru_cache(maxsize=256)
def _most_alike(word: str, known: tuple[str, ...]) -> str | None:
    """See `did_you_mean`. A wrong name in what is copied thousands of times is looked for once."""
    counts = Counter(word).items()
    bounds = {c: 2 * sum([min(c.count(letter), n) for letter, n in counts]) / (len(word) + len(c)) for c in known}
    close = sorted([c for c in known if bounds[c] >= MIN_RATIO], key=bounds.__getitem__, reverse=True)[:MAX_COMPARED]
    matcher = difflib.SequenceMatcher(b=word)
    best, found = MIN_RATIO, None
    for candidate in close:
        if bounds[candidate] < best:
            break
        matcher.set_seq1(candidate)
        ratio = matcher.ratio()
        if ratio > best or (ratio == best and (found is None or candidate > found)):
            best, found = ratio, candidate
    if found is not None:
        return found
    folded = {c.lower().replace("_", ""): c for c in known}
    return folded.get(word.lower().replace("_", ""))


def _distinct(words: Iterable[str]) -> list[str] | None:
    """The distinct words in order; None if there are more than `MAX_CANDIDATES`."""
    found: dict[str, None] = {}
    for word in words:
        found[word] = None
        if len(found) > MAX_CANDIDATES:
            return None
    return list(found)
