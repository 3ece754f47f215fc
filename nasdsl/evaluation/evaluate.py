"""All metrics at once, as a table and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from nasdsl.evaluation.coco import CocoClass, CocoMetrics, coco_metrics
from nasdsl.evaluation.errors import EvaluationError
from nasdsl.evaluation.ground_truth import GroundTruth
from nasdsl.evaluation.voc import VocClass, VocMetrics, precision_recall, voc_metrics_of

METRICS: Final = ("coco", "voc07", "voc12")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics of results.

    Attributes:
        images, boxes, detections: numbers of images, of annotated boxes that count, and of results.
        coco, voc07, voc12: None for metrics that were not computed.
    """

    images: int
    boxes: int
    detections: int
    coco: CocoMetrics | None = None
    voc07: VocMetrics | None = None
    voc12: VocMetrics | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: fractions of 1, None for nan."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def table(self) -> Table:
        """A rich table in per cent: a row for each class (dashes if it has no boxes), and the means in the last row."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("class", no_wrap=True, overflow="ellipsis")
        columns = self._columns()
        table.add_column("boxes", justify="right")
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        metrics = self.coco or self.voc07 or self.voc12
        classes: Sequence[CocoClass | VocClass] = metrics.classes if metrics else ()
        for number, found in enumerate(classes):
            cells = (_percent(figures[number]) for figures, _ in columns.values())
            table.add_row(Text(found.name), str(found.boxes), *cells)
        table.add_section()
        table.add_row("mean", str(self.boxes), *(_percent(mean) for _, mean in columns.values()), style="bold")
        return table

    def _columns(self) -> dict[str, tuple[list[float], float]]:
        """By the column's header, the values of the classes and their mean."""
        columns: dict[str, tuple[list[float], float]] = {}
        if (coco := self.coco) is not None:
            most = max(coco.ar)
            columns["AP"] = [c.ap for c in coco.classes], coco.ap
            columns["AP50"] = [c.ap50 for c in coco.classes], coco.ap50
            columns["AP75"] = [c.ap75 for c in coco.classes], coco.ap75
            columns[f"AR{most}"] = [c.ar for c in coco.classes], coco.ar[most]
        for voc in (self.voc07, self.voc12):
            if voc is not None:
                columns[voc.metric.upper()] = [c.ap for c in voc.classes], voc.mean_ap
        return columns

    def summary(self) -> str:
        """One line with the means in per cent: ``AP 50.5, AP50 84.4, … (72 images, 975 boxes, 4210 detections)``."""
        figures: dict[str, float] = {}
        if (coco := self.coco) is not None:
            figures |= {"AP": coco.ap, "AP50": coco.ap50, "AP75": coco.ap75}
            figures |= {"APs": coco.ap_small, "APm": coco.ap_medium, "APl": coco.ap_large}
            figures |= {f"AR{limit}": figure for limit, figure in coco.ar.items()}
            figures |= {"ARs": coco.ar_small, "ARm": coco.ar_medium, "ARl": coco.ar_large}
        for voc in (self.voc07, self.voc12):
            if voc is not None:
                figures[voc.metric.upper()] = voc.mean_ap
        measured = ", ".join(f"{name} {_percent(figure)}" for name, figure in figures.items())
        return f"{measured} ({self.images} images, {self.boxes} boxes, {self.detections} detections)"


def evaluate(
    ground_truth: Mapping[str, Any] | GroundTruth,
    results: Sequence[Mapping[str, Any]],
    metrics: Sequence[str] = METRICS,
    max_detections: Sequence[int] = (1, 10, 100),
) -> Evaluation:
    """Compute metrics of results.

    Args:
        ground_truth: `Dataset.ground_truth()`, or any dictionary in COCO's annotation format.
        results: COCO results for its images.
        metrics: some of `METRICS`.
        max_detections: see `coco_metrics`.

    Raises:
        EvaluationError: a metric is unknown, or ground truth or results are malformed.
    """
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown or not metrics:
        raise EvaluationError(f"metrics are {', '.join(map(str, metrics)) or 'none'}; expected some of {', '.join(METRICS)}")
    truth = GroundTruth.of(ground_truth)
    coco = coco_metrics(truth, results, max_detections) if "coco" in metrics else None
    curves = precision_recall(truth, results) if {"voc07", "voc12"} & set(metrics) else ()
    return Evaluation(
        images=len(truth.image_ids),
        boxes=sum(box.counts for box in truth.boxes),
        detections=len(results),
        coco=coco,
        voc07=voc_metrics_of(curves, "voc07") if "voc07" in metrics else None,
        voc12=voc_metrics_of(curves, "voc12") if "voc12" in metrics else None,
    )


def _percent(figure: float) -> str:
    return "–" if math.isnan(figure) else f"{100 * figure:.1f}"  # noqa: RUF001


def _plain(value: Any) -> Any:
    """A value for JSON: None for nan, strings as keys."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
