"""The detector module, with torchvision's interface: losses in training mode, detections in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, TypeAlias, overload

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2

from nasdsl.backends.module import DecoderModule, Prediction
from nasdsl.data.geometry import resized_size
from nasdsl.detection.backbones import FeatureExtractor
from nasdsl.detection.detections import Detections
from nasdsl.detection.inheritance_result import Inheritance
from nasdsl.detection.method import Method
from nasdsl.detection.prediction import ImageLike, predict
from nasdsl.detection.pyramid import RawDetections, shapes_of

Size: TypeAlias = tuple[int, int]
Target: TypeAlias = dict[str, Any]


class DetectorError(ValueError):
    """A detector cannot be built or called like this; the message says what to change."""


class InputBatch(NamedTuple):
    """A batch as the backbone takes it.

    Attributes:
        images: [N, 3, H, W], normalised; the padding is 0, the mean colour.
        sizes: (height, width) of each image without padding.
        targets: with boxes in pixels of the batch.
    """

    images: Tensor
    sizes: list[Size]
    targets: list[Target] | None


class Resize(GeneralizedRCNNTransform):  # type: ignore[misc]  # torchvision has no types
    """torchvision's transform of a list of images to a batch, but with the resizing of training: antialiased.

    Images are normalised before: mean and standard deviation belong to the backbone's weights.
    """

    def normalize(self, image: Tensor) -> Tensor:
        return image

    def resize(self, image: Tensor, target: Target | None = None) -> tuple[Tensor, Target | None]:
        height, width = image.shape[-2:]
        shorter = self.torch_choice(self.min_size) if self.training else self.min_size[-1]
        size = self.fixed_size or resized_size(height, width, shorter, self.max_size)
        if size == (height, width):
            return image, target
        image = v2.functional.resize(image, list(size), antialias=True)
        if target is not None:
            boxes = torch.as_tensor(target["boxes"]).reshape(-1, 4).float()
            scale = boxes.new_tensor([size[1] / width, size[0] / height] * 2)
            target["boxes"] = boxes * scale
            if "uncropped_size" in target:
                uncropped = target["uncropped_size"]
                target["uncropped_size"] = (round(uncropped[0] * size[0] / height), round(uncropped[1] * size[1] / width))
        return image, target


class Detector(nn.Module):
    """Backbone, decoder, and the method of what the decoder predicts, such as FCOS.

    In training mode, ``detector(images, targets)`` returns a dict of losses (``classification``, ``bbox_regression``, with
    FCOS also ``bbox_ctrness``, with distributions ``distribution``); in evaluation mode, ``detector(images)`` returns a list of
    ``{"boxes", "labels", "scores"}``, best first. Images are

    - a list of [3, H, W] tensors of any sizes, RGB, float 0 to 1 or uint8: they are resized so that the shorter side is
      `min_size` and the longer one at most `max_size`, and boxes are in pixels of the originals; or
    - one batch [N, 3, H, W], float 0 to 1 or uint8, which is not resized; `sizes` is (height, width) of each image without
      padding, and boxes are in pixels of the batch.

    Targets are dicts with ``boxes`` [n, 4] (xyxy, pixels) and ``labels`` [n] from 0 to classes - 1: there is no class for
    the background. Where an image was cropped or resized at random, ``uncropped_size`` is the (height, width) that the whole
    image has in evaluation (`nasdsl.data.Transform` adds it).

    Attributes:
        classes: names of the classes.
        category_ids: the data set's ids of the classes, in the same order.
        method: options, targets, losses and detections of what is predicted.
        inherited: what it has inherited from the weights that it was built with; None without such weights.
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
        """
        Args:
            backbone: with the features that the decoder reads.
            decoder: the fpn and the head.
            method: targets, losses and decoding of what the decoder predicts.
            classes: names of the classes, by label.
            category_ids: the data set's ids of the classes; None: 1, 2, ….
            min_size: of the shorter side of images in lists, in pixels; of several, one is drawn for each image in training,
                and the last is taken in evaluation.
            max_size: of the longer side, in pixels.
            fixed_size: (height, width) of images in lists, instead of these two.
            size_divisible: images in lists are padded to multiples of this.
            config: plain values from which the detector can be built again; see the property.
        """
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.method = method
        self.inherited: Inheritance | None = None
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
        """Plain values from which `from_config` builds this detector again, without its weights.

        ``backbone`` is None for a custom module, which plain values cannot describe.
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
        progress: float = 1.0,
    ) -> dict[str, Tensor] | list[RawDetections]:
        """Losses in training mode, detections in evaluation mode; see the class.

        Args:
            images: a list of [3, H, W] tensors, or one batch [N, 3, H, W]; see the class.
            targets: one for each image, in training; see the class.
            sizes: (height, width) of each image of a batch, without padding; None: all of it.
            progress: share of the training that is done, for losses that change on the way.

        Raises:
            DetectorError: no targets in training mode, a label that is not below the number of classes, or invalid images.
            DetectionError: a target whose boxes or labels have a wrong shape.
        """
        if self.training:
            if targets is None:
                raise DetectorError("a detector in training mode needs targets; call .eval() for detections")
            self._check_targets(targets, len(images))
        inputs = self.prepare(images, targets, sizes)
        if self.training:
            return self.losses(self.maps(inputs.images), inputs, progress)
        detections = self.detections(inputs)
        if not isinstance(images, Tensor):
            originals = [(int(i.shape[-2]), int(i.shape[-1])) for i in images]
            detections = self.transform.postprocess(detections, inputs.sizes, originals)
        return detections

    def maps(self, images: Tensor) -> dict[str, Prediction]:
        """The dense part of a detector: backbone, fpn and head. ``torch.compile`` compiles it as one graph.

        Args:
            images: [N, 3, H, W], normalised, as `prepare` gives them.

        Returns:
            The predictions of each level, finest first.
        """
        predictions: dict[str, Prediction] = self.decoder(self.backbone(images))
        return predictions

    def detections(self, inputs: InputBatch) -> list[RawDetections]:
        """The detections in each image of a batch, best first, with boxes in pixels of the batch.

        Args:
            inputs: from `prepare`.
        """
        return self.method.detect(self.maps(inputs.images), inputs.sizes)

    @torch.inference_mode()
    def detect(self, image: Tensor) -> RawDetections:
        """The detections in one image [3, H, W] (uint8, or float 0 to 1), as CPU tensors.

        Args:
            image: [3, H, W], RGB, of any size.

        Raises:
            DetectorError: the detector is in training mode, or the image is invalid.
        """
        if self.training:
            raise DetectorError("a detector in training mode returns no detections; call .eval() first")
        detections = self([image.to(next(self.parameters()).device)])[0]
        return {name: value.cpu() for name, value in detections.items()}

    @overload
    def predict(self, images: Image.Image, threshold: float = 0.0, batch_size: int = 8) -> Detections: ...

    @overload
    def predict(
        self, images: ImageLike | Iterable[ImageLike], threshold: float = 0.0, batch_size: int = 8
    ) -> Detections | list[Detections]: ...

    def predict(
        self, images: ImageLike | Iterable[ImageLike], threshold: float = 0.0, batch_size: int = 8
    ) -> Detections | list[Detections]:
        """Find the objects in images of any kind and size: the same that `nasdsl eval` and `nasdsl detect` find in them.

        The detector is in evaluation mode meanwhile, whatever its mode is.

        Args:
            images: one image or several:

                - the path of an image file, or of a folder with image files,
                - an image of Pillow; EXIF's orientation is applied, as for files,
                - an array [H, W, 3], uint8 RGB,
                - a tensor [3, H, W] or [N, 3, H, W], RGB, uint8 or float 0 to 1,
                - a list of these.
            threshold: lowest score of the detections. With 0, all are given that the method's own threshold leaves.
            batch_size: images of one size that are computed at once.

        Returns:
            A list of `Detections`; of a single image (a path, an image, an array or a tensor of three dimensions), its own.

        Raises:
            UnreadableImage: a file is missing or broken; the message names it.
            DetectionError: `images` is none of these.
        """
        return predict(self, images, threshold, batch_size)

    def losses(self, predictions: Mapping[str, Prediction], inputs: InputBatch, progress: float = 1.0) -> dict[str, Tensor]:
        """The losses of predictions, at a share of the training.

        FCOS's size ranges scale with the largest shorter side in the batch: all images have it, except for panoramas, which
        `max_size` limits. For an image with ``uncropped_size`` it is the shorter side of that: however it was cropped or
        resized at random, objects of as many pixels belong to the same level.

        Args:
            predictions: of each level, as the decoder gives them.
            inputs: from `prepare`, with targets.
            progress: share of the training that is done, 0 to 1.
        """
        assert inputs.targets is not None
        shapes = shapes_of(predictions)
        uncropped = (target.get("uncropped_size", size) for target, size in zip(inputs.targets, inputs.sizes, strict=True))
        shorter = max(min(size) for size in uncropped)
        targets = self.method.targets(shapes, (shorter, shorter), inputs.targets)
        return self.method.at(progress).losses(predictions, targets)

    def prepare(
        self, images: Tensor | Sequence[Tensor], targets: Sequence[Target] | None = None, sizes: Sequence[Size] | None = None
    ) -> InputBatch:
        """Normalise images, and resize and pad a list of them to a batch.

        Args:
            images: a list of [3, H, W] tensors, or one batch [N, 3, H, W]; see the class.
            targets: one for each image; None: none.
            sizes: (height, width) of each image of a batch, without padding; None: all of it.

        Raises:
            DetectorError: images or `sizes` are not as `Detector` describes.
        """
        if isinstance(images, Tensor):
            if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
                raise DetectorError(f"a batch of images is [N, 3, H, W]; got {list(images.shape)}")
            height, width = images.shape[-2:]
            unpadded = [(int(h), int(w)) for h, w in sizes] if sizes is not None else [(height, width)] * len(images)
            if len(unpadded) != len(images) or any(not (0 < h <= height and 0 < w <= width) for h, w in unpadded):
                raise DetectorError(
                    f"sizes is {unpadded}; expected height and width without padding of each of {len(images)} images of "
                    f"{height}x{width}"
                )
            return InputBatch(self._normalize(images, unpadded), unpadded, list(targets) if targets is not None else None)
        if not images or sizes is not None:
            raise DetectorError("expected a non-empty list of images, or a batch of images with `sizes`")
        for image in images:
            if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
                raise DetectorError(f"an image is [3, H, W]; got {list(image.shape)}")
        normalised = [self.backbone.normalize(image).to(self.backbone.pixel_mean.dtype) for image in images]
        batch, resized_targets = self.transform(normalised, list(targets) if targets is not None else None)
        return InputBatch(batch.tensors, batch.image_sizes, resized_targets)

    def _normalize(self, images: Tensor, sizes: Sequence[Size]) -> Tensor:
        batch = self.backbone.normalize(images).to(self.backbone.pixel_mean.dtype)
        for image, (height, width) in zip(batch, sizes, strict=True):
            if (height, width) != image.shape[-2:]:
                image[:, height:].zero_()
                image[:, :, width:].zero_()
        return batch

    def _check_targets(self, targets: Sequence[Target], images: int) -> None:
        if len(targets) != images:
            raise DetectorError(f"{images} images and {len(targets)} targets were given")
        for number, target in enumerate(targets):
            if "boxes" not in target or "labels" not in target:
                raise DetectorError(f"target {number} has {', '.join(map(str, target)) or 'nothing'}; expected boxes, labels")
        labels = torch.cat([torch.as_tensor(target["labels"]).flatten() for target in targets])
        if not labels.numel():
            return
        lowest, highest = torch.stack(labels.aminmax()).tolist()  # of all images together: one synchronisation with the GPU
        if not 0 <= lowest <= highest < len(self.classes):
            raise DetectorError(
                f"the targets have labels {lowest} to {highest}; expected 0 to {len(self.classes) - 1}: "
                f"{len(self.classes)} classes, without a background class"
            )
