"""Folding: bodies and brackets of several lines, runs of comments, and of `use` statements."""

from __future__ import annotations

from lsprotocol.types import FoldingRange, FoldingRangeKind, FoldingRangeParams

from nasdsl.lsp.brackets import OpenBrackets
from nasdsl.lsp.documents import Document, Documents

_OPEN = ("LBRACE", "LPAR")
_SEEN = frozenset(("USE", *_OPEN, "RBRACE", "RPAR"))


def folding_ranges(documents: Documents, document: Document, params: FoldingRangeParams) -> list[FoldingRange]:
    analysis = document.analysis
    lines = analysis.lines
    found: dict[int, FoldingRange] = {}  # one a line, the longest
    opened = OpenBrackets[int]()  # with their lines
    uses: list[int] = []
    for token in analysis.tokens:
        if token.type not in _SEEN:
            continue
        line = lines.position(token.start).line
        if token.type in _OPEN:
            opened.open(token.type, line)
        elif token.type == "USE":
            uses.append(line)
        else:
            start = opened.close(token.type)
            if start is not None and line - 1 > start:
                found[start] = FoldingRange(start, line - 1, kind=FoldingRangeKind.Region)
    ranges = list(found.values())
    ranges += _runs(uses, FoldingRangeKind.Imports)
    comments = [n for n, start in enumerate(lines.starts) if analysis.text[start : lines.ends[n]].lstrip(" \t").startswith("#")]
    return sorted([*ranges, *_runs(comments, FoldingRangeKind.Comment)], key=lambda r: r.start_line)


def _runs(numbers: list[int], kind: FoldingRangeKind) -> list[FoldingRange]:
    """Consecutive lines as ranges, single ones left out."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        elif not runs or number != runs[-1][-1]:
            runs.append([number])
    return [FoldingRange(run[0], run[-1], kind=kind) for run in runs if len(run) > 1]
