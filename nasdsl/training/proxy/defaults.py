"""Default settings of the proxy task for small data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nasdsl.training.small_data import SMALL_DATA

SMALL: Final[Mapping[str, Any]] = {
    "size": 128,
    "batch_size": 8,
    "iterations": 60,
    "learning_rate": 0.002,
}
"""Settings for small data, seconds of one processor core a decoder; docs/search.md has what their rewards are worth."""


def default_settings(images: int) -> Mapping[str, Any]:
    """Settings of the proxy task that differ from those of `ProxySpec`, the paper's, for this many images."""
    return SMALL if images < SMALL_DATA else {}


def settings_of_earlier(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What a search had for the settings of `SMALL`, by the ``proxy`` of its ``search.json``.

    A resumed search keeps them, whatever the defaults are by now.
    """
    return {name: recorded[name] for name in SMALL if name in recorded}
