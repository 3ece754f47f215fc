"""Checks of ops and blocks where they are defined, whether or not anything calls them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from typing import Any, Final

from nasdsl.diagnostics import Diagnostic
from nasdsl.diagnostics.catalogue import holes
from nasdsl.diagnostics.catalogue.names import recursive
from nasdsl.semantics import primitives
from nasdsl.semantics.attributes import UNKNOWN, Unknown, Value
from nasdsl.semantics.builder import MAX_LAYERS, UNFIT
from nasdsl.semantics.elaborate_attribute import Context
from nasdsl.semantics.elaborate_body import elaborate_block, weight_of
from nasdsl.semantics.elaborate_expression import ExpressionElaborator, elaborate_op
from nasdsl.semantics.infer import Inference
from nasdsl.semantics.infer_scope import Binding, Frame
from nasdsl.semantics.note_calls import note_words
from nasdsl.semantics.program import Missing
from nasdsl.semantics.signature import accepted, default_words
from nasdsl.semantics.vocabulary import Block, Definition, Op, Vocabulary
from nasdsl.syntax import ast

_WITHOUT_NODES: Final = ("Span", "Span | None", "bool", "float", "int", "int | float", "str", "str | None")
"""Types of those fields of nodes that hold none."""

_HOLES: Final = (ast.NamedHole, ast.ChoiceHole, ast.RangeHole)


def check_definitions(vocabulary: Vocabulary, context: Context) -> None:
    """Report what is wrong in the bodies of a file's ops and blocks, and mark those `broken`.

    Each body is elaborated, and inferred once with operands and section attributes that are not known, which leaves just
    what is certain: names, numbers of operands, names and values of attributes.

    `context`: of the text.
    """
    problems = context.problems
    for definition in vocabulary.definitions.values():
        _elaborate_with_callees(definition, context)
    for definition in vocabulary.definitions.values():
        before = len(problems)
        _infer(definition, problems)
        definition.broken = definition.broken or len(problems) > before


def _elaborate_with_callees(definition: Definition, context: Context) -> None:
    """Elaborate a definition behind those that it calls; a circle of calls is reported."""
    path: dict[int, Definition] = {}  # calls that are open, the first of them `definition`
    waiting = [iter([definition])]
    while waiting:
        called = next(waiting[-1], None)
        if called is None:
            waiting.pop()
            if path:
                _, done = path.popitem()
                _elaborate(done, context.of_definition())
        elif id(called) in path:
            circle = [*path.values()][list(path).index(id(called)) :]
            if not called.broken:
                chain = [d.name for d in [*circle, called]]
                context.problems.append(recursive(called.definition.name_span, called.name, chain))
            for member in circle:
                member.broken = True
        elif not called.weight:
            path[id(called)] = called
            waiting.append(iter(_called(called)))


def _called(definition: Definition) -> list[Definition]:
    """The ops and blocks that a definition calls by name."""
    inside = list(nodes(definition.definition.body))
    own = {n.name for n in inside if isinstance(n, ast.OpDef)}  # its `shared` ops
    callees = (n.callee for n in inside if isinstance(n, ast.Call))
    found = (definition.home.find(name) for name in callees if isinstance(name, str) and name not in own)
    return [d for d in found if d is not None]


@cache
def _parts(kind: type) -> tuple[str, ...]:
    """The fields of a kind of node that hold nodes, the last one first."""
    return tuple([f.name for f in reversed(fields(kind)) if f.type not in _WITHOUT_NODES])


def nodes(tree: ast.Node | tuple[ast.Node, ...] | None) -> Iterator[ast.Node]:
    """Every node of a piece of the tree."""
    todo: list[Any] = list(tree if isinstance(tree, tuple) else () if tree is None else (tree,))
    while todo:
        node = todo.pop()
        yield node
        for name in _parts(node.__class__):
            value = getattr(node, name)
            if isinstance(value, ast.Node):
                todo.append(value)
            elif isinstance(value, tuple) and value and isinstance(value[0], ast.Node):
                todo += [part for part in reversed(value) if part is not None]


def _elaborate(definition: Definition, context: Context) -> None:
    problems, lost = context.problems, context.lost
    before = len(problems)
    if context.names is not None:
        _note_definition(definition, context)
    words: dict[str, Value | Unknown]
    for parameter in definition.definition.parameters:
        default = parameter.default
        hole = next((n for n in nodes(default) if _is_hole(n)), None)
        if hole is not None:
            problems.append(holes.hole_as_default(hole.span, definition.name, parameter.name))
    if isinstance(definition, Op):
        words = dict.fromkeys((*primitives.SECTION, *definition.attributes), UNKNOWN)
        definition.body = Missing(definition.definition.span)
        definition.body = elaborate_op(definition, context, words)
        weight = weight_of(definition.body)
    else:
        definition.lost = lost
        words = _default_words(definition)
        body = elaborate_block(definition, context, words)
        definition.bodies[tuple(words.items())] = body
        weight = body.weight
    definition.weight = min(max(1, weight), MAX_LAYERS + 1)
    # A `repeat` whose count the section's width decides may have hidden holes so far, so they are looked for in the text.
    definition.has_slots = any(_is_hole(n) for n in nodes(definition.definition.body))
    definition.has_slots = definition.has_slots or any(d.has_slots for d in _called(definition))
    definition.broken = definition.broken or len(problems) > before


def _is_hole(node: ast.Node) -> bool:
    """Whether a node is a hole that the text has, not one that stands where a syntax error has left something out."""
    return isinstance(node, _HOLES) and not (isinstance(node, ast.NamedHole) and not node.name)


def _note_definition(definition: Definition, context: Context) -> None:
    """Enter a definition, its parameters and what their defaults name."""
    assert context.names is not None
    context.names.definition(definition.definition)
    context.names.parameters(definition.definition)
    accepts = accepted(definition)
    words = dict.fromkeys(primitives.SECTION, UNKNOWN)
    outside = ExpressionElaborator(context, definition.home, words, region=definition.definition.span)
    for name, default in definition.attributes.items():
        for node in nodes(default):
            if isinstance(node, ast.Reference):
                outside.note_word(node)
        note_words(outside, default, accepts.get(name), name)


def _default_words(block: Block) -> dict[str, Value | Unknown]:
    """What words mean in a block that nothing calls: how often it repeats something is decided by its own defaults."""
    return default_words(block, dict.fromkeys(primitives.SECTION, UNKNOWN), [])


def _infer(definition: Definition, problems: list[Diagnostic]) -> None:
    inference = Inference(problems)
    words: dict[str, Unknown] = dict.fromkeys((*primitives.SECTION, *definition.attributes), UNKNOWN)
    span = definition.definition.name_span
    frame = Frame({name: Binding(name, UNFIT, span) for name in definition.operands}, words, None)
    if isinstance(definition, Op):
        inference.layers.own(definition.name, "", "block", span)
        assert definition.body is not None
        inference.expand(definition.body, frame, "", definition.home)
    else:
        body = definition.bodies[tuple(_default_words(definition).items())]
        inference.run_block(body, frame, "", definition.home)
