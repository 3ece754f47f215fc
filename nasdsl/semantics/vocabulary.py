"""The ops, blocks and choices that a text can name: its own, those it uses, and the prelude's."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TypeAlias

from nasdsl import resources
from nasdsl.diagnostics import Diagnostic, Source, Span
from nasdsl.diagnostics.catalogue import holes, names
from nasdsl.semantics.attributes import Accepts
from nasdsl.semantics.expansion_cache import BlockExpansion, Expansion, ExpansionCache
from nasdsl.semantics.program import Body, Operand
from nasdsl.syntax import ast
from nasdsl.syntax.parser import parse


@dataclass(slots=True)
class Op:
    """An op or aggregation with the vocabulary that its body is read in (lexical scope).

    Attributes:
        operands: names of the parameters that take features.
        attributes: the others, with their defaults.
        broken: its own definition has a mistake, which is reported there; calls of it say nothing more.
        weight: about how many layers one call expands into; 0 while not yet known.
        accepts: what its attributes accept, see `signature.accepted`; None while not yet known.
        body: the expression behind ``=``, elaborated; None while it is not.
        has_slots: the body has holes, so that each call has a copy of the op with slots of its own.
        expansions: layers of earlier calls, see `expansion_cache`.
        is_shared: it is a statement of a body, and all its calls there have one set of weights.
    """

    definition: ast.OpDef
    home: Vocabulary
    operands: tuple[str, ...]
    attributes: dict[str, ast.Attribute]
    broken: bool = False
    weight: int = 0
    accepts: Mapping[str, Accepts] | None = None
    body: Operand | None = None
    has_slots: bool = False
    expansions: ExpansionCache[Expansion] = field(default_factory=ExpansionCache)
    is_shared: bool = False

    @property
    def name(self) -> str:
        return self.definition.name


@dataclass(slots=True)
class Block:
    """A block with the vocabulary that its body is read in.

    Attributes:
        operands, attributes, broken, weight, accepts, has_slots: as of `Op`.
        bodies: its statements, elaborated, by the words that a call has: ``width``, ``norm``, ``act`` and its attributes.
        only_body: of the copy that one call has, because its holes are those of this call.
        expansions: layers of earlier calls, see `expansion_cache`.
        lost: names that text which could not be read may bind, see `check.check`.
    """

    definition: ast.BlockDef
    home: Vocabulary
    operands: tuple[str, ...]
    attributes: dict[str, ast.Attribute]
    broken: bool = False
    weight: int = 0
    accepts: Mapping[str, Accepts] | None = None
    has_slots: bool = False
    bodies: dict[Hashable, Body] = field(default_factory=dict)
    only_body: Body | None = None
    lost: frozenset[str] | None = None
    expansions: ExpansionCache[BlockExpansion] = field(default_factory=ExpansionCache)

    @property
    def name(self) -> str:
        return self.definition.name


Definition: TypeAlias = Op | Block


@dataclass(slots=True)
class Vocabulary:
    """Definitions by name. Those of a file shadow those of the files it uses, which shadow the prelude.

    Attributes:
        partly: a used file could not be read, or not all of it, which is reported already.
    """

    parent: Vocabulary | None = None
    definitions: dict[str, Definition] = field(default_factory=dict)
    choices: dict[str, ast.ChoiceDef] = field(default_factory=dict)
    partly: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether all of its files could be read, so that a name it lacks is defined nowhere."""
        return not any(level.partly for level in self.levels())

    def levels(self) -> Iterator[Vocabulary]:
        """Itself and what it is read over, without the prelude, which is at the bottom of all."""
        at = self
        while at.parent is not None:
            yield at
            at = at.parent

    def find(self, name: str) -> Definition | None:
        at: Vocabulary | None = self
        while at is not None:
            found = at.definitions.get(name)
            if found is not None:
                return found
            at = at.parent
        return None

    def find_choice(self, name: str) -> ast.ChoiceDef | None:
        at: Vocabulary | None = self
        while at is not None:
            if name in at.choices:
                return at.choices[name]
            at = at.parent
        return None

    def known(self) -> list[str]:
        return [*self.definitions, *(self.parent.known() if self.parent else ())]

    def known_choices(self) -> list[str]:
        return [*self.choices, *(self.parent.known_choices() if self.parent else ())]


@cache
def prelude() -> Vocabulary:
    """The vocabulary of ``grammars/prelude.nas``, read once a process."""
    source = Source("prelude.nas", resources.read("grammars", "prelude.nas"))
    parsed = parse(source)
    problems = list(parsed.problems)
    vocabulary = define(parsed.file, Vocabulary(), problems)
    assert not problems, problems[0].message
    return vocabulary


def is_of_prelude(definition: object) -> bool:
    """Whether a definition is one of the prelude, which every text can name."""
    return isinstance(definition, Op | Block) and prelude().definitions.get(definition.name) is definition


def define(file: ast.File, vocabulary: Vocabulary, problems: list[Diagnostic]) -> Vocabulary:
    """Enter the definitions of a file; two of one name are reported."""
    seen: dict[tuple[str, str], Span] = {}
    for item in file.items:
        if isinstance(item, ast.OpDef | ast.BlockDef):
            _once(seen, ("op", item.name), item.name_span, problems)
            operands = tuple(p.name for p in item.parameters if p.default is None)
            attributes = {p.name: p.default for p in item.parameters if p.default is not None}
            made = Op if isinstance(item, ast.OpDef) else Block
            vocabulary.definitions[item.name] = made(item, vocabulary, operands, attributes)  # type: ignore[arg-type]  # its own kind
            parameters: dict[tuple[str, str], Span] = {}
            for parameter in item.parameters:
                _once(parameters, ("parameter", parameter.name), parameter.span, problems)
        elif isinstance(item, ast.ChoiceDef):
            if item.name == "pool":
                problems.append(holes.reserved_choice(item.name_span))
            _once(seen, ("choice", item.name), item.name_span, problems)
            vocabulary.choices[item.name] = item
    return vocabulary


def _once(seen: dict[tuple[str, str], Span], key: tuple[str, str], span: Span, problems: list[Diagnostic]) -> None:
    if key in seen:
        problems.append(names.defined_twice(span, *key, seen[key]))
    seen.setdefault(key, span)
