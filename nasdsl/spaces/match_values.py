"""Comparison of attribute values of a space with those of a text, by which alternatives of slots become known."""

from __future__ import annotations

from typing import Any

from nasdsl.diagnostics import Span
from nasdsl.semantics.attributes import evaluate
from nasdsl.semantics.program import Slot, fill_value, find_slot
from nasdsl.syntax import ast


class NoMatch(Exception):
    """Raised for a text that is no filling of the space; holds the place."""

    def __init__(self, span: Span) -> None:
        super().__init__()
        self.span = span


class ValueMatcher:
    """Compares attribute values of two programs; a method that finds a difference raises `NoMatch`.

    Attributes:
        known: the alternative of each decision that was met.
        names: names that the text has for values of the body which is compared.
    """

    def __init__(self, known: dict[int, int]) -> None:
        self.known = known
        self.names: dict[str, str] = {}

    def slot(self, slot: Slot, found: Any, compare: Any, place: Span | None = None) -> None:
        """Choose the first alternative of a slot that equals what was found."""
        number = slot.number
        tried = range(len(slot.alternatives)) if number not in self.known else (self.known[number],)
        for index in tried:
            before = dict(self.known)
            self.known[number] = index
            try:
                compare(slot.alternatives[index], found)
            except NoMatch:
                self.known = before
                continue
            return
        raise NoMatch(place or found.span)

    def settings(self, wanted: tuple[ast.Setting, ...], found: tuple[ast.Setting, ...], place: Span) -> None:
        """Compare attributes, in any order. Adapters are compared as what they mean."""
        wanted = tuple(s for s in wanted if s.name != "adapter")
        found = tuple(s for s in found if s.name != "adapter")
        if not wanted and not found:
            return
        if sorted(s.name for s in wanted) != sorted(s.name for s in found):
            raise NoMatch(place)
        others = {s.name: s for s in found}
        for setting in wanted:
            self.value(setting.value, others[setting.name].value, others[setting.name].span)

    def value(self, wanted: Any, found: Any, place: Span) -> None:
        """Compare attribute values; brackets around them do not matter."""
        while isinstance(wanted, ast.Group):
            wanted = wanted.inner
        while isinstance(found, ast.Group):
            found = found.inner
        if isinstance(wanted, Slot):
            self.slot(wanted, found, lambda a, b: self.value(a, b, place), place)
        elif type(wanted) is not type(found):
            if not self.is_same_number(wanted, found) and not _is_same_name(wanted, found):
                raise NoMatch(place)
        elif isinstance(wanted, ast.Arithmetic):
            if wanted.operator != found.operator:
                raise NoMatch(place)
            self.value(wanted.left, found.left, place)
            self.value(wanted.right, found.right, place)
        elif isinstance(wanted, ast.Negative):
            self.value(wanted.operand, found.operand, place)
        elif wanted != found and not (isinstance(wanted, ast.Reference) and self.names.get(wanted.name) == found.name):
            raise NoMatch(place)

    def is_same_number(self, wanted: Any, found: Any) -> bool:
        """Whether a value that is computed from decisions which are known is the number that was found."""
        if not isinstance(found, ast.Number) or not find_slot(wanted):
            return False
        try:
            return evaluate(fill_value(wanted, self.known), {}, []) == found.value
        except KeyError:
            return False


def _is_same_name(wanted: Any, found: Any) -> bool:
    """Whether two values are one name, in quotes and without."""
    names = [v.value if isinstance(v, ast.Text) else v.name for v in (wanted, found) if isinstance(v, ast.Text | ast.Reference)]
    return len(names) == 2 and names[0] == names[1]
