"""The section ``fpn``: inputs behind their adapters, statements, outputs, and the merge of dangling values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import lints, structure, types
from nasdsl.layers import UNKNOWN_WIDTH, Add, Feature, LayerError, Resize, check_merged
from nasdsl.semantics import primitives
from nasdsl.semantics.architecture import Application, FpnPart, PyramidOutput
from nasdsl.semantics.attributes import Accepts
from nasdsl.semantics.builder import UNFIT
from nasdsl.semantics.elaborate_body import PYRAMID_NAME
from nasdsl.semantics.infer import Inference
from nasdsl.semantics.infer_scope import Binding, Frame
from nasdsl.semantics.program import (
    Assign,
    Call,
    FpnProgram,
    Merge,
    Output,
    Program,
    Ref,
    SetWord,
    Shared,
    Target,
    chosen,
    present,
    section_values,
)

ATTRIBUTES = {**primitives.SECTION, "adapter": Accepts("op")}


def infer_fpn(
    program: Program,
    problems: list[Diagnostic],
    warnings: list[Diagnostic],
    lost: frozenset[str] | None = None,
    indices: Sequence[int] | None = None,
) -> FpnPart | None:
    """The layers of a decoder's fpn; None where it has none.

    Args:
        warnings: where findings go that do not make a decoder fail.
        lost: see `check.check`.
        indices: the alternative that fills each slot; None leaves slots open.
    """
    fpn = program.fpn
    if fpn is None:
        return None
    values = section_values(fpn, ATTRIBUTES, problems, indices)
    section = _FpnInference(Inference(problems, indices), values)
    section.inputs(program, fpn)
    section.run(fpn)
    outputs, dangling = section.finish(None if program.decisions else warnings)
    warnings += section.inference.warnings
    if not outputs and lost is None and not any(p.code == structure.NO_PYRAMID_LEVEL.code for p in problems):
        problems.append(structure.no_output(fpn.from_span or fpn.keyword))
    width = values["width"]
    layers = section.inference.layers
    return FpnPart(
        width if isinstance(width, int) else 0, tuple(layers.values), tuple(layers.applications), outputs, dangling,
        tuple(section.bindings),
    )  # fmt: skip


class _FpnInference:
    """Infers the layers of an fpn.

    Attributes:
        blocks: values of the statements, which dangle where nothing reads them.
        merges: of each merge the index of its `Add`, and the number of blocks bound before it.
        bindings: as of `FpnPart`.
    """

    def __init__(self, inference: Inference, words: dict[str, Any]) -> None:
        self.inference = inference
        self.layers = inference.layers
        self.problems = inference.problems
        self.frame = Frame({}, words, None)
        self.outputs: dict[str, PyramidOutput] = {}
        self.blocks: list[Binding] = []
        self.merges: list[tuple[int, int]] = []
        self.bindings: list[tuple[Span, int]] = []

    def inputs(self, program: Program, fpn: FpnProgram) -> None:
        """Bind the backbone features, each behind its adapter."""
        adapter: Any = fpn.adapter
        if self.inference.indices is not None:
            adapter = chosen(adapter, self.inference.indices)
        layers = self.layers
        for feature in program.inputs:
            name, span = feature.name, feature.span
            layers.own(name, "input", "input", span)
            index = layers.source(name, Feature(feature.level, UNKNOWN_WIDTH), span)
            binding = Binding(name, index, span)
            if type(adapter) is Target:
                layers.own(f"{name} adapter", adapter.name, "adapter", span)
                call = Call(adapter, (Ref(name, span),), (), False, span, span)
                frame = Frame({name: binding}, self.frame.words, None)
                binding.index = self.inference.something(self.inference.expand(call, frame, name, None), span)
                binding.is_read = False
            self.frame.scope[name] = binding
            self.bindings.append((span, binding.index))

    def run(self, fpn: FpnProgram) -> None:
        """Infer the statements."""
        reported: set[tuple[str, Span]] = set()
        scope = self.frame.scope
        for statement in present(fpn.statements, self.inference.indices):
            before = len(self.problems)
            self.layers.groups, self.layers.statement = (), statement.span
            if isinstance(statement, Assign):
                for name, binding in self.inference.assign(statement, self.frame, ""):
                    scope[name] = binding
                    self.blocks.append(binding)
                    self.bindings.append((binding.span, binding.index))
            elif isinstance(statement, Output):
                self._output(statement)
            elif isinstance(statement, Merge):
                self._merge(statement)
            elif isinstance(statement, SetWord):
                self.inference.set_word(statement, self.frame)
            elif isinstance(statement, Shared):
                self.inference.share(statement, self.frame, "")
            else:
                assert_never(statement)
            self.inference.once(statement, before, reported)

    def _output(self, statement: Output) -> None:
        layers, span = self.layers, statement.span
        path = layers.reserve(statement.name)
        value = self.inference.choose(statement.value)
        if isinstance(value, Ref):
            layers.own(path, "output", "output", span)
            named = self.frame.scope.get(value.name)
            index = UNFIT
            if named is not None:
                named.is_kept = True
                index = named.index
        else:
            layers.own(path, self.inference.op_name(value), "output", span)
            index = self.inference.something(self.inference.expand(value, self.frame, path, None), value.span)
        if statement.level is None:
            return
        if index != UNFIT and layers.applications[index].feature.level is None:
            self.problems.append(types.pooled_output(value.span, statement.name))
            index = UNFIT
        if index != UNFIT:
            level = layers.applications[index].feature.level
            if level is not None and level != statement.level and self._is_of_one_feature(index):
                self.inference.warnings.append(lints.resized_output(span, statement.name, statement.level, level))
            index = layers.apply(Resize(statement.level), (index,), path, span)
        self.outputs.setdefault(statement.name, PyramidOutput(statement.name, statement.level, index, span))
        self.frame.scope[statement.name] = Binding(statement.name, index, statement.name_span, is_kept=True)
        self.bindings.append((statement.name_span, index))

    def _is_of_one_feature(self, index: int) -> bool:
        """Whether a value is made from one feature alone. Of an aggregation, the level follows from a rule: it may be any."""
        applications = self.layers.applications
        while len(applications[index].inputs) == 1:
            (index,) = applications[index].inputs
        return not applications[index].inputs

    def _merge(self, statement: Merge) -> None:
        """Add what dangles to outputs (behind their own resize), or to values, which from here on mean the sum."""
        layers = self.layers
        applications = layers.applications
        for operand in statement.targets:
            target = self.inference.choose(operand)
            binding = self.frame.scope.get(target.name) if isinstance(target, Ref) else None
            if binding is None:
                continue
            assert isinstance(target, Ref)
            binding.is_kept = True
            if binding.index == UNFIT:
                continue
            name = layers.reserve(f"{binding.name}.merge")
            layers.own(name, "merge", "merge", target.span)
            output = self.outputs.get(target.name)
            at = binding.index
            base = applications[at].inputs[0] if output is not None else at
            path = layers.reserve(f"{name}.add")
            applications.append(Application(Add(), (base,), applications[base].feature, path, layers.owner, target.span))
            added = len(applications) - 1
            self.merges.append((added, len(self.blocks)))
            if output is not None:
                applications[at] = applications[at]._replace(inputs=(added,))
            else:
                self.frame.scope[target.name] = Binding(binding.name, added, target.span, is_kept=True)

    def finish(self, warnings: list[Diagnostic] | None) -> tuple[tuple[PyramidOutput, ...], int]:
        """Enter the dangling values into the merges, and warn of values that nothing reads.

        Returns:
            the outputs, finest level first, and the number of dangling values.
        """
        applications = self.layers.applications
        for added, before in self.merges:
            application = applications[added]
            extra = tuple(b.index for b in self.blocks[:before] if _dangles(b))
            features = [applications[i].feature for i in (application.inputs[0], *extra)]
            try:
                check_merged(features)
            except LayerError as error:
                self.problems.append(types.merged_widths(application.span, str(error), features[0].width))
                continue
            applications[added] = application._replace(inputs=application.inputs + extra)
        self._no_circles()
        if warnings is not None:
            merged_before = max((before for _, before in self.merges), default=0)
            for binding in self.blocks[merged_before:]:
                if _dangles(binding):
                    is_pyramid_name = PYRAMID_NAME.fullmatch(binding.name) is not None
                    warnings.append(lints.unread(binding.span, binding.name, is_pyramid_name=is_pyramid_name))
        outputs = tuple(sorted(self.outputs.values(), key=lambda o: o.level))
        return outputs, sum(_dangles(b) for b in self.blocks)

    def _no_circles(self) -> None:
        """Report values that dangle, and read the very output that they would be merged into."""
        applications = self.layers.applications
        first = min((o.result for o in self.outputs.values()), default=UNFIT)
        for added, _ in self.merges:
            own, *extra = applications[added].inputs
            for index in extra:
                # What comes before every output cannot read one.
                if index > first >= 0 and self._reaches(index, added):
                    name = next(b.name for b in self.blocks if b.index == index)
                    self.problems.append(structure.circular_merge(applications[added].span, name))
                    applications[added] = applications[added]._replace(inputs=(own,))
                    break

    def _reaches(self, start: int, goal: int) -> bool:
        """Whether one application depends on another."""
        waiting, seen = [start], {start}
        while waiting:
            for index in self.layers.applications[waiting.pop()].inputs:
                if index == goal:
                    return True
                if index not in seen:
                    seen.add(index)
                    waiting.append(index)
        return False


def _dangles(binding: Binding) -> bool:
    """Whether nothing reads a value, and it is no output."""
    return not binding.is_read and not binding.is_kept and binding.index != UNFIT
