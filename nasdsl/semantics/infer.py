"""Inference: the layers of straight-line statements, with level and width of every value.

Ops and blocks are expanded where they are called. The same code serves a decoder, a space (whose slots stay open: what
depends on them is not known) and one filling of a space (whose slots are filled with given alternatives).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import holes, lints, names, structure, types
from nasdsl.layers import Features
from nasdsl.semantics import attributes, expansion_cache, primitives
from nasdsl.semantics.architecture import Group
from nasdsl.semantics.attributes import Environment, Unknown
from nasdsl.semantics.builder import MAX_LAYERS, NOTHING, UNFIT
from nasdsl.semantics.distinct import has_same_operands
from nasdsl.semantics.elaborate_body import body_of_block, body_of_op
from nasdsl.semantics.elaborate_expression import MAX_CALLS, show_at_call
from nasdsl.semantics.expansion_cache import LARGE, StatementCache
from nasdsl.semantics.infer_scope import Binding, Frame
from nasdsl.semantics.infer_shared import SharedInference
from nasdsl.semantics.primitives import Primitive
from nasdsl.semantics.program import (
    Assign,
    Body,
    Call,
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
from nasdsl.semantics.signature import accepted, call_with_attribute, default_words
from nasdsl.semantics.vocabulary import Block, Definition, Op, Vocabulary
from nasdsl.syntax import ast


class Inference(SharedInference):
    """Infers the layers of one section, or of one layer of a head.

    Args:
        problems, indices: as of `PrimitiveInference`.
    """

    def __init__(self, problems: list[Diagnostic], indices: Sequence[int] | None = None) -> None:
        super().__init__(problems, indices)
        self._block_calls = 0
        self._is_kept = False  # what is expanded now is a part of a call whose layers will be kept

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
            cache = statement.cache
            index = self._expanded(value, frame, path, home) if cache is None else self._kept(cache, value, frame, path)
            return [] if first is None else [(first.name, Binding(first.source, index, first.span))]
        results: list[int] | None = None
        if type(value) is Call:
            self.layers.own(path, op, "block", statement.span)
            results = self.call(value, frame, path if self.is_shared(value) else prefix.rstrip("."), home)
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

    def _expanded(self, value: Operand, frame: Frame, path: str, home: Vocabulary | None) -> int:
        """Index of the application that computes the value of an assignment."""
        return self.something(self.expand(value, frame, path, home), value.span)

    def _kept(self, cache: StatementCache, value: Operand, frame: Frame, path: str) -> int:
        """As `_expanded`, of a statement of the fpn that is kept."""
        scope, layers = frame.scope, self.layers
        built, read = layers.applications, [scope[name] for name in cache.values if name in scope]
        operands = [binding.index for binding in read]
        others = [scope[name].index for name in cache.levels if name in scope]
        seen = [*operands, *others] if others else operands
        is_whole = len(read) == len(cache.values) and len(others) == len(cache.levels)
        if not is_whole or UNFIT in seen or NOTHING in seen or len(set(operands)) < len(operands):
            return self._expanded(value, frame, path, None)
        key = path, frame.all_words, *[built[i].feature for i in seen]
        known = cache.find(key)
        index = None if known is None else layers.replay_statement(known, operands)
        if index is not None:
            for binding in read:
                binding.is_read = True
            return index
        first, before, warned, blocks = len(built), len(self.problems), len(self.warnings), self._block_calls
        layers.record()
        index = self._expanded(value, frame, path, None)
        taken = layers.recorded(is_kept=True)
        is_right = before == len(self.problems) and warned == len(self.warnings) and blocks == self._block_calls
        if taken is not None and is_right and index != UNFIT:
            cache.remember(key, built[first:], first, operands, index, taken)
        return index

    def _results_attribute(self, call: Call) -> str:
        """The attribute of a primitive that says how many values the call gives; empty where there is none."""
        target = self.target(call)
        return target.callee.results_of if type(target.callee) is Primitive else ""

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
            return self.look_up(operand, frame, home)  # type: ignore[arg-type]  # `kind` says so
        if kind is not Call:
            return NOTHING if kind is Nothing else UNFIT
        assert isinstance(operand, Call)
        if self.depth >= MAX_CALLS:
            if not self.layers.is_full:
                self.layers.is_full = True
                self.problems.append(structure.calls_too_deep(frame.site or operand.span, MAX_CALLS))
            return UNFIT
        self.depth += 1
        results = self.call(operand, frame, path, home)
        self.depth -= 1
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
            return self.shared_call(callee, call, settings, frame, path, home)
        if type(callee) is Op:
            index = self._op(callee, call, settings, frame, path, home)
        elif type(callee) is Primitive:
            index = self.primitive(callee, call, settings, frame, path, home)
            several = None if index in (UNFIT, NOTHING) else self.layers.applications[index].feature
            if isinstance(several, Features):
                return self.results(index, len(several.results), call, path, frame)
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

    # -------------------------------------------------------------------------------------- ops and blocks

    def _op(
        self, op: Op, call: Call, settings: tuple[ast.Setting, ...], frame: Frame, path: str, home: Vocabulary | None
    ) -> int:
        count = len(op.operands)
        operands = self.operands(call, count, count, frame, path, home, op)
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
            known = op.expansions.find(key)
            if known is not None and self.depth <= known.depth and len(built) + len(known.steps) <= MAX_LAYERS:
                return layers.replay(known, operands, path, site)
        body = op.body if op.body is not None else body_of_op(op)
        if len(built) + op.weight > MAX_LAYERS:
            layers.too_many(call.span)
            return UNFIT
        if inner is None:
            inner = self._words_of_call(op, (), frame.words)
            assert inner is not None
        scope = {name: Binding(name, index, call.span) for name, index in zip(op.operands, operands, strict=True)}
        first, before, blocks, within = len(built), len(self.problems), self._block_calls, self._is_kept
        keeps_large = not within and key is not None and op.expansions.is_repeated(key)
        self._is_kept = within or keeps_large
        result = self.expand(body, Frame(scope, inner, site), path, op.home)
        self._is_kept = within
        if key is not None and result not in (UNFIT, NOTHING) and before == len(self.problems) and blocks == self._block_calls:
            if len(built) - first < LARGE or keeps_large:
                op.expansions.remember(key, expansion_cache.record(built[first:], first, operands, result, path, self.depth))
            else:
                op.expansions.note(key)
        if frame.site is None:
            show_at_call(self.problems, before, call.span)
        return result

    def _words_of_call(self, op: Definition, settings: tuple[ast.Setting, ...], words: Environment) -> dict[str, Any] | None:
        """What words mean in a body: the section's attributes, and those of the op or block. None: a mistake was reported."""
        inner = default_words(op, words, self.problems)
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

    def _block(
        self, block: Block, call: Call, settings: tuple[ast.Setting, ...], frame: Frame, path: str, home: Vocabulary | None
    ) -> list[int] | None:
        count = len(block.operands)
        operands = self.operands(call, count, count, frame, path, home, block)
        words = self._words_of_call(block, settings, frame.words)
        if words is None or operands is None:
            return None
        if block.broken or UNFIT in operands:
            return [UNFIT] * len(block.definition.results)
        before, warned = len(self.problems), len(self.warnings)
        body = body_of_block(block, words, self.problems)
        layers = self.layers
        if layers.is_full or len(layers.applications) + max(body.weight, block.weight) > MAX_LAYERS:
            layers.too_many(call.span)
            return None
        self._block_calls += 1
        self.depth += 2  # a block takes more of the interpreter's stack than an op
        prefix = layers.reserve(f"{path}.{block.name}" if path else block.name) + "."
        scope = {name: Binding(name, i, call.span) for name, i in zip(body.parameters, operands, strict=True)}
        owner, groups, statement = layers.owner, layers.groups, layers.statement
        inner_groups = (*groups, Group("block", prefix[:-1], statement or call.span))
        site = frame.site or call.span
        built, first, first_value = layers.applications, len(layers.applications), len(layers.values)
        key: expansion_cache.Key | None = None
        results: list[int] | None = None
        if not block.has_slots and NOTHING not in operands and len(set(operands)) == count:
            key = (tuple(words.items()), *[built[i].feature for i in operands])
            known = block.expansions.find(key)
            if known is not None and self.depth <= known.depth and layers.has_room(len(known.steps), len(known.values)):
                results = layers.replay_block(known, operands, prefix, inner_groups, site)
        if results is None:
            within = self._is_kept
            keeps_large = not within and key is not None and block.expansions.is_repeated(key)
            self._is_kept = within or keeps_large
            if key is not None:
                layers.record()
            results = self.run_block(body, Frame(scope, words, site, inner_groups), prefix, block.home)
            self._is_kept = within
            if key is not None:
                is_kept = keeps_large or max(len(built) - first, len(layers.values) - first_value) < LARGE
                taken = layers.recorded(is_kept=is_kept)
                is_right = len(self.problems) == before and len(self.warnings) == warned and not layers.is_full
                if not is_kept:
                    block.expansions.note(key)
                elif taken is not None and is_right and UNFIT not in results and NOTHING not in results:
                    added, count = layers.added(first, first_value, taken), len(inner_groups)
                    known = expansion_cache.record_block(added, operands, results, prefix, layers.root, count, self.depth)
                    block.expansions.remember(key, known)
        layers.owner, layers.groups, layers.statement = owner, groups, statement
        if frame.site is None:
            show_at_call(self.problems, before, call.span)
        self.depth -= 2
        return results
