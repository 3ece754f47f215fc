"""What is kept of one version of a text for the next: besides its syntax, its definitions and the assignments of its fpn.

An assignment whose node is kept, and whose names mean what they meant before, has the program that it had. It is one of named
values and calls of ops alone: holes, blocks, and what stands in a `repeat` are elaborated anew. The layers of such a statement
are kept with it, as those of a call are (`expansion_cache`). The definitions of a text are kept if none of them has changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nasdsl.diagnostics import Span
from nasdsl.semantics import primitives
from nasdsl.semantics.elaborate_attribute import parts_of
from nasdsl.semantics.expansion_cache import StatementCache
from nasdsl.semantics.primitives import Primitive
from nasdsl.semantics.program import Assign, Call, Operand, Ref, Target
from nasdsl.semantics.resolved_names import OF_VALUES, Entered, NameTable, Symbol
from nasdsl.semantics.vocabulary import Op, Vocabulary
from nasdsl.syntax import ast
from nasdsl.syntax.kept import KeptSyntax

if TYPE_CHECKING:
    from nasdsl.semantics.elaborate_expression import ExpressionElaborator

_LITERALS: Final = (ast.Number, ast.Size, ast.Text)
_OF_DEFINITIONS: Final = ("op", "agg", "attribute")
"""Kinds of symbols that a definition of the text has, which a statement keeps only where the definition is kept."""
_SPARE: Final = 64
"""Statements that are kept beyond twice those of the text."""


class KeptText:
    """What is kept of a text; each version of it is given to `check_source` with this.

    Attributes:
        syntax: its tokens and nodes.
        semantics: its checked definitions, and the programs of its statements.
    """

    def __init__(self) -> None:
        self.syntax = KeptSyntax()
        self.semantics = KeptSemantics()

    def forget(self) -> None:
        """Keep nothing."""
        self.syntax.forget()
        self.semantics.forget()


class Meaning(NamedTuple):
    """What a name in the place of an attribute's value, or beside one, meant.

    Attributes:
        word: of a `let` or a section; None where it is none.
        is_section: whether it stays in the program by name.
        value, value_of_word: the unique names of the values that it, and the word, would name.
        definition: of the op, block or choice that it would name.
    """

    name: str
    word: Any
    is_section: bool
    value: Any
    value_of_word: Any
    definition: Any

    def is_as_of(self, other: Meaning) -> bool:
        """Whether it means the same; a number that is computed anew is another one."""
        return self.word is other.word and self.definition is other.definition and self[2:5] == other[2:5]


class KeptStatement(NamedTuple):
    """An assignment, and what its program was made of.

    Attributes:
        node: of the syntax tree.
        callees: what the names before brackets meant.
        values: the unique name of each name in the place of a value.
        words: what the other names meant.
        notes: what its names were entered as in a table of names; None where there was none.
        statement: its program.
    """

    node: ast.Assign
    callees: tuple[tuple[str, Op | Primitive], ...]
    values: tuple[tuple[str, str], ...]
    words: tuple[Meaning, ...]
    notes: tuple[tuple[Span, Symbol], ...] | None
    statement: Assign


class KeptDefinitions(NamedTuple):
    """The ops, blocks and choices of a text, checked, and what their names were entered as.

    Attributes:
        nodes: of the syntax tree.
    """

    nodes: tuple[ast.OpDef | ast.BlockDef | ast.ChoiceDef, ...]
    vocabulary: Vocabulary
    names: Entered | None


def _definitions_of(file: ast.File) -> tuple[ast.OpDef | ast.BlockDef | ast.ChoiceDef, ...] | None:
    """The definitions of a text; None where it uses a file, which may have changed."""
    if any(isinstance(item, ast.Use) for item in file.items):
        return None
    return tuple([item for item in file.items if isinstance(item, ast.OpDef | ast.BlockDef | ast.ChoiceDef)])


class KeptSemantics:
    """The definitions of a text, and the programs of the assignments of its fpn, by their nodes."""

    def __init__(self) -> None:
        self._statements: dict[int, KeptStatement] = {}  # by identity of the node, which the value holds
        self._definitions: KeptDefinitions | None = None

    def forget(self) -> None:
        """Keep nothing."""
        self._statements.clear()
        self._definitions = None

    def vocabulary(self, file: ast.File, names: NameTable | None) -> Vocabulary | None:
        """The vocabulary of a text whose definitions are those of an earlier version; None where they are not.

        Their names are entered in the table of names.
        """
        kept, nodes = self._definitions, _definitions_of(file)
        if kept is None or nodes is None or len(nodes) != len(kept.nodes):
            return None
        if any(a is not b for a, b in zip(nodes, kept.nodes, strict=True)):
            return None
        if names is not None:
            if kept.names is None or not names.is_empty:
                return None
            names.adopt(kept.names)
        return kept.vocabulary

    def keep_vocabulary(self, file: ast.File, vocabulary: Vocabulary, names: NameTable | None) -> None:
        """Keep the vocabulary of a text without findings so far; `names` has the names of its definitions, and no others."""
        nodes = _definitions_of(file)
        if nodes is not None:
            self._definitions = KeptDefinitions(nodes, vocabulary, None if names is None else names.entered())

    def begin(self, statements: Sequence[ast.Statement]) -> None:
        """Begin a version with these statements: what earlier ones have left behind is dropped now and then."""
        if len(self._statements) > 2 * len(statements) + _SPARE:
            self._statements = {id(s): self._statements[id(s)] for s in statements if id(s) in self._statements}

    def find(self, node: ast.Assign, body: ExpressionElaborator) -> Assign | None:
        """The program of an assignment; None where it is not known. Its names are entered in the body's table of names."""
        kept = self._statements.get(id(node))
        if kept is None:
            return None
        scope, names = body.scope, body.names
        for name, unique in kept.values:
            bound = scope.get(name)
            if bound is None or bound[0] != unique:
                return None
        for name, callee in kept.callees:
            target = body.known_target(name)
            found = (body.vocabulary.find(name) or primitives.find(name)) if target is None else target.callee
            if found is not callee:
                return None
        for word in kept.words:
            if not word.is_as_of(_meaning(word.name, body)):
                return None
        if names is not None:
            if kept.notes is None:
                return None
            names.note_kept(kept.notes, body.value_symbols)
        return kept.statement

    def keep(self, node: ast.Assign, body: ExpressionElaborator, statement: Assign, since: State, until: State) -> Assign:
        """Keep the program of an assignment, if it can be kept. Returns the program, with a cache of its layers if it is.

        Args:
            since, until: of before and after its expression was elaborated.
        """
        callees: dict[str, Any] = {}
        values: dict[str, Any] = {}
        words: dict[str, Meaning] = {}
        (binding,) = statement.targets
        notes = _notes(node, body, since.noted, until.noted)
        if binding is None or until._replace(noted=since.noted) != since or (notes is None and body.names is not None):
            return statement
        if not _is_plain(statement.value) or not _read(node.value, body, callees, values, words):
            return statement
        if binding.source in values or binding.source in words:  # it is bound by now
            return statement
        read = dict.fromkeys(_values(statement.value))
        levels = [word.value for word in words.values() if isinstance(word.value, str) and word.value not in read]
        statement = statement._replace(cache=StatementCache(tuple(read), tuple(levels)))
        found = tuple(callees.items()), tuple(values.items()), tuple(words.values())
        self._statements[id(node)] = KeptStatement(node, *found, notes, statement)
        return statement


class State(NamedTuple):
    """How much the elaboration of a body has given so far: findings, decisions, definitions passed on, names noted."""

    problems: int
    hole_problems: int
    decisions: int
    passed: int
    noted: int


def state_of(body: ExpressionElaborator) -> State:
    """The state of a body's elaboration."""
    context = body.context
    noted = 0 if body.names is None else body.names.noted
    return State(len(body.problems), len(context.hole_problems), len(context.decisions), len(context.passed), noted)


def _notes(node: ast.Assign, body: ExpressionElaborator, first: int, last: int) -> tuple[tuple[Span, Symbol], ...] | None:
    """The uses that were noted, if their names are those of values, or of what comes with the package; None otherwise."""
    if body.names is None:
        return None
    notes = []
    for span, symbol, is_definition in body.names.noted_between(first, last):
        is_own = symbol.span is not None and symbol.span.source is node.span.source
        is_value = not is_definition and symbol.kind in OF_VALUES and body.value_symbols.get(symbol.name) is symbol
        if is_own and not is_value and symbol.kind not in _OF_DEFINITIONS:
            return None
        if not is_definition:  # a definition is entered with its first use
            notes.append((span, symbol))
    return tuple(notes)


def _meaning(name: str, body: ExpressionElaborator) -> Meaning:
    word = body.words.get(name)
    value = body.scope.get(name)
    of_word = body.scope.get(word) if isinstance(word, str) else None
    return Meaning(
        name, word, name in body.kept, None if value is None else value[0], None if of_word is None else of_word[0],
        body.vocabulary.find(name),
    )  # fmt: skip


def _read(
    node: Any, body: ExpressionElaborator, callees: dict[str, Any], values: dict[str, Any], words: dict[str, Meaning]
) -> bool:
    """Enter what the names of an expression mean; whether that is all that its program depends on."""
    if type(node) is ast.Reference:
        bound = body.scope.get(node.name)
        if node.index is not None or bound is None or type(bound[0]) is not str:
            return False
        values[node.name] = bound[0]
        return True
    if type(node) is not ast.Call or type(node.callee) is not str:
        return False
    target = body.known_target(node.callee)
    if target is None or type(target.callee) not in (Op, Primitive):
        return False
    callees[node.callee] = target.callee
    named: list[Any] = [setting.value for setting in node.settings]
    for operand in node.operands:
        if type(operand) is ast.Reference or type(operand) is ast.Call:
            if not _read(operand, body, callees, values, words):
                return False
        else:  # a number
            named.append(operand)
    if named:
        for name in [n for value in named for n in _names(value)]:
            if not name:
                return False
            words[name] = _meaning(name, body)
    return True


def _names(value: Any) -> Iterator[str]:
    """The names that the value of an attribute is computed from; an empty one for what is none of names and numbers."""
    parts = parts_of(value)
    for part in parts:
        yield from _names(part)
    if isinstance(value, ast.Reference):
        yield "" if value.index is not None else value.name
    elif not parts and not isinstance(value, _LITERALS):
        yield ""


def _is_plain(value: Operand) -> bool:
    """Whether a program has named values and calls of ops and primitives alone, without holes."""
    if type(value) is Ref:
        return True
    if type(value) is not Call or value.has_slots or type(value.target) is not Target:
        return False
    callee = value.target.callee
    if type(callee) is not Primitive and (type(callee) is not Op or callee.is_shared or callee.has_slots):
        return False
    return all(_is_plain(operand) for operand in value.operands)


def _values(value: Operand) -> Iterator[str]:
    """The unique names of the values that a program reads."""
    if type(value) is Ref:
        yield value.name
    elif type(value) is Call:
        for operand in value.operands:
            yield from _values(operand)
