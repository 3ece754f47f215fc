"""What a filling costs, in microseconds: for `require`, and for searches that weigh costs.

The figures are those of the whole pipeline, to the last digit (the tests hold both against each other). They come quickly
because an op applied to features of given levels and widths always costs the same: each such application is expanded and
counted once, by the pipeline's own expander and cost rules, and remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from nasdsl.backbones import Backbone
from nasdsl.backends.cost import Areas
from nasdsl.backends.requirements import Quantities, macs_sizes, measure
from nasdsl.decoder import loads
from nasdsl.diagnostics import Diagnostic, DiagnosticError, Span
from nasdsl.ir import MissingFeature
from nasdsl.ir.lower import lower_nodes, predictions
from nasdsl.layers import Feature
from nasdsl.semantics.architecture import Fcos, Retinanet
from nasdsl.semantics.assembly import UNFIT
from nasdsl.semantics.attributes import evaluate
from nasdsl.semantics.definitions import check_definitions
from nasdsl.semantics.expand import Binding, Expander
from nasdsl.semantics.fill import called, chosen, fill, filled
from nasdsl.semantics.head import HERE
from nasdsl.semantics.template import Slot, Template, walk
from nasdsl.semantics.vocabulary import Vocabulary, define, prelude
from nasdsl.syntax import ast
from nasdsl.syntax.printer import print_file

_Value: TypeAlias = tuple[Feature, int, int]
"""A value of the fpn: what it is, which values it reads (one bit each), and what computing it costs."""


class _Unbuildable(Exception):
    """A layer cannot take its operands, so there is no decoder."""


class Meter:
    """Counts fillings of a template.

    Costs travel as one integer: parameters in the lowest 64 bits, above them 64 bits for the MACs at each size, so that
    one addition adds them all.
    """

    def __init__(self, template: Template, backbone: Backbone, classes: int) -> None:
        self.template = template
        self.backbone = backbone
        self.classes = classes
        self.sizes = macs_sizes(template.requirements)
        self._areas = [Areas(size) for size in self.sizes]
        self.applied: dict[tuple[Any, ...], tuple[Feature, int, int] | None] = {}
        self._spanless = template.decoder.span
        self._vocabulary = Vocabulary(prelude())
        file = ast.File(self._spanless, tuple(d for d, _ in template.definitions))
        problems: list[Diagnostic] = []
        define(file, self._vocabulary, problems)
        check_definitions(self._vocabulary, problems, frozenset())
        head = next(i for i in template.decoder.items if isinstance(i, ast.Head))
        predict = next(i for i in template.decoder.items if isinstance(i, ast.Predict))
        self._lets = [i for i in template.decoder.items if isinstance(i, ast.Let)]
        self._head_is_fixed = not any(isinstance(n, Slot) for part in (head, predict, *self._lets) for n in walk(part))
        self._heads: dict[tuple[tuple[int, ...], int], int] = {}
        self.is_direct = _is_direct(template)
        """Whether fillings are counted directly; decoders with blocks of several results take the whole pipeline."""

    def figures(self, indices: Sequence[int]) -> Quantities | None:
        """The figures of a filling, or None where it cannot be built."""
        if not self.is_direct:
            return self._through_the_pipeline(indices)
        try:
            return self._count(indices)
        except _Unbuildable:
            return None

    def _through_the_pipeline(self, indices: Sequence[int]) -> Quantities | None:
        text = print_file(fill(self.template, indices), one_line=True)
        try:
            decoder = loads(text)
            graph = decoder.lower(self.backbone.out_channels)
        except (DiagnosticError, MissingFeature):
            return None
        return measure(graph, self.sizes, self.classes, decoder.architecture.fpn.dangling)

    # ------------------------------------------------------------------------------------------ counting

    def _count(self, indices: Sequence[int]) -> Quantities:
        lets: dict[str, Any] = {}
        total = 0
        dangling = 0
        levels: list[int] = []
        width = 0
        predict: ast.Predict | None = None
        for let in self._lets:
            lets[let.name] = self._word(let.value, lets, indices)
        for item in self.template.decoder.items:
            if isinstance(item, ast.Fpn):
                total, dangling, levels, width = self._fpn(item, lets, indices)
            elif isinstance(item, ast.Predict):
                predict = item
        head = next(i for i in self.template.decoder.items if isinstance(i, ast.Head))
        assert predict is not None
        if not self._head_is_fixed:
            total += self._head(head, predict, lets, indices, levels, width)
        else:
            pyramid = tuple(levels), width
            if pyramid not in self._heads:
                self._heads[pyramid] = self._head(head, predict, lets, indices, levels, width)
            total += self._heads[pyramid]
        mask = (1 << 64) - 1
        macs = {size: total >> (64 * (i + 1)) & mask for i, size in enumerate(self.sizes)}
        return Quantities(macs, total & mask, dangling)

    def _fpn(self, node: ast.Fpn, lets: dict[str, Any], indices: Sequence[int]) -> tuple[int, int, list[int], int]:
        """Cost of the live part, number of dangling blocks, levels of the pyramid and its width."""
        words = dict(lets)
        adapter = "conv_1x1"
        for setting in node.settings:
            value = self._word(setting.value, lets, indices)
            if setting.name == "adapter":
                adapter = value
            else:
                words[setting.name] = value
        words = {"norm": "none", "act": "relu", **words}
        section = _Section(self, words, indices)
        for name in self.template.inputs:
            if name not in self.backbone.out_channels:
                raise _Unbuildable
            raw = section.add((Feature(int(name[1:]), self.backbone.out_channels[name]), 0, 0))
            section.names[name] = raw
            if adapter != "none":
                out, used, price = self.apply(adapter, (), (section.values[raw][0],), section.key)
                section.names[name] = section.add((out, 1 << raw if used else 0, price))
        for statement in node.body:
            section.run(statement)
        return section.finish()

    def _head(
        self,
        node: ast.Head,
        predict: ast.Predict,
        lets: dict[str, Any],
        indices: Sequence[int],
        levels: list[int],
        pyramid: int,
    ) -> int:
        words = {"norm": "none", "act": "relu", **lets}
        share = 0
        for setting in node.settings:
            value = self._word(setting.value, lets, indices)
            if setting.name == "share":
                share = value
            else:
                words[setting.name] = value
        if words["width"] > pyramid or share > max(len(t.steps) for t in node.towers):
            raise _Unbuildable
        key = tuple(sorted(words.items()))
        total = 0
        ends = {}
        for tower in node.towers:
            width, price = self._tower(tower, key, share, indices, levels, pyramid)
            for label in (tower.label,) if tower.label else ("cls", "box"):
                ends[label] = width
                total += price
        return total + self._predictions(predict, lets, indices, levels, ends)

    def _tower(
        self, tower: ast.Tower, key: tuple[Any, ...], share: int, indices: Sequence[int], levels: list[int], width: int
    ) -> tuple[int, int]:
        total = 0
        for place, step in enumerate(tower.steps):
            name, extra = called(step.operation, indices)
            settings = extra + step.settings
            given = self._settings(settings, dict(key), indices)
            out, _, price = self.apply(name, given, (Feature(HERE, width),), key, tuple(levels))
            if out.level != HERE:
                raise _Unbuildable
            params = price & ((1 << 64) - 1)
            total += price + (params * (len(levels) - 1) if place < share else 0)
            width = out.width
        return width, total

    def _predictions(
        self, node: ast.Predict, lets: dict[str, Any], indices: Sequence[int], levels: list[int], ends: dict[str, int]
    ) -> int:
        values = {s.name: self._word(s.value, lets, indices) for s in node.settings}
        predict = Fcos(**{"centerness": "cls", **values}) if node.detector == "fcos" else Retinanet(values.get("anchors", 9))
        total = len(levels) if isinstance(predict, Fcos) else 0  # one scale a level
        for prediction in predictions(predict, ends):
            channels = prediction.channels(self.classes)
            macs = prediction.width * 9 * channels
            total += macs + channels
            for place, areas in enumerate(self._areas):
                total += macs * sum(areas.area(level) for level in levels) << (64 * (place + 1))
        return total

    def _word(self, value: Any, words: dict[str, Any], indices: Sequence[int]) -> Any:
        value = chosen(value, indices)
        if isinstance(value, ast.Reference):
            return words.get(value.name, value.name)
        found = evaluate(filled(value, indices), words, [])
        if isinstance(found, str | int | float):
            return found
        raise _Unbuildable

    def _settings(self, settings: tuple[ast.Setting, ...], words: dict[str, Any], indices: Sequence[int]) -> tuple[Any, ...]:
        """Attributes of a call as (name, value), slots and words resolved."""
        return tuple((s.name, self._word(s.value, words, indices)) for s in settings) if settings else ()

    def apply(
        self,
        name: str,
        settings: tuple[tuple[str, Any], ...],
        operands: tuple[Feature, ...],
        key: tuple[tuple[str, Any], ...],
        levels: tuple[int, ...] = (),
    ) -> tuple[Feature, int, int]:
        """Result, operands that it depends on (one bit each) and cost of an op; in a head, over all `levels`."""
        at = (name, settings, operands, key, levels)
        try:
            found = self.applied[at]
        except KeyError:
            found = self.applied[at] = self._expand(name, settings, operands, dict(key), levels)
        if found is None:
            raise _Unbuildable
        return found

    def _expand(
        self,
        name: str,
        settings: tuple[tuple[str, Any], ...],
        operands: tuple[Feature, ...],
        words: dict[str, Any],
        levels: tuple[int, ...],
    ) -> tuple[Feature, int, int] | None:
        """Expand an op on features of these levels and widths, and count what its result depends on."""
        span = self._spanless
        problems: list[Diagnostic] = []
        expander = Expander(problems)
        expander.own("v", name, "block", span)
        scope = {}
        for number, feature in enumerate(operands):
            scope[f"o{number}"] = Binding(f"o{number}", expander.source(f"o{number}", feature, span), span)
        given = tuple(ast.Setting(span, n, span, _literal(v, span)) for n, v in settings)
        call = ast.Call(span, name, span, tuple(ast.Reference(span, n) for n in scope), given)
        result = expander.expand(call, scope, words, self._vocabulary, "v")
        if result == UNFIT or any(p.severity == "error" for p in problems):
            return None
        widths = {f"o{number}": feature.width for number, feature in enumerate(operands)}
        try:
            nodes, place = lower_nodes(expander.applications, expander.values, widths)
        except DiagnosticError:
            return None
        live = {place[result]}
        total = 0
        for node in reversed(nodes):
            if node.id not in live:
                continue
            live.update(node.inputs)
            for at, areas in enumerate(self._areas):
                area = areas.area(node.out.level) if not levels else _head_area(areas, levels, node.out.level)
                price = node.layer.cost(node.operands, node.out, area)
                total += (price.macs << (64 * (at + 1))) + (price.params if at == 0 else 0)
        used = sum(1 << number for number in range(len(operands)) if place[scope[f"o{number}"].index] in live)
        out = next(node.out for node in nodes if node.id == place[result])
        return out, used, total


class _Section:
    """Values of one fpn while it is counted."""

    __slots__ = (
        "applied",
        "blocks",
        "indices",
        "kept",
        "key",
        "merges",
        "meter",
        "names",
        "outputs",
        "read",
        "values",
        "words",
    )

    def __init__(self, meter: Meter, words: dict[str, Any], indices: Sequence[int]) -> None:
        self.meter = meter
        self.applied = meter.applied
        self.words = words
        self.indices = indices
        self.key = tuple(sorted(words.items()))
        self.values: list[_Value] = []
        self.names: dict[str, int] = {}
        self.outputs: dict[str, int] = {}
        self.merges: list[tuple[int, int]] = []  # output, blocks bound before
        self.blocks = self.read = self.kept = 0

    def add(self, value: _Value) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def run(self, statement: ast.Statement) -> None:
        if isinstance(statement, ast.Assign):
            index = self.add(self.expression(statement.value))
            self.blocks |= 1 << index
            self.names[statement.targets[0].name] = index
        elif isinstance(statement, ast.Output):
            for binding in statement.bindings:
                self.output(binding)
        elif isinstance(statement, ast.Merge):
            self.merges += [(self.outputs[t.name], self.blocks) for t in statement.targets]
        elif isinstance(statement, ast.Let):
            self.words[statement.name] = self.meter._word(statement.value, self.words, self.indices)
            self.key = tuple(sorted(self.words.items()))

    def output(self, binding: ast.OutputBinding) -> None:
        value = chosen(binding.value, self.indices)
        before = self.read
        found = self.expression(value)
        if isinstance(value, ast.Reference):  # naming a value as output is no reading of it
            self.read = before
            self.kept |= found[1]
        if found[0].level is None:
            raise _Unbuildable
        source = self.add(found)
        feature = Feature(int(binding.name[1:]), found[0].width)
        index = self.add((feature, 1 << source, 0))
        self.names[binding.name] = self.outputs[binding.name] = index

    def expression(self, node: Any) -> _Value:
        """Level, width, reads and cost of an expression. Called for every operand of every sample, so it spells out what
        `chosen` and `called` would do."""
        indices = self.indices
        while type(node) is Slot:
            node = node.alternatives[indices[node.number]]
        if type(node) is ast.Reference:
            name = node.name if node.name in self.names else str(self.words.get(node.name))  # let k = c3
            index = self.names[name]
            self.read |= 1 << index
            return self.values[index][0], 1 << index, 0
        callee: Any = node.callee
        while type(callee) is Slot:
            callee = callee.alternatives[indices[callee.number]]
        settings = node.settings
        if type(callee) is ast.Reference:
            callee = callee.name
        elif type(callee) is ast.Call:
            callee, settings = callee.callee, callee.settings + settings
        operands = [self.expression(o) for o in node.operands]
        given = self.settings(settings) if settings else ()
        at = (callee, given, tuple([o[0] for o in operands]), self.key, ())
        found = self.applied.get(at)
        out, used, total = self.meter.apply(*at) if found is None else found
        reads = 0
        for operand in operands:
            if used & 1:
                reads |= operand[1]
                total += operand[2]
            used >>= 1
        return out, reads, total

    def settings(self, settings: tuple[ast.Setting, ...]) -> tuple[tuple[str, Any], ...]:
        """Attributes of a call; a value that ``to=`` names becomes its level."""
        made = []
        for setting in settings:
            value = chosen(setting.value, self.indices)
            if setting.name == "to" and isinstance(value, ast.Reference) and value.name in self.names:
                level = self.values[self.names[value.name]][0].level
                if level is None:
                    raise _Unbuildable
                made.append(("to", level))
            else:
                made.append((setting.name, self.meter._word(value, self.words, self.indices)))
        return tuple(made)

    def finish(self) -> tuple[int, int, list[int], int]:
        """Cost of what the outputs depend on, number of dangling blocks, levels, width of the pyramid."""
        values = self.values
        dangling = self.blocks & ~self.read & ~self.kept
        merged: dict[int, int] = {}
        for output, before in self.merges:
            extra = dangling & before
            merged[output] = merged.get(output, 0) | extra
            for index in _bits(extra):
                if values[index][0].width != values[output][0].width:
                    raise _Unbuildable
        if not self.outputs:
            raise _Unbuildable
        widths = {values[o][0].width for o in self.outputs.values()}
        if len(widths) > 1:
            raise _Unbuildable
        total, seen = 0, 0
        waiting = list(self.outputs.values())
        while waiting:
            index = waiting.pop()
            if seen >> index & 1:
                continue
            seen |= 1 << index
            total += values[index][2]
            waiting += _bits((values[index][1] | merged.get(index, 0)) & ~seen)
        levels = [values[o][0].level or 0 for o in self.outputs.values()]
        return total, dangling.bit_count(), levels, widths.pop()


def _bits(mask: int) -> list[int]:
    """Places of the bits of a mask."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found


def _head_area(areas: Areas, levels: tuple[int, ...], level: int | None) -> int:
    return len(levels) if level is None else sum(areas.area(k) for k in levels)


def _literal(value: Any, span: Span) -> ast.Attribute:
    return ast.Reference(span, value) if isinstance(value, str) else ast.Number(span, value, str(value))


def _is_direct(template: Template) -> bool:
    """Whether every statement of the fpn is of a kind that `_Section` counts."""
    for definition, _ in template.definitions:
        if any(isinstance(n, Slot) for n in walk(definition)):
            return False
    fpn = next(i for i in template.decoder.items if isinstance(i, ast.Fpn))
    outputs: set[str] = set()
    for statement in fpn.body:
        if isinstance(statement, ast.Repeat) or (isinstance(statement, ast.Assign) and len(statement.targets) > 1):
            return False
        if isinstance(statement, ast.Output):
            outputs |= {b.name for b in statement.bindings}
        if isinstance(statement, ast.Merge) and not {t.name for t in statement.targets} <= outputs:
            return False
    return True
