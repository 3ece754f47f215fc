"""Inference of a call's operands, and of calls of primitives: what their layers receive, and whether they fit it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import holes, names, types
from nasdsl.layers import Layer, Result
from nasdsl.semantics import attributes, primitives
from nasdsl.semantics.attributes import UNKNOWN, Unknown
from nasdsl.semantics.builder import NOTHING, UNFIT, LayerBuilder
from nasdsl.semantics.infer_scope import Frame
from nasdsl.semantics.primitives import Primitive
from nasdsl.semantics.program import Call, Missing, Operand, Ref, Slot, Target, chosen
from nasdsl.semantics.signature import call_of_any_number
from nasdsl.semantics.vocabulary import Definition, Op, Vocabulary
from nasdsl.syntax import ast


class PrimitiveInference(ABC):
    """Infers calls of primitives; `Inference` adds those of ops and blocks.

    Args:
        problems: where findings go.
        indices: the alternative that fills each slot; None leaves slots open.

    Attributes:
        layers: what was built.
        warnings: findings that do not make a decoder fail.
        depth: how many calls the one that is expanded stands in.
    """

    def __init__(self, problems: list[Diagnostic], indices: Sequence[int] | None = None) -> None:
        self.problems = problems
        self.warnings: list[Diagnostic] = []
        self.indices = indices
        self.layers = LayerBuilder(problems)
        self.depth = 0

    @abstractmethod
    def expand(self, operand: Operand, frame: Frame, path: str, home: Vocabulary | None) -> int:
        """Index of the application that computes an expression.

        Args:
            path: where the parameters of its layers live.
            home: the vocabulary that the attributes of an op or a block name other ops in; None outside their bodies.
        """

    def choose(self, operand: Operand) -> Operand:
        """The operand, or the alternative that fills its slot."""
        if self.indices is not None and type(operand) is Slot:
            return chosen(operand, self.indices)  # type: ignore[no-any-return]  # an operand's alternatives are operands
        return operand

    def target(self, call: Call) -> Any:
        """What a call calls: a `Target`, or the slot where that is open."""
        return call.target if self.indices is None else chosen(call.target, self.indices)

    def op_name(self, value: Operand) -> str:
        """Name of the op at the root of an expression."""
        if type(value) is not Call:
            return "skip" if type(value) is Ref else "?"
        target = self.target(value)
        return target.name if type(target) is Target else "?"

    def something(self, index: int, span: Span) -> int:
        """The index itself, but for a value that is left out where there must be one, which is reported."""
        if index != NOTHING:
            return index
        self.problems.append(holes.no_operands(span))
        return UNFIT

    def look_up(self, reference: Ref, frame: Frame, home: Vocabulary | None) -> int:
        """Index of the value that a name means; `UNFIT` where it means none."""
        binding = frame.scope.get(reference.name)
        if binding is not None:
            binding.is_read = True
            return binding.index
        if home is not None and not isinstance(frame.words.get(reference.name, UNKNOWN), Unknown):
            self.unknown_value(reference.name, reference.span, frame, home)  # an attribute of an op, and no operand
        return UNFIT

    def unknown_value(self, name: str, span: Span, frame: Frame, home: Vocabulary) -> None:
        """Report a name that means no value."""
        is_op = home.find(name) is not None or primitives.find(name) is not None
        self.problems.append(names.unknown_value(frame.site or span, name, frame.scope, is_op=is_op, fixable=False))

    def operands(
        self, call: Call, least: int, most: int, frame: Frame, path: str, home: Vocabulary | None,
        callee: Definition | None = None, named: int = 0,
    ) -> list[int] | None:  # fmt: skip
        """Indices of a call's operands; None where their number is wrong. What computes one of an op is put below its name.

        `named`: how many of them the text has as attributes.
        """
        below = callee.operands if type(callee) is Op else ()
        indices = []
        is_left_out = False
        for number, operand in enumerate(call.operands):
            if type(operand) is Ref:
                indices.append(self.look_up(operand, frame, home))
                continue
            is_left_out = is_left_out or (type(operand) is Missing and operand.is_left_out)
            name = below[min(number, len(below) - 1)] if below else ""
            indices.append(self.expand(operand, frame, f"{path}.{name}" if path and name else path or name, home))
        count = len(indices)
        if is_left_out:
            return None  # how many there would be is not known
        if least <= count <= most:
            return indices
        place = frame.site or call.span
        instead = call_of_any_number(callee, call) if type(callee) is Op and frame.site is None else ""
        parameters = () if callee is None else callee.operands
        given, least, most = count - named, least - named, most - named
        self.problems.append(types.operand_count(place, self.op_name(call), given, least, most, parameters, instead))
        return None

    def primitive(
        self, primitive: Primitive, call: Call, settings: tuple[ast.Setting, ...], frame: Frame, path: str,
        home: Vocabulary | None,
    ) -> int:  # fmt: skip
        """Index of what a primitive gives; `NOTHING` where that is left out, `UNFIT` where a mistake was reported."""
        if primitive.name == primitives.NONE:  # what it stands before is not read
            for setting in settings:
                self.problems.append(types.unknown_attribute(setting.name_span, primitive.name, setting.name, ()))
            return UNFIT if settings else NOTHING
        has_constant = bool(primitive.constant) and any(s.name == primitive.constant for s in settings)
        least = 1 if has_constant else primitive.least
        operands = self.operands(call, least, primitive.most, frame, path, home, named=1 if primitive.last else 0)
        for setting in settings:
            if setting.name in primitive.variants:
                self.problems.append(types.value_of_other_call(setting.name_span, primitive.name, setting.name))
                return UNFIT
        leaves_out = primitive.name in primitives.LEAVES_OUT and not primitive.last
        if operands is not None and NOTHING in operands:
            left = [index for index in operands if index != NOTHING]
            if not left or (not leaves_out and UNFIT not in left):
                return NOTHING
            if len(left) == 1 and leaves_out and not has_constant:
                return left[0]
            operands = left
        site, span = frame.site, call.span
        values: dict[str, Any] | None = attributes.settings(
            settings, primitive.attributes, primitive.name, site or call.callee_span, frame.words, self.problems
        )
        is_unknown = values is not None and UNKNOWN in values.values()
        if "to" in primitive.attributes:
            level = self._target_level(call, settings, frame, home)
            if level is None or operands is None or values is None:
                return UNFIT
            values["to"] = level
            if operands[0] != UNFIT:
                feature = self.layers.applications[operands[0]].feature
                if feature.level is None:
                    self.problems.append(types.pooled_operand(site or span))
                    return UNFIT
                if feature.level == level:
                    return operands[0]
        if operands is None or values is None or is_unknown or UNFIT in operands:
            return UNFIT
        layers = self.layers
        if primitives.OWN_WIDTH in values.values():
            width = layers.applications[operands[0]].feature.width  # OWN_WIDTH where it is not known
            values = {name: width if value == primitives.OWN_WIDTH else value for name, value in values.items()}

        def apply(layer: Layer, *inputs: int) -> int:
            return layers.apply(layer, inputs, path, span, site)

        return primitive.expand(values, tuple(operands), apply)

    def results(self, index: int, count: int, call: Call, path: str, frame: Frame) -> list[int]:
        """The results of a primitive that gives several."""
        return [self.layers.apply(Result(i), (index,), path, call.span, frame.site) for i in range(count)]

    def _target_level(self, call: Call, settings: tuple[ast.Setting, ...], frame: Frame, home: Vocabulary | None) -> int | None:
        """The level that ``to=`` names: that of a value, or a number."""
        for setting in settings:
            if setting.name != "to":
                continue
            value = setting.value
            if isinstance(value, ast.Reference) and not isinstance(frame.words.get(value.name), int):
                return self._level_of(value, frame, home)
            number = attributes.evaluate(value, frame.words, self.problems)
            if isinstance(number, int) and 0 <= number <= 16:
                return number
            if not isinstance(number, Unknown):
                self.problems.append(types.resize_target(value.span, number))
            return None
        self.problems.append(types.missing_attribute(frame.site or call.callee_span, "resize", "to", "a value"))
        return None

    def _level_of(self, value: ast.Reference, frame: Frame, home: Vocabulary | None) -> int | None:
        binding = frame.scope.get(value.name)
        if binding is None:
            word = frame.words.get(value.name)
            if value.name == primitives.NONE:
                self.problems.append(types.resize_target(frame.site or value.span, primitives.NONE))
            elif home is not None and not isinstance(word, Unknown):
                binding = frame.scope.get(word) if isinstance(word, str) else None
                if binding is None and word is not None:  # else it is of a turn that a limit has left out, which is reported
                    self.problems.append(types.level_of_attribute(frame.site or value.span, value.name, str(word)))
        if binding is not None and binding.index == NOTHING:
            self.problems.append(holes.no_operands(frame.site or value.span))
        if binding is None or binding.index in (UNFIT, NOTHING):
            return None
        level = self.layers.applications[binding.index].feature.level
        if level is None:
            self.problems.append(types.no_resolution(value.span, value.name))
        return level
