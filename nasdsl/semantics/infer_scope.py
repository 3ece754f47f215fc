"""What names mean while a body is inferred."""

from __future__ import annotations

from typing import Any

from nasdsl.diagnostics import Span
from nasdsl.semantics.architecture import Group


class Binding:
    """A value in scope.

    Attributes:
        name: as the text has it.
        index: of the application that computes it, or `UNFIT`.
        span: where it was bound.
        is_read: whether anything reads it.
        is_kept: whether it is an output, or what a merge goes into.
    """

    __slots__ = ("index", "is_kept", "is_read", "name", "span")

    def __init__(self, name: str, index: int, span: Span, *, is_kept: bool = False) -> None:
        self.name = name
        self.index = index
        self.span = span
        self.is_read = False
        self.is_kept = is_kept


class Frame:
    """What names mean in one body.

    Attributes:
        scope: values, by the unique names of the program.
        words: attributes: ``width``, ``norm`` and ``act`` of the section, and those of an op in its body.
        site: the call in the decoder's own statements that the body belongs to; None in these statements themselves.
        key: ``width``, ``norm`` and ``act``, as a key of the cache of expansions.
        groups: the blocks that the body is called in, and the repeats around these calls.
    """

    __slots__ = ("_all_words", "groups", "key", "scope", "site", "words")

    def __init__(
        self, scope: dict[str, Binding], words: dict[str, Any], site: Span | None, groups: tuple[Group, ...] = ()
    ) -> None:
        self.scope = scope
        self.words = words
        self.site = site
        self.groups = groups
        self.key = words.get("width"), words.get("norm"), words.get("act")
        self._all_words: tuple[tuple[str, Any], ...] | None = None

    @property
    def all_words(self) -> tuple[tuple[str, Any], ...]:
        """All attributes, as a key."""
        if self._all_words is None:
            self._all_words = tuple(self.words.items())
        return self._all_words

    def set_word(self, name: str, value: Any) -> None:
        words = self.words = {**self.words, name: value}
        self._all_words = None
        self.key = words.get("width"), words.get("norm"), words.get("act")
