"""What an op or a block takes, read off its body, and what words mean in it."""

from __future__ import annotations

from collections.abc import Mapping

from nasdsl.diagnostics import Diagnostic
from nasdsl.diagnostics.catalogue.other_names import same_attribute
from nasdsl.semantics import primitives
from nasdsl.semantics.attributes import DEFERRED, Accepts, Environment, Unknown, Value, evaluate
from nasdsl.semantics.primitives import Primitive
from nasdsl.semantics.program import Call
from nasdsl.semantics.vocabulary import Block, Definition, Op
from nasdsl.syntax import ast


def default_words(callee: Definition, words: Environment, problems: list[Diagnostic]) -> dict[str, Value | Unknown]:
    """What words mean in the body of an op or a block that is called without attributes, where `words` mean what they do.

    The attributes of the section stay what they are, and its own have their defaults, which may name those of the section.
    """
    section = {name: words[name] for name in primitives.SECTION if name in words}
    if not callee.attributes:
        return section
    return section | {name: evaluate(default, section, problems) for name, default in callee.attributes.items()}


def words_of_call(callee: Definition, settings: tuple[ast.Setting, ...], words: Environment) -> dict[str, Value | Unknown]:
    """What words mean in the body of what is called with these attributes; mistakes in them are not looked for."""
    given = {s.name: evaluate(s.value, words, []) for s in settings if s.name in callee.attributes}
    return default_words(callee, words, []) | given


def accepted(callee: Definition) -> Mapping[str, Accepts]:
    """What those attributes of an op or a block accept that its body passes on as they are; others may be anything.

    Such an attribute accepts what the primitive does that it is passed to.
    """
    if callee.accepts is None:
        callee.accepts = {}  # what an op that calls itself sees
        found: dict[str, Accepts] = {}
        if isinstance(callee, Op):
            _collect(callee.definition.body, callee, found)
        elif callee.attributes:
            _collect_of_statements(callee.definition.body, callee, found)
        callee.accepts = found
    return callee.accepts


def _collect_of_statements(statements: tuple[ast.Statement, ...], block: Block, found: dict[str, Accepts]) -> None:
    bound = {s.name if isinstance(s, ast.Let) else s.variable for s in statements if isinstance(s, ast.Let | ast.Repeat)}
    inner: dict[str, Accepts] = {}
    for statement in statements:
        if isinstance(statement, ast.Assign):
            _collect(statement.value, block, inner)
        elif isinstance(statement, ast.Repeat):
            _collect_of_statements(statement.body, block, inner)
    for name, accepts in inner.items():
        if name not in bound:  # which may mean something else
            found.setdefault(name, accepts)


def _collect(operand: ast.Operand | ast.Attribute, op: Definition, found: dict[str, Accepts]) -> None:
    if not isinstance(operand, ast.Call):
        return
    for inner in operand.operands:
        _collect(inner, op, found)
    if not isinstance(operand.callee, str):
        return
    definition = op.home.find(operand.callee)
    primitive = primitives.find(operand.callee) if definition is None else None
    takes: Mapping[str, Accepts] = {}
    if definition is not None:
        takes = accepted(definition)
    elif primitive is not None:
        takes = primitive.attributes
    for constant in (takes[name] for name in primitives.CONSTANTS if name in takes):
        for number in operand.operands:
            if isinstance(number, ast.Reference) and number.name in op.attributes:
                found.setdefault(number.name, constant)
    given = {s.name: s.value.name for s in operand.settings if isinstance(s.value, ast.Reference) and s.value.index is None}
    unset = {name for name in takes if not any(s.name == name for s in operand.settings)}
    for name, accepts in takes.items():
        word = accepts.default if name in unset and primitive is not None else given.get(name)
        if isinstance(word, str) and word in op.attributes and accepts.kind not in DEFERRED:
            found.setdefault(word, accepts)


def call_of_any_number(op: Op, call: Call) -> str:
    """A call with more operands than its op takes, as one of the primitive that is all of the op: ``add(a, b, c)``.

    Empty where the op is something else.
    """
    body, primitive = op.definition.body, _primitive_of(op)
    if primitive is None or not isinstance(body, ast.Call) or body.settings or call.settings:
        return ""
    if _names(body) != op.operands or not len(op.operands) < len(call.operands) <= primitive.most:
        return ""
    return f"{primitive.name}({', '.join(operand.span.text for operand in call.operands)})"


def call_with_attribute(op: Op, setting: ast.Setting) -> str:
    """A call of the primitive that is all of an op, with an attribute that the op does not have: ``conv(…, k=3, stride=2)``.

    Empty where the op is something else, or its primitive has no such attribute.
    """
    body, primitive = op.definition.body, _primitive_of(op)
    if primitive is None or not isinstance(body, ast.Call):
        return ""
    name = same_attribute(setting.name, primitive.attributes)
    if name is None:
        return ""
    fixed = {s.name: s.value.span.text for s in body.settings if not _is_passed_on(s, op)}
    fixed[name] = setting.value.span.text
    return f"{primitive.name}({', '.join(['…', *(f'{k}={v}' for k, v in fixed.items())])})"


def _primitive_of(op: Op) -> Primitive | None:
    """The primitive that an op's body is one call of, with nothing but the op's operands."""
    body = op.definition.body
    if not isinstance(body, ast.Call) or not isinstance(body.callee, str) or op.home.find(body.callee) is not None:
        return None
    return primitives.find(body.callee) if _names(body) else None


def _names(call: ast.Call) -> tuple[str, ...]:
    """The operands of a call; empty where one is more than a name."""
    names = [o.name for o in call.operands if isinstance(o, ast.Reference) and o.index is None]
    return tuple(names) if len(names) == len(call.operands) else ()


def _is_passed_on(setting: ast.Setting, op: Op) -> bool:
    """Whether the value of an attribute is the op's attribute of the same name: ``width=width``."""
    value = setting.value
    return (
        isinstance(value, ast.Reference) and value.name == setting.name and value.name in {*op.attributes, *primitives.SECTION}
    )
