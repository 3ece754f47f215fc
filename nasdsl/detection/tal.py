"""Task-aligned assignment (TOOD, arXiv:2108.07755) with sides as distributions (arXiv:2006.04388), without centerness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou_loss

from nasdsl.detection.distributions import DistributionMethod, distribution_focal_loss, quality_focal_loss
from nasdsl.detection.gfl import Gfl
from nasdsl.detection.method import LossTerm
from nasdsl.detection.pyramid import DetectionError, Predictions, Shapes, Target, annotated, shapes_of


class BoxTargets(NamedTuple):
    """Ground truth of N images with G boxes at most, which the losses assign by the predictions.

    Attributes:
        labels: [N, G] int64; -1 where an image has fewer boxes.
        boxes: [N, G, 4], xyxy in pixels; 0 there.
    """

    labels: Tensor
    boxes: Tensor

    def select(self, images: Tensor | slice | list[int]) -> BoxTargets:
        """The targets of these images, in this order."""
        return BoxTargets(*(x[images] for x in self))


class Alignment(NamedTuple):
    """An assignment to the L locations of one image.

    Attributes:
        box: [L] int64, index of the assigned box; -1 is background.
        quality: [L], the normalized alignment: the target of the class score; 0 for background.
    """

    box: Tensor
    quality: Tensor


@dataclass(frozen=True, slots=True)
class Tal(DistributionMethod):
    """Options of task-aligned assignment, with its targets, losses and detections.

    Attributes:
        bins: as in ``predict tal(bins=16)``; it follows from the text of the decoder.
        top: number of locations that a box is assigned at most.
        alpha, beta: the alignment is score ** alpha * IoU ** beta. The defaults of the three are TOOD's.
        warmup: share of a training in which ATSS assigns, with the losses of GFL: at first, what is predicted says nothing
            about where objects are. TOOD's code does so in the first 4 of 12 epochs (with a focal loss towards 1 instead of
            GFL's towards the IoU).
        gamma: exponent of the focal loss.
        box_weight: of the GIoU loss.
        distribution_weight: of the distribution focal loss.
        score_threshold: minimum class score of detections, exclusive.
        candidates: number of candidates of each level that non-maximum suppression sees.
        nms: IoU threshold of non-maximum suppression.
        detections: maximum number of detections of an image.
    """

    bins: int = 16
    top: int = 13
    alpha: float = 1.0
    beta: float = 6.0
    warmup: float = 1 / 3
    gamma: float = 2.0
    box_weight: float = 2.0
    distribution_weight: float = 0.25
    score_threshold: float = 0.05
    candidates: int = 1000
    nms: float = 0.6
    detections: int = 100

    def __post_init__(self) -> None:
        DistributionMethod.__post_init__(self)
        if not 0 <= self.warmup <= 1:
            raise DetectionError(f"warmup is {self.warmup}; expected a share of the training, 0 to 1")

    def at(self, progress: float) -> Tal:
        return _WarmUp(**asdict(self)) if progress < self.warmup else self

    def targets(self, shapes: Shapes, image_size: tuple[int, int], targets: Sequence[Target]) -> BoxTargets:
        """The boxes of a batch, padded: which locations they are assigned to depends on the predictions.

        Args:
            shapes, image_size: not used.
            targets: ground truth of each image.

        Raises:
            DetectionError: a target is malformed.
        """
        pairs = annotated(targets)
        device = pairs[0][0].device if pairs else None
        most = max((len(labels) for _, labels in pairs), default=0)
        padded = BoxTargets(torch.full((len(pairs), most), -1, device=device), torch.zeros(len(pairs), most, 4, device=device))
        for image, (boxes, labels) in enumerate(pairs):
            padded.labels[image, : len(labels)] = labels
            padded.boxes[image, : len(labels)] = boxes
        return padded

    def loss_terms(self, predictions: Predictions, targets: BoxTargets) -> dict[str, LossTerm]:
        """The losses of a batch, all divided by the sum of the normalized alignments (at least 1).

        - ``classification``: sum of the focal loss whose target is the normalized alignment (equation 6 of TOOD);
        - ``bbox_regression``: GIoU loss of the positives, weighted by their alignment (equation 7), times `box_weight`;
        - ``distribution``: distribution focal loss of the positives, weighted likewise, times `distribution_weight`.

        Raises:
            DetectionError: the predictions are of another kind, or do not match the targets.
        """
        logits, sides, boxes, locations, strides = self.flatten(predictions)
        _check_labels(targets, len(logits), logits.shape[2])
        quality = torch.zeros_like(logits)
        found, wanted, weights, distributions = [], [], [], []
        for image, (labels, truth) in enumerate(zip(targets.labels, targets.boxes, strict=True)):
            truth, labels = truth[labels >= 0].to(logits.dtype), labels[labels >= 0]
            if len(labels) == 0:
                continue
            aligned = self.assign(logits[image].detach().sigmoid(), boxes[image].detach(), locations, truth, labels)
            place = torch.nonzero(aligned.box >= 0).squeeze(1)
            box, weight = truth[aligned.box[place]], aligned.quality[place]
            quality[image, place, labels[aligned.box[place]]] = weight
            distances = torch.cat([locations[place] - box[:, :2], box[:, 2:] - locations[place]], dim=1)
            distributions.append(distribution_focal_loss(sides[image, place], distances / strides[place]))
            found.append(boxes[image, place])
            wanted.append(box)
            weights.append(weight)
        nothing = sides.sum() * 0.0  # with gradients
        box_loss = distribution = nothing
        if found:
            weight = torch.cat(weights)
            giou = generalized_box_iou_loss(torch.cat(found), torch.cat(wanted))
            box_loss = nothing + (giou * weight).sum()
            distribution = nothing + (torch.cat(distributions) * weight).sum()
        divisor = quality.sum()
        return {
            "classification": LossTerm(quality_focal_loss(logits, quality, self.gamma).sum(), divisor, 1.0),
            "bbox_regression": LossTerm(self.box_weight * box_loss, divisor, 1.0),
            "distribution": LossTerm(self.distribution_weight * distribution, divisor, 1.0),
        }

    def assign(self, scores: Tensor, boxes: Tensor, locations: Tensor, truth: Tensor, labels: Tensor) -> Alignment:
        """Assign the boxes of one image to L locations by what is predicted there.

        A box is assigned the `top` locations strictly inside it that have the highest alignment score ** alpha * IoU ** beta,
        if it is above 0. A location of several boxes gets the one of the highest IoU, of equal ones the first. The alignments
        of a box are scaled so that the largest is the largest IoU of its locations (section 3.2).

        Args:
            scores: [L, classes], 0 … 1.
            boxes: [L, 4], predicted.
            locations: [L, 2].
            truth: [n, 4], n > 0.
            labels: [n].
        """
        x, y = locations.unbind(1)
        x1, y1, x2, y2 = (side[:, None] for side in truth.unbind(1))
        inside = (x > x1) & (x < x2) & (y > y1) & (y < y2)  # [n, L]
        iou = box_iou(truth, boxes).nan_to_num(0.0)
        alignment = torch.where(inside, scores.T[labels].pow(self.alpha) * iou.pow(self.beta), 0.0)
        best = alignment.topk(min(self.top, alignment.shape[1]), dim=1)
        chosen = torch.zeros_like(inside).scatter(1, best.indices, best.values > 0)
        highest, of_box = torch.where(chosen, iou, -1.0).max(dim=0)
        positive = highest >= 0
        chosen &= positive & (torch.arange(len(truth), device=of_box.device)[:, None] == of_box)
        alignment = torch.where(chosen, alignment, 0.0)
        largest = alignment.amax(dim=1, keepdim=True)
        scale = torch.where(chosen, iou, 0.0).amax(dim=1, keepdim=True) / largest.clamp(min=torch.finfo(iou.dtype).tiny)
        quality = (alignment * scale).sum(dim=0)
        return Alignment(torch.where(positive, of_box, -1), quality)


@dataclass(frozen=True, slots=True)
class _WarmUp(Tal):
    """The first part of a training: GFL's losses at the locations that ATSS assigns."""

    def loss_terms(self, predictions: Predictions, targets: BoxTargets) -> dict[str, LossTerm]:
        _check_labels(targets, *next(iter(predictions.values())).cls_logits.shape[:2])
        gfl = Gfl(bins=self.bins, box_weight=self.box_weight, distribution_weight=self.distribution_weight)
        boxes = [
            {"boxes": boxes[labels >= 0], "labels": labels[labels >= 0]}
            for labels, boxes in zip(targets.labels, targets.boxes, strict=True)
        ]
        return gfl.loss_terms(predictions, gfl.targets(shapes_of(predictions), (0, 0), boxes))


def _check_labels(targets: BoxTargets, images: int, classes: int) -> None:
    """Refuse targets of another batch.

    Raises:
        DetectionError: they are of another number of images, or a label is not below the number of classes.
    """
    if len(targets.labels) != images:
        raise DetectionError(f"the targets are for {len(targets.labels)} images, the predictions for {images}")
    highest = int(targets.labels.max()) if targets.labels.numel() else -1
    if highest >= classes:
        raise DetectionError(
            f"a target has the label {highest}, but the decoder has {classes} classes; expected labels 0 to "
            f"{classes - 1} (there is no background label)"
        )
