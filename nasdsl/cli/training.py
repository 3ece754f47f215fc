"""train: a detector from a decoder's text, a backbone and pictures with boxes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nasdsl.cli.common import BACKBONE, DEVICE, FILE, SizeType, fail, load_decoder, refusals, say
from nasdsl.cli.evaluating import DATA, ON_ERROR

if TYPE_CHECKING:
    from nasdsl.data import Dataset
    from nasdsl.decoder import Decoder
    from nasdsl.training import Recipe

SHORTCUTS = (
    ("epochs", click.FloatRange(0, min_open=True), "Length in passes over the data."),
    ("steps", click.IntRange(1), "Length in updates of the weights."),
    ("batch_size", click.IntRange(1), "Pictures a step."),
    ("learning_rate", click.FloatRange(0, min_open=True), "Highest learning rate; it belongs to the batch size."),
    ("size", SizeType(), "What pictures are resized to, such as 240x320."),
    ("workers", click.IntRange(0), "Processes that load pictures."),
    ("seed", click.IntRange(0), "Decides everything random."),
)
"""Settings of the recipe that have an option of their own; `--set` knows all."""


class _Shortcuts(click.Command):
    """`train` with an option for each of `SHORTCUTS`."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for name, kind, help in SHORTCUTS:
            self.params.append(click.Option([f"--{name.replace('_', '-')}"], type=kind, help=f"{help} [default: the recipe's]"))


def _show_settings(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Print every setting with its value in each recipe, and leave."""
    if not value or ctx.resilient_parsing:
        return
    import json

    from rich.console import Console
    from rich.table import Table

    from nasdsl.training.recipe import RECIPES, SETTINGS

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("setting", *RECIPES, "what it is"):
        table.add_column(name)
    values = [recipe.to_dict() for recipe in RECIPES.values()]
    for name, help in SETTINGS.items():
        table.add_row(name, *(json.dumps(_rounded(v[name])) for v in values), help)
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 140).print(table)
    ctx.exit()


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


@click.command(cls=_Shortcuts)
@FILE
@DATA
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the run.")
@click.option("--split", default="train", show_default=True, help="Part of the data to train on.")
@click.option("--val-split", default="val", show_default=True, help="Part to evaluate on, if there is one; `none`: don't.")
@ON_ERROR
@BACKBONE
@click.option(
    "--backbone-weights",
    default="imagenet",
    show_default=True,
    metavar="imagenet|none|PATH",
    help="What the backbone starts from: torchvision's pre-trained weights (downloaded once), random ones, or a file in "
    "torchvision's or MSRA's layout. Not read with --weights.",
)
@click.option(
    "--freeze-at",
    type=click.IntRange(0, 5),
    help="Stages of the backbone that stay fixed, the stem counted. [default: 2, or 0 for a random backbone]",
)
@click.option(
    "--norm",
    type=click.Choice(["frozen", "train"]),
    help="BatchNorms of the backbone. [default: frozen in a pre-trained ResNet, else train]",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Start from the detector of another run (its folder or model.pt); its classes may be others.",
)
@click.option("--width", type=click.IntRange(1), help="Width of fpn and head, instead of the text's.")
@click.option("--recipe", default="published", show_default=True, help="published (the paper's) or quick (small data).")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Change any setting of the recipe; may be repeated."
)
@click.option(
    "--show-settings",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_settings,
    help="List all settings of the recipes, and leave.",
)
@click.option(
    "--method",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change an option of FCOS or RetinaNet, such as center_radius=1.5; may be repeated.",
)
@click.option(
    "--improvements",
    is_flag=True,
    help="FCOS with centre sampling, GIoU loss, centerness on the box tower, boxes in strides (the paper's last rows).",
)
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard's event files too.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the folder.")
@DEVICE
def train(
    file: str,
    spec: str,
    out: Path,
    split: str,
    val_split: str,
    on_error: str,
    backbone: str,
    backbone_weights: str,
    freeze_at: int | None,
    norm: str | None,
    weights: Path | None,
    width: int | None,
    recipe: str,
    settings: tuple[str, ...],
    method: tuple[str, ...],
    improvements: bool,
    tensorboard: bool,
    resume: bool,
    device: str | None,
    **shortcuts: Any,
) -> None:
    """Train a detector.

    \b
    nasdsl train zoo:fcos --width 64 --backbone mobilenet_v2 --data shapes --recipe quick --out runs/first
    nasdsl train zoo:fcos --data coco:COCO --out runs/fcos
    nasdsl train zoo:nas_fcos --width 64 --backbone mobilenet_v2 --data voc:DIR --recipe quick --out runs/nas_fcos
    torchrun --nproc-per-node 8 -m nasdsl.cli train zoo:nas_fcos --data coco:COCO --out runs/nas_fcos

    The published recipe is made for GPUs and COCO: 90,000 steps of 16 pictures; `--recipe quick` trains small data in
    minutes on a CPU. Ctrl-C finishes the step, saves and leaves; the same command with --resume goes on.

    The folder of the run is what `nasdsl eval` and `nasdsl detect` take; it has the detector (model.pt), the last
    evaluation (metrics.json, results.json), a log (log.jsonl), and what was asked for (config.json, decoder.nas).
    """
    decoder = load_decoder(file)
    with refusals(), _plain_warnings():
        from nasdsl.backbones import backbone as find_backbone
        from nasdsl.training.recipe import find_recipe

        chosen = _recipe(find_recipe(recipe), settings, shortcuts)
        if width is not None:
            decoder = decoder.with_width(width)
        options = _method(method)
        if improvements:
            decoder, improved = _improved(decoder)
            options = improved | options

        from nasdsl.data import open_dataset
        from nasdsl.detection.making import detector
        from nasdsl.training import train as train_detector

        data = open_dataset(spec, split, on_error=on_error)
        val = None if val_split == "none" else _validation(data, spec, val_split, on_error)
        if _is_default("backbone_weights") and (weights is not None or not find_backbone(backbone).pretrained):
            backbone_weights = "none"  # they would be overwritten, or there are none
        if _is_first_process():
            say("\n".join([*data.summary(), *(val.summary() if val else [])]))
            if backbone_weights == "none" and weights is None and find_backbone(backbone).pretrained:
                say("warning: the backbone starts from random weights; it needs far more training than a pre-trained one")
        model = detector(
            decoder,
            backbone,
            weights,
            data.classes,
            backbone_weights=None if backbone_weights == "none" else backbone_weights,
            freeze_at=freeze_at,
            norm=norm,
            category_ids=data.category_ids,
            min_size=chosen.shorter_side,
            max_size=chosen.longest_side,
            fixed_size=chosen.size,
            size_divisible=chosen.size_divisible,
            seed=chosen.seed,
            **options,
        )
        about = {"command": shlex.join(["nasdsl", *sys.argv[1:]]), "data": spec, "split": split, "decoder": file}
        outcome = train_detector(
            model, data, chosen, out, val, resume=resume, device=device, about=about, tensorboard=tensorboard
        )
    if _is_first_process():
        if outcome.evaluation is not None:
            from rich.console import Console

            Console(highlight=False, width=None if sys.stdout.isatty() else 110).print(outcome.evaluation.table())
        say(f"trained {outcome.steps} steps in {outcome.seconds:.0f} s; the detector is {outcome.run.model}")


def _recipe(recipe: Recipe, settings: tuple[str, ...], shortcuts: dict[str, Any]) -> Recipe:
    given = {name: value for name, value in shortcuts.items() if value is not None}
    return recipe.changed(given).override(settings)


def _validation(data: Dataset, spec: str, split: str, on_error: str) -> Dataset | None:
    """The data to evaluate on, with the labels of the training's; None, and said so, where the set has no such part."""
    from nasdsl.data import DataError, open_dataset

    same = {} if spec.startswith("shapes") else {"classes": data.classes}
    try:
        return open_dataset(spec, split, on_error=on_error, **same)
    except DataError as error:
        if _is_default("val_split"):
            say(f"no evaluation: {error}")
            return None
        raise


def _is_default(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is click.core.ParameterSource.DEFAULT


def _improved(decoder: Decoder) -> tuple[Decoder, dict[str, Any]]:
    """The decoder with the prediction of FCOS's later improvements, and the options that belong to it."""
    from nasdsl.detection.fcos import IMPROVED, IMPROVED_PREDICTION
    from nasdsl.semantics.architecture import Fcos

    if not isinstance(decoder.architecture.predict, Fcos):
        fail(f"--improvements are FCOS's; {decoder.name} predicts otherwise")
    return decoder.with_prediction(IMPROVED_PREDICTION), IMPROVED


def _method(options: tuple[str, ...]) -> dict[str, Any]:
    import json

    made: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals:
            fail(f"--method {option}: expected NAME=VALUE, such as center_radius=1.5")
        try:
            value = None if text == "none" else json.loads(text)
        except ValueError:
            value = text
        made[name.strip().replace("-", "_")] = value
    return made


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings of the package, such as that of weights that fit another backbone, as lines for people."""
    import warnings

    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if category is not UserWarning or Path(where[0]).parents[1] != Path(__file__).parents[1]:
                usual(message, category, *where, **more)
            elif _is_first_process():
                say(f"warning: {message}")

        warnings.showwarning = show
        yield


def _is_first_process() -> bool:
    """Under torchrun one process speaks for all."""
    import os

    return os.environ.get("RANK", "0") == "0"
