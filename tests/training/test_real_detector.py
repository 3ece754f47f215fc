"""Training of a real detector: losses, loop, files and metrics together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_training import SHAPES, VAL, differences, recipe
from torch import nn

from nasdsl import load, resources
from nasdsl.detection.backbones import FeatureExtractor
from nasdsl.detection.detector import Detector
from nasdsl.detection.factory import detector, load_detector
from nasdsl.training import Recipe, Run, compute_metrics, predict, train
from nasdsl.training.checkpoint import load_checkpoint


class Body(nn.Module):
    """Three strided convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride, 1), nn.ReLU()) for a, b, stride in ((3, 8, 8), (8, 8, 2), (8, 8, 2))
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


def body() -> FeatureExtractor:
    return FeatureExtractor(Body(), ("c3", "c4", "c5"))


def make(seed: int) -> Detector:
    torch.manual_seed(seed)
    decoder = load(resources.folder("genotypes") / "fcos.nas").with_width(64)
    return detector(decoder, body(), classes=SHAPES.classes, category_ids=SHAPES.category_ids, fixed_size=(48, 64))


def test_train_interrupt_resume_load_and_predict(tmp_path: Path) -> None:
    how = recipe(size=(48, 64), epochs=2, optimizer="sgd", learning_rate=0.005, schedule="constant", log_every=1)
    train(make(0), SHAPES, how, tmp_path / "whole", VAL, quiet=True)

    def crash(*_: object) -> None:
        raise ZeroDivisionError

    out, broken = tmp_path / "broken", make(0)
    saving = how.changed({"checkpoint_every": 2})
    calls = iter(range(100))
    broken.backbone.register_forward_hook(lambda *_: crash() if next(calls) == 4 else None)
    with pytest.raises(ZeroDivisionError):
        train(broken, SHAPES, saving, out, VAL, quiet=True)
    outcome = train(make(1), SHAPES, saving, out, VAL, resume=True, quiet=True)

    states = [load_checkpoint(Run(folder).checkpoint).state for folder in (tmp_path / "whole", out)]  # type: ignore[union-attr]
    assert differences(*states) == []
    losses = [json.loads(line)["losses"] for line in Run(out).log.read_text().splitlines() if "losses" in line]
    assert [set(found) for found in losses] == [{"classification", "bbox_regression", "bbox_ctrness"}] * count_steps(how)
    assert sum(losses[-1].values()) < sum(losses[0].values())

    again = load_detector(out, body())
    predictions = predict(again, VAL, batch_size=4)
    assert predictions.results == json.loads(Run(out).results.read_text())
    assert compute_metrics(predictions, VAL) == outcome.evaluation


def count_steps(how: Recipe) -> int:
    """Steps of a training."""
    assert how.epochs is not None
    return int(how.epochs) * (len(SHAPES) // how.batch_size)
