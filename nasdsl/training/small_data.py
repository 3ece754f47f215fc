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
"""Largest difference of the logarithms of two aspect ratios that count as one shape."""

MOST_OF_ONE_SHAPE: Final = 0.9
"""Share of the images that must have the recommended size's shape for all to be resized to this size."""


def default_recipe(images: int) -> str:
    """Name of the recipe for this many training images."""
    return "small" if images < SMALL_DATA else "published"


def with_recommended_size(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe with the image size that `recommend_size` gives for the boxes, if its `recommended_size` is set.

    Where the images differ in shape, their aspect ratios are kept: the shorter side is that of the recommended size. Without
    boxes, it is the same recipe.
    """
    if not recipe.recommended_size:
        return recipe
    try:
        size = recommend_size(dataset).size
    except DataError:  # there are no boxes
        return recipe
    shapes = np.array([dataset.size(index) for index in range(len(dataset))], dtype=np.float64)
    ratios = shapes[:, 0] / shapes[:, 1]
    alike = np.abs(np.log(ratios / (size[0] / size[1]))) <= SAME_SHAPE
    if alike.mean() >= MOST_OF_ONE_SHAPE:
        return recipe.changed({"size": size})
    return recipe.changed({"shorter_side": (min(size),), "longest_side": max(max(size), round(min(size) * 1333 / 800))})
