"""What belongs to a kind of prediction: options, targets, losses, decoding, and how the decoding is exported."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import Field
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from nasdsl.detection import onnx_decoding
from nasdsl.detection.candidates import Candidates, select_candidates, suppress
from nasdsl.detection.losses import MIN_NORMALIZER, mean_over_processes
from nasdsl.detection.postprocess import LevelCandidates, postprocess_detections
from nasdsl.detection.pyramid import Predictions, RawDetections, Shapes, Target

if TYPE_CHECKING:
    from nasdsl.backends.onnx import Writer


FIELDS: Final = ("score_threshold", "candidates", "nms", "detections")
"""Options that every method has."""


class Targets(Protocol):
    """Training targets for N images: a NamedTuple of tensors whose first dimension is the image."""

    def select(self, images: Tensor | slice | list[int]) -> Self:
        """The targets of these images, in this order."""
        ...


class LossTerm(NamedTuple):
    """A loss before it is divided: ``total / divisor``. Totals and divisors of several batches add up.

    Attributes:
        total: scalar, with gradients.
        divisor: scalar, what it is divided by; 0 where there is nothing to count.
        least: what it is divided by at least.
    """

    total: Tensor
    divisor: Tensor
    least: float = MIN_NORMALIZER


class DecodingSource(NamedTuple):
    """The decoding as source of a stand-alone file.

    Attributes:
        lines: of a function ``level_candidates(predictions: dict[str, Prediction]) -> list[LevelCandidates]``. It may use the
            constants ``CLASSES``, ``STRIDES`` (by level) and ``SCORE_THRESHOLD``, ``flatten_level`` and ``LevelCandidates``.
        definitions: functions and classes that it uses, which are copied.
        constants: lines that are put in front.
    """

    lines: Sequence[str]
    definitions: Sequence[Any] = ()
    constants: Sequence[str] = ()


class Method(ABC):
    """Options of a kind of prediction, with its targets, losses and detections. Base of frozen dataclasses with slots.

    They take maps and boxes, and know no module. Targets hold what follows from the annotations alone, so that they can
    be kept; what depends on the predictions is computed in `loss_terms`.

    Attributes:
        has_fixed_losses: on a GPU, `loss_terms` reads no value and has the same shapes whatever is predicted and annotated, and
            `at` is always this method: so a CUDA graph can repeat a training step.
        at_locations: its targets are `nasdsl.detection.locations.LocationTargets`, of which the proxy task keeps the positives.
        score_threshold: minimum class score of detections, exclusive.
        candidates: number of candidates of each level that non-maximum suppression sees.
        nms: IoU threshold of non-maximum suppression.
        detections: maximum number of detections of an image.
    """

    __slots__ = ()

    at_locations: ClassVar[bool] = False
    has_fixed_losses: ClassVar[bool] = False

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
        score_threshold: float
        candidates: int
        nms: float
        detections: int

    @property
    def positions(self) -> int:
        """Number of boxes that are predicted at each location."""
        return 1

    @property
    def box_values(self) -> int:
        """Number of values of ``bbox_reg`` that make one box."""
        return 4

    @abstractmethod
    def targets(self, shapes: Shapes, image_size: tuple[int, int], targets: Sequence[Target]) -> Any:
        """Training targets of a batch: a NamedTuple as `Targets`.

        Args:
            shapes: (height, width) of the map of each level, finest first.
            image_size: (H, W) in pixels of the image, without padding and before it was cropped at random.
            targets: ground truth of each image.

        Raises:
            DetectionError: a target is malformed.
        """

    def at(self, progress: float) -> Method:
        """The method whose losses are trained at a share of the training, 0 … 1. It reads the targets of this one.

        By default this one, at any time.

        Args:
            progress: share of the training that is done.
        """
        return self

    @abstractmethod
    def loss_terms(self, predictions: Predictions, targets: Any) -> dict[str, LossTerm]:
        """The losses of a batch by name, each with what it is divided by.

        Args:
            predictions: of the levels, finest first, ``{"p3": …}``.
            targets: of the batch, from `targets`.

        Raises:
            DetectionError: the predictions are of another kind, or do not match the targets.
        """

    def losses(self, predictions: Predictions, targets: Any) -> dict[str, Tensor]:
        """The losses of a batch by name, scalars. In a distributed run their divisors are means over the processes.

        Args:
            predictions: of the levels, finest first, ``{"p3": …}``.
            targets: of the batch, from `targets`.

        Raises:
            DetectionError: see `loss_terms`.
        """
        terms = self.loss_terms(predictions, targets)
        divisors = mean_over_processes(torch.stack([term.divisor for term in terms.values()]))
        return {
            name: term.total / divisor.clamp(min=term.least)
            for (name, term), divisor in zip(terms.items(), divisors, strict=True)
        }

    @abstractmethod
    def level_candidates(self, predictions: Predictions) -> list[LevelCandidates]:
        """The decoded predictions of each level, finest first.

        Args:
            predictions: of the levels, finest first, ``{"p3": …}``.

        Raises:
            DetectionError: the predictions are of another kind.
        """

    def detect(self, predictions: Predictions, sizes: Sequence[tuple[int, int]]) -> list[RawDetections]:
        """The detections of each image of a batch; see `postprocess_detections`, and `candidates` for GPUs.

        Args:
            predictions: of the batch.
            sizes: (height, width) of each image in pixels, without the padding of the batch.

        Raises:
            DetectionError: the predictions are of another kind, or the number of sizes is not that of the images.
        """
        levels = self.level_candidates(predictions)
        device = levels[0].boxes.device
        if device.type == "cpu" or len(sizes) != len(levels[0].boxes):
            return postprocess_detections(levels, sizes, self.candidates, self.nms, self.detections)
        return self.suppress(select_candidates(levels, torch.tensor(sizes, device=device), self.candidates))

    def select(self, predictions: Predictions, sizes: Tensor) -> Candidates:
        """The part of `detect` for which the CPU waits for nothing; `suppress` is the rest.

        Args:
            predictions: of the batch.
            sizes: [N, 2], (height, width) of each image in pixels, without the padding of the batch.

        Raises:
            DetectionError: the predictions are of another kind.
        """
        return select_candidates(self.level_candidates(predictions), sizes, self.candidates)

    def suppress(self, candidates: Candidates) -> list[RawDetections]:
        """The detections among the candidates of each image.

        Args:
            candidates: of the batch, from `select`.
        """
        return suppress(candidates, self.nms, self.detections)

    # ------------------------------------------------------------------------------------------------------ export

    def write_scores(self, writer: Writer, tensors: Mapping[str, str]) -> tuple[str, str]:
        """Write the scores of a level as ONNX nodes, [N, h, w, positions * classes], and whether they are above the threshold.

        Args:
            writer: takes the nodes.
            tensors: names of the maps of the level: ``cls_logits`` [N, positions * classes, h, w] and so on.
        """
        return onnx_decoding.sigmoid_scores(writer, tensors, self.score_threshold, centerness=False)

    def write_boxes(self, writer: Writer, level: str, places: onnx_decoding.Places, values: str) -> str:
        """Write the boxes of some positions of a level as ONNX nodes, [N, T, 4] xyxy in pixels.

        Args:
            writer: takes the nodes.
            level: its name, such as ``p3``.
            places: where they are.
            values: name of the tensor [N, T, box_values].

        Raises:
            ExportError: the kind does not say how it is written.
        """
        raise onnx_decoding.not_written(type(self), "ONNX: define write_boxes(self, writer, level, places, values)")

    def source(self, strides: Mapping[str, int]) -> DecodingSource:
        """The decoding as source.

        Args:
            strides: of the levels, finest first.

        Raises:
            ExportError: the kind does not say how it is written.
        """
        raise onnx_decoding.not_written(type(self), "source: define source(self, strides)")
