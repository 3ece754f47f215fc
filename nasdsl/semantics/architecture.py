"""The result of checking: a decoder with every name resolved and every op expanded, for any backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.layers import Feature, Layer
from nasdsl.predictions import PredictionKind
from nasdsl.syntax import ast

ValueKind: TypeAlias = Literal["input", "adapter", "block", "output", "merge", "layer"]


class Group(NamedTuple):
    """Statements that belong together: those of one call of a block, of a `repeat`, or of one turn of it.

    Attributes:
        kind: ``block``, ``repeat`` or ``turn``.
        name: ``bifpn_2``, ``repeat 7``, ``turn 3``.
        span: the statement that calls the block, or the `repeat`.
    """

    kind: Literal["block", "repeat", "turn"]
    name: str
    span: Span


class Value(NamedTuple):
    """Something that the text names: the owner of the layers that compute it.

    Attributes:
        name: as the text has it, made unique where it is bound again (``a3``, ``a3_2``); ``bifpn.m4`` inside a block.
        op: the op, aggregation, block or primitive at the root of its expression.
        kind: an input's adapter, a statement (``block``), a pyramid output, a merge, or a head's ``layer``.
        span: its statement or expression.
        groups: the repeats, turns and blocks that its statement stands in, outermost first. They have no meaning any more,
            but a diagram shows them.
    """

    name: str
    op: str
    kind: ValueKind
    span: Span
    groups: tuple[Group, ...] = ()


class Application(NamedTuple):
    """A layer applied to earlier results.

    Attributes:
        layer: what is computed.
        inputs: indices of the operands, in order. An operand may stand twice.
        feature: level and width of the result; the width may be `UNKNOWN_WIDTH`.
        path: where its parameters live in the section's module tree: ``x1.x.conv``.
        owner: index of the `Value` that it belongs to.
        span: the expression in the decoder's own file.
        weights: where its parameters live if other calls of a `shared` op have them too; empty: at its own path.
    """

    layer: Layer
    inputs: tuple[int, ...]
    feature: Feature
    path: str
    owner: int
    span: Span
    weights: str = ""


@dataclass(frozen=True, slots=True)
class InputFeature:
    """``input c5``: the backbone feature of stride 2**level."""

    name: str
    level: int
    span: Span


@dataclass(frozen=True, slots=True)
class PyramidOutput:
    """``output p5 = …``; ``result`` is the index of the application that computes it, at its own level."""

    name: str
    level: int
    result: int
    span: Span


@dataclass(frozen=True, slots=True)
class FpnPart:
    """The section ``fpn``: applications in an order in which no operand comes after its reader, but for merges.

    ``dangling`` is the number of blocks that no block reads and that are no output. ``bindings`` says of each name that an
    input, a statement or an output binds where it stands, and which application computes it (or `builder.UNFIT`): a statement
    in a `repeat` gives one for each turn.
    """

    width: int
    values: tuple[Value, ...]
    applications: tuple[Application, ...]
    outputs: tuple[PyramidOutput, ...]
    dangling: int
    bindings: tuple[tuple[Span, int], ...] = ()


@dataclass(frozen=True, slots=True)
class HeadLayer:
    """One layer of a tower. Application 0 is its input; ``result`` is the index of what it gives."""

    op: str
    span: Span
    applications: tuple[Application, ...]
    result: int


@dataclass(frozen=True, slots=True)
class Tower:
    """A chain of layers: ``cls`` or ``box`` in front of some predictions, or ``both`` in front of these two."""

    name: str
    layers: tuple[HeadLayer, ...]


@dataclass(frozen=True, slots=True)
class HeadPart:
    """The section ``head``; layers before index ``share`` have weights for each level, the others shared ones.

    Attributes:
        share: an index into the layers from the pyramid to the predictions: those of the trunk come first.
        towers: ``cls`` and ``box``.
        trunk: the layers that both towers go on from; None where there are none.
        norms: ``level`` where norms of shared layers have weights for each level, else ``shared``.
    """

    width: int
    share: int
    towers: tuple[Tower, ...]
    span: Span
    trunk: Tower | None = None
    norms: str = "shared"

    @property
    def chains(self) -> tuple[Tower, ...]:
        """The trunk, if there is one, and the towers."""
        return self.towers if self.trunk is None else (self.trunk, *self.towers)


@dataclass(frozen=True, slots=True)
class PredictionPart:
    """How the maps of a prediction are computed from their towers.

    Attributes:
        kernel: side of the plain convolution.
        share: whether all levels share its weights.
        layers: what ``conv=`` puts in its place, by tower; empty for the plain convolution. Its last layer is a convolution,
            whose number of channels does not count: it gives those of the prediction.
        span: the statement ``predict``.
    """

    kernel: int
    share: bool
    layers: tuple[tuple[str, HeadLayer], ...]
    span: Span


@dataclass(frozen=True, slots=True)
class DetectorPart:
    """``detector(size=240x320, backbone=mobilenet_v2)``: the detector that a decoder is for.

    Attributes:
        size: height and width of its images in pixels; None where the text does not say.
        backbone: a name of `nasdsl.backbones`; None where the text does not say.
    """

    size: tuple[int, int] | None = None
    backbone: str | None = None


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder that checks.

    Attributes:
        name: of the decoder.
        inputs: the backbone features that it names, in the order of the text.
        fpn, head: its parts.
        predict: what is predicted.
        prediction: by which layers.
        requirements: its `require` statements.
        open_holes: spans of the holes in it; with any, it is a search space and the parts are incomplete.
        decisions: how many holes it has written out: those in a `repeat` once a round, those in a block once a call.
        warnings: findings that do not make it fail.
        detector: the detector that it is for; None where it names none, and where holes are open.
    """

    name: str
    inputs: tuple[InputFeature, ...]
    fpn: FpnPart
    head: HeadPart
    predict: PredictionKind
    prediction: PredictionPart
    requirements: tuple[ast.Require, ...]
    open_holes: tuple[Span, ...]
    decisions: int
    warnings: tuple[Diagnostic, ...]
    detector: DetectorPart | None = None
