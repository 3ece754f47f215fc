"""From images of any kind to `Detections`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from nasdsl.data import Transform, read_image, rescale_boxes
from nasdsl.data.geometry import resize_image
from nasdsl.data.image_files import find_files, is_video
from nasdsl.data.images import pil_to_tensor
from nasdsl.detection.backbones.extractor import eval_mode
from nasdsl.detection.detections import Detections
from nasdsl.detection.pyramid import DetectionError

if TYPE_CHECKING:
    from nasdsl.detection.detector import Detector

ImageLike: TypeAlias = "str | Path | Image.Image | np.ndarray[Any, Any] | Tensor"

_MOST_WAITING = 4  # full batches of images in memory that wait for others of their size


def transform_of(detector: Detector) -> Transform:
    """The detector's own resizing as a transform for data sets."""
    own = detector.transform
    fixed = own.fixed_size
    return Transform(own.min_size[-1], own.max_size, (int(fixed[0]), int(fixed[1])) if fixed else None)


def predict(
    detector: Detector, images: ImageLike | Iterable[ImageLike], threshold: float = 0.0, batch_size: int = 8
) -> Detections | list[Detections]:
    """See `Detector.predict`."""
    if not 0 <= threshold <= 1 or batch_size < 1:
        raise DetectionError(f"threshold is {threshold} and batch_size {batch_size}; expected 0 to 1, and 1 or more")
    inputs = _inputs(images)
    found: dict[int, Detections] = {}
    with eval_mode(detector):
        for numbers, batch in _batches(inputs, transform_of(detector), batch_size):
            for number, detections in zip(numbers, _detect(detector, batch), strict=True):
                found[number] = detections.filter(threshold)
    results = [found[number] for number in range(len(found))]
    return results[0] if _is_one(images) else results


class _Waiting(NamedTuple):
    """A resized image [3, h, w], with the size (H, W) and the source of the original."""

    image: Tensor
    size: tuple[int, int]
    source: Path | Tensor


def _is_one(images: Any) -> bool:
    """Whether these are one image, and not several."""
    if isinstance(images, str | Path):
        return not Path(images).is_dir()
    return isinstance(images, Image.Image) or (isinstance(images, np.ndarray | Tensor) and images.ndim == 3)


def _inputs(images: Any) -> list[Path | Tensor]:
    """The images that an argument of `predict` stands for: files, which are not read yet, and tensors [3, H, W].

    Raises:
        DetectionError: it is nothing that `predict` takes.
    """
    if isinstance(images, str | Path):
        files = find_files([images]) if Path(images).is_dir() else [Path(images)]
        if not files:
            raise DetectionError(f"no images in the folder {images}")
        return [_not_a_video(file) for file in files]
    if isinstance(images, Image.Image):
        tensor = pil_to_tensor(images, getattr(images, "filename", "") or "the image")
        return [_tensor(tensor)]
    if isinstance(images, np.ndarray):
        return [_tensor(_from_array(images))]
    if isinstance(images, Tensor):
        return [_tensor(image) for image in (images if images.ndim == 4 else [images])]
    if isinstance(images, Iterable) and not isinstance(images, bytes | dict):
        return [one for image in images for one in _inputs(image)]
    raise DetectionError(
        f"a {type(images).__name__} was given; expected a path, a folder, an image of Pillow, an array [H, W, 3], a tensor "
        "[3, H, W], or a list of these"
    )


def _not_a_video(path: Path) -> Path:
    if is_video(path):
        raise DetectionError(f"{path} is a video; `nasdsl detect` takes videos, and predict their frames as arrays [H, W, 3]")
    return path


def _from_array(array: np.ndarray[Any, Any]) -> Tensor:
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise DetectionError(f"an array is uint8 [H, W, 3], RGB; got {array.dtype} {list(array.shape)}")
    return torch.from_numpy(np.array(array)).permute(2, 0, 1)  # a copy: the array may be changed, or not be writable


def _tensor(image: Tensor) -> Tensor:
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise DetectionError(f"a tensor is [3, H, W], or [N, 3, H, W]; got {list(image.shape)}")
    if image.dtype != torch.uint8:
        if not image.is_floating_point():
            raise DetectionError(f"a tensor is uint8, or float 0 to 1; got {image.dtype}".replace("torch.", ""))
        low, high = (float(value) for value in image.aminmax())
        if not -0.01 <= low <= high <= 1.01:
            raise DetectionError(f"a tensor of floats is 0 to 1; got {low:g} to {high:g}")
    return image.detach()


def _batches(
    inputs: Sequence[Path | Tensor], transform: Transform, batch_size: int
) -> Iterator[tuple[list[int], list[_Waiting]]]:
    """Batches of images that have one size and type after resizing, with their numbers."""
    waiting: dict[Any, list[tuple[int, _Waiting]]] = {}
    for number, source in enumerate(inputs):
        image = read_image(source) if isinstance(source, Path) else source
        size = (int(image.shape[-2]), int(image.shape[-1]))
        resized = resize_image(image, transform.output_size(size))
        key = (resized.shape, resized.dtype, resized.device)
        group = waiting.setdefault(key, [])
        group.append((number, _Waiting(resized, size, source)))
        full = [key] if len(group) == batch_size else []
        if not full and sum(map(len, waiting.values())) >= _MOST_WAITING * batch_size:
            full = list(waiting)
        for key in full:
            yield _unzip(waiting.pop(key))
    for group in waiting.values():
        yield _unzip(group)


def _unzip(group: list[tuple[int, _Waiting]]) -> tuple[list[int], list[_Waiting]]:
    return [number for number, _ in group], [image for _, image in group]


@torch.no_grad()  # not inference_mode: tensors that a detector caches in it could not be used in training
def _detect(detector: Detector, batch: list[_Waiting]) -> list[Detections]:
    """The detections in images of one size. Padding on the right and at the bottom is as in an evaluation."""
    parameter = next(p for p in detector.backbone.parameters() if p.ndim == 4)
    images = torch.stack([one.image for one in batch])
    height, width = images.shape[-2:]
    divisor = detector.transform.size_divisible
    images = pad(images, (0, -width % divisor, 0, -height % divisor))
    optimized = parameter.is_contiguous(memory_format=torch.channels_last) and not parameter.is_contiguous()
    layout = torch.channels_last if optimized else torch.preserve_format
    images = images.to(parameter.device, memory_format=layout)
    found = detector(images, sizes=[(height, width)] * len(batch))
    return [
        Detections(
            rescale_boxes(raw["boxes"].float(), (height, width), one.size).cpu(),
            raw["scores"].float().cpu(),
            raw["labels"].cpu(),
            detector.classes,
            detector.category_ids,
            one.size,
            one.source,
        )
        for raw, one in zip(found, batch, strict=True)
    ]
