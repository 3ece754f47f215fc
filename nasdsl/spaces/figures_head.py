"""What the head of a filling and its predictions cost, on the levels of a pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from nasdsl.ir.graph import Node
from nasdsl.layers import WITHOUT_WEIGHTS, Conv, DeformConv, Feature, Features, Layer
from nasdsl.semantics import infer_head
from nasdsl.semantics.architecture import Value
from nasdsl.semantics.conditions import ALWAYS
from nasdsl.semantics.infer_prediction import infer_settings
from nasdsl.semantics.program import HeadProgram, PredictProgram, Slot, Step, Target, chosen, find_slot, present_steps
from nasdsl.spaces.figures_ops import WORDS, OpCounter, Unbuildable, params_of, section_words, word_of

LevelWidths: TypeAlias = tuple[tuple[tuple[int, ...], int], ...]
"""Channels of the maps in a head, once for all levels that have so many."""


class HeadCounter:
    """Counts heads of fillings with their predictions.

    Args:
        ops: what their layers cost.
        head, predict: of the space.
        classes: number of them that are predicted.
    """

    def __init__(self, ops: OpCounter, head: HeadProgram, predict: PredictProgram, classes: int) -> None:
        self.ops = ops
        self.classes = classes
        self._head, self._predict = head, predict
        self._has_turns = any(s.condition != ALWAYS for c in head.chains for s in c.steps)
        self._is_fixed = not self._has_turns and not _has_slots(head, predict)
        self._counted: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}  # by pyramid, where all fillings have one head

    def count(self, indices: Sequence[int], levels: list[int], widths: list[int]) -> int:
        """What a head costs on a pyramid of these levels and widths, the predictions included.

        Raises:
            Unbuildable: there is no such head.
        """
        if not self._is_fixed:
            return self._count_head(self._head, self._predict, indices, levels, widths)
        pyramid = tuple(levels), tuple(widths)
        if pyramid not in self._counted:
            self._counted[pyramid] = self._count_head(self._head, self._predict, indices, levels, widths)
        return self._counted[pyramid]

    def _count_head(
        self, head: HeadProgram, predict: PredictProgram, indices: Sequence[int], levels: list[int], widths: list[int]
    ) -> int:
        words = section_words(head, (*WORDS, "share", "norms"), infer_head.ATTRIBUTES, indices)
        share, norms_per_level = words.pop("share"), words.pop("norms") == "level"
        if words["width"] > min(widths):
            raise Unbuildable
        key = tuple(words.items())
        total = 0
        if share > infer_head.longest_path(head, indices):
            raise Unbuildable
        steps_of = {c.label: present_steps(c, indices) if self._has_turns else c.steps for c in head.chains}
        trunk = steps_of.pop(infer_head.TRUNK, None)
        start = _levels_of_widths(levels, widths)
        if trunk is not None:
            start, total = self._count_chain(trunk, key, share, norms_per_level, indices, start)
            share -= len(trunk)
        ends = dict.fromkeys(infer_head.TOWERS, start)
        for label, steps in steps_of.items():
            end, price = self._count_chain(steps, key, share, norms_per_level, indices, start)
            for name in (label,) if label else infer_head.TOWERS:
                ends[name] = end
                total += price
        return total + self._count_predictions(predict, indices, words["width"], ends)

    def _count_chain(
        self, steps: tuple[Step, ...], key: tuple[Any, ...], share: int, norms_per_level: bool, indices: Sequence[int],
        widths: LevelWidths,
    ) -> tuple[LevelWidths, int]:  # fmt: skip
        """Width of what a chain gives at each level, and its cost."""
        total = 0
        for place, step in enumerate(steps):
            target: Any = chosen(step.call.target, indices)
            settings = target.settings + step.call.settings
            given = tuple((s.name, word_of(s.value, dict(key), indices)) for s in settings)
            of_level = norms_per_level and place >= share
            following: list[tuple[tuple[int, ...], int]] = []
            for levels, width in widths:
                operands = (Feature(infer_head.CURRENT_LEVEL, width),)
                if len(widths) > 1 and place >= share and self._has_weights(target, given, operands, key, indices):
                    raise Unbuildable
                out, _, price = self.ops.apply(target, given, operands, key, levels, indices, norms_per_level=of_level)
                if out.level != infer_head.CURRENT_LEVEL or type(out) is Features:
                    raise Unbuildable
                params = params_of(price)
                total += price + (params * (len(levels) - 1) if place < share else 0)
                following.append((levels, out.width))
            widths = (
                tuple(following) if len(following) == 1 else _levels_of_widths(*zip(*sorted(_by_level(following)), strict=True))
            )
        return widths, total

    def _has_weights(
        self,
        target: Target,
        settings: tuple[Any, ...],
        operands: tuple[Feature, ...],
        key: tuple[Any, ...],
        indices: Sequence[int],
    ) -> bool:
        """Whether an op has layers with weights."""
        found = self.ops.lower_op(target, settings, operands, dict(key), indices)
        if found is None:
            raise Unbuildable
        return not all(isinstance(node.layer, WITHOUT_WEIGHTS) for node in found.live)

    def _count_predictions(
        self, node: PredictProgram, indices: Sequence[int], section_width: int, ends: dict[str, LevelWidths]
    ) -> int:
        settings = infer_settings(node, [], indices)
        if settings is None:
            raise Unbuildable
        conv: Any = chosen(node.conv, indices)
        if conv is not None and any(s.name == "kernel" for s in node.settings):
            raise Unbuildable
        are_alike = len({tuple(sorted(_by_level(widths))) for widths in ends.values()}) == 1
        total = 0
        for name, tower, per_class, fixed in settings.kind.maps():
            channels = per_class * self.classes + fixed
            widths = ends[tower]
            if settings.share and len(widths) > 1:
                raise Unbuildable
            for levels, width in widths:
                if name == "bbox_reg" and settings.kind.box_form != "raw":
                    total += len(levels)  # one scale a level
                word = width if len(widths) == 1 else section_width  # that of a block is one, whatever comes in
                price = self._count_prediction(conv, settings.kernel, width, word, channels, are_alike, levels, indices)
                params = params_of(price)
                total += price + (0 if settings.share else params * (len(levels) - 1))
        return total

    def _count_prediction(
        self,
        conv: Target | None,
        kernel: int,
        width: int,
        word: int,
        channels: int,
        are_alike: bool,
        levels: tuple[int, ...],
        indices: Sequence[int],
    ) -> int:
        """Cost of one predicted map at levels of one width, with the parameters of one level.

        Args:
            width: channels of its tower; `word`: what ``width`` means in the body of `conv`.
            are_alike: whether all towers have one width at a level.
        """
        x, out = Feature(infer_head.CURRENT_LEVEL, width), Feature(infer_head.CURRENT_LEVEL, channels)
        layer: Layer = Conv(channels, kernel, bias=True)
        total = 0
        if conv is not None:
            words = (("width", word), ("norm", "none"), ("act", "none"))
            inferred = self.ops.lower_op(conv, (), (x,), dict(words), indices)
            if inferred is None:
                raise Unbuildable
            live, last, is_tied, number = inferred
            if (
                last is None
                or is_tied
                or not isinstance(last.layer, Conv | DeformConv)
                or last.layer.groups != 1
                or last.out.level != x.level
            ):
                raise Unbuildable
            if number > 2 and not are_alike:  # one of them is the input
                raise Unbuildable
            x, layer = last.operands[0], replace(last.layer, width=channels, bias=True)
            total = sum(self.ops.price(node, levels) for node in live if node is not last)
        value = Value("prediction", "conv", "layer", self.ops.span)
        return total + self.ops.price(Node("conv", layer, ("x",), (x,), out, value, self.ops.span), levels)


def _levels_of_widths(levels: Sequence[int], widths: Sequence[int]) -> LevelWidths:
    """Maps with these levels and widths, those of one width together."""
    found: dict[int, list[int]] = {}
    for level, width in zip(levels, widths, strict=True):
        found.setdefault(width, []).append(level)
    return tuple((tuple(of_width), width) for width, of_width in found.items())


def _by_level(widths: Sequence[tuple[tuple[int, ...], int]]) -> list[tuple[int, int]]:
    """Level and width of each map."""
    return [(level, width) for levels, width in widths for level in levels]


def _has_slots(head: HeadProgram, predict: PredictProgram) -> bool:
    """Whether an attribute or a layer behind the pyramid differs between fillings."""
    if any(find_slot(s.value) for s in (*head.settings, *predict.settings)):
        return True
    if type(predict.conv) is Slot or getattr(getattr(predict.conv, "callee", None), "has_slots", False):
        return True
    calls = [s.call for c in head.chains for s in c.steps]
    return any(
        type(c.target) is Slot or c.has_slots or getattr(getattr(c.target, "callee", None), "has_slots", False) for c in calls
    )
