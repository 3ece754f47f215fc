"""Whether two operands of a call are the same: what ``?agg(?op(?pool), ?op(?pool)) distinct`` rules out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from nasdsl.semantics.elaborate_body import body_of_op
from nasdsl.semantics.program import Call, Operand, Ref, Slot, Target, chosen, fill_settings
from nasdsl.semantics.vocabulary import Op


def has_same_operands(call: Call, indices: Sequence[int] | None) -> bool:
    """Whether two operands are the same as written: one value, or one op with the same attributes of the same operands.

    Two ops with the same body count as one.

    Args:
        indices: the alternative that fills each slot; None leaves slots open, and an open slot is the same as nothing.
    """
    return any(is_same(a, b, indices) for a, b in combinations(call.operands, 2))


def is_same(one: Operand, other: Operand, indices: Sequence[int] | None) -> bool:
    """Whether two expressions of one body say the same."""
    if indices is not None:
        one, other = chosen(one, indices), chosen(other, indices)
    if isinstance(one, Ref) and isinstance(other, Ref):
        return one.name == other.name
    if not isinstance(one, Call) or not isinstance(other, Call) or len(one.operands) != len(other.operands):
        return False
    a, b = _target(one.target, indices), _target(other.target, indices)
    if a is None or b is None or not _is_same_callee(a, b, indices):
        return False
    if _settings(a, one, indices) != _settings(b, other, indices):
        return False
    return all(is_same(x, y, indices) for x, y in zip(one.operands, other.operands, strict=True))


def _target(target: Target | Slot, indices: Sequence[int] | None) -> Target | None:
    if isinstance(target, Slot):
        return None if indices is None else _target(chosen(target, indices), indices)
    return target


def _is_same_callee(one: Target, other: Target, indices: Sequence[int] | None) -> bool:
    a, b = one.callee, other.callee
    if a is b or (isinstance(a, str) and a == b):
        return a is not None
    if isinstance(a, Op) and isinstance(b, Op) and a.operands == b.operands and a.attributes == b.attributes:
        return is_same(body_of_op(a), body_of_op(b), indices)  # as two calls of an op with holes have, each with its own body
    return False


def _settings(target: Target, call: Call, indices: Sequence[int] | None) -> list[tuple[str, Any]]:
    given = (*target.settings, *call.settings)
    filled = given if indices is None else fill_settings(given, indices)
    return sorted(((s.name, s.value) for s in filled), key=lambda setting: setting[0])
