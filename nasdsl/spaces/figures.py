"""What a filling costs, in microseconds: for `require`, and for searches that weigh costs.

The figures are those of the whole pipeline, to the last digit (the tests hold both against each other). They come quickly
because an op applied to features of given levels and widths always costs the same: each such application is inferred and
counted once, by the pipeline's own rules, and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from nasdsl.backbones import Backbone
from nasdsl.backbones import backbone as find_backbone
from nasdsl.backends.cost import Areas, HeadAreas
from nasdsl.backends.requirements import DEFAULT_SIZE, Quantities, counted_ops, macs_sizes
from nasdsl.diagnostics import Diagnostic, DiagnosticError
from nasdsl.ir.graph import Node
from nasdsl.ir.lower import lower_nodes
from nasdsl.layers import WITHOUT_WEIGHTS, Conv, DeformConv, Feature, Features, Layer, Norm, layer_cost
from nasdsl.semantics import attributes, infer_fpn, infer_head, primitives
from nasdsl.semantics.architecture import Value
from nasdsl.semantics.attributes import Accepts, Unknown
from nasdsl.semantics.builder import NOTHING, UNFIT
from nasdsl.semantics.calls import CallCounter
from nasdsl.semantics.conditions import ALWAYS, holds
from nasdsl.semantics.distinct import has_same_operands
from nasdsl.semantics.elaborate_body import body_of_block
from nasdsl.semantics.infer import Binding, Frame, Inference
from nasdsl.semantics.infer_prediction import infer_settings
from nasdsl.semantics.primitives import Primitive
from nasdsl.semantics.program import (
    Assign,
    Call,
    FpnProgram,
    HeadProgram,
    Merge,
    Nothing,
    Output,
    PredictProgram,
    Program,
    Ref,
    SetWord,
    Shared,
    Slot,
    Statement,
    Step,
    Target,
    When,
    chosen,
    fill_value,
    find_slot,
    possible_values,
    present_steps,
    section_values,
)
from nasdsl.semantics.shared_weights import Shape, WeightSet, add_shape
from nasdsl.semantics.signature import accepted
from nasdsl.semantics.vocabulary import Block, Definition, Op, Vocabulary
from nasdsl.syntax import ast

_Value: TypeAlias = tuple[Feature, int, int]
"""A value of the fpn: level and width, which values it reads (one bit each), and what computing it costs."""

_Widths: TypeAlias = tuple[tuple[tuple[int, ...], int], ...]
"""Channels of the maps in a head, once for all levels that have so many."""

_Words: TypeAlias = dict[str, Any]
_WORDS = tuple(primitives.SECTION)
_NONE = primitives.PRIMITIVES[primitives.NONE]


_NOTHING_FEATURE = Feature(None, -1)
"""The feature of an operand that is left out."""

_NOTHING: _Value = (_NOTHING_FEATURE, 0, 0)


class _Unbuildable(Exception):
    """A layer cannot take its operands, so there is no decoder."""


class FigureCounter:
    """Counts the figures of fillings of a space.

    Costs travel as one integer: parameters in the lowest 64 bits, above them 64 bits for the MACs at each size, so that
    one addition adds them all.

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
        self.classes = classes
        detector = {} if program.detector is None else {s.name: s.value for s in program.detector.settings}
        self._own_size, self._own_backbone = detector.get("size"), detector.get("backbone")
        own: list[tuple[int, int] | None] = [(s[0], s[1]) for s in possible_words(self._own_size)] or [None]
        self._sizes_of = {o: macs_sizes(program.requirements, o) if sizes is None else tuple(sizes) for o in own}
        self.sizes = tuple(dict.fromkeys(size for each in self._sizes_of.values() for size in each))
        self.areas = [Areas(size) for size in self.sizes]
        self.applied: dict[tuple[Any, ...], tuple[Feature, int, int] | None] = {}
        self.sound: set[tuple[Any, ...]] = set()  # `shared` ops, with words, whose bodies have no mistakes
        self.expanded: dict[tuple[Any, ...], _SharedCall] = {}
        self._fpn, self._head, self._predict = program.fpn, program.head, program.predict
        self._has_turns = any(s.condition != ALWAYS for c in program.head.chains for s in c.steps)
        self._head_is_fixed = not self._has_turns and not _head_has_slots(program.head, program.predict)
        counted = counted_ops(program.requirements)
        self._calls = CallCounter(program, counted) if counted else None
        self._heads: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}

    def figures(self, indices: Sequence[int]) -> Quantities | None:
        """The figures of a filling, or None where it cannot be built."""
        try:
            return self._count(indices)
        except _Unbuildable:
            return None

    def size(self, indices: Sequence[int]) -> tuple[int, int] | None:
        """Height and width of the images of a filling's detector; None where its text names none."""
        if self._own_size is None:
            return None
        height, width = _word(self._own_size, {}, indices)
        return height, width

    def backbone_of(self, indices: Sequence[int]) -> Backbone:
        """The backbone of a filling's detector."""
        return self.backbone if self._own_backbone is None else find_backbone(_word(self._own_backbone, {}, indices))

    def _count(self, indices: Sequence[int]) -> Quantities:
        for word in self.program.words:
            if isinstance(word.value, Slot) and isinstance(chosen(word.value, indices), ast.Call):
                raise _Unbuildable  # `let k = conv(k=3)` is no text
        own = self.size(indices)
        total, dangling, levels, widths = self._count_fpn(self._fpn, indices)
        pyramid = tuple(levels), tuple(widths)
        head = self._heads.get(pyramid) if self._head_is_fixed else None
        if head is None:
            head = self._count_head(self._head, self._predict, indices, levels, widths)
            if self._head_is_fixed:
                self._heads[pyramid] = head
        total += head
        mask = (1 << 64) - 1
        wanted = self._sizes_of[own]
        macs = {size: total >> (64 * (i + 1)) & mask for i, size in enumerate(self.sizes) if size in wanted}
        calls = {} if self._calls is None else self._calls.count(indices)
        return Quantities(macs, total & mask, dangling, own or DEFAULT_SIZE, calls)

    def _count_fpn(self, fpn: FpnProgram, indices: Sequence[int]) -> tuple[int, int, list[int], list[int]]:
        """Cost of the live part, number of dangling blocks, levels of the pyramid and their widths."""
        words = _section_words(fpn, _WORDS, infer_fpn.ATTRIBUTES, indices)
        section = _Section(self, words, indices)
        adapter: Any = chosen(fpn.adapter, indices)
        backbone = self.backbone_of(indices)
        for name, level, _ in self.program.inputs:
            if name not in backbone.out_channels:
                raise _Unbuildable
            raw = section.add((Feature(level, backbone.out_channels[name]), 0, 0))
            section.names[name] = raw
            if adapter is not None:
                out, used, price = self.apply(adapter, (), (section.values[raw][0],), section.key, (), indices)
                if type(out) is Features:
                    raise _Unbuildable
                section.names[name] = section.add(_something((out, 1 << raw if used else 0, price)))
        section.run(fpn.statements)
        return section.finish()

    def _count_head(
        self, head: HeadProgram, predict: PredictProgram, indices: Sequence[int], levels: list[int], widths: list[int]
    ) -> int:
        words = _section_words(head, (*_WORDS, "share", "norms"), infer_head.ATTRIBUTES, indices)
        share, norms_per_level = words.pop("share"), words.pop("norms") == "level"
        if words["width"] > min(widths):
            raise _Unbuildable
        key = tuple(words.items())
        total = 0
        if share > infer_head.longest_path(head, indices):
            raise _Unbuildable
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
        widths: _Widths,
    ) -> tuple[_Widths, int]:  # fmt: skip
        """Width of what a chain gives at each level, and its cost."""
        total = 0
        for place, step in enumerate(steps):
            target: Any = chosen(step.call.target, indices)
            settings = target.settings + step.call.settings
            given = tuple((s.name, _word(s.value, dict(key), indices)) for s in settings)
            of_level = norms_per_level and place >= share
            following: list[tuple[tuple[int, ...], int]] = []
            for levels, width in widths:
                operands = (Feature(infer_head.CURRENT_LEVEL, width),)
                if len(widths) > 1 and place >= share and self._has_weights(target, given, operands, key, indices):
                    raise _Unbuildable
                out, _, price = self.apply(target, given, operands, key, levels, indices, norms_per_level=of_level)
                if out.level != infer_head.CURRENT_LEVEL or type(out) is Features:
                    raise _Unbuildable
                params = price & ((1 << 64) - 1)
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
        found = self._lower_op(target, settings, operands, dict(key), indices)
        if found is None:
            raise _Unbuildable
        return not all(isinstance(node.layer, WITHOUT_WEIGHTS) for node in found[0])

    def _count_predictions(
        self, node: PredictProgram, indices: Sequence[int], section_width: int, ends: dict[str, _Widths]
    ) -> int:
        settings = infer_settings(node, [], indices)
        if settings is None:
            raise _Unbuildable
        conv: Any = chosen(node.conv, indices)
        if conv is not None and any(s.name == "kernel" for s in node.settings):
            raise _Unbuildable
        are_alike = len({tuple(sorted(_by_level(widths))) for widths in ends.values()}) == 1
        total = 0
        for name, tower, per_class, fixed in settings.kind.maps():
            channels = per_class * self.classes + fixed
            widths = ends[tower]
            if settings.share and len(widths) > 1:
                raise _Unbuildable
            for levels, width in widths:
                if name == "bbox_reg" and settings.kind.box_form != "raw":
                    total += len(levels)  # one scale a level
                word = width if len(widths) == 1 else section_width  # that of a block is one, whatever comes in
                price = self._count_prediction(conv, settings.kernel, width, word, channels, are_alike, levels, indices)
                params = price & ((1 << 64) - 1)
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
        at = levels
        total = 0
        if conv is not None:
            words = (("width", word), ("norm", "none"), ("act", "none"))
            inferred = self._lower_op(conv, (), (x,), dict(words), indices)
            if inferred is None:
                raise _Unbuildable
            live, last = inferred
            if (
                last is None
                or not isinstance(last.layer, Conv | DeformConv)
                or last.layer.groups != 1
                or last.out.level != x.level
            ):
                raise _Unbuildable
            if len(live) > 2 and not are_alike:  # one of them is the input
                raise _Unbuildable
            x, layer = last.operands[0], replace(last.layer, width=channels, bias=True)
            total = sum(self._price(node, at) for node in live if node is not last)
        value = Value("prediction", "conv", "layer", self.program.span)
        return total + self._price(Node("conv", layer, ("x",), (x,), out, value, self.program.span), at)

    def _price(self, node: Node, levels: tuple[int, ...], norms: int = 1, *, with_params: bool = True) -> int:
        """What a layer costs, as one integer; in a head, over all `levels`.

        Args:
            norms: how many sets of weights a norm has.
            with_params: whether its parameters count.
        """
        total = 0
        for at, areas in enumerate(self.areas):
            price = (
                HeadAreas(areas, levels).cost(node) if levels else layer_cost(node.layer, node.operands, node.out, areas.area)
            )
            params = price.params * norms if isinstance(node.layer, Norm) else price.params
            total += (price.macs << (64 * (at + 1))) + (params if at == 0 and with_params else 0)
        return total

    def apply(
        self,
        target: Target,
        settings: tuple[tuple[str, Any], ...],
        operands: tuple[Feature, ...],
        key: tuple[tuple[str, Any], ...],
        levels: tuple[int, ...],
        indices: Sequence[int],
        *,
        norms_per_level: bool = False,
    ) -> tuple[Feature, int, int]:
        """Result, operands that it depends on (one bit each) and cost of an op; in a head, over all `levels`."""
        norms = len(levels) if norms_per_level else 1
        if getattr(target.callee, "has_slots", False):
            found = self._infer(target, settings, operands, dict(key), levels, norms, indices)
        else:
            at = (id(target.callee), settings, operands, key, levels, norms)
            try:
                found = self.applied[at]
            except KeyError:
                found = self.applied[at] = self._infer(target, settings, operands, dict(key), levels, norms)
        if found is None:
            raise _Unbuildable
        return found

    def _infer(
        self,
        target: Target,
        settings: tuple[tuple[str, Any], ...],
        operands: tuple[Feature, ...],
        words: _Words,
        levels: tuple[int, ...],
        norms: int = 1,
        indices: Sequence[int] | None = None,
    ) -> tuple[Feature, int, int] | None:
        """Infer an op on features of these levels and widths, and count what its result depends on.

        `norms`: how many sets of norms it has.
        """
        found = self._lower_op(target, settings, operands, words, indices)
        if found is None:
            return None
        live, last = found
        if last is None:
            return _NOTHING
        total = 0
        counted: set[str] = set()  # shared weights, of a block
        for node in live:
            total += self._price(node, levels, norms, with_params=node.weights not in counted)
            counted.add(node.weights)
        read = {source for node in live for source in node.inputs} | {last.id}
        used = sum(1 << number for number in range(len(operands)) if f"o{number}" in read)
        return last.out, used, total

    def _lower_op(
        self,
        target: Target,
        settings: tuple[tuple[str, Any], ...],
        operands: tuple[Feature, ...],
        words: _Words,
        indices: Sequence[int] | None,
    ) -> tuple[list[Node], Node | None] | None:
        """The layers that an op's result depends on, last first, and the one that gives it, which is None where it gives none.

        None where it has a mistake.
        """
        span = self.program.span
        problems: list[Diagnostic] = []
        inference = Inference(problems, indices)
        layers = inference.layers
        layers.own("v", target.name, "block", span)
        scope = {}
        for number, feature in enumerate(operands):
            index = NOTHING if feature is _NOTHING_FEATURE else layers.source(f"o{number}", feature, span)
            scope[f"o{number}"] = Binding(f"o{number}", index, span)
        given = tuple(ast.Setting(span, n, span, _literal(v, span)) for n, v in settings)
        call = Call(target._replace(settings=()), tuple(Ref(n, span) for n in scope), given, False, span, span)
        frame = Frame(scope, words, None)
        if type(target.callee) is Primitive:
            results = inference.call(call, frame, "v", None)
            if results is None:
                return None
            result = results[0] if len(results) == 1 or results[0] == NOTHING else layers.applications[results[0]].inputs[0]
        else:
            result = inference.expand(call, frame, "v", None)
        if result == UNFIT or any(p.severity == "error" for p in problems):
            return None
        if result == NOTHING:
            return [], None
        widths = {f"o{number}": feature.width for number, feature in enumerate(operands)}
        try:
            nodes, place = lower_nodes(layers.applications, layers.values, widths)
        except DiagnosticError:
            return None
        live = {place[result]}
        found = []
        for node in reversed(nodes):
            if node.id in live:
                live.update(node.inputs)
                found.append(node)
        return found, next(node for node in nodes if node.id == place[result])

    def expand_shared(
        self, op: Op, shared: dict[int, WeightSet], operands: tuple[Feature, ...], indices: Sequence[int]
    ) -> _SharedCall | None:
        """The layers of a call of a `shared` op; None where it cannot be built.

        Args:
            shared: the weights of the ops that can be called.
        """
        span = self.program.span
        problems: list[Diagnostic] = []
        inference = Inference(problems, indices)
        inference.shared = shared
        layers = inference.layers
        layers.own("v", op.name, "block", span)
        names = [f"o{number}" for number in range(len(operands))]
        scope = {
            n: Binding(n, NOTHING if x is _NOTHING_FEATURE else layers.source(n, x, span), span)
            for n, x in zip(names, operands, strict=True)
        }
        call = Call(Target(op, (), op.name, span), tuple(Ref(n, span) for n in names), (), False, span, span)
        results = inference.call(call, Frame(scope, {}, None), "v", None)
        if results is None or any(p.severity == "error" for p in problems):
            return None
        widths = {n: x.width for n, x in zip(names, operands, strict=True)}
        try:
            nodes, place = lower_nodes(layers.applications, layers.values, widths)
        except DiagnosticError:
            return None
        at = {place[scope[n].index]: number for number, n in enumerate(names) if scope[n].index != NOTHING}
        made = []
        for node in nodes:
            if node.id in at:
                continue
            prices = [layer_cost(node.layer, node.operands, node.out, areas.area) for areas in self.areas]
            macs = sum(price.macs << (64 * (number + 1)) for number, price in enumerate(prices))
            made.append(_SharedLayer(node.out, tuple(at[i] for i in node.inputs), macs, prices[0].params, node))
            at[node.id] = len(names) + len(made) - 1
        return _SharedCall(tuple(made), tuple(NOTHING if r == NOTHING else at[place[r]] for r in results))


class _SharedLayer(NamedTuple):
    """A layer of a call of a `shared` op. `inputs` number the operands of the call, and behind them its layers."""

    out: Feature
    inputs: tuple[int, ...]
    macs: int
    params: int
    node: Node


class _SharedCall(NamedTuple):
    """A call of a `shared` op. `results` number what it gives, as `_SharedLayer.inputs` do."""

    layers: tuple[_SharedLayer, ...]
    results: tuple[int, ...]


class _Section:
    """Values of one fpn while it is counted.

    Attributes:
        shared: weights of the `shared` ops that can be called, by identity of the op.
        tied: of a value: path and number of parameters that it has in common with others.
        bodies: how many blocks have been counted.
        words, key: ``width``, ``norm`` and ``act``.
        values: in order; `names` are their indices in the body that is counted.
        blocks, read, kept: values of the statements, values that something reads, outputs; one bit each.
        merges: of each merge the value that is added to, and the blocks bound before.
    """

    __slots__ = (
        "applied", "blocks", "bodies", "counter", "home", "indices", "kept", "key", "merges", "names", "outputs", "read",
        "shapes", "shared", "tied", "values", "words",
    )  # fmt: skip

    def __init__(self, counter: FigureCounter, words: _Words, indices: Sequence[int]) -> None:
        self.counter = counter
        self.home: Vocabulary | None = None  # of the op whose body is counted
        self.applied = counter.applied
        self.words = words
        self.indices = indices
        self.key = tuple(words.items())
        self.values: list[_Value] = []
        self.names: dict[str, int] = {}
        self.outputs: dict[str, int] = {}
        self.merges: list[tuple[int, int]] = []
        self.shared: dict[int, WeightSet] = {}
        self.shapes: dict[str, Shape] = {}
        self.tied: dict[int, tuple[str, int]] = {}
        self.bodies = 0
        self.blocks = self.read = self.kept = 0

    def add(self, value: _Value) -> int:
        self.values.append(value)
        return len(self.values) - 1

    # ------------------------------------------------------------------------------------------ statements

    def run(self, statements: tuple[Statement, ...]) -> None:
        names, values, expression = self.names, self.values, self.expression
        for statement in statements:
            if type(statement) is Assign:
                targets = statement.targets
                if len(targets) == 1:  # what most statements are, without a list of one
                    value = expression(statement.value)
                    if value[0] is _NOTHING_FEATURE:
                        raise _Unbuildable
                    index = len(values)
                    values.append(value)
                    self.blocks |= 1 << index
                    names[targets[0].name] = index  # type: ignore[union-attr]  # it has checked
                else:
                    for name, index in self._assign(statement):
                        self.blocks |= 1 << index
                        names[name] = index
            elif type(statement) is Output:
                self._output(statement)
            elif type(statement) is Merge:
                for target in statement.targets:
                    self._merge(chosen(target, self.indices).name)
            elif type(statement) is SetWord:
                self._set_word(statement)
            elif type(statement) is Shared:
                self._share(statement, 0)
            elif type(statement) is When and holds(statement.condition, self.indices):
                self.run(statement.statements)

    def _assign(self, statement: Assign) -> list[tuple[str, int]]:
        targets = statement.targets
        if len(targets) == 1:
            value = statement.value
            # A name for another value is a value of its own: each may dangle.
            return [(targets[0].name, self.add(_something(self.expression(value))))]  # type: ignore[union-attr]  # it has checked
        call: Any = chosen(statement.value, self.indices)
        target = chosen(call.target, self.indices) if type(call) is Call else None
        if target is not None and call.is_distinct and has_same_operands(call, self.indices):
            raise _Unbuildable
        if target is not None and type(target.callee) is Primitive:
            return self._results(call, targets)
        if target is not None and type(target.callee) is Op and target.callee.is_shared:
            found = self._shared_call(target, call.settings, [self.expression(o) for o in call.operands])
            found = found * len(targets) if found == [_NOTHING] else found
            if len(found) != len(targets):
                raise _Unbuildable
            return [(t.name, self.add(_something(value))) for t, value in zip(targets, found, strict=True)]  # type: ignore[union-attr]  # it has checked
        if target is None or type(target.callee) is not Block:
            raise _Unbuildable
        settings = target.settings + call.settings
        results = self._run_block(target, settings, [self.add(self.expression(o)) for o in call.operands])
        if len(results) != len(targets):
            raise _Unbuildable
        # A result of a block that is an operand, or two results that are one value, are values of their own too.
        return [
            (t.name, self.add(_something((self.values[i][0], 1 << i, 0))))  # type: ignore[union-attr]  # it has checked
            for t, i in zip(targets, results, strict=True)
        ]

    def _results(self, call: Call, targets: Sequence[Any]) -> list[tuple[str, int]]:
        """The results of a primitive that gives several."""
        value = self.call(call)
        index, several = self.add(value), value[0]
        if not isinstance(several, Features) or len(several.results) != len(targets):
            raise _Unbuildable
        return [(t.name, self.add((x, 1 << index, 0))) for t, x in zip(targets, several.results, strict=True)]

    def _run_block(self, target: Target, settings: tuple[ast.Setting, ...], operands: list[int]) -> list[int]:
        """Count the statements of a block; gives the indices of its results."""
        block: Any = target.callee
        problems: list[Diagnostic] = []
        words = self._words_of_call(block, settings)
        body = body_of_block(block, words, problems)
        if problems or len(operands) != len(body.parameters):
            raise _Unbuildable
        outer = self.names, self.words, self.key, self.read, self.home
        self.words, self.key, self.home = words, tuple([(n, words[n]) for n in _WORDS]), block.home
        self.names = dict(zip(body.parameters, operands, strict=True))
        self.bodies += 1
        self._run_body(body.statements, self.bodies)
        results = []
        for result in body.results:
            if type(result) is not Ref:
                result = chosen(result, self.indices)
            if result is None:
                raise _Unbuildable
            results.append(self.names[result.name])
        self.names, self.words, self.key, self.read, self.home = outer
        return results

    def _run_body(self, statements: tuple[Statement, ...], number: int) -> None:
        """Count the statements of a block; `number` is that of the call among the calls of blocks."""
        for statement in statements:
            if type(statement) is Assign:
                for name, index in self._assign(statement):
                    self.names[name] = index
            elif type(statement) is SetWord:
                self._set_word(statement)
            elif type(statement) is Shared:
                self._share(statement, number)
            elif type(statement) is When and holds(statement.condition, self.indices):
                self._run_body(statement.statements, number)

    def _share(self, statement: Shared, body: int) -> None:
        """Begin the weights of a `shared` op; `body` tells the calls of a block apart."""
        op = statement.op
        root = f"{body}/{id(op)}"
        at = (id(op), tuple(self.words.items()))
        if op.has_slots or at not in self.counter.sound:
            problems: list[Diagnostic] = []
            inference = Inference(problems, self.indices)
            inference.shared = self.shared
            inference.share(statement, Frame({}, self.words, None), "")
            if op.broken or any(p.severity == "error" for p in problems):
                raise _Unbuildable
            self.counter.sound.add(at)
        self.shared[id(op)] = WeightSet(op, root, self.words)

    def _shared_call(self, target: Target, settings: tuple[ast.Setting, ...], operands: list[_Value]) -> list[_Value]:
        """Count the layers of a call of a `shared` op, each as a value; gives its results."""
        op: Any = target.callee
        weights = self.shared.get(id(op))
        if settings or target.settings or weights is None or len(operands) != len(op.operands):
            raise _Unbuildable
        features = tuple([o[0] for o in operands])
        at = (id(op), weights.root, tuple(weights.words.items()), features)
        found = None if op.has_slots else self.counter.expanded.get(at)
        if found is None:
            found = self.counter.expand_shared(op, self.shared, features, self.indices)
            if found is None:
                raise _Unbuildable
            if not op.has_slots:
                self.counter.expanded[at] = found
        places = [self.add(o) for o in operands]
        for layer in found.layers:
            reads = 0
            for i in layer.inputs:
                reads |= 1 << places[i]
            index = self.add((layer.out, reads, layer.macs))
            places.append(index)
            node = layer.node
            if node.shared and not add_shape(self.shapes, node.shared, node.layer, node.operands, node.out):
                raise _Unbuildable
            self.tied[index] = node.shared or f"{index}", layer.params
        made = [None if i == NOTHING else places[i] for i in found.results]
        return [_NOTHING if i is None else (self.values[i][0], 1 << i, 0) for i in made]

    def _set_word(self, statement: SetWord) -> None:
        value = statement.value
        if type(value) is Slot and isinstance(chosen(value, self.indices), ast.Call):
            raise _Unbuildable  # `let k = conv(k=3)` is no text
        if statement.name in primitives.SECTION:
            words = self.words = {**self.words, statement.name: _word(value, self.words, self.indices)}
            self.key = tuple([(n, words[n]) for n in _WORDS])

    def _output(self, statement: Output) -> None:
        value: Any = chosen(statement.value, self.indices)
        before = self.read
        found = self.expression(value)
        if type(value) is Ref:  # naming a value as output is no reading of it
            self.read = before
            self.kept |= found[1]
        if found[0].level is None:
            raise _Unbuildable
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

    # ----------------------------------------------------------------------------------------- expressions

    def expression(self, node: Any) -> _Value:
        """Level, width, reads and cost of an expression. Called for every operand of every sample, so it spells out what
        `chosen` would do."""
        indices = self.indices
        while type(node) is Slot:
            node = node.alternatives[indices[node.decision.number]]
        if type(node) is Ref:
            index = self.names[node.name]
            self.read |= 1 << index
            return self.values[index][0], 1 << index, 0
        if type(node) is not Call:
            if type(node) is Nothing:
                return _NOTHING
            raise _Unbuildable
        value = self.call(node)
        if type(value[0]) is Features:
            raise _Unbuildable  # it is several values
        return value

    def call(self, node: Call) -> _Value:
        """The value of a call; of a primitive with several results, with the shapes of all of them."""
        indices = self.indices
        if node.is_distinct and has_same_operands(node, indices):
            raise _Unbuildable
        target: Any = node.target
        while type(target) is Slot:
            target = target.alternatives[indices[target.decision.number]]
        settings = target.settings + node.settings if target.settings else node.settings
        if type(target.callee) is str:
            target = self._passed_op(target)
        if target.callee is _NONE:
            if target.settings or node.settings:
                raise _Unbuildable
            return _NOTHING
        operands = [self.expression(o) for o in node.operands]
        callee = target.callee
        if type(callee) is Block or (type(callee) is Op and (callee.has_slots or callee.is_shared)):
            return self._expanded(target, settings, operands)
        given = self._settings(settings) if settings else ()
        at = (id(callee), given, tuple([o[0] for o in operands]), self.key, (), 1)
        found = self.applied.get(at)
        out, used, total = self.counter.apply(target, *at[1:5], indices) if found is None else found
        reads = 0
        for operand in operands:
            if used & 1:
                reads |= operand[1]
                total += operand[2]
            used >>= 1
        return out, reads, total

    def _passed_op(self, target: Target) -> Target:
        """The op that an attribute of the op names whose body is counted."""
        name: Any = self.words[str(target.callee)]
        callee = (self.home.find(name) if self.home is not None else None) or primitives.find(name)
        if callee is None or getattr(callee, "has_slots", False):
            raise _Unbuildable
        return target._replace(callee=callee)

    def _expanded(self, target: Target, settings: tuple[ast.Setting, ...], operands: list[_Value]) -> _Value:
        """A block, or an op with slots: its body is counted here."""
        if type(target.callee) is Block:
            results = self._run_block(target, settings, [self.add(o) for o in operands])
            if len(results) != 1:
                raise _Unbuildable
            return self.values[results[0]][0], 1 << results[0], 0
        op: Any = target.callee
        if op.is_shared:
            found = self._shared_call(target, settings, operands)
            if len(found) != 1:
                raise _Unbuildable
            return found[0]
        if len(operands) != len(op.operands):
            raise _Unbuildable
        inner = self._words_of_call(op, settings)
        outer = self.names, self.words, self.key, self.read, self.home
        self.home = op.home
        self.names = dict(zip(op.operands, [self.add(o) for o in operands], strict=True))
        self.words, self.key = inner, tuple([(n, inner[n]) for n in _WORDS])
        index = self.add(self.expression(op.body))
        self.names, self.words, self.key, self.read, self.home = outer
        return self.values[index][0], 1 << index, 0

    def _words_of_call(self, callee: Definition, settings: tuple[ast.Setting, ...]) -> _Words:
        """What words mean in the body of what is called with these attributes."""
        given = dict(self._settings(settings)) if settings else {}
        section: _Words = {n: self.words[n] for n in _WORDS}
        words = dict(section)
        for name, default in callee.attributes.items():
            words[name] = given[name] if name in given else attributes.evaluate(default, section, [])
        if len(given) < len(settings) or not given.keys() <= callee.attributes.keys():
            raise _Unbuildable
        accepts = accepted(callee)
        if any(name in accepts and not accepts[name].takes(value) for name, value in given.items()):
            raise _Unbuildable
        return words

    def _settings(self, settings: tuple[ast.Setting, ...]) -> tuple[tuple[str, Any], ...]:
        """Attributes of a call; a value that ``to=`` names becomes its level."""
        made = []
        for setting in settings:
            value: Any = chosen(setting.value, self.indices)
            if setting.name == "to" and type(value) is ast.Reference and value.name in self.names:
                level = self.values[self.names[value.name]][0].level
                if level is None:
                    raise _Unbuildable
                made.append(("to", level))
            else:
                made.append((setting.name, _word(value, self.words, self.indices)))
        return tuple(made)

    def finish(self) -> tuple[int, int, list[int], list[int]]:
        """Cost of what the outputs depend on, number of dangling blocks, levels of the pyramid and their widths."""
        values = self.values
        dangling = self.blocks & ~self.read & ~self.kept
        merged: dict[int, int] = {}
        for target, before in self.merges:
            extra = dangling & before
            merged[target] = merged.get(target, 0) | extra
            for index in _bits(extra):
                if values[index][0].width != values[target][0].width:
                    raise _Unbuildable
        if not self.outputs:
            raise _Unbuildable
        widths = [values[o][0].width for o in self.outputs.values()]
        first = min(self.outputs.values())  # what comes before every output cannot read one
        for target, extra in merged.items():
            if any(index > first and self._reaches(index, target, merged) for index in _bits(extra)):
                raise _Unbuildable
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
        return total + sum(params.values()), dangling.bit_count(), levels, widths

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


def _levels_of_widths(levels: Sequence[int], widths: Sequence[int]) -> _Widths:
    found: dict[int, list[int]] = {}
    for level, width in zip(levels, widths, strict=True):
        found.setdefault(width, []).append(level)
    return tuple((tuple(of_width), width) for width, of_width in found.items())


def _by_level(widths: Sequence[tuple[tuple[int, ...], int]]) -> list[tuple[int, int]]:
    """Level and width of each map."""
    return [(level, width) for levels, width in widths for level in levels]


def _something(value: _Value) -> _Value:
    if value[0] is _NOTHING_FEATURE:
        raise _Unbuildable
    return value


def possible_words(value: Any) -> list[Any]:
    """What the value of an attribute of ``detector`` may be in a filling; nothing for one that is not set."""
    return [] if value is None else list(dict.fromkeys(attributes.evaluate(v, {}, []) for v in possible_values(value)))


def _section_words(
    section: FpnProgram | HeadProgram, names: tuple[str, ...], accepted: dict[str, Accepts], indices: Sequence[int]
) -> _Words:
    """The attributes of a section."""
    problems: list[Diagnostic] = []
    values = section_values(section, accepted, problems, indices)
    if problems:
        raise _Unbuildable
    return {name: values[name] for name in names}


def _word(value: Any, words: _Words, indices: Sequence[int]) -> Any:
    if type(value) is ast.Number:
        return value.value
    found = attributes.evaluate(fill_value(value, indices), words, [])
    if isinstance(found, Unknown):
        raise _Unbuildable
    return found


def _bits(mask: int) -> list[int]:
    """Places of the bits of a mask."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found


def _literal(value: Any, span: Any) -> ast.Attribute:
    return ast.Reference(span, value) if isinstance(value, str) else ast.Number(span, value, str(value))


def _head_has_slots(head: HeadProgram, predict: PredictProgram) -> bool:
    """Whether an attribute or a layer behind the pyramid differs between fillings."""
    if any(find_slot(s.value) for s in (*head.settings, *predict.settings)):
        return True
    if type(predict.conv) is Slot or getattr(getattr(predict.conv, "callee", None), "has_slots", False):
        return True
    calls = [s.call for c in head.chains for s in c.steps]
    return any(
        type(c.target) is Slot or c.has_slots or getattr(getattr(c.target, "callee", None), "has_slots", False) for c in calls
    )
