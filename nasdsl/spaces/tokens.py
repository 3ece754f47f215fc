"""The tokens that may follow a prefix of a filled text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from nasdsl.diagnostics import Diagnostic, Source
from nasdsl.spaces.syntax_tree import Tree, TreeSlot
from nasdsl.syntax import ast
from nasdsl.syntax.lexer import scan
from nasdsl.syntax.printer import print_expression, print_file

_MARK = "slot__"


class Choice(NamedTuple):
    """A slot among the tokens: its number, and the items of each alternative."""

    number: int
    alternatives: tuple[tuple[Any, ...], ...]


class Needed(NamedTuple):
    """Items that are there only where an alternative is chosen: a definition that it calls."""

    parent: tuple[int, int] | None
    items: tuple[Any, ...]


Item: TypeAlias = "str | Choice | Needed"
Stack: TypeAlias = "tuple[Item, Stack] | None"
State: TypeAlias = "tuple[Stack, dict[int, int]]"


def tokens_of(text: str) -> list[str]:
    """The tokens of a text, but for `;`, which means nothing; raises ValueError for what is no token."""
    problems: list[Diagnostic] = []
    tokens = [token.value for token in scan(Source("<prefix>", text), problems) if token.type != "SEMI"]
    if problems:
        raise ValueError(problems[0].message)
    return tokens


def legal_tokens(tree: Tree, prefix: str | Sequence[str]) -> set[str]:
    """See `Space.legal`. Raises ValueError where nothing begins so."""
    given = tokens_of(prefix) if isinstance(prefix, str) else [token for token in prefix if token != ";"]
    states: list[State] = [(_push(_items(tree), None), {})]
    for place, token in enumerate(given):
        following = [(stack, choices) for state in states for found, stack, choices in _advance(state) if found == token]
        if not following:
            legal = sorted({found for state in states for found, _, _ in _advance(state)})
            raise ValueError(f"token {place} is `{token}`; expected {' or '.join(f'`{t}`' for t in legal[:12]) or 'nothing'}")
        states = following
    return {found for state in states for found, _, _ in _advance(state)}


def _advance(state: State) -> Iterator[tuple[str, Stack, dict[int, int]]]:
    """Each token that may come next, with the state behind it."""
    stack, choices = state
    while stack is not None:
        item, rest = stack
        if isinstance(item, str):
            yield item, rest, choices
            return
        if isinstance(item, Needed):
            if item.parent is None or choices.get(item.parent[0]) == item.parent[1]:
                rest = _push(item.items, rest)
            stack = rest
            continue
        known = choices.get(item.number)
        for index, alternative in enumerate(item.alternatives):
            if known is None or known == index:
                yield from _advance((_push(alternative, rest), {**choices, item.number: index}))
        return


def _push(items: Sequence[Item], stack: Stack) -> Stack:
    for item in reversed(items):
        stack = (item, stack)
    return stack


# ------------------------------------------------------------------------------------------ a tree as items


@lru_cache(maxsize=16)
def _items(tree: Tree) -> tuple[Item, ...]:
    span = tree.decoder.span
    slots: list[Choice] = []
    items = _of(ast.File(span, (_marked(tree.decoder, slots),)), slots)
    for definition, parent in tree.definitions:
        items += (Needed(parent, _of(ast.File(span, (_marked(definition, slots),)), slots)),)
    return items


def _of(file: ast.File, slots: list[Choice]) -> tuple[Item, ...]:
    return _unmarked(tokens_of(print_file(file, one_line=True)), slots)


def _unmarked(tokens: Sequence[str], slots: list[Choice]) -> tuple[Item, ...]:
    return tuple(slots[int(t.removeprefix(_MARK))] if t.startswith(_MARK) else t for t in tokens)


def _marked(node: Any, slots: list[Choice]) -> Any:
    """The tree with a made-up name in place of each slot, whose items are entered in `slots`."""
    if isinstance(node, tuple):
        return tuple(_marked(part, slots) for part in node)
    if isinstance(node, TreeSlot):
        return ast.Reference(node.span, _enter(node.number, node, [_marked(a, slots) for a in node.alternatives], slots))
    if isinstance(node, ast.Call | ast.Step):
        called: Any = node.callee if isinstance(node, ast.Call) else node.operation
        if isinstance(called, TreeSlot):
            return _marked_called(node, called, slots)
    if not isinstance(node, ast.Node):
        return node
    changed = {}
    for name in node.__dataclass_fields__:
        value = getattr(node, name)
        if isinstance(value, tuple | ast.Node) and not name.endswith("span"):
            changed[name] = _marked(value, slots)
    return replace(node, **changed) if changed else node


def _marked_called(node: ast.Call | ast.Step, slot: TreeSlot, slots: list[Choice]) -> Any:
    """A call or step whose name is a slot. Where an alternative has attributes, the whole call is written once for each."""
    field = "callee" if isinstance(node, ast.Call) else "operation"
    if all(isinstance(a, ast.Reference) for a in slot.alternatives):
        mark = _enter(slot.number, slot, list(slot.alternatives), slots)
        return _marked(replace(node, **{field: mark}), slots)  # type: ignore[arg-type]  # one field of two names
    whole = []
    for alternative in slot.alternatives:
        name: Any = getattr(alternative, "name", None)
        extra: tuple[ast.Setting, ...] = ()
        if isinstance(alternative, TreeSlot):
            name = alternative
        elif isinstance(alternative, ast.Call):
            name, extra = alternative.callee, alternative.settings
        whole.append(_marked(replace(node, **{field: name}, settings=extra + node.settings), slots))
    mark = _enter(slot.number, slot, whole, slots)
    return ast.Reference(node.span, mark) if isinstance(node, ast.Call) else ast.Step(node.span, mark)


def _enter(number: int, slot: TreeSlot, alternatives: list[Any], slots: list[Choice]) -> str:
    span = slot.span
    items = []
    for alternative in alternatives:
        text = _text(alternative, span)
        items.append(_unmarked(tokens_of(text), slots))
    slots.append(Choice(number, tuple(items)))
    return f"{_MARK}{len(slots) - 1}"


def _text(node: Any, span: Any) -> str:
    """An expression, number or step as text: what the printer makes of it as the right side of an assignment."""
    if isinstance(node, ast.Step):  # a step with attributes reads like a call without operands
        name = str(node.operation)
        node = ast.Call(span, name, span, (), node.settings) if node.settings else ast.Reference(span, name)
    return print_expression(node)
