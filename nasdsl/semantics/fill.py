"""Indices into a template, and back: which alternative stands in each slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nasdsl.diagnostics import Span
from nasdsl.semantics.template import Slot, Template
from nasdsl.syntax import ast

_SPANS = frozenset({"span", "name_span", "callee_span", "detector_span", "quantity_span", "text"})


class NoMatch(Exception):
    """A text that the template cannot have given; holds the place."""

    def __init__(self, span: Span) -> None:
        super().__init__()
        self.span = span


# ------------------------------------------------------------------------------------------------- filling


def fill(template: Template, indices: Sequence[int]) -> ast.File:
    """The tree of the decoder in which each slot holds the alternative of its index.

    Definitions stand behind the decoder: which of them it needs is known once its own slots are filled.
    """
    definitions = [filled(d, indices) for d, parent in template.definitions if is_active(parent, template, indices)]
    decoder = filled(template.decoder, indices)
    return ast.File(decoder.span, (decoder, *definitions))


def is_active(parent: tuple[int, int] | None, template: Template, indices: Sequence[int]) -> bool:
    """Whether the alternative that something stands in is chosen."""
    while parent is not None:
        if indices[parent[0]] != parent[1]:
            return False
        parent = template.slots[parent[0]].parent
    return True


def chosen(node: Any, indices: Sequence[int]) -> Any:
    """What stands in a place of the tree: the node itself, or what its slot holds."""
    while type(node) is Slot:
        node = node.alternatives[indices[node.number]]
    return node


def filled(node: Any, indices: Sequence[int]) -> Any:
    """A piece of the tree with the chosen alternatives in its slots."""
    kind = type(node)
    if kind is tuple:
        return tuple([filled(part, indices) for part in node])
    if kind is Slot:
        return filled(chosen(node, indices), indices)
    if kind is ast.Call:
        callee, extra = called(node.callee, indices)
        operands = tuple([filled(o, indices) for o in node.operands])
        return replace(node, callee=callee, operands=operands, settings=filled(extra + node.settings, indices))
    if kind is ast.Step:
        callee, extra = called(node.operation, indices)
        return replace(node, operation=callee, settings=filled(extra + node.settings, indices))
    if not isinstance(node, ast.Node) or kind in (ast.Reference, ast.Number, ast.InputName, ast.Target):
        return node
    changed = {}
    for name in node.__dataclass_fields__:
        if name not in _SPANS:
            value = getattr(node, name)
            made = filled(value, indices)
            if made is not value:
                changed[name] = made
    return replace(node, **changed) if changed else node


def called(callee: Any, indices: Sequence[int]) -> tuple[str, tuple[ast.Setting, ...]]:
    """The name before the brackets, and the attributes that an alternative such as ``conv(k=3)`` brings along."""
    callee = chosen(callee, indices)
    if isinstance(callee, str):
        return callee, ()
    if isinstance(callee, ast.Call):
        assert isinstance(callee.callee, str)
        return callee.callee, callee.settings
    name: str = callee.name
    return name, ()


# ------------------------------------------------------------------------------------------------ matching


def match(template: Template, file: ast.File) -> list[int]:
    """The indices that fill a template to this tree; slots that stand in alternatives not chosen are 0.

    Raises:
        NoMatch: there are none; it holds the first place that differs.
    """
    indices = [0] * len(template.slots)
    decoder = next((i for i in file.items if isinstance(i, ast.Decoder)), None)
    if decoder is None:
        raise NoMatch(file.span)
    decoder = replace(decoder, items=tuple(i for i in decoder.items if not isinstance(i, ast.Require)))
    found = {i.name: i for i in file.items if isinstance(i, ast.OpDef | ast.BlockDef)}
    _match(template.decoder, decoder, indices)
    for definition, parent in reversed(template.definitions):  # a definition's slots decide on those it calls
        if is_active(parent, template, indices):
            if definition.name not in found:
                raise NoMatch(decoder.span)
            _match(definition, found.pop(definition.name), indices)
    if found:
        raise NoMatch(next(iter(found.values())).span)
    return indices


def _match(wanted: Any, node: Any, indices: list[int]) -> None:
    kind = type(wanted)
    if kind is Slot:
        _match_slot(wanted, node, indices)
    elif kind is tuple:
        if type(node) is not tuple or len(wanted) != len(node):
            raise NoMatch(_span_of(node, wanted))
        if wanted and isinstance(wanted[0], ast.Setting):  # attributes stand in any order
            wanted = tuple(sorted(wanted, key=lambda s: s.name))
            node = tuple(sorted(node, key=lambda s: s.name))
        for a, b in zip(wanted, node, strict=True):
            _match(a, b, indices)
    elif kind is ast.Call or kind is ast.Step:
        if type(node) is not kind:
            raise NoMatch(_span_of(node, wanted))
        _match_called(wanted, node, indices)
    elif isinstance(wanted, ast.Node):
        if type(node) is not kind:
            raise NoMatch(_span_of(node, wanted))
        for name in wanted.__dataclass_fields__:
            if name not in _SPANS:
                try:
                    _match(getattr(wanted, name), getattr(node, name), indices)
                except _Differs:
                    raise NoMatch(node.span) from None
    elif wanted != node:
        raise _Differs


class _Differs(Exception):
    """A plain value, which has no span of its own, is another one."""


def _span_of(node: Any, wanted: Any) -> Span:
    for part in (node, wanted):
        if isinstance(part, ast.Node):
            return part.span
        if isinstance(part, tuple) and part and isinstance(part[0], ast.Node):
            return part[0].span
    raise _Differs


def _match_slot(slot: Slot, node: Any, indices: list[int]) -> None:
    for index, alternative in enumerate(slot.alternatives):
        trial = list(indices)
        trial[slot.number] = index
        try:
            _match(alternative, node, trial)
        except (NoMatch, _Differs):
            continue
        indices[:] = trial
        return
    raise NoMatch(_span_of(node, slot))


def _match_called(wanted: Any, node: Any, indices: list[int]) -> None:
    """A call or a step: the name before the brackets may come from a slot, with attributes of its own."""
    callee = wanted.callee if type(wanted) is ast.Call else wanted.operation
    name = node.callee if type(node) is ast.Call else node.operation
    for choice, number in _callees(callee, indices):
        settings = choice.settings if isinstance(choice, ast.Call) else ()
        text = choice if isinstance(choice, str) else choice.callee if isinstance(choice, ast.Call) else choice.name
        if text != name or len(settings) + len(wanted.settings) != len(node.settings):
            continue
        trial = list(number)
        try:
            _match(settings + wanted.settings, node.settings, trial)
            if type(wanted) is ast.Call:
                _match(wanted.operands, node.operands, trial)
        except (NoMatch, _Differs):
            if choice is callee:
                raise
            continue
        indices[:] = trial
        return
    raise NoMatch(node.span)


def _callees(callee: Any, indices: list[int]) -> list[tuple[Any, list[int]]]:
    """What may stand before the brackets, each with the indices that put it there."""
    if type(callee) is not Slot:
        return [(callee, indices)]
    found = []
    for index, alternative in enumerate(callee.alternatives):
        trial = list(indices)
        trial[callee.number] = index
        found += _callees(alternative, trial)
    return found
