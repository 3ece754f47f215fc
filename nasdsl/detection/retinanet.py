"""RetinaNet: anchors, targets, losses and detections (arXiv:1708.02002).

Differs from torchvision's RetinaNet in two points: anchors are ``2 ** level`` pixels apart (there: image size divided by map
size, rounded down, which is the same where the map size divides the image size), and targets can be kept for reuse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou, sigmoid_focal_loss

from nasdsl.detection import onnx_decoding
from nasdsl.detection.method import DecodingSource, LossTerm, Method
from nasdsl.detection.onnx_decoding import Places
from nasdsl.detection.positives import positives
from nasdsl.detection.postprocess import LevelCandidates
from nasdsl.detection.pyramid import (
    DetectionError,
    Predictions,
    Shapes,
    Target,
    annotated,
    flatten_level,
    flatten_levels,
    one_hot,
    shapes_of,
    strides_of,
)

if TYPE_CHECKING:
    from nasdsl.backends.onnx import Writer

RATIOS = (0.5, 1.0, 2.0)
"""Height / width of the anchors."""

_CODER = BoxCoder((1.0, 1.0, 1.0, 1.0))


class RetinanetTargets(NamedTuple):
    """Training targets for N images with L anchors each. The image is the first dimension, so that a cache can index it.

    Attributes:
        labels: [N, L] int64; -1 is background, -2 an ignored anchor.
        offsets: [N, L, 4]: dx, dy, dw, dh from the anchor to its box; 0 where the label is negative.
    """

    labels: Tensor
    offsets: Tensor

    def select(self, images: Tensor | slice | list[int]) -> RetinanetTargets:
        """The targets of these images, in this order."""
        return RetinanetTargets(*(x[images] for x in self))


@dataclass(frozen=True, slots=True)
class Retinanet(Method):
    """Options of RetinaNet, with its targets, losses and detections.

    Attributes:
        anchors: number of anchors at each location, as in ``predict retinanet(anchors=9)``. A multiple of 3 gives the ratios
            1/2, 1 and 2 at ``anchors / 3`` sizes, any other number squares of that many sizes; sizes divide an octave evenly.
        anchor_size: side of the smallest anchor in strides.
        foreground, background: IoU thresholds: an anchor at or above `foreground` is assigned the box, below `background` it is
            background, in between it is ignored. The best anchors of a box are assigned it at any IoU above 0.
        beta: below this, the box loss is quadratic (smooth L1); 0 is the L1 loss, torchvision's default.
        focal_alpha, focal_gamma: of the focal loss.
        score_threshold: minimum class score of detections, exclusive.
        candidates: number of candidates of each level that non-maximum suppression sees.
        nms: IoU threshold of non-maximum suppression.
        detections: maximum number of detections of an image.
    """

    has_fixed_losses = True

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

    def anchor_sizes(self, strides: Sequence[int]) -> tuple[tuple[tuple[int, ...], ...], tuple[float, ...]]:
        """The sizes of the anchors of each level, sides of squares in pixels, and their ratios (height / width)."""
        ratios = RATIOS if self.anchors % len(RATIOS) == 0 else (1.0,)
        count = self.anchors // len(ratios)
        return tuple(tuple(int(self.anchor_size * s * 2 ** (i / count)) for i in range(count)) for s in strides), ratios

    def level_anchors(self, shapes: Shapes, device: torch.device | None = None) -> list[Tensor]:
        """The anchors of each level, [h * w * anchors, 4] float32, xyxy in pixels; they may lie outside of the image.

        As in torchvision they are centered on ``stride * i``, sizes are rounded down, and sides are rounded to whole pixels.
        """
        strides = strides_of(shapes)
        sizes, ratios = self.anchor_sizes(strides)
        generator = AnchorGenerator(sizes, (ratios,) * len(strides))
        generator.set_cell_anchors(torch.float32, device)
        anchors: list[Tensor] = generator.grid_anchors(list(shapes.values()), [(stride, stride) for stride in strides])
        return anchors

    def targets(self, shapes: Shapes, image_size: tuple[int, int], targets: Sequence[Target]) -> RetinanetTargets:
        """Training targets of a batch.

        Boxes without area and boxes that overlap no anchor are ignored.

        Args:
            shapes: (height, width) of the map of each level, finest first.
            image_size: unused; for the signature of `Fcos.targets`.
            targets: ground truth of each image.

        Raises:
            DetectionError: a target is malformed.
        """
        pairs = annotated(targets)
        device = pairs[0][0].device if pairs else None
        anchors = torch.cat(self.level_anchors(shapes, device))
        matcher = Matcher(self.foreground, self.background, allow_low_quality_matches=True)
        labels = torch.full((len(pairs), len(anchors)), -1, device=device)
        offsets = torch.zeros(len(pairs), len(anchors), 4, device=device)
        for image, (gt_boxes, gt_labels) in enumerate(pairs):
            iou = box_iou(gt_boxes, anchors)
            # Otherwise the best anchors of a box without overlap would be all those with an IoU of 0.
            overlaps = iou.amax(dim=1) > 0
            if not overlaps.any():
                continue
            gt_boxes, gt_labels = gt_boxes[overlaps], gt_labels[overlaps]
            index = matcher(iou[overlaps])
            positive = index >= 0
            labels[image] = torch.where(positive, gt_labels[index.clamp(min=0)], index)
            offsets[image, positive] = _CODER.encode_single(gt_boxes[index[positive]], anchors[positive])
        return RetinanetTargets(labels, offsets)

    @property
    def positions(self) -> int:
        return self.anchors

    def loss_terms(self, predictions: Predictions, targets: RetinanetTargets) -> dict[str, LossTerm]:
        """The two losses of a batch: per image divided by its number of positives (at least 1), mean over the images.

        - ``classification``: sum of the focal loss over all anchors that are not ignored;
        - ``bbox_regression``: sum of the L1 (or smooth L1) loss of the positives' offsets.

        Raises:
            DetectionError: the predictions have another number of anchors, or do not match the targets.
        """
        levels = list(predictions.values())
        logits = flatten_levels([level.cls_logits for level in levels], self._classes(predictions))
        offsets = flatten_levels([level.bbox_reg for level in levels], 4)
        class_targets = one_hot(targets.labels, logits)
        positive = targets.labels >= 0
        weight = 1 / positive.sum(dim=1).clamp(min=1).to(logits.dtype)
        images = logits.new_full((), len(logits))

        focal: Tensor = sigmoid_focal_loss(logits, class_targets, self.focal_alpha, self.focal_gamma, reduction="none")
        focal_per_image = torch.where(targets.labels > Matcher.BETWEEN_THRESHOLDS, focal.sum(dim=2), 0.0).sum(dim=1)
        found = positives(positive)
        offset_targets = found.rows(targets.offsets).to(logits.dtype)
        boxes = smooth_l1_loss(found.rows(offsets), offset_targets, reduction="none", beta=self.beta)
        return {
            "classification": LossTerm((focal_per_image * weight).sum(), images),
            "bbox_regression": LossTerm((boxes.sum(dim=1) * found.rows(weight[:, None].expand_as(positive))).sum(), images),
        }

    def level_candidates(self, predictions: Predictions) -> list[LevelCandidates]:
        """The decoded predictions of each level, finest first.

        Raises:
            DetectionError: the predictions have another number of anchors.
        """
        classes = self._classes(predictions)
        shapes = shapes_of(predictions)
        device = next(iter(predictions.values())).bbox_reg.device
        levels = []
        for prediction, anchors in zip(predictions.values(), self.level_anchors(shapes, device), strict=True):
            offsets = flatten_level(prediction.bbox_reg, 4).float()
            anchors_of_all = anchors.expand(offsets.shape[0], -1, -1).flatten(0, 1)  # `len` would fix the batch size of a trace
            boxes = _CODER.decode_single(offsets.flatten(0, 1), anchors_of_all).view_as(offsets)
            scores = flatten_level(prediction.cls_logits, classes).float().sigmoid()
            levels.append(LevelCandidates(boxes, scores, scores > self.score_threshold))
        return levels

    def write_boxes(self, writer: Writer, level: str, places: Places, values: str) -> str:
        corner = onnx_decoding.corners(writer, level, places)
        own = self.level_anchors({level: (1, 1)})[0].numpy()  # at the origin, [A, 4]
        number = writer.op("Mod", places.position, writer.constant(np.array(self.anchors, np.int64)))
        anchor = writer.op("Gather", writer.constant(own), number)
        return _write_decoded(writer, writer.op("Add", anchor, writer.op("Concat", corner, corner, axis=2)), values)

    def source(self, strides: Mapping[str, int]) -> DecodingSource:
        sizes, ratios = self.anchor_sizes(tuple(strides.values()))
        return DecodingSource(_SOURCE, (), (f"ANCHOR_SIZES = {sizes!r}", f"ANCHOR_RATIOS = {ratios!r}"))

    def _classes(self, predictions: Predictions) -> int:
        """The number of classes, after checking that the predictions are for this number of anchors."""
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


def _write_decoded(writer: Writer, anchors: str, values: str) -> str:
    """Write what torchvision's `BoxCoder` decodes, with its order of operations."""
    half = writer.number(0.5, exact=True)
    start, end = writer.ops("Split", anchors, outputs=2, axis=2, num_outputs=2)
    size = writer.op("Sub", end, start)
    center = writer.op("Add", start, writer.op("Mul", size, half))
    move, grow = writer.ops("Split", values, outputs=2, axis=2, num_outputs=2)
    grow = writer.op("Min", grow, writer.number(_CODER.bbox_xform_clip, exact=True))
    center = writer.op("Add", writer.op("Mul", move, size), center)
    reach = writer.op("Mul", writer.op("Mul", writer.op("Exp", grow), size), half)
    return writer.op("Concat", writer.op("Sub", center, reach), writer.op("Add", center, reach), axis=2)


_SOURCE = [
    "def level_candidates(predictions: dict[str, Prediction]) -> list[LevelCandidates]:",
    '    """Boxes and scores of each level."""',
    "    generator = AnchorGenerator(ANCHOR_SIZES, (ANCHOR_RATIOS,) * len(STRIDES))",
    "    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))",
    "    shapes = [prediction.cls_logits.shape[-2:] for prediction in predictions.values()]",
    "    generator.set_cell_anchors(torch.float32, next(iter(predictions.values())).cls_logits.device)",
    "    all_anchors = generator.grid_anchors(shapes, [(stride, stride) for stride in STRIDES.values()])",
    "    levels = []",
    "    for prediction, anchors in zip(predictions.values(), all_anchors):",
    "        offsets = flatten_level(prediction.bbox_reg, 4).float()",
    "        boxes = torch.stack([coder.decode_single(image, anchors) for image in offsets])",
    "        scores = flatten_level(prediction.cls_logits, len(CLASSES)).float().sigmoid()",
    "        levels.append(LevelCandidates(boxes, scores, scores > SCORE_THRESHOLD))",
    "    return levels",
]
