"""The layers of one section while they are collected: who owns them, where their parameters live, what cannot be built."""

from __future__ import annotations

from nasdsl.diagnostics import Code, Diagnostic, Span
from nasdsl.diagnostics.catalogue import structure
from nasdsl.diagnostics.catalogue import types as codes
from nasdsl.layers import CustomLayer, Feature, Input, Layer, LayerError
from nasdsl.semantics.architecture import Application, Value, ValueKind
from nasdsl.semantics.expansions import Expansion

MAX_LAYERS = 250_000
"""Most layers that a decoder may expand into."""

UNFIT = -1
"""Index of a value whose mistake is reported already, or that a hole leaves open."""

LAYER_ERRORS: dict[str, Code] = {
    "groups": codes.GROUPS,
    "group norm": codes.GROUP_NORM,
    "widths": codes.WIDTHS_DIFFER,
    "no level": codes.NO_LEVEL,
    "window": codes.BAD_VALUE,
}


class Assembly:
    """Collects layers.

    Args:
        problems: where findings go.

    Attributes:
        applications: the layers, each after its operands.
        values: what they belong to.
        full: a limit was met and reported; what is added from here on is of no use.
    """

    def __init__(self, problems: list[Diagnostic]) -> None:
        self.problems = problems
        self.applications: list[Application] = []
        self.values: list[Value] = []
        self.full = False
        self._taken: set[str] = set()
        self._counted: dict[str, int] = {}  # the number last given to a path, so that many of one name stay cheap
        self._owner = 0
        self._site: Span | None = None  # the call in the decoder's own file, while the body of an op is expanded

    def own(self, name: str, op: str, kind: ValueKind, span: Span) -> None:
        """Layers applied from here on belong to this value."""
        self.values.append(Value(name, op, kind, span))
        self._owner = len(self.values) - 1

    def reserve(self, path: str) -> str:
        """A path that nothing else has: itself, or with _2, _3, … behind it."""
        return self._unique(path, "_")

    def _unique(self, path: str, mark: str) -> str:
        name, number = path, 1
        if path in self._taken:
            number = self._counted.get(path + mark, 1)
            while name in self._taken:
                number += 1
                name = f"{path}{mark}{number}"
            self._counted[path + mark] = number
        self._taken.add(name)
        return name

    def source(self, name: str, feature: Feature, span: Span) -> int:
        """Where the graph begins."""
        self.applications.append(Application(Input(name), (), feature, self.reserve(name), self._owner, span))
        return len(self.applications) - 1

    def apply(self, layer: Layer, inputs: tuple[int, ...], path: str, span: Span) -> int:
        """Add a layer; gives its index, or `UNFIT` with a diagnostic where it cannot take these operands."""
        if UNFIT in inputs:
            return UNFIT
        if len(self.applications) >= MAX_LAYERS:
            self._too_many(span)
            return UNFIT
        built = self.applications
        features = [built[i].feature for i in inputs]
        place = self._site or span
        try:
            feature = layer.infer(features)
        except LayerError as error:
            self._misfit(error, inputs, place, span)
            return UNFIT
        except Exception as error:
            if not isinstance(layer, CustomLayer):
                raise
            self._misfit(LayerError("custom", f"`{layer.kind}` fails: {error!r}"), inputs, place, span)
            return UNFIT
        name = self._unique(f"{path}.{layer.kind}" if path else layer.kind, "")
        built.append(Application(layer, inputs, feature, name, self._owner, place))
        return len(built) - 1

    def again(self, known: Expansion, operands: list[int], path: str, span: Span) -> int:
        """Add the layers of a call that is like an earlier one; gives the index of its result."""
        built, taken, owner = self.applications, self._taken, self._owner
        place = self._site or span
        indices = operands.copy()
        for layer, inputs, feature, below in known.steps:
            indices.append(len(built))
            name = f"{path}.{below}" if path else below
            if name in taken:
                name = self._unique(name, "")
            else:
                taken.add(name)
            built.append(Application(layer, tuple([indices[i] for i in inputs]), feature, name, owner, place))
        return indices[known.result]

    def _too_many(self, span: Span) -> None:
        if not self.full:
            self.full = True
            self.problems.append(
                structure.TOO_MANY(
                    self._site or span,
                    f"the decoder expands into more than {MAX_LAYERS:,} layers",
                    label="the limit is met here",
                )
            )

    def _misfit(self, error: LayerError, inputs: tuple[int, ...], place: Span, span: Span) -> None:
        related = [] if self._site is None else [(span, "in the body of what is called")]
        message = str(error)
        if error.kind == "group norm" and any(p.message == message for p in self.problems):
            return  # the section's width, met again at its next convolution
        if error.kind == "widths":
            label = ", ".join(self._described(number, i) for number, i in enumerate(inputs, 1))
        else:
            label = "this cannot be built"
        help = {
            "widths": "bring them to one width with `conv_1x1(x, width=…)`",
            "group norm": "use a width that 32 divides, or norm=bn",
            "no level": "a globally pooled value can only be multiplied or added",
            "window": "a window is odd, or as wide as the stride",
        }.get(error.kind, "")
        self.problems.append(
            LAYER_ERRORS.get(error.kind, codes.UNFIT_LAYER)(place, message, label=label, help=help, related=related)
        )

    def _described(self, number: int, index: int) -> str:
        """An operand and its width: by name where another statement binds it."""
        application = self.applications[index]
        value = self.values[application.owner]
        named = application.owner != self._owner
        name = value.name.removesuffix(" adapter") if named else f"operand {number}"
        return f"{name} has {application.feature.width or 'a width that the backbone gives'}"
