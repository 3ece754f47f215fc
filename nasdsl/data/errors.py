"""What can be wrong with data, said so that a reader finds the file and mends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

ImageId: TypeAlias = int | str

_SHOWN = 10


class DataError(ValueError):
    """A data set that cannot be used; the message says where, what was found and what was expected."""


class NoSplit(DataError):
    """The data set has no part of this name."""


class UnreadableImage(DataError):
    """A picture that cannot be read: `file`, and why."""

    def __init__(self, file: str | Path, reason: str) -> None:
        self.file = str(file)
        self.reason = reason
        super().__init__(f"{file}: {reason}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:  # workers send it
        return type(self), (self.file, self.reason)


@dataclass(frozen=True)
class Skipped:
    """What was left out: a picture, or (`box` true) only a box of it.

    `image_id` is None where the file is so broken that it gives none.
    """

    file: str
    reason: str
    image_id: ImageId | None = None
    box: bool = False

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


class BrokenData(DataError):
    """Broken entries in a data set that was opened with ``on_error="refuse"``; `skipped` has all of them."""

    def __init__(self, name: str, skipped: Sequence[Skipped]) -> None:
        self.skipped = list(skipped)
        entries = "1 broken entry" if len(self.skipped) == 1 else f"{len(self.skipped)} broken entries"
        lines = [f"{name}: {entries}; mend them, or open it with on_error='skip':"]
        super().__init__("\n".join(lines + listed(self.skipped)))


def listed(skipped: Sequence[Skipped]) -> list[str]:
    """The first ten as indented lines, and how many more there are."""
    lines = [f"  {entry}" for entry in skipped[:_SHOWN]]
    if len(skipped) > _SHOWN:
        lines.append(f"  … and {len(skipped) - _SHOWN} more")
    return lines
