"""Sizes of images and maps: of the example that a tracer runs, of a padded batch, and of the maps of an image."""

from __future__ import annotations

import torch

from nasdsl.backends.export import ExportError
from nasdsl.backends.layer_errors import first_line
from nasdsl.backends.module import DecoderModule
from nasdsl.backends.torch_export import uneven_size
from nasdsl.detection.backbones import FeatureExtractor
from nasdsl.detection.detector import Detector, Size
from nasdsl.detection.pyramid import shapes_of


def example_size(backbone: FeatureExtractor, decoder: DecoderModule | None = None, divisible: int = 1) -> Size:
    """Height and width of an example image; see `nasdsl.backends.torch_export.uneven_size`.

    A backbone alone gets a size that its coarsest stride divides: networks of patches may take no other.

    Args:
        divisible: what the sizes of a batch are multiples of.
    """
    coarsest = 2 ** max(int(name[1:]) for name in backbone.features)
    if decoder is None:
        return 6 * coarsest, 8 * coarsest
    return padded_size(uneven_size(max(coarsest, 2 ** max(decoder.graph.levels.values()))), divisible)


def padded_size(size: Size, divisible: int) -> Size:
    """Height and width of the batch for images of a size: the next multiples of `divisible`."""
    return -(-size[0] // divisible) * divisible, -(-size[1] // divisible) * divisible


def map_sizes(detector: Detector, size: Size) -> dict[str, Size]:
    """Height and width of the map of each level for images of a size.

    Raises:
        ExportError: the detector cannot process such images; the message has the reason.
    """
    padded = padded_size(size, detector.transform.size_divisible)
    try:
        with torch.no_grad():
            return shapes_of(detector.decoder(detector.backbone(detector.backbone.pixel_mean.new_zeros(1, 3, *padded))))
    except RuntimeError as error:
        raise ExportError(
            f"the detector cannot process images of {size[0]}x{size[1]}: {first_line(error)}; try a multiple of "
            f"{2 ** max(detector.decoder.graph.levels.values())}"
        ) from error
