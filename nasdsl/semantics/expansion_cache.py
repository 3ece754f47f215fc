"""Cache of the layers that calls of an op or a block expand into, and kept statements.

A decoder calls a handful of ops and blocks over and over, and a search does so in every sample. The layers of a call depend on
the words that the body sees (width, norm, act, its attributes) and on level and width of its operands, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeAlias, TypeVar

from nasdsl.diagnostics import Span
from nasdsl.layers import CustomLayer, Feature, Features, Layer

if TYPE_CHECKING:
    from nasdsl.semantics.architecture import Application, Group, Value

MOST = 1024
"""Most expansions that are kept of one op or block."""

LARGE = 64
"""Layers or values from which on those of a call are kept only if there was a call like it already."""

MOST_OF_STATEMENT = 8
"""Most expansions that are kept of one statement."""

Key: TypeAlias = Hashable
"""The words that the body sees, and the features of the operands."""


class Step(NamedTuple):
    """A layer of the body.

    Attributes:
        inputs: what it reads: the operands of the call are numbered from 0, and behind them the steps.
        path: where its parameters live, below the call's own path, before it is made unique.
    """

    layer: Layer
    inputs: tuple[int, ...]
    feature: Feature
    path: str


class Expansion(NamedTuple):
    """The layers of a call, in order.

    Attributes:
        result: the step, or operand, that it gives; numbered as `Step.inputs`.
        depth: how deep in other calls the call stood: no deeper is the body known to be within the limit.
    """

    steps: tuple[Step, ...]
    result: int
    depth: int


def record(
    added: Sequence[Application], first: int, operands: Sequence[int], result: int, path: str, depth: int
) -> Expansion | None:
    """The expansion of a call, or None where it cannot be replayed.

    Args:
        added: what it has added; `first` is the index of the first of them.
        operands: of the call, all different.
        path, depth: of the call.
    """
    places = {index: number for number, index in enumerate(operands)}
    places.update((first + number, len(operands) + number) for number in range(len(added)))
    steps = []
    for application in added:
        layer, parent = application.layer, application.path.rpartition(".")[0]
        if isinstance(layer, CustomLayer):
            return None  # its shape rule is the user's, and may depend on what it likes
        below = parent[len(path) :].lstrip(".")
        name = f"{below}.{layer.kind}" if below else layer.kind
        steps.append(Step(layer, tuple([places[i] for i in application.inputs]), application.feature, name))
    return Expansion(tuple(steps), places[result], depth)


class BlockStep(NamedTuple):
    """A layer of a block.

    Attributes:
        layer, inputs, feature: as of `Step`.
        path: where its parameters live, below the prefix of the call.
        owner: number of its value, among those of the block.
        weights: as of `Application`, below the prefix of the call.
    """

    layer: Layer
    inputs: tuple[int, ...]
    feature: Feature
    path: str
    owner: int
    weights: str


class BlockExpansion(NamedTuple):
    """The layers of a call of a block, in order.

    Attributes:
        values: what they belong to, with names below the prefix of the call, and the groups within the block.
        results: the steps, or operands, that it gives; numbered as `Step.inputs`.
        taken: the paths that are taken by it, below the prefix of the call.
        depth: as of `Expansion`.
    """

    steps: tuple[BlockStep, ...]
    values: tuple[Value, ...]
    results: tuple[int, ...]
    taken: tuple[str, ...]
    depth: int


class Added(NamedTuple):
    """What a call of a block has added.

    Attributes:
        applications, values: the layers, and what they belong to.
        first, first_value: the indices of the first of them.
        taken: the paths that the call has taken.
    """

    applications: Sequence[Application]
    first: int
    values: Sequence[Value]
    first_value: int
    taken: Sequence[str]


def record_block(
    added: Added, operands: Sequence[int], results: Sequence[int], prefix: str, root: str, groups: int, depth: int
) -> BlockExpansion | None:
    """The expansion of a call of a block, or None where it cannot be replayed.

    Args:
        operands: of the call, all different.
        results: what it gives.
        prefix, depth: of the call.
        root: what stands in front of the paths of `shared` weights there.
        groups: number of those that the block stands in, with the block itself.
    """
    places = {index: number for number, index in enumerate(operands)}
    places.update((added.first + number, len(operands) + number) for number in range(len(added.applications)))
    steps = []
    for layer, inputs, feature, path, owner, _, weights in added.applications:
        if (
            isinstance(layer, CustomLayer)
            or not path.startswith(prefix)
            or not weights.startswith(root + prefix if weights else "")
        ):
            return None
        below = weights[len(root) + len(prefix) :]
        sources = tuple([places[i] for i in inputs])
        steps.append(BlockStep(layer, sources, feature, path[len(prefix) :], owner - added.first_value, below))
    values = []
    inner = RenamedGroups(lambda name: name.removeprefix(prefix))
    for value in added.values:
        if not value.name.startswith(prefix):
            return None
        values.append(value._replace(name=value.name[len(prefix) :], groups=inner.of(value.groups, groups)))
    taken = tuple([path[len(prefix) :] for path in added.taken])
    return BlockExpansion(tuple(steps), tuple(values), tuple([places[i] for i in results]), taken, depth)


class RenamedGroups:
    """The groups of values, with the names of those that are calls of blocks changed: they begin with the prefix of the call.

    Many values stand in the same groups, and their tuples are the same objects: each is made once.

    Args:
        rename: gives the new name.
        around: groups that stand in front of all of them.
    """

    def __init__(self, rename: Callable[[str], str], around: tuple[Group, ...] = ()) -> None:
        self._rename = rename
        self._around = around
        self._groups: dict[int, Group] = {}  # by the identity of what they are made of
        self._tuples: dict[int, tuple[Group, ...]] = {}

    def of(self, groups: tuple[Group, ...], first: int = 0) -> tuple[Group, ...]:
        """The groups of a value from the `first` one on, renamed. Callers keep what they ask for, and ask with one `first`."""
        found = self._tuples.get(id(groups))
        if found is None:
            found = self._tuples[id(groups)] = self._around + tuple([self._one(group) for group in groups[first:]])
        return found

    def _one(self, group: Group) -> Group:
        if group.kind != "block":
            return group
        found = self._groups.get(id(group))
        if found is None:
            found = self._groups[id(group)] = group._replace(name=self._rename(group.name))
        return found


_E = TypeVar("_E", Expansion, BlockExpansion)


class ExpansionCache(Generic[_E]):
    """The layers of earlier calls of one op or block.

    Keeping them takes time and memory, for each layer as for the layer itself. A call within fifty others would be kept fifty
    times as a part of those: of large ones only those are kept that come again, and nothing within them.
    """

    __slots__ = ("_called", "_kept")

    def __init__(self) -> None:
        self._kept: dict[Key, _E] = {}
        self._called: set[Key] = set()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: Key) -> _E | None:
        """The layers of a call."""
        return self._kept.get(key)

    def is_repeated(self, key: Key) -> bool:
        """Whether there was a call with `LARGE` layers or more like this one, which is not kept."""
        return key in self._called

    def note(self, key: Key) -> None:
        """Note a call with `LARGE` layers or more."""
        if len(self._called) >= MOST:
            self._called.clear()
        self._called.add(key)

    def remember(self, key: Key, expansion: _E | None) -> None:
        """Keep the layers of a call; None, for a call that cannot be replayed, is not kept."""
        if expansion is None:
            return
        if len(self._kept) >= MOST:
            self._kept.clear()
        self._kept[key] = expansion

    def clear(self) -> None:
        """Forget all calls."""
        self._kept.clear()
        self._called.clear()


class StatementStep(NamedTuple):
    """A layer of a statement.

    Attributes:
        layer, inputs, feature: as of `Step`; the values that the statement reads are numbered from 0.
        path: where its parameters live.
        span: the call that it comes from.
    """

    layer: Layer
    inputs: tuple[int, ...]
    feature: Feature
    path: str
    span: Span


class StatementExpansion(NamedTuple):
    """The layers of a statement, in order.

    Attributes:
        result: the step, or value that is read, that it gives; numbered as `StatementStep.inputs`.
        taken: the paths that are taken by it.
    """

    steps: tuple[StatementStep, ...]
    result: int
    taken: tuple[str, ...]


class StatementCache:
    """The layers of a statement in earlier versions of its text.

    Attributes:
        values: the values that it reads, by their unique names.
        levels: further ones of which it reads the level alone.
    """

    __slots__ = ("_expansions", "levels", "values")

    def __init__(self, values: tuple[str, ...], levels: tuple[str, ...]) -> None:
        self.values = values
        self.levels = levels
        self._expansions: dict[Key, StatementExpansion] = {}

    def find(self, key: Key) -> StatementExpansion | None:
        """The layers for the words that the section has, the features of the values, and the path of the statement."""
        return self._expansions.get(key)

    def remember(
        self, key: Key, added: Sequence[Application], first: int, operands: Sequence[int], result: int, taken: tuple[str, ...]
    ) -> None:
        """Keep the layers of the statement, if they can be replayed.

        Args:
            added: what it has added; `first` is the index of the first of them.
            operands: the values that it reads, all different.
            result: the index of what it gives.
            taken: the paths that it has taken.
        """
        places = {index: number for number, index in enumerate(operands)}
        places.update((first + number, len(operands) + number) for number in range(len(added)))
        steps = []
        for layer, inputs, feature, path, _, span, weights in added:
            if isinstance(layer, CustomLayer) or isinstance(feature, Features) or weights:
                return
            steps.append(StatementStep(layer, tuple([places[i] for i in inputs]), feature, path, span))
        if len(self._expansions) >= MOST_OF_STATEMENT:
            self._expansions.clear()
        self._expansions[key] = StatementExpansion(tuple(steps), places[result], taken)
