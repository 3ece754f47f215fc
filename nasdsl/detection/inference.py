"""Optimised copies of trained detectors for inference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from nasdsl.backbones import BACKBONES
from nasdsl.backends import inference
from nasdsl.backends.module import Prediction
from nasdsl.detection.backbones.networks import ResNet
from nasdsl.detection.candidates import Candidates
from nasdsl.detection.detector import Detector, InputBatch
from nasdsl.detection.method import Method
from nasdsl.detection.precision import Precision, check_precision, dtype_of, products_of
from nasdsl.detection.pyramid import RawDetections
from nasdsl.nn.cuda_graphs import GraphCache
from nasdsl.nn.folding import fold

LAYOUTS = (torch.channels_last, torch.contiguous_format)
"""Memory formats to choose from; the first one is that of a new detector."""

RETIMED_AT = 4
"""The memory format is chosen again for a batch with so many times as many pixels."""


def for_inference(detector: Detector, precision: Precision | None = None, *, graphs: bool = True) -> InferenceDetector:
    """A faster copy of a detector, in evaluation mode, with the same detections up to rounding. It cannot be trained.

    BatchNorms are folded into the convolutions in front of them, in the decoder (`nasdsl.backends.inference`) and in the
    backbones of this package; a custom backbone and one of timm is only copied. The memory format is channels-last; batches
    should have it.

    On a GPU, backbone, fpn, head and the choice of candidates are recorded as a CUDA graph for each size of batches that
    recurs, of which the last eight are kept, and replayed: see `nasdsl.nn.cuda_graphs`. Before the first one it is measured
    whether channels-last is faster there. Weights may change in place. A graph runs no Python: hooks of modules switch it off.

    Args:
        detector: a trained one; it is not changed.
        precision: ``float32``, with exact products; ``tf32``, with products in TensorFloat-32 (GPUs from Ampere on);
            ``bfloat16`` or ``float16``, weights and maps in half precision, but boxes in float32. None: float32, with the
            products that torch is set to.
        graphs: False: no CUDA graphs.

    Raises:
        PrecisionError: the detector's device does not have this precision.
    """
    if precision is not None:
        check_precision(precision, next(detector.parameters()).device)
    decoder = inference.for_inference(detector.decoder)
    # With the memo, the copy refers to the new decoder instead of copying the old one.
    optimized = copy.deepcopy(detector, {id(detector.decoder): decoder}).eval().requires_grad_(False)
    if optimized.backbone.name in BACKBONES:
        for part in list(optimized.backbone.body.modules()):
            fold(part, _sequential_pairs(part))
    return InferenceDetector(optimized, precision, graphs=graphs)


class InferenceDetector(Detector):
    """A detector as `for_inference` makes it, with everything that a `Detector` has.

    Attributes:
        precision: of weights, maps and products; None: see `for_inference`.
        channels_last: whether weights and maps have this memory format; otherwise they are contiguous.
    """

    def __init__(self, detector: Detector, precision: Precision | None, *, graphs: bool) -> None:
        """
        Args:
            detector: prepared for inference; the new one takes its parts.
            precision: see `for_inference`.
            graphs: see `for_inference`.
        """
        nn.Module.__init__(self)
        self.__dict__.update(detector.__dict__)
        self.precision, self.channels_last = precision, True
        dtype = torch.float32 if precision is None else dtype_of(precision)
        if dtype != torch.float32:
            self.backbone.body.to(dtype)
            inference.to_half(self.decoder, dtype)
        self._timed_pixels = 0
        self._selects_in_graph = True
        self._recorded_method: Method | None = None
        self._graphs = _new_graphs(graphs)
        self.to(memory_format=self.layout)

    @property
    def layout(self) -> torch.memory_format:
        """Memory format of weights and maps."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def graphs(self) -> bool:
        """Whether CUDA graphs are recorded and replayed. May be set; False drops those that there are."""
        return self._graphs.enabled

    @graphs.setter
    def graphs(self, enabled: bool) -> None:
        self._graphs.enabled = enabled
        self._graphs.clear()

    def maps(self, images: Tensor) -> dict[str, Prediction]:
        weight = next(p for p in self.backbone.body.parameters() if p.is_floating_point())
        return super().maps(images.to(weight.dtype, memory_format=self.layout))

    def detections(self, inputs: InputBatch) -> list[RawDetections]:
        images = inputs.images
        if torch.compiler.is_compiling() or not self._graphs.backend.supports((images,)):
            return super().detections(inputs)
        if self._recorded_method is not self.method:  # its options are in the graphs
            self._graphs.clear()
            self._recorded_method = self.method
            self._selects_in_graph = type(self.method).detect is Method.detect
        selects = self._selects_in_graph  # may change in the call
        with products_of(self.precision, images.device):
            run = partial(self._graphs.run, reads=lambda: _tensors_of(self), before_capture=self._choose_layout)
            if selects:
                sizes = torch.tensor(inputs.sizes, dtype=torch.float32).to(images.device, non_blocking=True)
                outputs = run(self._select, (images, sizes), on_failure=self._leave_selection_out)
            else:
                outputs = run(self._flat_maps, (images,))
        if selects:
            return self.method.suppress(Candidates(*outputs))
        return self.method.detect(self._predictions(outputs), inputs.sizes)

    def _select(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """What a graph computes: the candidates of normalised images."""
        return tuple(self.method.select(self.maps(images), sizes))

    def _flat_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """What a graph computes of a method that cannot be captured: the maps of all levels."""
        return tuple(x for prediction in self.maps(images).values() for x in prediction if x is not None)

    def _predictions(self, flat: Sequence[Tensor]) -> dict[str, Prediction]:
        levels = self.decoder.head.levels
        count = len(flat) // len(levels)
        groups = [flat[i : i + count] for i in range(0, len(flat), count)]
        return {level: Prediction(one[0], one[1], next(iter(one[2:]), None)) for level, one in zip(levels, groups, strict=True)}

    def _leave_selection_out(self, error: Exception) -> None:
        """Capture the maps alone from now on: a package's method may do what cannot be captured."""
        self._selects_in_graph = False

    def _choose_layout(self, inputs: Sequence[Tensor]) -> None:
        """Take the memory format that is faster for these inputs, if they are larger than those it was chosen for."""
        pixels = inputs[0].numel()
        if pixels < RETIMED_AT * self._timed_pixels:
            return
        function = self._select if len(inputs) > 1 else self._flat_maps
        seconds: dict[torch.memory_format, float] = {}
        try:
            for layout in LAYOUTS:
                self._arrange(layout)
                seconds[layout] = self._graphs.seconds(function, inputs)
            self._timed_pixels = pixels
        finally:
            self._arrange(min(seconds, key=seconds.__getitem__, default=LAYOUTS[0]))

    def _arrange(self, layout: torch.memory_format) -> None:
        """Change the memory format."""
        if layout != self.layout:
            self._graphs.backend.synchronize()  # what still runs may read the weights where they are
            self.channels_last = layout == torch.channels_last
            with torch.inference_mode(False):  # weights that were made in it could not be changed outside of it
                self.to(memory_format=layout)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> InferenceDetector:
        """What `to` and its like do: weights move, so graphs that read them go."""
        self._graphs.clear()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's own
        if self.precision is not None:
            check_precision(self.precision, next(self.parameters()).device)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_graphs": self.graphs}  # a copy captures its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = {**state, "_graphs": _new_graphs(state["_graphs"])}
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch's own


def _new_graphs(enabled: bool) -> GraphCache:
    return GraphCache(enabled=enabled, name="the detector")


def _tensors_of(root: nn.Module) -> list[Tensor] | None:
    """All parameters and buffers; None if a part has hooks. For each batch, so it is faster than `nn.Module.parameters`."""
    tensors: list[Tensor | None] = []
    parts: list[nn.Module | None] = [*root._modules.values()]
    while parts:
        part = parts.pop()
        if part is None:
            continue
        if part._forward_hooks or part._forward_pre_hooks:
            return None
        parts += part._modules.values()
        tensors += part._parameters.values()
        tensors += part._buffers.values()
    return [t for t in tensors if t is not None]


def _sequential_pairs(part: nn.Module) -> list[tuple[str, str]]:
    """Names of children that torchvision's networks run in sequence, where nothing else reads the output of the first."""
    if isinstance(part, nn.Sequential):
        return list(pairwise(part._modules))
    if isinstance(part, ResNet | BasicBlock | Bottleneck):
        return [(name, name.replace("conv", "bn")) for name in part._modules if name.startswith("conv")]
    return []
