"""Conversion of a program to a syntax tree with numbered slots, and filling of that tree.

The tree is one plain decoder and the definitions that it calls, so that its filled text needs no other file. A definition
that has holes is written once for each call, because its holes are filled afresh for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, assert_never

from nasdsl.diagnostics import Span
from nasdsl.semantics import primitives
from nasdsl.semantics.conditions import ALWAYS, Condition, both, holds, numbered
from nasdsl.semantics.elaborate_callee import DEFAULT_ADAPTER
from nasdsl.semantics.primitives import Primitive
from nasdsl.semantics.program import (
    Assign,
    Body,
    Call,
    Merge,
    Nothing,
    Output,
    Program,
    Ref,
    SetWord,
    Shared,
    Slot,
    Statement,
    Step,
    Target,
    When,
    find_slot,
)
from nasdsl.semantics.vocabulary import Block, Definition, Op, Vocabulary, is_of_prelude, prelude
from nasdsl.syntax import ast

_SPANS = frozenset({"span", "name_span", "callee_span", "detector_span", "quantity_span", "text"})

_LEAVES = frozenset({ast.Reference, ast.Number, ast.Size, ast.Text, ast.InputName, ast.Target})


@ast.node
class TreeSlot(ast.Node):
    """A hole in the tree: the number of its decision, and the tree of each alternative."""

    number: int
    alternatives: tuple[Any, ...]


@ast.node
class TreeWhen(ast.Node):
    """Statements of a body, or steps of a chain, that are there where a condition holds."""

    condition: Condition[int]
    parts: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """The tree of a program.

    Attributes:
        decoder: without `require`.
        definitions: what it calls, each with the condition that it is called.
        sizes: number of alternatives of each decision.
    """

    decoder: ast.Decoder
    definitions: tuple[tuple[ast.OpDef | ast.BlockDef, Condition[int]], ...]
    sizes: tuple[int, ...]


def to_syntax_tree(program: Program) -> Tree:
    """The syntax tree of a program that checks."""
    return _TreeBuilder().tree(program)


def fill(tree: Tree, indices: Sequence[int]) -> ast.File:
    """The tree of the decoder in which each slot holds the alternative of its index.

    Definitions stand behind the decoder: which of them it needs is known once its own slots are filled.
    """
    definitions = [filled(d, indices) for d, condition in tree.definitions if holds(condition, indices)]
    decoder = filled(tree.decoder, indices)
    return ast.File(decoder.span, (decoder, *definitions))


def filled(node: Any, indices: Sequence[int]) -> Any:
    """A piece of the tree with the chosen alternatives in its slots."""
    kind = type(node)
    if kind is tuple:
        parts: list[Any] = []
        for part in node:
            if type(part) is not TreeWhen:
                parts.append(filled(part, indices))
            elif holds(part.condition, indices):
                parts += filled(part.parts, indices)
        return tuple(parts)
    if kind is TreeSlot:
        return filled(node.alternatives[indices[node.number]], indices)
    if kind is ast.Call:
        callee, extra = _called(node.callee, indices)
        operands = tuple([filled(o, indices) for o in node.operands])
        return ast.Call(node.span, callee, node.callee_span, operands, filled(extra + node.settings, indices), node.distinct)
    if kind is ast.Step:
        callee, extra = _called(node.operation, indices)
        return ast.Step(node.span, callee, filled(extra + node.settings, indices))
    if not isinstance(node, ast.Node) or kind in _LEAVES:
        return node
    changed = {}
    for name in node.__dataclass_fields__:
        if name not in _SPANS:
            value = getattr(node, name)
            made = filled(value, indices)
            if made is not value:
                changed[name] = made
    return replace(node, **changed) if changed else node


def _called(callee: Any, indices: Sequence[int]) -> tuple[str, tuple[ast.Setting, ...]]:
    """The name before the brackets, and the attributes that an alternative such as ``conv(k=3)`` brings along."""
    while type(callee) is TreeSlot:
        callee = callee.alternatives[indices[callee.number]]
    if isinstance(callee, str):
        return callee, ()
    if isinstance(callee, ast.Call):
        assert isinstance(callee.callee, str)
        return callee.callee, callee.settings
    name: str = callee.name
    return name, ()


class _TreeBuilder:
    def __init__(self) -> None:
        self.definitions: list[tuple[ast.OpDef | ast.BlockDef, Condition[int]]] = []
        self._plain: dict[int, str] = {}  # definitions without holes, by identity, to the name they are written under
        self._names: set[str] = set()
        self._condition: Condition[int] = ALWAYS
        self._shared: dict[int, str] = {}  # `shared` ops, by identity, to the name they are written under
        self._lets: dict[str, Slot] = {}  # the hole that a `let` of this name holds, at this place of the text

    def tree(self, program: Program) -> Tree:
        for definition in program.passed:
            if not definition.has_slots:  # with holes it cannot be passed: its fillings cannot be built
                self._plain_name(definition)
        span = program.span
        items: list[ast.DecoderItem] = []
        if program.inputs:
            items.append(ast.Input(span, tuple(ast.InputName(i.span, i.name) for i in program.inputs)))
        items += [let for word in program.words for let in self._let(word)]
        if program.detector is not None:
            settings = tuple(self._setting(s) for s in program.detector.settings)
            items.append(ast.Detector(program.detector.span, settings))
        outer = dict(self._lets)
        if program.fpn is not None:
            fpn = program.fpn
            settings = tuple(
                replace(s, value=self._adapter(fpn.adapter, s.value)) if s.name == "adapter" else self._setting(s)
                for s in fpn.settings
            )
            if not any(s.name == "adapter" for s in settings) and not self._is_default(fpn.adapter):
                settings += (ast.Setting(span, "adapter", span, self._adapter(fpn.adapter, ast.Reference(span, ""))),)
            items.append(ast.Fpn(span, settings, self._statements(fpn.statements)))
        self._lets = outer
        if program.head is not None:
            head = program.head
            settings = tuple(self._setting(s) for s in head.settings)
            towers = tuple(ast.Tower(c.span, c.label, self._steps(c.steps)) for c in head.chains)
            items.append(ast.Head(head.span, settings, towers))
        if program.predict is not None:
            predict = program.predict
            settings = tuple(
                replace(s, value=self._adapter(predict.conv, s.value)) if s.name == "conv" else self._setting(s)
                for s in predict.settings
            )
            items.append(ast.Predict(predict.span, predict.detector, predict.detector_span, settings))
        decoder = ast.Decoder(span, program.name, span, tuple(items))
        return Tree(decoder, tuple(self.definitions), tuple(len(d.texts) for d in program.decisions))

    # ------------------------------------------------------------------------------------------ statements

    def _statements(self, statements: tuple[Statement, ...]) -> tuple[ast.Statement, ...]:
        made: list[ast.Statement] = []
        output: Span | None = None  # of the statement that the last binding belongs to
        for statement in statements:
            before, output = output, None
            if isinstance(statement, Assign):
                targets = tuple(ast.Target(t.span, t.name) for t in statement.targets if t is not None)
                made.append(ast.Assign(statement.span, targets, self._operand(statement.value)))
            elif isinstance(statement, Output):
                output = statement.statement_span
                value = self._operand(statement.value)
                binding = ast.OutputBinding(statement.span, statement.name, statement.name_span, value)
                last = made[-1] if made else None
                if before is output and isinstance(last, ast.Output):
                    made[-1] = replace(last, bindings=(*last.bindings, binding))
                else:
                    made.append(ast.Output(output, (binding,)))
            elif isinstance(statement, Merge):
                made.append(ast.Merge(statement.span, tuple(self._operand(t) for t in statement.targets)))
            elif isinstance(statement, SetWord):
                made += self._let(statement)
            elif isinstance(statement, Shared):
                made.append(self._shared_op(statement.op))
            elif isinstance(statement, When):
                outer, self._condition = self._condition, numbered(statement.condition)
                parts = self._statements(statement.statements)
                self._condition = outer
                made.append(TreeWhen(_span_of(statement), numbered(statement.condition), parts))  # type: ignore[arg-type]  # until it is filled
            else:
                assert_never(statement)
        return tuple(made)

    def _shared_op(self, op: Op) -> ast.OpDef:
        """A `shared` op, under a name that nothing else has: in its own text it may hide one of the prelude for a while."""
        body = self._operand(op.body)
        name = self._shared[id(op)] = self._fresh(op.name, is_local=True)
        return replace(op.definition, name=name, body=body)

    def _let(self, statement: SetWord) -> tuple[ast.Let, ...]:
        """The `let` of a hole, or of a word that calls read; others stand in place of their names already."""
        value = statement.value
        if isinstance(value, Slot) and value.let is not None:
            self._lets[statement.name] = value
        elif statement.is_written:
            self._lets.pop(statement.name, None)
        if not find_slot(value) and statement.name not in primitives.SECTION:
            return ()
        own = replace(value, let=None) if isinstance(value, Slot) else value
        return (ast.Let(statement.span, statement.name, statement.span, self._attribute(own)),)

    # ----------------------------------------------------------------------------------------- expressions

    def _operand(self, node: Any) -> Any:
        if isinstance(node, Ref):
            return ast.Reference(node.span, node.name)
        if isinstance(node, Call):
            callee = self._callee(node.target)
            operands = tuple(self._operand(o) for o in node.operands)
            settings = tuple(self._setting(s) for s in node.settings)
            operands += tuple(s.value for s in settings if s.name in primitives.CONSTANTS)
            last = _attribute_of_last(node.target)
            if last:
                operands, settings = operands[:-1], (*settings, ast.Setting(node.span, last, node.span, operands[-1]))
            settings = tuple(s for s in settings if s.name not in primitives.CONSTANTS)
            return ast.Call(node.span, callee, node.callee_span, operands, settings, node.is_distinct)
        if isinstance(node, Nothing):
            return ast.Reference(node.span, primitives.NONE)
        assert isinstance(node, Slot)
        if self._is_let(node):
            return ast.Reference(node.span, node.let)  # type: ignore[arg-type]  # `_is_let` says so
        return self._slot(node, self._operand)

    def _steps(self, steps: tuple[Step, ...]) -> tuple[Any, ...]:
        made: list[Any] = []
        for step in steps:
            condition = numbered(step.condition)
            outer, self._condition = self._condition, both(self._condition, condition)
            part = self._step(step.call, step.span)
            self._condition = outer
            made.append(part if condition == ALWAYS else TreeWhen(step.span, condition, (part,)))
        return tuple(made)

    def _step(self, call: Call, span: Span) -> ast.Step:
        return ast.Step(span, self._callee(call.target), tuple(self._setting(s) for s in call.settings))

    def _callee(self, target: Target | Slot) -> Any:
        """What stands before the brackets: a name, or a slot."""
        if isinstance(target, Target):
            return self._name(target)
        if self._is_let(target) and _is_plain(target):
            return target.let
        return self._slot(target, self._target)

    def _target(self, target: Target | Slot) -> Any:
        """An alternative of a slot before brackets."""
        if isinstance(target, Slot):
            return self._slot(target, self._target)
        name = self._name(target)
        if not target.settings:
            return ast.Reference(target.span, name)
        return ast.Call(target.span, name, target.span, (), tuple(self._setting(s) for s in target.settings))

    def _setting(self, setting: ast.Setting) -> ast.Setting:
        return replace(setting, value=self._attribute(setting.value)) if find_slot(setting.value) else setting

    def _attribute(self, value: Any) -> Any:
        if isinstance(value, Slot):
            if self._is_let(value):
                return ast.Reference(value.span, value.let)  # type: ignore[arg-type]  # `_is_let` says so
            return self._slot(value, self._attribute)
        if isinstance(value, ast.Arithmetic):
            return replace(value, left=self._attribute(value.left), right=self._attribute(value.right))
        if isinstance(value, ast.Negative):
            return replace(value, operand=self._attribute(value.operand))
        return replace(value, inner=self._attribute(value.inner)) if isinstance(value, ast.Group) else value

    def _is_default(self, adapter: Target | Slot | None) -> bool:
        """Whether an fpn without ``adapter`` has this one in every text; a definition of the file may hide the prelude's."""
        return isinstance(adapter, Target) and adapter.name == DEFAULT_ADAPTER and is_of_prelude(adapter.callee)

    def _adapter(self, adapter: Target | Slot | None, written: Any) -> Any:
        """The value of ``adapter=``."""
        if adapter is None:
            return ast.Reference(written.span, "none")
        if isinstance(adapter, Target):
            return ast.Reference(written.span, self._name(adapter))
        if self._is_let(adapter) and _is_plain(adapter):
            return ast.Reference(written.span, adapter.let)  # type: ignore[arg-type]  # `_is_let` says so
        return self._slot(adapter, lambda a: self._adapter(a, written))

    def _slot(self, slot: Slot, make: Any) -> TreeSlot:
        outer = self._condition
        made = []
        for at, alternative in enumerate(slot.alternatives):
            self._condition = both(outer, (((slot.number, frozenset((at,))),),))
            made.append(make(alternative))
        self._condition = outer
        return TreeSlot(slot.span, slot.number, tuple(made))

    def _is_let(self, slot: Slot) -> bool:
        """Whether the name of the slot's `let` means its hole at this place of the text."""
        written = None if slot.let is None else self._lets.get(slot.let)
        return written is not None and written.decision is slot.decision and _means(written, slot)

    # ----------------------------------------------------------------------------------------- definitions

    def _name(self, target: Target) -> str:
        """The name that a callee has in the text; those of prelude and primitives stay."""
        callee = target.callee
        if isinstance(callee, Primitive):
            return callee.name
        if callee is None or isinstance(callee, str):
            return target.name
        if is_of_prelude(callee):
            return callee.name
        if isinstance(callee, Op) and callee.is_shared:
            return self._shared[id(callee)]
        if not callee.has_slots:
            return self._plain_name(callee)
        name = callee.name
        name = self._fresh(f"{name}_{sum(d.name.startswith(f'{name}_') for d, _ in self.definitions) + 1}")
        outer, self._lets = self._lets, {}
        node: ast.OpDef | ast.BlockDef
        if isinstance(callee, Op):
            node = replace(callee.definition, name=name, body=self._operand(callee.body))
            node = replace(node, parameters=self._renamed(node.parameters, callee.home, {}))
        else:
            assert callee.only_body is not None
            node = self._block(callee, name, callee.only_body)
        self._lets = outer
        self.definitions.append((node, self._condition))
        return name

    def _block(self, block: Block, name: str, body: Body) -> ast.BlockDef:
        statements = self._statements(body.statements)
        results: Any = tuple([self._operand(result) for result in body.results])  # references, which have a name as well
        parameters = self._renamed(block.definition.parameters, block.home, {})
        return replace(block.definition, name=name, parameters=parameters, results=results, body=statements)

    def _plain_name(self, definition: Definition) -> str:
        """The name of a definition without holes, which is written once, as its file has it."""
        if is_of_prelude(definition):
            return definition.name
        known = self._plain.get(id(definition))
        if known is None:
            known = self._plain[id(definition)] = self._fresh(definition.name)
            node = definition.definition
            home, shared = definition.home, dict[str, str]()
            parameters = self._renamed(node.parameters, home, shared)
            node = replace(node, name=known, parameters=parameters, body=self._renamed(node.body, home, shared))
            self.definitions.append((node, ALWAYS))
        return known

    def _renamed(self, node: Any, home: Vocabulary, shared: dict[str, str]) -> Any:
        """A piece of a definition in which the ops that it calls, or that attributes name, have the names of this text.

        Args:
            shared: names of `shared` ops of the text around it; those that statements of the piece define are added.
        """
        if isinstance(node, tuple):
            return tuple(self._renamed(part, home, shared) for part in node)
        if isinstance(node, ast.Call):
            callee = node.callee
            if isinstance(callee, str):
                called = None if callee in shared else home.find(callee)
                callee = shared.get(callee, callee) if called is None else self._plain_name(called)
            operands, settings = self._renamed(node.operands, home, shared), self._renamed(node.settings, home, shared)
            return replace(node, callee=callee, operands=operands, settings=settings)
        if isinstance(node, ast.Setting):
            return replace(node, value=self._renamed_word(node.value, home))
        if isinstance(node, ast.Parameter):
            return node if node.default is None else replace(node, default=self._renamed_word(node.default, home))
        if isinstance(node, ast.Assign):
            return replace(node, value=self._renamed(node.value, home, shared))
        if isinstance(node, ast.OpDef):
            body = self._renamed(node.body, home, shared)
            shared[node.name] = self._fresh(node.name, is_local=True)
            return replace(node, name=shared[node.name], body=body)
        if isinstance(node, ast.Let) and isinstance(node.value, ast.Reference) and node.value.name in shared:
            return replace(node, value=replace(node.value, name=shared[node.value.name]))
        if isinstance(node, ast.Repeat):
            return replace(node, body=self._renamed(node.body, home, dict(shared)))
        return node

    def _renamed_word(self, value: Any, home: Vocabulary) -> Any:
        """An attribute value; where it names an op, one that has the name of this text."""
        found = home.find(value.name) if isinstance(value, ast.Reference) and value.index is None else None
        return value if found is None or found.has_slots else replace(value, name=self._plain_name(found))

    def _fresh(self, name: str, *, is_local: bool = False) -> str:
        """A name that no definition has; `is_local`: and that nothing in the prelude has."""
        made, number = name, 1
        while made in self._names or (is_local and (prelude().find(made) is not None or primitives.find(made) is not None)):
            number += 1
            made = f"{name}_{number}"
        self._names.add(made)
        return made


def _means(written: Any, read: Any) -> bool:
    """Whether a `let` names what a place that reads it means; a `repeat` may have bound the name to another value."""
    if isinstance(read, Slot):
        return isinstance(written, Slot) and all(map(_means, written.alternatives, read.alternatives))
    if isinstance(read, Ref | ast.Reference):
        return isinstance(written, ast.Reference) and written.name == read.name
    return True


def _is_plain(slot: Slot) -> bool:
    """Whether each alternative of a `let` that stands before brackets is a name that every text has."""
    return all(
        _is_plain(a)
        if isinstance(a, Slot)
        else a is None or (not a.settings and (isinstance(a.callee, Primitive) or is_of_prelude(a.callee)))
        for a in slot.alternatives
    )


def _span_of(when: When) -> Span:
    first = when.statements[0]
    return _span_of(first) if isinstance(first, When) else first.span


def _attribute_of_last(target: Target | Slot) -> str:
    """The attribute that the last operand of a call is written as; empty where it is none."""
    return target.callee.last if isinstance(target, Target) and isinstance(target.callee, Primitive) else ""
