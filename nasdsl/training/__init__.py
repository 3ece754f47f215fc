"""Training: the full schedule, from a recipe to a run's folder that can be resumed, evaluated and used."""

from nasdsl.training.errors import CheckpointError, Diverged, RecipeError, RunError, TrainingError
from nasdsl.training.loop import Outcome, train
from nasdsl.training.predict import Predictions, measure, predict
from nasdsl.training.recipe import RECIPES, SETTINGS, Recipe, find_recipe
from nasdsl.training.run import Run
from nasdsl.training.signals import Interrupted

__all__ = [
    "RECIPES",
    "SETTINGS",
    "CheckpointError",
    "Diverged",
    "Interrupted",
    "Outcome",
    "Predictions",
    "Recipe",
    "RecipeError",
    "Run",
    "RunError",
    "TrainingError",
    "find_recipe",
    "measure",
    "predict",
    "train",
]
