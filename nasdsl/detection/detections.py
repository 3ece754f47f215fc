"""`Detections`, the objects that a detector has found in one image."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, overload

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from nasdsl.data import read_image
from nasdsl.detection.pyramid import DetectionError, RawDetections
from nasdsl.detection.visualization import draw_detections

DRAWN_FROM = 0.3
"""Lowest score of detections that are drawn and counted, where no threshold is given."""

_WIDEST = 960
"""Width in pixels of images in notebooks."""


class Detection(NamedTuple):
    """One object.

    Attributes:
        name: of its class.
        score: 0 … 1.
        box: x1, y1, x2, y2 in pixels of the image.
        label: index of its class.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]
    label: int


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """The n objects that a detector has found in one image, best first.

    ``len(found)`` is their number; ``found[0]`` is one `Detection`, and iterating gives all; ``found[:5]``, or an index with a
    mask or a list of numbers, is `Detections` again. Notebooks show the image with the boxes.

    Attributes:
        boxes: float32 [n, 4], xyxy, in pixels of the image as it was given (of a file, upright).
        scores: float32 [n], 0 … 1.
        labels: int64 [n], from 0.
        classes: names of the detector's classes, by label.
        category_ids: ids of the classes in their data set, by label.
        size: height and width of the image in pixels.
        source: the image, [3, H, W], or its file.
        threshold: detections with a lower score were left out.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    size: tuple[int, int]
    source: Tensor | Path
    threshold: float = 0.0

    @property
    def names(self) -> list[str]:
        """Names of the objects' classes."""
        return [self.classes[label] for label in self.labels.tolist()]

    @property
    def image(self) -> Tensor:
        """The image, uint8 [3, H, W]; that of a file is read each time.

        Raises:
            UnreadableImage: the file is gone.
        """
        if isinstance(self.source, Path):
            return read_image(self.source)
        if self.source.is_floating_point():
            return (self.source.float().clamp(0, 1) * 255).round().to(torch.uint8)
        return self.source

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        for name, score, box, label in zip(
            self.names, self.scores.tolist(), self.boxes.tolist(), self.labels.tolist(), strict=True
        ):
            yield Detection(name, score, tuple(box), label)

    @overload
    def __getitem__(self, index: int) -> Detection: ...

    @overload
    def __getitem__(self, index: slice | Tensor | Sequence[int] | Sequence[bool] | Any) -> Detections: ...

    def __getitem__(self, index: Any) -> Detection | Detections:
        if getattr(index, "ndim", None) == 0:  # such as scores.argmax()
            index = index.item()
        if isinstance(index, int) and not isinstance(index, bool):
            if not -len(self) <= index < len(self):
                raise IndexError(f"detection {index} of {len(self)}")
            index %= len(self)
            return next(iter(self._select(slice(index, index + 1))))
        return self._select(index if isinstance(index, slice) else torch.as_tensor(index))

    def _select(self, index: slice | Tensor) -> Detections:
        if isinstance(index, Tensor) and not len(index):
            index = index.long()
        return replace(self, boxes=self.boxes[index], scores=self.scores[index], labels=self.labels[index])

    def filter(self, threshold: float = 0.0, classes: str | Sequence[str] | None = None) -> Detections:
        """The detections with at least this score, and of these classes only.

        Args:
            threshold: lowest score that is kept.
            classes: name of a class, or several; None: all.

        Raises:
            DetectionError: the detector does not have one of the classes.
        """
        kept = self.scores >= threshold
        if classes is not None:
            kept &= torch.isin(self.labels, torch.tensor(labels_of(classes, self.classes)))
        return replace(self._select(kept), threshold=max(threshold, self.threshold))

    def draw(self, threshold: float | None = None) -> Image.Image:
        """The image with boxes, names and scores (in percent), as an image of Pillow.

        Args:
            threshold: lowest score that is drawn. Default: that with which the detections were made or filtered, else 0.3.
        """
        drawn = draw_detections(self.image, self.to_dict(), self.classes, self._drawn_from if threshold is None else threshold)
        picture: Image.Image = to_pil_image(drawn)
        return picture

    def to_dict(self) -> RawDetections:
        """The tensors ``boxes``, ``labels`` and ``scores`` by name, as torchvision's detectors return them."""
        return {"boxes": self.boxes, "labels": self.labels, "scores": self.scores}

    def to_coco(self, image_id: int | str = 1, first_id: int = 1) -> list[dict[str, Any]]:
        """COCO annotations with scores, one for each detection. They are also COCO results, for ``COCO.loadRes``.

        Args:
            image_id: of the image.
            first_id: id of the first annotation.
        """
        annotations = []
        for number, found in enumerate(self):
            x1, y1, x2, y2 = found.box
            annotations.append(
                {
                    "id": first_id + number,
                    "image_id": image_id,
                    "category_id": self.category_ids[found.label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    "score": found.score,
                }
            )
        return annotations

    def to_supervision(self) -> Any:
        """``supervision.Detections`` with names in ``data["class_name"]``.

        Raises:
            ImportError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("to_supervision needs supervision: pip install 'nasdsl[supervision]'") from error
        import numpy as np

        return supervision.Detections(
            xyxy=self.boxes.numpy(),
            confidence=self.scores.numpy(),
            class_id=self.labels.numpy(),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def __repr__(self) -> str:
        drawn = self.scores >= self._drawn_from
        counts = Counter(name for name, above in zip(self.names, drawn.tolist(), strict=True) if above)
        objects = ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "no objects"
        lower = len(self) - int(drawn.sum())
        place = f"{self.source}, " if isinstance(self.source, Path) else ""
        below = f"; {lower} below {self._drawn_from:g}" if lower else ""
        return f"Detections({place}{self.size[1]}x{self.size[0]}: {objects}{below})"

    def _repr_png_(self) -> bytes:
        return _encode(self.draw(), "PNG")

    def _repr_html_(self) -> str:
        picture = self.draw()
        picture.thumbnail((_WIDEST, 4 * _WIDEST))
        data = base64.b64encode(_encode(picture, "JPEG")).decode()
        about = html.escape(repr(self))
        return (
            f'<figure style="margin:0"><img src="data:image/jpeg;base64,{data}" alt="{about}" style="max-width:100%">'
            f"<figcaption>{about}</figcaption></figure>"
        )

    @property
    def _drawn_from(self) -> float:
        return self.threshold or DRAWN_FROM


def labels_of(names: str | Sequence[str], classes: Sequence[str]) -> list[int]:
    """Labels of classes by their names.

    Raises:
        DetectionError: a name is not among them.
    """
    wanted = [names] if isinstance(names, str) else list(names)
    unknown = [name for name in wanted if name not in classes]
    if unknown:
        raise DetectionError(f"no class {', '.join(map(repr, unknown))}; the detector has {', '.join(classes)}")
    return [label for label, name in enumerate(classes) if name in wanted]


def _encode(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()
