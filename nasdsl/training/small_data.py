"""Defaults for small data: which recipe, and the image size that suits the boxes."""

from __future__ import annotations

from typing import Final

import numpy as np

from nasdsl.data import DataError, Dataset
from nasdsl.data.size_advice import recommend_size
from nasdsl.training.recipe import Recipe

SMALL_DATA: Final = 10_000
"""Below this many training images, the default recipe is `small`."""

SAME_SHAPE: Final = 0.1
"""Images are resized to one size, without padding, if nine tenths of them have about the same aspect ratio."""


def default_recipe(images: int) -> str:
    """Name of the recipe for this many training images."""
    return "small" if images < SMALL_DATA else "published"


def with_recommended_size(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe with the image size that `recommend_size` gives for the boxes, if it asks for one and gives none itself.

    Where the images differ in shape, the aspect ratio is kept: the shorter side is that of the recommended size.
    """
    if not recipe.recommended_size or recipe.size is not None:
        return recipe
    try:
        size = recommend_size(dataset).size
    except DataError:  # without boxes
        return recipe
    shapes = np.array([dataset.size(index) for index in range(len(dataset))], dtype=np.float64)
    ratios = shapes[:, 0] / shapes[:, 1]
    alike = np.abs(np.log(ratios / (size[0] / size[1]))) <= SAME_SHAPE
    if alike.mean() >= 0.9:
        return recipe.changed({"size": size})
    return recipe.changed({"shorter_side": (min(size),), "longest_side": max(max(size), round(min(size) * 1333 / 800))})
