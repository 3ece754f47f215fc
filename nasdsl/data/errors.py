"""Errors about data sets, and records of what was skipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nasdsl.coco_json import ImageId

_MAX_LISTED = 10


class DataError(ValueError):
    """A data set or its options cannot be used; the message names the file, what was found and what was expected."""


class NoSplit(DataError):
    """The data set has no split of this name."""


class UnreadableImage(DataError):
    """An image cannot be read.

    Attributes:
        file: its path.
        reason: what is wrong with it.
    """

    def __init__(self, file: str | Path, reason: str) -> None:
        self.file = str(file)
        self.reason = reason
        super().__init__(f"{file}: {reason}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:  # worker processes pickle it
        return type(self), (self.file, self.reason)


@dataclass(frozen=True)
class Skipped:
    """An image, or (with `box`) one box, that was left out.

    Attributes:
        file: path, and the place in the file where known.
        reason: what is wrong, in a few words.
        image_id: None where the file is too broken to have one.
        box: only a box was left out, not the image.
    """

    file: str
    reason: str
    image_id: ImageId | None = None
    box: bool = False

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


class BrokenData(DataError):
    """A data set opened with ``on_error="refuse"`` has broken entries.

    Attributes:
        skipped: all of them.
    """

    def __init__(self, name: str, skipped: Sequence[Skipped]) -> None:
        self.skipped = list(skipped)
        entries = "1 broken entry" if len(self.skipped) == 1 else f"{len(self.skipped)} broken entries"
        lines = [f"{name}: {entries}; correct them, or leave them out with on_error='skip' (--on-error skip):"]
        super().__init__("\n".join(lines + listing(self.skipped)))


def listing(skipped: Sequence[Skipped]) -> list[str]:
    """The first ten entries as indented lines, and the number of the others."""
    lines = [f"  {entry}" for entry in skipped[:_MAX_LISTED]]
    if len(skipped) > _MAX_LISTED:
        lines.append(f"  … and {len(skipped) - _MAX_LISTED} more")
    return lines
