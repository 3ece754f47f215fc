"""Errors of a training."""

from __future__ import annotations


class TrainingError(ValueError):
    """A training cannot start or continue; the message says what was found, where, and what to do."""


class RecipeError(TrainingError):
    """A recipe has invalid settings; the message lists all of them."""


class RunError(TrainingError):
    """The folder of a run cannot be used: it holds another run, or a file is missing."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be written, or none of the checkpoints of a run can be read."""


class Diverged(TrainingError):
    """Too many consecutive steps had losses or gradients that are not finite."""
