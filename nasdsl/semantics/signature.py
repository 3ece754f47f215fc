"""What the attributes of an op accept, read off its body: an attribute accepts what the primitive does that it is passed to."""

from __future__ import annotations

from collections.abc import Mapping

from nasdsl.semantics import primitives
from nasdsl.semantics.attributes import DEFERRED, Accepts
from nasdsl.semantics.vocabulary import Op
from nasdsl.syntax import ast


def accepted(op: Op) -> Mapping[str, Accepts]:
    """What those attributes of an op accept that its body passes on as they are; others may be anything."""
    if op.accepts is None:
        op.accepts = {}  # what an op that calls itself sees
        found: dict[str, Accepts] = {}
        _collect(op.definition.body, op, found)
        op.accepts = found
    return op.accepts


def _collect(operand: ast.Operand, op: Op, found: dict[str, Accepts]) -> None:
    if not isinstance(operand, ast.Call):
        return
    for inner in operand.operands:
        _collect(inner, op, found)
    if not isinstance(operand.callee, str):
        return
    definition = op.home.find(operand.callee)
    primitive = primitives.find(operand.callee) if definition is None else None
    takes: Mapping[str, Accepts] = {}
    if isinstance(definition, Op):
        takes = accepted(definition)
    elif primitive is not None:
        takes = primitive.attributes
    given = {s.name: s.value.name for s in operand.settings if isinstance(s.value, ast.Reference) and s.value.index is None}
    unset = {name for name in takes if not any(s.name == name for s in operand.settings)}
    for name, accepts in takes.items():
        word = accepts.default if name in unset and primitive is not None else given.get(name)
        if isinstance(word, str) and word in op.attributes and accepts.kind not in DEFERRED:
            found.setdefault(word, accepts)
