"""A pyramid whose levels differ in width: what the head's layers make of each, and which weights the levels cannot share."""

from __future__ import annotations

from collections.abc import Sequence

from nasdsl.diagnostics import Diagnostic
from nasdsl.diagnostics.catalogue import heads, types
from nasdsl.layers import UNKNOWN_WIDTH, WITHOUT_WEIGHTS, Feature, Input, LayerError
from nasdsl.semantics.architecture import FpnPart, HeadLayer, HeadPart, PredictionPart, Tower
from nasdsl.semantics.builder import UNFIT
from nasdsl.semantics.conditions import ALWAYS
from nasdsl.semantics.infer_head import pyramid_widths
from nasdsl.semantics.program import Program, find_slot


def check_level_widths(
    program: Program,
    fpn: FpnPart,
    head: HeadPart,
    prediction: PredictionPart,
    problems: list[Diagnostic],
    indices: Sequence[int] | None = None,
) -> None:
    """Check a head on levels of different widths: that each layer can take them, and that they share no weights.

    Levels whose width is not known are left out: lowering checks them.

    Args:
        indices: see `infer_fpn`.
    """
    every = pyramid_widths(fpn)
    widths = {name: width for name, width in every.items() if width != UNKNOWN_WIDTH}
    if len(set(every.values())) < 2 or not widths:
        return
    names = {width: ", ".join(n for n, w in widths.items() if w == width) for width in widths.values()}
    before, share = 0, 0
    ends: dict[str, dict[int, int]] = {}  # of each tower, by width of the level
    start = {width: width for width in names}
    for tower in head.chains:
        if head.trunk is not None and tower is not head.trunk:
            before = len(head.trunk.layers)
        ends[tower.name], needed = _check_tower(tower, start, head.share - before, names, problems)
        share = max(share, before + needed if needed else 0)
        if tower is head.trunk:
            start = ends[tower.name]
    layers = dict(prediction.layers)
    for tower in head.towers:
        if tower.name in layers:
            for width, given in ends[tower.name].items():
                _width_behind(layers[tower.name], given, names[width], width, problems)
    if any(len(layer.applications) > 2 for layer in layers.values()):  # one of them is the input
        for width in names:
            at_level = {tower.name: ends[tower.name][width] for tower in head.towers}
            if len(set(at_level.values()) - {UNKNOWN_WIDTH}) > 1:
                op = prediction.layers[0][1]
                problems.append(heads.prediction_widths(op.span, op.op, at_level))
                break
    conditional = indices is None and program.head is not None and _is_open(program)
    own = (
        any(_differ(ends[tower.name]) for tower in head.towers) and prediction.share and not _is_open_sharing(program, indices)
    )
    share = 0 if conditional else share
    if share or own:
        place = fpn.outputs[0].span if program.fpn is None or program.fpn.from_span is None else program.fpn.from_span
        kind = program.predict.detector if own and program.predict is not None else ""
        problems.append(heads.pyramid_widths(place, widths.items(), share, kind))


def _is_open(program: Program) -> bool:
    """Whether the sharing index, or how many layers there are, is open."""
    head = program.head
    assert head is not None
    sharing = any(s.name == "share" and find_slot(s.value) for s in head.settings)
    return sharing or any(step.condition != ALWAYS for chain in head.chains for step in chain.steps)


def _is_open_sharing(program: Program, indices: Sequence[int] | None) -> bool:
    """Whether a hole decides if levels share the prediction."""
    node = program.predict
    return indices is None and node is not None and any(s.name == "share" and find_slot(s.value) for s in node.settings)


def _check_tower(
    tower: Tower, widths: dict[int, int], share: int, names: dict[int, str], problems: list[Diagnostic]
) -> tuple[dict[int, int], int]:
    """Channels that a tower gives, and how many of its layers need weights of each level although levels share them.

    Args:
        widths: channels that it receives at levels of each width.
        share: its layers before this index have weights for each level.
        names: of the levels of each width.
    """
    needed = 0
    for index, layer in enumerate(tower.layers):
        if index >= share and _differ(widths) and _has_weights(layer):
            needed = index + 1
        widths = {width: _width_behind(layer, given, names[width], width, problems) for width, given in widths.items()}
    return widths, needed


def _differ(widths: dict[int, int]) -> bool:
    return len({width for width in widths.values() if width != UNKNOWN_WIDTH}) > 1


def _has_weights(layer: HeadLayer) -> bool:
    return not all(isinstance(a.layer, WITHOUT_WEIGHTS) for a in layer.applications)


def _width_behind(layer: HeadLayer, width: int, level: str, of_level: int, problems: list[Diagnostic]) -> int:
    """Channels that a layer gives for an operand of `width`; `UNKNOWN_WIDTH` where it is not known, or cannot take it.

    Args:
        level, of_level: the level that it is applied to, and its channels.
    """
    if layer.result == UNFIT or width == UNKNOWN_WIDTH:
        return UNKNOWN_WIDTH if layer.result == UNFIT else layer.applications[layer.result].feature.width
    features: list[Feature] = []
    for application in layer.applications:
        if isinstance(application.layer, Input):
            features.append(application.feature._replace(width=width))
            continue
        try:
            features.append(application.layer.infer([features[i] for i in application.inputs]))
        except LayerError as error:
            problems.append(types.level_misfit(application.span, error.kind, str(error), level, of_level))
            return UNKNOWN_WIDTH
    return features[layer.result].width
