"""What the fpn of a filling costs: the values of its statements in order, and of those the ones that outputs depend on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from nasdsl.backbones import Backbone
from nasdsl.layers import Feature, Features
from nasdsl.semantics import infer_fpn
from nasdsl.semantics.conditions import holds
from nasdsl.semantics.program import Assign, Merge, Output, Program, Ref, SetWord, Shared, Statement, When, chosen
from nasdsl.spaces.figures_body import BodyCounter, something
from nasdsl.spaces.figures_ops import NOTHING_FEATURE, WORDS, OpCounter, Unbuildable, Words, section_words


class PyramidFigures(NamedTuple):
    """What an fpn gives.

    Attributes:
        cost: of what its outputs depend on.
        dangling: number of dangling blocks.
        levels, widths: of its outputs.
    """

    cost: int
    dangling: int
    levels: list[int]
    widths: list[int]


def count_fpn(ops: OpCounter, program: Program, backbone: Backbone, indices: Sequence[int]) -> PyramidFigures:
    """The figures of an fpn.

    Raises:
        Unbuildable: there is no such fpn.
    """
    fpn = program.fpn
    assert fpn is not None
    words = section_words(fpn, WORDS, infer_fpn.ATTRIBUTES, indices)
    section = _FpnCounter(ops, words, indices)
    adapter: Any = chosen(fpn.adapter, indices)
    for name, level, _ in program.inputs:
        if name not in backbone.out_channels:
            raise Unbuildable
        raw = section.add((Feature(level, backbone.out_channels[name]), 0, 0))
        section.names[name] = raw
        if adapter is not None:
            out, used, price = ops.apply(adapter, (), (section.values[raw][0],), section.key, (), indices)
            if type(out) is Features:
                raise Unbuildable
            section.names[name] = section.add(something((out, 1 << raw if used else 0, price)))
    section.run(fpn.statements)
    return section.finish()


class _FpnCounter(BodyCounter):
    """Values of one fpn while it is counted.

    Attributes:
        outputs: their values, by name.
        blocks, kept: values of the statements, outputs; one bit each.
        merges: of each merge the value that is added to, and the blocks bound before.
    """

    __slots__ = ("blocks", "kept", "merges", "outputs")

    def __init__(self, ops: OpCounter, words: Words, indices: Sequence[int]) -> None:
        super().__init__(ops, words, indices)
        self.outputs: dict[str, int] = {}
        self.merges: list[tuple[int, int]] = []
        self.blocks = self.kept = 0

    def run(self, statements: tuple[Statement, ...]) -> None:
        names, values, expression = self.names, self.values, self.expression
        for statement in statements:
            if type(statement) is Assign:
                targets = statement.targets
                if len(targets) == 1:  # what most statements are, without a list of one
                    value = expression(statement.value)
                    if value[0] is NOTHING_FEATURE:
                        raise Unbuildable
                    index = len(values)
                    values.append(value)
                    self.blocks |= 1 << index
                    names[targets[0].name] = index  # type: ignore[union-attr]  # it has checked
                else:
                    for name, index in self.assign(statement):
                        self.blocks |= 1 << index
                        names[name] = index
            elif type(statement) is Output:
                self._output(statement)
            elif type(statement) is Merge:
                for target in statement.targets:
                    self._merge(chosen(target, self.indices).name)
            elif type(statement) is SetWord:
                self.set_word(statement)
            elif type(statement) is Shared:
                self.share(statement, 0)
            elif type(statement) is When and holds(statement.condition, self.indices):
                self.run(statement.statements)

    def _output(self, statement: Output) -> None:
        value: Any = chosen(statement.value, self.indices)
        before = self.read
        found = self.expression(value)
        if type(value) is Ref:  # naming a value as output is no reading of it
            self.read = before
            self.kept |= found[1]
        if found[0].level is None:
            raise Unbuildable
        source = self.add(found)
        index = self.add((Feature(statement.level, found[0].width), 1 << source, 0))
        self.names[statement.name] = self.outputs[statement.name] = index

    def _merge(self, name: str) -> None:
        """What dangles is added to an output, or to a value, which from here on means the sum."""
        at = self.names[name]
        self.kept |= 1 << at
        if self.outputs.get(name) == at:
            self.merges.append((at, self.blocks))
            return
        added = self.add((self.values[at][0], 1 << at, 0))
        self.kept |= 1 << added
        self.names[name] = added
        self.merges.append((added, self.blocks))

    def finish(self) -> PyramidFigures:
        """What the outputs depend on, and what dangles."""
        values = self.values
        dangling = self.blocks & ~self.read & ~self.kept
        merged: dict[int, int] = {}
        for target, before in self.merges:
            extra = dangling & before
            merged[target] = merged.get(target, 0) | extra
            for index in _bits(extra):
                if values[index][0].width != values[target][0].width:
                    raise Unbuildable
        if not self.outputs:
            raise Unbuildable
        widths = [values[o][0].width for o in self.outputs.values()]
        first = min(self.outputs.values())  # what comes before every output cannot read one
        for target, extra in merged.items():
            if any(index > first and self._reaches(index, target, merged) for index in _bits(extra)):
                raise Unbuildable
        total, seen = 0, 0
        params: dict[str, int] = {}
        waiting = list(self.outputs.values())
        while waiting:
            index = waiting.pop()
            if seen >> index & 1:
                continue
            seen |= 1 << index
            total += values[index][2]
            if index in self.tied:
                params.update((self.tied[index],))
            waiting += _bits((values[index][1] | merged.get(index, 0)) & ~seen)
        levels = [values[o][0].level or 0 for o in self.outputs.values()]
        return PyramidFigures(total + sum(params.values()), dangling.bit_count(), levels, widths)

    def _reaches(self, start: int, goal: int, merged: dict[int, int]) -> bool:
        """Whether one value depends on another."""
        waiting, seen = [start], 1 << start
        while waiting:
            index = waiting.pop()
            if index == goal:
                return True
            following = (self.values[index][1] | merged.get(index, 0)) & ~seen
            seen |= following
            waiting += _bits(following)
        return False


def _bits(mask: int) -> list[int]:
    """Places of the bits of a mask."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found
