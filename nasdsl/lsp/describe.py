"""What ops, primitives, attributes and words of the language are, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from nasdsl.diagnostics import Source
from nasdsl.semantics import primitives
from nasdsl.semantics.attributes import Accepts
from nasdsl.semantics.primitives import CONSTANTS, Primitive
from nasdsl.semantics.resolved_names import Symbol
from nasdsl.syntax import ast

KEYWORDS: Final[Mapping[str, str]] = {
    "use": '`use "file.nas"` imports the ops, aggregations, blocks and choices of another file.',
    "op": "`op name(x, k=3) = …` defines an op: an expression over its operands. Parameters with a value are attributes.",
    "agg": "`agg name(x, y) = …` defines an op that combines several features into one.",
    "choice": "`choice name = a | b` lists the alternatives of the hole `?name`.",
    "block": "`block name(a, n=2) -> (s, d) { … }` defines statements that take several features and give several.",
    "decoder": "`decoder name { … }`: inputs, an fpn, a head, and what is predicted.",
    "input": "`input c3, c4, c5`: the backbone features that the fpn reads; cK has stride 2^K.",
    "detector": "`detector(size=240x320, backbone=mobilenet_v2)`: the detector that the decoder is for.",
    "require": "`require macs <= 120G`: a limit on macs, params, dangling, latency, or count(op).",
    "predict": "`predict fcos(centerness=cls)`: what is predicted.",
    "fpn": "`fpn(width=256, norm=bn) { … }`: the statements that compute the pyramid.",
    "head": "`head(width=256, norm=gn, share=0) { conv_3x3 -> conv_3x3 }`: chains of layers, applied to every level.",
    "from": '`fpn from "file.nas"` takes the section of the decoder in that file.',
    "output": "`output p3 = x` names a level of the pyramid; pK has stride 2^K.",
    "merge": "`merge dangling into p3, p4` adds the values that nothing reads to outputs, or to values.",
    "dangling": "Values that nothing reads, and that are no outputs.",
    "into": "`merge dangling into p3, p4`: what dangling values are added to.",
    "repeat": "`repeat 3 { … }`, or `repeat t in 1..3 { … }` with a variable.",
    "in": "`repeat t in 1..3`; as the value of an attribute, the width of the operand.",
    "let": "`let k = 3` binds a word to a number, to another word or to a hole.",
    "shared": "`shared f(x) = …` defines an op whose weights exist once, for all its calls.",
    "at": "`require macs <= 120G at 800x1088`: the image size.",
    "on": "`require latency <= 15ms on onnxruntime`: the runtime.",
    "distinct": "Behind a call: no two of its operands are the same value.",
}
"""The words of the language."""

TOWERS: Final[Mapping[str, str]] = {
    "cls": "The tower of the classes.",
    "box": "The tower of the boxes.",
    "both": "The trunk: layers that both towers go on from.",
}

QUANTITIES: Final[Mapping[str, str]] = {
    "macs": "Multiply-accumulates of fpn and head, for one image.",
    "params": "Parameters of fpn and head.",
    "dangling": "Number of values that nothing reads.",
    "latency": "Time of one image, which `nasdsl latency` measures.",
    "count": "Number of calls of an op.",
}


def code(text: str) -> str:
    return f"```nas\n{text}\n```"


def definition(symbol: Symbol) -> str:
    """An op, block or choice: its text, the comment above it, and where it stands."""
    node = symbol.meaning
    text = node.span.text
    if isinstance(node, ast.BlockDef):
        text = text[: text.index("{") + 1] + " … }" if len(node.body) > 8 else text
    where = f"{node.span.source.name.rpartition('/')[2]}, line {node.name_span.line}"
    parts = [code(_dedented(text)), comment_above(node.span.source, node.span.start), f"*{where}*"]
    return "\n\n".join(part for part in parts if part)


def comment_above(source: Source, offset: int) -> str:
    """The comment of a definition: the lines with `#` above it, or above the definitions that it stands in a row with."""
    above, comments = _comments(source)
    return comments[above[source.span(offset, offset).line - 1]]


@lru_cache(maxsize=8)
def _comments(source: Source) -> tuple[list[int], list[str]]:
    """For each line the number of the comment above it, and the comments, of which 0 is none: completion asks for all lines."""
    above: list[int] = []
    comments: list[list[str]] = [[]]
    current, was_comment = 0, False
    for number in range(1, len(source.line_starts) + 1):
        above.append(current)
        line = source.line_text(number).strip()
        is_comment = line.startswith("#")
        if is_comment:
            if not was_comment:
                current = len(comments)
                comments.append([])
            comments[current].append(line.lstrip("# ").rstrip("- "))
        elif not line:
            current = 0
        was_comment = is_comment
    return above, [" ".join(filter(None, lines)) for lines in comments]


def primitive(found: Primitive) -> str:
    """A primitive: how it is called, what it does, and what its attributes accept."""
    operands = "x" if found.most == 1 else "x, y, …" if found.least > 1 else "…"
    attributes = {name: accepts for name, accepts in found.attributes.items() if name not in CONSTANTS}
    names = [name if accepts.default is None else f"{name}={accepts.default}" for name, accepts in attributes.items()]
    parts = [code(f"{found.name}({', '.join([operands, *names])})"), primitives.meaning(found.name)]
    listed = [f"- {attribute(name, accepts)}" for name, accepts in attributes.items()]
    if listed:
        parts.append("\n".join(listed))
    return "\n\n".join(part for part in parts if part)


def attribute(name: str, accepts: Accepts | None) -> str:
    """``k``: an odd number from 1 to 63; it must be set."""
    if accepts is None:
        return f"`{name}`"
    if accepts.default is not None:
        default = f"; default `{accepts.default}`"
    else:
        default = "" if accepts.optional or accepts.kind in ("feature", "value", "op") else "; it must be set"
    return f"`{name}`: {accepts.expectation()}{default}"


def _dedented(text: str) -> str:
    first, *rest = text.split("\n")
    indents = [len(line) - len(line.lstrip(" ")) for line in rest if line.strip()]
    cut = min(indents, default=0)
    return "\n".join([first, *(line[cut:] for line in rest)])
