"""Generalized focal loss: scores that tell the quality of boxes, sides as distributions (arXiv:2006.04388)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nasdsl.detection.atss import atss_targets
from nasdsl.detection.distributions import DistributionMethod, distribution_focal_loss, quality_focal_loss
from nasdsl.detection.locations import LocationTargets
from nasdsl.detection.losses import giou_loss, paired_iou
from nasdsl.detection.method import LossTerm
from nasdsl.detection.positives import positives
from nasdsl.detection.postprocess import decode_boxes
from nasdsl.detection.pyramid import Predictions, Shapes, Target, one_hot


@dataclass(frozen=True, slots=True)
class Gfl(DistributionMethod):
    """Options of generalized focal loss, with its targets, losses and detections.

    Attributes:
        bins: as in ``predict gfl(bins=16)``; it follows from the text of the decoder.
        top: of ATSS, which assigns boxes; see `nasdsl.detection.atss.Atss`.
        beta: exponent of the quality focal loss.
        box_weight: of the GIoU loss.
        distribution_weight: of the distribution focal loss.
        score_threshold: minimum class score of detections, exclusive.
        candidates: number of candidates of each level that non-maximum suppression sees.
        nms: IoU threshold of non-maximum suppression.
        detections: maximum number of detections of an image.
    """

    at_locations = True
    has_fixed_losses = True

    bins: int = 16
    top: int = 9
    beta: float = 2.0
    box_weight: float = 2.0
    distribution_weight: float = 0.25
    score_threshold: float = 0.05
    candidates: int = 1000
    nms: float = 0.6
    detections: int = 100

    def targets(self, shapes: Shapes, image_size: tuple[int, int], targets: Sequence[Target]) -> LocationTargets:
        """Training targets of a batch; see `atss_targets`. The size of the images is not used."""
        return atss_targets(shapes, targets, self.top)

    def loss_terms(self, predictions: Predictions, targets: LocationTargets) -> dict[str, LossTerm]:
        """The losses of a batch.

        - ``classification``: sum of the quality focal loss, divided by the positives (at least 1): the target of a positive is
          the IoU of its predicted box and its own;
        - ``bbox_regression``: mean GIoU loss of the positives, times `box_weight`;
        - ``distribution``: mean distribution focal loss of the positives, times `distribution_weight`.

        The means are weighted by the highest class score that is predicted at the location.

        Raises:
            DetectionError: the predictions are of another kind, or do not match the targets.
        """
        logits, sides, boxes, locations, strides = self.flatten(predictions)
        class_targets = one_hot(targets.labels, logits)

        at = positives(targets.labels >= 0)
        distances = at.rows(targets.distances).to(logits.dtype)
        wanted = decode_boxes(at.rows(locations.expand(len(logits), -1, -1)), distances)
        found = at.rows(boxes)
        quality = class_targets * at.maps(paired_iou(found.detach(), wanted))[..., None]
        weights = at.only(at.rows(logits.detach()).amax(dim=1).sigmoid())
        giou = giou_loss(found, wanted)
        distribution = distribution_focal_loss(at.rows(sides), distances / at.rows(strides.expand(len(logits), -1, -1), 1.0))
        return {
            "classification": LossTerm(quality_focal_loss(logits, quality, self.beta).sum(), at.count(weights), 1.0),
            "bbox_regression": LossTerm(self.box_weight * (giou * weights).sum(), weights.sum()),
            "distribution": LossTerm(self.distribution_weight * (distribution * weights).sum(), weights.sum()),
        }
