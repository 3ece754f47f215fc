"""Recipes: the published values, validation, JSON and the command line."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from nasdsl.training import RECIPES, SETTINGS, Recipe, RecipeError, find_recipe


def test_the_default_is_the_published_schedule() -> None:
    recipe = find_recipe("published")
    assert recipe == Recipe()
    assert (recipe.optimizer, recipe.momentum, recipe.weight_decay) == ("sgd", 0.9, 1e-4)
    assert (recipe.batch_size, recipe.learning_rate, recipe.steps) == (16, 0.01, 90_000)
    assert [round(m * 90_000) for m in recipe.milestones] == [60_000, 80_000]
    assert (recipe.bias_rate, recipe.decay_biases) == (2, False)
    assert (recipe.warmup_steps, recipe.warmup_start) == (500, 1 / 3)
    assert (recipe.shorter_side, recipe.longest_side, recipe.flip) == ((800,), 1333, 0.5)


@pytest.mark.parametrize("name", RECIPES)
def test_round_trip_through_json(name: str) -> None:
    recipe = find_recipe(name)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_every_setting_is_described() -> None:
    assert set(SETTINGS) == {f.name for f in fields(Recipe)}
    assert all(len(text) > 8 for text in SETTINGS.values())


def test_all_invalid_settings_are_named_at_once() -> None:
    with pytest.raises(RecipeError) as error:
        Recipe(optimizer="lion", learning_rate=-1, size=(1, 2, 3), batch_size=True, betas=(0.9, 1.5), steps=0, ema=float("nan"))  # type: ignore[arg-type]
    for words in (
        'optimizer is "lion": expected one of sgd, adamw',
        "learning_rate is -1: expected 0 or more",
        "size is [1, 2, 3]: expected 2 whole numbers or null",
        "batch_size is true: expected a whole number",
        "betas is [0.9, 1.5]: expected 0 to 1",
        "steps is 0: expected 1 or more",
        "ema is NaN: expected 0 to 1",
    ):
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": None}, "how long"),
        ({"steps": 3, "epochs": 3}, "one of them must be null"),
        ({"accumulate": 3}, "no multiple"),
        ({"milestones": (0.9, 0.5)}, "rising"),
        ({"ema": 1.0}, "below 1"),
        ({"learning_rate": 0.0}, "nothing would be learnt"),
        ({"clip_norm": 0}, "null clips nothing"),
        ({"shorter_side": ()}, "empty"),
        ({"learning_rate": float("inf")}, "0 or more"),
        ({"learnin_rate": 0.1}, "did you mean learning_rate"),
        ({"flip": "often"}, "expected a number"),
        ({"sizes": ((240, 320),)}, "sizes are given and size is null"),
        ({"sizes": ((240,),), "size": (240, 320)}, "a list of pairs of whole numbers"),
        ({"sizes": ((0, 320),), "size": (240, 320)}, "1 or more"),
        ({"scale_jitter": (1.2, 0.8)}, "smallest and the largest factor"),
        ({"jitter": (0.1, 0.1, 0.1, 0.7)}, "0 to 0.5"),
        ({"mosaic": 1.5}, "0 to 1"),
        ({"patience": 3}, "no evaluation before the end"),
        ({"backbone_rate": 0}, "freeze_at"),
    ],
)
def test_contradictions_and_invalid_settings(settings: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Recipe.from_dict(settings)


def test_settings_as_on_a_command_line() -> None:
    made = Recipe().override(
        ["learning-rate=0.02", "size=240x320", "epochs=2.5", "precision=bfloat16", "clip_norm=none", "cache=true"]
    )
    assert (made.learning_rate, made.size, made.epochs, made.steps) == (0.02, (240, 320), 2.5, None)
    assert (made.precision, made.clip_norm, made.cache) == ("bfloat16", None, True)
    made = made.override(["sizes=192x256,240x320", "jitter=[0.1,0.2,0.3,0.05]", "scale_jitter=[0.5,2]"])
    assert (made.sizes, made.jitter, made.scale_jitter) == (((192, 256), (240, 320)), (0.1, 0.2, 0.3, 0.05), (0.5, 2))
    assert Recipe.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert made.override(["sizes=[[192,256]]"]).sizes == ((192, 256),)
    with pytest.raises(RecipeError, match="NAME=VALUE"):
        Recipe().override(["cache"])
    with pytest.raises(RecipeError, match="published, small, quick"):
        find_recipe("fast")
