"""Elaboration of expressions: calls with their operands, the alternatives of holes, definitions with holes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import holes, names, structure, syntax, types
from nasdsl.semantics import primitives
from nasdsl.semantics.attributes import Size, Unknown
from nasdsl.semantics.conditions import ALWAYS, Condition
from nasdsl.semantics.elaborate_attribute import HOLES, SECTION_WORDS, Context, Position, Word, find_hole, names_in
from nasdsl.semantics.elaborate_callee import CalleeElaborator, unknown_target
from nasdsl.semantics.expansion_cache import ExpansionCache
from nasdsl.semantics.note_calls import note_call
from nasdsl.semantics.primitives import Primitive
from nasdsl.semantics.program import Call, Decision, Missing, Operand, Slot, Target, find_slot
from nasdsl.semantics.vocabulary import Block, Definition, Op
from nasdsl.syntax import ast

MAX_CALLS: Final = 150
"""Deepest nesting of calls, those in the bodies of ops and blocks included: well inside the interpreter's own stack."""

MAX_COPIED: Final = 30_000
"""Calls, statements and alternatives in the bodies of what has holes: each call of it has decisions of its own."""

_NUMBERS: Final = (ast.Number, ast.Size, ast.Text, ast.Arithmetic, ast.Negative, ast.Group)


class ExpressionElaborator(CalleeElaborator):
    """Elaborates the expressions and attribute values of one body: an fpn, a block, an op, or a head.

    Args:
        vocabulary, words, kept, scope, later, condition, region, word_symbols: as of `ReferenceElaborator`.
    """

    def operand(self, node: ast.Operand | ast.Attribute, reader: ast.Call | None = None) -> Operand:
        """The program of an expression; `reader` is the call that it is an operand of."""
        kind = type(node)
        if kind is ast.Reference:
            return self.reference(node)  # type: ignore[arg-type]  # `kind` says so
        if kind is ast.Call:
            return self.call(node)  # type: ignore[arg-type]  # `kind` says so
        if isinstance(node, _NUMBERS):
            self.problems.append(holes.not_a_value(node.span) if reader is None else self._no_operand(node, reader))
            return Missing(node.span, is_left_out=reader is not None)  # then nothing is said of how many operands there are
        made = self.slot(node, "operand")
        return made if isinstance(made, Slot | Missing) else Missing(node.span)

    def call(self, node: ast.Call) -> Call:
        """The program of a call. The value of ``by=w`` becomes an operand, and numbers among those of ``mul`` an attribute."""
        settings = node.settings
        callee = node.callee
        target: Target | Slot | None = self.known_target(callee) if isinstance(callee, str) else None
        is_read = False
        if self.context.copies.depth:
            self.context.copies.size += 1
        if target is None:
            target, settings, is_read = self.called(callee, node.callee_span, settings)
        if self.names is not None:
            note_call(self, callee, node.callee_span, target, settings=node.settings)
        operand, reference = self.operand, self.reference
        values: Sequence[Any] = node.operands
        numbers: list[ast.Attribute] = []
        constants = _constants_of(target)
        if constants != _NO_CONSTANT:
            values, numbers = self._values_and_numbers(node, constants)
        operands = tuple([reference(o) if type(o) is ast.Reference else operand(o, node) for o in values])
        if numbers:
            settings = (*settings, _constant(next(iter(constants)), numbers))
        variant = _variant(target, settings) if settings else None
        if variant is not None and isinstance(target, Target):
            target, settings = target._replace(callee=variant), self._without_twins(settings, variant.last)
            last = next(s.value for s in settings if s.name == variant.last)
            operands, settings = (*operands, self._named_value(last)), tuple(s for s in settings if s.name != variant.last)
        has_slots = False
        if settings:
            if not is_read:
                settings = self.settings_of(target, settings)
            self.note_passed_ops(settings)
            has_slots = any(find_slot(s.value) for s in settings)
        if node.distinct and len(operands) < 2:
            self.problems.append(holes.distinct_of_one(node.span))
        return Call(target, operands, settings, has_slots, node.span, node.callee_span, node.distinct)

    def _without_twins(self, settings: tuple[ast.Setting, ...], name: str) -> tuple[ast.Setting, ...]:
        """Attributes without the second and further ones of this name, which are reported."""
        first, *others = (s for s in settings if s.name == name)
        self.problems += [types.attribute_twice(s.name_span, name, first.name_span) for s in others]
        return tuple(s for s in settings if s not in others)

    def _named_value(self, node: ast.Attribute) -> Operand:
        """The value that an attribute names, as an operand."""
        if isinstance(node, ast.Reference):
            return self.reference(node)
        if not isinstance(node, HOLES):
            is_of_values = any(name in self.scope for name in names_in(node))
            problem = syntax.arithmetic_on_values(node.span) if is_of_values else syntax.number_as_operand(node.span, "")
            self.problems.append(problem)
            return Missing(node.span)
        made = self.slot(node, "value")
        return made if isinstance(made, Slot | Missing) else Missing(node.span)

    def _no_operand(self, node: ast.Attribute, reader: ast.Call) -> Diagnostic:
        """The finding about a number among the operands of a call, or about arithmetic on values."""
        while isinstance(node, ast.Group) and isinstance(node.inner, ast.Group):
            node = node.inner
        if isinstance(node, ast.Group) and isinstance(node.inner, ast.Reference | ast.NamedHole | ast.ChoiceHole):
            return syntax.value_in_brackets(node.span, node.inner.span.text)
        if any(name in self.scope for name in names_in(node)):
            return syntax.arithmetic_on_values(node.span)
        return syntax.number_as_operand(node.span, reader.callee if isinstance(reader.callee, str) else "")

    def _values_and_numbers(self, call: ast.Call, constants: set[str]) -> tuple[list[Any], list[ast.Attribute]]:
        """The operands of ``mul`` or ``add``, apart from the numbers among them, of which there are `MAX_OPERANDS` at most.

        `constants`: as of `_constants_of`.
        """
        values: list[Any] = []
        numbers: list[ast.Attribute] = []
        nodes: Sequence[Any] = call.operands
        for node in nodes:
            are = set(self._numbers_among(node, ()))
            if True not in are:
                values.append(node)
            elif len(are) == len(constants) == 1:
                numbers.append(node)
            else:
                is_mixed = len(are) == 2
                self.problems.append(
                    holes.values_and_numbers(node.span, constants) if is_mixed else syntax.number_of_several_calls(node.span)
                )
                values.append(ast.NamedHole(node.span, ""))  # is reported, and how many operands there are is not known
        most = primitives.MAX_OPERANDS
        if numbers and len(call.operands) > most >= len(values):  # more values are reported where the call is inferred
            self.problems.append(types.operand_count(call.callee_span, call.callee_span.text, len(call.operands), 2, most))
        return values, numbers[:most]

    def _numbers_among(self, node: Any, within: tuple[str, ...]) -> Iterator[bool]:
        """Whether an operand is a number; of a hole, for each alternative. `within`: choices that it is an alternative of."""
        kind = type(node)
        if kind is Slot or kind is ast.ChoiceHole:
            for alternative in node.alternatives:
                yield from self._numbers_among(alternative, within)
        elif kind is ast.NamedHole:
            choice = None if node.name == "pool" or node.name in within else self.vocabulary.find_choice(node.name)
            for alternative in () if choice is None else choice.alternatives:
                yield from self._numbers_among(alternative, (*within, node.name))
        elif kind is ast.Reference and node.index is None and node.name not in self.scope:
            word = self.words.get(node.name)
            if node.name in self.kept:
                yield node.name == "width" or node.name not in primitives.SECTION
            elif isinstance(word, str) or word is None or isinstance(word, Unknown | Size):
                yield False
            else:
                yield from (True,) if isinstance(word, int | float) else self._numbers_among(word, within)
        elif kind is ast.Group:
            yield from self._numbers_among(node.inner, within)
        else:
            yield kind in (ast.Number, ast.Arithmetic, ast.Negative, ast.RangeHole)

    # ------------------------------------------------------------------------------------------ holes

    def alternative(self, node: Any, position: Position, *, is_adapter: bool = False) -> Any:
        """What an alternative of a hole becomes in this position."""
        if is_adapter and isinstance(node, ast.Reference):
            return self.adapter_named(node.name, node.span)
        if is_adapter and isinstance(node, HOLES):
            return self.slot(node, position, is_adapter=True)
        if is_adapter and isinstance(node, ast.Call):  # only a name can stand there in a text without holes
            self.problems.append(holes.not_a_word(node.span))
            return unknown_target(node.span)
        if isinstance(node, Missing):
            return unknown_target(node.span) if position == "callee" else node
        if _is_chain(node):
            self.problems.append(holes.chain_outside_head(node.span))
            return unknown_target(node.span) if position == "callee" else Missing(node.span)
        if position == "operand":
            return self.operand(node)
        if position == "value":
            return self._value_alternative(node)
        if position == "callee":
            return self.callee_alternative(node)
        if isinstance(node, HOLES):
            return self.slot(node, position)
        if isinstance(node, ast.Call) and position == "attribute":
            self.problems.append(holes.not_a_word(node.span))
            return Missing(node.span)
        return self.attribute(node)

    def _value_alternative(self, node: Any) -> Any:
        """What may stand where an attribute names a value: a name, or a further hole."""
        if isinstance(node, ast.Reference):
            return self.reference(node)
        if isinstance(node, HOLES):
            return self.slot(node, "value")
        problem = holes.call_as_name(node.span) if isinstance(node, ast.Call) else holes.not_a_value(node.span)
        self.problems.append(problem)
        return Missing(node.span)

    # ------------------------------------------------------------------------------------ definitions

    def share(self, node: ast.OpDef) -> Op:
        """Enter a `shared` op: from here on its name means it. Its holes are filled once, for all calls."""
        operands = tuple(p.name for p in node.parameters if p.default is None)
        op = Op(node, self.vocabulary, operands, {}, is_shared=True)
        if self.names is not None:
            self.names.parameters(node)
            self.names.definition(node, self.region)
        before = len(self.problems)
        seen: dict[str, Span] = {}
        for parameter in node.parameters:
            if parameter.name in seen:
                self.problems.append(names.defined_twice(parameter.span, "parameter", parameter.name, seen[parameter.name]))
            elif parameter.default is not None:
                self.problems.append(structure.shared_attribute(parameter.span, node.name))
            seen.setdefault(parameter.name, parameter.span)
        scope = [(name, name if name in operands else None, span) for name, span in seen.items()]
        body = ExpressionElaborator(
            self.context, self.vocabulary, dict(self.words), kept=self.kept, scope=scope, condition=self.condition,
            region=node.span, word_symbols=dict(self.word_symbols),
        )  # fmt: skip
        body.shared, body.later_shared = self.shared, self.later_shared
        body.lost_names, body.problems = self.lost_names, self.problems
        op.body = body.operand(node.body)
        op.has_slots = _has_slots(op.body)
        op.broken = len(self.problems) > before
        self.shared = {**self.shared, node.name: Target(op, (), node.name, node.name_span)}
        return op

    def copy(self, definition: Definition, settings: tuple[ast.Setting, ...], span: Span) -> Definition | None:
        """A definition with holes, for one call of it; None where that would never end or a limit is met, which is reported."""
        context, copies = self.context, self.context.copies
        if definition.broken:
            return definition
        if context.is_full or copies.is_full:
            return None
        around = [o for o in context.open if isinstance(o, Op | Block)]
        if any(o is definition for o in around):
            self.problems.append(names.recursive(definition.definition.name_span, definition.name, [definition.name] * 2))
            return None
        if not self.may_open(span):
            return None
        if copies.size >= MAX_COPIED:
            copies.is_full = True
            context.problems.append(structure.too_many_copies(span, MAX_COPIED))
            return None
        context.open.append(definition)
        copies.depth += 1
        before = len(context.problems)
        copy: Definition
        if isinstance(definition, Op):
            copy = replace(definition, expansions=ExpansionCache())
            copy.body = elaborate_op(copy, context, self._words_of_call(copy, settings), self.condition)
        else:
            copy = replace(definition, bodies={}, expansions=ExpansionCache())
            words = self._words_of_call(copy, (*settings, *self.given))
            copy.only_body = context.elaborate_block(copy, context, words, self.condition)
            copies.size += len(copy.only_body.statements)
        context.open.pop()
        copies.depth -= 1
        show_at_call(context.problems, before, span)
        return copy

    def _words_of_call(self, callee: Definition, settings: tuple[ast.Setting, ...]) -> dict[str, Word]:
        """What words mean in the body of what is called with these attributes; a hole stands for itself."""
        section = {name: self.words[name] for name in primitives.SECTION if name in self.words}
        inside = ExpressionElaborator(self.context, callee.home, section, kept=frozenset())
        inner = dict(section)
        for name, default in callee.attributes.items():
            inner[name] = inside.word(default)
        for setting in settings:
            if setting.name in callee.attributes:
                inner[setting.name] = setting.value if find_hole(setting.value) else self.word(setting.value)
        return inner


def elaborate_op(op: Op, context: Context, words: dict[str, Word], condition: Condition[Decision] = ALWAYS) -> Operand:
    """The expression of an op, in which its attributes stay by name."""
    node = op.definition
    symbols = None if context.names is None else context.names.parameters(node)
    scope = [(p.name, p.name, p.span) for p in node.parameters if p.default is None]
    kept = SECTION_WORDS.union(op.attributes)
    body = ExpressionElaborator(
        context, op.home, words, kept=kept, scope=scope, condition=condition, region=node.span, word_symbols=symbols
    )
    return body.operand(op.definition.body)


# ------------------------------------------------------------------------------------------------------- details


def show_at_call(problems: list[Diagnostic], since: int, call: Span) -> None:
    """Move findings about the body of what is called to the call, with their own place beside it."""
    for number in range(since, len(problems)):
        found = problems[number]
        if found.span != call:
            related = ((found.span, found.label), *found.related)
            problems[number] = replace(found, span=call, label="in what this calls", fix=None, related=related)


def _has_slots(operand: Any) -> bool:
    """Whether what an expression computes differs between fillings."""
    if isinstance(operand, Slot):
        return True
    if not isinstance(operand, Call):
        return False
    target = operand.target
    if operand.has_slots or isinstance(target, Slot) or any(find_slot(s.value) for s in target.settings):
        return True
    return getattr(target.callee, "has_slots", False) or any(_has_slots(o) for o in operand.operands)


def _is_chain(alternative: Any) -> bool:
    """Whether an alternative can only be layers of a head."""
    return isinstance(alternative, ast.Chain) or (
        isinstance(alternative, ast.Arithmetic) and isinstance(alternative.left, ast.Call)
    )


_NO_CONSTANT: Final = {""}


def _constants_of(target: Any) -> set[str]:
    """The attribute that numbers among the operands become, for each alternative of a slot before the brackets; empty: none."""
    if isinstance(target, Slot):
        return {name for alternative in target.alternatives for name in _constants_of(alternative)}
    callee = target.callee if isinstance(target, Target) else None
    return {callee.constant if isinstance(callee, Primitive) else ""}


def _variant(target: Any, settings: tuple[ast.Setting, ...]) -> Primitive | None:
    """The primitive that takes the value of an attribute as its last operand; None where no attribute is one."""
    callee = target.callee if isinstance(target, Target) else None
    if not isinstance(callee, Primitive) or not callee.variants:
        return None
    return next((callee.variants[s.name] for s in settings if s.name in callee.variants), None)


def _constant(name: str, numbers: Sequence[ast.Attribute]) -> ast.Setting:
    """Numbers among the operands of ``mul`` or ``add`` as the attribute that they stand for: their product, or their sum."""
    first, *others = numbers
    value = first
    for number in others:
        value = ast.Arithmetic(number.span, name, value, number)
    return ast.Setting(first.span, name, first.span, value)
