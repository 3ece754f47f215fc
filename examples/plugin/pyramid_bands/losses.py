"""The losses of ``quality_fcos``. Targets, decoding, and how that is exported are FCOS's."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nasdsl.detection.distributions import quality_focal_loss
from nasdsl.detection.fcos import Fcos
from nasdsl.detection.locations import LocationTargets
from nasdsl.detection.losses import paired_iou
from nasdsl.detection.method import LossTerm
from nasdsl.detection.postprocess import decode_boxes
from nasdsl.detection.pyramid import Predictions, flatten_levels, one_hot


@dataclass(frozen=True, slots=True)
class QualityFcos(Fcos):
    """Options of FCOS, and `beta`, the exponent of the quality focal loss."""

    beta: float = 2.0

    def loss_terms(self, predictions: Predictions, targets: LocationTargets) -> dict[str, LossTerm]:
        terms = Fcos.loss_terms(self, predictions, targets)
        levels = list(predictions.values())
        logits = flatten_levels([level.cls_logits for level in levels], levels[0].cls_logits.shape[1])
        distances = flatten_levels([level.bbox_reg for level in levels], 4).detach()
        positive = torch.nonzero(targets.labels >= 0, as_tuple=True)
        origin = distances.new_zeros(len(positive[0]), 2)
        quality = one_hot(targets.labels, logits)
        found, wanted = (decode_boxes(origin, x[positive]) for x in (distances, targets.distances))
        quality[positive] *= paired_iou(found, wanted)[:, None]
        loss = quality_focal_loss(logits, quality, self.beta).sum()
        return {**terms, "classification": LossTerm(loss, terms["classification"].divisor)}
