"""The images with the most errors: annotated boxes and detections side by side, as JPEG."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import Image, ImageDraw, ImageFont

from nasdsl.report.training.validation import Validation

if TYPE_CHECKING:
    from nasdsl.evaluation import ImageErrors

COUNT: Final = 10
"""Number of images."""
SIDE: Final = 520
"""Longest side of a drawn image, in pixels. Smaller images are enlarged, at most by `ENLARGED`."""
ENLARGED: Final = 3
QUALITY: Final = 82

RIGHT, FALSE, MISSED, LEFT_OUT = "#2fc49b", "#ff8c42", "#f06aa8", "#aab2bb"
"""Colours of boxes. They differ in lightness; missed boxes are dashed as well, and false ones have their class and score."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class SheetEntry:
    """An image of the sheet.

    Attributes:
        name: of its file.
        truth, found: the image with the annotated boxes and with the detections, as data URLs; empty if it cannot be read.
        right, false, missed: numbers of boxes.
        problem: why it cannot be read; empty if it can.
    """

    name: str
    truth: str
    found: str
    right: int
    false: int
    missed: int
    f1: float
    problem: str = ""

    @property
    def truth_text(self) -> str:
        """Description of the image with the annotated boxes."""
        return f"{self.name} with its {self.right + self.missed} annotated boxes, {self.missed} of them missed"

    @property
    def found_text(self) -> str:
        """Description of the image with the detections."""
        return f"{self.name} with {self.right + self.false} detections, {self.false} of them false"


def worst_images(validation: Validation, count: int = COUNT) -> Iterator[SheetEntry]:
    """Draw the images with the lowest F1; those without an error are left out."""
    indices = {validation.dataset.image_id(index): index for index in range(len(validation.dataset))}
    for image in validation.images[:count]:
        if image.errors:
            yield _entry(validation, image, indices[image.image_id])


def _entry(validation: Validation, image: ImageErrors, index: int) -> SheetEntry:
    name = Path(validation.dataset.file(index)).name
    numbers: dict[str, Any] = {
        "right": len(image.right),
        "false": len(image.false),
        "missed": len(image.missed),
        "f1": image.f1,
    }
    try:
        pixels = validation.dataset[index].image
    except (ValueError, OSError) as error:
        return SheetEntry(name, "", "", **numbers, problem=str(error).partition("\n")[0])
    picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    scale = min(ENLARGED, SIDE / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    names = {category.id: category.name for category in validation.truth.categories}

    annotated, detected = picture.copy(), picture.copy()
    found, missed = set(image.found), set(image.missed)
    pen = ImageDraw.Draw(annotated)
    for number, box in enumerate(validation.truth.boxes):
        if box.image_id != image.image_id:
            continue
        if number in missed:
            _draw(pen, _scaled(box.box, scale), MISSED, size, dashed=True, label=names[box.category_id])
        else:
            _draw(pen, _scaled(box.box, scale), RIGHT if number in found else LEFT_OUT, size)
    pen = ImageDraw.Draw(detected)
    for number in reversed((*image.right, *image.false)):  # false ones last, so that they are on top
        result, false = validation.results[number], number in image.false
        label = f"{names[result['category_id']]} {100 * result['score']:.0f}" if false else ""
        _draw(pen, _scaled(result["bbox"], scale), FALSE if false else RIGHT, size, label=label)
    return SheetEntry(name, _data_url(annotated), _data_url(detected), **numbers)


def _scaled(box: Any, scale: float) -> Box:
    """The corners, in pixels of the drawn image, of a box given by its corner and its size."""
    x, y, width, height = box
    return x * scale, y * scale, (x + width) * scale, (y + height) * scale


def _draw(pen: ImageDraw.ImageDraw, box: Box, color: str, size: tuple[int, int], dashed: bool = False, label: str = "") -> None:
    """Draw a box with a dark edge, so that it is seen on any image."""
    left, right = (min(max(0.0, x), size[0] - 1) for x in (box[0], box[2]))
    top, bottom = (min(max(0.0, y), size[1] - 1) for y in (box[1], box[3]))
    for line, width in (("#101418", 5), (color, 3)):
        for start, end in (
            ((left, top), (right, top)),
            ((right, top), (right, bottom)),
            ((right, bottom), (left, bottom)),
            ((left, bottom), (left, top)),
        ):
            _draw_line(pen, start, end, line, width, dashed and line == color)
    if label:
        _draw_label(pen, (left, top), label, color, size)


def _draw_line(
    pen: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], color: str, width: int, dashed: bool
) -> None:
    if not dashed:
        pen.line((*start, *end), fill=color, width=width)
        return
    length = abs(end[0] - start[0]) + abs(end[1] - start[1])  # lines are horizontal or vertical
    for dash in range(0, max(1, int(length)), 10):
        a, b = dash / max(length, 1), min(1.0, (dash + 6) / max(length, 1))
        points = [start[i] + (end[i] - start[i]) * t for t in (a, b) for i in (0, 1)]
        pen.line(points, fill=color, width=width)


def _draw_label(pen: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, color: str, size: tuple[int, int]) -> None:
    _, _, width, height = pen.textbbox((0, 0), text, font=_font())
    x = max(0, min(corner[0], size[0] - width - 6))
    y = corner[1] - height - 5 if corner[1] > height + 5 else corner[1] + 2
    pen.rectangle((x, y, x + width + 5, y + height + 4), fill=color)
    pen.text((x + 3, y + 1), text, fill="#101418", font=_font())


def _data_url(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, subsampling=0)  # full colour, for thin lines
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


@cache
def _font() -> Any:
    """DejaVu Sans, which covers most languages and comes with matplotlib."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 12)
