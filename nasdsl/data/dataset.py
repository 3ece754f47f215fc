"""The data set class that all formats share.

Conventions: images are uint8 [3, H, W] RGB. Boxes are float32 [n, 4], x1 y1 x2 y2 in pixels of the image, continuous and
0-based: a box over the pixels 0 to 9 reaches from 0 to 10. Labels are int64 [n], 0 … classes-1; `category_ids[label]` is
the id in the files, which may have gaps.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.utils.data
from torch import Tensor

from nasdsl.coco_json import ImageId
from nasdsl.data.errors import BrokenData, DataError, Skipped, listing
from nasdsl.data.images import read_image
from nasdsl.data.splits import MadeSplit

Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""
Target: TypeAlias = dict[str, Any]
"""Annotation of one image, with all of these keys even if it has no boxes:

``boxes`` float32 [n, 4] xyxy, ``labels`` int64 [n], ``iscrowd`` bool [n], ``difficult`` bool [n], ``area`` float32 [n]
(of the object; in COCO, of its mask), ``image_id`` int or str, ``size`` (H, W) of the upright image before any resizing.
Random resizing and cropping add ``uncropped_size``, (H, W) that the whole image has in evaluation: `Fcos`'s ranges scale with
it.
"""


class Sample(NamedTuple):
    """An image, uint8 [3, H, W] RGB, and its target.

    Attributes:
        image: uint8 [3, H, W], RGB.
        target: its annotation; see `Target`.
    """

    image: Tensor
    target: Target


@dataclass(frozen=True, slots=True)
class Record:
    """Annotation of one image as its file gives it.

    Attributes:
        file: path of the image; None for a synthetic one.
        size: (H, W).
        boxes: float64 [n, 4] xyxy, continuous and 0-based, not clipped to the image.
        labels, iscrowd, difficult, area: [n].
    """

    image_id: ImageId
    file: str | None
    size: Size
    boxes: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    iscrowd: npt.NDArray[np.bool_]
    difficult: npt.NDArray[np.bool_]
    area: npt.NDArray[np.float64]


class Dataset(torch.utils.data.Dataset[Sample]):
    """Images with boxes, indexed 0 … len-1.

    Attributes:
        name: name for messages, such as ``voc:DIR (train)``.
        classes: class names by label.
        category_ids: ids of the classes in the files and in results, by label.
        skipped: images and boxes left out when the data set was opened. Images that turn out to be unreadable later are
            in `Batch.skipped` and `Loader.skipped`.
        on_error: what the loader does about unreadable images, ``"skip"`` or ``"refuse"``.
        clipped: number of boxes, by file, that reach over the edge of their image by more than a pixel. They are clipped in
            targets but not in `ground_truth`.
        left_out: number of objects, by class, whose class is not in `classes`.
        notes: what was assumed or corrected while reading, a sentence each.
        made: how the split was made, if the data set does not have it itself.
    """

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        category_ids: Sequence[int],
        records: Sequence[Record],
        *,
        skipped: Sequence[Skipped] = (),
        on_error: str = "skip",
        clipped: Mapping[str, int] | None = None,
        left_out: Mapping[str, int] | None = None,
        notes: Sequence[str] = (),
        made: MadeSplit | None = None,
    ) -> None:
        """
        Args:
            records: annotations of the images, in the order of the data set.

        Raises:
            BrokenData: an image or box was skipped, and `on_error` is ``"refuse"``.
            DataError: `on_error` is unknown, or there is no image.
        """
        if on_error not in ("skip", "refuse"):
            raise DataError(f"on_error={on_error!r}: expected 'skip' or 'refuse'")
        if skipped and on_error == "refuse":
            raise BrokenData(name, skipped)
        if not records:
            reasons = listing(skipped) or ["  the split lists none"]
            raise DataError("\n".join([f"{name}: no usable image is in it", *reasons]))
        self.name = name
        self.classes = tuple(classes)
        self.category_ids = tuple(category_ids)
        self.skipped = list(skipped)
        self.on_error = on_error
        self.clipped = dict(clipped or {})
        self.left_out = dict(left_out or {})
        self.notes = tuple(notes)
        self.made = made
        self._records = list(records)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        """The image and its target.

        Raises:
            UnreadableImage: the file is missing, truncated, not an image, or not of the annotated size.
        """
        return self.read(index)

    def read(self, index: int, at_least: Size | None = None) -> Sample:
        """As ``self[index]``, but with `at_least` (H, W) the image may be decoded at a smaller size, down to that one.

        Boxes are in pixels of the full size, ``target["size"]``, in any case.

        Args:
            index: of the image.
            at_least: (H, W), in pixels; None: the full size.
        """
        record = self._records[index]
        return Sample(self._read_image(index, at_least), _target_of(record))

    def select(self, indices: Sequence[int]) -> Self:
        """The same data set with these images alone, in this order.

        Args:
            indices: of the images that stay.

        Raises:
            DataError: there are none.
        """
        if not len(indices):
            raise DataError(f"{self.name}: no image was selected")
        selected = copy.copy(self)
        selected._records = [self._records[index] for index in indices]
        return selected

    def image_id(self, index: int) -> ImageId:
        """Id of an image, as in the files.

        Args:
            index: of the image.
        """
        return self._records[index].image_id

    def file(self, index: int) -> str:
        """Path of an image, or a description of a synthetic one.

        Args:
            index: of the image.
        """
        record = self._records[index]
        return record.file or f"{self.name}: image {record.image_id}"

    def size(self, index: int) -> Size:
        """(H, W) of an image, from its annotation, or from its header where the annotation has none.

        Args:
            index: of the image.
        """
        return self._records[index].size

    def target(self, index: int) -> Target:
        """Annotation of an image. Reads no image.

        Args:
            index: of the image.
        """
        return _target_of(self._records[index])

    def class_counts(self) -> dict[str, int]:
        """Number of boxes of each class, by name in the order of the labels."""
        counts = np.zeros(len(self.classes), dtype=np.int64)
        for record in self._records:
            counts += np.bincount(record.labels, minlength=len(self.classes))
        return dict(zip(self.classes, counts.tolist(), strict=True))

    def sizes(self) -> list[Size]:
        """(H, W) of every image, as by `size`."""
        return [record.size for record in self._records]

    def ground_truth(self, without: Collection[ImageId] = ()) -> dict[str, Any]:
        """The annotations in COCO's format, plus ``difficult`` (0 or 1) for each box. Reads no images.

        Boxes are not clipped; VOC's are in 0-based continuous coordinates. Annotations are numbered from 1, because
        pycocotools takes an annotation with the id 0 for no match.

        Args:
            without: image ids to leave out, such as those of unreadable images.
        """
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for record in self._records:
            if record.image_id in without:
                continue
            height, width = record.size
            images.append({"id": record.image_id, "height": height, "width": width, "file_name": record.file or ""})
            for number, (x1, y1, x2, y2) in enumerate(record.boxes.tolist()):
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": record.image_id,
                    "category_id": self.category_ids[int(record.labels[number])],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(record.area[number]),
                    "iscrowd": int(record.iscrowd[number]),
                    "difficult": int(record.difficult[number]),
                }
                annotations.append(annotation)
        categories = [{"id": i, "name": name} for i, name in zip(self.category_ids, self.classes, strict=True)]
        return {"images": images, "annotations": annotations, "categories": categories}

    def summary(self) -> list[str]:
        """Lines for the user: number of images and boxes, and what was skipped, clipped, left out or assumed."""
        boxes = sum(len(record.labels) for record in self._records)
        lines = [f"{self.name}: {len(self)} images, {boxes} boxes of {len(self.classes)} classes"]
        lines += self.notes
        for what, entries in (
            ("images", [entry for entry in self.skipped if not entry.box]),
            ("boxes", [entry for entry in self.skipped if entry.box]),
        ):
            if entries:
                lines += [f"{what} skipped: {len(entries)}", *listing(entries)]
        if self.clipped:
            some = ", ".join(list(self.clipped)[:3]) + (", …" if len(self.clipped) > 3 else "")
            number = sum(self.clipped.values())
            lines.append(f"boxes clipped to their image: {number}, in {some}")
        if self.left_out:
            some = ", ".join(f"{name} ({n})" for name, n in sorted(self.left_out.items()))
            lines.append(f"objects of other classes, left out: {some}")
        return lines

    def _read_image(self, index: int, at_least: Size | None) -> Tensor:
        record = self._records[index]
        assert record.file is not None
        return read_image(record.file, annotated=record.size, at_least=at_least)


def _target_of(record: Record) -> Target:
    height, width = record.size
    edges = np.array([width, height, width, height], dtype=np.float64)
    return {
        "boxes": torch.from_numpy(np.clip(record.boxes, 0, edges).astype(np.float32)).reshape(-1, 4),
        "labels": torch.from_numpy(record.labels.copy()),
        "iscrowd": torch.from_numpy(record.iscrowd.copy()),
        "difficult": torch.from_numpy(record.difficult.copy()),
        "area": torch.from_numpy(record.area.astype(np.float32)),
        "image_id": record.image_id,
        "size": record.size,
    }


@dataclass
class RecordBuilder:
    """Collects the boxes of one image while its annotation is read; invalid boxes go to `skipped`.

    Attributes:
        image_id: as in the file, or made from its name.
        file: of the image.
        size: (H, W) of the upright image.
        source: annotation file; empty if it is one for all images.
        clipped: number of boxes that reach over the edge by more than a pixel.
        left_out: number of objects, by class, whose class is not wanted.
    """

    image_id: ImageId
    file: str
    size: Size
    source: str = ""
    skipped: list[Skipped] = field(default_factory=list)
    clipped: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    _rows: list[tuple[list[float], int, bool, bool, float]] = field(default_factory=list)

    def leave_out(self, name: str) -> None:
        """Count an object of a class that is not wanted.

        Args:
            name: of its class.
        """
        self.left_out[name] = self.left_out.get(name, 0) + 1

    def skip(self, source: str, reason: str) -> None:
        """Leave a box out.

        Args:
            source: file, and place in it.
            reason: what is wrong with it, in a few words.
        """
        self.skipped.append(Skipped(source, reason, self.image_id, box=True))

    def add(self, source: str, what: str, box: list[float], label: int, *, crowd: bool, difficult: bool, area: float) -> None:
        """Add a box; skip it if it is not finite, has no width or height, or lies outside of the image.

        Args:
            source: file, and place in it.
            what: name of the box in messages.
            box: xyxy, continuous and 0-based.
            label: of its class.
            crowd: whether it is a region of many objects, which is no object to find.
            difficult: whether it is marked so; metrics ignore it.
            area: of the object in pixels; of its mask where there is one.
        """
        height, width = self.size
        x1, y1, x2, y2 = box
        if not all(map(math.isfinite, box)):
            self.skip(source, f"{what}: not a finite number in the box")
        elif x2 <= x1 or y2 <= y1:
            self.skip(source, f"{what}: the box is {x2 - x1:g} wide and {y2 - y1:g} high")
        elif x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            self.skip(source, f"{what}: the box {_format_box(box)} lies outside of the image of {width}x{height}")
        else:
            # A pixel over the edge comes from rounding, or from counting pixels from 1.
            self.clipped += min(x1, y1) < -1 or x2 > width + 1 or y2 > height + 1
            self._rows.append((box, label, crowd, difficult, area))

    def build(self) -> Record:
        """The record with all boxes added so far."""
        boxes = np.array([row[0] for row in self._rows], dtype=np.float64).reshape(-1, 4)
        _, labels, crowd, difficult, area = zip(*self._rows, strict=True) if self._rows else ((), (), (), (), ())
        return Record(
            self.image_id,
            self.file,
            self.size,
            boxes,
            np.array(labels, dtype=np.int64),
            np.array(crowd, dtype=np.bool_),
            np.array(difficult, dtype=np.bool_),
            np.array(area, dtype=np.float64),
        )


def _format_box(box: Sequence[float]) -> str:
    return "[" + ", ".join(f"{number:g}" for number in box) + "]"
