"""Result of passing on weights: what each part of a detector has inherited, and the text that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

_MOST_NAMES = 4


@dataclass
class Part:
    """A part of a detector: backbone, fpn, head or a prediction.

    Attributes:
        name: of the part.
        total: number of its parameters.
        inherited: number of those that were inherited.
        notes: what was not inherited, and why.
    """

    name: str
    total: int = 0
    inherited: int = 0
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        share = "nothing" if not self.inherited else f"{_percent(self.inherited, self.total)} of {self.total:,} parameters"
        return f"{self.name}: {share}{''.join(f'; {note}' for note in self.notes)}"

    def note(self, note: str) -> None:
        """Add a note, unless it is there already, from a prediction for another level."""
        if note not in self.notes:
            self.notes.append(note)

    def note_missing(self, names: Sequence[str]) -> None:
        """Add a note that names the layers which have not inherited, if there are any."""
        if names and self.total:
            self.notes.append(f"not {some(list(dict.fromkeys(names)))}")


@dataclass(frozen=True)
class Inheritance:
    """What a detector has inherited.

    Attributes:
        file: where the weights are from.
        parts: of the detector.
        unused: number of parameters of the file that nothing has inherited.
        holder: see `Origin`.
    """

    file: str
    parts: tuple[Part, ...]
    unused: int = 0
    holder: str | None = None

    @property
    def inherited(self) -> int:
        """Number of inherited parameters."""
        return sum(part.inherited for part in self.parts)

    @property
    def total(self) -> int:
        """Number of all parameters."""
        return sum(part.total for part in self.parts)

    @property
    def is_complete(self) -> bool:
        """Whether all parameters are inherited."""
        return self.inherited == self.total

    def __str__(self) -> str:
        """A line for the whole and, unless it is complete, one for each part."""
        whole = f"{_percent(self.inherited, self.total)} of {self.total:,} parameters are inherited from {self.file}"
        unused = f" ({self.unused:,} of its parameters are not used)" if self.unused else ""
        if self.is_complete:
            return whole + unused + "".join(f"\n  {part}" for part in self.parts if part.notes)
        advice = f"\n  {self.holder} holds all of them" if self.holder else ""
        return f"{whole}{unused}:" + "".join(f"\n  {part}" for part in self.parts) + advice


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _percent(part: int, whole: int) -> str:
    """A percentage that is 100 only for everything and 0 only for nothing."""
    share = 100 * part / max(1, whole)
    return f"{share:.0f} %" if part in (0, whole) else f"{min(99.9, max(0.1, share)):.1f} %"
