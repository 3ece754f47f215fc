"""The head: towers of layers, applied to every level, shared from an index on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import structure
from nasdsl.diagnostics.catalogue import types as codes
from nasdsl.layers import Feature
from nasdsl.semantics.architecture import HeadLayer, HeadPart, Tower
from nasdsl.semantics.assembly import UNFIT
from nasdsl.semantics.expand import Binding, Expander
from nasdsl.syntax import ast

if TYPE_CHECKING:
    from nasdsl.semantics.sections import Origin

TOWERS = ("cls", "box")
MAX_STEPS = 10_000

HERE = 0
"""The level of a head's layers: that of whichever map they are applied to."""


def check_head(
    node: ast.Head,
    place: Origin,
    values: dict[str, Any] | None,
    width_in: int,
    problems: list[Diagnostic],
    holes: list[Span],
    lost: frozenset[str] | None,
) -> HeadPart | None:
    """Check a head whose layers receive maps of `width_in` channels (0: not known)."""
    if values is None:
        values = dict.fromkeys(("width", "norm", "act", "share"), None)
    width = values["width"] if isinstance(values["width"], int) else 0
    if width and width_in and width > width_in:
        setting = next((s for s in node.settings if s.name == "width"), None)
        problems.append(
            codes.HEAD_WIDER(
                setting.span if setting else _word(node),
                f"a head of {width} channels on a pyramid of {width_in}",
                label=f"expected {width_in} or less",
                help=f"widen the pyramid: output p3 = conv_1x1(…, width={width})",
            )
        )
    longest = max(node.towers, key=lambda t: len(t.steps), default=None)
    if longest is not None and len(longest.steps) > MAX_STEPS:
        problems.append(
            structure.TOO_MANY(
                longest.steps[MAX_STEPS].span, f"a chain of more than {MAX_STEPS:,} layers", label="the limit is met here"
            )
        )
        return None
    towers: list[Tower] = []
    steps: tuple[ast.Step, ...] | None = None
    for tower in _both(node, problems, lost):
        if steps is not tower.steps:  # one chain for both towers is checked once
            layers = _layers(tower, place, values, width_in, problems, holes, lost)
        steps = tower.steps
        towers.append(Tower(tower.label or "", layers))
    share = values["share"]
    most = max((len(t.steps) for t in node.towers), default=0)
    if isinstance(share, int) and share > most and lost is None:
        setting = next(s for s in node.settings if s.name == "share")
        problems.append(
            structure.SHARE_BEYOND(
                setting.span, f"weights are shared from layer {share} on, and the head has {most}",
                label=f"expected 0 (all shared) to {most} (none shared)",
            )
        )  # fmt: skip
    return HeadPart(width, share if isinstance(share, int) else 0, tuple(towers), node.span)


def _word(node: ast.Head) -> Span:
    return Span(node.span.source, node.span.start, node.span.start + len("head"))


def _both(node: ast.Head, problems: list[Diagnostic], lost: frozenset[str] | None) -> list[ast.Tower]:
    """The towers ``cls`` and ``box``, in this order."""
    if len(node.towers) == 1 and node.towers[0].label is None:
        only = node.towers[0]
        return [ast.Tower(only.span, name, only.steps) for name in TOWERS]
    found: dict[str, ast.Tower] = {}
    for tower in node.towers:
        label = tower.label or ""
        place = _label(tower)
        if label not in TOWERS:
            problems.append(structure.UNKNOWN_TOWER(place, f"no tower is called `{label}`", label="expected cls or box"))
        elif label in found:
            problems.append(
                structure.TWO_PARTS(
                    place, f"a second `{label}`", label="expected one", related=[(_label(found[label]), "the first one")]
                )
            )
        else:
            found[label] = tower
    for name in TOWERS:
        if name not in found and found and lost is None:
            problems.append(
                structure.MISSING_PART(
                    _word(node), f"the head has no chain `{name}:`", label="expected cls: and box:, or one chain for both"
                )
            )
    return [found[name] for name in TOWERS if name in found]


def _label(tower: ast.Tower) -> Span:
    return Span(tower.span.source, tower.span.start, tower.span.start + len(tower.label or ""))


def _layers(
    tower: ast.Tower,
    place: Origin,
    values: dict[str, Any],
    width: int,
    problems: list[Diagnostic],
    holes: list[Span],
    lost: frozenset[str] | None,
) -> tuple[HeadLayer, ...]:
    from nasdsl.semantics.attributes import UNKNOWN

    section = {name: UNKNOWN if values[name] is None else values[name] for name in ("width", "norm", "act")}
    environment = {**place.lets, **section}
    layers = []
    for step in tower.steps:
        if not isinstance(step.operation, str):
            holes.append(step.operation.span)
            width = 0
            layers.append(HeadLayer("?", step.span, (), UNFIT))
            continue
        expander = Expander(problems, lost)
        expander.own(step.operation, step.operation, "layer", step.span)
        source = expander.source("x", Feature(HERE, width), step.span)
        callee_span = Span(step.span.source, step.span.start, step.span.start + len(step.operation))
        call = ast.Call(step.span, step.operation, callee_span, (ast.Reference(step.span, "x"),), step.settings)
        result = expander.expand(call, {"x": Binding("x", source, step.span)}, environment, place.vocabulary, "")
        holes += expander.holes
        if result != UNFIT:
            feature = expander.applications[result].feature
            if feature.level != HERE:
                problems.append(
                    codes.HEAD_LEVEL(
                        step.span, f"`{step.operation}` changes the resolution", label="a head's layer keeps it",
                        help="change resolutions in the fpn",
                    )
                )  # fmt: skip
            width = feature.width
        else:
            width = 0
        layers.append(HeadLayer(step.operation, step.span, tuple(expander.applications), result))
    return tuple(layers)
