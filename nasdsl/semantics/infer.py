"""Inference: the layers of straight-line statements, with level and width of every value.

Ops and blocks are expanded where they are called. The same code serves a decoder, a space (whose slots stay open: what
depends on them is not known) and one filling of a space (whose slots are filled with given alternatives).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import holes, lints, names, structure, types
from nasdsl.layers import Features, Layer, Result
from nasdsl.semantics import attributes, expansion_cache, primitives
from nasdsl.semantics.architecture import Group
from nasdsl.semantics.attributes import UNKNOWN, Environment, Unknown
from nasdsl.semantics.builder import MAX_LAYERS, NOTHING, UNFIT, LayerBuilder
from nasdsl.semantics.distinct import has_same_operands
from nasdsl.semantics.elaborate_body import body_of_block, body_of_op
from nasdsl.semantics.elaborate_expression import MAX_CALLS, show_at_call
from nasdsl.semantics.primitives import Primitive
from nasdsl.semantics.program import (
    Assign,
    Body,
    Call,
    Missing,
    Nothing,
    Operand,
    Plain,
    Ref,
    SetWord,
    Shared,
    Slot,
    Target,
    chosen,
    fill_settings,
    fill_value,
    present,
)
from nasdsl.semantics.shared_weights import Operands, SharedExpansion, WeightSet
from nasdsl.semantics.signature import accepted, call_of_any_number, call_with_attribute, parameters_of
from nasdsl.semantics.vocabulary import Block, Definition, Op, Vocabulary
from nasdsl.syntax import ast


class Binding:
    """A value in scope.

    Attributes:
        name: as the text has it.
        index: of the application that computes it, or `UNFIT`.
        span: where it was bound.
        is_read: whether anything reads it.
        is_kept: whether it is an output, or what a merge goes into.
    """

    __slots__ = ("index", "is_kept", "is_read", "name", "span")

    def __init__(self, name: str, index: int, span: Span, *, is_kept: bool = False) -> None:
        self.name = name
        self.index = index
        self.span = span
        self.is_read = False
        self.is_kept = is_kept


class Frame:
    """What names mean in one body.

    Attributes:
        scope: values, by the unique names of the program.
        words: attributes: ``width``, ``norm`` and ``act`` of the section, and those of an op in its body.
        site: the call in the decoder's own statements that the body belongs to; None in these statements themselves.
        key: ``width``, ``norm`` and ``act``, as a key of the cache of expansions.
        groups: the blocks that the body is called in, and the repeats around these calls.
    """

    __slots__ = ("groups", "key", "scope", "site", "words")

    def __init__(
        self, scope: dict[str, Binding], words: dict[str, Any], site: Span | None, groups: tuple[Group, ...] = ()
    ) -> None:
        self.scope = scope
        self.words = words
        self.site = site
        self.groups = groups
        self.key = words.get("width"), words.get("norm"), words.get("act")

    def set_word(self, name: str, value: Any) -> None:
        words = self.words = {**self.words, name: value}
        self.key = words.get("width"), words.get("norm"), words.get("act")


class Inference:
    """Infers the layers of one section, or of one layer of a head.

    Args:
        problems: where findings go.
        indices: the alternative that fills each slot; None leaves slots open.

    Attributes:
        layers: what was built.
        warnings: findings that do not make a decoder fail.
        shared: the weights of `shared` ops, by identity of the op.
    """

    def __init__(self, problems: list[Diagnostic], indices: Sequence[int] | None = None) -> None:
        self.problems = problems
        self.warnings: list[Diagnostic] = []
        self.indices = indices
        self.layers = LayerBuilder(problems)
        self.shared: dict[int, WeightSet] = {}
        self._depth = 0
        self._block_calls = 0

    # ------------------------------------------------------------------------------------------ statements

    def run_block(self, body: Body, frame: Frame, prefix: str, home: Vocabulary) -> list[int]:
        """Index of each result of a block.

        Args:
            prefix: stands before the names of its values: ``bifpn.``.
            home: the vocabulary that its attributes name ops in.
        """
        reported: set[tuple[str, Span]] = set()
        for statement in present(body.statements, self.indices):
            if isinstance(statement, Assign):
                before = len(self.problems)
                for name, binding in self.assign(statement, frame, prefix, home):
                    frame.scope[name] = binding
                self.once(statement, before, reported)
            elif isinstance(statement, SetWord):
                self.set_word(statement, frame)
            elif isinstance(statement, Shared):
                before = len(self.problems)
                self.share(statement, frame, prefix)
                self.once(statement, before, reported)
        results = [None if r is None else self.choose(r) for r in body.results]
        return [frame.scope[r.name].index if isinstance(r, Ref) and r.name in frame.scope else UNFIT for r in results]

    def once(self, statement: Plain, since: int, reported: set[tuple[str, Span]]) -> None:
        """Drop findings of a repeated statement that an earlier round has reported."""
        if len(self.problems) > since and not isinstance(statement, SetWord) and statement.turns:
            self.problems[since:] = [p for p in self.problems[since:] if (p.code, p.span) not in reported]
            reported.update((p.code, p.span) for p in self.problems[since:])

    def set_word(self, statement: SetWord, frame: Frame) -> None:
        """A `let` of ``width``, ``norm`` or ``act`` is the default of what is called behind it."""
        if statement.name in primitives.SECTION:
            value = statement.value
            if self.indices is not None:
                value = fill_value(value, self.indices)
            frame.set_word(statement.name, attributes.evaluate(value, frame.words, []))

    def assign(self, statement: Assign, frame: Frame, prefix: str, home: Vocabulary | None = None) -> list[tuple[str, Binding]]:
        """The values that an assignment binds, by their unique names; `home` as of `expand`."""
        if self.layers.is_full and statement.turns:
            return []
        self.layers.groups = frame.groups + statement.turns if frame.groups else statement.turns
        self.layers.statement = statement.span
        targets, value = statement.targets, self.choose(statement.value)
        first = targets[0]
        path = self.layers.reserve(prefix + (first.source if first is not None else "_"))
        op = self.op_name(value)
        if len(targets) == 1:
            self.layers.own(path, op, "block", statement.span)
            index = self.something(self.expand(value, frame, path, home), value.span)
            return [] if first is None else [(first.name, Binding(first.source, index, first.span))]
        results: list[int] | None = None
        if type(value) is Call:
            self.layers.own(path, op, "block", statement.span)
            results = self.call(value, frame, path if self._is_shared(value) else prefix.rstrip("."), home)
            if results == [NOTHING]:
                results *= len(targets)
            if results is not None and len(results) != len(targets):
                instead = self._results_attribute(value)
                self.problems.append(types.result_count(statement.span, op, len(results), len(targets), instead))
                results = None
        elif type(value) is Ref:
            self.problems.append(types.one_value(statement.span, len(targets)))
        bound = []
        for number, target in enumerate(targets):
            if target is not None:
                index = self.something(results[number], value.span) if results else UNFIT
                bound.append((target.name, Binding(target.source, index, target.span)))
        return bound

    def _results_attribute(self, call: Call) -> str:
        """The attribute of a primitive that says how many values the call gives; empty where there is none."""
        target: Any = call.target if self.indices is None else chosen(call.target, self.indices)
        return target.callee.results_of if type(target.callee) is Primitive else ""

    def something(self, index: int, span: Span) -> int:
        """The index itself, but for a value that is left out where there must be one, which is reported."""
        if index != NOTHING:
            return index
        self.problems.append(holes.no_operands(span))
        return UNFIT

    def choose(self, operand: Operand) -> Operand:
        """The operand, or the alternative that fills its slot."""
        if self.indices is not None and type(operand) is Slot:
            return chosen(operand, self.indices)  # type: ignore[no-any-return]  # an operand's alternatives are operands
        return operand

    def op_name(self, value: Operand) -> str:
        """Name of the op at the root of an expression."""
        if type(value) is not Call:
            return "skip" if type(value) is Ref else "?"
        target: Any = value.target
        if type(target) is Slot and self.indices is not None:
            target = chosen(target, self.indices)
        return target.name if type(target) is Target else "?"

    # ----------------------------------------------------------------------------------------- expressions

    def expand(self, operand: Operand, frame: Frame, path: str, home: Vocabulary | None) -> int:
        """Index of the application that computes an expression.

        Args:
            path: where the parameters of its layers live.
            home: the vocabulary that the attributes of an op or a block name other ops in; None outside their bodies.
        """
        if self.indices is not None:
            operand = self.choose(operand)
        elif type(operand) is Slot:
            self._may_read(operand, frame)
            return UNFIT
        kind = type(operand)
        if kind is Ref:
            return self._look_up(operand, frame, home)  # type: ignore[arg-type]  # `kind` says so
        if kind is not Call:
            return NOTHING if kind is Nothing else UNFIT
        assert isinstance(operand, Call)
        if self._depth >= MAX_CALLS:
            if not self.layers.is_full:
                self.layers.is_full = True
                self.problems.append(structure.calls_too_deep(frame.site or operand.span, MAX_CALLS))
            return UNFIT
        self._depth += 1
        results = self.call(operand, frame, path, home)
        self._depth -= 1
        if results is None:
            return UNFIT
        if len(results) != 1:
            self.problems.append(types.several_results(operand.callee_span, self.op_name(operand), len(results)))
            return UNFIT
        return results[0]

    def _may_read(self, operand: Operand, frame: Frame) -> None:
        """Mark what an open slot may read, so that nothing is said of it as of a value that nothing reads."""
        if type(operand) is Ref:
            if operand.name in frame.scope:
                frame.scope[operand.name].is_read = True
        elif isinstance(operand, Slot | Call):
            for part in operand.alternatives if isinstance(operand, Slot) else operand.operands:
                self._may_read(part, frame)

    def _look_up(self, reference: Ref, frame: Frame, home: Vocabulary | None) -> int:
        binding = frame.scope.get(reference.name)
        if binding is not None:
            binding.is_read = True
            return binding.index
        if home is not None and not isinstance(frame.words.get(reference.name, UNKNOWN), Unknown):
            self._unknown_value(reference.name, reference.span, frame, home)  # an attribute of an op, and no operand
        return UNFIT

    def _unknown_value(self, name: str, span: Span, frame: Frame, home: Vocabulary) -> None:
        is_op = home.find(name) is not None or primitives.find(name) is not None
        self.problems.append(names.unknown_value(frame.site or span, name, frame.scope, is_op=is_op, fixable=False))

    def call(self, call: Call, frame: Frame, path: str, home: Vocabulary | None) -> list[int] | None:
        """The results of a call: one for an op or a primitive, several for a block. None: a mistake was reported."""
        target: Any = call.target
        settings = call.settings
        if call.is_distinct and has_same_operands(call, self.indices):
            self.problems.append(holes.same_operands(frame.site or call.span))
            return None
        if self.indices is not None:
            if type(target) is Slot:
                target = chosen(target, self.indices)
            if call.has_slots:
                settings = fill_settings(settings, self.indices)
            if target.settings:
                settings = fill_settings(target.settings, self.indices) + settings
        elif type(target) is Slot:
            for operand in call.operands:
                self.expand(operand, frame, path, home)
            return None
        callee = target.callee
        if type(callee) is str:
            callee = self._passed_op(callee, target, frame, home)
        if type(callee) is Op and callee.is_shared:
            return self._shared_call(callee, call, settings, frame, path, home)
        if type(callee) is Op:
            index = self._op(callee, call, settings, frame, path, home)
        elif type(callee) is Primitive:
            index = self._primitive(callee, call, settings, frame, path, home)
            several = None if index in (UNFIT, NOTHING) else self.layers.applications[index].feature
            if isinstance(several, Features):
                return self._results(index, len(several.results), call, path, frame)
        elif type(callee) is Block:
            return self._block(callee, call, settings, frame, path, home)
        else:
            for operand in call.operands:
                self.expand(operand, frame, path, home)
            return None
        return None if index == UNFIT else [index]

    def _passed_op(self, word: str, target: Target, frame: Frame, home: Vocabulary | None) -> Definition | Primitive | None:
        """The op that an attribute of an op names: ``op f(x, o=conv_3x3) = o(x)``."""
        assert home is not None
        name = frame.words.get(word)
        if isinstance(name, Unknown):
            return None
        found: Definition | Primitive | None = home.find(name) or primitives.find(name) if isinstance(name, str) else None
        place = frame.site or target.span
        if found is None:
            known = [*home.known(), *primitives.known()]
            name = name if isinstance(name, str) else word
            self.problems.append(names.unknown_op(place, name, known, is_value=name in frame.scope, fixable=False))
        elif not isinstance(found, Primitive) and found.has_slots:
            self.problems.append(holes.hole_in_passed_op(place, found.name))
            return None
        return found

    def _operands(
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
                indices.append(self._look_up(operand, frame, home))
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
        parameters = () if callee is None else parameters_of(callee)
        given, least, most = count - named, least - named, most - named
        self.problems.append(types.operand_count(place, self.op_name(call), given, least, most, parameters, instead))
        return None

    def _primitive(
        self, primitive: Primitive, call: Call, settings: tuple[ast.Setting, ...], frame: Frame, path: str,
        home: Vocabulary | None,
    ) -> int:  # fmt: skip
        if primitive.name == primitives.NONE:  # what it stands before is not read
            for setting in settings:
                self.problems.append(types.unknown_attribute(setting.name_span, primitive.name, setting.name, ()))
            return UNFIT if settings else NOTHING
        has_constant = bool(primitive.constant) and any(s.name == primitive.constant for s in settings)
        least = 1 if has_constant else primitive.least
        operands = self._operands(call, least, primitive.most, frame, path, home, named=1 if primitive.last else 0)
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

    def _results(self, index: int, count: int, call: Call, path: str, frame: Frame) -> list[int]:
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
            if home is not None and not isinstance(word, Unknown):
                binding = frame.scope.get(word) if isinstance(word, str) else None
                if binding is None:
                    self._unknown_value(value.name, value.span, frame, home)
        if binding is not None and binding.index == NOTHING:
            self.problems.append(holes.no_operands(frame.site or value.span))
        if binding is None or binding.index in (UNFIT, NOTHING):
            return None
        level = self.layers.applications[binding.index].feature.level
        if level is None:
            self.problems.append(types.no_resolution(value.span, value.name))
        return level

    # --------------------------------------------------------------------------------------- ops and blocks

    def _op(
        self, op: Op, call: Call, settings: tuple[ast.Setting, ...], frame: Frame, path: str, home: Vocabulary | None
    ) -> int:
        count = len(op.operands)
        operands = self._operands(call, count, count, frame, path, home, op)
        inner: dict[str, Any] | None = None
        words: Any = frame.key
        if settings:
            inner = self._words_of_call(op, settings, frame.words)
            if inner is None:
                return UNFIT
            words = tuple(inner.items())
        if operands is None or op.broken or UNFIT in operands:
            return UNFIT
        layers = self.layers
        built = layers.applications
        site = frame.site or call.span
        key: expansion_cache.Key | None = None
        if not op.has_slots and NOTHING not in operands and (count == 1 or len(set(operands)) == count):
            key = (words, built[operands[0]].feature) if count == 1 else (words, *[built[i].feature for i in operands])
            known = op.expansions.get(key)
            if known is not None and self._depth <= known.depth and len(built) + len(known.steps) <= MAX_LAYERS:
                return layers.replay(known, operands, path, site)
        body = op.body if op.body is not None else body_of_op(op)
        if len(built) + op.weight > MAX_LAYERS:
            layers.too_many(call.span)
            return UNFIT
        if inner is None:
            inner = self._words_of_call(op, (), frame.words)
            assert inner is not None
        scope = {name: Binding(name, index, call.span) for name, index in zip(op.operands, operands, strict=True)}
        first, before, blocks = len(built), len(self.problems), self._block_calls
        result = self.expand(body, Frame(scope, inner, site), path, op.home)
        if key is not None and result not in (UNFIT, NOTHING) and before == len(self.problems) and blocks == self._block_calls:
            op.remember(key, expansion_cache.record(built[first:], first, operands, result, path, self._depth))
        if frame.site is None:
            show_at_call(self.problems, before, call.span)
        return result

    def _words_of_call(self, op: Definition, settings: tuple[ast.Setting, ...], words: Environment) -> dict[str, Any] | None:
        """What words mean in a body: the section's attributes, and those of the op or block. None: a mistake was reported."""
        inner: dict[str, Any] = {name: words[name] for name in primitives.SECTION if name in words}
        if op.attributes:
            section = dict(inner)
            for name, default in op.attributes.items():
                inner[name] = attributes.evaluate(default, section, self.problems)
        if not settings:
            return inner
        accepts = accepted(op)
        before = len(self.problems)
        seen: dict[str, Span] = {}
        for setting in settings:
            if setting.name not in op.attributes:
                instead = call_with_attribute(op, setting) if isinstance(op, Op) else ""
                self.problems.append(types.unknown_attribute(setting.name_span, op.name, setting.name, op.attributes, instead))
                continue
            if setting.name in seen:
                self.problems.append(types.attribute_twice(setting.name_span, setting.name, seen[setting.name]))
                continue
            seen[setting.name] = setting.name_span
            value = attributes.evaluate(setting.value, words, self.problems)
            inner[setting.name] = value
            takes = accepts.get(setting.name)
            if takes is not None and not isinstance(value, Unknown) and not takes.takes(value):
                self.problems.append(attributes.refused(setting, value, takes, op.name))
        if len(self.problems) > before:
            return None
        if not seen.keys().isdisjoint(primitives.SECTION):
            self._warn_of_defaults(op, settings, words, inner)
        return inner

    def _warn_of_defaults(
        self, op: Definition, settings: tuple[ast.Setting, ...], words: Environment, inner: dict[str, Any]
    ) -> None:
        """Warn of attributes that are computed from the section's width, say, in a call that sets a width of its own."""
        given = {s.name: s for s in settings}
        section = {name: words[name] for name in primitives.SECTION if name in words}
        own = {name: inner[name] for name in given if name in section}
        for name, default in op.attributes.items():
            if name in given or isinstance(inner[name], Unknown):
                continue
            for word, value in own.items():
                meant = attributes.evaluate(default, {**section, word: value}, [])
                if meant != inner[name] and not isinstance(meant, Unknown):
                    default_values = (name, inner[name], meant)
                    self.warnings.append(lints.default_of_section(given[word].span, op.name, default_values, word))
                    break

    # ------------------------------------------------------------------------------------------ shared ops

    def share(self, statement: Shared, frame: Frame, prefix: str) -> None:
        """Begin the weights of a `shared` op, and report what is wrong with its body whatever its operands are."""
        op = statement.op
        root = self.layers.root + self.layers.reserve(prefix + op.name)
        weights = self.shared[id(op)] = WeightSet(op, root, frame.words, op.broken)
        if op.broken:
            return
        before = len(self.problems)
        inside = self._inside(weights)
        scope = {name: Binding(name, UNFIT, statement.span) for name in op.operands}
        inside.layers.own(op.name, "", "block", statement.span)
        inside._results_of_body(op, Frame(scope, weights.words, frame.site))
        weights.is_broken = len(self.problems) > before

    def _inside(self, weights: WeightSet) -> Inference:
        """What expands the body of a `shared` op by itself."""
        made = Inference(self.problems, self.indices)
        made.shared, made._depth, made.layers.root = self.shared, self._depth + 1, f"{weights.root}."
        return made

    def _results_of_body(self, op: Op, frame: Frame) -> list[int] | None:
        assert op.body is not None
        body = self.choose(op.body)
        if type(body) is Call and self._depth < MAX_CALLS:
            return self.call(body, frame, "", op.home)  # a block may give several
        index = self.expand(body, frame, "", op.home)
        return None if index == UNFIT else [index]

    def _is_shared(self, call: Call) -> bool:
        target: Any = call.target if self.indices is None else chosen(call.target, self.indices)
        return type(target) is Target and type(target.callee) is Op and target.callee.is_shared

    def _shared_call(
        self, op: Op, call: Call, settings: tuple[ast.Setting, ...], frame: Frame, path: str, home: Vocabulary | None
    ) -> list[int] | None:
        count = len(op.operands)
        operands = self._operands(call, count, count, frame, path, home, op)
        for setting in settings:
            self.problems.append(structure.shared_attribute(setting.name_span, op.name))
        weights, layers = self.shared.get(id(op)), self.layers
        if operands is None or settings or UNFIT in operands or weights is None or weights.is_broken:
            return None
        features = tuple([None if i == NOTHING else layers.applications[i].feature for i in operands])
        place = frame.site or call.span
        if features not in weights.expansions:
            before = len(self.problems)
            weights.expansions[features] = self._expand_shared(weights, features, place)
            if frame.site is None:
                show_at_call(self.problems, before, call.span)
        expansion = weights.expansions[features]
        if expansion is None:
            return None
        if not weights.fits(features, expansion, place):
            self._misfit(weights, features, place)
            return None
        if len(layers.applications) + len(expansion.applications) > MAX_LAYERS:
            layers.too_many(call.span)
            return None
        return layers.replay_shared(expansion, operands, path, weights.root, place)

    def _expand_shared(self, weights: WeightSet, features: Operands, place: Span) -> SharedExpansion | None:
        """The layers of a call with operands of these features."""
        op, inside = weights.op, self._inside(weights)
        inside.layers.own(op.name, op.name, "block", place)
        sources = [
            NOTHING if feature is None else inside.layers.source(name, feature, place)
            for name, feature in zip(op.operands, features, strict=True)
        ]
        scope = {name: Binding(name, index, place) for name, index in zip(op.operands, sources, strict=True)}
        results = inside._results_of_body(op, Frame(scope, weights.words, place))
        self.warnings += inside.warnings
        if results is None or UNFIT in results:
            return None
        count = sum(feature is not None for feature in features)
        return SharedExpansion(tuple(inside.layers.applications), count, tuple(results))

    def _misfit(self, weights: WeightSet, features: Operands, place: Span) -> None:
        first = weights.first
        assert first is not None
        pairs = zip(weights.op.operands, features, first.features, strict=True)
        widths = [(name, 0 if a is None else a.width, 0 if b is None else b.width) for name, a, b in pairs]
        name, width, before = next((w for w in widths if w[1] != w[2]), widths[0])
        self.problems.append(types.shared_misfit(place, weights.op.name, name, width, first.place, before))

    def _block(
        self, block: Block, call: Call, settings: tuple[ast.Setting, ...], frame: Frame, path: str, home: Vocabulary | None
    ) -> list[int] | None:
        count = len(block.operands)
        operands = self._operands(call, count, count, frame, path, home, block)
        words = self._words_of_call(block, settings, frame.words)
        if words is None or operands is None:
            return None
        if block.broken or UNFIT in operands:
            return [UNFIT] * len(block.definition.results)
        before = len(self.problems)
        body = body_of_block(block, words, self.problems)
        layers = self.layers
        if len(layers.applications) + max(body.weight, block.weight) > MAX_LAYERS:
            layers.too_many(call.span)
            return None
        self._block_calls += 1
        self._depth += 2  # a block takes more of the interpreter's stack than an op
        prefix = layers.reserve(f"{path}.{block.name}" if path else block.name) + "."
        scope = {name: Binding(name, i, call.span) for name, i in zip(body.parameters, operands, strict=True)}
        owner, groups, statement = layers.owner, layers.groups, layers.statement
        inner_groups = (*groups, Group("block", prefix[:-1], statement or call.span))
        results = self.run_block(body, Frame(scope, words, frame.site or call.span, inner_groups), prefix, block.home)
        layers.owner, layers.groups, layers.statement = owner, groups, statement
        if frame.site is None:
            show_at_call(self.problems, before, call.span)
        self._depth -= 2
        return results
