"""Filled texts as tokens with choices among them, and the tokens that may follow a prefix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from nasdsl.diagnostics import Diagnostic, Source
from nasdsl.semantics.conditions import ALWAYS, Condition, first_open, truth
from nasdsl.spaces.syntax_tree import Tree, TreeSlot, TreeWhen
from nasdsl.syntax import ast
from nasdsl.syntax.lexer import scan
from nasdsl.syntax.printer import print_expression, print_file, print_statement
from nasdsl.syntax.unparse import binding_strength

_MARK = "slot__"
_STATEMENT = "statement__"


class Piece(str):
    """A token of a filled text.

    Attributes:
        is_spaced: whether a space stands in front of it in a text on one line.
        is_optional: whether not all texts have it: a ``;`` beside a statement that only some of them have.
    """

    is_spaced: bool
    is_optional: bool
    __slots__ = ("is_optional", "is_spaced")

    def __new__(cls, text: str, *, is_spaced: bool = False, is_optional: bool = False) -> Piece:
        made = super().__new__(cls, text)
        made.is_spaced, made.is_optional = is_spaced, is_optional
        return made


class Choice(NamedTuple):
    """A slot among the tokens: its number, and the items of each alternative."""

    number: int
    alternatives: tuple[tuple[Any, ...], ...]


class Needed(NamedTuple):
    """Items that are there only where a condition holds: a turn of a `repeat`, or a definition that an alternative calls.

    `sizes`: number of alternatives of each decision.
    """

    condition: Condition[int]
    items: tuple[Any, ...]
    sizes: tuple[int, ...]


_ARROW = Piece("->", is_spaced=True)

Item: TypeAlias = "Piece | Choice | Needed"
Stack: TypeAlias = "tuple[Item, Stack] | None"
State: TypeAlias = "tuple[Stack, dict[int, int]]"


def tokens_of(text: str) -> list[str]:
    """The tokens of a text, but for `;`, which means nothing; raises ValueError for what is no token."""
    return [str(piece) for piece in _pieces_of(text) if piece != ";"]


def _pieces_of(text: str) -> list[Piece]:
    problems: list[Diagnostic] = []
    tokens = scan(Source("<prefix>", text), problems)
    pieces = [Piece(token.value, is_spaced=text[token.start - 1 : token.start] == " ") for token in tokens]
    if problems:
        raise ValueError(problems[0].message)
    return pieces


def legal_tokens(tree: Tree, prefix: str | Sequence[str]) -> set[str]:
    """See `Space.legal`. Raises ValueError where nothing begins so."""
    given = tokens_of(prefix) if isinstance(prefix, str) else [token for token in prefix if token != ";"]
    states: list[State] = [(_push(items_of(tree), None), {})]
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
        if item == ";":
            stack = rest
            continue
        if isinstance(item, Piece):
            yield item, rest, choices
            return
        if isinstance(item, Needed):
            there = truth(item.condition, choices)
            if there is None:  # how often something is repeated shows in what follows
                number = first_open(item.condition, choices)
                for index in range(item.sizes[number]):
                    yield from _advance((stack, {**choices, number: index}))
                return
            stack = _push(item.items, rest) if there else rest
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
def items_of(tree: Tree) -> tuple[Item, ...]:
    """All filled texts of a tree: their tokens, with choices and with what only some of them have."""
    span = tree.decoder.span
    slots = _Slots(tree.sizes)
    items = _of(ast.File(span, (_marked(tree.decoder, slots),)), slots)
    for definition, condition in tree.definitions:
        own = _respaced(_of(ast.File(span, (_marked(definition, slots),)), slots), is_spaced=True)
        items += (Needed(condition, own, tree.sizes),)
    return items


class _Slots(list[tuple[Item, ...]]):
    """What the made-up names stand for."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes

    def enter(self, *items: Item) -> str:
        self.append(items)
        return f"{_MARK}{len(self) - 1}"


def _of(file: ast.File, slots: _Slots) -> tuple[Item, ...]:
    return _unmarked(_pieces_of(print_file(file, one_line=True)), slots)


def _unmarked(pieces: Sequence[Piece], slots: _Slots) -> tuple[Item, ...]:
    items: list[Item] = []
    place = 0
    while place < len(pieces):
        piece = pieces[place]
        if piece.startswith(_STATEMENT):  # `name = name`, in the place of statements
            if items and items[-1] == ";":
                items[-1] = Piece(";", is_optional=True)
            items += _respaced(slots[int(piece.removeprefix(_STATEMENT))], is_spaced=piece.is_spaced)
            place += 2
            if place + 1 < len(pieces) and pieces[place + 1] == ";":  # the statements bring their own
                place += 1
        elif piece.startswith(_MARK):
            items += _respaced(slots[int(piece.removeprefix(_MARK))], is_spaced=piece.is_spaced)
        else:
            items.append(piece)
        place += 1
    return tuple(items)


def _respaced(items: tuple[Item, ...], *, is_spaced: bool) -> tuple[Item, ...]:
    """Items with another space in front of the first token."""
    if not items:
        return items
    first, rest = items[0], items[1:]
    if isinstance(first, Piece):
        return (Piece(first, is_spaced=is_spaced, is_optional=first.is_optional), *rest)
    if isinstance(first, Choice):
        return (Choice(first.number, tuple(_respaced(a, is_spaced=is_spaced) for a in first.alternatives)), *rest)
    return (first._replace(items=_respaced(first.items, is_spaced=is_spaced)), *_respaced(rest, is_spaced=is_spaced))


def _marked_parts(parts: tuple[Any, ...], slots: _Slots) -> tuple[Any, ...]:
    """Statements with a made-up assignment in the place of those that have a condition."""
    made: list[Any] = []
    for part in parts:
        if not isinstance(part, TreeWhen):
            made.append(_marked(part, slots))
            continue
        items: list[Item] = []
        for inner in _marked_parts(part.parts, slots):
            items += _respaced(_unmarked(_pieces_of(print_statement(inner)), slots), is_spaced=True)
            items.append(Piece(";", is_optional=True))
        name = slots.enter(Needed(part.condition, tuple(items), slots.sizes)).replace(_MARK, _STATEMENT)
        made.append(ast.Assign(part.span, (ast.Target(part.span, name),), ast.Reference(part.span, name)))
    return tuple(made)


def _marked_chain(tower: ast.Tower, slots: _Slots) -> ast.Tower:
    """A chain with one made-up step; an arrow stands between two steps that are both there."""
    items: list[Item] = []
    before: list[Condition[int]] = []
    steps: tuple[Any, ...] = tower.steps  # until it is filled, some are a `TreeWhen`
    for step in steps:
        condition = step.condition if isinstance(step, TreeWhen) else ALWAYS
        (part,) = step.parts if isinstance(step, TreeWhen) else (step,)
        own: list[Item] = []
        if ALWAYS in before:
            own.append(_ARROW)
        elif before:
            own.append(Needed(tuple(case for one in before for case in one), (_ARROW,), slots.sizes))
        own += _respaced(_unmarked(_pieces_of(_text(_marked(part, slots), tower.span)), slots), is_spaced=True)
        items += own if condition == ALWAYS else [Needed(condition, tuple(own), slots.sizes)]
        before.append(condition)
    return replace(tower, steps=(ast.Step(tower.span, slots.enter(*items)),))


def _marked(node: Any, slots: _Slots) -> Any:
    """The tree with a made-up name in place of each slot, whose items are entered in `slots`."""
    if isinstance(node, tuple):
        return _marked_parts(node, slots)
    if isinstance(node, ast.Tower) and any(isinstance(step, TreeWhen) for step in node.steps):
        return _marked_chain(node, slots)
    if isinstance(node, TreeSlot):
        return ast.Reference(node.span, _enter(node.number, node, [_marked(a, slots) for a in node.alternatives], slots))
    if isinstance(node, ast.Call | ast.Step):
        called: Any = node.callee if isinstance(node, ast.Call) else node.operation
        if isinstance(called, TreeSlot):
            return _marked_called(node, called, slots)
    if not isinstance(node, ast.Node):
        return node
    if isinstance(node, ast.Arithmetic):
        strength = binding_strength(node)
        node = replace(node, left=_in_brackets(node.left, strength), right=_in_brackets(node.right, strength + 1))
    elif isinstance(node, ast.Negative):
        node = replace(node, operand=_in_brackets(node.operand, 3))
    changed = {}
    for name in node.__dataclass_fields__:
        value = getattr(node, name)
        if isinstance(value, tuple | ast.Node) and not name.endswith("span"):
            changed[name] = _marked(value, slots)
    return replace(node, **changed) if changed else node


def _in_brackets(node: Any, strength: int) -> Any:
    """A slot whose alternatives stand in brackets where the printer sets them: if they bind less than what is around."""
    if isinstance(node, TreeSlot):
        return replace(node, alternatives=tuple(_in_brackets(a, strength) for a in node.alternatives))
    is_looser = isinstance(node, ast.Arithmetic) and binding_strength(node) < strength
    return ast.Group(node.span, node) if is_looser else node


def _marked_called(node: ast.Call | ast.Step, slot: TreeSlot, slots: _Slots) -> Any:
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


def _enter(number: int, slot: TreeSlot, alternatives: list[Any], slots: _Slots) -> str:
    span = slot.span
    items = []
    for alternative in alternatives:
        text = _text(alternative, span)
        items.append(_unmarked(_pieces_of(text), slots))
    return slots.enter(Choice(number, tuple(items)))


def _text(node: Any, span: Any) -> str:
    """An expression, number or step as text: what the printer makes of it as the right side of an assignment."""
    if isinstance(node, ast.Step):  # a step with attributes reads like a call without operands
        name = str(node.operation)
        node = ast.Call(span, name, span, (), node.settings) if node.settings else ast.Reference(span, name)
    return print_expression(node)
