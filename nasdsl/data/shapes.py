"""`shapes`: a synthetic data set of five classes of flat shapes on soft backgrounds, 240x320. It needs no files.

It is easy on purpose, for demos and tests: a detector learns it from scratch in about a minute.
"""

from __future__ import annotations

import colorsys
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from nasdsl.data.dataset import Dataset, Record, Size
from nasdsl.data.errors import DataError, NoSplit
from nasdsl.data.images import to_tensor
from nasdsl.data.source import choose_classes

CLASSES = ("circle", "square", "triangle", "star", "ring")
HEIGHT, WIDTH = 240, 320
SPLITS = {"train": 400, "val": 100, "test": 100}
"""Splits, with the number of images of each."""
_MIN_DIAMETER, _MAX_DIAMETER = 28.0, 120.0
_MAX_SHAPES = 5
_MAX_OVERLAP = 0.12
_HUE_RANGE = 1.2
"""Width of a class's range of hues, in fifths of the hue circle. Above 1, so that classes overlap and colour is only a hint;
without the hint a network needs many minutes to tell the shapes apart."""
_SUPERSAMPLING = 4
"""Masks are drawn at this multiple of the resolution and averaged, for smooth edges."""

Pixels = npt.NDArray[np.float32]


def open_shapes(
    count: str | int = "",
    split: str = "train",
    *,
    seed: int = 0,
    on_error: str = "skip",
    classes: Sequence[str] | None = None,
) -> Dataset:
    """Open the synthetic data set. An image depends on (seed, split, index) alone: longer sets begin with the shorter ones.

    Boxes are the exact extents of the shapes, even where another shape covers a part. Image ids are the indices, and category
    ids are label + 1 with all classes.

    Args:
        count: number of images. Empty: 400 for train, 100 for val and test.
        split: train, val or test.
        on_error: as for the other formats; there are no errors here.
        classes: class names by label; shapes of other classes are painted without a box. None: all five.

    Raises:
        DataError: the split or a class is unknown, or the count is not a positive number.
    """
    if split not in SPLITS:
        raise NoSplit(f"shapes has no split {split!r}; there are: {', '.join(SPLITS)}")
    wanted = choose_classes("shapes", CLASSES, classes)
    text = str(count)
    if text and not (text.isascii() and text.isdigit() and 0 < int(text) <= 10**7):
        raise DataError(f"'shapes:{count}': expected a number of images, such as shapes:400")
    name = f"shapes{':' if text else ''}{text} ({split})"
    return _ShapesDataset(name, split, int(text or SPLITS[split]), seed, on_error, wanted)


@dataclass(frozen=True)
class Shape:
    """A shape.

    Attributes:
        label: index in `CLASSES`.
        x, y, radius: of the circle around it, in pixels.
        angle: in turns.
        colour: RGB, 0 … 1.
    """

    label: int
    x: float
    y: float
    radius: float
    angle: float
    colour: tuple[float, float, float]

    def box(self) -> tuple[float, float, float, float]:
        """Extents, xyxy."""
        xs, ys = zip(*self.outline(), strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def outline(self) -> list[tuple[float, float]]:
        """Corners in pixels; enough of them for round shapes to look round."""
        turned = [(radius, turn + self.angle) for radius, turn in _corners(CLASSES[self.label])]
        return [
            (self.x + self.radius * r * math.cos(2 * math.pi * t), self.y + self.radius * r * math.sin(2 * math.pi * t))
            for r, t in turned
        ]


@cache
def _corners(name: str) -> list[tuple[float, float]]:
    """(radius, turn) of each corner, in a circle of radius 1."""
    if name == "star":
        return [(1.0 if corner % 2 == 0 else 0.45, corner / 10) for corner in range(10)]
    sides = {"square": 4, "triangle": 3}.get(name, 96)
    return [(1.0, corner / sides) for corner in range(sides)]


def make_scene(split: str, index: int, seed: int = 0) -> list[Shape]:
    """The shapes of an image in the order in which they are painted, larger ones first."""
    # Not numpy, because the sequence of random.Random is the same in every version.
    rng = random.Random(f"shapes {seed} {split} {index}")
    shapes: list[Shape] = []
    count = 1 + int(rng.random() * _MAX_SHAPES)
    for _ in range(count * 12):
        if len(shapes) == count:
            break
        radius = 0.5 * _MIN_DIAMETER * (_MAX_DIAMETER / _MIN_DIAMETER) ** rng.random()
        x = radius + 2 + (WIDTH - 2 * radius - 4) * rng.random()
        y = radius + 2 + (HEIGHT - 2 * radius - 4) * rng.random()
        label = int(rng.random() * len(CLASSES))
        hue = (label + _HUE_RANGE * (rng.random() - 0.5)) / len(CLASSES)
        colour = colorsys.hsv_to_rgb(hue % 1, 0.55 + 0.4 * rng.random(), 0.7 + 0.28 * rng.random())
        shape = Shape(label, x, y, radius, rng.random(), colour)
        if all(_overlap(shape, other) <= _MAX_OVERLAP for other in shapes):
            shapes.append(shape)
    return sorted(shapes, key=lambda shape: -shape.radius)


def _overlap(one: Shape, other: Shape) -> float:
    """Intersection of two boxes as a fraction of the smaller box."""
    a, b = one.box(), other.box()
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(width, 0) * max(height, 0) / smaller


class _ShapesDataset(Dataset):
    def __init__(self, name: str, split: str, count: int, seed: int, on_error: str, classes: Sequence[str]) -> None:
        ids = [CLASSES.index(class_) + 1 for class_ in classes]
        scenes = [make_scene(split, index, seed) for index in range(count)]
        left_out = Counter(CLASSES[shape.label] for scene in scenes for shape in scene if shape.label + 1 not in ids)
        records = [_record(index, scene, ids) for index, scene in enumerate(scenes)]
        super().__init__(name, classes, ids, records, on_error=on_error, left_out=left_out)
        self._split = split
        self._seed = seed

    def _read_image(self, index: int, at_least: Size | None) -> Tensor:
        number = int(self._records[index].image_id)
        key = [self._seed % 2**32, list(SPLITS).index(self._split), number]
        return paint(make_scene(self._split, number, self._seed), np.random.default_rng(key))


def _record(index: int, scene: list[Shape], category_ids: Sequence[int]) -> Record:
    shapes = [shape for shape in scene if shape.label + 1 in category_ids]
    boxes = np.array([shape.box() for shape in shapes], dtype=np.float64).reshape(-1, 4)
    false = np.zeros(len(shapes), dtype=np.bool_)
    labels = np.array([category_ids.index(shape.label + 1) for shape in shapes], dtype=np.int64)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return Record(index, None, (HEIGHT, WIDTH), boxes, labels, false, false, area)


def paint(shapes: list[Shape], texture: np.random.Generator) -> Tensor:
    """Paint an image, uint8 [3, HEIGHT, WIDTH].

    Args:
        texture: for background and grain.
    """
    canvas = _background(texture)
    for shape in shapes:
        _paint_shape(canvas, shape)
    canvas += texture.standard_normal((HEIGHT, WIDTH, 1), dtype=np.float32) * 3  # grain
    return to_tensor(Image.fromarray(canvas.clip(0, 255).astype(np.uint8)))


def _background(texture: np.random.Generator) -> Pixels:
    """A smooth blend of two muted colours with cloudy patches."""
    hue, light = texture.random(), 0.35 + 0.5 * texture.random()
    one = np.array(colorsys.hsv_to_rgb(hue, 0.25 * texture.random(), light), dtype=np.float32) * 255
    other = np.array(colorsys.hsv_to_rgb(hue + 0.15, 0.3 * texture.random(), light * 0.8), dtype=np.float32) * 255
    coarse = Image.fromarray(texture.random((6, 8)).astype(np.float32)).resize((40, 30), Image.Resampling.BICUBIC)
    blend = (np.asarray(coarse) * 0.85 + texture.random((30, 40)).astype(np.float32) * 0.15)[..., None]
    small = (one * blend + other * (1 - blend)).clip(0, 255).astype(np.uint8)
    blended = Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return np.array(blended, dtype=np.float32)


def _paint_shape(canvas: Pixels, shape: Shape) -> None:
    """Paint a soft shadow, a darker rim, and a fill with a gradient."""
    reach = shape.radius + 8
    left, top = max(0, int(shape.x - reach)), max(0, int(shape.y - reach))
    right, bottom = min(WIDTH, math.ceil(shape.x + reach)), min(HEIGHT, math.ceil(shape.y + reach))
    region = canvas[top:bottom, left:right]
    outline = [(x - left, y - top) for x, y in shape.outline()]
    centre = (shape.x - left, shape.y - top)
    hole = 0.55 if CLASSES[shape.label] == "ring" else 0.0
    whole = _mask(region.shape[:2], outline, centre, 1.0, hole)
    rim = min(0.12, 2.2 / shape.radius)
    inner = _mask(region.shape[:2], outline, centre, 1.0 - rim, hole + rim if hole else 0.0)

    shadow = whole.filter(ImageFilter.GaussianBlur(3))
    region *= 1 - 0.3 * _weights(np.roll(np.asarray(shadow), (2, 2), (0, 1)))

    colour = np.array(shape.colour, dtype=np.float32) * 255
    slope = np.linspace(1.12, 0.82, region.shape[0], dtype=np.float32)[:, None, None]
    for mask, paint_in in ((whole, colour * 0.45), (inner, np.minimum(colour * slope, 255))):
        weight = _weights(np.asarray(mask))
        region += (paint_in - region) * weight


def _weights(mask: npt.NDArray[np.uint8]) -> Pixels:
    return mask.astype(np.float32)[..., None] / np.float32(255)


def _mask(
    size: tuple[int, ...], outline: list[tuple[float, float]], centre: tuple[float, float], scale: float, hole: float
) -> Image.Image:
    """Coverage 0 … 255 of the outline scaled about its centre by `scale`, minus the outline scaled by `hole`."""
    mask = Image.new("L", (size[1] * _SUPERSAMPLING, size[0] * _SUPERSAMPLING))
    pen = ImageDraw.Draw(mask)
    # Pillow's coordinates are those of pixel centres, half a pixel from the edge.
    for factor, ink in ((scale, 255), (hole, 0)):
        if factor:
            corners = [(centre[0] + (x - centre[0]) * factor, centre[1] + (y - centre[1]) * factor) for x, y in outline]
            pen.polygon([(x * _SUPERSAMPLING - 0.5, y * _SUPERSAMPLING - 0.5) for x, y in corners], fill=ink)
    return mask.reduce(_SUPERSAMPLING)
