"""Random decoders trained for 20 steps, once at a stretch and once stopped and resumed: the same weights, bit for bit."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "training"))
sys.path.append(str(Path(__file__).parents[1] / "detection"))

import pytest
import random_decoders
import torch
from small_detectors import body  # from tests/detection
from small_training import checkpoint, differences, recipe  # from tests/training

from nasdsl import loads
from nasdsl.data import open_dataset
from nasdsl.detection.detector import Detector
from nasdsl.detection.factory import detector
from nasdsl.training import Diverged, Interrupted, train
from torture.subject import Case, Report, Subject

STEPS = 20


def made(text: str, seed: int) -> Detector:
    """A detector of the decoder, with a small backbone that has norms."""
    torch.manual_seed(seed)
    return detector(loads(text), body(norm=True), classes=dataset().classes, min_size=48, max_size=64)


def dataset() -> Any:
    return open_dataset("shapes:9", "train")


def settings(number: int, steps: int) -> dict[str, Any]:
    """The settings of the recipe of a case: those that hold state, in some cases."""
    rng = random.Random(f"recipe {number}")
    chosen: dict[str, Any] = {"steps": steps, "batch_size": 2, "size": (48, 64), "seed": number, "checkpoint_every": 0}
    if rng.random() < 0.4:
        chosen["ema"] = rng.choice([0.9, 0.99])
    if rng.random() < 0.3:
        chosen["accumulate"] = 2
    if rng.random() < 0.3:
        chosen |= {"optimizer": "sgd", "schedule": "step", "warmup_steps": 3}
    if rng.random() < 0.3:
        chosen |= {"mosaic": 0.5, "close_mosaic": 0.3, "scale_jitter": (0.7, 1.6)}
    if rng.random() < 0.3:
        chosen["channels_last"] = True
    return chosen


def compare(number: int, report: Report, folder: Path, steps: int = STEPS) -> None:
    """Train the decoder of a case without interruption, and with one, and compare the checkpoints."""
    text = random_decoders.text(number)
    report.about(text)
    chosen = settings(number, steps)
    how = recipe(**chosen)
    stop = random.Random(f"stop {number}").randrange(1, steps)
    whole, broken = folder / "whole", folder / "broken"
    for out in (whole, broken):
        shutil.rmtree(out, ignore_errors=True)
    try:
        train(made(text, number), dataset(), how, whole, quiet=True)
    except Diverged:
        report.count("diverged")
        return
    except ValueError as error:  # torch's: a BatchNorm on a map of one pixel, of the last batch, which may have one image
        if "more than 1 value per channel" not in str(error):
            raise
        report.count("norms of a single value")
        return
    stopped = made(text, number)
    forwards = 0

    def before_forward(module: Any, arguments: Any) -> None:
        nonlocal forwards
        if module.training:
            forwards += 1
            if forwards == (stop - 1) * how.accumulate + 1:
                os.kill(os.getpid(), signal.SIGTERM)

    stopped.register_forward_pre_hook(before_forward)
    with pytest.raises(Interrupted) as raised:
        train(stopped, dataset(), how, broken, quiet=True)
    assert raised.value.step == stop
    train(made(text, number + 1), dataset(), how, broken, resume=True, quiet=True)
    assert (found := differences(checkpoint(broken), checkpoint(whole))) == [], (stop, chosen, found[:5])
    report.count("resumed")
    report.count("steps", steps)


@contextmanager
def start(folder: Path) -> Iterator[Case]:
    """Runs are written into `folder`."""
    torch.set_num_threads(1)
    yield lambda number, report: compare(number, report, folder)


SUBJECT = Subject("resumed", "trainings", 500, start, hang=900, per_process=50)
