"""What every data set of pictures with boxes is, whatever files it comes from.

Conventions: pictures are uint8 [3, H, W] RGB. Boxes are float32 [n, 4], x1 y1 x2 y2 in pixels of the picture, continuous
and 0-based: the pixels 0 to 9 make the box 0 to 10. Labels are int64 [n], 0 … classes-1; `category_ids[label]` is the
file's own id, which may be sparse.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.utils.data
from torch import Tensor

from nasdsl.data.images import read_image
from nasdsl.data.problems import BrokenData, DataError, ImageId, Skipped, listed

Size: TypeAlias = tuple[int, int]
"""Height, width."""
Target: TypeAlias = dict[str, Any]
"""Of one picture; all keys are always there, for a picture without boxes too.

``boxes`` float32 [n, 4] xyxy, ``labels`` int64 [n], ``iscrowd`` bool [n], ``difficult`` bool [n], ``area`` float32 [n]
(of the object: COCO's is the mask's), ``image_id`` int or str, ``size`` (H, W) of the upright picture before any resizing.
A random crop adds ``uncropped_size``, (H, W) of the whole resized picture: the scale of its objects, which `Fcos` reads.
"""


class Sample(NamedTuple):
    """`image` uint8 [3, H, W] RGB, `target` as `Target` says."""

    image: Tensor
    target: Target


@dataclass(frozen=True, slots=True)
class Record:
    """One picture as its annotation describes it.

    `boxes` float64 [n, 4] xyxy are continuous and 0-based, otherwise as the file gives them: they may reach over the edge.
    The other arrays have [n] entries. `size` is (H, W), `file` None where the picture is drawn, not read.
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
    """Pictures with boxes, indexed 0 … len-1.

    Attributes:
        name: for people, such as ``voc:DIR (train)``.
        classes: the names; the position is the label.
        category_ids: of each label, the id that the files use and results must carry.
        skipped: what was left out when the set was opened. Pictures that prove unreadable later are in `Batch.skipped`
            and `Loader.skipped`.
        on_error: ``"skip"`` or ``"refuse"``: what the loader does about those.
        clipped: boxes that reach over the edge of their picture by more than a pixel: file -> how many. They are clipped
            in targets, and as the file gives them in `ground_truth`.
        left_out: objects of classes that ``classes=`` does not name: class -> how many.
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
    ) -> None:
        """
        Raises:
            BrokenData: something was skipped, and `on_error` is ``"refuse"``.
            DataError: an unknown `on_error`, or no picture is left.
        """
        if on_error not in ("skip", "refuse"):
            raise DataError(f"on_error={on_error!r}: expected 'skip' or 'refuse'")
        if skipped and on_error == "refuse":
            raise BrokenData(name, skipped)
        if not records:
            reasons = listed(skipped) or ["  the split lists none"]
            raise DataError("\n".join([f"{name}: no usable picture is in it", *reasons]))
        self.name = name
        self.classes = tuple(classes)
        self.category_ids = tuple(category_ids)
        self.skipped = list(skipped)
        self.on_error = on_error
        self.clipped = dict(clipped or {})
        self.left_out = dict(left_out or {})
        self._records = list(records)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        """The picture and its target.

        Raises:
            UnreadableImage: the file is missing, truncated, not a picture, or not of the size that the annotation says.
        """
        return self.read(index)

    def read(self, index: int, at_least: Size | None = None) -> Sample:
        """As ``self[index]``; with `at_least` the picture may come smaller, but not smaller than that (H, W).

        The target, with its boxes, is of the full size in any case: ``target["size"]`` tells.
        """
        record = self._records[index]
        return Sample(self._pixels(index, at_least), _target(record))

    def image_id(self, index: int) -> ImageId:
        return self._records[index].image_id

    def file(self, index: int) -> str:
        """The picture's file, or for a drawn one a description."""
        record = self._records[index]
        return record.file or f"{self.name}: picture {record.image_id}"

    def size(self, index: int) -> Size:
        """(H, W) of one picture, as `sizes` has it."""
        return self._records[index].size

    def sizes(self) -> list[Size]:
        """(H, W) of every picture, from the annotations, or the file's header where these do not tell."""
        return [record.size for record in self._records]

    def ground_truth(self, without: Collection[ImageId] = ()) -> dict[str, Any]:
        """In COCO's annotation format, without reading pictures; annotations also have ``difficult`` (0 or 1).

        Boxes are as the file gives them (VOC's moved to 0-based continuous coordinates), not clipped; annotations are
        numbered anew from 1, because pycocotools takes an annotation numbered 0 for none.

        Args:
            without: image ids to leave out, such as those of pictures that proved unreadable.
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
        """Lines for people: how many pictures and boxes, what was skipped and why, what was clipped."""
        boxes = sum(len(record.labels) for record in self._records)
        lines = [f"{self.name}: {len(self)} pictures, {boxes} boxes of {len(self.classes)} classes"]
        for what, entries in (
            ("pictures", [entry for entry in self.skipped if not entry.box]),
            ("boxes", [entry for entry in self.skipped if entry.box]),
        ):
            if entries:
                lines += [f"{what} skipped: {len(entries)}", *listed(entries)]
        if self.clipped:
            some = ", ".join(list(self.clipped)[:3]) + (", …" if len(self.clipped) > 3 else "")
            number = sum(self.clipped.values())
            lines.append(f"boxes that reach over the edge of their picture, and are clipped: {number}, in {some}")
        if self.left_out:
            lines.append("left out by classes=: " + ", ".join(f"{name} ({n})" for name, n in sorted(self.left_out.items())))
        return lines

    def _pixels(self, index: int, at_least: Size | None) -> Tensor:
        record = self._records[index]
        assert record.file is not None
        return read_image(record.file, annotated=record.size, at_least=at_least)


def _target(record: Record) -> Target:
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
class Annotation:
    """Collects the boxes of one picture while its file is read, and the reasons against some of them.

    Boxes are float xyxy, continuous and 0-based.
    """

    image_id: ImageId
    file: str
    size: Size
    skipped: list[Skipped] = field(default_factory=list)
    clipped: int = 0
    _rows: list[tuple[list[float], int, bool, bool, float]] = field(default_factory=list)

    def skip(self, source: str, reason: str) -> None:
        """Leave a box out, named by its file."""
        self.skipped.append(Skipped(source, reason, self.image_id, box=True))

    def add(self, source: str, what: str, box: list[float], label: int, *, crowd: bool, difficult: bool, area: float) -> None:
        """Take a box, or skip it: not finite, without a width or height, outside of the picture."""
        height, width = self.size
        x1, y1, x2, y2 = box
        if not all(map(math.isfinite, box)):
            self.skip(source, f"{what}: not a finite number in the box")
        elif x2 <= x1 or y2 <= y1:
            self.skip(source, f"{what}: the box is {x2 - x1:g} wide and {y2 - y1:g} high")
        elif x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            self.skip(source, f"{what}: the box {_text(box)} lies outside of the picture of {width}x{height}")
        else:
            # A pixel over the edge is a matter of rounding, or of where counting begins.
            self.clipped += min(x1, y1) < -1 or x2 > width + 1 or y2 > height + 1
            self._rows.append((box, label, crowd, difficult, area))

    def record(self) -> Record:
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


def _text(box: Sequence[float]) -> str:
    return "[" + ", ".join(f"{number:g}" for number in box) + "]"
