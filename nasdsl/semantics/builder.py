"""Builder of the layers of one section: their owners, the paths of their parameters, layers that cannot be built."""

from __future__ import annotations

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import structure, types
from nasdsl.layers import Feature, Input, Layer, LayerError
from nasdsl.semantics.architecture import Application, Group, Value, ValueKind
from nasdsl.semantics.expansion_cache import Added, BlockExpansion, Expansion, RenamedGroups, StatementExpansion
from nasdsl.semantics.shared_weights import SharedExpansion

MAX_LAYERS = 25_000
"""Most layers that a decoder may expand into, and most values: in blocks deep in each other, they take a second to check."""

NOTHING = -2
"""Index of an operand that is left out: ``none``. No application has it."""

UNFIT = -1
"""Index of a value whose mistake is reported already, or that a hole leaves open."""


class LayerBuilder:
    """Collects the layers of one section.

    Args:
        problems: where findings go.

    Attributes:
        applications: the layers, each after its operands.
        values: what they belong to.
        owner: index of the value that layers applied from here on belong to.
        groups: the repeats, turns and blocks that values from here on stand in.
        statement: the statement that they come from.
        is_full: a limit was met and reported; what is added from here on is of no use.
        root: what stands in front of the paths of `shared` weights: that of the `shared` op whose body is expanded, with a dot.
    """

    def __init__(self, problems: list[Diagnostic]) -> None:
        self.problems = problems
        self.applications: list[Application] = []
        self.values: list[Value] = []
        self.owner = 0
        self.groups: tuple[Group, ...] = ()
        self.statement: Span | None = None
        self.is_full = False
        self.root = ""
        self._taken: set[str] = set()
        self._recorded: list[dict[str, None]] = []  # of each call that is being recorded the paths that it takes
        self._are_own: list[bool] = []  # of each of them, whether all paths that were taken already are its own
        self._counted: dict[str, int] = {}  # the number last given to a path, so that many of one name stay cheap

    def own(self, name: str, op: str, kind: ValueKind, span: Span) -> None:
        """Begin a value: layers applied from here on belong to it."""
        if len(self.values) >= MAX_LAYERS:
            self.too_many(span)
        self.values.append(Value(name, op, kind, span, self.groups))
        self.owner = len(self.values) - 1

    def reserve(self, path: str) -> str:
        """Reserve a unique path: the given one, or with _2, _3, … behind it."""
        return self._unique(path, "_")

    def _unique(self, path: str, mark: str) -> str:
        name, number = path, 1
        if path in self._taken:
            number = self._counted.get(path + mark, 1)
            while name in self._taken:
                self._meet(name)
                number += 1
                name = f"{path}{mark}{number}"
            self._counted[path + mark] = number
        self._taken.add(name)
        if self._recorded:
            self._recorded[-1][name] = None
        return name

    def _meet(self, name: str) -> None:
        """Note that a path is taken already: what a call gives depends on it, unless the call itself has taken it."""
        is_own = False
        for number in range(len(self._recorded) - 1, -1, -1):
            is_own = is_own or name in self._recorded[number]
            self._are_own[number] = self._are_own[number] and is_own

    def record(self) -> None:
        """Begin to note the paths that a call takes."""
        self._recorded.append({})
        self._are_own.append(True)

    def recorded(self, *, is_kept: bool) -> tuple[str, ...] | None:
        """End what `record` began.

        Returns the paths that the call has taken; None if they would be others where other paths are taken, or if the layers
        of the call are not kept.
        """
        taken, are_own = self._recorded.pop(), self._are_own.pop()
        found = tuple(taken) if is_kept and are_own else None
        if self._recorded:
            around = self._recorded[-1]
            if len(around) < len(taken):  # a block in a block in …: the paths are those of the innermost
                around, taken = taken, around
            around.update(taken)
            self._recorded[-1] = around
        return found

    def source(self, name: str, feature: Feature, span: Span) -> int:
        """Add an input; gives its index."""
        self.applications.append(Application(Input(name), (), feature, self.reserve(name), self.owner, span))
        return len(self.applications) - 1

    def apply(self, layer: Layer, inputs: tuple[int, ...], path: str, span: Span, site: Span | None = None) -> int:
        """Add a layer; gives its index, or `UNFIT` with a diagnostic where it cannot take these operands.

        Args:
            inputs: indices of the operands.
            path: where its parameters live.
            span: the call that the layer comes from.
            site: the call in the decoder's own statements, where `span` is in the body of an op or a block.
        """
        if UNFIT in inputs:
            return UNFIT
        built = self.applications
        place = site or span
        if len(built) >= MAX_LAYERS:
            self.too_many(place)
            return UNFIT
        features = [built[i].feature for i in inputs]
        try:
            feature = layer.infer(features)
        except LayerError as error:
            self._misfit(error, inputs, place, span, site)
            return UNFIT
        name = self._unique(f"{path}.{layer.kind}" if path else layer.kind, "")
        built.append(Application(layer, inputs, feature, name, self.owner, place))
        return len(built) - 1

    def replay(self, known: Expansion, operands: list[int], path: str, place: Span) -> int:
        """Add the layers of a call that is like an earlier one; gives the index of its result."""
        built, taken, owner = self.applications, self._taken, self.owner
        add, take = built.append, taken.add
        indices = operands.copy()
        number = entered = len(built)
        for layer, inputs, feature, below in known.steps:
            indices.append(number)
            number += 1
            name = f"{path}.{below}" if path else below
            if name in taken:
                if self._recorded:  # an earlier layer of this very call may have the path
                    self._recorded[-1].update((application.path, None) for application in built[entered:])
                    entered = len(built)
                name = self._unique(name, "")
            else:
                take(name)
            sources = (indices[inputs[0]],) if len(inputs) == 1 else tuple([indices[i] for i in inputs])
            add(Application(layer, sources, feature, name, owner, place))
        if self._recorded:
            self._recorded[-1].update((application.path, None) for application in built[entered:])
        return indices[known.result]

    def replay_block(
        self, known: BlockExpansion, operands: list[int], prefix: str, groups: tuple[Group, ...], place: Span
    ) -> list[int] | None:
        """Add the layers of a call of a block that is like an earlier one; gives the indices of its results.

        None, and nothing is added, where other values have paths that the block would take.
        """
        taken = [prefix + below for below in known.taken]
        if not self._taken.isdisjoint(taken):
            return None
        self._taken.update(taken)
        if self._recorded:
            self._recorded[-1].update(dict.fromkeys(taken))
        built, owner = self.applications, len(self.values)
        within = RenamedGroups(lambda name: prefix + name, groups)
        for name, op, kind, span, inner in known.values:
            self.values.append(Value(prefix + name, op, kind, span, within.of(inner)))
        indices = operands.copy()
        root = self.root + prefix
        for layer, inputs, feature, path, number, weights in known.steps:
            indices.append(len(built))
            sources = tuple([indices[i] for i in inputs])
            own = root + weights if weights else ""
            built.append(Application(layer, sources, feature, prefix + path, owner + number, place, own))
        return [indices[i] for i in known.results]

    def replay_statement(self, known: StatementExpansion, operands: list[int]) -> int | None:
        """Add the layers of a statement that is kept; gives the index of its result.

        None, and nothing is added, where other values have paths that the statement would take, or there would be too many.
        """
        built, owner = self.applications, self.owner
        number = len(built)
        if not self._taken.isdisjoint(known.taken) or number + len(known.steps) > MAX_LAYERS:
            return None
        self._taken.update(known.taken)
        indices = operands.copy()
        for layer, inputs, feature, path, span in known.steps:
            indices.append(number)
            number += 1
            built.append(Application(layer, tuple([indices[i] for i in inputs]), feature, path, owner, span))
        return indices[known.result]

    def added(self, first: int, first_value: int, taken: tuple[str, ...]) -> Added:
        """What was added since there were so many layers and values, with the paths that it has `recorded`."""
        return Added(self.applications[first:], first, self.values[first_value:], first_value, taken)

    def replay_shared(self, call: SharedExpansion, operands: list[int], path: str, weights: str, place: Span) -> list[int]:
        """Add the layers of a call of a `shared` op, with parameters below `weights`; gives the indices of its results."""
        built = self.applications
        indices = [i for i in operands if i != NOTHING]
        for application in call.applications[call.operands :]:
            indices.append(len(built))
            below = application.path
            name = self._unique(f"{path}.{below}" if path else below, "")
            inputs = tuple([indices[i] for i in application.inputs])
            own = application.weights or f"{weights}.{below}"
            built.append(Application(application.layer, inputs, application.feature, name, self.owner, place, own))
        return [NOTHING if i == NOTHING else indices[i] for i in call.results]

    def has_room(self, layers: int, values: int) -> bool:
        """Whether so many more layers and values are within the limit."""
        return max(len(self.applications) + layers, len(self.values) + values) <= MAX_LAYERS

    def too_many(self, place: Span) -> None:
        """Report that the limit of layers, or of values, is met, once."""
        if not self.is_full:
            self.is_full = True
            self.problems.append(structure.too_many_layers(place, MAX_LAYERS))

    def _misfit(self, error: LayerError, inputs: tuple[int, ...], place: Span, span: Span, site: Span | None) -> None:
        message = str(error)
        if error.kind == "group norm" and any(p.message == message for p in self.problems):
            return  # the section's width, met again at its next convolution
        operands = ", ".join(self._described(number, i) for number, i in enumerate(inputs, 1))
        related = [] if site is None else [(span, "in the body of what is called")]
        self.problems.append(types.layer_error(place, error.kind, message, operands, related))

    def _described(self, number: int, index: int) -> str:
        """An operand and its width: by name where another statement binds it."""
        application = self.applications[index]
        value = self.values[application.owner]
        named = application.owner != self.owner
        name = value.name.removesuffix(" adapter") if named else f"operand {number}"
        return f"{name} has {application.feature.width or 'a width that the backbone gives'}"
