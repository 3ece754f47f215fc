"""What is printed in a picture: expressions, figures, places in the text; and how wide print is."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nasdsl.backends.cost import CostTable, PartCost
from nasdsl.diagnostics import Span

LINE_LENGTH = 36
"""Characters of an expression on one line of a box."""


def expression(span: Span) -> str:
    """The right-hand side of a statement (the whole text of an expression), on one line, without comments."""
    text = " ".join(re.sub(r"#[^\n]*", " ", span.text).split())
    return re.sub(r"^[\w\[\].,+*\s-]+=\s*", "", text)


def shorten(text: str, length: int) -> str:
    """At most so many characters, an ellipsis in place of the rest."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def format_count(count: int) -> str:
    """Three digits and a unit: ``1.23 G``, ``456 k``, ``7``."""
    number = float(count)
    for unit in ("", " k", " M", " G"):
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} T" if number < 999.5 else f"{number:.0f} T"


def cost_summary(table: CostTable) -> str:
    """The figures of the whole, for the title."""

    def part(name: str, figures: PartCost) -> str:
        return f"{name} {format_count(figures.macs)} MACs, {format_count(figures.params)} params"

    height, width = table.size
    return f"{height}x{width} px · {table.classes} classes · {part('fpn', table.fpn)} · {part('head', table.head)}"


def cost_label(width: int, macs: int, params: int) -> str:
    """Width and cost of a value: ``256 ch · 1.21 G MACs · 1.43 M params``; costs of zero are left out."""
    parts = [f"{width} ch"]
    if macs:
        parts.append(f"{format_count(macs)} MACs")
    if params:
        parts.append(f"{format_count(params)} params")
    return " · ".join(parts)


def wrap_text(text: str, length: int = LINE_LENGTH, lines: int = 2) -> list[str]:
    """An expression on at most so many lines, broken behind commas where that fits; an ellipsis for what is left out."""
    rows: list[str] = []
    while text and len(rows) < lines:
        if len(text) <= length or len(rows) == lines - 1:
            rows.append(shorten(text, length))
            break
        cut = text.rfind(", ", 0, length) + 1 or text.rfind(" ", 0, length) + 1 or length
        rows.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return rows


def tooltip(span: Span) -> str:
    """``file:line`` and the source text, for a tooltip."""
    return f"{span.source.name}:{span.line}\n{shorten(span.text, 400)}"


def text_width(text: str, size: float) -> float:
    """Width of a text in points, from above."""
    return size * sum(_NARROW.get(c, 0.64) for c in text)


_NARROW: Mapping[str, float] = {
    **dict.fromkeys("ijl'|", 0.29), **dict.fromkeys(" .,:;·", 0.33), **dict.fromkeys("()[]ftr-I", 0.41),
    **dict.fromkeys("sczvxykaLTFEPSZ_J", 0.58), **dict.fromkeys("ACDGHNOQRUVXYKw→+=…↑↓", 0.82), **dict.fromkeys("mMW", 0.98),
}  # fmt: skip
