"""Which part of which picture is seen, and what is to be found there.

The backbone sees whole pictures. A crop is cut out of their maps, at a multiple of the coarsest stride, so that its places are
those of the crop's own pixels at every level. Two things differ from cropping the pixels. There are fewer crops: of a picture
512 pixels wide 5 of 384, not 129. And the maps know what lies outside of the crop, within the backbone's reach, where a cropped
picture has zeros: of MobileNetV2 the maps differ by 15 % (c2, c3), 30 % (c4) and 35 to 40 % (c5) in the root of the mean
square, nearly all of it beside the crop's edges (in the inner two thirds 0, 2 and 14 to 18 %). So a decoder learns from maps as
it will see them inside of whole pictures, and of a box that the crop's edge cuts it may see a trace of the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxFormat

from nasdsl.data import Dataset, rescale_boxes
from nasdsl.data.seeds import mixed_seed
from nasdsl.detection.fcos import Fcos, FcosTargets
from nasdsl.detection.pyramid import Shapes

Size: TypeAlias = tuple[int, int]

SMALLEST: Final = 1.0
"""Boxes are left out that are narrower or lower than this in a crop, in pixels, as in the full training."""
_SPLIT, _ORDER = 1, 2  # what a number is drawn for


class Place(NamedTuple):
    """A crop: of which picture, mirrored or not, and where it begins in pixels of that (mirrored) picture."""

    picture: int
    mirrored: bool
    top: int
    left: int


class Objects(NamedTuple):
    """What is in a picture, or in a crop: boxes [n, 4] xyxy in pixels, and of each box what `nasdsl.data.Target` says."""

    boxes: Tensor
    labels: Tensor
    iscrowd: Tensor
    difficult: Tensor

    def where(self, wanted: Tensor) -> Objects:
        return Objects(*(x[wanted] for x in self))


def objects_of(dataset: Dataset, sizes: Sequence[Size]) -> list[Objects]:
    """What is in each picture when it is resized to `sizes`, clipped to it. No picture is read."""
    labels = {category: label for label, category in enumerate(dataset.category_ids)}
    rows: dict[Any, list[Mapping[str, Any]]] = {dataset.image_id(i): [] for i in range(len(dataset))}
    for annotation in dataset.ground_truth()["annotations"]:
        rows[annotation["image_id"]].append(annotation)
    found = []
    for index, size in enumerate(sizes):
        of_picture, full = rows[dataset.image_id(index)], dataset.size(index)
        boxes = torch.tensor([row["bbox"] for row in of_picture], dtype=torch.float64).reshape(-1, 4)
        boxes = torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1)
        boxes = clip_boxes_to_image(boxes, full).float()
        flags = (torch.tensor([bool(row[key]) for row in of_picture], dtype=torch.bool) for key in ("iscrowd", "difficult"))
        numbers = torch.tensor([labels[row["category_id"]] for row in of_picture], dtype=torch.int64)
        found.append(Objects(rescale_boxes(boxes, full, size), numbers, *flags))
    return found


def objects_in(objects: Objects, size: Size, place: Place, crop: int) -> Objects:
    """What is in a crop, boxes in its own pixels and clipped to it and to the picture.

    Args:
        objects: of the picture, of (H, W) `size` without its padding.
        crop: pixels of each side.
    """
    boxes = objects.boxes
    if place.mirrored:
        boxes = F.horizontal_flip_bounding_boxes(boxes, BoundingBoxFormat.XYXY, size)
    boxes, _ = F.crop_bounding_boxes(boxes, BoundingBoxFormat.XYXY, place.top, place.left, crop, crop)
    visible = (boxes[:, 2:] - boxes[:, :2] >= SMALLEST).all(dim=1)
    return objects._replace(boxes=boxes).where(visible)


def split(pictures: Sequence[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Meta-train and meta-val: each in ascending order, at least one picture in each."""
    generator = torch.Generator().manual_seed(mixed_seed(seed, _SPLIT))
    count = min(max(1, round(share * len(pictures))), len(pictures) - 1)
    drawn = set(torch.randperm(len(pictures), generator=generator)[:count].tolist())
    return [p for i, p in enumerate(pictures) if i not in drawn], [p for i, p in enumerate(pictures) if i in drawn]


@dataclass(frozen=True)
class Cropping:
    """The crops of pictures of these extents.

    Attributes:
        extents: (H, W) in pixels of each picture with its padding.
        size: pixels of each side of a crop.
        stride: crops begin at multiples of it.
        mirror: mirrored pictures, too.
    """

    extents: Sequence[Size]
    size: int
    stride: int
    mirror: bool

    def middle(self, picture: int) -> Place:
        """The crop that is evaluated."""
        top, left = (count // 2 * self.stride for count in self._last(picture))
        return Place(picture, False, top, left)

    def draw(self, pictures: Sequence[int], batch_size: int, batches: int, seed: int) -> Iterator[list[Place]]:
        """Random crops: each picture once an epoch, one epoch after the other without a gap. Nothing but the arguments and
        this class decides them."""
        stream = self._stream(pictures, seed)
        for _ in range(batches):
            yield [next(stream) for _ in range(batch_size)]

    def _stream(self, pictures: Sequence[int], seed: int) -> Iterator[Place]:
        epoch = 0
        while True:
            generator = torch.Generator().manual_seed(mixed_seed(seed, _ORDER, epoch))
            order = torch.randperm(len(pictures), generator=generator).tolist()
            numbers = torch.rand(len(pictures), 3, generator=generator, dtype=torch.float64).tolist()
            for index, (flip, y, x) in zip(order, numbers, strict=True):
                rows, columns = self._last(pictures[index])
                top, left = int(y * (rows + 1)) * self.stride, int(x * (columns + 1)) * self.stride
                yield Place(pictures[index], self.mirror and flip < 0.5, top, left)
            epoch += 1

    def _last(self, picture: int) -> Size:
        """The last multiples of the stride, down and across, at which a crop can begin."""
        height, width = self.extents[picture]
        return (height - self.size) // self.stride, (width - self.size) // self.stride


class _Positives(NamedTuple):
    """The locations of a crop that learn a box; all others are background."""

    at: Tensor
    labels: Tensor
    distances: Tensor
    centerness: Tensor


class TargetStore:
    """FCOS targets of crops, each computed when it is first asked for. Kept are the locations that learn a box: some
    kilobytes a crop."""

    def __init__(self, objects: Sequence[Objects], sizes: Sequence[Size], crop: int) -> None:
        self._objects, self._sizes, self._crop = objects, sizes, crop
        self._kept: dict[tuple[Fcos, tuple[tuple[str, Size], ...]], dict[Place, _Positives]] = {}

    def found_in(self, place: Place) -> Objects:
        """What is in a crop."""
        return objects_in(self._objects[place.picture], self._sizes[place.picture], place, self._crop)

    def boxes_in(self, place: Place) -> dict[str, Tensor]:
        """What can be learned in a crop: ``boxes`` and ``labels``, without crowds."""
        found = self.found_in(place)
        found = found.where(~found.iscrowd)
        return {"boxes": found.boxes, "labels": found.labels}

    def fcos(self, places: Sequence[Place], method: Fcos, shapes: Shapes) -> FcosTargets:
        """What `method` makes of these crops, for levels of these shapes."""
        kept = self._kept.setdefault((method, tuple(shapes.items())), {})
        for place in places:
            if place not in kept:
                kept[place] = self._positives(place, method, shapes)
        count = sum(height * width for height, width in shapes.values())
        positives = [kept[place] for place in places]
        index = torch.cat([row * count + p.at for row, p in enumerate(positives)])
        labels = torch.full((len(places) * count,), -1)
        distances, centerness = torch.zeros(len(labels), 4), torch.zeros(len(labels))
        labels[index] = torch.cat([p.labels for p in positives]).long()
        distances[index] = torch.cat([p.distances for p in positives])
        centerness[index] = torch.cat([p.centerness for p in positives])
        shape = (len(places), count)
        return FcosTargets(labels.view(shape), distances.view(*shape, 4), centerness.view(shape))

    def _positives(self, place: Place, method: Fcos, shapes: Shapes) -> _Positives:
        dense = method.targets(shapes, (self._crop, self._crop), [self.boxes_in(place)])
        index = torch.nonzero(dense.labels[0] >= 0).squeeze(1)
        labels, distances, centerness = (x[0, index].clone() for x in dense)
        return _Positives(index, labels.int(), distances, centerness)
