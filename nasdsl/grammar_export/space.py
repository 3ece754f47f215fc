"""The grammar of a space's fillings, in each format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from nasdsl.grammar_export import gbnf, lark, llguidance
from nasdsl.grammar_export.ebnf import GrammarError
from nasdsl.grammar_export.expressions import Expression, Gap, Literal, Rule, optional, sequence
from nasdsl.grammar_export.filling import FillingRules, TooManyRules, conditions_in
from nasdsl.grammar_export.language import header
from nasdsl.semantics.conditions import Condition
from nasdsl.spaces import Space
from nasdsl.spaces.size import space_size
from nasdsl.spaces.tokens import Choice, Item, Needed, items_of

LAYOUTS: Final = ("line", "free")

WRITERS: Final[Mapping[str, Callable[[Mapping[str, Expression]], str]]] = {
    "lark": lark.write_rules,
    "gbnf": gbnf.write_rules,
    "llguidance": llguidance.write_rules,
}

HOW_TO_READ: Final = {
    "lark": 'Read it with Lark(text, parser="earley", lexer="dynamic", start="root").',
    "gbnf": "For llama.cpp and other programs that read its GBNF; it begins at root.",
    "llguidance": "For llguidance; it begins at start.",
}


def space_grammar(space: Space, format: str, layout: str = "line") -> str:
    """The grammar of the fillings of a space.

    It accepts the text of every sample, and only fillings, but for what it names in its first lines: requirements, calls marked
    `distinct`, fillings that cannot be built, and dependence between holes that would take too many rules.

    Args:
        space: whose fillings the grammar describes.
        format: one of `nasdsl.grammar_export.FORMATS`.
        layout: ``line``, as `Space.decode` prints; or ``free``, with any white space and comments, and ``;`` or a new line
            between statements.

    Raises:
        GrammarError: it would be too large.
    """
    rules, not_said = space_rules(space, is_one_line=layout == "line")
    first = Rule("filling")
    rules = {"filling": rules.pop("root"), **rules}
    root: Expression
    if layout == "line":
        allowed = space.allowed_comment
        root = sequence([first, *([optional(Literal(allowed))] if allowed else []), optional(Literal("\n"))])
    else:
        root = sequence([Gap(), first, optional(Rule("end"))])
    rules = {"root": root, **rules}
    text = WRITERS[format](rules)
    if layout == "free":
        text += "\n".join(gbnf.gap_rules() if format == "gbnf" else [*llguidance.gap_lines(), "end: END"]) + "\n"
    head = [
        f"The fillings of {space.name}, made by `nasdsl grammar`: {len(space.domains)} decisions, "
        f"{space_size(space.size)} fillings.",
        HOW_TO_READ[format],
        "A grammar without context cannot say the following; check what it gives with `nasdsl check`, or `Space.encode` and",
        "`Space.keeps`:",
        *(f"- {line}" for line in not_said),
    ]
    return header(head, format) + text


def space_rules(space: Space, *, is_one_line: bool = True) -> tuple[dict[str, Expression], list[str]]:
    """The rules of a space, over characters and gaps, the first of which is ``root``; and what they do not say, a line each.

    Raises:
        GrammarError: there would be too many.
    """
    items = items_of(space.tree)
    names = {d.index: d.name or ("number" if d.kind == "range" else "hole") for d in space.domains}
    definitions = frozenset(
        item.condition
        for item in items
        if isinstance(item, Needed) and item.items and str(item.items[0]) in ("op", "agg", "block")
    )
    everything = frozenset(conditions_in(items))
    for free, ties in ((frozenset[Condition[int]](), True), (definitions, True), (everything, False)):
        try:
            rules = FillingRules(items, names, is_one_line, free, ties).write()
        except TooManyRules:
            continue
        return rules, _not_said(space, items, free, ties)
    raise GrammarError(f"the grammar of {space.name} would be too large")


def _not_said(space: Space, items: tuple[Item, ...], free: frozenset[Condition[int]], ties: bool) -> list[str]:
    lines = [f"`{' '.join(r.span.text.split())}`" for r in space.program.requirements]
    if _has_distinct(items):
        lines.append("the operands of a call marked `distinct` differ (NAS513)")
    lines.append("a filling can be built: no sum meets two widths, and no layer an operand that it cannot take")
    if free:
        named: Mapping[str, None] = dict.fromkeys(
            str(item.items[1]) for item in items if isinstance(item, Needed) and item.condition in free and len(item.items) > 1
        )
        lines.append("a definition stands behind the decoder where it calls it, and only there: " + ", ".join(named))
    if not ties:
        lines.append(
            "holes that are read in several places have one value, and turns of a `repeat` are there one after the other"
        )
    return lines


def _has_distinct(items: tuple[Item, ...]) -> bool:
    return any(
        item == "distinct"
        or (isinstance(item, Needed) and _has_distinct(item.items))
        or (isinstance(item, Choice) and any(map(_has_distinct, item.alternatives)))
        for item in items
    )
