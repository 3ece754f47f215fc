"""The trainings of a search: that of the backbone before it, and the full trainings of the best decoders after it."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from nasdsl.cli.errors import fail
from nasdsl.cli.files import load_decoder
from nasdsl.cli.options import command_line, is_default, parse_assignments
from nasdsl.cli.output import echo_err
from nasdsl.cli.training_plan import resolve_backbone_weights, resolve_split, warn_random_backbone, with_recipe
from nasdsl.search.backbone_training import FOLDER
from nasdsl.search.stages import Stage

if TYPE_CHECKING:
    from nasdsl.decoder import Decoder
    from nasdsl.search.backbone_training import BackboneTraining
    from nasdsl.search.full_training import FullTraining
    from nasdsl.spaces import Space

_LENGTHS = ("epochs", "steps")
"""Settings of a recipe that say how long a training is."""


def full_training(options: SimpleNamespace, stages: list[Stage]) -> FullTraining | None:
    """Prepare the full training of the best decoders; None if there is none.

    Opens the datasets and adapts a sample of each stage, so that mistakes are reported before the search starts.
    """
    _check_lengths(options)
    if not any(stage.top for stage in stages):
        if options.beside and not is_default("beside"):
            fail("--beside is for the full training of the best decoders: say with --top how many to train")
        return None
    from nasdsl.search.full_training import FullTraining
    from nasdsl.training.config import TrainingConfig

    shortcuts = {"seed": options.seed} | ({} if options.epochs is None else {"epochs": options.epochs})
    keep_size = _sets(options, "size")
    if stages[0].space.sizes and not keep_size:
        shortcuts["size"] = stages[0].space.sizes[0]  # each training has that of its decoder
    backbone = options.backbone_names[0]
    data = options.full_data or options.spec
    split = options.full_split or ("train" if options.full_data else options.split)
    val_split = None if options.val_split == "none" else options.val_split
    divided = resolve_split(data, split, val_split, None, None) if options.full_data else options.data
    plan = TrainingConfig(
        data=data,
        split=split,
        val_split=val_split,
        classes=options.class_names,
        split_share=divided["split_share"],
        split_seed=divided["split_seed"],
        backbone=backbone,
        backbone_weights=_full_training_weights(options, backbone),
        freeze_at=options.freeze_at,
        norm=options.norm,
        width=options.full_width,
        method=parse_assignments("--method", options.method, "center_radius=1.5"),
    )
    compared = _load_compared(options.beside)
    samples = [stage.space.load(stage.space.sample(0)) for stage in stages]
    full = FullTraining(
        plan, compared, options.device, {"command": command_line()}, options.top_minutes,
        {name: _full_training_weights(options, name) for name in options.backbone_names}, keep_size,
    )  # fmt: skip
    training, _ = full.open()
    decoders = [*samples, *compared.values()]
    plan, _ = with_recipe(plan, options.recipe, shortcuts, options.settings, options.improvements, decoders, training)
    if keep_size and plan.recipe.size is not None and any(size != plan.recipe.size for size in stages[0].space.sizes):
        height, width = plan.recipe.size
        echo_err(f"--set size: the best are trained at {height}x{width}, instead of at the size that each names")
    for sample in samples:
        width = sample.architecture.fpn.width
        for decoder in (sample, *(beside.with_width(width) for beside in compared.values())):
            plan.prepare_decoder(decoder)
    warn_random_backbone(plan)
    return dataclasses.replace(full, plan=plan)


def _check_lengths(options: SimpleNamespace) -> None:
    """Two options say how long the full trainings are: what the user gives replaces that of a preset; two are refused."""
    if options.top_minutes is None:
        return
    other = "--epochs" if options.epochs is not None and not is_default("epochs") else None
    other = next((f"--set {name}" for name in _LENGTHS if _sets(options, name)), other)
    if other is not None and is_default("top_minutes"):
        options.top_minutes = None
    elif other is not None:
        fail(f"--top-minutes and {other} both say how long the full trainings are: give one of them")
    else:
        options.epochs = None


def _sets(options: SimpleNamespace, name: str) -> bool:
    """Whether ``--set`` changes a setting of the recipe."""
    return any(setting.partition("=")[0].strip() == name for setting in options.settings)


def _load_compared(files: tuple[str, ...]) -> dict[str, Decoder]:
    """Load the decoders of --beside, by unique names for their folders."""
    found: dict[str, Decoder] = {}
    for file in files:
        decoder = load_decoder(file)
        if decoder.architecture.open_holes:
            fail(f"--beside {file} has holes; expected a decoder without holes")
        name, number = decoder.name, 1
        while name in found or re.fullmatch(r"trial_\d+", name):
            number += 1
            name = f"{decoder.name}_beside_{number}"
        found[name] = decoder
    return found


# ------------------------------------------------------------------------------------------------ the backbone


def backbone_trainings(options: SimpleNamespace, space: Space) -> tuple[BackboneTraining, ...]:
    """Prepare the fine-tuning of each backbone; none without --finetune-backbone.

    The detector is FCOS at the width of the full trainings, and the recipe is theirs.

    Args:
        space: of the first stage, whose largest width and size are taken.
    """
    if not finetunes_backbone(options):
        return ()
    from nasdsl.search.backbone_training import BackboneTraining
    from nasdsl.training.config import TrainingConfig

    val_split = None if options.val_split == "none" else options.val_split
    shortcuts = {"seed": options.seed, "epochs": options.finetune_backbone}
    if space.sizes:
        shortcuts["size"] = max(space.sizes, key=min)
    settings = [setting for setting in options.settings if setting.partition("=")[0].strip() not in _LENGTHS]
    decoder = load_decoder("zoo:fcos").with_width(options.full_width or _largest_width(options, space))
    made = []
    for name in options.backbone_names:
        initial = _initial_weights(options, name)
        starts_trained = initial is not None and _is_detector(initial)
        plan = TrainingConfig(
            data=options.spec,
            split=options.split,
            val_split=val_split,
            classes=options.class_names,
            split_share=options.data["split_share"],
            split_seed=options.data["split_seed"],
            backbone=name,
            backbone_weights=None if starts_trained else initial,
            weights=initial if starts_trained else None,
            freeze_at=options.freeze_at,
            norm=options.norm,
            method=parse_assignments("--method", options.method, "center_radius=1.5"),
        )
        training = plan.open_train_dataset()
        plan, _ = with_recipe(
            plan, options.recipe, shortcuts, settings, options.improvements, [decoder], training,
            purpose=f"fine-tuning {name}",
        )  # fmt: skip
        prepared = plan.prepare_decoder(decoder)
        made.append(
            BackboneTraining(plan, prepared, backbone_folder(options, name), options.device, {"command": command_line()})
        )
    return tuple(made)


def _largest_width(options: SimpleNamespace, space: Space) -> int:
    """The largest width that the decoders of a search can have."""
    width: int = max(options.width or [space.load(space.sample(0)).architecture.fpn.width])
    return width


def finetunes_backbone(options: SimpleNamespace) -> bool:
    """Whether the search trains the backbone first: not where a preset would, and a trained one is given."""
    if not options.finetune_backbone:
        return False
    return not (is_default("finetune_backbone") and _is_run(options.backbone_weights))


def backbone_folder(options: SimpleNamespace, backbone: str) -> Path:
    """Folder of the run that fine-tunes a backbone: ``backbone``, or of several backbones one in it for each."""
    folder = Path(options.out).absolute() / FOLDER
    return folder if len(options.backbone_names) == 1 else folder / re.sub(r"[^\w.-]", "_", backbone)


# ------------------------------------------------------------------------------------------------ weights


def proxy_weights(options: SimpleNamespace, backbone: str) -> str | None:
    """Weights of a frozen backbone."""
    if finetunes_backbone(options):
        return str(backbone_folder(options, backbone))
    return _initial_weights(options, backbone)


def _initial_weights(options: SimpleNamespace, backbone: str) -> str | None:
    """Weights of a backbone before any training in this search."""
    return _weights("backbone_weights", options.backbone_weights, options, backbone, not is_default("backbone_weights"))


def _full_training_weights(options: SimpleNamespace, backbone: str) -> str | None:
    """Initial weights of a backbone in the full training: those of the search, unless they come from a detector."""
    if options.full_backbone_weights is not None:
        return _weights("full_backbone_weights", options.full_backbone_weights, options, backbone, True)
    weights = _initial_weights(options, backbone)
    is_trained = weights is not None and _is_detector(weights)
    return resolve_backbone_weights("imagenet", backbone, explicit=False) if is_trained else weights


def _is_run(weights: str) -> bool:
    """Whether weights are those of a training: its folder, or a model in it."""
    return Path(weights).is_dir() or Path(weights).name in ("model.pt", "best.pt")


@functools.cache
def _is_detector(weights: str) -> bool:
    """Whether weights are those of a whole detector: of a training, under any name, or of torchvision's FCOS or RetinaNet."""
    if _is_run(weights) or not Path(weights).is_file():
        return _is_run(weights)
    from nasdsl.detection.detector import DetectorError
    from nasdsl.detection.weights import read_weights

    try:
        return read_weights(weights).config is not None
    except DetectorError:  # other forms of a backbone's weights
        return False


def _weights(option: str, value: str, options: SimpleNamespace, backbone: str, explicit: bool) -> str | None:
    """Weights of one of the backbones; exits on a file that would be for several."""
    several = len(options.backbone_names) > 1
    if several and value not in ("imagenet", "none"):
        names = ", ".join(options.backbone_names)
        flag = f"--{option.replace('_', '-')}"
        fail(f"{flag} {value} is for one backbone, and there are several: {names}; expected imagenet or none")
    return resolve_backbone_weights(value, backbone, explicit=explicit and not several)
