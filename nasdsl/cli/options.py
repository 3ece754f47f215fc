"""Options and arguments that several commands share, and how their values are parsed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from nasdsl.cli import completion
from nasdsl.cli.errors import fail
from nasdsl.image_size import SIZE_FORM, parse_size

FORMAT = click.option(
    "--format", "format_", type=click.Choice(["human", "json"]), default="human", show_default=True, help="Output format."
)
FILE = click.argument("file", metavar="FILE", shell_complete=completion.DECODERS)

if TYPE_CHECKING:
    _SizeParamType = click.ParamType[tuple[int, int]]
    _NamesParamType = click.ParamType[tuple[str, ...]]
else:  # at run time it takes type arguments from click 8.4 on only
    _SizeParamType = _NamesParamType = click.ParamType


class SizeType(_SizeParamType):
    """Image size ``800x1088``: height and width in pixels."""

    name = "HxW"

    def get_metavar(self, *_: Any, **__: Any) -> str:
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        return parse_size(str(value)) or self.fail(f"{value!r} is no size; expected {SIZE_FORM}", param, ctx)


class ListType(_NamesParamType):
    """Values of one type with commas between them, each once, such as ``24,32,48``."""

    def __init__(self, kind: click.ParamType[Any], metavar: str) -> None:
        self.kind, self.name = kind, metavar

    def get_metavar(self, *_: Any, **__: Any) -> str:
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        values = tuple(self.kind.convert(part.strip(), param, ctx) for part in str(value).split(","))
        if len(set(values)) < len(values):
            return self.fail(f"{value!r}: expected each value once", param, ctx)
        return values


AUTO_SIZES = ("auto",)
"""Value of ``--size auto``."""


class SizesType(ListType):
    """Values of one type with commas between them, or ``auto``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        return AUTO_SIZES if value == "auto" else super().convert(value, param, ctx)


SIZE = click.option(
    "--size", type=SizeType(), help="Image size, height x width in pixels.  [default: that of FILE's detector, or 800x1088]"
)
BACKBONE = click.option(
    "--backbone", metavar="NAME", shell_complete=completion.BACKBONES,
    help="Backbone whose features the decoder reads; timm:NAME is a model of timm.  [default: that of FILE's detector, or "
    "resnet50]",
)  # fmt: skip
DEVICE = click.option(
    "--device", metavar="NAME", shell_complete=completion.DEVICES,
    help="cpu, cuda, cuda:1 or mps.  [default: a GPU if there is one, else cpu]"
)  # fmt: skip
PRECISION = click.option(
    "--precision", type=click.Choice(["float32", "tf32", "bfloat16", "float16"]),
    help="Precision of weights, maps and products; boxes stay float32. tf32: float32 with products in TensorFloat-32, on GPUs "
    "only.  [default: float32; on a GPU, with the products that torch is set to]",
)  # fmt: skip
NO_GRAPHS = click.option(
    "--no-graphs", is_flag=True, help="On a GPU, launch every kernel by itself instead of replaying CUDA graphs."
)
CLASSES = click.option(
    "--classes", type=click.IntRange(1, 100_000), default=80, show_default=True, help="Number of object classes."
)
WIDTH = click.option(
    "--width", type=click.IntRange(1, 16384), metavar="N", help="Channels of fpn and head.  [default: those in FILE]"
)
DATA = click.option(
    "--data", "spec", required=True, metavar="SPEC", shell_complete=completion.DATA,
    help="Dataset: a folder of images with boxes (VOC, COCO or YOLO; voc:DIR, coco:DIR or yolo:DIR says which), or shapes "
    "(synthetic images, no files needed; shapes:COUNT sets their number).",
)  # fmt: skip


class NamesType(_NamesParamType):
    """Names with commas between them, or a JSON list of names."""

    name = "NAME,…"

    def get_metavar(self, *_: Any, **__: Any) -> str:
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        from nasdsl.files import parse_json

        if isinstance(value, tuple):
            return value
        names: Any = [name.strip() for name in str(value).split(",") if name.strip()]
        if str(value).startswith("["):
            try:
                names = parse_json(value)
            except ValueError:
                return self.fail(f"{value!r} is no JSON list", param, ctx)
        if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names) or not names:
            return self.fail(f"{value!r}: expected names with commas between them, each once", param, ctx)
        return tuple(names)


CLASS_NAMES = click.option(
    "--classes", "class_names", type=NamesType(), help="Use only these classes, in this order.  [default: those of the data]"
)
SPLIT_SHARE = click.option(
    "--split-share",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="Where the dataset has no validation split: share of the images to train on; the others are `val`.  [default: 0.8]",
)
SPLIT_SEED = click.option(
    "--split-seed", type=click.IntRange(0), metavar="SEED", help="Random seed of this division.  [default: 0]"
)
ON_ERROR = click.option(
    "--on-error",
    type=click.Choice(["skip", "refuse"]),
    default="skip",
    show_default=True,
    help="Skip unreadable images and invalid boxes, or refuse the dataset.",
)
VAL_SPLIT = click.option(
    "--val-split",
    default="val",
    show_default=True,
    help="Split to evaluate on, if the dataset has it; `none` turns evaluation off.",
)
FREEZE_AT = click.option(
    "--freeze-at",
    type=click.IntRange(0, 5),
    help="Backbone stages that are not trained, counting the stem.  [default: 2, or 0 for a randomly initialized backbone]",
)
NORM = click.option(
    "--norm",
    type=click.Choice(["frozen", "train"]),
    help="BatchNorm layers of the backbone.  [default: frozen in a pretrained ResNet, else train]",
)
RECIPE = click.option(
    "--recipe",
    metavar="NAME",
    shell_complete=completion.RECIPES,
    help="Training recipe: small (for small data), published (the paper's, for COCO), or quick (240x320, for comparisons).  "
    "[default: small with fewer than 10,000 training images, else published]",
)
SETTINGS = click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Change a setting of the recipe; may be repeated."
)
METHOD = click.option(
    "--method",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change an option of what the decoder predicts, such as center_radius=1.5 of FCOS; may be repeated.",
)
IMPROVEMENTS = click.option(
    "--improvements/--no-improvements",
    default=None,
    help="Train FCOS with center sampling, GIoU loss, centerness on the box tower and box distances in strides "
    "(the paper's last rows).  [default: with the recipe small]",
)


def parse_assignments(option: str, texts: Sequence[str], example: str) -> dict[str, Any]:
    """Parse the ``NAME=VALUE`` arguments of an option.

    A value is read as JSON where possible and is a string otherwise; ``none`` is None. Dashes in names become underscores.

    Args:
        option: name of the option, for the error message.
        texts: the arguments.
        example: an argument that is right, for the error message.
    """
    from nasdsl.files import parse_json

    values: dict[str, Any] = {}
    for argument in texts:
        name, equals, text = argument.partition("=")
        if not equals:
            fail(f"{option} {argument}: expected NAME=VALUE, such as {example}")
        try:
            value = None if text == "none" else parse_json(text)
        except ValueError:
            value = text
        values[name.strip().replace("-", "_")] = value
    return values


def is_default(option: str) -> bool:
    """Whether the user left out an option of the running command; a preset may have chosen its value."""
    default = (click.core.ParameterSource.DEFAULT, click.core.ParameterSource.DEFAULT_MAP)
    return click.get_current_context().get_parameter_source(option) in default


def command_line() -> str:
    """The running command as one would type it."""
    import shlex

    return shlex.join(["nasdsl", *sys.argv[1:]])
