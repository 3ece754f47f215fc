"""``nasdsl train``: train a detector with a decoder on a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nasdsl.cli.errors import exit_on_error, fail, warnings_as_messages
from nasdsl.cli.files import load_decoder
from nasdsl.cli.options import (
    BACKBONE,
    CLASS_NAMES,
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
    SPLIT_SEED,
    SPLIT_SHARE,
    VAL_SPLIT,
    SizeType,
    command_line,
    is_default,
    parse_assignments,
)
from nasdsl.cli.output import echo_err, is_main_process, stdout_console
from nasdsl.cli.report import write_training_report
from nasdsl.cli.settings import recipe_table, show_settings_option
from nasdsl.cli.training_plan import (
    make_recipe,
    open_datasets,
    resolve_backbone_weights,
    resolve_detector,
    resolve_split,
    warn_random_backbone,
    with_recipe,
)

if TYPE_CHECKING:
    from nasdsl.detection.weights import SavedWeights

RECIPE_OPTIONS = (
    ("epochs", click.FloatRange(0, min_open=True), "Length of the training in epochs."),
    ("steps", click.IntRange(1), "Length of the training in steps."),
    ("batch_size", click.IntRange(1), "Images a step."),
    ("learning_rate", click.FloatRange(0, min_open=True), "Peak learning rate, for this batch size."),
    ("size", SizeType(), "Size that images are resized to, height x width, such as 240x320."),
    ("evaluate_every", click.FloatRange(0), "Epochs between two evaluations; 0: only at the end."),
    ("patience", click.IntRange(1), "Stop after this many evaluations in a row that are not the best."),
    ("workers", click.IntRange(0), "Processes that load images."),
    ("seed", click.IntRange(0), "Random seed."),
)
"""Settings of the recipe that have an option of their own. `--set` changes any of them."""


TRACKERS = ("tensorboard", "trackio", "wandb", "mlflow")
"""Copy of `nasdsl.training.TRACKERS`: importing it would load torch for `--help`."""


class _TrainCommand(click.Command):
    """Command with an option for each of `RECIPE_OPTIONS`."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for name, kind, help in RECIPE_OPTIONS:
            self.params.append(
                click.Option([f"--{name.replace('_', '-')}"], type=kind, help=f"{help}  [default: the recipe's]")
            )


@click.command(cls=_TrainCommand)
@FILE
@DATA
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the run, to be written."
)
@click.option("--split", default="train", show_default=True, help="Split to train on.")
@VAL_SPLIT
@SPLIT_SHARE
@SPLIT_SEED
@CLASS_NAMES
@ON_ERROR
@BACKBONE
@click.option(
    "--backbone-weights",
    default="imagenet",
    show_default=True,
    metavar="imagenet|none|PATH",
    help="Initial weights of the backbone: torchvision's pretrained ones (downloaded once), random ones, or a file in "
    "torchvision's or MSRA's layout. Not used with --weights.",
)
@FREEZE_AT
@NORM
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Start from another detector: a run's folder, its model.pt, or a file of torchvision's FCOS or RetinaNet. What both "
    "have in common is inherited; decoder and classes may differ. Or the folder of a search with --evaluate supernet, whose "
    "weights FILE, a decoder of its space, inherits.",
)
@click.option("--width", type=click.IntRange(1), help="Channels of fpn and head.  [default: those in FILE]")
@RECIPE
@SETTINGS
@show_settings_option(recipe_table)
@METHOD
@IMPROVEMENTS
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="Train for as long as fits into this time, evaluations included, instead of --epochs or --steps.",
)
@click.option(
    "--log",
    "trackers",
    multiple=True,
    type=click.Choice(TRACKERS),
    help="Also log to this tracker, which has to be installed; may be repeated.",
)
@click.option("--tensorboard", is_flag=True, help="The same as --log tensorboard.")
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint in the folder.")
@DEVICE
def train(
    file: str,
    spec: str,
    out: Path,
    split: str,
    val_split: str,
    split_share: float | None,
    split_seed: int | None,
    class_names: tuple[str, ...] | None,
    on_error: str,
    backbone: str | None,
    backbone_weights: str,
    freeze_at: int | None,
    norm: str | None,
    weights: Path | None,
    width: int | None,
    recipe: str | None,
    settings: tuple[str, ...],
    method: tuple[str, ...],
    improvements: bool | None,
    minutes: float | None,
    trackers: tuple[str, ...],
    tensorboard: bool,
    resume: bool,
    device: str | None,
    **recipe_options: Any,
) -> None:
    """Train a detector: a backbone with a decoder.

    FILE is a .nas file, `-` for standard input, zoo:NAME, or the folder of a training or search (its decoder.nas or
    best.nas). Width, image size and backbone are those that its text names, unless options give others.

    \b
    nasdsl train zoo:fcos --width 64 --backbone mobilenet_v2 --data shapes --recipe quick --out runs/first
    nasdsl train zoo:gfl --width 64 --backbone mobilenet_v2 --data DIR --minutes 30 --out runs/cells
    nasdsl train zoo:fcos --data coco:COCO --out runs/fcos
    nasdsl train zoo:nas_fcos --width 64 --backbone mobilenet_v2 --data DIR --out runs/nas_fcos
    torchrun --nproc-per-node 8 -m nasdsl train zoo:nas_fcos --data coco:COCO --out runs/nas_fcos

    With fewer than 10,000 training images the recipe is small, at the image size that suits the boxes; with more it is
    published, 90,000 steps of 16 images, for GPUs. With --minutes M a training takes M minutes. Ctrl-C finishes the step,
    saves a checkpoint and exits; the same command with --resume continues.

    The folder of the run holds the detector (model.pt, and best.pt of the best evaluation), the last evaluation
    (metrics.json, results.json), a log (log.jsonl), a page about all of it (report.html), and the configuration
    (config.json, decoder.nas). `nasdsl eval` and `nasdsl detect` take this folder (its model.pt) or best.pt.
    """
    if minutes is not None:
        _refuse_length(recipe_options, settings)
    decoder = load_decoder(file)
    text = decoder.source.text
    main = is_main_process()
    with exit_on_error(), warnings_as_messages():
        given_size = recipe_options["size"] or _size_setting(settings)
        decoder, backbone, size = resolve_detector(decoder, file, backbone, given_size)
        if given_size is None:
            recipe_options["size"] = size
        from nasdsl.data import split_record
        from nasdsl.training import train as train_detector
        from nasdsl.training.config import TrainingConfig

        make_recipe(recipe or "published", _given(recipe_options), settings)  # errors are told before data are opened
        explicit = not is_default("backbone_weights")
        evaluated = None if val_split == "none" else val_split
        plan = TrainingConfig(
            data=spec,
            split=split,
            val_split=evaluated,
            classes=class_names,
            **resolve_split(spec, split, evaluated, split_share, split_seed, out if resume else None),
            on_error=on_error,
            backbone=backbone,
            backbone_weights=resolve_backbone_weights(backbone_weights, backbone, explicit=explicit, weights=weights),
            freeze_at=freeze_at,
            norm=norm,
            weights=None if weights is None else str(weights),
            width=width,
            method=parse_assignments("--method", method, "center_radius=1.5"),
        )
        classes = _voc_classes(out) if resume and class_names is None else None
        data, val = open_datasets(plan, require_val=not is_default("val_split"), classes=classes)
        if main:
            echo_err("\n".join([*data.summary(), *(val.summary() if val else [])]))
        plan, recipe = with_recipe(
            plan, recipe, _given(recipe_options), settings, improvements, [decoder], data, out if resume else None
        )
        decoder = plan.prepare_decoder(decoder)
        if main:
            warn_random_backbone(plan)
        start = None if weights is None else _shared_weights(weights, text, device, quiet=not main)
        model = plan.make_detector(decoder, data, start)
        if main and model.inherited is not None and model.inherited.is_complete:  # else a warning says it
            echo_err(str(model.inherited))
        about = {
            "command": command_line(), "data": spec, "split": split, **split_record(data.made), "decoder": file,
            "recipe": recipe,
        }  # fmt: skip
        result = train_detector(
            model,
            data,
            plan.recipe,
            out,
            val,
            minutes=minutes,
            resume=resume,
            device=device,
            about=about,
            trackers=[*(["tensorboard"] if tensorboard else []), *trackers],
        )
    if main:
        if result.evaluation is not None:
            stdout_console().print(result.evaluation.table())
        echo_err(f"trained {result.steps} steps in {result.seconds:.0f} s; the detector is {result.run.model}")
        if result.best_step is not None and result.best_step != result.steps:
            echo_err(f"the best evaluation was at step {result.best_step}; its detector is {result.run.best}")
        write_training_report(result.run.folder, val)


def _shared_weights(search: Path, text: str, device: str | None, *, quiet: bool) -> SavedWeights | None:
    """The weights that a decoder inherits if this is the folder of a search with a weight-sharing network, else None."""
    from nasdsl.search.supernet.start import inherited_weights, is_supernet

    return inherited_weights(search, text, device=device or "auto", quiet=quiet) if is_supernet(search) else None


def _refuse_length(recipe_options: dict[str, Any], settings: tuple[str, ...]) -> None:
    """Refuse other options that say how long the training is, beside --minutes."""
    names = [setting.partition("=")[0].strip() for setting in settings]
    for name in ("epochs", "steps"):
        if recipe_options[name] is not None or name in names:
            option = f"--{name}" if recipe_options[name] is not None else f"--set {name}"
            fail(f"--minutes and {option} both say how long the training is: give one of them")


def _size_setting(settings: tuple[str, ...]) -> tuple[int, int] | None:
    """The size among the arguments of --set."""
    from nasdsl.training.recipe import Recipe

    found = [setting for setting in settings if setting.partition("=")[0].strip() == "size"]
    return Recipe().override(found[-1:]).size if found else None


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that the user gave."""
    return {name: value for name, value in options.items() if value is not None}


def _voc_classes(out: Path) -> tuple[str, ...] | None:
    """VOC's twenty classes if the run in `out` has these; None otherwise.

    Runs of earlier versions have all twenty on every VOC folder with no other classes, even where only a few occur.
    """
    from nasdsl.data.voc import VOC_CLASSES
    from nasdsl.training.run import Run

    classes = Run(out).classes
    return classes if classes == tuple(VOC_CLASSES) else None
