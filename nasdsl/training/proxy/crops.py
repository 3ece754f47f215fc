"""Crops of pictures: how they are sampled, and the boxes and targets inside them.

The backbone sees whole pictures, and a crop is cut out of their feature maps, aligned to the coarsest stride so that the same
pixels are meant at every level. This differs from cropping the pixels in two ways. There are fewer crops: 5 of 384 pixels in a
picture 512 wide, not 129. And the maps depend on pixels outside of the crop, within the backbone's receptive field, where a
cropped picture has zeros: for MobileNetV2 the maps differ by 15 % (c2, c3), 30 % (c4) and 35 to 40 % (c5) in root mean square,
nearly all of it near the crop's edges (in the inner two thirds 0, 2 and 14 to 18 %). So a decoder is trained on maps as they
are inside of whole pictures, and a box that is cut by the crop's edge may leave a trace of its other part.
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
from nasdsl.detection.locations import LocationTargets
from nasdsl.detection.method import Method
from nasdsl.detection.pyramid import Shapes, level_locations, strides_of

Size: TypeAlias = tuple[int, int]

MIN_SIDE: Final = 1.0
"""Boxes narrower or lower than this in a crop, in pixels, are left out, as in the full training."""
_SAME_BOX: Final = 0.01
"""Pixels by which a box differs at most when it is recovered from the distances to its sides."""
_SPLIT_STREAM, _ORDER_STREAM = 1, 2
"""Mixed into the seed, so that the split and the order of crops are drawn independently."""


class Crop(NamedTuple):
    """A crop: index of the picture, whether it is mirrored, and the corner in pixels of the (mirrored) picture."""

    picture: int
    mirrored: bool
    top: int
    left: int


class Annotations(NamedTuple):
    """Annotations of a picture or a crop: boxes [n, 4] xyxy in pixels, and [n] values as in `nasdsl.data.Target`."""

    boxes: Tensor
    labels: Tensor
    iscrowd: Tensor
    difficult: Tensor

    def where(self, mask: Tensor) -> Annotations:
        """Those where the mask [n] is true."""
        return Annotations(*(x[mask] for x in self))


def load_annotations(dataset: Dataset, sizes: Sequence[Size]) -> list[Annotations]:
    """The annotations of each picture when it is resized to (H, W) `sizes`, clipped to it. No picture is read."""
    labels = {category: label for label, category in enumerate(dataset.category_ids)}
    rows: dict[Any, list[Mapping[str, Any]]] = {dataset.image_id(i): [] for i in range(len(dataset))}
    for annotation in dataset.ground_truth()["annotations"]:
        rows[annotation["image_id"]].append(annotation)
    loaded = []
    for index, size in enumerate(sizes):
        of_picture, original = rows[dataset.image_id(index)], dataset.size(index)
        boxes = torch.tensor([row["bbox"] for row in of_picture], dtype=torch.float64).reshape(-1, 4)
        boxes = torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1)
        boxes = clip_boxes_to_image(boxes, original).float()
        flags = (torch.tensor([bool(row[key]) for row in of_picture], dtype=torch.bool) for key in ("iscrowd", "difficult"))
        numbers = torch.tensor([labels[row["category_id"]] for row in of_picture], dtype=torch.int64)
        loaded.append(Annotations(rescale_boxes(boxes, original, size), numbers, *flags))
    return loaded


def crop_annotations(annotations: Annotations, size: Size, crop: Crop, crop_size: Size) -> Annotations:
    """The annotations inside a crop, with boxes in pixels of the crop, clipped to the crop and the picture.

    Args:
        annotations: of the picture.
        size: (H, W) of the picture without its padding.
        crop_size: (H, W) of the crop.
    """
    boxes = annotations.boxes
    if crop.mirrored:
        boxes = F.horizontal_flip_bounding_boxes(boxes, BoundingBoxFormat.XYXY, size)
    boxes, _ = F.crop_bounding_boxes(boxes, BoundingBoxFormat.XYXY, crop.top, crop.left, *crop_size)
    visible = (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(dim=1)
    return annotations._replace(boxes=boxes).where(visible)


def split(pictures: Sequence[int], val_share: float, seed: int) -> tuple[list[int], list[int]]:
    """Split pictures into meta-train and meta-val, each sorted and with at least one picture."""
    generator = torch.Generator().manual_seed(mixed_seed(seed, _SPLIT_STREAM))
    count = min(max(1, round(val_share * len(pictures))), len(pictures) - 1)
    val = set(torch.randperm(len(pictures), generator=generator)[:count].tolist())
    return [p for i, p in enumerate(pictures) if i not in val], [p for i, p in enumerate(pictures) if i in val]


@dataclass(frozen=True)
class CropSampler:
    """Samples crops of pictures.

    Attributes:
        padded_sizes: (H, W) in pixels of each picture with its padding.
        crop_size: (H, W) of a crop in pixels.
        stride: crops begin at multiples of it.
        mirror: half of the random crops are mirrored.
    """

    padded_sizes: Sequence[Size]
    crop_size: Size
    stride: int
    mirror: bool

    def center_crop(self, picture: int) -> Crop:
        """The crop in the middle of a picture, not mirrored; meta-val is evaluated on these."""
        top, left = (count // 2 * self.stride for count in self._positions(picture))
        return Crop(picture, False, top, left)

    def sample(self, pictures: Sequence[int], batch_size: int, batches: int, seed: int) -> Iterator[list[Crop]]:
        """Batches of random crops. Every picture is seen once an epoch; a batch may contain the end of one epoch and the
        beginning of the next. Only the arguments and the fields of this class determine the crops."""
        stream = self._stream(pictures, seed)
        for _ in range(batches):
            yield [next(stream) for _ in range(batch_size)]

    def _stream(self, pictures: Sequence[int], seed: int) -> Iterator[Crop]:
        epoch = 0
        while True:
            generator = torch.Generator().manual_seed(mixed_seed(seed, _ORDER_STREAM, epoch))
            order = torch.randperm(len(pictures), generator=generator).tolist()
            numbers = torch.rand(len(pictures), 3, generator=generator, dtype=torch.float64).tolist()
            for index, (flip, y, x) in zip(order, numbers, strict=True):
                rows, columns = self._positions(pictures[index])
                top, left = int(y * (rows + 1)) * self.stride, int(x * (columns + 1)) * self.stride
                yield Crop(pictures[index], self.mirror and flip < 0.5, top, left)
            epoch += 1

    def _positions(self, picture: int) -> Size:
        """The largest multiples of the stride, down and across, at which a crop still fits."""
        height, width = self.padded_sizes[picture]
        return (height - self.crop_size[0]) // self.stride, (width - self.crop_size[1]) // self.stride


class _Positives(NamedTuple):
    """The positive locations of a crop: indices [n] into all its locations, and their targets."""

    indices: Tensor
    labels: Tensor
    distances: Tensor
    centerness: Tensor


class BatchPositives(NamedTuple):
    """The positive locations of a batch of N crops with L locations each: indices [n] into all N * L, and their targets.

    On a GPU, only these are copied to it.
    """

    indices: Tensor
    labels: Tensor
    distances: Tensor
    centerness: Tensor

    def dense(self, crops: int, locations: int) -> LocationTargets:
        """The targets at all locations of the batch.

        Args:
            crops, locations: N and L.
        """
        labels = torch.full((crops * locations,), -1, device=self.indices.device)
        distances, centerness = self.distances.new_zeros(len(labels), 4), self.centerness.new_zeros(len(labels))
        labels[self.indices] = self.labels.long()
        distances[self.indices] = self.distances
        centerness[self.indices] = self.centerness
        shape = (crops, locations)
        return LocationTargets(labels.view(shape), distances.view(*shape, 4), centerness.view(shape))


class TargetCache:
    """Annotations of crops, and targets at their locations. Targets are computed at first use; only positive locations are
    kept, which are a few kilobytes a crop.

    Args:
        annotations: of each picture.
        sizes: (H, W) of each picture without its padding.
        crop_size: (H, W) of a crop in pixels.
        image_size: (H, W) by whose shorter side FCOS's ranges are scaled: that of the pictures, whatever part of them a crop
            is. None: that of a crop.
    """

    def __init__(
        self,
        annotations: Sequence[Annotations],
        sizes: Sequence[Size],
        crop_size: Size,
        image_size: Size | None = None,
    ) -> None:
        self._annotations, self._sizes, self._crop_size = annotations, sizes, crop_size
        self.image_size = image_size or crop_size
        self._positives: dict[tuple[Method, tuple[tuple[str, Size], ...]], dict[Crop, _Positives]] = {}

    def annotations_in(self, crop: Crop) -> Annotations:
        """The annotations inside a crop."""
        return crop_annotations(self._annotations[crop.picture], self._sizes[crop.picture], crop, self._crop_size)

    def boxes_in(self, crop: Crop) -> dict[str, Tensor]:
        """``boxes`` and ``labels`` inside a crop for training: without crowds."""
        found = self.annotations_in(crop)
        found = found.where(~found.iscrowd)
        return {"boxes": found.boxes, "labels": found.labels}

    def at_locations(self, crops: Sequence[Crop], method: Method, shapes: Shapes) -> LocationTargets:
        """The targets of `method`, whose targets are `LocationTargets`, for these crops, for levels of these shapes."""
        return self.positives(crops, method, shapes).dense(len(crops), locations_of(shapes))

    def positives(self, crops: Sequence[Crop], method: Method, shapes: Shapes) -> BatchPositives:
        """The positive locations of the same targets."""
        cached = self._positives.setdefault((method, tuple(shapes.items())), {})
        for crop in crops:
            if crop not in cached:
                cached[crop] = self._compute(crop, method, shapes)
        count, found = locations_of(shapes), [cached[crop] for crop in crops]
        return BatchPositives(
            torch.cat([row * count + p.indices for row, p in enumerate(found)]),
            torch.cat([p.labels for p in found]),
            torch.cat([p.distances for p in found]),
            torch.cat([p.centerness for p in found]),
        )

    def unassigned_share(self, crops: Sequence[Crop], method: Method, shapes: Shapes) -> float:
        """Share of the boxes in these crops that are assigned to no location, so that they are in no loss; 0 without boxes.

        A box is recovered from each positive location. Of equal boxes, all count as assigned.
        """
        self.positives(crops, method, shapes)
        cached = self._positives[method, tuple(shapes.items())]
        strides = strides_of(shapes)
        locations = torch.cat([level_locations(x, stride) for x, stride in zip(shapes.values(), strides, strict=True)])
        boxes = assigned = 0
        for crop in crops:
            given, (index, _, distances, _) = self.boxes_in(crop)["boxes"], cached[crop]
            recovered = torch.cat([locations[index] - distances[:, :2], locations[index] + distances[:, 2:]], dim=1)
            boxes += len(given)
            if len(recovered):
                near = (given[:, None] - recovered).abs().amax(dim=2).amin(dim=1)
                assigned += int((near < _SAME_BOX).sum())
        return 1 - assigned / boxes if boxes else 0.0

    def _compute(self, crop: Crop, method: Method, shapes: Shapes) -> _Positives:
        dense = method.targets(shapes, self.image_size, [self.boxes_in(crop)])
        index = torch.nonzero(dense.labels[0] >= 0).squeeze(1)
        labels, distances, centerness = (x[0, index].clone() for x in dense)
        return _Positives(index, labels.int(), distances, centerness)


def locations_of(shapes: Shapes) -> int:
    """The number of locations of levels of these shapes."""
    return sum(height * width for height, width in shapes.values())
