"""A page for each diagnostic, made of the catalogue: what it means, a wrong text and what is printed for it, the right text."""

from __future__ import annotations

import html
import re
from typing import Any, Final

from nasdsl.diagnostics import Code, render_all
from nasdsl.diagnostics.catalogue import CODES
from website.files import fence
from website.findings import findings_of_example

FAMILIES: Final = {
    "1": "What is no text of the language",
    "2": "What a word refers to",
    "3": "Operands, attributes, widths, levels, predictions, requirements",
    "4": "What a decoder must have; files used by files",
    "5": "Decoders with holes",
    "9": "Warnings",
}
"""What the codes are about, by their first digit."""

_STYLES: Final = {"1": "bold", "1;31": "error", "1;33": "warning", "1;34": "frame", "1;36": "help"}
"""Classes of ``assets/site.css`` for the colours of `nasdsl.diagnostics.render`."""


def pages() -> dict[str, str]:
    """Markdown by place: the list of the diagnostics, and a page for each."""
    parts = [
        "# Diagnostics",
        "`nasdsl check` reports all mistakes of a file at once. Each has a code, which has a page here; "
        "`nasdsl explain CODE` prints the same on a terminal. A file that has warnings only passes; "
        "[a comment allows a warning](../language.md#warnings) where it is meant.",
    ]
    for digit, about in FAMILIES.items():
        rows = [f"| [{c.code}]({c.code}.md) | {_plain(c.title)} |" for c in CODES.values() if c.code[3] == digit]
        parts.append(
            f"## NAS{digit}xx: {about[0].lower()}{about[1:]}\n\n" + "\n".join(["| code | mistake |", "|---|---|", *rows])
        )
    found = {"diagnostics/index.md": "\n\n".join(parts) + "\n"}
    return found | {f"diagnostics/{code}.md": _page(entry) for code, entry in CODES.items()}


def navigation() -> list[Any]:
    """The list in the navigation, grouped by the first digit."""
    groups = [
        {f"NAS{digit}xx: {about[0].lower()}{about[1:]}": [f"diagnostics/{code}.md" for code in CODES if code[3] == digit]}
        for digit, about in FAMILIES.items()
    ]
    return ["diagnostics/index.md", *groups]


def _page(entry: Code) -> str:
    printed = terminal(render_all(findings_of_example(entry.code), color=True))
    kind = "A warning: the file still passes." if entry.severity == "warning" else "An error."
    parts = [
        f"# {entry.code}: {_plain(entry.title)}",
        f"{kind} {_code_only(entry.text)}",
        "## Wrong",
        fence(entry.bad, "nas"),
        printed,
        "## Right",
        fence(entry.good, "nas"),
    ]
    return "\n\n".join(parts) + "\n"


def terminal(text: str) -> str:
    """A text with colours of a terminal as HTML."""
    inner = re.sub(
        r"\x1b\[([\d;]+)m(.*?)\x1b\[0m",
        lambda found: f'<span class="nas-{_STYLES[found[1]]}">{found[2]}</span>',
        html.escape(text),
    )
    return f'<pre class="terminal"><code>{inner}</code></pre>'


def _plain(title: str) -> str:
    return re.sub(r"([*_|])", r"\\\1", title)


def _code_only(text: str) -> str:
    """Plain text as Markdown, in which only single backquotes mean something."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"([*_\[\]])", r"\\\1", html.escape(part, quote=False)) for part in parts[::2]]
    return "".join(parts)
