"""Inference of `shared` ops, which have one set of weights for all their calls."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import structure, types
from nasdsl.semantics.builder import MAX_LAYERS, NOTHING, UNFIT
from nasdsl.semantics.elaborate_expression import MAX_CALLS, show_at_call
from nasdsl.semantics.infer_primitive import PrimitiveInference
from nasdsl.semantics.infer_scope import Binding, Frame
from nasdsl.semantics.program import Call, Shared, Target
from nasdsl.semantics.shared_weights import Operands, SharedExpansion, WeightSet
from nasdsl.semantics.vocabulary import Op, Vocabulary
from nasdsl.syntax import ast


class SharedInference(PrimitiveInference):
    """Infers the calls of `shared` ops.

    Attributes:
        shared: the weights of `shared` ops, by identity of the op.
    """

    def __init__(self, problems: list[Diagnostic], indices: Sequence[int] | None = None) -> None:
        super().__init__(problems, indices)
        self.shared: dict[int, WeightSet] = {}

    @abstractmethod
    def call(self, call: Call, frame: Frame, path: str, home: Vocabulary | None) -> list[int] | None:
        """The results of a call: one for an op or a primitive, several for a block. None: a mistake was reported."""

    def share(self, statement: Shared, frame: Frame, prefix: str) -> None:
        """Begin the weights of a `shared` op, and report what is wrong with its body whatever its operands are."""
        op = statement.op
        root = self.layers.root + self.layers.reserve(prefix + op.name)
        weights = self.shared[id(op)] = WeightSet(op, root, frame.words, op.broken)
        if op.broken:
            return
        before = len(self.problems)
        inside = self._inside(weights)
        scope = {name: Binding(name, UNFIT, statement.span) for name in op.operands}
        inside.layers.own(op.name, "", "block", statement.span)
        inside._results_of_body(op, Frame(scope, weights.words, frame.site))
        weights.is_broken = len(self.problems) > before

    def _inside(self, weights: WeightSet) -> Self:
        """What expands the body of a `shared` op by itself."""
        made = type(self)(self.problems, self.indices)
        made.shared, made.depth, made.layers.root = self.shared, self.depth + 1, f"{weights.root}."
        return made

    def _results_of_body(self, op: Op, frame: Frame) -> list[int] | None:
        assert op.body is not None
        body = self.choose(op.body)
        if type(body) is Call and self.depth < MAX_CALLS:
            return self.call(body, frame, "", op.home)  # a block may give several
        index = self.expand(body, frame, "", op.home)
        return None if index == UNFIT else [index]

    def is_shared(self, call: Call) -> bool:
        """Whether a call is one of a `shared` op."""
        target = self.target(call)
        return type(target) is Target and type(target.callee) is Op and target.callee.is_shared

    def shared_call(
        self, op: Op, call: Call, settings: tuple[ast.Setting, ...], frame: Frame, path: str, home: Vocabulary | None
    ) -> list[int] | None:
        """The results of a call of a `shared` op; None where a mistake was reported."""
        count = len(op.operands)
        operands = self.operands(call, count, count, frame, path, home, op)
        for setting in settings:
            self.problems.append(structure.shared_attribute(setting.name_span, op.name))
        weights, layers = self.shared.get(id(op)), self.layers
        if operands is None or settings or UNFIT in operands or weights is None or weights.is_broken:
            return None
        features = tuple([None if i == NOTHING else layers.applications[i].feature for i in operands])
        place = frame.site or call.span
        if features not in weights.expansions:
            before = len(self.problems)
            weights.expansions[features] = self._expand_shared(weights, features, place)
            if frame.site is None:
                show_at_call(self.problems, before, call.span)
        expansion = weights.expansions[features]
        if expansion is None:
            return None
        if not weights.fits(features, expansion, place):
            self._misfit(weights, features, place)
            return None
        if len(layers.applications) + len(expansion.applications) > MAX_LAYERS:
            layers.too_many(call.span)
            return None
        return layers.replay_shared(expansion, operands, path, weights.root, place)

    def _expand_shared(self, weights: WeightSet, features: Operands, place: Span) -> SharedExpansion | None:
        """The layers of a call with operands of these features."""
        op, inside = weights.op, self._inside(weights)
        inside.layers.own(op.name, op.name, "block", place)
        sources = [
            NOTHING if feature is None else inside.layers.source(name, feature, place)
            for name, feature in zip(op.operands, features, strict=True)
        ]
        scope = {name: Binding(name, index, place) for name, index in zip(op.operands, sources, strict=True)}
        results = inside._results_of_body(op, Frame(scope, weights.words, place))
        self.warnings += inside.warnings
        if results is None or UNFIT in results:
            return None
        count = sum(feature is not None for feature in features)
        return SharedExpansion(tuple(inside.layers.applications), count, tuple(results))

    def _misfit(self, weights: WeightSet, features: Operands, place: Span) -> None:
        first = weights.first
        assert first is not None
        pairs = zip(weights.op.operands, features, first.features, strict=True)
        widths = [(name, 0 if a is None else a.width, 0 if b is None else b.width) for name, a, b in pairs]
        name, width, before = next((w for w in widths if w[1] != w[2]), widths[0])
        self.problems.append(types.shared_misfit(place, weights.op.name, name, width, first.place, before))
