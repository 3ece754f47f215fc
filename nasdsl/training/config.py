"""Configuration of a training, except for its decoder: data, backbone, recipe and options of the detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nasdsl.data import Dataset, check_classes, open_dataset
from nasdsl.decoder import Decoder
from nasdsl.detection.detector import Detector
from nasdsl.detection.factory import detector as make_detector
from nasdsl.detection.fcos import IMPROVED, IMPROVED_PREDICTION
from nasdsl.detection.weights import SavedWeights
from nasdsl.predictions import Fcos
from nasdsl.training.errors import TrainingError
from nasdsl.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Everything that determines a training but the decoder. Decoders trained with the same configuration are comparable.

    Attributes:
        data, split: training data; see `nasdsl.data.open_dataset`.
        val_split: the split of `data` to evaluate on. None: no evaluation.
        classes: names of the classes to train, by label; objects of others are left out. None: those of the data.
        split_share, split_seed: how data without a validation split are divided; see `nasdsl.data.open_dataset`.
        on_error: what to do with broken images and boxes, ``skip`` or ``refuse``.
        backbone, backbone_weights, freeze_at, norm: see `nasdsl.detection.backbones.make_backbone`.
        weights: of another detector, to start from; see `nasdsl.detector`.
        width: of fpn and head, in channels. None: as in the decoder's text.
        recipe: the schedule and all other numbers.
        method: options of what the decoder predicts, such as those of `nasdsl.detection.fcos.Fcos`.
        improvements: train the later version of FCOS: another prediction, centre sampling and GIoU loss.
    """

    data: str
    split: str = "train"
    val_split: str | None = "val"
    on_error: str = "skip"
    classes: tuple[str, ...] | None = None
    split_share: float | None = None
    split_seed: int | None = None
    backbone: str = "resnet50"
    backbone_weights: str | None = None
    freeze_at: int | None = None
    norm: str | None = None
    weights: str | None = None
    width: int | None = None
    recipe: Recipe = field(default_factory=Recipe)
    method: Mapping[str, Any] = field(default_factory=dict)
    improvements: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "recipe": self.recipe.to_dict(), "method": dict(self.method)}

    def open_train_dataset(self, classes: Sequence[str] | None = None) -> Dataset:
        """The training data.

        Args:
            classes: names of the classes by label. None: `classes` of the configuration, of which there must be objects.

        Raises:
            DataError: there are none.
        """
        dataset = self._open(self.split, self.classes if classes is None else classes)
        if classes is None and self.classes is not None:
            check_classes(dataset, self.classes)
        return dataset

    def open_val_dataset(self, training: Dataset) -> Dataset | None:
        """The validation data, with the labels of the training data; None without `val_split`.

        Raises:
            DataError: the data have no such split.
        """
        if self.val_split is None:
            return None
        return self._open(self.val_split, training.classes)

    def _open(self, split: str, classes: Sequence[str] | None) -> Dataset:
        return open_dataset(
            self.data,
            split,
            on_error=self.on_error,
            classes=classes,
            split_share=self.split_share,
            split_seed=self.split_seed,
        )

    def prepare_decoder(self, decoder: Decoder) -> Decoder:
        """The decoder as it is trained: with the configured width, and with the prediction of `improvements`.

        Raises:
            DiagnosticError: it is invalid with them.
            TrainingError: `improvements` is set, and it does not predict as FCOS.
        """
        if self.width is not None:
            decoder = decoder.with_width(self.width)
        if self.improvements:
            if not isinstance(decoder.architecture.predict, Fcos):
                raise TrainingError(f"the improvements are FCOS's; {decoder.name} predicts otherwise")
            decoder = decoder.with_prediction(IMPROVED_PREDICTION)
        return decoder

    def make_detector(self, decoder: Decoder, training: Dataset, start: SavedWeights | None = None) -> Detector:
        """The detector of a decoder that `prepare_decoder` returned, for the classes of the training data.

        Args:
            start: what it starts from. None: `weights` is read.

        Raises:
            DetectorError, DetectionError, BackboneError, MissingFeature: see `nasdsl.detector`.
        """
        recipe = self.recipe
        return make_detector(
            decoder,
            self.backbone,
            start or self.weights,
            training.classes,
            backbone_weights=self.backbone_weights,
            freeze_at=self.freeze_at,
            norm=self.norm,
            category_ids=training.category_ids,
            min_size=recipe.shorter_side,
            max_size=recipe.longest_side,
            fixed_size=recipe.size,
            size_divisible=recipe.size_divisible,
            seed=recipe.seed,
            **{**(IMPROVED if self.improvements else {}), **self.method},
        )
