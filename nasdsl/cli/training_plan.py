"""Steps of setting up a training that `train` and `search` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasdsl.cli.errors import fail
from nasdsl.cli.output import echo_err, is_main_process

if TYPE_CHECKING:
    from nasdsl.data import Dataset
    from nasdsl.decoder import Decoder
    from nasdsl.training.config import TrainingConfig
    from nasdsl.training.recipe import Recipe


def resolve_detector(
    decoder: Decoder, file: str, backbone: str | None, size: tuple[int, int] | None
) -> tuple[Decoder, str, tuple[int, int] | None]:
    """The decoder with the backbone and the image size that it is trained with; says which come from its text.

    Options win over ``detector(…)`` in the text, which is changed to what they say.

    Args:
        file: that the decoder was read from, for messages.
        backbone, size: as the user gave them.

    Returns:
        the decoder; its backbone; its size, None where neither says.
    """
    from nasdsl.decoder import REFERENCE_BACKBONE

    taken, changed = [], []
    pairs = (("backbone", backbone, decoder.backbone), ("size", size, decoder.size))
    for name, given, own in pairs:
        if own is not None and given is None:
            taken.append(f"{name} {_shown(own)} (--{name})")
        elif own is not None and given != own:
            changed.append(f"--{name} {_shown(given)} instead of {_shown(own)}")
    if is_main_process() and taken:
        echo_err(f"from {file}: {', '.join(taken)}")
    if is_main_process() and changed:
        echo_err(f"{', '.join(changed)} of {file}")
    if changed:
        decoder = decoder.with_detector(
            size if decoder.size is not None else None, backbone if decoder.backbone is not None else None
        )
    return decoder, backbone or decoder.backbone or REFERENCE_BACKBONE, size or decoder.size


def _shown(value: object) -> str:
    return f"{value[0]}x{value[1]}" if isinstance(value, tuple) else str(value)


def resolve_backbone_weights(value: str, backbone: str, *, explicit: bool, weights: Path | None = None) -> str | None:
    """Initial weights of the backbone; None for random ones.

    The default value is dropped where a detector's weights replace it or the backbone has no pretrained weights.

    Args:
        value: of --backbone-weights.
        explicit: whether the user gave `value`.
        weights: of --weights, the detector to start from.
    """
    from nasdsl.backbones import backbone as find_backbone

    if value == "none" or (not explicit and (weights is not None or not find_backbone(backbone).pretrained)):
        return None
    return value


def resolve_split(
    spec: str, split: str, val_split: str | None, share: float | None, seed: int | None, run: Path | None = None
) -> dict[str, Any]:
    """The settings ``split_share`` and ``split_seed`` of a training: 0.8 where there is no validation split.

    Args:
        split, val_split: the splits to train and to evaluate on.
        share, seed: as the user gave them.
        run: folder of a run that is resumed; it keeps the split that it has.
    """
    from nasdsl.data import DEFAULT_SHARE, has_split
    from nasdsl.data.layouts import split_name

    if run is not None and (recorded := recorded_split(run)) is not None:
        for name, given in (("split_share", share), ("split_seed", seed)):
            if given is not None and given != recorded.get(name):
                fail(f"--{name.replace('_', '-')} {given:g}: {run} has {recorded.get(name)}, and a resumed run keeps its split")
        return recorded
    if has_split(spec, "val"):
        if (share, seed) != (None, None):
            fail(f"--split-share and --split-seed are for a dataset without a validation split; {spec} has one")
        return {"split_share": None, "split_seed": None}
    makes_val = split_name(split) == "train" and val_split is not None and split_name(val_split) == "val"
    if share is None and split_name(split) == "train":
        share = DEFAULT_SHARE if makes_val else 1.0 if val_split is None else None
    return {"split_share": share, "split_seed": seed}


def recorded_split(run: Path) -> dict[str, Any] | None:
    """How the split of a run was made: arguments of `open_dataset`, all None if it was not; None where there is no run.

    Args:
        run: folder of the run, or a file in it.
    """
    from nasdsl.training import Run, RunError

    try:
        about = Run(run if run.is_dir() else run.parent).read_config().get("about")
    except RunError:
        return None
    about = about if isinstance(about, dict) else {}
    share, seed = about.get("split_share"), about.get("split_seed")
    usable = isinstance(share, int | float) and isinstance(seed, int)
    return {"split_share": share, "split_seed": seed} if usable else {"split_share": None, "split_seed": None}


def open_datasets(
    plan: TrainingConfig, *, require_val: bool, classes: tuple[str, ...] | None = None
) -> tuple[Dataset, Dataset | None]:
    """Open the training and validation datasets of a plan.

    Args:
        classes: names of the classes by label; None takes those of the data.
        require_val: raise `NoSplit` if the dataset lacks the validation split. Otherwise a message says so, and the
            validation dataset is None.
    """
    from nasdsl.data import NoSplit

    data = plan.open_train_dataset(classes)
    try:
        return data, plan.open_val_dataset(data)
    except NoSplit as error:
        if require_val:
            raise
        echo_err(f"no evaluation: {error}")
        return data, None


def warn_random_backbone(plan: TrainingConfig) -> None:
    """Warn of a backbone that starts from random weights although there are pretrained ones."""
    from nasdsl.backbones import backbone as find_backbone

    if plan.backbone_weights is None and plan.weights is None and find_backbone(plan.backbone).pretrained:
        echo_err("warning: the backbone starts from random weights; it needs far more training than a pretrained one")


def make_recipe(name: str, changes: Mapping[str, Any], settings: Sequence[str]) -> Recipe:
    """The recipe of this name with changes, given as values and as ``NAME=VALUE``.

    Raises:
        RecipeError: there is no such recipe or setting, or a value is invalid.
    """
    from nasdsl.training.recipe import find_recipe

    return find_recipe(name).changed(changes).override(settings)


def recorded_recipe(run: Path) -> str | None:
    """Name of the recipe of a run; None where there is no run. Runs of versions that did not record it have `published`."""
    from nasdsl.training import Run, RunError

    try:
        about = Run(run).read_config().get("about")
    except RunError:
        return None
    return str(about.get("recipe", "published")) if isinstance(about, dict) else "published"


def with_recipe(
    plan: TrainingConfig,
    name: str | None,
    changes: Mapping[str, Any],
    settings: Sequence[str],
    improvements: bool | None,
    decoders: Sequence[Decoder],
    data: Dataset,
    run: Path | None = None,
    purpose: str = "",
) -> tuple[TrainingConfig, str]:
    """The plan with a recipe, and the recipe's name; says what was chosen that the user did not choose.

    Args:
        name: of the recipe; None: that of `run`, or else that for the number of training images.
        changes, settings: see `make_recipe`.
        improvements: None: with the recipe `small`, if all `decoders` predict as FCOS.
        data: the training data.
        run: folder of a run that is resumed; it keeps the recipe that it has.
        purpose: what the training is for, where a command has several.
    """
    from nasdsl.predictions import Fcos
    from nasdsl.training.small_data import default_recipe, with_recommended_size

    chosen = name or (recorded_recipe(run) if run is not None else None) or default_recipe(len(data))
    recipe = make_recipe(chosen, changes, settings)
    sized = with_recommended_size(recipe, data)
    if improvements is None:
        improvements = chosen == "small" and all(isinstance(d.architecture.predict, Fcos) for d in decoders)
    notes = []
    if name is None:
        notes.append(f"recipe {chosen} for {len(data):,} images (--recipe)")
    if sized is not recipe:
        size = f"size {sized.size[0]}x{sized.size[1]}" if sized.size else f"shorter side {sized.shorter_side[0]}"
        notes.append(f"{size} for these boxes (--size)")
    if name is None and improvements:
        notes.append("FCOS's improvements (--no-improvements)")
    if notes and is_main_process():
        echo_err(f"chosen{f' for {purpose}' if purpose else ''}: {', '.join(notes)}")
    return replace(plan, recipe=sized, improvements=improvements), chosen
