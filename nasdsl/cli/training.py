"""train: a detector from a decoder's text, a backbone and pictures with boxes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from nasdsl.cli import detectors
from nasdsl.cli.common import BACKBONE, DEVICE, FILE, SizeType, load_decoder, refusals, say
from nasdsl.cli.evaluating import DATA, ON_ERROR

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
@detectors.VAL_SPLIT
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
@detectors.FREEZE_AT
@detectors.NORM
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Start from the detector of another run (its folder or model.pt); its classes may be others.",
)
@click.option("--width", type=click.IntRange(1), help="Width of fpn and head, instead of the text's.")
@detectors.RECIPE
@detectors.SETTINGS
@detectors.show_settings(detectors.recipe_table)
@detectors.METHOD
@detectors.IMPROVEMENTS
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
    first = detectors.is_first_process()
    with refusals(), detectors.plain_warnings():
        from nasdsl.training import train as train_detector
        from nasdsl.training.config import TrainingConfig
        from nasdsl.training.recipe import find_recipe

        asked = not detectors.is_default("backbone_weights")
        plan = TrainingConfig(
            data=spec,
            split=split,
            val_split=None if val_split == "none" else val_split,
            on_error=on_error,
            backbone=backbone,
            backbone_weights=detectors.starting_weights(backbone_weights, backbone, asked=asked, weights=weights),
            freeze_at=freeze_at,
            norm=norm,
            weights=None if weights is None else str(weights),
            width=width,
            recipe=find_recipe(recipe).changed(_given(shortcuts)).override(settings),
            method=detectors.assignments("--method", method, "center_radius=1.5"),
            improvements=improvements,
        )
        decoder = plan.prepare_decoder(decoder)
        classes = _voc_classes(out) if resume and spec.startswith("voc:") else None
        data, val = detectors.open_parts(plan, val_asked=not detectors.is_default("val_split"), classes=classes)
        if first:
            say("\n".join([*data.summary(), *(val.summary() if val else [])]))
            detectors.random_backbone_warning(plan)
        model = plan.make_detector(decoder, data)
        about = {"command": detectors.command_line(), "data": spec, "split": split, "decoder": file}
        outcome = train_detector(
            model, data, plan.recipe, out, val, resume=resume, device=device, about=about, tensorboard=tensorboard
        )
    if first:
        if outcome.evaluation is not None:
            from rich.console import Console

            Console(highlight=False, width=None if sys.stdout.isatty() else 110).print(outcome.evaluation.table())
        say(f"trained {outcome.steps} steps in {outcome.seconds:.0f} s; the detector is {outcome.run.model}")


def _voc_classes(out: Path) -> tuple[str, ...] | None:
    """VOC's twenty classes where the run in `out` has these; None otherwise.

    Runs of earlier versions have all twenty on every VOC folder with no other classes, even where only a few occur.
    """
    from nasdsl.data.voc import VOC_CLASSES
    from nasdsl.training.run import Run

    classes = Run(out).classes
    return classes if classes == tuple(VOC_CLASSES) else None


def _given(shortcuts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in shortcuts.items() if value is not None}
