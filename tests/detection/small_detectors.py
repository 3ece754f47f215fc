"""Detectors small enough that a step takes milliseconds, with custom backbones."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from nasdsl import loads
from nasdsl.detection.backbones import FeatureExtractor
from nasdsl.detection.detector import Detector
from nasdsl.detection.factory import detector

torch.set_num_threads(1)

FEATURES = ("c2", "c3", "c4", "c5")
TEXT = """decoder small {
  input c3, c4, c5
  fpn(width=16, norm=none, act=none, adapter=none) {
    l3 = conv_1x1(c3)
    l4 = conv_1x1(c4)
    l5 = conv_1x1(c5)
    m4 = add(l4, resize(l5, to=l4, mode=nearest))
    m3 = add(l3, resize(m4, to=l3, mode=nearest))
    output p3 = conv_3x3(m3), p4 = conv_3x3(m4), p5 = conv_3x3(l5)
  }
  head(width=16, norm=none) { conv_3x3(bias=true) -> conv_3x3(bias=true) }
  predict PREDICT
}
"""
FCOS = "fcos(centerness=cls)"
IMPROVED = "fcos(centerness=box, boxes=relu)"
RETINANET = "retinanet(anchors=9)"


class Body(nn.Module):
    """Convolutions without bias, with BatchNorm if `norm`: an image of zeros has features of zeros."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        widths = (3, 8, 16, 32, 48, 64)
        layers = [
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b) if norm else nn.Identity(), nn.ReLU())
            for a, b in pairwise(widths)
        ]
        self.stages = nn.ModuleList([nn.Sequential(*layers[:2]), *layers[2:]])

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def body(norm: bool = False) -> FeatureExtractor:
    return FeatureExtractor(Body(norm), FEATURES)


def small_detector(predict: str = FCOS, *, seed: int = 0, norm: bool = False, classes: Any = 3, **options: Any) -> Detector:
    """A detector with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    options = {"min_size": 64, "max_size": 128, **options}
    return detector(loads(TEXT.replace("PREDICT", predict)), body(norm), classes=classes, **options).eval()


def confident_detector(predict: str = FCOS, **options: Any) -> Detector:
    """A detector with detections nearly everywhere: its scores are high and well separated."""
    model = small_detector(predict, **options)
    with torch.no_grad():
        model.decoder.head.cls_logits.bias.zero_()
        model.decoder.head.cls_logits.weight.mul_(300)
        if predict == FCOS:
            model.decoder.head.bbox_reg.bias.fill_(2.5)
    return model


def random_images(*sizes: tuple[int, int], seed: int = 0) -> list[Tensor]:
    """uint8 noise of these heights and widths, coarse enough to survive resizing."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for height, width in sizes:
        coarse = torch.rand(1, 3, -(-height // 8), -(-width // 8), generator=generator)
        images.append((nn.functional.interpolate(coarse, (height, width))[0] * 255).to(torch.uint8))
    return images


def target(boxes: Any, labels: Any = None) -> dict[str, Tensor]:
    """The target of one image; by default all labels are 0."""
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.zeros(len(boxes), dtype=torch.int64) if labels is None else torch.as_tensor(labels)}
