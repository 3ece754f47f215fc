"""What `train` and `search` share: options about the detector that is trained, and how they are read."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nasdsl.cli.common import fail, say

if TYPE_CHECKING:
    from rich.table import Table

    from nasdsl.data import Dataset
    from nasdsl.training.config import TrainingConfig

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


def starting_weights(given: str, backbone: str, *, asked: bool, weights: Path | None = None) -> str | None:
    """What the backbone starts from: the default gives way where a detector's weights come over it, or there are none.

    Args:
        asked: the user has named `given`.
    """
    from nasdsl.backbones import backbone as find_backbone

    if given == "none" or (not asked and (weights is not None or not find_backbone(backbone).pretrained)):
        return None
    return given


def open_parts(
    plan: TrainingConfig, *, val_asked: bool, classes: tuple[str, ...] | None = None
) -> tuple[Dataset, Dataset | None]:
    """The pictures of a plan; none to evaluate on, and said so, where there are none and nobody asked for them."""
    from nasdsl.data import NoSplit

    data = plan.open_train_dataset(classes)
    try:
        return data, plan.open_val_dataset(data)
    except NoSplit as error:
        if val_asked:
            raise
        say(f"no evaluation: {error}")
        return data, None


def random_backbone_warning(plan: TrainingConfig) -> None:
    """Say that a training from random weights takes long, where others were to be had."""
    from nasdsl.backbones import backbone as find_backbone

    if plan.backbone_weights is None and plan.weights is None and find_backbone(plan.backbone).pretrained:
        say("warning: the backbone starts from random weights; it needs far more training than a pre-trained one")


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings of the package, such as that of weights that fit another backbone, as lines for people."""
    import warnings

    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if category is not UserWarning or Path(where[0]).parents[1] != Path(__file__).parents[1]:
                usual(message, category, *where, **more)
            elif is_first_process():
                say(f"warning: {message}")

        warnings.showwarning = show
        yield


def is_first_process() -> bool:
    """Under torchrun one process speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def command_line() -> str:
    """The running command as one would type it."""
    import shlex

    return shlex.join(["nasdsl", *sys.argv[1:]])


def show_settings(*tables: Callable[[], Table]) -> Callable[[Any], Any]:
    """The option --show-settings, which prints these tables and leaves."""

    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if not value or ctx.resilient_parsing:
            return
        from rich.console import Console

        console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 140)
        for number, table in enumerate(tables):
            console.print(*(["\n"] if number else []), table())
        ctx.exit()

    return click.option(
        "--show-settings", is_flag=True, is_eager=True, expose_value=False, callback=show,
        help=f"List all settings of the {'proxy task and the ' if len(tables) > 1 else ''}recipes, and leave.",
    )  # fmt: skip


def recipe_table() -> Table:
    """Every setting with its value in each recipe."""
    from rich.table import Table

    from nasdsl.training.recipe import RECIPES, SETTINGS

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("setting", *RECIPES, "what it is"):
        table.add_column(name)
    values = [recipe.to_dict() for recipe in RECIPES.values()]
    for name, help in SETTINGS.items():
        table.add_row(name, *(_shown(v[name]) for v in values), help)
    return table


def proxy_table() -> Table:
    """Every setting of the proxy task with its default."""
    from rich.table import Table

    from nasdsl.training.proxy.spec import ProxySpec, setting_descriptions

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("setting of the proxy task", "default", "what it is"):
        table.add_column(name)
    for field in dataclasses.fields(ProxySpec):
        if field.name not in ("data", "fpn"):
            table.add_row(field.name, _shown(getattr(ProxySpec("shapes"), field.name)), setting_descriptions()[field.name])
    return table


def _shown(value: Any) -> str:
    import json

    return json.dumps(_rounded(value))


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
