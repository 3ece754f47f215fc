"""The brackets that are open at a place of a text that may not be right."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

OPENING: Final = {"LPAR": "RPAR", "LSQB": "RSQB", "LBRACE": "RBRACE"}
"""Terminals of brackets, with those that close them."""

CLOSING: Final = {closer: opener for opener, closer in OPENING.items()}

T = TypeVar("T")


class OpenBrackets(Generic[T]):
    """The brackets that are open, each with a mark of its own, the innermost last.

    Attributes:
        marks: of those that are open.
    """

    def __init__(self) -> None:
        self.marks: list[T] = []
        self._types: list[str] = []
        self._counts = dict.fromkeys(OPENING, 0)

    def open(self, opener: str, mark: T) -> None:
        """Enter a bracket."""
        self.marks.append(mark)
        self._types.append(opener)
        self._counts[opener] += 1

    def close(self, closer: str) -> T | None:
        """Leave the innermost bracket that this one closes, and those in it, which the text does not close.

        Returns its mark; None where it closes no bracket.
        """
        opener = CLOSING[closer]
        if not self._counts[opener]:
            return None
        while True:
            mark, left = self.marks.pop(), self._types.pop()
            self._counts[left] -= 1
            if left == opener:
                return mark
