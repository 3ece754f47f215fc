"""Optimised copies of trained detectors for inference."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from nasdsl.backbones import BACKBONES
from nasdsl.backends import inference
from nasdsl.detection.backbones.networks import ResNet
from nasdsl.detection.detector import Detector
from nasdsl.nn.folding import fold


def for_inference(detector: Detector) -> Detector:
    """A faster copy of a detector, in evaluation mode, with the same detections up to rounding. It cannot be trained.

    BatchNorms are folded into the convolutions in front of them, in the decoder (`nasdsl.backends.inference`) and in the
    backbones of this package; a custom backbone and one of timm is only copied. The memory format is channels-last; batches
    should have it.

    Args:
        detector: a trained one; it is not changed.
    """
    decoder = inference.for_inference(detector.decoder)
    # With the memo, the copy refers to the new decoder instead of copying the old one.
    optimized = copy.deepcopy(detector, {id(detector.decoder): decoder}).eval().requires_grad_(False)
    if optimized.backbone.name in BACKBONES:
        for part in list(optimized.backbone.body.modules()):
            fold(part, _sequential_pairs(part))
    return optimized.to(memory_format=torch.channels_last)


def _sequential_pairs(part: nn.Module) -> list[tuple[str, str]]:
    """Names of children that torchvision's networks run in sequence, where nothing else reads the output of the first."""
    if isinstance(part, nn.Sequential):
        return list(pairwise(part._modules))
    if isinstance(part, ResNet | BasicBlock | Bottleneck):
        return [(name, name.replace("conv", "bn")) for name in part._modules if name.startswith("conv")]
    return []
