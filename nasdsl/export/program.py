"""Export a whole detector with ``torch.export``: a .pt2 file that runs with torch and torchvision."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import ops

from nasdsl.backends.export import ExportError
from nasdsl.backends.inference import to_half
from nasdsl.backends.layer_errors import first_line, layer_error_message
from nasdsl.backends.torch_export import remove_size_assertions, require_torch, save_program
from nasdsl.detection.detector import Detector, Size
from nasdsl.export.postprocess import all_candidates, select_detections
from nasdsl.export.sizes import example_size
from nasdsl.nn import GuidedDeformConv2d


def write_program(
    detector: Detector,
    path: Path,
    *,
    size: Size | None,
    native_deform: bool,
    half: bool,
    nms: bool,
    metadata: dict[str, str],
) -> None:
    """Write a detector as a program; see `nasdsl.export.export_detector`.

    Args:
        detector: from `nasdsl.for_inference`, on a CPU.
        path: file to write.
        size: (height, width) of all images; None: any.
        native_deform: deformable convolutions are torchvision's, not grid_sample.
        half: weights and maps are float16.
        nms: with non-maximum suppression; without it, the outputs are all candidates.
        metadata: content of the extra file ``nasdsl.json``.

    Raises:
        ExportError: torch cannot trace the detector.
        OSError: the file cannot be written; an earlier one is unchanged.
    """
    require_torch("torch.export programs (.pt2)", ".onnx and .py files need no newer one")
    model = DetectionProgram(detector, native_deform=native_deform, half=half, nms=nms)
    height, width = size or example_size(detector.backbone, detector.decoder, detector.transform.size_divisible)
    dynamic = torch.export.Dim.DYNAMIC
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # torch's own, about torch and torchvision
            program = torch.export.export(
                model,
                (torch.zeros(2, 3, height, width),),
                dynamic_shapes={"images": {0: dynamic} if size else dict.fromkeys((0, 2, 3), dynamic)},
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except Exception as error:  # tracing raises errors of many types
        reason = layer_error_message(error) or first_line(error)
        fixed = "" if size else " for any size of images; with a size (--size HxW) it may be possible"
        raise ExportError(f"torch.export cannot trace the detector{fixed}: {reason}") from error
    remove_size_assertions(program)  # of a fixed size too: tracing asserts that there are two candidates, as in its example
    program.example_inputs = ((torch.zeros(1, 3, *(size or (64, 96))),), {})  # that of the trace would be saved
    with warnings.catch_warnings(action="ignore"):
        save_program(program, path, metadata)


class DetectionProgram(nn.Module):
    """What the program computes: images [N, 3, H, W], float32 in 0..1, to boxes, scores and labels.

    Args:
        detector: from `nasdsl.for_inference`; it is copied.
    """

    def __init__(self, detector: Detector, *, native_deform: bool, half: bool, nms: bool) -> None:
        super().__init__()
        self.backbone, self.decoder = copy.deepcopy(detector.backbone), copy.deepcopy(detector.decoder)
        self.method, self.divisible, self.nms = detector.method, detector.transform.size_divisible, nms
        self.precision = torch.float16 if half else torch.float32
        if native_deform:
            for part in self.decoder.modules():
                if isinstance(part, GuidedDeformConv2d):
                    part.function = torchvision_deform_conv2d
        if half:
            self.backbone.body.half()
            to_half(self.decoder, torch.float16)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        height, width = images.shape[-2:]
        x = self.backbone.normalize(images)
        if self.divisible > 1:
            x = F.pad(x, (0, -width % self.divisible, 0, -height % self.divisible))
        predictions = self.decoder(self.backbone(x.to(self.precision)))
        levels, method = self.method.level_candidates(predictions), self.method
        if not self.nms:
            return all_candidates(levels, (height, width))
        return select_detections(levels, (height, width), method.candidates, method.nms, method.detections)


def torchvision_deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    """torchvision's deformable convolution, in float32 also for half precision, which would round positions to half a pixel."""
    exact = [None if t is None else t.float() for t in (x, offset, weight, bias, mask)]
    out: Tensor = ops.deform_conv2d(*exact[:4], stride, padding, dilation, exact[4])
    return out.to(x.dtype)
