"""Defaults for small data: the recipe by the number of images, its size by the boxes."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_folders import picture
from folder_layouts import Labelled, write_yolo_with_yaml

from nasdsl.data import Dataset, open_dataset
from nasdsl.data.size_advice import recommend_size
from nasdsl.training import Recipe, find_recipe
from nasdsl.training.small_data import SMALL_DATA, default_recipe, with_recommended_size


def data(folder: Path, sizes: list[tuple[int, int]], side: int | None = 16) -> Dataset:
    """Images of these sizes (H, W), each with a square box of `side` pixels, or none."""
    boxes = () if side is None else (("cell", 2.0, 2.0, 2.0 + side, 2.0 + side),)
    images = [
        Labelled("train", f"im{n}", picture(folder / f"im{n}.png", size, seed=n), size, boxes) for n, size in enumerate(sizes)
    ]
    if side is None:  # of one class all the same
        extra = picture(folder / "other.png", sizes[0])
        images.append(Labelled("val", "other", extra, sizes[0], (("cell", 2.0, 2.0, 18.0, 18.0),)))
    write_yolo_with_yaml(folder / "data", images)
    return open_dataset(str(folder / "data"), "train")


def test_the_recipe_follows_from_the_number_of_images() -> None:
    assert [default_recipe(images) for images in (1, SMALL_DATA - 1, SMALL_DATA)] == ["small", "small", "published"]


def test_images_of_one_shape_get_one_size(tmp_path: Path) -> None:
    dataset = data(tmp_path, [(96, 128)] * 9 + [(128, 96)])  # one of ten may be distorted
    recipe = with_recommended_size(find_recipe("small"), dataset)
    assert recipe.size == recommend_size(dataset).size == (96, 128)


def test_images_of_several_shapes_keep_them(tmp_path: Path) -> None:
    dataset = data(tmp_path, [(96, 128)] * 3 + [(128, 96)] * 2)
    recipe = with_recommended_size(find_recipe("small"), dataset)
    shorter = min(recommend_size(dataset).size)
    assert (recipe.size, recipe.shorter_side) == (None, (shorter,))
    assert recipe.longest_side >= max(recommend_size(dataset).size)


def test_without_boxes_the_recipe_stays(tmp_path: Path) -> None:
    recipe = find_recipe("small")
    assert with_recommended_size(recipe, data(tmp_path, [(96, 128)] * 2, side=None)) == recipe


@pytest.mark.parametrize("given", ["size=64x64", "size=none", "shorter_side=[64]", "longest_side=100"])
def test_a_size_that_is_given_stays(given: str, tmp_path: Path) -> None:
    recipe = find_recipe("small").override([given])
    assert not recipe.recommended_size
    assert with_recommended_size(recipe, data(tmp_path, [(96, 128)])) == recipe


def test_a_recipe_of_a_run_is_read_as_it_was(tmp_path: Path) -> None:
    """Also with a size beside `recommended_size`, which a change of the size alone would turn off."""
    for recipe in (find_recipe("small"), with_recommended_size(find_recipe("small"), data(tmp_path, [(96, 128)]))):
        assert Recipe.from_dict(recipe.to_dict()) == recipe
