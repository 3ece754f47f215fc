"""Splits that a data set does not have itself: made from a share and a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from nasdsl.data.errors import DataError, NoSplit
from nasdsl.data.layouts import WHOLE, find_split, split_name

DEFAULT_SHARE = 0.8
"""Share of the images that train gets where a data set has no splits."""


@dataclass(frozen=True)
class MadeSplit:
    """A split that was made: `train` is a share of the images, `val` the others.

    The images are ordered by a hash of seed and id, and the first of them are `train`. So the split does not depend on the
    order of files or on the machine, and a few new images move few others.

    Attributes:
        split: ``train`` or ``val``.
        base: the split that was divided; None for a data set without splits.
        share: of the images in ``train``.
        seed: of the order.
    """

    split: str
    base: str | None
    share: float
    seed: int

    def chooser(self, keys: Iterable[str]) -> Callable[[str], bool]:
        """Function that says whether the image with a key is in this split.

        Args:
            keys: of all images. Images with the same key are in the same split.
        """
        ordered = sorted(set(keys), key=self._hash)
        number = round(self.share * len(ordered))
        if self.share < 1 and len(ordered) > 1:
            number = min(max(number, 1), len(ordered) - 1)
        train = frozenset(ordered[:number])
        return train.__contains__ if self.split == "train" else lambda key: key not in train

    def _hash(self, key: str) -> tuple[bytes, str]:
        return blake2b(f"{self.seed} {key}".encode("utf-8", "surrogateescape"), digest_size=8).digest(), key

    def describe(self, images: int, total: int) -> str:
        """A sentence for the user."""
        of = "images" if self.base is None else f"images of the split {self.base}"
        whole = f"; `{WHOLE}` is all of them" if self.base is None else ""
        return (
            f"{self.split} is made: {images} of the {total} {of}, by --split-share {self.share:g} and --split-seed "
            f"{self.seed}{whole}"
        )


def choose_split(
    names: Sequence[str], asked: str, share: float | None, seed: int, missing: str
) -> tuple[str | None, MadeSplit | None]:
    """Find the split that is asked for among those of a data set, or say how it is made.

    Args:
        names: of the splits that the data set has; none if it has no splits.
        asked: name of the split; ``valid``, ``validation`` and ``val`` are one.
        share: share of the images that ``train`` gets where there is no ``val``. None: a split ``train`` that the data set has
            is left whole; 0.8 where it has none.
        seed: of the division.
        missing: beginning of the message if there is no such split.

    Returns:
        The split to read (None: the whole), and the part of it to take (None: all of it).

    Raises:
        NoSplit: there is no such split, and it cannot be made.
        DataError: the share is not above 0 and at most 1.
    """
    if share is not None and not 0 < share <= 1:
        raise DataError(f"the share of the images for train (--split-share) is {share:g}; expected above 0 and at most 1")
    real = find_split(asked, names)
    kind = split_name(asked)
    base = base_split(names)
    has_val = find_split("val", names) is not None
    makes = not has_val and kind in ("train", "val") and (not names or base is not None)
    if real is not None and (share in (None, 1) or kind != "train" or not makes):
        return real, None
    if asked == WHOLE and not names:
        return None, None
    if asked == WHOLE and real is None and len(names) == 1 and split_name(names[0]) is None:  # CVAT's `default`
        return names[0], None
    divided_anyway = not names or (base is not None and split_name(base) != "train")
    if makes and real is None and share is None and not divided_anyway:
        raise NoSplit(f"{missing}; there are: {', '.join(names)} (--split-share {DEFAULT_SHARE:g} makes a val of {base})")
    if not makes or kind is None:
        there = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        raise NoSplit(f"{missing}; there are: {there or f'train and val, which are made, and {WHOLE}'}")
    made = MadeSplit(kind, base, DEFAULT_SHARE if share is None else share, seed)
    if made.split == "val" and made.share == 1:
        raise NoSplit(f"{missing}: with --split-share 1, all images are in train")
    return base, made


def split_record(made: MadeSplit | None) -> dict[str, Any]:
    """Values for the configuration of a run, with which `open_dataset` makes the same split again; none if it was not made."""
    return {} if made is None else {"split_share": made.share, "split_seed": made.seed}


def base_split(names: Sequence[str]) -> str | None:
    """The split that a missing train or val is made of; None if there is none."""
    for name in ("train", "trainval"):
        if (found := find_split(name, names)) is not None:
            return found
    return names[0] if len(names) == 1 and split_name(names[0]) not in ("val", "test") else None
