"""What the page asks figures for: backbone, image size and width."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nasdsl.backbones import BACKBONES
from nasdsl.diagnostics import printable
from nasdsl.image_size import SIZE_FORM, parse_size

LARGEST: Final = 16_384
"""Largest width of a decoder."""


class BadRequest(ValueError):
    """A request that has no meaning. The message is one line for the one who sent it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is None is as for ``nasdsl compile``: what the text says, else resnet50, 800x1088, and the text's widths.

    Attributes:
        backbone: a name of `nasdsl.backbones.BACKBONES`.
        size: height and width of the image in pixels.
        width: channels of fpn and head.
    """

    backbone: str | None = None
    size: tuple[int, int] | None = None
    width: int | None = None


def read_settings(request: Mapping[str, Any]) -> Settings:
    """The settings of a request: ``backbone``, ``size`` as ``800x1088``, ``width``; what is missing or empty is not set.

    Raises:
        BadRequest: one of them has no meaning.
    """
    backbone = request.get("backbone") or None
    if backbone is not None and (not isinstance(backbone, str) or backbone not in BACKBONES):
        raise BadRequest(f"no backbone is called {_shown(backbone)}; expected one of {', '.join(BACKBONES)}")
    return Settings(backbone, _size(request.get("size")), _width(request.get("width")))


def _size(given: Any) -> tuple[int, int] | None:
    if given in (None, ""):
        return None
    found = parse_size(given.replace(" ", "")) if isinstance(given, str) else None
    if found is None:
        raise BadRequest(f"{_shown(given)} is no size; expected {SIZE_FORM}")
    return found


def _width(given: Any) -> int | None:
    if given in (None, ""):
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,4}", str(given).strip()) or int(given) > LARGEST:
        raise BadRequest(f"{_shown(given)} is no width; expected a number of channels from 1 to {LARGEST}")
    return int(given)


def _shown(given: Any) -> str:
    return f"`{printable(str(given)[:40])}`"
