"""COCO's AP of detections in crops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nasdsl.detection.pyramid import RawDetections
from nasdsl.training.proxy.crops import Annotations
from nasdsl.training.proxy.errors import ProxyError


def average_precision(
    detections: Sequence[RawDetections],
    annotations: Sequence[Annotations],
    size: tuple[int, int],
    classes: Sequence[str],
    category_ids: Sequence[int],
) -> float:
    """COCO's AP, 0 to 1.

    Args:
        detections, annotations: of each crop.
        size: (H, W) of a crop in pixels.

    Raises:
        ProxyError: there are no boxes in the crops.
    """
    from nasdsl.evaluation import evaluate, to_results  # needs pycocotools, which losses do not

    truth = _ground_truth(annotations, size, classes, category_ids)
    coco = evaluate(truth, to_results(detections, list(range(1, len(annotations) + 1)), category_ids), ("coco",)).coco
    assert coco is not None
    if math.isnan(coco.ap):
        raise ProxyError("there are no boxes in meta-val, so that AP has no value: take reward='loss', or more images")
    return coco.ap


def _ground_truth(
    annotations: Sequence[Annotations], size: tuple[int, int], classes: Sequence[str], category_ids: Sequence[int]
) -> dict[str, Any]:
    """Crops numbered from 1, in COCO's annotation format."""
    rows: list[dict[str, Any]] = []
    for number, of_crop in enumerate(annotations, 1):
        for (x1, y1, x2, y2), label, crowd, difficult in zip(*(x.tolist() for x in of_crop), strict=True):
            width, height = x2 - x1, y2 - y1
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": number,
                    "category_id": category_ids[label],
                    "bbox": [x1, y1, width, height],
                    "area": width * height,
                    "iscrowd": int(crowd),
                    "difficult": int(difficult),
                }
            )
    images = [{"id": n, "height": size[0], "width": size[1], "file_name": ""} for n in range(1, len(annotations) + 1)]
    categories = [{"id": i, "name": name} for i, name in zip(category_ids, classes, strict=True)]
    return {"images": images, "annotations": rows, "categories": categories}
