"""RetinaNet: anchors, what each learns, the two losses, and boxes out of predictions (arXiv:1708.02002).

As torchvision's RetinaNet, but for two things: anchors stand ``2 ** level`` pixels apart (there: size of the image divided by
that of the map, rounded down, which is the same where the map divides the image), and targets are kept for reuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou, sigmoid_focal_loss

from nasdsl.detection.postprocess import Dense, best_detections
from nasdsl.detection.pyramid import (
    DetectionError,
    Detections,
    Predictions,
    Shapes,
    Target,
    boxes_and_labels,
    flatten_level,
    flatten_levels,
    one_hot,
    shapes_of,
    strides_of,
)

RATIOS = (0.5, 1.0, 2.0)
"""Height by width of the anchors."""

_CODER = BoxCoder((1.0, 1.0, 1.0, 1.0))


class RetinanetTargets(NamedTuple):
    """What the L anchors of N images learn. Every tensor has the images first, so that a cache can stack and pick them.

    Attributes:
        labels: [N, L] int64; -1 is background, -2 an anchor that learns nothing.
        offsets: [N, L, 4]: dx, dy, dw, dh from the anchor to its box; 0 where the label is negative.
    """

    labels: Tensor
    offsets: Tensor

    def select(self, images: Tensor | slice | list[int]) -> RetinanetTargets:
        """The targets of some of the images, in that order."""
        return RetinanetTargets(*(x[images] for x in self))


@dataclass(frozen=True, slots=True)
class Retinanet:
    """How RetinaNet learns and detects.

    Attributes:
        anchors: at each location, as in ``predict retinanet(anchors=9)``. A multiple of 3 makes the ratios 1/2, 1 and 2 at
            ``anchors / 3`` sizes, any other number squares of so many sizes; sizes divide an octave evenly.
        anchor_size: side of the smallest anchor in strides.
        foreground, background: an anchor with an IoU of `foreground` or more learns the box, with less than `background` the
            background, between them nothing. The best anchors of a box learn it at any IoU above 0.
        beta: below this, the box loss is quadratic (smooth L1); 0 is plain L1, torchvision's default.
        focal_alpha, focal_gamma: of the focal loss.
        score_threshold: detections have a higher score than this.
        candidates: of each level, this many of the best go on to suppression.
        nms: of two boxes of a class with a higher IoU than this, the better stays.
        detections: at most, for an image.
    """

    anchors: int = 9
    anchor_size: float = 4.0
    foreground: float = 0.5
    background: float = 0.4
    beta: float = 0.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    score_threshold: float = 0.05
    candidates: int = 1000
    nms: float = 0.5
    detections: int = 100

    def __post_init__(self) -> None:
        if self.anchors < 1:
            raise DetectionError(f"anchors is {self.anchors}; expected 1 or more")
        if not 0 <= self.background <= self.foreground:
            raise DetectionError(
                f"background is {self.background} and foreground {self.foreground}; expected 0 <= background <= foreground"
            )

    def level_anchors(self, shapes: Shapes, device: torch.device | None = None) -> list[Tensor]:
        """[h * w * anchors, 4] of each level, xyxy in pixels, float32; they may lie outside of the image.

        Around ``stride * i``, as in torchvision, and as there each size is rounded down and each side to whole pixels.
        """
        strides = strides_of(shapes)
        ratios = RATIOS if self.anchors % len(RATIOS) == 0 else (1.0,)
        count = self.anchors // len(ratios)
        sizes = tuple(tuple(int(self.anchor_size * s * 2 ** (i / count)) for i in range(count)) for s in strides)
        generator = AnchorGenerator(sizes, (ratios,) * len(strides))
        generator.set_cell_anchors(torch.float32, device)
        made: list[Tensor] = generator.grid_anchors(list(shapes.values()), [(stride, stride) for stride in strides])
        return made

    def targets(self, shapes: Shapes, image_size: tuple[int, int], targets: Sequence[Target]) -> RetinanetTargets:
        """What each anchor of a batch of images learns.

        Boxes without area, or that no anchor meets, are learnt by none.

        Args:
            shapes: (height, width) of the map of each level, finest first.
            image_size: not read; `Fcos.targets` reads it.
            targets: of each image, with ``boxes`` and ``labels``.

        Raises:
            DetectionError: a target is malformed.
        """
        pairs = [boxes_and_labels(target, image) for image, target in enumerate(targets)]
        device = pairs[0][0].device if pairs else None
        anchors = torch.cat(self.level_anchors(shapes, device))
        matcher = Matcher(self.foreground, self.background, allow_low_quality_matches=True)
        labels = torch.full((len(pairs), len(anchors)), -1, device=device)
        offsets = torch.zeros(len(pairs), len(anchors), 4, device=device)
        for image, (gt_boxes, gt_labels) in enumerate(pairs):
            iou = box_iou(gt_boxes, anchors)
            # The best anchors of a box that none meets would be all those with an IoU of 0.
            met = iou.amax(dim=1) > 0
            if not met.any():
                continue
            gt_boxes, gt_labels = gt_boxes[met], gt_labels[met]
            index = matcher(iou[met])
            positive = index >= 0
            labels[image] = torch.where(positive, gt_labels[index.clamp(min=0)], index)
            offsets[image, positive] = _CODER.encode_single(gt_boxes[index[positive]], anchors[positive])
        return RetinanetTargets(labels, offsets)

    def losses(self, predictions: Predictions, targets: RetinanetTargets) -> dict[str, Tensor]:
        """The two losses of a batch, scalars: for each image divided by its positives (at least 1), mean over the images.

        - ``classification``: focal loss, its sum over the anchors that are not between foreground and background;
        - ``bbox_regression``: L1 (or smooth L1) of the offsets, their sum over the positives.

        Raises:
            DetectionError: predictions of another number of anchors, or targets that do not fit them.
        """
        levels = list(predictions.values())
        logits = flatten_levels([level.cls_logits for level in levels], self._classes(predictions))
        offsets = flatten_levels([level.bbox_reg for level in levels], 4)
        wanted = one_hot(targets.labels, logits)
        positive = targets.labels >= 0
        images = len(logits)
        share = 1 / (positive.sum(dim=1).clamp(min=1) * images).to(logits.dtype)

        focal: Tensor = sigmoid_focal_loss(logits, wanted, self.focal_alpha, self.focal_gamma, reduction="none")
        by_image = torch.where(targets.labels > Matcher.BETWEEN_THRESHOLDS, focal.sum(dim=2), 0.0).sum(dim=1)
        image, place = positive.nonzero(as_tuple=True)
        learnt = targets.offsets[image, place].to(logits.dtype)
        boxes = smooth_l1_loss(offsets[image, place], learnt, reduction="none", beta=self.beta)
        return {
            "classification": (by_image * share).sum(),
            "bbox_regression": (boxes.sum(dim=1) * share[image]).sum(),
        }

    def detect(self, predictions: Predictions, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """The detections of each image of a batch: as `Fcos.detect`, scored by class alone.

        Args:
            predictions: of the batch.
            sizes: (height, width) of each image in pixels, without the padding of the batch.

        Raises:
            DetectionError: predictions of another number of anchors, or another number of sizes than of images.
        """
        classes = self._classes(predictions)
        shapes = shapes_of(predictions)
        device = next(iter(predictions.values())).bbox_reg.device
        levels = []
        for prediction, anchors in zip(predictions.values(), self.level_anchors(shapes, device), strict=True):
            offsets = flatten_level(prediction.bbox_reg, 4).float()
            boxes = torch.stack([_CODER.decode_single(image, anchors) for image in offsets])
            scores = flatten_level(prediction.cls_logits, classes).float().sigmoid()
            levels.append(Dense(boxes, scores, scores > self.score_threshold))
        return best_detections(levels, sizes, self.candidates, self.nms, self.detections)

    def _classes(self, predictions: Predictions) -> int:
        """Number of classes, once it is certain that the predictions are for as many anchors."""
        for level, prediction in predictions.items():
            anchors = prediction.bbox_reg.shape[1] / 4
            if prediction.centerness is not None:
                raise DetectionError("the predictions have centerness; expected those of a decoder with 'predict retinanet(…)'")
            if anchors != self.anchors:
                raise DetectionError(
                    f"level {level} predicts {anchors:g} boxes at a location, this RetinaNet has {self.anchors} anchors; "
                    f"expected Retinanet(anchors={anchors:g})"
                )
        return next(iter(predictions.values())).cls_logits.shape[1] // self.anchors
