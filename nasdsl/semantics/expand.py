"""Expressions to layers: calls of ops and blocks expanded, levels and widths inferred."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from nasdsl.diagnostics import Diagnostic, Span, did_you_mean
from nasdsl.diagnostics.catalogue import names as name_codes
from nasdsl.diagnostics.catalogue import structure
from nasdsl.diagnostics.catalogue import types as codes
from nasdsl.layers import Layer
from nasdsl.semantics import attributes, expansions, primitives
from nasdsl.semantics.assembly import MAX_LAYERS, UNFIT, Assembly
from nasdsl.semantics.attributes import UNKNOWN, Environment, Unknown
from nasdsl.semantics.primitives import Primitive
from nasdsl.semantics.signature import accepted
from nasdsl.semantics.vocabulary import Block, Op, Vocabulary
from nasdsl.syntax import ast

MAX_EXPANSION = 150
"""Deepest nesting of calls, those in the bodies of ops and blocks included: well inside the interpreter's own stack."""

MOST_GUESSES = 200
"""Findings in front of which a misspelling is looked for."""

_FEATURE_NAME = re.compile(r"c[1-7]")


class Binding:
    """A name in scope.

    Attributes:
        index: of the application that computes it, or `UNFIT`.
        span: where it was bound.
        read: whether anything reads it.
        kept: whether it is an output, or what a merge goes into.
    """

    __slots__ = ("index", "kept", "name", "read", "span")

    def __init__(self, name: str, index: int, span: Span) -> None:
        self.name = name
        self.index = index
        self.span = span
        self.read = False
        self.kept = False


Scope = dict[str, Binding]


class Expander(Assembly):
    """Expands expressions into the layers of one section, or of one layer of a head.

    Args:
        problems: where findings go.
        tolerate: names whose absence is not reported: text that a syntax error made unreadable may bind them.
    """

    def __init__(self, problems: list[Diagnostic], tolerate: frozenset[str] | None = None) -> None:
        super().__init__(problems)
        self.tolerate = tolerate
        self.holes: list[Span] = []
        self.later: Mapping[str, Span] = {}  # names that the section binds further down
        self._depth = 0
        self._inner = 0
        self._blocks = 0  # calls of blocks so far

    def expand(self, operand: ast.Operand, scope: Scope, environment: Environment, vocabulary: Vocabulary, path: str) -> int:
        """The index of the application that computes an expression."""
        if type(operand) is ast.Reference:
            return self.look_up(operand, scope, environment, vocabulary)
        if type(operand) is not ast.Call:
            self.holes.append(operand.span)
            return UNFIT
        if self._depth >= MAX_EXPANSION:
            self._too_deep(operand.span)
            return UNFIT
        self._depth += 1
        results = self.call(operand, scope, environment, vocabulary, path)
        self._depth -= 1
        if results is None:
            return UNFIT
        if len(results) != 1:
            self.problems.append(
                codes.RESULTS(
                    operand.callee_span, f"`{operand.callee}` gives {len(results)} values", label="expected one value here",
                    help="assign them first: `a, b = …`",
                )
            )  # fmt: skip
            return UNFIT
        return results[0]

    def look_up(self, reference: ast.Reference, scope: Scope, environment: Environment, vocabulary: Vocabulary) -> int:
        """The index of a named value."""
        binding = self.binding(reference, scope, environment, vocabulary)
        if binding is None:
            return UNFIT
        binding.read = True
        return binding.index

    def binding(
        self, reference: ast.Reference, scope: Scope, environment: Environment, vocabulary: Vocabulary
    ) -> Binding | None:
        """What a name is bound to; None, with a diagnostic, where it is bound to nothing."""
        name: str | Unknown = reference.name
        if reference.index is not None:
            name = attributes.index_name(reference.name, reference.index, environment, self.problems, read=True)
            if isinstance(name, Unknown):
                return None
        assert isinstance(name, str)
        found = scope.get(name)
        if found is None and name in environment:  # let k = c3
            word = environment[name]
            if isinstance(word, Unknown):
                return None
            found = scope.get(word) if isinstance(word, str) else None
        if found is None:
            if not self._tolerated(name):
                self._unknown_name(name, reference.span, scope, vocabulary)
            return None
        return found

    def _tolerated(self, name: str) -> bool:
        """Whether text that could not be read may have bound a name: as itself, or numbered as in ``x[t]``."""
        return self.tolerate is not None and (name in self.tolerate or name.rstrip("0123456789") in self.tolerate)

    def _guess(self, name: str, candidates: Iterable[str]) -> str | None:
        """What a name is a misspelling of. Not asked for ever: a text with so many mistakes has others than misspellings."""
        return did_you_mean(name, candidates) if len(self.problems) < MOST_GUESSES else None

    def _unknown_name(self, name: str, span: Span, scope: Scope, vocabulary: Vocabulary) -> None:
        place = self._site or span
        if name in self.later and self._inner == 0 and self.later[name].start < span.start:
            self.problems.append(
                name_codes.FORWARD(
                    place, f"`{name}` is used in the statement that binds it", label="not known yet here",
                    help="only inside `repeat` may a statement read what it binds, once it is bound above",
                )
            )  # fmt: skip
            return
        if name in self.later and self._inner == 0:
            self.problems.append(
                name_codes.FORWARD(
                    place, f"`{name}` is used before it is bound", label="not known yet here",
                    related=[(self.later[name], "bound here")], help="move the statement that binds it up",
                )
            )  # fmt: skip
            return
        guess = self._guess(name, scope)
        if vocabulary.find(name) is not None or primitives.find(name) is not None:
            guess, help = None, f"`{name}` is an op: `{name}(…)` applies it"
        elif _FEATURE_NAME.fullmatch(name) and self._inner == 0:
            guess, help = None, f"a backbone feature is named first: `input {name}, …`"
        else:
            help = f"did you mean `{guess}`?" if guess else ""
        self.problems.append(
            name_codes.UNKNOWN_VALUE(
                place, f"no value is called `{name}`",
                label=f"expected one of {_some(scope)}" if scope else "nothing is in scope here",
                help=help, fix=guess if self._site is None else None,
            )
        )  # fmt: skip

    def call(
        self, call: ast.Call, scope: Scope, environment: Environment, vocabulary: Vocabulary, path: str
    ) -> list[int] | None:
        """The results of a call: one for an op or a primitive, several for a block. None: a mistake was reported."""
        if not isinstance(call.callee, str):
            self.holes.append(call.callee_span)
            for operand in call.operands:
                self.expand(operand, scope, environment, vocabulary, path)
            return None
        name = call.callee
        definition = vocabulary.find(name)
        primitive = primitives.find(name) if definition is None else None
        if definition is None and primitive is None:
            bound = environment.get(name)
            if isinstance(bound, str):  # let k = conv_3x3
                name = bound
                definition = vocabulary.find(name)
                primitive = primitives.find(name) if definition is None else None
        if definition is None:
            if primitive is None:
                if not isinstance(bound, Unknown) and not self._tolerated(name) and vocabulary.whole:
                    self._unknown_op(name, call.callee_span, scope, vocabulary)
                for operand in call.operands:
                    self.expand(operand, scope, environment, vocabulary, path)
                return None
            index = self._primitive(primitive, call, scope, environment, vocabulary, path)
            return None if index == UNFIT else [index]
        if isinstance(definition, Op):
            index = self._op(definition, call, scope, environment, vocabulary, path)
            return None if index == UNFIT else [index]
        return self._block(definition, call, scope, environment, vocabulary, path)

    def _unknown_op(self, name: str, span: Span, scope: Scope, vocabulary: Vocabulary) -> None:
        known = [*vocabulary.known(), *primitives.known()]
        guess = self._guess(name, known) if name not in scope else None
        help = f"did you mean `{guess}`?" if guess else "define it: `op name(x) = …`"
        if name in scope:
            help = f"`{name}` is a value, and only ops are called"
        self.problems.append(
            name_codes.UNKNOWN_OP(
                self._site or span, f"unknown op `{name}`", label="no op, aggregation, block or primitive has this name",
                help=help, fix=guess if self._site is None else None,
            )
        )  # fmt: skip

    def _operands(
        self, call: ast.Call, least: int, most: int, scope: Scope, environment: Environment, vocabulary: Vocabulary,
        path: str, names: tuple[str, ...] = (),
    ) -> list[int] | None:  # fmt: skip
        """Indices of a call's operands; None where their number is wrong. What computes one is put below its name."""
        indices = []
        left_out = False
        for number, operand in enumerate(call.operands):
            if type(operand) is ast.Reference:
                indices.append(self.look_up(operand, scope, environment, vocabulary))
                continue
            left_out = left_out or (type(operand) is ast.NamedHole and not operand.name)
            name = names[min(number, len(names) - 1)] if names else ""
            below = f"{path}.{name}" if path and name else path or name
            indices.append(self.expand(operand, scope, environment, vocabulary, below))
        count = len(indices)
        if left_out:
            return None  # a syntax error has left an operand out; how many there would be is not known
        if least <= count <= most:
            return indices
        expected = f"{least}" if least == most else f"{least} to {most}"
        self.problems.append(
            codes.OPERANDS(
                self._site or call.span, f"`{call.callee}` is given {count} operand{'' if count == 1 else 's'}",
                label=f"expected {expected}",
            )
        )  # fmt: skip
        return None

    def _primitive(
        self, primitive: Primitive, call: ast.Call, scope: Scope, environment: Environment, vocabulary: Vocabulary, path: str
    ) -> int:
        operands = self._operands(call, primitive.least, primitive.most, scope, environment, vocabulary, path)
        owner_span = self._site or call.callee_span
        values: dict[str, Any] | None = attributes.settings(
            call.settings, primitive.attributes, primitive.name, owner_span, environment, self.problems
        )
        unknown = values is not None and any(v is UNKNOWN for v in values.values())
        if "to" in primitive.attributes:
            level = self._target_level(call, scope, environment, vocabulary)
            if level is None or operands is None or values is None:
                return UNFIT
            values["to"] = level
            if operands[0] != UNFIT:
                feature = self.applications[operands[0]].feature
                if feature.level is None:
                    self.problems.append(
                        codes.NO_LEVEL(
                            self._site or call.span, "a globally pooled value has no resolution to change",
                            label="expected a value with a level",
                        )
                    )  # fmt: skip
                    return UNFIT
                if feature.level == level:
                    return operands[0]
        if operands is None or values is None or unknown or UNFIT in operands:
            self._note_holes(call)
            return UNFIT
        span = call.span

        def apply(layer: Layer, *inputs: int) -> int:
            return self.apply(layer, inputs, path, span)

        return primitive.expand(values, tuple(operands), apply)

    def _note_holes(self, call: ast.Call) -> None:
        for setting in call.settings:
            if isinstance(setting.value, ast.NamedHole | ast.ChoiceHole | ast.RangeHole):
                self.holes.append(setting.value.span)

    def _target_level(self, call: ast.Call, scope: Scope, environment: Environment, vocabulary: Vocabulary) -> int | None:
        """The level that ``to=`` names: that of a value, or a number."""
        for setting in call.settings:
            if setting.name != "to":
                continue
            value = setting.value
            if isinstance(value, ast.Reference) and not isinstance(environment.get(value.name), int):
                binding = self.binding(value, scope, environment, vocabulary)
                if binding is None or binding.index == UNFIT:
                    return None
                level = self.applications[binding.index].feature.level
                if level is None:
                    self.problems.append(
                        codes.NO_LEVEL(value.span, f"`{value.name}` has no resolution", label="expected a value with a level")
                    )
                return level
            number = attributes.evaluate(value, environment, self.problems)
            if isinstance(number, int) and 0 <= number <= 16:
                return number
            if not isinstance(number, Unknown):
                self.problems.append(
                    codes.BAD_VALUE(
                        value.span,
                        f"`to={number}` of `resize`",
                        label="expected a value, or the number of a level from 0 to 16",
                    )
                )
            return None
        self.problems.append(
            codes.MISSING_ATTRIBUTE(self._site or call.callee_span, "`resize` needs `to`", label="expected `to=`: a value")
        )
        return None

    def _op(self, op: Op, call: ast.Call, scope: Scope, environment: Environment, vocabulary: Vocabulary, path: str) -> int:
        count = len(op.operands)
        operands = self._operands(call, count, count, scope, environment, vocabulary, path, op.operands)
        inner: Environment | None = environment
        key: expansions.Key | None = None
        if op.attributes or call.settings or vocabulary is not op.home:
            # Nothing else reaches the body, which otherwise sees all of its surroundings.
            words: tuple[object, ...] = environment.get("width"), environment.get("norm"), environment.get("act")
            inner = self._op_attributes(op, call, environment) if call.settings else None
            if inner is not None:
                words = tuple(inner.items())
            elif call.settings:
                return UNFIT
            if operands is not None and UNFIT not in operands and len(set(operands)) == count:
                built = self.applications
                key = words, *[built[i].feature for i in operands]
                known = op.expansions.get(key)
                if known is not None and self._depth <= known.depth and len(built) + len(known.steps) <= MAX_LAYERS:
                    return self.again(known, operands, path, call.span)
            if inner is None:
                inner = self._op_attributes(op, call, environment)
        if inner is None or operands is None or op.broken or UNFIT in operands:
            return UNFIT
        if len(self.applications) + op.weight > MAX_LAYERS:
            self._too_many(call.span)
            return UNFIT
        inside = {name: Binding(name, index, call.span) for name, index in zip(op.operands, operands, strict=True)}
        site, self._site = self._site, self._site or call.span
        self._inner += 1
        first, before = len(self.applications), (len(self.problems), len(self.holes), self._blocks)
        result = self.expand(op.definition.body, inside, inner, op.home, path)
        self._inner -= 1
        self._site = site
        if key is not None and result != UNFIT and before == (len(self.problems), len(self.holes), self._blocks):
            op.remember(key, expansions.record(self.applications[first:], first, operands, result, path, self._depth))
        self._blame(call, before[0])
        return result

    def _blame(self, call: ast.Call, since: int) -> None:
        """Show findings about the body of what is called at the call, when it stands in the decoder's own statements."""
        if self._site is not None:
            return
        for number in range(since, len(self.problems)):
            found = self.problems[number]
            if found.span != call.span:
                related = ((found.span, found.label), *found.related)
                self.problems[number] = replace(found, span=call.span, label="in what this calls", fix=None, related=related)

    def _op_attributes(self, op: Op, call: ast.Call, environment: Environment) -> Environment | None:
        """What words mean in the body of an op: the section's attributes, and its own."""
        inner: dict[str, Any] = {name: environment[name] for name in primitives.SECTION if name in environment}
        section = dict(inner)
        for name, default in op.attributes.items():
            inner[name] = attributes.evaluate(default, section, self.problems)
        accepts = accepted(op)
        before = len(self.problems)
        seen: dict[str, Span] = {}
        for setting in call.settings:
            if setting.name not in op.attributes:
                attributes.unknown_attribute(setting, op.attributes, op.name, self.problems)
                continue
            if setting.name in seen:
                attributes.attribute_twice(setting, seen[setting.name], self.problems)
                continue
            seen[setting.name] = setting.name_span
            value = attributes.evaluate(setting.value, environment, self.problems)
            inner[setting.name] = value
            takes = accepts.get(setting.name)
            if isinstance(value, Unknown):
                self._note_holes(call)
            elif takes is not None and not takes.takes(value):
                attributes.refuse(setting, value, takes, op.name, self.problems)
        return inner if len(self.problems) == before else None

    def _too_deep(self, span: Span) -> None:
        if not self.full:
            self.full = True
            self.problems.append(
                structure.TOO_MANY(
                    self._site or span, f"ops call ops more than {MAX_EXPANSION} deep", label="the limit is met here"
                )
            )

    def _block(
        self, block: Block, call: ast.Call, scope: Scope, environment: Environment, vocabulary: Vocabulary, path: str
    ) -> list[int] | None:
        from nasdsl.semantics.statements import run_block

        count = len(block.definition.parameters)
        operands = self._operands(call, count, count, scope, environment, vocabulary, path)
        for setting in call.settings:
            self.problems.append(
                codes.UNKNOWN_ATTRIBUTE(setting.name_span, f"a block has no attributes: `{setting.name}`", label="leave it out")
            )
        if operands is None or call.settings or block.broken or UNFIT in operands:
            return [UNFIT] * len(block.definition.results) if operands is not None and not call.settings else None
        if len(self.applications) + block.weight > MAX_LAYERS:
            self._too_many(call.span)
            return None
        self._blocks += 1
        self._depth += 2  # a block takes more of the interpreter's stack than an op
        self._inner += 1
        site, self._site = self._site, self._site or call.span
        before = len(self.problems)
        results = run_block(self, block, call, operands, environment, path)
        self._site = site
        self._blame(call, before)
        self._inner -= 1
        self._depth -= 2
        return results


def _some(scope: Scope) -> str:
    names = list(islice((n for n in scope if n.isidentifier()), 9))  # recovery makes up others
    return ", ".join(f"`{n}`" for n in names[:8]) + (", …" if len(names) > 8 else "")
