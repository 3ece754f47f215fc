"""Ids and flags in COCO's JSON files, in every spelling that tools give them.

COCO's own are integers. pandas writes them as whole floats (``12.0``), and some converters put them in quotes (``"12"``),
sometimes in one list of a file and not in the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

ImageId: TypeAlias = int | str

_MAX_DIGITS = 18


def to_integer(value: object) -> int | None:
    """The integer that a JSON number is: 12 for ``12`` and ``12.0``. None for everything else, booleans included."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return None


def to_integer_id(value: object) -> int | None:
    """The integer that an id is: as `to_integer`, and 12 for ``"12"``."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS else None
    return to_integer(value)


def to_flag(value: object) -> bool:
    """Whether a flag such as ``iscrowd`` is set: not by ``0``, ``"0"``, false or null."""
    number = to_integer_id(value)
    return bool(value) if number is None else bool(number)


def to_image_id(value: object) -> ImageId | None:
    """The image id that a JSON value is: an integer, or a string as it is. None for everything else."""
    return value if isinstance(value, str) else to_integer(value)


class ImageIds:
    """The ids of a file's images, and which of them a reference means.

    A reference is an id exactly, or else by its number (12 for ``"12"``), if only one image has that number. Where some ids
    are integers and all others digits in quotes, and no number occurs twice, all of them become integers.
    """

    def __init__(self, ids: Iterable[ImageId]) -> None:
        self._ids = set(ids)
        self._by_number: dict[int, list[ImageId]] = {}
        for id in self._ids:
            if (number := to_integer_id(id)) is not None:
                self._by_number.setdefault(number, []).append(id)
        if len(self._by_number) == len(self._ids) and any(isinstance(id, int) for id in self._ids):
            self._ids = set(self._by_number)
            self._by_number = {number: [number] for number in self._by_number}

    @property
    def ids(self) -> frozenset[ImageId]:
        """All ids; what `find` gives."""
        return frozenset(self._ids)

    def find(self, reference: object) -> ImageId | None:
        """The id that a JSON value means; None where it means none, or where more than one image has its number."""
        id = to_image_id(reference)
        if id is None or id in self._ids:
            return id
        found = self._with_number_of(id)
        return found[0] if len(found) == 1 else None

    def ambiguity(self, reference: object) -> str | None:
        """Where more than one image has the number of a reference: a message about that, to follow "image_id …"."""
        if len(found := self._with_number_of(reference)) < 2:
            return None
        return f"may mean {' or '.join(sorted(map(repr, found)))}, as some ids are in quotes; spell it as in `images`"

    def _with_number_of(self, reference: object) -> list[ImageId]:
        number = to_integer_id(reference)
        return [] if number is None else self._by_number.get(number, [])
