"""A whole detector, by torchvision's convention: losses in training, boxes in evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2

from nasdsl.backends.module import DecoderModule, Prediction
from nasdsl.detection.backbones import FeatureExtractor
from nasdsl.detection.fcos import Fcos
from nasdsl.detection.pyramid import shapes_of
from nasdsl.detection.retinanet import Retinanet

Method: TypeAlias = Fcos | Retinanet
Size: TypeAlias = tuple[int, int]
Target: TypeAlias = dict[str, Any]
Detections: TypeAlias = dict[str, Tensor]


class DetectorError(ValueError):
    """A detector cannot be made or used like this; the message says what to change."""


class Inputs(NamedTuple):
    """A batch as the backbone takes it.

    Attributes:
        images: [N, 3, H, W], normalised; 0, the mean colour, where a picture is padded.
        sizes: height and width of each picture inside of it.
        targets: boxes in pixels of the batch.
    """

    images: Tensor
    sizes: list[Size]
    targets: list[Target] | None


class Resize(GeneralizedRCNNTransform):  # type: ignore[misc]  # torchvision has no types
    """torchvision's transform of lists of pictures, with antialiasing, as the pictures of the training were resized.

    The pictures come normalised: only the backbone knows by which numbers, which are part of its weights.
    """

    def normalize(self, image: Tensor) -> Tensor:
        return image

    def resize(self, image: Tensor, target: Target | None = None) -> tuple[Tensor, Target | None]:
        height, width = image.shape[-2:]
        shorter = self.torch_choice(self.min_size) if self.training else self.min_size[-1]
        size = self.fixed_size or resized(height, width, shorter, self.max_size)
        if size == (height, width):
            return image, target
        image = v2.functional.resize(image, list(size), antialias=True)
        if target is not None:
            boxes = torch.as_tensor(target["boxes"]).reshape(-1, 4).float()
            scale = boxes.new_tensor([size[1] / width, size[0] / height] * 2)
            target["boxes"] = boxes * scale
            if "uncropped_size" in target:
                whole = target["uncropped_size"]
                target["uncropped_size"] = (round(whole[0] * size[0] / height), round(whole[1] * size[1] / width))
        return image, target


def resized(height: int, width: int, shorter: int, longest: int) -> Size:
    """Height and width of a picture whose shorter side becomes `shorter`, unless its longer one would exceed `longest`.

    Rounded down, as v2.Resize and `nasdsl.data.Transform` do, with which the pictures of a training are resized.
    """
    low, high = min(height, width), max(height, width)
    other = shorter * high // low
    if other > longest:
        shorter, other = max(1, longest * shorter // other), longest
    return (shorter, other) if height <= width else (other, shorter)


class Detector(nn.Module):
    """Backbone, decoder, and what turns its predictions into losses and boxes.

    ``detector(images, targets)`` in training mode gives a dict of losses (``classification``, ``bbox_regression``, and
    ``bbox_ctrness`` with FCOS); ``detector(images)`` in evaluation mode a list of ``{"boxes", "labels", "scores"}``,
    best first. Images are

    - a list of [3, H, W] tensors, RGB, float 0 to 1 or uint8, each of its own size: resized so that the shorter side is
      `min_size` and the longer one at most `max_size`, boxes are given and returned in pixels of the original; or
    - one batch [N, 3, H, W], float 0 to 1 or uint8, taken as it is; `sizes` names the valid part of each picture, and
      boxes are in pixels of the batch.

    Targets are dicts with ``boxes`` [n, 4] (xyxy, pixels) and ``labels`` [n] from 0 to classes - 1: there is no class for
    the background. Where an image is a crop, ``uncropped_size`` is the (height, width) of the image it was cut from, at the
    same scale (`nasdsl.data.Transform` adds it).

    Attributes:
        classes: names of the classes.
        category_ids: what data sets call them, in the same order.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        decoder: DecoderModule,
        method: Method,
        *,
        classes: Sequence[str],
        category_ids: Sequence[int] | None = None,
        min_size: int | Sequence[int] = 800,
        max_size: int = 1333,
        fixed_size: Size | None = None,
        size_divisible: int = 1,
        config: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.method = method
        self.classes = tuple(classes)
        self.category_ids = tuple(category_ids) if category_ids is not None else tuple(range(1, len(self.classes) + 1))
        if len(self.category_ids) != len(self.classes):
            raise DetectorError(f"{len(self.classes)} classes and {len(self.category_ids)} category ids were given")
        self.transform = Resize(
            (min_size,) if isinstance(min_size, int) else tuple(min_size),
            max_size,
            [0.0, 0.0, 0.0],
            [1.0, 1.0, 1.0],
            size_divisible,
            fixed_size,
        )
        self._config = dict(config)

    @property
    def config(self) -> dict[str, Any]:
        """All that `from_config` needs to make this detector again, its weights aside: plain values.

        Its ``backbone`` is None where that is a module of your own, which no text describes.
        """
        return {
            **self._config,
            "classes": list(self.classes),
            "category_ids": list(self.category_ids),
            "min_size": list(self.transform.min_size),
            "max_size": self.transform.max_size,
            "fixed_size": list(self.transform.fixed_size) if self.transform.fixed_size else None,
            "size_divisible": self.transform.size_divisible,
            "method": asdict(self.method),
        }

    def forward(
        self,
        images: Tensor | Sequence[Tensor],
        targets: Sequence[Target] | None = None,
        *,
        sizes: Sequence[Size] | None = None,
    ) -> dict[str, Tensor] | list[Detections]:
        """Losses in training mode, detections in evaluation mode; see the class.

        Raises:
            DetectorError: no targets in training, a label beyond the classes, or images of another form.
            DetectionError: a target with boxes or labels of another shape.
        """
        if self.training:
            if targets is None:
                raise DetectorError("a detector in training mode needs targets; call .eval() for detections")
            self._check(targets, len(images))
        inputs = self.inputs(images, targets, sizes)
        predictions = self.decoder(self.backbone(inputs.images))
        if self.training:
            assert inputs.targets is not None
            return self.losses(predictions, inputs)
        found = self.method.detect(predictions, inputs.sizes)
        if not isinstance(images, Tensor):
            originals = [(int(i.shape[-2]), int(i.shape[-1])) for i in images]
            found = self.transform.postprocess(found, inputs.sizes, originals)
        return found

    @torch.inference_mode()
    def detect(self, image: Tensor) -> Detections:
        """What is in one picture [3, H, W] (uint8, or float 0 to 1), on the CPU; the detector must be in evaluation mode.

        Raises:
            DetectorError: it is in training mode, or the picture is of another form.
        """
        if self.training:
            raise DetectorError("a detector in training mode finds nothing; call .eval() first")
        found = self([image.to(next(self.parameters()).device)])[0]
        return {name: value.cpu() for name, value in found.items()}

    def losses(self, predictions: Mapping[str, Prediction], inputs: Inputs) -> dict[str, Tensor]:
        """The losses of predictions.

        FCOS's size ranges follow the largest shorter side of the images: that of all of them, except for panoramas, whose
        longer side was the limit. Of an image that was cropped, the side before the crop counts: objects keep their size.
        """
        assert inputs.targets is not None
        shapes = shapes_of(predictions)
        method = self.method
        if isinstance(method, Fcos):
            whole = (target.get("uncropped_size", size) for target, size in zip(inputs.targets, inputs.sizes, strict=True))
            shorter = max(min(size) for size in whole)
            return method.losses(predictions, method.targets(shapes, (shorter, shorter), inputs.targets))
        height, width = inputs.images.shape[-2:]
        return method.losses(predictions, method.targets(shapes, (height, width), inputs.targets))

    def inputs(
        self, images: Tensor | Sequence[Tensor], targets: Sequence[Target] | None = None, sizes: Sequence[Size] | None = None
    ) -> Inputs:
        """Normalised images in one batch.

        Raises:
            DetectorError: images or `sizes` of another form than `Detector` says.
        """
        if isinstance(images, Tensor):
            if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
                raise DetectorError(f"a batch of images is [N, 3, H, W]; got {list(images.shape)}")
            height, width = images.shape[-2:]
            valid = [(int(h), int(w)) for h, w in sizes] if sizes is not None else [(height, width)] * len(images)
            if len(valid) != len(images) or any(not (0 < h <= height and 0 < w <= width) for h, w in valid):
                raise DetectorError(
                    f"sizes is {valid}; expected height and width of the valid part of each of {len(images)} images of "
                    f"{height}x{width}"
                )
            return Inputs(self._normalised(images, valid), valid, list(targets) if targets is not None else None)
        if not images or sizes is not None:
            raise DetectorError("expected a list of one image or more, or else one batch of images with `sizes`")
        for image in images:
            if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
                raise DetectorError(f"an image is [3, H, W]; got {list(image.shape)}")
        normalised = [self.backbone.normalize(image).to(self.backbone.pixel_mean.dtype) for image in images]
        batch, resized_targets = self.transform(normalised, list(targets) if targets is not None else None)
        return Inputs(batch.tensors, batch.image_sizes, resized_targets)

    def _normalised(self, images: Tensor, sizes: Sequence[Size]) -> Tensor:
        batch = self.backbone.normalize(images).to(self.backbone.pixel_mean.dtype)
        for image, (height, width) in zip(batch, sizes, strict=True):
            image[:, height:].zero_()
            image[:, :, width:].zero_()
        return batch

    def _check(self, targets: Sequence[Target], images: int) -> None:
        if len(targets) != images:
            raise DetectorError(f"{images} images and {len(targets)} targets were given")
        for number, target in enumerate(targets):
            if "boxes" not in target or "labels" not in target:
                raise DetectorError(f"target {number} has {', '.join(map(str, target)) or 'nothing'}; expected boxes, labels")
        labels = torch.cat([torch.as_tensor(target["labels"]).flatten() for target in targets])
        if not labels.numel():
            return
        least, most = torch.stack(labels.aminmax()).tolist()  # of all images at once: a GPU is waited for only once
        if not 0 <= least <= most < len(self.classes):
            raise DetectorError(
                f"the targets have labels {least} to {most}; expected 0 to {len(self.classes) - 1}: "
                f"{len(self.classes)} classes, none for the background"
            )
