"""Average precision of detections by COCO, VOC 2007 and VOC 2012, from ground truth and results in COCO's JSON formats.

Nothing here needs torch, and results may come from any detector.

Modules: `results` (from detections to COCO results and back, files), `ground_truth`, `coco` and `voc` (the metrics),
`evaluate` (all metrics at once, table), `curves` (plots of precision over recall).
"""

from nasdsl.evaluation.coco import CocoClass, CocoMetrics, coco_metrics
from nasdsl.evaluation.curves import draw_curves
from nasdsl.evaluation.errors import EvaluationError
from nasdsl.evaluation.evaluate import METRICS, Evaluation, evaluate
from nasdsl.evaluation.ground_truth import Category, GroundTruth, only_images, read_ground_truth
from nasdsl.evaluation.results import check_results, from_results, read_results, to_results, write_results
from nasdsl.evaluation.voc import Curve, VocClass, VocMetrics, precision_recall, voc_metrics

__all__ = [
    "METRICS",
    "Category",
    "CocoClass",
    "CocoMetrics",
    "Curve",
    "Evaluation",
    "EvaluationError",
    "GroundTruth",
    "VocClass",
    "VocMetrics",
    "check_results",
    "coco_metrics",
    "draw_curves",
    "evaluate",
    "from_results",
    "only_images",
    "precision_recall",
    "read_ground_truth",
    "read_results",
    "to_results",
    "voc_metrics",
    "write_results",
]
