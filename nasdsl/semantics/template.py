"""A decoder with holes, written out: repeats unrolled, sections and definitions brought in, each hole a slot of its own.

What is left is one plain decoder and the definitions that it calls, in which every hole stands once and has a number. A
definition that has holes itself is copied for each call, because its holes are drawn afresh for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, TypeVar

from nasdsl.diagnostics import Diagnostic, Span, did_you_mean
from nasdsl.diagnostics.catalogue import holes as codes
from nasdsl.semantics import attributes, primitives
from nasdsl.semantics.sections import Origin, Sections
from nasdsl.semantics.vocabulary import Block, Definition, Op, Vocabulary, prelude
from nasdsl.syntax import ast

DomainKind: TypeAlias = Literal["choice", "pool", "range"]
MAX_RANGE = 10_000

_S = TypeVar("_S", ast.Fpn, ast.Head)


@dataclass(frozen=True, slots=True)
class Slot(ast.Node):
    """A hole with its number and what may stand in it. Alternatives may hold further slots."""

    number: int
    kind: DomainKind
    name: str
    alternatives: tuple[Any, ...]
    parent: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Template:
    """A decoder whose holes are slots.

    Attributes:
        decoder: with sections written out and no `require`.
        definitions: what it calls, in the order of need; with the (slot, alternative) that a copy belongs to, or None.
        slots: all of them, by number.
        requirements: the `require` statements.
        inputs: names of the backbone features.
    """

    decoder: ast.Decoder
    definitions: tuple[tuple[ast.OpDef | ast.BlockDef, tuple[int, int] | None], ...]
    slots: tuple[Slot, ...]
    requirements: tuple[ast.Require, ...]
    inputs: tuple[str, ...]


@dataclass(slots=True)
class _Scope:
    """Names that ``?pool`` may draw from, and the values of `repeat` variables."""

    pool: list[str]
    variables: dict[str, Any] = field(default_factory=dict)


def unroll(sections: Sections, problems: list[Diagnostic]) -> Template:
    """The template of a decoder that checks; what is wrong with its holes is added to `problems`."""
    return _Unroller(sections.origin.vocabulary, problems).decoder(sections)


class _Unroller:
    """Makes the template of a decoder."""

    def __init__(self, vocabulary: Vocabulary, problems: list[Diagnostic]) -> None:
        self.problems = problems
        self.slots: list[Slot | None] = []
        self.definitions: list[tuple[ast.OpDef | ast.BlockDef, tuple[int, int] | None]] = []
        self._vocabulary = vocabulary
        self._plain: dict[int, str] = {}  # definitions without holes, by identity, to the name they are written under
        self._names: set[str] = set()
        self._parent: tuple[int, int] | None = None
        self._open: list[Any] = []
        self._repeated: set[Span] = set()

    # ----------------------------------------------------------------------------------------- the decoder

    def decoder(self, sections: Sections) -> Template:
        """The template of a decoder."""
        node = sections.decoder
        inputs = tuple(n.name for item in node.items if isinstance(item, ast.Input) for n in item.names)
        items: list[ast.DecoderItem] = []
        for item in node.items:
            if isinstance(item, ast.Require):
                continue
            if isinstance(item, ast.Fpn):
                section, scope = self._enter(sections.fpn, sections.origin, list(inputs))
                settings = self._settings(section.settings, scope)
                items.append(replace(section, settings=settings, body=self._statements(section.body, scope), source=None))
            elif isinstance(item, ast.Head):
                part, scope = self._enter(sections.head, sections.origin, [])
                settings = self._settings(part.settings, scope)
                towers = tuple(replace(t, steps=tuple(self._step(s, scope) for s in t.steps)) for t in part.towers)
                items.append(replace(part, settings=settings, towers=towers, source=None))
            elif isinstance(item, ast.Let):
                items.append(replace(item, value=self._attribute(item.value, _Scope([]))))
            elif isinstance(item, ast.Predict):
                items.append(replace(item, settings=self._settings(item.settings, _Scope([]))))
            else:
                items.append(item)
        requirements = tuple(item for item in node.items if isinstance(item, ast.Require))
        slots = tuple(s for s in self.slots if s is not None)
        return Template(replace(node, items=tuple(items)), tuple(self.definitions), slots, requirements, inputs)

    def _enter(self, taken: tuple[_S, Origin], own: Origin, pool: list[str]) -> tuple[_S, _Scope]:
        """A section and its scope. The `let`s of another file's decoder are put in place of their names."""
        section, origin = taken
        self._vocabulary = origin.vocabulary
        variables = {} if origin is own else {k: v for k, v in origin.lets.items() if isinstance(v, int | str)}
        return section, _Scope(pool, variables)

    # ------------------------------------------------------------------------------------------ statements

    def _statements(self, statements: tuple[ast.Statement, ...], scope: _Scope) -> tuple[ast.Statement, ...]:
        return tuple(s for statement in statements for s in self._statement(statement, scope))

    def _statement(self, node: ast.Statement, scope: _Scope) -> Iterator[ast.Statement]:
        if isinstance(node, ast.Assign):
            targets = tuple(ast.Target(t.span, self._name(t.name, t.index, scope)) for t in node.targets)
            value = self._operand(node.value, scope)
            scope.pool += [t.name for t in targets if t.name not in scope.pool]
            yield replace(node, targets=targets, value=value)
        elif isinstance(node, ast.Output):
            bindings = tuple(replace(b, value=self._operand(b.value, scope)) for b in node.bindings)
            yield replace(node, bindings=bindings)
        elif isinstance(node, ast.Merge):
            yield replace(node, targets=tuple(ast.Reference(t.span, self._name(t.name, t.index, scope)) for t in node.targets))
        elif isinstance(node, ast.Let):
            yield replace(node, value=self._attribute(node.value, scope))
        else:
            yield from self._repeat(node, scope)

    def _repeat(self, node: ast.Repeat, scope: _Scope) -> Iterator[ast.Statement]:
        first = 1 if node.first is None else self._number(node.first, scope)
        last = self._number(node.last, scope)
        if node.variable is None and last - first > 0 and _rebinds(node.body) and not _has_holes(node.body, self._vocabulary):
            yield replace(node, last=ast.Number(node.last.span, last, str(last)), body=self._statements(node.body, scope))
            return
        for number in range(first, last + 1):
            variables = {**scope.variables, **({node.variable: number} if node.variable else {})}
            inner = _Scope(scope.pool, variables)
            rounds = self._statements(node.body, inner)
            if _rebinds(node.body):  # a name may be bound again only inside `repeat`
                one = ast.Number(node.span, 1, "1")
                yield ast.Repeat(node.span, None, None, one, rounds)
            else:
                yield from rounds

    def _number(self, value: ast.Attribute, scope: _Scope) -> int:
        number = attributes.evaluate(value, scope.variables, self.problems)
        return number if isinstance(number, int) else 0

    def _name(self, name: str, index: ast.Attribute | None, scope: _Scope) -> str:
        made = attributes.index_name(name, index, scope.variables, self.problems)
        return made if isinstance(made, str) else name

    # ----------------------------------------------------------------------------------------- expressions

    def _operand(self, node: Any, scope: _Scope) -> Any:
        if isinstance(node, ast.Reference):
            if node.index is not None:
                return ast.Reference(node.span, self._name(node.name, node.index, scope))
            word = scope.variables.get(node.name)
            return ast.Reference(node.span, word) if isinstance(word, str) and node.name not in scope.pool else node
        if isinstance(node, ast.Call):
            callee: Any = node.callee
            callee = self._called(callee, scope)
            operands = tuple(self._operand(o, scope) for o in node.operands)
            return replace(node, callee=callee, operands=operands, settings=self._settings(node.settings, scope))
        if isinstance(node, ast.Number):
            return node
        return self._slot(node, scope, "operand")

    def _settings(self, settings: tuple[ast.Setting, ...], scope: _Scope) -> tuple[ast.Setting, ...]:
        return tuple(replace(s, value=self._attribute(s.value, scope)) for s in settings)

    def _attribute(self, node: Any, scope: _Scope) -> Any:
        if isinstance(node, ast.NamedHole | ast.ChoiceHole | ast.RangeHole):
            return self._slot(node, scope, "attribute")
        if isinstance(node, ast.Reference):
            if node.index is None and node.name in scope.variables:
                value = scope.variables[node.name]
                if isinstance(value, str):
                    return ast.Reference(node.span, value)
                return ast.Number(node.span, value, str(value))
            return ast.Reference(node.span, self._name(node.name, node.index, scope))
        if isinstance(node, ast.Arithmetic):
            return replace(node, left=self._attribute(node.left, scope), right=self._attribute(node.right, scope))
        if isinstance(node, ast.Negative):
            return replace(node, operand=self._attribute(node.operand, scope))
        if isinstance(node, ast.Group):
            return replace(node, inner=self._attribute(node.inner, scope))
        return node

    def _step(self, step: ast.Step, scope: _Scope) -> ast.Step:
        operation: Any = step.operation
        return replace(step, operation=self._called(operation, scope), settings=self._settings(step.settings, scope))

    def _called(self, name: Any, scope: _Scope) -> Any:
        """What stands before the brackets: a name, one that another file's `let` stands for, or a slot."""
        if not isinstance(name, str):
            return self._slot(name, scope, "callee")
        word = scope.variables.get(name)
        known = self._vocabulary.find(name) is not None or primitives.find(name) is not None
        return self._definition(word if isinstance(word, str) and not known else name)

    # ------------------------------------------------------------------------------------------------ holes

    def _slot(self, node: Any, scope: _Scope, position: str) -> Slot | ast.Reference:
        number = len(self.slots)
        self.slots.append(None)
        kind, name, raw = self._alternatives(node, scope)
        parent, self._parent = self._parent, None
        made = []
        self._open.append(node.name if isinstance(node, ast.NamedHole) else node)
        for at, alternative in enumerate(raw):
            self._parent = (number, at)
            if position == "callee":
                made.append(self._callee(alternative, scope))
            elif position == "attribute":
                made.append(self._attribute(alternative, scope))
            else:
                made.append(self._operand(alternative, scope))
        self._open.pop()
        self._parent = parent
        slot = Slot(node.span, number, kind, name, tuple(made), parent)
        self.slots[number] = slot
        return slot

    def _callee(self, alternative: Any, scope: _Scope) -> Any:
        """What may stand before the brackets: a name, a name with attributes (``conv(k=3)``), or a further hole."""
        if isinstance(alternative, ast.Reference) and alternative.index is None:
            return replace(alternative, name=self._definition(alternative.name))
        if isinstance(alternative, ast.Call) and not alternative.operands and isinstance(alternative.callee, str):
            settings = self._settings(alternative.settings, scope)
            return replace(alternative, callee=self._definition(alternative.callee), settings=settings)
        if isinstance(alternative, ast.NamedHole | ast.ChoiceHole):
            return self._slot(alternative, scope, "callee")
        self.problems.append(
            codes.MISPLACED_HOLE(
                alternative.span,
                "this cannot stand before operands",
                label="expected the name of an op, or one with attributes: conv(k=3)",
            )
        )
        return ast.Reference(alternative.span, "skip")

    def _alternatives(self, node: Any, scope: _Scope) -> tuple[DomainKind, str, tuple[Any, ...]]:
        if isinstance(node, ast.ChoiceHole):
            self._all_different(node.alternatives)
            return "choice", "", node.alternatives
        if isinstance(node, ast.RangeHole):
            first, last = self._number(node.first, scope), self._number(node.last, scope)
            if last < first or last - first >= MAX_RANGE:
                self.problems.append(
                    codes.BAD_RANGE(
                        node.span,
                        f"the range {first}..{last} has no alternatives or too many",
                        label=f"expected first <= last, and at most {MAX_RANGE:,} of them",
                    )
                )
                last = first
            return "range", "", tuple(ast.Number(node.span, i, str(i)) for i in range(first, last + 1))
        if node.name == "pool":
            if not scope.pool:
                self.problems.append(codes.EMPTY_POOL(node.span, "no value is in scope for `?pool`", label="nothing to choose"))
            return "pool", "pool", tuple(ast.Reference(node.span, n) for n in scope.pool) or (ast.Reference(node.span, "c3"),)
        choice = self._vocabulary.find_choice(node.name)
        if choice is None:
            guess = did_you_mean(node.name, [*self._vocabulary.known_choices(), "pool"])
            self.problems.append(
                codes.UNKNOWN_CHOICE(
                    node.span,
                    f"no choice is called `{node.name}`",
                    label="expected the name of a `choice`, or pool",
                    help=f"did you mean `?{guess}`?" if guess else f"define it: `choice {node.name} = a | b`",
                    fix=f"?{guess}" if guess else None,
                )
            )
        elif node.name in self._open:
            self.problems.append(
                codes.CHOICE_IN_CIRCLE(node.span, f"the choice `{node.name}` contains itself", label="inside itself")
            )
        else:
            self._all_different(choice.alternatives)
            return "choice", node.name, choice.alternatives
        return "choice", node.name, (ast.Reference(node.span, "skip"),)

    def _all_different(self, alternatives: tuple[Any, ...]) -> None:
        seen: list[Any] = []
        for alternative in alternatives:
            if alternative in seen and alternative.span not in self._repeated:
                self._repeated.add(alternative.span)
                self.problems.append(
                    codes.SAME_ALTERNATIVE(
                        alternative.span,
                        f"`{' '.join(alternative.span.text.split())}` stands twice",
                        label="second time",
                        related=[(seen[seen.index(alternative)].span, "first time")],
                    )
                )
            seen.append(alternative)

    # ------------------------------------------------------------------------------------------ definitions

    def _definition(self, name: str) -> str:
        """The name under which the definition of `name` is written out; prelude and primitives keep theirs."""
        found = self._vocabulary.find(name)
        if found is None or prelude().definitions.get(name) is found or any(found is d for d in self._open):
            return name
        if not _definition_has_holes(found, set()):
            if id(found) not in self._plain:
                self._plain[id(found)] = self._fresh(name)
                self._write(found, self._plain[id(found)], None)
            return self._plain[id(found)]
        fresh = self._fresh(f"{name}_{sum(d.name.startswith(f'{name}_') for d, _ in self.definitions) + 1}")
        self._write(found, fresh, self._parent)
        return fresh

    def _fresh(self, name: str) -> str:
        made, number = name, 1
        while made in self._names:
            number += 1
            made = f"{name}_{number}"
        self._names.add(made)
        return made

    def _write(self, found: Definition, name: str, parent: tuple[int, int] | None) -> None:
        outer, self._vocabulary = self._vocabulary, found.home
        self._open.append(found)
        node: ast.OpDef | ast.BlockDef
        if isinstance(found, Op):
            body = self._operand(found.definition.body, _Scope(list(found.operands)))
            node = replace(found.definition, name=name, body=body)
        else:
            scope = _Scope([p.name for p in found.definition.parameters])
            node = replace(found.definition, name=name, body=self._statements(found.definition.body, scope))
        self._open.pop()
        self._vocabulary = outer
        self.definitions.append((node, parent))


def _definition_has_holes(found: Definition, seen: set[int]) -> bool:
    if id(found) in seen:
        return False
    seen.add(id(found))
    return _has_holes(found.definition.body, found.home, seen)


def _has_holes(node: Any, home: Vocabulary, seen: set[int] | None = None) -> bool:
    """Whether a piece of the tree holds a hole, or calls a definition that does."""
    seen = set() if seen is None else seen
    for part in walk(node):
        if isinstance(part, ast.NamedHole | ast.ChoiceHole | ast.RangeHole):
            return True
        name = part.callee if isinstance(part, ast.Call) else None
        found = home.find(name) if isinstance(name, str) else None
        if isinstance(found, Op | Block) and _definition_has_holes(found, seen):
            return True
    return False


def _rebinds(body: tuple[ast.Statement, ...]) -> bool:
    """Whether rounds of a repeat bind the same names: some target is not numbered."""
    return any(isinstance(s, ast.Assign) and any(t.index is None for t in s.targets) for s in walk(body))


def walk(node: Any) -> Iterator[ast.Node]:
    """Every node of a piece of the tree, in the order of the text."""
    if isinstance(node, tuple):
        for part in node:
            yield from walk(part)
    elif isinstance(node, ast.Node):
        yield node
        for name in node.__dataclass_fields__:
            if name not in ("span", "name_span", "callee_span", "detector_span", "quantity_span"):
                value = getattr(node, name)
                if isinstance(value, tuple | ast.Node) and not isinstance(value, Span):
                    yield from walk(value)
