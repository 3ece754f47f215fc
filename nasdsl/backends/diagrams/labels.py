"""Text of labels in a diagram: expressions, costs and tooltips; and the width of text."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nasdsl.backends.cost import CostTable, PartCost
from nasdsl.diagnostics import Span

LINE_LENGTH = 36
"""Maximum characters of an expression on one line of a box."""


def expression(span: Span) -> str:
    """Right-hand side of a statement (or an expression as it is), on one line, without comments."""
    text = " ".join(re.sub(r"#[^\n]*", " ", span.text).split())
    return re.sub(r"^[\w\[\].,+*\s-]+=\s*", "", text)


def step_expression(span: Span) -> str:
    """A layer of a head's chain, on one line: of ``conv_3x3 * 4``, which is four layers, what each of them is."""
    text, depth = expression(span), 0
    for place, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "*" and not depth:
            return text[:place].rstrip()
    return text


def shorten(text: str, length: int) -> str:
    """Cut a text to at most `length` characters, the last one an ellipsis."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def format_count(count: int) -> str:
    """Format a number with three significant digits and a unit: ``1.23 G``, ``456 k``, ``7``."""
    number = float(count)
    for unit in ("", " k", " M", " G"):
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} T" if number < 999.5 else f"{number:.0f} T"


def cost_summary(table: CostTable) -> str:
    """Costs of fpn and head, for the title."""

    def part(name: str, total: PartCost) -> str:
        return f"{name} {format_count(total.macs)} MACs, {format_count(total.params)} params"

    height, width = table.size
    return f"{height}x{width} px · {table.classes} classes · {part('fpn', table.fpn)} · {part('head', table.head)}"


def cost_label(width: int, macs: int, params: int) -> str:
    """Channels and costs of a value: ``256 ch · 1.21 G MACs · 1.43 M params``. What is zero is omitted."""
    parts = [f"{width} ch"] if width else []
    if macs:
        parts.append(f"{format_count(macs)} MACs")
    if params:
        parts.append(f"{format_count(params)} params")
    return " · ".join(parts)


def wrap_text(text: str, length: int = LINE_LENGTH, lines: int = 2) -> list[str]:
    """Break an expression into at most `lines` lines, after commas if possible. An ellipsis stands for the rest."""
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
    """Tooltip of a span: ``file:line`` and its text."""
    return f"{span.source.name}:{span.line}\n{shorten(span.text, 400)}"


def text_width(text: str, size: float) -> float:
    """Upper bound on the width of a text in points.

    Args:
        size: font size.
    """
    return size * sum(_WIDTHS.get(c, 0.64) for c in text)


_WIDTHS: Mapping[str, float] = {
    **dict.fromkeys("ijl'|", 0.29), **dict.fromkeys(" .,:;·", 0.33), **dict.fromkeys("()[]ftr-I", 0.41),
    **dict.fromkeys("sczvxykaLTFEPSZ_J", 0.58), **dict.fromkeys("ACDGHNOQRUVXYKw→+=…↑↓", 0.82), **dict.fromkeys("mMW", 0.98),
}  # fmt: skip
