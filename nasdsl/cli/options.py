"""Options and arguments that several commands have, and how their values are read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from nasdsl.cli.errors import fail

FORMAT = click.option(
    "--format", "format_", type=click.Choice(["human", "json"]), default="human", show_default=True, help="Form of the output."
)
FILE = click.argument("file", metavar="FILE")


class SizeType(click.ParamType[tuple[int, int]]):
    """``800x1088``: height and width in pixels."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        height, _, width = str(value).partition("x")
        if height.isascii() and width.isascii() and height.isdigit() and width.isdigit() and len(value) < 14:
            size = int(height), int(width)
            if min(size) >= 1:
                return size
        return self.fail(f"{value!r} is no size; expected height x width, such as 800x1088", param, ctx)


SIZE = click.option("--size", type=SizeType(), default="800x1088", show_default=True, help="Height x width of the image.")
BACKBONE = click.option("--backbone", default="resnet50", show_default=True, help="Backbone that the decoder reads.")
DEVICE = click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps; without it a GPU where there is one.")
CLASSES = click.option("--classes", type=click.IntRange(1, 100_000), default=80, show_default=True, help="Number of classes.")
WIDTH = click.option(
    "--width", type=click.IntRange(1, 16384), metavar="N", help="Channels of fpn and head in place of those in the text."
)
DATA = click.option(
    "--data", "spec", required=True, metavar="SPEC",
    help="voc:DIR, coco:DIR, or shapes (drawn pictures, no files needed; shapes:COUNT for so many).",
)  # fmt: skip
ON_ERROR = click.option(
    "--on-error",
    type=click.Choice(["skip", "refuse"]),
    default="skip",
    show_default=True,
    help="What to do about broken pictures and boxes.",
)
VAL_SPLIT = click.option(
    "--val-split", default="val", show_default=True, help="Part to evaluate on, if there is one; `none`: don't."
)
FREEZE_AT = click.option(
    "--freeze-at",
    type=click.IntRange(0, 5),
    help="Stages of the backbone that stay fixed, the stem counted. [default: 2, or 0 for a random backbone]",
)
NORM = click.option(
    "--norm",
    type=click.Choice(["frozen", "train"]),
    help="BatchNorms of the backbone. [default: frozen in a pre-trained ResNet, else train]",
)
RECIPE = click.option("--recipe", default="published", show_default=True, help="published (the paper's) or quick (small data).")
SETTINGS = click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Change any setting of the recipe; may be repeated."
)
METHOD = click.option(
    "--method",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change an option of FCOS or RetinaNet, such as center_radius=1.5; may be repeated.",
)
IMPROVEMENTS = click.option(
    "--improvements",
    is_flag=True,
    help="FCOS with centre sampling, GIoU loss, centerness on the box tower, boxes in strides (the paper's last rows).",
)


def assignments(option: str, texts: Sequence[str], example: str) -> dict[str, Any]:
    """NAME=VALUE of the command line: values are JSON, ``none`` is nothing, and the rest text."""
    import json

    made: dict[str, Any] = {}
    for given in texts:
        name, equals, text = given.partition("=")
        if not equals:
            fail(f"{option} {given}: expected NAME=VALUE, such as {example}")
        try:
            value = None if text == "none" else json.loads(text)
        except ValueError:
            value = text
        made[name.strip().replace("-", "_")] = value
    return made


def is_default(option: str) -> bool:
    """Whether an option of the running command was left out."""
    return click.get_current_context().get_parameter_source(option) is click.core.ParameterSource.DEFAULT


def command_line() -> str:
    """The running command as one would type it."""
    import shlex

    return shlex.join(["nasdsl", *sys.argv[1:]])
