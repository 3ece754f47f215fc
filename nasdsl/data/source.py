"""What every form of data sets gives: a source with splits, and the contents of a split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from nasdsl.coco_json import ImageId
from nasdsl.data.dataset import Dataset, RecordBuilder
from nasdsl.data.errors import DataError, Skipped
from nasdsl.data.splits import MadeSplit


@dataclass
class Contents:
    """Images and boxes as a reader found them.

    Attributes:
        classes: names by label.
        category_ids: ids in the files and in results, by label.
        images: the usable images with their boxes.
        skipped: images that cannot be used, and entries that belong to no image.
        notes: what was assumed or corrected, a sentence each.
    """

    classes: Sequence[str]
    category_ids: Sequence[int]
    images: list[RecordBuilder]
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def keys(self) -> list[str]:
        """A key for each usable and unusable image, by which splits are made."""
        usable = [_key(image.image_id, image.file) for image in self.images]
        return usable + [_key(entry.image_id, "") for entry in self.skipped if entry.image_id is not None and not entry.box]

    def select(self, is_wanted: Callable[[str], bool]) -> Contents:
        """The images with these keys. Entries that belong to no image stay.

        Args:
            is_wanted: says of a key, one of `keys`, whether its image stays.
        """
        images = [image for image in self.images if is_wanted(_key(image.image_id, image.file))]
        skipped = [entry for entry in self.skipped if entry.image_id is None or is_wanted(_key(entry.image_id, ""))]
        return replace(self, images=images, skipped=skipped)

    def dataset(self, name: str, on_error: str, notes: Sequence[str] = (), made: MadeSplit | None = None) -> Dataset:
        """The data set of these images.

        Args:
            name: for messages.
            on_error: ``"skip"`` or ``"refuse"``; see `Dataset`.
            notes: further ones.
            made: how the split was made, if the data set does not have it itself.

        Raises:
            BrokenData, DataError: see `Dataset`.
        """
        clipped: dict[str, int] = {}
        left_out: dict[str, int] = {}
        for image in self.images:
            if image.clipped:
                clipped[image.source or image.file] = image.clipped
            for left, number in image.left_out.items():
                left_out[left] = left_out.get(left, 0) + number
        return Dataset(
            name,
            self.classes,
            self.category_ids,
            [image.build() for image in self.images],
            skipped=self.skipped + [entry for image in self.images for entry in image.skipped],
            on_error=on_error,
            clipped=clipped,
            left_out=left_out,
            notes=[*self.notes, *notes],
            made=made,
        )


class Source(ABC):
    """A data set whose form is known.

    Attributes:
        form: ``voc``, ``coco``, ``yolo`` or ``shapes``.
        place: as the user gave it.
        splits: names of the splits that it has. None: it has no splits, only a whole.
    """

    form: ClassVar[str]
    place: str
    splits: tuple[str, ...]

    @abstractmethod
    def read(self, split: str | None, classes: Sequence[str] | None) -> Contents:
        """Read a split.

        Args:
            split: one of `splits`, or None for the whole of a source without splits.
            classes: class names by label; objects of other classes are left out. None: those of the data.

        Raises:
            DataError: annotations cannot be read, or `classes` do not fit.
        """

    @property
    def name(self) -> str:
        """Form and place, for messages."""
        return f"{self.form}:{self.place}"

    def missing_split(self, split: str) -> str:
        """A sentence saying that there is no such split, to be followed by what there is.

        Args:
            split: the name that was asked for.
        """
        return f"{self.name}: no such split as {split!r}"


def choose_classes(where: str, known: Sequence[str] | None, asked: Sequence[str] | None) -> list[str]:
    """Class names by label: those that are asked for, or all that are known.

    Args:
        where: name of the data set, for messages.
        known: the classes of the data. None: any may be asked for.
        asked: None: all that are known.

    Raises:
        DataError: one that is asked for is unknown or given twice, or there are none.
    """
    names = list((known or ()) if asked is None else asked)
    unknown = [name for name in names if known is not None and name not in known]
    if unknown:
        raise DataError(f"{where}: there is no class {unknown[0]!r}; expected classes among: {', '.join(known or ())}")
    if not names or len(set(names)) < len(names):
        raise DataError(f"{where}: the classes are {names!r}; expected at least one name, each once")
    return names


def _key(id: ImageId, file: str) -> str:
    # Augmented copies of an image, `x_jpg.rf.0123….jpg` in Roboflow's exports, must not lie on both sides of a made split.
    name = file.replace("\\", "/").rpartition("/")[2]
    before, found, _ = name.rpartition(".rf.")
    if not found and isinstance(id, str):
        before, found, _ = id.rpartition("/")[2].rpartition(".rf.")
    return before if found else str(id)
