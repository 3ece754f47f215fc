"""Elaboration of attribute values: `let`, numbered names (``x[t-1]``), holes and what may stand in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import holes, structure, types
from nasdsl.semantics import attributes, primitives
from nasdsl.semantics.attributes import UNKNOWN, Quoted, Size, Unknown, Value
from nasdsl.semantics.conditions import Bound, Cases, Condition, TooMany, both, is_bound, meaning
from nasdsl.semantics.note_calls import note_words
from nasdsl.semantics.program import Body, Decision, Missing, SetWord, Slot, SlotKind, find_slot
from nasdsl.semantics.resolved_names import NameTable, Symbol
from nasdsl.semantics.vocabulary import Block, Definition, Vocabulary
from nasdsl.syntax import ast

if TYPE_CHECKING:
    from nasdsl.semantics.kept import KeptSemantics

MAX_DECISIONS: Final = 10_000
"""Most holes that a decoder may have, those in a `repeat` counted once a round, those in a definition once a call."""

MAX_NESTED_HOLES: Final = 50
"""Deepest nesting of holes, choices, and ops and blocks with holes, in each other: a block takes thirteen frames of the
interpreter's stack."""

MAX_OPERATORS: Final = 90
"""Most operators and holes of a value that holes decide, those of the `let`s that it reads included: a sample has it written
out, in at most `lexer.MAX_NESTING` brackets with those of the bodies around it."""

MAX_RANGE: Final = 10_000
"""Most alternatives of a range."""

HOLES: Final = (ast.NamedHole, ast.ChoiceHole, ast.RangeHole)

SECTION_WORDS: Final = frozenset(primitives.SECTION)

Word: TypeAlias = Any
"""What a name stands for among attributes: a number or word, `UNKNOWN`, a slot, or a value that is computed from one."""

Position: TypeAlias = Literal["operand", "value", "callee", "attribute", "let"]


@dataclass(slots=True)
class Copies:
    """How much of a decoder, or of all definitions together, has been elaborated anew for calls of what has holes.

    Attributes:
        size: calls, statements and alternatives in the bodies of what is copied.
        depth: of the copies that are being made.
        is_full: that is too much, which is reported; no call is copied from here on.
    """

    size: int = 0
    depth: int = 0
    is_full: bool = False


@dataclass(slots=True)
class Context:
    """What the elaboration of one decoder, or of one definition, has in common.

    Attributes:
        problems: findings.
        elaborate_block: elaborates the statements of a block with holes, for one call of it.
        hole_problems: findings about alternatives of holes.
        lost: names whose absence is not reported, because text that could not be read may bind them; None where all was read.
        decisions: those met so far.
        passed: definitions that attributes name.
        compared: holes whose alternatives have been compared, for the first of the copies that they are in.
        open: choices whose alternatives are being read, and definitions that are being copied.
        is_full: a limit was met, and reported.
        names: where what names refer to is entered; None: nowhere.
        kept: what is kept of an earlier version of the text; None: nothing, and nothing is to be kept.
        copies: of the decoder, or of all definitions together.
    """

    problems: list[Diagnostic]
    elaborate_block: Callable[[Block, Context, dict[str, Word], Condition[Decision]], Body]
    hole_problems: list[Diagnostic] = field(default_factory=list)
    lost: frozenset[str] | None = None
    decisions: list[Decision] = field(default_factory=list)
    open: list[object] = field(default_factory=list)
    passed: list[Definition] = field(default_factory=list)
    compared: set[Span] = field(default_factory=set)
    is_full: bool = False
    names: NameTable | None = None
    kept: KeptSemantics | None = None
    copies: Copies = field(default_factory=Copies)

    def of_definition(self) -> Context:
        """The context of a definition in the same text."""
        return Context(self.problems, self.elaborate_block, lost=self.lost, names=self.names, copies=self.copies)


class AttributeElaborator(ABC):
    """Elaborates the attribute values and holes of one body; `ExpressionElaborator` adds the expressions.

    Args:
        vocabulary: what names of ops, blocks and choices mean.
        words: what names of attributes mean.
        kept: words that stay in the program by name, because the section or the call of an op sets them.
        scope: names of the values that are there from the beginning; None for one whose mistake is reported already.
        condition: when the body is there.
        region: the text of the body, in which the names that it binds can be read.
        word_symbols: of the words that a text binds, by name; filled only for a table of names.

    Attributes:
        scope: what each name of the text means, and where it is bound.
        condition: when what is elaborated is there.
        pool: names that `?pool` draws from.
        lost_names: names that are not bound because of a mistake, or in a `repeat` whose count is not known.
        value_symbols: of the values in scope, as `word_symbols`.
    """

    def __init__(
        self,
        context: Context,
        vocabulary: Vocabulary,
        words: dict[str, Word],
        kept: frozenset[str],
        scope: Iterable[tuple[str, str | None, Span]],
        condition: Condition[Decision],
        region: Span | None = None,
        word_symbols: dict[str, Symbol] | None = None,
    ) -> None:
        self.context = context
        self.problems = context.problems
        self.vocabulary = vocabulary
        self.words = words
        self.kept = kept
        self.scope: dict[str, tuple[Bound, Span]] = {name: (unique, span) for name, unique, span in scope}
        self.pool = list(self.scope)
        self.lost_names: set[str] = set()
        self.condition = condition
        self.names = context.names
        self.region = region
        self.word_symbols = {} if word_symbols is None else word_symbols
        self.value_symbols: dict[str, Symbol] = {}
        if self.names is not None:
            for name, (_, span) in self.scope.items():
                self.value_symbols[name] = self.names.define("value", name, span, region)

    @abstractmethod
    def alternative(self, node: Any, position: Position, *, is_adapter: bool = False) -> Any:
        """What an alternative of a hole becomes in this position."""

    # ---------------------------------------------------------------------------------------- attribute values

    def let(self, node: ast.Let) -> SetWord:
        """Enter what a `let` binds."""
        if self._is_too_long(node.value):
            self.problems.append(structure.value_too_long(node.value.span, MAX_OPERATORS))
            written: Any = Missing(node.value.span)
        else:
            written = self._hole_of_let(node) if isinstance(node.value, HOLES) else self.attribute(node.value)
        everything = self.attribute(written, everything=True)
        self.words[node.name] = everything if find_slot(everything) else self.evaluate(everything)
        self.hide(node.name)
        if self.names is not None:
            note_words(self, node.value, None, node.name)
            self.word_symbols[node.name] = self.names.define("let", node.name, node.name_span, self.region, node)
        return SetWord(node.name, written, node.span, True)

    def _is_too_long(self, value: Any) -> bool:
        """Whether a value has more than `MAX_OPERATORS` operators and holes, with those of the `let`s that it reads.

        What holes decide is no number yet: each read of it stands for the whole expression, so a few `let`s that read the one
        before twice would become millions.
        """
        found, todo = 0, [value]
        while todo and found <= MAX_OPERATORS:
            node = todo.pop()
            if isinstance(node, ast.Reference):
                word = self.words.get(node.name)
                node = word if isinstance(word, ast.Node | Slot) else None
            if isinstance(node, ast.Arithmetic | ast.Negative | ast.Group | ast.ChoiceHole | Slot):
                found += not isinstance(node, ast.Group)  # a sample has brackets of its own
                todo += node.alternatives if isinstance(node, ast.ChoiceHole | Slot) else parts_of(node)
        return found > MAX_OPERATORS

    @property
    def has_attributes(self) -> bool:
        """Whether the body is one of an op or a block that has attributes."""
        return not self.kept <= SECTION_WORDS

    def hide(self, name: str) -> None:
        """Let a word stand for what is bound here, and no longer for the attribute of this name of an op or a block."""
        if name in self.kept and name not in SECTION_WORDS:
            self.kept -= {name}

    def _hole_of_let(self, node: ast.Let) -> Any:
        made = self.slot(node.value, "let")
        if isinstance(made, Slot):
            made.let = node.name
        return made

    def attribute(self, node: Any, *, everything: bool = False) -> Any:
        """An attribute value with what `let` and `repeat` bind in the place of names; `everything`: also the kept words."""
        kind = type(node)
        if kind is ast.Number or kind is Slot or kind is Missing or kind is ast.Size or kind is ast.Text:
            return node
        if kind is ast.Reference:
            if self.names is not None:
                self.note_word(node)
            if node.index is not None:
                name = self.index_name(node.name, node.index)
                return Missing(node.span) if name is None else ast.Reference(node.span, name)
            if node.name not in self.words or (node.name in self.kept and not everything):
                return node
            word = self.words[node.name]
            if isinstance(word, Slot):
                return Slot(word.decision, word.alternatives, node.span, word.let)
            return literal(word, node.span)
        if kind is ast.Arithmetic:
            left, right = self.attribute(node.left, everything=everything), self.attribute(node.right, everything=everything)
            same = left is node.left and right is node.right
            return node if same else ast.Arithmetic(node.span, node.operator, left, right)
        if kind is ast.Negative:
            inner = self.attribute(node.operand, everything=everything)
            return node if inner is node.operand else ast.Negative(node.span, inner)
        if kind is ast.Group:
            inner = self.attribute(node.inner, everything=everything)
            if everything:  # no more than what is in it: `let`s that read each other would nest ever deeper
                return inner
            return node if inner is node.inner else ast.Group(node.span, inner)
        if kind is ast.Call or kind is ast.Chain:  # among the alternatives of a `let`
            return node
        return self.slot(node, "attribute")

    def note_word(self, node: ast.Reference) -> None:
        """Enter what a name among attribute values refers to, if the text or the section binds it."""
        assert self.names is not None
        symbol = self.word_symbols.get(node.name)
        if symbol is None and node.name in SECTION_WORDS:
            symbol = self.names.built_in("section", node.name, primitives.SECTION[node.name])
        if symbol is not None and node.index is None:
            self.names.use(node.span, symbol)

    def evaluate(self, value: Any) -> Value | Unknown:
        """The number or word that a value without holes stands for; mistakes are reported."""
        return attributes.evaluate(value, self.words, self.problems)

    def constant(self, value: Any) -> tuple[Value | Unknown, Span | None]:
        """The number or word that a value stands for; or the span of the hole that it depends on."""
        made = self.attribute(value, everything=True)
        hole = find_hole(made)
        return (UNKNOWN, hole) if hole is not None else (self.evaluate(made), None)

    def index_name(self, name: str, index: ast.Attribute | None, *, read: bool = False) -> str | None:
        """``x[t-1]`` with t = 3 is ``x2``; None if the number is not known, which is reported."""
        if index is None:
            return name
        number, hole = self.constant(index)
        if hole is not None:
            self.problems.append(holes.hole_as_index(hole, index.span))
            return None
        if isinstance(number, Unknown):
            return None
        if not isinstance(number, int) or number < 0:
            if name in self.lost_names and read:  # by a `repeat` whose count is no number either
                return None
            self.problems.append(types.index_value(index.span, name, number, read=read))
            return None
        return f"{name}{number}"

    def word(self, value: ast.Attribute) -> Word:
        """What a value without holes of its own stands for."""
        made = self.attribute(value, everything=True)
        return made if find_hole(made) else attributes.evaluate(made, self.words, [])

    # ----------------------------------------------------------------------------------------------- holes

    def slot(self, node: Any, position: Position, *, is_adapter: bool = False) -> Slot | Missing:
        """A hole as a slot with a decision of its own."""
        made = self.decide(node, lambda alternative: self.alternative(alternative, position, is_adapter=is_adapter))
        return made if isinstance(made, Missing) else Slot(made[0], tuple(made[1]), node.span)

    def decide(self, node: Any, make: Callable[[Any], Any]) -> tuple[Decision, list[Any]] | Missing:
        """The decision of a hole, and what `make` makes of each of its alternatives."""
        if isinstance(node, ast.NamedHole) and not node.name:  # put in where a syntax error has left something out
            return Missing(node.span, True)
        context = self.context
        if len(context.decisions) >= MAX_DECISIONS:
            if not context.is_full:
                context.is_full = True
                context.problems.append(structure.too_many_holes(node.span, MAX_DECISIONS))
            return Missing(node.span)
        if not self.may_open(node.span):
            return Missing(node.span)
        outer_problems, self.problems = self.problems, context.hole_problems
        kind, name, raw = self._alternatives(node)
        if context.copies.depth:
            context.copies.size += len(raw)
        texts = tuple(_text(a, kind) for a in raw)
        decision = Decision(len(context.decisions), kind, name, texts, self.condition, node.span, self._weights(node, len(raw)))
        context.decisions.append(decision)
        outer = self.condition
        context.open.append(_choice_key(node, self.vocabulary))
        made = []
        for at, alternative in enumerate(raw):
            self.condition = both(outer, only(decision, at))
            made.append(make(alternative))
        context.open.pop()
        self.condition = outer
        self.problems = outer_problems
        return decision, made

    def may_open(self, span: Span) -> bool:
        """Whether a hole, or a copy of an op or a block, may stand inside of those that are open; reported if not."""
        context = self.context
        if len(context.open) < MAX_NESTED_HOLES:
            return True
        if not context.is_full:
            context.is_full = True
            context.problems.append(structure.holes_too_deep(span, MAX_NESTED_HOLES))
        return False

    def _weights(self, node: Any, count: int) -> tuple[float, ...]:
        """How often each alternative of a hole is drawn."""
        holder = self.vocabulary.find_choice(node.name) if isinstance(node, ast.NamedHole) else node
        given = holder.weights if isinstance(holder, ast.ChoiceHole | ast.ChoiceDef) else ()
        if len(given) != count:
            return ()
        for weight in given:
            if weight is not None and not weight.value > 0:
                self.problems.append(holes.bad_weight(weight.span, weight.text))
        weights = tuple([1.0 if w is None else float(w.value) for w in given])
        return weights if len(set(weights)) > 1 and min(weights) > 0 else ()

    def _alternatives(self, node: Any) -> tuple[SlotKind, str, tuple[Any, ...]]:
        """Kind, name and alternatives of a hole, as the tree has them."""
        if isinstance(node, ast.ChoiceHole):
            self._all_different(node)
            return "choice", "", node.alternatives
        if isinstance(node, ast.RangeHole):
            first, last = self._bound(node.first), self._bound(node.last)
            if first is None or last is None:
                return "range", "", (Missing(node.span),)
            if last < first or last - first >= MAX_RANGE:
                self.problems.append(holes.bad_range(node.span, first, last, MAX_RANGE))
                last = first
            return "range", "", tuple(ast.Number(node.span, i, str(i)) for i in range(first, last + 1))
        if self.names is not None:
            self.names.hole(node, self.vocabulary.find_choice(node.name))
        if node.name == "pool":
            pool = [name for name in self.pool if self._is_always_bound(name)]
            if not pool:
                self.problems.append(holes.empty_pool(node.span))
                return "pool", "pool", (Missing(node.span),)
            return "pool", "pool", tuple(ast.Reference(node.span, n) for n in pool)
        choice = self.vocabulary.find_choice(node.name)
        if choice is None:
            self.problems.append(holes.unknown_choice(node.span, node.name, self.vocabulary.known_choices()))
        elif any(choice is o for o in self.context.open):
            self.problems.append(holes.choice_in_circle(node.span, node.name))
        else:
            self._all_different(choice)
            return "choice", node.name, choice.alternatives
        return "choice", node.name, (Missing(node.span),)

    def _is_always_bound(self, name: str) -> bool:
        value = self.scope[name][0] if name in self.scope else None
        try:
            return not isinstance(value, Cases) or is_bound(meaning(value, self.condition))
        except TooMany:
            return False

    def _bound(self, value: ast.Attribute) -> int | None:
        number, hole = self.constant(value)
        if hole is not None:
            self.problems.append(holes.hole_as_bound(hole, value.span))
            return None
        return number if isinstance(number, int) else 0

    def _all_different(self, node: ast.ChoiceHole | ast.ChoiceDef) -> None:
        if node.span in self.context.compared:
            return
        self.context.compared.add(node.span)
        seen: dict[Any, Span] = {}
        for alternative in node.alternatives:
            first = seen.setdefault(alternative, alternative.span)
            if first is not alternative.span:
                self.problems.append(holes.same_alternative(alternative.span, first))


# -------------------------------------------------------------------------------------------------------- details


def literal(word: Word, span: Span) -> Any:
    """A word as an attribute value at this place."""
    if isinstance(word, Quoted):
        return ast.Text(span, word)
    if isinstance(word, str):
        return ast.Reference(span, word)
    if isinstance(word, Size):
        return ast.Size(span, *word)
    if isinstance(word, int | float):
        return ast.Number(span, word, str(word))
    return Missing(span) if isinstance(word, Unknown) or word is None else word


def find_hole(value: Any) -> Span | None:
    """Where the hole stands that a value is computed from."""
    kind = type(value)
    if kind is Slot:
        return value.decision.span  # type: ignore[no-any-return]  # `kind` says so
    if kind is ast.Arithmetic:
        return find_hole(value.left) or find_hole(value.right)
    if kind is ast.Negative:
        return find_hole(value.operand)
    if kind is ast.Group:
        return find_hole(value.inner)
    return value.span if isinstance(value, HOLES) else None


def parts_of(value: Any) -> tuple[Any, ...]:
    """What an attribute value is computed from; nothing for a number, a name or a hole."""
    if isinstance(value, ast.Arithmetic):
        return value.left, value.right
    if isinstance(value, ast.Negative):
        return (value.operand,)
    return (value.inner,) if isinstance(value, ast.Group) else ()


def names_in(value: Any) -> Iterator[str]:
    """Names that an attribute value is computed from."""
    if isinstance(value, ast.Reference):
        yield value.name
    for part in parts_of(value):
        yield from names_in(part)


def only(decision: Decision, at: int) -> Condition[Decision]:
    """The condition that a decision has one alternative."""
    return (((decision, frozenset((at,))),),)


def _choice_key(node: Any, vocabulary: Vocabulary) -> object:
    """What is open while the alternatives of a hole are read: its choice."""
    found = vocabulary.find_choice(node.name) if isinstance(node, ast.NamedHole) else None
    return found if found is not None else node


def _text(alternative: Any, kind: SlotKind) -> str:
    """An alternative as the text has it."""
    if isinstance(alternative, Missing):
        return "?"
    if isinstance(alternative, ast.Number):
        return alternative.text
    if kind == "pool":
        assert isinstance(alternative, ast.Reference)
        return alternative.name
    return " ".join(alternative.span.text.split())
