"""Steps of setting up a training that `train` and `search` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nasdsl.cli.output import echo_err

if TYPE_CHECKING:
    from nasdsl.data import Dataset
    from nasdsl.training.config import TrainingConfig


def resolve_backbone_weights(value: str, backbone: str, *, explicit: bool, weights: Path | None = None) -> str | None:
    """Initial weights of the backbone; None for random ones.

    The default value is dropped where a detector's weights replace it or the backbone has no pretrained weights.

    Args:
        value: of --backbone-weights.
        explicit: whether the user gave `value`.
        weights: of --weights, the detector to start from.
    """
    from nasdsl.backbones import backbone as find_backbone

    if value == "none" or (not explicit and (weights is not None or not find_backbone(backbone).pretrained)):
        return None
    return value


def open_datasets(
    plan: TrainingConfig, *, require_val: bool, classes: tuple[str, ...] | None = None
) -> tuple[Dataset, Dataset | None]:
    """Open the training and validation datasets of a plan.

    Args:
        classes: names of the classes by label; None takes those of the data.
        require_val: raise `NoSplit` if the dataset lacks the validation split. Otherwise a message says so, and the
            validation dataset is None.
    """
    from nasdsl.data import NoSplit

    data = plan.open_train_dataset(classes)
    try:
        return data, plan.open_val_dataset(data)
    except NoSplit as error:
        if require_val:
            raise
        echo_err(f"no evaluation: {error}")
        return data, None


def warn_random_backbone(plan: TrainingConfig) -> None:
    """Warn of a backbone that starts from random weights although there are pretrained ones."""
    from nasdsl.backbones import backbone as find_backbone

    if plan.backbone_weights is None and plan.weights is None and find_backbone(plan.backbone).pretrained:
        echo_err("warning: the backbone starts from random weights; it needs far more training than a pretrained one")
