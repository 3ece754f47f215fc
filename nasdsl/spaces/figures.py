"""What a filling costs, in microseconds: for `require`, and for searches that weigh costs.

The figures are those of the whole pipeline, to the last digit (the tests hold both against each other). They come quickly
because an op applied to features of given levels and widths always costs the same: each such application is inferred and
counted once, by the pipeline's own rules, and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nasdsl.backbones import Backbone
from nasdsl.backbones import backbone as find_backbone
from nasdsl.backends.requirements import DEFAULT_SIZE, Quantities, counted_ops, macs_sizes
from nasdsl.semantics import attributes
from nasdsl.semantics.calls import CallCounter
from nasdsl.semantics.program import Program, Slot, chosen, possible_values
from nasdsl.spaces.figures_fpn import count_fpn
from nasdsl.spaces.figures_head import HeadCounter
from nasdsl.spaces.figures_ops import OpCounter, Unbuildable, macs_of, params_of, word_of
from nasdsl.syntax import ast


class FigureCounter:
    """Counts the figures of fillings of a space.

    Args:
        program: of the space.
        backbone, classes: what the decoders are counted for; the backbone where the text names none.
        sizes: of images that multiply-accumulates are counted for. None: those that the requirements name.
    """

    def __init__(
        self, program: Program, backbone: Backbone, classes: int, sizes: Sequence[tuple[int, int]] | None = None
    ) -> None:
        assert program.fpn is not None
        assert program.head is not None
        assert program.predict is not None
        self.program = program
        self.backbone = backbone
        detector = {} if program.detector is None else {s.name: s.value for s in program.detector.settings}
        self._own_size, self._own_backbone = detector.get("size"), detector.get("backbone")
        own: list[tuple[int, int] | None] = [(s[0], s[1]) for s in possible_words(self._own_size)] or [None]
        self._sizes_of = {o: macs_sizes(program.requirements, o) if sizes is None else tuple(sizes) for o in own}
        self.sizes = tuple(dict.fromkeys(size for each in self._sizes_of.values() for size in each))
        self._ops = OpCounter(program.span, self.sizes)
        self._head = HeadCounter(self._ops, program.head, program.predict, classes)
        counted = counted_ops(program.requirements)
        self._calls = CallCounter(program, counted) if counted else None

    def figures(self, indices: Sequence[int]) -> Quantities | None:
        """The figures of a filling, or None where it cannot be built."""
        try:
            return self._count(indices)
        except Unbuildable:
            return None

    def size(self, indices: Sequence[int]) -> tuple[int, int] | None:
        """Height and width of the images of a filling's detector; None where its text names none."""
        if self._own_size is None:
            return None
        height, width = word_of(self._own_size, {}, indices)
        return height, width

    def backbone_of(self, indices: Sequence[int]) -> Backbone:
        """The backbone of a filling's detector."""
        return self.backbone if self._own_backbone is None else find_backbone(word_of(self._own_backbone, {}, indices))

    def _count(self, indices: Sequence[int]) -> Quantities:
        for word in self.program.words:
            if isinstance(word.value, Slot) and isinstance(chosen(word.value, indices), ast.Call):
                raise Unbuildable  # `let k = conv(k=3)` is no text
        own = self.size(indices)
        pyramid = count_fpn(self._ops, self.program, self.backbone_of(indices), indices)
        total = pyramid.cost + self._head.count(indices, pyramid.levels, pyramid.widths)
        wanted = self._sizes_of[own]
        macs = {size: macs_of(total, at) for at, size in enumerate(self.sizes) if size in wanted}
        calls = {} if self._calls is None else self._calls.count(indices)
        return Quantities(macs, params_of(total), pyramid.dangling, own or DEFAULT_SIZE, calls)


def possible_words(value: Any) -> list[Any]:
    """What the value of an attribute of ``detector`` may be in a filling; nothing for one that is not set."""
    return [] if value is None else list(dict.fromkeys(attributes.evaluate(v, {}, []) for v in possible_values(value)))
