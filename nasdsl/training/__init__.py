"""Full training of a detector by a recipe, into the folder of a run that can be resumed and evaluated."""

from nasdsl.training.errors import CheckpointError, Diverged, RecipeError, RunError, TrainingError
from nasdsl.training.loop import TrainingResult, train
from nasdsl.training.predict import Predictions, compute_metrics, predict
from nasdsl.training.recipe import RECIPES, SETTINGS, Recipe, find_recipe
from nasdsl.training.run import Run
from nasdsl.training.signals import Interrupted
from nasdsl.training.trackers import TRACKERS

__all__ = [
    "RECIPES",
    "SETTINGS",
    "TRACKERS",
    "CheckpointError",
    "Diverged",
    "Interrupted",
    "Predictions",
    "Recipe",
    "RecipeError",
    "Run",
    "RunError",
    "TrainingError",
    "TrainingResult",
    "compute_metrics",
    "find_recipe",
    "predict",
    "train",
]
