"""What each name of a text refers to: a table that elaboration fills where it is asked to, for editors.

The same text may be elaborated several times (an op once a call, a `repeat` once a turn); its names are entered once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from nasdsl.diagnostics import Source, Span
from nasdsl.syntax import ast

SymbolKind: TypeAlias = Literal[
    "value", "input", "output", "parameter", "attribute", "let", "variable", "op", "agg", "shared", "block", "choice",
    "decoder", "primitive", "pool", "section", "setting", "word", "prediction", "tower", "quantity", "runtime",
]  # fmt: skip

OF_VALUES: Final = ("value", "input", "output")
"""Kinds of symbols that values of a body have."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_IN_NAME = re.compile(r"[A-Za-z_0-9]").match


@dataclass(frozen=True, slots=True, eq=False)
class Symbol:
    """Something that a text names.

    Attributes:
        kind: a ``value``, an ``input`` or an ``output`` of a body; a ``parameter`` (an operand) or an ``attribute`` of a
            definition; a ``let`` or the ``variable`` of a `repeat`; an ``op``, ``agg``, ``shared`` op, ``block`` or
            ``choice``; the ``decoder``. Built in: a ``primitive``, the ``pool``, an attribute of the ``section`` that an op
            reads, an attribute that is set (``setting``), a ``word`` that an attribute accepts, a kind of ``prediction``, a
            ``tower`` of the head, and of a requirement the ``quantity`` and the ``runtime``.
        name: as the text has it; of a numbered name with its number.
        span: the name where it is defined; None for what is built in.
        region: the part of the text in which it can be read, of a value behind its statement; None: the whole file.
        meaning: the node of a definition; a `Primitive`, or the `Accepts` of an attribute. None for values.
        owner: what an attribute or word that is built in belongs to: ``conv``, ``fpn``.
    """

    kind: SymbolKind
    name: str
    span: Span | None = None
    region: Span | None = None
    meaning: Any = None
    owner: str = ""


@dataclass(slots=True)
class Occurrence:
    """A name at its place in a text.

    Attributes:
        span: the token; of a numbered name (``x[t]``) without the number.
        symbols: what it refers to; several for a numbered name, and in a choice that several places draw from.
        is_definition: it is defined here.
    """

    span: Span
    symbols: list[Symbol]
    is_definition: bool = False


class Entered(NamedTuple):
    """What was entered in a table of names: its symbols, and uses."""

    symbols: tuple[tuple[tuple[object, object, str], Symbol], ...]
    noted: tuple[tuple[Span, Symbol, bool], ...]


@dataclass(slots=True)
class NameTable:
    """The names of a text, and of the files that it brings in. Uses are noted, and entered as soon as the table is read."""

    _noted: list[tuple[Span, Symbol, bool]] = field(default_factory=list)  # the arguments of `use`
    _kept: list[tuple[Sequence[tuple[Span, Symbol]], Mapping[str, Symbol]]] = field(default_factory=list)  # as of `note_kept`
    _occurrences: dict[tuple[Source, int], Occurrence] = field(default_factory=dict)
    _entered: dict[tuple[Source, int], set[Symbol]] = field(default_factory=dict)  # the symbols of each, which may be many
    _asked: set[tuple[Source, int]] = field(default_factory=set)
    _symbols: dict[tuple[object, object, str], Symbol] = field(default_factory=dict)
    _definitions: dict[int, Symbol] = field(default_factory=dict)  # by identity of the node, which the symbol holds
    _parameters: dict[int, tuple[ast.Node, dict[str, Symbol]]] = field(default_factory=dict)

    # --------------------------------------------------------------------------------------------- entering names

    def define(self, kind: SymbolKind, name: str, span: Span, region: Span | None = None, meaning: Any = None) -> Symbol:
        """Enter a definition; `span` begins with the name. Known ones stay as they are."""
        anchor, first, _ = span
        key = (anchor.source, anchor.offset + first, name)
        symbol = self._symbols.get(key)
        if symbol is None:
            token = _token(span, name)
            symbol = self._symbols[key] = Symbol(kind, name, token or span, region, meaning)
        self._noted.append((span, symbol, True))
        return symbol

    def built_in(self, kind: SymbolKind, name: str, meaning: Any = None, owner: str = "") -> Symbol:
        """The symbol of something that no text defines."""
        key = (kind, owner, name)
        symbol = self._symbols.get(key)
        if symbol is None:
            symbol = self._symbols[key] = Symbol(kind, name, None, None, meaning, owner)
        return symbol

    def use(self, span: Span, symbol: Symbol, *, is_definition: bool = False) -> None:
        """Enter that the name at the beginning of `span` refers to a symbol. What the text does not name there is left out."""
        self._noted.append((span, symbol, is_definition))

    @property
    def noted(self) -> int:
        """How many uses were noted since the table was read."""
        return len(self._noted)

    def noted_between(self, first: int, last: int) -> Sequence[tuple[Span, Symbol, bool]]:
        """The uses that were noted behind so many, up to so many."""
        return self._noted[first:last]

    def note_kept(self, notes: Sequence[tuple[Span, Symbol]], values: Mapping[str, Symbol]) -> None:
        """Enter the uses of a statement that is not elaborated again; `notes` are those of the table of an earlier version.

        Args:
            values: the symbols of this version's values, by name; more may be entered until the table is read.
        """
        self._kept.append((notes, values))

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been entered."""
        return not (self._symbols or self._noted or self._occurrences)

    def entered(self) -> Entered:
        """What has been entered since the table was made; it has not been read."""
        return Entered(tuple(self._symbols.items()), tuple(self._noted))

    def adopt(self, entered: Entered) -> None:
        """Enter in an empty table what an earlier version of the text has entered in its own, with the same symbols."""
        for key, symbol in entered.symbols:
            span = symbol.span
            self._symbols[key if span is None else (span.source, span.start, symbol.name)] = symbol
        self._noted += entered.noted

    def _again(self, symbol: Symbol, values: Mapping[str, Symbol]) -> Symbol:
        """The symbol of this table that an earlier one stands for."""
        if symbol.span is None:
            return self.built_in(symbol.kind, symbol.name, symbol.meaning, symbol.owner)
        if symbol.kind in OF_VALUES:
            return values[symbol.name]
        return self.define(symbol.kind, symbol.name, symbol.span, symbol.region, symbol.meaning)

    def is_first(self, span: Span) -> bool:
        """Whether this is asked of the name at the beginning of `span` for the first time."""
        key = (span.source, span.start)
        if key in self._asked:
            return False
        self._asked.add(key)
        return True

    def definition(self, node: ast.OpDef | ast.BlockDef | ast.ChoiceDef, region: Span | None = None) -> Symbol:
        """Enter an op, aggregation, block or choice."""
        known = self._definitions.get(id(node))
        if known is None:
            kind: Any = node.kind if isinstance(node, ast.OpDef) else "block" if isinstance(node, ast.BlockDef) else "choice"
            known = self._definitions[id(node)] = self.define(kind, node.name, node.name_span, region, node)
        return known

    def parameters(self, node: ast.OpDef | ast.BlockDef) -> dict[str, Symbol]:
        """Enter the parameters of a definition. Returns those that are attributes, by name."""
        known = self._parameters.get(id(node))
        if known is not None:
            return dict(known[1])
        attributes: dict[str, Symbol] = {}
        self._parameters[id(node)] = node, attributes
        for parameter in node.parameters:
            kind: SymbolKind = "parameter" if parameter.default is None else "attribute"
            symbol = self.define(kind, parameter.name, parameter.span, node.span, parameter)
            if parameter.default is not None:
                attributes[parameter.name] = symbol
        return dict(attributes)

    def parameter(self, node: ast.OpDef | ast.BlockDef, name: str) -> Symbol | None:
        """The attribute of a definition that has this name."""
        found = next((p for p in node.parameters if p.name == name and p.default is not None), None)
        return None if found is None else self.define("attribute", name, found.span, node.span, found)

    def hole(self, node: ast.NamedHole, choice: ast.ChoiceDef | None) -> None:
        """Enter the name of ``?name``."""
        span = node.span.tail(len(node.name))
        if choice is not None:
            self.use(span, self.definition(choice))
        elif node.name == "pool":
            self.use(span, self.built_in("pool", "pool"))

    # --------------------------------------------------------------------------------------------- reading the table

    @property
    def occurrences(self) -> dict[tuple[Source, int], Occurrence]:
        """The names at their places, by source and first character."""
        found = self._occurrences
        for notes, values in self._kept:
            for span, symbol in notes:
                self.use(span, self._again(symbol, values))
        self._kept.clear()
        for span, symbol, is_definition in self._noted:
            key = (span.source, span.start)
            known = found.get(key)
            if known is None:
                token = _token(span, symbol.name)
                if token is not None:
                    found[key] = Occurrence(token, [symbol], is_definition)
                    self._entered[key] = {symbol}
            elif symbol in (entered := self._entered[key]) or _token(span, symbol.name) is not None:
                known.is_definition = known.is_definition or is_definition
                if symbol not in entered:
                    entered.add(symbol)
                    known.symbols.append(symbol)
        self._noted.clear()
        return found

    def at(self, source: Source, offset: int) -> Occurrence | None:
        """The name that covers a character, or ends in front of it."""
        text = source.text
        start = offset
        while start > 0 and (text[start - 1].isalnum() or text[start - 1] == "_"):
            start -= 1
        found = self.occurrences.get((source, start))
        return found if found is not None and found.span.start <= offset <= found.span.end else None

    def of(self, source: Source) -> list[Occurrence]:
        """The names of a text, in its order."""
        found = [o for o in self.occurrences.values() if o.span.source is source]
        return sorted(found, key=lambda o: o.span.start)

    def occurrences_of(self, symbols: Iterable[Symbol]) -> list[Occurrence]:
        """All places that name these symbols, and those that numbered names have in common with them."""
        wanted = set(symbols)
        by_symbol: dict[Symbol, list[Occurrence]] = {}
        for occurrence in self.occurrences.values():
            for symbol in occurrence.symbols:
                by_symbol.setdefault(symbol, []).append(occurrence)
        todo, found = list(wanted), dict[int, Occurrence]()
        while todo:
            symbol = todo.pop()
            for occurrence in by_symbol.get(symbol, ()):
                found[id(occurrence)] = occurrence
                for other in occurrence.symbols:
                    if other not in wanted and _is_numbered(occurrence):
                        wanted.add(other)
                        todo.append(other)
        return sorted(found.values(), key=lambda o: (o.span.source.name, o.span.start))

    def visible(self, source: Source, offset: int) -> Iterator[Symbol]:
        """What a text defines and can be read at a place of it: values above it, words and definitions of its file."""
        for symbol in self._symbols.values():
            span, region = symbol.span, symbol.region
            if span is None or span.source is not source:
                continue
            if region is not None and not (region.start < offset <= region.end):
                continue
            if symbol.kind not in ("let", "variable", "shared") or span.end < offset:
                yield symbol


def _is_numbered(occurrence: Occurrence) -> bool:
    """Whether a name is written with its number apart, ``x[t]``."""
    return any(len(symbol.name) > occurrence.span.end - occurrence.span.start for symbol in occurrence.symbols)


def _token(span: Span, name: str) -> Span | None:
    """The token at the beginning of a span, if it is this name, or one that is numbered; None for what elaboration put in."""
    anchor, first, last = span
    text, start = anchor.source.text, anchor.offset + first
    length = len(name)
    end = start + length
    if first + length == last and text[start:end] == name:  # a span of this token
        return span
    if text.startswith(name, start) and not _IN_NAME(text[end : end + 1]):
        return span.head(length)
    found = _NAME.match(text, start)
    is_numbered = found is not None and name.startswith(found[0]) and name[len(found[0]) :].isdigit()
    return span.head(len(found[0])) if found is not None and is_numbered else None
