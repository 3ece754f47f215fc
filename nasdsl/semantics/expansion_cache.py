"""Cache of the layers that calls of an op expand into.

A decoder calls a handful of ops over and over, and a search does so in every sample. The layers of a call depend on the words
that the op's body sees (width, norm, act, its attributes) and on level and width of its operands, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from nasdsl.layers import CustomLayer, Feature, Layer

if TYPE_CHECKING:
    from nasdsl.semantics.architecture import Application

MOST = 1024
"""Most expansions that are kept of one op."""

Key: TypeAlias = Hashable
"""The words that an op's body sees, and the features of the operands."""


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
