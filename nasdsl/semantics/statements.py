"""The statements of an fpn or a block: assignments, repeats, lets, outputs, the merge of what dangles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import holes, lints, structure
from nasdsl.diagnostics.catalogue import names as name_codes
from nasdsl.diagnostics.catalogue import types as codes
from nasdsl.layers import UNKNOWN_WIDTH, Add, Feature, LayerError, Resize
from nasdsl.semantics import attributes
from nasdsl.semantics.architecture import Application, InputFeature, PyramidOutput
from nasdsl.semantics.assembly import UNFIT
from nasdsl.semantics.attributes import Unknown
from nasdsl.semantics.expand import Binding, Expander, Scope
from nasdsl.semantics.sections import bind_let
from nasdsl.semantics.vocabulary import Block, Vocabulary
from nasdsl.syntax import ast

MAX_STATEMENTS = 100_000
"""Most statements that `repeat` may expand into."""

MAX_FAILED_ROUNDS = 200
"""Rounds of a `repeat` with mistakes, after which the others are left out: they would only repeat the mistakes."""

_PYRAMID_NAME = re.compile(r"p([1-9]|1[0-2])")


class Statements:
    """Runs statements over a scope, adding layers to an expander."""

    def __init__(
        self, expander: Expander, vocabulary: Vocabulary, environment: dict[str, Any], scope: Scope, prefix: str = ""
    ) -> None:
        self.expander = expander
        self.problems = expander.problems
        self.vocabulary = vocabulary
        self.environment = environment
        self.scope = scope
        self.prefix = prefix
        self._rebinds = 0  # depth of `repeat`, in which a name may be bound again
        self._factor = 1

    def run(self, statements: tuple[ast.Statement, ...]) -> None:
        for statement in statements:
            if type(statement) is ast.Assign:
                self.assign(statement)
            elif isinstance(statement, ast.Output):
                self.output(statement)
            elif isinstance(statement, ast.Merge):
                self.merge(statement)
            elif isinstance(statement, ast.Repeat):
                self.repeat(statement)
            elif isinstance(statement, ast.Let):
                self.let(statement)

    def assign(self, statement: ast.Assign) -> None:
        targets = [self.target_name(t) for t in statement.targets]
        value = statement.value
        name = self.expander.reserve(self.prefix + (targets[0] or "_"))
        op = _op_name(value)
        if len(targets) == 1:
            self.expander.own(name, op, "block", statement.span)
            index = self.expander.expand(value, self.scope, self.environment, self.vocabulary, name)
            self.bind(targets[0], index, statement.targets[0].span)
            return
        results: list[int] | None = None
        if isinstance(value, ast.Call):
            self.expander.own(name, op, "block", statement.span)
            results = self.expander.call(value, self.scope, self.environment, self.vocabulary, self.prefix.rstrip("."))
            if results is not None and len(results) != len(targets):
                gives = f"`{op}` gives {len(results)} value{'' if len(results) == 1 else 's'}"
                self.problems.append(
                    codes.RESULTS(
                        statement.span, f"{gives} for {len(targets)} names", label=f"expected {len(results)} on the left"
                    )
                )
                results = None
        elif isinstance(value, ast.Reference):
            self.problems.append(
                codes.RESULTS(statement.span, f"one value for {len(targets)} names", label="expected one name on the left")
            )
        else:
            self.expander.holes.append(value.span)
        for number, (bound, target) in enumerate(zip(targets, statement.targets, strict=True)):
            self.bind(bound, results[number] if results else UNFIT, target.span)

    def target_name(self, target: ast.Target) -> str | None:
        if target.index is None:
            return target.name
        name = attributes.index_name(target.name, target.index, self.environment, self.problems)
        return None if isinstance(name, Unknown) else name

    def bind(self, name: str | None, index: int, span: Span) -> None:
        if name is None:
            return
        before = self.scope.get(name)
        if before is not None and not self._rebinds:
            self.problems.append(
                name_codes.BOUND_TWICE(
                    span, f"`{name}` is bound twice", label="second binding", related=[(before.span, "first binding")],
                    help="give it another name; only inside `repeat` may a name be bound again",
                )
            )  # fmt: skip
        self.scope[name] = self.bound(Binding(name, index, span))

    def bound(self, binding: Binding) -> Binding:
        """Called for every new binding."""
        return binding

    def repeat(self, statement: ast.Repeat) -> None:
        first = 1 if statement.first is None else self._count(statement.first)
        last = self._count(statement.last)
        if first is None or last is None:
            return
        rounds = max(0, last - first + 1)
        if rounds == 0:
            self.problems.append(
                codes.BAD_VALUE(
                    statement.last.span, f"`repeat` of no rounds ({first}..{last})", label=f"expected a number from {first} on"
                )
            )
            return
        if self._factor * rounds * max(1, len(statement.body)) > MAX_STATEMENTS:
            self.problems.append(
                structure.TOO_MANY(
                    statement.last.span, f"`repeat` makes more than {MAX_STATEMENTS:,} statements", label=f"{rounds:,} rounds"
                )
            )
            return
        outer = self.environment
        self._factor *= rounds
        self._rebinds += 1
        said: set[tuple[str, Span]] = set()
        failed = 0
        for number in range(first, first + rounds):
            before = len(self.problems)
            self.environment = {**outer, statement.variable: number} if statement.variable else dict(outer)
            self.run(statement.body)
            if self.expander.full:
                break
            if len(self.problems) > before:  # a mistake is one finding, not one a round
                self.problems[before:] = [p for p in self.problems[before:] if (p.code, p.span) not in said]
                said.update((p.code, p.span) for p in self.problems[before:])
                failed += 1
                if failed == MAX_FAILED_ROUNDS:  # nobody is told that what the others would bind is missing
                    targets = {t.name for s in statement.body if isinstance(s, ast.Assign) for t in s.targets}
                    self.expander.tolerate = (self.expander.tolerate or frozenset()) | targets
                    break
        self._rebinds -= 1
        self._factor //= rounds
        self.environment = outer

    def _count(self, value: ast.Attribute) -> int | None:
        number = attributes.evaluate(value, self.environment, self.problems)
        if isinstance(number, Unknown):
            if isinstance(value, ast.NamedHole | ast.ChoiceHole | ast.RangeHole):
                self.problems.append(
                    holes.MISPLACED_HOLE(
                        value.span,
                        "a hole where `repeat` needs a number",
                        label="the number of rounds is fixed",
                        help="choose among blocks of different depth instead",
                    )
                )
            self.expander.tolerate = frozenset()  # what the rounds would have bound is not missed further down
            return None
        if not isinstance(number, int) or number < 0:
            self.problems.append(
                codes.BAD_VALUE(value.span, f"`repeat` over `{number}`", label="expected a whole number, 0 or more")
            )
            return None
        return number

    def let(self, statement: ast.Let) -> None:
        bind_let(statement, self.environment, self.problems, self.expander.holes)

    def output(self, statement: ast.Output) -> None:
        self._only_in_fpn(statement.span, "output")

    def merge(self, statement: ast.Merge) -> None:
        self._only_in_fpn(statement.span, "merge")

    def _only_in_fpn(self, span: Span, what: str) -> None:
        self.problems.append(structure.MISPLACED(span, f"`{what}` stands in a block", label="expected in the `fpn` itself"))


def run_block(expander: Expander, block: Block, call: ast.Call, operands: list[int], environment: Any, path: str) -> list[int]:
    """The results of a call of a block, one index each."""
    definition = block.definition
    prefix = expander.reserve(f"{path}.{block.name}" if path else block.name) + "."
    scope = {p.name: Binding(p.name, i, call.span) for p, i in zip(definition.parameters, operands, strict=True)}
    section = {name: environment[name] for name in ("width", "norm", "act") if name in environment}
    statements = Statements(expander, block.home, section, scope, prefix)
    owner = expander._owner
    statements.run(definition.body)
    expander._owner = owner
    return [scope[r.name].index if r.name in scope else UNFIT for r in definition.results]


def _op_name(value: ast.Operand) -> str:
    if isinstance(value, ast.Call):
        return value.callee if isinstance(value.callee, str) else "?"
    return "skip" if isinstance(value, ast.Reference) else "?"


class FpnStatements(Statements):
    """The statements of an fpn, with its inputs, outputs and merges."""

    def __init__(
        self, expander: Expander, vocabulary: Vocabulary, environment: dict[str, Any], warnings: list[Diagnostic]
    ) -> None:
        super().__init__(expander, vocabulary, environment, {})
        self.warnings = warnings
        self.outputs: dict[str, PyramidOutput] = {}
        self._blocks: list[Binding] = []
        self._merges: list[tuple[int, int]] = []  # index of the Add, number of blocks bound before it

    def inputs(self, inputs: tuple[InputFeature, ...], adapter: str) -> None:
        """Bind the backbone features, each behind its adapter."""
        for feature in inputs:
            self.expander.own(feature.name, "input", "input", feature.span)
            index = self.expander.source(feature.name, Feature(feature.level, UNKNOWN_WIDTH), feature.span)
            binding = Binding(feature.name, index, feature.span)
            if adapter != "none":
                self.expander.own(f"{feature.name} adapter", adapter, "adapter", feature.span)
                call = ast.Call(feature.span, adapter, feature.span, (ast.Reference(feature.span, feature.name),), ())
                scope = {feature.name: binding}
                binding.index = self.expander.expand(call, scope, self.environment, self.vocabulary, feature.name)
                binding.read = False
            self.scope[feature.name] = binding

    def unknown(self, names: Mapping[str, Span]) -> None:
        """Bind inputs that do not exist, which is reported already."""
        for name, span in names.items():
            self.scope.setdefault(name, Binding(name, UNFIT, span))

    def bound(self, binding: Binding) -> Binding:
        self._blocks.append(binding)
        return binding

    def output(self, statement: ast.Output) -> None:
        for binding in statement.bindings:
            match = _PYRAMID_NAME.fullmatch(binding.name)
            if match is None:
                self.problems.append(
                    structure.NO_PYRAMID_LEVEL(
                        binding.name_span,
                        f"the output `{binding.name}` has no level",
                        label="expected p1 to p12: pK has stride 2^K",
                    )
                )
            elif binding.name in self.outputs:
                self.problems.append(
                    name_codes.BOUND_TWICE(
                        binding.name_span, f"the output `{binding.name}` is bound twice", label="second binding",
                        related=[(self.outputs[binding.name].span, "first binding")],
                    )
                )  # fmt: skip
            name = self.expander.reserve(binding.name)
            op = "output" if isinstance(binding.value, ast.Reference) else _op_name(binding.value)
            self.expander.own(name, op, "output", binding.span)
            if isinstance(binding.value, ast.Reference):
                named = self.expander.binding(binding.value, self.scope, self.environment, self.vocabulary)
                index = UNFIT
                if named is not None:
                    named.kept = True
                    index = named.index
            else:
                index = self.expander.expand(binding.value, self.scope, self.environment, self.vocabulary, name)
            if match is not None:
                self._enter_output(binding, int(match[1]), index, name)

    def _enter_output(self, binding: ast.OutputBinding, level: int, index: int, path: str) -> None:
        if index != UNFIT and self.expander.applications[index].feature.level is None:
            self.problems.append(
                codes.NO_LEVEL(
                    binding.value.span, f"`{binding.name}` is a globally pooled value", label="expected a value with a level"
                )
            )
            index = UNFIT
        if index != UNFIT:
            index = self.expander.apply(Resize(level), (index,), path, binding.span)
        before = self.scope.get(binding.name)
        if before is not None and binding.name not in self.outputs:
            self.problems.append(
                name_codes.BOUND_TWICE(
                    binding.name_span, f"`{binding.name}` is bound twice", label="second binding",
                    related=[(before.span, "first binding")], help="give the value another name than the output",
                )
            )  # fmt: skip
        self.outputs.setdefault(binding.name, PyramidOutput(binding.name, level, index, binding.span))
        named = Binding(binding.name, index, binding.name_span)
        named.kept = True
        self.scope[binding.name] = named

    def merge(self, statement: ast.Merge) -> None:
        """Add what dangles to outputs (behind their own resize), or to values, which from here on mean the sum."""
        for target in statement.targets:
            binding = self.expander.binding(target, self.scope, self.environment, self.vocabulary)
            if binding is None:
                continue
            binding.kept = True
            if binding.index == UNFIT:
                continue
            name = self.expander.reserve(f"{binding.name}.merge")
            self.expander.own(name, "merge", "merge", target.span)
            applications = self.expander.applications
            output = self.outputs.get(binding.name)
            at = binding.index
            base = applications[at].inputs[0] if output is not None else at
            path = self.expander.reserve(f"{name}.add")
            applications.append(
                Application(Add(), (base,), applications[base].feature, path, self.expander._owner, target.span)
            )
            added = len(applications) - 1
            self._merges.append((added, len(self._blocks)))
            if output is not None:
                applications[at] = applications[at]._replace(inputs=(added,))
            else:
                merged = Binding(binding.name, added, target.span)
                merged.kept = True
                self.scope[binding.name] = merged

    def _no_circles(self) -> None:
        """Report values that dangle, and read the very output that they would be merged into."""
        applications = self.expander.applications
        first = min((o.result for o in self.outputs.values()), default=UNFIT)
        for added, _ in self._merges:
            own, *extra = applications[added].inputs
            for index in extra:
                # What comes before every output cannot read one.
                if index > first >= 0 and self._reaches(index, added):
                    name = next(b.name for b in self._blocks if b.index == index)
                    self.problems.append(
                        structure.CIRCULAR_MERGE(
                            applications[added].span,
                            f"`{name}` dangles and reads what it would be merged into",
                            label="this closes a circle",
                            help=f"move the `merge` above `{name}`, or give `{name}` a reader",
                        )
                    )
                    applications[added] = applications[added]._replace(inputs=(own,))
                    break

    def _reaches(self, start: int, goal: int) -> bool:
        """Whether one application depends on another."""
        waiting, seen = [start], {start}
        while waiting:
            for index in self.expander.applications[waiting.pop()].inputs:
                if index == goal:
                    return True
                if index not in seen:
                    seen.add(index)
                    waiting.append(index)
        return False

    def finish(self) -> tuple[tuple[PyramidOutput, ...], int]:
        """Enter the dangling values into the merges, and name values that nothing reads.

        Returns:
            the outputs, finest level first, and the number of dangling values.
        """
        dangling = [b for b in self._blocks if not b.read and not b.kept and b.index != UNFIT]
        for added, before in self._merges:
            application = self.expander.applications[added]
            extra = tuple(b.index for b in self._blocks[:before] if not b.read and not b.kept and b.index != UNFIT)
            features = [self.expander.applications[i].feature for i in (application.inputs[0], *extra)]
            try:
                Add().infer(features)
            except LayerError as error:
                self.problems.append(
                    codes.WIDTHS_DIFFER(
                        application.span, f"{error}, where what dangles is merged",
                        label=f"{features[0].width} channels here",
                        help="merge into values of one width, and widen them in the `output` behind that",
                    )
                )  # fmt: skip
                continue
            self.expander.applications[added] = application._replace(inputs=application.inputs + extra)
        self._no_circles()
        merged_before = max((before for _, before in self._merges), default=0)
        late = {id(b) for b in self._blocks[merged_before:]}
        for binding in dangling:
            if id(binding) in late and not self.expander.holes:
                self.warnings.append(
                    lints.UNREAD(
                        binding.span, f"nothing reads `{binding.name}`", label="its layers are left out",
                        help=f"`output {binding.name} = …` makes it a level of the pyramid"
                        if _PYRAMID_NAME.fullmatch(binding.name)
                        else "read it, or `merge dangling into …` the outputs",
                    )
                )  # fmt: skip
        return tuple(sorted(self.outputs.values(), key=lambda o: o.level)), len(dangling)
