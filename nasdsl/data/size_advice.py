"""An image size for training, recommended from the sizes of the boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nasdsl.data.dataset import Dataset, Size
from nasdsl.data.errors import DataError

FINEST_STRIDE = 8
"""Pixels of a cell of the finest level, p3."""
CELLS = 4
"""Cells that small objects should measure: 32 pixels, below which COCO counts objects as small."""
SMALL_SHARE = 0.05
"""Share of the boxes that may be smaller than that."""
MULTIPLE = 32
"""Of both sides: the coarsest stride of a backbone."""
SHORTER, LONGER = 800, 1344
"""Bounds of the sides: those of the published schedules, 800 and 1333, as multiples of 32."""


@dataclass(frozen=True)
class SizeAdvice:
    """A recommended image size.

    Attributes:
        size: (H, W), multiples of 32.
        reason: a sentence.
        small_side: the shorter side of a small box, in pixels of the images as they are: 5 % of the boxes are below.
        small_side_at_size: the same in pixels at `size`.
        relative_cost: pixels of `size`, divided by those of an image as it is (the median).
    """

    size: Size
    reason: str
    small_side: float
    small_side_at_size: float
    relative_cost: float


def recommend_size(images: Dataset | Sequence[tuple[Dataset, int]]) -> SizeAdvice:
    """Recommend the size at which 5 % of the boxes are below four cells of the finest level on their shorter side.

    It has the aspect ratio of the images, and is not larger than they are, nor than the published schedules' 800x1344.

    Args:
        images: a data set, or images of several, each given by data set and index.

    Raises:
        DataError: there are no boxes.
    """
    chosen = [(images, index) for index in range(len(images))] if isinstance(images, Dataset) else images
    sizes = np.array([dataset.size(index) for dataset, index in chosen], dtype=np.float64)
    boxes = [dataset.target(index)["boxes"].numpy() for dataset, index in chosen]
    # Images of other sizes are resized to one size: a box is measured relative to its image.
    height, width = np.median(sizes, axis=0)
    sides = np.concatenate(
        [(box[:, 2:] - box[:, :2]) / (w, h) * (width, height) for box, (h, w) in zip(boxes, sizes, strict=True)]
    ).min(axis=1)
    if not len(sides):
        raise DataError(f"{chosen[0][0].name}: without boxes, no size can be recommended")
    small = float(np.quantile(sides, SMALL_SHARE))
    wanted = CELLS * FINEST_STRIDE / max(small, 1e-6)
    largest = min(1.0, SHORTER / min(height, width), LONGER / max(height, width))
    scale = min(wanted, largest)
    size = (_multiple(height * scale, height), _multiple(width * scale, width))
    at_size = small * min(size[0] / height, size[1] / width)
    facts = (
        f"95 % of the boxes are at least {small:.0f} pixels on their shorter side in the images, which are "
        f"{height:.0f}x{width:.0f}, and {at_size:.0f} at {size[0]}x{size[1]}"
    )
    cells = f"{CELLS} cells of the finest level (stride {FINEST_STRIDE})"
    if wanted <= largest:
        reason = f"{facts}: about {cells}"
    else:
        bound = "the images are not larger" if largest == 1 else "larger images take very long"
        reason = f"{facts}: less than {cells}, but {bound}"
    return SizeAdvice(size, reason, small, at_size, size[0] * size[1] / float(height * width))


def fractions_of_size(size: Size, shares: Sequence[float]) -> tuple[Size, ...]:
    """Sizes of about the shape of `size`, with these shares of its sides, as multiples of 32; each once, smallest first."""
    sides = ((_multiple(size[0] * share, size[0]), _multiple(size[1] * share, size[1])) for share in sorted(shares))
    return tuple(dict.fromkeys(sides))


def _multiple(side: float, whole: float) -> int:
    """The nearest multiple of 32 that is not above the whole side (by more than 1 %); 32 for images that are smaller still."""
    return max(MULTIPLE, min(round(side / MULTIPLE), int(whole * 1.01 // MULTIPLE)) * MULTIPLE)
