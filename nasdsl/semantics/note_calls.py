"""What the names of a call refer to, entered in a table of names: what is called, its attributes, words among their values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from nasdsl.diagnostics import Span
from nasdsl.semantics import primitives
from nasdsl.semantics.attributes import Accepts
from nasdsl.semantics.primitives import Primitive
from nasdsl.semantics.program import Slot, Target
from nasdsl.semantics.signature import accepted
from nasdsl.semantics.vocabulary import Block, Op
from nasdsl.syntax import ast

if TYPE_CHECKING:
    from nasdsl.semantics.elaborate_attribute import AttributeElaborator

_OF_VALUES = ("feature", "value")
"""Kinds of attribute whose value is that of a body, which is entered where it is read."""


def note_callee(body: AttributeElaborator, name: str, span: Span) -> bool:
    """Enter what a name before brackets, or one that stands for an op, refers to. Returns whether there is something."""
    names = body.names
    assert names is not None
    shared: Mapping[str, Target] = getattr(body, "shared", {})
    definition: Any = shared[name].callee if name in shared else body.vocabulary.find(name)
    if definition is not None:
        names.use(span, names.definition(definition.definition))
        return True
    primitive = primitives.find(name)
    symbol = body.word_symbols.get(name) if primitive is None else names.built_in("primitive", name, primitive)
    if symbol is not None:
        names.use(span, symbol)
    return symbol is not None


def note_call(
    body: AttributeElaborator, callee: str | ast.Hole, span: Span, target: Target | Slot, settings: tuple[ast.Setting, ...]
) -> None:
    """Enter the names of a call, its operands aside; `target` is what its callee means."""
    if isinstance(callee, str):
        note_callee(body, callee, span)
    for setting in settings:
        _note_setting_of_call(body, setting, target)


def _note_setting_of_call(body: AttributeElaborator, setting: ast.Setting, target: Target | Slot) -> None:
    names = body.names
    assert names is not None
    if not names.is_first(setting.name_span):  # a copy of what is entered already, or a further turn of it
        return
    accepts: Accepts | None = None
    is_known = False
    for called in _targets(target):
        callee = called.callee
        if isinstance(callee, Op | Block):
            symbol = names.parameter(callee.definition, setting.name)
            takes = accepted(callee).get(setting.name)
        elif isinstance(callee, Primitive) and setting.name in callee.attributes:
            takes = callee.attributes[setting.name]
            symbol = names.built_in("setting", setting.name, takes, callee.name)
        else:
            continue
        accepts = accepts or takes
        if symbol is not None:
            is_known = True
            names.use(setting.name_span, symbol)
    if not is_known:
        names.use(setting.name_span, names.built_in("setting", setting.name))
    note_words(body, setting.value, accepts, setting.name)


def note_section(
    body: AttributeElaborator, settings: tuple[ast.Setting, ...], accepted: Mapping[str, Accepts], owner: str
) -> None:
    """Enter the attributes of a section, of ``predict`` or ``detector``, and the words among their values."""
    names = body.names
    assert names is not None
    for setting in settings:
        accepts = accepted.get(setting.name)
        names.use(setting.name_span, names.built_in("setting", setting.name, accepts, owner))
        note_words(body, setting.value, accepts, setting.name)


def note_words(body: AttributeElaborator, value: Any, accepts: Accepts | None, owner: str, depth: int = 0) -> None:
    """Enter the words of an attribute's value that no text binds: ops, and words that the attribute accepts."""
    names = body.names
    assert names is not None
    if isinstance(value, ast.ChoiceHole):
        for alternative in value.alternatives:
            note_words(body, alternative, accepts, owner, depth + 1)
    elif isinstance(value, ast.NamedHole):
        choice = body.vocabulary.find_choice(value.name)
        for alternative in () if choice is None or depth > 8 else choice.alternatives:
            note_words(body, alternative, accepts, owner, depth + 1)
    elif isinstance(value, ast.Reference) and value.index is None and value.name != primitives.OWN_WIDTH:
        if value.name in body.word_symbols or value.name in primitives.SECTION:
            return  # `attribute` enters it
        if accepts is not None and accepts.kind in _OF_VALUES:
            return
        if accepts is None and value.name in body.value_symbols:
            names.use(value.span, body.value_symbols[value.name])
            return
        is_word = accepts is not None and (value.name in accepts.words or accepts.kind in ("flag", "name", "word"))
        if is_word or not note_callee(body, value.name, value.span):
            names.use(value.span, names.built_in("word", value.name, accepts, owner))


def _targets(target: Target | Slot) -> Iterator[Target]:
    if isinstance(target, Target):
        yield target
    else:
        for alternative in target.alternatives:
            if isinstance(alternative, Target | Slot):
                yield from _targets(alternative)
