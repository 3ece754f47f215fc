"""What `train` and `search` share in setting up a training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nasdsl.cli.output import say

if TYPE_CHECKING:
    from nasdsl.data import Dataset
    from nasdsl.training.plan import Plan


def starting_weights(given: str, backbone: str, *, asked: bool, weights: Path | None = None) -> str | None:
    """What the backbone starts from: the default gives way where a detector's weights come over it, or there are none.

    Args:
        asked: the user has named `given`.
    """
    from nasdsl.backbones import backbone as find_backbone

    if given == "none" or (not asked and (weights is not None or not find_backbone(backbone).pretrained)):
        return None
    return given


def open_parts(plan: Plan, *, val_asked: bool) -> tuple[Dataset, Dataset | None]:
    """The pictures of a plan; none to evaluate on, and said so, where there are none and nobody asked for them."""
    from nasdsl.data import NoSplit

    data = plan.open_training()
    try:
        return data, plan.open_validation(data)
    except NoSplit as error:
        if val_asked:
            raise
        say(f"no evaluation: {error}")
        return data, None


def random_backbone_warning(plan: Plan) -> None:
    """Say that a training from random weights takes long, where others were to be had."""
    from nasdsl.backbones import backbone as find_backbone

    if plan.backbone_weights is None and plan.weights is None and find_backbone(plan.backbone).pretrained:
        say("warning: the backbone starts from random weights; it needs far more training than a pre-trained one")
