"""What ops and primitives cost on features of given levels and widths, each combination inferred and counted once.

Costs travel as one integer: parameters in the lowest 64 bits, above them 64 bits for the multiply-accumulates at each size of
images, so that one addition adds them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from nasdsl.backends.cost import Areas, HeadAreas
from nasdsl.diagnostics import Diagnostic, DiagnosticError, Span
from nasdsl.ir.graph import Node
from nasdsl.ir.lower import lower_nodes
from nasdsl.layers import Feature, Norm, layer_cost
from nasdsl.semantics import attributes, primitives
from nasdsl.semantics.attributes import Accepts, Unknown
from nasdsl.semantics.builder import NOTHING, UNFIT
from nasdsl.semantics.infer import Inference
from nasdsl.semantics.infer_scope import Binding, Frame
from nasdsl.semantics.primitives import Primitive
from nasdsl.semantics.program import Call, FpnProgram, HeadProgram, Ref, Target, fill_value, section_values
from nasdsl.semantics.shared_weights import WeightSet
from nasdsl.semantics.vocabulary import Op
from nasdsl.syntax import ast

CountedValue: TypeAlias = tuple[Feature, int, int]
"""A value of the fpn: level and width, which values it reads (one bit each), and what computing it costs."""

Words: TypeAlias = dict[str, Any]
"""What the names of attributes mean."""

WORDS: Final = tuple(primitives.SECTION)

NOTHING_FEATURE: Final = Feature(None, -1)
"""The feature of an operand that is left out."""

NOTHING_VALUE: Final[CountedValue] = (NOTHING_FEATURE, 0, 0)
"""A value that is left out."""


_MASK: Final = (1 << 64) - 1


class Unbuildable(Exception):
    """A layer cannot take its operands, so there is no decoder."""


class SharedLayer(NamedTuple):
    """A layer of a call of a `shared` op. `inputs` number the operands of the call, and behind them its layers."""

    out: Feature
    inputs: tuple[int, ...]
    macs: int
    params: int
    node: Node


class SharedCall(NamedTuple):
    """A call of a `shared` op. `results` number what it gives, as `SharedLayer.inputs` do."""

    layers: tuple[SharedLayer, ...]
    results: tuple[int, ...]


class LoweredOp(NamedTuple):
    """The layers of an op.

    Attributes:
        live: those that its result depends on, last first.
        last: the one that gives it; None where it gives none.
        is_tied: whether a layer before the last one has the same weights.
        number: of all layers, with the operands.
    """

    live: list[Node]
    last: Node | None
    is_tied: bool = False
    number: int = 0


class OpCounter:
    """Counts the layers of ops.

    Args:
        span: of the space, the place of all layers.
        sizes: height and width of the images that multiply-accumulates are counted for.

    Attributes:
        applied: result, operands that it depends on and cost of the ops applied so far; None where one cannot be built.
        sound: `shared` ops, with words, whose bodies have no mistakes.
        expanded: calls of `shared` ops.
    """

    def __init__(self, span: Span, sizes: Sequence[tuple[int, int]]) -> None:
        self.span = span
        self.areas = [Areas(size) for size in sizes]
        self.applied: dict[tuple[Any, ...], tuple[Feature, int, int] | None] = {}
        self.sound: set[tuple[Any, ...]] = set()
        self.expanded: dict[tuple[Any, ...], SharedCall] = {}

    def apply(
        self,
        target: Target,
        settings: tuple[tuple[str, Any], ...],
        operands: tuple[Feature, ...],
        key: tuple[tuple[str, Any], ...],
        levels: tuple[int, ...],
        indices: Sequence[int],
        *,
        norms_per_level: bool = False,
    ) -> tuple[Feature, int, int]:
        """Result, operands that it depends on (one bit each) and cost of an op; in a head, over all `levels`.

        Raises:
            Unbuildable: the op does not take these operands or attributes.
        """
        norms = len(levels) if norms_per_level else 1
        if getattr(target.callee, "has_slots", False):
            found = self._infer(target, settings, operands, dict(key), levels, norms, indices)
        else:
            at = (id(target.callee), settings, operands, key, levels, norms)
            try:
                found = self.applied[at]
            except KeyError:
                found = self.applied[at] = self._infer(target, settings, operands, dict(key), levels, norms)
        if found is None:
            raise Unbuildable
        return found

    def _infer(
        self,
        target: Target,
        settings: tuple[tuple[str, Any], ...],
        operands: tuple[Feature, ...],
        words: Words,
        levels: tuple[int, ...],
        norms: int = 1,
        indices: Sequence[int] | None = None,
    ) -> tuple[Feature, int, int] | None:
        """Infer an op on features of these levels and widths, and count what its result depends on.

        `norms`: how many sets of norms it has.
        """
        found = self.lower_op(target, settings, operands, words, indices)
        if found is None:
            return None
        live, last = found.live, found.last
        if last is None:
            return NOTHING_VALUE
        total = 0
        counted: set[str] = set()  # shared weights, of a block
        for node in live:
            total += self.price(node, levels, norms, with_params=node.weights not in counted)
            counted.add(node.weights)
        read = {source for node in live for source in node.inputs} | {last.id}
        used = sum(1 << number for number in range(len(operands)) if f"o{number}" in read)
        return last.out, used, total

    def lower_op(
        self,
        target: Target,
        settings: tuple[tuple[str, Any], ...],
        operands: tuple[Feature, ...],
        words: Words,
        indices: Sequence[int] | None,
    ) -> LoweredOp | None:
        """The layers of an op; None where it has a mistake."""
        span = self.span
        inference, frame = self._begin(target.name, operands, words, indices)
        layers = inference.layers
        given = tuple(ast.Setting(span, n, span, _literal(v, span)) for n, v in settings)
        call = Call(target._replace(settings=()), tuple(Ref(n, span) for n in frame.scope), given, False, span, span)
        if type(target.callee) is Primitive:
            results = inference.call(call, frame, "v", None)
            if results is None:
                return None
            result = results[0] if len(results) == 1 or results[0] == NOTHING else layers.applications[results[0]].inputs[0]
        else:
            result = inference.expand(call, frame, "v", None)
        if result == UNFIT or _has_error(inference):
            return None
        if result == NOTHING:
            return LoweredOp([], None)
        lowered = _lower(inference, frame)
        if lowered is None:
            return None
        nodes, place = lowered
        live = {place[result]}
        found = []
        for node in reversed(nodes):
            if node.id in live:
                live.update(node.inputs)
                found.append(node)
        at = next(number for number, node in enumerate(nodes) if node.id == place[result])
        is_tied = bool(nodes[at].shared) and any(node.shared == nodes[at].shared for node in nodes[:at])
        return LoweredOp(found, nodes[at], is_tied, len(layers.applications))

    def price(self, node: Node, levels: tuple[int, ...], norms: int = 1, *, with_params: bool = True) -> int:
        """What a layer costs, as one integer; in a head, over all `levels`.

        Args:
            norms: how many sets of weights a norm has.
            with_params: whether its parameters count.
        """
        total = 0
        for at, areas in enumerate(self.areas):
            price = (
                HeadAreas(areas, levels).cost(node) if levels else layer_cost(node.layer, node.operands, node.out, areas.area)
            )
            params = price.params * norms if isinstance(node.layer, Norm) else price.params
            total += (price.macs << (64 * (at + 1))) + (params if at == 0 and with_params else 0)
        return total

    def expand_shared(
        self, op: Op, shared: dict[int, WeightSet], operands: tuple[Feature, ...], indices: Sequence[int]
    ) -> SharedCall | None:
        """The layers of a call of a `shared` op; None where it cannot be built.

        Args:
            shared: the weights of the ops that can be called.
        """
        span = self.span
        inference, frame = self._begin(op.name, operands, {}, indices)
        inference.shared = shared
        call = Call(Target(op, (), op.name, span), tuple(Ref(n, span) for n in frame.scope), (), False, span, span)
        results = inference.call(call, frame, "v", None)
        lowered = None if results is None or _has_error(inference) else _lower(inference, frame)
        if results is None or lowered is None:
            return None
        nodes, place = lowered
        sources = [binding.index for binding in frame.scope.values()]
        at = {place[index]: number for number, index in enumerate(sources) if index != NOTHING}
        made = []
        for node in nodes:
            if node.id in at:
                continue
            price = self.price(node, ())
            params = params_of(price)
            made.append(SharedLayer(node.out, tuple(at[i] for i in node.inputs), price - params, params, node))
            at[node.id] = len(sources) + len(made) - 1
        return SharedCall(tuple(made), tuple(NOTHING if r == NOTHING else at[place[r]] for r in results))

    def _begin(
        self, name: str, operands: tuple[Feature, ...], words: Words, indices: Sequence[int] | None
    ) -> tuple[Inference, Frame]:
        """What infers an op of this name by itself, and its operands: ``o0``, ``o1`` and so on."""
        inference = Inference([], indices)
        inference.layers.own("v", name, "block", self.span)
        scope = {}
        for number, feature in enumerate(operands):
            source = f"o{number}"
            index = NOTHING if feature is NOTHING_FEATURE else inference.layers.source(source, feature, self.span)
            scope[source] = Binding(source, index, self.span)
        return inference, Frame(scope, words, None)


def _has_error(inference: Inference) -> bool:
    return any(problem.severity == "error" for problem in inference.problems)


def _lower(inference: Inference, frame: Frame) -> tuple[tuple[Node, ...], dict[int, str]] | None:
    """The nodes of what was inferred, and of each application the node that gives it; None where it cannot be lowered."""
    layers = inference.layers
    sources = {name: binding.index for name, binding in frame.scope.items() if binding.index != NOTHING}
    widths = {name: layers.applications[index].feature.width for name, index in sources.items()}
    try:
        return lower_nodes(layers.applications, layers.values, widths)
    except DiagnosticError:
        return None


def params_of(cost: int) -> int:
    """The parameters of a cost."""
    return cost & _MASK


def macs_of(cost: int, at: int) -> int:
    """The multiply-accumulates of a cost at the size of this index."""
    return cost >> (64 * (at + 1)) & _MASK


def section_words(
    section: FpnProgram | HeadProgram, names: tuple[str, ...], accepted: dict[str, Accepts], indices: Sequence[int]
) -> Words:
    """The attributes of a section in a filling.

    Raises:
        Unbuildable: one has a mistake.
    """
    problems: list[Diagnostic] = []
    values = section_values(section, accepted, problems, indices)
    if problems:
        raise Unbuildable
    return {name: values[name] for name in names}


def word_of(value: Any, words: Words, indices: Sequence[int]) -> Any:
    """The number or word that an attribute value stands for in a filling.

    Raises:
        Unbuildable: it has a mistake.
    """
    if type(value) is ast.Number:
        return value.value
    found = attributes.evaluate(fill_value(value, indices), words, [])
    if isinstance(found, Unknown):
        raise Unbuildable
    return found


def _literal(value: Any, span: Any) -> ast.Attribute:
    return ast.Reference(span, value) if isinstance(value, str) else ast.Number(span, value, str(value))
