"""The data of a training: transforms and batches according to a recipe, and the number of steps."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

from nasdsl.data import Batch, Dataset, Loader, Transform, make_loader
from nasdsl.training.distributed import ProcessGroup
from nasdsl.training.errors import TrainingError
from nasdsl.training.recipe import Recipe


def infinite_batches(loader: Loader, first: int) -> Generator[Batch, None, None]:
    """Batches of one epoch after the other, from batch number `first` of the training on; those before are not loaded."""
    while True:
        epoch, start = divmod(first, len(loader))
        loader.set_epoch(epoch, start)
        yield from loader
        first = (epoch + 1) * len(loader)


def total_steps(recipe: Recipe, batches: int) -> int:
    """Number of steps of the whole training, with `batches` batches an epoch."""
    if recipe.steps is not None:
        return recipe.steps
    assert recipe.epochs is not None
    return max(1, round(recipe.epochs * batches / recipe.accumulate))


def evaluation_steps(recipe: Recipe, batches: int, total: int | None = None) -> list[int]:
    """The steps after which the detector is evaluated: every `evaluate_every` epochs, and at the end.

    Args:
        batches: in an epoch.
        total: of the training, in steps. None: as in the recipe.
    """
    total = total_steps(recipe, batches) if total is None else total
    every = recipe.evaluate_every * batches / recipe.accumulate
    count = int(total / every) if every else 0
    # The step that completes the epochs; an evaluation of a part of a step makes no sense.
    periodic = {max(1, math.ceil(number * every - 1e-9)) for number in range(1, count + 1)}
    return sorted({step for step in periodic if step < total} | {total})


def train_transform(recipe: Recipe) -> Transform:
    """The transform of images in training."""
    return Transform.training(
        recipe.shorter_side,
        recipe.longest_side,
        recipe.size,
        flip=recipe.flip,
        jitter=recipe.jitter,
        crop=recipe.crop,
        sizes=recipe.sizes,
        scale_jitter=recipe.scale_jitter,
        mosaic=recipe.mosaic,
        drop_difficult=not recipe.train_difficult,
        fast_decode=recipe.fast_decode,
    )


def eval_transform(recipe: Recipe) -> Transform:
    """The transform of images in evaluation: the same resizing without anything random; of several sizes, the last."""
    return Transform(recipe.shorter_side[-1], recipe.longest_side, recipe.size)


def prediction_options(recipe: Recipe, group: ProcessGroup) -> dict[str, Any]:
    """The arguments of `nasdsl.training.predict` for evaluations in a training."""
    return {
        "transform": eval_transform(recipe),
        "batch_size": max(1, recipe.batch_size // group.world_size),
        "workers": recipe.workers,
        "precision": recipe.precision,
        "size_divisible": recipe.size_divisible,
        "channels_last": recipe.channels_last,
        "group": group,
    }


def make_train_loader(dataset: Dataset, recipe: Recipe, group: ProcessGroup) -> Loader:
    """The loader of training batches for this process, in an order determined by the recipe's seed.

    Raises:
        TrainingError: a batch cannot be divided evenly among the processes.
        DataError: there are no images.
    """
    parts = recipe.accumulate * group.world_size
    if recipe.batch_size % parts:
        raise TrainingError(
            f"batch_size is {recipe.batch_size}, which {group.world_size} processes with {recipe.accumulate} accumulated "
            f"batches each cannot share; expected a multiple of {parts}"
        )
    batch_size = recipe.batch_size // parts
    loader = make_loader(
        dataset,
        batch_size=batch_size,
        transform=train_transform(recipe),
        shuffle=True,
        seed=recipe.seed,
        workers=recipe.workers,
        group_by_aspect=recipe.group_by_aspect,
        drop_last=recipe.drop_last and len(dataset) >= batch_size * group.world_size,
        rank=group.rank,
        world_size=group.world_size,
        cache=recipe.cache,
        divisor=recipe.size_divisible,
        pin_memory=group.device.type == "cuda",
    )
    loader.end_mosaics(round(total_steps(recipe, len(loader)) * (1 - recipe.close_mosaic)) * recipe.accumulate)
    return loader
