"""What can be wrong with a training that is no fault of the code."""

from __future__ import annotations


class TrainingError(ValueError):
    """A training that cannot start or go on; the message says what was found, where, and what to do."""


class RecipeError(TrainingError):
    """A recipe with settings that make no sense; the message lists all of them."""


class RunError(TrainingError):
    """A run's folder that cannot be used: it holds another run, or lacks something."""


class CheckpointError(TrainingError):
    """A checkpoint that cannot be written, or none of a run's checkpoints can be read."""


class Diverged(TrainingError):
    """Too many steps in a row had losses or gradients that are not finite."""
