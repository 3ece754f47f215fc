"""Average precision of detections: COCO's, VOC 2007's and VOC 2012's, from ground truth and results as plain dictionaries.

Nothing here needs torch: a `results.json` that any detector wrote is enough.

Files: `results` (detections to COCO results and back, JSON), `truth` (the ground truth, checked), `coco` and `voc`
(the metrics), `evaluate` (all of them at once, with a table), `curves` (precision over recall, drawn).
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
