"""Sizes of images: of the example that a tracer runs, and whether a fixed size is possible."""

from __future__ import annotations

from typing import TypeAlias

from nasdsl.backends.module import DecoderModule
from nasdsl.detection.backbones import FeatureExtractor

Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""


def example_size(backbone: FeatureExtractor, decoder: DecoderModule | None = None, divisible: int = 1) -> Size:
    """Height and width of an example image: its coarsest map is 3 x 4, and no level's size divides it evenly.

    torch treats a dimension of size 1 as a constant, so no map of the example may have one. A backbone alone gets a size that
    its coarsest stride divides: networks of patches may take no other.

    Args:
        divisible: what the sizes of a batch are multiples of.
    """
    coarsest = 2 ** max(int(name[1:]) for name in backbone.features)
    if decoder is None:
        return 6 * coarsest, 8 * coarsest
    coarsest = max(coarsest, 2 ** max(decoder.graph.levels.values()))
    height, width = 2 * coarsest + coarsest // 8 + 1, 3 * coarsest + coarsest // 2 + 3
    return -(-height // divisible) * divisible, -(-width // divisible) * divisible
