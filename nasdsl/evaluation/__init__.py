"""Average precision of detections by COCO, VOC 2007 and VOC 2012, from ground truth and results in COCO's JSON formats.

Nothing here needs torch, and results may come from any detector.

Modules: `results` (from detections to COCO results and back, files), `ground_truth`, `coco` and `voc` (the metrics),
`evaluate` (all metrics at once, table), `matching` (which detection found which box), `confusion` (the best threshold,
the confusion matrix, images by their errors), `curves` (plots of precision over recall).
"""

from nasdsl.evaluation.coco import CocoClass, CocoMetrics, coco_metrics
from nasdsl.evaluation.confusion import (
    BestThreshold,
    ConfusionMatrix,
    ImageErrors,
    best_threshold,
    confusion_matrix,
    f1_scores,
    image_errors,
    mean_f1,
)  # fmt: skip
from nasdsl.evaluation.curves import draw_curves
from nasdsl.evaluation.errors import EvaluationError
from nasdsl.evaluation.evaluate import METRICS, Evaluation, evaluate
from nasdsl.evaluation.ground_truth import Category, GroundTruth, only_images, read_ground_truth
from nasdsl.evaluation.results import check_results, from_results, read_results, to_results, write_results
from nasdsl.evaluation.voc import Curve, VocClass, VocMetrics, precision_recall, voc_metrics

__all__ = [
    "METRICS",
    "BestThreshold",
    "Category",
    "CocoClass",
    "CocoMetrics",
    "ConfusionMatrix",
    "Curve",
    "Evaluation",
    "EvaluationError",
    "GroundTruth",
    "ImageErrors",
    "VocClass",
    "VocMetrics",
    "best_threshold",
    "check_results",
    "coco_metrics",
    "confusion_matrix",
    "draw_curves",
    "evaluate",
    "f1_scores",
    "from_results",
    "image_errors",
    "mean_f1",
    "only_images",
    "precision_recall",
    "read_ground_truth",
    "read_results",
    "to_results",
    "voc_metrics",
    "write_results",
]
