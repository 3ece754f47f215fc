"""How much the features of a proxy task will take, before any of them is made."""

from __future__ import annotations

from typing import NamedTuple

from nasdsl.backbones import backbone
from nasdsl.data import Dataset
from nasdsl.decoder import loads
from nasdsl.training.proxy.extraction import make_layout, resized_sizes
from nasdsl.training.proxy.fpn_features import fpn_layout
from nasdsl.training.proxy.spec import DTYPES, ProxySpec


class FeatureSize(NamedTuple):
    """Bytes of the features of a task.

    Attributes:
        images: how many there are.
        backbone: bytes of the backbone's features.
        fpn: bytes of the fpn outputs on which the heads of a second stage are trained; 0 without.
    """

    images: int
    backbone: int
    fpn: int

    @property
    def total(self) -> int:
        return self.backbone + self.fpn


def estimate_features(dataset: Dataset, spec: ProxySpec, fpn: str | None = None) -> FeatureSize:
    """Count the bytes of the features, from the sizes of the images; nothing is computed.

    Args:
        dataset: the data of the spec.
        fpn: text of a decoder like that of the second stage, at its width.

    Raises:
        UnknownBackbone, ProxyError: see `ProxyTask`.
    """
    channels, itemsize = backbone(spec.backbone).out_channels, DTYPES[spec.dtype].itemsize
    layout = make_layout(channels, resized_sizes(dataset, spec), spec)
    size = 0 if fpn is None else fpn_layout(loads(fpn).lower(channels), layout).offsets[-1]
    return FeatureSize(len(dataset), layout.offsets[-1] * itemsize, size * itemsize)
