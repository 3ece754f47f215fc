"""Completion: ops, values in scope, attributes and their words, choices, words of the language, files of `use`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from lsprotocol.types import (
    CompletionItem,
    CompletionItemKind,
    CompletionList,
    CompletionParams,
    InsertTextFormat,
    MarkupContent,
    MarkupKind,
    TextEdit,
)

from nasdsl.backbones import BACKBONES
from nasdsl.lsp import describe
from nasdsl.lsp.analysis import Analysis
from nasdsl.lsp.cursor import Cursor, cursor_at, is_in_comment
from nasdsl.lsp.documents import Document, Documents
from nasdsl.lsp.files import nas_files
from nasdsl.lsp.structure import bound_names
from nasdsl.predictions import find_kind, known_kinds
from nasdsl.semantics import primitives
from nasdsl.semantics.attributes import Accepts
from nasdsl.semantics.elaborate import QUANTITIES, RUNTIMES
from nasdsl.semantics.infer_detector import ATTRIBUTES as DETECTOR_ATTRIBUTES
from nasdsl.semantics.infer_fpn import ATTRIBUTES as FPN_ATTRIBUTES
from nasdsl.semantics.infer_head import ATTRIBUTES as HEAD_ATTRIBUTES
from nasdsl.semantics.infer_head import TOWERS, TRUNK
from nasdsl.semantics.infer_prediction import COMMON, kind_attributes
from nasdsl.semantics.resolved_names import Symbol
from nasdsl.semantics.signature import accepted
from nasdsl.semantics.vocabulary import Block, Op, prelude
from nasdsl.syntax import ast
from nasdsl.syntax.lexer import WORDS

TRIGGERS: Final = ["(", ",", "=", "?", '"', "/", ">", "|"]

_SECTIONS: Final[Mapping[str, Mapping[str, Accepts]]] = {
    "fpn": FPN_ATTRIBUTES, "head": HEAD_ATTRIBUTES, "detector": DETECTOR_ATTRIBUTES,
}  # fmt: skip
_VALUES: Final = ("value", "input", "output", "parameter")
_BOUND_WORDS: Final = ("let", "variable", "attribute")
_OPERATORS: Final = ("PLUS", "MINUS", "STAR", "SLASH", "LSQB", "RANGE")


@dataclass(frozen=True, slots=True)
class Proposal:
    """Something that may be written.

    Attributes:
        text: what is put in; with ``$0`` where the cursor goes.
        rank: the lower, the further up in the list.
    """

    label: str
    kind: CompletionItemKind
    rank: int
    detail: str = ""
    documentation: str = ""
    text: str = ""


def completion(documents: Documents, document: Document, params: CompletionParams) -> CompletionList:
    analysis = document.analysis
    offset = analysis.lines.offset(params.position)
    if is_in_comment(analysis, offset):
        return CompletionList(False, [])
    cursor = cursor_at(analysis, offset)
    found = {p.label: p for p in reversed(list(_proposals(documents, analysis, cursor, offset)))}
    start = cursor.start + 1 if cursor.string is not None else cursor.start
    place = analysis.lines.range(start, offset)
    follows_bracket = analysis.text[offset : offset + 1] == "("
    items = []
    for proposal in sorted(found.values(), key=lambda p: (p.rank, p.label)):
        text = proposal.text or proposal.label
        if follows_bracket or not documents.has_snippets:
            text = proposal.label if text.endswith("($0)") else text.replace("$0", "")
        items.append(
            CompletionItem(
                proposal.label,
                kind=proposal.kind,
                detail=proposal.detail or None,
                documentation=MarkupContent(MarkupKind.Markdown, proposal.documentation) if proposal.documentation else None,
                sort_text=f"{proposal.rank}{proposal.label}",
                text_edit=TextEdit(place, text),
                insert_text_format=InsertTextFormat.Snippet if "$0" in text else InsertTextFormat.PlainText,
            )
        )
    return CompletionList(False, items)


def _proposals(documents: Documents, analysis: Analysis, cursor: Cursor, offset: int) -> Iterator[Proposal]:
    if cursor.string is not None:
        yield from _in_string(documents, analysis, cursor)
        return
    if "NAME" in cursor.expected or cursor.before == "QMARK":
        yield from _names(analysis, cursor, offset)
    for word, terminal in WORDS.items():
        if terminal in cursor.expected and terminal != "IN":
            yield Proposal(word, CompletionItemKind.Keyword, 6, documentation=describe.KEYWORDS.get(word, ""))
    if "IN" in cursor.expected and cursor.statement == "REPEAT":
        yield Proposal("in", CompletionItemKind.Keyword, 6)


def _names(analysis: Analysis, cursor: Cursor, offset: int) -> Iterator[Proposal]:
    before, bound_at = cursor.before, _bound_at(analysis, cursor)
    visible = [s for s in analysis.names.visible(analysis.source, offset) if s.span is None or s.span.end != bound_at]
    if before == "QMARK":
        yield from _choices(analysis)
    elif cursor.bracket == "call" and not cursor.attribute and before in ("LPAR", "COMMA"):
        yield from _attributes(_of_callee(analysis, cursor.owner))
        yield from _values(visible)
        yield from _ops(analysis, visible)
    elif cursor.bracket == "section" and not cursor.attribute:
        yield from _attributes(_of_section(cursor.owner))
    elif cursor.bracket == "results":
        block = next(
            (i for i in analysis.file.items if isinstance(i, ast.BlockDef) and i.span.start < offset <= i.span.end), None
        )
        if block is not None:  # numbered names are known by number where the body is elaborated, and else not at all
            numbered = analysis.names.visible(analysis.source, block.span.end - 1)
            bound = [name for name, place, _ in bound_names(block.body) if place.text == name]
            names = dict.fromkeys([*bound, *(symbol.name for symbol in numbered if symbol.kind == "value")])
            yield from (Proposal(name, CompletionItemKind.Variable, 1, "value") for name in names)
    elif cursor.bracket == "count":
        yield from _ops(analysis, visible, with_brackets=False)
    elif cursor.attribute:
        yield from _attribute_value(analysis, cursor, visible)
    elif before in _OPERATORS or cursor.statement == "REPEAT":
        yield from _bound_words(visible)
    elif cursor.bracket in ("hole", "group"):
        yield from _bound_words(visible)
        yield from _values(visible)
        yield from _ops(analysis, visible)
    elif not cursor.bracket:
        yield from _at_statement(analysis, cursor, visible)


def _bound_at(analysis: Analysis, cursor: Cursor) -> int:
    """Where the name ends whose value is begun, which the value cannot read: `x` of ``x = ``. -1 where none is."""
    text = analysis.text[: cursor.start].rstrip()
    return len(text[:-1].rstrip()) if text.endswith("=") else -1


def _at_statement(analysis: Analysis, cursor: Cursor, visible: list[Symbol]) -> Iterator[Proposal]:
    before, statement = cursor.before, cursor.statement
    if statement == "INPUT" and before in ("INPUT", "COMMA"):
        yield from (Proposal(f"c{k}", CompletionItemKind.Variable, 0, f"stride {1 << k}") for k in range(2, 6))
    elif before == "PREDICT":
        for name in known_kinds():
            cls = find_kind(name)
            doc = "" if cls is None else " ".join((cls.__doc__ or "").split("\n\n")[0].split())
            yield Proposal(name, CompletionItemKind.Class, 0, documentation=doc)
    elif before == "REQUIRE":
        for name in QUANTITIES:
            yield Proposal(name, CompletionItemKind.Property, 0, documentation=describe.QUANTITIES[name])
        yield Proposal("count", CompletionItemKind.Function, 0, documentation=describe.QUANTITIES["count"], text="count($0)")
    elif before == "ON":
        yield from (Proposal(name, CompletionItemKind.EnumMember, 0) for name in RUNTIMES)
    elif statement == "OUTPUT" and before in ("OUTPUT", "COMMA"):
        bound = {s.name for s in visible if s.kind == "output"}
        for k in range(3, 8):
            if f"p{k}" not in bound:
                yield Proposal(f"p{k}", CompletionItemKind.Variable, 0, f"stride {1 << k}", text=f"p{k} = $0")
    elif statement == "MERGE":
        yield from _values(visible)
    elif cursor.body == "head":
        if before in ("LBRACE", "ARROW", "COLON"):
            yield from _ops(analysis, visible, with_brackets=False)
        if before not in ("ARROW", "COLON", "STAR"):
            for label in (*TOWERS, TRUNK):
                doc = describe.TOWERS[label]
                yield Proposal(label, CompletionItemKind.Property, 1, documentation=doc, text=f"{label}: $0")
    elif before == "EQUAL" and statement in ("LET", "CHOICE"):
        yield from _bound_words(visible)
        yield from _ops(analysis, visible, with_brackets=False)
    elif before in ("BAR", "ARROW"):
        yield from _values(visible)
        yield from _ops(analysis, visible, with_brackets=False)
    elif before == "EQUAL":
        yield from _values(visible)
        yield from _ops(analysis, visible)


# ----------------------------------------------------------------------------------------------------- kinds of proposals


def _values(visible: list[Symbol]) -> Iterator[Proposal]:
    for symbol in visible:
        if symbol.kind in _VALUES:
            yield Proposal(symbol.name, CompletionItemKind.Variable, 1, symbol.kind)


def _bound_words(visible: list[Symbol]) -> Iterator[Proposal]:
    for symbol in visible:
        if symbol.kind in _BOUND_WORDS:
            yield Proposal(symbol.name, CompletionItemKind.Constant, 1, symbol.kind)
    for name in primitives.SECTION:
        yield Proposal(name, CompletionItemKind.Property, 2, "attribute of the section")


def _ops(analysis: Analysis, visible: list[Symbol], *, with_brackets: bool = True) -> Iterator[Proposal]:
    """What can be called: definitions of the text, of files that it uses and of the vocabulary, and primitives."""
    for symbol in visible:
        if symbol.kind == "shared":
            yield _op(symbol.name, symbol.meaning, 2, with_brackets)
    own = {d.name for d in _definitions(analysis)}
    for node in _definitions(analysis):
        yield _op(node.name, node, 2, with_brackets)
    for name, definition in prelude().definitions.items():
        if name not in own:
            yield _op(name, definition.definition, 3, with_brackets)
    for name in primitives.known():
        found = primitives.find(name)
        if found is not None:
            documentation = describe.primitive(found)
            yield Proposal(name, CompletionItemKind.Function, 4, "primitive", documentation, _called(name, with_brackets))


def _op(name: str, node: ast.OpDef | ast.BlockDef, rank: int, with_brackets: bool) -> Proposal:
    parameters = ", ".join(" ".join(p.span.text.split()) for p in node.parameters)
    kind = CompletionItemKind.Class if isinstance(node, ast.BlockDef) else CompletionItemKind.Function
    text = _shortened(node.span.text)
    comment = _shortened(describe.comment_above(node.span.source, node.span.start))
    return Proposal(name, kind, rank, f"({parameters})", f"{describe.code(text)}\n\n{comment}", _called(name, with_brackets))


def _shortened(text: str) -> str:
    return text if len(text) < 400 else text[:400] + "…"


def _called(name: str, with_brackets: bool) -> str:
    return f"{name}($0)" if with_brackets else name


def _definitions(analysis: Analysis) -> list[ast.OpDef | ast.BlockDef]:
    """Ops and blocks of the text and of the files that it brings in."""
    found: dict[int, ast.OpDef | ast.BlockDef] = {}
    for item in analysis.file.items:
        if isinstance(item, ast.OpDef | ast.BlockDef):
            found[id(item)] = item
    vocabulary = analysis.checked.vocabulary
    for level in () if vocabulary is None else vocabulary.levels():
        for definition in level.definitions.values():
            found[id(definition.definition)] = definition.definition
    return list(found.values())


def _choices(analysis: Analysis) -> Iterator[Proposal]:
    vocabulary = analysis.checked.vocabulary
    for name in dict.fromkeys([] if vocabulary is None else vocabulary.known_choices()):
        choice = None if vocabulary is None else vocabulary.find_choice(name)
        text = "" if choice is None else describe.code(choice.span.text)
        yield Proposal(name, CompletionItemKind.Enum, 1, "choice", text)
    yield Proposal("pool", CompletionItemKind.Enum, 2, "any value that is bound above")


def _attributes(accepts: Mapping[str, Accepts | None]) -> Iterator[Proposal]:
    for name, accept in accepts.items():
        if name.isidentifier():
            detail = "" if accept is None else accept.expectation()
            yield Proposal(name, CompletionItemKind.Property, 0, detail, describe.attribute(name, accept), f"{name}=$0")


def _of_section(name: str) -> Mapping[str, Accepts | None]:
    if name in _SECTIONS:
        return _SECTIONS[name]
    cls = find_kind(name)
    return {**({} if cls is None else kind_attributes(cls)), **COMMON}


def _of_callee(analysis: Analysis, name: str) -> Mapping[str, Accepts | None]:
    vocabulary = analysis.checked.vocabulary or prelude()
    callee: Op | Block | None = vocabulary.find(name)
    if callee is not None:
        takes = accepted(callee)
        return {attribute: takes.get(attribute) for attribute in callee.attributes}
    primitive = primitives.find(name)
    return {} if primitive is None else primitive.attributes


def _attribute_value(analysis: Analysis, cursor: Cursor, visible: list[Symbol]) -> Iterator[Proposal]:
    """What the value of an attribute may be."""
    of = _of_section(cursor.owner) if cursor.bracket == "section" else _of_callee(analysis, cursor.owner)
    accepts = of.get(cursor.attribute)
    if accepts is not None:
        words = (*accepts.words, "true", "false") if accepts.kind == "flag" else accepts.words
        for word in words:
            yield Proposal(word, CompletionItemKind.EnumMember, 0, f"of {cursor.attribute}")
        if accepts.kind in ("feature", "value"):
            yield from _values(visible)
        if accepts.kind == "op":
            yield Proposal("none", CompletionItemKind.EnumMember, 0)
        if accepts.kind == "name":
            yield from (Proposal(n, CompletionItemKind.EnumMember, 0) for n in BACKBONES if n.isidentifier())
    if accepts is None or accepts.kind == "op":
        yield from _ops(analysis, visible, with_brackets=False)
    if accepts is None or accepts.kind != "value":
        yield from _bound_words(visible)


def _in_string(documents: Documents, analysis: Analysis, cursor: Cursor) -> Iterator[Proposal]:
    """Files behind `use` and `from`; backbones whose names are no words."""
    if cursor.before in ("USE", "FROM") and analysis.path is not None:
        folder = analysis.path.resolve().parent
        for path in nas_files([folder]):
            if path.resolve() != analysis.path.resolve():
                yield Proposal(path.relative_to(folder).as_posix(), CompletionItemKind.File, 0)
    elif cursor.attribute == "backbone":
        yield from (Proposal(name, CompletionItemKind.EnumMember, 0) for name in BACKBONES)
