"""Detectors with random weights to export, runners of exported files, and comparison of detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

import nasdsl
from nasdsl.backends.module import Head
from nasdsl.detection.backbones import FeatureExtractor
from nasdsl.detection.detector import Detector
from nasdsl.detection.factory import detector
from nasdsl.detection.postprocess import LevelCandidates
from nasdsl.nn import DeformConv2d, Scale, WeightedAdd

Run = Callable[[Tensor], list[Any]]

TEXT = """decoder small {
  input c3, c4, c5
  fpn(width=32, norm=bn) {
    l3 = dconv_3x3(c3)
    l4 = add(conv_1x1(c4), resize(c5, to=c4, mode=nearest))
    output p3 = l3, p4 = l4, p5 = conv_3x3(c5)
  }
  head(width=32, norm=gn, share=1) { conv_3x3 -> sep_3x3 }
  predict PREDICT
}
"""
FCOS = "fcos(centerness=cls)"
IMPROVED = "fcos(centerness=box, boxes=relu)"
RETINANET = "retinanet(anchors=9)"


def randomized(model: Detector, seed: int = 0) -> Detector:
    """Give a detector weights that make every part of it matter, and detections everywhere."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d | FrozenBatchNorm2d):
                for tensor, low in ((part.weight, 0.5), (part.bias, -0.5), (part.running_mean, -0.3), (part.running_var, 0.5)):
                    assert tensor is not None
                    tensor.uniform_(low, low + 1)
            elif isinstance(part, DeformConv2d):
                part.offset.weight.normal_(std=0.05)
                assert part.offset.bias is not None
                part.offset.bias.uniform_(-2, 2)
            elif isinstance(part, nn.Conv2d) and part.groups > 1:
                part.weight.mul_(4)  # or little is left of a signal behind several separable layers, and scores are tied
            elif isinstance(part, Scale | WeightedAdd):
                part.weight.uniform_(0.5, 1.5)
        head = model.decoder.head
        if not head.predictions["cls_logits"].shared and any(isinstance(part, nn.BatchNorm2d) for part in head.modules()):
            for part in head.modules():  # these BatchNorms do not bring signals back to their size, as a GroupNorm does
                if isinstance(part, nn.Conv2d):
                    part.weight.mul_(4)
        for conv in last_convs(head, "cls_logits"):
            conv.weight.normal_(std=0.15 * spread(conv))
            conv.bias.uniform_(-2, -1)
        for conv in last_convs(head, "bbox_reg"):
            conv.weight.normal_(std=0.05 * spread(conv))
            if hasattr(head, "centerness"):
                conv.bias.fill_(0.5 if head.box_form == "relu" else 2.0)
        if hasattr(head, "centerness"):
            for conv in last_convs(head, "centerness"):
                conv.weight.normal_(std=0.1)
            for parameter in head.scale.values():
                parameter.uniform_(0.8, 1.2)
    return model.eval()


def last_convs(head: Head, name: str) -> list[Any]:
    """The convolutions that give the channels of a prediction, which it is or ends in: one, or one of each level."""
    places = [head.get_submodule(place) for place in head.places(head.predictions[name])]
    return [[part for part in place.modules() if isinstance(part, nn.Conv2d)][-1] for place in places]


def spread(conv: nn.Conv2d) -> float:
    """How much larger weights must be than those of a 3x3 convolution, so that results are spread as much."""
    return 3 / (conv.weight[0, 0].numel() ** 0.5)


def small(predict: str = FCOS, backbone: str | FeatureExtractor = "tiny", *, seed: int = 0, **options: Any) -> Detector:
    options = {"classes": 3, "min_size": 64, "max_size": 128, **options}
    return randomized(detector(nasdsl.loads(TEXT.replace("PREDICT", predict)), backbone, seed=seed, **options), seed)


def zoo(path: Path) -> Detector:
    """A decoder of the zoo, narrow, on the tiny backbone."""
    decoder = nasdsl.load(path)
    if path.stem != "nas_fcos_128_256":  # which has a width for each section
        decoder = decoder.with_width(32)
    return randomized(detector(decoder, "tiny", classes=4, seed=0))


def images(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth noise [N, 3, H, W] in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, -(-height // 8) + 1, -(-width // 8) + 1, generator=generator)
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def onnx_runner(file: Path | bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"images": x.numpy()})


def program_runner(file: Path) -> Run:
    program = torch.export.load(file).module()

    def run(x: Tensor) -> list[Any]:
        with torch.no_grad():
            return [value.numpy() for value in program(x)]

    return run


def check(run: Run, model: Detector, x: Tensor, *, tolerance: float = 1e-3, share: float = 0.99) -> int:
    """Check that outputs of an exported detector are the detections of the detector; returns their number.

    Args:
        tolerance: of boxes, in pixels; that of scores is a tenth of it.
        share: of the detections that have to be alike; ties, and candidates at a threshold, may differ.
    """
    with torch.no_grad():
        expected = model(x)
    boxes, scores, labels = run(x)
    limit = model.method.detections
    assert (boxes.shape, scores.shape, labels.shape) == ((len(x), limit, 4), (len(x), limit), (len(x), limit))
    assert (boxes.dtype, scores.dtype, labels.dtype) == (np.float32, np.float32, np.int64)
    found = []
    for box, score, label in zip(boxes, scores, labels, strict=True):
        count = int((score > 0).sum())
        assert not box[count:].any()
        assert not label[count:].any()
        found.append((box[:count], score[:count], label[:count]))
    return check_detections(found, expected, tolerance=tolerance, share=share)


def check_detections(
    found: Sequence[tuple[Any, Any, Any]],
    expected: Sequence[dict[str, Tensor]],
    *,
    tolerance: float = 1e-3,
    share: float = 0.99,
) -> int:
    """Check that boxes, scores and labels of each image are those expected, whatever the order of ties; returns their number.

    `tolerance`, `share`: as of `check`.
    """
    total = alike = 0
    for (boxes, scores, labels), one in zip(found, expected, strict=True):
        assert np.all(np.diff(scores) <= 0)
        total += max(len(scores), len(one["scores"]))
        alike += matches(boxes, scores, labels, one, tolerance)
    assert alike >= share * total, (alike, total)
    return total


def matches(boxes: Any, scores: Any, labels: Any, expected: dict[str, Tensor], tolerance: float) -> int:
    """How many of the expected detections are there, each matched once."""
    free = np.ones(len(scores), bool)
    found = 0
    for box, score, label in zip(*(expected[key].numpy() for key in ("boxes", "scores", "labels")), strict=True):
        near = (np.abs(boxes - box) <= tolerance + 2e-5 * np.abs(box)).all(axis=1) if len(boxes) else np.zeros(0, bool)
        fits = np.flatnonzero(free & near & (labels == label) & (np.abs(scores - score) <= tolerance / 10))
        if len(fits):
            free[fits[0]] = False
            found += 1
    return found


def level_candidates(model: Detector, x: Tensor) -> list[LevelCandidates]:
    """The decoded predictions of a batch."""
    with torch.no_grad():
        return model.method.level_candidates(model.decoder(model.backbone(model.backbone.normalize(x))))


def _beyond(boxes: Tensor, expected: Tensor, tolerance: float) -> float:
    """By how much the coordinate that is furthest off is beyond the tolerance, to which its rounding is added."""
    return float(((boxes - expected).abs() - 2e-5 * expected.abs()).max()) - tolerance


def check_candidates(run: Run, model: Detector, x: Tensor, tolerance: float = 1e-3) -> None:
    """Check that outputs without non-maximum suppression are the decoded predictions of all levels."""
    height, width = x.shape[-2:]
    levels = level_candidates(model, x)
    boxes, scores = run(x)
    limits = torch.tensor([width, height, width, height])
    expected = torch.cat([level.boxes for level in levels], dim=1).clamp(min=0).minimum(limits)
    off = _beyond(torch.from_numpy(boxes), expected, tolerance)
    if off > 0:  # where float32 itself is less exact, a file is at most twice as far from double precision as torch
        exact = torch.cat([level.boxes for level in level_candidates(deepcopy(model).double(), x.double())], dim=1)
        exact = exact.clamp(min=0).minimum(limits)
        own = float((expected - exact).abs().max())
        off = _beyond(torch.from_numpy(boxes), exact, max(tolerance, 2 * own))
    assert off <= 0, f"{off} pixels beyond"
    found = torch.from_numpy(scores)
    allowed = torch.cat([level.allowed for level in levels], dim=1)
    wanted = torch.where(allowed, torch.cat([level.scores for level in levels], dim=1), 0.0)
    same = (found > 0) == (wanted > 0)  # but for those at the threshold
    assert same.float().mean() > 0.999
    torch.testing.assert_close(found[same], wanted[same], rtol=0, atol=tolerance / 10)


def unique(names: Sequence[str]) -> bool:
    return len(set(names)) == len(names)
