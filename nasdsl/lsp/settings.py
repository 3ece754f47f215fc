"""What an editor can set: the backbone and the image size that shapes and costs are shown for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nasdsl.backbones import BACKBONES, TIMM
from nasdsl.image_size import SIZE_FORM, parse_size

SECTION = "nasdsl"
"""The part of an editor's configuration that is ours."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the server. What is None is as for ``nasdsl compile``: what the text says, else resnet50 and 800x1088.

    Attributes:
        backbone: ``nasdsl.backbone``, a name of `nasdsl.backbones`.
        size: ``nasdsl.size``, height and width in pixels, as ``800x1088``.
    """

    backbone: str | None = None
    size: tuple[int, int] | None = None


def read_settings(given: Any) -> tuple[Settings, list[str]]:
    """Settings from what an editor gives, and a message for each that is wrong, which is as if it were not given."""
    if not isinstance(given, dict):
        return Settings(), []
    given = given.get(SECTION, given)
    problems: list[str] = []
    backbone, size = None, None
    if isinstance(given, dict):
        name = given.get("backbone")
        if isinstance(name, str) and name.startswith(TIMM):
            problems.append(f"nasdsl.backbone: `{name}` is counted with torch, so its costs are shown by `nasdsl compile` only")
        elif isinstance(name, str) and name in BACKBONES:
            backbone = name
        elif name not in (None, ""):
            problems.append(f"nasdsl.backbone: no backbone is called `{name}`; expected one of {', '.join(BACKBONES)}")
        text = given.get("size")
        size = parse_size(text) if isinstance(text, str) else None
        if size is None and text not in (None, ""):
            problems.append(f"nasdsl.size: `{text}` is no size; expected {SIZE_FORM}")
    return Settings(backbone, size), problems
