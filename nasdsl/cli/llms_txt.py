"""The page for language models: what nasdsl is, its commands and its pages, with an example to start from.

``python -m nasdsl.cli.llms_txt docs`` generates ``docs/llms.txt`` from the commands' help, the first sentences of the pages and
the zoo. The form is that of https://llmstxt.org.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nasdsl import resources
from nasdsl.cli import COMMANDS
from nasdsl.diagnostics.catalogue import CODES

ABOUT: Final = """\
# nasdsl

> nasdsl is a language (`.nas`) for the decoders of object detectors, which are the feature pyramid (`fpn`) and the head, and \
a compiler: a text becomes a checked graph, exact multiply-accumulates and parameters, a diagram, a PyTorch module. A decoder \
with holes (`?`) is a search space, and `nasdsl search` searches it.

How to write a decoder that checks:

- Start from a decoder of the zoo that is close to what you want (`nasdsl zoo NAME` prints its text).
- `nasdsl check FILE` reports all mistakes at once, each with its place and how to mend it; `nasdsl explain CODE` says more.
- White space and line ends mean nothing; `#` begins a comment. Outside of `repeat` a name is bound once. Inputs are the \
backbone's features, such as `c3`; outputs are levels of the pyramid, such as `p3`. Operands are resized to one level by \
themselves; their widths must agree (NAS306).
- `nasdsl grammar --format gbnf|llguidance|lark` prints the grammar for constrained decoding, and with a space that of its \
fillings alone. `nasdsl mcp FOLDER` serves check, cost, render and sample as tools."""


def page(docs: Path) -> str:
    """The text of ``llms.txt``.

    Args:
        docs: the folder of the pages.
    """
    parts = [
        ABOUT,
        "## A decoder\n\n```nas\n" + _text("fcos") + "```",
        "## A search space\n\n```nas\n" + _text("nas_fcos_head") + "```",
        "## Commands\n\n" + "\n".join(f"- `nasdsl {c.name}`: {c.get_short_help_str(200)}" for c in COMMANDS),
        "## Pages\n\n" + "\n".join(_pages(docs)),
        "## Diagnostics\n\n" + "\n".join(f"- {entry.code}: {entry.title}" for entry in CODES.values()),
    ]
    return "\n\n".join(parts) + "\n"


def _text(name: str) -> str:
    return resources.zoo()[name].read_text(encoding="utf-8")


def _pages(docs: Path) -> Iterator[str]:
    for path in sorted(docs.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        title = text.splitlines()[0].lstrip("# ").replace("`", "")
        yield f"- [{title}]({path.name}): {_first_sentence(text)}"


def _first_sentence(text: str) -> str:
    """The first sentence of the first paragraph that is no code, without links."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    paragraphs = [p for p in prose.split("\n\n")[1:] if p.strip() and (p[0].isalpha() or p[0] in "`[")]
    flat = " ".join(paragraphs[0].split())
    flat = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", flat)
    return re.split(r"(?<=[.?])\s", flat)[0].rstrip(":")


def main() -> None:
    """Write the page to the folder that the command names."""
    (docs,) = map(Path, sys.argv[1:])
    (docs / "llms.txt").write_text(page(docs), encoding="utf-8")


if __name__ == "__main__":
    main()
