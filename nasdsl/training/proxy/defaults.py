"""Default settings of the proxy task for small data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nasdsl.training.proxy.spec import ProxySpec
from nasdsl.training.proxy.zero_cost import ZERO_COST
from nasdsl.training.small_data import SMALL_DATA

UNASSIGNED_LOSS: Final = 2.8
"""What a box counts that has no location at an image size, so that losses of several sizes compare (docs/search.md)."""

SMALL: Final[Mapping[str, Any]] = {
    "size": 128,
    "batch_size": 8,
    "iterations": 60,
    "learning_rate": 0.002,
    "unassigned_loss": UNASSIGNED_LOSS,
}
"""Settings for small data, seconds of one processor core a decoder; docs/search.md has what their rewards are worth."""


def default_settings(images: int) -> Mapping[str, Any]:
    """Settings of the proxy task that differ from those of `ProxySpec`, the paper's, for this many images."""
    return SMALL if images < SMALL_DATA else {}


def settings_of_earlier(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What a search had for the settings of `SMALL` and for the precision, by the ``proxy`` of its ``search.json``.

    A resumed search keeps them, whatever the defaults are by now, and whatever its machine has.
    """
    return {name: recorded[name] for name in (*SMALL, "precision") if name in recorded}


def describe(spec: ProxySpec) -> str:
    """What is done with a decoder, for the user."""
    crops = f"{spec.batch_size} crops of {spec.size}x{spec.size} pixels"
    if spec.whole_images and spec.image_size is not None:
        crops = f"{spec.batch_size} images of {spec.image_size[0]}x{spec.image_size[1]} pixels"
    if spec.reward in ZERO_COST:
        return f"{spec.reward} of {crops}, without training"
    seeds = f" with {spec.seeds} seeds" if spec.seeds > 1 else ""
    reward = {"loss": "minus the loss", "ap": "AP", "training_loss": "minus the mean training loss"}[spec.reward]
    if spec.reward == "loss" and spec.reward_losses:
        reward = f"minus {' and '.join(spec.reward_losses)}"
    return f"{spec.iterations} steps of {crops}{seeds}; the reward is {reward}"
