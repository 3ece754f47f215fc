"""A trained detector made faster for evaluation."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from nasdsl.backends import inference
from nasdsl.detection.backbones.networks import ResNet
from nasdsl.detection.detector import Detector
from nasdsl.nn.folding import fold


def for_inference(detector: Detector) -> Detector:
    """A detector that finds the same (to rounding), sooner; `detector` stays as it is.

    BatchNorms are folded into the convolutions in front of them, in the decoder (`nasdsl.backends.inference`) and in the
    backbones that come with the package; a backbone of your own is only copied. All is in torch's channels-last memory format,
    and so should batches be that are given to it. What comes back is in evaluation mode and cannot be trained.
    """
    decoder = inference.for_inference(detector.decoder)
    # The copy of the detector takes the new decoder wherever it meets the old one, which is then not copied as well.
    made = copy.deepcopy(detector, {id(detector.decoder): decoder}).eval().requires_grad_(False)
    if made.backbone.name is not None:
        for part in list(made.backbone.body.modules()):
            fold(part, _pairs(part))
    return made.to(memory_format=torch.channels_last)


def _pairs(part: nn.Module) -> list[tuple[str, str]]:
    """Names of children that torchvision's networks run one right after the other, nothing else reading the first."""
    if isinstance(part, nn.Sequential):
        return list(pairwise(part._modules))
    if isinstance(part, ResNet | BasicBlock | Bottleneck):
        return [(name, name.replace("conv", "bn")) for name in part._modules if name.startswith("conv")]
    return []
