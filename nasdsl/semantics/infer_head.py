"""The section ``head``: a trunk and towers of layers, applied to every level, with weights shared from an index on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import heads, structure
from nasdsl.layers import UNKNOWN_WIDTH, Feature
from nasdsl.semantics import primitives
from nasdsl.semantics.architecture import FpnPart, HeadLayer, HeadPart, Tower
from nasdsl.semantics.attributes import Accepts
from nasdsl.semantics.builder import UNFIT
from nasdsl.semantics.conditions import ALWAYS
from nasdsl.semantics.infer import Inference
from nasdsl.semantics.infer_scope import Binding, Frame
from nasdsl.semantics.program import Chain, HeadProgram, Program, present_steps, section_values

TOWERS = ("cls", "box")
TRUNK = "both"
"""The label of the chain that both towers go on from."""

MAX_STEPS = 10_000
"""Most layers of a chain."""

CURRENT_LEVEL = 0
"""The level of a head's layers: that of whichever map they are applied to."""

ATTRIBUTES = {
    **primitives.SECTION,
    "share": Accepts("index", 0, largest=1000),
    "norms": Accepts("word", "shared", ("shared", "level")),
}


def infer_head(
    program: Program,
    fpn: FpnPart | None,
    problems: list[Diagnostic],
    warnings: list[Diagnostic],
    lost: frozenset[str] | None = None,
    indices: Sequence[int] | None = None,
) -> HeadPart | None:
    """The layers of a decoder's head; None where it has none, or one that is not looked at further.

    Args:
        fpn: whose outputs the head's layers receive; None where it is not known.
        warnings, lost, indices: see `infer_fpn`.
    """
    head = program.head
    if head is None:
        return None
    values = section_values(head, ATTRIBUTES, problems, indices)
    widths = pyramid_widths(fpn)
    narrowest = min((w for w in widths.values() if w != UNKNOWN_WIDTH), default=UNKNOWN_WIDTH)
    # Where levels differ, the layers are inferred as for a width that is not known: they are the same at every level.
    pyramid = narrowest if len(set(widths.values())) == 1 else UNKNOWN_WIDTH
    width = values["width"] if isinstance(values["width"], int) else 0
    if width and narrowest and width > narrowest:
        setting = next((s for s in head.settings if s.name == "width"), None)
        known = set(widths.values()) - {UNKNOWN_WIDTH}
        level = "" if len(known) == 1 else next(name for name, w in widths.items() if w == narrowest)
        problems.append(heads.head_wider(setting.span if setting else head.keyword, width, narrowest, level))
    longest = max(head.chains, key=lambda c: len(c.steps), default=None)
    if longest is not None and len(longest.steps) > MAX_STEPS:
        problems.append(structure.chain_too_long(longest.steps[MAX_STEPS].span, MAX_STEPS))
        return None
    words = {name: values[name] for name in primitives.SECTION}
    layers: dict[int, tuple[HeadLayer, ...]] = {}  # one chain for both towers is inferred once
    trunk: Tower | None = None
    towers = []
    for name, chain in _chains(head, problems, lost):
        if chain is None:
            towers.append(Tower(name, ()))
            continue
        if id(chain) not in layers:
            layers[id(chain)], end = _infer_chain(chain, words, pyramid, problems, warnings, indices)
            if name == TRUNK:
                trunk, pyramid = Tower(name, layers[id(chain)]), end
        if name != TRUNK:
            towers.append(Tower(name, layers[id(chain)]))
    share, norms = values["share"], values["norms"]
    most = longest_path(head, indices)
    if isinstance(share, int) and share > most and lost is None:
        setting = next(s for s in head.settings if s.name == "share")
        problems.append(structure.share_beyond(setting.span, share, most))
    return HeadPart(
        width, share if isinstance(share, int) else 0, tuple(towers), head.span, trunk,
        norms if isinstance(norms, str) else "shared",
    )  # fmt: skip


def longest_path(head: HeadProgram, indices: Sequence[int] | None) -> int:
    """The most layers between the pyramid and a prediction: those of the trunk, and of the longer tower."""
    lengths = {chain.label: len(present_steps(chain, indices)) for chain in head.chains}
    return lengths.pop(TRUNK, 0) + max(lengths.values(), default=0)


def pyramid_widths(fpn: FpnPart | None) -> dict[str, int]:
    """Channels of the pyramid's levels by name, `UNKNOWN_WIDTH` where they are not known; empty where the fpn is not."""
    if fpn is None:
        return {}
    return {o.name: UNKNOWN_WIDTH if o.result == UNFIT else fpn.applications[o.result].feature.width for o in fpn.outputs}


def _chains(head: HeadProgram, problems: list[Diagnostic], lost: frozenset[str] | None) -> list[tuple[str, Chain | None]]:
    """The trunk, if there is one, and the towers ``cls`` and ``box`` with their chains, in this order.

    Behind a trunk, a tower may have no layers of its own: None.
    """
    if len(head.chains) == 1 and head.chains[0].label is None:
        return [(name, head.chains[0]) for name in TOWERS]
    found: dict[str, Chain] = {}
    for chain in head.chains:
        label = chain.label or ""
        place = _label(chain)
        if label not in (TRUNK, *TOWERS):
            problems.append(structure.unknown_tower(place, label))
        elif label in found:
            problems.append(structure.second_part(place, label, _label(found[label])))
        else:
            found[label] = chain
    if TRUNK in found:
        return [(name, found.get(name)) for name in (TRUNK, *TOWERS)]
    for name in TOWERS:
        if name not in found and found and lost is None:
            problems.append(structure.missing_tower(head.span.head(len("head")), name))
    return [(name, found[name]) for name in TOWERS if name in found]


def _label(chain: Chain) -> Span:
    return chain.span.head(len(chain.label or ""))


def _infer_chain(
    chain: Chain,
    words: dict[str, Any],
    width: int,
    problems: list[Diagnostic],
    warnings: list[Diagnostic],
    indices: Sequence[int] | None,
) -> tuple[tuple[HeadLayer, ...], int]:
    """The layers of a chain on maps of `width` channels, and how many channels it gives; 0 where that is not known."""
    layers = []
    for step in present_steps(chain, indices):
        inference = Inference(problems, indices)
        if indices is None and step.condition != ALWAYS:  # what is in front of it differs
            width = 0
        op = inference.op_name(step.call)
        inference.layers.own(op, op, "layer", step.span)
        source = inference.layers.source("x", Feature(CURRENT_LEVEL, width), step.span)
        frame = Frame({"x": Binding("x", source, step.span)}, words, None)
        result = inference.something(inference.expand(step.call, frame, "", None), step.span)
        warnings += inference.warnings
        width = 0
        if result != UNFIT:
            feature = inference.layers.applications[result].feature
            if feature.level != CURRENT_LEVEL:
                problems.append(heads.head_level(step.span, op))
            width = feature.width
        layers.append(HeadLayer(op, step.span, tuple(inference.layers.applications), result))
    if indices is None and any(step.condition != ALWAYS for step in chain.steps):
        width = 0
    return tuple(layers), width
