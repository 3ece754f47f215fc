"""Reading of YAML that a stranger may have written: values without code, and no more of them than the text is long."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

_BRACKET: Final = re.compile(r"[\[\]{}]")
MAX_VALUES: Final = 1_000_000
"""Values of a text when each alias stands for a copy of what it names: ten lines of aliases can make billions."""

MAX_DEPTH: Final = 100
"""Brackets in each other: the time of PyYAML's scanner grows with the square of them."""


def compose_yaml(text: str, loader: type[yaml.BaseLoader | yaml.SafeLoader] = yaml.SafeLoader) -> yaml.Node | None:
    """The nodes of a YAML text; None for an empty one.

    Args:
        loader: SafeLoader, or BaseLoader, for which each scalar is a text.

    Raises:
        yaml.YAMLError: it is no YAML, nests too deeply, or its aliases make more than `MAX_VALUES` or lead in a circle.
    """
    if _depth(text) > MAX_DEPTH:
        raise yaml.YAMLError("its lists and mappings nest too deeply")
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=loader)
        values = 0 if node is None else _count(node, {})
    except RecursionError:
        raise yaml.YAMLError("its lists and mappings nest too deeply") from None
    if values > MAX_VALUES:
        raise yaml.YAMLError(f"its aliases make more than {MAX_VALUES:,} values")
    return node


def parse_yaml(text: str, loader: type[yaml.BaseLoader | yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """The value of a YAML text, as of ``yaml.load``.

    Args:
        loader: see `compose_yaml`.

    Raises:
        yaml.YAMLError: see `compose_yaml`; or a value is not what its tag says.
        ValueError: a number or date is none.
    """
    node = compose_yaml(text, loader)
    try:
        return None if node is None else loader("").construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("its lists and mappings nest too deeply") from None


def _depth(text: str) -> int:
    """How many brackets are open at most; those in quotes are counted too, and are closed there as a rule."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(text):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of values of a node, with those that an alias repeats."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = MAX_VALUES + 1  # for an alias of a node that it is in
    children = node.value if isinstance(node, yaml.CollectionNode) else []
    parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
    known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(node)]
