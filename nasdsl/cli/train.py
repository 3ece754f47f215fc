"""train: a detector from a decoder's text, a backbone and pictures with boxes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from nasdsl.cli.errors import plain_warnings, refusals
from nasdsl.cli.files import load_decoder
from nasdsl.cli.options import (
    BACKBONE,
    DATA,
    DEVICE,
    FILE,
    FREEZE_AT,
    IMPROVEMENTS,
    METHOD,
    NORM,
    ON_ERROR,
    RECIPE,
    SETTINGS,
    VAL_SPLIT,
    SizeType,
    assignments,
    command_line,
    is_default,
)
from nasdsl.cli.output import is_first_process, say
from nasdsl.cli.settings import recipe_table, show_settings
from nasdsl.cli.training_plan import open_parts, random_backbone_warning, starting_weights

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


@click.command(cls=_Shortcuts)
@FILE
@DATA
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the run.")
@click.option("--split", default="train", show_default=True, help="Part of the data to train on.")
@VAL_SPLIT
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
@FREEZE_AT
@NORM
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Start from the detector of another run (its folder or model.pt); its classes may be others.",
)
@click.option("--width", type=click.IntRange(1), help="Width of fpn and head, instead of the text's.")
@RECIPE
@SETTINGS
@show_settings(recipe_table)
@METHOD
@IMPROVEMENTS
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
    torchrun --nproc-per-node 8 -m nasdsl train zoo:nas_fcos --data coco:COCO --out runs/nas_fcos

    The published recipe is made for GPUs and COCO: 90,000 steps of 16 pictures; `--recipe quick` trains small data in
    minutes on a CPU. Ctrl-C finishes the step, saves and leaves; the same command with --resume goes on.

    The folder of the run is what `nasdsl eval` and `nasdsl detect` take; it has the detector (model.pt), the last
    evaluation (metrics.json, results.json), a log (log.jsonl), and what was asked for (config.json, decoder.nas).
    """
    decoder = load_decoder(file)
    first = is_first_process()
    with refusals(), plain_warnings():
        from nasdsl.training import train as train_detector
        from nasdsl.training.plan import Plan
        from nasdsl.training.recipe import find_recipe

        asked = not is_default("backbone_weights")
        plan = Plan(
            data=spec,
            split=split,
            val_split=None if val_split == "none" else val_split,
            on_error=on_error,
            backbone=backbone,
            backbone_weights=starting_weights(backbone_weights, backbone, asked=asked, weights=weights),
            freeze_at=freeze_at,
            norm=norm,
            weights=None if weights is None else str(weights),
            width=width,
            recipe=find_recipe(recipe).changed(_given(shortcuts)).override(settings),
            method=assignments("--method", method, "center_radius=1.5"),
            improvements=improvements,
        )
        decoder = plan.adapted(decoder)
        data, val = open_parts(plan, val_asked=not is_default("val_split"))
        if first:
            say("\n".join([*data.summary(), *(val.summary() if val else [])]))
            random_backbone_warning(plan)
        model = plan.detector(decoder, data)
        about = {"command": command_line(), "data": spec, "split": split, "decoder": file}
        outcome = train_detector(
            model, data, plan.recipe, out, val, resume=resume, device=device, about=about, tensorboard=tensorboard
        )
    if first:
        if outcome.evaluation is not None:
            from rich.console import Console

            Console(highlight=False, width=None if sys.stdout.isatty() else 110).print(outcome.evaluation.table())
        say(f"trained {outcome.steps} steps in {outcome.seconds:.0f} s; the detector is {outcome.run.model}")


def _given(shortcuts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in shortcuts.items() if value is not None}
