"""Shapes and costs of what a text names, for a backbone and an image size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from nasdsl.backbones import TIMM, Backbone
from nasdsl.backbones import backbone as find_backbone
from nasdsl.backends.cost import Areas, CostTable, PartCost, cost
from nasdsl.backends.requirements import DEFAULT_SIZE
from nasdsl.decoder import REFERENCE_BACKBONE
from nasdsl.diagnostics import DiagnosticError, Source, Span
from nasdsl.ir import Graph, MissingFeature, lower
from nasdsl.ir.lower import lower_nodes
from nasdsl.layers import UNKNOWN_WIDTH, Feature
from nasdsl.lsp.settings import Settings
from nasdsl.semantics.architecture import FpnPart
from nasdsl.semantics.builder import UNFIT
from nasdsl.semantics.check import MOST_READ, Checked, sample_fillings
from nasdsl.semantics.conditions import numbered
from nasdsl.semantics.infer_detector import infer_detector
from nasdsl.semantics.infer_fpn import infer_fpn
from nasdsl.spaces.condition import count_fillings

Place = tuple[Source, int, int]


@dataclass(slots=True)
class Amount:
    """What a piece of the text costs; `times` is how many values or layers it stands for."""

    macs: int = 0
    params: int = 0
    times: int = 0


class SpaceSize(NamedTuple):
    """How large a search space is, before requirements."""

    decisions: int
    fillings: int


class Figures:
    """Shapes and costs of a checked text.

    Attributes:
        backbone: name of the backbone that they are for.
        size: height and width of the images that they are for.
    """

    def __init__(self, checked: Checked, settings: Settings) -> None:
        self._checked = checked
        detector = None if checked.program is None else infer_detector(checked.program, [])
        own_backbone = None if detector is None else detector.backbone
        self.backbone = settings.backbone or own_backbone or REFERENCE_BACKBONE
        self.size = settings.size or (detector.size if detector is not None else None) or DEFAULT_SIZE
        self._areas = Areas(self.size)

    @cached_property
    def _found(self) -> Backbone | None:
        """The backbone; None for one that is unknown, or a model of timm, which only torch can count."""
        if self.backbone.startswith(TIMM):
            return None
        try:
            return find_backbone(self.backbone)
        except ValueError:
            return None

    # ------------------------------------------------------------------------------------------------- shapes

    @cached_property
    def features(self) -> dict[Place, dict[Feature, None]]:
        """Level and width of each name that is bound in the decoder's own statements, by its place.

        Several where the turns of a `repeat`, or the fillings of a space, differ. The width is `UNKNOWN_WIDTH` where only a
        backbone that is not known gives it.
        """
        program = self._checked.program
        found: dict[Place, dict[Feature, None]] = {}
        if program is None or program.fpn is None:
            return found
        architecture = self._checked.architecture
        fillings: Iterable[list[int] | None] = [None]  # in a text with errors: what is certain
        if architecture is not None and program.decisions:
            fillings = sample_fillings(program.decisions)
        read = 0
        for indices in fillings:
            is_inferred = architecture is not None and indices is None
            fpn = architecture.fpn if architecture is not None and is_inferred else infer_fpn(program, [], [], None, indices)
            if fpn is not None:
                read += len(fpn.applications)
                for span, feature in self._features_of(fpn):
                    found.setdefault((span.source, span.start, span.end), {})[feature] = None
            if read > MOST_READ:
                break
        return found

    def _features_of(self, fpn: FpnPart) -> list[tuple[Span, Feature]]:
        known = [(span, index, fpn.applications[index].feature) for span, index in fpn.bindings if index >= 0]
        is_whole = all(index != UNFIT for application in fpn.applications for index in application.inputs)
        if self._found is not None and is_whole and any(f.width == UNKNOWN_WIDTH for _, _, f in known):
            try:
                nodes, place = lower_nodes(fpn.applications, fpn.values, self._found.out_channels)
            except (DiagnosticError, KeyError):  # a layer cannot take the backbone's widths; a feature that it lacks
                return [(span, feature) for span, _, feature in known]
            out = {node.id: node.out for node in nodes}
            return [(span, Feature(f.level, out[place[index]].width)) for span, index, f in known]
        return [(span, feature) for span, _, feature in known]

    def shape(self, feature: Feature) -> str:
        """``256 x 100 x 136``: channels, height and width."""
        width = "?" if feature.width == UNKNOWN_WIDTH else str(feature.width)
        height, length = self._areas.map(feature)
        return f"{width} x {height} x {length}"

    # -------------------------------------------------------------------------------------------------- costs

    @cached_property
    def graph(self) -> Graph | None:
        """The decoder for the backbone; None for a space, a text with errors, and a backbone that does not fit."""
        architecture = self._checked.architecture
        if architecture is None or architecture.open_holes or architecture.decisions or self._found is None:
            return None
        try:
            return lower(architecture, self._found.out_channels)
        except (DiagnosticError, MissingFeature):
            return None

    @cached_property
    def table(self) -> CostTable | None:
        """Costs of the whole detector for 80 classes, as ``nasdsl compile`` prints them; None where there is no graph."""
        return None if self.graph is None else cost(self.graph, self.size, 80, self._found)

    @cached_property
    def amounts(self) -> dict[Place, Amount]:
        """Costs of statements, calls of blocks, repeats and layers of the head, by their places."""
        found: dict[Place, Amount] = {}
        for row in () if self.table is None else self.table.nodes:
            spans = {(s.source, s.start, s.end) for s in (row.span, *(g.span for g in row.groups if g.kind != "turn"))}
            for place in spans:
                amount = found.setdefault(place, Amount())
                amount.macs += row.macs
                amount.params += row.params
                amount.times += 1
        return found

    def amount(self, span: Span) -> Amount | None:
        return self.amounts.get((span.source, span.start, span.end))

    def share(self, part: PartCost) -> float | None:
        """The fraction of all multiply-accumulates that a part has."""
        total = 0 if self.table is None else self.table.total.macs
        return part.macs / total if total else None

    # -------------------------------------------------------------------------------------------------- spaces

    @cached_property
    def space(self) -> SpaceSize | None:
        """How large the space is; None for a text without holes, or with errors."""
        program = self._checked.program
        if program is None or not program.decisions or self._checked.architecture is None:
            return None
        conditions = [numbered(d.condition) for d in program.decisions]
        return SpaceSize(len(program.decisions), count_fillings([len(d.texts) for d in program.decisions], conditions))
