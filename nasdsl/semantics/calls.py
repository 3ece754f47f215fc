"""How often a decoder calls an op: what ``require count(dconv_3x3) <= 4`` limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from nasdsl.semantics import attributes, infer_fpn, infer_head, primitives
from nasdsl.semantics.elaborate_body import body_of_block, body_of_op
from nasdsl.semantics.primitives import Primitive
from nasdsl.semantics.program import (
    Assign,
    Call,
    Output,
    Program,
    SetWord,
    Statement,
    chosen,
    fill_settings,
    fill_value,
    present,
    present_steps,
    section_values,
)
from nasdsl.semantics.signature import words_of_call
from nasdsl.semantics.vocabulary import Block, Definition, Op, Vocabulary
from nasdsl.syntax import ast

_Words = dict[str, Any]


class CallCounter:
    """Counts the calls of ops, by name, in a decoder or in a filling of a space.

    A call counts as often as the straight-line statements have it: in each turn of a `repeat`, in the body of each op and block
    that is called, and once for each tower of a head with one chain for both. An adapter is a call for each input. Whether an
    output depends on it does not matter.

    Args:
        program: of the decoder or space.
        names: what to count.
    """

    def __init__(self, program: Program, names: Iterable[str]) -> None:
        self.program = program
        self.names = tuple(dict.fromkeys(names))
        self._known: dict[tuple[Any, ...], Counter[str]] = {}  # of bodies without slots

    def count(self, indices: Sequence[int] = ()) -> dict[str, int]:
        """Number of calls of each name; `indices` fill the slots."""
        walk = _Walk(self, indices)
        program = self.program
        found: Counter[str] = Counter()
        if program.fpn is not None:
            words = _section_words(program.fpn, infer_fpn.ATTRIBUTES, indices)
            adapter: Any = chosen(program.fpn.adapter, indices)
            if adapter is not None:
                for _ in program.inputs:
                    found += walk.called(adapter.callee, adapter.settings, words)
            found += walk.statements(program.fpn.statements, words, None)
        if program.head is not None:
            words = _section_words(program.head, infer_head.ATTRIBUTES, indices)
            for chain in program.head.chains:
                for step in present_steps(chain, indices):
                    calls = walk.call(step.call, words, None)
                    found += calls + calls if chain.label is None else calls
        return {name: found[name] for name in self.names}


class _Walk:
    """One count: `counter` has what is the same for all fillings."""

    def __init__(self, counter: CallCounter, indices: Sequence[int]) -> None:
        self.counter = counter
        self.indices = indices

    def statements(self, statements: tuple[Statement, ...], words: _Words, home: Vocabulary | None) -> Counter[str]:
        found: Counter[str] = Counter()
        for statement in present(statements, self.indices):
            if isinstance(statement, Assign | Output):
                found += self.operand(statement.value, words, home)
            elif isinstance(statement, SetWord) and statement.name in primitives.SECTION:
                value = attributes.evaluate(fill_value(statement.value, self.indices), words, [])
                words = {**words, statement.name: value}
        return found

    def operand(self, node: Any, words: _Words, home: Vocabulary | None) -> Counter[str]:
        node = chosen(node, self.indices)
        return self.call(node, words, home) if isinstance(node, Call) else Counter()

    def call(self, call: Call, words: _Words, home: Vocabulary | None) -> Counter[str]:
        target = chosen(call.target, self.indices)
        callee: Any = target.callee
        if isinstance(callee, str):  # an attribute that names an op
            name: Any = words.get(callee)
            callee = (home.find(name) if home is not None else None) or primitives.find(name) if isinstance(name, str) else None
        found: Counter[str] = Counter()
        if isinstance(callee, Primitive) and callee.name == primitives.NONE:
            return found  # what it stands before is not there
        for operand in call.operands:
            found += self.operand(operand, words, home)
        settings = fill_settings((*target.settings, *call.settings), self.indices)
        return found + self.called(callee, settings, words)

    def called(self, callee: Any, settings: tuple[ast.Setting, ...], words: _Words) -> Counter[str]:
        """A call of this, with what its body calls."""
        if not isinstance(callee, Op | Block | Primitive):
            return Counter()
        found: Counter[str] = Counter([callee.name]) if callee.name in self.counter.names else Counter()
        if isinstance(callee, Primitive):
            return found
        is_shared = isinstance(callee, Op) and callee.is_shared  # whose body reads what is around it
        inner = words if is_shared else words_of_call(callee, settings, words)
        if callee.has_slots:
            return found + self._body(callee, inner)
        key = (id(callee), *inner.values())
        known = self.counter._known.get(key)
        if known is None:
            known = self.counter._known[key] = self._body(callee, inner)
        return found + known

    def _body(self, callee: Definition, words: _Words) -> Counter[str]:
        if isinstance(callee, Op):
            return self.operand(body_of_op(callee), words, callee.home)
        return self.statements(body_of_block(callee, words, []).statements, words, callee.home)


def _section_words(section: Any, accepted: Any, indices: Sequence[int]) -> _Words:
    values = section_values(section, accepted, [], indices)
    return {name: values[name] for name in primitives.SECTION}
