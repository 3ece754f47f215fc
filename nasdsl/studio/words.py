"""What may be written in a text, for completion and for what the page shows under the mouse."""

from __future__ import annotations

from typing import Any

from nasdsl.backbones import BACKBONES
from nasdsl.lsp import describe
from nasdsl.predictions import find_kind, known_kinds
from nasdsl.semantics.infer_detector import ATTRIBUTES as DETECTOR_ATTRIBUTES
from nasdsl.semantics.infer_fpn import ATTRIBUTES as FPN_ATTRIBUTES
from nasdsl.semantics.infer_head import ATTRIBUTES as HEAD_ATTRIBUTES
from nasdsl.semantics.primitives import PRIMITIVES
from nasdsl.semantics.vocabulary import prelude
from nasdsl.syntax import ast
from nasdsl.syntax.lexer import WORDS


def words() -> list[dict[str, str]]:
    """Each word with its ``kind`` and, in ``info``, what it is, as Markdown. Of two with one name the first one counts."""
    found: dict[str, dict[str, str]] = {}

    def add(label: str, kind: str, info: str) -> None:
        found.setdefault(label, {"label": label, "kind": kind, "info": info})

    for word in WORDS:
        add(word, "keyword", describe.KEYWORDS.get(word, ""))
    for name, definition in prelude().definitions.items():
        node = definition.definition
        comment = describe.comment_above(node.span.source, node.span.start)
        kind = "block" if isinstance(node, ast.BlockDef) else "aggregation" if node.kind == "agg" else "op"
        add(name, kind, "\n\n".join(part for part in (describe.code(node.span.text), comment) if part))
    for name, primitive in PRIMITIVES.items():
        add(name, "primitive", describe.primitive(primitive))
    for name in known_kinds():
        kind_class = find_kind(name)
        add(name, "prediction", " ".join(((kind_class.__doc__ if kind_class else "") or "").split("\n\n")[0].split()))
    for attributes in (FPN_ATTRIBUTES, HEAD_ATTRIBUTES, DETECTOR_ATTRIBUTES):
        for name, accepts in attributes.items():
            add(name, "attribute", describe.attribute(name, accepts))
    for name, text in describe.TOWERS.items():
        add(name, "tower", text)
    for name, text in describe.QUANTITIES.items():
        add(name, "quantity", text)
    return list(found.values())


def start() -> dict[str, Any]:
    """What the page needs once: `words`, and the backbones with a line about each."""
    from nasdsl import __version__, resources

    return {
        "version": __version__,
        "words": words(),
        "backbones": [{"name": name, "about": make(name).description} for name, make in BACKBONES.items()],
        "zoo": resources.zoo_entries(),
    }
