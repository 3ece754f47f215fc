"""What the statements and expressions of bodies cost: those of an fpn, and of the blocks and ops that it calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from nasdsl.diagnostics import Diagnostic
from nasdsl.layers import Features
from nasdsl.semantics import primitives
from nasdsl.semantics.builder import NOTHING
from nasdsl.semantics.conditions import holds
from nasdsl.semantics.distinct import has_same_operands
from nasdsl.semantics.elaborate_body import body_of_block
from nasdsl.semantics.infer import Inference
from nasdsl.semantics.infer_scope import Frame
from nasdsl.semantics.primitives import Primitive
from nasdsl.semantics.program import Assign, Call, Nothing, Ref, SetWord, Shared, Slot, Statement, Target, When, chosen
from nasdsl.semantics.shared_weights import Shape, WeightSet, add_shape
from nasdsl.semantics.signature import accepted, default_words
from nasdsl.semantics.vocabulary import Block, Definition, Op, Vocabulary
from nasdsl.spaces.figures_ops import (
    NOTHING_FEATURE,
    NOTHING_VALUE,
    WORDS,
    CountedValue,
    OpCounter,
    Unbuildable,
    Words,
    word_of,
)
from nasdsl.syntax import ast

_NONE: Final = primitives.PRIMITIVES[primitives.NONE]


class BodyCounter:
    """Values of one fpn while its statements are counted, those of the blocks and ops that it calls included.

    Attributes:
        shared: weights of the `shared` ops that can be called, by identity of the op.
        shapes: of their layers, by path.
        tied: of a value: path and number of parameters that it has in common with others.
        bodies: how many blocks have been counted.
        words, key: ``width``, ``norm`` and ``act``.
        values: in order; `names` are their indices in the body that is counted.
        read: values that something reads, one bit each.
    """

    __slots__ = (
        "applied", "bodies", "home", "indices", "key", "names", "ops", "read", "shapes", "shared", "tied", "values", "words",
    )  # fmt: skip

    def __init__(self, ops: OpCounter, words: Words, indices: Sequence[int]) -> None:
        self.ops = ops
        self.home: Vocabulary | None = None  # of the op whose body is counted
        self.applied = ops.applied
        self.words = words
        self.indices = indices
        self.key = tuple(words.items())
        self.values: list[CountedValue] = []
        self.names: dict[str, int] = {}
        self.shared: dict[int, WeightSet] = {}
        self.shapes: dict[str, Shape] = {}
        self.tied: dict[int, tuple[str, int]] = {}
        self.bodies = 0
        self.read = 0

    def add(self, value: CountedValue) -> int:
        self.values.append(value)
        return len(self.values) - 1

    # ------------------------------------------------------------------------------------------ statements

    def assign(self, statement: Assign) -> list[tuple[str, int]]:
        targets = statement.targets
        if len(targets) == 1:
            value = statement.value
            # A name for another value is a value of its own: each may dangle.
            return [(targets[0].name, self.add(something(self.expression(value))))]  # type: ignore[union-attr]  # it has checked
        call: Any = chosen(statement.value, self.indices)
        target = chosen(call.target, self.indices) if type(call) is Call else None
        if target is not None and call.is_distinct and has_same_operands(call, self.indices):
            raise Unbuildable
        if target is not None and type(target.callee) is Primitive:
            return self._results(call, targets)
        if target is not None and type(target.callee) is Op and target.callee.is_shared:
            found = self._shared_call(target, call.settings, [self.expression(o) for o in call.operands])
            found = found * len(targets) if found == [NOTHING_VALUE] else found
            if len(found) != len(targets):
                raise Unbuildable
            return [(t.name, self.add(something(value))) for t, value in zip(targets, found, strict=True)]  # type: ignore[union-attr]  # it has checked
        if target is None or type(target.callee) is not Block:
            raise Unbuildable
        settings = target.settings + call.settings
        results = self._run_block(target, settings, [self.add(self.expression(o)) for o in call.operands])
        if len(results) != len(targets):
            raise Unbuildable
        # A result of a block that is an operand, or two results that are one value, are values of their own too.
        return [
            (t.name, self.add(something((self.values[i][0], 1 << i, 0))))  # type: ignore[union-attr]  # it has checked
            for t, i in zip(targets, results, strict=True)
        ]

    def _results(self, call: Call, targets: Sequence[Any]) -> list[tuple[str, int]]:
        """The results of a primitive that gives several."""
        value = self.call(call)
        index, several = self.add(value), value[0]
        if not isinstance(several, Features) or len(several.results) != len(targets):
            raise Unbuildable
        return [(t.name, self.add((x, 1 << index, 0))) for t, x in zip(targets, several.results, strict=True)]

    def _run_block(self, target: Target, settings: tuple[ast.Setting, ...], operands: list[int]) -> list[int]:
        """Count the statements of a block; gives the indices of its results."""
        block: Any = target.callee
        problems: list[Diagnostic] = []
        words = self._words_of_call(block, settings)
        body = body_of_block(block, words, problems)
        if problems or len(operands) != len(body.parameters):
            raise Unbuildable
        outer = self.names, self.words, self.key, self.read, self.home
        self.words, self.key, self.home = words, tuple([(n, words[n]) for n in WORDS]), block.home
        self.names = dict(zip(body.parameters, operands, strict=True))
        self.bodies += 1
        self._run_body(body.statements, self.bodies)
        results = []
        for result in body.results:
            if type(result) is not Ref:
                result = chosen(result, self.indices)
            if result is None:
                raise Unbuildable
            results.append(self.names[result.name])
        self.names, self.words, self.key, self.read, self.home = outer
        return results

    def _run_body(self, statements: tuple[Statement, ...], number: int) -> None:
        """Count the statements of a block; `number` is that of the call among the calls of blocks."""
        for statement in statements:
            if type(statement) is Assign:
                for name, index in self.assign(statement):
                    self.names[name] = index
            elif type(statement) is SetWord:
                self.set_word(statement)
            elif type(statement) is Shared:
                self.share(statement, number)
            elif type(statement) is When and holds(statement.condition, self.indices):
                self._run_body(statement.statements, number)

    def share(self, statement: Shared, body: int) -> None:
        """Begin the weights of a `shared` op; `body` tells the calls of a block apart."""
        op = statement.op
        root = f"{body}/{id(op)}"
        at = (id(op), tuple(self.words.items()))
        if op.has_slots or at not in self.ops.sound:
            problems: list[Diagnostic] = []
            inference = Inference(problems, self.indices)
            inference.shared = self.shared
            inference.share(statement, Frame({}, self.words, None), "")
            if op.broken or any(p.severity == "error" for p in problems):
                raise Unbuildable
            self.ops.sound.add(at)
        self.shared[id(op)] = WeightSet(op, root, self.words)

    def _shared_call(
        self, target: Target, settings: tuple[ast.Setting, ...], operands: list[CountedValue]
    ) -> list[CountedValue]:
        """Count the layers of a call of a `shared` op, each as a value; gives its results."""
        op: Any = target.callee
        weights = self.shared.get(id(op))
        if settings or target.settings or weights is None or len(operands) != len(op.operands):
            raise Unbuildable
        features = tuple([o[0] for o in operands])
        at = (id(op), weights.root, tuple(weights.words.items()), features)
        found = None if op.has_slots else self.ops.expanded.get(at)
        if found is None:
            found = self.ops.expand_shared(op, self.shared, features, self.indices)
            if found is None:
                raise Unbuildable
            if not op.has_slots:
                self.ops.expanded[at] = found
        places = [self.add(o) for o in operands]
        for layer in found.layers:
            reads = 0
            for i in layer.inputs:
                reads |= 1 << places[i]
            index = self.add((layer.out, reads, layer.macs))
            places.append(index)
            node = layer.node
            if node.shared and not add_shape(self.shapes, node.shared, node.layer, node.operands, node.out):
                raise Unbuildable
            self.tied[index] = node.shared or f"{index}", layer.params
        made = [None if i == NOTHING else places[i] for i in found.results]
        return [NOTHING_VALUE if i is None else (self.values[i][0], 1 << i, 0) for i in made]

    def set_word(self, statement: SetWord) -> None:
        value = statement.value
        if type(value) is Slot and isinstance(chosen(value, self.indices), ast.Call):
            raise Unbuildable  # `let k = conv(k=3)` is no text
        if statement.name in primitives.SECTION:
            words = self.words = {**self.words, statement.name: word_of(value, self.words, self.indices)}
            self.key = tuple([(n, words[n]) for n in WORDS])

    # ----------------------------------------------------------------------------------------- expressions

    def expression(self, node: Any) -> CountedValue:
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
                return NOTHING_VALUE
            raise Unbuildable
        value = self.call(node)
        if type(value[0]) is Features:
            raise Unbuildable  # it is several values
        return value

    def call(self, node: Call) -> CountedValue:
        """The value of a call; of a primitive with several results, with the shapes of all of them."""
        indices = self.indices
        if node.is_distinct and has_same_operands(node, indices):
            raise Unbuildable
        target: Any = node.target
        while type(target) is Slot:
            target = target.alternatives[indices[target.decision.number]]
        settings = target.settings + node.settings if target.settings else node.settings
        if type(target.callee) is str:
            target = self._passed_op(target)
        if target.callee is _NONE:
            if target.settings or node.settings:
                raise Unbuildable
            return NOTHING_VALUE
        operands = [self.expression(o) for o in node.operands]
        callee = target.callee
        if type(callee) is Block or (type(callee) is Op and (callee.has_slots or callee.is_shared)):
            return self._expanded(target, settings, operands)
        given = self._settings(settings) if settings else ()
        at = (id(callee), given, tuple([o[0] for o in operands]), self.key, (), 1)
        found = self.applied.get(at)
        out, used, total = self.ops.apply(target, *at[1:5], indices) if found is None else found
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
            raise Unbuildable
        return target._replace(callee=callee)

    def _expanded(self, target: Target, settings: tuple[ast.Setting, ...], operands: list[CountedValue]) -> CountedValue:
        """A block, or an op with slots: its body is counted here."""
        if type(target.callee) is Block:
            results = self._run_block(target, settings, [self.add(o) for o in operands])
            if len(results) != 1:
                raise Unbuildable
            return self.values[results[0]][0], 1 << results[0], 0
        op: Any = target.callee
        if op.is_shared:
            found = self._shared_call(target, settings, operands)
            if len(found) != 1:
                raise Unbuildable
            return found[0]
        if len(operands) != len(op.operands):
            raise Unbuildable
        inner = self._words_of_call(op, settings)
        outer = self.names, self.words, self.key, self.read, self.home
        self.home = op.home
        self.names = dict(zip(op.operands, [self.add(o) for o in operands], strict=True))
        self.words, self.key = inner, tuple([(n, inner[n]) for n in WORDS])
        index = self.add(self.expression(op.body))
        self.names, self.words, self.key, self.read, self.home = outer
        return self.values[index][0], 1 << index, 0

    def _words_of_call(self, callee: Definition, settings: tuple[ast.Setting, ...]) -> Words:
        """What words mean in the body of what is called with these attributes."""
        given = dict(self._settings(settings)) if settings else {}
        words = default_words(callee, self.words, []) | given
        if len(given) < len(settings) or not given.keys() <= callee.attributes.keys():
            raise Unbuildable
        accepts = accepted(callee)
        if any(name in accepts and not accepts[name].takes(value) for name, value in given.items()):
            raise Unbuildable
        return words

    def _settings(self, settings: tuple[ast.Setting, ...]) -> tuple[tuple[str, Any], ...]:
        """Attributes of a call; a value that ``to=`` names becomes its level."""
        made = []
        for setting in settings:
            value: Any = chosen(setting.value, self.indices)
            if setting.name == "to" and type(value) is ast.Reference and value.name in self.names:
                level = self.values[self.names[value.name]][0].level
                if level is None:
                    raise Unbuildable
                made.append(("to", level))
            else:
                made.append((setting.name, word_of(value, self.words, self.indices)))
        return tuple(made)


def something(value: CountedValue) -> CountedValue:
    if value[0] is NOTHING_FEATURE:
        raise Unbuildable
    return value
