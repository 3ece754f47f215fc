"""The syntax tree: frozen, typed nodes, each with its span in the source.

Spans are not compared: two trees are equal if they say the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar, dataclass_transform

from nasdsl.diagnostics import Span

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def node(cls: type[_T]) -> type[_T]:
    """Decorator: a frozen dataclass, for the type checker alone; one that is frozen takes three times as long to make."""
    return dataclass(slots=True, unsafe_hash=True)(cls)


@node
class Node:
    """Base class of all nodes. ``span`` covers the node from its first to its last character."""

    span: Span = field(compare=False, repr=False)


# ---------------------------------------------------------------------------------------------- expressions


@node
class Number(Node):
    """An integer or a decimal, with its suffix applied: ``120G`` is 120e9. ``text`` is how it was written."""

    value: int | float
    text: str = field(compare=False)


@node
class Duration(Node):
    """A time, in seconds: ``15ms`` is 0.015. ``text`` is how it was written."""

    value: float
    text: str = field(compare=False)


@node
class Size(Node):
    """Height and width in pixels: ``240x320``."""

    height: int
    width: int


@node
class Text(Node):
    """A string, for a name that is no word of a text: ``"resnet50_v1.5"``."""

    value: str


@node
class Reference(Node):
    """A name in place of a feature or a word: ``x1``, ``x[t-1]``, ``nearest``; also the word ``in``, which no name is."""

    name: str
    index: Attribute | None = None


@node
class Arithmetic(Node):
    """``left operator right`` on numbers; the operator is ``+``, ``-``, ``*`` or ``/``.

    Among the alternatives of a hole, a product may also be a layer so many times: ``conv_3x3 * 2``, ``conv(k=3) * 2``.
    """

    operator: str
    left: Attribute | Call
    right: Attribute


@node
class Negative(Node):
    operand: Attribute


@node
class Group(Node):
    """An attribute value in parentheses."""

    inner: Attribute


@node
class NamedHole(Node):
    """``?name``: one of the alternatives of ``choice name``, or any value in scope for ``?pool``."""

    name: str


@node
class ChoiceHole(Node):
    """``?(a | b)``: one of the alternatives in the brackets.

    ``weights`` says how often each is drawn (``?(a : 3 | b)``), None for one that does not say; empty where none does.
    """

    alternatives: tuple[Alternative, ...]
    weights: tuple[Number | None, ...] = ()


@node
class Chain(Node):
    """``sep_3x3 -> conv(k=3)``: several layers as one alternative of a step of a head."""

    links: tuple[Link, ...]


@node
class RangeHole(Node):
    """``?(0..6)``: an integer, both ends included."""

    first: Attribute
    last: Attribute


@node
class Setting(Node):
    """``name=value``."""

    name: str
    name_span: Span = field(compare=False, repr=False)
    value: Attribute


@node
class Call(Node):
    """``callee(operand, …, name=value, …)``. An operand may be a number: a constant of ``mul`` or ``add``."""

    callee: str | Hole
    callee_span: Span = field(compare=False, repr=False)
    operands: tuple[Operand | Attribute, ...]
    settings: tuple[Setting, ...]
    distinct: bool = False


Hole: TypeAlias = NamedHole | ChoiceHole | RangeHole
Operand: TypeAlias = Reference | Call | Hole
Attribute: TypeAlias = Number | Size | Text | Reference | Arithmetic | Negative | Group | Hole
Link: TypeAlias = Attribute | Call
Alternative: TypeAlias = Link | Chain

# ----------------------------------------------------------------------------------------------- statements


@node
class Target(Node):
    """The left side of an assignment: ``x1`` or ``x[t]``."""

    name: str
    index: Attribute | None = None


@node
class Assign(Node):
    """``a, b = expression``."""

    targets: tuple[Target, ...]
    value: Operand


@node
class OutputBinding(Node):
    """``p5 = expression`` in an ``output`` statement."""

    name: str
    name_span: Span = field(compare=False, repr=False)
    value: Operand


@node
class Output(Node):
    bindings: tuple[OutputBinding, ...]


@node
class Merge(Node):
    """``merge dangling into p3, p4, p5``."""

    targets: tuple[Reference, ...]


@node
class Repeat(Node):
    """``repeat 3 { … }`` (no variable, ``first`` is 1) or ``repeat t in 1..7 { … }``."""

    variable: str | None
    first: Attribute | None
    last: Attribute
    body: tuple[Statement, ...]
    variable_span: Span | None = field(default=None, compare=False, repr=False)


@node
class Let(Node):
    """``let k = value``: a number or a word; a hole is filled once for all its uses."""

    name: str
    name_span: Span = field(compare=False, repr=False)
    value: Attribute


@node
class Parameter(Node):
    """A parameter of an op or a block: an operand, or with ``default`` an attribute."""

    name: str
    default: Attribute | None = None


@node
class OpDef(Node):
    """``op name(x, k=3) = expression``, ``agg name(x, y) = expression``, or among statements ``shared name(x) = expression``.

    ``kind`` is the word it began with.
    """

    kind: str
    name: str
    name_span: Span = field(compare=False, repr=False)
    parameters: tuple[Parameter, ...]
    body: Operand


Statement: TypeAlias = Assign | Output | Merge | Repeat | Let | OpDef
"""An `OpDef` that is a statement is a `shared` op."""

# -------------------------------------------------------------------------------------------------- decoder


@node
class InputName(Node):
    name: str


@node
class Input(Node):
    names: tuple[InputName, ...]


@node
class Detector(Node):
    """``detector(size=240x320, backbone=mobilenet_v2)``: the detector that the decoder is for."""

    settings: tuple[Setting, ...]


@node
class Require(Node):
    """``require macs <= 120G at 800x1088``; ``size`` is (height, width); ``subject`` is the op of ``count(op)``.

    ``runtime`` is that of ``require latency <= 15ms on onnxruntime``.
    """

    quantity: str
    quantity_span: Span = field(compare=False, repr=False)
    comparison: str
    bound: Number | Duration
    size: tuple[int, int] | None
    subject: Reference | None = None
    runtime: Reference | None = None


@node
class Step(Node):
    """One layer of a head's chain: an operation by name, with attributes, or a hole; ``times`` in a row: ``conv_3x3 * 4``."""

    operation: str | Hole
    settings: tuple[Setting, ...] = ()
    times: Attribute | None = None


@node
class Tower(Node):
    """A chain of layers; ``label`` is ``cls`` or ``box``, or None for the chain of both."""

    label: str | None
    steps: tuple[Step, ...]


@node
class Fpn(Node):
    """``fpn(…) { … }``, or with ``source`` ``fpn(…) from "file"``."""

    settings: tuple[Setting, ...]
    body: tuple[Statement, ...]
    source: str | None = None


@node
class Head(Node):
    """``head(…) { … }``, or with ``source`` ``head(…) from "file"``."""

    settings: tuple[Setting, ...]
    towers: tuple[Tower, ...]
    source: str | None = None


@node
class Predict(Node):
    """``predict fcos(centerness=cls)``."""

    detector: str
    detector_span: Span = field(compare=False, repr=False)
    settings: tuple[Setting, ...]


DecoderItem: TypeAlias = Input | Detector | Let | Require | Fpn | Head | Predict


@node
class Decoder(Node):
    name: str
    name_span: Span = field(compare=False, repr=False)
    items: tuple[DecoderItem, ...]


# -------------------------------------------------------------------------------------------------- a file


@node
class Use(Node):
    """``use "file.nas"``."""

    path: str


@node
class ChoiceDef(Node):
    """``choice name = a | b``; ``weights`` as of `ChoiceHole`."""

    name: str
    name_span: Span = field(compare=False, repr=False)
    alternatives: tuple[Alternative, ...]
    weights: tuple[Number | None, ...] = ()


@node
class BlockDef(Node):
    """``block name(a, b, n=2) -> (c, d) { … }``."""

    name: str
    name_span: Span = field(compare=False, repr=False)
    parameters: tuple[Parameter, ...]
    results: tuple[InputName, ...]
    body: tuple[Statement, ...]


Definition: TypeAlias = Use | OpDef | ChoiceDef | BlockDef | Decoder


@node
class File(Node):
    """A whole text."""

    items: tuple[Definition, ...]

    @property
    def decoder(self) -> Decoder | None:
        """Its decoder, the first of several; None where it has none."""
        return next((item for item in self.items if isinstance(item, Decoder)), None)
